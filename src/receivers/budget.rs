//! The memory of all requests whose bodies have arrived. A request reserves everything that it may need in one step, in order of arrival,
//! so that no request waits for memory while holding some. What bodies occupy while they arrive (`body`) is released then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::options::ReceiverOptions;
use super::refusal::Refusal;

/// How long a request waits for memory. A short wait is better than an error, and well within the timeout of any client.
pub(super) const ROOM_WAIT: Duration = Duration::from_secs(2);

/// The minimum share of the budget for bodies that are still arriving: a quarter.
const ARRIVALS_SHARE: usize = 4;

/// Maximum framing around the largest body: gRPC has five bytes.
const FRAME_BYTES_MAX: usize = 64;

/// Returns the options that determine the budget.
pub(super) fn settings(options: &ReceiverOptions) -> (usize, usize, usize, Duration) {
    let ReceiverOptions { body_bytes_max, body_bytes_max_inflated, .. } = *options;
    let ReceiverOptions { in_flight_bytes_max, body_idle_timeout, .. } = *options;
    (body_bytes_max, body_bytes_max_inflated, in_flight_bytes_max, body_idle_timeout)
}

/// Returns how many bytes are available to arriving bodies, and how many to arrived ones.
pub(super) fn split(options: &ReceiverOptions) -> (usize, usize) {
    let largest = options.body_bytes_max.saturating_add(FRAME_BYTES_MAX);
    let arriving = (options.in_flight_bytes_max / ARRIVALS_SHARE).max(largest);
    (arriving, options.in_flight_bytes_max.saturating_sub(arriving))
}

/// The memory of all requests whose bodies have arrived. This is a handle: clones share it.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    /// Total number of bytes.
    pub(super) bytes_max: usize,
    free: Arc<Semaphore>,
}

/// The memory reserved by one request, released on drop.
#[derive(Debug)]
pub(super) struct Reservation(OwnedSemaphorePermit);

impl Memory {
    /// Creates a budget of `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(Semaphore::MAX_PERMITS);
        Self { bytes_max, free: Arc::new(Semaphore::new(bytes_max)) }
    }

    /// Reserves everything that a request may need; waits briefly for its turn. A request larger than the budget is refused permanently.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Reservation, Refusal> {
        let permits = u32::try_from(bytes).ok().filter(|_| bytes <= self.bytes_max);
        let permits = permits.ok_or_else(|| Refusal::needs_too_much(bytes, self.bytes_max))?;
        let turn = Arc::clone(&self.free).acquire_many_owned(permits);
        let permit = timeout(ROOM_WAIT, turn).await.ok().and_then(Result::ok);
        permit.map(Reservation).ok_or(Refusal::TOO_MANY_BYTES)
    }
}

impl Reservation {
    /// Releases what exceeds `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let surplus = self.0.num_permits().saturating_sub(bytes);
        drop(self.0.split(surplus));
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

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
        assert_eq!(memory.free.available_permits(), (10 << 10) - 1);
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
}
