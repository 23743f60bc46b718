//! The small files next to the segments. Each is replaced atomically and checked when it is read.
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
//! Cursors of version 1 have no stamp; it is read as 0.

use std::collections::BTreeSet;
use std::io;

use bytes::{Buf as _, BufMut as _, Bytes};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::storage::{Storage, read_small};
use super::{Cursor, Mark, Position};

/// Name of the file with the end of the log when it was last closed.
pub(super) const CLOSED_NAME: &str = "closed.mark";
/// Name of the file with the start of the log. Retention updates it before it removes a segment, so that a segment missing after it is
/// known to be lost.
pub(super) const START_NAME: &str = "start.mark";
/// Name of the file that lists all consumers with a cursor. If a cursor file is lost or damaged, its consumer must not look new, because a
/// new consumer starts at the end of the log.
pub(super) const CONSUMERS_NAME: &str = "consumers.list";

const CURSOR_MAGIC: [u8; 8] = *b"sfcrsr\r\n";
const CONSUMERS_MAGIC: [u8; 8] = *b"sfrstr\r\n";
const VERSION: u32 = 2;
const VERSION_WITHOUT_STAMP: u32 = 1;
const SUFFIX: &str = ".cursor";
/// File systems allow 255 bytes; this leaves space for suffixes.
const NAME_BYTES_MAX: usize = 200;
/// Characters that are escaped in file names: capital letters, because some file systems ignore case, and everything except letters,
/// digits, `-` and `_`.
const ESCAPED: AsciiSet = {
    let mut set = NON_ALPHANUMERIC.remove(b'-').remove(b'_');
    let mut capital = b'A';
    while capital <= b'Z' {
        set = set.add(capital);
        capital += 1;
    }
    set
};

/// Prepends a magic and a checksum to `checked`.
pub(super) fn seal(magic: [u8; 8], checked: &[u8]) -> Vec<u8> {
    let checksum = crc32fast::hash(checked).to_le_bytes();
    [&magic[..], &checksum[..], checked].concat()
}

/// Returns the sealed bytes; `None` if they are damaged.
pub(super) fn unseal(magic: [u8; 8], bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(&magic)?;
    (rest.try_get_u32_le().ok()? == crc32fast::hash(rest)).then_some(rest)
}

impl Cursor {
    /// Encodes the cursor.
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

    /// Decodes the bytes of [`Cursor::to_bytes`]; `None` if they are damaged or of an unknown version.
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

/// Writes the start or end of the log.
pub(super) fn write_mark(storage: &dyn Storage, name: &str, mark: Mark) -> io::Result<()> {
    storage.replace(name, &Cursor { mark, ..Cursor::default() }.to_bytes())
}

/// Reads a mark, if the file exists and is intact.
pub(super) fn read_mark(storage: &dyn Storage, name: &str) -> Option<Mark> {
    Cursor::from_bytes(&storage.read(name).ok()?).map(|noted| noted.mark)
}

/// Replaces the list of all consumers with a cursor.
pub(super) fn write_consumers<'a>(
    storage: &dyn Storage,
    consumers: impl IntoIterator<Item = &'a String>,
) -> io::Result<()> {
    let lines: String = consumers.into_iter().flat_map(|name| [name, "\n"]).collect();
    storage.replace(CONSUMERS_NAME, &seal(CONSUMERS_MAGIC, lines.as_bytes()))
}

/// Reads the list of all consumers with a cursor; `None` if it is missing or damaged.
pub(super) fn read_consumers(storage: &dyn Storage) -> io::Result<Option<BTreeSet<String>>> {
    let bytes = read_small(storage, CONSUMERS_NAME)?;
    let lines = unseal(CONSUMERS_MAGIC, &bytes).and_then(|lines| std::str::from_utf8(lines).ok());
    Ok(lines.map(|lines| lines.lines().map(str::to_owned).collect()))
}

/// Returns the file name for a consumer; `None` if there is no usable one. Names differ on every file system and stay in the directory.
pub(super) fn file_name(consumer: &str) -> Option<String> {
    let escaped = utf8_percent_encode(consumer, &ESCAPED).to_string().to_ascii_lowercase();
    (1..=NAME_BYTES_MAX).contains(&escaped.len()).then(|| escaped + SUFFIX)
}

/// Returns the consumer of a cursor file; `None` for other files.
pub(super) fn consumer_of(name: &str) -> Option<String> {
    let escaped = name.strip_suffix(SUFFIX)?;
    let consumer = percent_decode_str(escaped).decode_utf8().ok()?.into_owned();
    // Only names that this program would write are accepted.
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
