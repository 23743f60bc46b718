//! Requests to a server other than spans: headers, the probe, and reading answers from OpenAI.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use serde_json::json;
use spanferry::sinks::{Plan, Report, langfuse};
use spanferry::span::{Receiver, Span, TraceContext};
use tokio::net::TcpListener;

use crate::fake::Fake;
use crate::{delivery, known, otlp, sink, span};

fn plan(options: &str) -> Box<dyn Plan> {
    let table = toml::de::DeTable::parse(options).unwrap();
    (langfuse::KIND.parse)(table).unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[tokio::test]
async fn a_request_says_who_sends_it_and_how_it_is_to_be_taken() {
    let fake = Fake::start().await;
    assert_eq!(
        sink(&fake.options()).deliver(&otlp(vec![span(Vec::new())])).await,
        Report::delivered()
    );
    let headers = fake.posts().remove(0).headers;
    for (name, value) in [
        ("content-type", "application/x-protobuf"),
        ("x-langfuse-ingestion-version", "4"),
        ("x-langfuse-sdk-name", "spanferry"),
        ("x-langfuse-sdk-version", env!("CARGO_PKG_VERSION")),
    ] {
        assert_eq!(headers.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[tokio::test]
async fn requests_are_compressed_unless_the_server_is_on_this_machine() {
    let fake = Fake::start().await;
    let near = fake.options();
    // Linux connects to this machine, but the address does not show it.
    let far = near.replace("127.0.0.1", "0.0.0.0");
    for (options, coding) in [(near, None), (far, Some("gzip"))] {
        let report = sink(&options).deliver(&otlp(vec![span(Vec::new())])).await;
        assert_eq!(report, Report::delivered());
        let headers = fake.posts().pop().unwrap().headers;
        assert_eq!(headers.get("content-encoding").map(String::as_str), coding);
    }
}

#[tokio::test]
async fn the_address_of_an_otlp_exporter_is_understood_too() {
    let fake = Fake::start().await;
    for ending in ["/", "/api/public/otel", "/api/public/otel/", "/api/public/otel/v1/traces"] {
        let options = fake.options().replace(&fake.url, &format!("{}{ending}", fake.url));
        assert_eq!(
            sink(&options).deliver(&otlp(vec![span(Vec::new())])).await,
            Report::delivered(),
            "{ending}"
        );
    }
}

// === The probe ===

async fn probed(options: &str) -> Result<String, String> {
    plan(options).probe().unwrap().await
}

#[tokio::test]
async fn the_probe_says_what_it_found_or_how_to_mend_it() {
    let fake = Fake::start().await;
    let found = probed(&fake.options()).await.unwrap();
    assert!(found.contains("4.16.0") && found.contains("shop"), "{found}");
    for (version, expected) in [
        ("2.95.12", "does not accept OTLP"),
        ("3.21.0", "3.22.0"),
        ("3.50.0", "plain spans"),
        ("3.98.2", "accepts the keys: project shop"),
    ] {
        fake.set_version(version);
        let said = probed(&fake.options()).await.unwrap_or_else(|problem| problem);
        assert!(said.contains(expected), "{version}: {said}");
    }
    fake.set_version("4.16.0");
    let wrong = fake.options().replace("sk-lf-5678", "sk-lf-0000");
    let problem = probed(&wrong).await.unwrap_err();
    assert!(problem.contains("rejects the keys") && !problem.contains("sk-lf"), "{problem}");
    let elsewhere = fake.options().replace(&fake.url, &format!("{}/shop", fake.url));
    assert!(probed(&elsewhere).await.unwrap_err().contains("is not Langfuse"));
    let nobody =
        "base_url = \"http://127.0.0.1:1\"\npublic_key = \"pk-lf-1\"\nsecret_key = \"sk-lf-1\"";
    assert!(probed(nobody).await.unwrap_err().contains("cannot be reached"));
    assert_eq!(fake.posts().len(), 0, "it leaves nothing there");
}

// === Answers ===

/// An OpenAI that returns stored responses or fails.
#[derive(Clone, Default)]
struct OpenAi {
    asked: Arc<Mutex<Vec<String>>>,
    /// 0 for an answer; else a status, or 1 for no answer at all.
    status: Arc<AtomicUsize>,
}

impl OpenAi {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .route("/v1/responses/{id}", axum::routing::get(answer))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn answer(
    State(openai): State<OpenAi>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> axum::response::Response {
    assert_eq!(headers["authorization"], "Bearer sk-test");
    openai.asked.lock().unwrap().push(id.clone());
    let status = openai.status.load(Ordering::Relaxed);
    if status == 1 {
        tokio::time::sleep(Duration::from_mins(10)).await;
    }
    if id == "resp_gone" {
        return StatusCode::NOT_FOUND.into_response();
    }
    if status != 0 {
        return StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap().into_response();
    }
    let body = json!({
        "id": id, "model": "gpt-5-mini", "output": [{ "type": "message" }],
        "usage": { "input_tokens": 120, "input_tokens_details": { "cached_tokens": 64 }, "output_tokens": 45,
                   "output_tokens_details": { "reasoning_tokens": 12 }, "total_tokens": 165 }
    });
    ([("content-type", "application/json")], body.to_string()).into_response()
}

fn run(response_id: &str) -> String {
    let item = |id: &str, span_data: serde_json::Value| {
        json!({
            "object": "trace.span", "id": id, "trace_id": "trace_21990c0290104f62b71ed955a1f966f7", "parent_id": null,
            "started_at": "2026-11-21T05:15:09.529503+00:00", "ended_at": "2026-11-21T05:15:10.529503+00:00",
            "span_data": span_data, "error": null
        })
    };
    let task = json!({ "type": "custom", "name": "task", "data": { "sdk_span_type": "task", "name": "T",
        "usage": { "input_tokens": 120, "output_tokens": 45, "total_tokens": 165 } } });
    let response = json!({ "type": "response", "response_id": response_id });
    let items = [item("span_1", response), item("span_2", task)];
    json!({ "data": items }).to_string()
}

fn run_delivery(response_id: &str) -> spanferry::sinks::Delivery {
    let delivery = delivery(Receiver::OpenAi, run(response_id));
    let is_task = |span: &&Span| span.facts().sdk_span_type.is_some();
    let exceptions = delivery.spans().filter(is_task).map(|span| span.span_id).collect();
    known(delivery, &TraceContext { exceptions, ..TraceContext::default() })
}

#[tokio::test]
async fn an_answer_is_asked_for_once_and_its_tokens_are_not_counted_twice() {
    let (fake, openai) = (Fake::start().await, OpenAi::default());
    let lookup =
        format!("lookup = {{ api_key = \"sk-test\", endpoint = {:?} }}", openai.start().await);
    let sink = sink(&format!("{}{lookup}", fake.options()));
    for _ in 0..2 {
        assert_eq!(sink.deliver(&run_delivery("resp_1")).await, Report::delivered());
    }
    assert_eq!(openai.asked(), 1);
    let posts = fake.posts();
    assert_eq!(posts[0].body, posts[1].body);
    let rows = fake.merged();
    let (generation, task) =
        if rows[0].kind == "chain" { (&rows[1], &rows[0]) } else { (&rows[0], &rows[1]) };
    assert_eq!(generation.model.as_deref(), Some("gpt-5-mini"));
    assert_eq!(generation.usage["total"], 165);
    assert_eq!(generation.output, None, "content only where it is asked for");
    assert!(task.usage.is_empty(), "{task:?}");
    assert!(!generation.cost.is_empty());
}

#[tokio::test]
async fn content_is_taken_where_it_is_asked_for() {
    let (fake, openai) = (Fake::start().await, OpenAi::default());
    let endpoint = openai.start().await;
    let lookup =
        format!("lookup = {{ api_key = \"sk-test\", endpoint = {endpoint:?}, content = true }}");
    let sink = sink(&format!("{}{lookup}", fake.options()));
    assert_eq!(sink.deliver(&run_delivery("resp_1")).await, Report::delivered());
    assert!(fake.rows().iter().any(|row| row.output.as_deref() == Some(r#"[{"type":"message"}]"#)));
}

#[tokio::test]
async fn a_lookup_that_fails_costs_a_delivery_no_more_than_its_time() {
    for status in [1, 401, 429, 500] {
        let (fake, openai) = (Fake::start().await, OpenAi::default());
        openai.status.store(status, Ordering::Relaxed);
        let endpoint = openai.start().await;
        let lookup = format!(
            "lookup = {{ api_key = \"sk-test\", endpoint = {endpoint:?}, timeout = \"200ms\" }}"
        );
        let sink = sink(&format!("{}{lookup}", fake.options()));
        let started = Instant::now();
        for id in ["resp_1", "resp_2", "resp_3"] {
            assert_eq!(sink.deliver(&run_delivery(id)).await, Report::delivered());
        }
        assert!(started.elapsed() < Duration::from_secs(2), "{status}");
        assert_eq!(openai.asked(), 1, "{status}: after a failure nobody is asked for a while");
        assert_eq!(fake.merged().len(), 2);
        let tokens: u64 = fake.merged().iter().filter_map(|row| row.usage.get("total")).sum();
        assert_eq!(tokens, 165, "the run speaks for its trace");
    }
}

#[tokio::test]
async fn an_answer_that_is_gone_does_not_keep_others_from_being_asked_for() {
    let (fake, openai) = (Fake::start().await, OpenAi::default());
    let lookup =
        format!("lookup = {{ api_key = \"sk-test\", endpoint = {:?} }}", openai.start().await);
    let sink = sink(&format!("{}{lookup}", fake.options()));
    for id in ["resp_gone", "resp_2", "no_id_of_openai"] {
        assert_eq!(sink.deliver(&run_delivery(id)).await, Report::delivered());
    }
    assert_eq!(*openai.asked.lock().unwrap(), ["resp_gone", "resp_2"]);
}
