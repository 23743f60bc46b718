//! Sums by agent, tool, model or handoff. Pure.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::By;
use super::summary::SettledTrace;
use super::trace::Sums;

/// Maximum number of rows in an answer: names come from clients, which may invent one per call.
const ROWS_MAX: usize = 1_000;
/// The row of calls without a name.
const NAMELESS: &str = "(no name)";

/// The calls of one agent, tool or model, or the handoffs from one agent to another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatsRow {
    /// Its name.
    pub name: String,
    /// Number of calls, or runs.
    pub count: u64,
    /// Number of failed ones.
    pub errors: u64,
    /// Median duration.
    pub p50_ns: u64,
    /// 95th percentile of the duration.
    pub p95_ns: u64,
    /// 99th percentile of the duration.
    pub p99_ns: u64,
    /// Input tokens, each counted once.
    pub input_tokens: u64,
    /// Output tokens, each counted once.
    pub output_tokens: u64,
    /// Total tokens, as reported.
    pub total_tokens: u64,
    /// Cost in US dollars, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

#[derive(Debug, Default)]
struct Gathered {
    durations: Vec<u64>,
    errors: u64,
    sums: Sums,
}

/// Returns the rows of these traces, most calls first, and the number of traces.
pub(super) fn rows<'t>(
    known: impl Iterator<Item = SettledTrace<'t>>,
    by: By,
) -> (Vec<StatsRow>, u64) {
    let mut gathered: HashMap<String, Gathered> = HashMap::new();
    let mut traces = 0;
    for trace in known {
        traces += 1;
        for (call, own_name, agent) in trace.calls() {
            let is_own = call.is == Some(by);
            let name = if is_own { own_name } else { agent };
            if !is_own && (by != By::Agent || name.is_none() || call.sums() == Sums::default()) {
                continue;
            }
            let mut name = Cow::Borrowed(name.unwrap_or(NAMELESS));
            if by == By::Handoff {
                name = Cow::Owned(format!("{} -> {name}", agent.unwrap_or(NAMELESS)));
            }
            let row = match gathered.get_mut(&*name) {
                Some(row) => row,
                None => gathered.entry(name.into_owned()).or_default(),
            };
            row.sums.add(call.sums());
            if is_own {
                row.durations.push(call.duration_ns);
                row.errors += u64::from(call.has_failed);
            }
        }
    }
    let mut rows: Vec<_> = gathered.into_iter().map(|(name, row)| row.row(name)).collect();
    rows.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.name.cmp(&other.name)));
    rows.truncate(ROWS_MAX);
    (rows, traces)
}

impl Gathered {
    fn row(mut self, name: String) -> StatsRow {
        self.durations.sort_unstable();
        StatsRow {
            name,
            count: self.durations.len() as u64,
            errors: self.errors,
            p50_ns: percentile(&self.durations, 50),
            p95_ns: percentile(&self.durations, 95),
            p99_ns: percentile(&self.durations, 99),
            input_tokens: self.sums.input,
            output_tokens: self.sums.output,
            total_tokens: self.sums.total,
            cost_usd: self.sums.cost_usd(),
        }
    }
}

/// Returns a percentile by the nearest-rank method; 0 for an empty slice.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}
