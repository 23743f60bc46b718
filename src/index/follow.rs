//! Feeds the index: what the journal keeps, read again after a start for the summaries, and then what comes.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use tracing::warn;

use super::{Index, read};
use crate::feed::{Arrived, Fed, Feed, Records};
use crate::journal::{Journal, Mark, Position};
use crate::normalize::{Decoded, decode_record};
use crate::prices::Prices;
use crate::span::Batch;
use crate::support::lock::lock;
use crate::telemetry::Understanding;

/// How long it lets what came pass by. Lanes look for more every 5 ms at most, and where a sink reads facts its lane has read them by
/// then: nobody reads the same twice.
const BEHIND: Duration = Duration::from_millis(6);
/// Bytes of requests that are taken in one go away from the runtime's threads.
const AT_ONCE_BYTES_MAX: usize = 4 << 20;
/// Threads that read the journal again at most. There are no more of them than processors.
const DECODERS_MAX: usize = 4;

impl Index {
    /// Reads what the journal keeps by now, and then takes what comes, for ever. Dropped, it stops.
    /// What is not understood of what comes is counted there: each span once, however many sinks read it, or none.
    pub fn follow(self, feed: Feed, lacks: Understanding) -> impl Future<Output = ()> {
        // Before the future is polled: what is acknowledged from here on is counted.
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
        // It joins only now, so that the tail holds nothing for who reads from the disk.
        let mut reader = feed.reader(from);
        loop {
            let mut taken = vec![reader.next().await];
            let until = feed.journal().end().position;
            sleep(BEHIND).await;
            while !taken.is_empty() || reader.at().position < until {
                let mut bytes = 0;
                while reader.at().position < until && bytes < AT_ONCE_BYTES_MAX {
                    let more = reader.next().await;
                    bytes += more.batch.bytes;
                    taken.push(more);
                }
                self.take((std::mem::take(&mut taken), reader.at().position), &lacks).await;
            }
        }
    }

    /// Adds what was taken from the journal up to here, away from the runtime's threads.
    async fn take(&self, (taken, until): (Vec<Fed>, Position), lacks: &Understanding) {
        let (index, lacks, prices) = (self.clone(), lacks.clone(), self.prices());
        let take = move || {
            for Fed { start, batch, .. } in taken {
                index.feed(&batch, start.position);
                batch.spans().for_each(|span| lacks.note(span, prices.lacks(span)));
            }
        };
        if tokio::task::spawn_blocking(take).await.is_err() {
            warn!("requests are missing from the index of traces and the metrics of agents");
            lock(&self.0.table).gone.lose(until);
        }
    }

    /// Reads all that the journal keeps before a mark. It blocks on the disk. What is damaged is left out: the lanes report it.
    pub fn rebuild(&self, journal: &Journal<Arrived>, until: Mark, is_over: impl Fn() -> bool) {
        let first = journal.start().position;
        let all = until.position.0.saturating_sub(first.0);
        let prices = &*self.prices();
        let mut records = Records::all(journal).before(until.position);
        let decoders = thread::available_parallelism().map_or(1, usize::from).min(DECODERS_MAX);
        // Decoding is what takes time. What was decoded is fed here, in the order of the journal.
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

    /// Adds what was decoded, and says how far that is from the first position on, of so much.
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

    /// Some records of those that start before a position; none behind the last.
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

/// What is understood of these records, with what is summed up of it.
fn decoded(records: &[(Bytes, Position)], prices: &Prices) -> Vec<(Batch, Position)> {
    let decoded = records.iter().filter_map(|(payload, at)| {
        let (_, Decoded { batch, .. }) = decode_record(payload).ok()?;
        read(&batch, prices);
        Some((batch, *at))
    });
    decoded.collect()
}
