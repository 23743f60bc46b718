//! Follows the log from a position, across segments.

use std::io;
use std::sync::Arc;

use super::damage::Damage;
use super::log::{self, Log};
use super::segment::{Found, Records, name_of};
use super::{Mark, Position, Record};

/// Reads records in order, up to the end of what is on stable storage. It blocks on the disk.
///
/// Payloads are slices of the large pieces in which the disk is read: to hold on to one for long, copy it.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Log>,
    position: Position,
    /// Items before the position; unknown until the first record is read.
    items: Option<u64>,
    open: Option<Open>,
}

/// The segment that is being read, up to what was its durable end when it was last looked up.
#[derive(Debug)]
struct Open {
    records: Records,
    limit: Mark,
}

/// What a reader finds where it stands.
enum Next {
    AtEnd,
    /// What cannot be read. The reader stands behind it.
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

    /// Where the next record is looked for.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next record, or what cannot be read up to the next one; `None` at the end of what is on stable storage (more may come).
    #[expect(
        clippy::should_implement_trait,
        reason = "the end is not for good, as it is with an iterator"
    )]
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        self.next_before(Position(u64::MAX))
    }

    /// The next record, of which it is known that it ends at `end` or before: nothing behind that is read ahead.
    pub fn next_before(&mut self, end: Position) -> io::Result<Option<Record>> {
        loop {
            let mut open = match self.look_up()? {
                Next::AtEnd => return Ok(None),
                Next::Gone(gap) => return Ok(Some(gap)),
                Next::Here(open) => open,
            };
            let limit = open.limit.position.min(end);
            let record = match open.records.read(self.position, limit)? {
                Some(Found { start, end, payload, .. }) => {
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

    /// Goes to the first record that starts here or behind, unless it is known that one starts here.
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

    /// The segment with the position, if there is something to read there.
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
                    // It was removed since it was looked up, unless it should still be there.
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

    /// The first position asked for need not be a record's start: then reading begins with the record that it is in.
    fn step_back(&mut self, open: &mut Open) -> io::Result<bool> {
        let log::Place::In { base, limit } = self.log.place(self.position) else {
            return Ok(false);
        };
        let boundary = open.records.boundary_before(base, self.position, limit.position)?;
        let has_moved = boundary.position != self.position;
        self.move_to(boundary);
        Ok(has_moved)
    }

    /// There is no whole record here: goes on with the next one.
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

    /// Goes on at `resume`; returns what is between.
    fn pass(&mut self, resume: Mark) -> Record {
        let items = self.items.unwrap_or(resume.items);
        let start = Mark { position: self.position, items };
        self.move_to(resume);
        Record { start, end: resume, payload: None }
    }
}
