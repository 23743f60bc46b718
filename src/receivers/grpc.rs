//! OTLP over gRPC: unary calls, one length-prefixed message each way, by
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
//!
//! This is not left to a gRPC library, so that a message is limited, reserved, decompressed and stored exactly like an HTTP body, and an
//! oversized one is answered with a code that clients do not retry.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use prost::Message as _;

use super::body::{Bodies, Body};
use super::refusal::Refusal;
use crate::normalize::Coding;

/// A byte with the compression flag, and four bytes of length.
const PREFIX_BYTES: usize = 5;
/// Maximum size of a health check, which needs no key: the names of services are shorter.
const PROBE_BYTES_MAX: usize = 1 << 10;

/// Reads a health check: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>. Probes ask for the entire server, or for one of
/// its services.
pub(super) async fn read_health_check(
    bodies: &Bodies,
    head: &Parts,
    incoming: &mut Incoming,
) -> Result<(), Refusal> {
    let (_, body) = message(bodies, head, incoming, PROBE_BYTES_MAX).await?;
    // A `HealthCheckRequest` has one string; an empty one stands for the entire server.
    let service = String::decode(body.bytes);
    let service = service.map_err(|_| Refusal::Frame("the health request cannot be read"))?;
    if service.is_empty() || service.starts_with("opentelemetry.proto.collector.") {
        return Ok(());
    }
    Err(Refusal::NotFound("no service of this name is served".to_owned()))
}

/// Reads the single message of a unary call; returns its compression. Its length is checked against the limit before it is read.
pub(super) async fn message(
    bodies: &Bodies,
    head: &Parts,
    incoming: &mut Incoming,
    bytes_max: usize,
) -> Result<(Coding, Body), Refusal> {
    let mut reader = bodies.reader(incoming, PREFIX_BYTES);
    reader.bytes_max = reader.bytes_max.min(bytes_max);
    while reader.bytes().len() < PREFIX_BYTES && reader.pull().await? {}
    let Some([flag, length @ ..]) = reader.bytes().first_chunk::<PREFIX_BYTES>() else {
        return Err(Refusal::Frame("the call has no message"));
    };
    let flag = *flag;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    reader.expect(length.saturating_add(PREFIX_BYTES))?;
    while reader.pull().await? {}
    let mut body = reader.finish();
    if body.bytes.len() != PREFIX_BYTES + length {
        return Err(Refusal::Frame("the call does not hold exactly one complete message"));
    }
    body.bytes = body.bytes.slice(PREFIX_BYTES..);
    Ok((message_coding(flag, &head.headers)?, body))
}

/// Returns the compression of a message: that of the call if its flag is set, else none.
fn message_coding(flag: u8, headers: &HeaderMap) -> Result<Coding, Refusal> {
    let named = headers.get("grpc-encoding").map_or(&b"identity"[..], |value| value.as_bytes());
    match flag {
        0 => Ok(Coding::Identity),
        1 => match std::str::from_utf8(named).ok().and_then(Coding::from_header) {
            Some(Coding::Identity) => Err(Refusal::Frame(
                "the message is flagged as compressed, but the call names no encoding",
            )),
            Some(coding) => Ok(coding),
            None => Err(Refusal::Coding),
        },
        _ => Err(Refusal::Frame("the message's compression flag is neither 0 nor 1")),
    }
}

/// Adds the prefix to a message.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}
