//! `POST /v1/traces/ingest`: what the Agents SDK sends, and answers in the shape of OpenAI's own.
//!
//! The SDKs look at the status only. They throw a batch away on any 4xx but 408, 409 and 429 (older ones on 429 too), and try three
//! times within some three seconds on 5xx: so nothing that a later attempt could mend is answered with a 4xx, and items that cannot
//! be understood are set aside one by one while the request succeeds.

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::failure::Failure;
use super::gate::{Identity, content_coding};
use super::reply::Reply;
use super::{Doors, Taken, http_failure, source_of};
use crate::normalize::Encoding;
use crate::span::Receiver;
use crate::telemetry::Door;

/// The door in metrics.
pub(super) const DOOR: Door = Door { receiver: "openai", transport: "http", format: "json" };

/// Keeps a request. Its media type is not asked for: what is not JSON shows.
pub(super) async fn ingest(
    doors: &Doors,
    head: &Parts,
    incoming: &mut Incoming,
    identity: Identity,
) -> Result<Taken, Failure> {
    doors.gate().remember(&head.headers, &identity);
    let coding = content_coding(&head.headers)?;
    let body = doors.gate().filling(incoming).fill().await?;
    let source = source_of(Receiver::OpenAi, head, identity);
    doors.keep(&DOOR, source, (Encoding::Json, coding), body).await?;
    Ok(Taken::default())
}

/// The answer: 204, or an error in OpenAI's shape.
pub(super) fn reply(outcome: &Result<Taken, Failure>) -> Response<Reply> {
    let Err(failure) = outcome else {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    };
    let (mut response, status) = http_failure(failure);
    let (kind, code) = match status {
        StatusCode::UNAUTHORIZED => ("invalid_request_error", "invalid_api_key"),
        StatusCode::METHOD_NOT_ALLOWED => ("invalid_request_error", "method_not_allowed"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("invalid_request_error", "unsupported_encoding"),
        StatusCode::PAYLOAD_TOO_LARGE => ("invalid_request_error", "request_too_large"),
        StatusCode::LOOP_DETECTED => ("invalid_request_error", "loop_detected"),
        StatusCode::SERVICE_UNAVAILABLE => ("server_error", "unavailable"),
        _ => ("invalid_request_error", "invalid_body"),
    };
    let body = json!({
        "error": { "message": failure.to_string(), "type": kind, "param": null, "code": code }
    });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Reply::new(body.to_string());
    response
}
