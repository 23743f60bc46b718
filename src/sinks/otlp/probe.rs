//! Asks a backend whether it would accept deliveries as configured, with an export without spans that leaves nothing there.

use super::options::Wire;
use super::settings::Settings;
use super::{Otlp, response, sealed};
use crate::sinks::{Delivery, Pace, Refusal, RejectClass, Report};

/// Returns the finding, or the problem.
pub(super) async fn probe(settings: &Settings) -> Result<String, String> {
    let sink = Otlp::new(settings.clone()).map_err(|error| error.to_string())?;
    let nothing = match settings.wire {
        Wire::HttpJson => b"{\"resourceSpans\":[]}".to_vec(),
        Wire::HttpProtobuf | Wire::Grpc => Vec::new(),
    };
    let body = sealed(nothing, settings).map_err(|error| format!("cannot compress: {error}"))?;
    // The query is omitted, because it may contain a key.
    let uri = settings.uri.uri().cloned().unwrap_or_default().into_parts();
    let place = uri.scheme.zip(uri.authority).map(|(scheme, host)| format!("{scheme}://{host}"));
    let place = place.unwrap_or_default();
    let report = match sink.post(&Delivery::default(), body).await {
        Ok(response) => response::read(settings.wire, &response, 0),
        Err(report) => report,
    };
    verdict(&place, &report)
}

fn verdict(place: &str, report: &Report) -> Result<String, String> {
    match (&report.pace, report.refusal()) {
        (Pace::Hold { reason }, _) => {
            Err(format!("{place}: {reason}; check the address, the protocol and the key"))
        }
        (_, Some(Refusal { class: RejectClass::Malformed, reason, .. })) => Ok(format!(
            "{place} can be reached, but refuses an empty export ({reason}); the first spans will show whether it accepts others"
        )),
        (Pace::Slow { reason, .. } | Pace::Down { reason, .. }, _)
        | (
            Pace::Go | Pace::Checkpoint,
            Some(Refusal { class: RejectClass::TooLarge, reason, .. }),
        ) => Err(format!("{place} does not accept spans now: {reason}")),
        (Pace::Go | Pace::Checkpoint, _) => Ok(format!("{place} accepted an empty export")),
    }
}
