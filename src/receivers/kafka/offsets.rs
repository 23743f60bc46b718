//! Tracks which messages of each partition are done: an offset may be committed once everything before it is. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// The largest number of messages in flight: enough for one fsync to serve many.
pub(super) const MESSAGES_MAX: usize = 512;
/// The largest size of messages in flight.
const BYTES_MAX: usize = 16 << 20;

/// A topic, and one of its partitions.
pub(super) type Partition = (String, i32);

/// The position of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: Partition,
    pub(super) offset: i64,
    /// The assignment of its partition to this daemon under which it was read.
    assignment: u64,
    bytes: usize,
}

/// Messages in flight.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    partitions: BTreeMap<Partition, UnderWay>,
    assignments: u64,
    messages: usize,
    bytes: usize,
}

/// Messages of a partition that are not done.
#[derive(Debug, Default)]
struct UnderWay {
    /// Counted from 1.
    assignment: u64,
    offsets: BTreeSet<i64>,
    /// The offset after the last message that was read.
    end: i64,
    /// The committable offset that was last returned by `take`.
    told: i64,
}

impl Offsets {
    /// Records a message that was read. Begins a partition that is read for the first time, or again from an earlier offset.
    pub(super) fn begin(&mut self, partition: Partition, offset: i64, bytes: usize) -> Place {
        let known = self.partitions.entry(partition.clone()).or_default();
        if known.assignment == 0 || offset < known.end {
            self.assignments += 1;
            let assignment = self.assignments;
            *known = UnderWay { assignment, told: offset, ..UnderWay::default() };
        }
        known.offsets.insert(offset);
        known.end = offset + 1;
        self.messages += 1;
        self.bytes += bytes;
        Place { partition, offset, assignment: known.assignment, bytes }
    }

    /// Records that a message is done. If its partition was revoked meanwhile, there is no offset to commit.
    pub(super) fn done(&mut self, place: &Place) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(place.bytes);
        let known = self.partitions.get_mut(&place.partition);
        if let Some(known) = known.filter(|known| known.assignment == place.assignment) {
            known.offsets.remove(&place.offset);
        }
    }

    /// Returns the offsets that may be committed and were not returned yet: those of the next messages.
    pub(super) fn take(&mut self) -> Vec<(Partition, i64)> {
        let all = self.partitions.iter_mut();
        let news = all.filter_map(|(partition, known)| {
            let next = known.offsets.first().copied().unwrap_or(known.end);
            (std::mem::replace(&mut known.told, next) != next).then(|| (partition.clone(), next))
        });
        news.collect()
    }

    /// Returns whether no message is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.messages == 0
    }

    /// Forgets revoked partitions.
    pub(super) fn forget(&mut self, partitions: &[Partition]) {
        self.partitions.retain(|partition, _| !partitions.contains(partition));
    }

    /// Returns whether reading has to pause.
    pub(super) fn is_full(&self) -> bool {
        self.messages >= MESSAGES_MAX || self.bytes >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> Partition {
        ("a".to_owned(), number)
    }

    #[test]
    fn an_offset_is_told_once_all_before_it_are_done_and_only_once() {
        let mut offsets = Offsets::default();
        // 12 and 13 were compacted away.
        let places = [10, 11, 14].map(|offset| offsets.begin(partition(1), offset, 1));
        offsets.done(&places[1]);
        offsets.done(&places[2]);
        assert_eq!(offsets.take(), []);
        offsets.done(&places[0]);
        assert_eq!(offsets.take(), [(partition(1), 15)]);
        assert_eq!(offsets.take(), []);
        assert!(offsets.is_idle());
    }

    #[test]
    fn what_ends_after_its_partition_was_given_up_moves_no_offset_of_the_next_assignment() {
        let mut offsets = Offsets::default();
        let late = offsets.begin(partition(1), 10, 1);
        let other = offsets.begin(partition(2), 5, 1);
        assert!(!offsets.is_idle());
        offsets.forget(&[partition(1)]);
        // The partition is assigned again, and read from an earlier offset.
        let again = offsets.begin(partition(1), 10, 1);
        offsets.done(&late);
        assert_eq!(offsets.take(), []);
        offsets.done(&again);
        offsets.done(&other);
        assert_eq!(offsets.take(), [(partition(1), 11), (partition(2), 6)]);
    }

    #[test]
    fn a_partition_that_is_read_again_from_before_begins_anew() {
        let mut offsets = Offsets::default();
        let early = offsets.begin(partition(1), 20, 1);
        let again = offsets.begin(partition(1), 19, 1);
        offsets.done(&early);
        assert_eq!(offsets.take(), []);
        offsets.done(&again);
        assert_eq!(offsets.take(), [(partition(1), 20)]);
    }

    #[test]
    fn it_is_full_by_count_or_by_bytes_until_something_is_done() {
        let mut offsets = Offsets::default();
        let large = offsets.begin(partition(1), 0, BYTES_MAX);
        assert!(offsets.is_full());
        offsets.done(&large);
        assert!(!offsets.is_full());
        let many = (1..=i64::try_from(MESSAGES_MAX).unwrap())
            .map(|offset| offsets.begin(partition(1), offset, 0));
        let many: Vec<_> = many.collect();
        assert!(offsets.is_full());
        offsets.done(&many[1]);
        assert!(!offsets.is_full());
    }
}
