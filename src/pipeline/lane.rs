//! One lane: read, gather, deliver, settle, and save the cursor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, warn};

use super::deliver::{Courier, Delivered, Held, Purpose};
use super::errand::{Errand, Errands};
use super::frontier::{Frontier, Settled};
use super::known::Known;
use super::ledger::Ledger;
use super::parked::{Aside, Parked};
use super::slots::{Slots, Ticket, Waiting};
use super::status::{LaneState, LaneStatus};
use super::{BatchLimits, Batcher, Cut, DeadLetters, Ready, Way};
use crate::feed::{Arrived, Reader};
use crate::journal::{AppendError, Journal, WhenFull};
use crate::sinks::{Delivery, RejectClass, Sink};
use crate::span::{Item, Span};
use crate::support::clock;
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

/// How often a lane that may drop the oldest looks whether it must.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(250);
/// How often it is looked whether what is parked may go, when nothing else wakes the lane.
const LOOK_AT_PARKED: Duration = Duration::from_millis(100);
/// Deliveries that wait for their turn, for each that may be under way. One is enough to keep the far side busy.
const QUEUED_PER_SLOT: usize = 1;

/// Why a lane ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneEnd {
    /// The daemon stops; what was not delivered is in the journal.
    Drained,
    /// It cannot go on, for this reason.
    Halted(String),
}

impl LaneEnd {
    #[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
    pub(super) fn no_dead_letters(problem: AppendError) -> Self {
        Self::Halted(format!("dead letters cannot be kept: {problem}"))
    }
}

/// The task of one sink.
pub struct Lane {
    sink: Arc<dyn Sink>,
    reader: Reader,
    batcher: Batcher,
    courier: Courier,
    ledger: Arc<Ledger>,
    frontier: Frontier,
    errands: Errands,
    way: Way,
    reads: Reads,
    slots: Slots,
    parked: Parked,
    known: Known,
    /// When a delivery that waits for a trace object may begin without it, in nanoseconds since 1970.
    hold_until_ns: Option<u64>,
    journal: Journal<Arrived>,
    dead_letters: DeadLetters,
    options: LaneOptions,
    status: Arc<LaneStatus>,
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

/// Whether a lane follows the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    Journal,
    /// It runs errands only, on a journal that nobody appends to.
    Nothing,
}

/// Deliveries at the sink: each ends with its slot, what it is a part of, how many items it has and what did not arrive.
type UnderWay = FuturesUnordered<BoxFuture<'static, Ended>>;
type Ended = (usize, Ticket, usize, Result<Delivered, LaneEnd>);

/// What a lane woke up for.
enum Event {
    /// The daemon stops: read no more than there is.
    Drain,
    /// Time is up.
    GiveUp,
    /// Something was read, or is due.
    Turn,
    /// An operator wants something delivered.
    Errand(Errand),
    /// The journal is full and the lane is to give way.
    JournalFull,
}

impl Lane {
    /// A lane that goes on where its status says.
    pub fn new(parts: LaneParts) -> Self {
        let LaneParts { reader, sink, journal, dead_letters, options, status } = parts;
        let slots = sink.concurrency_max().max(1);
        let ledger = Arc::new(Ledger::new(Arc::clone(&sink), journal.clone(), Arc::clone(&status)));
        let (way, errands) = Errands::new(options.batch, sink.trace_needs());
        let known = Known::new(sink.trace_needs(), ledger.roots_until_ns(), Arc::clone(&status));
        Self {
            sink: Arc::clone(&sink),
            reader,
            batcher: Batcher::new(options.batch, cut_for(slots)),
            courier: Courier::new(
                sink,
                dead_letters.clone(),
                Arc::clone(&ledger),
                Arc::clone(&status),
                &options,
            ),
            ledger,
            frontier: Frontier::default(),
            errands,
            way,
            reads: Reads::Journal,
            slots: Slots::new(slots),
            parked: Parked::default(),
            known,
            hold_until_ns: None,
            journal,
            dead_letters,
            options,
            status,
            saved_at: Instant::now(),
            unsaved: false,
        }
    }

    /// Where it can be seen.
    pub fn status(&self) -> &Arc<LaneStatus> {
        &self.status
    }

    /// The way in for what an operator wants delivered.
    pub fn way(&self) -> Way {
        self.way.clone()
    }

    /// The lane without the journal: it runs errands only.
    #[must_use]
    pub fn for_errands(self) -> Self {
        Self { reads: Reads::Nothing, ..self }
    }

    /// Runs until the daemon stops. After `stop`, what can still be delivered is, until `deadline` is turned.
    pub async fn run(mut self, stop: Stop, deadline: Stop) -> LaneEnd {
        let (mark, until_ns) = (self.ledger.mark(), self.ledger.roots_until_ns());
        if let Some(until_ns) = self.known.look_back(&self.journal, mark, until_ns).await {
            self.ledger.owe_roots_from(until_ns);
        }
        let end = self.deliver_all(&stop, &deadline).await;
        if let Err(pace) = self.ledger.save().await {
            error!(
                sink = self.status.sink,
                problem = pace.reason(),
                "the cursor could not be saved; what was delivered since will be delivered again"
            );
        }
        let state = if end == LaneEnd::Drained { LaneState::Drained } else { LaneState::Halted };
        self.status.set_state(state, None);
        end
    }

    async fn deliver_all(&mut self, stop: &Stop, deadline: &Stop) -> LaneEnd {
        let mut under_way = UnderWay::new();
        let mut draining = false;
        loop {
            match self.wait(&mut under_way, draining, stop, deadline).await {
                Ok(Event::Turn) => {}
                Ok(Event::Drain) => {
                    draining = true;
                    // Whoever sent them has the items still.
                    self.errands.close();
                    self.slots.give_up_errands();
                    self.parked.give_up_errands();
                }
                Ok(Event::Errand(errand)) => self.begin_errand(errand),
                Ok(Event::JournalFull) => {
                    // What is under way is given up with the rest.
                    under_way = UnderWay::new();
                    self.give_way().await;
                }
                Ok(Event::GiveUp) => return LaneEnd::Drained,
                Err(end) => return end,
            }
            if let Err(end) = self.dispatch(draining).await {
                return end;
            }
            // Before the next delivery starts: between two is when a sink that takes one at a time can make its checkpoint.
            self.settle(under_way.len()).await;
            self.unpark();
            self.start(&mut under_way, draining);
            if draining && under_way.is_empty() && self.is_drained() {
                return LaneEnd::Drained;
            }
        }
    }

    /// Whether all was delivered that can be. What is parked is in the journal, and so is what there was no room for because of that.
    fn is_drained(&self) -> bool {
        let has_all = self.batcher.is_empty() && !self.has_next() && !self.known.has_amendments();
        self.frontier.ahead() == 0 && (has_all || !self.has_room())
    }

    /// Waits for something to do, and does the part of it that must not be lost.
    async fn wait(
        &mut self,
        under_way: &mut UnderWay,
        draining: bool,
        stop: &Stop,
        deadline: &Stop,
    ) -> Result<Event, LaneEnd> {
        let wants_more = self.reads == Reads::Journal
            && !self.batcher.is_full()
            && (!draining || self.has_next());
        let may_save = self.unsaved && self.may_save(under_way.len());
        let save_at = may_save.then(|| self.saved_at + self.options.commit_every);
        let due_at = self.batcher.due_at().filter(|_| self.has_place()).map(Instant::from_std);
        let root_at_ns = self
            .known
            .next_root_at_ns(&self.batcher)
            .filter(|_| !draining && self.may_send_roots());
        let root_at = root_at_ns.map(instant_of);
        let hold_until = self.hold_until_ns.map(instant_of);
        let look_at = (!self.parked.is_empty()).then(|| Instant::now() + LOOK_AT_PARKED);
        let wake = [due_at, save_at, root_at, hold_until, look_at].into_iter().flatten().min();
        let may_give_way = self.reads == Reads::Journal
            && self.options.when_full == WhenFull::DropOldest
            && (!under_way.is_empty() || !self.parked.is_empty());
        if draining && !wants_more && under_way.is_empty() {
            return Ok(Event::Turn);
        }
        tokio::select! {
            biased;
            () = deadline.stopped() => Ok(Event::GiveUp),
            () = stop.stopped(), if !draining => Ok(Event::Drain),
            Some(ended) = under_way.next(), if !under_way.is_empty() => {
                self.part_done(ended)?;
                Ok(Event::Turn)
            }
            Some(errand) = self.errands.next(), if !draining && self.errands.has_place() => {
                Ok(Event::Errand(errand))
            }
            fed = self.reader.next(), if wants_more => {
                self.known.add(&fed).await;
                self.batcher.push(fed, Instant::now().into_std());
                Ok(Event::Turn)
            }
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => Ok(Event::Turn),
            () = journal_full(&self.journal, &self.ledger, &self.status.sink), if may_give_way => Ok(Event::JournalFull),
        }
    }

    /// Whether the journal has more that was not read.
    fn has_next(&self) -> bool {
        self.reads == Reads::Journal && self.reader.has_next()
    }

    fn part_done(&mut self, ended: Ended) -> Result<(), LaneEnd> {
        let (slot, ticket, items, delivered) = ended;
        self.slots.free(slot);
        let delivered = delivered?;
        let parked = delivered.parked.len();
        match ticket {
            Ticket::Journal(number) => {
                self.frontier.part_done(number, delivered.dead_lettered, parked);
            }
            Ticket::Amendment(number) => {
                self.frontier.part_done(number, 0, parked);
                let arrived = items.saturating_sub(delivered.given_up) as u64;
                self.status.amended.fetch_add(arrived, Ordering::Relaxed);
            }
            Ticket::Errand(number) => {
                let waiting: usize = delivered.parked.iter().map(|held| held.delivery.len()).sum();
                let missing = delivered.reported.len() + delivered.given_up + waiting;
                let arrived = items.saturating_sub(missing) as u64;
                self.status.replayed.fetch_add(arrived, Ordering::Relaxed);
                self.errands.part_done(number, delivered.reported, parked);
            }
        }
        self.park(slot, ticket, delivered.parked);
        Ok(())
    }

    fn park(&mut self, slot: usize, ticket: Ticket, held: Vec<Held>) {
        for Held { delivery, waits_for, reason } in held {
            if self.parked.is_empty() {
                warn!(sink = self.status.sink, reason, "items wait apart, and others go on");
            }
            self.parked.push(Aside { slot, ticket, delivery, waits_for });
        }
        self.show_parked();
    }

    /// Has what need not wait any longer go first of its slot: it came before all else of its traces.
    fn unpark(&mut self) {
        let sink = &self.sink;
        let taken = self.parked.take(|waits_for| sink.is_deferred(waits_for));
        if taken.is_empty() {
            return;
        }
        for Aside { slot, ticket, delivery, .. } in taken.into_iter().rev() {
            if let Ticket::Journal(number) | Ticket::Amendment(number) = ticket {
                self.frontier.unpark(number);
            }
            self.slots.push_first(slot, Waiting { ticket, delivery, hold: None });
        }
        self.show_parked();
    }

    fn show_parked(&self) {
        self.status.parked.store(self.parked.items() as u64, Ordering::Relaxed);
    }

    /// Whether another delivery may wait for its turn.
    fn has_place(&self) -> bool {
        self.has_room() && self.frontier.ahead() < self.courier.allowed() * (1 + QUEUED_PER_SLOT)
    }

    /// Whether what is parked leaves room in memory for more.
    fn has_room(&self) -> bool {
        !self.parked.is_full() && !self.frontier.is_full()
    }

    /// Turns what is due into deliveries, one for each slot that has a part of it.
    async fn dispatch(&mut self, draining: bool) -> Result<(), LaneEnd> {
        // First, so that the cursor cannot pass the news before what they are news for is done.
        while self.known.has_amendments() && self.has_place() {
            self.queue_amendments().await;
        }
        while !self.known.has_amendments() && self.has_place() {
            let ready = if draining && !self.has_next() {
                self.batcher.take()
            } else {
                self.batcher.due(Instant::now().into_std())
            };
            let Some(ready) = ready else { break };
            self.queue(ready).await?;
        }
        if !draining && self.reads == Reads::Journal {
            self.queue_roots();
        }
        Ok(())
    }

    /// Whether a root that is due by the clock is due: a lane that is behind goes by what it reads.
    fn may_send_roots(&self) -> bool {
        self.reads == Reads::Journal && self.has_place() && !self.has_next()
    }

    /// Roots are delivered like the spans below them, in the same slot and after those read before.
    fn queue_roots(&mut self) {
        let now_ns = clock::unix_now_ns();
        if !self.reader.has_next() {
            self.known.has_caught_up(now_ns);
        }
        while self.has_place() {
            let Some(roots) = self.known.take_roots(&self.batcher, self.options.batch.items_max)
            else {
                break;
            };
            let parts = self.slots.partition(roots.delivery);
            let number = self.frontier.begin_roots(roots.until_ns, now_ns, parts.len());
            for (slot, delivery) in parts {
                self.slots
                    .push(slot, Waiting { ticket: Ticket::Journal(number), delivery, hold: None });
            }
        }
    }

    /// What is sent once more goes behind the first sending, in the slot of its trace, and is given what is known when it begins.
    async fn queue_amendments(&mut self) {
        if !self.sink.replaces_by_id() {
            self.known.give_up_amendments();
            return;
        }
        let delivery = self.known.take_amendments(&self.journal, self.options.batch).await;
        // After a start nobody knows any more what was left out before.
        let (delivery, _) = self.without_left_out(delivery);
        let parts = self.slots.partition(delivery);
        let number = self.frontier.begin_roots(0, clock::unix_now_ns(), parts.len());
        for (slot, delivery) in parts {
            let ticket = Ticket::Amendment(number);
            self.slots.push(slot, Waiting { ticket, delivery, hold: None });
        }
    }

    async fn queue(&mut self, ready: Ready) -> Result<(), LaneEnd> {
        let (delivery, filtered) = self.without_left_out(ready.delivery);
        let mut settled = Settled { dropped: ready.damaged, filtered, ..Settled::default() };
        for (record, items) in &ready.not_understood {
            self.dead_letters
                .keep_record(&self.status.sink, record, *items)
                .await
                .map_err(LaneEnd::no_dead_letters)?;
            self.status.count_dead_letters(RejectClass::NotUnderstood, *items);
            settled.dead_lettered += items;
        }
        let parts = self.slots.partition(delivery);
        let now_ns = clock::unix_now_ns();
        let (received_at_ns, feeds) =
            (ready.oldest_received_at_ns, self.known.handed_over(&self.batcher));
        let number =
            self.frontier.begin(ready.settles, received_at_ns, parts.len(), settled, feeds);
        for (slot, delivery) in parts {
            let hold = self.known.hold_for(&delivery, now_ns);
            self.slots.push(slot, Waiting { ticket: Ticket::Journal(number), delivery, hold });
        }
        Ok(())
    }

    /// A delivery without what a rule in the sink's options leaves out, and how many items that is.
    fn without_left_out(&self, delivery: Delivery) -> (Delivery, u64) {
        let Some(leaves_out) = self.sink.leaves_out() else { return (delivery, 0) };
        let is_kept = |item: &Item| !item.as_span().is_some_and(leaves_out);
        let items = delivery.items().map(|(_, item)| item).enumerate();
        let kept: Vec<usize> =
            items.filter(|(_, item)| is_kept(item)).map(|(place, _)| place).collect();
        let left_out = (delivery.len() - kept.len()) as u64;
        if left_out == 0 { (delivery, 0) } else { (delivery.only(&kept), left_out) }
    }

    /// An errand waits for nothing but its turn: what there is to know of its traces has been read.
    fn begin_errand(&mut self, errand: Errand) {
        let (delivery, _) = self.without_left_out(errand.delivery);
        let parts = self.slots.partition(delivery);
        let number = self.errands.begin(parts.len(), errand.answer);
        for (slot, delivery) in parts {
            let ticket = Ticket::Errand(number);
            self.slots.push(slot, Waiting { ticket, delivery, hold: None });
        }
    }

    /// Starts what may be under way now. What is known of the traces is known as of here, for all attempts.
    fn start(&mut self, under_way: &mut UnderWay, draining: bool) {
        let allowed = self.courier.allowed().saturating_sub(under_way.len());
        self.hold_until_ns = None;
        if allowed == 0 {
            return;
        }
        let now_ns = clock::unix_now_ns();
        let mut may_begin = Vec::new();
        for (at, waiting) in self.slots.first() {
            match &waiting.hold {
                Some(hold) if !draining && !self.known.is_over(hold, now_ns) => {
                    let until_ns = self.hold_until_ns.unwrap_or(u64::MAX);
                    self.hold_until_ns = Some(until_ns.min(hold.until_ns));
                }
                _ => may_begin.push(at),
            }
        }
        for at in may_begin.into_iter().take(allowed) {
            let Some(Waiting { ticket, delivery, .. }) = self.slots.take(at) else { continue };
            let purpose = match ticket {
                Ticket::Journal(_) => Purpose::Journal,
                Ticket::Amendment(_) => Purpose::Amendment,
                Ticket::Errand(number) => {
                    Purpose::Errand(self.errands.given_up(number).unwrap_or_default())
                }
            };
            let delivery = self.known.with_contexts(delivery);
            let courier = self.courier.clone();
            // Roots that were made here are none of what anybody asked for.
            let items = delivery
                .items()
                .filter(|(_, item)| !item.as_span().is_some_and(Span::is_synthetic))
                .count();
            under_way.push(Box::pin(async move {
                (at, ticket, items, courier.deliver(delivery, purpose).await)
            }));
        }
    }

    /// Moves the cursor as far as it may go, and saves it when that is due.
    async fn settle(&mut self, under_way: usize) {
        if let Some(progress) = self.frontier.advance() {
            self.known.settle(progress.feeds);
            self.ledger.settle(progress);
            self.unsaved = true;
        }
        let oldest =
            self.frontier.oldest_received_at_ns().or_else(|| self.batcher.oldest_received_at_ns());
        self.status.oldest_received_at_ns.store(oldest.unwrap_or_default(), Ordering::Relaxed);
        // An errand is answered after its delivery is in a saved checkpoint, and somebody waits for that.
        let is_due =
            self.errands.has_done() || self.options.commit_every <= self.saved_at.elapsed();
        self.unsaved |= self.errands.has_done();
        if self.unsaved && is_due && self.may_save(under_way) {
            self.saved_at = Instant::now();
            self.unsaved = !self.ledger.save_or_warn().await;
            if !self.unsaved {
                self.errands.answer();
            }
        }
    }

    /// A checkpoint belongs to a cursor: what a sink with a checkpoint has taken must be settled, so nothing may be under way there.
    fn may_save(&self, under_way: usize) -> bool {
        1 < self.slots.len() || under_way == 0
    }

    /// Gives up everything up to the end of the cursor's segment, so that the journal can let that segment go.
    async fn give_way(&mut self) {
        let Some(mark) = self.journal.segment_end(self.ledger.mark().position) else { return };
        let lost = self.ledger.give_up_to(mark);
        error!(
            sink = self.status.sink,
            lost,
            "the journal is full and this sink is set to drop the oldest: these items are lost to it"
        );
        self.batcher = Batcher::new(self.options.batch, cut_for(self.slots.len()));
        self.frontier = Frontier::default();
        self.slots.clear();
        self.known.give_up_amendments();
        self.parked = Parked::default();
        self.show_parked();
        self.errands.give_up();
        self.reader.seek(mark);
        self.saved_at = Instant::now();
        self.unsaved = !self.ledger.save_or_warn().await;
    }
}

/// A sink with a checkpoint takes one delivery at a time, and whole records.
fn cut_for(slots: usize) -> Cut {
    if slots == 1 { Cut::Nothing } else { Cut::Records }
}

/// A time of the wall clock as one to wake up at.
fn instant_of(unix_ns: u64) -> Instant {
    Instant::now() + Duration::from_nanos(unix_ns.saturating_sub(clock::unix_now_ns()))
}

/// Waits until the journal is full, there is a closed segment to give up, and no other sink holds an older one: what this sink gives up
/// makes no room before that.
async fn journal_full(journal: &Journal<Arrived>, ledger: &Ledger, sink: &str) {
    let is_to_give_way = || {
        let at = ledger.mark().position;
        !journal.has_room() && journal.segment_end(at).is_some() && journal.is_oldest(sink, at)
    };
    while !is_to_give_way() {
        sleep(LOOK_FOR_ROOM).await;
    }
}
