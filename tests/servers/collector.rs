//! The OpenTelemetry Collector 0.159.0, as a receiver that writes to a file, or as a sender that forwards.
//!
//! Built from its Go modules by its own builder, which takes a minute or two and requires `go` and its module proxy. Started as
//! `otelcol --config config.yaml`; ready when its ports accept connections.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::fixtures::Spans;
use super::super::process::free_port;
use super::{POLL_EVERY, Recipe, Server, run};

const MANIFEST: &str = "\
dist: {name: otelcol, output_path: ./out, description: for tests}
receivers:
  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver v0.159.0
  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/receiver/kafkareceiver v0.158.0
exporters:
  - gomod: go.opentelemetry.io/collector/exporter/otlpexporter v0.159.0
  - gomod: go.opentelemetry.io/collector/exporter/otlphttpexporter v0.159.0
  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter v0.159.0
  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/exporter/kafkaexporter v0.159.0
providers:
  - gomod: go.opentelemetry.io/collector/confmap/provider/envprovider v1.65.0
  - gomod: go.opentelemetry.io/collector/confmap/provider/fileprovider v1.65.0
";

const RECIPE: Recipe = Recipe {
    name: "collector",
    folder: "otelcol-0.159.0",
    source: MANIFEST,
    is_bound_to_its_path: false,
    make,
};

const START_MAX: Duration = Duration::from_secs(20);
/// The file is flushed every 100 ms.
const WRITE_MAX: Duration = Duration::from_secs(20);

fn make(folder: &Path) -> Result<(), String> {
    fs::write(folder.join("manifest.yaml"), MANIFEST).map_err(|error| error.to_string())?;
    let builder = "go.opentelemetry.io/collector/cmd/builder@v0.159.0";
    run(Command::new("go").args(["install", builder]).env("GOBIN", folder))?;
    run(Command::new(folder.join("builder"))
        .args(["--config", "manifest.yaml"])
        .current_dir(folder)
        .env("CGO_ENABLED", "0"))
}

/// Returns the program; `None` if it was not opted in.
pub(crate) fn program() -> Option<PathBuf> {
    Some(RECIPE.have()?.join("out/otelcol"))
}

/// A running Collector.
pub(crate) struct Collector {
    server: Server,
    pub(crate) grpc: u16,
    pub(crate) http: u16,
}

impl Collector {
    /// Starts one that writes what it receives to a file.
    pub(crate) async fn writing(program: &Path) -> Self {
        Self::start(program, "file: {path: ./out.jsonl, flush_interval: 100ms}").await
    }

    /// Starts the same with this additional receiver, as YAML in one line: `name: {...}`.
    pub(crate) async fn writing_from(program: &Path, receiver: &str) -> Self {
        let exporter = "file: {path: ./out.jsonl, flush_interval: 100ms}";
        Self::start_with(program, &format!(", {receiver}"), exporter).await
    }

    /// Starts one with this exporter, as YAML in one line: `name: {...}`.
    pub(crate) async fn start(program: &Path, exporter: &str) -> Self {
        Self::start_with(program, "", exporter).await
    }

    async fn start_with(program: &Path, receiver: &str, exporter: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (grpc, http) = (free_port().port(), free_port().port());
        let name = exporter.split(':').next().unwrap();
        let also = receiver.split(':').next().unwrap();
        let config = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{grpc}\"}}, http: {{endpoint: \"127.0.0.1:{http}\"}}}}}}{receiver}}}\n\
             exporters: {{{exporter}}}\n\
             service:\n  pipelines: {{traces: {{receivers: [otlp{also}], exporters: [{name}]}}}}\n  telemetry: {{metrics: {{level: none}}}}\n",
        );
        fs::write(dir.path().join("config.yaml"), config).unwrap();
        let mut command = Command::new(program);
        let mut server = Server::start(command.args(["--config", "config.yaml"]), dir);
        server.listens(&[grpc, http], START_MAX).await;
        Self { server, grpc, http }
    }

    /// Returns its log so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.server.dir().join("said")).unwrap()
    }

    /// Returns the requests that it has written so far, as OTLP/JSON.
    pub(crate) fn requests(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.server.dir().join("out.jsonl")).unwrap_or_default();
        // The last line may be incomplete.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the spans that it wrote, once this number is there: by id, regardless of order.
    pub(crate) async fn written(&self, count: usize) -> Spans {
        let started = Instant::now();
        loop {
            let spans = Spans::of(self.requests());
            if count <= spans.count {
                return spans;
            }
            assert!(started.elapsed() < WRITE_MAX, "{} of {count} spans are there", spans.count);
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}
