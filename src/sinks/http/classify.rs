//! Classifies HTTP statuses. Pure: even the time comes from the answer.

use std::time::Duration;

use crate::sinks::{RejectClass, Report};
use hyper::header::{DATE, LOCATION, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};

/// The class of a status. Sinks refine it if their backend uses a status differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    /// The request was accepted.
    Taken,
    /// A retry may succeed.
    Retry {
        /// The wait that the backend asks for.
        after: Option<Duration>,
    },
    /// The backend is overloaded: a retry may succeed, at a lower rate.
    Throttled {
        /// The wait that the backend asks for.
        after: Option<Duration>,
    },
    /// The backend failed, perhaps because of the request.
    Fault,
    /// The body exceeds the backend's size limit.
    TooLarge,
    /// The backend rejects the body as invalid.
    Malformed,
    /// No retry succeeds until someone changes the configuration on either side.
    Stop,
}

/// Classifies an answer by its status and headers.
pub fn classify(status: StatusCode, headers: &HeaderMap) -> StatusClass {
    match status.as_u16() {
        200..=299 => StatusClass::Taken,
        429 | 503 => StatusClass::Throttled { after: retry_after(headers) },
        // 408: the backend timed out waiting for the body. 425: early data. 502, 504: a proxy cannot reach the backend. 521..=525: the
        // same, from Cloudflare.
        408 | 425 | 502 | 504 | 521..=525 => StatusClass::Retry { after: retry_after(headers) },
        413 => StatusClass::TooLarge,
        400 | 411 | 414 | 422 | 431 => StatusClass::Malformed,
        // The request loops back to this daemon, or among others.
        508 => StatusClass::Stop,
        500..=599 => StatusClass::Fault,
        // Redirects, 401, 402, 403, 404, 405, 410, 415 and all others: the address, the key or the plan is wrong.
        _ => StatusClass::Stop,
    }
}

impl StatusClass {
    /// Returns the report for everything that was sent. `answer` is the backend's text.
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

/// Returns the wait that an answer asks for. `Retry-After` is in seconds or a date; the date is compared with the answer's own `Date`, so
/// neither clock has to be right.
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

/// Describes a status. For a redirect it adds the target's scheme and host, but nothing more.
pub fn describe(status: StatusCode, headers: &HeaderMap) -> String {
    let name = status.canonical_reason().unwrap_or("unknown status");
    let target = headers
        .get(LOCATION)
        .filter(|_| status.is_redirection())
        .and_then(|location| location.to_str().ok()?.parse::<hyper::Uri>().ok())
        .and_then(|location| Some(format!("{}://{}", location.scheme_str()?, location.host()?)));
    let note = |target| format!(": redirects are not followed; this one points to {target}");
    format!("HTTP {} {name}{}", status.as_u16(), target.map(note).unwrap_or_default())
}

/// The longest wait that a backend can impose. An operator who fixed the backend should not have to wait longer.
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
