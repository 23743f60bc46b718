//! One lane: read, gather, deliver, settle, and save the cursor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::status::{LaneState, LaneStatus};
use super::{BatchLimits, Batcher, DeadLetters, Ready};
use crate::feed::{Arrived, Reader};
use crate::journal::{AppendError, Cursor, Journal, WhenFull};
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
    /// What happens when the journal is full because of this sink.
    pub when_full: WhenFull,
}

/// How an attempt to deliver ended.
enum Settled {
    /// Every item arrived or is a dead letter.
    Done,
    /// The journal was full, and the lane gave up what this delivery belongs to.
    GaveWay,
}

/// How often a lane that may drop the oldest looks whether it must.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(250);

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

    /// Where it can be seen.
    pub fn status(&self) -> &Arc<LaneStatus> {
        &self.status
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
            match self.deliver(&ready, deadline).await? {
                Settled::Done => {}
                Settled::GaveWay => return Ok(()),
            }
        }
        for (record, items) in &ready.not_understood {
            self.dead_letters
                .keep_record(&self.status.sink, record)
                .await
                .map_err(no_dead_letters)?;
            self.cursor.dead_lettered += items;
        }
        self.cursor.dropped += ready.damaged;
        if let Some(mark) = ready.settles {
            self.cursor.mark = mark;
        }
        self.unsaved = true;
        let oldest = self.batcher.oldest_received_at_ns().unwrap_or_default();
        self.status.oldest_received_at_ns.store(oldest, Ordering::Relaxed);
        self.status.set_cursor(self.cursor.clone());
        Ok(())
    }

    async fn deliver(&mut self, ready: &Ready, deadline: &Stop) -> Result<Settled, LaneEnd> {
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
                () = self.journal_full() => {
                    self.give_way();
                    self.save_or_warn().await;
                    return Ok(Settled::GaveWay);
                }
                () = deadline.stopped() => return Err(LaneEnd::Drained),
            }
        }
        if self.status.set_state(LaneState::Running, None) {
            info!(sink = self.status.sink, "the sink works again");
        }
        Ok(Settled::Done)
    }

    /// Waits until the journal is full and this lane is to give way; forever for a lane that never does.
    async fn journal_full(&self) {
        if self.options.when_full == WhenFull::Refuse {
            return std::future::pending().await;
        }
        while self.journal.has_room()
            || self.journal.segment_end(self.cursor.mark.position).is_none()
        {
            sleep(LOOK_FOR_ROOM).await;
        }
    }

    /// Gives up everything up to the end of the cursor's segment, so that the journal can let that segment go.
    fn give_way(&mut self) {
        let Some(mark) = self.journal.segment_end(self.cursor.mark.position) else { return };
        let lost = mark.items.saturating_sub(self.cursor.mark.items);
        error!(
            sink = self.status.sink,
            lost,
            "the journal is full and this sink is set to drop the oldest: these items are lost to it"
        );
        self.cursor.mark = mark;
        self.cursor.dropped += lost;
        self.batcher = Batcher::new(self.options.batch);
        self.reader.seek(mark);
        self.status.set_cursor(self.cursor.clone());
        self.unsaved = true;
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
            Err(problem) => Err(no_dead_letters(problem)),
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

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn no_dead_letters(problem: AppendError) -> LaneEnd {
    LaneEnd::Halted(format!("dead letters cannot be kept: {problem}"))
}
