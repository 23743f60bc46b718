//! OTLP over HTTP: `/v1/traces` and its siblings, in protobuf and JSON.

use hyper::body::Incoming;
use hyper::http::request::Parts;

use super::{Media, Partial, Signal, census};
use crate::normalize::Encoding;
use crate::receivers::failure::Failure;
use crate::receivers::gate::{Identity, content_coding};
use crate::receivers::routes::Place;
use crate::receivers::{Doors, Taken, source_of};
use crate::span::Receiver;

/// Keeps traces; counts everything else.
pub(in crate::receivers) async fn export(
    doors: &Doors,
    place: Place,
    media: Media,
    head: &Parts,
    incoming: &mut Incoming,
    identity: Identity,
) -> Result<Taken, Failure> {
    let coding = content_coding(&head.headers)?;
    let signal = match place {
        Place::Export(signal) => signal,
        _ => Signal::Traces,
    };
    census::admit(doors, signal, &head.headers)?;
    let body = doors.gate().filling(incoming).fill().await?;
    if signal != Signal::Traces {
        return census::count(doors, signal, (media.encoding(), coding), body).await;
    }
    let source = source_of(Receiver::OtlpHttp, head, identity);
    let kept = doors.keep(&media.door(), source, (media.encoding(), coding), body).await?;
    // Any JSON object reads as an OTLP request without spans. At `/` it may be anything, and is not acknowledged.
    if place == Place::Root && media.encoding() == Encoding::Json && kept.items == 0 {
        return Err(Failure::NotFound);
    }
    Ok(Taken { partial: Partial::of(&kept), health: None })
}
