//! A store of what was set aside, and of what became of it: the dead letters, or the quarantine.
//!
//! A store is a journal of its own: entries, each a record with one item (or a whole record that was not understood) and why it is
//! there, and behind them resolutions, which name the entries that were delivered after all or given up. An entry's id is its
//! position. Nothing is ever rewritten, so a crash leaves an entry either open or resolved, and the oldest records give way when
//! the store is full.
//!
//! How many entries were resolved is kept per sink with a cursor of the store, and brought up to date from the resolutions behind it
//! when the store is opened, so the counters stay right when old resolutions have given way.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use crate::journal::{AppendError, Cursor, Journal, Mark};
use crate::normalize::{
    Aside, Decoded, Envelope, Fate, Kept, Settlement, Unreadable, decode_record,
};
use crate::pipeline::{Record, Records, Resolved};
use crate::span::{Item, TraceId};
use crate::support::clock;
use crate::support::lock::lock;

/// The name under which the counters are saved.
const COUNTERS: &str = "settled";

/// A store. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    journal: Journal<()>,
    counters: Mutex<Counters>,
    /// Held by whoever may resolve.
    resolving: Arc<tokio::sync::Mutex<()>>,
}

/// What became of entries, by their sink; that of the quarantine is empty.
type Counters = BTreeMap<String, Resolved>;

/// The right to resolve entries of a store: one at a time has it, so that nothing is resolved twice.
#[derive(Debug)]
pub struct Resolver {
    store: Store,
    _guard: OwnedMutexGuard<()>,
}

/// Something that was set aside and is not resolved.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its id: the position of its record.
    pub id: u64,
    /// How many items it counts for.
    pub items: u64,
    /// What is remembered of the request it came in.
    pub envelope: Envelope,
    /// Why it is here.
    pub aside: Aside,
    /// Its body as it was set aside.
    pub body: Bytes,
    record: Bytes,
}

/// Which entries are meant: those that everything given here fits.
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

impl Store {
    /// A store over its journal. It blocks on the disk.
    pub fn open(journal: Journal<()>) -> io::Result<Self> {
        let saved = journal.cursor(COUNTERS).unwrap_or_default();
        // Counters that cannot be read are begun again from what is still there.
        let (mut counters, from) = match serde_json::from_slice(&saved.state) {
            Ok(counters) => (counters, saved.mark),
            Err(_) => (Counters::new(), Mark::default()),
        };
        let end = journal.end();
        for record in Records::from(&journal, from) {
            if let Some(Kept::Settlement(resolution)) = kept(&record?) {
                count(&mut counters, &resolution);
            }
        }
        let counters = Mutex::new(counters);
        let store =
            Self { shared: Arc::new(Shared { journal, counters, resolving: Arc::default() }) };
        if from.position < end.position {
            store.save(end)?;
        }
        Ok(store)
    }

    /// The right to resolve; `None` while somebody else has it.
    pub fn resolver(&self) -> Option<Resolver> {
        let guard = Arc::clone(&self.shared.resolving).try_lock_owned().ok()?;
        Some(Resolver { store: self.clone(), _guard: guard })
    }

    /// What became of a sink's entries.
    pub fn resolved(&self, sink: &str) -> Resolved {
        self.counters().get(sink).copied().unwrap_or_default()
    }

    /// The entries that are not resolved, the oldest first. It blocks on the disk: resolutions stand behind what they name, so the
    /// store is read twice.
    pub fn entries(&self) -> io::Result<impl Iterator<Item = io::Result<Entry>> + use<>> {
        let mut resolved = HashSet::new();
        for record in Records::all(&self.shared.journal) {
            if let Some(Kept::Settlement(resolution)) = kept(&record?) {
                resolved.extend(resolution.letters);
            }
        }
        let records = Records::all(&self.shared.journal);
        Ok(records.filter_map(move |record| match record {
            Ok(record) if resolved.contains(&record.start.position.0) => None,
            Ok(record) => Entry::of(&record).map(Ok),
            Err(problem) => Some(Err(problem)),
        }))
    }

    /// The entries that are meant.
    pub fn selected(
        &self,
        selection: Selection,
    ) -> io::Result<impl Iterator<Item = io::Result<Entry>> + use<>> {
        let is_meant =
            move |entry: &io::Result<Entry>| entry.as_ref().map_or(true, |it| selection.takes(it));
        Ok(self.entries()?.filter(is_meant))
    }

    /// Items that are neither resolved nor among so many that are left: they gave way to newer ones, or cannot be read.
    pub fn items_gone(&self, left: u64) -> u64 {
        let resolved: u64 = self.counters().values().map(Resolved::items).sum();
        self.shared.journal.end().items.saturating_sub(resolved + left)
    }

    fn save(&self, mark: Mark) -> io::Result<()> {
        let state = Bytes::from(serde_json::to_vec(&*self.counters())?);
        self.shared.journal.save_cursor(COUNTERS, &Cursor { mark, state, ..Cursor::default() })
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        lock(&self.shared.counters)
    }
}

impl Resolver {
    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Resolves entries of one sink, each given as its id and its items: when this returns it is on stable storage. Returns how
    /// many items that is.
    pub async fn resolve(
        &self,
        sink: &str,
        fate: Fate,
        entries: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<u64, AppendError> {
        let (letters, items): (Vec<u64>, Vec<u64>) = entries.into_iter().unzip();
        if letters.is_empty() {
            return Ok(0);
        }
        let items = items.into_iter().sum();
        let (sink, at_ns) = (sink.to_owned(), clock::unix_now_ns());
        let resolution = Settlement { sink, fate: fate.into(), letters, items, at_ns };
        let head = resolution.clone().record();
        let entry = crate::journal::Entry { head, body: Bytes::new(), items: 0, passenger: () };
        let mark = self.store.shared.journal.append(entry).await?;
        count(&mut self.store.counters(), &resolution);
        let store = self.store.clone();
        let saved = tokio::task::spawn_blocking(move || store.save(mark)).await;
        if let Ok(Err(problem)) = saved {
            // The resolution itself is safe, and the counters follow from it.
            warn!(%problem, "the counters of a store could not be saved");
        }
        Ok(items)
    }
}

fn kept(record: &Record) -> Option<Kept> {
    Kept::read(record.payload.as_ref()?).ok()
}

fn count(counters: &mut Counters, resolution: &Settlement) {
    let resolved = counters.entry(resolution.sink.clone()).or_default();
    match resolution.fate() {
        Fate::Delivered => resolved.delivered += resolution.items,
        Fate::Dropped => resolved.dropped += resolution.items,
    }
}

impl Entry {
    fn of(record: &Record) -> Option<Self> {
        let payload = record.payload.clone()?;
        let Ok(Kept::Letter(mut envelope, body)) = Kept::read(&payload) else { return None };
        let unknown = || Aside { reason: "unknown".to_owned(), ..Aside::default() };
        Some(Self {
            id: record.start.position.0,
            items: record.items(),
            aside: envelope.aside.take().unwrap_or_else(unknown),
            envelope: *envelope,
            body,
            record: payload,
        })
    }

    /// What it holds, as this version understands it.
    pub fn decode(&self) -> Result<Decoded, Unreadable> {
        decode_record(&self.record).map(|(_, decoded)| decoded)
    }

    /// What it holds; `None` where this version does not understand all of it.
    pub fn understood(&self) -> Option<Decoded> {
        let is_whole =
            |decoded: &Decoded| decoded.refused.is_empty() && !decoded.batch.items.is_empty();
        self.decode().ok().filter(is_whole)
    }

    /// The traces of its items; none where they are not understood.
    pub fn traces(&self) -> Vec<TraceId> {
        let Ok(decoded) = self.decode() else { return Vec::new() };
        let mut traces: Vec<_> = decoded.batch.items.iter().map(Item::trace_id).collect();
        traces.dedup();
        traces
    }
}

impl Selection {
    /// Whether this entry is meant.
    pub fn takes(&self, entry: &Entry) -> bool {
        let aside = &entry.aside;
        (self.ids.is_empty() || self.ids.contains(&entry.id))
            && self.sink.as_ref().is_none_or(|sink| *sink == aside.sink)
            && self.reason.as_ref().is_none_or(|reason| aside.reason.contains(reason.as_str()))
            && self.from_ns.is_none_or(|from| from <= aside.at_ns)
            && self.to_ns.is_none_or(|to| aside.at_ns < to)
            && self.trace.is_none_or(|trace| entry.traces().contains(&trace))
    }
}
