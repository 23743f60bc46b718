//! `POST /v1/traces/ingest`: what the Agents SDK sends.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use http_body_util::BodyExt as _;

use crate::feed::{Arrival, Intake};
use crate::normalize::{Coding, Encoding, Envelope, Limits, decode};
use crate::span::{Receiver, Source};
use crate::support::clock;

/// Keeps a request and answers 204.
pub(super) async fn ingest(State(intake): State<Intake>, body: Body) -> StatusCode {
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return StatusCode::BAD_REQUEST;
    };
    let envelope = Envelope {
        source: Source {
            receiver: Receiver::OpenAi,
            received_at_ns: clock::unix_now_ns(),
            tenant: String::new(),
            key_fingerprint: String::new(),
            headers: Vec::new(),
        },
        encoding: Encoding::Json,
        coding: Coding::Identity,
        items: 0,
        body_bytes: body.len() as u64,
        resent: Vec::new(),
        aside: None,
    };
    let Ok(decoded) = decode(&envelope, &body, &Limits::default()) else {
        return StatusCode::BAD_REQUEST;
    };
    match intake.accept(Arrival { envelope, sent: body.clone(), body, decoded }).await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
