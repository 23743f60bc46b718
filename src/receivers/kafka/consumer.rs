//! Reads messages as a member of a consumer group, and accepts each like a request.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::offsets::{MESSAGES_MAX, Offsets, Partition, Place};
use crate::normalize::{Coding, Encoding};
use crate::receivers::body::Body;
use crate::receivers::decode::Form;
use crate::receivers::kafka_options::KafkaOptions;
use crate::receivers::refusal::Refusal;
use crate::receivers::routes::{self, labels};
use crate::receivers::{FAILED, Receivers, is_from_ourselves, kept_part};
use crate::span::{Receiver, Source};
use crate::support::clock;
use crate::support::forwarding::SENDER_HEADER;
use crate::support::kafka::{ClientTrouble, Context, RECEIVED_HEADER, TENANT_HEADER, is_refusal};
use crate::support::lock::lock;
use crate::support::stop::Stop;

/// The longest wait in one poll. Finished offsets are stored at least this often.
const POLL_MAX: Duration = Duration::from_millis(100);
/// The library's own limit, which may not be less than `session_timeout`.
const POLL_WITHIN: Duration = Duration::from_mins(5);
/// The interval at which stored offsets are committed. A killed daemon reads again what it received since.
const COMMIT_EVERY_MS: &str = "100";
/// How long to wait for room before pausing partitions, which discards prefetched messages.
const ROOM_WAIT: Duration = Duration::from_secs(1);
/// How long to wait for messages in flight before partitions are revoked: several times the longest wait for a full journal. Their next
/// owner also reads what takes longer. It also bounds how long the final commit waits for a rebalance.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long a message that cannot be accepted now waits before it is retried.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often to ask whether an error is over, and how long to wait for the answer.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long to wait before creating a client again that could not be created: a file that it reads may be fixed meanwhile.
const MAKE_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How often the library looks for new topics and partitions.
const METADATA_EVERY_MS: &str = "10000";
/// How much the client prefetches into its own memory.
const AHEAD_KIB_MAX: &str = "16384";

pub(super) struct Message {
    pub(super) place: Place,
    /// `topic/partition/offset`.
    pub(super) name: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// State shared by the polling thread, the accepting task and the client's callbacks.
struct Shared {
    options: KafkaOptions,
    offsets: Mutex<Offsets>,
    changed: Condvar,
    context: Context,
    receivers: Receivers,
}

/// Consumes until it is stopped.
pub(super) async fn consume(receivers: Receivers, options: KafkaOptions, stop: Stop) {
    let turn = Arc::clone(&receivers.consuming);
    let _turn = turn.lock().await;
    while !stop.is_stopped() {
        let shared = Arc::new(Shared {
            options: options.clone(),
            offsets: Mutex::default(),
            changed: Condvar::new(),
            context: Context::default(),
            receivers: receivers.clone(),
        });
        let (sending, messages) = mpsc::channel(MESSAGES_MAX);
        let (polled, stopping) = (Arc::clone(&shared), stop.clone());
        let polling = spawn_blocking(move || poll(&polled, &sending, &stopping));
        let (polled, ()) = tokio::join!(polling, take_all(&shared, messages));
        let Ok(Err(error)) = polled else { break };
        let what = format!("the Kafka client was closed; it reconnects soon: {error}");
        warn!("{what}");
        receivers.set_trouble(Some(what));
        timeout(MAKE_AGAIN_AFTER, stop.stopped()).await.ok();
    }
    receivers.set_trouble(None);
}

// === The thread ===

fn poll(shared: &Arc<Shared>, sending: &mpsc::Sender<Message>, stop: &Stop) -> KafkaResult<()> {
    let options = &shared.options;
    let consumer: BaseConsumer<Member> =
        config(options).create_with_context(Member(Arc::clone(shared)))?;
    let topics: Vec<&str> = options.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics)?;
    info!(group = options.group, ?topics, "consuming");
    let (mut is_paused, mut looked) = (false, Instant::now());
    while !stop.is_stopped() {
        store(shared, &consumer);
        let is_full = !shared.waits_while(ROOM_WAIT, Offsets::is_full);
        if is_full || is_paused {
            let all = consumer.assignment()?;
            if is_full {
                // Repeated each time, because partitions may have been assigned meanwhile.
                consumer.pause(&all)?;
            } else {
                consumer.resume(&all)?;
            }
            if is_paused != is_full {
                info!(is_full, "partitions are paused while too many messages are in flight");
            }
            is_paused = is_full;
        }
        match consumer.poll(POLL_MAX) {
            Some(Ok(message)) => {
                if sending.blocking_send(shared.read(&message)).is_err() {
                    break;
                }
            }
            // For example, another member has the same `instance`: this client is unusable.
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error),
            Some(Err(_)) | None => {}
        }
        if shared.context.trouble().is_some() && looked.elapsed() > LOOK_EVERY {
            look(shared, &consumer);
            looked = Instant::now();
        }
    }
    settle(shared, &consumer);
    // Leaving the group revokes the partitions, by the callback below.
    drop(consumer);
    Ok(())
}

fn config(options: &KafkaOptions) -> rdkafka::ClientConfig {
    let mut config = options.cluster.config();
    let session = options.session_timeout.0;
    let poll_within = session.max(POLL_WITHIN).as_millis().to_string();
    config
        .set("group.id", &options.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session.as_millis().to_string())
        .set("max.poll.interval.ms", poll_within)
        // A group without offsets reads from the topics' beginnings, so nothing is skipped.
        .set("auto.offset.reset", "earliest")
        // An offset is stored once its message is in the journal; the client commits stored offsets.
        .set("enable.auto.offset.store", "false")
        .set("auto.commit.interval.ms", COMMIT_EVERY_MS)
        .set("queued.max.messages.kbytes", AHEAD_KIB_MAX)
        .set("topic.metadata.refresh.interval.ms", METADATA_EVERY_MS);
    if let Some(instance) = &options.instance {
        config.set("group.instance.id", instance);
    }
    config
}

/// Stores the offsets that may be committed.
fn store(shared: &Shared, consumer: &BaseConsumer<Member>) {
    for ((topic, partition), offset) in lock(&shared.offsets).take() {
        let mut list = TopicPartitionList::with_capacity(1);
        let added = list.add_partition_offset(&topic, partition, Offset::Offset(offset));
        // Fails if the partition was lost: its next owner then reads this again.
        if let Err(error) = added.and_then(|()| consumer.store_offsets(&list)) {
            info!(topic, partition, %error, "an offset was not stored: its partition was reassigned");
        }
    }
}

/// Waits for messages in flight, and commits all finished offsets.
fn commit(shared: &Shared, consumer: &BaseConsumer<Member>) -> KafkaResult<()> {
    if !shared.waits_while(DRAIN_MAX, |offsets| !offsets.is_idle()) {
        warn!(
            "partitions were revoked while their messages are in flight: the next owner reads those again"
        );
    }
    store(shared, consumer);
    match consumer.commit_consumer_state(CommitMode::Sync) {
        Err(KafkaError::ConsumerCommit(Code::NoOffset)) => Ok(()),
        result => result,
    }
}

/// Commits before leaving the group. During a rebalance, the coordinator refuses offsets until this member knows the group's next
/// generation, which it learns only by polling, and only before it leaves.
fn settle(shared: &Shared, consumer: &BaseConsumer<Member>) {
    let begun = Instant::now();
    while commit(shared, consumer).is_err()
        && shared.context.trouble().is_none()
        && begun.elapsed() < DRAIN_MAX
    {
        // A message that arrives meanwhile is not accepted: its offset is never stored.
        consumer.poll(POLL_MAX);
    }
}

/// Asks the brokers whether the error is over.
fn look(shared: &Shared, consumer: &BaseConsumer<Member>) {
    for topic in &shared.options.topics {
        let Ok(metadata) = consumer.fetch_metadata(Some(topic), LOOK_EVERY) else { return };
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        if found.is_none_or(|found| found.error().is_some()) {
            return shared.set_trouble(Some(no_topic(topic)));
        }
    }
    shared.set_trouble(None);
}

impl Shared {
    /// Waits while the condition holds for the offsets, up to the time limit. Returns whether it ceased to hold.
    fn waits_while(&self, so_long: Duration, is_so: fn(&Offsets) -> bool) -> bool {
        let offsets = lock(&self.offsets);
        let waited = self.changed.wait_timeout_while(offsets, so_long, |offsets| is_so(offsets));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Reads a message and registers its offset.
    fn read(&self, message: &rdkafka::message::BorrowedMessage<'_>) -> Message {
        let body = message.payload().map(Bytes::copy_from_slice).unwrap_or_default();
        let partition = (message.topic().to_owned(), message.partition());
        let offset = message.offset();
        let place = lock(&self.offsets).begin(partition, offset, body.len());
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let headers = headers.filter_map(|header| {
            let value = std::str::from_utf8(header.value?).ok()?;
            Some((header.key.to_ascii_lowercase(), kept_part(value).to_owned()))
        });
        let name = format!("{}/{}/{offset}", message.topic(), message.partition());
        Message { place, name, headers: headers.collect(), body }
    }

    fn set_trouble(&self, trouble: Option<ClientTrouble>) {
        let known = self.context.trouble();
        let what = trouble.as_ref().map(|ClientTrouble { is_refusal, what }| {
            let hint = if *is_refusal {
                "check receivers.kafka: `sasl`, `tls`, the topics and the user's permissions"
            } else {
                "it continues when the brokers can be reached"
            };
            format!("the Kafka receiver cannot read ({what}): messages wait in their topic; {hint}")
        });
        let kind = |trouble: &Option<ClientTrouble>| trouble.as_ref().map(|it| it.is_refusal);
        match &what {
            // Two errors of one kind that alternate are reported once.
            Some(what) if kind(&known) != kind(&trouble) => warn!("{what}"),
            None if known.is_some() => info!("the Kafka receiver works again"),
            _ => {}
        }
        self.receivers.set_trouble(what);
        self.context.set_trouble(trouble);
    }
}

fn no_topic(topic: &str) -> ClientTrouble {
    ClientTrouble { is_refusal: true, what: format!("there is no topic {topic}") }
}

/// The client's context as a member of the group.
struct Member(Arc<Shared>);

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        self.0.context.log(level, fac, message);
    }

    /// Errors that `poll` returns arrive here first, with their reason.
    fn error(&self, error: KafkaError, reason: &str) {
        let news = match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                Some(no_topic(&self.0.options.topics.join(", ")))
            }
            Some(code) if code == Code::AllBrokersDown || is_refusal(code) => {
                self.0.context.news(&error, reason)
            }
            // The client handles the loss of a single broker itself.
            _ => None,
        };
        if news.is_some() {
            self.0.set_trouble(news);
        }
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(given_up) = rebalance else { return };
        let partitions = given_up.elements();
        let partitions = partitions.iter().map(|it| (it.topic().to_owned(), it.partition()));
        let partitions: Vec<Partition> = partitions.collect();
        if let Err(error) = commit(&self.0, consumer) {
            info!(%error, "offsets were not committed: the partitions' next owner reads those messages again");
        }
        lock(&self.0.offsets).forget(&partitions);
        info!(count = partitions.len(), "partitions were revoked");
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(assigned) = rebalance {
            info!(count = assigned.count(), "partitions were assigned");
            self.0.set_trouble(None);
        }
    }
}

// === The task ===

/// Accepts messages in the order of their partitions, many at a time, until the thread has ended. Messages still in flight then have no
/// offset to commit: they were waited for when the partitions were revoked.
async fn take_all(shared: &Shared, mut messages: mpsc::Receiver<Message>) {
    let mut taking = FuturesUnordered::new();
    loop {
        tokio::select! {
            message = messages.recv() => {
                let Some(message) = message else { return };
                taking.push(async move {
                    take(&shared.receivers, &shared.options, &message).await;
                    message.place
                });
            }
            Some(place) = taking.next() => {
                lock(&shared.offsets).done(&place);
                shared.changed.notify_all();
            }
        }
    }
}

/// Accepts a message: retries until it is on stable storage or, if it is invalid, in the quarantine.
async fn take(receivers: &Receivers, options: &KafkaOptions, message: &Message) {
    // A tombstone is empty, and so is a request without items.
    while !message.body.is_empty() {
        let ended = async {
            let form = form_of(message)?;
            receivers.take_message(form, source_of(options, message), message.body.clone()).await
        };
        // It touches only its own state and state behind locks that survive a panic.
        let ended = AssertUnwindSafe(ended).catch_unwind().await;
        let wait = match ended.unwrap_or(Err(Refusal::PANICKED)) {
            Ok(()) => return,
            Err(Refusal::Limited(wait)) => wait,
            Err(refusal @ Refusal::Busy { .. }) if refusal != Refusal::PANICKED => RETRY_AFTER,
            Err(refusal) => {
                let reason = format!("Kafka message {}: {refusal}", message.name);
                if receivers.set_aside(source_of(options, message), message, reason).await {
                    return;
                }
                RETRY_AFTER
            }
        };
        sleep(wait).await;
    }
}

impl Message {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Returns a message's encoding, from its headers or else its first byte.
pub(super) fn form_of(message: &Message) -> Result<Form, Refusal> {
    const WANTED: Refusal = Refusal::MediaType("application/x-protobuf or application/json");
    let coding = message.header("content-encoding").unwrap_or_default();
    let coding = Coding::from_header(coding).ok_or(Refusal::Coding)?;
    let encoding = match message.header("content-type") {
        Some(media) => routes::media_of(media.as_bytes()).ok_or(WANTED)?.1,
        None if message.body.trim_ascii_start().starts_with(b"{") => Encoding::Json,
        // The tag of `resource_spans`.
        None if message.body.starts_with(b"\n") || coding != Coding::Identity => Encoding::Protobuf,
        None => return Err(WANTED),
    };
    Ok(Form { receiver: Receiver::Kafka, encoding, coding })
}

pub(super) fn source_of(options: &KafkaOptions, message: &Message) -> Source {
    let told = message.header(TENANT_HEADER).filter(|_| options.trust_tenants);
    let kept = message.headers.iter();
    let kept = kept.filter(|(key, _)| [SENDER_HEADER, RECEIVED_HEADER].contains(&key.as_str()));
    let name = ("kafka-offset".to_owned(), message.name.clone());
    Source {
        receiver: Receiver::Kafka,
        received_at_ns: clock::unix_now_ns(),
        tenant: told.unwrap_or(&options.tenant).to_owned(),
        key_fingerprint: String::new(),
        headers: kept.cloned().chain([name]).collect(),
    }
}

impl Receivers {
    /// Accepts a message like a request.
    async fn take_message(&self, form: Form, source: Source, body: Bytes) -> Result<(), Refusal> {
        let answering = self.now();
        if is_from_ourselves(source.header(SENDER_HEADER)) {
            return Err(Refusal::Loop);
        }
        let tenant = answering.tenants.enter(&source.tenant)?;
        let body = Body { bytes: body, arrival: answering.bodies.begin() };
        tenant.came(body.bytes.len());
        answering.keep(source, form, body, &tenant).await.map(drop)
    }

    /// Puts a message in the quarantine. Returns whether that succeeded.
    async fn set_aside(&self, mut source: Source, message: &Message, reason: String) -> bool {
        let answering = self.now();
        let encoding = form_of(message).map_or(Encoding::Protobuf, |form| form.encoding);
        let coding = Coding::from_header(message.header("content-encoding").unwrap_or_default());
        let form = (encoding, coding != Some(Coding::Identity));
        let body = answering.decoder.unread(&mut source, form, message.body.clone()).await;
        let said = reason.clone();
        let is_kept = answering.intake.set_aside(source, encoding, body, reason).await.is_ok();
        if is_kept {
            warn!("{said}; it is in the quarantine");
            answering.metrics.add(FAILED, &labels(Receiver::Kafka, encoding), 1);
        }
        is_kept
    }
}
