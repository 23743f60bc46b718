//! What stands between a request and the code that reads it: keys, limits of size and time, and where heavy work is done.
//!
//! Limits are held against a request in this order: connections (`server`), bytes of all requests in flight, its size on the wire,
//! its size decompressed, the number of things in it (`normalize`). Room is taken before the bytes are in memory and given back
//! when the request is answered.

mod auth;
mod body;
mod budget;
pub(super) mod cors;

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use self::auth::Auth;
pub(super) use self::auth::Identity;
pub(super) use self::body::{Body, Filling, discard};
use self::budget::Budget;
pub(super) use self::budget::Reservation;
use super::failure::Failure;
use super::options::ReceiverOptions;
use crate::feed::Arrival;
use crate::normalize::{
    Coding, Encoding, Envelope, InflateError, Limits, decode, inflate, scrub_credentials,
};
use crate::span::Receiver;
use crate::support::keyring::Keyring;
use crate::support::pool::Pool;

/// Up to these sizes a body is read on the thread that received it, which takes 500 microseconds at most; moving to a thread that may
/// block and back costs 10 to 30, more than a usual body. Measured (`tests/bench/decode.rs`, two busy cores): 30 KB of small spans
/// take 35 us as protobuf and 170 as JSON, 134 KB of agent spans 12 and 120.
const INLINE_PROTOBUF_BYTES_MAX: usize = 384 << 10;
const INLINE_JSON_BYTES_MAX: usize = 160 << 10;
const INLINE_INFLATED_BYTES_MAX: usize = 160 << 10;

/// Where a first guess at a body's decompressed size was too low, the next is this much higher: what was done in vain is then at
/// most a seventh of the work.
const ROOM_GROWTH: usize = 8;

/// The gate. One for all doors, since memory and processors are shared.
#[derive(Debug)]
pub(super) struct Gate {
    auth: Auth,
    /// Where callers' keys are kept, if a sink acts in their name.
    keys: Option<Arc<Keyring>>,
    budget: Budget,
    pool: Pool,
    /// As many heavy bodies are read at a time as there are processors: more would only take more memory.
    heavy: Semaphore,
    limits: Limits,
    bytes_max: usize,
    bytes_max_inflated: usize,
    body_idle_timeout: Duration,
}

/// Where work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// On the thread that received the request.
    Here,
    /// On one that may block.
    Aside,
}

impl Where {
    /// The place to read a body of this size.
    pub(super) fn reading(encoding: Encoding, bytes: usize) -> Self {
        match encoding {
            Encoding::Protobuf => Self::of(bytes, INLINE_PROTOBUF_BYTES_MAX),
            Encoding::Json => Self::of(bytes, INLINE_JSON_BYTES_MAX),
        }
    }

    fn of(bytes: usize, inline_bytes_max: usize) -> Self {
        if bytes <= inline_bytes_max { Self::Here } else { Self::Aside }
    }
}

/// The request without the keys that some Agents SDK items carry: what is kept and what is understood. Everything else stays as
/// sent.
fn without_credentials(envelope: &mut Envelope, sent: Bytes, body: Bytes) -> (Bytes, Bytes) {
    if envelope.source.receiver != Receiver::OpenAi {
        return (sent, body);
    }
    let scrubbed = scrub_credentials(body.clone());
    if scrubbed.len() == body.len() {
        return (sent, body);
    }
    envelope.coding = Coding::Identity;
    envelope.body_bytes = scrubbed.len() as u64;
    (scrubbed.clone(), scrubbed)
}

impl Gate {
    /// The gate that these options describe.
    pub(super) fn new(options: &ReceiverOptions, keys: Option<Arc<Keyring>>) -> Self {
        Self {
            auth: Auth::new(&options.tokens),
            keys,
            budget: Budget::new(options.in_flight_bytes_max),
            pool: Pool::default(),
            heavy: Semaphore::new(available_parallelism().map_or(1, NonZero::get)),
            limits: Limits::default(),
            bytes_max: options.body_bytes_max,
            bytes_max_inflated: options.body_bytes_max_inflated,
            body_idle_timeout: options.body_idle_timeout,
        }
    }

    /// Who sends this, if they are let in.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Identity, Failure> {
        self.auth.identify(headers)
    }

    /// Keeps the caller's key, if a sink acts in callers' names.
    pub(super) fn remember(&self, headers: &HeaderMap, identity: &Identity) {
        if let Some(keys) = &self.keys {
            self.auth.remember(keys, headers, identity);
        }
    }

    /// The most a body may take on the wire, in bytes.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Begins to take a body in.
    pub(super) fn filling<'a>(&'a self, incoming: &'a mut Incoming) -> Filling<'a> {
        Filling::new(self, incoming, self.bytes_max, 0)
    }

    /// Begins to take in a body with a gRPC frame of this length around it.
    pub(super) fn framed<'a>(&'a self, incoming: &'a mut Incoming, frame: usize) -> Filling<'a> {
        Filling::new(self, incoming, self.bytes_max, frame)
    }

    /// Undoes the coding of a body and understands it. Its reservation comes to cover what that takes in memory.
    pub(super) async fn understand(
        &self,
        mut envelope: Envelope,
        sent: Bytes,
        reservation: &mut Reservation,
    ) -> Result<Arrival, Failure> {
        let body = self.inflate(envelope.coding, &sent, reservation).await?;
        envelope.body_bytes = body.len() as u64;
        let limits = self.limits;
        let (size, wire_bytes) = (body.len(), sent.len());
        let place = Where::reading(envelope.encoding, size);
        let arrival = self
            .work(place, move || {
                let (sent, body) = without_credentials(&mut envelope, sent, body);
                let decoded = decode(&envelope, &body, &limits)?;
                Ok::<_, Failure>(Arrival { envelope, sent, decoded })
            })
            .await??;
        let copies = if arrival.envelope.coding == Coding::Identity { 0 } else { wire_bytes };
        reservation.cover(copies + arrival.decoded.batch.bytes.max(size)).await?;
        Ok(arrival)
    }

    /// Undoes the coding of a body, in as much room as the reservation can be made to cover.
    pub(super) async fn inflate(
        &self,
        coding: Coding,
        sent: &Bytes,
        reservation: &mut Reservation,
    ) -> Result<Bytes, Failure> {
        if coding == Coding::Identity {
            return Ok(inflate(coding, sent.clone(), self.bytes_max_inflated)?);
        }
        let mut room = inflated_guess(coding, sent).min(self.bytes_max_inflated);
        loop {
            reservation.cover(sent.len() + room).await?;
            let input = sent.clone();
            let place = Where::of(room, INLINE_INFLATED_BYTES_MAX);
            match self.work(place, move || inflate(coding, input, room)).await? {
                Err(InflateError::TooLarge { .. }) if room < self.bytes_max_inflated => {
                    room = room.saturating_mul(ROOM_GROWTH).min(self.bytes_max_inflated);
                }
                inflated => {
                    let inflated = inflated?;
                    reservation.settle(sent.len() + inflated.len());
                    return Ok(inflated);
                }
            }
        }
    }

    /// Does work, there.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        place: Where,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        if place == Where::Here {
            return Ok(work());
        }
        let _turn = self.heavy.acquire().await.map_err(|_| Failure::STOPPING)?;
        // A panic in there comes back as an error.
        spawn_blocking(work).await.map_err(|_| Failure::PANICKED)
    }
}

/// The coding that a request says its body has.
pub(super) fn content_coding(headers: &HeaderMap) -> Result<Coding, Failure> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Coding::Identity) };
    value.to_str().ok().and_then(Coding::from_header).ok_or(Failure::Coding)
}

/// How large a body may be once inflated: what its own framing claims where it does, and a usual ratio elsewhere. Only good for
/// reserving room, since the sender may have written anything.
fn inflated_guess(coding: Coding, body: &[u8]) -> usize {
    let usual = body.len().saturating_mul(USUAL_RATIO);
    let guess = match coding {
        Coding::Identity => body.len(),
        Coding::Deflate => usual,
        // RFC 1952: the last four bytes are the last member's length modulo 2^32.
        Coding::Gzip => match body.last_chunk().map(|length| u32::from_le_bytes(*length)) {
            Some(length) if 0 < length => usize::try_from(length)
                .unwrap_or(usize::MAX)
                .min(body.len().saturating_mul(DEFLATE_RATIO_MAX)),
            _ => usual,
        },
        Coding::Zstd => match zstd::zstd_safe::get_frame_content_size(body) {
            Ok(Some(length)) => usize::try_from(length).unwrap_or(usize::MAX),
            _ => usual,
        },
    };
    guess.max(GUESS_BYTES_MIN)
}

/// Traces shrink to between a fifth and a tenth.
const USUAL_RATIO: usize = 8;
/// Deflate writes at most 258 bytes for two bits.
const DEFLATE_RATIO_MAX: usize = 1032;
/// Not worth guessing below.
const GUESS_BYTES_MIN: usize = 4 << 10;
