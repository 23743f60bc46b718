//! The sink and the receiver `kafka` with a real Kafka: two tiers of daemons with a topic between them, and real Collectors on either side.
//!
//! Clients number their spans and send a request again until it is acknowledged (`../crash/senders.rs`). The acknowledged spans must be in
//! the files after the topic exactly once: while brokers and daemons of both tiers get SIGKILL at random moments, while all brokers are
//! away, and while daemons join and leave the group.
//!
//! Further cases: TLS, SASL and certificates; messages that are too large for the topic; a topic that is deleted, never existed, or may
//! lose acknowledged messages; and messages that are not OTLP.
//!
//! ```sh
//! SPANFERRY_REAL=kafka,collector cargo test --features kafka --test kafka              # a minute or two
//! SPANFERRY_KAFKA_SPANS=1000000 SPANFERRY_KAFKA_KILLS=20 SPANFERRY_REAL=kafka \
//!   cargo test --release --features kafka --test kafka -- --nocapture through_kills    # minutes
//! ```
//!
//! Not proven here: the loss of one of several brokers; that acknowledgements wait for all in-sync replicas is up to Kafka.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, print, and read files and the environment"
)]

#[path = "../../src/support/tests/authority.rs"]
mod authority;
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../crash/ledger.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod ledger;
#[path = "../opt_in.rs"]
mod opt_in;
#[path = "../process/mod.rs"]
mod process;
#[path = "../crash/senders.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod senders;
#[path = "../servers/mod.rs"]
mod servers;

mod collector;
mod faults;
mod secured;
mod tiers;
mod topic;

use std::path::Path;
use std::time::{Duration, Instant};

use authority::Authority;
use process::{Config, Daemon, Place};
use servers::POLL_EVERY;
use servers::kafka::Kafka;

/// What has not happened by then never will.
const PATIENCE: Duration = Duration::from_mins(2);
/// Maximum time of an orderly stop.
const DRAIN_MAX: Duration = Duration::from_mins(1);

/// A daemon of one of the tiers, in its own directory.
struct Member {
    _dir: tempfile::TempDir,
    place: Place,
    running: Option<Daemon>,
}

impl Member {
    /// Starts one that receives from clients and writes to a topic.
    async fn receiving(kafka: &Kafka, topic: &str, more: &str) -> Self {
        let tables = format!(
            "[sinks.topic]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{topic}\"\n{more}\n",
            kafka.broker()
        );
        Self::start(&Config { tables, ..Config::default() }).await
    }

    /// Starts one that reads a topic and writes to a file.
    async fn delivering(kafka: &Kafka, topic: &str, more: &str) -> Self {
        let receivers = format!(
            "[receivers.kafka]\nbrokers = [\"{}\"]\ntopics = [\"{topic}\"]\n{more}\n",
            kafka.broker()
        );
        let tables = "[sinks.file]\ntype = \"file\"\npath = \"out.jsonl\"\n".to_owned();
        Self::start(&Config { receivers, tables, ..Config::default() }).await
    }

    async fn start(config: &Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        place.configure(config).unwrap();
        let mut member = Self { _dir: dir, place, running: None };
        member.again().await;
        member
    }

    /// Starts it on its existing directory.
    async fn again(&mut self) {
        let command = self.place.command(Path::new(env!("CARGO_BIN_EXE_spanferry"))).unwrap();
        self.running = Some(Daemon::start(&self.place, command).await.unwrap());
    }

    fn daemon(&mut self) -> &mut Daemon {
        self.running.as_mut().unwrap()
    }

    fn kill(&mut self) {
        self.running.take().unwrap().kill().unwrap();
    }

    async fn terminate(&mut self) {
        let end = self.running.take().unwrap().terminate(DRAIN_MAX).await.unwrap();
        let said = || self.place.said();
        assert!(end.is_some_and(|status| status.success()), "{end:?}\n{}", said());
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.place.ask("/status").unwrap_or_default()).unwrap_or_default()
    }

    /// Waits until its status satisfies this.
    async fn until(&mut self, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
        let begun = Instant::now();
        while !is_so(&self.status()) {
            assert!(self.daemon().ended().is_none(), "it ended:\n{}", self.place.said());
            let status = || serde_json::to_string_pretty(&self.status()).unwrap();
            assert!(begun.elapsed() < PATIENCE, "{what}: {}\n{}", status(), self.place.said());
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Waits until nothing is pending at its sinks.
    async fn delivered(&mut self) {
        self.until("all is delivered", |status| {
            let sinks = status["sinks"].as_array();
            sinks.is_some_and(|sinks| sinks.iter().all(|sink| sink["pending"] == 0))
        })
        .await;
    }

    /// Waits until it has been assigned partitions of a topic since its start.
    async fn assigned(&self) {
        let begun = Instant::now();
        let has_some =
            |line: &str| line.contains("partitions were assigned") && !line.contains("\"count\":0");
        let since_it_began = |said: &str| {
            let last = said.rsplit("spanferry is ready").next();
            last.is_some_and(|said| said.lines().any(has_some))
        };
        while !since_it_began(&self.place.said()) {
            assert!(begun.elapsed() < PATIENCE, "{}", self.place.said());
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Returns the contents of its file, or nothing if there is none.
    fn lines(&self) -> String {
        std::fs::read_to_string(self.place.dir.join("out.jsonl")).unwrap_or_default()
    }
}

/// Not a test: it ends the suite's output. See `opt_in.rs`.
#[test]
fn zz_what_was_skipped_is_said() {
    opt_in::say_what_was_skipped();
}
