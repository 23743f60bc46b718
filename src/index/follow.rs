//! Feeds the index: what the journal keeps, read again after a start, and then what comes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;

use super::Index;
use crate::feed::{Arrived, Fed, Feed};
use crate::journal::{Journal, Mark, ReadError};
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
        let mut at = journal.start();
        let mut reader = journal.read_from(at.position);
        let first = at.position.0;
        while !is_over() {
            match reader.next() {
                Ok(Some(stored)) => {
                    at = stored.end;
                    if let Ok((_, decoded)) = decode_record(&stored.payload) {
                        self.feed(&decoded.batch, stored.start.position, true);
                    }
                }
                Ok(None) => break,
                Err(ReadError::Damaged { resume, .. } | ReadError::Removed { resume, .. }) => {
                    at = resume;
                }
                Err(problem) => {
                    warn!(%problem, "the journal cannot be read; the index of traces lacks what is in the rest of it");
                    at = journal.end();
                    break;
                }
            }
            let (done, all) = (at.position.0 - first, journal.end().position.0 - first);
            let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100).min(99);
            self.0.rebuilt.store(u8::try_from(percent).unwrap_or(0) + 1, Ordering::Relaxed);
        }
        self.0.rebuilt.store(u8::MAX, Ordering::Relaxed);
        at
    }
}
