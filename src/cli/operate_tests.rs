//! Operator commands on a daemon in this process over its admin port, and on its directory after it has stopped.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use hyper::header::CONTENT_TYPE;
use tokio::task::JoinHandle;

use super::client::{Question, ask};
use super::operator::{Place, operate};
use super::output::Output;
use super::{ConfigArguments, Shell};
use crate::config::{self, Environment};
use crate::daemon::{Addresses, Daemon};
use crate::operate::{
    Command, DropRequest, ListRequest, Listed, ReplayEntriesRequest, ReplayJournalRequest,
    ShowRequest, StatsRequest, TraceRequest, TracesRequest, VerifyRequest, Which, WhichTraces,
};
use crate::support::stop::Stop;

/// An OTLP backend that rejects requests containing poison until it is repaired, and counts what it accepts.
#[derive(Debug, Default)]
struct Backend {
    is_mended: AtomicBool,
    is_closed: AtomicBool,
    spans: AtomicUsize,
}

impl Backend {
    async fn start() -> (Arc<Self>, String) {
        let backend = Arc::new(Self::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = Arc::clone(&backend);
        let take = async move |body: Bytes| {
            if serving.is_closed.load(Ordering::SeqCst) {
                return (StatusCode::UNAUTHORIZED, "who are you?");
            }
            let text = String::from_utf8_lossy(&body);
            if text.contains("poison") && !serving.is_mended.load(Ordering::SeqCst) {
                return (StatusCode::BAD_REQUEST, "no poison, please");
            }
            serving.spans.fetch_add(text.matches("\"spanId\"").count(), Ordering::SeqCst);
            (StatusCode::OK, "{}")
        };
        let routes = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async { axum::serve(listener, routes).await });
        (backend, url)
    }

    fn spans(&self) -> usize {
        self.spans.load(Ordering::SeqCst)
    }
}

struct World {
    dir: tempfile::TempDir,
    backend: Arc<Backend>,
    addresses: Addresses,
    stop: Stop,
    daemon: JoinHandle<anyhow::Result<()>>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (backend, url) = Backend::start().await;
        let file = dir.path().join("spanferry.toml");
        let state = dir.path().join("state");
        let text = format!(
            r#"
[receivers]
http = "127.0.0.1:0"
grpc = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[journal]
dir = "{}"
[sinks.search]
type = "otlp"
endpoint = "{url}"
protocol = "http/json"
compression = "none"
root_span = "never"
"#,
            state.display()
        );
        std::fs::write(&file, text).unwrap();
        let request = config::Request { files: vec![file], ..config::Request::default() };
        let loaded = config::load(&request, &Environment::of_process()).unwrap();
        let daemon = Daemon::build(loaded, Box::new(|_| ())).await.unwrap();
        let (addresses, stop) = (daemon.addresses().unwrap(), Stop::default());
        let daemon = tokio::spawn(daemon.run(stop.clone()));
        Self { dir, backend, addresses, stop, daemon }
    }

    /// Sends these names as spans of one trace, or as invalid items.
    async fn send(&self, items: &[String]) {
        let url = format!("http://{}/v1/traces/ingest", self.addresses.http);
        let body = format!(r#"{{"data":[{}]}}"#, items.join(","));
        let answer = ask(Question {
            url: &url,
            headers: vec![(CONTENT_TYPE, "application/json".to_owned())],
            body: Some(body.into()),
            patience: Duration::from_secs(10),
            ca: None,
        });
        assert!(answer.await.unwrap().status.is_success());
    }

    async fn page(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.addresses.admin);
        let patience = Duration::from_secs(10);
        let answer =
            ask(Question { url: &url, headers: Vec::new(), body: None, patience, ca: None });
        answer.await.unwrap().text()
    }

    async fn status(&self) -> serde_json::Value {
        let status: serde_json::Value = serde_json::from_str(&self.page("/status").await).unwrap();
        let sink = &status["sinks"][0];
        let count = |name: &str| sink[name].as_u64().unwrap();
        let parts = ["delivered", "pending", "dead_lettered", "filtered", "dropped"];
        assert_eq!(count("accepted"), parts.iter().map(|part| count(part)).sum::<u64>());
        sink.clone()
    }

    async fn settled(&self) {
        while self.status().await["pending"] != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends a command to the running daemon.
    async fn ask<C: Command>(&self, command: C) -> Result<C::Answer, ExitCode>
    where
        C::Answer: 'static,
    {
        let url = Some(format!("http://{}", self.addresses.admin));
        carry_out(url, None, command).await
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("spanferry.toml")
    }

    /// Carries out a command by the configuration: without a daemon, in this process.
    async fn by_configuration<C: Command>(&self, command: C) -> Result<C::Answer, ExitCode>
    where
        C::Answer: 'static,
    {
        carry_out(None, Some(&self.file()), command).await
    }

    /// Starts the daemon again.
    async fn start(&mut self) {
        let request = config::Request { files: vec![self.file()], ..config::Request::default() };
        let loaded = config::load(&request, &Environment::of_process()).unwrap();
        let daemon = Daemon::build(loaded, Box::new(|_| ())).await.unwrap();
        (self.addresses, self.stop) = (daemon.addresses().unwrap(), Stop::default());
        self.daemon = tokio::spawn(daemon.run(self.stop.clone()));
    }

    async fn end(&mut self) {
        self.stop.stop();
        (&mut self.daemon).await.unwrap().unwrap();
    }
}

async fn carry_out<C: Command>(
    url: Option<String>,
    file: Option<&Path>,
    command: C,
) -> Result<C::Answer, ExitCode>
where
    C::Answer: 'static,
{
    let config = ConfigArguments { files: file.map(Path::to_owned).into_iter().collect() };
    let work = move || {
        let environment = Environment::of_process();
        let output = Output::of_process(&environment);
        let shell = Shell { environment: &environment, output };
        operate(&Place { config, url, ..Place::default() }, command, shell)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn span(id: &str) -> String {
    format!(
        r#"{{"object":"trace.span","id":"span_{id}","trace_id":"trace_1","parent_id":null,"started_at":"2026-11-21T05:13:36Z","ended_at":"2026-11-21T05:13:37Z","span_data":{{"type":"custom","name":"{id}","data":{{}}}},"error":null}}"#
    )
}

fn list() -> ListRequest {
    ListRequest::default()
}

fn replay_entries() -> ReplayEntriesRequest {
    ReplayEntriesRequest::default()
}

fn replay_journal(dry_run: bool) -> ReplayJournalRequest {
    let trace = Some("trace_1".to_owned());
    let sink = "search".to_owned();
    ReplayJournalRequest { sink, trace, dry_run, ..ReplayJournalRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_item_is_replayed_after_the_backend_was_mended() {
    let mut world = World::new().await;
    world.send(&[span("a"), span("poison"), span("b")]).await;
    world.settled().await;
    assert_eq!(
        (world.status().await["dead_lettered"].as_u64(), world.backend.spans()),
        (Some(1), 2)
    );

    let listed = world.ask(list()).await.unwrap();
    assert_eq!((listed.entries, listed.groups[0].sink.as_str()), (1, "search"));
    let entry = &listed.newest[0];
    assert_eq!((entry.payload.as_ref(), entry.answer.as_ref()), (None, None));
    let show =
        |with| ShowRequest { id: entry.id, payload: with, answer: with, ..ShowRequest::default() };
    let shown = world.ask(show(false)).await.unwrap();
    assert_eq!(&shown, entry);
    let shown = world.ask(show(true)).await.unwrap();
    assert!(shown.payload.unwrap().contains("poison") && shown.answer.unwrap().contains("please"));

    let replayed = world.ask(replay_entries()).await.unwrap();
    assert_eq!((replayed.progress.delivered, replayed.progress.rejected), (0, 1));
    world.backend.is_mended.store(true, Ordering::SeqCst);
    let replayed = world.ask(replay_entries()).await.unwrap();
    assert_eq!((replayed.progress.items, replayed.progress.delivered), (1, 1));
    let status = world.status().await;
    assert_eq!((&status["delivered"], &status["dead_lettered"]), (&3.into(), &0.into()));
    assert_eq!(status["replayed"], 1);
    assert_eq!(world.backend.spans(), 3);
    assert_eq!(world.ask(list()).await.unwrap(), Listed::default());

    let census = world.ask(replay_journal(true)).await.unwrap().census.unwrap();
    assert_eq!((census.items(), census.begins_late), (3, false));
    assert_eq!(world.backend.spans(), 3, "a dry run sends nothing");
    world.end().await;

    let replayed = world.by_configuration(replay_journal(false)).await.unwrap();
    assert_eq!((replayed.progress.delivered, world.backend.spans()), (3, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_dropped_offline_and_the_next_start_counts_them() {
    let mut world = World::new().await;
    world.send(&[span("poison1"), span("b"), span("poison2")]).await;
    world.send(&["{\"object\":\"odd\"}".to_owned()]).await;
    world.settled().await;
    assert_eq!(
        world.by_configuration(list()).await.unwrap_err(),
        ExitCode::FAILURE,
        "the daemon has the directory, and its admin port is not where the configuration says"
    );
    assert_eq!(
        world.ask(DropRequest::default()).await.unwrap_err(),
        ExitCode::FAILURE,
        "nothing is selected"
    );
    world.end().await;

    let listed = world.by_configuration(list()).await.unwrap();
    assert_eq!(listed.entries, 2);
    let id = listed.newest[0].id;
    for ids in [vec![id + 1], vec![id, id + 1]] {
        let replay = ReplayEntriesRequest { ids: ids.clone(), ..ReplayEntriesRequest::default() };
        assert_eq!(world.by_configuration(replay).await.unwrap_err(), ExitCode::FAILURE);
        let drop = DropRequest { ids, ..DropRequest::default() };
        assert_eq!(world.by_configuration(drop).await.unwrap_err(), ExitCode::FAILURE);
    }
    let drop = DropRequest { ids: vec![id], ..DropRequest::default() };
    assert_eq!(world.by_configuration(drop).await.unwrap().items, 1);
    world.backend.is_mended.store(true, Ordering::SeqCst);
    let replayed = world.by_configuration(replay_entries()).await.unwrap();
    assert_eq!((replayed.progress.items, replayed.progress.delivered), (1, 1));
    let which = Which { quarantine: true, ..Which::default() };
    let command = ListRequest { which, ..ListRequest::default() };
    assert_eq!(world.by_configuration(command).await.unwrap().entries, 1);

    world.start().await;
    let status = world.status().await;
    let figures =
        ["delivered", "dead_lettered", "dropped"].map(|name| status[name].as_u64().unwrap());
    assert_eq!(figures, [2, 0, 1]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_and_quarantined_items_that_cannot_be_read_degrade_health() {
    for store in ["dead letters", "quarantine"] {
        let mut world = World::new().await;
        world.send(&[span("poison1"), "{\"object\":\"odd\"}".to_owned()]).await;
        world.settled().await;
        world.end().await;
        let dir = world.dir.path().join("state").join(store.replace("dead letters", "dead-letter"));
        let segment = dir.join(format!("{:020}.log", 0));
        let bytes = std::fs::read(&segment).unwrap();
        std::fs::write(&segment, &bytes[..bytes.len() - 1]).unwrap();
        world.start().await;
        let health: serde_json::Value = serde_json::from_str(&world.page("/health").await).unwrap();
        assert_eq!(health["status"], "degraded");
        let problem = health["problems"][0].as_str().unwrap();
        assert!(problem.starts_with(&format!("{store} damaged: ")), "{problem}");
        assert!(problem.contains("with 1 items"), "{problem}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_can_not_give_commands() {
    let world = World::new().await;
    let url = format!("http://{}/api/v1/dead-letters/drop", world.addresses.admin);
    for (name, value, expected) in [
        ("origin", "https://page.example", 403),
        ("host", "rebound.example", 403),
        ("content-type", "text/plain", 415),
    ] {
        let mut headers = vec![(hyper::header::HeaderName::from_static(name), value.to_owned())];
        if name != "content-type" {
            headers.push((CONTENT_TYPE, "application/json".to_owned()));
        }
        let body = Some(Bytes::from_static(b"{\"all\":true}"));
        let patience = Duration::from_secs(10);
        let answer = ask(Question { url: &url, headers, body, patience, ca: None }).await.unwrap();
        assert_eq!(answer.status, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_holds_degrades_health_and_shows_in_the_figures() {
    let world = World::new().await;
    world.backend.is_closed.store(true, Ordering::SeqCst);
    world.send(&[span("a")]).await;
    while world.status().await["state"] != "holding" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let health: serde_json::Value = serde_json::from_str(&world.page("/health").await).unwrap();
    assert_eq!(health["status"], "degraded");
    assert!(health["problems"][0].as_str().unwrap().contains("401"), "{health}");
    assert_eq!(world.page("/readyz").await, "ready", "requests are taken all the same");
    let verbose = world.page("/readyz?verbose").await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&verbose).unwrap(), health);
    let metrics = world.page("/metrics").await;
    for figure in [
        "spanferry_sink_holding{sink=\"search\",type=\"otlp\"} 1.0",
        "spanferry_sink_holds_total{sink=\"search\",type=\"otlp\"} 1",
        "spanferry_sink_throttles_total{sink=\"search\",type=\"otlp\"} 0",
        "spanferry_sink_dead_lettered_spans_total{sink=\"search\",type=\"otlp\",reason=\"too_large\"} 0",
    ] {
        assert!(metrics.contains(figure), "{figure} is not in:\n{metrics}");
    }
}

/// Returns a trace with a tree, sums and a conversation: an agent that calls a model, and a tool whose name would colour a terminal.
fn run_of(trace: &str) -> Vec<String> {
    let span = |id: &str, parent: &str, data: &str| {
        format!(
            r#"{{"object":"trace.span","id":"span_{trace}_{id}","trace_id":"{trace}","parent_id":{parent},"started_at":"2026-11-21T05:13:36Z","ended_at":"2026-11-21T05:13:37Z","span_data":{data},"error":null}}"#
        )
    };
    let agent = format!("\"span_{trace}_agent\"");
    vec![
        span("agent", "null", r#"{"type":"agent","name":"Triage"}"#),
        span(
            "call",
            &agent,
            r#"{"type":"generation","model":"gpt-5","usage":{"input_tokens":10,"output_tokens":2}}"#,
        ),
        span(
            "tool",
            &agent,
            r#"{"type":"function","name":"look\u001b[31m_up","input":"{}","output":"x"}"#,
        ),
    ]
}

fn traces(filter: &str) -> TracesRequest {
    let which = WhichTraces { filter: vec![filter.to_owned()], ..WhichTraces::default() };
    TracesRequest { which, ..TracesRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_seen_on_a_running_daemon_and_on_the_files_of_a_stopped_one() {
    let mut world = World::new().await;
    world.send(&run_of("trace_1")).await;
    world.send(&run_of("trace_2")).await;
    world.settled().await;
    while world.ask(traces("")).await.unwrap().traces.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let show = TraceRequest { id: "trace_1".to_owned(), ..TraceRequest::default() };
    let verify = VerifyRequest { id: "trace_1".to_owned() };
    let running = (
        world.ask(traces("agent:triage")).await.unwrap().traces,
        world.ask(StatsRequest::default()).await.unwrap().rows,
        world.ask(show.clone()).await.unwrap(),
        world.ask(verify.clone()).await.unwrap(),
    );
    assert_eq!((running.0.len(), running.0[0].total_tokens, running.1[0].count), (2, 12, 2));
    assert_eq!((running.2.spans.len(), running.2.spans[2].name.as_str()), (3, "look\u{1b}[31m_up"));
    let sink = &running.3.sinks[0];
    assert_eq!((sink.sink.as_str(), sink.delivered, sink.pending), ("search", 3, 0));
    assert!(world.ask(traces("dur:fast")).await.is_err(), "a mistake is said");
    let missing = TraceRequest { id: "trace_9".to_owned(), ..TraceRequest::default() };
    assert!(world.ask(missing).await.is_err());
    world.end().await;

    let stopped = (
        world.by_configuration(traces("agent:triage")).await.unwrap().traces,
        world.by_configuration(StatsRequest::default()).await.unwrap().rows,
        world.by_configuration(show).await.unwrap(),
        world.by_configuration(verify).await.unwrap(),
    );
    assert_eq!(stopped, running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sink_rejected_of_a_trace_is_verified_as_status_counts_it() {
    let mut world = World::new().await;
    world.send(&[span("a"), span("poison"), span("b"), span("poison too")]).await;
    world.settled().await;
    let verified = async |world: &World| {
        let verify = VerifyRequest { id: "trace_1".to_owned() };
        let sink = world.ask(verify).await.unwrap().sinks.remove(0);
        let status = world.status().await;
        let figures = ["delivered", "pending", "dead_lettered", "filtered", "dropped"];
        let figures = figures.map(|name| status[name].as_u64().unwrap());
        assert_eq!(
            [sink.delivered, sink.pending, sink.dead_lettered, sink.filtered, sink.dropped],
            figures
        );
        figures
    };
    assert_eq!(verified(&world).await, [2, 0, 2, 0, 0]);
    let first = world.ask(list()).await.unwrap().newest[0].id;
    world.ask(DropRequest { ids: vec![first], ..DropRequest::default() }).await.unwrap();
    assert_eq!(verified(&world).await, [2, 0, 1, 0, 1]);
    world.backend.is_mended.store(true, Ordering::SeqCst);
    world.ask(replay_entries()).await.unwrap();
    assert_eq!(verified(&world).await, [3, 0, 0, 0, 1]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_admin_port_has_keys_nobody_looks_at_traces_without_one() {
    let mut world = World::new().await;
    let policy = |world: &World| {
        let text = std::fs::read_to_string(world.file()).unwrap();
        std::fs::write(world.file(), text.replace("[admin]\n", "[admin]\ntokens = [\"secret\"]\n"))
            .unwrap();
    };
    policy(&world);
    world.ask(crate::operate::ReloadRequest::default()).await.unwrap();
    for path in ["/api/v1/traces", "/api/v1/traces/show", "/api/v1/traces/verify", "/api/v1/stats"]
    {
        let url = format!("http://{}{path}", world.addresses.admin);
        for (key, expected) in [(None, 401), (Some("wrong"), 401), (Some("secret"), 200)] {
            let mut headers = vec![(CONTENT_TYPE, "application/json".to_owned())];
            headers.extend(key.map(|key| (hyper::header::AUTHORIZATION, format!("Bearer {key}"))));
            let is_one = path.ends_with("show") || path.ends_with("verify");
            let body =
                Some(Bytes::from_static(if is_one { b"{\"id\":\"trace_1\"}" } else { b"{}" }));
            let patience = Duration::from_secs(10);
            let answer =
                ask(Question { url: &url, headers, body, patience, ca: None }).await.unwrap();
            let expected = if is_one && expected == 200 { 404 } else { expected };
            assert_eq!(answer.status, expected, "{path} {key:?}");
        }
    }
    world.end().await;
}
