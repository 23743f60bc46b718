//! A daemon in this process whose configuration changes while it serves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::config::{self, Environment, Request};
use crate::operate::{CommandError, Reloaded, ReplayJournalRequest, Reread};
use crate::support::authority::{Authority, connect};

/// Maximum time that a test waits for an event.
const PATIENCE: Duration = Duration::from_mins(1);
const FILE: &str =
    "[sinks.archive]\ntype = 'file'\npath = 'DIR/a.jsonl'\nbatch = { age_max = '5ms' }\n";

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    addresses: Addresses,
    reloads: Reloads,
    view: Arc<View>,
    stop: Stop,
    task: JoinHandle<anyhow::Result<()>>,
}

impl World {
    pub(super) async fn new(tables: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        configure(dir.path(), tables);
        Self::over(dir).await
    }

    async fn over(dir: tempfile::TempDir) -> Self {
        let request = Request { files: vec![file(dir.path())], flags: Vec::new() };
        let loaded = config::load(&request, &Environment::default());
        let loaded = loaded.unwrap_or_else(|report| panic!("{report:?}"));
        let daemon = Daemon::build(loaded, Box::new(|_| ())).await.unwrap();
        let (addresses, reloads) = (daemon.addresses().unwrap(), daemon.reloads());
        let (stop, view) = (Stop::default(), Arc::clone(&daemon.serving.view));
        let task = tokio::spawn(daemon.run(stop.clone()));
        Self { dir, addresses, reloads, view, stop, task }
    }

    pub(super) fn http(&self) -> SocketAddr {
        self.addresses.http.socket().unwrap()
    }

    async fn reload(&self, tables: &str) -> Result<Reloaded, CommandError> {
        configure(self.dir.path(), tables);
        self.reloads.ask(Reread::All).await
    }

    pub(super) async fn reloaded(&self, tables: &str) -> String {
        self.reload(tables).await.unwrap().to_string()
    }

    /// Sends these spans, which must be accepted.
    async fn send(&self, ids: &[&str]) {
        let mut connection = Connection::to(self.http()).await;
        assert_eq!(connection.send(ids, "").await, 204);
    }

    pub(super) fn status(&self) -> Value {
        serde_json::to_value(crate::admin::Status::of(&self.view)).unwrap()
    }

    fn health(&self) -> Value {
        serde_json::to_value(crate::admin::Status::of(&self.view).health(&self.view)).unwrap()
    }

    /// Returns the current sinks, each with its number of delivered items.
    fn delivered(&self) -> BTreeMap<String, u64> {
        let status = self.status();
        let sinks = status["sinks"].as_array().unwrap().iter();
        sinks
            .map(|sink| {
                (sink["name"].as_str().unwrap().to_owned(), sink["delivered"].as_u64().unwrap())
            })
            .collect()
    }

    pub(super) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < PATIENCE, "{what}: {:#}", self.status());
            assert!(!self.task.is_finished(), "the daemon ended");
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn settled(&self) {
        let pending = |sink: &Value| sink["pending"] != 0;
        let is_settled = || !self.status()["sinks"].as_array().unwrap().iter().any(pending);
        self.until("something is pending", is_settled).await;
    }

    /// The ids of the spans in a file, in order.
    fn ids_in(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        let id = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["original_span_id"]
                .as_str()
                .unwrap_or(line["span_id"].as_str().unwrap())
                .to_owned()
        };
        text.lines().map(id).collect()
    }

    pub(super) async fn stop(self) {
        self.stop.stop();
        self.task.await.unwrap().unwrap();
    }
}

fn file(dir: &std::path::Path) -> PathBuf {
    dir.join("spanferry.toml")
}

/// Writes the configuration: a section in `tables` replaces the default one.
fn configure(dir: &std::path::Path, tables: &str) {
    let mut text = "shutdown_timeout = '5s'\n".to_owned();
    for (section, lines) in [
        ("[receivers]", "http = '127.0.0.1:0'\ngrpc = '127.0.0.1:0'\n"),
        ("[admin]", "listen = '127.0.0.1:0'\n"),
        ("[journal]", "dir = 'DIR/state'\n"),
    ] {
        if !tables.contains(section) {
            text += &[section, "\n", lines].concat();
        }
    }
    let text = (text + tables).replace("DIR", &dir.display().to_string());
    // Atomically, because the file may be watched.
    std::fs::write(dir.join("next"), text).unwrap();
    std::fs::rename(dir.join("next"), file(dir)).unwrap();
}

/// A persistent HTTP/1.1 connection.
pub(super) struct Connection(TcpStream);

impl Connection {
    pub(super) async fn to(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Sends spans, with these header lines; returns the status.
    pub(super) async fn send(&mut self, ids: &[&str], headers: &str) -> u16 {
        let items: Vec<String> =
            ids.iter().map(|id| crate::pipeline::tests::span_item(id)).collect();
        let body = format!(r#"{{"data":[{}]}}"#, items.join(","));
        self.post("/v1/traces/ingest", headers, &body).await.0
    }

    async fn post(&mut self, path: &str, headers: &str, body: &str) -> (u16, String) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.0.write_all((head + body).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("content-length").then(|| value.parse().unwrap())
                });
                if length.unwrap_or(0) <= body.len() {
                    return (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned());
                }
            }
            assert_ne!(self.0.read_buf(&mut answer).await.unwrap(), 0, "hung up: {text}");
        }
    }
}

/// An OTLP backend that requires a key and remembers the spans that it accepted.
#[derive(Debug, Default)]
pub(super) struct Backend {
    key: Mutex<String>,
    pub(super) is_stuck: AtomicBool,
    asked: AtomicBool,
    pub(super) spans: Mutex<Vec<String>>,
}

impl Backend {
    pub(super) async fn start(key: &str) -> (Arc<Self>, String) {
        let backend = Arc::new(Self { key: Mutex::new(key.to_owned()), ..Self::default() });
        let serving = Arc::clone(&backend);
        let take = async move |headers: HeaderMap, body: String| {
            serving.asked.store(true, Ordering::SeqCst);
            while serving.is_stuck.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(5)).await;
            }
            let key = headers.get("x-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
            if key != *serving.key.lock().unwrap() {
                return (StatusCode::UNAUTHORIZED, "who are you?");
            }
            let spans = body.split("\"spanId\":\"").skip(1);
            let spans = spans.map(|rest| rest.split('"').next().unwrap().to_owned());
            serving.spans.lock().unwrap().extend(spans);
            (StatusCode::OK, "{}")
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async { axum::serve(listener, routes).await });
        (backend, url)
    }

    fn spans(&self) -> usize {
        self.spans.lock().unwrap().len()
    }
}

fn otlp(url: &str, more: &str) -> String {
    format!(
        "[sinks.far]\ntype = 'otlp'\nendpoint = '{url}'\nprotocol = 'http/json'\ncompression = 'none'\nroot_span = 'never'\n\
         batch = {{ age_max = '5ms' }}\n{more}\n"
    )
}

fn tokens(token: &str) -> String {
    format!(
        "[receivers]\nhttp = '127.0.0.1:0'\ngrpc = '127.0.0.1:0'\n\
         tokens = [{{ token = '{token}', tenant = 'shop' }}]\n{FILE}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_token_holds_for_the_next_request_on_the_same_connection() {
    let world = World::new(&tokens("sk-old")).await;
    let (old, new) = ("authorization: Bearer sk-old\r\n", "authorization: Bearer sk-new\r\n");
    let mut connection = Connection::to(world.http()).await;
    assert_eq!(connection.send(&["a"], old).await, 204);
    assert_eq!(connection.send(&["b"], new).await, 401);
    let said = world.reloaded(&tokens("sk-new")).await;
    assert_eq!(said, "kept: archive; applied: receivers.tokens");
    assert_eq!(connection.send(&["c"], old).await, 401);
    assert_eq!(connection.send(&["d"], new).await, 204);
    world.settled().await;
    assert_eq!(world.ids_in("a.jsonl").len(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_a_sink_keeps_full_degrades_health_unless_the_sink_drops_items() {
    let tables = "[journal]\ndir = 'DIR/state'\nbytes_max = '256KiB'\nack_wait = '1ms'\n\
                  [sinks.far]\ntype = 'otlp'\nendpoint = 'http://127.0.0.1:9'\n";
    let world = World::new(tables).await;
    let is_told = || world.health().to_string().contains("the journal is full: clients are");
    let mut number = 0;
    loop {
        let mut connection = Connection::to(world.http()).await;
        let id = format!("{number}{}", "x".repeat(6_000));
        match connection.send(&[&id], "").await {
            204 => number += 1,
            status => break assert_eq!(status, 503),
        }
    }
    assert!(is_told(), "{}", world.health());
    world.reloaded(&format!("{tables}when_full = 'drop_oldest'\n")).await;
    world.until("a full journal is normal then", || !is_told()).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prices_whose_file_has_changed_hold_for_what_comes_then() {
    let put = |dir: &std::path::Path, price: f64| {
        let model =
            json!({"id": "m", "match": {"equals": "acme-1"}, "prices": {"input_mtok": price}});
        let table = json!([{"id": "openai", "models": [model]}]);
        std::fs::write(dir.join("prices.json"), table.to_string()).unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), 1.0);
    let tables = format!("{FILE}[prices]\nfile = 'DIR/prices.json'\n");
    configure(dir.path(), &tables);
    let world = World::over(dir).await;
    let send = async |id: &str| {
        let item = json!({"object": "trace.span", "id": id, "trace_id": "trace_1", "span_data":
            {"type": "generation", "model": "acme-1", "usage": {"input_tokens": 1000, "output_tokens": 0}}});
        let body = json!({"data": [item]}).to_string();
        let (status, _) =
            Connection::to(world.http()).await.post("/v1/traces/ingest", "", &body).await;
        assert_eq!(status, 204);
        world.settled().await;
    };
    send("a").await;
    put(world.dir.path(), 2.0);
    assert_eq!(
        world.reloaded(&tables).await,
        "rebuilt: archive (prices.file); applied: prices.file"
    );
    let trace = crate::normalize::ids::trace_id("trace_1");
    let cost = || world.view.operator.index.summary(trace).and_then(|summary| summary.cost_usd);
    world.until("the list has the new price of the first call", || cost() == Some(0.002)).await;
    send("b").await;
    world.until("and of the second", || cost() == Some(0.004)).await;
    // An invalid one changes nothing.
    std::fs::write(world.dir.path().join("prices.json"), "{}").unwrap();
    let refused = world.reload(&tables).await.unwrap_err().to_string();
    assert!(refused.contains("missing field `providers`"), "{refused}");
    send("c").await;
    let lines = std::fs::read_to_string(world.dir.path().join("a.jsonl")).unwrap();
    let cost = |line: &str| serde_json::from_str::<Value>(line).unwrap()["cost_usd"].clone();
    let costs: Vec<_> = lines.lines().map(cost).filter(Value::is_number).collect();
    assert_eq!(costs, [json!(0.001), json!(0.002), json!(0.002)], "{lines}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_file_changes_nothing_and_is_shown_as_validate_shows_it() {
    let world = World::new(&tokens("sk-old")).await;
    let mut admin = Connection::to(world.addresses.admin.socket().unwrap()).await;
    let wrong = format!("{}\nbyts_max = 1\n", tokens("sk-hunter2"));
    configure(world.dir.path(), &wrong);
    let (status, answer) = admin.post("/api/v1/reload", "", "{}").await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let shown = answer["error"].as_str().unwrap();
    assert_eq!(status, 422, "{shown}");
    assert!(shown.contains("unknown key `byts_max`") && shown.contains("^^^^"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let mut connection = Connection::to(world.http()).await;
    assert_eq!(connection.send(&["a"], "authorization: Bearer sk-old\r\n").await, 204);
    let refused = world.status()["refused_reload"].clone();
    let problem = "unknown key `byts_max` for a sink of type `file`";
    assert_eq!(refused["problem"], problem);
    assert!(refused["at"].as_str().unwrap().ends_with('Z'), "{refused}");
    let health = world.health();
    assert_eq!(health["status"], "degraded");
    assert!(health["problems"][0].as_str().unwrap().ends_with(problem), "{health}");

    configure(world.dir.path(), &tokens("sk-new"));
    let (status, answer) = admin.post("/api/v1/reload", "", "{}").await;
    assert_eq!(
        (&world.status()["refused_reload"], &world.health()["status"]),
        (&Value::Null, &"ok".into())
    );
    let expected = json!({"done": {"added": [], "removed": [], "rebuilt": [], "kept": ["archive"], "applied": ["receivers.tokens"]}});
    assert_eq!((status, serde_json::from_str::<Value>(&answer).unwrap()), (200, expected));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_changed_or_made_refuses_all_of_it() {
    let world = World::new(&tokens("sk-old")).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ours = world.addresses.grpc.socket().unwrap().port();
    let no_certificate = "tls = { ca_file = 'DIR/none.pem' }";
    for (tables, why) in [
        (
            format!("[feed]\ntail_bytes_max = '1MiB'\n{}", tokens("sk-new")),
            "needs a restart".to_owned(),
        ),
        (tokens("sk-new").replace("grpc = '127.0.0.1:0'", &format!("grpc = '{address}'")), address),
        (
            tokens("sk-new").replace("grpc = '127.0.0.1:0'", &format!("grpc = '0.0.0.0:{ours}'")),
            "cannot listen".to_owned(),
        ),
        (
            format!("{}{}", tokens("sk-new"), otlp("https://127.0.0.1:9", no_certificate)),
            "cannot make sink far".to_owned(),
        ),
    ] {
        let refused = world.reload(&tables).await.unwrap_err().to_string();
        assert!(refused.contains("nothing has changed") && refused.contains(&why), "{refused}");
        let mut connection = Connection::to(world.http()).await;
        assert_eq!(connection.send(&["a"], "authorization: Bearer sk-old\r\n").await, 204);
        assert_eq!(world.delivered().len(), 1);
    }
    let consumers = world.view.feed.journal().consumers();
    assert_eq!(consumers.len(), 1, "{consumers:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_a_refused_reload_would_have_added_is_unknown_afterwards() {
    let world = World::new(FILE).await;
    world.send(&["a"]).await;
    world.settled().await;
    let journal = world.dir.path().join("state/journal");
    // No file can replace it.
    std::fs::create_dir(journal.join("two.cursor")).unwrap();
    let sink = |name| format!("[sinks.{name}]\ntype = 'file'\npath = 'DIR/{name}.jsonl'\n");
    let both = format!("{FILE}{}{}", sink("one"), sink("two"));
    let refused = world.reload(&both).await.unwrap_err().to_string();
    assert!(refused.contains("cannot save a cursor for sink two"), "{refused}");
    assert_eq!(world.view.feed.journal().consumers().len(), 1);
    assert!(!journal.join("one.cursor").exists());
    let listed = std::fs::read(journal.join("consumers.list")).unwrap();
    assert!(listed.ends_with(b"archive\n") && !String::from_utf8_lossy(&listed).contains("one"));
    world.send(&["b"]).await;
    world.reloaded(&format!("{FILE}{}", sink("one"))).await;
    world.send(&["c"]).await;
    world.settled().await;
    assert_eq!(world.ids_in("one.jsonl").len(), 1, "it begins when it is added");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_during_a_reload_repeats_nothing() {
    let (backend, url) = Backend::start("").await;
    let world = World::new(&format!("{FILE}{}", otlp(&url, ""))).await;
    backend.is_stuck.store(true, Ordering::SeqCst);
    world.send(&["a", "b"]).await;
    world.until("nobody is asked", || backend.asked.load(Ordering::SeqCst)).await;
    let added = "[sinks.added]\ntype = 'file'\npath = 'DIR/b.jsonl'\n";
    configure(world.dir.path(), &format!("{FILE}{}{added}", otlp(&url, "timeout = '7s'")));
    let reloads = world.reloads.clone();
    let reloading = tokio::spawn(async move { reloads.ask(Reread::All).await });
    // The last step that can be refused precedes the end of replaced lanes.
    let cursor = world.dir.path().join("state/journal/added.cursor");
    world.until("the reload does not begin", || cursor.exists()).await;
    sleep(Duration::from_millis(50)).await;
    world.stop.stop();
    backend.is_stuck.store(false, Ordering::SeqCst);
    let reloaded = reloading.await.unwrap();
    world.task.await.unwrap().unwrap();
    assert_eq!(backend.spans(), 2);
    let world = World::over(world.dir).await;
    world.settled().await;
    assert_eq!(backend.spans(), 2, "{reloaded:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_the_daemon_itself_occupies_is_refused_for_that_reason() {
    let socket = |mode: &str| {
        let grpc = format!("grpc = 'unix:DIR/grpc.sock{mode}'");
        tokens("sk-old").replace("grpc = '127.0.0.1:0'", &grpc)
    };
    let world = World::new(&socket("")).await;
    let refused = world.reload(&socket("?mode=0666")).await.unwrap_err().to_string();
    assert!(refused.contains("this daemon itself listens there"), "{refused}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_added_sink_begins_here_a_removed_one_holds_nothing_back_and_goes_on_when_it_is_back() {
    let world = World::new(FILE).await;
    world.send(&["a"]).await;
    world.settled().await;
    let other = format!("{FILE}[sinks.other]\ntype = 'file'\npath = 'DIR/b.jsonl'\n");
    assert_eq!(world.reloaded(&other).await, "added: other; kept: archive");
    world.send(&["b"]).await;
    world.settled().await;
    assert_eq!(
        world.delivered(),
        BTreeMap::from([("archive".to_owned(), 2), ("other".to_owned(), 1)])
    );

    assert_eq!(world.reloaded(FILE).await, "removed: other; kept: archive");
    let other_is_live = || {
        let consumers = world.view.feed.journal().consumers();
        consumers.iter().any(|consumer| consumer.name == "other" && consumer.is_live)
    };
    assert!(!other_is_live());
    world.send(&["c"]).await;
    world.settled().await;
    assert_eq!((world.delivered().len(), world.ids_in("b.jsonl").len()), (1, 1));

    assert_eq!(world.reloaded(&other).await, "added: other; kept: archive");
    assert!(other_is_live());
    world.settled().await;
    assert_eq!((world.ids_in("a.jsonl").len(), world.ids_in("b.jsonl").len()), (3, 2));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_is_replaced_after_a_refusal_is_read_again_by_itself_and_nothing_is_lost()
{
    let (backend, url) = Backend::start("one").await;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "one\n").unwrap();
    let headers = format!(
        "headers = {{ x-key = '${{file:{}}}' }}\nretry = {{ hold = '50ms' }}",
        key.display()
    );
    configure(dir.path(), &format!("{FILE}{}", otlp(&url, &headers)));
    let world = World::over(dir).await;
    world.send(&["a"]).await;
    world.settled().await;
    *backend.key.lock().unwrap() = "two".to_owned();
    world.send(&["b", "c"]).await;
    let far_is = |state: &str| world.status()["sinks"][1]["state"] == state;
    world.until("it is not held", || far_is("holding")).await;
    // The configuration is invalid in the meantime, but only the key is read again.
    configure(world.dir.path(), "[sinks");
    std::fs::write(&key, "two\n").unwrap();
    world.until("it is not delivered", || backend.spans() == 3).await;
    world.settled().await;
    assert_eq!(world.ids_in("a.jsonl").len(), 3);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_watched_takes_effect_by_itself_and_one_with_mistakes_does_not() {
    let watched = |path: &str| format!("[reload]\nwatch = true\n{}", FILE.replace("a.jsonl", path));
    let world = World::new(&watched("a.jsonl")).await;
    let reloads = |outcome: &str| {
        let mut registry = prometheus_client::registry::Registry::with_prefix("spanferry");
        world.view.metrics.register(&mut registry);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        page.contains(&format!("spanferry_reloads_total{{outcome=\"{outcome}\"}} 1"))
    };
    configure(world.dir.path(), "[sinks");
    world.until("the mistake is not seen", || reloads("refused")).await;
    configure(world.dir.path(), &watched("a.jsonl"));
    world.until("it is degraded", || world.health()["status"] == "ok").await;
    assert!(reloads("unchanged"), "what is in force was in the file again");
    configure(world.dir.path(), &watched("b.jsonl"));
    world.until("the change is not seen", || reloads("changed")).await;
    world.send(&["a"]).await;
    world.settled().await;
    assert_eq!((world.ids_in("a.jsonl").len(), world.ids_in("b.jsonl").len()), (0, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_goes_on_while_its_sink_is_rebuilt() {
    let (backend, url) = Backend::start("").await;
    let sinks = |more: &str| format!("{FILE}{}", otlp(&url, more));
    let world = World::new(&sinks("")).await;
    let ids: Vec<String> = (0..50).map(|number| format!("span_{number}")).collect();
    for id in &ids {
        world.send(&[id]).await;
    }
    world.settled().await;
    assert_eq!(backend.spans(), 50);
    backend.is_stuck.store(true, Ordering::SeqCst);
    backend.asked.store(false, Ordering::SeqCst);
    let operator = Arc::clone(&world.view.operator);
    let request =
        ReplayJournalRequest { sink: "far".to_owned(), ..ReplayJournalRequest::default() };
    let replaying = tokio::spawn(async move { operator.carry_out(request, drop).await });
    world.until("the replay does not begin", || backend.asked.load(Ordering::SeqCst)).await;
    let longer = sinks("timeout = '7s'");
    let reloading = world.reload(&longer);
    let freed = async {
        world.until("the lane goes on", || world.status()["sinks"][1]["in_flight"] == 1).await;
        backend.is_stuck.store(false, Ordering::SeqCst);
    };
    let (reloaded, ()) = tokio::join!(reloading, freed);
    assert_eq!(reloaded.unwrap().to_string(), "rebuilt: far (timeout); kept: archive");
    let replayed = replaying.await.unwrap().unwrap();
    assert_eq!((replayed.progress.delivered, replayed.progress.rejected), (50, 0));
    assert!(100 <= backend.spans());
    world.stop().await;
}

/// A backend that never answers delays the reload by at most its bound, and nothing else at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_hangs_is_replaced_within_a_bound_and_gets_again_what_it_had() {
    let (stuck, stuck_url) = Backend::start("").await;
    let (backend, url) = Backend::start("").await;
    stuck.is_stuck.store(true, Ordering::SeqCst);
    let world = World::new(&format!("{FILE}{}", otlp(&stuck_url, ""))).await;
    world.send(&["a", "b"]).await;
    world.until("nobody is asked", || stuck.asked.load(Ordering::SeqCst)).await;
    let tables = format!("{FILE}{}", otlp(&url, ""));
    let one = world.reload(&tables);
    let two = world.reloads.ask(Reread::All);
    let meanwhile = world.send(&["c"]);
    let (one, two, ()) = tokio::join!(one, two, meanwhile);
    assert_eq!(one.unwrap().to_string(), "rebuilt: far (endpoint); kept: archive");
    assert!(two.unwrap().is_unchanged(), "one after the other");
    world.settled().await;
    assert_eq!((backend.spans(), stuck.spans()), (3, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_move_and_a_daemon_that_stops_reloads_no_more() {
    let world = World::new(FILE).await;
    let mut old = Connection::to(world.http()).await;
    assert_eq!(old.send(&["a"], "").await, 204);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let moved = format!("[receivers]\nhttp = '{address}'\ngrpc = '127.0.0.1:0'\n{FILE}");
    assert_eq!(world.reloaded(&moved).await, "kept: archive; applied: receivers.http");
    let mut new = Connection::to(address).await;
    assert_eq!(new.send(&["b"], "").await, 204);
    assert!(TcpStream::connect(world.http()).await.is_err(), "the old one is closed");
    world.settled().await;
    assert_eq!(world.ids_in("a.jsonl").len(), 2);
    let reloads = world.reloads.clone();
    world.stop().await;
    assert!(matches!(reloads.ask(Reread::All).await, Err(CommandError::Stopping)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_becomes_encrypted_for_new_connections_and_those_there_are_stay() {
    let world = World::new(FILE).await;
    let authority = Authority::new();
    authority.renew("localhost");
    let (cert, key) = (authority.path("server.crt"), authority.path("server.key"));
    let (cert, key) = (cert.display(), key.display());
    let encrypted = format!("[receivers.tls]\ncert = '{cert}'\nkey = '{key}'\n{FILE}");
    let mut old = Connection::to(world.http()).await;
    assert_eq!(old.send(&["a"], "").await, 204);
    let broken = encrypted.replace("server.key", "none.key");
    let refused = world.reload(&broken).await.unwrap_err().to_string();
    assert!(refused.contains("receivers.tls.key cannot be used"), "{refused}");
    assert_eq!(Connection::to(world.http()).await.send(&["b"], "").await, 204);
    let expected = "kept: archive; applied: receivers.tls.cert, receivers.tls.key";
    assert_eq!(world.reloaded(&encrypted).await, expected);
    assert_eq!(Connection::to(world.http()).await.send(&["c"], "").await, 400, "it wants TLS");
    let client = authority.client(&[&rustls::version::TLS13], None);
    connect(world.http(), client).await.unwrap();
    assert_eq!(old.send(&["d"], "").await, 204);
    assert_eq!(world.reloaded(FILE).await, expected);
    assert_eq!(Connection::to(world.http()).await.send(&["e"], "").await, 204);
    world.settled().await;
    assert_eq!(world.ids_in("a.jsonl").len(), 4);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_hold_from_a_reload_on_in_lanes_and_before_the_journal() {
    const SECRET: &str = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789";
    let world = World::new(FILE).await;
    let mut connection = Connection::to(world.http()).await;
    let item = |id: &str, name: &str| {
        let item = crate::pipeline::tests::span_item(id);
        item.replace(
            r#""name":"n","data":{}"#,
            &format!(r#""name":"{name}","data":{{"key":"{SECRET}"}}"#),
        )
    };
    let lines = || std::fs::read_to_string(world.dir.path().join("a.jsonl")).unwrap();
    let body = |items: &[String]| format!(r#"{{"data":[{}]}}"#, items.join(","));
    let before = body(&[item("a", "noise")]);
    assert_eq!(connection.post("/v1/traces/ingest", "", &before).await.0, 204);
    world.settled().await;
    assert!(lines().contains(SECRET));

    let rules = "[[rules]]\nname = 'secrets'\nredact = { patterns = ['openai_key'] }\nbefore_journal = true\n\
                 [[rules]]\nmatch = { name = 'noise' }\ndrop = true\n";
    let said = world.reloaded(&format!("{FILE}{rules}")).await;
    assert_eq!(said, "rebuilt: archive (rules); applied: rules");
    let kept = world.view.feed.journal().end();
    let after = body(&[item("b", "noise"), item("c", "kept")]);
    assert_eq!(connection.post("/v1/traces/ingest", "", &after).await.0, 204);
    world.settled().await;
    assert_eq!(world.ids_in("a.jsonl").len(), 2, "{}", lines());
    assert!(lines().ends_with('\n') && lines().lines().last().unwrap().contains("[openai_key]"));
    assert_eq!(
        lines().matches(SECRET).count(),
        lines().lines().next().unwrap().matches(SECRET).count()
    );
    let stored = world.view.feed.journal().read_from(kept.position).next().unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&stored.payload.unwrap()).contains(SECRET));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_rules_decide_of_traces_that_are_open_and_of_what_comes_of_others_also_under_load() {
    let rules = |kept: &str| {
        format!(
            "{FILE}decide = {{ quiet = '2s', longest = '10m' }}\n\
             [[sinks.archive.rules]]\nmatch = {{ name = '{kept}' }}\nkeep = true\ndecide = 'trace'\n\
             [[sinks.archive.rules]]\nsample = 0\ndecide = 'trace'\n"
        )
    };
    let world = World::new(&rules("old")).await;
    let mut connection = Connection::to(world.http()).await;
    let items = |spans: &[(&str, &str)], number: u32| {
        let item = |(trace, name): &(&str, &str)| {
            crate::pipeline::tests::span_item(&format!("{trace}_{number}"))
                .replace("\"trace_1\"", &format!("\"trace_{trace}\""))
                .replace(r#""name":"n""#, &format!(r#""name":"{name}""#))
        };
        let items: Vec<_> = spans.iter().map(item).collect();
        format!(r#"{{"data":[{}]}}"#, items.join(","))
    };
    // Two are decided before: one is kept by the old rules, the other only by the new ones.
    let first = items(&[("kept", "old"), ("dropped", "new")], 0);
    assert_eq!(connection.post("/v1/traces/ingest", "", &first).await.0, 204);
    world.settled().await;
    // Two stay open all the time, while others come and go.
    let (stop, http) = (Stop::default(), world.http());
    let sending = tokio::spawn({
        let stop = stop.clone();
        async move {
            let (mut connection, mut sent) = (Connection::to(http).await, 0);
            while !stop.is_stopped() {
                sent += 1;
                let one = format!("one{sent}");
                let body = items(&[("lost", "old"), ("won", "new"), (&one, "new")], sent);
                assert_eq!(connection.post("/v1/traces/ingest", "", &body).await.0, 204);
                sleep(Duration::from_millis(10)).await;
            }
            sent
        }
    });
    let pending = |least: u64| world.status()["sinks"][0]["pending"].as_u64() >= Some(least);
    world.until("nothing waits", || pending(30)).await;
    assert_eq!(world.reloaded(&rules("new")).await, "rebuilt: archive (rules)");
    let at_reload = u32::try_from(world.view.feed.journal().end().items / 3).unwrap();
    let last = items(&[("kept", "plain"), ("dropped", "plain")], 1);
    assert_eq!(connection.post("/v1/traces/ingest", "", &last).await.0, 204);
    world.until("nothing waits", || pending(60)).await;
    stop.stop();
    let sent = sending.await.unwrap();
    world.settled().await;

    let mut left = ids_of_traces(&world);
    let ids = |trace: &str, numbers: std::ops::RangeInclusive<u32>| -> Vec<String> {
        numbers.map(|number| format!("{trace}_{number}")).collect()
    };
    let delivered: usize = left.values().map(Vec::len).sum();
    assert_eq!(left.remove("trace_won"), Some(ids("won", 1..=sent)), "each once and in order");
    let kept = left.remove("trace_kept");
    assert_eq!(kept, Some(ids("kept", 0..=0)), "the rest follows the new rules");
    assert_eq!(left.remove("trace_dropped"), Some(ids("dropped", 1..=1)));
    assert_eq!(left.get("trace_lost"), None);
    for number in at_reload + 1..=sent {
        let one = format!("one{number}");
        let found = left.remove(&format!("trace_{one}"));
        assert_eq!(found, Some(ids(&one, number..=number)));
    }
    assert!(left.values().all(|ids| ids.len() == 1), "{left:?}");
    let sink = world.status()["sinks"][0].clone();
    let figures = ["accepted", "delivered", "filtered"].map(|key| sink[key].as_u64().unwrap());
    let all = u64::from(3 * sent + 4);
    assert_eq!(figures, [all, delivered as u64, all - delivered as u64]);
    world.stop().await;
}

/// Returns the ids of the Agents SDK's spans in the file, by trace and in order.
fn ids_of_traces(world: &World) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(world.dir.path().join("a.jsonl")).unwrap();
    let mut ids = BTreeMap::<String, Vec<String>>::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        ids.entry(text("openai_trace_id")).or_default().push(text("openai_span_id"));
    }
    ids
}
