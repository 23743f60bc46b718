//! Faults between a daemon and the cluster, and how the daemon reports them.

use std::fmt::Write as _;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

use super::process::client::{Answer, Client, Protocol};
use super::senders::Crowd;
use super::servers::POLL_EVERY;
use super::servers::kafka::Kafka;
use super::{Member, PATIENCE, topic};

/// Builds a request with spans in one trace, whose texts have these lengths in bytes.
pub(crate) fn request(trace: u8, texts: &[usize]) -> Vec<u8> {
    let mut spans = String::new();
    for (number, bytes) in texts.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let text = "x".repeat(*bytes);
        write!(
            spans,
            r#"{comma}{{"traceId":"{trace:032x}","spanId":"{:016x}","name":"fault-{trace}-{number}","kind":1,
            "startTimeUnixNano":"1795238109529503000","endTimeUnixNano":"1795238109529503001",
            "attributes":[{{"key":"text","value":{{"stringValue":"{text}"}}}}]}}"#,
            number + 1
        )
        .unwrap();
    }
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    serde_json::from_str::<ExportTraceServiceRequest>(&json).unwrap().encode_to_vec()
}

pub(crate) async fn send(member: &Member, body: Vec<u8>) {
    let (protocol, address) = (Protocol::OtlpHttp, member.place.http);
    let mut client = Client::connect(protocol, address, None).await.unwrap();
    assert_eq!(client.send(body.into()).await.unwrap(), Answer::Kept);
}

/// Waits until the daemon's file contains this.
pub(crate) async fn has(member: &Member, what: &str) {
    let begun = Instant::now();
    while !member.lines().contains(what) {
        assert!(begun.elapsed() < PATIENCE, "no {what}:\n{}", member.place.said());
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Returns the reason of the only sink's state.
pub(crate) fn problem(status: &serde_json::Value) -> &str {
    status["sinks"][0]["problem"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_brokers_are_away_both_sides_say_so_and_go_on_when_they_are_back() {
    let Some(mut kafka) = Kafka::start().await else { return };
    topic::create(&kafka, "otlp_spans", None).await;
    let mut receiving = Member::receiving(&kafka, "otlp_spans", "timeout = \"2s\"").await;
    let mut delivering = Member::delivering(&kafka, "otlp_spans", "").await;
    send(&receiving, request(1, &[10])).await;
    has(&delivering, "fault-1-0").await;
    kafka.kill();
    send(&receiving, request(2, &[10])).await;
    receiving.until("the sink is down", |status| !problem(status).is_empty()).await;
    let begun = Instant::now();
    while !delivering
        .place
        .ask("/healthz")
        .unwrap_or_default()
        .contains("messages wait in their topic")
    {
        assert!(begun.elapsed() < PATIENCE, "{}", delivering.place.said());
        tokio::time::sleep(POLL_EVERY).await;
    }
    kafka.again().await;
    has(&delivering, "fault-2-0").await;
    receiving.delivered().await;
    let begun = Instant::now();
    while delivering.place.ask("/healthz").unwrap_or_default().contains("messages wait") {
        assert!(begun.elapsed() < PATIENCE, "{}", delivering.place.said());
        tokio::time::sleep(POLL_EVERY).await;
    }
    // An orderly stop must also end while the brokers are away.
    kafka.kill();
    delivering.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_is_larger_than_a_message_may_be_is_cut_and_those_beside_it_are_not() {
    let Some(kafka) = Kafka::start().await else { return };
    topic::create(&kafka, "otlp_spans", Some(20_000)).await;
    let mut receiving = Member::receiving(&kafka, "otlp_spans", "compression = \"none\"").await;
    let delivering = Member::delivering(&kafka, "otlp_spans", "").await;
    let mut texts = vec![900; 100];
    texts[50] = 100_000;
    send(&receiving, request(1, &texts)).await;
    for number in 0..100 {
        has(&delivering, &format!("fault-1-{number}\"")).await;
    }
    receiving.delivered().await;
    let cut =
        delivering.lines().lines().filter(|line| line.contains("spanferry.truncated")).count();
    assert_eq!(cut, 1);
    let status = receiving.status();
    assert_eq!(status["sinks"][0]["dead_lettered"], 0, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_holds_the_sink_until_it_is_and_one_that_is_deleted_too() {
    let Some(kafka) = Kafka::start().await else { return };
    let mut receiving = Member::receiving(&kafka, "later", "timeout = \"5s\"").await;
    let delivering = Member::delivering(&kafka, "later", "").await;
    for round in 1..=2 {
        send(&receiving, request(round, &[10])).await;
        let held = |status: &serde_json::Value| problem(status).contains("there is no topic later");
        receiving.until("the sink holds", held).await;
        topic::create(&kafka, "later", None).await;
        has(&delivering, &format!("fault-{round}-0")).await;
        receiving.delivered().await;
        topic::delete(&kafka, "later").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_may_lose_what_it_acknowledged_holds_the_sink_until_it_may_not() {
    let Some(mut kafka) = Kafka::start().await else { return };
    kafka.add_second().await;
    topic::create_with(&kafka, "otlp_spans", 2, &[]).await;
    let mut receiving = Member::receiving(&kafka, "otlp_spans", "").await;
    send(&receiving, request(1, &[10])).await;
    let held = |status: &serde_json::Value| problem(status).contains("min.insync.replicas = 1");
    receiving.until("the sink holds", held).await;
    assert_eq!(receiving.status()["sinks"][0]["delivered"], 0);
    topic::set(&kafka, "otlp_spans", "min.insync.replicas", "2").await;
    receiving.delivered().await;
    // With `allow_weak_acks` the topic is accepted.
    topic::set(&kafka, "otlp_spans", "min.insync.replicas", "1").await;
    let mut weak = Member::receiving(&kafka, "otlp_spans", "allow_weak_acks = true").await;
    send(&weak, request(2, &[10])).await;
    weak.delivered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_otlp_goes_to_the_quarantine_with_its_place_and_the_next_is_taken() {
    let Some(kafka) = Kafka::start().await else { return };
    topic::create(&kafka, "otlp_spans", None).await;
    let mut delivering = Member::delivering(&kafka, "otlp_spans", "").await;
    topic::write(&kafka, "otlp_spans", "application/x-protobuf", b"\x0a\xff\xff\xff").await;
    topic::write(&kafka, "otlp_spans", "application/json", b"{\"resourceSpans\": 7").await;
    topic::write(&kafka, "otlp_spans", "application/avro", b"who knows").await;
    topic::write(&kafka, "otlp_spans", "application/x-protobuf", &request(9, &[10])).await;
    has(&delivering, "fault-9-0").await;
    delivering.until("three are aside", |status| status["journal"]["quarantined"] == 3).await;
    let figures = delivering.status()["receivers"]["kafka"].clone();
    assert_eq!((&figures["failed"], &figures["accepted"]), (&3.into(), &1.into()), "{figures}");
    let program = env!("CARGO_BIN_EXE_spanferry");
    let mut command = std::process::Command::new(program);
    command.args(["dead-letter", "list", "--quarantine", "--url"]);
    command.arg(format!("http://{}", delivering.place.admin));
    let said = command.output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    for offset in 0..3 {
        assert!(said.contains(&format!("otlp_spans/0/{offset}")), "{said}");
    }
    // Their offsets are committed: a restart does not read them again.
    delivering.terminate().await;
    delivering.again().await;
    topic::write(&kafka, "otlp_spans", "application/x-protobuf", &request(10, &[10])).await;
    has(&delivering, "fault-10-0").await;
    assert_eq!(delivering.status()["journal"]["quarantined"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_reads_the_topic_it_writes_to_does_not_send_in_a_circle() {
    let Some(kafka) = Kafka::start().await else { return };
    topic::create(&kafka, "otlp_spans", None).await;
    let broker = kafka.broker();
    let receivers = format!("[receivers.kafka]\nbrokers = [\"{broker}\"]\n");
    let tables = format!("[sinks.topic]\ntype = \"kafka\"\nbrokers = [\"{broker}\"]\n");
    let config = super::Config { receivers, tables, ..super::Config::default() };
    let mut circle = Member::start(&config).await;
    send(&circle, request(1, &[10])).await;
    circle.until("it is aside", |status| status["journal"]["quarantined"] == 1).await;
    circle.delivered().await;
    assert_eq!(circle.status()["sinks"][0]["delivered"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_full_pauses_the_partitions_and_goes_on_once_there_is_room() {
    let Some(kafka) = Kafka::start().await else { return };
    topic::create(&kafka, "otlp_spans", None).await;
    let mut receiving = Member::receiving(&kafka, "otlp_spans", "").await;
    let sent = Crowd::begin_large(&receiving.place, 12_000, 4).finish(receiving.daemon()).await;
    receiving.delivered().await;
    // Nothing listens at the sink's address.
    let receivers = format!("[receivers.kafka]\nbrokers = [\"{}\"]\n", kafka.broker());
    let journal = "bytes_max = \"16MiB\"\nsegment_bytes_max = \"2MiB\"".to_owned();
    let dead = "[sinks.file]\ntype = \"otlp\"\nendpoint = \"http://127.0.0.1:9\"\n".to_owned();
    let config = super::Config { receivers, journal, tables: dead };
    let mut delivering = Member::start(&config).await;
    delivering
        .until("it is full", |status| {
            status["journal"]["bytes"].as_u64().is_some_and(|bytes| bytes > 12 << 20)
        })
        .await;
    tokio::time::sleep(POLL_EVERY * 200).await;
    let file = "[sinks.file]\ntype = \"file\"\npath = \"out.jsonl\"\n".to_owned();
    delivering.terminate().await;
    delivering.place.configure(&super::Config { tables: file, ..config }).unwrap();
    delivering.again().await;
    let begun = Instant::now();
    let out = delivering.place.dir.join("out.jsonl");
    loop {
        delivering.delivered().await;
        let found = sent.ledger.compare(&out);
        if found.missing.is_empty() {
            return found.is_exactly_once();
        }
        assert!(begun.elapsed() < PATIENCE, "{found}\n{}", delivering.place.said());
        tokio::time::sleep(POLL_EVERY * 50).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_begins_to_consume_goes_on_elsewhere_and_ends_it() {
    let Some(kafka) = Kafka::start().await else { return };
    for topic in ["one", "two"] {
        topic::create(&kafka, topic, None).await;
    }
    let tables = "[sinks.file]\ntype = \"file\"\npath = \"out.jsonl\"\n".to_owned();
    let config =
        |receivers| super::Config { receivers, tables: tables.clone(), ..Default::default() };
    let member = Member::start(&config(String::new())).await;
    let reload = |receivers: String| {
        member.place.configure(&config(receivers)).unwrap();
        let (status, said) = member.place.command_over_http("/api/v1/reload").unwrap();
        assert_eq!(status, 200, "{said}");
    };
    for (round, topic) in [(1, "one"), (2, "two")] {
        let broker = kafka.broker();
        reload(format!("[receivers.kafka]\nbrokers = [\"{broker}\"]\ntopics = [\"{topic}\"]\n"));
        topic::write(&kafka, topic, "application/x-protobuf", &request(round, &[10])).await;
        has(&member, &format!("fault-{round}-0")).await;
    }
    reload(String::new());
    let begun = Instant::now();
    while member.place.said().matches("partitions were revoked").count() < 2 {
        assert!(begun.elapsed() < PATIENCE, "{}", member.place.said());
        tokio::time::sleep(POLL_EVERY).await;
    }
}
