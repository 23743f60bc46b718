//! Answers in OTLP's words: responses with their partial success, and `google.rpc.Status` for everything else.

use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic_types::{ErrorDetails, RetryInfo, StatusExt as _, pb};

use super::grpc::{HealthResponse, framed};
use super::{Media, Partial};
use crate::normalize::Encoding;
use crate::receivers::Taken;
use crate::receivers::refusal::Refusal;
use crate::receivers::reply::Reply;

const GRPC_MEDIA: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_CODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,deflate,zstd");

/// An answer over HTTP, in the request's encoding.
pub(in crate::receivers) fn http(
    media: Media,
    outcome: &Result<Taken, Refusal>,
) -> Response<Reply> {
    let (mut response, body) = match outcome {
        Ok(taken) => (Response::new(Reply::default()), success(media, taken.partial.as_ref())),
        Err(refusal) => (refusal.http(), error(media, refusal)),
    };
    *response.body_mut() = Reply::new(body);
    let media = HeaderValue::from_static(media.as_str());
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

/// An answer over gRPC, and its code. Errors are trailers only: some clients retry on nothing else.
pub(in crate::receivers) fn grpc(outcome: &Result<Taken, Refusal>) -> (Response<Reply>, u16) {
    let refusal = match outcome {
        Ok(taken) => return (grpc_success(taken), 0),
        Err(refusal) => refusal,
    };
    let status = status(refusal);
    let code = u16::try_from(i32::from(status.code())).unwrap_or(u16::MAX);
    let mut response = status.into_http::<Reply>();
    if *refusal == Refusal::Coding {
        response.headers_mut().insert("grpc-accept-encoding", GRPC_CODINGS);
    }
    (response, code)
}

/// A refusal as `google.rpc.Status`: what is malformed with `BadRequest`, what may be tried again with `RetryInfo`.
fn status(refusal: &Refusal) -> Status {
    let (code, message) = (refusal.answer().code, refusal.to_string());
    if let Refusal::Malformed(_) = refusal {
        let details = ErrorDetails::with_bad_request_violation("body", &message);
        return Status::with_error_details(code, message, details);
    }
    let Some(seconds) = refusal.retry_after() else { return Status::new(code, message) };
    let wait = Some(Duration::from_secs(seconds));
    let details = ErrorDetails::with_retry_info(wait);
    let mut metadata = MetadataMap::new();
    // The Python exporter looks for the wait here only.
    let bare = pb::RetryInfo::from(RetryInfo::new(wait)).encode_to_vec();
    metadata.insert_bin("google.rpc.retryinfo-bin", MetadataValue::from_bytes(&bare));
    Status::with_error_details_and_metadata(code, message, details, metadata)
}

fn grpc_success(taken: &Taken) -> Response<Reply> {
    let message = match taken.health {
        Some(serving) => HealthResponse { status: serving as i32 }.encode_to_vec(),
        None => export_response(taken.partial.as_ref()),
    };
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response = Response::new(Reply::with_trailers(framed(&message), trailers));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_MEDIA);
    response
}

/// The body of a success. Without a partial success it is empty in protobuf, and an empty object in JSON.
fn success(media: Media, partial: Option<&Partial>) -> Bytes {
    match (media.encoding(), partial) {
        (Encoding::Protobuf, partial) => Bytes::from(export_response(partial)),
        (Encoding::Json, None) => Bytes::from_static(b"{}"),
        (Encoding::Json, Some(partial)) => {
            // The mapping writes 64-bit integers as strings, and leaves zeros out.
            let mut inner = json!({ "errorMessage": partial.text });
            if 0 < partial.rejected
                && let Some(members) = inner.as_object_mut()
            {
                let count = Value::String(partial.rejected.to_string());
                members.insert(partial.signal.rejected_member().to_owned(), count);
            }
            Bytes::from(json!({ "partialSuccess": inner }).to_string())
        }
    }
}

/// The responses of the other signals have the same fields on the wire.
fn export_response(partial: Option<&Partial>) -> Vec<u8> {
    let partial_success = partial.map(|partial| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(partial.rejected).unwrap_or(i64::MAX),
        error_message: partial.text.clone(),
    });
    ExportTraceServiceResponse { partial_success }.encode_to_vec()
}

/// The body of an error.
fn error(media: Media, refusal: &Refusal) -> Bytes {
    let status = status(refusal);
    if media.encoding() == Encoding::Protobuf {
        if !status.details().is_empty() {
            return Bytes::copy_from_slice(status.details());
        }
        let (code, message) = (status.code().into(), status.message().to_owned());
        let bare = pb::Status { code, message, details: Vec::new() };
        return Bytes::from(bare.encode_to_vec());
    }
    let message = status.message();
    let mut body = json!({ "code": i32::from(status.code()), "message": message });
    if let (Refusal::Malformed(_), Some(members)) = (refusal, body.as_object_mut()) {
        let details = json!([{
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{ "field": "body", "description": message }],
        }]);
        members.insert("details".to_owned(), details);
    }
    Bytes::from(body.to_string())
}
