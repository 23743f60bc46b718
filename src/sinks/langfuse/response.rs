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
