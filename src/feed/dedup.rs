//! Recognizes exact resends of items within a bounded window.
//!
//! Clients resend what they believe lost: after a timeout, after a crash of the daemon between the sync and the answer, or because a forked
//! process inherited their queue. An item is a resend if the same bytes were seen before; the same ids with different bytes are an update
//! and pass. The body of a request with invalid items is remembered too, so that these are quarantined once, however often a full journal
//! refuses the request. The window holds the last items: at least [`GENERATION_ITEMS`], and at most twice as many plus those of one
//! request. It takes 9 MiB, and more only until a request of very many items is forgotten.
//!
//! The window is in memory only. A start fills it from the journal, newest record first, because clients resend what was appended last
//! before a crash: up to [`GENERATION_ITEMS`] items, [`FILL_BYTES_MAX`] and [`FILL_WITHIN`]. A resend of an older item is not recognized
//! after a restart, and is delivered again.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::Records;
use crate::journal::{Journal, Position};
use crate::normalize::decode_record;
use crate::span::{Batch, Item, Source};
use crate::support::lock::lock;

/// Half a minute of 2,000 spans per second.
const GENERATION_ITEMS: usize = 65_536;
/// How much of the journal a start reads. Clients give up after tens of seconds; this holds ten requests of 6 MB each.
const FILL_BYTES_MAX: u64 = 64 << 20;
/// Time limit for that, because no request is accepted meanwhile.
const FILL_WITHIN: Duration = Duration::from_millis(250);
/// Read together, from the oldest record to the newest.
const STRIDE_BYTES: u64 = 4 << 20;

/// A 128-bit hash of an item's bytes: among a billion items a false match is less likely than 1 in 10^15.
type Fingerprint = u128;
type ReservationId = u64;
type Seen = HashMap<Fingerprint, ReservationId, foldhash::fast::RandomState>;

/// The window, shared by all requests.
#[derive(Debug, Default)]
pub(super) struct DedupWindow {
    seed: RandomState,
    state: Mutex<State>,
    released: Notify,
}

#[derive(Debug)]
struct State {
    recent: Seen,
    older: Seen,
    open: HashSet<ReservationId>,
    last_reservation: ReservationId,
}

impl DedupWindow {
    /// Reserves items or a body as seen. The same bytes for one sink and for all sinks are different. Waits while another request with some
    /// of the items is being written, because that request may still fail.
    pub(super) async fn reserve<'a>(
        self: &Arc<Self>,
        source: &Source,
        sent: impl IntoIterator<Item = &'a Bytes>,
    ) -> Reservation {
        let seed = self.seed_of(source);
        let fingerprint = |wire: &Bytes| xxh3_128_with_seed(wire, seed);
        let fingerprints: Vec<_> = sent.into_iter().map(fingerprint).collect();
        loop {
            let released = self.released.notified();
            match self.try_reserve(&fingerprints) {
                Some(reservation) => return reservation,
                None => released.await,
            }
        }
    }

    fn try_reserve(self: &Arc<Self>, fingerprints: &[Fingerprint]) -> Option<Reservation> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.last_reservation += 1;
        let id = state.last_reservation;
        let mut reserved = Vec::with_capacity(fingerprints.len());
        let mut resent = Vec::new();
        for (index, &fingerprint) in (0..).zip(fingerprints) {
            let known = match state.older.get(&fingerprint) {
                Some(&reservation) => reservation,
                None => match state.recent.entry(fingerprint) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(unknown) => {
                        unknown.insert(id);
                        reserved.push(fingerprint);
                        continue;
                    }
                },
            };
            if state.open.contains(&known) {
                for fingerprint in reserved {
                    state.recent.remove(&fingerprint);
                }
                return None;
            }
            resent.push(index);
        }
        state.open.insert(id);
        state.turn_over();
        Some(Reservation { window: Arc::clone(self), id, reserved, resent })
    }

    /// Fills the window with the items at the end of the journal. Blocks on the disk.
    pub(super) fn fill<P: Send + 'static>(&self, journal: &Journal<P>) {
        let begun = Instant::now();
        let (start, end) = (journal.start().position, journal.end().position);
        let oldest = Position(end.0.saturating_sub(FILL_BYTES_MAX)).max(start);
        let (mut until, mut items) = (end, 0);
        while oldest < until && items < GENERATION_ITEMS && begun.elapsed() < FILL_WITHIN {
            let from = Position(until.0.saturating_sub(STRIDE_BYTES)).max(oldest);
            match self.remember(journal, from, until) {
                Ok(remembered) => items += remembered,
                // Unreadable items cannot be recognized; the lanes report them.
                Err(_) => return,
            }
            until = from;
        }
    }

    /// Remembers the items of records that start in this range of the journal; returns their number.
    fn remember<P: Send + 'static>(
        &self,
        journal: &Journal<P>,
        from: Position,
        until: Position,
    ) -> io::Result<usize> {
        let mut count = 0;
        for record in Records::after(journal, from)?.before(until) {
            let payload = record?.payload;
            let Some(Ok((_, decoded))) = payload.as_ref().map(decode_record) else { continue };
            count += decoded.batch.items.len();
            let mut state = self.lock();
            let Batch { source, items, .. } = &decoded.batch;
            let seed = self.seed_of(source);
            let fingerprint = |item: &Item| (xxh3_128_with_seed(item.wire(), seed), 0);
            state.recent.extend(items.iter().map(fingerprint));
            state.turn_over();
        }
        Ok(count)
    }

    fn seed_of(&self, source: &Source) -> u64 {
        self.seed.hash_one(source.only_sink())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Default for State {
    fn default() -> Self {
        // Untouched pages take no memory, whereas growing tables would leave their smaller versions behind.
        let hasher = foldhash::fast::RandomState::default;
        let empty = || Seen::with_capacity_and_hasher(GENERATION_ITEMS, hasher());
        let (recent, older) = (empty(), empty());
        Self { recent, older, open: HashSet::new(), last_reservation: 0 }
    }
}

impl State {
    fn turn_over(&mut self) {
        if self.recent.len() >= GENERATION_ITEMS {
            std::mem::swap(&mut self.older, &mut self.recent);
            // The memory is reused, unless one request took much more than usual.
            self.recent.clear();
            self.recent.shrink_to(GENERATION_ITEMS);
        }
    }
}

/// Items marked as seen. They are forgotten if this is dropped without [`Reservation::settle`].
#[derive(Debug)]
pub(super) struct Reservation {
    window: Arc<DedupWindow>,
    id: ReservationId,
    /// Fingerprints to forget with it.
    reserved: Vec<Fingerprint>,
    /// Indexes in the batch of items that were seen before.
    pub(super) resent: Vec<u32>,
}

impl Reservation {
    /// Keeps the items as seen, because they are on stable storage.
    pub(super) fn settle(mut self) {
        self.reserved.clear();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.window.lock();
        state.open.remove(&self.id);
        for fingerprint in &self.reserved {
            if state.recent.remove(fingerprint).is_none() {
                state.older.remove(fingerprint);
            }
        }
        drop(state);
        self.window.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::tests::{accept, item};
    use crate::feed::{Feed, FeedOptions};
    use crate::journal::tests::faulty::FaultyStorage;
    use crate::journal::{MemoryStorage, Options};
    use crate::span::ONLY_SINK_HEADER;
    use crate::support::memory::{alone, assert_within, resident_bytes};

    async fn reserve(window: &Arc<DedupWindow>, wires: &[&'static str]) -> Reservation {
        let wires: Vec<_> = wires.iter().map(|wire| Bytes::from_static(wire.as_bytes())).collect();
        window.reserve(&Source::unknown(), &wires).await
    }

    #[tokio::test]
    async fn what_is_for_one_sink_is_no_resend_of_what_was_for_all() {
        let window = Arc::new(DedupWindow::default());
        reserve(&window, &["a"]).await.settle();
        let headers = vec![(ONLY_SINK_HEADER.to_owned(), "lake".to_owned())];
        let for_one = Source { headers, ..Source::unknown() };
        for resent in [0, 1] {
            let reservation = window.reserve(&for_one, &[Bytes::from_static(b"a")]).await;
            assert_eq!(reservation.resent.len(), resent);
            reservation.settle();
        }
    }

    #[tokio::test]
    async fn an_item_is_a_resend_once_it_is_settled() {
        let window = Arc::new(DedupWindow::default());
        let reservation = reserve(&window, &["a", "b", "a"]).await;
        assert_eq!(reservation.resent, [2], "within one request too");
        reservation.settle();
        assert_eq!(reserve(&window, &["c", "b"]).await.resent, [1]);
    }

    #[tokio::test]
    async fn a_start_reads_a_bounded_part_of_the_journal_and_knows_what_came_last() {
        let disk = FaultyStorage::default();
        let large = "x".repeat(1 << 20);
        let item = |number: u32| item(&format!("{number}{large}"));
        let first = feed_over(&disk);
        for number in 0..90 {
            accept(&first, &[item(number)]).await;
        }
        first.journal().close();
        drop(first);
        disk.forget_reads();
        let feed = feed_over(&disk);
        let segment_bytes = 8 << 20;
        let bytes_max = FILL_BYTES_MAX + STRIDE_BYTES + segment_bytes;
        assert!(disk.bytes_read() as u64 <= bytes_max, "{}", disk.bytes_read());
        assert_eq!(accept(&feed, &[item(89)]).await.resent, 1);
        assert_eq!(accept(&feed, &[item(0)]).await.resent, 0, "that is too long ago");
    }

    fn feed_over(disk: &FaultyStorage) -> Feed {
        let quarantine =
            Journal::open(&Options::default(), Arc::<MemoryStorage>::default(), drop).unwrap();
        let options = Options { segment_bytes_max: 8 << 20, ..Options::default() };
        Feed::open(&FeedOptions::default(), &options, Arc::new(disk.clone()), quarantine).unwrap()
    }

    #[tokio::test]
    async fn a_failed_request_is_no_reason_to_drop_its_resend() {
        let window = Arc::new(DedupWindow::default());
        drop(reserve(&window, &["a"]).await);
        assert!(reserve(&window, &["a"]).await.resent.is_empty());
    }

    #[tokio::test]
    async fn a_resend_waits_for_the_fate_of_the_original() {
        let window = Arc::new(DedupWindow::default());
        let original = reserve(&window, &["a"]).await;
        let mut waiting = std::pin::pin!(reserve(&window, &["a"]));
        assert!(tokio::time::timeout(Duration::from_millis(5), waiting.as_mut()).await.is_err());
        original.settle();
        assert_eq!(waiting.await.resent, [0]);
    }

    #[test]
    fn a_full_window_takes_what_is_said_also_by_the_systems_own_count() {
        alone(&["always", "once very many"], |case| {
            let before = resident_bytes();
            let window = DedupWindow::default();
            let mut next: u128 = 0;
            let mut see = |count: usize| {
                let mut state = window.lock();
                state.recent.extend((0..count).map(|_| {
                    next += 1;
                    (xxh3_128_with_seed(&next.to_le_bytes(), window.seed_of(&Source::unknown())), 0)
                }));
                state.turn_over();
            };
            if case != "always" {
                see(1_000_000);
            }
            (0..300).for_each(|_| see(512));
            let bytes = resident_bytes() - before;
            assert_within(case, bytes, 12 << 20);
        });
    }

    #[tokio::test]
    async fn the_window_is_bounded_and_forgets_the_oldest() {
        let window = Arc::new(DedupWindow::default());
        reserve(&window, &["first"]).await.settle();
        for number in 0..3 * GENERATION_ITEMS as u128 {
            let mut state = window.lock();
            state.recent.insert(number, 0);
            state.turn_over();
        }
        let seen = {
            let state = window.lock();
            state.recent.len() + state.older.len()
        };
        assert!(seen <= 2 * GENERATION_ITEMS);
        assert!(reserve(&window, &["first"]).await.resent.is_empty());
    }
}
