//! What a status means for whoever sent the request. Pure: even the time comes from the answer.

use std::time::Duration;

use crate::sinks::{RejectClass, Report};
use hyper::header::{DATE, LOCATION, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};

/// What a status says. Sinks refine it where their backend means something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    /// It was taken.
    Taken,
    /// It may work later.
    Retry {
        /// How long the backend asks to wait.
        after: Option<Duration>,
    },
    /// The backend has too much to do: it may work later, and less at a time.
    Throttled {
        /// How long the backend asks to wait.
        after: Option<Duration>,
    },
    /// The backend failed, perhaps because of what was sent.
    Fault,
    /// The body is larger than the backend takes.
    TooLarge,
    /// The body is not what the backend takes.
    Malformed,
    /// It cannot work before somebody changes the configuration here or there.
    Stop,
}

/// What an answer's status and headers say.
pub fn classify(status: StatusCode, headers: &HeaderMap) -> StatusClass {
    match status.as_u16() {
        200..=299 => StatusClass::Taken,
        429 | 503 => StatusClass::Throttled { after: retry_after(headers) },
        // 408: the backend waited in vain for our body. 425: early data. 502, 504: who stands before it cannot reach it.
        // 521..=525: the same, said by Cloudflare.
        408 | 425 | 502 | 504 | 521..=525 => StatusClass::Retry { after: retry_after(headers) },
        413 => StatusClass::TooLarge,
        400 | 411 | 414 | 422 | 431 => StatusClass::Malformed,
        // What we send comes back to us, or goes round between others.
        508 => StatusClass::Stop,
        500..=599 => StatusClass::Fault,
        // Redirects, 401, 402, 403, 404, 405, 410, 415 and whatever else: the address, the key or the plan is wrong.
        _ => StatusClass::Stop,
    }
}

impl StatusClass {
    /// What follows from it for everything that was sent. `answer` is what the backend said of it.
    pub fn report(self, reason: String, answer: impl FnOnce() -> String) -> Report {
        match self {
            Self::Taken => Report::delivered(),
            Self::Retry { after } => Report::down(after, reason),
            Self::Throttled { after } => Report::slow(after, reason),
            Self::Fault => Report::fault(reason, answer()),
            Self::TooLarge => Report::split(RejectClass::TooLarge, reason, answer()),
            Self::Malformed => Report::split(RejectClass::Malformed, reason, answer()),
            Self::Stop => Report::hold(reason),
        }
    }
}

/// How long an answer asks to wait: `Retry-After` in seconds or as a date, which is compared with the answer's own `Date`, so
/// that neither clock has to be right.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::try_from_secs_f64(seconds).ok()?
    } else {
        let now = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// A status in words, with where a redirect leads: scheme and host, no more.
pub fn describe(status: StatusCode, headers: &HeaderMap) -> String {
    let name = status.canonical_reason().unwrap_or("unknown status");
    let target = headers
        .get(LOCATION)
        .filter(|_| status.is_redirection())
        .and_then(|location| location.to_str().ok()?.parse::<hyper::Uri>().ok())
        .and_then(|location| Some(format!("{}://{}", location.scheme_str()?, location.host()?)));
    match target {
        Some(target) => format!(
            "HTTP {} {name}: redirects are not followed; this one points to {target}",
            status.as_u16()
        ),
        None => format!("HTTP {} {name}", status.as_u16()),
    }
}

/// The longest that a backend can make us wait: an operator who mends it should not have to wait for more.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(15);

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(pairs: &[(hyper::header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn every_status_says_what_to_do() {
        let none = HeaderMap::new();
        let retry = StatusClass::Retry { after: None };
        let throttled = StatusClass::Throttled { after: None };
        for (statuses, verdict) in [
            (&[200, 201, 202, 204, 207][..], StatusClass::Taken),
            (&[429, 503], throttled),
            (&[408, 425, 502, 504, 522], retry),
            (&[413], StatusClass::TooLarge),
            (&[400, 422, 431], StatusClass::Malformed),
            (&[500, 501, 507, 599], StatusClass::Fault),
            (&[301, 302, 307, 308, 401, 402, 403, 404, 405, 410, 415, 451, 508], StatusClass::Stop),
        ] {
            for status in statuses {
                let status = StatusCode::from_u16(*status).unwrap();
                assert_eq!(classify(status, &none), verdict, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        const NOW: &str = "Sat, 21 Nov 2026 12:00:00 GMT";
        let seconds = |text| retry_after(&headers(&[(RETRY_AFTER, text)]));
        assert_eq!(seconds("7"), Some(Duration::from_secs(7)));
        assert_eq!(seconds(" 0 "), Some(Duration::ZERO));
        assert_eq!(seconds("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(seconds("31536000"), Some(RETRY_AFTER_MAX));
        for odd in ["-1", "soon", "", "NaN", "1e400"] {
            assert_eq!(seconds(odd), None, "{odd}");
        }
        let date = |then| retry_after(&headers(&[(RETRY_AFTER, then), (DATE, NOW)]));
        assert_eq!(date("Sat, 21 Nov 2026 12:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(date("Saturday, 21-Nov-26 12:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(date("Sat, 21 Nov 2026 11:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(date("Sat, 21 Nov 2037 11:00:00 GMT"), Some(RETRY_AFTER_MAX));
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, NOW)])), None);
    }

    #[test]
    fn a_redirect_is_described_without_its_path() {
        let headers = headers(&[(LOCATION, "https://example.com/login?token=hush")]);
        let text = describe(StatusCode::FOUND, &headers);
        assert!(text.contains("https://example.com") && !text.contains("hush"), "{text}");
        assert_eq!(describe(StatusCode::NOT_FOUND, &headers), "HTTP 404 Not Found");
    }
}
