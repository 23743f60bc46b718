//! The journal: an append-only log of records on one machine, with a cursor for each consumer. It stores bytes, not spans.
//!
//! A receiver is done when [`Journal::append`] returns: the record is on stable storage. A lane is done when it saves its [`Cursor`]. No
//! value ever travels back from a consumer to an appender.
//!
//! A [`Position`] is a byte offset in the entire log. It grows forever and is never reused. Each record carries a count of items (opaque
//! here), and a [`Mark`] pairs a position with the number of items before it. The backlog of a consumer is therefore a subtraction:
//! `end.items - cursor.mark.items`. A record's end is the next record's start, across files too.
//!
//! # Guarantees
//!
//! 1. A record that [`Journal::append`] acknowledged can be read: once, in order, byte for byte. It is kept until the saved cursor of every
//!    live consumer has passed it, and after that until it is as old as [`Options::retain`] or its space is needed.
//! 2. A record that was not acknowledged may be present or absent, but never partial.
//! 3. A cursor is on stable storage before any record below it is removed.
//! 4. Damaged data never prevents a start and is never deleted: it is preserved under `damaged/`, reported and counted.
//! 5. After a failed sync the log guarantees nothing: it is poisoned and refuses every append until the process restarts.
//!
//! # On disk
//!
//! ```text
//! <dir>/lock                         locked while a process has the log; holds its id
//! <dir>/00000000000000000000.log     a segment, named by its base position: header, frames, reserved zeros
//! <dir>/00000000000067108911.log     the last one is the active segment
//! <dir>/<consumer>.cursor            one per consumer
//! <dir>/consumers.list               the names of all consumers with a cursor
//! <dir>/start.mark                   start of the log: segments missing after it are lost, those before it were removed by retention
//! <dir>/closed.mark                  where the log ended when it was last closed
//! <dir>/damaged/                     damaged segments and cursors, and notes on them
//!
//! Segment { header: [u8; 64], records: [Record], reserved: zeros }         segment.rs
//! Record  { padding?, frame: [u8; 32], payload: [u8] }                      record.rs
//! Cursor  { magic, checksum, version, marks and counts, state }            cursor.rs
//! ```
//!
//! All numbers are little-endian, and all files are checked by CRC-32. Cursors have version 2 (version 1 is still read); all other formats
//! have version 1. `tests/golden/` holds logs of both.
//!
//! # Operations
//!
//! **Append.** Callers submit records to a bounded queue. One thread takes all records that wait (up to a limit), writes them with one
//! write that bypasses the page cache (`direct.rs`) and syncs once. Then it notifies the observer of each record, moves the end and answers
//! the callers. The next group collects during the sync. A large body in aligned memory (`support/pool.rs`) is written from there; small
//! ones are copied into one buffer. A record is admitted against the budget before it is submitted, so a full log refuses it without a
//! partial write.
//!
//! **Read.** A [`Reader`] reads closed and open segments in large chunks, up to the durable end. Damage costs only the damaged records.
//!
//! **Retention** (`retention.rs`). Records that all consumers have passed are removed when they are old or when space is needed.
//!
//! **A full disk** fails only the current group: the file is truncated to its previous end, the callers get [`AppendError::NoSpace`], and
//! the next group tries again. Without a free file descriptor, the last segment grows. Any other failed write or sync poisons the log.
//!
//! **Recovery** (`recovery.rs`) reads the last segment, truncates a torn tail, reports damage, and clamps cursors to record boundaries.

mod error;
mod options;
mod record;
mod segment;
mod cursor;
mod consumers;
mod storage;
mod direct;
mod memory;
mod log;
mod writer;
mod reader;
mod retention;
mod damage;
mod recovery;
mod inspect;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::support::clock;
use crate::support::lock::lock;
use log::{Log, Now};
use options::Limits;
use retention::Admission;
use writer::{Observer, Submitted, Writer};

pub use damage::Damage;
pub use error::{AppendError, OpenError};
pub use inspect::{Inspection, SegmentCheck, Verification, inspect, is_of_log, repair, verify};
pub use log::Timings;
pub use memory::MemoryStorage;
pub use options::{
    DEFAULT_BYTES_MAX, DEFAULT_RETAIN, DEFAULT_SEGMENT_BYTES_MAX, Options, WhenFull,
};
pub use reader::Reader;
pub use recovery::SegmentView;
pub use segment::BadHeader;
pub use storage::{DirStorage, Guard, Lock, Storage, StorageFile};

/// Maximum number of records that wait for the writer thread: more than any realistic number of connections sends at the same time. Their
/// bytes are bounded by the log's budget, and before that by the receivers.
const WAITING_MAX: usize = 4096;

/// A byte offset in the log, counted from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// A position and the number of items before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mark {
    /// The position.
    pub position: Position,
    /// Items in all records before it since the beginning of the log.
    pub items: u64,
}

/// A record to append. `P` is an attachment for the observer of synced records; the journal does not look at it.
#[derive(Debug)]
pub struct Entry<P> {
    /// First part of the record's payload.
    pub head: Vec<u8>,
    /// Second part of the payload. Both parts are stored one after the other and read back as one.
    pub body: Bytes,
    /// Number of items in the record.
    pub items: u32,
    /// Passed to the observer after the sync.
    pub attachment: P,
}

/// A record that has just reached stable storage. The observer gets records in log order, without gaps, before their callers get an answer.
#[derive(Debug)]
pub struct Synced<P> {
    /// Start of the record.
    pub start: Mark,
    /// End of the record, which is the start of the next one.
    pub end: Mark,
    /// The attachment of the [`Entry`].
    pub attachment: P,
}

/// A record that was read, or a range in which no record can be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Start of the record.
    pub start: Mark,
    /// Start of the next record.
    pub end: Mark,
    /// Head and body; `None` if they are damaged or were removed, which was reported when it was found.
    pub payload: Option<Bytes>,
}

impl Record {
    /// Returns the number of items in the record.
    pub fn items(&self) -> u64 {
        self.end.items.saturating_sub(self.start.items)
    }
}

/// A consumer's durable position, with its counters and state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Everything before this mark is settled.
    pub mark: Mark,
    /// Items before the position at which the consumer joined; they never were its concern.
    pub joined: u64,
    /// Number of settled items that became dead letters.
    pub dead_lettered: u64,
    /// Number of settled items that a user's rule dropped.
    pub filtered: u64,
    /// Number of settled items that were evicted because the journal was full (`when_full = "drop_oldest"`).
    pub dropped: u64,
    /// A number that the consumer saves with its position; opaque here, initially 0.
    pub stamp: u64,
    /// The consumer's state, opaque here: for the file sink, what its files held when the cursor was saved.
    pub state: Bytes,
}

/// Health of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Intact and writable.
    Good,
    /// The disk is full; appends are refused until there is space.
    NoSpace,
    /// Part of the log cannot be read, and no operator has settled that damage yet.
    Damaged(String),
    /// A write or sync failed; the process must end.
    Poisoned(String),
}

impl Health {
    /// Returns its name, and the problem if there is one.
    pub fn parts(self) -> (&'static str, Option<String>) {
        match self {
            Self::Good => ("good", None),
            Self::NoSpace => ("no_space", Some("its disk is full".to_owned())),
            Self::Damaged(what) => ("damaged", Some(what)),
            Self::Poisoned(what) => ("poisoned", Some(what)),
        }
    }
}

/// A reader of the log that saves a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// The last saved cursor; `None` before the first save.
    pub cursor: Option<Cursor>,
    /// Whether the consumer holds segments back.
    pub is_live: bool,
}

/// Result of opening a log: what was found and what was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Number of segments.
    pub segments: usize,
    /// Intact records in the last segment, which is read completely.
    pub records_checked: u64,
    /// Bytes truncated as a torn tail.
    pub cut_bytes: u64,
    /// Damage that no operator has settled, old and new.
    pub damages: Vec<Damage>,
    /// Consumers whose cursor file is missing, or was damaged and is now under `damaged/`. They start at the oldest record.
    pub cursors_lost: Vec<String>,
    /// Whether the consumers are unknown: the log has records, but the list of consumers cannot be read. A consumer without a cursor may
    /// then have lost it, and also starts at the oldest record.
    pub consumers_unknown: bool,
    /// Cursors that did not point to a record boundary.
    pub cursors_clamped: Vec<ClampedCursor>,
}

/// A cursor that did not point to a record boundary, and its replacement: the boundary before it, or the oldest record if its own is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClampedCursor {
    /// The consumer's name.
    pub consumer: String,
    /// The saved mark.
    pub from: Mark,
    /// The boundary between records that replaces it.
    pub to: Mark,
    /// Whether retention removed the records in between, so that nothing was lost that should have been kept.
    pub let_go: bool,
}

impl<P> Entry<P> {
    fn payload_bytes(&self) -> u64 {
        self.head.len() as u64 + self.body.len() as u64
    }
}

/// The log. This is a handle: clones share the log.
///
/// If the last clone is dropped without [`Journal::close`], submitted records are still written, but no caller waits for them.
#[derive(Debug)]
pub struct Journal<P> {
    shared: Arc<Shared<P>>,
}

#[derive(Debug)]
struct Shared<P> {
    log: Arc<Log>,
    /// Sends to the writer thread, which ends when this sender is gone and all submitted records are written.
    submitting: Mutex<Option<Sender<Submitted<P>>>>,
    places: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
    recovery: Recovery,
}

impl<P> Clone for Journal<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P: Send + 'static> Journal<P> {
    /// Opens the log in `storage`, recovers its state and starts the writer thread. [`Journal::recovery`] returns what was found. The
    /// thread calls `observer` for each record after its sync.
    pub fn open(
        options: &Options,
        storage: Arc<dyn Storage>,
        observer: impl FnMut(Synced<P>) + Send + 'static,
    ) -> Result<Self, OpenError> {
        Self::open_with(options, storage, Arc::new(clock::unix_now_ns), Box::new(observer))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "no more records wait in it than there are places"
    )]
    fn open_with(
        options: &Options,
        storage: Arc<dyn Storage>,
        now: Now,
        observer: Observer<P>,
    ) -> Result<Self, OpenError> {
        let (log, active, guard, recovery) = recovery::open(Limits::of(options), storage, now)?;
        let (submitting, submitted) = mpsc::channel();
        let (writing, end) = (Arc::clone(&log), *log.end.borrow());
        let writer = Writer { log: writing, submitted, active, end, observer, guard };
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let started = thread.spawn(move || writer.run());
        let failed = |source| OpenError::Storage { path: "a thread".to_owned(), source };
        let shared = Shared {
            log,
            submitting: Mutex::new(Some(submitting)),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
            thread: Mutex::new(Some(started.map_err(failed)?)),
            recovery,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Returns what opening the log found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.shared.recovery
    }

    // --- append ---

    /// Appends one record. Returns when it is on stable storage, with the mark of its end. A full log refuses immediately.
    ///
    /// If the future is dropped before it is ready, the record may or may not be kept.
    pub async fn append(&self, entry: Entry<P>) -> Result<Mark, AppendError> {
        let admission = self.shared.log.admit(entry.payload_bytes())?;
        self.append_admitted(entry, admission).await
    }

    /// Appends like [`Journal::append`], but waits up to `patience` for space if the log is full.
    pub async fn append_within(
        &self,
        entry: Entry<P>,
        patience: Duration,
    ) -> Result<Mark, AppendError> {
        let bytes = entry.payload_bytes();
        // Tries without waiting first, so that the common case needs no timer.
        let admission = match self.shared.log.admit(bytes) {
            Err(AppendError::Full { .. }) => {
                let admitted = tokio::time::timeout(patience, self.admit_later(bytes)).await;
                admitted.unwrap_or_else(|_| self.shared.log.admit(bytes))?
            }
            admitted => admitted?,
        };
        self.append_admitted(entry, admission).await
    }

    async fn admit_later(&self, payload_bytes: u64) -> Result<Admission, AppendError> {
        let mut room = self.shared.log.room.subscribe();
        loop {
            room.mark_unchanged();
            match self.shared.log.admit(payload_bytes) {
                Err(AppendError::Full { .. }) => {
                    room.changed().await.map_err(|_| AppendError::Closed)?;
                }
                admitted => return admitted,
            }
        }
    }

    async fn append_admitted(
        &self,
        entry: Entry<P>,
        admission: Admission,
    ) -> Result<Mark, AppendError> {
        let (answer, synced) = oneshot::channel();
        // The checksum is computed here and not on the writer thread, so that many callers share the work.
        let payload_checksum = record::payload_checksum(&entry.head, &entry.body);
        let place = Arc::clone(&self.shared.places).acquire_owned().await;
        let place = place.map_err(|_| AppendError::Closed)?;
        let submitted = Submitted { entry, payload_checksum, admission, answer, _place: place };
        // If the writer thread has ended, the answer channel closes.
        lock(&self.shared.submitting).as_ref().map(|submitting| submitting.send(submitted));
        let poison = || self.shared.log.state().poison.clone();
        let why = |_| poison().map_or(AppendError::Closed, AppendError::Poisoned);
        synced.await.map_err(why).flatten()
    }

    /// Returns whether a record was refused for lack of space, and there still is none for it.
    pub fn is_full(&self) -> bool {
        let state = self.shared.log.state();
        state.refused.is_some_and(|bytes| !state.has_room(bytes, &self.shared.log.limits))
    }

    /// Returns whether another full segment could be appended.
    pub fn has_room(&self) -> bool {
        let limits = &self.shared.log.limits;
        self.shared.log.state().has_room(limits.segment_bytes_max, limits)
    }

    // --- read ---

    /// Returns the start of the oldest record.
    pub fn start(&self) -> Mark {
        self.shared.log.start()
    }

    /// Returns the end of the records on stable storage.
    pub fn end(&self) -> Mark {
        *self.shared.log.end.borrow()
    }

    /// Subscribes to the end as it moves.
    pub fn watch_end(&self) -> watch::Receiver<Mark> {
        self.shared.log.end.subscribe()
    }

    /// Reads records from `position`, which should be the start of a record. A position before the oldest record starts there; a position
    /// inside a record starts at that record.
    pub fn read_from(&self, position: Position) -> Reader {
        Reader::new(Arc::clone(&self.shared.log), position)
    }

    /// Reads records from the first one that starts at or after `position`. Blocks on the disk.
    pub fn read_after(&self, position: Position) -> io::Result<Reader> {
        let mut reader = self.read_from(position);
        reader.skip_to_record()?;
        Ok(reader)
    }

    /// Returns the end of the closed segment that contains `position`: a consumer must pass it before the segment can be removed. Returns
    /// `None` for the active segment.
    pub fn segment_end(&self, position: Position) -> Option<Mark> {
        let state = self.shared.log.state();
        let next = state.segments.partition_point(|segment| segment.base.position <= position);
        state.segments.get(next).map(|later| later.base)
    }

    /// Sets a callback for evictions. The writer thread calls it with the range of the records that are about to be removed for lack of
    /// space, so that they can still be read and counted. It replaces any previous callback.
    pub fn on_eviction(&self, tell: impl Fn(Mark, Mark) + Send + Sync + 'static) {
        *lock(&self.shared.log.on_eviction) = Some(Arc::new(tell));
    }

    // --- state ---

    /// Returns the health of the log.
    pub fn health(&self) -> Health {
        let state = self.shared.log.state();
        if let Some(reason) = &state.poison {
            return Health::Poisoned(reason.clone());
        }
        if state.no_space {
            return Health::NoSpace;
        }
        match state.damage.open.as_slice() {
            [] => Health::Good,
            [one] => Health::Damaged(one.to_string()),
            [first, more @ ..] => Health::Damaged(format!("{first}, and {} more", more.len())),
        }
    }

    /// Returns the number of items that cannot be read, as far as no operator has settled that.
    pub fn unreadable(&self) -> u64 {
        self.shared.log.state().damage.open.iter().map(Damage::items).sum()
    }

    /// Returns the number of bytes that the log occupies.
    pub fn bytes(&self) -> u64 {
        self.shared.log.state().bytes
    }

    /// Returns the number of bytes that the log may occupy.
    pub fn bytes_max(&self) -> u64 {
        self.shared.log.limits.budget()
    }

    /// Returns how long the writer thread has been busy with one group; `None` if it is idle.
    pub fn stuck_for(&self) -> Option<Duration> {
        lock(&self.shared.log.busy_since).map(|since| since.elapsed())
    }

    /// Returns the metrics of syncs: their duration, and the number of records that share one.
    pub fn timings(&self) -> &Timings {
        &self.shared.log.timings
    }

    /// Refuses further appends, syncs all submitted records and ends the writer thread. Blocks on the disk.
    pub fn close(&self) {
        drop(lock(&self.shared.submitting).take());
        let thread = lock(&self.shared.thread).take();
        if let Some(thread) = thread {
            // A panic has poisoned the log, which tells more than the panic's value.
            thread.join().ok();
        }
    }
}
