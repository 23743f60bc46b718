//! Where long values stand in an item, found once on arrival so that every later reader jumps over them.

use std::ops::Range;

use super::Span;
use crate::support::find::place_of;
use crate::support::json::raw::{Object, Raw, inside};
use crate::support::json::scan::{Broken, Lenient};

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
    pub fn pass_value(&self, scanner: &mut Lenient<'_>) -> Result<Range<usize>, Broken> {
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

/// An item that was taken on arrival, with the members of itself and of its data.
#[derive(Debug)]
pub struct Opened<'a> {
    /// The item.
    pub item: Object<'a>,
    /// Its `span_data`, if that is an object.
    pub data: Option<Object<'a>>,
}

impl<'a> Opened<'a> {
    /// Opens a span's wire, given as text.
    pub fn of(span: &Span, wire: &'a str) -> Self {
        let landmarks = span.landmarks();
        let item = open(wire, 0, landmarks);
        let data = item.members.iter().rev().find(|(name, _)| name == "span_data");
        let data = data.filter(|(_, data)| data.is_object()).and_then(|(_, data)| {
            let place = place_of(data.text().as_bytes(), wire.as_bytes())?;
            Some(open(wire, place.start, landmarks))
        });
        Self { item, data }
    }
}

/// Opens the object that begins at an offset of an item. Values whose ends are known are not walked.
fn open<'a>(text: &'a str, start: usize, landmarks: &Landmarks) -> Object<'a> {
    let mut scanner = Lenient::lenient(text.as_bytes());
    scanner.at = start;
    let mut members = Vec::with_capacity(MEMBERS_GUESS);
    // The text was checked on arrival, so what would be an error does not come.
    let passed = scanner.each_member(|scanner, name| {
        let value = text.get(landmarks.pass_value(scanner)?).unwrap_or_default();
        members.push((inside(text, name), Raw::trusted(value)));
        Ok::<_, Broken>(())
    });
    let end = if passed.is_ok() { scanner.at } else { text.len() };
    Object { raw: Raw::trusted(text.get(start..end).unwrap_or_default()), members }
}

/// Items have nine members, and their data mostly less.
const MEMBERS_GUESS: usize = 10;

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
