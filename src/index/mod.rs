//! What traces there are, one summary each, and what agents did in them, as metrics: in memory, behind intake, each where it is switched on.
//! Derived from the journal and disposable.
//!
//! One reader follows the journal like a lane does, on nobody's request and a moment behind the lanes. Where the lane of a sink has read the
//! facts of spans, these serve here too; where none has, they are read here without contents. After a start what the journal keeps is
//! read again in the background for the summaries, the oldest first; meanwhile answers say how far that is. There is no file: the
//! journal is all it takes.
//!
//! Summaries and metrics have one table of traces, each of which has one tree while it may go on, the same as for sinks
//! (`span/tree.rs`): whose tokens count, and which agent a call is of. A sink is told what was known when it was sent a span; here the
//! whole trace decides, whatever order it came in. A resend never gets here.
//!
//! # Bounds
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | memory | [`BYTES_MAX`] | the trace that is quiet for longest goes, which is counted; if it goes on, it begins anew |
//! | what is known of traces that go on | [`OPEN_BYTES_MAX`], [`TREE_KEPT`] without a span | all is counted as it is known, and it is decided for good whose tokens count |
//! | what is to be counted of a trace | see `doings.rs`; `COUNTED_AFTER` without a span | all is counted as it is known |
//! | calls, names of a trace | `CALLS_MAX`, `NAMES_MAX` | further ones are counted in its sums only; their names are unknown |
//! | traces that gave way whose place is remembered | see `gone.rs` | others are looked for up to the last of them |
//! | what the journal no longer keeps | | goes when somebody looks |

mod doings;
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
use summary::Known;
use table::Table;

pub use filter::{Filter, FilterMistake};
pub use stats::StatsRow;
pub use summary::{By, TraceSummary};

/// Memory of all of it, in bytes, estimated: more than 100,000 traces of three spans.
pub const BYTES_MAX: usize = 64 << 20;
/// Of this, memory of what is known of traces that may go on; all there is where there are no summaries.
pub const OPEN_BYTES_MAX: usize = 16 << 20;
/// How long a trace without a new span keeps its tree. What comes later is decided among itself.
pub const TREE_KEPT: Duration = Duration::from_mins(15);

/// The index. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Index(Arc<Shared>);

/// What is kept of traces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// A summary of each, of all that the journal keeps.
    pub traces: bool,
    /// What agents did, counted from now on.
    pub agents: bool,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Kept,
    table: Mutex<Table>,
    /// How much of the journal was read again, in percent, and one more: 0 before it has begun.
    rebuilt: AtomicU8,
    /// Those in force.
    prices: Mutex<Arc<Prices>>,
}

/// What is asked: which traces.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// What must hold of them.
    pub filter: Filter,
    /// Begun at this time or later, in nanoseconds since 1970.
    pub from_ns: Option<u64>,
    /// Begun before this time, in nanoseconds since 1970.
    pub to_ns: Option<u64>,
    /// Something of them arrived in a record that starts here or behind.
    pub since: Option<u64>,
}

impl Query {
    fn takes(&self, trace: &Known<'_>) -> bool {
        let began_ns = trace.trace.start_ns;
        self.from_ns.is_none_or(|from| from <= began_ns)
            && self.to_ns.is_none_or(|to| began_ns < to)
            && self.filter.takes(trace)
    }
}

/// Traces of a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// How the index is.
    pub index: IndexView,
    /// What comes later is in records that start here or behind.
    pub position: u64,
    /// How many are meant.
    pub count: u64,
    /// The newest first.
    pub traces: Vec<TraceSummary>,
}

/// Sums over traces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// How the index is.
    pub index: IndexView,
    /// Over how many traces.
    pub traces: u64,
    /// The most called first.
    pub rows: Vec<StatsRow>,
}

/// How the index is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexView {
    /// Traces in it.
    pub traces: u64,
    /// Memory that it takes, in bytes, estimated.
    pub bytes: u64,
    /// Traces that gave way to newer ones.
    pub evicted: u64,
    /// How much of the journal was read again, in percent; `None` once all was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuilding_percent: Option<u8>,
}

/// Where a trace may be in the journal, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places(pub Vec<Part>);

/// Records of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where the first of them starts.
    pub from: Position,
    /// The last of them starts here or before.
    pub until: Position,
    /// Whether each has something of the trace.
    pub is_its_own: bool,
}

impl Default for Places {
    /// Anywhere.
    fn default() -> Self {
        Self(vec![Part::from(Position::default())])
    }
}

impl Part {
    /// All records from one on, of which nobody knows what they have.
    fn from(from: Position) -> Self {
        Self { from, until: Position(u64::MAX), is_its_own: false }
    }
}

impl Index {
    /// An empty one for summaries, with these prices for calls whose clients say no cost.
    pub fn new(prices: Arc<Prices>) -> Self {
        Self::keeping(Kept { traces: true, agents: false }, prices)
    }

    /// An empty one, with these prices for calls whose clients say no cost.
    pub fn keeping(kept: Kept, prices: Arc<Prices>) -> Self {
        let (table, prices) = (Mutex::new(Table::new(kept)), Mutex::new(prices));
        Self(Arc::new(Shared { kept, table, prices, rebuilt: AtomicU8::default() }))
    }

    /// What is kept of traces.
    pub fn kept(&self) -> Kept {
        self.0.kept
    }

    /// From now on these prices hold, for what comes and for what is looked at.
    pub fn set_prices(&self, prices: Arc<Prices>) {
        *lock(&self.0.prices) = prices;
    }

    /// The prices in force.
    pub fn prices(&self) -> Arc<Prices> {
        Arc::clone(&lock(&self.0.prices))
    }

    /// Adds the request whose record starts here, in the order of the journal.
    pub fn feed(&self, batch: &Batch, at: Position) {
        let prices = self.prices();
        // Reading is what takes time, and nobody waits for it.
        read(batch, &prices);
        lock(&self.0.table).feed((&batch.items, batch.source.received_at_ns), at, &prices, false);
    }

    /// So many of the traces that are meant, the newest first, from behind one on; `None` where that is not there, nor said when it began.
    /// What begins before `kept_from` in the journal is gone.
    pub fn list(
        &self,
        query: &Query,
        (before, limit): (Option<(TraceId, Option<u64>)>, usize),
        kept_from: Position,
    ) -> Option<List> {
        let mut table = lock(&self.0.table);
        table.forget_before(kept_from);
        let key = |known: &Known<'_>| (known.trace.start_ns, known.id);
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
        let traces = meant.iter().map(Known::summary).collect();
        let index = self.view_of(&table);
        Some(List { index, position, count, traces })
    }

    /// Sums by agent, tool or model over the traces that are meant.
    pub fn stats(&self, query: &Query, by: By, kept_from: Position) -> Stats {
        let mut table = lock(&self.0.table);
        table.forget_before(kept_from);
        let (rows, traces) = stats::rows(table.meant(query), by);
        Stats { index: self.view_of(&table), traces, rows }
    }

    /// One trace.
    pub fn summary(&self, trace: TraceId) -> Option<TraceSummary> {
        Some(lock(&self.0.table).of(trace)?.summary())
    }

    /// Where a trace may be; all of it, where it matters that none is left out, or what can be had soon.
    pub fn places(&self, trace: TraceId, is_whole: bool) -> Places {
        lock(&self.0.table).places(trace, is_whole)
    }

    /// Counts what agents did and has waited long enough by this time, in nanoseconds since 1970, and writes all as `OpenMetrics` text, with
    /// traces as examples or without; nothing where that is not counted.
    pub fn write_agents(
        &self,
        now_ns: u64,
        page: &mut String,
        with_exemplars: bool,
    ) -> fmt::Result {
        lock(&self.0.table).write_agents(now_ns, page, with_exemplars)
    }

    fn view_of(&self, table: &Table) -> IndexView {
        let rebuilt = self.0.rebuilt.load(Ordering::Relaxed);
        let rebuilding_percent = (rebuilt <= 100).then(|| rebuilt.saturating_sub(1));
        IndexView {
            traces: table.len() as u64,
            bytes: table.bytes() as u64,
            evicted: table.evicted,
            rebuilding_percent,
        }
    }
}

/// Reads of the spans what is summed up, and what they cost.
fn read(batch: &Batch, prices: &Prices) {
    for span in batch.spans() {
        span.spending();
        prices.of(span);
    }
}
