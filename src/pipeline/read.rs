//! Records that a lane has read, on their way into the window.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::error;

use super::input::is_much;
use super::lane::Lane;
use super::status::OutcomeCounts;
use super::tracker::Entry;
use super::window::Purpose;
use crate::feed::FeedEntry;
use crate::journal::AppendError;
use crate::rules::{Decided, KnownTraces, Ruled, Rules};
use crate::sinks::{Delivery, RejectClass};
use crate::span::Batch;
use crate::support::clock;

/// Reasons for which entire records become dead letters.
const NOT_UNDERSTOOD: &str = "this version does not understand the record";
const PANICKED: &str = "this version panicked on the record";

impl Lane {
    /// Registers a record that was read, without the items that rules remove.
    pub(super) async fn read(&mut self, mut fed: FeedEntry, known: Option<Decided>) {
        self.taking = Some(fed.start.position);
        if self.poisonous != self.taking {
            let ruled = Self::ruled(&self.status.rules, &fed.batch, known).await;
            (fed.batch, fed.filtered) = (Arc::clone(&ruled.batch), ruled.filtered);
            self.traces.add(&fed, &ruled).await;
        }
        self.pending = Some(fed);
    }

    /// Applies rules to a request. Expensive work is moved off the runtime's threads.
    async fn ruled(rules: &Arc<Rules>, batch: &Arc<Batch>, known: Option<Decided>) -> Ruled {
        let known = Arc::new(known);
        if is_much(batch) && rules.read_spans() {
            let (rules, batch, known) = (Arc::clone(rules), Arc::clone(batch), Arc::clone(&known));
            let apply = move || rules.apply(&batch, KnownTraces::of(known.as_ref().as_ref()));
            let left = tokio::task::spawn_blocking(apply).await;
            // A panic occurs again below, where it is handled.
            if let Ok(left) = left {
                return left;
            }
        }
        rules.apply(batch, KnownTraces::of(known.as_ref().as_ref()))
    }

    /// Queues the pending record after the amendments that it makes due, because the cursor cannot pass it before they are done. A record
    /// that is not due at `now` stays pending.
    pub(super) async fn take_in(&mut self, now: Instant) {
        while self.has_room() {
            if !self.traces.table.amendments.is_empty() {
                self.queue_amendments().await;
                continue;
            }
            let Some(fed) = self.pending.take_if(|_| self.pending_at <= now) else { return };
            match self.set_aside(&fed).await {
                Ok(settled) => self.queue(&fed, settled),
                Err(problem) => {
                    // The disk is full: this record waits, and all records after it.
                    self.status.no_dead_letters(&problem);
                    self.pending_at = now + self.options.retry.hold;
                    self.pending = Some(fed);
                    return;
                }
            }
        }
    }

    /// Turns a record that cannot be delivered into a dead letter.
    async fn set_aside(&mut self, fed: &FeedEntry) -> Result<OutcomeCounts, AppendError> {
        let items = fed.unreadable();
        let (record, reason, class, items) = match &fed.not_understood {
            _ if self.poisonous == Some(fed.start.position) => {
                let record = self.journal.read_from(fed.start.position).next().ok().flatten();
                let items = fed.end.items.saturating_sub(fed.start.items);
                (record.and_then(|record| record.payload), PANICKED, RejectClass::Panic, items)
            }
            record => (record.clone(), NOT_UNDERSTOOD, RejectClass::NotUnderstood, items),
        };
        let Some(record) = record else {
            return Ok(OutcomeCounts { dropped: items, ..OutcomeCounts::default() });
        };
        let sink = &self.status.sink;
        self.dead_letters.keep_record(sink, &record, items, reason).await?;
        self.status.count_dead_letters(class, items);
        error!(sink, items, reason, "a record is now a dead letter");
        Ok(OutcomeCounts { dead_lettered: items, ..OutcomeCounts::default() })
    }

    fn queue(&mut self, fed: &FeedEntry, settled: OutcomeCounts) {
        let mut delivery = Delivery::default();
        if self.poisonous.take_if(|poisonous| *poisonous == fed.start.position).is_none() {
            delivery.add(&fed.batch, 0..fed.batch.items.len());
        }
        let entry = Entry {
            end: Some(fed.end),
            received_at_ns: fed.batch.source.received_at_ns,
            settled: OutcomeCounts { filtered: fed.filtered, ..settled },
            ..Entry::default()
        };
        self.enqueue(&Purpose::Journal, entry, delivery);
        self.taking = None;
    }

    fn enqueue(&mut self, purpose: &Purpose, mut entry: Entry, delivery: Delivery) {
        entry.left = delivery.len();
        let entry = self.tracker.push(entry);
        self.window.push(purpose, entry, delivery, Instant::now().into_std());
    }

    /// Queues roots that are due. They are delivered like the spans below them, in the same partition and after those read before.
    pub(super) fn queue_roots(&mut self) {
        let now_ns = clock::unix_now_ns();
        if !self.has_next() && self.pending.is_none() {
            self.traces.has_caught_up(now_ns);
        }
        while self.has_room() && self.pending.is_none() {
            let Some((roots, roots_until)) = self.traces.take_roots(self.options.batch.items_max)
            else {
                break;
            };
            let entry = Entry { received_at_ns: now_ns, roots_until, ..Entry::default() };
            self.enqueue(&Purpose::Journal, entry, roots);
        }
    }

    /// Queues amendments. They follow the first delivery, in the partition of their trace, and get the context known when they begin.
    async fn queue_amendments(&mut self) {
        if !self.sink.replaces_by_id() {
            self.traces.table.amendments.clear();
            return;
        }
        let delivery = self
            .traces
            .take_amendments(&self.journal, self.way.decisions(), self.options.batch)
            .await;
        let entry = Entry { received_at_ns: clock::unix_now_ns(), ..Entry::default() };
        self.enqueue(&Purpose::Amendment, entry, delivery);
    }
}
