//! Asks a backend whether it would take what is configured: with an export of no spans, which leaves nothing there.

use super::options::{Settings, Wire};
use super::response::{Sent, read_grpc, read_http};
use super::{Otlp, sealed};
use crate::sinks::{Delivery, Outcome};

/// What was found, or what is wrong.
pub(super) async fn probe(settings: &Settings) -> Result<String, String> {
    let sink = Otlp::new(settings.clone()).map_err(|error| error.to_string())?;
    let nothing = match settings.wire {
        Wire::HttpJson => b"{\"resourceSpans\":[]}".to_vec(),
        Wire::HttpProtobuf | Wire::Grpc => Vec::new(),
    };
    let body = sealed(nothing, settings).map_err(|error| format!("cannot compress: {error}"))?;
    // Without its query, which may hold a key.
    let uri = &settings.uri;
    let place = format!(
        "{}://{}{}",
        uri.scheme_str().unwrap_or_default(),
        uri.host().unwrap_or_default(),
        uri.port().map(|port| format!(":{port}")).unwrap_or_default()
    );
    let sent = Sent { spans: &[], bytes: 0 };
    let outcome = match (sink.post(&Delivery::default(), body).await, settings.wire) {
        (Ok(response), Wire::Grpc) => read_grpc(&response, sent),
        (Ok(response), Wire::HttpProtobuf | Wire::HttpJson) => read_http(&response, sent),
        (Err(outcome), _) => outcome,
    };
    verdict(&place, outcome)
}

fn verdict(place: &str, outcome: Outcome) -> Result<String, String> {
    match outcome {
        Outcome::Delivered
        | Outcome::Incomplete { .. }
        | Outcome::Reject(_)
        | Outcome::Owed(_)
        | Outcome::Parts(_) => Ok(format!("{place} took an export of no spans")),
        Outcome::Malformed { reason, .. } => Ok(format!(
            "{place} can be reached, but does not take an export of no spans ({reason}): whether it takes others will show"
        )),
        Outcome::Stop { reason } => {
            Err(format!("{place}: {reason}; check the address, the protocol and the key"))
        }
        Outcome::Retry { reason, .. }
        | Outcome::Park { reason, .. }
        | Outcome::Throttled { reason, .. }
        | Outcome::Fault { reason, .. }
        | Outcome::TooLarge { reason, .. } => Err(format!("{place} takes nothing now: {reason}")),
    }
}
