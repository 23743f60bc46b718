//! Feeds the index and the metrics of agents: what the journal keeps, read again after a start for the index, and then what comes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;

use super::Index;
use crate::feed::{AgentMetrics, Arrived, Fed, Feed, Reader, Records};
use crate::journal::{Journal, Mark};
use crate::normalize::decode_record;

/// Requests, and bytes of them, that are taken in one go away from the runtime's threads.
const AT_ONCE_MAX: usize = 64;
const AT_ONCE_BYTES_MAX: usize = 4 << 20;

/// Who is fed by one reader behind intake, where they are switched on.
#[derive(Debug, Clone, Default)]
pub struct Followers {
    /// The index of traces, which also wants what the journal keeps.
    pub index: Option<Index>,
    /// What agents did, counted from now on.
    pub agents: Option<AgentMetrics>,
}

impl Followers {
    /// Has the index read what the journal keeps by now, and then feeds all with what comes, for ever. Dropped, it stops.
    pub fn follow(self, feed: Feed) -> impl Future<Output = ()> {
        // Before the future is polled: what is acknowledged from here on is counted.
        let from = feed.journal().end();
        async move {
            if let Some(index) = self.index.clone() {
                let (journal, alive) = (feed.journal().clone(), Arc::new(()));
                let followed = Arc::downgrade(&alive);
                let is_over = move || followed.strong_count() == 0;
                let rebuild = move || index.rebuild(&journal, from, is_over);
                if tokio::task::spawn_blocking(rebuild).await.is_err() {
                    warn!("the index of traces lacks what the journal keeps, until the next start");
                }
            }
            // It joins only now, so that the tail holds nothing for who reads from the disk.
            if self.index.is_some() || self.agents.is_some() {
                self.follow_from(feed.reader(from)).await;
            }
        }
    }

    fn take(&self, taken: Vec<Fed>) {
        for Fed { start, batch, .. } in taken {
            if let Some(agents) = &self.agents {
                agents.feed(&batch);
            }
            if let Some(index) = &self.index {
                index.feed(&batch, start.position, false);
            }
        }
    }

    async fn follow_from(self, mut reader: Reader) {
        loop {
            let mut taken = vec![reader.next().await];
            let mut bytes = 0;
            while reader.has_next() && taken.len() < AT_ONCE_MAX && bytes < AT_ONCE_BYTES_MAX {
                let more = reader.next().await;
                bytes += more.batch.bytes;
                taken.push(more);
            }
            let followers = self.clone();
            let added = tokio::task::spawn_blocking(move || followers.take(taken));
            if added.await.is_err() {
                warn!("requests are missing in the index of traces and the metrics of agents");
            }
        }
    }
}

impl Index {
    /// Reads all that the journal keeps before a mark. It blocks on the disk. What is damaged is left out: the lanes report it.
    pub fn rebuild(&self, journal: &Journal<Arrived>, until: Mark, is_over: impl Fn() -> bool) {
        let first = journal.start().position;
        let all = until.position.0.saturating_sub(first.0);
        for record in Records::all(journal) {
            let Ok(record) = record.inspect_err(|problem| {
                warn!(%problem, "the journal cannot be read; the index of traces lacks what is in the rest of it");
            }) else {
                break;
            };
            if record.start.position >= until.position || is_over() {
                break;
            }
            if let Some(Ok((_, decoded))) = record.payload.as_ref().map(decode_record) {
                self.feed(&decoded.batch, record.start.position, true);
            }
            let done = record.end.position.0.saturating_sub(first.0);
            let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100).min(99);
            self.0.rebuilt.store(u8::try_from(percent).unwrap_or(0) + 1, Ordering::Relaxed);
        }
        self.0.rebuilt.store(u8::MAX, Ordering::Relaxed);
    }
}
