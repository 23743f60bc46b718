//! A lane over a real feed in memory, with a scripted sink.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::*;
use crate::feed::{DecodedRequest, Feed, FeedOptions, Intake};
use crate::journal::{Cursor, Journal, MemoryStorage, Options, WhenFull};
use crate::normalize::{Encoding, Envelope, Limits, decode, decode_record};
use crate::rules::{DecideOptions, Rules};
use crate::sinks::{Delivery, Pace, Pending, RejectClass, Report, Sink, Verdict, Verdicts};
use crate::span::{Receiver, Source};
use crate::support::stop::Stop;

impl LaneStatus {
    /// Returns the number of items delivered since the sink joined.
    pub(crate) fn delivered(&self) -> u64 {
        Self::settled(&self.cursor(), Resolved::default()).delivered
    }
}

/// A sink that follows a script, then delivers, and remembers what arrived.
#[derive(Debug, Default)]
pub(crate) struct Told {
    reports: Mutex<VecDeque<Report>>,
    arrived: Mutex<Vec<String>>,
    attempts: Mutex<Vec<Vec<String>>>,
}

impl Told {
    pub(crate) fn answering(reports: impl IntoIterator<Item = Report>) -> Arc<Self> {
        Arc::new(Self { reports: Mutex::new(reports.into_iter().collect()), ..Self::default() })
    }

    pub(crate) fn arrived(&self) -> Vec<String> {
        self.arrived.lock().unwrap().clone()
    }
}

impl Sink for Told {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        let names: Vec<String> = delivery.items().map(|(_, item)| name(item.wire())).collect();
        self.attempts.lock().unwrap().push(names.clone());
        let report = self.reports.lock().unwrap().pop_front();
        let report = report.unwrap_or_else(Report::delivered);
        let names = names.into_iter().enumerate();
        let taken = names.filter(|(place, _)| *report.verdicts.of(*place) == Verdict::Delivered);
        self.arrived.lock().unwrap().extend(taken.map(|(_, name)| name));
        Box::pin(async { report })
    }
}

/// Returns the item's id as the client wrote it.
pub(crate) fn name(wire: &Bytes) -> String {
    let item: serde_json::Value = serde_json::from_slice(wire).unwrap();
    item["id"].as_str().unwrap().to_owned()
}

/// Creates an item of the Agents SDK.
pub(crate) fn span_item(id: &str) -> String {
    format!(
        r#"{{"object":"trace.span","id":"{id}","trace_id":"trace_1","parent_id":null,"started_at":null,"ended_at":null,"span_data":{{"type":"custom","name":"n","data":{{}}}},"error":null}}"#
    )
}

fn options() -> LaneOptions {
    LaneOptions {
        batch: BatchLimits { items_max: 4, bytes_max: 1 << 20, age_max: Duration::from_millis(20) },
        commit_every: Duration::from_millis(50),
        retry: RetryOptions {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(5),
            hold: Duration::from_millis(5),
        },
        when_full: WhenFull::Refuse,
        trace_url: None,
        decide: DecideOptions::default(),
    }
}

pub(crate) struct World {
    pub(crate) storage: Arc<MemoryStorage>,
    pub(crate) feed: Feed,
    pub(crate) intake: Intake,
    pub(crate) dead_storage: Arc<MemoryStorage>,
    pub(crate) dead: Journal<()>,
    pub(crate) jobs: JobHandle,
    pub(crate) lanes: Lanes,
    pub(crate) handle: LaneHandle,
    pub(crate) lane: JoinHandle<LaneState>,
    pub(crate) status: Arc<LaneStatus>,
    pub(crate) stop: Stop,
    pub(crate) deadline: Stop,
}

impl World {
    pub(crate) fn new(sink: Arc<dyn Sink>) -> Self {
        Self::over(Arc::default(), sink)
    }

    /// Opens the same journal again, like a restart.
    pub(crate) fn over(storage: Arc<MemoryStorage>, sink: Arc<dyn Sink>) -> Self {
        Self::with_dead_letters(storage, Arc::default(), sink)
    }

    /// Also uses the same dead letters.
    pub(crate) fn with_dead_letters(
        storage: Arc<MemoryStorage>,
        dead_storage: Arc<MemoryStorage>,
        sink: Arc<dyn Sink>,
    ) -> Self {
        Self::with(storage, dead_storage, sink, |_| ())
    }

    /// Uses other options.
    pub(crate) fn with(
        storage: Arc<MemoryStorage>,
        dead_storage: Arc<MemoryStorage>,
        sink: Arc<dyn Sink>,
        change: impl FnOnce(&mut LaneOptions),
    ) -> Self {
        Self::made_of((storage, dead_storage), sink, Arc::default(), change)
    }

    /// Uses rules, over a journal that may exist.
    pub(crate) fn ruled(
        storage: Arc<MemoryStorage>,
        sink: Arc<dyn Sink>,
        rules: Arc<Rules>,
    ) -> Self {
        Self::made_of((storage, Arc::default()), sink, rules, |_| ())
    }

    pub(crate) fn made_of(
        (storage, dead_storage): (Arc<MemoryStorage>, Arc<MemoryStorage>),
        sink: Arc<dyn Sink>,
        rules: Arc<Rules>,
        change: impl FnOnce(&mut LaneOptions),
    ) -> Self {
        let mut options = options();
        change(&mut options);
        Self::journalled(&Options::default(), (storage, dead_storage), sink, rules, options)
    }

    /// Uses a small journal with this behavior when it is full.
    pub(crate) fn small(sink: Arc<dyn Sink>, when_full: WhenFull) -> Self {
        let journal =
            Options { bytes_max: 256 << 10, retain: Duration::ZERO, ..Options::default() };
        let options = LaneOptions { when_full, ..options() };
        Self::journalled(&journal, Default::default(), sink, Arc::default(), options)
    }

    fn journalled(
        journal: &Options,
        (storage, dead_storage): (Arc<MemoryStorage>, Arc<MemoryStorage>),
        sink: Arc<dyn Sink>,
        rules: Arc<Rules>,
        options: LaneOptions,
    ) -> Self {
        let open = |storage: Arc<MemoryStorage>| {
            Journal::open(&Options::default(), storage, |_| ()).unwrap()
        };
        let quarantine = open(Arc::default());
        let feed =
            Feed::open(&FeedOptions::default(), journal, storage.clone(), quarantine).unwrap();
        let journal = feed.journal().clone();
        let cursor = journal.cursor("told").unwrap_or_else(|| {
            let cursor =
                Cursor { mark: journal.end(), joined: journal.end().items, ..Cursor::default() };
            journal.save_cursor("told", &cursor).unwrap();
            cursor
        });
        let dead = open(dead_storage.clone());
        let mut status = LaneStatus::new("told".to_owned(), "told", cursor.clone());
        status.rules = rules;
        let status = Arc::new(status);
        let dead_letters = DeadLetters::new(dead.clone());
        let reader = feed.reader(cursor.mark);
        let lane = Lane::new(reader, sink, journal, dead_letters, options, Arc::clone(&status));
        let (stop, deadline) = (Stop::default(), Stop::default());
        let (lanes, handle) = (Lanes::default(), lane.handle().clone());
        lanes.set(vec![handle.clone()]);
        let jobs = lanes.jobs("told").unwrap();
        let lane = tokio::spawn(lane.run(stop.clone(), deadline.clone()));
        let intake = feed.intake();
        Self {
            storage,
            feed,
            intake,
            dead_storage,
            dead,
            jobs,
            lanes,
            handle,
            lane,
            status,
            stop,
            deadline,
        }
    }

    /// Creates another lane over the same journal; the caller runs it.
    pub(crate) fn another_lane(&self, sink: Arc<dyn Sink>, dead: &Journal<()>) -> Lane {
        self.lane_of("another", sink, dead)
    }

    /// Creates another lane for a sink of this name.
    pub(crate) fn lane_of(&self, name: &str, sink: Arc<dyn Sink>, dead: &Journal<()>) -> Lane {
        let journal = self.feed.journal().clone();
        let status = LaneStatus::new(name.to_owned(), "told", Cursor::default());
        let (reader, dead_letters) =
            (self.feed.reader(journal.end()), DeadLetters::new(dead.clone()));
        Lane::new(reader, sink, journal, dead_letters, options(), Arc::new(status))
    }

    /// Creates the lane that continues from this one's saved cursor.
    pub(crate) fn next_lane(&self, sink: Arc<dyn Sink>) -> Lane {
        let journal = self.feed.journal().clone();
        let cursor = journal.cursor("told").unwrap();
        let reader = self.feed.reader(cursor.mark);
        let mut status = LaneStatus::new("told".to_owned(), "told", cursor);
        status.rules = Arc::clone(&self.status.rules);
        let status = Arc::new(status);
        let dead_letters = DeadLetters::new(self.dead.clone());
        let lane = Lane::new(reader, sink, journal, dead_letters, options(), status);
        self.lanes.set(vec![lane.handle().clone()]);
        lane
    }

    pub(crate) async fn send(&self, ids: &[&str]) {
        let items: Vec<_> = ids.iter().map(|id| span_item(id)).collect();
        self.send_items(&items, 1).await;
    }

    /// Sends these items in one request that was received at this time.
    pub(crate) async fn send_items(&self, items: &[String], received_at_ns: u64) {
        self.send_as(items, items, received_at_ns).await;
    }

    /// Sends them as another version might have decoded them.
    pub(crate) async fn send_as(
        &self,
        items: &[String],
        understood: &[String],
        received_at_ns: u64,
    ) {
        let body = Bytes::from(format!(r#"{{"data":[{}]}}"#, items.join(",")));
        let envelope = Envelope::new(
            Source { receiver: Receiver::OpenAi, received_at_ns, ..Source::unknown() },
            Encoding::Json,
            body.len(),
        );
        let understood = Bytes::from(format!(r#"{{"data":[{}]}}"#, understood.join(",")));
        let decoded = decode(&envelope, &understood, &Limits::default()).unwrap();
        self.intake.accept(DecodedRequest { envelope, sent: body, decoded }).await.unwrap();
    }

    pub(crate) async fn settled(&self) {
        while self.status.cursor().mark != self.feed.journal().end() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) async fn drain(self) -> (LaneState, Arc<MemoryStorage>) {
        self.stop.stop();
        let end = self.lane.await.unwrap();
        self.feed.journal().close();
        self.dead.close();
        (end, self.storage)
    }
}

pub(crate) fn down(reason: &str) -> Report {
    Report::down(None, reason)
}

/// Reports one of `of` items as rejected, and the others as delivered.
pub(crate) fn reject(place: usize, of: usize, reason: &str) -> Report {
    let rejected = Report::reject(reason, "400").verdicts.of(0).clone();
    let verdicts =
        (0..of).map(|at| if at == place { rejected.clone() } else { Verdict::Delivered });
    Report { verdicts: Verdicts::Each(verdicts.collect()), ..Report::delivered() }
}

#[tokio::test]
async fn what_is_accepted_arrives_in_order_and_is_settled() {
    let sink = Told::answering([]);
    let world = World::new(sink.clone());
    world.send(&["a", "b"]).await;
    world.send(&["c"]).await;
    world.settled().await;
    assert_eq!(sink.arrived(), ["a", "b", "c"]);
    assert_eq!(world.status.delivered(), 3);
    assert_eq!(world.drain().await.0, LaneState::Drained);
}

#[tokio::test]
async fn a_failed_attempt_is_repeated_unchanged_until_it_works() {
    let sink = Told::answering([down("busy"), down("busy"), down("busy")]);
    let world = World::new(sink.clone());
    world.send(&["a", "b"]).await;
    world.settled().await;
    assert_eq!(sink.arrived(), ["a", "b"]);
    let attempts = sink.attempts.lock().unwrap().clone();
    assert_eq!(attempts.len(), 4);
    assert!(attempts.iter().all(|attempt| attempt == &["a", "b"]));
    assert_eq!(world.status.state().0, LaneState::Running);
}

#[tokio::test]
async fn rejected_items_become_dead_letters_and_cost_nobody_else() {
    let sink = Told::answering([reject(1, 3, "too odd")]);
    let world = World::new(sink.clone());
    world.send(&["a", "b", "c"]).await;
    world.settled().await;
    assert_eq!(sink.arrived(), ["a", "c"]);
    assert_eq!((world.status.delivered(), world.status.cursor().dead_lettered), (2, 1));
    let letter = world.dead.read_from(world.dead.start().position).next().unwrap().unwrap();
    let (envelope, decoded) = decode_record(&letter.payload.unwrap()).unwrap();
    assert_eq!(name(decoded.batch.items[0].wire()), "b");
    let aside = envelope.aside.unwrap();
    assert_eq!(
        (aside.sink.as_str(), aside.reason.as_str(), aside.answer.as_str()),
        ("told", "too odd", "400")
    );
}

#[tokio::test]
async fn a_sink_that_cannot_work_holds_everything_and_loses_nothing() {
    let hold = || Report::hold("no such project");
    let sink = Told::answering([hold(), hold()]);
    let world = World::new(sink.clone());
    world.send(&["a"]).await;
    while world.status.state().0 != LaneState::Holding {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.status.state().1.as_deref(), Some("no such project"));
    world.settled().await;
    assert_eq!(sink.arrived(), ["a"]);
}

#[tokio::test]
async fn a_sink_that_takes_one_at_a_time_gets_whole_records() {
    let sink = Told::answering([]);
    let world = World::new(sink.clone());
    let ids: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    world.send(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.settled().await;
    assert_eq!(sink.arrived(), ids);
    assert_eq!(sink.attempts.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_orderly_stop_delivers_what_the_journal_has() {
    let sink = Told::answering([]);
    let world = World::new(sink.clone());
    for id in ["a", "b", "c", "d", "e", "f"] {
        world.send(&[id]).await;
    }
    let (end, storage) = world.drain().await;
    assert_eq!((end, sink.arrived().len()), (LaneState::Drained, 6));
    let again = Told::answering([]);
    let world = World::over(storage, again.clone());
    world.send(&["g"]).await;
    world.settled().await;
    assert_eq!(again.arrived(), ["g"]);
}

#[tokio::test]
async fn what_a_dead_sink_did_not_take_is_delivered_after_the_restart() {
    let world = World::new(Told::answering(vec![down("down"); 10_000]));
    world.send(&["a"]).await;
    world.send(&["b"]).await;
    world.deadline.stop();
    let (end, storage) = world.drain().await;
    assert_eq!(end, LaneState::Drained);
    let sink = Told::answering([]);
    let world = World::over(storage, sink.clone());
    world.settled().await;
    assert_eq!(sink.arrived(), ["a", "b"]);
    assert_eq!(world.status.delivered(), 2);
}

#[tokio::test]
async fn an_exact_resend_is_not_delivered_twice_also_after_a_restart() {
    let sink = Told::answering([]);
    let world = World::new(sink.clone());
    world.send(&["a", "b"]).await;
    world.send(&["b", "c"]).await;
    let (_, storage) = world.drain().await;
    let world = World::over(storage, sink.clone());
    world.send(&["a", "c", "d"]).await;
    world.settled().await;
    assert_eq!(sink.arrived(), ["a", "b", "c", "d"]);
}

/// A sink that rejects any request with an odd item, like a backend that judges requests as a whole.
#[derive(Debug, Default)]
struct Whole {
    arrived: Mutex<Vec<String>>,
}

impl Sink for Whole {
    fn concurrency_max(&self) -> usize {
        4
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        let names: Vec<String> = delivery.items().map(|(_, item)| name(item.wire())).collect();
        let report = if names.iter().any(|name| name.starts_with("odd")) {
            Report::split(RejectClass::Malformed, "400".to_owned(), "odd".to_owned())
        } else if names.len() > 2 {
            Report::split(RejectClass::TooLarge, "413".to_owned(), String::new())
        } else {
            self.arrived.lock().unwrap().extend(names);
            Report::delivered()
        };
        Box::pin(async { report })
    }
}

#[tokio::test]
async fn a_request_refused_as_a_whole_is_halved_until_only_the_odd_items_are_left() {
    let sink = Arc::new(Whole::default());
    let world = World::new(sink.clone());
    let ids: Vec<String> = (0..40)
        .map(|number| if number % 13 == 5 { format!("odd{number}") } else { format!("s{number}") })
        .collect();
    for request in ids.chunks(7) {
        world.send(&request.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    world.settled().await;
    let expected: Vec<_> = ids.iter().filter(|id| !id.starts_with("odd")).cloned().collect();
    assert_eq!(*sink.arrived.lock().unwrap(), expected, "one trace: in order");
    assert_eq!((world.status.delivered(), world.status.cursor().dead_lettered), (37, 3));
}

/// A sink that fails on every request for a while, and always on those with an odd item.
#[derive(Debug)]
struct Breaking {
    down_for: AtomicU64,
    arrived: Mutex<Vec<String>>,
}

impl Breaking {
    fn down_for(attempts: u64) -> Arc<Self> {
        Arc::new(Self { down_for: AtomicU64::new(attempts), arrived: Mutex::default() })
    }
}

impl Sink for Breaking {
    fn concurrency_max(&self) -> usize {
        4
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        let names: Vec<String> = delivery.items().map(|(_, item)| name(item.wire())).collect();
        let down = self.down_for.load(Ordering::Relaxed);
        self.down_for.store(down.saturating_sub(1), Ordering::Relaxed);
        let report = if 0 < down || names.iter().any(|name| name.starts_with("odd")) {
            Report::fault("500".to_owned(), String::new())
        } else {
            self.arrived.lock().unwrap().extend(names);
            Report::delivered()
        };
        Box::pin(async { report })
    }
}

#[tokio::test]
async fn while_the_backend_breaks_on_everything_nothing_becomes_a_dead_letter() {
    let sink = Breaking::down_for(60);
    let world = World::new(sink.clone());
    world.send(&["a", "b", "c", "d"]).await;
    world.settled().await;
    let mut arrived = sink.arrived.lock().unwrap().clone();
    // Each was tried alone, so none of them could hide that the backend works.
    arrived.sort_unstable();
    assert_eq!(arrived, ["a", "b", "c", "d"]);
    assert_eq!(world.status.cursor().dead_lettered, 0);
}

#[tokio::test]
async fn an_item_on_which_the_backend_breaks_while_it_takes_others_becomes_a_dead_letter() {
    let sink = Breaking::down_for(0);
    let world = World::new(sink.clone());
    world.send(&["a", "b", "odd", "c"]).await;
    world.settled().await;
    assert_eq!(*sink.arrived.lock().unwrap(), ["a", "b", "c"]);
    assert_eq!(world.status.cursor().dead_lettered, 1);
}

/// A sink that is slow, and notes whether it is asked for a checkpoint meanwhile.
#[derive(Debug, Default)]
struct Slow {
    is_busy: AtomicBool,
    checkpoints: AtomicU64,
    interrupted: AtomicBool,
}

impl Sink for Slow {
    fn deliver<'a>(&'a self, _delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(async {
            self.is_busy.store(true, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(120)).await;
            self.is_busy.store(false, Ordering::SeqCst);
            Report::delivered()
        })
    }

    fn checkpoint(&self) -> Pending<'_, Result<Bytes, Pace>> {
        self.checkpoints.fetch_add(1, Ordering::SeqCst);
        self.interrupted.fetch_or(self.is_busy.load(Ordering::SeqCst), Ordering::SeqCst);
        Box::pin(async { Ok(Bytes::new()) })
    }
}

#[tokio::test]
async fn no_checkpoint_is_asked_for_while_a_delivery_is_under_way() {
    let sink = Arc::new(Slow::default());
    let world = World::new(sink.clone());
    for id in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        world.send(&[id]).await;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    world.settled().await;
    world.drain().await;
    assert!(1 < sink.checkpoints.load(Ordering::SeqCst), "saved between deliveries too");
    assert!(!sink.interrupted.load(Ordering::SeqCst));
}
