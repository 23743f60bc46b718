//! Tests how messages are read, from their headers and first byte, and what is kept of them.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::consumer::{Message, form_of, source_of};
use super::offsets::Offsets;
use super::*;
use crate::feed::{Feed, FeedOptions};
use crate::journal::{self, Journal, MemoryStorage};
use crate::normalize::{Coding, Encoding};
use crate::receivers::Settings;
use crate::telemetry::Metrics;

fn message(headers: &[(&str, &str)], body: &'static [u8]) -> Message {
    let headers = headers.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Message {
        place: Offsets::default().begin(("otlp_spans".to_owned(), 0), 7, body.len()),
        name: "otlp_spans/0/7".to_owned(),
        headers: headers.collect(),
        body: body.into(),
    }
}

#[test]
fn a_message_is_what_its_headers_say_else_what_its_first_byte_says() {
    let protobuf = Some((Encoding::Protobuf, Coding::Identity));
    let json = Some((Encoding::Json, Coding::Identity));
    for (headers, body, expected) in [
        (&[][..], &b"\x0a\x00"[..], protobuf),
        (&[], b" {\"resourceSpans\":[]}", json),
        (&[], b"Obj\x01avro", None),
        (&[("content-type", "application/json; charset=utf-8")], b"\x0a", json),
        (&[("content-type", "application/x-protobuf")], b"{", protobuf),
        (&[("content-type", "text/plain")], b"\x0a", None),
        (&[("content-encoding", "zstd")], b"\x28\xb5", Some((Encoding::Protobuf, Coding::Zstd))),
        (&[("content-encoding", "br")], b"\x0a", None),
    ] {
        let form = form_of(&message(headers, body)).ok();
        assert_eq!(form.map(|form| (form.encoding, form.coding)), expected, "{headers:?} {body:?}");
    }
}

#[test]
fn a_tenant_is_believed_only_where_that_is_wanted_and_the_place_is_kept() {
    let headers = [("spanferry-tenant", "shop"), ("spanferry-sender", "hops=1"), ("x", "y")];
    let message = message(&headers, b"\x0a");
    for (trust_tenants, expected) in [(false, "topic"), (true, "shop")] {
        let text = format!("brokers = []\ntenant = 'topic'\ntrust_tenants = {trust_tenants}");
        let options: KafkaOptions = toml::from_str(&text).unwrap();
        let source = source_of(&options, &message);
        assert_eq!(source.tenant, expected);
        assert_eq!(source.header("kafka-offset"), Some("otlp_spans/0/7"));
        assert_eq!((source.header("spanferry-sender"), source.header("x")), (Some("hops=1"), None));
    }
}

/// More failures than automatic commits before the stop, and far fewer than the final commit tolerates.
const REFUSALS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);
const SPAN: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"a"}]}]}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_the_group_refuses_for_a_while_is_committed_before_the_group_is_left() {
    let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1).unwrap();
    cluster.create_topic("otlp_spans", 1, 1).unwrap();
    let config = |settings: &[(&str, &str)]| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        config.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        config
    };
    // During a rebalance, every member's generation is outdated.
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS;
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[refusal; REFUSALS]);
    let producer: FutureProducer = config(&[]).create().unwrap();
    let record = FutureRecord::<(), _>::to("otlp_spans").payload(SPAN);
    producer.send(record, PATIENCE).await.unwrap();

    let storage = || Arc::new(MemoryStorage::default());
    let quarantine = Journal::open(&journal::Options::default(), storage(), |_| ()).unwrap();
    let (of_feed, of_journal) = (FeedOptions::default(), journal::Options::default());
    let feed = Feed::open(&of_feed, &of_journal, storage(), quarantine).unwrap();
    let (settings, metrics) = (Settings::default(), Metrics::default());
    let receivers = Receivers::new(settings, feed.intake(), metrics, Stop::default());
    let options = format!("brokers = [\"{}\"]", cluster.bootstrap_servers());
    let (options, stop) = (toml::from_str(&options).unwrap(), Stop::default());
    let (before, end) = (feed.journal().end().position, || feed.journal().end().position);
    let consuming = tokio::spawn(receivers.consume(options, stop.clone()));
    while end() == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.stop();
    consuming.await.unwrap();

    let asking: BaseConsumer = config(&[("group.id", "spanferry")]).create().unwrap();
    let mut place = TopicPartitionList::new();
    place.add_partition("otlp_spans", 0);
    let committed = tokio::task::spawn_blocking(move || asking.committed_offsets(place, PATIENCE));
    let committed = committed.await.unwrap().unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(1));
}
