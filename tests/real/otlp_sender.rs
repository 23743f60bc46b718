//! The OpenTelemetry Collector as a client of Spanferry, over gRPC and HTTP: captured requests go into its own OTLP receiver, and the file
//! that Spanferry writes is compared with what was sent.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::bodies::{Size, Template};
use super::fixtures::{self, Spans};
use super::process::client::{Answer, Client, Protocol};
use super::process::{Config, Daemon, POLL_EVERY, Place, free_port};
use super::receiver::Receiver;
use super::servers::collector::{Collector, program};

/// By default the Collector waits up to 30 s between attempts; here it is configured to wait less.
const ARRIVE_MAX: Duration = Duration::from_mins(1);

const FILE: &str =
    "[sinks.archive]\ntype = \"file\"\nformat = \"otlp-json\"\npath = \"archive.jsonl\"\n";

#[tokio::test]
async fn every_captured_span_comes_through_a_collector_over_each_protocol() {
    let Some(program) = program() else { return };
    let fixtures = fixtures::captured();
    let expected = Spans::of(fixtures.iter().map(|fixture| fixture.decoded.clone().unwrap()));
    for (exporter, compression) in
        [("otlp", "gzip"), ("otlp", "zstd"), ("otlp_http", "gzip"), ("otlp_http", "zstd")]
    {
        let world = World::new(&Config { tables: FILE.to_owned(), ..Config::default() }).await;
        let collector = world.collector(&program, exporter, compression).await;
        for fixture in &fixtures {
            let protocol = if fixture.is_json { Protocol::OtlpJson } else { Protocol::OtlpHttp };
            send(&collector, protocol, fixture.body.clone()).await;
        }
        let case = format!("{exporter} {compression}");
        let found = world.archived(expected.count, &collector).await;
        assert_same(&found, &expected, &case);
    }
}

#[tokio::test]
async fn a_collector_tries_again_while_the_journal_is_full_and_nothing_is_lost() {
    // Twice the capacity of the journal, which keeps them compressed, as received.
    const REQUESTS: usize = 200;
    let Some(program) = program() else { return };
    for exporter in ["otlp", "otlp_http"] {
        let down = free_port();
        let world = World::new(&Config {
            journal: "bytes_max = \"4MiB\"\nsegment_bytes_max = \"512KiB\"\nack_wait = \"200ms\"".to_owned(),
            tables: format!(
                "{FILE}\n[sinks.down]\ntype = \"otlp\"\nendpoint = \"http://{down}\"\nretry = {{ longest = \"500ms\" }}\n"
            ),
            ..Config::default()
        })
        .await;
        let collector = world.collector(&program, exporter, "gzip").await;
        let mut template = Template::new(Protocol::OtlpHttp, Size::Agent, 7);
        let mut sent = Vec::new();
        for _ in 0..REQUESTS {
            let body = template.next();
            let request = ExportTraceServiceRequest::decode(&*body).unwrap();
            sent.push(serde_json::to_value(request).unwrap());
            send(&collector, Protocol::OtlpHttp, body).await;
        }
        let expected = Spans::of(sent);
        world.refuses().await;

        // Once the sink that was down delivers spans, the journal has space again.
        let receiver = Receiver::default();
        receiver.serve_http(TcpListener::bind(down).await.unwrap());
        let found = world.archived(expected.count, &collector).await;
        assert_same(&found, &expected, exporter);
        let got = receiver.got();
        let late = Spans::of(got.into_iter().map(|got| serde_json::to_value(got.request).unwrap()));
        assert_same(&late, &expected, &format!("{exporter}, behind the sink that was down"));
    }
}

/// Asserts that every span is there once, unchanged.
fn assert_same(found: &Spans, expected: &Spans, case: &str) {
    for (id, spans) in &expected.by_id {
        assert_eq!(found.by_id.get(id), Some(spans), "{case}");
    }
    assert_eq!(found.count, expected.count, "{case}");
}

async fn send(collector: &Collector, protocol: Protocol, body: bytes::Bytes) {
    let address = ([127, 0, 0, 1], collector.http).into();
    let mut client = Client::connect(protocol, address, None).await.unwrap();
    assert_eq!(client.send(body).await.unwrap(), Answer::Kept, "by the Collector itself");
}

/// A daemon that writes what it receives to a file.
struct World {
    daemon: Daemon,
    dir: TempDir,
}

impl World {
    async fn new(config: &Config) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let place = Place::new(dir.path());
        place.configure(config).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_spanferry"));
        let daemon = Daemon::start(&place, place.command(program).unwrap()).await.unwrap();
        Self { daemon, dir }
    }

    /// Starts a Collector that sends to it, and retries soon and forever.
    async fn collector(&self, program: &Path, exporter: &str, compression: &str) -> Collector {
        let place = &self.daemon.place;
        let address = match exporter {
            "otlp" => format!("endpoint: \"{}\", tls: {{insecure: true}}", place.grpc),
            _ => format!("endpoint: \"http://{}\"", place.http),
        };
        let exporter = format!(
            "{exporter}: {{{address}, compression: {compression}, \
             retry_on_failure: {{initial_interval: 100ms, max_interval: 500ms, max_elapsed_time: 0s}}}}"
        );
        Collector::start(program, &exporter).await
    }

    fn requests(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dir.path().join("archive.jsonl")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the contents of the file, once this number of spans was accepted and every sink has them.
    async fn archived(&self, count: usize, collector: &Collector) -> Spans {
        let begun = Instant::now();
        let place = &self.daemon.place;
        loop {
            let accepted = place.figure("spanferry_receiver_accepted_spans_total");
            let pending = place.figure("spanferry_sink_pending_spans");
            #[expect(clippy::cast_precision_loss, reason = "some thousands")]
            if accepted >= Some(count as f64) && pending == Some(0.0) {
                return Spans::of(self.requests());
            }
            assert!(
                begun.elapsed() < ARRIVE_MAX,
                "{accepted:?} of {count} spans came through, {pending:?} are pending:\n{}",
                collector.said()
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Waits until a request has been refused.
    async fn refuses(&self) {
        let begun = Instant::now();
        while self.daemon.place.figure("spanferry_receiver_refused_spans_total") < Some(1.0) {
            assert!(begun.elapsed() < ARRIVE_MAX, "nothing was refused");
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}
