//! OTLP over HTTP: `/v1/traces` and its siblings, in protobuf and JSON.

use hyper::body::Incoming;
use hyper::http::request::Parts;

use super::{Call, Media, Signal};
use crate::receivers::auth::Identity;
use crate::receivers::decode::content_coding;
use crate::receivers::refusal::Refusal;
use crate::receivers::{Receivers, Taken};
use crate::span::Receiver;

/// Keeps traces; counts everything else.
pub(in crate::receivers) async fn export(
    receivers: &Receivers,
    signal: Signal,
    media: Media,
    head: &Parts,
    incoming: &mut Incoming,
    identity: Identity,
) -> Result<Taken, Refusal> {
    let coding = content_coding(&head.headers)?;
    let call = Call::admit(receivers, signal, head, identity)?;
    let body = receivers.0.bodies.reader(incoming, 0).read().await?;
    let form = (media.encoding(), coding);
    call.take(Receiver::OtlpHttp, &media.labels(), form, body).await
}
