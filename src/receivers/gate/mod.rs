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
use crate::normalize::{Coding, Envelope, InflateError, Limits, decode, inflate};

/// Bodies up to this size are read on the thread that received them. It takes some 200 microseconds at most (JSON; OTLP's
/// protobuf is walked ten times faster), while moving to another thread and back costs 10 to 20.
const INLINE_BYTES_MAX: usize = 128 << 10;

/// Where a first guess at a body's decompressed size was too low, the next is this much higher: what was done in vain is then at
/// most a seventh of the work.
const ROOM_GROWTH: usize = 8;

/// The gate. One for all doors, since memory and processors are shared.
#[derive(Debug)]
pub(super) struct Gate {
    auth: Auth,
    budget: Budget,
    /// As many heavy bodies are read at a time as there are processors: more would only take more memory.
    heavy: Semaphore,
    limits: Limits,
    bytes_max: usize,
    bytes_max_inflated: usize,
    body_idle_timeout: Duration,
}

impl Gate {
    /// The gate that these options describe.
    pub(super) fn new(options: &ReceiverOptions) -> Self {
        Self {
            auth: Auth::new(&options.tokens),
            budget: Budget::new(options.in_flight_bytes_max),
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

    /// The most a body may take on the wire, in bytes.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Begins to take a body in.
    pub(super) fn filling<'a>(&'a self, incoming: &'a mut Incoming) -> Filling<'a> {
        Filling::new(self, incoming, self.bytes_max)
    }

    /// Begins to take in a body with a gRPC frame of this length around it.
    pub(super) fn framed<'a>(&'a self, incoming: &'a mut Incoming, frame: usize) -> Filling<'a> {
        Filling::new(self, incoming, self.bytes_max.saturating_add(frame))
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
        let arrival = self
            .work(size, move || {
                let decoded = decode(&envelope, &body, &limits)?;
                Ok::<_, Failure>(Arrival { envelope, sent, body, decoded })
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
            match self.work(room, move || inflate(coding, input, room)).await? {
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

    /// Does work on so many bytes: here when it is little, on a thread that may block when it is much.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        if bytes <= INLINE_BYTES_MAX {
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
