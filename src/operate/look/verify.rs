//! Whether a trace arrived: what was received of it, what is missing in it, and what became of it at each sink.
//!
//! What is received is what the journal keeps; an exact resend is recognised before that and is in it once. What became of an item at a
//! sink follows from where the sink's cursor is, from its dead letters and from its rules, as `/status` counts: behind the cursor
//! everything is pending. Rules count as they are now.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::read::{Found, Read};
use super::view::in_order;
use crate::feed::{Arrived, Deciding};
use crate::journal::{Cursor, Journal};
use crate::normalize::Outcome;
use crate::operate::Store;
use crate::pipeline::{LaneHandle, Lanes};
use crate::rules::{Known, Rules};
use crate::span::{Item, Span, SpanId, TraceId};
use crate::support::rfc3339;

/// Missing parents that are named at most.
const NAMED_MAX: usize = 20;
/// Spans of a sink whose fate is told one by one.
const SPANS_MAX: usize = 1_000;

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
    /// Spans that are below themselves, or below one that is.
    pub in_circles: u64,
    /// Spans that say no end.
    pub unended: u64,
    /// Items of its records that are damaged, of which nothing else is said here.
    pub unreadable: u64,
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
    /// Items that are still to be delivered, or to be decided of.
    pub pending: u64,
    /// Items that it would not take, kept as dead letters.
    pub dead_lettered: u64,
    /// Items that a rule left out, by the rules as they are now.
    pub filtered: u64,
    /// Dead letters that an operator gave up.
    pub dropped: u64,
    /// Items from before it joined, which it never gets.
    pub before_it_joined: u64,
    /// What became of spans that are not delivered, by id; of so many at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spans: BTreeMap<String, Fate>,
}

/// What became of an item at a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The sink has it.
    Delivered,
    /// It is still to be delivered.
    Pending,
    /// The sink would not take it.
    DeadLettered,
    /// A rule left it out.
    Filtered,
    /// An operator gave it up.
    Dropped,
    /// The sink was not there yet.
    BeforeItJoined,
}

/// A sink, how far it is, and what it is not to have.
pub(super) type Reached = (String, Cursor, Arc<Rules>);

/// The sinks that there are.
pub(super) fn sinks(lanes: &Lanes, journal: &Journal<Arrived>) -> Vec<Reached> {
    let reached = |LaneHandle { status, .. }: LaneHandle| {
        (status.sink.clone(), status.safe(journal), Arc::clone(&status.rules))
    };
    lanes.all().into_iter().map(reached).collect()
}

/// What dead letters say of a trace, by sink and span; the trace object has none. What was set aside more than once is one item as often
/// as it was received.
pub(super) type Letters = HashMap<(String, Option<SpanId>), Vec<Fate>>;

/// What dead letters say of these traces. It reads all there are.
pub(super) fn letters_of(
    traces: &[TraceId],
    letters: &Store,
) -> io::Result<HashMap<TraceId, Letters>> {
    let mut found = HashMap::<_, Letters>::new();
    for fate in letters.fates()? {
        let (entry, outcome) = fate?;
        let Ok(decoded) = entry.decode() else { continue };
        let fate = match outcome {
            None => Fate::DeadLettered,
            Some(Outcome::Dropped) => Fate::Dropped,
            Some(Outcome::Delivered) => Fate::Delivered,
        };
        for item in decoded.batch.items.iter().filter(|item| traces.contains(&item.trace_id())) {
            let of_trace = found.entry(item.trace_id()).or_default();
            of_trace.entry((entry.aside.sink.clone(), id_of(item))).or_default().push(fate);
        }
    }
    Ok(found)
}

fn id_of(item: &Item) -> Option<SpanId> {
    item.as_span().map(|span| span.span_id)
}

/// Looks at a trace; `None` where nothing of it was received.
pub(super) fn verify(
    trace: TraceId,
    read: &Read,
    sinks: Vec<Reached>,
    (journal, mut letters): (&Journal<Arrived>, Letters),
) -> Option<Verified> {
    let received = |record: &Found| rfc3339::text(record.batch.source.received_at_ns);
    let sinks = sinks.into_iter().map(|reached| ledger(read, reached, journal, &mut letters));
    Some(Verified {
        trace_id: trace.to_string(),
        first_received: received(read.records.first()?),
        last_received: received(read.records.last()?),
        sinks: sinks.collect(),
        ..counted(read)
    })
}

fn ledger(
    read: &Read,
    (sink, cursor, rules): Reached,
    journal: &Journal<Arrived>,
    letters: &mut Letters,
) -> SinkLedger {
    let mut ledger = SinkLedger { sink, ..SinkLedger::default() };
    let mut deciding = None;
    for Found { start, end, batch } in &read.records {
        let of_all = if start.items < cursor.joined {
            Some(Fate::BeforeItJoined)
        } else {
            (cursor.mark.position <= start.position).then_some(Fate::Pending)
        };
        // What is behind the cursor may not be decided yet, and is pending anyway.
        let left = of_all.is_none().then(|| {
            let decided = rules.wait_for_traces().then(|| {
                let start_here = || Deciding::new(journal, &rules, *start);
                deciding.get_or_insert_with(start_here).of(batch, *end)
            });
            rules.apply_again(batch, Known::of(decided.as_ref()))
        });
        let places = left.and_then(|left| left.places);
        for (place, item) in batch.items.iter().enumerate() {
            let is_left = places.as_ref().is_none_or(|left| left.binary_search(&place).is_ok());
            let fate = match of_all {
                Some(fate) => fate,
                None if !is_left => Fate::Filtered,
                None => {
                    let said = letters.get_mut(&(ledger.sink.clone(), id_of(item)));
                    said.and_then(Vec::pop).unwrap_or(Fate::Delivered)
                }
            };
            ledger.add(item, fate);
        }
    }
    ledger
}

impl SinkLedger {
    fn add(&mut self, item: &Item, fate: Fate) {
        *match fate {
            Fate::Delivered => &mut self.delivered,
            Fate::Pending => &mut self.pending,
            Fate::DeadLettered => &mut self.dead_lettered,
            Fate::Filtered => &mut self.filtered,
            Fate::Dropped => &mut self.dropped,
            Fate::BeforeItJoined => &mut self.before_it_joined,
        } += 1;
        if let Some(id) = id_of(item)
            && fate != Fate::Delivered
            && self.spans.len() < SPANS_MAX
        {
            self.spans.insert(id.to_string(), fate);
        }
    }
}

fn counted(read: &Read) -> Verified {
    let spans: Vec<&Span> = read.spans().collect();
    let ids: HashSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
    let parents = spans.iter().filter_map(|span| span.parent_id);
    let missing: Vec<SpanId> = parents.filter(|parent| !ids.contains(parent)).collect();
    let (received, distinct) = (spans.len() as u64, ids.len() as u64);
    let mut named = HashSet::new();
    let first = missing.iter().filter(|parent| named.insert(**parent)).take(NAMED_MAX);
    Verified {
        received,
        distinct,
        duplicates: received - distinct,
        trace_objects: read.items().count() as u64 - received,
        missing_parents: first.map(ToString::to_string).collect(),
        orphans: missing.len() as u64,
        in_circles: in_order(&spans).1 as u64,
        unended: spans.iter().filter(|span| span.end_ns == 0).count() as u64,
        unreadable: read.unreadable,
        ..Verified::default()
    }
}
