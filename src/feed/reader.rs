//! Reads batches in the order of the journal: from the tail, or from the disk when behind it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::tail::{Look, ReaderId, Tail};
use super::{Arrived, Feed};
use crate::journal::{self, Journal, Mark, Position};
use crate::normalize::decode_record;
use crate::span::Batch;

/// A batch and its place in the journal.
#[derive(Debug, Clone)]
pub struct Fed {
    /// Where its record starts.
    pub start: Mark,
    /// Where the next one starts.
    pub end: Mark,
    /// The decoded request.
    pub batch: Arc<Batch>,
}

impl Fed {
    /// Items that the journal counts but that could not be read back.
    pub fn unreadable(&self) -> u64 {
        (self.end.items - self.start.items).saturating_sub(self.batch.items.len() as u64)
    }
}

/// Batches taken from the tail under one lock.
const TAKEN_AT_ONCE: usize = 64;
/// Bytes read from the disk and decoded in one go, away from the runtime's threads.
const READ_AT_ONCE_BYTES: usize = 4 << 20;

/// One consumer's way through the journal.
#[derive(Debug)]
pub struct Reader {
    journal: Journal<Arrived>,
    tail: Arc<Tail>,
    id: ReaderId,
    end: watch::Receiver<Mark>,
    position: Position,
    ready: VecDeque<Fed>,
    disk: Option<journal::Reader>,
}

impl Reader {
    pub(super) fn new(feed: &Feed, from: Position) -> Self {
        Self {
            journal: feed.journal.clone(),
            tail: Arc::clone(&feed.tail),
            id: feed.tail.join(from),
            end: feed.journal.watch_end(),
            position: from,
            ready: VecDeque::new(),
            disk: None,
        }
    }

    /// The next batch; waits until there is one. Safe to cancel: nothing is lost or skipped.
    pub async fn next(&mut self) -> Fed {
        loop {
            if let Some(fed) = self.ready.pop_front() {
                self.position = fed.end.position;
                if self.ready.is_empty() {
                    self.tail.advance(self.id, self.position);
                }
                return fed;
            }
            self.end.mark_unchanged();
            match self.tail.look(self.position, TAKEN_AT_ONCE) {
                Look::Here(found) => self.ready = found.into(),
                Look::Behind(low) => self.read_disk(low).await,
                Look::AtEnd if self.position < self.journal.end().position => {
                    self.read_disk(self.journal.end().position).await
                }
                // The journal outlives its readers, so the channel stays open.
                Look::AtEnd => self.end.changed().await.unwrap_or_default(),
            }
        }
    }

    /// Whether [`Reader::next`] has something without waiting for a request to arrive.
    pub fn has_next(&self) -> bool {
        !self.ready.is_empty() || self.position < self.journal.end().position
    }

    async fn read_disk(&mut self, up_to: Position) {
        let disk = self.disk.take().unwrap_or_else(|| self.journal.read_from(self.position));
        let read = tokio::task::spawn_blocking(move || read_some(disk, up_to)).await;
        if let Ok((disk, ready)) = read {
            self.ready = ready;
            self.disk =
                (self.ready.back().is_some_and(|last| last.end.position < up_to)).then_some(disk);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.tail.leave(self.id);
    }
}

fn read_some(mut disk: journal::Reader, up_to: Position) -> (journal::Reader, VecDeque<Fed>) {
    let mut ready = VecDeque::new();
    let mut bytes = 0;
    while bytes < READ_AT_ONCE_BYTES {
        let Ok(Some(stored)) = disk.next() else { break };
        bytes += stored.payload.len();
        if let Ok((_, decoded)) = decode_record(&stored.payload) {
            ready.push_back(Fed {
                start: stored.start,
                end: stored.end,
                batch: Arc::new(decoded.batch),
            });
        }
        if stored.end.position >= up_to {
            break;
        }
    }
    (disk, ready)
}
