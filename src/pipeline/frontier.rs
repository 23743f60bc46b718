//! How far a lane is, when several of its deliveries are under way at once. Pure.
//!
//! The cursor may only pass what is settled without a gap, so a delivery that is done early waits here for those before it.

use std::collections::VecDeque;

use crate::journal::Mark;

/// Deliveries under way, in the order of the journal.
#[derive(Debug, Default)]
pub(super) struct Frontier {
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: u64,
}

#[derive(Debug)]
struct Entry {
    settles: Option<Mark>,
    oldest_received_at_ns: u64,
    parts_left: usize,
    settled: Settled,
    feeds: u64,
    roots_until_ns: u64,
}

/// What became of items that did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Settled {
    /// They are dead letters.
    pub(super) dead_lettered: u64,
    /// They could not be read back.
    pub(super) dropped: u64,
}

/// Where the cursor may go, and what it passes on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// `None` while a record that was cut into several deliveries is not done.
    pub(super) mark: Option<Mark>,
    /// What was passed and did not arrive.
    pub(super) settled: Settled,
    /// Roots of traces that were due up to then have arrived; 0 when none was passed.
    pub(super) roots_until_ns: u64,
    /// So many of the requests that were read are settled; 0 when none was passed.
    pub(super) feeds: u64,
}

impl Frontier {
    /// Notes that a delivery begins, in so many parts; returns its number. With it, everything of the first `feeds` requests read has
    /// begun.
    pub(super) fn begin(
        &mut self,
        settles: Option<Mark>,
        oldest_received_at_ns: u64,
        parts: usize,
        settled: Settled,
        feeds: u64,
    ) -> u64 {
        self.push(Entry {
            settles,
            oldest_received_at_ns,
            parts_left: parts,
            settled,
            feeds,
            roots_until_ns: 0,
        })
    }

    /// Notes that a delivery of roots begins. They are no items of the journal: the cursor's place does not move with them.
    pub(super) fn begin_roots(&mut self, until_ns: u64, received_at_ns: u64, parts: usize) -> u64 {
        self.push(Entry {
            settles: None,
            oldest_received_at_ns: received_at_ns,
            parts_left: parts,
            settled: Settled::default(),
            feeds: 0,
            roots_until_ns: until_ns,
        })
    }

    fn push(&mut self, entry: Entry) -> u64 {
        self.entries.push_back(entry);
        self.first + self.entries.len() as u64 - 1
    }

    /// Notes that a part of a delivery is done.
    pub(super) fn part_done(&mut self, number: u64, dead_lettered: u64) {
        let at = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        if let Some(entry) = self.entries.get_mut(at) {
            entry.parts_left = entry.parts_left.saturating_sub(1);
            entry.settled.dead_lettered += dead_lettered;
        }
    }

    /// Takes what is done without a gap; `None` when nothing new is.
    pub(super) fn advance(&mut self) -> Option<Progress> {
        let mut progress = None;
        while self.entries.front().is_some_and(|entry| entry.parts_left == 0) {
            let Some(entry) = self.entries.pop_front() else { break };
            self.first += 1;
            let passed: &mut Progress = progress.get_or_insert_default();
            passed.mark = entry.settles.or(passed.mark);
            passed.settled.dead_lettered += entry.settled.dead_lettered;
            passed.settled.dropped += entry.settled.dropped;
            passed.feeds = passed.feeds.max(entry.feeds);
            passed.roots_until_ns = passed.roots_until_ns.max(entry.roots_until_ns);
        }
        progress
    }

    /// When the oldest item under way was received, in nanoseconds since 1970.
    pub(super) fn oldest_received_at_ns(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.oldest_received_at_ns)
    }

    /// How many deliveries are under way or wait for those before them.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Position;

    fn mark(at: u64) -> Mark {
        Mark { position: Position(at), items: at }
    }

    #[test]
    fn the_cursor_waits_for_the_slowest() {
        let mut frontier = Frontier::default();
        let first = frontier.begin(Some(mark(1)), 0, 2, Settled::default(), 1);
        let second = frontier.begin(Some(mark(2)), 0, 1, Settled::default(), 2);
        frontier.part_done(second, 3);
        frontier.part_done(first, 0);
        assert_eq!(frontier.advance(), None);
        frontier.part_done(first, 1);
        let settled = Settled { dead_lettered: 4, dropped: 0 };
        let expected = Progress { mark: Some(mark(2)), settled, roots_until_ns: 0, feeds: 2 };
        assert_eq!(frontier.advance(), Some(expected));
        assert_eq!(frontier.advance(), None);
        assert_eq!(frontier.len(), 0);
    }

    #[test]
    fn a_record_in_several_deliveries_is_passed_with_the_last() {
        let mut frontier = Frontier::default();
        let dropped = Settled { dead_lettered: 0, dropped: 7 };
        let part = frontier.begin(None, 0, 1, Settled::default(), 0);
        let last = frontier.begin(Some(mark(9)), 0, 0, dropped, 1);
        assert_eq!((part, last), (0, 1));
        frontier.part_done(part, 0);
        let expected =
            Progress { mark: Some(mark(9)), settled: dropped, roots_until_ns: 0, feeds: 1 };
        assert_eq!(frontier.advance(), Some(expected));
    }

    #[test]
    fn roots_are_passed_in_their_turn_and_move_nothing_else() {
        let mut frontier = Frontier::default();
        let items = frontier.begin(Some(mark(1)), 0, 1, Settled::default(), 1);
        let roots = frontier.begin_roots(77, 0, 1);
        frontier.part_done(roots, 0);
        assert_eq!(frontier.advance(), None);
        frontier.part_done(items, 0);
        let settled = Settled::default();
        let expected = Progress { mark: Some(mark(1)), settled, roots_until_ns: 77, feeds: 1 };
        assert_eq!(frontier.advance(), Some(expected));
    }
}
