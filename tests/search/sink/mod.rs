//! The Elasticsearch sink against real servers: a real daemon receives captured requests, and the documents are compared with what was
//! sent.

mod compare;
mod crashes;
mod faults;
mod options;
mod reports;
mod scenarios;
mod truth;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::client::{Answer, Client, Protocol};
use super::process::{Config, Daemon, POLL_EVERY, Place};
use super::servers::{Installed, Node};
use truth::{Captured, captured};

/// Maximum time of any wait: one for the trace's root, one for the resolver, both on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Short waits, so that a test of a held sink does not take a minute.
const WAITS: &str = "retry = { first = \"50ms\", longest = \"500ms\", hold = \"500ms\" }\ncommit_every = \"200ms\"\n";

/// A node, and a daemon that delivers to it.
pub(crate) struct World {
    pub(crate) node: Arc<Node>,
    dir: TempDir,
    place: Place,
    daemon: Option<Daemon>,
    prefix: &'static str,
}

impl World {
    /// Starts a daemon with these sink options on a separate node with these settings.
    async fn alone(server: &Arc<Installed>, settings: &[(&str, &str)], options: &str) -> Self {
        let node = Arc::new(Node::start(server, settings).await);
        Self::new(node, "agent-traces", options).await
    }

    /// Starts a daemon with these sink options on a node that others may use too, with other prefixes.
    pub(crate) async fn new(node: Arc<Node>, prefix: &'static str, options: &str) -> Self {
        let mut world = Self::with(node, prefix, options);
        world.start().await;
        world
    }

    /// Prepares a daemon without starting it.
    fn with(node: Arc<Node>, prefix: &'static str, options: &str) -> Self {
        let dir = TempDir::with_prefix("spanferry-search-daemon-").unwrap();
        let place = Place::new(dir.path());
        let tables = format!(
            "[sinks.search]\ntype = \"elasticsearch\"\nendpoints = [\"{}\"]\nindex_prefix = \"{prefix}\"\n{WAITS}{options}\n",
            node.url()
        );
        place.configure(&Config { tables, ..Config::default() }).unwrap();
        Self { node, dir, place, daemon: None, prefix }
    }

    async fn start(&mut self) {
        let program = Path::new(env!("CARGO_BIN_EXE_spanferry"));
        let command = self.place.command(program).unwrap();
        self.daemon = Some(Daemon::start(&self.place, command).await.unwrap());
    }

    /// Returns the node, which must not be shared.
    fn node_mut(&mut self) -> &mut Node {
        Arc::get_mut(&mut self.node).unwrap()
    }

    /// Sends SIGKILL to the daemon.
    fn kill(&mut self) {
        self.daemon.take().unwrap().kill().unwrap();
    }

    /// Sends requests sequentially. Each must be acknowledged.
    async fn send<'a>(&self, requests: impl IntoIterator<Item = &'a Captured>) {
        let protocol = Protocol::Openai;
        let mut client =
            Client::connect(protocol, protocol.address(&self.place), None).await.unwrap();
        for request in requests {
            let answer = client.send(request.body.clone().into()).await.unwrap();
            assert_eq!(answer, Answer::Kept, "{}", request.name);
        }
    }

    /// Makes the sink create its indices, which it does before the first document.
    pub(crate) async fn install(&self) {
        self.send(&captured()[..1]).await;
        self.settled().await;
    }

    /// Returns the admin port's status of the sink.
    fn sink(&self) -> Value {
        self.sinks().swap_remove(0)
    }

    fn sinks(&self) -> Vec<Value> {
        let (_, status) = self.place.get("/status").unwrap();
        let status: Value = serde_json::from_str(&status).unwrap();
        status["sinks"].as_array().unwrap().clone()
    }

    /// Waits until the sink satisfies this.
    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let sink = self.sink();
            assert_adds_up(&sink);
            if is_so(&sink) {
                return sink;
            }
            assert!(started.elapsed() < PATIENCE, "never {what}: {sink}\n{}", self.place.said());
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Waits until the sink has delivered everything, and is healthy.
    async fn settled(&self) -> Value {
        self.until("settled", |sink| sink["pending"] == 0 && sink["state"] == "running").await
    }

    /// Returns every document of an index and its rotations, with its id.
    async fn documents(&self, kind: &str) -> Vec<(String, Value)> {
        // More than all captures have, and the maximum of a search.
        const MOST: usize = 10_000;
        let index = format!("{}-{kind}*", self.prefix);
        self.node.post(&format!("/{index}/_refresh"), Value::Null).await;
        let asked = json!({ "size": MOST, "track_total_hits": true, "query": { "match_all": {} } });
        let answer = self.node.search(&index, asked).await;
        let hits = answer["hits"]["hits"].as_array().unwrap();
        assert_eq!(answer["hits"]["total"]["value"], hits.len());
        let document =
            |hit: &Value| (hit["_id"].as_str().unwrap().to_owned(), hit["_source"].clone());
        hits.iter().map(document).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the daemon on {} said:\n{}", self.dir.path().display(), self.place.said());
        }
    }
}

/// Asserts that accepted = delivered + pending + dead letters + filtered + dropped, which holds at any moment.
fn assert_adds_up(sink: &Value) {
    let count = |name: &str| sink[name].as_u64().unwrap();
    let parts = ["delivered", "pending", "dead_lettered", "filtered", "dropped"];
    assert_eq!(count("accepted"), parts.map(count).iter().sum::<u64>(), "{sink}");
}
