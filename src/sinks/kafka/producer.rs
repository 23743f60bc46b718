//! Writes messages to the topic, and reports for each span the result of its message.
//!
//! The topic's guarantees and limits are read before the first message and again after any error, which also creates a new producer.
//! Deliveries share one producer. Its queue is bounded ([`QUEUE_KIB_MAX`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::encode::{Message, encode};
use super::options::Options;
use crate::sinks::report::Reports;
use crate::sinks::{Delivery, Pace, Pending, Refusal, RejectClass, Report, Sink, Verdict, http};
use crate::span::{TraceNeeds, Traced};
use crate::support::forwarding::SENDER_HEADER;
use crate::support::kafka::{Context, RECEIVED_HEADER, TENANT_HEADER, is_refusal};

/// Concurrent deliveries: while one waits for its acknowledgements, the next is encoded.
const DELIVERIES_MAX: usize = 4;
/// Memory of the client for messages that wait for the broker. Beyond it, deliveries wait.
const QUEUE_KIB_MAX: usize = 64 << 10;
/// Bytes of a message in the topic in addition to its value: key, headers, and the framing of record and batch.
const AROUND_BYTES: usize = 1 << 10;
/// The longest wait for the cluster's description of its topic.
const ASK_MAX: Duration = Duration::from_secs(10);
/// The longest uninterrupted wait: a refusal is known early and should end the wait.
const ASK_STEP: Duration = Duration::from_secs(1);
/// Kafka's own default, for a topic whose limit may not be read.
const DEFAULT_MESSAGE_BYTES_MAX: usize = 1_000_000;
/// The library's largest limit (`message.max.bytes`).
const MESSAGE_BYTES_CEILING: usize = 1_000_000_000;
/// How long the producer waits for more messages before it sends a batch.
const LINGER_MS: &str = "5";

/// Writes to one topic.
pub(super) struct Kafka {
    options: Arc<Options>,
    link: Mutex<Option<Arc<Link>>>,
}

/// A producer for a topic that was checked.
struct Link {
    /// Taken out only on drop.
    producer: Option<FutureProducer<Context>>,
    context: Context,
    found: TopicInfo,
}

/// The properties of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TopicInfo {
    partitions: usize,
    replicas: usize,
    /// `None` if the topic's configuration may not be read.
    in_sync_min: Option<usize>,
    message_bytes_max: usize,
}

impl Kafka {
    pub(super) fn new(options: Arc<Options>) -> Self {
        Self { options, link: Mutex::default() }
    }

    async fn send(&self, delivery: &Delivery) -> Result<Report, Report> {
        let link = self.link().await?;
        let (options, found) = (Arc::clone(&self.options), link.found);
        let value_bytes_max = found.message_bytes_max.saturating_sub(AROUND_BYTES);
        let encoding =
            http::encode(delivery, move |delivery| encode(delivery, &options, value_bytes_max));
        let encoded = encoding.await;
        let messages = encoded.map_err(|it| Report::down(None, format!("cannot encode: {it}")))?;
        let mut reports = Reports::new(delivery.len());
        for (place, (_, item)) in delivery.items().enumerate() {
            if item.as_span().is_none() {
                reports.set(place, Verdict::Delivered);
            }
        }
        let (sender, mut under_way) = (delivery.hops().header(), Vec::new());
        for message in &messages {
            match link.enqueue(&self.options.topic, message, &sender) {
                Ok(acknowledged) => under_way.push((message, acknowledged)),
                Err(report) => reports.add(message.places.iter().copied(), report),
            }
        }
        for (message, acknowledged) in under_way {
            let report = match acknowledged.await {
                Ok(Ok(_)) => Report::delivered(),
                Ok(Err((error, _))) => self.report(&link, &error),
                Err(_) => Report::down(None, "the Kafka client was closed"),
            };
            reports.add(message.places.iter().copied(), report);
        }
        let report = reports.finish();
        if report.pace != Pace::Go {
            self.link.lock().await.take_if(|known| Arc::ptr_eq(known, &link));
        }
        Ok(report)
    }

    /// Returns the producer, or the report for any delivery if the topic cannot be written to.
    async fn link(&self) -> Result<Arc<Link>, Report> {
        let mut known = self.link.lock().await;
        if let Some(link) = known.as_ref() {
            return Ok(Arc::clone(link));
        }
        let link = Link::open(Arc::clone(&self.options)).await?;
        Ok(Arc::clone(known.insert(link)))
    }

    /// Returns the report for a message that failed.
    fn report(&self, link: &Link, error: &KafkaError) -> Report {
        let (topic, code) = (&self.options.topic, error.rdkafka_error_code());
        let trouble = link.context.trouble();
        match code {
            Some(Code::MessageSizeTooLarge) if link.found.in_sync_min.is_none() => {
                Report::hold(format!(
                    "the topic {topic} accepts less than {} bytes, and this user may not read its limit: grant DescribeConfigs",
                    link.found.message_bytes_max
                ))
            }
            // The topic's limit has changed since the batches were made.
            Some(Code::MessageSizeTooLarge) => {
                Report::slow(None, format!("the message limit of the topic {topic} was lowered"))
            }
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
                no_topic(topic)
            }
            Some(Code::InvalidRecord | Code::PolicyViolation) => {
                let reason = format!("the broker refused the message: {error}");
                Report::split(RejectClass::Malformed, reason, String::new())
            }
            Some(code) if is_refusal(code) => refused(&error.to_string()),
            Some(Code::Fatal | Code::InvalidProducerEpoch | Code::OutOfOrderSequenceNumber) => {
                Report::slow(None, format!("the producer restarts: {error}"))
            }
            _ => match trouble {
                Some(trouble) if trouble.is_refusal => refused(&trouble.what),
                Some(trouble) => Report::down(None, format!("{error} ({})", trouble.what)),
                None => Report::down(None, error.to_string()),
            },
        }
    }
}

impl Sink for Kafka {
    fn concurrency_max(&self) -> usize {
        DELIVERIES_MAX
    }

    fn trace_needs(&self) -> Option<TraceNeeds> {
        Some(TraceNeeds {
            // OTLP spans are sent as they were received.
            traced: Traced::Spending,
            root: self.options.root_span,
            context_wait: self.options.context_wait.into(),
            ..TraceNeeds::default()
        })
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(async { self.send(delivery).await.unwrap_or_else(|failed| failed) })
    }
}

impl Link {
    /// Reads the topic's properties and creates a producer if the topic is suitable. Otherwise returns a report with advice.
    async fn open(options: Arc<Options>) -> Result<Arc<Self>, Report> {
        // The library's calls block.
        let opening = spawn_blocking(move || {
            let found = ask(&options)?;
            if let Some(report) = found.weakness(&options) {
                return Err(report);
            }
            let context = Context::default();
            let producer = producer(&options, found, context.clone());
            let producer = Some(producer.map_err(|error| wrong(&error))?);
            Ok(Arc::new(Self { producer, context, found }))
        });
        let opened = opening.await;
        opened.unwrap_or_else(|_| Err(Report::down(None, "the Kafka client could not be created")))
    }

    /// Passes a message to the client.
    fn enqueue(
        &self,
        topic: &str,
        message: &Message,
        sender: &str,
    ) -> Result<rdkafka::producer::DeliveryFuture, Report> {
        let Some(value) = &message.value else {
            let bytes = self.found.message_bytes_max;
            let reason =
                format!("the span alone exceeds the topic's message limit ({bytes} bytes)");
            let (class, answer) = (RejectClass::TooLarge, String::new());
            let refusal = Refusal { class, reason, answer };
            return Err(Report::all(Verdict::Reject(Arc::new(refusal)), Pace::Go));
        };
        let received = message.received_at_ns.to_string();
        let header = |key, value| Header { key, value: Some(value) };
        let mut headers = OwnedHeaders::new_with_capacity(4)
            .insert(header("content-type", "application/x-protobuf"))
            .insert(header(SENDER_HEADER, sender))
            .insert(header(RECEIVED_HEADER, &received));
        if !message.tenant.is_empty() {
            headers = headers.insert(header(TENANT_HEADER, &message.tenant));
        }
        let key = message.trace.to_string();
        let record = FutureRecord::to(topic).key(&key).payload(value).headers(headers);
        let Some(producer) = &self.producer else { return Err(Report::down(None, "closed")) };
        producer.send_result(record).map_err(|(error, _)| match error.rdkafka_error_code() {
            Some(Code::QueueFull) => Report::down(None, "too many messages wait for the brokers"),
            _ => Report::slow(None, error.to_string()),
        })
    }
}

impl Drop for Link {
    /// Drops the producer on a thread that may block, because closing a client waits for its threads.
    fn drop(&mut self) {
        let producer = self.producer.take();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(producer));
        }
    }
}

impl TopicInfo {
    /// Returns a report if spans that the topic acknowledged could still be lost.
    fn weakness(self, options: &Options) -> Option<Report> {
        let topic = &options.topic;
        if options.allow_weak_acks || self.replicas < 2 {
            return None;
        }
        match self.in_sync_min {
            Some(2..) => None,
            Some(_) => Some(Report::hold(format!(
                "the topic {topic} has min.insync.replicas = 1, so what it acknowledges can be lost with one broker: set it to 2 \
                 (kafka-configs --alter --topic {topic} --add-config min.insync.replicas=2), or set allow_weak_acks = true"
            ))),
            None => Some(Report::hold(format!(
                "this user may not read the configuration of the topic {topic}, so it is unknown whether acknowledged messages are \
                 safe: grant DescribeConfigs, or set allow_weak_acks = true"
            ))),
        }
    }
}

/// Reads the topic's properties.
fn ask(options: &Options) -> Result<TopicInfo, Report> {
    let (config, context) = (options.cluster.config(), Context::default());
    // This client's own thread receives errors; the admin client has none.
    let client: FutureProducer<Context> =
        config.create_with_context(context.clone()).map_err(|error| wrong(&error))?;
    let begun = Instant::now();
    let metadata = loop {
        let asked = client.client().fetch_metadata(Some(&options.topic), ASK_STEP);
        match (asked, context.trouble()) {
            (Ok(metadata), _) => break metadata,
            (Err(_), Some(trouble)) if trouble.is_refusal => return Err(refused(&trouble.what)),
            (Err(_), _) if begun.elapsed() < ASK_MAX => {}
            (Err(_), Some(trouble)) => return Err(Report::down(None, trouble.what)),
            (Err(error), None) => return Err(Report::down(None, error.to_string())),
        }
    };
    let topic = metadata.topics().iter().find(|topic| topic.name() == options.topic);
    let code = topic.and_then(MetadataTopic::error).map(Code::from);
    if let Some(code) = code.filter(|code| is_refusal(*code)) {
        return Err(refused(&code.to_string()));
    }
    let topic = topic.filter(|topic| code.is_none() && !topic.partitions().is_empty());
    let topic = topic.ok_or_else(|| no_topic(&options.topic))?;
    let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
    let admin: AdminClient<Context> =
        config.create_with_context(context).map_err(|error| wrong(&error))?;
    let what = [ResourceSpecifier::Topic(&options.topic)];
    let patience = AdminOptions::new().request_timeout(Some(ASK_MAX));
    let described = Handle::current().block_on(admin.describe_configs(&what, &patience));
    let config = match described {
        Ok(described) => described.into_iter().next().and_then(Result::ok),
        // Services that implement Kafka's protocol may not support this request.
        Err(_) if options.allow_weak_acks => None,
        Err(error) => return Err(Report::down(None, error.to_string())),
    };
    let number =
        |name: &str| -> Option<usize> { config.as_ref()?.get(name)?.value.as_ref()?.parse().ok() };
    Ok(TopicInfo {
        partitions: topic.partitions().len(),
        replicas: replicas.unwrap_or_default(),
        in_sync_min: number("min.insync.replicas"),
        message_bytes_max: number("max.message.bytes")
            .unwrap_or(DEFAULT_MESSAGE_BYTES_MAX)
            .min(MESSAGE_BYTES_CEILING),
    })
}

fn producer(
    options: &Options,
    found: TopicInfo,
    context: Context,
) -> Result<FutureProducer<Context>, KafkaError> {
    // A batch larger than a message may be is rejected as a whole.
    let batch_bytes_max = found.message_bytes_max.saturating_sub(AROUND_BYTES).max(1);
    let mut config = options.cluster.config();
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.codec", json!(options.compression).as_str().unwrap_or_default())
        .set("linger.ms", LINGER_MS)
        .set("batch.size", batch_bytes_max.min(DEFAULT_MESSAGE_BYTES_MAX).to_string())
        .set("message.max.bytes", found.message_bytes_max.to_string())
        .set("message.timeout.ms", options.timeout.0.as_millis().to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KIB_MAX.to_string())
        // The Collector's own default, so a trace is in one partition whichever program writes it.
        .set("partitioner", "fnv1a");
    config.create_with_context(context)
}

fn no_topic(topic: &str) -> Report {
    Report::hold(format!(
        "there is no topic {topic}; data waits in the journal. Create it (kafka-topics --create --topic {topic} --partitions 12 \
         --replication-factor 3 --config min.insync.replicas=2), or name another with `topic`"
    ))
}

fn refused(what: &str) -> Report {
    Report::hold(format!(
        "the brokers refuse the connection ({what}); data waits in the journal. Check `sasl`, `tls` and the user's permission to write to the topic"
    ))
}

/// Reports settings, derived from the options, that the library does not accept.
fn wrong(error: &KafkaError) -> Report {
    Report::hold(format!("the Kafka client cannot be created as configured: {error}"))
}

/// Describes the topic, or returns the error.
pub(super) async fn probe(options: Arc<Options>) -> Result<String, String> {
    let topic = options.topic.clone();
    let link = Link::open(options).await;
    let found = link.map_err(|report| report.pace.reason().unwrap_or_default().to_owned())?.found;
    let TopicInfo { partitions, replicas, in_sync_min, message_bytes_max } = found;
    let in_sync = in_sync_min.map_or_else(|| "unknown".to_owned(), |least| least.to_string());
    Ok(format!(
        "the topic {topic} has {partitions} partitions, {replicas} replicas, min.insync.replicas {in_sync}, and takes messages of \
         {message_bytes_max} bytes"
    ))
}
