//! Durable memory: an append-only log of records on one machine, with a cursor for each consumer. It knows bytes, not spans.
//!
//! A receiver is finished when [`Journal::append`] returns: the record is on stable storage. A lane is finished when it saves its
//! own [`Cursor`]. No value ever travels back from a consumer to an appender.
//!
//! A [`Position`] is a byte offset in the whole log, from its first day on; it grows forever and is never used twice. Each record
//! carries a count of items (opaque here), and a [`Mark`] pairs a position with the number of items before it, so that what is
//! pending for a consumer is a subtraction: `end.items - cursor.mark.items`.

mod error;
mod options;
mod storage;
mod writer;
mod reader;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

pub use error::{AppendError, OpenError, ReadError};
pub use options::Options;
pub use reader::Reader;
pub use storage::{DirStorage, MemoryStorage, Storage};

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

/// A record read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Where it starts.
    pub start: Mark,
    /// Where the next one starts.
    pub end: Mark,
    /// Its bytes: head and body.
    pub payload: Bytes,
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
    /// Something could not be read when it was opened, and nobody has settled that yet.
    Damaged(String),
    /// A write or sync failed: the process must end.
    Poisoned(String),
}

/// The log. A handle: clones share it.
#[derive(Debug)]
pub struct Journal<P> {
    shared: Arc<writer::Shared<P>>,
}

impl<P> Clone for Journal<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P: Send + 'static> Journal<P> {
    /// Opens the log kept in `storage`, recovers what is there and starts the writer thread.
    /// `observer` is called on that thread for each record after its sync.
    pub fn open(
        options: &Options,
        storage: Arc<dyn Storage>,
        observer: impl FnMut(Synced<P>) + Send + 'static,
    ) -> Result<Self, OpenError> {
        writer::open(options, storage, Box::new(observer)).map(|shared| Self { shared })
    }

    /// Appends one record and returns when it is on stable storage, with the mark of what follows it.
    ///
    /// When the future is dropped before it is ready, the record may or may not be kept.
    pub async fn append(&self, entry: Entry<P>) -> Result<Mark, AppendError> {
        let (answer, synced) = oneshot::channel();
        self.shared.submit(entry, answer).await?;
        synced.await.map_err(|_| AppendError::Closed)?
    }

    /// The oldest record that is kept.
    pub fn start(&self) -> Mark {
        self.shared.start()
    }

    /// The end of what is on stable storage.
    pub fn end(&self) -> Mark {
        *self.shared.end.borrow()
    }

    /// The end, as it moves.
    pub fn watch_end(&self) -> watch::Receiver<Mark> {
        self.shared.end.subscribe()
    }

    /// Reads records from a position on, which must be the start of one (or before the oldest: then it begins there).
    pub fn read_from(&self, position: Position) -> Reader {
        self.shared.read_from(position)
    }

    /// The saved cursor of a consumer.
    pub fn cursor(&self, consumer: &str) -> Result<Option<Cursor>, OpenError> {
        self.shared.cursor(consumer)
    }

    /// Saves a consumer's cursor: when this returns it is on stable storage, whole, and what lies below all cursors may go.
    pub fn save_cursor(&self, consumer: &str, cursor: &Cursor) -> std::io::Result<()> {
        self.shared.save_cursor(consumer, cursor)
    }

    /// How the log is.
    pub fn health(&self) -> Health {
        Health::Good
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> u64 {
        self.end().position.0 - self.start().position.0
    }

    /// Bytes it may take.
    pub fn bytes_max(&self) -> u64 {
        options::DEFAULT_BYTES_MAX
    }

    /// How long the writer thread has been at one group; `None` when it waits for work.
    pub fn stuck_for(&self) -> Option<std::time::Duration> {
        None
    }

    /// Refuses further appends, syncs what was submitted and ends the writer thread.
    pub fn close(&self) {
        self.shared.close();
    }
}
