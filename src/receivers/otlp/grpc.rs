//! OTLP over gRPC: unary calls, one length-prefixed message each way, by
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
//!
//! It is done here and not by a gRPC library, so that a message is limited, reserved, decompressed and kept exactly like an HTTP
//! body, and so that an oversized one is answered with a code that clients do not retry.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use prost::Message as _;

use super::status::HealthRequest;
use super::{GRPC_DOOR, Partial, Signal, census};
use crate::normalize::{Coding, Encoding};
use crate::receivers::failure::Failure;
use crate::receivers::gate::{Body, Identity};
use crate::receivers::{Doors, Taken, source_of};
use crate::span::Receiver;

/// One byte that says whether the message is compressed, and four of length.
const PREFIX_BYTES: usize = 5;

/// Whether requests are taken, in the numbers of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::receivers) enum Serving {
    /// They are.
    Yes = 1,
    /// The daemon is stopping.
    No = 2,
}

/// Keeps traces; counts everything else.
pub(in crate::receivers) async fn export(
    doors: &Doors,
    signal: Signal,
    head: &Parts,
    incoming: &mut Incoming,
    identity: Identity,
) -> Result<Taken, Failure> {
    census::admit(doors, signal, &head.headers)?;
    let (flag, body) = message(doors, incoming).await?;
    let coding = message_coding(flag, &head.headers)?;
    if signal != Signal::Traces {
        return census::count(doors, signal, (Encoding::Protobuf, coding), body).await;
    }
    let source = source_of(Receiver::OtlpGrpc, head, identity);
    let kept = doors.keep(&GRPC_DOOR, source, (Encoding::Protobuf, coding), body).await?;
    Ok(Taken { partial: Partial::of(&kept), health: None })
}

/// Says whether requests are taken. Probes ask for the whole server, or for a service that is served.
pub(in crate::receivers) async fn health(
    doors: &Doors,
    incoming: &mut Incoming,
) -> Result<Taken, Failure> {
    let (_, body) = message(doors, incoming).await?;
    let request = HealthRequest::decode(body.bytes);
    let request = request.map_err(|_| Failure::Frame("the health request cannot be read"))?;
    if !(request.service.is_empty()
        || request.service.starts_with("opentelemetry.proto.collector."))
    {
        return Err(Failure::NotFound("no service of this name is served".to_owned()));
    }
    let serving = if doors.0.refusing.is_stopped() { Serving::No } else { Serving::Yes };
    Ok(Taken { partial: None, health: Some(serving) })
}

/// Reads the one message of a unary call. Its length is held against the limit before it is read.
async fn message(doors: &Doors, incoming: &mut Incoming) -> Result<(u8, Body), Failure> {
    let mut filling = doors.gate().framed(incoming, PREFIX_BYTES);
    while filling.bytes().len() < PREFIX_BYTES && filling.pull().await? {}
    let Some([flag, length @ ..]) = filling.bytes().first_chunk::<PREFIX_BYTES>() else {
        return Err(Failure::Frame("the call has no message"));
    };
    let flag = *flag;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if doors.gate().bytes_max() < length {
        return Err(Failure::body_too_large(doors.gate().bytes_max()));
    }
    filling.expect(PREFIX_BYTES + length).await?;
    while filling.pull().await? {}
    let Body { bytes, reservation } = filling.finish();
    if bytes.len() != PREFIX_BYTES + length {
        return Err(Failure::Frame("the call does not hold exactly one whole message"));
    }
    Ok((flag, Body { bytes: bytes.slice(PREFIX_BYTES..), reservation }))
}

/// The coding of a message: that of the call when its flag is set, else none.
fn message_coding(flag: u8, headers: &HeaderMap) -> Result<Coding, Failure> {
    let named = headers.get("grpc-encoding").map_or(&b"identity"[..], |value| value.as_bytes());
    match flag {
        0 => Ok(Coding::Identity),
        1 => match std::str::from_utf8(named).ok().and_then(Coding::from_header) {
            Some(Coding::Identity) => Err(Failure::Frame(
                "the message is said to be compressed and the call names no coding",
            )),
            Some(coding) => Ok(coding),
            None => Err(Failure::Coding),
        },
        _ => Err(Failure::Frame("the message's compression flag is neither 0 nor 1")),
    }
}

/// A message with its prefix.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(PREFIX_BYTES + message.len());
    frame.push(0);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    Bytes::from(frame)
}
