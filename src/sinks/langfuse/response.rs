//! Turns responses into reports. Pure.
//!
//! | response | report |
//! |---|---|
//! | 2xx | delivered. The body describes a queue and is not read: Langfuse checks spans later and reports no result |
//! | 2xx with a web page | stop: the server is not Langfuse |
//! | 408, 5xx except 503; no connection, no response | retry: blob storage, queue or database is down, whatever was sent |
//! | 429, 503 | throttled, for as long as requested |
//! | 413 | too large: halves |
//! | 400, 422 | malformed: one span can cause it, so halves; if it concerns our headers, which halving would not solve: stop |
//! | 401, 403 | stop: the keys are wrong, or ingestion is suspended |
//! | redirects, 404, 405 and all others | stop: the address is wrong, or the server is older than 3.22 |

use hyper::StatusCode;

use crate::sinks::Report;
use crate::sinks::http::Response;
use crate::sinks::http::classify::{StatusClass, retry_after};

/// Returns what a response means for the items of its request.
pub(super) fn read(response: &Response) -> Report {
    let reason = response.reason();
    match response.class() {
        // Spans are not the cause: Langfuse checks them only after its response.
        StatusClass::Fault => Report::down(retry_after(&response.headers), reason),
        StatusClass::Malformed if is_about_headers(response) => {
            Report::hold(format!("{reason}: the server does not accept this version's headers"))
        }
        StatusClass::Stop => Report::hold(format!("{reason}{}", advice(response.status))),
        class => class.report(reason, || response.answer()),
    }
}

/// Returns what an operator can do.
fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => ": the server does not know the keys; check public_key, secret_key and base_url",
        403 => ": the keys may not send, or ingestion is suspended",
        404 | 405 => ": no OTLP endpoint; base_url is wrong, or the server is older than 3.22",
        _ => "",
    }
}

/// Returns whether a 400 concerns content type, encoding or version, which are the same for all requests.
fn is_about_headers(response: &Response) -> bool {
    let answer = response.answer().to_ascii_lowercase();
    ["content type", "content-type", "content-encoding", "ingestion-version", "ingestion version"]
        .iter()
        .any(|phrase| answer.contains(phrase))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use hyper::HeaderMap;
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::sinks::{Pace, RejectClass};

    fn answer(status: u16, header: (&'static str, &'static str), body: &'static str) -> Response {
        let (name, value) = header;
        let header = (HeaderName::from_static(name), HeaderValue::from_static(value));
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::from_iter([header]),
            body: Bytes::from_static(body.as_bytes()),
            is_cut: false,
            trailers: HeaderMap::new(),
        }
    }

    fn report(status: u16, body: &'static str) -> Report {
        read(&answer(status, ("content-type", "application/json"), body))
    }

    #[test]
    fn a_success_is_not_read() {
        for body in ["{\"id\":\"job\"}", "{}", "", "no JSON", "\u{0}\u{ff}"] {
            assert_eq!(report(200, body), Report::delivered(), "{body:?}");
        }
        let page = read(&answer(200, ("content-type", "text/html; charset=utf-8"), "<html>"));
        assert!(matches!(page.pace, Pace::Hold { .. }), "{page:?}");
    }

    #[test]
    fn what_is_down_comes_back_and_is_never_halved_for() {
        for status in [408, 500, 502, 504, 520] {
            let down = report(status, "{}");
            assert!(matches!(down.pace, Pace::Down { .. }), "{status}");
            assert_eq!(down.refusal(), None, "{status}");
        }
        for status in [429, 503] {
            let limited = read(&answer(status, ("retry-after", "9"), ""));
            let asked = Some(Duration::from_secs(9));
            assert!(matches!(limited.pace, Pace::Slow { after, .. } if after == asked), "{status}");
        }
    }

    #[test]
    fn a_bad_request_is_halved_unless_it_is_about_headers() {
        let spans = "{\"error\":\"The entire export was rejected and no spans were ingested\"}";
        for (status, body, class) in
            [(400, spans, RejectClass::Malformed), (413, "{}", RejectClass::TooLarge)]
        {
            assert_eq!(report(status, body).refusal().unwrap().class, class);
        }
        for headers in ["Invalid content type", "Invalid x-langfuse-ingestion-version"] {
            assert!(matches!(report(400, headers).pace, Pace::Hold { .. }), "{headers}");
        }
    }

    #[test]
    fn what_an_operator_must_mend_says_how() {
        for (status, word) in [(401, "keys"), (403, "suspended"), (404, "3.22"), (405, "3.22")] {
            let Pace::Hold { reason } = report(status, "{}").pace else { panic!("{status}") };
            assert!(reason.contains(word), "{reason}");
        }
        for status in [301, 402, 418] {
            assert!(matches!(report(status, "").pace, Pace::Hold { .. }), "{status}");
        }
    }
}
