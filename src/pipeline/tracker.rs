//! Which records are done: the offset tracker of a lane. Pure.
//!
//! Every record that was read has an entry with the items of it that are left, and so have roots and amendments, which are no records.
//! The cursor may only pass what is done without a gap, so what is done early waits here for what came before it.

use std::collections::VecDeque;

use super::status::Settled;
use crate::journal::Mark;

/// Entries in the order of the journal.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: u64,
}

/// Entries behind one that is not done: about 6 MiB. At that many nothing more is read.
const ENTRIES_MAX: usize = 65_536;

/// Something that the cursor passes when all its items are done.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Where the cursor may go then; `None` for what is no record.
    pub(super) end: Option<Mark>,
    /// When it was received, in nanoseconds since 1970.
    pub(super) received_at_ns: u64,
    /// Items that are not done.
    pub(super) left: usize,
    /// What became of the others.
    pub(super) settled: Settled,
    /// Roots of traces that were due up to then are in it; 0 where it has none.
    pub(super) roots_until: u64,
}

/// Where the cursor may go, and what it passes on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// `None` while no record is done.
    pub(super) mark: Option<Mark>,
    /// What became of the items of records that were passed.
    pub(super) settled: Settled,
    /// Roots of traces that were due up to then have arrived; 0 when none was passed.
    pub(super) roots_until: u64,
}

impl Tracker {
    /// Adds an entry behind all others; returns its number.
    pub(super) fn push(&mut self, entry: Entry) -> u64 {
        self.entries.push_back(entry);
        self.first + self.entries.len() as u64 - 1
    }

    /// Notes that an item of an entry is done, and whether as a dead letter.
    pub(super) fn done(&mut self, number: u64, is_dead_letter: bool) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(entry) = place.and_then(|place| self.entries.get_mut(place)) {
            entry.left = entry.left.saturating_sub(1);
            entry.settled.dead_lettered += u64::from(is_dead_letter);
            entry.settled.delivered += u64::from(!is_dead_letter);
        }
    }

    /// Takes what is done without a gap; `None` when nothing new is.
    pub(super) fn advance(&mut self) -> Option<Progress> {
        let mut progress: Option<Progress> = None;
        while self.entries.front().is_some_and(|entry| entry.left == 0) {
            let Some(entry) = self.entries.pop_front() else { break };
            self.first += 1;
            let passed = progress.get_or_insert_default();
            if let Some(end) = entry.end {
                passed.mark = Some(end);
                passed.settled.add(entry.settled);
            }
            passed.roots_until = passed.roots_until.max(entry.roots_until);
        }
        progress
    }

    /// When the oldest item that is not settled was received, in nanoseconds since 1970.
    pub(super) fn oldest_received_at_ns(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.received_at_ns)
    }

    /// Whether nothing more should be read.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Position;

    fn record(at: u64, left: usize) -> Entry {
        let end = Some(Mark { position: Position(at), items: at });
        Entry { end, left, ..Entry::default() }
    }

    #[test]
    fn the_cursor_waits_for_the_slowest() {
        let mut tracker = Tracker::default();
        let (first, second) = (tracker.push(record(1, 2)), tracker.push(record(2, 1)));
        tracker.done(second, true);
        tracker.done(first, false);
        assert_eq!(tracker.advance(), None);
        tracker.done(first, true);
        let passed = tracker.advance().unwrap();
        assert_eq!(passed.mark, record(2, 0).end);
        assert_eq!(passed.settled.dead_lettered, 2);
        assert_eq!(tracker.advance(), None);
    }

    #[test]
    fn a_record_without_items_is_passed_with_what_was_filtered_or_lost() {
        let mut tracker = Tracker::default();
        let settled = Settled { dropped: 7, filtered: 2, ..Settled::default() };
        tracker.push(Entry { settled, ..record(9, 0) });
        assert_eq!(tracker.advance().unwrap().settled, settled);
    }

    #[test]
    fn roots_are_passed_in_their_turn_and_move_nothing_else() {
        let mut tracker = Tracker::default();
        let items = tracker.push(record(1, 1));
        let roots = tracker.push(Entry { left: 1, roots_until: 77, ..Entry::default() });
        tracker.done(roots, false);
        assert_eq!(tracker.advance(), None);
        tracker.done(items, false);
        let passed = tracker.advance().unwrap();
        assert_eq!((passed.mark, passed.roots_until), (record(1, 0).end, 77));
        tracker.done(items, false);
        assert_eq!(tracker.advance(), None, "what was passed is not counted twice");
    }
}
