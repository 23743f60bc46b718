//! What a span costs, without network: `cargo test --release elasticsearch::tests::cost -- --ignored --nocapture`.

use super::*;
use crate::sinks::elasticsearch::server::Server;
use crate::sinks::http::Compression;
use crate::sinks::samples;
use crate::span::{Attribute, Payload, Scope, Value};

/// Agent spans of about 6.7 KB: two long texts of messages that are like each other.
fn agent_spans(count: u64) -> Delivery {
    let messages = |turns: u64, salt: u64| {
        let turns: Vec<_> = (0..turns)
            .map(|turn| {
                let text = format!(
                    "Where is my order {}?\nIt is late by {turn} days.",
                    salt * 7919 % 10_007
                );
                json!({"role": "user", "parts": [{"type": "text", "content": text}]}).to_string()
            })
            .collect();
        Text::from(format!("[{}]", turns.join(",")))
    };
    let item = |number: u64| {
        let (input, output) = (messages(42, number), messages(18, number + 1));
        let text = |key: &'static str, text: &str| Attribute {
            key: Text::from_static(key),
            value: Value::Text(Text::from(text)),
        };
        let payload = |key: &'static str, text: &Text| Attribute {
            key: Text::from_static(key),
            value: Value::Text(text.clone()),
        };
        let detail = Detail {
            name: Text::from_static("chat gpt-4.1-mini"),
            attributes: vec![
                text("gen_ai.operation.name", "chat"),
                text("gen_ai.provider.name", "openai"),
                text("gen_ai.request.model", "gpt-4.1-mini"),
                text("gen_ai.response.model", "gpt-4.1-mini-2025-04-14"),
                text("gen_ai.response.id", &format!("chatcmpl-{number:024}")),
                text("gen_ai.conversation.id", "thread_5f2c9a"),
                text("gen_ai.agent.name", "Refunds"),
                payload("gen_ai.input.messages", &input),
                payload("gen_ai.output.messages", &output),
            ],
            ..Detail::default()
        };
        let facts = Facts {
            kind: Kind::Generation,
            name: Text::from_static("chat gpt-4.1-mini"),
            agent: Some(Text::from_static("Refunds")),
            usage: Usage { input: Some(1100), output: Some(380), ..Usage::default() },
            input: Some(Payload::Json(input)),
            output: Some(Payload::Json(output)),
            ..Facts::default()
        };
        let mut span = samples::otlp_span(number, &Arc::<Scope>::default(), detail, facts);
        span.trace_id = trace_id(number / 20);
        Item::Span(span)
    };
    samples::delivery(START_NS, (0..count).map(item).collect())
}

#[test]
#[ignore = "it measures"]
fn an_agent_span_costs_at_most_sixty_microseconds() {
    const SPANS: u64 = 400;
    const ROUNDS: u32 = 40;
    let settings = settings("");
    let encoder = Encoder {
        settings: &settings,
        server: Server::assumed(settings.flavor),
        request_bytes_max: settings.request_bytes_max,
        doc_bytes_max: settings.doc_bytes_max,
    };
    let delivery = agent_spans(SPANS);
    let mut bytes = 0;
    let (mut encoding, mut compressing) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
    for _ in 0..ROUNDS {
        let mut traces = Traces::new(Limits::default(), settings.refresh_wait);
        let begun = Instant::now();
        let bulks = encoder.delivery(&delivery, &mut traces, begun.into_std());
        encoding += begun.elapsed();
        bytes = bulks.iter().map(|bulk| bulk.body.len()).sum::<usize>();
        let begun = Instant::now();
        for bulk in bulks {
            Compression::Gzip.apply(bulk.body).unwrap();
        }
        compressing += begun.elapsed();
    }
    let spans = ROUNDS * u32::try_from(SPANS).unwrap();
    println!(
        "{} bytes a span: {:?} encoding, {:?} gzip",
        bytes as u64 / SPANS,
        encoding / spans,
        compressing / spans
    );
    assert!((encoding + compressing) / spans < std::time::Duration::from_micros(60));
}
