//! Two sinks are dead for an entire run, one because nothing listens, one because its listener never answers. The others get the same as
//! without them, and once the dead ones recover, they catch up from the journal, in order.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::backends::{self, Backend, Here};
use super::captured;
use super::expected::Expected;
use super::process::{Config, free_port};
use super::seen::{self, Seen};
use super::{World, directory, whole};

/// The tail is small, so that the backlog is read from disk; attempts time out and are repeated early.
const CONFIG: &str = r#"
[feed]
tail_bytes_max = "256KiB"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_dead_sinks_change_nothing_for_the_others_and_catch_up_in_order() {
    let dir = directory();
    let lines = backends::lines(dir.path());
    let alive = Here::http("alive").await;
    let nobody = free_port();
    let refused = Here::at("refused", format!("http://{nobody}"));
    let (silent, hole) = BlackHole::open().await;
    let unanswered = Here::at("unanswered", format!("http://{silent}"));
    let mut tables = CONFIG.to_owned();
    write!(tables, "[sinks.lines]\n{}\n\n", lines.table()).unwrap();
    for sink in [&alive, &refused, &unanswered] {
        // Long enough for an answer on a busy machine: a delivery without an answer in time would rightly be sent again.
        let impatient = "timeout = \"5s\"\nretry = { longest = \"300ms\" }";
        write!(tables, "[sinks.{}]\n{}\n{impatient}\n\n", sink.name(), sink.table()).unwrap();
    }
    let world = World::start(dir, &Config { tables, ..Config::default() }).await;
    let requests = captured::requests();
    let expected = Expected::of(&requests);
    for request in &requests {
        request.send(&world).await;
    }

    world.settled(&["lines", "alive"]).await;
    shows_everything(&*lines, &expected).await;
    shows_everything(&alive, &expected).await;
    world.in_trouble(&["refused", "unanswered"]).await;
    for name in ["refused", "unanswered"] {
        let sink = world.sink(name);
        assert_eq!(sink["delivered"], 0, "{sink}");
        assert_eq!(sink["pending"], expected.items.len(), "{sink}");
    }
    assert_eq!(world.place().get("/readyz").unwrap().0, 200);

    refused.receiver().serve_http(TcpListener::bind(nobody).await.unwrap());
    unanswered.receiver().serve_http(hole.close().await);
    world.settled(&["refused", "unanswered"]).await;
    let in_order = by_trace(&lines.read(&expected).await, &expected);
    for sink in [&refused, &unanswered] {
        shows_everything(sink, &expected).await;
        assert_eq!(by_trace(&sink.read(&expected).await, &expected), in_order, "{}", sink.name());
        assert_eq!(world.sink(sink.name())["dead_lettered"], 0);
    }
}

async fn shows_everything(sink: &dyn Backend, expected: &Expected) {
    let seen = whole(sink, expected).await;
    println!("{}", seen::check(sink.name(), &seen, expected, &sink.words()));
}

/// Returns the sent spans of each trace, in the order in which they arrived.
fn by_trace(seen: &[Seen], expected: &Expected) -> BTreeMap<String, Vec<String>> {
    let mut traces: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Seen { id, .. } in seen.iter().filter(|span| expected.spans.contains_key(&span.id)) {
        traces.entry(id.0.clone()).or_default().push(id.1.clone());
    }
    traces
}

/// Accepts connections, and never answers.
struct BlackHole {
    close: oneshot::Sender<()>,
    closed: JoinHandle<TcpListener>,
}

impl BlackHole {
    async fn open() -> (SocketAddr, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (close, mut closing) = oneshot::channel();
        let closed = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => held.push(accepted.unwrap()),
                    _ = &mut closing => return listener,
                }
            }
        });
        (address, Self { close, closed })
    }

    /// Drops all connections; the socket keeps listening.
    async fn close(self) -> TcpListener {
        self.close.send(()).unwrap();
        self.closed.await.unwrap()
    }
}
