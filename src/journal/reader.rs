//! Follows the log from a position.

use bytes::Bytes;
use tokio::sync::watch;

use super::storage::StorageFile;
use super::writer::{FRAME_BYTES, after};
use super::{Mark, Position, ReadError, Stored};

/// Reads records in order, up to the end of what is on stable storage. It blocks on the disk.
#[derive(Debug)]
pub struct Reader {
    file: Box<dyn StorageFile>,
    position: Position,
    end: Option<watch::Receiver<Mark>>,
}

impl Reader {
    pub(super) fn new(
        file: Box<dyn StorageFile>,
        position: Position,
        end: Option<watch::Receiver<Mark>>,
    ) -> Self {
        Self { file, position, end }
    }

    /// The next record; `None` at the end of what is on stable storage (more may come).
    pub fn next(&mut self) -> Result<Option<Stored>, ReadError> {
        if let Some(end) = &self.end
            && self.position >= end.borrow().position
        {
            return Ok(None);
        }
        let mut frame = [0; FRAME_BYTES];
        if self.file.read_at(&mut frame, self.position.0)? < FRAME_BYTES {
            return Ok(None);
        }
        let length = u32::from_le_bytes(frame[..4].try_into().expect("4")) as usize;
        let start = Mark {
            position: self.position,
            items: u64::from_le_bytes(frame[8..16].try_into().expect("8")),
        };
        let items = u32::from_le_bytes(frame[16..].try_into().expect("4"));
        let mut payload = vec![0; length];
        if self.file.read_at(&mut payload, self.position.0 + FRAME_BYTES as u64)? < length {
            return Ok(None);
        }
        let end = after(start, items, length);
        self.position = end.position;
        Ok(Some(Stored { start, end, payload: Bytes::from(payload) }))
    }
}
