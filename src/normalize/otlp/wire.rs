//! Reads the protobuf wire format from a slice without copying: consecutive fields, each with its number and content.
//!
//! The format is documented at <https://protobuf.dev/programming-guides/encoding/>. Lengths are trusted for nothing but slicing, and every
//! slice is checked to lie inside its message.

use crate::span::named;
use crate::span::otlp::protobuf::write_bytes;

/// The fields of one message, in their order on the wire.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// A field's content; the variant is its wire type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// Wire type 0: integers, booleans and enums.
    Varint(u64),
    /// Wire type 1: `fixed64` and `double`.
    Fixed64(u64),
    /// Wire type 2: strings, bytes and messages.
    Bytes(&'a [u8]),
    /// Wire type 3, deprecated: a group, skipped to its end.
    Group,
    /// Wire type 5: `fixed32`.
    Fixed32(u32),
}

named! {
    /// Why a message cannot be walked, with its description. The fields before the error are valid.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    Broken {
        /// A field extends beyond the end of its message.
        Truncated "a field reaches beyond the end of its message",
        /// A varint is longer than ten bytes.
        Varint "an integer is too long",
        /// A field number is zero or too large, or a wire type is unknown.
        Tag "a field's tag is invalid",
        /// A group has no end, has another group's end, or is nested too deeply.
        Group "a group is not closed",
        /// A known field has the wrong wire type.
        WireType "a field has the wrong wire type",
    }
}

/// How a field is edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The field is kept.
    Keep,
    /// The field is removed.
    Drop,
    /// The field is replaced by a length-delimited one of the same number with this content.
    Replace(Vec<u8>),
}

/// Returns the message with some fields edited and all others byte for byte unchanged; `None` if all are kept. Everything after an
/// unreadable field is removed.
pub fn rebuilt(message: &[u8], mut edit: impl FnMut(u32, Content<'_>) -> Edit) -> Option<Vec<u8>> {
    let mut fields = Fields::new(message);
    let mut out: Option<Vec<u8>> = None;
    let mut before = message;
    while let Ok(Some((number, content))) = fields.next() {
        let after = fields.rest();
        let done = message.len() - before.len();
        let field = before.split_at(before.len() - after.len()).0;
        before = after;
        let edit = edit(number, content);
        if edit == Edit::Keep {
            if let Some(out) = &mut out {
                out.extend_from_slice(field);
            }
            continue;
        }
        let out = out.get_or_insert_with(|| {
            let mut out = Vec::with_capacity(message.len());
            out.extend_from_slice(message.split_at(done).0);
            out
        });
        if let Edit::Replace(content) = edit {
            write_bytes(out, number, &content);
        }
    }
    out
}

/// Returns a length-delimited field's content, or an empty slice without one. The last one counts, as in protobuf.
pub fn last_bytes(message: &[u8], wanted: u32) -> &[u8] {
    let (mut fields, mut found) = (Fields::new(message), &[][..]);
    while let Ok(Some((number, content))) = fields.next() {
        if let Content::Bytes(bytes) = content
            && number == wanted
        {
            found = bytes;
        }
    }
    found
}

/// The deepest nesting of groups that is followed. OTLP has never had groups; the number is prost's.
const GROUP_DEPTH_MAX: usize = 100;

/// Field numbers end at 2^29 - 1, so a tag fits into 32 bits.
const TAG_MAX: u64 = u32::MAX as u64;

impl<'a> Fields<'a> {
    /// Starts at the message's first field.
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Returns the unread rest.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Returns the next field's number and content; `None` at the message's end.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would hide that the rest is lost after an error"
    )]
    pub fn next(&mut self) -> Result<Option<(u32, Content<'a>)>, Broken> {
        // Most fields are short text or messages, with one byte for the tag and one for the length.
        if let [tag @ 8..0x80, length @ 0..0x80, rest @ ..] = self.rest
            && tag & 7 == 2
            && let Some((bytes, rest)) = rest.split_at_checked(usize::from(*length))
        {
            self.rest = rest;
            return Ok(Some((u32::from(tag >> 3), Content::Bytes(bytes))));
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.next_of_any_form().map(Some)
    }

    #[inline(never)]
    fn next_of_any_form(&mut self) -> Result<(u32, Content<'a>), Broken> {
        let (number, wire_type) = self.tag()?;
        let content = match wire_type {
            0 => Content::Varint(self.varint()?),
            1 => Content::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Content::Bytes(self.bytes()?),
            3 => {
                self.skip_group(number)?;
                Content::Group
            }
            5 => Content::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Broken::Tag),
        };
        Ok((number, content))
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, u8), Broken> {
        let tag = self.varint()?;
        if !(8..=TAG_MAX).contains(&tag) {
            return Err(Broken::Tag);
        }
        let number = u32::try_from(tag >> 3).map_err(|_| Broken::Tag)?;
        Ok((number, (tag & 7) as u8))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Broken> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            Some(_) => self.long_varint(),
            None => Err(Broken::Truncated),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(Broken::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // The tenth byte has room for only one bit.
                return if shift == 63 && 1 < byte { Err(Broken::Varint) } else { Ok(value) };
            }
        }
        Err(Broken::Varint)
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let length = usize::try_from(self.varint()?).map_err(|_| Broken::Truncated)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Broken::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn array<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], Broken> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Broken::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<(), Broken> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            if self.rest.is_empty() || GROUP_DEPTH_MAX < open.len() {
                return Err(Broken::Group);
            }
            match self.tag()? {
                (_, 0) => drop(self.varint()?),
                (_, 1) => drop(self.array::<8>()?),
                (_, 2) => drop(self.bytes()?),
                (inner, 3) => open.push(inner),
                (ended, 4) if ended == innermost => drop(open.pop()),
                (_, 5) => drop(self.array::<4>()?),
                (_, 4) => return Err(Broken::Group),
                _ => return Err(Broken::Tag),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Result<Vec<(u32, Content<'_>)>, Broken> {
        let mut fields = Fields::new(message);
        let mut found = Vec::new();
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn every_wire_type_is_read() {
        let message =
            [0x08, 0x96, 0x01, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1a, 2, b'h', b'i', 0x25, 2, 0, 0, 0];
        assert_eq!(
            all(&message),
            Ok(vec![
                (1, Content::Varint(150)),
                (2, Content::Fixed64(1)),
                (3, Content::Bytes(b"hi")),
                (4, Content::Fixed32(2)),
            ])
        );
    }

    #[test]
    fn a_group_is_skipped_to_its_own_end() {
        // Field 1 opens a group that holds a varint and another group; field 2 follows.
        assert_eq!(
            all(&[0x0b, 0x08, 1, 0x13, 0x12, 1, 9, 0x14, 0x0c, 0x10, 5]),
            Ok(vec![(1, Content::Group), (2, Content::Varint(5))])
        );
        assert_eq!(all(&[0x0b, 0x14]), Err(Broken::Group));
        assert_eq!(all(&[0x0b]), Err(Broken::Group));
        assert_eq!(all(&[0x0b; 1000]), Err(Broken::Group));
        assert_eq!(all(&[0x0c]), Err(Broken::Tag));
    }

    #[test]
    fn what_lies_outside_is_never_sliced() {
        assert_eq!(all(&[0x0a, 3, 1, 2]), Err(Broken::Truncated));
        assert_eq!(
            all(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Err(Broken::Truncated)
        );
        assert_eq!(all(&[0x09, 0]), Err(Broken::Truncated));
        assert_eq!(all(&[0x08]), Err(Broken::Truncated));
        assert_eq!(all(&[0x08, 0x80]), Err(Broken::Truncated));
    }

    #[test]
    fn an_integer_ends_within_64_bits() {
        assert_eq!(
            all(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Ok(vec![(1, Content::Varint(u64::MAX))])
        );
        assert_eq!(
            all(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
            Err(Broken::Varint)
        );
        assert_eq!(
            all(&[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]),
            Err(Broken::Varint)
        );
    }

    #[test]
    fn field_number_zero_is_none() {
        assert_eq!(all(&[0x00, 0]), Err(Broken::Tag));
        assert_eq!(all(&[0x0f, 0]), Err(Broken::Tag));
    }
}
