//! Whether a trace arrived: what was received of it, what is missing in it, and what became of it at each sink.
//!
//! What is received is what the journal keeps; an exact resend is recognised before that and is in it once. What became of an item at a
//! sink follows from where the sink's cursor is, from its dead letters and from its rules, as `/status` counts: behind the cursor
//! everything is pending. Rules count as they are now.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::read::Read;
use crate::feed::Arrived;
use crate::journal::{Cursor, Journal};
use crate::normalize::Outcome;
use crate::operate::Store;
use crate::pipeline::Lanes;
use crate::rules::Rules;
use crate::span::{Item, SpanId, TraceId};
use crate::support::rfc3339;

/// Missing parents that are named at most.
const NAMED_MAX: usize = 20;

/// What there is of a trace, and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Its id: 32 digits.
    pub trace_id: String,
    /// Spans that were received.
    pub received: u64,
    /// Of these, how many have an id of their own.
    pub distinct: u64,
    /// How many say the id of one before.
    pub duplicates: u64,
    /// Trace objects of the Agents SDK.
    pub trace_objects: u64,
    /// Spans whose parent was not received.
    pub orphans: u64,
    /// The first of the parents that were not received.
    pub missing_parents: Vec<String>,
    /// Spans that are below themselves.
    pub in_circles: u64,
    /// Spans that say no end.
    pub unended: u64,
    /// When the first was received, RFC 3339.
    pub first_received: String,
    /// When the last was received.
    pub last_received: String,
    /// By sink.
    pub sinks: Vec<SinkLedger>,
}

/// What became of a trace's items (spans and trace objects) at a sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkLedger {
    /// The sink.
    pub sink: String,
    /// Items that it has, or of which it has taken notice.
    pub delivered: u64,
    /// Items that are still to be delivered.
    pub pending: u64,
    /// Items that it would not take, kept as dead letters.
    pub dead_lettered: u64,
    /// Items that a rule left out; `None` where nobody knows its rules: then they are among the delivered.
    pub filtered: Option<u64>,
    /// Dead letters that an operator gave up.
    pub dropped: u64,
    /// Items from before it joined, which it never gets.
    pub before_it_joined: u64,
}

/// A sink, how far it is, and what it is not to have, where that is known.
pub(super) type Reached = (String, Cursor, Option<Arc<Rules>>);

/// The sinks that there are: the lanes, or else whoever has a cursor.
pub(super) fn sinks(journal: &Journal<Arrived>, lanes: &Lanes) -> Vec<Reached> {
    let lanes = lanes.all();
    if lanes.is_empty() {
        let known = journal.consumers().into_iter();
        return known.map(|one| (one.name, one.cursor.unwrap_or_default(), None)).collect();
    }
    let reached = |lane: &crate::pipeline::LaneHandle| {
        (lane.status.sink.clone(), lane.status.cursor(), Some(lane.jobs.rules()))
    };
    lanes.iter().map(reached).collect()
}

/// What an item is known by among dead letters: its span, or that it is the trace object.
type Known = Option<SpanId>;

fn known(item: &Item) -> Known {
    item.as_span().map(|span| span.span_id)
}

/// Looks at a trace; `None` where nothing of it was received.
pub(super) fn verify(
    trace: TraceId,
    read: &Read,
    sinks: Vec<Reached>,
    letters: &Store,
) -> io::Result<Option<Verified>> {
    let (Some((_, first)), Some((_, last))) = (read.records.first(), read.records.last()) else {
        return Ok(None);
    };
    let received = |batch: &crate::span::Batch| rfc3339::text(batch.source.received_at_ns);
    let mut verified = Verified {
        trace_id: trace.to_string(),
        first_received: received(first),
        last_received: received(last),
        ..counted(read)
    };
    let mut fates: HashMap<String, HashMap<Known, Vec<Option<Outcome>>>> = HashMap::new();
    for fate in letters.fates()? {
        let (entry, outcome) = fate?;
        let Ok(decoded) = entry.decode() else { continue };
        let its = decoded.batch.items.iter().filter(|item| item.trace_id() == trace);
        for item in its {
            let of_sink = fates.entry(entry.aside.sink.clone()).or_default();
            of_sink.entry(known(item)).or_default().push(outcome);
        }
    }
    verified.sinks = sinks
        .into_iter()
        .map(|reached| {
            let fates = fates.remove(&reached.0).unwrap_or_default();
            ledger(read, reached, fates)
        })
        .collect();
    Ok(Some(verified))
}

fn ledger(
    read: &Read,
    (sink, cursor, rules): Reached,
    mut fates: HashMap<Known, Vec<Option<Outcome>>>,
) -> SinkLedger {
    let mut ledger =
        SinkLedger { sink, filtered: rules.as_ref().map(|_| 0), ..SinkLedger::default() };
    for (start, batch) in &read.records {
        let items = batch.items.len() as u64;
        if start.items < cursor.joined {
            ledger.before_it_joined += items;
            continue;
        }
        if cursor.mark.position <= start.position {
            ledger.pending += items;
            continue;
        }
        let left = rules.as_ref().map(|rules| rules.apply_again(batch));
        let items = left.as_ref().map_or(&batch.items, |left| &left.batch.items);
        if let (Some(filtered), Some(left)) = (&mut ledger.filtered, &left) {
            *filtered += left.filtered;
        }
        for item in items {
            // What was set aside more than once is one item as often as it was received.
            let outcome = fates
                .get_mut(&known(item))
                .and_then(|fates| if fates.is_empty() { None } else { Some(fates.remove(0)) });
            match outcome {
                Some(None) => ledger.dead_lettered += 1,
                Some(Some(Outcome::Dropped)) => ledger.dropped += 1,
                Some(Some(Outcome::Delivered)) | None => ledger.delivered += 1,
            }
        }
    }
    ledger
}

fn counted(read: &Read) -> Verified {
    let mut verified = Verified::default();
    let mut parents: HashMap<SpanId, Option<SpanId>> = HashMap::new();
    for item in read.items() {
        let Some(span) = item.as_span() else {
            verified.trace_objects += 1;
            continue;
        };
        verified.received += 1;
        verified.unended += u64::from(span.end_ns == 0);
        if parents.insert(span.span_id, span.parent_id).is_some() {
            verified.duplicates += 1;
        }
    }
    verified.distinct = verified.received - verified.duplicates;
    let missing = |parent: &&SpanId| !parents.contains_key(*parent);
    verified.orphans = parents.values().flatten().filter(missing).count() as u64;
    let mut named = HashSet::new();
    for parent in read.spans().filter_map(|span| span.parent_id) {
        if named.len() < NAMED_MAX && missing(&&parent) && named.insert(parent) {
            verified.missing_parents.push(parent.to_string());
        }
    }
    verified.in_circles = in_circles(&parents);
    verified
}

/// How many spans are below themselves.
fn in_circles(parents: &HashMap<SpanId, Option<SpanId>>) -> u64 {
    let mut done: HashSet<SpanId> = HashSet::new();
    let mut count = 0;
    for start in parents.keys() {
        let mut path: HashMap<SpanId, usize> = HashMap::new();
        let mut next = Some(*start);
        while let Some(id) = next.filter(|id| !done.contains(id)) {
            if let Some(from) = path.get(&id) {
                count += (path.len() - from) as u64;
                break;
            }
            path.insert(id, path.len());
            next = parents.get(&id).copied().flatten();
        }
        done.extend(path.into_keys());
    }
    count
}
