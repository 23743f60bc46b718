//! `POST /v1/traces/ingest`: what the Agents SDK sends, and answers in the shape of OpenAI's own.
//!
//! The SDKs look at the status only. They throw a batch away on any 4xx but 408, 409 and 429 (older ones on 429 too), and try three
//! times within some three seconds on 5xx: so nothing that a later attempt could mend is answered with a 4xx, and items that cannot
//! be understood are set aside one by one while the request succeeds. The media type is not asked for: what is not JSON shows.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::Taken;
use super::refusal::Refusal;
use super::reply::Reply;

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
