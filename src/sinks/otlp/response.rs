//! Converts answers to reports. Pure.
//!
//! | answer | report |
//! |---|---|
//! | 2xx, or gRPC 0 | delivered; spans that `partial_success` drops are counted, or rejected if it drops all |
//! | 2xx with a web page | stop: the address is not an OTLP receiver |
//! | 429, 503; gRPC 8 with `RetryInfo`, 14 | throttled, for as long as asked |
//! | 408, 502, 504, no connection, no answer; gRPC 1, 4, 10, 11, 15 | retry |
//! | 413, or 400 about the size (the Collector); gRPC 8 or 11 about the size | too large: halves |
//! | 400, 422; gRPC 3, 9 | malformed: halves |
//! | 500; gRPC 2, 13 | fault: some retries, then halves |
//! | redirects, 401, 403, 404, 405, 415; gRPC 5, 7, 12, 16 | stop |
//!
//! See <https://opentelemetry.io/docs/specs/otlp/#failures>, and the behaviour of real receivers.

use std::time::Duration;

use hyper::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use percent_encoding::{PercentDecode, percent_decode};
use prost::Message as _;
use tonic::Code;
use tonic_types::{RpcStatusExt as _, pb};

use super::options::Wire;
use crate::sinks::http::classify::{RETRY_AFTER_MAX, StatusClass};
use crate::sinks::http::{Response, shortened};
use crate::sinks::{Omitted, RejectClass, Report};
use crate::support::base64;
use crate::support::json::raw::Raw;
use crate::support::written::snake_case;

/// Reads the answer to a request with this many spans.
pub(super) fn read(wire: Wire, response: &Response, spans: usize) -> Report {
    match wire {
        Wire::Grpc => read_grpc(response, spans),
        Wire::HttpProtobuf | Wire::HttpJson => read_http(response, spans),
    }
}

fn read_http(response: &Response, spans: usize) -> Report {
    let class = response.class();
    let reason = response.reason();
    match class {
        StatusClass::Taken if response.media_type() == "application/json" => {
            taken(partial_of_json(&response.body), spans)
        }
        StatusClass::Taken => taken(partial_of_protobuf(&response.body), spans),
        StatusClass::Malformed if response.status == StatusCode::BAD_REQUEST => {
            bad_request(reason, answer(response))
        }
        _ => class.report(reason, || answer(response)),
    }
}

/// Reads a gRPC answer. Its status is in the trailers, or in the headers if there is nothing else.
fn read_grpc(response: &Response, spans: usize) -> Report {
    let said = [&response.trailers, &response.headers]
        .into_iter()
        .find_map(|map| Some((map, Code::from_bytes(map.get("grpc-status")?.as_bytes()))));
    let Some((map, code)) = said else {
        let (class, reason) = (response.class(), response.reason());
        return if class != StatusClass::Taken {
            class.report(reason, || answer(response))
        } else if response.media_type().starts_with("application/grpc") {
            Report::down(None, "the answer has no grpc-status")
        } else {
            Report::hold(format!("{reason}, but not over gRPC: this is not a gRPC address"))
        };
    };
    if code == Code::Ok {
        let message = response.body.get(GRPC_PREFIX_BYTES..).unwrap_or_default();
        return taken(partial_of_protobuf(message), spans);
    }
    let message = map.get("grpc-message").map(|text| percent_decode(text.as_bytes()));
    let message = message.map(PercentDecode::decode_utf8_lossy).unwrap_or_default();
    let class = class_of_code(code, &message, retry_info(map));
    class.report(format!("gRPC status {} {}", code as i32, name(code)), || shortened(&message))
}

/// Returns a code's name as gRPC's documentation and other logs spell it: `PERMISSION_DENIED`.
fn name(code: Code) -> String {
    snake_case(&format!("{code:?}")).to_ascii_uppercase()
}

/// Each gRPC message is preceded by a byte that tells whether it is compressed, and by its length.
const GRPC_PREFIX_BYTES: usize = 5;

/// Interprets a 400, which has several meanings. The Collector sends it for bodies over its limit and for unknown compressions.
fn bad_request(reason: String, answer: String) -> Report {
    let text = answer.to_ascii_lowercase();
    if text.contains("body too large") || text.contains("larger than max") {
        return Report::split(RejectClass::TooLarge, reason, answer);
    }
    if text.contains("content-encoding") {
        return Report::hold(format!("{reason}: the backend does not support this compression"));
    }
    Report::split(RejectClass::Malformed, reason, answer)
}

fn class_of_code(code: Code, message: &str, after: Option<Duration>) -> StatusClass {
    use Code as C;
    match code {
        // tonic uses the second code for a message that is too large, others the first.
        C::ResourceExhausted | C::OutOfRange if is_about_size(message) => StatusClass::TooLarge,
        C::ResourceExhausted | C::Unavailable => StatusClass::Throttled { after },
        C::Cancelled | C::DeadlineExceeded | C::Aborted | C::OutOfRange | C::DataLoss => {
            StatusClass::Retry { after }
        }
        C::InvalidArgument | C::AlreadyExists | C::FailedPrecondition => StatusClass::Malformed,
        C::NotFound | C::PermissionDenied | C::Unimplemented | C::Unauthenticated => {
            StatusClass::Stop
        }
        C::Ok | C::Unknown | C::Internal => StatusClass::Fault,
    }
}

/// Recognizes the error messages of grpc-go, grpc-java, the C core and tonic for a message that is too large.
fn is_about_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["larger than max", "exceeds maximum size", "too large", "size limit"]
        .iter()
        .any(|phrase| message.contains(phrase))
}

// === Partial success ===

/// Returns the number of dropped spans and the reason. An unreadable answer is still a success; so is an empty `partial_success`.
fn partial_of_protobuf(body: &[u8]) -> Option<(u64, String)> {
    let partial = ExportTraceServiceResponse::decode(body).ok()?.partial_success?;
    Some((partial.rejected_spans.try_into().unwrap_or_default(), partial.error_message))
}

fn partial_of_json(body: &[u8]) -> Option<(u64, String)> {
    let answer = Raw::parse(std::str::from_utf8(body).ok()?)?;
    let partial = answer.get("partialSuccess")?;
    let rejected = partial.get("rejectedSpans").and_then(Raw::count).unwrap_or_default();
    Some((rejected, partial.get_string("errorMessage").unwrap_or_default().into_owned()))
}

/// Reports a success. OTLP does not name the dropped spans, unless all of them were dropped.
fn taken(partial: Option<(u64, String)>, spans: usize) -> Report {
    const REASON: &str = "rejected, by the answer's partial success";
    let Some((rejected, message)) = partial else { return Report::delivered() };
    match rejected {
        0 => Report::delivered(),
        items if items < spans as u64 => {
            let omitted = Omitted { items, reason: REASON.to_owned() };
            Report { omitted: Some(omitted), ..Report::delivered() }
        }
        _ => Report::reject(REASON, shortened(&message)),
    }
}

// === Parts of answers ===

/// Returns an error's text: the message of a `google.rpc.Status`, or otherwise the body.
fn answer(response: &Response) -> String {
    if matches!(&*response.media_type(), "application/x-protobuf" | "application/protobuf")
        && let Ok(status) = pb::Status::decode(&*response.body)
    {
        return shortened(&status.message);
    }
    response.answer()
}

/// Returns the wait that gRPC asks for. `tonic::Status` is not used, because it panics on details that are not base64.
fn retry_info(headers: &HeaderMap) -> Option<Duration> {
    let details = headers.get("grpc-status-details-bin")?.to_str().ok()?;
    let status = pb::Status::decode(&*base64::read(details)?).ok()?;
    Some(status.get_details_retry_info()?.retry_delay?.min(RETRY_AFTER_MAX))
}
