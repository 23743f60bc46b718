//! Feeds the index: after a start with what the journal keeps, for the summaries, and then with new records.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use bytes::Bytes;
use tracing::warn;

use super::{Index, read};
use crate::feed::{Attachment, Feed, FeedEntry, Records};
use crate::journal::{Journal, Mark, Position};
use crate::normalize::{Decoded, decode_record};
use crate::prices::Prices;
use crate::span::Batch;
use crate::support::lock::lock;
use crate::telemetry::Understanding;

/// Maximum bytes of requests per step on a blocking thread.
const AT_ONCE_BYTES_MAX: usize = 4 << 20;
/// Maximum number of threads that read the journal again; never more than processors.
const DECODERS_MAX: usize = 4;

impl Index {
    /// Reads what the journal keeps so far, and then follows new records for ever. Dropping the future stops it. `lacks` counts
    /// unrecognized data of new records: each span once, regardless of how many sinks read it.
    pub fn follow(self, feed: Feed, lacks: Understanding) -> impl Future<Output = ()> {
        // Before the future is polled, so that everything acknowledged from here on is counted.
        let from = feed.journal().end();
        async move {
            if self.kept().traces {
                let (index, journal) = (self.clone(), feed.journal().clone());
                let alive = Arc::new(());
                let followed = Arc::downgrade(&alive);
                let is_over = move || followed.strong_count() == 0;
                let rebuild = move || index.rebuild(&journal, from, is_over);
                if tokio::task::spawn_blocking(rebuild).await.is_err() {
                    warn!("the index of traces lacks older traces until the next start");
                    lock(&self.0.table).gone.lose(from.position);
                }
            }
            if self.kept().traces || self.kept().agents {
                self.follow_from(&feed, from, lacks).await;
            }
        }
    }

    async fn follow_from(self, feed: &Feed, from: Mark, lacks: Understanding) {
        // The reader joins only now, so that the tail retains nothing during the rebuild from disk.
        let mut follower = feed.follower(from);
        loop {
            self.take(follower.next(AT_ONCE_BYTES_MAX).await, &lacks).await;
        }
    }

    /// Adds records read from the journal up to a position, on a blocking thread.
    async fn take(&self, (taken, until): (Vec<FeedEntry>, Position), lacks: &Understanding) {
        let (index, lacks, prices) = (self.clone(), lacks.clone(), self.prices());
        let take = move || {
            for FeedEntry { start, batch, .. } in taken {
                index.feed(&batch, start.position);
                batch.spans().for_each(|span| lacks.note(span, prices.lacks(span)));
            }
        };
        if tokio::task::spawn_blocking(take).await.is_err() {
            warn!("requests are missing from the index of traces and the metrics of agents");
            lock(&self.0.table).gone.lose(until);
        }
    }

    /// Reads all that the journal keeps before a mark. Blocks on the disk. Damaged records are skipped, because the lanes report them.
    pub fn rebuild(&self, journal: &Journal<Attachment>, until: Mark, is_over: impl Fn() -> bool) {
        let first = journal.start().position;
        let all = until.position.0.saturating_sub(first.0);
        let prices = &*self.prices();
        let mut records = Records::all(journal).before(until.position);
        let decoders = thread::available_parallelism().map_or(1, usize::from).min(DECODERS_MAX);
        // Decoding takes most of the time. Decoded requests are fed here, in journal order.
        thread::scope(|scope| {
            let (mut decoding, mut is_read) = (VecDeque::new(), false);
            while !is_read || !decoding.is_empty() {
                if !is_read {
                    let group = self.next_group(&mut records, until.position);
                    is_read = group.is_empty() || is_over();
                    decoding.push_back(scope.spawn(move || decoded(&group, prices)));
                }
                if (is_read || decoders < decoding.len())
                    && let Some(decoded) = decoding.pop_front()
                {
                    let decoded = decoded.join().unwrap_or_else(|panic| resume_unwind(panic));
                    self.take_again(decoded, (first, all));
                }
            }
        });
        self.0.rebuilt.store(u8::MAX, Ordering::Relaxed);
    }

    /// Computes the costs of all calls again with the current prices, from what the journal keeps. Blocks on the disk.
    pub fn reprice(&self, journal: &Journal<Attachment>) {
        let again = Self::new(self.prices());
        again.rebuild(journal, journal.end(), || false);
        if Arc::ptr_eq(&again.prices(), &self.prices()) {
            lock(&self.0.table).reprice(&lock(&again.0.table));
        }
    }

    /// Adds decoded requests, and updates the progress, given the first position and the total length.
    fn take_again(&self, requests: Vec<(Batch, Position)>, (first, all): (Position, u64)) {
        let prices = self.prices();
        for (batch, at) in requests {
            let request = (&*batch.items, batch.source.received_at_ns);
            lock(&self.0.table).feed(request, at, &prices, true);
            let percent = at.0.saturating_sub(first.0).saturating_mul(100).checked_div(all);
            let percent = u8::try_from(percent.unwrap_or(100).min(99)).unwrap_or(0);
            self.0.rebuilt.store(percent + 1, Ordering::Relaxed);
        }
    }

    /// Returns some of the records that start before a position; empty after the last one.
    fn next_group(&self, records: &mut Records, until: Position) -> Vec<(Bytes, Position)> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while bytes < AT_ONCE_BYTES_MAX
            && let Some(record) = records.next()
        {
            let Ok(record) = record.inspect_err(|problem| {
                warn!(%problem, "the journal cannot be read; the index of traces lacks the rest of it");
                lock(&self.0.table).gone.lose(until);
            }) else {
                break;
            };
            if let Some(payload) = record.payload {
                bytes += payload.len();
                group.push((payload, record.start.position));
            }
        }
        group
    }
}

/// Decodes these records and reads the facts that are summarized.
fn decoded(records: &[(Bytes, Position)], prices: &Prices) -> Vec<(Batch, Position)> {
    let decoded = records.iter().filter_map(|(payload, at)| {
        let (_, Decoded { batch, .. }) = decode_record(payload).ok()?;
        read(&batch, prices);
        Some((batch, *at))
    });
    decoded.collect()
}
