//! One lane: read, gather, deliver, settle, and save the cursor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::status::{LaneState, LaneStatus};
use super::{BatchLimits, Batcher, DeadLetters, Ready};
use crate::feed::{Arrived, Reader};
use crate::journal::{Cursor, Journal};
use crate::sinks::{Outcome, Rejection, Sink};
use crate::support::backoff::Backoff;
use crate::support::stop::Stop;

/// Settings of a lane.
#[derive(Debug, Clone)]
pub struct LaneOptions {
    /// How deliveries are gathered.
    pub batch: BatchLimits,
    /// How long a settled item may wait for the cursor to be saved. After a crash, what was settled since is delivered again.
    pub commit_every: Duration,
    /// The first wait after a failed attempt.
    pub retry_first: Duration,
    /// The longest wait between attempts.
    pub retry_longest: Duration,
    /// The wait between probes of a sink that cannot work as configured.
    pub hold_probe: Duration,
}

/// Why a lane ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneEnd {
    /// The daemon stops; what was not delivered is in the journal.
    Drained,
    /// It cannot go on, for this reason.
    Halted(String),
}

/// The task of one sink.
pub struct Lane {
    reader: Reader,
    batcher: Batcher,
    sink: Arc<dyn Sink>,
    journal: Journal<Arrived>,
    dead_letters: DeadLetters,
    options: LaneOptions,
    status: Arc<LaneStatus>,
    cursor: Cursor,
    saved_at: Instant,
    unsaved: bool,
}

/// What a lane is made of.
pub struct LaneParts {
    /// Where it reads.
    pub reader: Reader,
    /// Where it delivers.
    pub sink: Arc<dyn Sink>,
    /// Where its cursor is kept.
    pub journal: Journal<Arrived>,
    /// Where rejected items go.
    pub dead_letters: DeadLetters,
    /// How it works.
    pub options: LaneOptions,
    /// Where it can be seen.
    pub status: Arc<LaneStatus>,
}

impl Lane {
    /// A lane that goes on where its status says.
    pub fn new(parts: LaneParts) -> Self {
        let LaneParts { reader, sink, journal, dead_letters, options, status } = parts;
        let cursor = status.cursor();
        let batcher = Batcher::new(options.batch);
        Self {
            reader,
            batcher,
            sink,
            journal,
            dead_letters,
            options,
            status,
            cursor,
            saved_at: Instant::now(),
            unsaved: false,
        }
    }

    /// Runs until the daemon stops. After `stop`, what can still be delivered is, until `deadline` is turned.
    pub async fn run(mut self, stop: Stop, deadline: Stop) -> LaneEnd {
        let end = self.deliver_all(&stop, &deadline).await;
        if let Err(problem) = self.save().await {
            error!(
                sink = self.status.sink,
                problem,
                "the cursor could not be saved; what was delivered since will be delivered again"
            );
        }
        let state = if end == LaneEnd::Drained { LaneState::Drained } else { LaneState::Halted };
        self.status.set_state(state, None);
        end
    }

    async fn deliver_all(&mut self, stop: &Stop, deadline: &Stop) -> LaneEnd {
        while self.fill(stop).await {
            while let Some(ready) = self.batcher.due(Instant::now().into_std()) {
                if let Err(end) = self.settle(ready, deadline).await {
                    return end;
                }
            }
            if self.unsaved && self.saved_at.elapsed() >= self.options.commit_every {
                self.save_or_warn().await;
            }
        }
        self.flush(deadline).await
    }

    /// Reads until a delivery is due or the cursor is to be saved. False when the daemon stops.
    async fn fill(&mut self, stop: &Stop) -> bool {
        while !self.batcher.is_full() {
            let save_at = self.unsaved.then(|| self.saved_at + self.options.commit_every);
            let wake =
                [self.batcher.due_at().map(Instant::from_std), save_at].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = stop.stopped() => return false,
                fed = self.reader.next() => self.batcher.push(fed, Instant::now().into_std()),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => return true,
            }
            if self.batcher.due_at().is_some_and(|at| at <= Instant::now().into_std()) {
                return true;
            }
        }
        true
    }

    /// Delivers what the journal still has, until it has no more or the deadline is turned.
    async fn flush(&mut self, deadline: &Stop) -> LaneEnd {
        loop {
            while !self.batcher.is_full() && self.reader.has_next() {
                tokio::select! {
                    fed = self.reader.next() => self.batcher.push(fed, Instant::now().into_std()),
                    () = deadline.stopped() => return LaneEnd::Drained,
                }
            }
            let Some(ready) = self.batcher.take() else { return LaneEnd::Drained };
            if let Err(end) = self.settle(ready, deadline).await {
                return end;
            }
        }
    }

    /// Delivers, however often it takes, and moves the cursor.
    async fn settle(&mut self, ready: Ready, deadline: &Stop) -> Result<(), LaneEnd> {
        self.status.oldest_received_at_ns.store(ready.oldest_received_at_ns, Ordering::Relaxed);
        if !ready.delivery.is_empty() {
            if self.sink.needs_checkpoint(&ready.delivery) {
                self.save_or_warn().await;
            }
            self.deliver(&ready, deadline).await?;
        }
        self.cursor.dead_lettered += ready.unreadable;
        if let Some(mark) = ready.settles {
            self.cursor.mark = mark;
        }
        self.unsaved = true;
        let oldest = self.batcher.oldest_received_at_ns().unwrap_or_default();
        self.status.oldest_received_at_ns.store(oldest, Ordering::Relaxed);
        self.status.set_cursor(self.cursor.clone());
        Ok(())
    }

    async fn deliver(&mut self, ready: &Ready, deadline: &Stop) -> Result<(), LaneEnd> {
        let mut backoff = Backoff::new(self.options.retry_first, self.options.retry_longest);
        LaneStatus::count(&self.status.deliveries);
        loop {
            self.status.in_flight.store(1, Ordering::Relaxed);
            let outcome = tokio::select! {
                outcome = self.sink.deliver(&ready.delivery) => outcome,
                () = deadline.stopped() => return Err(LaneEnd::Drained),
            };
            self.status.in_flight.store(0, Ordering::Relaxed);
            let wait = match outcome {
                Outcome::Delivered => break,
                Outcome::Reject(rejections) => {
                    self.set_aside(ready, &rejections).await?;
                    break;
                }
                Outcome::Retry { after, reason } => {
                    self.troubled(LaneState::Retrying, reason);
                    after.unwrap_or_default().max(backoff.next_wait())
                }
                Outcome::Stop { reason } => {
                    self.troubled(LaneState::Holding, reason);
                    self.options.hold_probe
                }
            };
            LaneStatus::count(&self.status.retries);
            tokio::select! {
                () = sleep(wait) => {}
                () = deadline.stopped() => return Err(LaneEnd::Drained),
            }
        }
        if self.status.set_state(LaneState::Running, None) {
            info!(sink = self.status.sink, "the sink works again");
        }
        Ok(())
    }

    async fn set_aside(&mut self, ready: &Ready, rejections: &[Rejection]) -> Result<(), LaneEnd> {
        let sink = &self.status.sink;
        match self.dead_letters.keep(sink, &ready.delivery, rejections).await {
            Ok(count) => {
                self.cursor.dead_lettered += count;
                error!(
                    sink,
                    count,
                    reason = rejections.first().map(|first| &first.reason),
                    "items were rejected and are dead letters now"
                );
                Ok(())
            }
            Err(problem) => Err(LaneEnd::Halted(format!("dead letters cannot be kept: {problem}"))),
        }
    }

    fn troubled(&self, state: LaneState, reason: String) {
        if self.status.set_state(state, Some(reason.clone())) {
            warn!(
                sink = self.status.sink,
                state = state.as_str(),
                reason,
                "the sink does not take spans; nothing is lost"
            );
        }
    }

    async fn save_or_warn(&mut self) {
        if let Err(problem) = self.save().await {
            warn!(
                sink = self.status.sink,
                problem, "the cursor could not be saved; it is tried again"
            );
        }
    }

    async fn save(&mut self) -> Result<(), String> {
        self.saved_at = Instant::now();
        self.cursor.state = self.sink.checkpoint().await?;
        let (journal, name, cursor) =
            (self.journal.clone(), self.status.sink.clone(), self.cursor.clone());
        let saved = tokio::task::spawn_blocking(move || journal.save_cursor(&name, &cursor)).await;
        saved.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.unsaved = false;
        Ok(())
    }
}
