//! Answers become reports. Pure.
//!
//! | answer | report |
//! |---|---|
//! | 2xx, or gRPC 0 | delivered; what `partial_success` says was left out is counted, or rejected where it can only be all |
//! | 2xx with a web page | stop: this is no receiver of OTLP |
//! | 429, 503; gRPC 8 with `RetryInfo`, 14 | throttled, for as long as asked |
//! | 408, 502, 504, no connection, no answer; gRPC 1, 4, 10, 11, 15 | retry |
//! | 413, or 400 that says so (the Collector); gRPC 8 or 11 that says so | too large: halves |
//! | 400, 422; gRPC 3, 9 | malformed: halves |
//! | 500; gRPC 2, 13 | fault: some times, then halves |
//! | redirects, 401, 403, 404, 405, 415; gRPC 5, 7, 12, 16 | stop |
//!
//! <https://opentelemetry.io/docs/specs/otlp/#failures>, and what receivers really do.

use std::time::Duration;

use hyper::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use percent_encoding::{PercentDecode, percent_decode};
use prost::Message;
use serde::Deserialize;

use super::options::Wire;
use crate::sinks::http::classify::{RETRY_AFTER_MAX, StatusClass};
use crate::sinks::http::{Response, shortened};
use crate::sinks::{Omitted, RejectClass, Report};
use crate::support::base64;

/// Reads the answer to a request with so many spans.
pub(super) fn read(wire: Wire, response: &Response, spans: usize) -> Report {
    match wire {
        Wire::Grpc => read_grpc(response, spans),
        Wire::HttpProtobuf | Wire::HttpJson => read_http(response, spans),
    }
}

fn read_http(response: &Response, spans: usize) -> Report {
    let class = response.class();
    let reason = response.reason();
    let media_type = response.media_type();
    match class {
        StatusClass::Taken if media_type == "text/html" => {
            Report::hold(format!("{reason}, but with a web page: this address does not take OTLP"))
        }
        StatusClass::Taken if media_type == "application/json" => {
            taken(partial_of_json(&response.body), spans)
        }
        StatusClass::Taken => taken(partial_of_protobuf(&response.body), spans),
        StatusClass::Malformed if response.status == StatusCode::BAD_REQUEST => {
            bad_request(reason, answer(response))
        }
        _ => class.report(reason, || answer(response)),
    }
}

/// The status of gRPC is in the trailers, or in the headers where there is nothing else.
fn read_grpc(response: &Response, spans: usize) -> Report {
    let status = [&response.trailers, &response.headers]
        .into_iter()
        .find_map(|map| Some((map, map.get("grpc-status")?.to_str().ok()?.parse::<u32>().ok()?)));
    let Some((map, code)) = status else {
        let reason = response.reason();
        if response.status != StatusCode::OK {
            let class = response.class();
            return class.report(reason, || answer(response));
        }
        return if response.media_type().starts_with("application/grpc") {
            Report::down(None, "the answer has no grpc-status")
        } else {
            Report::hold(format!("{reason}, but no gRPC: this address does not take it"))
        };
    };
    if code == 0 {
        let message = response.body.get(GRPC_PREFIX_BYTES..).unwrap_or_default();
        return taken(partial_of_protobuf(message), spans);
    }
    let message = map.get("grpc-message").map(|text| percent_decode(text.as_bytes()));
    let message = message.map(PercentDecode::decode_utf8_lossy).unwrap_or_default();
    let class = class_of_code(code, &message, retry_info(map));
    class.report(format!("gRPC status {code} {}", code_name(code)), || shortened(&message))
}

/// Before each message over gRPC stand a byte that says whether it is compressed, and its length.
pub(super) const GRPC_PREFIX_BYTES: usize = 5;

/// 400 has more meanings than one. The Collector says it of bodies over its limit, and of codings that it does not know.
fn bad_request(reason: String, answer: String) -> Report {
    let text = answer.to_ascii_lowercase();
    if text.contains("body too large") || text.contains("larger than max") {
        return Report::split(RejectClass::TooLarge, reason, answer);
    }
    if text.contains("content-encoding") {
        return Report::hold(format!("{reason}: it does not know this compression"));
    }
    Report::split(RejectClass::Malformed, reason, answer)
}

fn class_of_code(code: u32, message: &str, retry_info: Option<Duration>) -> StatusClass {
    match code {
        // tonic says 11 where a message is too large, others 8.
        8 | 11 if is_about_size(message) => StatusClass::TooLarge,
        8 | 14 => StatusClass::Throttled { after: retry_info },
        1 | 4 | 10 | 11 | 15 => StatusClass::Retry { after: retry_info },
        3 | 6 | 9 => StatusClass::Malformed,
        5 | 7 | 12 | 16 => StatusClass::Stop,
        _ => StatusClass::Fault,
    }
}

/// What grpc-go, grpc-java, the C core and tonic say of a message that is too large.
fn is_about_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["larger than max", "exceeds maximum size", "too large", "size limit"]
        .iter()
        .any(|phrase| message.contains(phrase))
}

fn code_name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("unknown")
}

// === What was left out ===

struct Partial {
    rejected: i64,
    message: String,
}

/// An answer that cannot be read is still a success; a present but empty `partial_success` is none.
fn partial_of_protobuf(body: &[u8]) -> Option<Partial> {
    let response = ExportTraceServiceResponse::decode(body).ok()?;
    let partial = response.partial_success?;
    Some(Partial { rejected: partial.rejected_spans, message: partial.error_message })
}

fn partial_of_json(body: &[u8]) -> Option<Partial> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        partial_success: Option<Inner>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Inner {
        #[serde(default)]
        rejected_spans: serde_json::Value,
        #[serde(default)]
        error_message: String,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let partial = answer.partial_success?;
    let rejected = match &partial.rejected_spans {
        serde_json::Value::String(text) => text.parse().unwrap_or(0),
        other => other.as_i64().unwrap_or(0),
    };
    Some(Partial { rejected, message: partial.error_message })
}

/// OTLP does not say which spans were left out, unless it can only be all of them.
fn taken(partial: Option<Partial>, spans: usize) -> Report {
    const REASON: &str = "left out, says the answer's partial success";
    let Some(partial) = partial else { return Report::delivered() };
    match u64::try_from(partial.rejected).unwrap_or(0) {
        0 => Report::delivered(),
        items if items < spans as u64 => {
            let omitted = Omitted { items, reason: REASON.to_owned() };
            Report { omitted: Some(omitted), ..Report::delivered() }
        }
        _ => Report::reject(REASON, shortened(&partial.message)),
    }
}

// === Parts of answers ===

/// What an error says: the message of a `google.rpc.Status` where it is one, else the body.
fn answer(response: &Response) -> String {
    if matches!(&*response.media_type(), "application/x-protobuf" | "application/protobuf")
        && let Ok(status) = RpcStatus::decode(&*response.body)
    {
        return shortened(&status.message);
    }
    response.answer()
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`, whose only field is a `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// How long gRPC asks to wait.
fn retry_info(headers: &HeaderMap) -> Option<Duration> {
    let details = headers.get("grpc-status-details-bin")?.to_str().ok()?;
    let status = RpcStatus::decode(&*base64::read(details)?).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay?;
    let nanos = u32::try_from(delay.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, nanos).min(RETRY_AFTER_MAX))
}
