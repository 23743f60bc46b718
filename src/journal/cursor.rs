//! The small files beside the segments: each is replaced as a whole and checked when it is read.
//!
//! ```text
//! <consumer, escaped>.cursor
//!      0      8  magic            "sfcrsr\r\n"
//!      8      4  checksum         CRC-32 of the rest
//!     12      4  version          2
//!     16     56  position, items, joined, dead lettered, filtered, dropped, stamp: 8 bytes each
//!     72      4  length of the state
//!     76      -  state
//!
//! start.mark, closed.mark        cursors of which only position and items count
//!
//! consumers.list
//!      0      8  magic            "sfrstr\r\n"
//!      8      4  checksum         CRC-32 of the rest
//!     12      -  names, each with a line break
//! ```
//!
//! Cursors of version 1 had no stamp. It is read as 0.

use std::collections::BTreeSet;
use std::io;

use bytes::{Buf as _, BufMut as _, Bytes};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::storage::Storage;
use super::{Cursor, Mark, Position};

/// Where the log ended when it was last closed.
pub(super) const CLOSED_NAME: &str = "closed.mark";
/// Where the log begins. Retention moves it before it removes a segment, so that a segment that is missing behind it is known
/// to be lost.
pub(super) const START_NAME: &str = "start.mark";
/// All who have a cursor. A cursor file that is lost or damaged must not make its consumer look new, since a new one begins at the end
/// of the log.
pub(super) const CONSUMERS_NAME: &str = "consumers.list";

const CURSOR_MAGIC: [u8; 8] = *b"sfcrsr\r\n";
const CONSUMERS_MAGIC: [u8; 8] = *b"sfrstr\r\n";
const VERSION: u32 = 2;
const VERSION_WITHOUT_STAMP: u32 = 1;
const SUFFIX: &str = ".cursor";
/// File systems take 255 bytes; this leaves room for suffixes.
const NAME_BYTES_MAX: usize = 200;
/// What a file's name cannot have as it is: capital letters, since not every file system tells them apart, and all that is no letter,
/// digit, `-` or `_`.
const ESCAPED: AsciiSet = {
    let mut set = NON_ALPHANUMERIC.remove(b'-').remove(b'_');
    let mut capital = b'A';
    while capital <= b'Z' {
        set = set.add(capital);
        capital += 1;
    }
    set
};

/// What is checked, behind a magic and its checksum.
pub(super) fn seal(magic: [u8; 8], checked: &[u8]) -> Vec<u8> {
    let checksum = crc32fast::hash(checked).to_le_bytes();
    [&magic[..], &checksum[..], checked].concat()
}

/// What was sealed; `None` when it is damaged.
pub(super) fn unseal(magic: [u8; 8], bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(&magic)?;
    (rest.try_get_u32_le().ok()? == crc32fast::hash(rest)).then_some(rest)
}

impl Cursor {
    /// The cursor as bytes that nothing else is read from.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut checked = Vec::with_capacity(64 + self.state.len());
        checked.put_u32_le(VERSION);
        let Self { mark, joined, dead_lettered, filtered, dropped, stamp, state } = self;
        for number in
            [mark.position.0, mark.items, *joined, *dead_lettered, *filtered, *dropped, *stamp]
        {
            checked.put_u64_le(number);
        }
        checked.put_u32_le(u32::try_from(state.len()).unwrap_or(u32::MAX));
        checked.put_slice(state);
        seal(CURSOR_MAGIC, &checked)
    }

    /// What [`Cursor::to_bytes`] gave; `None` when the bytes are damaged or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = unseal(CURSOR_MAGIC, bytes)?;
        let has_stamp = match rest.try_get_u32_le().ok()? {
            VERSION => true,
            VERSION_WITHOUT_STAMP => false,
            _ => return None,
        };
        let mut next = || rest.try_get_u64_le().ok();
        let cursor = Self {
            mark: Mark { position: Position(next()?), items: next()? },
            joined: next()?,
            dead_lettered: next()?,
            filtered: next()?,
            dropped: next()?,
            stamp: if has_stamp { next()? } else { 0 },
            state: Bytes::new(),
        };
        let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
        (rest.len() == length).then(|| Self { state: Bytes::copy_from_slice(rest), ..cursor })
    }
}

/// Notes where the log ends or begins.
pub(super) fn write_mark(storage: &dyn Storage, name: &str, mark: Mark) -> io::Result<()> {
    storage.replace(name, &Cursor { mark, ..Cursor::default() }.to_bytes())
}

/// What was noted last, if it can be read.
pub(super) fn read_mark(storage: &dyn Storage, names: &[String], name: &str) -> Option<Mark> {
    let is_there = names.iter().any(|other| other == name);
    let bytes = is_there.then(|| storage.read(name).ok()).flatten()?;
    Cursor::from_bytes(&bytes).map(|noted| noted.mark)
}

/// Replaces the list of all who have a cursor.
pub(super) fn write_consumers<'a>(
    storage: &dyn Storage,
    consumers: impl IntoIterator<Item = &'a String>,
) -> io::Result<()> {
    let lines: String = consumers.into_iter().flat_map(|name| [name, "\n"]).collect();
    storage.replace(CONSUMERS_NAME, &seal(CONSUMERS_MAGIC, lines.as_bytes()))
}

/// All who have a cursor; `None` where the list is missing or damaged.
pub(super) fn read_consumers(
    storage: &dyn Storage,
    names: &[String],
) -> io::Result<Option<BTreeSet<String>>> {
    if !names.iter().any(|name| name == CONSUMERS_NAME) {
        return Ok(None);
    }
    let bytes = storage.read(CONSUMERS_NAME)?;
    let lines = unseal(CONSUMERS_MAGIC, &bytes).and_then(|lines| std::str::from_utf8(lines).ok());
    Ok(lines.map(|lines| lines.lines().map(str::to_owned).collect()))
}

/// The file's name; `None` for a consumer that cannot have one. Names differ on every file system and never leave the directory.
pub(super) fn file_name(consumer: &str) -> Option<String> {
    let escaped = utf8_percent_encode(consumer, &ESCAPED).to_string().to_ascii_lowercase();
    (1..=NAME_BYTES_MAX).contains(&escaped.len()).then(|| escaped + SUFFIX)
}

/// The consumer whose file this is; `None` for other files.
pub(super) fn consumer_of(name: &str) -> Option<String> {
    let escaped = name.strip_suffix(SUFFIX)?;
    let consumer = percent_decode_str(escaped).decode_utf8().ok()?.into_owned();
    // Only names that we would write ourselves.
    (file_name(&consumer).as_deref() == Some(name)).then_some(consumer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursors() -> impl Strategy<Value = Cursor> {
        (any::<[u64; 7]>(), proptest::collection::vec(any::<u8>(), 0..100)).prop_map(
            |([position, items, joined, dead_lettered, filtered, dropped, stamp], state)| Cursor {
                mark: Mark { position: Position(position), items },
                joined,
                dead_lettered,
                filtered,
                dropped,
                stamp,
                state: Bytes::from(state),
            },
        )
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_back_as_written(cursor in cursors()) {
            prop_assert_eq!(Cursor::from_bytes(&cursor.to_bytes()), Some(cursor));
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(cursor in cursors(), at: prop::sample::Index) {
            let mut bytes = cursor.to_bytes();
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Cursor::from_bytes(&bytes), None);
        }

        #[test]
        fn a_cut_cursor_is_none(cursor in cursors(), at: prop::sample::Index) {
            let bytes = cursor.to_bytes();
            prop_assert_eq!(Cursor::from_bytes(&bytes[..at.index(bytes.len())]), None);
        }

        #[test]
        fn a_name_tells_its_consumer_and_stays_in_the_directory(consumer in "\\PC{1,40}") {
            let Some(name) = file_name(&consumer) else { return Ok(()) };
            prop_assert!(!name.contains('/') && !name.starts_with('.'));
            prop_assert_eq!(consumer_of(&name), Some(consumer));
        }
    }

    #[test]
    fn a_cursor_of_version_1_is_read_without_a_stamp() {
        let cursor = Cursor {
            mark: Mark { position: Position(7), items: 6 },
            joined: 5,
            dead_lettered: 4,
            filtered: 3,
            dropped: 2,
            stamp: 0,
            state: Bytes::from_static(b"state"),
        };
        let mut old = cursor.to_bytes();
        old[12] = 1;
        old.drain(64..72);
        let checksum = crc32fast::hash(&old[12..]);
        old[8..12].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Cursor::from_bytes(&old), Some(cursor));
    }

    #[test]
    fn names_are_safe() {
        assert_eq!(file_name("archive-2_b").as_deref(), Some("archive-2_b.cursor"));
        assert_eq!(file_name("../Etc").as_deref(), Some("%2e%2e%2f%45tc.cursor"));
        assert_eq!(file_name(""), None);
        assert_eq!(file_name(&"x".repeat(300)), None);
        assert_eq!(consumer_of("a.log"), None);
        assert_eq!(consumer_of("A.cursor"), None);
        assert_eq!(consumer_of("%zz.cursor"), None);
    }
}
