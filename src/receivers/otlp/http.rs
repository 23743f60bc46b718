//! OTLP over HTTP: `/v1/traces` and its siblings, in protobuf and JSON.

use hyper::body::Incoming;
use hyper::http::request::Parts;

use super::{Media, Partial, Signal, census};
use crate::receivers::failure::Failure;
use crate::receivers::gate::{Identity, content_coding};
use crate::receivers::{Doors, Taken, source_of};
use crate::span::Receiver;

/// Keeps traces; counts everything else.
pub(in crate::receivers) async fn export(
    doors: &Doors,
    signal: Signal,
    media: Media,
    head: &Parts,
    incoming: &mut Incoming,
    identity: Identity,
) -> Result<Taken, Failure> {
    let coding = content_coding(&head.headers)?;
    census::admit(doors, signal, &head.headers)?;
    let body = doors.gate().filling(incoming).fill().await?;
    if signal != Signal::Traces {
        return census::count(doors, signal, (media.encoding(), coding), body).await;
    }
    let source = source_of(Receiver::OtlpHttp, head, identity);
    let kept = doors.keep(&media.door(), source, (media.encoding(), coding), body).await?;
    Ok(Taken { partial: Partial::of(&kept), health: None })
}
