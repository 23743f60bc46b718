//! The offset tracker of a lane: which records are done. Pure.
//!
//! Every record that was read has an entry with the number of its remaining items. Roots and amendments, which are not records, have
//! entries too. The cursor only passes entries without a gap, so entries that are done early wait here for earlier ones.

use std::collections::VecDeque;

use super::status::OutcomeCounts;
use crate::journal::Mark;

/// Entries in journal order.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    entries: VecDeque<Entry>,
    /// The number of the first entry: the cursor has passed all before it.
    pub(super) first: u64,
}

/// Maximum number of entries: about 6 MiB. The lane stops reading at this limit.
const ENTRIES_MAX: usize = 65_536;

/// An entry that the cursor passes when all its items are done, or several together.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Entry {
    /// Where the cursor may move then; `None` if it is not a record.
    pub(super) end: Option<Mark>,
    /// Arrival time, in nanoseconds since 1970.
    pub(super) received_at_ns: u64,
    /// Number of items that are not done.
    pub(super) left: usize,
    /// Outcomes of the others.
    pub(super) settled: OutcomeCounts,
    /// With its roots, those of all traces whose last record is before this are sent; 0 if it has no roots.
    pub(super) roots_until: u64,
}

impl Tracker {
    /// Adds an entry at the end; returns its number.
    pub(super) fn push(&mut self, entry: Entry) -> u64 {
        self.entries.push_back(entry);
        self.first + self.entries.len() as u64 - 1
    }

    /// Records that an item of an entry is done, and whether it became a dead letter.
    pub(super) fn done(&mut self, number: u64, is_dead_letter: bool) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(entry) = place.and_then(|place| self.entries.get_mut(place)) {
            entry.left = entry.left.saturating_sub(1);
            entry.settled.dead_lettered += u64::from(is_dead_letter);
            entry.settled.delivered += u64::from(!is_dead_letter);
        }
    }

    /// Removes entries that are done without a gap; `None` if there are none.
    pub(super) fn advance(&mut self) -> Option<Entry> {
        let mut all: Option<Entry> = None;
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.left == 0) {
            self.first += 1;
            let passed = all.get_or_insert_default();
            if entry.end.is_some() {
                passed.end = entry.end;
                passed.settled.add(entry.settled);
            }
            passed.roots_until = passed.roots_until.max(entry.roots_until);
        }
        all
    }

    /// Drops what is not done in entries up to the record that ends at `mark`. Returns the number of dropped items, and the number of the
    /// first entry after them.
    pub(super) fn drop_until(&mut self, mark: Mark) -> (u64, u64) {
        let is_before = |entry: &Entry| entry.end.is_some_and(|end| end <= mark);
        let count = self.entries.iter().rposition(is_before).map_or(0, |last| last + 1);
        let mut lost = 0;
        for entry in self.entries.iter_mut().take(count) {
            let left = std::mem::take(&mut entry.left) as u64;
            entry.settled.dropped += left;
            lost += if entry.end.is_some() { left } else { 0 };
        }
        (lost, self.first + count as u64)
    }

    /// Returns the end of the last record; `None` if there is none.
    pub(super) fn end(&self) -> Option<Mark> {
        self.entries.iter().rev().find_map(|entry| entry.end)
    }

    /// Returns when the oldest unsettled item was received, in nanoseconds since 1970.
    pub(super) fn oldest_received_at_ns(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.received_at_ns)
    }

    /// Returns whether the lane must stop reading.
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
        assert_eq!(passed.end, record(2, 0).end);
        assert_eq!(passed.settled.dead_lettered, 2);
        assert_eq!(tracker.advance(), None);
    }

    #[test]
    fn a_record_without_items_is_passed_with_what_was_filtered_or_lost() {
        let mut tracker = Tracker::default();
        let settled = OutcomeCounts { dropped: 7, filtered: 2, ..OutcomeCounts::default() };
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
        assert_eq!((passed.end, passed.roots_until), (record(1, 0).end, 77));
        tracker.done(items, false);
        assert_eq!(tracker.advance(), None, "what was passed is not counted twice");
    }
}
