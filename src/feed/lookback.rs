//! Fills a lane's tables from the journal before its cursor.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tracing::warn;

use super::traces::FORGET_AFTER;
use super::{Attachment, Decisions, Records, Traces};
use crate::journal::{Journal, Mark, Position};
use crate::normalize::{Envelope, decode_record};
use crate::rules::{Decided, KnownTraces, REMEMBER, Rules};
use crate::span::{Batch, Item};
use crate::support::clock::nanos;
use crate::support::lock::lock;

/// Maximum amount of the journal to read. It covers half a minute of 600 agent spans per second, so it includes the beginning of a trace
/// that is still open. Reading it takes less than a second, and only the lane waits for it.
const LOOKBACK_BYTES_MAX: u64 = 128 << 20;

/// Feeds the table with the records before a mark, after rules, as far back as a table remembers. Blocks on the disk.
///
/// All of these spans count as sent, with the context known at the mark.
///
/// Damaged, removed or undecodable records are skipped: contexts miss their facts, and the lanes report the records where it matters.
pub fn look_back(
    journal: &Journal<Attachment>,
    before: Mark,
    (rules, decisions): (&Rules, Option<&Mutex<Decisions>>),
    traces: &mut Traces,
) {
    traces.settle(before.position);
    let reach = far_enough(journal, before, (FORGET_AFTER, LOOKBACK_BYTES_MAX));
    let (bytes, oldest_ns) = reach.unwrap_or((LOOKBACK_BYTES_MAX, 0));
    read(journal, before, bytes, |start, payload| {
        // Decoding takes most of the time, so records that are too old are not decoded.
        if received_at_ns(payload).is_some_and(|at_ns| oldest_ns <= at_ns)
            && let Ok((_, decoded)) = decode_record(payload)
        {
            let batch = Arc::new(decoded.batch);
            let known = decisions.map(|decisions| lock(decisions).of_batch(&batch));
            let left = rules.apply_again(&batch, KnownTraces::of(known.as_ref()));
            traces.feed_ruled(&left, start);
        }
    });
    traces.note_all_sent();
}

/// Maximum amount of the journal to read for decisions. Reading it takes some seconds.
const DECIDED_BYTES_MAX: u64 = 1 << 30;
/// The initial amount to read for any table; it is increased until it suffices.
const BYTES_FIRST: u64 = 1 << 20;

/// Returns the decisions on traces at a lane's mark, and the mark up to which the table was fed. All requests received before `now_ns` are
/// already in the journal. Blocks on the disk.
pub fn recall(
    journal: &Journal<Attachment>,
    before: Mark,
    rules: &Arc<Rules>,
    now_ns: u64,
) -> (Decisions, Mark) {
    let Deciding { table, fed_until, is_over, .. } = Deciding::new(journal, rules, before);
    let mut decisions = table.into_inner().unwrap_or_else(PoisonError::into_inner);
    if is_over {
        decisions.time.pass(now_ns);
    }
    (decisions, fed_until)
}

/// Computes decisions of rules with `decide = "trace"` while records are read again, like a lane that goes through the journal. Blocks on
/// the disk.
#[derive(Debug)]
pub struct Deciding {
    /// The decisions.
    pub table: Mutex<Decisions>,
    rules: Arc<Rules>,
    records: Records,
    fed_until: Mark,
    /// A record that was read and is not fed yet; the table knows its time.
    peeked: Option<(Batch, Mark)>,
    is_over: bool,
}

impl Deciding {
    /// Starts at a mark. It feeds the records before the mark, from twice as far back as a decision is remembered (traces that are older
    /// and still continue are kept), and as many of the records after it as the decisions at the mark depend on.
    pub fn new(journal: &Journal<Attachment>, rules: &Arc<Rules>, before: Mark) -> Self {
        let mut decisions = Decisions::new(rules.decide(), rules.kept());
        fill(journal, before, rules, &mut decisions);
        let until_ns = decisions.time.now_ns().saturating_add(nanos(rules.decide().longest));
        let (table, rules) = (Mutex::new(decisions), Arc::clone(rules));
        let (records, fed_until) = (Records::from(journal, before), before);
        let mut deciding = Self { table, rules, records, fed_until, peeked: None, is_over: false };
        while !deciding.is_over && lock(&deciding.table).time.now_ns() < until_ns {
            deciding.read_on();
        }
        lock(&deciding.table).count_from_here();
        deciding
    }

    /// Returns the decisions on the traces of a record that ends at `end`. It waits only for what the journal had at the start.
    pub fn of(&mut self, batch: &Batch, end: Mark) -> Decided {
        loop {
            let traces = batch.items.iter().map(Item::trace_id);
            let is_fed = end.position <= self.fed_until.position;
            if self.is_over || is_fed && lock(&self.table).decided_at_ns(traces).is_none() {
                return lock(&self.table).of_batch(batch);
            }
            self.read_on();
        }
    }

    fn read_on(&mut self) {
        if let Some((batch, end)) = self.peeked.take() {
            let survey = self.rules.survey(&batch);
            lock(&self.table).feed(batch.source.received_at_ns, survey);
            self.fed_until = end;
            return;
        }
        // Readers of the records themselves meet the same disk error.
        let Some(Ok(record)) = self.records.next() else {
            self.is_over = true;
            return;
        };
        match record.payload.as_ref().and_then(decoded) {
            Some((received_at_ns, batch)) => {
                lock(&self.table).time.tell(received_at_ns);
                self.peeked = Some((batch, record.end));
            }
            None => self.fed_until = record.end,
        }
    }
}

fn fill(journal: &Journal<Attachment>, before: Mark, rules: &Rules, decisions: &mut Decisions) {
    let reach = far_enough(journal, before, (2 * REMEMBER, DECIDED_BYTES_MAX));
    let Some((bytes, oldest_ns)) = reach else { return };
    let is_start = before.position.0.saturating_sub(bytes) <= journal.start().position.0;
    let is_whole = is_start && journal.start().position.0 == 0;
    let (mut has_begun, mut begin_ns) = (is_whole, None);
    read(journal, before, bytes, |_, payload| {
        let Some((received_at_ns, batch)) = decoded(payload) else { return };
        if !has_begun && received_at_ns < oldest_ns {
            begin_ns = Some(oldest_ns);
            return;
        }
        if !std::mem::replace(&mut has_begun, true) {
            decisions.begin_in_the_middle(begin_ns.unwrap_or(received_at_ns));
        }
        decisions.feed(received_at_ns, rules.survey(&batch));
    });
}

/// Returns how many bytes before a mark reach back for so long, at most so many, and the time to which they must reach.
fn far_enough(
    journal: &Journal<Attachment>,
    before: Mark,
    (span, bytes_max): (Duration, u64),
) -> Option<(u64, u64)> {
    let (mut bytes, mut oldest_ns) = (BYTES_FIRST, None);
    loop {
        let (mut first_ns, mut last_ns) = (None, None);
        let from = Position(before.position.0.saturating_sub(bytes));
        let mut records = Records::after(journal, from).ok()?.before(before.position);
        // The first record shows how far back this reaches, and all of them show, once, the time at the end.
        while (first_ns.is_none() || oldest_ns.is_none())
            && let Some(Ok(record)) = records.next()
        {
            let at_ns = record.payload.as_ref().and_then(received_at_ns);
            last_ns = at_ns.filter(|at_ns| *at_ns > 0).or(last_ns);
            first_ns = first_ns.or(last_ns);
        }
        oldest_ns = oldest_ns.or(last_ns.map(|last_ns| last_ns.saturating_sub(nanos(span))));
        let is_all = from.0 <= journal.start().position.0 || bytes_max <= bytes;
        if let (Some(first_ns), Some(oldest_ns)) = (first_ns, oldest_ns)
            && (is_all || first_ns < oldest_ns)
        {
            return Some((bytes, oldest_ns));
        }
        if is_all {
            return None;
        }
        bytes = bytes.saturating_mul(4).min(bytes_max);
    }
}

fn decoded(payload: &Bytes) -> Option<(u64, Batch)> {
    let (_, decoded) = decode_record(payload).ok()?;
    Some((decoded.batch.source.received_at_ns, decoded.batch))
}

fn received_at_ns(payload: &Bytes) -> Option<u64> {
    Envelope::split(payload).ok().map(|(envelope, _)| envelope.source.received_at_ns)
}

/// Visits the records of the last `bytes_max` bytes before a mark, each with its start.
fn read(
    journal: &Journal<Attachment>,
    before: Mark,
    bytes_max: u64,
    mut visit: impl FnMut(Position, &Bytes),
) {
    let from = Position(before.position.0.saturating_sub(bytes_max));
    let visited = Records::after(journal, from).and_then(|records| {
        records.before(before.position).try_for_each(|record| {
            let record = record?;
            record.payload.iter().for_each(|payload| visit(record.start.position, payload));
            Ok(())
        })
    });
    if let Err(problem) = visited {
        warn!(%problem, "the journal before the cursor cannot be read: its facts of traces are unknown");
    }
}
