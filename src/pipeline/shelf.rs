//! Reads what was set aside, and keeps the books of what became of it. The quarantine and the dead letters are such shelves.
//!
//! A shelf is a journal of its own: letters, each a record with one item (or a whole record that was not understood) and why it is
//! there, and behind them settlements, which name the letters that were delivered after all or given up. A letter's id is its
//! position. Nothing is ever rewritten, so a crash leaves a letter either open or settled, and the oldest records give way when
//! the shelf is full.
//!
//! How many letters were settled is kept per sink with a cursor of the shelf, and brought up to date from the settlements behind
//! it when the shelf is opened, so the books stay right when old settlements have given way.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use crate::journal::{self, AppendError, Cursor, Entry, Journal, Mark, Position, ReadError};
use crate::normalize::{
    Aside, Decoded, Envelope, Fate, Kept, Settlement, Unreadable, decode_record,
};
use crate::span::TraceId;
use crate::support::clock;

/// The name under which the books are saved.
const BOOKS: &str = "settled";

/// What became of the letters of one sink, since its first day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Books {
    /// Items that were delivered after all.
    pub delivered: u64,
    /// Items that an operator gave up.
    pub dropped: u64,
}

/// A journal of what was set aside. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct Shelf {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    journal: Journal<()>,
    books: Mutex<BTreeMap<String, Books>>,
    /// Held by whoever may settle.
    desk: Arc<tokio::sync::Mutex<()>>,
}

/// The right to settle: one at a time has it, so that nothing is settled twice.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held, not read")] OwnedMutexGuard<()>);

/// Something that was set aside and is not settled.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its id: the position of its record.
    pub id: u64,
    /// How many items the books count for it.
    pub items: u64,
    /// What is remembered of the request it came in.
    pub envelope: Envelope,
    /// Why it is here.
    pub aside: Aside,
    /// Its body as it was set aside.
    pub body: Bytes,
    record: Bytes,
}

/// Which letters are meant: those that everything given here fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// These ids; none for all.
    pub ids: Vec<u64>,
    /// Set aside because of this sink.
    pub sink: Option<String>,
    /// With this in the reason.
    pub reason: Option<String>,
    /// Of this trace.
    pub trace: Option<TraceId>,
    /// Set aside at this time or later, in nanoseconds since 1970.
    pub from_ns: Option<u64>,
    /// Set aside before this time, in nanoseconds since 1970.
    pub to_ns: Option<u64>,
}

impl Shelf {
    /// A shelf over its journal. It blocks on the disk.
    pub fn open(journal: Journal<()>) -> io::Result<Self> {
        let saved = journal.cursor(BOOKS).unwrap_or_default();
        // Books that cannot be read are begun again from what is still there.
        let (mut books, from) = match serde_json::from_slice(&saved.state) {
            Ok(books) => (books, saved.mark.position),
            Err(_) => (BTreeMap::new(), Position::default()),
        };
        let end = journal.end();
        each_record(&mut journal.read_from(from), end, |stored| {
            if let Ok(Kept::Settlement(settlement)) = Kept::read(&stored.payload) {
                enter(&mut books, &settlement);
            }
        })?;
        let shelf = Self {
            shared: Arc::new(Shared { journal, books: Mutex::new(books), desk: Arc::default() }),
        };
        if from < end.position {
            shelf.save(end)?;
        }
        Ok(shelf)
    }

    /// The right to settle; `None` while somebody else has it.
    pub fn turn(&self) -> Option<Turn> {
        Arc::clone(&self.shared.desk).try_lock_owned().ok().map(Turn)
    }

    /// What became of a sink's letters.
    pub fn books(&self, sink: &str) -> Books {
        self.books_of_all().get(sink).copied().unwrap_or_default()
    }

    /// The letters that are not settled, the oldest first. It blocks on the disk: settlements stand behind what they settle, so
    /// the shelf is read twice.
    pub fn letters(&self) -> io::Result<Letters> {
        let journal = &self.shared.journal;
        let end = journal.end();
        let mut settled = HashSet::new();
        each_record(&mut journal.read_from(Position::default()), end, |stored| {
            if let Ok(Kept::Settlement(settlement)) = Kept::read(&stored.payload) {
                settled.extend(settlement.letters);
            }
        })?;
        Ok(Letters { reader: journal.read_from(Position::default()), settled, end })
    }

    /// The letter with this id, if it is not settled. It blocks on the disk.
    pub fn letter(&self, id: u64) -> io::Result<Option<Letter>> {
        for letter in self.letters()? {
            let letter = letter?;
            if letter.id == id {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// Settles letters of one sink, each given as its id and its items: when this returns it is on stable storage. Returns how
    /// many items that is.
    pub async fn settle(
        &self,
        _turn: &Turn,
        sink: &str,
        fate: Fate,
        letters: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<u64, AppendError> {
        let mut settlement = Settlement {
            sink: sink.to_owned(),
            fate,
            letters: Vec::new(),
            items: 0,
            at_ns: clock::unix_now_ns(),
        };
        for (id, items) in letters {
            settlement.letters.push(id);
            settlement.items += items;
        }
        if settlement.letters.is_empty() {
            return Ok(0);
        }
        let head = settlement.record();
        let entry = Entry { head, body: Bytes::new(), items: 0, passenger: () };
        let mark = self.shared.journal.append(entry).await?;
        enter(&mut self.books_of_all(), &settlement);
        let books = self.clone();
        let saved = tokio::task::spawn_blocking(move || books.save(mark)).await;
        if let Ok(Err(problem)) = saved {
            // The settlement itself is safe, and the books follow from it.
            warn!(%problem, "the books of the dead letters could not be saved");
        }
        Ok(settlement.items)
    }

    fn save(&self, mark: Mark) -> io::Result<()> {
        let state = Bytes::from(serde_json::to_vec(&*self.books_of_all())?);
        self.shared.journal.save_cursor(BOOKS, &Cursor { mark, state, ..Cursor::default() })
    }

    fn books_of_all(&self) -> MutexGuard<'_, BTreeMap<String, Books>> {
        self.shared.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn enter(books: &mut BTreeMap<String, Books>, settlement: &Settlement) {
    let books = books.entry(settlement.sink.clone()).or_default();
    match settlement.fate {
        Fate::Delivered => books.delivered += settlement.items,
        Fate::Dropped => books.dropped += settlement.items,
    }
}

fn each_record(
    reader: &mut journal::Reader,
    end: Mark,
    mut visit: impl FnMut(journal::Stored),
) -> io::Result<()> {
    while let Some(stored) = next_record(reader, end)? {
        visit(stored);
    }
    Ok(())
}

/// The next record that can be read, up to what was the end.
pub(super) fn next_record(
    reader: &mut journal::Reader,
    end: Mark,
) -> io::Result<Option<journal::Stored>> {
    while reader.position() < end.position {
        match reader.next() {
            Ok(stored) => return Ok(stored),
            // Damage was reported when it was found, and what gave way is not there to be looked at.
            Err(ReadError::Damaged { .. } | ReadError::Removed { .. }) => {}
            Err(ReadError::Storage(problem)) => return Err(problem),
        }
    }
    Ok(None)
}

/// The letters of a shelf that are not settled.
#[derive(Debug)]
pub struct Letters {
    reader: journal::Reader,
    settled: HashSet<u64>,
    end: Mark,
}

impl Iterator for Letters {
    type Item = io::Result<Letter>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let stored = match next_record(&mut self.reader, self.end) {
                Ok(stored) => stored?,
                Err(problem) => {
                    // The next look would find the same.
                    self.end = Mark::default();
                    return Some(Err(problem));
                }
            };
            let id = stored.start.position.0;
            if !self.settled.contains(&id)
                && let Ok(Kept::Letter(envelope, body)) = Kept::read(&stored.payload)
            {
                return Some(Ok(Letter::new(&stored, *envelope, body)));
            }
        }
    }
}

impl Letter {
    fn new(stored: &journal::Stored, mut envelope: Envelope, body: Bytes) -> Self {
        let aside = envelope.aside.take().unwrap_or_else(|| Aside {
            sink: String::new(),
            reason: "unknown".to_owned(),
            answer: String::new(),
            at_ns: 0,
        });
        Self {
            id: stored.start.position.0,
            items: stored.end.items.saturating_sub(stored.start.items),
            envelope,
            aside,
            body,
            record: stored.payload.clone(),
        }
    }

    /// What it holds, as this version understands it.
    pub fn decode(&self) -> Result<Decoded, Unreadable> {
        decode_record(&self.record).map(|(_, decoded)| decoded)
    }

    /// The traces of its items; none where they are not understood.
    pub fn traces(&self) -> Vec<TraceId> {
        let Ok(decoded) = self.decode() else { return Vec::new() };
        let mut traces: Vec<_> =
            decoded.batch.items.iter().map(crate::span::Item::trace_id).collect();
        traces.dedup();
        traces
    }
}

impl Selection {
    /// Whether this letter is meant.
    pub fn takes(&self, letter: &Letter) -> bool {
        let aside = &letter.aside;
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && self.sink.as_ref().is_none_or(|sink| *sink == aside.sink)
            && self.reason.as_ref().is_none_or(|reason| aside.reason.contains(reason.as_str()))
            && self.from_ns.is_none_or(|from| from <= aside.at_ns)
            && self.to_ns.is_none_or(|to| aside.at_ns < to)
            && self.trace.is_none_or(|trace| letter.traces().contains(&trace))
    }
}
