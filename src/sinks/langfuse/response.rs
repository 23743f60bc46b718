//! Answers become outcomes. Pure.
//!
//! | answer | outcome |
//! |---|---|
//! | 2xx | delivered. The body is a note about a queue and is not read: whether a span can be used is found out later, and by nobody |
//! | 2xx with a web page | stop: this is no Langfuse |
//! | 408, 5xx but 503; no connection, no answer | retry: blob storage, queue or database is down, whatever was sent |
//! | 429, 503 | throttled, for as long as asked |
//! | 413 | too large: halves |
//! | 400, 422 | malformed: one span is enough for it, so halves; unless it is about our headers, which halves would not mend: stop |
//! | 401, 403 | stop: the keys are wrong, or ingestion is suspended |
//! | redirects, 404, 405 and whatever else | stop: the address is wrong, or the server is older than 3.22 |

use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;

use crate::sinks::Outcome;
use crate::sinks::http::Response;
use crate::sinks::http::classify::{Verdict, classify, describe, retry_after};

/// What an answer to a request of so many bytes, before compression, means.
pub(super) fn read(response: &Response, request_bytes: usize) -> Outcome {
    let reason = describe(response.status, &response.headers);
    match classify(response.status, &response.headers) {
        Verdict::Taken if is_page(response) => Outcome::Stop {
            reason: format!("{reason}, but with a web page: this address is not Langfuse's"),
        },
        Verdict::Taken => Outcome::Delivered,
        Verdict::Retry { after } => Outcome::Retry { after, reason },
        // It cannot be the spans: they are not looked at before the answer.
        Verdict::Fault => Outcome::Retry { after: retry_after(&response.headers), reason },
        Verdict::Throttled { after } => Outcome::Throttled { after, reason },
        Verdict::TooLarge => Outcome::TooLarge { request_bytes, reason, answer: answer(response) },
        Verdict::Malformed if is_about_headers(response) => Outcome::Stop {
            reason: format!("{reason}: the server does not take the headers of this version"),
        },
        Verdict::Malformed => Outcome::Malformed { reason, answer: answer(response) },
        Verdict::Stop => Outcome::Stop { reason: format!("{reason}{}", advice(response.status)) },
    }
}

/// What an operator can do about it.
fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => ": the keys are not of this server; see public_key, secret_key and base_url",
        403 => ": the keys may not send, or ingestion is suspended",
        404 | 405 => ": no OTLP there; base_url is wrong, or the server is older than 3.22",
        _ => "",
    }
}

fn is_page(response: &Response) -> bool {
    let media_type = response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media_type.is_some_and(|media_type| media_type.trim_start().starts_with("text/html"))
}

/// Whether a 400 is about content type, coding or version, which are the same for all requests.
fn is_about_headers(response: &Response) -> bool {
    let answer = answer(response).to_ascii_lowercase();
    ["content type", "content-type", "content-encoding", "ingestion-version", "ingestion version"]
        .iter()
        .any(|phrase| answer.contains(phrase))
}

/// What the server says, as far as it is worth keeping.
fn answer(response: &Response) -> String {
    let kept = response.body.get(..ANSWER_BYTES_MAX).unwrap_or(&response.body);
    String::from_utf8_lossy(kept).into_owned()
}

/// An error is a sentence.
const ANSWER_BYTES_MAX: usize = 2 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use hyper::HeaderMap;
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

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

    fn outcome(status: u16, body: &'static str) -> Outcome {
        read(&answer(status, ("content-type", "application/json"), body), 7)
    }

    #[test]
    fn a_success_is_not_read() {
        for body in ["{\"id\":\"job\"}", "{}", "", "no JSON", "\u{0}\u{ff}"] {
            assert_eq!(outcome(200, body), Outcome::Delivered, "{body:?}");
        }
        let page = read(&answer(200, ("content-type", "text/html; charset=utf-8"), "<html>"), 7);
        assert!(matches!(page, Outcome::Stop { .. }), "{page:?}");
    }

    #[test]
    fn what_is_down_comes_back_and_is_never_halved_for() {
        for status in [408, 500, 502, 504, 520] {
            assert!(matches!(outcome(status, "{}"), Outcome::Retry { .. }), "{status}");
        }
        for status in [429, 503] {
            let limited = read(&answer(status, ("retry-after", "9"), ""), 7);
            let asked = Some(Duration::from_secs(9));
            assert!(
                matches!(limited, Outcome::Throttled { after, .. } if after == asked),
                "{status}"
            );
        }
    }

    #[test]
    fn a_bad_request_is_halved_unless_it_is_about_headers() {
        let spans = "{\"error\":\"The entire export was rejected and no spans were ingested\"}";
        assert!(matches!(outcome(400, spans), Outcome::Malformed { .. }));
        assert!(matches!(outcome(413, "{}"), Outcome::TooLarge { request_bytes: 7, .. }));
        for headers in ["Invalid content type", "Invalid x-langfuse-ingestion-version"] {
            assert!(matches!(outcome(400, headers), Outcome::Stop { .. }), "{headers}");
        }
    }

    #[test]
    fn what_an_operator_must_mend_says_how() {
        for (status, word) in [(401, "keys"), (403, "suspended"), (404, "3.22"), (405, "3.22")] {
            let outcome = outcome(status, "{}");
            assert!(
                matches!(&outcome, Outcome::Stop { reason } if reason.contains(word)),
                "{outcome:?}"
            );
        }
        for status in [301, 402, 418] {
            assert!(matches!(outcome(status, ""), Outcome::Stop { .. }), "{status}");
        }
    }
}
