//! Reads batches after the lanes have: the index of traces needs the same facts of the same spans.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Feed, FeedEntry, Reader};
use crate::journal::{Mark, Position};
use crate::support::clock;

/// Maximum wait for a lane to move: all sinks may be down. Then no lane is waited for until one moves.
const LEAD_WAIT: Duration = Duration::from_millis(200);
/// Maximum wait for a lane that moves, but is behind: it may be far behind, and slow.
const CATCH_UP: Duration = Duration::from_secs(1);
/// The delay from which on a follower waits for no lane.
const LATE: Duration = Duration::from_secs(5);
/// Delay behind new records. Lanes poll at least every 5 ms, and the lane of a sink that reads facts has read them by then.
const BEHIND: Duration = Duration::from_millis(6);

/// A reader behind the foremost lane. It gets the same batches, so that each is decoded once and the facts of its spans are read once, also
/// when no lane keeps up with the receivers.
#[derive(Debug)]
pub struct Follower {
    reader: Reader,
    lead: watch::Receiver<Position>,
    /// Where the foremost lane was when it did not move.
    stuck_at: Position,
    /// Arrival time of the newest request that it returned, in nanoseconds since 1970.
    received_at_ns: u64,
}

impl Follower {
    pub(super) fn new(feed: &Feed, from: Mark) -> Self {
        let mut reader = feed.reader(from);
        reader.leads = false;
        Self {
            reader,
            lead: feed.tail.watch_lead(),
            stuck_at: Position(u64::MAX),
            received_at_ns: 0,
        }
    }

    /// Waits for batches, and returns them, up to about this many bytes of requests, with the position behind them.
    pub async fn next(&mut self, bytes_max: usize) -> (Vec<FeedEntry>, Position) {
        let until = self.next_end().await;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while self.reader.at().position < until && bytes < bytes_max {
            let fed = self.reader.next().await;
            bytes += fed.batch.bytes;
            self.received_at_ns = fed.batch.source.received_at_ns.max(self.received_at_ns);
            taken.push(fed);
        }
        (taken, self.reader.at().position)
    }

    /// Waits for new requests, and then for a lane that moves to take some. Returns the position up to which to read.
    async fn next_end(&mut self) -> Position {
        let at = self.reader.at().position;
        // The journal and the tail outlive their readers, so the channels stay open.
        _ = self.reader.end.wait_for(|end| at < end.position).await;
        sleep(BEHIND).await;
        let late_ns = clock::unix_now_ns().saturating_sub(self.received_at_ns);
        let wait = if late_ns < clock::nanos(LATE) { CATCH_UP } else { Duration::ZERO };
        let until = Instant::now() + wait;
        loop {
            let lead = *self.lead.borrow_and_update();
            if at < lead {
                return lead;
            }
            let may_wait = lead != self.stuck_at && Instant::now() < until;
            if !may_wait || timeout(LEAD_WAIT, self.lead.changed()).await.is_err() {
                self.stuck_at = lead;
                return self.reader.end.borrow().position;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::feed::FeedOptions;
    use crate::feed::tests::{accept, arrival, feed, item};
    use crate::journal::tests::faulty::FaultyStorage;
    use crate::journal::{Journal, MemoryStorage, Options};

    #[tokio::test]
    async fn what_a_lane_behind_the_tail_read_from_disk_is_not_read_again() {
        let disk = FaultyStorage::default();
        let quarantine =
            Journal::open(&Options::default(), Arc::<MemoryStorage>::default(), drop).unwrap();
        let options = FeedOptions { tail_bytes_max: 4 << 20, ..FeedOptions::default() };
        let feed =
            Feed::open(&options, &Options::default(), Arc::new(disk.clone()), quarantine).unwrap();
        let large = "x".repeat(150_000);
        for number in 0..60 {
            accept(&feed, &[item(&format!("{number}{large}"))]).await;
        }
        let (mut lane, mut other) = (feed.reader(Mark::default()), feed.reader(Mark::default()));
        let mut follower = feed.follower(Mark::default());
        disk.forget_reads();
        let mut followed_items = 0;
        for _ in 0..60 {
            let taken = lane.next().await;
            assert!(Arc::ptr_eq(&taken.batch, &other.next().await.batch), "{:?}", taken.start);
            while follower.reader.at().position < *feed.tail.watch_lead().borrow() {
                followed_items += follower.next(1).await.0.len();
            }
        }
        assert_eq!(followed_items, 60);
        assert_eq!(disk.reads_of_one_block(), 1);
        assert!(disk.bytes_read() <= usize::try_from(feed.journal().bytes()).unwrap() + 4096);
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_stays_behind_the_foremost_lane_unless_none_goes_on() {
        let feed = feed();
        let intake = feed.intake();
        let accept_now = |id: &str| {
            let mut arrival = arrival(&[item(id)]);
            arrival.decoded.batch.source.received_at_ns = clock::unix_now_ns();
            intake.accept(arrival)
        };
        let (mut lane, _slow) = (feed.reader(Mark::default()), feed.reader(Mark::default()));
        let mut follower = feed.follower(Mark::default());
        // Nobody has read anything for long.
        accept_now("a").await.unwrap();
        assert_eq!(follower.next(usize::MAX).await.1, feed.journal().end().position);
        // A lane that moves is followed.
        accept_now("b").await.unwrap();
        lane.next().await;
        accept_now("c").await.unwrap();
        lane.next().await;
        let taken = lane.at().position;
        accept_now("d").await.unwrap();
        assert_eq!(follower.next(usize::MAX).await.1, taken);
        // One that does not move is waited for once.
        assert_eq!(follower.next(usize::MAX).await.1, feed.journal().end().position);
        accept_now("e").await.unwrap();
        let began = Instant::now();
        assert_eq!(follower.next(usize::MAX).await.1, feed.journal().end().position);
        assert!(
            began.elapsed() < LEAD_WAIT,
            "by the test's own clock, which stands still meanwhile"
        );
        // One that moves behind it is waited for until it has passed.
        accept_now("f").await.unwrap();
        lane.next().await;
        let catch_up = async {
            for _ in 0..3 {
                sleep(LEAD_WAIT / 2).await;
                lane.next().await;
            }
            lane.at().position
        };
        let ((_, until), passed) = tokio::join!(follower.next(usize::MAX), catch_up);
        assert_eq!(until, passed);
    }
}
