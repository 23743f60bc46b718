//! Fills a lane's table of traces with what stands in the journal before its cursor.

use tracing::warn;

use super::{Arrived, Traces};
use crate::journal::{Journal, Mark, Position, ReadError};
use crate::normalize::{Envelope, decode_record};
use crate::span::{Receiver, Traced};

/// How far back the journal is read. At a hundred agent spans a second it is a minute; reading it takes a fraction of a second.
const LOOKBACK_BYTES_MAX: u64 = 32 << 20;

/// Feeds the table with the records before a mark. It blocks on the disk.
///
/// What is damaged, gone or not understood is left out: a context is the poorer for it, and the lanes report it where it matters.
pub fn look_back(journal: &Journal<Arrived>, before: Mark, traces: &mut Traces) {
    let from = before.position.0.saturating_sub(LOOKBACK_BYTES_MAX);
    let mut reader = journal.read_from(Position(from));
    while reader.position() < before.position {
        let stored = match reader.next() {
            Ok(Some(stored)) => stored,
            Ok(None) => return,
            Err(ReadError::Damaged { .. } | ReadError::Removed { .. }) => continue,
            Err(ReadError::Storage(problem)) => {
                warn!(%problem, "the journal before the cursor cannot be read: what it said of traces is not known");
                return;
            }
        };
        if before.position < stored.end.position {
            return;
        }
        // Decoding is what takes time, so what would be left out is not decoded.
        let is_wanted = match (traces.traced(), Envelope::split(&stored.payload)) {
            (Traced::All, _) => true,
            (Traced::Native, Ok((envelope, _))) => envelope.source.receiver == Receiver::OpenAi,
            (Traced::Native, Err(_)) => false,
        };
        if is_wanted && let Ok((_, decoded)) = decode_record(&stored.payload) {
            traces.feed(&decoded.batch);
            traces.settle(traces.feeds());
        }
    }
}
