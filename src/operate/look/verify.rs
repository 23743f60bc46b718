//! Verifies a trace: what was received, what is missing, and what happened to it at each sink.
//!
//! Received is what the journal keeps; it contains exact resends only once. The state of an item at a sink follows from the sink's cursor,
//! dead letters and rules, as in the counts of `/status`: everything after the cursor is pending. The current rules count.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::read::{Read, TraceRecord};
use super::view::in_order;
use crate::feed::{Attachment, Deciding};
use crate::journal::{Cursor, Journal};
use crate::normalize::Outcome;
use crate::operate::Store;
use crate::pipeline::{LaneHandle, Lanes};
use crate::rules::{KnownTraces, Rules};
use crate::span::{Item, Span, SpanId, TraceId};
use crate::support::rfc3339;

/// Maximum number of missing parents that are named.
const NAMED_MAX: usize = 20;
/// Maximum number of spans per sink whose state is listed.
const SPANS_MAX: usize = 1_000;

/// The completeness of a trace, and its delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Its id: 32 digits.
    pub trace_id: String,
    /// Number of spans received.
    pub received: u64,
    /// Of these, the number of distinct ids.
    pub distinct: u64,
    /// Number of spans that repeat an earlier id.
    pub duplicates: u64,
    /// Number of trace objects of the Agents SDK.
    pub trace_objects: u64,
    /// Number of spans whose parent was not received.
    pub orphans: u64,
    /// The first of the parents that were not received.
    pub missing_parents: Vec<String>,
    /// Number of spans in cycles of parents, or below one.
    pub in_circles: u64,
    /// Number of spans without an end.
    pub unended: u64,
    /// Number of damaged items in its records, which no other number includes.
    pub unreadable: u64,
    /// When the first was received, RFC 3339.
    pub first_received: String,
    /// When the last was received.
    pub last_received: String,
    /// Its state at each sink.
    pub sinks: Vec<SinkLedger>,
}

/// Counts of a trace's items (spans and trace objects) at a sink, by their state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkLedger {
    /// The sink.
    pub sink: String,
    /// Items that the sink has accepted.
    pub delivered: u64,
    /// Items yet to be delivered or decided.
    pub pending: u64,
    /// Items that it rejected, kept as dead letters.
    pub dead_lettered: u64,
    /// Items that a rule dropped, by the current rules.
    pub filtered: u64,
    /// Dead letters that an operator dropped.
    pub dropped: u64,
    /// Items from before the sink existed, which it never gets.
    pub before_it_joined: u64,
    /// The state of spans that are not delivered, by id; at most `SPANS_MAX`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spans: BTreeMap<String, SinkOutcome>,
}

/// The state of an item at a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkOutcome {
    /// The sink has accepted it.
    Delivered,
    /// It is yet to be delivered.
    Pending,
    /// The sink rejected it.
    DeadLettered,
    /// A rule dropped it.
    Filtered,
    /// An operator dropped it.
    Dropped,
    /// The sink did not exist yet.
    BeforeItJoined,
}

/// A sink with its cursor and its rules.
pub(super) type Reached = (String, Cursor, Arc<Rules>);

/// Returns all sinks.
pub(super) fn sinks(lanes: &Lanes, journal: &Journal<Attachment>) -> Vec<Reached> {
    let reached = |LaneHandle { status, .. }: LaneHandle| {
        (status.sink.clone(), status.safe(journal), Arc::clone(&status.rules))
    };
    lanes.all().into_iter().map(reached).collect()
}

/// States of a trace's dead letters, by sink and span; a trace object has no span. An item that became a dead letter several times has one
/// state for each time that it was received.
pub(super) type Letters = HashMap<(String, Option<SpanId>), Vec<SinkOutcome>>;

/// Collects the states of these traces' dead letters. Reads all dead letters.
pub(super) fn letters_of(
    traces: &[TraceId],
    letters: &Store,
) -> io::Result<HashMap<TraceId, Letters>> {
    let mut found = HashMap::<_, Letters>::new();
    for fate in letters.fates()? {
        let (entry, outcome) = fate?;
        let Ok(decoded) = entry.decode() else { continue };
        let fate = match outcome {
            None => SinkOutcome::DeadLettered,
            Some(Outcome::Dropped) => SinkOutcome::Dropped,
            Some(Outcome::Delivered) => SinkOutcome::Delivered,
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

/// Verifies a trace; `None` if nothing of it was received.
pub(super) fn verify(
    trace: TraceId,
    read: &Read,
    sinks: Vec<Reached>,
    (journal, mut letters): (&Journal<Attachment>, Letters),
) -> Option<Verified> {
    let received_at = |record: &TraceRecord| rfc3339::text(record.batch.source.received_at_ns);
    let (first, last) = (read.records.first()?, read.records.last()?);
    let spans: Vec<&Span> = read.spans().collect();
    let ids: HashSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
    let parents = spans.iter().filter_map(|span| span.parent_id);
    let missing: Vec<SpanId> = parents.filter(|parent| !ids.contains(parent)).collect();
    let (received, distinct) = (spans.len() as u64, ids.len() as u64);
    let mut named = HashSet::new();
    let some = missing.iter().filter(|parent| named.insert(**parent)).take(NAMED_MAX);
    let sinks = sinks.into_iter().map(|reached| ledger(read, reached, journal, &mut letters));
    Some(Verified {
        trace_id: trace.to_string(),
        received,
        distinct,
        duplicates: received - distinct,
        trace_objects: read.items().count() as u64 - received,
        orphans: missing.len() as u64,
        missing_parents: some.map(ToString::to_string).collect(),
        in_circles: in_order(&spans).1 as u64,
        unended: spans.iter().filter(|span| span.end_ns == 0).count() as u64,
        unreadable: read.unreadable,
        first_received: received_at(first),
        last_received: received_at(last),
        sinks: sinks.collect(),
    })
}

fn ledger(
    read: &Read,
    (sink, cursor, rules): Reached,
    journal: &Journal<Attachment>,
    letters: &mut Letters,
) -> SinkLedger {
    let mut ledger = SinkLedger { sink, ..SinkLedger::default() };
    let mut deciding = None;
    for TraceRecord { start, end, batch } in &read.records {
        let of_all = if start.items < cursor.joined {
            Some(SinkOutcome::BeforeItJoined)
        } else {
            (cursor.mark.position <= start.position).then_some(SinkOutcome::Pending)
        };
        // Items after the cursor may be undecided, and are pending anyway.
        let left = of_all.is_none().then(|| {
            let decided = rules.wait_for_traces().then(|| {
                let start_here = || Deciding::new(journal, &rules, *start);
                deciding.get_or_insert_with(start_here).of(batch, *end)
            });
            rules.apply_again(batch, KnownTraces::of(decided.as_ref()))
        });
        let places = left.and_then(|left| left.places);
        for (place, item) in batch.items.iter().enumerate() {
            let is_left = places.as_ref().is_none_or(|left| left.binary_search(&place).is_ok());
            let fate = match of_all {
                Some(fate) => fate,
                None if !is_left => SinkOutcome::Filtered,
                None => {
                    let said = letters.get_mut(&(ledger.sink.clone(), id_of(item)));
                    said.and_then(Vec::pop).unwrap_or(SinkOutcome::Delivered)
                }
            };
            ledger.add(item, fate);
        }
    }
    ledger
}

impl SinkLedger {
    fn add(&mut self, item: &Item, fate: SinkOutcome) {
        *match fate {
            SinkOutcome::Delivered => &mut self.delivered,
            SinkOutcome::Pending => &mut self.pending,
            SinkOutcome::DeadLettered => &mut self.dead_lettered,
            SinkOutcome::Filtered => &mut self.filtered,
            SinkOutcome::Dropped => &mut self.dropped,
            SinkOutcome::BeforeItJoined => &mut self.before_it_joined,
        } += 1;
        if let Some(id) = id_of(item)
            && fate != SinkOutcome::Delivered
            && self.spans.len() < SPANS_MAX
        {
            self.spans.insert(id.to_string(), fate);
        }
    }
}
