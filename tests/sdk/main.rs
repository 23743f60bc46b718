//! Real, unmodified SDKs send to the daemon, and its files are compared with what the SDK reports as exported.
//!
//! | program | SDKs |
//! | --- | --- |
//! | `python/agents_run.py` | Python Agents SDK 0.24.0 and 0.0.7 |
//! | `js/agents_run.mjs` | JS Agents SDK 0.20.0 and 0.0.17 |
//! | `python/otel_run.py` | OpenTelemetry Python SDK 1.45.2, over gRPC and HTTP, plain and gzip |
//!
//! The agents use a scripted model server inside the test (`model.rs`): a greeting, a handoff with a tool, a tool that raises, a guardrail
//! that trips, Chat Completions, both APIs streamed, a model that fails, nested custom spans. The documented line points them at the
//! daemon. A second processor in the program records what the SDK exports; the test compares it with the daemon's files: the same items and
//! no others, ids, parents, times, names, kinds, usage, errors and metadata, and the whole item as JSON. `compare.rs` computes the expected
//! values without any of the daemon's code.
//!
//! Python with `venv` and npm install the SDKs into `target/tmp/sdk` from pinned versions, once (about a minute).
//!
//! Not proven here: spans of kinds that these programs do not make (MCP, voice; they are in the captures under `golden/`), SDK versions in
//! between, and what an SDK itself loses (a process killed before its own flush).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, and read files and the environment"
)]

#[path = "../opt_in.rs"]
mod opt_in;
#[path = "../process/mod.rs"]
mod process;

mod compare;
mod install;
mod model;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use install::Installed;
use process::{Config, Daemon, POLL_EVERY, Place};

/// A program that runs longer hangs.
const PROGRAM_MAX: Duration = Duration::from_mins(1);
const DELIVERY_MAX: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_newest_python_agents_sdk_arrives_complete() {
    agents(install::python("0.24.0", "agents_run.py")).await;
}

#[tokio::test]
async fn an_old_python_agents_sdk_arrives_complete() {
    agents(install::python("0.0.7", "agents_run.py")).await;
}

#[tokio::test]
async fn the_newest_js_agents_sdk_arrives_complete() {
    agents(install::node("0.20.0", "agents_run.mjs")).await;
}

#[tokio::test]
async fn an_old_js_agents_sdk_arrives_complete() {
    agents(install::node("0.0.17", "agents_run.mjs")).await;
}

#[tokio::test]
async fn the_opentelemetry_python_sdk_arrives_complete_over_grpc() {
    opentelemetry("grpc", "none").await;
    opentelemetry("grpc", "gzip").await;
}

#[tokio::test]
async fn the_opentelemetry_python_sdk_arrives_complete_over_http() {
    opentelemetry("http", "none").await;
    opentelemetry("http", "gzip").await;
}

async fn agents(installed: Option<Installed>) {
    let Some(installed) = installed else { return };
    let world = World::start().await;
    let model = model::serve().await;
    let mut command = Command::new(&installed.interpreter);
    command.arg(&installed.program);
    command.env("OPENAI_API_KEY", "local");
    command.env("MODEL_URL", format!("http://{model}/v1"));
    command.env("INGEST_URL", format!("http://{}/v1/traces/ingest", world.daemon.place.http));
    let exported = world.run(command).await;
    let (lines, agents_sdk) = world.finish(u32::try_from(exported.len()).unwrap()).await;
    compare::agents_sdk(&exported, &agents_sdk);
    compare::agents(&exported, &lines);
}

async fn opentelemetry(protocol: &str, compression: &str) {
    let Some(installed) = install::python("0.24.0", "otel_run.py") else { return };
    let world = World::start().await;
    let mut command = Command::new(&installed.interpreter);
    command.arg(&installed.program).env("PROTOCOL", protocol).env("COMPRESSION", compression);
    let place = &world.daemon.place;
    command.env(
        "ENDPOINT",
        match protocol {
            "grpc" => format!("http://{}", place.grpc),
            _ => format!("http://{}/v1/traces", place.http),
        },
    );
    let exported = world.run(command).await;
    let (lines, _) = world.finish(u32::try_from(exported.len()).unwrap()).await;
    compare::opentelemetry(&exported, &lines);
}

/// A daemon that writes what it receives to two files, and the program that sends to it.
struct World {
    daemon: Daemon,
    dir: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let place = Place::new(dir.path());
        let tables = "[sinks.lines]\ntype = \"file\"\npath = \"lines.jsonl\"\n\n\
                      [sinks.agents_sdk]\ntype = \"file\"\npath = \"agents_sdk.jsonl\"\nformat = \"openai\"\n";
        place.configure(&Config { tables: tables.to_owned(), ..Config::default() }).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_spanferry"));
        let command = place.command(program).unwrap();
        let daemon = Daemon::start(&place, command).await.unwrap_or_else(|error| panic!("{error}"));
        Self { daemon, dir }
    }

    /// Runs a program to its end; returns what its SDK exported.
    async fn run(&self, mut command: Command) -> Vec<Value> {
        let (record, log) = (self.file("exported.jsonl"), self.file("program.log"));
        let output = File::create(&log).unwrap();
        command
            .env("RECORD", &record)
            .env("NO_PROXY", "127.0.0.1,localhost")
            .current_dir(self.dir.path());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let mut child = command.spawn().unwrap();
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if PROGRAM_MAX < started.elapsed() {
                child.kill().ok();
                child.wait().ok();
                panic!("the program did not end; it said:\n{}", fs::read_to_string(&log).unwrap());
            }
            tokio::time::sleep(POLL_EVERY).await;
        };
        let said = fs::read_to_string(&log).unwrap();
        assert!(status.success(), "the program ended with {status}; it said:\n{said}");
        let exported = read_lines(&record);
        assert!(!exported.is_empty(), "the SDK exported nothing; it said:\n{said}");
        exported
    }

    /// Waits until everything was delivered, and stops the daemon; returns the lines of both files.
    async fn finish(self, items: u32) -> (Vec<Value>, Vec<Value>) {
        let place = &self.daemon.place;
        let asked = Instant::now();
        loop {
            let figure = |name: &str| place.figure(name);
            let kept = figure("spanferry_receiver_accepted_spans_total");
            if kept.is_some_and(|kept| f64::from(items) <= kept)
                && figure("spanferry_sink_pending_spans") == Some(0.0)
            {
                break;
            }
            assert!(
                asked.elapsed() < DELIVERY_MAX,
                "only {kept:?} of {items} items arrived:\n{}",
                place.said()
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
        let (lines, agents_sdk) = (self.file("lines.jsonl"), self.file("agents_sdk.jsonl"));
        let end = self.daemon.terminate(DELIVERY_MAX).await.unwrap();
        assert!(end.is_some_and(|status| status.success()), "{end:?}");
        (read_lines(&lines), read_lines(&agents_sdk))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn read_lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Not a test: it ends the suite's output. See `opt_in.rs`.
#[test]
fn zz_what_was_skipped_is_said() {
    opt_in::say_what_was_skipped();
}
