//! Tests of the messages of a delivery and, if the client is built, of its own mock cluster's responses.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use toml::de::DeTable;

use super::encode::{Message, encode};
use super::*;
use crate::feed::tests::{arrival, item, otlp_arrival};
use crate::sinks::Delivery;
use crate::span::{Batch, Item, Source};
use crate::support::problem::Problem;

fn options(more: &str) -> Result<Options, Vec<Problem>> {
    let text = format!("brokers = [\"a:9092\"]\n{more}");
    read_options(DeTable::parse(&text).unwrap(), Options::mistakes)
}

/// Returns a span of a trace, as received over OTLP with a text of so many bytes.
fn span(trace: u8, number: u8, bytes: usize) -> Item {
    let text = "x".repeat(bytes);
    let span = format!(
        r#"{{"traceId":"{trace:032x}","spanId":"{number:016x}","name":"a","startTimeUnixNano":"1","endTimeUnixNano":"2",
            "attributes":[{{"key":"gen_ai.operation.name","value":{{"stringValue":"chat"}}}},
                {{"key":"text","value":{{"stringValue":"{text}"}}}}]}}"#
    );
    otlp_arrival(&[span]).decoded.batch.items.remove(0)
}

fn delivery(requests: Vec<(&str, u64, Vec<Item>)>) -> Delivery {
    let mut delivery = Delivery::default();
    for (tenant, received_at_ns, items) in requests {
        let tenant = tenant.to_owned();
        let source = Source { received_at_ns, tenant, ..Source::unknown() };
        let count = items.len();
        delivery.add(&Arc::new(Batch { source, items, bytes: 0 }), 0..count);
    }
    delivery
}

/// Returns the numbers of the spans in a message, from their ids.
fn numbers(message: &Message) -> Vec<u8> {
    let value = message.value.as_deref().unwrap();
    let request = ExportTraceServiceRequest::decode(value).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).map(|span| span.span_id[7]).collect()
}

#[test]
fn a_message_has_spans_of_one_trace_and_one_tenant_as_they_came_in_the_order_in_which_they_came() {
    let delivery = delivery(vec![
        ("", 7, vec![span(1, 1, 9), span(2, 2, 9), span(1, 3, 9)]),
        ("shop", 8, vec![span(1, 4, 9)]),
        ("", 5, vec![span(1, 5, 9)]),
    ]);
    let messages = encode(&delivery, &options("").unwrap(), 10_000);
    let told: Vec<_> = messages
        .iter()
        .map(|it| (it.trace.to_string(), it.tenant.as_str(), it.received_at_ns, it.places.clone()))
        .collect();
    assert_eq!(
        told,
        [
            (format!("{:032x}", 1), "", 5, vec![0, 2, 4]),
            (format!("{:032x}", 2), "", 7, vec![1]),
            (format!("{:032x}", 1), "shop", 8, vec![3]),
        ]
    );
    assert_eq!(messages.iter().map(numbers).collect::<Vec<_>>(), [vec![1, 3, 5], vec![2], vec![4]]);
    for (message, (_, item)) in messages[0].places.iter().zip(delivery.items()) {
        let (item, value) = (delivery.item(*message).unwrap_or(item), &messages[0].value);
        let value = value.as_deref().unwrap();
        let is_there = value.windows(item.wire().len()).any(|some| some == &item.wire()[..]);
        assert!(is_there, "the bytes that came are those that go");
    }
    assert_eq!(messages, encode(&delivery, &options("").unwrap(), 10_000), "the same each time");
}

#[test]
fn no_message_is_larger_than_the_topic_takes_and_none_of_many_small_ones_is_cut() {
    let items = (1..=40).map(|number| span(1, number, 700)).chain([span(1, 41, 30_000)]);
    let delivery = delivery(vec![("", 1, items.collect())]);
    let messages = encode(&delivery, &options("").unwrap(), 8_000);
    let mut all = Vec::new();
    for message in &messages {
        let value = message.value.as_deref().unwrap();
        assert!(value.len() <= 8_000, "{}", value.len());
        all.extend(numbers(message));
        let is_cut = value.windows(TRUNCATED.len()).any(|some| some == TRUNCATED);
        assert_eq!(is_cut, numbers(message) == [41]);
    }
    assert_eq!(all, (1..=41).collect::<Vec<_>>());
    // A span that cannot be cut that far has no value.
    let none = encode(&delivery.only(&[40]), &options("").unwrap(), 1_500);
    assert_eq!((none[0].value.as_ref(), &none[0].places), (None, &vec![0]));
}

const TRUNCATED: &[u8] = b"spanferry.truncated";

#[test]
fn spans_of_the_agents_sdk_go_as_otlp_and_nothing_is_sent_for_trace_objects() {
    let trace = r#"{"object":"trace","id":"trace_1","workflow_name":"w"}"#.to_owned();
    let items = arrival(&[trace.clone(), item("a")]).decoded.batch.items;
    let messages = encode(&delivery(vec![("", 1, items)]), &options("").unwrap(), 10_000);
    assert_eq!((messages.len(), &messages[0].places), (1, &vec![1]));
    assert_eq!(numbers(&messages[0]).len(), 1);
    let alone = arrival(&[trace]).decoded.batch.items;
    assert_eq!(encode(&delivery(vec![("", 1, alone)]), &options("").unwrap(), 10_000), []);
}

#[test]
fn every_mistake_is_told() {
    assert!(options("sasl = { username = \"a\", password = \"hush\" }\ntls = {}").is_ok());
    let found = options(
        "topic = \"\"\ntimeout = \"10ms\"\n\
         sasl = { mechanism = \"PLAIN\", username = \"a\", password = \"hush\" }",
    );
    let found: Vec<_> = found.unwrap_err().into_iter().map(|problem| problem.what).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(!format!("{found:?}").contains("hush"));
}

/// The client's own mock cluster, which fails requests on demand.
#[cfg(feature = "kafka")]
mod with_a_mock {
    use std::time::Duration;

    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::{Headers as _, Message as _};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::sinks::{Pace, Report, Verdict};

    type Cluster = MockCluster<'static, DefaultProducerContext>;

    fn cluster() -> (Cluster, producer::Kafka) {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("otlp_spans", 3, 1).unwrap();
        let text = format!(
            "brokers = [\"{}\"]\ntimeout = \"5s\"\nallow_weak_acks = true",
            cluster.bootstrap_servers().split(',').next().unwrap()
        );
        let options = read_options(DeTable::parse(&text).unwrap(), Options::mistakes).unwrap();
        (cluster, producer::Kafka::new(Arc::new(options)))
    }

    fn three() -> Delivery {
        delivery(vec![("shop", 7, vec![span(1, 1, 9), span(2, 2, 9), span(3, 3, 9)])])
    }

    /// Returns the messages in the topic: key, tenant, and the numbers of the spans.
    fn consumed(cluster: &Cluster, count: usize) -> Vec<(String, String, u8)> {
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        config.set("group.id", "g").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&["otlp_spans"]).unwrap();
        let mut all = Vec::new();
        while all.len() < count {
            // A poll without a message proves nothing.
            let Some(message) = consumer.poll(Duration::from_secs(30)) else { continue };
            let message = message.unwrap();
            let headers: Vec<_> = message.headers().unwrap().iter().collect();
            let header = |name: &str| {
                let found = headers.iter().find(|header| header.key == name).unwrap();
                String::from_utf8(found.value.unwrap().to_vec()).unwrap()
            };
            assert_eq!(header("content-type"), "application/x-protobuf");
            assert_eq!(header("spanferry-received-at"), "7");
            assert!(header("spanferry-sender").starts_with("hops=1 "));
            let request = ExportTraceServiceRequest::decode(message.payload().unwrap()).unwrap();
            let number = request.resource_spans[0].scope_spans[0].spans[0].span_id[7];
            let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
            all.push((key, header("spanferry-tenant"), number));
        }
        all.sort();
        all
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_delivered_is_in_the_topic_under_its_traces_id() {
        let (cluster, sink) = cluster();
        assert_eq!(sink.deliver(&three()).await, Report::delivered());
        let expected = [1, 2, 3].map(|it| (format!("{it:032x}"), "shop".to_owned(), it));
        assert_eq!(consumed(&cluster, 3), expected);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_counts_as_delivered_without_its_brokers_acknowledgement() {
        let (cluster, sink) = cluster();
        assert_eq!(sink.deliver(&three()).await, Report::delivered());
        cluster.broker_down(1).unwrap();
        let down = sink.deliver(&three()).await;
        assert!(matches!(down.pace, Pace::Down { .. }), "{down:?}");
        assert!((0..3).all(|place| *down.verdicts.of(place) == Verdict::Retry), "{down:?}");
        cluster.broker_up(1).unwrap();
        while sink.deliver(&three()).await != Report::delivered() {}
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_delivery_that_is_cancelled_half_way_leaves_the_next_alone() {
        let (cluster, sink) = cluster();
        assert_eq!(sink.deliver(&three()).await, Report::delivered());
        cluster.broker_round_trip_time(1, Duration::from_millis(300)).unwrap();
        let (first, second) = (three(), three());
        let cancelled = tokio::time::timeout(Duration::from_millis(30), sink.deliver(&first));
        assert!(cancelled.await.is_err());
        assert_eq!(sink.deliver(&second).await, Report::delivered());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_an_operator_has_to_mend_holds_and_says_what() {
        for (error, word) in [
            (RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "permission"),
            (RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "DescribeConfigs"),
        ] {
            let (cluster, sink) = cluster();
            cluster.request_errors(RDKafkaApiKey::Produce, &[error; 3]);
            let held = sink.deliver(&three()).await;
            let Pace::Hold { reason } = &held.pace else { panic!("{held:?}") };
            assert!(reason.contains(word), "{reason}");
            cluster.clear_request_errors(RDKafkaApiKey::Produce);
            while sink.deliver(&three()).await != Report::delivered() {}
        }
        let (cluster, sink) = cluster();
        let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        cluster.topic_error("otlp_spans", unknown).unwrap();
        let held = sink.deliver(&three()).await;
        let Pace::Hold { reason } = &held.pace else { panic!("{held:?}") };
        assert!(reason.contains("there is no topic otlp_spans"), "{reason}");
    }
}
