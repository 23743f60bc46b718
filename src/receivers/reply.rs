//! The answers of each protocol.
//!
//! * **OpenAI**, for the Agents SDK: the SDKs only look at the status. They drop a batch on any 4xx except 408, 409 and 429 (older ones on
//!   429 too), and try three times within about three seconds on 5xx. So requests that could succeed later never get a 4xx, and invalid
//!   items are quarantined one by one while the request succeeds.
//! * **OTLP** over HTTP and gRPC: responses with their partial success, and `google.rpc.Status` for everything else.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use serde_json::{Map, Value, json};
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic_types::{ErrorDetails, RetryInfo, StatusExt as _, pb};

use super::grpc;
use super::refusal::{Answer, Refusal};
use super::signal::Signal;
use crate::normalize::{Encoding, Warning};

const GRPC_MEDIA: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_CODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,deflate,zstd");

/// A media type of OTLP over HTTP, and its wire format.
pub(super) type Media = (&'static str, Encoding);

/// JSON, which also answers requests with an unknown media type.
pub(super) const JSON: Media = ("application/json", Encoding::Json);

/// The result of an accepted request.
#[derive(Debug)]
pub(super) enum Taken {
    /// Items were stored or counted.
    Export(Option<Partial>),
    /// A gRPC health check: whether requests are accepted.
    Health(bool),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partial {
    signal: Signal,
    rejected: u64,
    /// The reason for rejections, or the repairs of accepted items. Never payload text.
    text: String,
}

impl Partial {
    /// Describes a stored request to its client, with the number of quarantined items; `None` if there is nothing to report.
    pub(super) fn of(
        (quarantined, items): (u32, usize),
        reasons: &[(&'static str, u32)],
        warnings: &[Warning],
    ) -> Option<Self> {
        if reasons.is_empty() && warnings.is_empty() {
            return None;
        }
        let mut text = String::new();
        let mut separator = "";
        if 0 < quarantined {
            write!(text, "{quarantined} of {items} spans are invalid and were quarantined").ok();
            separator = ": ";
        }
        for (reason, count) in reasons {
            write!(text, "{separator}{reason} ({count})").ok();
            separator = ", ";
        }
        for Warning { what, count } in warnings {
            let separator = if text.is_empty() { "" } else { "; " };
            write!(text, "{separator}{what} ({count})").ok();
        }
        Some(Self { signal: Signal::Traces, rejected: quarantined.into(), text })
    }

    /// Describes a request with items of a signal that is not stored; `None` if there were none.
    pub(super) fn unstored(signal: Signal, items: u64) -> Option<Self> {
        let text = || signal.about().advice.to_owned();
        (0 < items).then(|| Self { signal, rejected: items, text: text() })
    }
}

impl Taken {
    /// Encodes the answer in protobuf.
    fn message(&self) -> Vec<u8> {
        let partial = match self {
            // `grpc.health.v1.HealthCheckResponse` has one number: `SERVING` is 1, `NOT_SERVING` 2.
            Self::Health(is_serving) => {
                return (if *is_serving { 1_i32 } else { 2 }).encode_to_vec();
            }
            Self::Export(partial) => partial.as_ref(),
        };
        // The responses of the other signals have the same fields on the wire.
        let partial_success = partial.map(|partial| ExportTracePartialSuccess {
            rejected_spans: i64::try_from(partial.rejected).unwrap_or(i64::MAX),
            error_message: partial.text.clone(),
        });
        ExportTraceServiceResponse { partial_success }.encode_to_vec()
    }

    /// Encodes the answer in JSON: an empty object without a partial success.
    fn json(&self) -> Value {
        let mut response = Map::new();
        if let Self::Export(Some(partial)) = self {
            let mut inner = Map::from_iter([("errorMessage".to_owned(), json!(partial.text))]);
            // The mapping writes 64-bit integers as strings and omits zeros.
            if 0 < partial.rejected {
                let member = partial.signal.about().rejected_member.to_owned();
                inner.insert(member, partial.rejected.to_string().into());
            }
            response.insert("partialSuccess".to_owned(), inner.into());
        }
        response.into()
    }
}

/// Answers the Agents SDK: 204, or an error in OpenAI's shape.
pub(super) fn openai(outcome: &Result<Taken, Refusal>) -> Response {
    let Err(refusal) = outcome else { return StatusCode::NO_CONTENT.into_response() };
    let Answer { status, openai: code, .. } = refusal.answer();
    let (status, kind) = match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            (StatusCode::SERVICE_UNAVAILABLE, "server_error")
        }
        _ => (status, "invalid_request_error"),
    };
    let message = refusal.to_string();
    let error = json!({ "message": message, "type": kind, "param": null, "code": code });
    refused(status, refusal, JSON.0, json!({ "error": error }).to_string().into())
}

/// Answers OTLP over HTTP, in the request's media type.
pub(super) fn otlp((media, encoding): Media, outcome: &Result<Taken, Refusal>) -> Response {
    let taken = match outcome {
        Ok(taken) => taken,
        Err(refusal) => {
            let status = refusal.answer().status;
            return refused(status, refusal, media, error(encoding, refusal));
        }
    };
    let body = match encoding {
        Encoding::Protobuf => taken.message(),
        Encoding::Json => taken.json().to_string().into(),
    };
    ([(CONTENT_TYPE, media)], body).into_response()
}

fn refused(status: StatusCode, refusal: &Refusal, media: &'static str, body: Vec<u8>) -> Response {
    let mut response = (status, [(CONTENT_TYPE, media)], body).into_response();
    response.headers_mut().extend(refusal.header());
    response
}

/// Encodes an error of OTLP over HTTP.
fn error(encoding: Encoding, refusal: &Refusal) -> Vec<u8> {
    let status = status(refusal);
    let (code, message) = (i32::from(status.code()), status.message());
    if encoding == Encoding::Protobuf {
        if !status.details().is_empty() {
            return status.details().to_vec();
        }
        return pb::Status { code, message: message.to_owned(), details: Vec::new() }
            .encode_to_vec();
    }
    let mut body = json!({ "code": code, "message": message });
    if let (Refusal::Malformed(_), Some(members)) = (refusal, body.as_object_mut()) {
        let details = json!([{
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{ "field": "body", "description": message }],
        }]);
        members.insert("details".to_owned(), details);
    }
    body.to_string().into()
}

/// Answers over gRPC; returns the code too. Errors are trailers-only, because some clients retry on nothing else.
pub(super) fn grpc(outcome: &Result<Taken, Refusal>) -> (Response, u16) {
    let refusal = match outcome {
        Ok(taken) => return (grpc_success(&taken.message()), 0),
        Err(refusal) => refusal,
    };
    let status = status(refusal);
    let code = u16::try_from(i32::from(status.code())).unwrap_or(u16::MAX);
    let mut response = status.into_http::<Body>();
    if *refusal == Refusal::Coding {
        response.headers_mut().insert("grpc-accept-encoding", GRPC_CODINGS);
    }
    (response, code)
}

fn grpc_success(message: &[u8]) -> Response {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    // The answer has no content length: some clients (curl) stop reading after that length and miss the trailers.
    let frames = [Frame::data(grpc::framed(message)), Frame::trailers(trailers)];
    let frames = stream::iter(frames.map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, GRPC_MEDIA)], Body::new(StreamBody::new(frames))).into_response()
}

/// Converts a refusal to a `google.rpc.Status`: malformed requests with `BadRequest`, retryable ones with `RetryInfo`.
fn status(refusal: &Refusal) -> Status {
    let (code, message) = (refusal.answer().code, refusal.to_string());
    if let Refusal::Malformed(_) = refusal {
        let details = ErrorDetails::with_bad_request_violation("body", &message);
        return Status::with_error_details(code, message, details);
    }
    let Some(seconds) = refusal.retry_after() else { return Status::new(code, message) };
    let wait = Some(Duration::from_secs(seconds));
    let mut metadata = MetadataMap::new();
    // The Python exporter only reads the wait from here.
    let bare = pb::RetryInfo::from(RetryInfo::new(wait)).encode_to_vec();
    metadata.insert_bin("google.rpc.retryinfo-bin", MetadataValue::from_bytes(&bare));
    let details = ErrorDetails::with_retry_info(wait);
    Status::with_error_details_and_metadata(code, message, details, metadata)
}
