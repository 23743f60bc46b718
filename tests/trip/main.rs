//! The whole trip, as a user sees it: the real binary, real captured requests, and the resulting files and answers of the admin port.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, and read files and the environment"
)]

#[path = "../planted/mod.rs"]
mod planted;
#[path = "../process/mod.rs"]
mod process;

mod admin;
mod attributes;
mod bucket;
mod cli;
mod import;
mod loops;
mod mcp;
mod redact;
mod rules;
mod traffic;
mod understanding;

use std::path::Path;

use process::{Config, Daemon, Place};

/// A daemon in its own directory.
struct World {
    dir: tempfile::TempDir,
    daemon: Daemon,
}

impl World {
    /// Starts a daemon with these sinks and waits until it is ready.
    async fn new(sinks: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        place.configure(&Config { tables: sinks.to_owned(), ..Config::default() }).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_spanferry"));
        let daemon = Daemon::start(&place, place.command(program).unwrap()).await.unwrap();
        Self { dir, daemon }
    }

    fn place(&self) -> &Place {
        &self.daemon.place
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.place().ask("/status").unwrap()).unwrap()
    }

    /// Waits until every running sink has everything.
    async fn settled(&self) {
        let pending = |sink: &serde_json::Value| sink["state"] == "running" && sink["pending"] != 0;
        while self.status()["sinks"].as_array().unwrap().iter().any(pending) {
            tokio::time::sleep(process::POLL_EVERY).await;
        }
    }
}
