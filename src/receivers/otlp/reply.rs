//! Answers in OTLP's words: responses with their partial success, and `google.rpc.Status` for everything else.

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Code;

use super::grpc::framed;
use super::status::{
    Any, BadRequest, Duration, ExportResponse, FieldViolation, HealthResponse, PartialSuccess,
    RetryInfo, Status,
};
use super::{Media, Partial};
use crate::normalize::Encoding;
use crate::receivers::failure::Failure;
use crate::receivers::reply::{Reply, retry_after_seconds};
use crate::receivers::{Taken, http_failure};

const GRPC_MEDIA: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_CODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,deflate,zstd");

/// The code of a failure: of gRPC's own, and in the `google.rpc.Status` of HTTP answers.
fn code(failure: &Failure) -> Code {
    match failure {
        Failure::NotFound(_) | Failure::Unwanted | Failure::Method(_) | Failure::Coding => {
            Code::Unimplemented
        }
        Failure::Unauthenticated => Code::Unauthenticated,
        Failure::Loop => Code::PermissionDenied,
        Failure::MediaType(_) | Failure::Malformed(_) | Failure::Frame(_) => Code::InvalidArgument,
        // Never OUT_OF_RANGE, and never with RetryInfo: clients would send the same again until they drop it.
        Failure::TooLarge(_) => Code::ResourceExhausted,
        Failure::Busy { .. } | Failure::Gone => Code::Unavailable,
        Failure::Slow => Code::DeadlineExceeded,
    }
}

/// An answer over HTTP, in the request's encoding.
pub(in crate::receivers) fn http(
    media: Media,
    outcome: &Result<Taken, Failure>,
) -> Response<Reply> {
    let (mut response, body) = match outcome {
        Ok(taken) => (Response::new(Reply::default()), success(media, taken.partial.as_ref())),
        Err(failure) => (http_failure(failure).0, error(media, failure)),
    };
    *response.body_mut() = Reply::new(body);
    let media = HeaderValue::from_static(media.as_str());
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

/// An answer over gRPC, and its code. Errors are trailers only: some clients retry on nothing else.
pub(in crate::receivers) fn grpc(outcome: &Result<Taken, Failure>) -> (Response<Reply>, u16) {
    let failure = match outcome {
        Ok(taken) => return (grpc_success(taken), 0),
        Err(failure) => failure,
    };
    let code = code(failure);
    let mut status = tonic::Status::new(code, failure.to_string());
    if matches!(failure, Failure::Busy { .. }) {
        let retry = retry_info();
        let details = Status {
            code: code.into(),
            message: failure.to_string(),
            details: vec![Any::new("google.rpc.RetryInfo", &retry)],
        };
        let mut metadata = tonic::metadata::MetadataMap::new();
        // The Python exporter looks for the wait here only.
        let bare = tonic::metadata::MetadataValue::from_bytes(&retry.encode_to_vec());
        metadata.insert_bin("google.rpc.retryinfo-bin", bare);
        let details = Bytes::from(details.encode_to_vec());
        status =
            tonic::Status::with_details_and_metadata(code, failure.to_string(), details, metadata);
    }
    let mut response = status.into_http::<Reply>();
    if *failure == Failure::Coding {
        response.headers_mut().insert("grpc-accept-encoding", GRPC_CODINGS);
    }
    (response, u16::try_from(i32::from(code)).unwrap_or(u16::MAX))
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

fn export_response(partial: Option<&Partial>) -> Vec<u8> {
    let partial_success = partial.map(|partial| PartialSuccess {
        rejected: i64::try_from(partial.rejected).unwrap_or(i64::MAX),
        error_message: partial.text.clone(),
    });
    ExportResponse { partial_success }.encode_to_vec()
}

/// The body of an error: a `google.rpc.Status`, for something malformed with a `google.rpc.BadRequest`.
fn error(media: Media, failure: &Failure) -> Bytes {
    let message = failure.to_string();
    let code = i32::from(code(failure));
    let violation = matches!(failure, Failure::Malformed(_)).then(|| message.clone());
    if media.encoding() == Encoding::Json {
        let mut status = json!({ "code": code, "message": message });
        if let (Some(description), Some(members)) = (violation, status.as_object_mut()) {
            let details = json!([{
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{ "field": "body", "description": description }],
            }]);
            members.insert("details".to_owned(), details);
        }
        return Bytes::from(status.to_string());
    }
    let details = violation.map(|description| {
        let violation = FieldViolation { field: "body".to_owned(), description };
        let bad_request = BadRequest { field_violations: vec![violation] };
        Any::new("google.rpc.BadRequest", &bad_request)
    });
    let status = Status { code, message, details: details.into_iter().collect() };
    Bytes::from(status.encode_to_vec())
}

fn retry_info() -> RetryInfo {
    let seconds = i64::try_from(retry_after_seconds()).unwrap_or(1);
    RetryInfo { retry_delay: Some(Duration { seconds, nanos: 0 }) }
}
