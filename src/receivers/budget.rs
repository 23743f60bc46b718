//! One budget for the bytes of all requests in flight, in two parts, so that nobody holds memory while waiting for more of the same.
//!
//! * [`Arrivals`]: bodies that are still coming. What came is taken from it; what is only announced is taken while half of it is free.
//!   When it runs out, the body that has been coming the longest gives way, so nobody can keep others out by sending slowly.
//! * [`Memory`]: bodies that are there whole. A request takes all that it can need at once, first come, first served, and never more
//!   while it holds some; what it held of the first part it gives back then.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::options::ReceiverOptions;
use super::refusal::Refusal;
use crate::support::stop::Stop;

/// How long a request waits for room. Holding it for a moment is kinder than an error, and well within any client's patience.
pub(super) const ROOM_WAIT: Duration = Duration::from_secs(2);

/// A body that has been coming for less does not give way: on a fast line the largest takes no longer.
const ARRIVAL_TIME_MIN: Duration = Duration::from_millis(500);

/// The least share of the budget for bodies that are still coming: a quarter.
const ARRIVALS_SHARE: usize = 4;

/// What may be around the largest body: gRPC's five bytes.
const FRAME_BYTES_MAX: usize = 64;

/// How many bytes bodies may take while they come, and how many once they are there.
pub(super) fn split(options: &ReceiverOptions) -> (usize, usize) {
    let largest = options.body_bytes_max.saturating_add(FRAME_BYTES_MAX);
    let arriving = (options.in_flight_bytes_max / ARRIVALS_SHARE).max(largest);
    (arriving, options.in_flight_bytes_max.saturating_sub(arriving))
}

/// The bytes of all bodies that are still coming.
#[derive(Debug)]
pub(super) struct Arrivals {
    bytes_max: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// By number, and so by age.
    bodies: BTreeMap<u64, Coming>,
    last: u64,
}

#[derive(Debug)]
struct Coming {
    since: Instant,
    bytes: usize,
    gives_way: Stop,
}

/// What one body has taken. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Arrival {
    arrivals: Arc<Arrivals>,
    number: u64,
    gives_way: Stop,
}

impl Arrivals {
    /// So many bytes for everybody.
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, state: Mutex::default(), freed: Notify::new() })
    }

    /// A body that begins to come.
    pub(super) fn begin(self: &Arc<Self>) -> Arrival {
        let gives_way = Stop::default();
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        let coming = Coming { since: Instant::now(), bytes: 0, gives_way: gives_way.clone() };
        state.bodies.insert(number, coming);
        drop(state);
        Arrival { arrivals: Arc::clone(self), number, gives_way }
    }

    /// Has the body that has been coming the longest give way, unless it only just began.
    pub(super) fn oldest_gives_way(&self) {
        if let Some(oldest) = self.lock().bodies.values().next()
            && ARRIVAL_TIME_MIN <= oldest.since.elapsed()
        {
            oldest.gives_way.stop();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes room for so many bytes of a body in all, unless all bodies together then have more than `bytes_max`.
    fn try_take(&mut self, number: u64, bytes: usize, bytes_max: usize) -> bool {
        let Some(coming) = self.bodies.get_mut(&number) else { return false };
        let taken = self.taken - coming.bytes + bytes;
        if bytes_max < taken {
            return false;
        }
        self.taken = taken;
        coming.bytes = bytes;
        true
    }

    /// Has the oldest bodies give way until so many bytes come free.
    fn make_room(&mut self, number: u64, mut missing: usize) {
        let bodies = self.bodies.iter().filter(|(other, _)| **other != number);
        for (_, coming) in bodies {
            if missing == 0 || coming.since.elapsed() < ARRIVAL_TIME_MIN {
                return;
            }
            coming.gives_way.stop();
            missing = missing.saturating_sub(coming.bytes);
        }
    }
}

impl Arrival {
    /// Takes room for a body of this length that is only announced, while there is plenty.
    pub(super) fn try_announce(&self, bytes: usize) -> bool {
        self.arrivals.lock().try_take(self.number, bytes, self.arrivals.bytes_max / 2)
    }

    /// Takes room for so many bytes in all; waits a moment where there is none.
    pub(super) async fn take(&self, bytes: usize) -> Result<(), Refusal> {
        let deadline = Instant::now() + ROOM_WAIT;
        loop {
            let mut freed = pin!(self.arrivals.freed.notified());
            freed.as_mut().enable();
            {
                let mut state = self.arrivals.lock();
                if state.try_take(self.number, bytes, self.arrivals.bytes_max) {
                    return Ok(());
                }
                state.make_room(self.number, bytes);
            }
            // Others may become old enough to give way while this waits.
            let again = deadline.min(Instant::now() + ARRIVAL_TIME_MIN);
            tokio::select! {
                freed = timeout_at(again, freed) => {
                    if freed.is_err() && deadline <= Instant::now() {
                        return Err(Refusal::TOO_MANY_BYTES);
                    }
                }
                () = self.gives_way() => return Err(Refusal::TOO_MANY_BYTES),
            }
        }
    }

    /// Waits until the body has to give way to others.
    pub(super) async fn gives_way(&self) {
        self.gives_way.stopped().await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut state = self.arrivals.lock();
        state.taken -= state.bodies.remove(&self.number).map_or(0, |coming| coming.bytes);
        drop(state);
        self.arrivals.freed.notify_waiters();
    }
}

/// The memory of all requests whose bodies are there.
#[derive(Debug)]
pub(super) struct Memory {
    bytes_max: usize,
    free: Arc<Semaphore>,
}

/// What one request has taken of the memory. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Reservation(OwnedSemaphorePermit);

impl Memory {
    /// So many bytes for everybody.
    pub(super) fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(Semaphore::MAX_PERMITS);
        Self { bytes_max, free: Arc::new(Semaphore::new(bytes_max)) }
    }

    /// How many bytes there are.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Takes all that a request can need; waits its turn for a moment. What is more than everybody's is refused for good.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Reservation, Refusal> {
        let permits = u32::try_from(bytes).ok().filter(|_| bytes <= self.bytes_max);
        let permits = permits.ok_or_else(|| Refusal::needs_too_much(bytes, self.bytes_max))?;
        let turn = Arc::clone(&self.free).acquire_many_owned(permits);
        let permit = timeout(ROOM_WAIT, turn).await.ok().and_then(Result::ok);
        permit.map(Reservation).ok_or(Refusal::TOO_MANY_BYTES)
    }
}

impl Reservation {
    /// Gives back what goes beyond so many bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let surplus = self.0.num_permits().saturating_sub(bytes);
        drop(self.0.split(surplus));
    }

    /// How many bytes it covers.
    pub(super) fn bytes(&self) -> usize {
        self.0.num_permits()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_its_turn_for_a_moment_and_is_then_told_to_come_again() {
        let memory = Memory::new(10 << 10);
        let first = memory.reserve(8 << 10).await.unwrap();
        assert_eq!(memory.reserve(3 << 10).await.unwrap_err(), Refusal::TOO_MANY_BYTES);
        let (second, ()) = tokio::join!(memory.reserve(3 << 10), async {
            sleep(ROOM_WAIT / 2).await;
            drop(first);
        });
        let mut second = second.unwrap();
        second.shrink(1);
        assert_eq!((second.bytes(), memory.free.available_permits()), (1, (10 << 10) - 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_is_not_overtaken_for_ever_by_small_ones() {
        let memory = Arc::new(Memory::new(10 << 10));
        let small = memory.reserve(6 << 10).await.unwrap();
        let large = tokio::spawn({
            let memory = Arc::clone(&memory);
            async move { memory.reserve(10 << 10).await.map(drop) }
        });
        tokio::task::yield_now().await;
        let later = memory.reserve(1 << 10);
        let ((), later) = tokio::join!(async { drop(small) }, later);
        assert!(large.await.unwrap().is_ok() && later.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_never_fit_is_refused_at_once_and_for_good() {
        let memory = Memory::new(10 << 10);
        let _held = memory.reserve(10 << 10).await.unwrap();
        let begun = Instant::now();
        let refusal = memory.reserve((10 << 10) + 1).await.unwrap_err();
        assert!(matches!(&refusal, Refusal::TooLarge(_)), "{refusal}");
        assert!(refusal.to_string().contains("in_flight_bytes_max"), "{refusal}");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_announced_takes_half_and_what_came_the_rest() {
        let arrivals = Arrivals::new(100);
        let (one, two, three) = (arrivals.begin(), arrivals.begin(), arrivals.begin());
        assert!(one.try_announce(50));
        assert!(!two.try_announce(1));
        two.take(30).await.unwrap();
        three.take(20).await.unwrap();
        drop(one);
        three.take(70).await.unwrap();
        drop((two, three));
        assert_eq!(arrivals.lock().taken, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_body_that_has_been_coming_the_longest_gives_way() {
        let arrivals = Arrivals::new(100);
        let (old, young) = (arrivals.begin(), arrivals.begin());
        old.take(60).await.unwrap();
        young.take(40).await.unwrap();
        advance(ARRIVAL_TIME_MIN).await;
        let newest = arrivals.begin();
        let begun = Instant::now();
        let (taken, ()) = tokio::join!(newest.take(30), async {
            old.gives_way().await;
            drop(old);
        });
        taken.unwrap();
        assert!(begun.elapsed() < ARRIVAL_TIME_MIN && !young.gives_way.is_stopped());
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_only_just_began_are_waited_for() {
        let arrivals = Arrivals::new(100);
        let (first, second) = (arrivals.begin(), arrivals.begin());
        first.take(100).await.unwrap();
        let (taken, ()) = tokio::join!(second.take(10), async {
            sleep(ARRIVAL_TIME_MIN / 2).await;
            assert!(!first.gives_way.is_stopped());
            first.gives_way().await;
            drop(first);
        });
        taken.unwrap();
    }
}
