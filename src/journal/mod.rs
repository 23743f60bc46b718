//! Durable memory: an append-only log of records on one machine, with a cursor for each consumer. It knows bytes, not spans.
//!
//! A receiver is finished when [`Journal::append`] returns: the record is on stable storage. A lane is finished when it saves its
//! own [`Cursor`]. No value ever travels back from a consumer to an appender.
//!
//! A [`Position`] is a byte offset in the whole log, from its first day on; it grows forever and is never used twice. Each record
//! carries a count of items (opaque here), and a [`Mark`] pairs a position with the number of items before it, so that what is
//! pending for a consumer is a subtraction: `end.items - cursor.mark.items`. A record's end is the next record's start, also from
//! one file to the next.
//!
//! # What is promised
//!
//! 1. What [`Journal::append`] has answered is read back: once, in order, byte for byte, until every live consumer's saved cursor
//!    has passed it and, beyond that, until it is as old as [`Options::retain`] or its room is needed.
//! 2. What was not answered may be there or not, but never in part.
//! 3. A cursor is on stable storage before anything below it is removed.
//! 4. Data is never a reason not to start, and what cannot be read is never deleted: it is set aside, named and counted.
//! 5. After a failed sync nothing is promised any more: the log is poisoned, and every append is refused until the process has
//!    started again.
//!
//! # On disk
//!
//! ```text
//! <dir>/lock                         locked while a process has the log; holds its id
//! <dir>/00000000000000000000.log     a segment, named by its base position: header, frames, reserved zeros
//! <dir>/00000000000067108911.log     the last one is written to
//! <dir>/<consumer>.cursor            one for each consumer
//! <dir>/consumers.list               the names of all who have a cursor
//! <dir>/start.mark                   where the log begins: what is missing behind it is lost, what is before it was let go
//! <dir>/closed.mark                  where the log ended when it was last closed
//! <dir>/damaged/                     damaged segments and cursors, and notes on them
//!
//! Segment { header: [u8; 64], records: [Record], reserved: zeros }         segment.rs
//! Record  { padding?, frame: [u8; 32], payload: [u8] }                      record.rs
//! Cursor  { magic, checksum, version, marks and counts, state }            cursor.rs
//! ```
//!
//! All of it is little-endian and checked by CRC-32. Cursors are version 2, all else is version 1; cursors of version 1 are read. Logs
//! of both lie in `tests/golden/`.
//!
//! # Operations
//!
//! **Append.** Callers leave records in a bounded queue. One thread takes all that wait (up to a bound), writes them with one
//! write past the page cache (`direct.rs`) and syncs once; then it tells the observer of each record, moves the end and answers.
//! While it syncs, the next group gathers. A large body whose memory is aligned (`support/pool.rs`) is written from there, small ones
//! are gathered. A record is admitted against the budget before it is left, so a full log refuses at once and
//! nothing is half accepted.
//!
//! **Read.** A [`Reader`] reads closed and open segments alike, in large pieces, up to the durable end. Damage costs it the damaged
//! records and no others.
//!
//! **Retention** (`retention.rs`). What all consumers have passed goes when it is old, or when room is needed.
//!
//! **A full disk** costs the group that met it: the file is cut back, the callers are told [`AppendError::NoSpace`], and the next
//! group tries again. Any other failed write, and any failed sync, poisons.
//!
//! **Recovery** (`recovery.rs`) reads the last segment, cuts a torn tail, reports damage, and clamps cursors to records.

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
pub use inspect::{Inspection, SegmentCheck, Verification, inspect, repair, verify};
pub use log::Timings;
pub use memory::MemoryStorage;
pub use options::{
    DEFAULT_BYTES_MAX, DEFAULT_RETAIN, DEFAULT_SEGMENT_BYTES_MAX, Options, WhenFull,
};
pub use reader::Reader;
pub use recovery::SegmentView;
pub use segment::BadHeader;
pub use storage::{DirStorage, Guard, Lock, Storage, StorageFile};

/// Records that may wait for the writer thread; more than any sane number of connections sends at once. Their bytes are bounded by
/// the log's budget, and by the receivers before that.
const WAITING_MAX: usize = 4096;

/// A place in the log: bytes since its first day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// A position, and how many items were appended before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The place.
    pub position: Position,
    /// Items in all records before it, from the log's first day on.
    pub items: u64,
}

/// What is appended. `P` rides along to whoever observes synced records; the journal does not look at it.
#[derive(Debug)]
pub struct Entry<P> {
    /// First part of the record's bytes.
    pub head: Vec<u8>,
    /// Second part: the two are stored one after the other and read back as one.
    pub body: Bytes,
    /// How many items the record counts for.
    pub items: u32,
    /// Handed to the observer after the sync.
    pub passenger: P,
}

/// A record that has just reached stable storage. The observer sees them in the order of the log, without gaps, before the appender is answered.
#[derive(Debug)]
pub struct Synced<P> {
    /// Where the record starts.
    pub start: Mark,
    /// Where the next one will start.
    pub end: Mark,
    /// What rode along.
    pub passenger: P,
}

/// A record read back, or a place where records cannot be read any more.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where it starts.
    pub start: Mark,
    /// Where the next one starts.
    pub end: Mark,
    /// Its bytes, head and body; `None` where they are damaged or were removed. That was reported when it was found.
    pub payload: Option<Bytes>,
}

impl Record {
    /// Items that the journal counts for it.
    pub fn items(&self) -> u64 {
        self.end.items.saturating_sub(self.start.items)
    }
}

/// A consumer's durable place, and what it wants to remember with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Everything before this is settled.
    pub mark: Mark,
    /// Where the consumer joined: items before it were never its concern.
    pub joined: u64,
    /// How many of the settled items went to the dead letters.
    pub dead_lettered: u64,
    /// How many of the settled items a user's rule dropped.
    pub filtered: u64,
    /// How many of the settled items were given up because the journal was full (`when_full = "drop_oldest"`).
    pub dropped: u64,
    /// A number that the consumer keeps with its place, opaque here; 0 at first.
    pub stamp: u64,
    /// The consumer's own state, opaque here: what the file sink's files held when the cursor was saved.
    pub state: Bytes,
}

/// How a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Whole and writable.
    Good,
    /// The disk is full: appends are refused until there is room.
    NoSpace,
    /// Something cannot be read, and nobody has settled that yet.
    Damaged(String),
    /// A write or sync failed: the process must end.
    Poisoned(String),
}

/// Somebody who reads the log and says how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// What it saved last; `None` before the first time.
    pub cursor: Option<Cursor>,
    /// Whether it holds segments back.
    pub is_live: bool,
}

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Segments that are there.
    pub segments: usize,
    /// Whole records in the last segment, which is read as a whole.
    pub records_checked: u64,
    /// Bytes of the torn tail.
    pub cut_bytes: u64,
    /// Damage that nobody has settled, from before and new.
    pub damages: Vec<Damage>,
    /// Consumers whose cursor files were damaged, and are under `damaged/` now, or are gone. They begin at the oldest record.
    pub cursors_lost: Vec<String>,
    /// Whether nobody knows who consumed the log so far: it has records, and the list of consumers cannot be read. Then one without a
    /// cursor may have lost it, and begins at the oldest record too.
    pub consumers_unknown: bool,
    /// Cursors that named no record.
    pub cursors_clamped: Vec<ClampedCursor>,
}

/// A cursor that named no record, and what it was set to: the boundary before that, or the oldest record where it named one that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClampedCursor {
    /// Whose.
    pub consumer: String,
    /// What it named.
    pub from: Mark,
    /// The boundary between records that it names now.
    pub to: Mark,
    /// Whether retention removed what is between them, and nothing is lost that it should have kept.
    pub let_go: bool,
}

impl<P> Entry<P> {
    fn payload_bytes(&self) -> u64 {
        self.head.len() as u64 + self.body.len() as u64
    }
}

/// The log. A handle: clones share it.
///
/// When the last clone is dropped without [`Journal::close`], what was submitted is still written, but nobody waits for it.
#[derive(Debug)]
pub struct Journal<P> {
    shared: Arc<Shared<P>>,
}

#[derive(Debug)]
struct Shared<P> {
    log: Arc<Log>,
    /// To the writer thread, which ends when this is gone and all that was submitted is written.
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
    /// Opens the log kept in `storage`, recovers what is there and starts the writer thread. [`Journal::recovery`] says what was found.
    /// `observer` is called on that thread for each record after its sync.
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
        let opened = recovery::open(Limits::of(options), storage, now)?;
        let (submitting, submitted) = mpsc::channel();
        let writer = Writer {
            log: Arc::clone(&opened.log),
            submitted,
            active: opened.active,
            end: opened.end,
            observer,
            guard: opened.guard,
        };
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let started = thread.spawn(move || writer.run());
        let failed = |source| OpenError::Storage { path: "a thread".to_owned(), source };
        let shared = Shared {
            log: opened.log,
            submitting: Mutex::new(Some(submitting)),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
            thread: Mutex::new(Some(started.map_err(failed)?)),
            recovery: opened.recovery,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What opening found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.shared.recovery
    }

    // --- append ---

    /// Appends one record and returns when it is on stable storage, with the mark of what follows it. A full log refuses at once.
    ///
    /// When the future is dropped before it is ready, the record may or may not be kept.
    pub async fn append(&self, entry: Entry<P>) -> Result<Mark, AppendError> {
        let admission = self.shared.log.admit(entry.payload_bytes())?;
        self.append_admitted(entry, admission).await
    }

    /// Appends as [`Journal::append`] does, but waits up to `patience` for room when the log is full.
    pub async fn append_within(
        &self,
        entry: Entry<P>,
        patience: Duration,
    ) -> Result<Mark, AppendError> {
        let bytes = entry.payload_bytes();
        // Refused first, so that the common case needs no timer.
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
        // Here, and not on the writer thread, so that many callers share the work.
        let payload_checksum = record::payload_checksum(&entry.head, &entry.body);
        let place = Arc::clone(&self.shared.places).acquire_owned().await;
        let place = place.map_err(|_| AppendError::Closed)?;
        self.submit(Submitted { entry, payload_checksum, admission, answer, _place: place });
        let answered = synced.await;
        answered.unwrap_or(Err(AppendError::Closed)).map_err(|error| self.why(error))
    }

    /// Leaves a record for the writer thread. Where that has ended, nobody answers.
    fn submit(&self, submitted: Submitted<P>) {
        if let Some(submitting) = &*lock(&self.shared.submitting) {
            submitting.send(submitted).ok();
        }
    }

    /// A log that was closed by a poisoning says so.
    fn why(&self, error: AppendError) -> AppendError {
        match (error, self.health()) {
            (AppendError::Closed, Health::Poisoned(reason)) => AppendError::Poisoned(reason),
            (error, _) => error,
        }
    }

    /// Whether a whole segment could still be appended.
    pub fn has_room(&self) -> bool {
        let limits = &self.shared.log.limits;
        self.shared.log.state().has_room(limits.segment_bytes_max, limits)
    }

    // --- read ---

    /// The oldest record that is kept.
    pub fn start(&self) -> Mark {
        self.shared.log.start()
    }

    /// The end of what is on stable storage.
    pub fn end(&self) -> Mark {
        *self.shared.log.end.borrow()
    }

    /// The end, as it moves.
    pub fn watch_end(&self) -> watch::Receiver<Mark> {
        self.shared.log.end.subscribe()
    }

    /// Reads records from a position on, which should be the start of one. Before the oldest it begins there; inside a record it
    /// begins with that record.
    pub fn read_from(&self, position: Position) -> Reader {
        Reader::new(Arc::clone(&self.shared.log), position)
    }

    /// Reads records from the first one on that starts at a position or behind it. It blocks on the disk.
    pub fn read_after(&self, position: Position) -> io::Result<Reader> {
        let mut reader = self.read_from(position);
        reader.skip_to_record()?;
        Ok(reader)
    }

    /// The end of the closed segment that holds `position`: what a consumer must pass for that segment to go. `None` when it is the
    /// segment that is written to.
    pub fn segment_end(&self, position: Position) -> Option<Mark> {
        let state = self.shared.log.state();
        let next = state.segments.partition_point(|segment| segment.base.position <= position);
        state.segments.get(next).map(|later| later.base)
    }

    /// Has somebody told, on the writer thread, from where to where records are about to be removed for want of room, so that they can
    /// be read and accounted for before. It takes the place of who was told so far.
    pub fn on_eviction(&self, tell: impl Fn(Mark, Mark) + Send + Sync + 'static) {
        *lock(&self.shared.log.on_eviction) = Some(Arc::new(tell));
    }

    // --- state ---

    /// How the log is.
    pub fn health(&self) -> Health {
        let state = self.shared.log.state();
        if let Some(reason) = &state.poison {
            return Health::Poisoned(reason.clone());
        }
        if state.no_space {
            return Health::NoSpace;
        }
        match state.damages.as_slice() {
            [] => Health::Good,
            [one] => Health::Damaged(one.to_string()),
            [first, more @ ..] => Health::Damaged(format!("{first}, and {} more", more.len())),
        }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> u64 {
        self.shared.log.state().bytes
    }

    /// Bytes it may take.
    pub fn bytes_max(&self) -> u64 {
        self.shared.log.limits.budget()
    }

    /// How long the writer thread has been at one group; `None` when it waits for work.
    pub fn stuck_for(&self) -> Option<Duration> {
        self.shared.log.stuck_for()
    }

    /// How long syncs take, and how many records share one.
    pub fn timings(&self) -> &Timings {
        &self.shared.log.timings
    }

    /// Refuses further appends, syncs what was submitted and ends the writer thread. It blocks on the disk.
    pub fn close(&self) {
        drop(lock(&self.shared.submitting).take());
        let thread = lock(&self.shared.thread).take();
        if let Some(thread) = thread {
            // A panic has poisoned the log, which says more than the panic's value.
            thread.join().ok();
        }
    }
}
