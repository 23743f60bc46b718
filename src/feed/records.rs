//! The records of any journal in order, with what cannot be read between them. It blocks on the disk.

use std::io;

use crate::journal::{Journal, Mark, Position, Reader, Record};

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
    pub fn after<P: Send + 'static>(journal: &Journal<P>, position: Position) -> io::Result<Self> {
        let reader = journal.read_after(position)?;
        let at = Mark { position: reader.position(), items: 0 };
        Ok(Self { reader, at, end: journal.end().position })
    }

    /// Those that start before a position.
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
