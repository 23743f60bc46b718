//! Offsets of long values in an item, found once on arrival so that later readers skip them.

use std::ops::Range;

use super::Span;
use crate::support::find::place_of;
use crate::support::json::raw::{Object, Raw, inside};
use crate::support::json::scan::{Broken, Lenient};

/// The extents of a few values in the text of one item. Eight bytes each, because every queued span has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ValueOffsets([Extent; COUNT_MAX]);

/// An item's data, and two long values in it: usually input and output.
const COUNT_MAX: usize = 3;

/// First byte and end. An end of 0 marks an unused extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Extent {
    start: u32,
    end: u32,
}

impl ValueOffsets {
    /// Stores the extent of a value, as offsets in the item. There is space for a few; other values must be scanned.
    pub fn add(&mut self, value: Range<usize>) {
        let (Ok(start), Ok(end)) = (u32::try_from(value.start), u32::try_from(value.end)) else {
            return;
        };
        if let Some(free) = self.0.iter_mut().find(|extent| extent.end == 0) {
            *free = Extent { start, end };
        }
    }

    /// Skips the next value in the item; returns its extent. A value with a known end is not scanned.
    pub fn pass_value(&self, scanner: &mut Lenient<'_>) -> Result<Range<usize>, Broken> {
        scanner.peek();
        let start = scanner.at;
        match self.end_of(start) {
            Some(end) => scanner.at = end,
            None => scanner.skip_value()?,
        }
        Ok(start..scanner.at)
    }

    /// Returns the end of the value at this offset, if it is stored.
    fn end_of(&self, start: usize) -> Option<usize> {
        let known =
            |extent: &&Extent| extent.end != 0 && usize::try_from(extent.start) == Ok(start);
        self.0.iter().find(known).and_then(|extent| usize::try_from(extent.end).ok())
    }
}

/// A parsed item, with the members of the item and of its data.
#[derive(Debug)]
pub struct Opened<'a> {
    /// The item.
    pub item: Object<'a>,
    /// Its `span_data`, if that is an object.
    pub data: Option<Object<'a>>,
}

impl<'a> Opened<'a> {
    /// Parses a span's wire format, given as text.
    pub fn of(span: &Span, wire: &'a str) -> Self {
        let value_offsets = span.value_offsets();
        let item = open(wire, 0, value_offsets);
        let data = item.members.iter().rev().find(|(name, _)| name == "span_data");
        let data = data.filter(|(_, data)| data.is_object()).and_then(|(_, data)| {
            let place = place_of(data.text().as_bytes(), wire.as_bytes())?;
            Some(open(wire, place.start, value_offsets))
        });
        Self { item, data }
    }
}

/// Parses the object at an offset of an item. Values with known ends are not scanned.
fn open<'a>(text: &'a str, start: usize, value_offsets: &ValueOffsets) -> Object<'a> {
    let mut scanner = Lenient::lenient(text.as_bytes());
    scanner.at = start;
    let mut members = Vec::with_capacity(MEMBERS_GUESS);
    // The text was checked on arrival, so errors do not occur.
    let passed = scanner.each_member(|scanner, name| {
        let value = text.get(value_offsets.pass_value(scanner)?).unwrap_or_default();
        members.push((inside(text, name), Raw::trusted(value)));
        Ok::<_, Broken>(())
    });
    let end = if passed.is_ok() { scanner.at } else { text.len() };
    Object { raw: Raw::trusted(text.get(start..end).unwrap_or_default()), members }
}

/// Items have nine members, and their data usually fewer.
const MEMBERS_GUESS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_known_for_the_first_values_and_for_no_other_place() {
        let mut value_offsets = ValueOffsets::default();
        assert_eq!(value_offsets.end_of(0), None);
        for start in [10, 0, 20, 30] {
            value_offsets.add(start..start + 5);
        }
        for (start, end) in [(0, Some(5)), (10, Some(15)), (20, Some(25)), (30, None), (5, None)] {
            assert_eq!(value_offsets.end_of(start), end, "{start}");
        }
    }
}
