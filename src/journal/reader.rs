//! Follows the log from a position, across segments.

use std::io;
use std::sync::Arc;

use super::damage::Damage;
use super::log::{Log, Place};
use super::segment::{Records, name_of};
use super::{Mark, Position, ReadError, Stored};

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

    /// The next record; `None` at the end of what is on stable storage (more may come).
    ///
    /// After [`ReadError::Damaged`] and [`ReadError::Removed`] the reader stands at `resume`: asking again goes on there.
    #[expect(
        clippy::should_implement_trait,
        reason = "the end is not for good, as it is with an iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Stored>, ReadError> {
        self.next_before(Position(u64::MAX))
    }

    /// The next record, of which it is known that it ends at `end` or before: nothing behind that is read ahead.
    pub fn next_before(&mut self, end: Position) -> Result<Option<Stored>, ReadError> {
        loop {
            let Some(mut open) = self.look_up()? else { return Ok(None) };
            let limit = open.limit.position.min(end);
            let found = open.records.read(self.position, limit);
            let record = match found {
                Ok(Some(found)) => Ok(Some(found.stored)),
                Ok(None) if self.items.is_none() && self.step_back(&mut open)? => continue,
                Ok(None) => Err(self.pass_damage(&mut open)?),
                Err(error) => Err(error.into()),
            };
            self.open = Some(open);
            if let Ok(Some(stored)) = &record {
                self.move_to(stored.end);
            }
            return record;
        }
    }

    /// Visits the records that start before a position. What is damaged or gone is stepped over: whoever needs it reports it.
    pub fn visit(
        &mut self,
        until: Position,
        mut visit: impl FnMut(Stored),
    ) -> Result<(), ReadError> {
        while self.position < until {
            match self.next() {
                Ok(Some(stored)) => visit(stored),
                Ok(None) => break,
                Err(ReadError::Damaged { .. } | ReadError::Removed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Goes to the first record that starts here or behind, unless it is known that one starts here.
    pub(super) fn skip_to_record(&mut self) -> Result<(), ReadError> {
        if self.items.is_none()
            && let Some(mut open) = self.look_up()?
        {
            let found = open.records.find_from(self.position, open.limit.position)?;
            self.move_to(found.map_or(open.limit, |found| found.stored.start));
            self.open = Some(open);
        }
        Ok(())
    }

    fn move_to(&mut self, mark: Mark) {
        self.position = mark.position;
        self.items = Some(mark.items);
    }

    /// The segment with the position, if there is something to read there.
    fn look_up(&mut self) -> Result<Option<Open>, ReadError> {
        loop {
            if let Some(open) = self.open.take_if(|open| self.position < open.limit.position) {
                return Ok(Some(open));
            }
            let (base, limit) = match self.log.place(self.position) {
                Place::AtEnd => return Ok(None),
                Place::Removed(resume) => {
                    let at = self.position;
                    self.move_to(resume);
                    self.open = None;
                    return Err(ReadError::Removed { at, resume });
                }
                Place::In { base, limit } => (base, limit),
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
                        return Err(self.skip(base, limit));
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    /// The first position asked for need not be a record's start: then reading begins with the record that it is in.
    fn step_back(&mut self, open: &mut Open) -> io::Result<bool> {
        let Place::In { base, limit } = self.log.place(self.position) else { return Ok(false) };
        let boundary = open.records.boundary_before(base, self.position, limit.position)?;
        let has_moved = boundary.position != self.position;
        self.move_to(boundary);
        Ok(has_moved)
    }

    /// There is no whole record here: goes on with the next one.
    fn pass_damage(&mut self, open: &mut Open) -> io::Result<ReadError> {
        let next = open.records.find_after(self.position, open.limit.position)?;
        let resume = next.map_or(open.limit, |found| found.stored.start);
        let base = Mark { position: open.records.base(), items: 0 };
        Ok(self.skip(base, resume))
    }

    fn skip(&mut self, base: Mark, resume: Mark) -> ReadError {
        let from = Mark { position: self.position, items: self.items.unwrap_or(resume.items) };
        let damage = Damage { segment: base.position, from, to: resume };
        self.log.note_damage(damage);
        self.move_to(resume);
        ReadError::Damaged { at: from.position, bytes: damage.bytes(), resume }
    }
}
