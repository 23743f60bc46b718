//! Reads the log from a position, across segments.

use std::io;
use std::sync::Arc;

use super::damage::Damage;
use super::log::{self, Log};
use super::segment::{FoundRecord, Records, name_of};
use super::{Mark, Position, Record};

/// Reads records in order, up to the end of the data on stable storage. Blocks on the disk.
///
/// Payloads are slices of the large chunks that are read from disk: copy one to keep it for long.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Log>,
    position: Position,
    /// Items before the position; unknown until the first record is read.
    items: Option<u64>,
    open: Option<Open>,
}

/// The segment that is being read, up to its durable end as of the last look-up.
#[derive(Debug)]
struct Open {
    records: Records,
    limit: Mark,
}

/// What is at the reader's position.
enum Next {
    AtEnd,
    /// An unreadable range. The reader is already after it.
    Gone(Record),
    Here(Open),
}

impl Reader {
    pub(super) fn new(log: Arc<Log>, position: Position) -> Self {
        let start = log.start();
        let (position, items) = if position <= start.position {
            (start.position, Some(start.items))
        } else {
            (position, None)
        };
        Self { log, position, items, open: None }
    }

    /// Returns the position at which the next record is expected.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the next record, or the unreadable range up to the next one; `None` at the end of stable storage (more may follow).
    #[expect(
        clippy::should_implement_trait,
        reason = "the end is not for good, as it is with an iterator"
    )]
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        self.next_before(Position(u64::MAX))
    }

    /// Returns the next record, which is known to end at or before `end`; nothing after that is read ahead.
    pub fn next_before(&mut self, end: Position) -> io::Result<Option<Record>> {
        loop {
            let mut open = match self.look_up()? {
                Next::AtEnd => return Ok(None),
                Next::Gone(gap) => return Ok(Some(gap)),
                Next::Here(open) => open,
            };
            let limit = open.limit.position.min(end);
            let record = match open.records.read(self.position, limit)? {
                Some(FoundRecord { start, end, payload, .. }) => {
                    Record { start, end, payload: Some(payload) }
                }
                None if self.items.is_none() && self.step_back(&mut open)? => continue,
                None => self.pass_damage(&mut open)?,
            };
            self.open = Some(open);
            self.move_to(record.end);
            return Ok(Some(record));
        }
    }

    /// Moves to the first record that starts here or later, unless one is known to start here.
    pub(super) fn skip_to_record(&mut self) -> io::Result<()> {
        if self.items.is_none()
            && let Next::Here(mut open) = self.look_up()?
        {
            let found = open.records.find_from(self.position, open.limit.position)?;
            self.move_to(found.map_or(open.limit, |found| found.start));
            self.open = Some(open);
        }
        Ok(())
    }

    fn move_to(&mut self, mark: Mark) {
        self.position = mark.position;
        self.items = Some(mark.items);
    }

    /// Returns the segment that contains the position, if there is anything to read.
    fn look_up(&mut self) -> io::Result<Next> {
        loop {
            if let Some(open) = self.open.take_if(|open| self.position < open.limit.position) {
                return Ok(Next::Here(open));
            }
            let (base, limit) = match self.log.place(self.position) {
                log::Place::AtEnd => return Ok(Next::AtEnd),
                log::Place::Removed(resume) => {
                    self.open = None;
                    return Ok(Next::Gone(self.pass(resume)));
                }
                log::Place::In { base, limit } => (base, limit),
            };
            match self.open.take() {
                Some(open) if open.records.base() == base.position => {
                    self.open = Some(Open { limit, ..open });
                }
                _ => match self.log.storage.open_to_read(&name_of(base.position)) {
                    Ok(file) => {
                        let records = Records::new(file, base.position, self.log.pool.clone());
                        self.open = Some(Open { records, limit });
                    }
                    // The segment was removed since the look-up, unless it should still exist.
                    Err(error)
                        if error.kind() == io::ErrorKind::NotFound
                            && base.position < self.log.start().position => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(Next::Gone(self.skip(base, limit)));
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Moves back to the start of the record that contains the position: the first position need not be a record's start.
    fn step_back(&mut self, open: &mut Open) -> io::Result<bool> {
        let log::Place::In { base, limit } = self.log.place(self.position) else {
            return Ok(false);
        };
        let boundary = open.records.boundary_before(base, self.position, limit.position)?;
        let has_moved = boundary.position != self.position;
        self.move_to(boundary);
        Ok(has_moved)
    }

    /// Skips to the next intact record, because there is none here.
    fn pass_damage(&mut self, open: &mut Open) -> io::Result<Record> {
        let next = open.records.find_after(self.position, open.limit.position)?;
        let resume = next.map_or(open.limit, |found| found.start);
        let base = Mark { position: open.records.base(), items: 0 };
        Ok(self.skip(base, resume))
    }

    fn skip(&mut self, base: Mark, resume: Mark) -> Record {
        let gap = self.pass(resume);
        self.log.note_damage(Damage { segment: base.position, from: gap.start, to: resume });
        gap
    }

    /// Continues at `resume`; returns the range in between.
    fn pass(&mut self, resume: Mark) -> Record {
        let items = self.items.unwrap_or(resume.items);
        let start = Mark { position: self.position, items };
        self.move_to(resume);
        Record { start, end: resume, payload: None }
    }
}
