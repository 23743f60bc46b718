//! What traces there are: one summary a trace, in memory, behind intake. Derived from the journal and disposable.
//!
//! One reader follows the journal like a lane does, on nobody's request, and reads the facts of spans where no sink has read them yet (then
//! the sinks find them read). After a start what the journal keeps is read again in the background, the oldest first; meanwhile answers say
//! how far that is. There is no file: the journal is all it takes.
//!
//! Whose tokens count is decided by the same tree as for sinks (`feed/traces/tree.rs`). A sink is told what was known when it was sent a
//! span; here the whole trace decides, whatever order it came in.
//!
//! # Bounds
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | memory | [`BYTES_MAX`] | the trace that is quiet for longest goes, which is counted; if it goes on, it begins anew |
//! | trees of traces that go on | [`TREES_BYTES_MAX`], [`TREE_KEPT`] without a span | it is decided for good whose tokens count |
//! | calls, names of a trace | `CALLS_MAX`, `NAMES_MAX` | further ones are counted in its sums only; their names are unknown |
//! | what the journal no longer keeps | | goes when somebody looks |

mod filter;
mod follow;
mod stats;
mod table;
mod trace;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journal::Position;
use crate::prices::Prices;
use crate::span::{Batch, TraceId};
use crate::support::lock::lock;
use table::Table;
use trace::Entry;

pub use filter::{Filter, FilterMistake};
pub use follow::Followers;
pub use stats::StatsRow;
pub use trace::{By, TraceSummary};

/// Memory of all summaries, in bytes, estimated: about 35,000 traces of ten calls.
pub const BYTES_MAX: usize = 64 << 20;
/// Of this, memory of the trees of traces that may go on.
pub const TREES_BYTES_MAX: usize = 8 << 20;
/// How long a trace without a new span keeps its tree. What comes later is decided among itself.
pub const TREE_KEPT: Duration = Duration::from_mins(15);

/// The index. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Index(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
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
    fn takes(&self, trace: &TraceSummary) -> bool {
        let began_ns = trace.start_unix_nano;
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

/// Where the records of a trace are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Where each starts, in order.
    pub records: Vec<Position>,
    /// The last record that was looked at: further ones may be behind it.
    pub looked_at: Position,
    /// Whether there may be others before: traces gave way, and this one may have begun anew.
    pub is_part: bool,
}

impl Index {
    /// An empty one, with these prices for calls whose clients say no cost.
    pub fn new(prices: Arc<Prices>) -> Self {
        let index = Self::default();
        index.set_prices(prices);
        index
    }

    /// From now on these prices hold, for what comes and for what is looked at.
    pub fn set_prices(&self, prices: Arc<Prices>) {
        *lock(&self.0.prices) = prices;
    }

    /// The prices in force.
    pub fn prices(&self) -> Arc<Prices> {
        Arc::clone(&lock(&self.0.prices))
    }

    /// Adds the request whose record starts here, in the order of the journal. What was read before is read `again`: nobody is told
    /// once more of what is not understood in it.
    pub fn feed(&self, batch: &Batch, at: Position, again: bool) {
        let prices = self.prices();
        // Reading is what takes time, and nobody waits for it.
        for span in batch.spans() {
            if again {
                span.facts_again();
                prices.of_again(span);
            } else {
                prices.of(span);
            }
        }
        lock(&self.0.table).feed(batch, at, &prices);
    }

    /// So many of the traces that are meant, the newest first, from behind one of them on; `None` where that one is not there. What begins
    /// before `kept_from` in the journal is gone.
    pub fn list(
        &self,
        query: &Query,
        (before, limit): (Option<TraceId>, usize),
        kept_from: Position,
    ) -> Option<List> {
        let mut table = lock(&self.0.table);
        table.forget_before(kept_from);
        let key = |(id, entry): &(TraceId, &Entry)| (entry.known().start_unix_nano, *id);
        let before = match before {
            Some(id) => Some(key(&(id, table.of(id)?))),
            None => None,
        };
        let position = table.fed_at().map_or(0, |at| at.0 + 1);
        let mut meant: Vec<_> = table.meant(query).collect();
        let count = meant.len() as u64;
        meant.retain(|trace| before.is_none_or(|before| key(trace) < before));
        meant.sort_unstable_by_key(|trace| Reverse(key(trace)));
        meant.truncate(limit);
        let traces = meant.into_iter().map(|(id, entry)| entry.summary(id)).collect();
        let index = self.view_of(&table);
        Some(List { index, position, count, traces })
    }

    /// Sums by agent, tool or model over the traces that are meant.
    pub fn stats(&self, query: &Query, by: By, kept_from: Position) -> Stats {
        let mut table = lock(&self.0.table);
        table.forget_before(kept_from);
        let (rows, traces) = stats::rows(table.meant(query).map(|(_, entry)| entry), by);
        Stats { index: self.view_of(&table), traces, rows }
    }

    /// One trace.
    pub fn summary(&self, trace: TraceId) -> Option<TraceSummary> {
        Some(lock(&self.0.table).of(trace)?.summary(trace))
    }

    /// Where the records of a trace are, as far as it knows.
    pub fn places(&self, trace: TraceId) -> Option<Places> {
        let mut table = lock(&self.0.table);
        let records = table.of(trace)?.records().to_vec();
        let looked_at = table.fed_at().unwrap_or_default();
        Some(Places { records, looked_at, is_part: table.evicted() > 0 })
    }

    /// How it is.
    pub fn view(&self) -> IndexView {
        self.view_of(&lock(&self.0.table))
    }

    fn view_of(&self, table: &Table) -> IndexView {
        let rebuilt = self.0.rebuilt.load(Ordering::Relaxed);
        let rebuilding_percent = (rebuilt <= 100).then(|| rebuilt.saturating_sub(1));
        IndexView {
            traces: table.len() as u64,
            bytes: table.bytes() as u64,
            evicted: table.evicted(),
            rebuilding_percent,
        }
    }
}
