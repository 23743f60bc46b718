//! The records of any journal in order, including unreadable ranges between them. Blocks on the disk.

use std::io;

use crate::journal::{Journal, Mark, Position, Reader, Record};

/// Reads up to the end of the journal at the start of the iteration. Ends after a disk error.
#[derive(Debug)]
pub struct Records {
    reader: Reader,
    at: Mark,
    end: Position,
}

impl Records {
    /// Reads all records of a journal.
    pub fn all<P: Send + 'static>(journal: &Journal<P>) -> Self {
        Self::from(journal, journal.start())
    }

    /// Reads records from a mark.
    pub fn from<P: Send + 'static>(journal: &Journal<P>, at: Mark) -> Self {
        let reader = journal.read_from(at.position);
        Self { reader, at, end: journal.end().position }
    }

    /// Reads from the first record that starts at or after a position. Items are counted from there.
    pub fn after<P: Send + 'static>(journal: &Journal<P>, position: Position) -> io::Result<Self> {
        let reader = journal.read_after(position)?;
        let at = Mark { position: reader.position(), items: 0 };
        Ok(Self { reader, at, end: journal.end().position })
    }

    /// Limits the iteration to records that start before a position.
    #[must_use]
    pub fn before(self, position: Position) -> Self {
        Self { end: self.end.min(position), ..self }
    }
}

impl Iterator for Records {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.end <= self.reader.position() {
            return None;
        }
        let read = self.reader.next().inspect_err(|_| self.end = Position::default());
        let record = read.transpose()?;
        Some(record.map(|record| {
            let start = if record.payload.is_some() { record.start } else { self.at };
            self.at = record.end;
            Record { start, ..record }
        }))
    }
}
