//! Jaeger 2.13.0 with its storage in memory, and its query API.
//!
//! Built from its Go modules (v1.76.0 is the last tag that is usable as one), which takes about four minutes and requires `go` and its
//! module proxy. `go install` refuses it because of a replace directive, so a module of our own uses it as a tool. Started as
//! `jaeger --config jaeger.yaml`, with `OTEL_TRACES_SAMPLER=always_off` so that it does not trace itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::super::process::free_port;
use super::{Recipe, Server, get, run};

const MODULE: &str = "github.com/jaegertracing/jaeger@v1.76.0";

const RECIPE: Recipe = Recipe {
    name: "jaeger",
    folder: "jaeger-2.13.0",
    source: MODULE,
    is_bound_to_its_path: false,
    make,
};

const START_MAX: Duration = Duration::from_secs(30);
/// More traces than any test sends; Jaeger refuses a query for as many as it keeps.
const TRACES_MAX: u32 = 200_000;
/// The number of traces in a query, which is required.
const ASKED_MAX: u32 = 100_000;

fn make(folder: &Path) -> Result<(), String> {
    let go = |arguments: &[&str]| run(Command::new("go").args(arguments).current_dir(folder));
    go(&["mod", "init", "peers/jaeger"])?;
    go(&[
        "mod",
        "edit",
        "-replace",
        "github.com/Shopify/sarama=github.com/Shopify/sarama@v1.33.0",
    ])?;
    go(&["mod", "download", MODULE])?;
    // The lookup of one checksum fails, but Jaeger's own list has it.
    let cache = Command::new("go").args(["env", "GOMODCACHE"]).output();
    let cache = cache.map_err(|error| error.to_string())?.stdout;
    let sums = Path::new(String::from_utf8_lossy(&cache).trim()).join(MODULE).join("go.sum");
    let sums = fs::read(&sums).map_err(|error| format!("{}: {error}", sums.display()))?;
    fs::write(folder.join("go.sum"), sums).map_err(|error| error.to_string())?;
    go(&["get", "-tool", "github.com/jaegertracing/jaeger/cmd/jaeger@v1.76.0"])?;
    run(Command::new("go")
        .args(["build", "-trimpath", "-ldflags=-s -w", "-o", "jaeger"])
        .arg("github.com/jaegertracing/jaeger/cmd/jaeger")
        .current_dir(folder)
        .env("CGO_ENABLED", "0"))
}

/// Returns the program; `None` if it was not opted in.
pub(crate) fn program() -> Option<PathBuf> {
    Some(RECIPE.have()?.join("jaeger"))
}

/// A running Jaeger.
pub(crate) struct Jaeger {
    _server: Server,
    /// The port for OTLP over HTTP.
    pub(crate) http: u16,
    query: u16,
}

impl Jaeger {
    pub(crate) async fn start(program: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [http, query, query_grpc] = [(); 3].map(|()| free_port().port());
        let config = format!(
            "extensions:\n  jaeger_storage: {{backends: {{mem: {{memory: {{max_traces: {TRACES_MAX}}}}}}}}}\n  \
             jaeger_query: {{storage: {{traces: mem}}, http: {{endpoint: \"127.0.0.1:{query}\"}}, grpc: {{endpoint: \"127.0.0.1:{query_grpc}\"}}}}\n\
             receivers: {{otlp: {{protocols: {{http: {{endpoint: \"127.0.0.1:{http}\"}}}}}}}}\n\
             exporters: {{jaeger_storage_exporter: {{trace_storage: mem}}}}\n\
             service:\n  extensions: [jaeger_storage, jaeger_query]\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}}}\n  telemetry: {{metrics: {{level: none}}}}\n",
        );
        fs::write(dir.path().join("jaeger.yaml"), config).unwrap();
        let mut command = Command::new(program);
        command.args(["--config", "jaeger.yaml"]).env("OTEL_TRACES_SAMPLER", "always_off");
        let mut server = Server::start(&mut command, dir);
        server.listens(&[http, query], START_MAX).await;
        Self { _server: server, http, query }
    }

    /// Returns all spans, as OTLP/JSON: one request for each service.
    pub(crate) async fn spans(&self) -> Vec<Value> {
        let mut requests = Vec::new();
        for service in self.services().await {
            // Both times are required. They cover everything, because the captures' times are in the past.
            let (status, answer) = self
                .get(&format!(
                    "/api/v3/traces?query.service_name={service}&query.start_time_min=1970-01-01T00:00:00Z\
                     &query.start_time_max=2100-01-01T00:00:00Z&query.num_traces={ASKED_MAX}"
                ))
                .await;
            assert_eq!(status, 200, "{answer}");
            requests.push(answer["result"].clone());
        }
        requests
    }

    /// Returns what its search page shows: every trace of every service, with spans, tags and references.
    pub(crate) async fn traces(&self) -> Vec<Value> {
        let mut traces = Vec::new();
        for service in self.services().await {
            let path = format!(
                "/api/traces?service={service}&limit={ASKED_MAX}&start=0&end=4102444800000000"
            );
            let (status, answer) = self.get(&path).await;
            assert_eq!(status, 200, "{answer}");
            traces.extend(answer["data"].as_array().cloned().unwrap_or_default());
        }
        traces
    }

    /// Returns the names in its list of services.
    pub(crate) async fn services(&self) -> Vec<String> {
        let (_, answer) = self.get("/api/services").await;
        let names = answer["data"].as_array().cloned().unwrap_or_default();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        get(&format!("http://127.0.0.1:{}{path}", self.query)).await
    }
}
