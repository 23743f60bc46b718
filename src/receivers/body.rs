//! Reads request bodies, frame by frame: never more than the limit, never more than is taken of the budget, never for ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout};

use super::budget::{Arrival, Arrivals};
use super::options::ReceiverOptions;
use super::refusal::Refusal;
use crate::support::pool::{Piece, Pool};

/// A body whose length is not announced, or for which there is not plenty of room, begins with so much.
const FIRST_ROOM_BYTES: usize = 4 << 10;

/// Nobody waits longer than this for an answer, so a body that takes longer is nobody's.
const BODY_TIME_MAX: Duration = Duration::from_mins(2);

/// What of a refused body is still read, so that the client finishes sending and sees the answer instead of a reset.
const DISCARD_BYTES_MAX: u64 = 256 << 20;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(10);

/// What all bodies share.
#[derive(Debug)]
pub(super) struct Bodies {
    arrivals: Arc<Arrivals>,
    pool: Pool,
    bytes_max: usize,
    idle_timeout: Duration,
}

/// A whole body, and its share of the budget.
#[derive(Debug)]
pub(super) struct Body {
    /// As it came over the wire.
    pub(super) bytes: Bytes,
    /// Held until the request has taken its memory.
    pub(super) arrival: Arrival,
}

/// A body that is coming in.
#[derive(Debug)]
pub(super) struct BodyReader<'a> {
    bodies: &'a Bodies,
    incoming: &'a mut Incoming,
    arrival: Arrival,
    bytes_max: usize,
    /// What has come so far. It is copied out of the connection's read buffer at once: as long as somebody holds a piece of that,
    /// the connection takes a new one, and a body kept so would keep all of it alive for as long as a sink is behind.
    piece: Piece,
    /// Bytes in front of what is to be kept.
    lead: usize,
    /// How long the body says it is, where that is within the limit.
    announced: Option<usize>,
    started: Instant,
}

impl Bodies {
    /// Bodies within these limits and this share of the budget.
    pub(super) fn new(options: &ReceiverOptions, bytes_arriving_max: usize) -> Self {
        Self {
            arrivals: Arrivals::new(bytes_arriving_max),
            pool: Pool::default(),
            bytes_max: options.body_bytes_max,
            idle_timeout: options.body_idle_timeout,
        }
    }

    /// Has the body that has been coming the longest give way: its connection is wanted.
    pub(super) fn oldest_gives_way(&self) {
        self.arrivals.oldest_gives_way();
    }

    /// Begins to read a body that has so many bytes in front of what is to be kept.
    pub(super) fn reader<'a>(&'a self, incoming: &'a mut Incoming, lead: usize) -> BodyReader<'a> {
        BodyReader {
            bodies: self,
            incoming,
            arrival: self.arrivals.begin(),
            bytes_max: self.bytes_max.saturating_add(lead),
            piece: Piece::default(),
            lead,
            announced: None,
            started: Instant::now(),
        }
    }
}

impl BodyReader<'_> {
    /// Reads the body to its end.
    pub(super) async fn read(mut self) -> Result<Body, Refusal> {
        if let Some(announced) = self.incoming.size_hint().exact() {
            self.expect(usize::try_from(announced).unwrap_or(usize::MAX))?;
        }
        while self.pull().await? {}
        Ok(self.finish())
    }

    /// Says how long the body is going to be in all.
    pub(super) fn expect(&mut self, bytes: usize) -> Result<(), Refusal> {
        if self.bytes_max < bytes {
            return Err(Refusal::body_too_large(self.bytes_max - self.lead));
        }
        self.announced = Some(bytes);
        Ok(())
    }

    /// Reads the next frame; `false` at the end.
    pub(super) async fn pull(&mut self) -> Result<bool, Refusal> {
        let left = BODY_TIME_MAX.saturating_sub(self.started.elapsed());
        let frame = tokio::select! {
            frame = timeout(left.min(self.bodies.idle_timeout), self.incoming.frame()) => frame,
            () = self.arrival.gives_way() => return Err(Refusal::TOO_MANY_BYTES),
        };
        let frame = match frame {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Refusal::Gone),
            Ok(None) => return Ok(false),
            Err(_) => return Err(Refusal::Slow),
        };
        if let Ok(data) = frame.into_data() {
            self.add(&data).await?;
        }
        Ok(true)
    }

    /// What has come so far.
    pub(super) fn bytes(&self) -> &[u8] {
        self.piece.bytes()
    }

    /// The body, which has come to its end.
    pub(super) fn finish(self) -> Body {
        Body { bytes: self.bodies.pool.share(self.piece), arrival: self.arrival }
    }

    async fn add(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let bytes = self.bytes().len() + data.len();
        if self.bytes_max < bytes {
            return Err(Refusal::body_too_large(self.bytes_max - self.lead));
        }
        if self.piece.room() < bytes {
            let room = self.take_room(bytes).await?;
            let mut piece = self.bodies.pool.take(room, self.lead);
            piece.extend(self.piece.bytes());
            self.bodies.pool.give_back(std::mem::replace(&mut self.piece, piece));
        }
        self.piece.extend(data);
        Ok(())
    }

    /// Takes room for what is announced while there is plenty, else for about twice of what came.
    async fn take_room(&self, bytes: usize) -> Result<usize, Refusal> {
        if let Some(announced) = self.announced.filter(|announced| bytes <= *announced)
            && self.arrival.try_announce(announced)
        {
            return Ok(announced);
        }
        let doubled = bytes.next_power_of_two().max(FIRST_ROOM_BYTES);
        let room = doubled.min(self.announced.unwrap_or(usize::MAX)).min(self.bytes_max).max(bytes);
        self.arrival.take(room).await?;
        Ok(room)
    }
}

/// Reads on for a while and throws away what comes.
pub(super) async fn discard(mut incoming: Incoming) {
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
