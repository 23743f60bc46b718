//! Doors in. Nothing is acknowledged before the journal has it.

mod openai;
mod server;

use axum::Router;
use axum::routing::post;

use crate::feed::Intake;

pub use server::serve;

/// The routes of the HTTP port.
pub fn routes(intake: Intake) -> Router {
    Router::new().route("/v1/traces/ingest", post(openai::ingest)).with_state(intake)
}
