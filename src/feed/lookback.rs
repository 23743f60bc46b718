//! Fills a lane's tables with what stands in the journal before its cursor.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tracing::warn;

use super::traces::FORGET_AFTER;
use super::{Arrived, Decisions, Records, Traces};
use crate::journal::{Journal, Mark, Position};
use crate::normalize::{Envelope, decode_record};
use crate::rules::{Decided, Known, REMEMBER, Rules};
use crate::span::{Batch, Item};
use crate::support::clock::nanos;
use crate::support::lock::lock;

/// How far back the journal is read at most. That is half a minute of 600 agent spans a second: a trace that is still open has its
/// beginning in there. Reading it takes less than a second, and only the lane waits for it.
const LOOKBACK_BYTES_MAX: u64 = 128 << 20;
/// How far back the time of the newest record is looked for at first; further where that record is longer.
const NEWEST_WITHIN_BYTES: u64 = 64 << 10;

/// Feeds the table with what rules leave of the records before a mark, as far back as a table remembers. It blocks on the disk.
///
/// All of it was sent, with what is known at the mark.
///
/// What is damaged, gone or not understood is left out: a context is the poorer for it, and the lanes report it where it matters.
pub fn look_back(
    journal: &Journal<Arrived>,
    before: Mark,
    (rules, decisions): (&Rules, Option<&Mutex<Decisions>>),
    traces: &mut Traces,
) {
    let (mut newest_ns, mut bytes) = (0, NEWEST_WITHIN_BYTES);
    while newest_ns == 0 && bytes <= LOOKBACK_BYTES_MAX {
        read(journal, before, bytes, |_, payload| {
            newest_ns = received_at_ns(payload).unwrap_or(newest_ns);
        });
        bytes *= 16;
    }
    let oldest_ns = newest_ns.saturating_sub(nanos(FORGET_AFTER));
    traces.settle(before.position);
    read(journal, before, LOOKBACK_BYTES_MAX, |start, payload| {
        // Decoding is what takes time, so what would be left out is not decoded.
        if received_at_ns(payload).is_some_and(|at_ns| oldest_ns <= at_ns)
            && let Ok((_, decoded)) = decode_record(payload)
        {
            let batch = Arc::new(decoded.batch);
            let known = decisions.map(|decisions| lock(decisions).of_batch(&batch));
            let left = rules.apply_again(&batch, Known::of(known.as_ref()));
            traces.feed_ruled(&left, start);
        }
    });
    traces.note_all_sent();
}

/// How far back decisions are looked for at most. Reading it takes some seconds.
const DECIDED_BYTES_MAX: u64 = 1 << 30;
/// How much of the journal is looked back over at first; then more and more, until it is enough.
const DECIDED_BYTES_FIRST: u64 = 1 << 20;

/// What was decided of traces where a lane stands, and up to where it was fed. Nothing that was received before `now_ns` is still to come.
/// It blocks on the disk.
pub fn recall(
    journal: &Journal<Arrived>,
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

/// What rules with `decide = "trace"` decide of the traces that records bring, as they are read again: a lane's way through what the
/// journal has. It blocks on the disk.
#[derive(Debug)]
pub struct Deciding {
    /// What is decided.
    pub table: Mutex<Decisions>,
    rules: Arc<Rules>,
    records: Records,
    fed_until: Mark,
    /// What was read and is to be fed: its time was told.
    peeked: Option<(Batch, Mark)>,
    is_over: bool,
}

impl Deciding {
    /// At a mark, with what stands before it, and with this much of what follows it, too, as decides of that. It is read again from the
    /// journal, from twice as far back as a decision is remembered: what is older than that and still goes on is kept.
    pub fn new(journal: &Journal<Arrived>, rules: &Arc<Rules>, before: Mark) -> Self {
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

    /// What is known of the traces of a record that ends there. What the journal had at first is all that is waited for.
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
        // Who reads the records themselves meets again a disk that fails.
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

fn fill(journal: &Journal<Arrived>, before: Mark, rules: &Rules, decisions: &mut Decisions) {
    let Some((bytes, oldest_ns)) = far_enough(journal, before) else { return };
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

/// How many bytes before a mark reach back as far as is needed, and to which time that is.
fn far_enough(journal: &Journal<Arrived>, before: Mark) -> Option<(u64, u64)> {
    let (mut bytes, mut oldest_ns) = (DECIDED_BYTES_FIRST, None);
    loop {
        let (mut first_ns, mut last_ns) = (None, None);
        let from = Position(before.position.0.saturating_sub(bytes));
        let mut records = Records::after(journal, from).ok()?.before(before.position);
        // The first tells how far back this is, and all tell, once, where the end is.
        while (first_ns.is_none() || oldest_ns.is_none())
            && let Some(Ok(record)) = records.next()
        {
            let at_ns = record.payload.as_ref().and_then(received_at_ns);
            last_ns = at_ns.filter(|at_ns| *at_ns > 0).or(last_ns);
            first_ns = first_ns.or(last_ns);
        }
        oldest_ns =
            oldest_ns.or(last_ns.map(|last_ns| last_ns.saturating_sub(2 * nanos(REMEMBER))));
        let is_all = from.0 <= journal.start().position.0 || DECIDED_BYTES_MAX <= bytes;
        if let (Some(first_ns), Some(oldest_ns)) = (first_ns, oldest_ns)
            && (is_all || first_ns < oldest_ns)
        {
            return Some((bytes, oldest_ns));
        }
        if is_all {
            return None;
        }
        bytes = bytes.saturating_mul(4).min(DECIDED_BYTES_MAX);
    }
}

fn decoded(payload: &Bytes) -> Option<(u64, Batch)> {
    let (_, decoded) = decode_record(payload).ok()?;
    Some((decoded.batch.source.received_at_ns, decoded.batch))
}

fn received_at_ns(payload: &Bytes) -> Option<u64> {
    Envelope::split(payload).ok().map(|(envelope, _)| envelope.source.received_at_ns)
}

/// Visits the records of the last so many bytes before a mark, each with where it starts.
fn read(
    journal: &Journal<Arrived>,
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
