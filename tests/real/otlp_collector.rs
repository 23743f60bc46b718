//! The OpenTelemetry Collector behind the OTLP sink, over gRPC and HTTP: what it wrote to its file is compared with what was sent.
//!
//! It is built from its Go modules once, into `target/real-servers/`, which takes some minutes and needs `go`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use spanferry::sinks::{Delivery, Outcome, Parts, Sink, otlp};
use tempfile::TempDir;

use super::fixtures;
use super::fixtures::Spans;

const VERSION: &str = "0.159.0";

const MANIFEST: &str = "\
dist: {name: otelcol, output_path: ./out, description: for tests}
receivers:
  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver v0.159.0
exporters:
  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter v0.159.0
providers:
  - gomod: go.opentelemetry.io/collector/confmap/provider/envprovider v1.65.0
  - gomod: go.opentelemetry.io/collector/confmap/provider/fileprovider v1.65.0
";

/// A server that has not opened its ports by then never will.
const START_MAX: Duration = Duration::from_secs(20);

/// The file is flushed every 100 ms.
const WRITE_MAX: Duration = Duration::from_secs(20);

const POLL_EVERY: Duration = Duration::from_millis(20);

// === The server ===

/// The program, built if need be; none where it cannot be, with the reason printed.
fn program() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match build() {
        Ok(path) => Some(path),
        Err(reason) => {
            println!("skipped: no OpenTelemetry Collector {VERSION}: {reason}");
            None
        }
    });
    built.as_deref()
}

fn build() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("target/real-servers/otelcol-{VERSION}"));
    let program = dir.join("out/otelcol");
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    fs::write(dir.join("manifest.yaml"), MANIFEST).map_err(|error| error.to_string())?;
    let builder = format!("go.opentelemetry.io/collector/cmd/builder@v{VERSION}");
    run(Command::new("go").args(["install", &builder]).env("GOBIN", &dir))?;
    run(Command::new(dir.join("builder"))
        .args(["--config", "manifest.yaml"])
        .current_dir(&dir)
        .env("CGO_ENABLED", "0"))?;
    Ok(program)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default().to_owned();
    Err(format!("{command:?} failed: {last}"))
}

/// A running Collector that writes what it gets to a file.
struct Collector {
    process: Child,
    dir: TempDir,
    grpc: u16,
    http: u16,
}

impl Collector {
    async fn start(program: &Path) -> Self {
        let dir = TempDir::new().unwrap();
        let (grpc, http) = (free_port(), free_port());
        let config = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{grpc}\"}}, http: {{endpoint: \"127.0.0.1:{http}\"}}}}}}}}\n\
             exporters: {{file: {{path: {}, flush_interval: 100ms}}}}\n\
             service:\n  pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}\n  telemetry: {{metrics: {{level: none}}}}\n",
            dir.path().join("out.jsonl").display()
        );
        let path = dir.path().join("config.yaml");
        fs::write(&path, config).unwrap();
        let said = fs::File::create(dir.path().join("stderr")).unwrap();
        let process =
            Command::new(program).arg("--config").arg(&path).stderr(said).spawn().unwrap();
        let collector = Self { process, dir, grpc, http };
        let started = Instant::now();
        for port in [grpc, http] {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                let said = || fs::read_to_string(collector.dir.path().join("stderr")).unwrap();
                assert!(started.elapsed() < START_MAX, "it does not start: {}", said());
                tokio::time::sleep(POLL_EVERY).await;
            }
        }
        collector
    }

    fn sink(&self, protocol: &str, more: &str) -> Arc<dyn Sink> {
        let port = if protocol == "grpc" { self.grpc } else { self.http };
        let options =
            format!("endpoint = \"http://127.0.0.1:{port}\"\nprotocol = {protocol:?}\n{more}");
        let plan = (otlp::KIND.parse)(toml::de::DeTable::parse(&options).unwrap()).unwrap();
        plan.build(Parts { name: "test".to_owned(), ..Parts::default() }).unwrap()
    }

    /// The spans that it wrote, once there are so many: those of each id, without their order.
    async fn written(&self, count: usize) -> Spans {
        let started = Instant::now();
        loop {
            let text = fs::read_to_string(self.dir.path().join("out.jsonl")).unwrap_or_default();
            // A line that is being written has no end yet.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let requests = whole.lines().map(|line| serde_json::from_str(line).unwrap());
            let spans = Spans::of(requests);
            if count <= spans.count {
                return spans;
            }
            assert!(started.elapsed() < WRITE_MAX, "{} of {count} spans are there", spans.count);
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

// === What arrives ===

#[tokio::test]
async fn every_captured_span_reaches_the_collector_over_each_protocol() {
    let Some(program) = program() else { return };
    let fixtures = fixtures::captured();
    let delivery = fixtures::delivery(&fixtures);
    let expected = Spans::of(fixtures.iter().map(|fixture| fixture.decoded.clone().unwrap()));
    for (protocol, compression) in
        [("grpc", "gzip"), ("grpc", "zstd"), ("http/protobuf", "zstd"), ("http/json", "gzip")]
    {
        let collector = Collector::start(program).await;
        let sink = collector.sink(protocol, &format!("compression = {compression:?}"));
        let case = format!("{protocol} {compression}");
        assert_eq!(sink.deliver(&delivery).await, Outcome::Delivered, "{case}");
        let written = collector.written(expected.count).await;
        assert_eq!(written.count, expected.count, "{case}");
        for (id, spans) in &expected.by_id {
            assert_eq!(written.by_id.get(id), Some(spans), "{case}");
        }
    }
}

#[tokio::test]
async fn native_items_reach_the_collector_with_names_and_parents() {
    let Some(program) = program() else { return };
    let fixtures = fixtures::native();
    let delivery = fixtures::delivery(&fixtures);
    let spans = fixtures.iter().map(|fixture| fixture.batch.spans().count()).sum();
    let collector = Collector::start(program).await;
    assert_eq!(collector.sink("grpc", "").deliver(&delivery).await, Outcome::Delivered);
    let written = collector.written(spans).await;
    assert_eq!(written.count, spans);
    let names: Vec<&str> = written
        .by_id
        .values()
        .flatten()
        .map(|whole| whole["span"]["name"].as_str().unwrap())
        .collect();
    for expected in ["invoke_agent ", "execute_tool ", "handoff "] {
        assert!(names.iter().any(|name| name.starts_with(expected)), "{expected} in {names:?}");
    }
    for whole in written.by_id.values().flatten() {
        let span = &whole["span"];
        let Some(parent) = span["parentSpanId"].as_str() else { continue };
        let id = format!("{} \"{parent}\"", span["traceId"]);
        assert!(written.by_id.contains_key(&id), "a parent is missing: {span}");
    }
}

// === What it refuses ===

/// More than so many bytes of spans.
fn larger_than(bytes: usize) -> Delivery {
    let fixtures = fixtures::captured();
    let mut delivery = Delivery::default();
    while delivery.bytes() <= bytes {
        for fixture in &fixtures {
            delivery.add(&fixture.batch, 0..fixture.batch.items.len());
        }
    }
    delivery
}

#[tokio::test]
async fn what_the_collector_finds_too_large_is_known_as_that() {
    let Some(program) = program() else { return };
    let collector = Collector::start(program).await;
    // Its limits: 4 MiB a message over gRPC, 20 MiB a body over HTTP, and there it says 400.
    for (protocol, bytes) in [("grpc", 4 << 20), ("http/protobuf", 20 << 20)] {
        let delivery = larger_than(bytes);
        let sink = collector.sink(protocol, "request_bytes_max = \"64MiB\"\ntimeout = \"60s\"");
        let outcome = sink.deliver(&delivery).await;
        assert!(
            matches!(outcome, Outcome::TooLarge { request_bytes, .. } if bytes < request_bytes),
            "{protocol}: {outcome:?}"
        );
        let sink = collector.sink(protocol, "timeout = \"60s\"");
        assert_eq!(sink.deliver(&delivery).await, Outcome::Delivered, "{protocol}, by default");
    }
}

#[tokio::test]
async fn a_wrong_path_stops_the_sink() {
    let Some(program) = program() else { return };
    let collector = Collector::start(program).await;
    let delivery = fixtures::delivery(&fixtures::captured()[..1]);
    let wrong_path = format!("traces_endpoint = \"http://127.0.0.1:{}/api\"", collector.http);
    let outcome = collector.sink("http/protobuf", &wrong_path).deliver(&delivery).await;
    assert!(matches!(outcome, Outcome::Stop { .. }), "{outcome:?}");
}
