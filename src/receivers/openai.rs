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

use super::auth::Identity;
use super::decode::content_coding;
use super::refusal::Refusal;
use super::reply::Reply;
use super::{Receivers, Taken, source_of};
use crate::normalize::Encoding;
use crate::span::Receiver;
use crate::telemetry::ReceiverLabels;

/// What it is called in metrics.
pub(super) const LABELS: ReceiverLabels =
    ReceiverLabels { receiver: "openai", transport: "http", format: "json" };

/// Keeps a request. Its media type is not asked for: what is not JSON shows.
pub(super) async fn ingest(
    receivers: &Receivers,
    head: &Parts,
    incoming: &mut Incoming,
    identity: Identity,
) -> Result<Taken, Refusal> {
    receivers.0.auth.remember(&head.headers, &identity);
    let coding = content_coding(&head.headers)?;
    let body = receivers.0.bodies.reader(incoming, 0).read().await?;
    let source = source_of(Receiver::OpenAi, head, identity);
    receivers.keep(&LABELS, source, (Encoding::Json, coding), body).await?;
    Ok(Taken::default())
}

/// The answer: 204, or an error in OpenAI's shape.
pub(super) fn reply(outcome: &Result<Taken, Refusal>) -> Response<Reply> {
    let Err(refusal) = outcome else {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    };
    let mut response = refusal.http();
    let kind = match response.status() {
        StatusCode::SERVICE_UNAVAILABLE => "server_error",
        _ => "invalid_request_error",
    };
    let (message, code) = (refusal.to_string(), refusal.answer().openai);
    let error = json!({ "message": message, "type": kind, "param": null, "code": code });
    *response.body_mut() = Reply::new(json!({ "error": error }).to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
