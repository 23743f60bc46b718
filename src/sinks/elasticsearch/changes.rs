//! Tracks traces whose summary is stale: since when, and when each is rebuilt. Pure: the caller passes the time.
//!
//! The table is bounded in bytes. A trace without room is not lost: the earliest time at which an uncounted span was received is
//! remembered, and the traces since then are searched once there is room. Only this number must survive a restart
//! ([`Changes::owed_since_ms`]). It is saved with the cursor, so every trace is either covered by it, or its spans are delivered again.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// The most memory of the table, in bytes: some 45,000 traces.
pub(super) const BYTES_MAX: usize = 16 << 20;
/// The most memory that a trace needs in addition to its id, in bytes. It is reached just after the table grew: an entry, its share of the
/// free slots and of the previous, smaller table, and the overhead of an allocation.
const ENTRY_BYTES: usize = (size_of::<(Box<str>, Change)>() + 1) * 7 / 2 + 24;
/// A busy trace's summary is rebuilt after this multiple of the wait of an idle one.
const BUSY_WAITS: u32 = 4;
/// How often a trace is retried whose sum is incomplete or that is refused, each time after twice the wait. Spans that are still missing
/// then were deleted.
const MISSES_MAX: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Change {
    /// The first and the last change that no summary counts.
    first: Instant,
    last: Instant,
    /// The earliest time of the next attempt, because the last one was incomplete.
    not_before: Instant,
    /// When the first changed span was received, in milliseconds since 1970.
    pub(super) received_ms: u64,
    /// Documents that certainly exist.
    pub(super) created: u64,
    misses: u32,
}

/// A search for the traces since a time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scan {
    /// The start of this time, in milliseconds since 1970.
    pub(super) since_ms: u64,
    /// The last trace that was found.
    pub(super) after: Option<String>,
    /// When all of its documents can be found.
    due: Instant,
}

#[derive(Debug)]
pub(super) struct Changes {
    bytes_max: usize,
    /// The time after which a document can be found.
    refresh_wait: Duration,
    table: HashMap<Box<str>, Change>,
    bytes: usize,
    /// The next or current search, and another one for traces that had no room meanwhile.
    scans: VecDeque<Scan>,
}

impl Changes {
    pub(super) fn new(bytes_max: usize, refresh_wait: Duration) -> Self {
        let (table, bytes) = (HashMap::new(), 0);
        Self { bytes_max, refresh_wait, table, bytes, scans: VecDeque::new() }
    }

    /// Records that documents of a trace were stored, `created` of them new, the first of them received at this time.
    pub(super) fn note(&mut self, trace: &str, received_ms: u64, created: u64, now: Instant) {
        if let Some(change) = self.table.get_mut(trace) {
            change.last = now;
            change.received_ms = change.received_ms.min(received_ms);
            change.created += created;
            return;
        }
        if !self.fits(trace) {
            self.owe(received_ms, now);
            return;
        }
        self.bytes += trace.len() + ENTRY_BYTES;
        let (first, last, not_before) = (now, now, now);
        let change = Change { first, last, not_before, received_ms, created, misses: 0 };
        self.table.insert(trace.into(), change);
    }

    /// Schedules a search for everything received since this time.
    pub(super) fn owe(&mut self, since_ms: u64, now: Instant) {
        let due = now + self.refresh_wait;
        match self.scans.back_mut() {
            // A search that has not started is extended.
            Some(Scan { since_ms: since, after: None, due: when }) => {
                (*since, *when) = (since_ms.min(*since), due);
            }
            _ => self.scans.push_back(Scan { since_ms, after: None, due }),
        }
    }

    /// Returns when the first uncounted span was received; `None` if all are counted.
    pub(super) fn owed_since_ms(&self) -> Option<u64> {
        let scans = self.scans.iter().map(|scan| scan.since_ms);
        self.table.values().map(|change| change.received_ms).chain(scans).min()
    }

    /// Returns the traces whose summary is due, those that have waited longest first.
    pub(super) fn due(&self, count: usize, now: Instant) -> Vec<(Box<str>, Change)> {
        let mut due: Vec<_> =
            self.table.iter().filter(|(_, change)| self.due_at(change) <= now).collect();
        due.sort_unstable_by_key(|(name, change)| (change.first, *name));
        due.into_iter().take(count).map(|(name, change)| (name.clone(), *change)).collect()
    }

    /// Returns when the next work is due; `None` without any.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let scan = self.scans.front().filter(|_| self.has_room()).map(|scan| scan.due);
        self.table.values().map(|change| self.due_at(change)).chain(scan).min()
    }

    /// Returns when a trace is due: an idle one as soon as all of it can be found, a busy one some time after its first change.
    fn due_at(&self, change: &Change) -> Instant {
        let quiet = change.last + self.refresh_wait;
        quiet.min(change.first + self.refresh_wait * BUSY_WAITS).max(change.not_before)
    }

    /// Records that a trace's summary counts everything that could be found at this time.
    pub(super) fn settled(&mut self, trace: &str, read_at: Instant) {
        let Some(change) = self.table.get_mut(trace) else { return };
        if change.last + self.refresh_wait <= read_at {
            self.table.remove(trace);
            self.bytes -= trace.len() + ENTRY_BYTES;
            return;
        }
        // The summary does not count later changes.
        change.first = change.first.max(read_at.checked_sub(self.refresh_wait).unwrap_or(read_at));
        change.misses = 0;
    }

    /// Defers a trace that is incomplete, because the backend refreshes more slowly than configured, or refused. Returns whether to wait.
    pub(super) fn must_wait(&mut self, trace: &str, now: Instant) -> bool {
        let Some(change) = self.table.get_mut(trace) else { return false };
        change.misses += 1;
        change.not_before =
            now + self.refresh_wait * 2_u32.saturating_pow(change.misses.min(MISSES_MAX));
        change.misses <= MISSES_MAX
    }

    /// Returns the search that is due.
    pub(super) fn scan_due(&self, now: Instant) -> Option<Scan> {
        self.scans.front().cloned().filter(|scan| self.has_room() && scan.due <= now)
    }

    /// Adds the traces of a search, which may have more. Those without room are found again.
    pub(super) fn scanned(&mut self, traces: &[String], has_more: bool, now: Instant) {
        let Some(since_ms) = self.scans.front().map(|scan| scan.since_ms) else { return };
        let long_ago = now.checked_sub(self.refresh_wait).unwrap_or(now);
        let mut last = None;
        for trace in traces {
            let is_new = !self.table.contains_key(trace.as_str());
            if is_new && !self.fits(trace) {
                break;
            }
            self.note(trace, since_ms, 0, if is_new { long_ago } else { now });
            last = Some(trace);
        }
        if !has_more && last == traces.last() {
            self.scans.pop_front();
        } else if let (Some(scan), Some(last)) = (self.scans.front_mut(), last) {
            scan.after = Some(last.clone());
        }
    }

    fn fits(&self, trace: &str) -> bool {
        self.bytes + trace.len() + ENTRY_BYTES <= self.bytes_max
    }

    /// Returns whether there is room for the traces of one page of a search.
    fn has_room(&self) -> bool {
        self.bytes <= self.bytes_max / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::memory::{alone, assert_within, resident_bytes};

    const WAIT: Duration = Duration::from_secs(6);

    fn changes(traces_max: usize) -> (Changes, Instant) {
        let now = tokio::time::Instant::now().into_std() + Duration::from_hours(1);
        (Changes::new(traces_max * (ENTRY_BYTES + 1), WAIT), now)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_quiet_trace_is_due_once_it_can_be_found() {
        let (mut changes, now) = changes(9);
        changes.note("a", 1, 1, now);
        changes.note("a", 2, 1, now + seconds(2));
        assert_eq!(changes.next_due(), Some(now + seconds(8)));
        assert!(changes.due(9, now + seconds(7)).is_empty());
        changes.settled("a", now + seconds(8));
        assert!(changes.owed_since_ms().is_none());
        assert_eq!(changes.bytes, 0);
    }

    #[test]
    fn every_change_of_a_trace_that_stays_busy_is_counted_within_30_seconds() {
        let (mut changes, start) = changes(9);
        let mut waiting: Vec<Instant> = Vec::new();
        for step in 0..1000 {
            let now = start + Duration::from_millis(250) * step;
            changes.note("a", 1, 1, now);
            waiting.push(now);
            if !changes.due(9, now).is_empty() {
                changes.settled("a", now);
                waiting.retain(|at| now < *at + WAIT);
            }
            assert!(waiting.iter().all(|at| now < *at + seconds(29)), "{step}");
        }
        assert!(changes.owed_since_ms().is_some());
    }

    #[test]
    fn a_sum_that_lacks_spans_is_asked_for_again_but_not_for_ever() {
        let (mut changes, start) = changes(9);
        changes.note("a", 1, 1, start);
        let mut at = start;
        for _ in 0..MISSES_MAX {
            at = changes.next_due().unwrap();
            assert!(changes.must_wait("a", at));
            assert!(changes.due(9, at).is_empty());
        }
        assert!(!changes.must_wait("a", changes.next_due().unwrap()));
        assert!(start + seconds(180) < at && at < start + seconds(400));
    }

    #[test]
    fn a_full_table_stays_within_its_bound_also_by_the_systems_own_count() {
        alone(&["1", "24", "256"], |length| {
            let length = length.parse().unwrap();
            let before = resident_bytes();
            let (mut changes, now) = (Changes::new(BYTES_MAX, WAIT), Instant::now());
            for number in 0.. {
                let name = format!("{number:0length$}");
                if !changes.fits(&name) {
                    break;
                }
                changes.note(&name, number, 1, now);
            }
            let bytes = resident_bytes() - before;
            assert_within(&length.to_string(), bytes, BYTES_MAX);
        });
    }

    #[test]
    fn what_has_no_room_is_looked_for_later_and_owed_until_then() {
        let (mut changes, now) = changes(4);
        let names = ["a", "b", "c", "d", "e", "f"];
        for (received, name) in (10..).zip(names) {
            changes.note(name, received, 1, now);
            assert!(changes.bytes <= changes.bytes_max);
        }
        assert_eq!(changes.owed_since_ms(), Some(10));
        let later = now + WAIT;
        assert_eq!(changes.scan_due(later), None, "there is no room for what it finds");
        names[..4].iter().for_each(|name| changes.settled(name, later));
        assert_eq!(changes.owed_since_ms(), Some(14));
        assert_eq!(changes.scan_due(now), None, "it cannot be found yet");
        let scan = changes.scan_due(later).unwrap();
        assert_eq!((scan.since_ms, &scan.after), (14, &None));
        changes.scanned(&["e".to_owned()], true, later);
        assert_eq!(changes.due(9, later).len(), 1, "what is found can be found");
        // Changes during a search are found by the next one.
        changes.owe(3, later);
        changes.scanned(&["f".to_owned()], false, later);
        assert_eq!(changes.scans.front().map(|scan| scan.since_ms), Some(3));
        changes.settled("e", later);
        changes.settled("f", later);
        changes.scanned(&[], false, later);
        assert!(changes.owed_since_ms().is_none());
        assert_eq!(changes.owed_since_ms(), None);
    }
}
