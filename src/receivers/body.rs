//! Reads request bodies, frame by frame, within limits: of each body's size and time, and of the bytes of all bodies, which have a part of
//! the budget while they arrive.
//!
//! Received bytes are taken from that part; announced bytes are taken in advance while half of it is free. When it is exhausted, the body
//! that has been arriving longest is aborted, so no client can keep others out by sending slowly.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::budget::ROOM_WAIT;
use super::options::ReceiverOptions;
use super::refusal::Refusal;
use crate::support::lock::lock;
use crate::support::pool::{Pool, PoolBuffer};
use crate::support::stop::Stop;

/// Initial buffer of a body whose length is not announced, or for which there is little memory.
const FIRST_ROOM_BYTES: usize = 4 << 10;

/// Maximum time of a body: no client waits longer than this for an answer.
const BODY_TIME_MAX: Duration = Duration::from_mins(2);

/// A body that has been arriving for less than this is not aborted: on a fast network the largest takes no longer.
const ARRIVAL_TIME_MIN: Duration = Duration::from_millis(500);

/// How much of a refused body is still read, so that the client finishes sending and sees the answer instead of a reset.
const DISCARD_BYTES_MAX: u64 = 256 << 20;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(10);

/// All bodies that are still arriving. This is a handle: clones share it.
#[derive(Debug, Clone)]
pub(super) struct Bodies(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Maximum of all bodies together.
    arriving_bytes_max: usize,
    /// Maximum of one body.
    body_bytes_max: usize,
    idle_timeout: Duration,
    pool: Pool,
    coming: Mutex<Coming>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Coming {
    taken: usize,
    /// By number, and thus by age.
    bodies: BTreeMap<u64, Holder>,
    last: u64,
}

#[derive(Debug)]
struct Holder {
    since: Instant,
    bytes: usize,
    gives_way: Stop,
}

/// The budget taken by one body, released on drop.
#[derive(Debug)]
pub(super) struct BodyReservation {
    shared: Arc<Shared>,
    number: u64,
    since: Instant,
    gives_way: Stop,
}

/// A complete body, and its share of the budget.
#[derive(Debug)]
pub(super) struct Body {
    /// The bytes on the wire.
    pub(super) bytes: Bytes,
    /// Held until the request has reserved its memory.
    pub(super) arrival: BodyReservation,
}

/// A body that is arriving.
#[derive(Debug)]
pub(super) struct BodyReader<'a> {
    incoming: &'a mut Incoming,
    arrival: BodyReservation,
    /// The limit of the body and what is before it.
    pub(super) bytes_max: usize,
    /// The bytes received so far. They are copied out of the connection's read buffer immediately: while a slice of that is held, the
    /// connection allocates a new one, and a stored body would keep all of it alive for as long as a sink is behind.
    piece: PoolBuffer,
    /// Number of bytes before the part to store.
    lead: usize,
    /// The announced length, if it is within the limit.
    announced: Option<usize>,
}

impl Bodies {
    /// Creates the state for bodies within these limits, which may occupy `arriving_bytes_max` together while they arrive.
    pub(super) fn new(options: &ReceiverOptions, arriving_bytes_max: usize) -> Self {
        Self(Arc::new(Shared {
            arriving_bytes_max,
            body_bytes_max: options.body_bytes_max,
            idle_timeout: options.body_idle_timeout,
            pool: Pool::default(),
            coming: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// Starts to read a body that has `lead` bytes before the part to store.
    pub(super) fn reader<'a>(&self, incoming: &'a mut Incoming, lead: usize) -> BodyReader<'a> {
        BodyReader {
            incoming,
            arrival: self.begin(),
            bytes_max: self.0.body_bytes_max.saturating_add(lead),
            piece: PoolBuffer::default(),
            lead,
            announced: None,
        }
    }

    pub(super) fn begin(&self) -> BodyReservation {
        let (since, gives_way) = (Instant::now(), Stop::default());
        let mut coming = lock(&self.0.coming);
        coming.last += 1;
        let number = coming.last;
        coming.bodies.insert(number, Holder { since, bytes: 0, gives_way: gives_way.clone() });
        drop(coming);
        BodyReservation { shared: Arc::clone(&self.0), number, since, gives_way }
    }

    /// Aborts the body that has been arriving longest, unless it only just began, because its connection is needed.
    pub(super) fn oldest_gives_way(&self) {
        if let Some(oldest) = lock(&self.0.coming).bodies.values().next()
            && ARRIVAL_TIME_MIN <= oldest.since.elapsed()
        {
            oldest.gives_way.stop();
        }
    }
}

impl Coming {
    /// Increases a body's share to `bytes`. If all bodies together would exceed `bytes_max`, returns by how much.
    fn try_take(&mut self, number: u64, bytes: usize, bytes_max: usize) -> Result<(), usize> {
        let Some(holder) = self.bodies.get_mut(&number) else { return Err(0) };
        let taken = self.taken - holder.bytes + bytes;
        if bytes_max < taken {
            return Err(taken - bytes_max);
        }
        (self.taken, holder.bytes) = (taken, bytes);
        Ok(())
    }

    /// Aborts the oldest bodies until `missing` bytes will become free.
    fn make_room(&mut self, number: u64, mut missing: usize) {
        let bodies = self.bodies.iter().filter(|(other, _)| **other != number);
        for (_, holder) in bodies {
            if missing == 0 || holder.since.elapsed() < ARRIVAL_TIME_MIN {
                return;
            }
            holder.gives_way.stop();
            missing = missing.saturating_sub(holder.bytes);
        }
    }
}

impl BodyReservation {
    /// Reserves space for an announced length, if there is plenty.
    fn try_announce(&self, bytes: usize) -> bool {
        let (mut coming, most) = (lock(&self.shared.coming), self.shared.arriving_bytes_max / 2);
        coming.try_take(self.number, bytes, most).is_ok()
    }

    /// Reserves space for `bytes` in total; waits briefly if there is none.
    async fn take(&self, bytes: usize) -> Result<(), Refusal> {
        let deadline = Instant::now() + ROOM_WAIT;
        loop {
            let mut freed = pin!(self.shared.freed.notified());
            freed.as_mut().enable();
            {
                let (mut coming, most) =
                    (lock(&self.shared.coming), self.shared.arriving_bytes_max);
                match coming.try_take(self.number, bytes, most) {
                    Ok(()) => return Ok(()),
                    Err(missing) => coming.make_room(self.number, missing),
                }
            }
            // Others may become old enough to be aborted during this wait.
            let again = deadline.min(Instant::now() + ARRIVAL_TIME_MIN);
            tokio::select! {
                freed = timeout_at(again, freed) => {
                    if freed.is_err() && deadline <= Instant::now() {
                        return Err(Refusal::TOO_MANY_BYTES);
                    }
                }
                () = self.gives_way.stopped() => return Err(Refusal::TOO_MANY_BYTES),
            }
        }
    }
}

impl Drop for BodyReservation {
    fn drop(&mut self) {
        let mut coming = lock(&self.shared.coming);
        coming.taken -= coming.bodies.remove(&self.number).map_or(0, |holder| holder.bytes);
        drop(coming);
        self.shared.freed.notify_waiters();
    }
}

impl BodyReader<'_> {
    pub(super) async fn read(mut self) -> Result<Body, Refusal> {
        if let Some(announced) = self.incoming.size_hint().exact() {
            self.expect(usize::try_from(announced).unwrap_or(usize::MAX))?;
        }
        while self.pull().await? {}
        Ok(self.finish())
    }

    /// Sets the announced length of the body.
    pub(super) fn expect(&mut self, bytes: usize) -> Result<(), Refusal> {
        if self.bytes_max < bytes {
            return Err(Refusal::body_too_large(self.bytes_max - self.lead));
        }
        self.announced = Some(bytes);
        Ok(())
    }

    /// Reads the next frame; returns `false` at the end.
    pub(super) async fn pull(&mut self) -> Result<bool, Refusal> {
        let left = BODY_TIME_MAX.saturating_sub(self.arrival.since.elapsed());
        let idle_timeout = self.arrival.shared.idle_timeout;
        let frame = tokio::select! {
            frame = timeout(left.min(idle_timeout), self.incoming.frame()) => frame,
            () = self.arrival.gives_way.stopped() => return Err(Refusal::TOO_MANY_BYTES),
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

    pub(super) fn bytes(&self) -> &[u8] {
        self.piece.bytes()
    }

    /// Returns the complete body.
    pub(super) fn finish(self) -> Body {
        Body { bytes: self.arrival.shared.pool.share(self.piece), arrival: self.arrival }
    }

    async fn add(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let bytes = self.bytes().len() + data.len();
        if self.bytes_max < bytes {
            return Err(Refusal::body_too_large(self.bytes_max - self.lead));
        }
        if self.piece.room() < bytes {
            let room = self.take_room(bytes).await?;
            let pool = &self.arrival.shared.pool;
            let mut piece = pool.take(room, self.lead);
            piece.extend(self.piece.bytes());
            pool.give_back(std::mem::replace(&mut self.piece, piece));
        }
        self.piece.extend(data);
        Ok(())
    }

    /// Reserves space for the announced length if there is plenty, else for about twice the received length.
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

/// Reads and discards the rest of a body for a while.
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

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    fn bodies() -> Bodies {
        Bodies::new(&ReceiverOptions::default(), 100)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_announced_takes_half_and_what_came_the_rest() {
        let arrivals = bodies();
        let (one, two, three) = (arrivals.begin(), arrivals.begin(), arrivals.begin());
        assert!(one.try_announce(50));
        assert!(!two.try_announce(1));
        two.take(30).await.unwrap();
        three.take(20).await.unwrap();
        drop(one);
        three.take(70).await.unwrap();
        drop((two, three));
        assert_eq!(lock(&arrivals.0.coming).taken, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_body_that_has_been_coming_the_longest_gives_way() {
        let arrivals = bodies();
        let (old, young) = (arrivals.begin(), arrivals.begin());
        old.take(60).await.unwrap();
        young.take(40).await.unwrap();
        advance(ARRIVAL_TIME_MIN).await;
        let newest = arrivals.begin();
        let begun = Instant::now();
        let (taken, ()) = tokio::join!(newest.take(30), async {
            old.gives_way.stopped().await;
            drop(old);
        });
        taken.unwrap();
        assert!(begun.elapsed() < ARRIVAL_TIME_MIN && !young.gives_way.is_stopped());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_bodies_give_way_than_are_in_the_way() {
        let arrivals = bodies();
        let (oldest, older, large) = (arrivals.begin(), arrivals.begin(), arrivals.begin());
        oldest.take(30).await.unwrap();
        older.take(30).await.unwrap();
        large.take(20).await.unwrap();
        advance(ARRIVAL_TIME_MIN).await;
        let (taken, ()) = tokio::join!(large.take(50), async {
            oldest.gives_way.stopped().await;
            drop(oldest);
        });
        taken.unwrap();
        assert!(!older.gives_way.is_stopped(), "ten bytes were missing");
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_only_just_began_are_waited_for() {
        let arrivals = bodies();
        let (first, second) = (arrivals.begin(), arrivals.begin());
        first.take(100).await.unwrap();
        let (taken, ()) = tokio::join!(second.take(10), async {
            sleep(ARRIVAL_TIME_MIN / 2).await;
            assert!(!first.gives_way.is_stopped());
            first.gives_way.stopped().await;
            drop(first);
        });
        taken.unwrap();
    }
}
