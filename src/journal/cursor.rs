//! A consumer's cursor as a small file of its own: replaced as a whole, checked when read.
//!
//! ```text
//! <consumer, escaped>.cursor
//!      0      8  magic            "sfcrsr\r\n"
//!      8      4  checksum         CRC-32 of the rest
//!     12      4  version          2
//!     16     56  position, items, joined, dead lettered, filtered, dropped, stamp: 8 bytes each
//!     72      4  length of the state
//!     76      -  state
//! ```
//!
//! Version 1 had no stamp. It is read as 0.

use bytes::{Buf as _, BufMut as _, Bytes};

use super::{Cursor, Mark, Position};

const MAGIC: [u8; 8] = *b"sfcrsr\r\n";
const VERSION: u32 = 2;
const VERSION_WITHOUT_STAMP: u32 = 1;
const SUFFIX: &str = ".cursor";
/// File systems take 255 bytes; this leaves room for suffixes.
const NAME_BYTES_MAX: usize = 200;

/// A cursor's file as bytes.
pub(super) fn encode(cursor: &Cursor) -> Vec<u8> {
    let mut checked = Vec::with_capacity(64 + cursor.state.len());
    checked.put_u32_le(VERSION);
    checked.put_u64_le(cursor.mark.position.0);
    checked.put_u64_le(cursor.mark.items);
    checked.put_u64_le(cursor.joined);
    checked.put_u64_le(cursor.dead_lettered);
    checked.put_u64_le(cursor.filtered);
    checked.put_u64_le(cursor.dropped);
    checked.put_u64_le(cursor.stamp);
    checked.put_u32_le(u32::try_from(cursor.state.len()).unwrap_or(u32::MAX));
    checked.put_slice(&cursor.state);
    let mut bytes = Vec::with_capacity(12 + checked.len());
    bytes.put_slice(&MAGIC);
    bytes.put_u32_le(crc32fast::hash(&checked));
    bytes.put_slice(&checked);
    bytes
}

/// Reads a cursor back; `None` when the bytes are damaged or of another version.
pub(super) fn decode(bytes: &[u8]) -> Option<Cursor> {
    let mut rest = bytes.strip_prefix(&MAGIC)?;
    if rest.try_get_u32_le().ok()? != crc32fast::hash(rest) {
        return None;
    }
    let has_stamp = match rest.try_get_u32_le().ok()? {
        VERSION => true,
        VERSION_WITHOUT_STAMP => false,
        _ => return None,
    };
    let mut next = || rest.try_get_u64_le().ok();
    let cursor = Cursor {
        mark: Mark { position: Position(next()?), items: next()? },
        joined: next()?,
        dead_lettered: next()?,
        filtered: next()?,
        dropped: next()?,
        stamp: if has_stamp { next()? } else { 0 },
        state: Bytes::new(),
    };
    let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
    (rest.len() == length).then(|| Cursor { state: Bytes::copy_from_slice(rest), ..cursor })
}

/// The file's name; `None` for a consumer that cannot have one. What is not a small letter, a digit, `-` or `_` is escaped, so that
/// names differ on every file system and never leave the directory.
pub(super) fn file_name(consumer: &str) -> Option<String> {
    let mut name = String::with_capacity(consumer.len() + SUFFIX.len());
    for byte in consumer.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            other => name.extend(['%', digit_of(other >> 4), digit_of(other & 15)]),
        }
    }
    if name.is_empty() || NAME_BYTES_MAX < name.len() {
        return None;
    }
    name.push_str(SUFFIX);
    Some(name)
}

fn digit_of(half: u8) -> char {
    char::from_digit(u32::from(half), 16).unwrap_or_default()
}

/// The consumer whose file this is; `None` for other files.
pub(super) fn consumer_of(name: &str) -> Option<String> {
    let escaped = name.strip_suffix(SUFFIX)?;
    let mut consumer = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            consumer.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            consumer.push(byte);
        }
    }
    let consumer = String::from_utf8(consumer).ok()?;
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
            prop_assert_eq!(decode(&encode(&cursor)), Some(cursor));
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(cursor in cursors(), at: prop::sample::Index) {
            let mut bytes = encode(&cursor);
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(&bytes), None);
        }

        #[test]
        fn a_cut_cursor_is_none(cursor in cursors(), at: prop::sample::Index) {
            let bytes = encode(&cursor);
            prop_assert_eq!(decode(&bytes[..at.index(bytes.len())]), None);
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
        let mut old = encode(&cursor);
        old[12] = 1;
        old.drain(64..72);
        let checksum = crc32fast::hash(&old[12..]);
        old[8..12].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(decode(&old), Some(cursor));
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
