//! Fills a lane's table of traces with what stands in the journal before its cursor.

use bytes::Bytes;
use tracing::warn;

use super::traces::FORGET_AFTER;
use super::{Arrived, Traces};
use crate::journal::{Journal, Mark, Position, ReadError, Reader};
use crate::normalize::{Envelope, decode_record};

/// How far back the journal is read at most. That is half a minute of 600 agent spans a second: a trace that is still open has its
/// beginning in there. Reading it takes less than a second, and only the lane waits for it.
const LOOKBACK_BYTES_MAX: u64 = 128 << 20;
/// How far back the time of the newest record is looked for at first; further where that record is longer.
const NEWEST_WITHIN_BYTES: u64 = 64 << 10;

/// Feeds the table with the records before a mark, as far back as a table remembers. It blocks on the disk.
///
/// All of it was sent, with what is known at the mark.
///
/// What is damaged, gone or not understood is left out: a context is the poorer for it, and the lanes report it where it matters.
pub fn look_back(journal: &Journal<Arrived>, before: Mark, traces: &mut Traces) {
    let (mut newest_ns, mut bytes) = (0, NEWEST_WITHIN_BYTES);
    while newest_ns == 0 && bytes <= LOOKBACK_BYTES_MAX {
        read(journal, before, bytes, |record, _| {
            newest_ns =
                Envelope::split(record).map_or(newest_ns, |(it, _)| it.source.received_at_ns);
        });
        bytes *= 16;
    }
    let forget_ns = u64::try_from(FORGET_AFTER.as_nanos()).unwrap_or(u64::MAX);
    let oldest_ns = newest_ns.saturating_sub(forget_ns);
    read(journal, before, LOOKBACK_BYTES_MAX, |record, position| {
        // Decoding is what takes time, so what would be left out is not decoded.
        let is_wanted = Envelope::split(record)
            .is_ok_and(|(envelope, _)| oldest_ns <= envelope.source.received_at_ns);
        if is_wanted && let Ok((_, decoded)) = decode_record(record) {
            traces.feed(&decoded.batch, position);
            traces.settle(traces.feeds());
        }
    });
    traces.note_all_sent();
}

/// Visits the records of the last so many bytes before a mark.
fn read(
    journal: &Journal<Arrived>,
    before: Mark,
    bytes_max: u64,
    visit: impl FnMut(&Bytes, Position),
) {
    let from = before.position.0.saturating_sub(bytes_max);
    let problem = match journal.read_after(Position(from)) {
        Ok(mut reader) => visit_all(&mut reader, before, visit).err(),
        Err(problem) => Some(problem),
    };
    if let Some(problem) = problem {
        warn!(%problem, "the journal before the cursor cannot be read: what it said of traces is not known");
    }
}

fn visit_all(
    reader: &mut Reader,
    before: Mark,
    mut visit: impl FnMut(&Bytes, Position),
) -> Result<(), ReadError> {
    while reader.position() < before.position {
        match reader.next() {
            Ok(Some(stored)) if stored.end.position <= before.position => {
                visit(&stored.payload, stored.start.position);
            }
            Ok(_) => return Ok(()),
            Err(ReadError::Damaged { .. } | ReadError::Removed { .. }) => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(())
}
