//! Unrecognized parts of spans show on the admin port, by name and never by value.

use serde_json::{Value, json};

use super::World;
use super::attributes::request;
use super::traffic::Client;

/// Must not be in any metric or line of the log.
const SECRET: &str = "hunter2 bought 3 llamas";

#[tokio::test]
async fn what_is_not_understood_is_counted_and_never_shown() {
    let world = World::new("[sinks.lines]\ntype = \"file\"\npath = \"lines.jsonl\"\n").await;
    let url = format!("http://{}/v1/traces", world.place().http);
    let client = Client::new();
    let operation = |word: &str| ("gen_ai.operation.name", json!(word));
    let call = |model: &str| {
        vec![
            operation("chat"),
            ("gen_ai.request.model", json!(model)),
            ("gen_ai.usage.input_tokens", json!(3)),
        ]
    };
    let odd: [(&str, Vec<(&str, Value)>); 5] = [
        ("acme", vec![("acme.note", json!(SECRET))]),
        ("genai", vec![operation("daydream"), ("gen_ai.usage.input_tokens", json!(SECRET))]),
        ("genai", vec![operation(SECRET), ("gen_ai.usage.dreams", json!(SECRET))]),
        ("genai", call("acme-1")),
        ("genai", call(SECRET)),
    ];
    for (scope, attributes) in &odd {
        let body = request(scope, attributes);
        assert_eq!(client.post(&url, "application/json", "", body).await, 200);
    }
    // Times in seconds.
    let body = String::from_utf8(request("genai", &[operation("chat")])).unwrap();
    let body = body.replace("1796000000000000000", "1796000000");
    assert_eq!(client.post(&url, "application/json", "", body.into()).await, 200);
    world.settled().await;

    // It is counted a moment after the sinks have read it.
    let place = world.place();
    while world.status()["understanding"]["unpriced_models"]["__other__"].is_null() {
        tokio::time::sleep(super::process::POLL_EVERY).await;
    }
    let page = place.ask("/metrics").unwrap();
    for line in [
        "spanferry_spans_without_convention_total 1",
        "spanferry_spans_uncounted_usage_total 2",
        "spanferry_spans_unknown_operation_total{operation=\"daydream\"} 1",
        "spanferry_spans_unknown_operation_total{operation=\"__other__\"} 1",
        "spanferry_receiver_odd_time_spans_total{receiver=\"otlp_http\"} 1",
        "spanferry_spans_unpriced_total{model=\"acme-1\"} 1",
        "spanferry_spans_unpriced_total{model=\"__other__\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}: {page}");
    }
    let status = world.status();
    let expected = json!({
        "uncounted_usage": 2,
        "unknown_operations": { "__other__": 1, "daydream": 1 },
        "without_convention": 1,
        "odd_times": { "otlp_http": 1 },
        "unpriced_models": { "__other__": 1, "acme-1": 1 },
    });
    assert_eq!(status["understanding"], expected);
    for said in [page, status.to_string(), place.said()] {
        assert!(!said.contains("hunter2"), "{said}");
    }
}
