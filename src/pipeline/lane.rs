//! One lane: read, queue, attempt, settle, and save the cursor.
//!
//! All waiting happens in the loop of [`Lane::run`]. An attempt is a single call of the sink, and its remaining work returns to the window.
//! So the breaker decides in one place what begins and when, and a recovered backend requires no wake-ups.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, warn};

use super::attempt::{Attempts, Ended};
use super::breaker::Breaker;
use super::commit::save;
use super::input::{LaneInput, instant_of};
use super::job::{Job, Jobs};
use super::status::{LaneState, LaneStatus};
use super::traces::LaneTraces;
use super::tracker::{Entry, Tracker};
use super::window::{NO_ENTRY, Purpose, Window};
use super::{DeadLetters, LaneHandle, LaneOptions};
use crate::feed::{Attachment, FeedEntry, Reader};
use crate::journal::{Journal, Mark, Position, WhenFull};
use crate::sinks::{Delivery, Pace, Sink, SizeLimit};
use crate::support::backoff::Backoff;
use crate::support::stop::Stop;

/// Interval of checks whether deferred items may be sent, and whether the journal is full and this lane can free space.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Delay of a save while nothing is under way. At low load, a crash repeats the items of this time.
const COMMIT_IDLE: Duration = Duration::from_millis(100);
/// Time limit for the last save after the deadline.
const LAST_SAVE_MAX: Duration = Duration::from_secs(1);
/// The wait after a panic of the lane's code, before it continues from its cursor.
const REST_AFTER_PANIC: Duration = Duration::from_millis(200);
/// After this many panics at the same cursor, the record there is considered the cause.
const PANICS_MAX: u32 = 3;

/// The task of one sink.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of their own, not the states of one machine"
)]
pub struct Lane {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) way: LaneInput,
    /// A record that was read and waits for space in the window.
    pub(super) pending: Option<FeedEntry>,
    /// When to retry the pending record after a failure.
    pub(super) pending_at: Instant,
    /// The record that is being processed, in case that panics.
    pub(super) taking: Option<Position>,
    /// A record on which the program panics.
    pub(super) poisonous: Option<Position>,
    pub(super) window: Window,
    pub(super) tracker: Tracker,
    pub(super) traces: LaneTraces,
    pub(super) attempts: Attempts,
    pub(super) breaker: Breaker,
    pub(super) size: SizeLimit,
    /// Number of attempts that delivered something.
    pub(super) arrivals: u64,
    /// Whether the sink last reported that it cannot work as configured.
    pub(super) is_held: bool,
    /// Whether no delivery may start before the cursor is saved with a checkpoint.
    pub(super) owes_checkpoint: bool,
    pub(super) saving: Option<Saving>,
    /// Whether the sink's last checkpoint failed.
    has_failed: bool,
    /// Whether the journal is full and the next checkpoint will free space.
    hurries: bool,
    saved_at: Option<Instant>,
    unsaved: bool,
    jobs: mpsc::Receiver<(Delivery, Arc<Job>)>,
    handle: LaneHandle,
    /// Jobs that wait for the next checkpoint to be saved.
    pub(super) jobs_done: Vec<Arc<Job>>,
    /// Whether it follows the journal, or only runs jobs.
    pub(super) follows: bool,
    pub(super) journal: Journal<Attachment>,
    pub(super) dead_letters: DeadLetters,
    pub(super) options: LaneOptions,
    pub(super) status: Arc<LaneStatus>,
}

/// A save in progress, with the jobs that wait for it.
type Saving = BoxFuture<'static, (Saved, Vec<Arc<Job>>)>;
/// See [`save`].
type Saved = (Result<(), Pace>, bool);
pub(super) type UnderWay = FuturesUnordered<BoxFuture<'static, Ended>>;

impl Lane {
    /// Creates a lane. It reads from `reader` and continues where its status says; its cursor is kept in the journal.
    pub fn new(
        reader: Reader,
        sink: Arc<dyn Sink>,
        journal: Journal<Attachment>,
        dead_letters: DeadLetters,
        options: LaneOptions,
        status: Arc<LaneStatus>,
    ) -> Self {
        let concurrency = sink.concurrency_max().max(1);
        let (way_in, jobs) = Jobs::new();
        let handle = LaneHandle {
            status: Arc::clone(&status),
            limits: options.batch,
            trace_needs: sink.trace_needs(),
            jobs: way_in,
            handing_over: Stop::default(),
        };
        status.forget_times();
        journal.set_dropping(&status.sink, options.when_full == WhenFull::DropOldest);
        let traces = LaneTraces::new(sink.trace_needs(), Arc::clone(&status));
        let backoff = Backoff::new(options.retry.first, options.retry.longest);
        let breaker = Breaker::new(concurrency, backoff);
        status.concurrency.store(breaker.allowed(), Ordering::Relaxed);
        let attempts = Attempts {
            sink: Arc::clone(&sink),
            dead_letters: dead_letters.clone(),
            status: Arc::clone(&status),
            hold_probe: options.retry.hold,
        };
        Self {
            sink,
            way: LaneInput::new(reader, &status.rules),
            pending: None,
            pending_at: Instant::now(),
            taking: None,
            poisonous: None,
            window: Window::new(options.batch, concurrency),
            tracker: Tracker::default(),
            traces,
            attempts,
            breaker,
            size: SizeLimit::default(),
            arrivals: 0,
            is_held: false,
            owes_checkpoint: false,
            saving: None,
            has_failed: false,
            hurries: false,
            saved_at: None,
            unsaved: false,
            jobs,
            handle,
            jobs_done: Vec::new(),
            follows: true,
            journal,
            dead_letters,
            options,
            status,
        }
    }

    /// Returns the handle to its status and jobs.
    pub fn handle(&self) -> &LaneHandle {
        &self.handle
    }

    /// Detaches the lane from the journal: it only runs jobs.
    #[must_use]
    pub fn for_jobs(self) -> Self {
        Self { follows: false, ..self }
    }

    /// Runs until the daemon stops. After `stop` it delivers what it still can, until `deadline`. A lane that hands over
    /// ([`LaneHandle::hand_over`]) begins nothing more and ends after the deliveries under way.
    pub async fn run(mut self, stop: Stop, deadline: Stop) -> LaneState {
        tokio::select! {
            biased;
            // Whatever the lane waits for: only settled items have moved the cursor.
            () = deadline.stopped() => {}
            () = self.work(&stop) => {}
        }
        let too_late = async {
            deadline.stopped().await;
            sleep(LAST_SAVE_MAX).await;
        };
        let saved = tokio::select! {
            (saved, _) = self.save() => saved.map_err(|pace| pace.reason().unwrap_or_default().to_owned()),
            () = too_late => Err("it did not finish in time".to_owned()),
        };
        if let Err(problem) = saved {
            error!(
                sink = self.status.sink,
                problem,
                "the cursor could not be saved; items delivered since will be delivered again"
            );
        }
        self.status.in_flight.store(0, Ordering::Relaxed);
        self.status.set_state(LaneState::Drained, None);
        LaneState::Drained
    }

    /// Works until it is told to stop and has delivered what it can.
    async fn work(&mut self, stop: &Stop) {
        self.look_back().await;
        let (mut panics, mut at) = (0, self.mark());
        while AssertUnwindSafe(self.deliver_all(stop)).catch_unwind().await.is_err() {
            LaneStatus::count(&self.status.panics);
            error!(sink = self.status.sink, "the lane panicked; it goes on from its cursor");
            let mark = self.mark();
            panics = if mark == at { panics + 1 } else { 1 };
            at = mark;
            let suspect = self.taking.take();
            self.poisonous = suspect.or((panics >= PANICS_MAX).then_some(mark.position));
            self.go_on_at(mark).await;
            sleep(REST_AFTER_PANIC).await;
        }
    }

    /// Returns the cursor's mark: everything before it is settled.
    fn mark(&self) -> Mark {
        self.status.cursor().mark
    }

    fn save(&self) -> impl Future<Output = Saved> + Send + use<> {
        save(Arc::clone(&self.sink), self.journal.clone(), Arc::clone(&self.status))
    }

    async fn look_back(&mut self) {
        if self.mark().position < self.journal.end().position {
            let (letters, sink) = (self.dead_letters.clone(), self.status.sink.clone());
            let recalled = tokio::task::spawn_blocking(move || letters.recall(&sink)).await;
            if let Err(problem) = recalled.map_err(io::Error::other).flatten() {
                warn!(sink = self.status.sink, %problem, "dead letters cannot be read; some may be kept twice");
            }
        }
        self.way.look_back(&self.journal, self.mark()).await;
        self.traces.look_back(&self.journal, self.way.decisions()).await;
    }

    async fn deliver_all(&mut self, stop: &Stop) {
        let mut under_way = UnderWay::new();
        let (mut draining, handing_over) = (false, self.handle.handing_over.clone());
        // The clock is read once per turn, which decides both what begins in this turn and when the lane wakes up. With separate readings,
        // work that becomes due in between would do neither.
        let mut now = Instant::now();
        loop {
            self.status.in_flight.store(under_way.len() as u64, Ordering::Relaxed);
            let wants_more = self.follows
                && self.pending.is_none()
                && !handing_over.is_stopped()
                && self.has_room()
                && (!draining || self.has_next() && !self.way.is_stuck());
            let wake = self.wake_at(under_way.len(), draining, now);
            // Every branch is safe to cancel.
            tokio::select! {
                biased;
                () = either(stop, &handing_over), if !draining => {
                    draining = true;
                    self.give_up_jobs();
                }
                Some(ended) = under_way.next(), if !under_way.is_empty() => self.ended(ended),
                Some(((saved, has_moved), jobs)) = OptionFuture::from(self.saving.as_mut()) => {
                    // A sink that moved the lane has lost what jobs delivered, so their callers are told that they ended.
                    self.saved(saved, if has_moved { Vec::new() } else { jobs });
                    if has_moved {
                        let mark = self.mark();
                        self.go_on_at(mark).await;
                    }
                }
                Some((delivery, job)) = self.jobs.recv(), if !draining => {
                    self.begin_job(delivery, job);
                }
                next = self.way.next(draining), if wants_more => {
                    if let Some((fed, known)) = next {
                        self.read(fed, known).await;
                    }
                }
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
            if self.follows && self.saving.is_none() && !self.hurries && !self.journal.has_room() {
                self.make_room(&mut under_way).await;
            }
            now = Instant::now();
            if handing_over.is_stopped() {
                self.settle(under_way.len());
                if under_way.is_empty() && self.saving.is_none() {
                    return;
                }
                continue;
            }
            self.take_in(now).await;
            if !draining && self.follows {
                self.queue_roots();
            }
            self.settle(under_way.len());
            self.start(&mut under_way, draining, now);
            if draining && under_way.is_empty() && self.saving.is_none() && self.is_drained() {
                return;
            }
        }
    }

    /// Returns whether everything was delivered that can be. Deferred items remain in the journal, and so do undecided records and those
    /// for which deferred items left no space. A held sink accepts nothing, so the lane does not wait for it.
    fn is_drained(&self) -> bool {
        let has_no_more = !self.has_next() || self.way.is_stuck();
        let has_all =
            self.pending.is_none() && has_no_more && self.traces.table.amendments.is_empty();
        self.is_held || self.window.is_done() && (has_all || !self.window.has_room_to_defer())
    }

    /// Returns the next time at which something becomes due by the clock that was not due at `now`, the start of this turn.
    fn wake_at(&self, under_way: usize, draining: bool, now: Instant) -> Option<Instant> {
        if self.handle.handing_over.is_stopped() {
            return self.save_at(under_way);
        }
        let not_before = self.breaker.not_before().map(Instant::from_std);
        let is_admitted = under_way < self.breaker.allowed() && !self.waits_for_checkpoint();
        let begin_at = |at: Instant| not_before.map_or(at, |not_before| not_before.max(at));
        let due_at = self.window.due_at().map(|at| if draining { now } else { at.into() });
        let due_at = due_at.filter(|_| is_admitted).map(begin_at);
        let again_at = (is_admitted && self.window.has_tried()).then(|| begin_at(now));
        let again_at = again_at.filter(|at| *at > now);
        // A lane that is behind follows the times in its records, not the clock.
        let may_send_roots = || !draining && self.follows && self.has_room() && !self.has_next();
        let root_at = self.traces.next_root_at_ns().filter(|_| may_send_roots()).map(instant_of);
        let hold_until = self.window.hold_until_ns().filter(|_| is_admitted).map(instant_of);
        let drops = self.options.when_full == WhenFull::DropOldest;
        let looks = self.window.items_deferred() > 0 || self.unsaved || drops;
        let look_at = looks.then(|| now + LOOK_EVERY);
        let pending_at = self.pending.is_some().then_some(self.pending_at).filter(|at| *at > now);
        let save_at = self.save_at(under_way);
        let all = [due_at, again_at, root_at, hold_until, look_at, pending_at, save_at];
        all.into_iter().flatten().min()
    }

    /// Returns whether the journal has unread records.
    pub(super) fn has_next(&self) -> bool {
        self.follows && self.way.has_next()
    }

    /// Returns whether more may be read.
    pub(super) fn has_room(&self) -> bool {
        self.window.has_room(self.breaker.allowed()) && !self.tracker.is_full()
    }

    /// Cancels jobs; their callers still have the items.
    fn give_up_jobs(&mut self) {
        self.jobs.close();
        while self.jobs.try_recv().is_ok() {}
        self.window.remove(&(NO_ENTRY..));
    }

    /// Queues a job. It waits only for its turn, because the contexts of its traces are already known.
    fn begin_job(&mut self, delivery: Delivery, job: Arc<Job>) {
        if delivery.is_empty() {
            self.jobs_done.push(job);
        } else {
            self.window.push(&Purpose::Replay(job), NO_ENTRY, delivery, Instant::now().into_std());
        }
    }

    /// Moves the cursor as far as possible, and begins to save it when that is due.
    fn settle(&mut self, under_way: usize) {
        let first = self.tracker.oldest_received_at_ns();
        if let Some(passed) = self.tracker.advance() {
            if let Some(mark) = passed.end {
                self.traces.table.settle(mark.position);
            }
            self.status.commit(&passed);
            self.unsaved = true;
        }
        self.status.show_decisions(self.way.figures());
        let oldest = self.tracker.oldest_received_at_ns().or_else(|| self.way.waits_since_ns());
        let has_gathered = self.sink.gathers() && (self.unsaved || self.saving.is_some());
        let shown = self.status.oldest_received_at_ns.load(Ordering::Relaxed);
        // Gathered items are older than those still to come.
        let gathered = Some(shown).filter(|at| *at != 0).or(first).filter(|_| has_gathered);
        let oldest = gathered.or(oldest).unwrap_or_default();
        self.status.oldest_received_at_ns.store(oldest, Ordering::Relaxed);
        if self.save_at(under_way).is_some_and(|at| at <= Instant::now()) {
            self.saved_at = Some(Instant::now());
            self.unsaved = false;
            // The checkpoint includes what these jobs delivered.
            let jobs = std::mem::take(&mut self.jobs_done);
            let save = self.save();
            self.saving = Some(Box::pin(async { (save.await, jobs) }));
        }
    }

    /// Returns when to save the cursor. A checkpoint belongs to a cursor: everything that a sink with a checkpoint has accepted must be
    /// settled, so nothing may be under way there.
    fn save_at(&self, under_way: usize) -> Option<Instant> {
        if self.saving.is_some() || self.window.is_single() && under_way > 0 {
            return None;
        }
        let now = Instant::now();
        let is_refused = self.owes_checkpoint || self.has_failed;
        let not_before = self.breaker.not_before().filter(|_| is_refused);
        let soonest = not_before.map_or(now, |at| now.max(at.into()));
        if self.owes_checkpoint || !self.jobs_done.is_empty() {
            return Some(soonest);
        }
        let longest = self.options.commit_every;
        let is_soon = under_way == 0 || self.hurries;
        let every = if is_soon { COMMIT_IDLE.min(longest) } else { longest };
        // The first save is immediate, so that even a daemon that never runs for long makes progress.
        let due = self.saved_at.map_or(now, |at| at + every).max(soonest);
        let open_until = self.sink.open_until().filter(|_| !self.hurries);
        let due = open_until.map_or(due, |until| due.max(until));
        self.unsaved.then_some(due)
    }

    fn saved(&mut self, saved: Result<(), Pace>, jobs: Vec<Arc<Job>>) {
        (self.saving, self.hurries) = (None, false);
        let Err(pace) = saved else {
            self.owes_checkpoint = false;
            if std::mem::take(&mut self.has_failed) {
                self.note(&Pace::Go, true, Instant::now());
            }
            return jobs.iter().for_each(|job| job.answer());
        };
        self.jobs_done.extend(jobs);
        (self.unsaved, self.has_failed) = (true, true);
        self.note(&pace, false, Instant::now());
    }

    /// Frees space in the full journal if the saved cursor is in a closed segment and no other sink needs an older record: by saving the
    /// cursor, if it has left the segment, or by dropping items in it, unless a sink that drops nothing holds it too.
    async fn make_room(&mut self, under_way: &mut UnderWay) {
        let (journal, sink) = (&self.journal, &self.status.sink);
        // Without a saved cursor, the sink holds back everything.
        let saved = journal.cursor(sink).map_or_else(|| journal.start(), |saved| saved.mark);
        let is_oldest = journal.is_oldest(sink, saved.position);
        let end = journal.segment_end(saved.position).filter(|_| is_oldest);
        let Some(end) = end.map(|end| end.position) else { return };
        let has_left = end <= self.mark().position;
        self.hurries = has_left && self.unsaved && !self.has_failed;
        // Written data is not undone, unless it was only gathered: dropping items after it would free no space.
        let would_free = if has_left {
            !self.hurries && self.sink.open_until().is_some()
        } else {
            journal.held_by(end).is_none()
        };
        if would_free && self.options.when_full == WhenFull::DropOldest {
            self.give_way(under_way).await;
        }
    }

    /// Drops what has no outcome up to the end of the cursor's segment, so that the journal can remove that segment. What was read after
    /// it stays: it is not read again.
    async fn give_way(&mut self, under_way: &mut UnderWay) {
        // Without its checkpoint, the sink has lost what it gathered, so that is read again.
        if let Some(saved) = self.journal.cursor(&self.status.sink)
            && self.sink.discard()
        {
            *under_way = UnderWay::new();
            self.status.go_back(saved);
            self.go_on_at(self.mark()).await;
        }
        let Some(mark) = self.journal.segment_end(self.mark().position) else { return };
        let read = self.tracker.end().unwrap_or(self.mark());
        if read < mark {
            self.pending = None;
            self.way.seek(mark);
            let left = usize::try_from(mark.items.saturating_sub(read.items)).unwrap_or(usize::MAX);
            self.tracker.push(Entry { end: Some(mark), left, ..Entry::default() });
        }
        let (lost, first) = self.tracker.drop_until(mark);
        self.window.remove(&..first);
        self.show_deferred();
        error!(
            sink = self.status.sink,
            lost,
            "the journal is full and this sink has when_full = \"drop_oldest\": these items are lost to it"
        );
        self.saved_at = None;
        (self.owes_checkpoint, self.has_failed) = Default::default();
    }

    /// Continues at another mark, with the trace contexts of that position.
    async fn go_on_at(&mut self, mark: Mark) {
        self.window = Window::new(self.options.batch, self.sink.concurrency_max());
        self.tracker = Tracker::default();
        (self.pending, self.saving) = (None, None);
        self.show_deferred();
        self.way.seek(mark);
        self.traces = LaneTraces::new(self.sink.trace_needs(), Arc::clone(&self.status));
        self.look_back().await;
    }
}

async fn either(one: &Stop, other: &Stop) {
    tokio::select! {
        () = one.stopped() => {}
        () = other.stopped() => {}
    }
}
