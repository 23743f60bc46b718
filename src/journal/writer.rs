//! The writer thread: group commit, with one write and one sync for many callers.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::cursor::{CLOSED_NAME, write_mark};
use super::damage::Damage;
use super::direct::{is_zero_copy, padding_before};
use super::log::{Log, is_no_space, is_out_of_descriptors};
use super::record::{FRAME_BYTES, Frame};
use super::retention::Admission;
use super::segment::{HEADER_BYTES, Header, name_of, offset_in};
use super::storage::{Guard, Storage, StorageFile};
use super::{AppendError, Entry, Mark, Position, Synced};
use crate::support::lock::lock;

/// Maximum number of records in one vectored write on Linux: 1024 slices, three per record.
const GROUP_RECORDS_MAX: usize = 341;
/// Interval of checks whether a full disk has space again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A record submitted to the writer thread.
#[derive(Debug)]
pub(super) struct Submitted<P> {
    pub(super) entry: Entry<P>,
    pub(super) payload_checksum: u32,
    pub(super) admission: Admission,
    pub(super) answer: Answer,
    /// Released after the answer.
    pub(super) _place: OwnedSemaphorePermit,
}

type Answer = oneshot::Sender<Result<Mark, AppendError>>;

/// The active segment.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: Box<dyn StorageFile>,
    pub(super) header: Header,
    /// The file's length, reserved space included.
    pub(super) reserved_to: u64,
}

pub(super) type Observer<P> = Box<dyn FnMut(Synced<P>) + Send>;

pub(super) struct Writer<P> {
    pub(super) log: Arc<Log>,
    pub(super) submitted: Receiver<Submitted<P>>,
    pub(super) active: Active,
    /// Position of the next record.
    pub(super) end: Mark,
    pub(super) observer: Observer<P>,
    /// Keeps other processes out until the last byte is written.
    pub(super) guard: Box<dyn Guard>,
}

/// The bytes before a record's payload (padding and frame), and the record's end.
type Place = (Vec<u8>, Mark);

impl<P> Writer<P> {
    /// Runs until the log is closed and all submitted records are written, or the log is poisoned.
    pub(super) fn run(mut self) {
        let (mut waiting, mut is_full) = (Vec::new(), false);
        // Dropped before `waiting`, so that a caller whose answer channel closes finds the log poisoned.
        let mut alarm = Alarm { log: Arc::clone(&self.log), is_armed: true };
        loop {
            if waiting.is_empty() {
                let next = if is_full {
                    self.submitted.recv_timeout(PROBE_EVERY)
                } else {
                    self.submitted.recv().map_err(RecvTimeoutError::from)
                };
                match next {
                    Ok(first) => waiting.push(first),
                    Err(RecvTimeoutError::Timeout) => self.probe(),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            let more = GROUP_RECORDS_MAX.saturating_sub(waiting.len());
            waiting.extend(self.submitted.try_iter().take(more));
            let later = waiting.split_off(self.group_of(&waiting));
            let group = std::mem::replace(&mut waiting, later);
            if !group.is_empty() {
                self.commit(group);
            }
            let state = self.log.state();
            if state.poison.is_some() {
                return;
            }
            is_full = state.no_space;
        }
        self.finish();
        alarm.is_armed = false;
    }

    /// Returns how many of the waiting records form the next group: at least one, within the size limit.
    fn group_of(&self, waiting: &[Submitted<P>]) -> usize {
        let mut bytes = 0;
        let fits = |next: &&Submitted<P>| {
            bytes += next.entry.payload_bytes();
            bytes <= self.log.limits.group_bytes_max
        };
        waiting.iter().take_while(fits).count().max(1).min(waiting.len())
    }

    /// Writes and syncs a group, notifies the observer and answers the callers.
    fn commit(&mut self, group: Vec<Submitted<P>>) {
        *lock(&self.log.busy_since) = Some(Instant::now());
        let written = self.write(&group);
        let mut answers: Vec<(Answer, Mark)> = Vec::with_capacity(group.len());
        let mut admitted = 0;
        match written {
            Ok(places) => {
                let mut start = self.end;
                for (submitted, (_, end)) in group.into_iter().zip(places) {
                    admitted += submitted.admission.take();
                    (self.observer)(Synced { start, end, attachment: submitted.entry.attachment });
                    answers.push((submitted.answer, end));
                    start = end;
                }
                let mut state = self.log.state();
                state.admitted = state.admitted.saturating_sub(admitted);
                state.grow_active(start.position.0 - self.end.position.0);
                self.end = start;
                state.no_space = false;
                drop(state);
                // The end moves before the answers, so that a caller finds its record below the end.
                self.log.end.send_replace(start);
                for (answer, end) in answers {
                    // A caller that has gone away does not need the answer.
                    answer.send(Ok(end)).ok();
                }
            }
            Err(error) => self.refuse(group, &error),
        }
        *lock(&self.log.busy_since) = None;
    }

    fn refuse(&mut self, group: Vec<Submitted<P>>, error: &AppendError) {
        match error {
            AppendError::Poisoned(reason) => self.log.poison(reason),
            _ => self.log.state().no_space = true,
        }
        for submitted in group {
            drop(submitted.admission);
            submitted.answer.send(Err(error.clone())).ok();
        }
    }

    /// Puts the group on stable storage, or leaves the file unchanged.
    fn write(&mut self, group: &[Submitted<P>]) -> Result<Vec<Place>, AppendError> {
        self.log.make_room();
        self.roll_if_due(group.iter().map(|submitted| submitted.admission.bytes).sum())?;
        let places = self.places(group);
        let mut slices = Vec::with_capacity(group.len() * 3);
        for ((before, _), submitted) in places.iter().zip(group) {
            let parts = [&before[..], &submitted.entry.head, &submitted.entry.body];
            slices.extend(parts.map(IoSlice::new));
        }
        let (offset, began) = (self.offset(self.end.position), Instant::now());
        if let Err(error) = self.active.put(&mut slices, offset, self.log.limits.reserved_bytes) {
            return Err(self.cut_back(&error));
        }
        // After a failed sync the state of the disk is unknown, and a second sync may succeed without having written anything.
        self.active.file.sync().map_err(|error| AppendError::Poisoned(format!("sync: {error}")))?;
        let timings = &self.log.timings;
        timings.sync_seconds.observe(began.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a group has some hundred records")]
        timings.group_records.observe(group.len() as f64);
        Ok(places)
    }

    /// Lays out a group.
    fn places(&self, group: &[Submitted<P>]) -> Vec<Place> {
        let mut places = Vec::with_capacity(group.len());
        let mut at = self.end;
        let distance =
            |at: Mark| u32::try_from(at.position.0 - self.end.position.0).unwrap_or(u32::MAX);
        for submitted in group {
            let mut before = Vec::with_capacity(FRAME_BYTES);
            let padding_bytes = self.padding_bytes(at.position, submitted);
            if padding_bytes != 0 {
                let padding = Frame::padding(padding_bytes, at, distance(at));
                before.extend(padding.encode(at.position));
                before.resize(usize::try_from(padding_bytes).unwrap_or_default(), 0);
                at = padding.end(at.position);
            }
            let frame = Frame {
                is_padding: false,
                length: u32::try_from(submitted.entry.payload_bytes()).unwrap_or_default(),
                items: submitted.entry.items,
                items_before: at.items,
                group_distance: distance(at),
                payload_checksum: submitted.payload_checksum,
            };
            before.extend(frame.encode(at.position));
            at = frame.end(at.position);
            places.push((before, at));
        }
        places
    }

    /// Returns the size of the padding that aligns the body of a record at `position` to a block boundary; 0 if that does not help.
    fn padding_bytes(&self, position: Position, submitted: &Submitted<P>) -> u64 {
        let Entry { head, body, .. } = &submitted.entry;
        if !is_zero_copy(body) {
            return 0;
        }
        padding_before(self.offset(position) + (FRAME_BYTES + head.len()) as u64)
    }

    /// Truncates a partial write, so that a full disk fails only this group.
    fn cut_back(&mut self, error: &io::Error) -> AppendError {
        let length = self.offset(self.end.position);
        if !is_no_space(error) {
            return AppendError::Poisoned(format!("write: {error}"));
        }
        match self.active.cut_to(length) {
            Ok(()) => AppendError::NoSpace,
            Err(also) => AppendError::Poisoned(format!("cut back after {error}: {also}")),
        }
    }

    /// Begins a new segment if this one is full or old, or if its file was deleted, so that only what was written until then is lost.
    fn roll_if_due(&mut self, bytes: u64) -> Result<(), AppendError> {
        let limits = &self.log.limits;
        let length = self.offset(self.end.position);
        let now = (self.log.now)();
        let is_empty = length == HEADER_BYTES as u64;
        let is_full = limits.segment_bytes_max < length + bytes;
        let is_old = limits.segment_age_max_ns <= now.saturating_sub(self.active.header.created_ns);
        let is_deleted = self.active.file.is_deleted();
        if !is_deleted && (is_empty || !(is_full || is_old)) {
            return Ok(());
        }
        let header = Header { base: self.end, created_ns: now };
        let opened =
            self.active.cut_to(length).and_then(|()| Active::create(&*self.log.storage, header));
        match opened {
            Ok(active) => {
                let from = std::mem::replace(&mut self.active, active).header.base;
                if !is_empty {
                    self.log.state().add_segment(header.base, header.created_ns);
                }
                if is_deleted && !is_empty {
                    self.log.note_damage(Damage { segment: from.position, from, to: self.end });
                }
                self.log.remove_old();
                Ok(())
            }
            Err(error) if is_no_space(&error) => {
                self.unmake(header.base.position)?;
                Err(AppendError::NoSpace)
            }
            // Nothing was made. This segment goes on until clients leave a descriptor.
            Err(error) if is_out_of_descriptors(&error) && !is_deleted => Ok(()),
            Err(error) => Err(AppendError::Poisoned(format!("open a segment: {error}"))),
        }
    }

    /// Removes an incomplete segment permanently. If it reappeared after a power failure, the records after it would be lost.
    fn unmake(&self, base: Position) -> Result<(), AppendError> {
        let storage = &self.log.storage;
        let removed = match storage.remove(&name_of(base)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        let gone = removed.and_then(|()| storage.sync_dir());
        gone.map_err(|error| AppendError::Poisoned(format!("remove a half-made segment: {error}")))
    }

    /// Checks whether the disk has space again, so that readiness returns without an append.
    fn probe(&mut self) {
        let wanted = self.offset(self.end.position) + self.log.limits.reserved_bytes;
        if self.active.file.reserve(wanted).is_ok() {
            self.active.reserved_to = self.active.reserved_to.max(wanted);
            self.log.state().no_space = false;
            self.log.room.send_replace(());
        }
    }

    /// Truncates the file to its records and notes where the log ends.
    fn finish(self) {
        let Self { log, mut active, end, guard, .. } = self;
        let length = offset_in(active.header.base.position, end.position);
        let finished =
            active.cut_to(length).and_then(|()| write_mark(&*log.storage, CLOSED_NAME, end));
        if let Err(error) = finished {
            // All records are synced; recovery finds the end without this note.
            tracing::warn!(journal = log.storage.place(), %error, "the journal could not be closed cleanly");
        }
        drop(guard);
    }

    fn offset(&self, position: Position) -> u64 {
        offset_in(self.active.header.base.position, position)
    }
}

impl Active {
    /// Creates a segment. The file and its name are durable before the first record is written.
    pub(super) fn create(storage: &dyn Storage, header: Header) -> io::Result<Self> {
        let mut file = storage.create(&name_of(header.base.position))?;
        file.write_at(&mut [IoSlice::new(&header.encode())], 0)?;
        file.sync()?;
        storage.sync_dir()?;
        Ok(Self { file, header, reserved_to: HEADER_BYTES as u64 })
    }

    fn put(
        &mut self,
        slices: &mut [IoSlice<'_>],
        offset: u64,
        reserved_bytes: u64,
    ) -> io::Result<()> {
        let needed = slices.iter().fold(offset, |end, slice| end + slice.len() as u64);
        if self.reserved_to < needed {
            let wanted = needed + reserved_bytes;
            match self.file.reserve(wanted) {
                Ok(()) => self.reserved_to = wanted,
                Err(error) if is_no_space(&error) => {
                    self.file.reserve(needed)?;
                    self.reserved_to = needed;
                }
                Err(error) => return Err(error),
            }
        }
        self.file.write_at(slices, offset)
    }

    fn cut_to(&mut self, length: u64) -> io::Result<()> {
        self.file.truncate(length)?;
        self.reserved_to = length;
        Ok(())
    }
}

/// Poisons the log if the writer thread ends early: after a failed write or sync, or a panic of the observer.
struct Alarm {
    log: Arc<Log>,
    is_armed: bool,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if self.is_armed {
            self.log.poison("the writer thread ended unexpectedly");
        }
    }
}
