//! Fills a lane's table of traces with what stands in the journal before its cursor.

use std::sync::Arc;

use tracing::warn;

use super::traces::FORGET_AFTER;
use super::{Arrived, Traces};
use crate::journal::{Journal, Mark, Position, Stored};
use crate::normalize::{Envelope, decode_record};
use crate::rules::Rules;

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
pub fn look_back(journal: &Journal<Arrived>, before: Mark, rules: &Rules, traces: &mut Traces) {
    let (mut newest_ns, mut bytes) = (0, NEWEST_WITHIN_BYTES);
    while newest_ns == 0 && bytes <= LOOKBACK_BYTES_MAX {
        read(journal, before, bytes, |record| {
            newest_ns = received_at_ns(&record).unwrap_or(newest_ns);
        });
        bytes *= 16;
    }
    let forget_ns = u64::try_from(FORGET_AFTER.as_nanos()).unwrap_or(u64::MAX);
    let oldest_ns = newest_ns.saturating_sub(forget_ns);
    read(journal, before, LOOKBACK_BYTES_MAX, |record| {
        // Decoding is what takes time, so what would be left out is not decoded.
        if received_at_ns(&record).is_some_and(|at_ns| oldest_ns <= at_ns)
            && let Ok((_, decoded)) = decode_record(&record.payload)
        {
            let left = rules.apply_again(&Arc::new(decoded.batch));
            traces.feed(&left.batch, record.start.position);
            traces.settle(traces.feeds());
        }
    });
    traces.note_all_sent();
}

fn received_at_ns(record: &Stored) -> Option<u64> {
    Envelope::split(&record.payload).ok().map(|(envelope, _)| envelope.source.received_at_ns)
}

/// Visits the records of the last so many bytes before a mark.
fn read(journal: &Journal<Arrived>, before: Mark, bytes_max: u64, visit: impl FnMut(Stored)) {
    let from = Position(before.position.0.saturating_sub(bytes_max));
    let read = journal.read_after(from).and_then(|mut reader| reader.visit(before.position, visit));
    if let Err(problem) = read {
        warn!(%problem, "the journal before the cursor cannot be read: what it said of traces is not known");
    }
}
