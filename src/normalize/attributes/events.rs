//! Reads the events of a span: exceptions, evaluations, first tokens, and messages of GenAI before 1.37.

use std::sync::LazyLock;

use super::slots::Spread;
use super::value::{self, Read};
use crate::normalize::raw::written;
use crate::normalize::tables;
use crate::span::{
    Attribute, Detail, Facts, Payload, STATUS_OK, Score, Span, SpanError, SpanEvent, Value,
};
use crate::support::json::object::Object;
use crate::support::json::write_str;

/// Adds the facts that only the events have.
pub(super) fn read(span: &Span, detail: &Detail, facts: &mut Facts) {
    let events = &detail.events;
    for event in events {
        match &*event.name {
            // A span that ended well has dealt with its exceptions.
            "exception" if detail.status_code != STATUS_OK => facts.error = Some(exception(event)),
            // Some clients also write the result on the span.
            "gen_ai.evaluation.result" => {
                facts.scores.extend(Some(score(event)).filter(|new| !facts.scores.contains(new)));
            }
            "First Token Stream Event"
            | "gen_ai.content.completion.chunk"
            | "llm.content.completion.chunk"
                if facts.first_token_ns.is_none() && span.start_ns != 0 =>
            {
                facts.first_token_ns = event.time_ns.checked_sub(span.start_ns);
            }
            _ => (),
        }
    }
    let is_of = |event: &&SpanEvent, of| MESSAGES.contains(&(&*event.name, of));
    let of = |of| messages(events.iter().filter(|event| is_of(event, of)));
    facts.input = facts.input.take().or_else(|| of(Spread::InputMessages));
    facts.output = facts.output.take().or_else(|| of(Spread::OutputMessages));
}

/// Names of events that are messages.
static MESSAGES: LazyLock<Vec<(&str, Spread)>> =
    LazyLock::new(|| tables::beginnings("messages", Spread::named).collect());

/// Converts seconds to nanoseconds; `None` if they cannot be the time to a first token.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range was checked"
)]
pub(super) fn nanoseconds(seconds: f64) -> Option<u64> {
    // No answer takes longer than a day to begin, and OpenLIT writes 0 if nothing was streamed.
    (seconds > 0.0 && seconds <= 86_400.0).then(|| (seconds * 1e9).round() as u64)
}

fn exception(event: &SpanEvent) -> SpanError {
    let text = |key| get(event, key).and_then(|value| value::text(value, Read::Plain));
    SpanError {
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
    Attribute::last(&event.attributes, key)
}

/// Joins the bodies of message events in one JSON list. A body without a role gets the role in its event's name. Azure and Semantic Kernel
/// write the complete message, or a list of messages, as JSON in one attribute.
fn messages<'a>(events: impl Iterator<Item = &'a SpanEvent>) -> Option<Payload> {
    let mut json = Vec::new();
    for event in events {
        let whole = get(event, "gen_ai.event.content").and_then(value::json_text);
        let whole = whole.as_deref().map(str::trim_ascii);
        let list = whole.and_then(|whole| whole.strip_prefix('[')?.strip_suffix(']'));
        if list.is_some_and(|inside| inside.trim_ascii().is_empty()) {
            continue;
        }
        json.push(if json.is_empty() { b'[' } else { b',' });
        match (list, whole.and_then(|whole| whole.strip_prefix('{'))) {
            (Some(inside), _) => json.extend_from_slice(inside.as_bytes()),
            (None, Some(members)) => write_whole(event, members, &mut json),
            (None, None) => write_message(event, &mut json),
        }
    }
    if json.is_empty() {
        return None;
    }
    json.push(b']');
    Some(Payload::Json(written(json)))
}

fn role(event: &SpanEvent) -> &str {
    let name = event.name.strip_prefix("gen_ai.");
    name.and_then(|name| name.strip_suffix(".message")).unwrap_or("assistant")
}

/// Writes a message that is already JSON. `members` is the rest of its object after the opening brace.
fn write_whole(event: &SpanEvent, members: &str, json: &mut Vec<u8>) {
    json.push(b'{');
    if !members.contains("\"role\"") {
        json.extend_from_slice(b"\"role\":");
        write_str(json, role(event));
        json.extend_from_slice(if members.trim_ascii_start() == "}" { b"" } else { b"," });
    }
    json.extend_from_slice(members.as_bytes());
}

/// Writes a message whose members are the event's attributes.
fn write_message(event: &SpanEvent, json: &mut Vec<u8>) {
    let mut message = Object::open(json);
    write_str(message.member("role"), role(event));
    let is_body = |attribute: &&Attribute| !matches!(&*attribute.key, "role" | "gen_ai.system");
    for attribute in event.attributes.iter().filter(is_body) {
        let json = message.member(&attribute.key);
        match value::payload(&attribute.value, Read::Json) {
            Some(Payload::Json(text)) => json.extend_from_slice(text.as_bytes()),
            _ => value::write_json(&attribute.value, json),
        }
    }
    message.close();
}
