//! Moves and saves a lane's cursor. No other module does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tracing::error;

use super::status::LaneStatus;
use super::tracker::Entry;
use crate::feed::Attachment;
use crate::journal::{Cursor, Journal};
use crate::sinks::{Pace, Sink};

/// Stamps from this value are times in nanoseconds since 1970: until November 2026, cursors recorded the time up to which roots were sent.
/// A root that is sent twice has the same id both times.
const TIMES_FROM: u64 = 1 << 60;

impl LaneStatus {
    /// Replaces a time in the stamp as if no roots were sent: the stamp now is the record before which the roots of all traces were sent.
    pub(super) fn forget_times(&self) {
        self.with_cursor(|cursor| {
            if cursor.stamp >= TIMES_FROM {
                cursor.stamp = 1;
            }
        });
    }

    /// Moves the cursor over settled entries.
    pub(super) fn commit(&self, Entry { end, settled, roots_until, .. }: &Entry) {
        let (sink, counted) = (&self.sink, settled.items());
        let passed = self.with_cursor(|cursor| {
            let mark = end.unwrap_or(cursor.mark);
            let passed = mark.items.saturating_sub(cursor.mark.items);
            cursor.mark = mark;
            cursor.dead_lettered += settled.dead_lettered;
            cursor.dropped += settled.dropped;
            cursor.filtered += settled.filtered;
            cursor.stamp = cursor.stamp.max(*roots_until);
            passed
        });
        if counted != passed {
            let what = "the outcomes of items do not add up to the accepted items";
            error!(sink, passed, counted, "{what}");
            self.miscounted.fetch_add(counted.abs_diff(passed), Ordering::Relaxed);
        }
    }

    /// Resets the cursor to its saved value.
    pub(super) fn go_back(&self, saved: Cursor) {
        self.with_cursor(|cursor| *cursor = saved);
    }
}

/// Checkpoints the sink, and saves the cursor together with the sink's state. Returns whether the sink has moved the lane to another
/// position.
pub(super) async fn save(
    sink: Arc<dyn Sink>,
    journal: Journal<Attachment>,
    status: Arc<LaneStatus>,
) -> (Result<(), Pace>, bool) {
    // The cursor is read before the checkpoint. Items settled in between are in the checkpoint but not in the cursor, which is safe only if
    // nothing is under way. A sink with state gets one delivery at a time, and no checkpoint during it.
    let mut cursor = status.cursor();
    cursor.state = Bytes::new();
    let made = match sink.checkpoint_at(cursor.to_bytes().into()).await {
        Ok(made) => made,
        Err(pace) => return (Err(pace), false),
    };
    let has_moved = made.go_on.is_some();
    if let Some(place) = made.go_on {
        match place_in(&journal, &place) {
            Some(place) => cursor = place,
            None => return (Err(Pace::hold(OTHER_JOURNAL)), false),
        }
    }
    cursor.state = made.state;
    status.with_cursor(|now| {
        if has_moved {
            *now = cursor.clone();
        } else {
            now.state = cursor.state.clone();
        }
    });
    let saving = move || journal.save_cursor(&status.sink, &cursor);
    let saved = tokio::task::spawn_blocking(saving).await;
    let unsaved = |problem| Pace::down(format!("the cursor could not be saved: {problem}"));
    (saved.map_err(io::Error::other).flatten().map_err(unsaved), has_moved)
}

const OTHER_JOURNAL: &str = "this sink has written items that this journal does not have; the journal may be an old copy: give the sink a new name";

/// Decodes the cursor that a sink returned. Items that the journal has already removed count as dropped.
fn place_in(journal: &Journal<Attachment>, place: &[u8]) -> Option<Cursor> {
    let mut cursor = Cursor::from_bytes(place)?;
    let (start, end) = (journal.start(), journal.end());
    if cursor.mark.position < start.position {
        cursor.dropped += start.items.saturating_sub(cursor.mark.items);
        cursor.mark = start;
    }
    (cursor.mark.position <= end.position).then_some(cursor)
}
