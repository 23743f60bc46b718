//! Every kind of sink at once behind one daemon, and the same daemon while one of them is dead.
//!
//! Each backend is one row of [`backends::all`]: a module that configures its sink and reads back what a user of that backend sees. What it
//! must hold is computed in [`expected`] from the captured items, without any of the daemon's code.
//!
//! One daemon gets every captured Agents SDK request, and one more with an end user and tags. Each backend is read back: files and standard
//! output; an OTLP receiver over gRPC and JSON; Langfuse and `OpenAI` as in their own suites; and, if opted in, a real Collector, a real
//! search server, a real Jaeger and a real Phoenix, through their query APIs. Compared are each span's name, kind, parent, model, tokens,
//! session, user, tags, error and start; no span may be there twice or without its parent. The backend's own counts must agree (Phoenix's
//! project page, Jaeger's search, the summaries of traces in the search server). The suite prints a table of what each backend shows.
//!
//! Then one daemon has two dead sinks, one that refuses connections and one that never answers: the others get the same as without them;
//! when the dead ones recover, they get everything from the journal, once, each trace in its order. And with every sink down, and more sent
//! than fits into the journal, memory stays within the bound of the design. The cost of a dead sink to the others in throughput and latency
//! is measured, not tested: `cargo bench --bench load -- --spawn --dead-sink`.
//!
//! Not proven here: that a dead sink has no effect on a machine that is busy with other work; viewers other than Jaeger and Phoenix.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, print, and read files and the environment"
)]

#[path = "../bench/load/bodies.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod bodies;
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../opt_in.rs"]
mod opt_in;
#[path = "../process/mod.rs"]
mod process;
#[path = "../bench/load/procfs.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod procfs;
#[path = "../otlp/receiver.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod receiver;
#[path = "../servers/mod.rs"]
mod servers;

#[path = "../langfuse/fake.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod langfuse;
#[path = "../langfuse/mapping.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod mapping;
#[path = "../langfuse/prices.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod prices;
#[path = "../openai/backend.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod backend;
#[path = "../search/servers/mod.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod search_servers;

mod backends;
mod captured;
mod expected;
mod seen;

mod all_at_once;
mod memory;
mod one_dead;

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use backends::Backend;
use expected::Expected;
use process::{Config, Daemon, POLL_EVERY, Place};
use seen::Seen;
use serde_json::Value;

/// What has not been delivered by then never will be.
const DELIVERY_MAX: Duration = Duration::from_mins(2);

/// Time between two readings of an incomplete backend.
const READ_EVERY: Duration = Duration::from_millis(500);

/// A daemon in its own directory; its standard output goes to `stdout` there.
struct World {
    daemon: Daemon,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start(dir: tempfile::TempDir, config: &Config) -> Self {
        let place = Place::new(dir.path());
        place.configure(config).unwrap();
        let mut command = place.command(Path::new(env!("CARGO_BIN_EXE_spanferry"))).unwrap();
        command.stdout(File::create(dir.path().join("stdout")).unwrap());
        match Daemon::start(&place, command).await {
            Ok(daemon) => Self { daemon, _dir: dir },
            Err(error) => panic!("{error}"),
        }
    }

    fn place(&self) -> &Place {
        &self.daemon.place
    }

    /// Returns the daemon's status of a sink.
    fn sink(&self, name: &str) -> Value {
        let status: Value = serde_json::from_str(&self.place().ask("/status").unwrap()).unwrap();
        let sinks = status["sinks"].as_array().unwrap();
        sinks.iter().find(|sink| sink["name"] == name).cloned().unwrap()
    }

    /// Waits until these sinks report that they do not work.
    async fn in_trouble(&self, names: &[&str]) {
        for name in names {
            let begun = Instant::now();
            while self.sink(name)["state"] != "retrying" {
                assert!(begun.elapsed() < DELIVERY_MAX, "{}", self.sink(name));
                tokio::time::sleep(POLL_EVERY).await;
            }
        }
    }

    /// Waits until these sinks have everything.
    async fn settled(&self, names: &[&str]) {
        let begun = Instant::now();
        for name in names {
            while self.sink(name)["pending"] != 0 {
                let said = self.place().said();
                assert!(begun.elapsed() < DELIVERY_MAX, "{}\n{said}", self.sink(name));
                tokio::time::sleep(POLL_EVERY).await;
            }
        }
    }
}

/// Makes a directory inside the target folder, because /tmp may be a tmpfs.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Returns what a backend shows once it is complete: some store after they have answered.
async fn whole(backend: &dyn Backend, expected: &Expected) -> Vec<Seen> {
    let begun = Instant::now();
    loop {
        let seen = backend.read(expected).await;
        if seen::is_complete(&seen, expected) || DELIVERY_MAX < begun.elapsed() {
            return seen;
        }
        tokio::time::sleep(READ_EVERY).await;
    }
}

/// Not a test: it ends the suite's output. See `opt_in.rs`.
#[test]
fn zz_what_was_skipped_is_said() {
    opt_in::say_what_was_skipped();
}
