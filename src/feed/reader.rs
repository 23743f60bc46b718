//! Reads batches in the order of the journal: from the tail, or from the disk when behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::error;

use super::tail::{Look, ReaderId, Tail};
use super::{Arrived, Feed};
use crate::journal::{self, Journal, Mark, Position, ReadError};
use crate::normalize::decode_record;
use crate::span::{Batch, Source};

/// A batch and its place in the journal.
#[derive(Debug, Clone)]
pub struct Fed {
    /// Where its record starts.
    pub start: Mark,
    /// Where the next one starts.
    pub end: Mark,
    /// The decoded request; empty when it could not be read back.
    pub batch: Arc<Batch>,
    /// A record that is whole but that this version does not understand, or not all of it.
    pub not_understood: Option<Bytes>,
}

impl Fed {
    /// Items that the journal counts but that could not be read back.
    pub fn unreadable(&self) -> u64 {
        self.end
            .items
            .saturating_sub(self.start.items)
            .saturating_sub(self.batch.items.len() as u64)
    }
}

/// Batches taken from the tail under one lock.
const TAKEN_AT_ONCE: usize = 64;
/// Bytes read from the disk and decoded in one go, away from the runtime's threads. Little enough to be in a processor's cache still
/// when the lane encodes it: with 4 MiB an agent span to Elasticsearch, gzip included, cost 68 us instead of 61.
const READ_AT_ONCE_BYTES: usize = 1 << 20;

/// The shortest time between two looks for more. Under load the journal's end moves a thousand times a second; lanes gather for
/// longer than this anyway, and waking one costs as much as a dozen spans.
const REST: Duration = Duration::from_millis(5);
/// The wait before the disk is read again after it failed.
const RETRY_READ: Duration = Duration::from_secs(1);

/// One consumer's way through the journal.
#[derive(Debug)]
pub struct Reader {
    journal: Journal<Arrived>,
    tail: Arc<Tail>,
    id: ReaderId,
    end: watch::Receiver<Mark>,
    /// Everything before this was returned.
    at: Mark,
    ready: VecDeque<Fed>,
    disk: Option<journal::Reader>,
    woke_at: Instant,
}

impl Reader {
    pub(super) fn new(feed: &Feed, from: Mark) -> Self {
        Self {
            journal: feed.journal.clone(),
            tail: Arc::clone(&feed.tail),
            id: feed.tail.join(from.position),
            end: feed.journal.watch_end(),
            at: from,
            ready: VecDeque::new(),
            disk: None,
            woke_at: Instant::now(),
        }
    }

    /// The next batch; waits until there is one. Safe to cancel: nothing is lost or skipped.
    pub async fn next(&mut self) -> Fed {
        loop {
            if let Some(fed) = self.ready.pop_front() {
                self.at = fed.end;
                if self.ready.is_empty() {
                    self.tail.advance(self.id, self.at.position);
                }
                return fed;
            }
            let end = *self.end.borrow_and_update();
            match self.tail.look(self.at.position, TAKEN_AT_ONCE) {
                Look::Here(found) => self.ready = found.into(),
                Look::Behind(low) => self.read_disk(low).await,
                Look::AtEnd if self.at.position < end.position => {
                    self.read_disk(end.position).await;
                }
                Look::AtEnd => self.rest().await,
            }
        }
    }

    /// Waits until there is more, and when there was more a moment ago, for so much of a moment as is left.
    async fn rest(&mut self) {
        // The journal outlives its readers, so the channel stays open.
        self.end.changed().await.unwrap_or_default();
        sleep_until(self.woke_at + REST).await;
        self.woke_at = Instant::now();
    }

    /// Goes on at another mark.
    pub fn seek(&mut self, to: Mark) {
        self.at = to;
        self.ready.clear();
        self.disk = None;
        self.tail.advance(self.id, to.position);
    }

    /// Whether [`Reader::next`] has something without waiting for a request to arrive.
    pub fn has_next(&self) -> bool {
        !self.ready.is_empty() || self.at.position < self.journal.end().position
    }

    async fn read_disk(&mut self, up_to: Position) {
        let disk = self.disk.take().unwrap_or_else(|| self.journal.read_from(self.at.position));
        let from = self.at;
        let Ok(read) = tokio::task::spawn_blocking(move || read_some(disk, from, up_to)).await
        else {
            return;
        };
        self.ready = read.ready;
        let reached = self.ready.back().map_or(from.position, |last| last.end.position);
        self.disk = (reached < up_to && read.failed.is_none()).then_some(read.disk);
        if let Some(problem) = read.failed {
            error!(problem, position = reached.0, "the journal cannot be read; it is tried again");
            tokio::time::sleep(RETRY_READ).await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.tail.leave(self.id);
    }
}

struct Read {
    disk: journal::Reader,
    ready: VecDeque<Fed>,
    failed: Option<String>,
}

fn read_some(mut disk: journal::Reader, from: Mark, up_to: Position) -> Read {
    let mut ready = VecDeque::new();
    let (mut at, mut bytes) = (from, 0);
    while bytes < READ_AT_ONCE_BYTES && at.position < up_to {
        let fed = match disk.next() {
            Ok(Some(stored)) => {
                bytes += stored.payload.len();
                decoded(&stored)
            }
            // What is lost was reported when the damage was found; here it is only stepped over and counted.
            Err(ReadError::Damaged { resume, .. } | ReadError::Removed { resume, .. }) => {
                Fed { start: at, end: resume, batch: Arc::new(nothing()), not_understood: None }
            }
            Ok(None) => {
                return Read { disk, ready, failed: Some("it ends before its own end".to_owned()) };
            }
            Err(ReadError::Storage(problem)) => {
                return Read { disk, ready, failed: Some(problem.to_string()) };
            }
        };
        at = fed.end;
        ready.push_back(fed);
    }
    Read { disk, ready, failed: None }
}

fn decoded(stored: &journal::Stored) -> Fed {
    let (batch, not_understood) = match decode_record(&stored.payload) {
        Ok((_, decoded)) => {
            let accepted = stored.end.items.saturating_sub(stored.start.items);
            let missing = accepted.saturating_sub(decoded.batch.items.len() as u64);
            if missing > 0 {
                let position = stored.start.position.0;
                error!(
                    position,
                    missing,
                    "items are not understood by this version; their record becomes a dead letter of each sink"
                );
            }
            (decoded.batch, (missing > 0).then(|| stored.payload.clone()))
        }
        Err(problem) => {
            let position = stored.start.position.0;
            error!(position, %problem, "a record is not understood by this version; it becomes a dead letter of each sink");
            (nothing(), Some(stored.payload.clone()))
        }
    };
    Fed { start: stored.start, end: stored.end, batch: Arc::new(batch), not_understood }
}

fn nothing() -> Batch {
    Batch { source: Source::unknown(), items: Vec::new(), bytes: 0 }
}
