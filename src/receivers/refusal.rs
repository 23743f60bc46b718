//! Reasons for refusing a request, and the answer of each receiver: one table for all protocols.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use tonic::Code;

use crate::feed;
use crate::normalize::{InflateError, Malformed};
use crate::support::clock;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The path is unknown; the text says what to do instead.
    #[error("{0}")]
    NotFound(String),
    /// The operator does not want this signal.
    #[error("this daemon stores traces only: switch this signal off in the client")]
    Unwanted,
    #[error("this path accepts POST: {0}")]
    Method(&'static str),
    /// It comes from a web page that may not send.
    #[error(
        "web pages of this origin may not send here: add it to receivers.cors.allowed_origins, or send without \
         a browser"
    )]
    Origin,
    /// The key is missing or unknown.
    #[error("the credentials are missing or unknown")]
    Unauthenticated,
    /// A sink of this daemon sent it, perhaps through others: it would be sent again, forever.
    #[error(
        "this went through a sink of this daemon before, or through too many daemons: an address \
         leads back here; give that sink the address of the next receiver"
    )]
    Loop,
    /// The path does not accept the media type.
    #[error("Content-Type must be {0}")]
    MediaType(&'static str),
    /// The compression of the body is unknown.
    #[error("the body's encoding is unknown: use gzip, deflate, zstd or none")]
    Coding,
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    Malformed(String),
    /// The gRPC frame of the message is broken, in a way for which gRPC has a code.
    #[error("{0}")]
    Frame(&'static str),
    /// The request is valid, but the client should retry it.
    #[error("{why}: retry in a moment")]
    Busy {
        /// The obstacle.
        why: &'static str,
        /// Number of items in the request, if known; otherwise 1.
        items: u32,
    },
    /// Its tenant exceeded its limits: the client should retry after this time.
    #[error("this tenant sends more than receivers.limits allows: retry in a moment")]
    Limited(Duration),
    /// The body stopped arriving.
    #[error("the body was not sent in time")]
    Slow,
    /// The client is gone, or does not send valid HTTP.
    #[error("the body was cut off")]
    Gone,
}

impl Refusal {
    pub(super) const STOPPING: Self = Self::Busy { why: "the daemon is stopping", items: 1 };
    /// The program panicked. The answer allows a retry that may succeed, because the alternative loses data.
    pub(super) const PANICKED: Self =
        Self::Busy { why: "the request could not be handled", items: 1 };

    pub(super) const TOO_MANY_BYTES: Self =
        Self::Busy { why: "too many bytes are in flight", items: 1 };

    /// Refuses a body that exceeds the wire limit.
    pub(super) fn body_too_large(max: usize) -> Self {
        Self::TooLarge(format!(
            "the body is larger than {max} bytes: send fewer spans in a request, or raise \
             receivers.body_bytes_max"
        ))
    }

    /// Refuses a request that needs more memory than there is.
    pub(super) fn needs_too_much(bytes: usize, max: usize) -> Self {
        Self::TooLarge(format!(
            "the request may take {bytes} bytes of memory and may have {max}: send fewer spans in a request, or \
             raise receivers.in_flight_bytes_max"
        ))
    }

    /// Converts a refusal of the journal for a request with `items` items.
    pub(super) fn of_journal(refusal: &feed::Refusal, items: u32) -> Self {
        let why = match refusal {
            feed::Refusal::Full => "the journal is full",
            feed::Refusal::NoSpace => "the disk is full",
            feed::Refusal::Stopping => "the daemon is stopping",
            feed::Refusal::TooLarge => return Self::TooLarge(refusal.to_string()),
        };
        Self::Busy { why, items }
    }
}

/// Maximum wait that a client is asked for. Python and JS exporters drop a batch if the wait exceeds the rest of their ten seconds.
const RETRY_AFTER_SECONDS_MAX: u64 = 5;

/// The answer to a refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The code over gRPC, and in the `google.rpc.Status` of OTLP over HTTP.
    pub(super) code: Code,
    /// The code in the JSON of OpenAI's errors.
    pub(super) openai: &'static str,
}

impl Refusal {
    /// Returns the answer. Clients retry on 503 and 429, and over gRPC on `UNAVAILABLE`, `DEADLINE_EXCEEDED` and, if it tells the delay,
    /// `RESOURCE_EXHAUSTED`; a loop makes the sink's lane hold.
    pub(super) fn answer(&self) -> Answer {
        let (status, code, openai) = match self {
            Self::NotFound(_) | Self::Unwanted => (404, Code::Unimplemented, "not_found"),
            Self::Method(_) => (405, Code::Unimplemented, "method_not_allowed"),
            Self::Origin => (403, Code::PermissionDenied, "origin_not_allowed"),
            Self::Unauthenticated => (401, Code::Unauthenticated, "invalid_api_key"),
            Self::Loop => (508, Code::PermissionDenied, "loop_detected"),
            Self::MediaType(_) => (415, Code::InvalidArgument, "unsupported_media_type"),
            Self::Coding => (415, Code::Unimplemented, "unsupported_encoding"),
            // Never `OUT_OF_RANGE`, and never with `RetryInfo`: clients would send the same request again until they drop it.
            Self::TooLarge(_) => (413, Code::ResourceExhausted, "request_too_large"),
            Self::Malformed(_) | Self::Frame(_) => (400, Code::InvalidArgument, "invalid_body"),
            Self::Limited(_) => (429, Code::ResourceExhausted, "rate_limit_exceeded"),
            Self::Busy { .. } | Self::Gone => (503, Code::Unavailable, "unavailable"),
            // Over HTTP there is no answer at all.
            Self::Slow => (503, Code::DeadlineExceeded, "unavailable"),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        Answer { status, code, openai }
    }

    /// Returns the number of seconds after which the client should retry: whole seconds, different for different clients.
    pub(super) fn retry_after(&self) -> Option<u64> {
        // The clock's microseconds are random enough for this.
        match self {
            Self::Busy { .. } => Some(1 + clock::unix_now_ns() / 1000 % RETRY_AFTER_SECONDS_MAX),
            Self::Limited(wait) => Some((wait.as_secs() + 1).min(RETRY_AFTER_SECONDS_MAX)),
            _ => None,
        }
    }

    pub(super) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        Some(match self {
            Self::Method(_) => (ALLOW, super::ALLOWED_METHODS),
            Self::Unauthenticated => {
                (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"spanferry\""))
            }
            Self::Coding => {
                (ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, zstd, identity"))
            }
            _ => (RETRY_AFTER, HeaderValue::from(self.retry_after()?)),
        })
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        let text = bounded(malformed.to_string());
        match malformed {
            Malformed::TooMany { .. } => Self::TooLarge(text + ": send fewer spans in a request"),
            Malformed::Syntax { .. } | Malformed::Shape(_) => Self::Malformed(text),
        }
    }
}

impl From<InflateError> for Refusal {
    fn from(error: InflateError) -> Self {
        let text = bounded(error.to_string());
        match error {
            InflateError::TooLarge { .. } => Self::TooLarge(
                text + ": send fewer spans in a request, or raise receivers.body_bytes_max_inflated",
            ),
            InflateError::Broken { .. } => Self::Malformed(text),
        }
    }
}

/// Maximum size of an error text: it goes into headers (gRPC) and logs of clients, and a parser's text may be long.
const TEXT_BYTES_MAX: usize = 512;

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_every_protocol_are_told_the_same() {
        let text = || "why".to_owned();
        let busy = Refusal::Busy { why: "why", items: 1 };
        // According to <https://opentelemetry.io/docs/specs/otlp/>: what a client retries over gRPC, and over HTTP. `RESOURCE_EXHAUSTED`
        // only with `RetryInfo`.
        let (grpc, http) = (
            [
                Code::Cancelled,
                Code::DeadlineExceeded,
                Code::Aborted,
                Code::OutOfRange,
                Code::Unavailable,
                Code::DataLoss,
            ],
            [429, 502, 503, 504],
        );
        for (refusal, is_retried) in [
            (Refusal::NotFound(text()), false),
            (Refusal::Unwanted, false),
            (Refusal::Method("why"), false),
            (Refusal::Origin, false),
            (Refusal::Unauthenticated, false),
            (Refusal::Loop, false),
            (Refusal::MediaType("why"), false),
            (Refusal::Coding, false),
            (Refusal::TooLarge(text()), false),
            (Refusal::Malformed(text()), false),
            (Refusal::Frame("why"), false),
            (busy, true),
            (Refusal::Limited(Duration::from_mins(1)), true),
            (Refusal::Slow, true),
            (Refusal::Gone, true),
        ] {
            let Answer { status, code, .. } = refusal.answer();
            let has_retry_info = code == Code::ResourceExhausted && refusal.retry_after().is_some();
            assert_eq!(grpc.contains(&code) || has_retry_info, is_retried, "{refusal:?} {code:?}");
            assert_eq!(http.contains(&status.as_u16()), is_retried, "{refusal:?} {status}");
        }
    }
}
