//! The records of any journal in order, with what cannot be read between them. It blocks on the disk.

use std::io;

use bytes::Bytes;

use crate::journal::{Journal, Mark, Position, ReadError, Reader};

/// A record, or a place where records cannot be read any more.
#[derive(Debug)]
pub struct Record {
    /// Where it starts.
    pub start: Mark,
    /// Where the next one starts.
    pub end: Mark,
    /// Its bytes; `None` where they are damaged or were removed. That was reported when it was found.
    pub payload: Option<Bytes>,
}

impl Record {
    /// Items that the journal counts for it.
    pub fn items(&self) -> u64 {
        self.end.items.saturating_sub(self.start.items)
    }
}

/// Reads up to what was the end when it began. After a failure of the disk there is nothing more.
#[derive(Debug)]
pub struct Records {
    reader: Reader,
    at: Mark,
    end: Position,
}

impl Records {
    /// All that a journal keeps.
    pub fn all<P: Send + 'static>(journal: &Journal<P>) -> Self {
        Self::from(journal, journal.start())
    }

    /// From a mark on.
    pub fn from<P: Send + 'static>(journal: &Journal<P>, at: Mark) -> Self {
        let reader = journal.read_from(at.position);
        Self { reader, at, end: journal.end().position }
    }

    /// From the first record on that starts at a position or behind it. Items are counted from there.
    pub fn after<P: Send + 'static>(
        journal: &Journal<P>,
        position: Position,
    ) -> Result<Self, ReadError> {
        let reader = journal.read_after(position)?;
        let at = Mark { position: reader.position(), items: 0 };
        Ok(Self { reader, at, end: journal.end().position })
    }
}

impl Iterator for Records {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.end <= self.reader.position() {
            return None;
        }
        let record = match self.reader.next() {
            Ok(stored) => {
                let stored = stored?;
                Record { start: stored.start, end: stored.end, payload: Some(stored.payload) }
            }
            Err(ReadError::Damaged { resume, .. } | ReadError::Removed { resume, .. }) => {
                Record { start: self.at, end: resume, payload: None }
            }
            Err(ReadError::Storage(problem)) => {
                self.end = Position::default();
                return Some(Err(problem));
            }
        };
        self.at = record.end;
        Some(Ok(record))
    }
}
