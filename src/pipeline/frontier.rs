//! How far a lane is, when several of its deliveries are under way at once. Pure.
//!
//! The cursor may only pass what is settled without a gap, so a delivery that is done early waits here for those before it. What is
//! parked holds the cursor too, but not what comes after it: how far a lane may run ahead is counted from the first delivery that is
//! at work.

use std::collections::VecDeque;

use crate::journal::Mark;

/// Deliveries under way, in the order of the journal.
#[derive(Debug, Default)]
pub(super) struct Frontier {
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: u64,
    /// No entry with a smaller number is at work.
    at_work_from: u64,
}

/// Deliveries that are kept in mind, most of them done, behind some that are parked: about 6 MiB. At that many nothing new begins.
const ENTRIES_MAX: usize = 65_536;

#[derive(Debug)]
struct Entry {
    settles: Option<Mark>,
    oldest_received_at_ns: u64,
    parts_left: usize,
    /// So many of these are parked.
    parked: usize,
    settled: Settled,
    feeds: u64,
    roots_until_ns: u64,
}

impl Entry {
    fn is_at_work(&self) -> bool {
        self.parked < self.parts_left
    }
}

/// What became of items that did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Settled {
    /// They are dead letters.
    pub(super) dead_lettered: u64,
    /// They could not be read back.
    pub(super) dropped: u64,
    /// A rule leaves them out.
    pub(super) filtered: u64,
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
            parked: 0,
            settled,
            feeds,
            roots_until_ns: 0,
        })
    }

    /// Notes that a delivery of roots begins, or of what is sent once more (`until_ns` is 0 then). They are no items of the journal that
    /// are to be settled: the cursor's place does not move with them, but nothing that begins later is passed before they are done.
    pub(super) fn begin_roots(&mut self, until_ns: u64, received_at_ns: u64, parts: usize) -> u64 {
        self.push(Entry {
            settles: None,
            oldest_received_at_ns: received_at_ns,
            parts_left: parts,
            parked: 0,
            settled: Settled::default(),
            feeds: 0,
            roots_until_ns: until_ns,
        })
    }

    fn push(&mut self, entry: Entry) -> u64 {
        self.entries.push_back(entry);
        self.find_work();
        self.first + self.entries.len() as u64 - 1
    }

    /// Notes that a part of a delivery is done, but for so many pieces of it that are parked instead.
    pub(super) fn part_done(&mut self, number: u64, dead_lettered: u64, parked: usize) {
        if let Some(entry) = self.entry(number) {
            entry.parts_left = (entry.parts_left + parked).saturating_sub(1);
            entry.parked += parked;
            entry.settled.dead_lettered += dead_lettered;
        }
        self.find_work();
    }

    /// Notes that a piece that was parked is a part like others again.
    pub(super) fn unpark(&mut self, number: u64) {
        if let Some(entry) = self.entry(number) {
            entry.parked = entry.parked.saturating_sub(1);
            self.at_work_from = self.at_work_from.min(number);
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
            passed.settled.filtered += entry.settled.filtered;
            passed.feeds = passed.feeds.max(entry.feeds);
            passed.roots_until_ns = passed.roots_until_ns.max(entry.roots_until_ns);
        }
        progress
    }

    /// When the oldest item under way was received, in nanoseconds since 1970.
    pub(super) fn oldest_received_at_ns(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.oldest_received_at_ns)
    }

    /// How far the lane is ahead of the first delivery that is at work, in deliveries; 0 where none is.
    pub(super) fn ahead(&self) -> usize {
        let skipped = usize::try_from(self.at_work_from.saturating_sub(self.first));
        self.entries.len().saturating_sub(skipped.unwrap_or(usize::MAX))
    }

    /// Whether there is no room for another delivery, however little is at work.
    pub(super) fn is_full(&self) -> bool {
        ENTRIES_MAX <= self.entries.len()
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(at)
    }

    fn find_work(&mut self) {
        self.at_work_from = self.at_work_from.max(self.first);
        let is_idle = |number: u64| {
            let at = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
            self.entries.get(at).is_some_and(|entry| !entry.is_at_work())
        };
        while is_idle(self.at_work_from) {
            self.at_work_from += 1;
        }
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
        frontier.part_done(second, 3, 0);
        frontier.part_done(first, 0, 0);
        assert_eq!(frontier.advance(), None);
        frontier.part_done(first, 1, 0);
        let settled = Settled { dead_lettered: 4, ..Settled::default() };
        let expected = Progress { mark: Some(mark(2)), settled, roots_until_ns: 0, feeds: 2 };
        assert_eq!(frontier.advance(), Some(expected));
        assert_eq!(frontier.advance(), None);
        assert_eq!(frontier.ahead(), 0);
    }

    #[test]
    fn a_record_in_several_deliveries_is_passed_with_the_last() {
        let mut frontier = Frontier::default();
        let dropped = Settled { dropped: 7, filtered: 2, ..Settled::default() };
        let part = frontier.begin(None, 0, 1, Settled::default(), 0);
        let last = frontier.begin(Some(mark(9)), 0, 0, dropped, 1);
        assert_eq!((part, last), (0, 1));
        frontier.part_done(part, 0, 0);
        let expected =
            Progress { mark: Some(mark(9)), settled: dropped, roots_until_ns: 0, feeds: 1 };
        assert_eq!(frontier.advance(), Some(expected));
    }

    #[test]
    fn roots_are_passed_in_their_turn_and_move_nothing_else() {
        let mut frontier = Frontier::default();
        let items = frontier.begin(Some(mark(1)), 0, 1, Settled::default(), 1);
        let roots = frontier.begin_roots(77, 0, 1);
        frontier.part_done(roots, 0, 0);
        assert_eq!(frontier.advance(), None);
        frontier.part_done(items, 0, 0);
        let settled = Settled::default();
        let expected = Progress { mark: Some(mark(1)), settled, roots_until_ns: 77, feeds: 1 };
        assert_eq!(frontier.advance(), Some(expected));
    }
    #[test]
    fn what_is_parked_holds_the_cursor_and_not_what_comes_after_it() {
        let mut frontier = Frontier::default();
        let parked = frontier.begin(Some(mark(1)), 0, 1, Settled::default(), 1);
        assert_eq!(frontier.ahead(), 1);
        frontier.part_done(parked, 0, 2);
        assert_eq!((frontier.advance(), frontier.ahead()), (None, 0));
        for at in 2..10 {
            let number = frontier.begin(Some(mark(at)), 0, 1, Settled::default(), at);
            assert_eq!(frontier.ahead(), 1);
            frontier.part_done(number, 0, 0);
            assert_eq!((frontier.advance(), frontier.ahead()), (None, 0));
        }
        frontier.unpark(parked);
        assert_eq!(frontier.ahead(), 9);
        frontier.part_done(parked, 0, 0);
        assert_eq!((frontier.advance(), frontier.ahead()), (None, 0));
        frontier.unpark(parked);
        frontier.part_done(parked, 1, 0);
        let settled = Settled { dead_lettered: 1, ..Settled::default() };
        let expected = Progress { mark: Some(mark(9)), settled, roots_until_ns: 0, feeds: 9 };
        assert_eq!(frontier.advance(), Some(expected));
        assert_eq!(frontier.ahead(), 0);
    }
}
