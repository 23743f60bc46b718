//! Real Collectors on either side of a topic.

use std::time::Instant;

use super::fixtures::{self, Spans};
use super::process::client::{Answer, Client, Protocol};
use super::servers::POLL_EVERY;
use super::servers::collector::{Collector, program};
use super::servers::kafka::Kafka;
use super::{Member, PATIENCE, topic};

/// Sends every captured request; returns the spans in them.
async fn send_captured(address: std::net::SocketAddr) -> Spans {
    let mut client = Client::connect(Protocol::OtlpHttp, address, None).await.unwrap();
    let mut expected = Vec::new();
    for fixture in fixtures::captured().iter().filter(|fixture| !fixture.is_json) {
        assert_eq!(client.send(fixture.body.clone()).await.unwrap(), Answer::Kept);
        expected.push(fixture.decoded.clone().unwrap());
    }
    Spans::of(expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_spanferry_writes_to_a_topic_a_collector_reads_with_every_attribute() {
    let (Some(program), Some(kafka)) = (program(), Kafka::start().await) else { return };
    topic::create(&kafka, "otlp_spans", None).await;
    let receiver = format!(
        "kafka: {{brokers: [\"{}\"], initial_offset: earliest, traces: {{topics: [otlp_spans], encoding: otlp_proto}}}}",
        kafka.broker()
    );
    let collector = Collector::writing_from(&program, &receiver).await;
    let mut receiving = Member::receiving(&kafka, "otlp_spans", "").await;
    let expected = send_captured(receiving.place.http).await;
    receiving.delivered().await;
    let written = collector.written(expected.count).await;
    assert_eq!(written.count, expected.count);
    for (id, spans) in &expected.by_id {
        assert_eq!(written.by_id.get(id), Some(spans));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_writes_to_a_topic_arrives_and_both_have_a_trace_in_the_same_partition() {
    let (Some(program), Some(kafka)) = (program(), Kafka::start().await) else { return };
    for name in ["theirs", "ours"] {
        topic::create(&kafka, name, None).await;
    }
    let exporter = format!(
        "kafka: {{brokers: [\"{}\"], partition_traces_by_id: true, traces: {{topic: theirs, encoding: otlp_proto}}}}",
        kafka.broker()
    );
    let collector = Collector::start(&program, &exporter).await;
    let delivering = Member::delivering(&kafka, "theirs", "").await;
    let mut receiving = Member::receiving(&kafka, "ours", "").await;
    let expected = send_captured(([127, 0, 0, 1], collector.http).into()).await;
    send_captured(receiving.place.http).await;
    let begun = Instant::now();
    while delivering.lines().lines().count() < expected.by_id.len() {
        assert!(begun.elapsed() < PATIENCE, "{}", delivering.place.said());
        tokio::time::sleep(POLL_EVERY).await;
    }
    receiving.delivered().await;
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys.dedup();
        keys
    };
    let theirs = topic::keys(&kafka, "theirs").map(sorted);
    assert_eq!(theirs, topic::keys(&kafka, "ours").map(sorted));
    assert!(theirs.iter().all(|keys| !keys.is_empty()));
}
