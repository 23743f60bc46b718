//! Takes a request body in, frame by frame: never more than the limit, never more than is reserved, never for ever.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout};

use super::Gate;
use super::budget::Reservation;
use crate::receivers::failure::Failure;
use crate::support::pool::Piece;

/// A body whose length is not announced is given room in steps that double from here.
const FIRST_STEP_BYTES: usize = 64 << 10;

/// Nobody waits longer than this for an answer, so a body that takes longer is nobody's.
const BODY_TIME_MAX: Duration = Duration::from_mins(2);

/// What of a refused body is still read, so that the client finishes sending and sees the answer instead of a reset.
const DISCARD_BYTES_MAX: u64 = 256 << 20;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(10);

/// A whole body, and its share of the budget.
#[derive(Debug)]
pub(in crate::receivers) struct Body {
    /// As it came over the wire.
    pub(in crate::receivers) bytes: Bytes,
    /// Held until the request is answered.
    pub(in crate::receivers) reservation: Reservation,
}

/// A body that is coming in.
#[derive(Debug)]
pub(in crate::receivers) struct Filling<'a> {
    gate: &'a Gate,
    incoming: &'a mut Incoming,
    reservation: Reservation,
    bytes_max: usize,
    /// What has come so far. It is copied out of the connection's read buffer at once: as long as somebody holds a piece of that,
    /// the connection takes a new one, and a body kept so would keep all of it alive for as long as a sink is behind.
    piece: Piece,
    /// Bytes in front of what is to be kept.
    lead: usize,
    started: Instant,
}

impl<'a> Filling<'a> {
    /// Begins with a body that has so many bytes in front of what is to be kept; nothing is read yet.
    pub(super) fn new(
        gate: &'a Gate,
        incoming: &'a mut Incoming,
        bytes_max: usize,
        lead: usize,
    ) -> Self {
        Self {
            gate,
            incoming,
            reservation: gate.budget.reservation(),
            bytes_max: bytes_max.saturating_add(lead),
            piece: Piece::default(),
            lead,
            started: Instant::now(),
        }
    }

    /// Takes the body in to its end.
    pub(in crate::receivers) async fn fill(mut self) -> Result<Body, Failure> {
        if let Some(announced) = self.incoming.size_hint().exact() {
            self.expect(usize::try_from(announced).unwrap_or(usize::MAX)).await?;
        }
        while self.pull().await? {}
        Ok(self.finish())
    }

    /// Makes room for a body of this length in all.
    pub(in crate::receivers) async fn expect(&mut self, bytes: usize) -> Result<(), Failure> {
        if self.bytes_max < bytes {
            return Err(Failure::body_too_large(self.bytes_max));
        }
        self.reservation.cover(bytes).await
    }

    /// Takes the next frame in; `false` at the end.
    pub(in crate::receivers) async fn pull(&mut self) -> Result<bool, Failure> {
        let left = BODY_TIME_MAX.saturating_sub(self.started.elapsed());
        let frame = timeout(left.min(self.gate.body_idle_timeout), self.incoming.frame()).await;
        let frame = match frame {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Failure::Gone),
            Ok(None) => return Ok(false),
            Err(_) => return Err(Failure::Slow),
        };
        if let Ok(data) = frame.into_data() {
            self.add(data).await?;
        }
        Ok(true)
    }

    /// What has come so far.
    pub(in crate::receivers) fn bytes(&self) -> &[u8] {
        self.piece.bytes()
    }

    /// The body, which has come to its end.
    pub(in crate::receivers) fn finish(self) -> Body {
        Body { bytes: self.gate.pool.share(self.piece), reservation: self.reservation }
    }

    async fn add(&mut self, data: Bytes) -> Result<(), Failure> {
        let bytes = self.bytes().len() + data.len();
        if self.bytes_max < bytes {
            return Err(Failure::body_too_large(self.bytes_max));
        }
        if !self.reservation.covers(bytes) {
            let step = bytes.next_power_of_two().max(FIRST_STEP_BYTES).min(self.bytes_max);
            self.reservation.cover(step).await?;
        }
        if self.piece.room() < bytes {
            self.move_to_room(self.reservation.bytes().min(self.bytes_max));
        }
        self.piece.extend(&data);
        Ok(())
    }

    fn move_to_room(&mut self, bytes: usize) {
        let mut piece = self.gate.pool.take(bytes, self.lead);
        piece.extend(self.piece.bytes());
        self.gate.pool.give_back(std::mem::replace(&mut self.piece, piece));
    }
}

/// Reads on for a while and throws away what comes.
pub(in crate::receivers) async fn discard(mut incoming: Incoming) {
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = incoming.frame().await {
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if DISCARD_BYTES_MAX < bytes {
                return;
            }
        }
    };
    timeout(DISCARD_TIME_MAX, reading).await.ok();
}
