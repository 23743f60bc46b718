//! One limit for the bytes of all requests in flight, taken before they are in memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::receivers::failure::Failure;

/// How long a request waits for room. Holding it for a moment is kinder than an error, and well within any client's patience.
pub(super) const ROOM_WAIT: Duration = Duration::from_secs(2);

/// The budget is counted in KiB: fine enough for the smallest request, and the largest fit the counter.
const UNIT_BYTES: usize = 1024;

/// The bytes of all requests in flight.
#[derive(Debug)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
}

/// What one request has taken of the budget. It is given back when this is dropped.
#[derive(Debug)]
pub(in crate::receivers) struct Reservation {
    units: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// So many bytes for everybody.
    pub(super) fn new(bytes_max: usize) -> Self {
        let units = (bytes_max / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)) }
    }

    /// A reservation of nothing.
    pub(super) fn reservation(&self) -> Reservation {
        Reservation { units: Arc::clone(&self.units), held: None }
    }
}

impl Reservation {
    /// Makes the reservation cover at least so many bytes; waits a moment for room.
    pub(super) async fn cover(&mut self, bytes: usize) -> Result<(), Failure> {
        let missing = units(bytes).saturating_sub(self.units_held());
        if missing == 0 {
            return Ok(());
        }
        let busy = Failure::Busy { why: "too many bytes are in flight", items: 1 };
        let missing = u32::try_from(missing).map_err(|_| busy.clone())?;
        let more = match Arc::clone(&self.units).try_acquire_many_owned(missing) {
            Ok(more) => more,
            Err(_) => timeout(ROOM_WAIT, Arc::clone(&self.units).acquire_many_owned(missing))
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or(busy)?,
        };
        match &mut self.held {
            Some(held) => held.merge(more),
            held @ None => *held = Some(more),
        }
        Ok(())
    }

    /// Gives back what goes beyond so many bytes.
    pub(super) fn settle(&mut self, bytes: usize) {
        let surplus = self.units_held().saturating_sub(units(bytes));
        drop(self.held.as_mut().and_then(|held| held.split(surplus)));
    }

    /// Whether so many bytes are covered already.
    pub(super) fn covers(&self, bytes: usize) -> bool {
        units(bytes) <= self.units_held()
    }

    /// How many bytes are covered.
    pub(super) fn bytes(&self) -> usize {
        self.units_held() * UNIT_BYTES
    }

    fn units_held(&self) -> usize {
        self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_that_finds_no_room_is_told_to_come_again() {
        let budget = Budget::new(10 << 10);
        let mut first = budget.reservation();
        first.cover(8 << 10).await.unwrap();
        let mut second = budget.reservation();
        assert!(matches!(second.cover(3 << 10).await, Err(Failure::Busy { .. })));
        drop(first);
        second.cover(3 << 10).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_a_moment_for_room() {
        let budget = Budget::new(10 << 10);
        let mut first = budget.reservation();
        first.cover(8 << 10).await.unwrap();
        let mut second = budget.reservation();
        let (waited, ()) = tokio::join!(second.cover(3 << 10), async {
            tokio::time::sleep(ROOM_WAIT / 2).await;
            drop(first);
        });
        waited.unwrap();
    }

    #[tokio::test]
    async fn a_reservation_grows_and_shrinks_and_is_given_back() {
        let budget = Budget::new(10 << 10);
        let mut reservation = budget.reservation();
        reservation.cover(1).await.unwrap();
        assert_eq!(budget.units.available_permits(), 9);
        reservation.cover(9 << 10).await.unwrap();
        reservation.cover(5 << 10).await.unwrap();
        assert_eq!(budget.units.available_permits(), 1);
        reservation.settle(2 << 10);
        assert_eq!(budget.units.available_permits(), 8);
        drop(reservation);
        assert_eq!(budget.units.available_permits(), 10);
    }
}
