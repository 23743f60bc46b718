//! The index: a summary of each trace, and agent metrics, in memory, fed from the journal after the acknowledgement. Either can be switched
//! off. It is derived from the journal and disposable.
//!
//! One reader follows the journal as a lane does, independent of requests and a moment behind the lanes. It reuses the facts that lanes
//! have read for their sinks; otherwise it reads them without contents. After a start, it reads what the journal keeps again in the
//! background, for the summaries, oldest first; in the meantime, answers include the progress. It has no file, only the journal.
//!
//! Summaries and metrics share one table of traces. While a trace may grow, it has a tree, the same as for sinks (`span/tree.rs`), which
//! decides whose tokens count, and which agent a call belongs to. A sink gets what was known when a span was sent; here, the whole trace
//! decides, in whatever order it arrived. Resends never reach the index.
//!
//! # Bounds
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | memory | [`BYTES_MAX`] | the trace quiet for longest is evicted, which is counted; if it continues, it starts over |
//! | trees of traces that may grow | [`OPEN_BYTES_MAX`], [`TREE_KEPT`] without a span | everything is counted with what is known, and it is final whose tokens count |
//! | calls of a trace that remain to be counted | see `pending.rs`; `COUNTED_AFTER` without a span | all are counted with what is known |
//! | calls, names of a trace | `CALLS_MAX`, `NAMES_MAX` | further ones are only part of its sums; their names are unknown |
//! | evicted traces whose positions are remembered | see `gone.rs` | others are searched for up to the last of them |
//! | traces that the journal no longer keeps | | removed at the next query |

mod pending;
mod filter;
mod follow;
mod gone;
mod names;
mod stats;
mod summary;
mod table;
mod trace;
#[cfg(test)]
mod agents_tests;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journal::Position;
use crate::prices::Prices;
use crate::span::{Batch, TraceId};
use crate::support::lock::lock;
use summary::SettledTrace;
use table::Table;

pub use filter::{Filter, FilterMistake};
pub use stats::StatsRow;
pub use summary::{By, TraceSummary};

/// Maximum memory of the whole index, in bytes, estimated: more than 100,000 traces of three spans.
pub const BYTES_MAX: usize = 64 << 20;
/// Of this, maximum memory of traces that may grow; without summaries, the limit of everything.
pub const OPEN_BYTES_MAX: usize = 16 << 20;
/// How long a trace without a new span keeps its tree. Later spans are evaluated only among themselves.
pub const TREE_KEPT: Duration = Duration::from_mins(15);

/// The index. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Index(Arc<Shared>);

/// What the index maintains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// A summary of each trace that the journal keeps.
    pub traces: bool,
    /// Agent metrics, from now on.
    pub agents: bool,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Kept,
    table: Mutex<Table>,
    /// Percentage of the journal that was read again, plus one; 0 before the start.
    rebuilt: AtomicU8,
    /// The current prices.
    prices: Mutex<Arc<Prices>>,
}

/// Selects traces.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The filter.
    pub filter: Filter,
    /// Traces that began at this time or later, in nanoseconds since 1970.
    pub from_ns: Option<u64>,
    /// Traces that began before this time, in nanoseconds since 1970.
    pub to_ns: Option<u64>,
    /// Traces with a record that starts at this position or later.
    pub since: Option<u64>,
}

impl Query {
    fn takes(&self, trace: &SettledTrace<'_>) -> bool {
        let began_ns = trace.trace.start_ns;
        self.from_ns.is_none_or(|from| from <= began_ns)
            && self.to_ns.is_none_or(|to| began_ns < to)
            && self.filter.takes(trace)
    }
}

/// A list of traces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// The state of the index.
    pub index: IndexView,
    /// New items are in records that start at this position or later.
    pub position: u64,
    /// Number of selected traces.
    pub count: u64,
    /// The newest first.
    pub traces: Vec<TraceSummary>,
}

/// Sums over traces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// The state of the index.
    pub index: IndexView,
    /// Number of traces.
    pub traces: u64,
    /// Rows, most calls first.
    pub rows: Vec<StatsRow>,
}

/// The state of the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexView {
    /// Number of traces in it.
    pub traces: u64,
    /// Its memory, in bytes, estimated.
    pub bytes: u64,
    /// Number of evicted traces.
    pub evicted: u64,
    /// Number of items that the journal has and that cannot be read; only its owner knows.
    #[serde(default)]
    pub unreadable: u64,
    /// Percentage of the journal that was read again; `None` once it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuilding_percent: Option<u8>,
}

/// Where a trace may be in the journal, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places(pub Vec<Part>);

/// A range of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The position of the first one.
    pub from: Position,
    /// The last one starts at this position or before.
    pub until: Position,
    /// Whether every record contains items of the trace.
    pub is_its_own: bool,
}

impl Default for Places {
    /// Anywhere.
    fn default() -> Self {
        Self(vec![Part::from(Position::default())])
    }
}

impl Part {
    /// Returns all records from a position on, with unknown contents.
    fn from(from: Position) -> Self {
        Self { from, until: Position(u64::MAX), is_its_own: false }
    }
}

impl Index {
    /// Creates an empty index for summaries, with these prices for calls whose clients report no cost.
    pub fn new(prices: Arc<Prices>) -> Self {
        Self::keeping(Kept { traces: true, agents: false }, prices)
    }

    /// Creates an empty index, with these prices for calls whose clients report no cost.
    pub fn keeping(kept: Kept, prices: Arc<Prices>) -> Self {
        let (table, prices) = (Mutex::new(Table::new(kept)), Mutex::new(prices));
        Self(Arc::new(Shared { kept, table, prices, rebuilt: AtomicU8::default() }))
    }

    /// Returns what the index maintains.
    pub fn kept(&self) -> Kept {
        self.0.kept
    }

    /// Sets the prices for new spans and for queries.
    pub fn set_prices(&self, prices: Arc<Prices>) {
        *lock(&self.0.prices) = prices;
    }

    /// Returns the current prices.
    pub fn prices(&self) -> Arc<Prices> {
        Arc::clone(&lock(&self.0.prices))
    }

    /// Adds the request whose record starts here, in journal order.
    pub fn feed(&self, batch: &Batch, at: Position) {
        let prices = self.prices();
        // Reading facts takes time, so it happens before the lock.
        read(batch, &prices);
        lock(&self.0.table).feed((&batch.items, batch.source.received_at_ns), at, &prices, false);
    }

    /// Returns a page of the selected traces, newest first, after a given one; `None` if that is unknown and its start was not given.
    /// Traces that begin before `kept_from` in the journal are gone.
    pub fn list(
        &self,
        query: &Query,
        (before, limit): (Option<(TraceId, Option<u64>)>, usize),
        kept_from: Position,
    ) -> Option<List> {
        let mut table = lock(&self.0.table);
        table.forget_before(kept_from);
        let key = |known: &SettledTrace<'_>| (known.trace.start_ns, known.id);
        let before = match before {
            Some((id, Some(began_ns))) => Some((began_ns, id)),
            Some((id, None)) => Some(key(&table.of(id)?)),
            None => None,
        };
        let position = table.fed_at.map_or(0, |at| at.0 + 1);
        let mut meant: Vec<_> = table.meant(query).collect();
        let count = meant.len() as u64;
        meant.retain(|trace| before.is_none_or(|before| key(trace) < before));
        if limit < meant.len() {
            meant.select_nth_unstable_by_key(limit, |trace| Reverse(key(trace)));
            meant.truncate(limit);
        }
        meant.sort_unstable_by_key(|trace| Reverse(key(trace)));
        let traces = meant.iter().map(SettledTrace::summary).collect();
        let index = self.view_of(&table);
        Some(List { index, position, count, traces })
    }

    /// Sums by agent, tool or model over the selected traces.
    pub fn stats(&self, query: &Query, by: By, kept_from: Position) -> Stats {
        let mut table = lock(&self.0.table);
        table.forget_before(kept_from);
        let (rows, traces) = stats::rows(table.meant(query), by);
        Stats { index: self.view_of(&table), traces, rows }
    }

    /// Returns the summary of a trace.
    pub fn summary(&self, trace: TraceId) -> Option<TraceSummary> {
        Some(lock(&self.0.table).of(trace)?.summary())
    }

    /// Returns where a trace may be: everywhere possible if `is_whole`, otherwise only where it is fast to read.
    pub fn places(&self, trace: TraceId, is_whole: bool) -> Places {
        let table = lock(&self.0.table);
        let records = table.traces.get(&trace).map_or(&[][..], |known| &known.records);
        let own = records.iter().map(|at| Part { from: *at, until: *at, is_its_own: true });
        let mut parts: Vec<_> = table.gone.of(trace).chain(own).collect();
        if is_whole || parts.is_empty() {
            parts.extend(table.gone.others());
        }
        parts.push(Part::from(table.fed_at.unwrap_or_default()));
        parts.sort_by_key(|part| part.from);
        Places(parts)
    }

    /// Counts actions of agents that are due at this time, in nanoseconds since 1970, and writes all agent metrics as `OpenMetrics` text,
    /// with or without traces as exemplars. Writes nothing if they are off.
    pub fn write_agents(
        &self,
        now_ns: u64,
        page: &mut String,
        with_exemplars: bool,
    ) -> fmt::Result {
        let mut table = lock(&self.0.table);
        table.look(now_ns);
        table.series.as_ref().map_or(Ok(()), |series| series.write(page, with_exemplars))
    }

    fn view_of(&self, table: &Table) -> IndexView {
        let rebuilt = self.0.rebuilt.load(Ordering::Relaxed);
        let rebuilding_percent = (rebuilt <= 100).then(|| rebuilt.saturating_sub(1));
        IndexView {
            traces: table.traces.count() as u64,
            bytes: table.bytes() as u64,
            evicted: table.evicted,
            unreadable: 0,
            rebuilding_percent,
        }
    }
}

/// Reads the facts that are summarized, and computes costs.
fn read(batch: &Batch, prices: &Prices) {
    for span in batch.spans() {
        span.spending();
        prices.of(span);
    }
}
