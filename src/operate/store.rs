//! A store of items and their resolutions: the dead letters, or the quarantine.
//!
//! A store is a separate journal. Its entries are records of one item each (or of a whole undecodable request) with a reason. They are
//! followed by resolutions, which name entries that were eventually delivered or dropped. An entry's id is its position. Nothing is ever
//! rewritten, so after a crash an entry is either open or resolved. When the store is full, the oldest records are evicted.
//!
//! The numbers of resolved entries per sink are saved with a cursor of the store. Opening the store adds the resolutions after that cursor,
//! so the counters stay right when old resolutions are evicted. Evicted entries are counted too, and saved before they are removed.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;
use tracing::{error, warn};

use crate::feed::Records;
use crate::journal::{AppendError, Cursor, Health, Journal, Mark, Record};
use crate::normalize::{
    Decoded, Envelope, Kept, Outcome, Resolution, SetAside, Unreadable, decode_record,
};
use crate::pipeline::Resolved;
use crate::span::{Item, TraceId};
use crate::support::clock;
use crate::support::lock::lock;

/// The name of the cursor that holds the counters.
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
    /// Held while the counters are saved, so that older ones never replace newer ones.
    saving: Mutex<()>,
    /// Held by the task that may resolve entries.
    resolving: Arc<tokio::sync::Mutex<()>>,
}

/// Counters of resolved and evicted entries.
#[derive(Debug, Default)]
struct Counters {
    /// By sink; the quarantine's is empty.
    by_sink: BTreeMap<String, Resolved>,
    /// Resolutions before this are counted.
    until: Mark,
    /// Evicted entries before this are counted.
    evicted_until: u64,
}

/// The right to resolve entries of a store. Only one task has it at a time, so that nothing is resolved twice.
#[derive(Debug)]
pub struct Resolver {
    /// The store.
    pub store: Store,
    _guard: OwnedMutexGuard<()>,
}

/// An unresolved entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its id: the position of its record.
    pub id: u64,
    /// Number of items it counts for.
    pub items: u64,
    /// The envelope of its original request.
    pub envelope: Envelope,
    /// Why it is here.
    pub aside: SetAside,
    /// Its body as stored.
    pub body: Bytes,
    record: Bytes,
}

/// Selects entries that meet all of these conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// These ids; empty for all.
    pub ids: Vec<u64>,
    /// Stored for this sink.
    pub sink: Option<String>,
    /// With this text in the reason.
    pub reason: Option<String>,
    /// Stored in this range of time, of this trace.
    pub range: Range,
}

/// A part of a store or of the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// Stored or received at this time or later, in nanoseconds since 1970.
    pub from_ns: Option<u64>,
    /// Stored or received before this time, in nanoseconds since 1970.
    pub to_ns: Option<u64>,
    /// Of this trace.
    pub trace: Option<TraceId>,
}

impl Range {
    pub(super) fn takes_time(&self, at_ns: u64) -> bool {
        self.from_ns.is_none_or(|from| from <= at_ns) && self.to_ns.is_none_or(|to| at_ns < to)
    }
}

impl Store {
    /// Opens a store over its journal. Blocks on the disk.
    pub fn open(journal: Journal<()>) -> io::Result<Self> {
        let saved = journal.cursor(COUNTERS).unwrap_or_default();
        // Unreadable counters are computed again from what is still there.
        let (by_sink, until) = match serde_json::from_slice(&saved.state) {
            Ok(by_sink) => (by_sink, saved.mark),
            Err(_) => (BTreeMap::new(), Mark::default()),
        };
        let mut counters = Counters { by_sink, until, evicted_until: saved.stamp };
        let end = journal.end();
        for record in Records::from(&journal, until) {
            if let Some(Kept::Resolution(resolution)) = kept(&record?) {
                counters.count(&resolution, end);
            }
        }
        let (counters, saving, resolving) =
            (Mutex::new(counters), Mutex::default(), Arc::default());
        let store = Self { shared: Arc::new(Shared { journal, counters, saving, resolving }) };
        if until.position < end.position {
            store.counters().until = end;
            store.save()?;
        }
        let shared = Arc::downgrade(&store.shared);
        store.shared.journal.on_eviction(move |from, until| {
            if let Some(shared) = shared.upgrade() {
                Self { shared }.evict(from, until);
            }
        });
        Ok(store)
    }

    /// Closes its journal. Blocks on the disk.
    pub(super) fn close(&self) {
        self.shared.journal.close();
    }

    /// Returns the right to resolve; `None` while another task has it.
    pub fn resolver(&self) -> Option<Resolver> {
        let guard = Arc::clone(&self.shared.resolving).try_lock_owned().ok()?;
        Some(Resolver { store: self.clone(), _guard: guard })
    }

    /// Returns the health of its journal.
    pub(super) fn health(&self) -> Health {
        self.shared.journal.health()
    }

    /// Returns the counters of a sink.
    pub fn resolved(&self, sink: &str) -> Resolved {
        self.counters().by_sink.get(sink).copied().unwrap_or_default()
    }

    /// Iterates over the selected unresolved entries, the oldest first. Blocks on the disk: resolutions follow the entries that they name,
    /// so the store is read twice.
    pub fn entries(
        &self,
        selection: Selection,
    ) -> io::Result<impl Iterator<Item = io::Result<Entry>> + use<>> {
        let open = move |(entry, outcome): (Entry, Option<Outcome>)| {
            (outcome.is_none() && selection.takes(&entry)).then_some(entry)
        };
        Ok(self.fates()?.filter_map(move |fate| fate.map(&open).transpose()))
    }

    /// Iterates over all entries, with the outcome of those that are resolved.
    pub fn fates(
        &self,
    ) -> io::Result<impl Iterator<Item = io::Result<(Entry, Option<Outcome>)>> + use<>> {
        let mut resolved = HashMap::new();
        for record in Records::all(&self.shared.journal) {
            if let Some(Kept::Resolution(resolution)) = kept(&record?) {
                let outcome = resolution.outcome();
                resolved.extend(resolution.letters.into_iter().map(|letter| (letter, outcome)));
            }
        }
        let records = Records::all(&self.shared.journal);
        let evicted_until = self.counters().evicted_until;
        let fate = move |record: Record| {
            let id = record.start.position.0;
            let entry = (id >= evicted_until).then(|| Entry::of(&record)).flatten();
            entry.map(|entry| (entry, resolved.get(&id).copied()))
        };
        Ok(records.filter_map(move |record| record.map(&fate).transpose()))
    }

    /// Returns the number of items that are neither resolved nor among the `left` remaining ones: evicted or unreadable.
    pub fn items_gone(&self, left: u64) -> u64 {
        let resolved = |resolved: &Resolved| resolved.delivered + resolved.dropped;
        let resolved: u64 = self.counters().by_sink.values().map(resolved).sum();
        self.shared.journal.end().items.saturating_sub(resolved + left)
    }

    /// Counts and logs the entries to be evicted, before they are removed. Blocks on the disk.
    pub(super) fn evict(&self, from: Mark, until: Mark) {
        let counted_until = self.counters().evicted_until.max(from.position.0);
        let evicted = self.items_before(until, counted_until);
        let mut counters = self.counters();
        counters.evicted_until = until.position.0;
        for (sink, items) in evicted.iter().flatten() {
            counters.by_sink.entry(sink.clone()).or_default().evicted += items;
        }
        drop(counters);
        for (sink, items) in evicted.iter().flatten() {
            let what = match sink.as_str() {
                "" => "the quarantine is full: its oldest items were evicted, and are lost",
                _ => "the dead letters are full: the oldest were evicted, and are lost",
            };
            error!(sink, items, "{what}");
        }
        if let Err(problem) = evicted.and_then(|_| self.save()) {
            error!(%problem, "evicted entries could not be counted and saved");
        }
    }

    /// Counts the items of unresolved entries by sink, from an id to a mark.
    fn items_before(&self, until: Mark, from: u64) -> io::Result<BTreeMap<String, u64>> {
        let mut items = BTreeMap::<String, u64>::new();
        for entry in self.entries(Selection::default())? {
            let entry = entry?;
            if entry.id >= until.position.0 {
                break;
            }
            if entry.id >= from {
                *items.entry(entry.aside.sink).or_default() += entry.items;
            }
        }
        Ok(items)
    }

    fn save(&self) -> io::Result<()> {
        let _saving = lock(&self.shared.saving);
        let counters = self.counters();
        let state = Bytes::from(serde_json::to_vec(&counters.by_sink)?);
        let (mark, stamp) = (counters.until, counters.evicted_until);
        drop(counters);
        let cursor = Cursor { mark, stamp, state, ..Cursor::default() };
        self.shared.journal.save_cursor(COUNTERS, &cursor)
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        lock(&self.shared.counters)
    }
}

impl Resolver {
    /// Resolves entries of one sink, given as ids and numbers of items, and waits until that is on stable storage. Returns the total number
    /// of items.
    pub async fn resolve(
        &self,
        sink: &str,
        outcome: Outcome,
        entries: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<u64, AppendError> {
        let (letters, items): (Vec<u64>, Vec<u64>) = entries.into_iter().unzip();
        if letters.is_empty() {
            return Ok(0);
        }
        let items = items.into_iter().sum();
        let (sink, at_ns) = (sink.to_owned(), clock::unix_now_ns());
        let resolution = Resolution { sink, outcome: outcome.into(), letters, items, at_ns };
        let head = resolution.clone().record();
        let entry = crate::journal::Entry { head, body: Bytes::new(), items: 0, attachment: () };
        let mark = self.store.shared.journal.append(entry).await?;
        self.store.counters().count(&resolution, mark);
        let store = self.store.clone();
        let saved = tokio::task::spawn_blocking(move || store.save()).await;
        if let Ok(Err(problem)) = saved {
            // The resolution itself is durable, and the counters can be derived from it.
            warn!(%problem, "the counters of a store could not be saved");
        }
        Ok(items)
    }
}

fn kept(record: &Record) -> Option<Kept> {
    Kept::read(record.payload.as_ref()?).ok()
}

impl Counters {
    /// Counts a resolution, as the last one before this mark.
    fn count(&mut self, resolution: &Resolution, until: Mark) {
        let resolved = self.by_sink.entry(resolution.sink.clone()).or_default();
        match resolution.outcome() {
            Outcome::Delivered => resolved.delivered += resolution.items,
            Outcome::Dropped => resolved.dropped += resolution.items,
        }
        self.until = until;
    }
}

impl Entry {
    fn of(record: &Record) -> Option<Self> {
        let payload = record.payload.clone()?;
        let Ok(Kept::Letter(mut envelope, body)) = Kept::read(&payload) else { return None };
        let unknown = || SetAside { reason: "unknown".to_owned(), ..SetAside::default() };
        Some(Self {
            id: record.start.position.0,
            items: record.items(),
            aside: envelope.aside.take().unwrap_or_else(unknown),
            envelope: *envelope,
            body,
            record: payload,
        })
    }

    /// Decodes its contents with this version.
    pub fn decode(&self) -> Result<Decoded, Unreadable> {
        decode_record(&self.record).map(|(_, decoded)| decoded)
    }

    /// Decodes its contents; `None` if this version cannot decode all of it.
    pub fn understood(&self) -> Option<Decoded> {
        let is_whole =
            |decoded: &Decoded| decoded.refused.is_empty() && !decoded.batch.items.is_empty();
        self.decode().ok().filter(is_whole)
    }

    /// Returns the traces of its items; empty if they cannot be decoded.
    pub fn traces(&self) -> Vec<TraceId> {
        let Ok(decoded) = self.decode() else { return Vec::new() };
        let mut traces: Vec<_> = decoded.batch.items.iter().map(Item::trace_id).collect();
        traces.dedup();
        traces
    }
}

impl Selection {
    /// Returns whether this entry is selected.
    pub fn takes(&self, entry: &Entry) -> bool {
        let aside = &entry.aside;
        let is_meant = |reason: &str| match reason.strip_prefix('=') {
            Some(whole) => aside.reason == whole,
            None => aside.reason.contains(reason),
        };
        (self.ids.is_empty() || self.ids.contains(&entry.id))
            && self.sink.as_ref().is_none_or(|sink| *sink == aside.sink)
            && self.reason.as_deref().is_none_or(is_meant)
            && self.range.takes_time(aside.at_ns)
            && self.range.trace.is_none_or(|trace| entry.traces().contains(&trace))
    }
}
