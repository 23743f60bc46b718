//! What the events of a span tell: exceptions, evaluations, first tokens, and messages of GenAI before 1.37.

use super::fields::Read;
use super::value;
use crate::normalize::raw::written;
use crate::span::{Facts, Failure, Payload, Score, Span, SpanEvent, Value};
use crate::support::json::write_str;

/// Adds what the events tell and the attributes did not.
pub(super) fn read(span: &Span, facts: &mut Facts) {
    let events = &span.detail().events;
    if events.is_empty() {
        return;
    }
    for event in events {
        match &*event.name {
            "exception" => facts.error = Some(exception(event)),
            "gen_ai.evaluation.result" => facts.scores.push(score(event)),
            "First Token Stream Event"
            | "gen_ai.content.completion.chunk"
            | "llm.content.completion.chunk" => {
                first_token(span, event, facts);
            }
            "ai.stream.firstChunk" => {
                let milliseconds = get(event, "ai.response.msToFirstChunk").and_then(value::number);
                facts.first_token_ns =
                    facts.first_token_ns.or(milliseconds.and_then(|ms| nanoseconds(ms / 1e3)));
            }
            _ => (),
        }
    }
    let is_input = |name: &str| {
        matches!(
            name,
            "gen_ai.system.message"
                | "gen_ai.user.message"
                | "gen_ai.assistant.message"
                | "gen_ai.tool.message"
        )
    };
    if facts.input.is_none() {
        facts.input = messages(events.iter().filter(|event| is_input(&event.name)));
    }
    if facts.output.is_none() {
        facts.output = messages(events.iter().filter(|event| &*event.name == "gen_ai.choice"));
    }
}

/// A number of seconds in nanoseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range was checked"
)]
pub(super) fn nanoseconds(seconds: f64) -> Option<u64> {
    // No answer takes longer than a day to begin.
    (0.0..=86_400.0).contains(&seconds).then(|| (seconds * 1e9).round() as u64)
}

fn first_token(span: &Span, event: &SpanEvent, facts: &mut Facts) {
    if facts.first_token_ns.is_none() && span.start_ns != 0 {
        facts.first_token_ns = event.time_ns.checked_sub(span.start_ns);
    }
}

fn exception(event: &SpanEvent) -> Failure {
    let text = |key| get(event, key).and_then(|value| value::text(value, Read::Plain));
    Failure {
        kind: text("exception.type"),
        message: text("exception.message").unwrap_or_default(),
        data: text("exception.stacktrace").map(Payload::Text),
    }
}

fn score(event: &SpanEvent) -> Score {
    let text = |key| get(event, key).and_then(|value| value::text(value, Read::Plain));
    Score {
        name: text("gen_ai.evaluation.name").unwrap_or_default(),
        value: get(event, "gen_ai.evaluation.score.value").and_then(value::number),
        label: text("gen_ai.evaluation.score.label"),
        explanation: text("gen_ai.evaluation.explanation"),
    }
}

fn get<'a>(event: &'a SpanEvent, key: &str) -> Option<&'a Value> {
    event
        .attributes
        .iter()
        .rev()
        .find(|attribute| &*attribute.key == key)
        .map(|attribute| &attribute.value)
}

/// The bodies of message events as one JSON list. The role is in the event's name where the body does not say it.
fn messages<'a>(events: impl Iterator<Item = &'a SpanEvent>) -> Option<Payload> {
    let mut json = Vec::new();
    for event in events {
        json.push(if json.is_empty() { b'[' } else { b',' });
        let role =
            event.name.strip_prefix("gen_ai.").and_then(|name| name.strip_suffix(".message"));
        json.extend_from_slice(b"{\"role\":");
        write_str(&mut json, role.unwrap_or("assistant"));
        for attribute in event
            .attributes
            .iter()
            .filter(|attribute| !matches!(&*attribute.key, "role" | "gen_ai.system"))
        {
            json.push(b',');
            write_str(&mut json, &attribute.key);
            json.push(b':');
            match value::payload(&attribute.value, Read::Json) {
                Some(Payload::Json(text)) => json.extend_from_slice(text.as_bytes()),
                _ => value::write_json(&attribute.value, &mut json),
            }
        }
        json.push(b'}');
    }
    if json.is_empty() {
        return None;
    }
    json.push(b']');
    Some(Payload::Json(written(json)))
}
