//! A record's frame: the header before its payload, by which the record is checked, counted and found. This module is pure.
//!
//! ```text
//! offset  bytes  field              all numbers little-endian
//!      0      4  magic              F5 53 46 FA: in no UTF-8 text
//!      4      4  header checksum    CRC-32 of the record's position (8 bytes) and of bytes 8..32
//!      8      4  length             bytes of the record's payload, which follows the frame; with the highest bit set, of padding
//!     12      4  items              number of items in the record
//!     16      8  items before       number of items in all records before this one
//!     24      4  group distance     bytes from the start of the group with which it was written and synced
//!     28      4  payload checksum   CRC-32 of the payload
//! ```
//!
//! The position is checked but not stored, so stale bytes and frames inside a payload never validate. The header has a separate checksum,
//! so that readers can skip records without reading them and never follow a wrong length.
//!
//! *Padding* aligns a large body to a block boundary, so that it is written from where it was received (`direct.rs`). It consists of a
//! frame that counts no items and unchecked zeros, and is treated as a part of the record after it.

use bytes::{Buf as _, BufMut as _};

use super::{Mark, Position};

/// Size of a frame in bytes.
pub(super) const FRAME_BYTES: usize = 32;
/// First bytes of each frame.
pub(super) const FRAME_MAGIC: [u8; 4] = [0xF5, 0x53, 0x46, 0xFA];
/// Maximum payload of a record, whatever the budget: the length field has 32 bits, and a record is read back in one piece.
pub(super) const RECORD_BYTES_MAX: u64 = 1 << 30;

const CHECKED_BYTES: usize = FRAME_BYTES - 8;
/// No length has this bit set, see [`RECORD_BYTES_MAX`].
const PADDING_BIT: u32 = 1 << 31;

/// The contents of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// Whether padding follows instead of a payload.
    pub(super) is_padding: bool,
    /// Bytes of the payload, or of the padding.
    pub(super) length: u32,
    /// Number of items in the record.
    pub(super) items: u32,
    /// Number of items in all records before it.
    pub(super) items_before: u64,
    /// Bytes between the start of its group and its start.
    pub(super) group_distance: u32,
    /// Checksum of the payload.
    pub(super) payload_checksum: u32,
}

impl Frame {
    /// Encodes the frame for a record at `position`.
    pub(super) fn encode(&self, position: Position) -> [u8; FRAME_BYTES] {
        let mut checked = [0; CHECKED_BYTES];
        let mut rest = &mut checked[..];
        rest.put_u32_le(self.length | if self.is_padding { PADDING_BIT } else { 0 });
        rest.put_u32_le(self.items);
        rest.put_u64_le(self.items_before);
        rest.put_u32_le(self.group_distance);
        rest.put_u32_le(self.payload_checksum);
        let mut frame = [0; FRAME_BYTES];
        let mut rest = &mut frame[..];
        rest.put_slice(&FRAME_MAGIC);
        rest.put_u32_le(header_checksum(position, &checked));
        rest.put_slice(&checked);
        frame
    }

    /// Decodes a frame; `None` if the bytes are not a frame of a record at `position`.
    pub(super) fn decode(bytes: &[u8], position: Position) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&FRAME_MAGIC)?;
        let checksum = rest.try_get_u32_le().ok()?;
        if header_checksum(position, rest.get(..CHECKED_BYTES)?) != checksum {
            return None;
        }
        let length = rest.try_get_u32_le().ok()?;
        Some(Self {
            is_padding: length & PADDING_BIT != 0,
            length: length & !PADDING_BIT,
            items: rest.try_get_u32_le().ok()?,
            items_before: rest.try_get_u64_le().ok()?,
            group_distance: rest.try_get_u32_le().ok()?,
            payload_checksum: rest.try_get_u32_le().ok()?,
        })
    }

    /// Creates padding of `bytes` bytes, its frame included, before the record at `at`.
    pub(super) fn padding(bytes: u64, at: Mark, group_distance: u32) -> Self {
        Self {
            is_padding: true,
            length: u32::try_from(bytes.saturating_sub(FRAME_BYTES as u64)).unwrap_or_default(),
            items: 0,
            items_before: at.items,
            group_distance,
            payload_checksum: 0,
        }
    }

    /// Returns the mark after the frame and its payload.
    pub(super) fn end(&self, position: Position) -> Mark {
        let bytes = FRAME_BYTES as u64 + u64::from(self.length);
        Mark {
            position: Position(position.0.saturating_add(bytes)),
            items: self.items_before.saturating_add(u64::from(self.items)),
        }
    }

    /// Returns the start of the group that the record was written with. Everything before it was synced before the group was written.
    pub(super) fn group_start(&self, position: Position) -> Position {
        Position(position.0.saturating_sub(u64::from(self.group_distance)))
    }
}

/// Computes the checksum of a payload in two parts.
pub(super) fn payload_checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(head);
    checksum.update(body);
    checksum.finalize()
}

fn header_checksum(position: Position, checked: &[u8]) -> u32 {
    payload_checksum(&position.0.to_le_bytes(), checked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let numbers = (any::<u32>(), any::<u64>(), any::<u32>(), any::<u32>());
        (any::<bool>(), 0..PADDING_BIT, numbers).prop_map(
            |(is_padding, length, (items, items_before, group_distance, payload_checksum))| Frame {
                is_padding,
                length,
                items,
                items_before,
                group_distance,
                payload_checksum,
            },
        )
    }

    proptest! {
        #[test]
        fn a_frame_is_read_back_as_written(frame in frames(), position: u64) {
            let bytes = frame.encode(Position(position));
            prop_assert_eq!(Frame::decode(&bytes, Position(position)), Some(frame));
        }

        #[test]
        fn a_frame_is_no_frame_anywhere_else(frame in frames(), position: u64, other: u64) {
            prop_assume!(position != other);
            let bytes = frame.encode(Position(position));
            prop_assert_eq!(Frame::decode(&bytes, Position(other)), None);
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(frame in frames(), position: u64, bit in 0..FRAME_BYTES * 8) {
            let mut bytes = frame.encode(Position(position));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Frame::decode(&bytes, Position(position)), None);
        }

        #[test]
        fn a_cut_frame_is_none(frame in frames(), position: u64, length in 0..FRAME_BYTES) {
            let bytes = frame.encode(Position(position));
            prop_assert_eq!(Frame::decode(&bytes[..length], Position(position)), None);
        }
    }
}
