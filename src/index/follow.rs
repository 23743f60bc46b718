//! Feeds the index: what the journal keeps, read again after a start, and then what comes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;

use super::Index;
use crate::feed::{Arrived, Fed, Feed, Records};
use crate::journal::{Journal, Mark};
use crate::normalize::decode_record;

/// Requests, and bytes of them, that are taken in one go away from the runtime's threads.
const AT_ONCE_MAX: usize = 64;
const AT_ONCE_BYTES_MAX: usize = 4 << 20;

impl Index {
    /// Reads what the journal keeps again, and then follows it for ever. Dropped, it stops.
    pub async fn follow(self, feed: Feed) {
        let (index, journal, alive) = (self.clone(), feed.journal().clone(), Arc::new(()));
        let followed = Arc::downgrade(&alive);
        let is_over = move || followed.strong_count() == 0;
        let rebuilding = tokio::task::spawn_blocking(move || index.rebuild(&journal, is_over));
        let Ok(from) = rebuilding.await else {
            warn!(
                "the index of traces could not be built; `traces` and `stats` know nothing until the next start"
            );
            return;
        };
        // It joins only now, so that the tail holds nothing for who reads from the disk.
        let mut reader = feed.reader(from);
        loop {
            let mut taken = vec![reader.next().await];
            let mut bytes = 0;
            while reader.has_next() && taken.len() < AT_ONCE_MAX && bytes < AT_ONCE_BYTES_MAX {
                let more = reader.next().await;
                bytes += more.batch.bytes;
                taken.push(more);
            }
            let index = self.clone();
            let added = tokio::task::spawn_blocking(move || {
                for Fed { start, batch, .. } in taken {
                    index.feed(&batch, start.position, false);
                }
            });
            if added.await.is_err() {
                warn!(
                    "requests could not be taken into the index of traces; `traces` and `stats` lack them"
                );
            }
        }
    }

    /// Reads all that the journal keeps, up to what is its end by then, which is returned. It blocks on the disk. What is damaged is left
    /// out: the lanes report it.
    pub fn rebuild(&self, journal: &Journal<Arrived>, is_over: impl Fn() -> bool) -> Mark {
        let (first, end) = (journal.start(), journal.end());
        let (mut at, all) = (first, end.position.0 - first.position.0);
        for record in Records::all(journal) {
            if is_over() {
                break;
            }
            let Ok(record) = record.inspect_err(|problem| {
                warn!(%problem, "the journal cannot be read; the index of traces lacks what is in the rest of it");
            }) else {
                at = end;
                break;
            };
            at = record.end;
            if let Some(Ok((_, decoded))) = record.payload.as_ref().map(decode_record) {
                self.feed(&decoded.batch, record.start.position, true);
            }
            let done = at.position.0.saturating_sub(first.position.0);
            let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100).min(99);
            self.0.rebuilt.store(u8::try_from(percent).unwrap_or(0) + 1, Ordering::Relaxed);
        }
        self.0.rebuilt.store(u8::MAX, Ordering::Relaxed);
        at
    }
}
