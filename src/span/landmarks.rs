//! Where long values stand in an item, found once on arrival so that every later reader jumps over them.

use std::ops::Range;

use crate::support::json::scan::{Broken, Scanner};

/// The extents of a few values in the text of one item. Eight bytes each, because every span that waits has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Landmarks([Extent; COUNT_MAX]);

/// An item's data, and two long values in it: mostly what went in and what came out.
const COUNT_MAX: usize = 3;

/// First byte and end. An end of 0 is no extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Extent {
    start: u32,
    end: u32,
}

impl Landmarks {
    /// Keeps the extent of a value, as offsets in the item. There is room for a few; others have to be walked.
    pub fn add(&mut self, value: Range<usize>) {
        let (Ok(start), Ok(end)) = (u32::try_from(value.start), u32::try_from(value.end)) else {
            return;
        };
        if let Some(free) = self.0.iter_mut().find(|extent| extent.end == 0) {
            *free = Extent { start, end };
        }
    }

    /// Passes the value that comes next in the item, and says where it stands. One whose end is known is not walked.
    pub fn pass_value(&self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, Broken> {
        scanner.peek();
        let start = scanner.at;
        match self.end_of(start) {
            Some(end) => scanner.at = end,
            None => scanner.skip_value()?,
        }
        Ok(start..scanner.at)
    }

    /// Where the value ends that begins at this offset, if it is one of those that were kept.
    fn end_of(&self, start: usize) -> Option<usize> {
        let known =
            |extent: &&Extent| extent.end != 0 && usize::try_from(extent.start) == Ok(start);
        self.0.iter().find(known).and_then(|extent| usize::try_from(extent.end).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_known_for_the_first_values_and_for_no_other_place() {
        let mut landmarks = Landmarks::default();
        assert_eq!(landmarks.end_of(0), None);
        for start in [10, 0, 20, 30] {
            landmarks.add(start..start + 5);
        }
        for (start, end) in [(0, Some(5)), (10, Some(15)), (20, Some(25)), (30, None), (5, None)] {
            assert_eq!(landmarks.end_of(start), end, "{start}");
        }
    }
}
