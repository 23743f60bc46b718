//! Converts OTLP spans to items of the Agents SDK. Pure.
//!
//! Each becomes the type that represents it best in OpenAI's dashboard. A span without a matching type becomes `custom`, with its
//! attributes as `data`. The SDK sends a trace object before a trace's spans; it is created from what is known of the trace.

use serde_json::{Map, Value as Json, json};

use super::sanitize::FIELD_BYTES_MAX;
use crate::sinks::jsonl::write_attributes;
use crate::sinks::shrink::write_shrunk;
use crate::span::{
    Attribute, Detail, Facts, Item, Kind, Payload, STATUS_ERROR, Span, SpanId, Text, TraceContext,
    Usage, Value, keys,
};
use crate::support::json::object::Object;
use crate::support::json::raw::Raw;
use crate::support::json::{write_shortest, write_str};
use crate::support::rfc3339;

/// Appends the items of a trace in the Agents SDK's format: `{"data":[...]}`. Items of the SDK are written as they were received.
pub fn write_items<'a>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = &'a Item>,
    context: Option<&TraceContext>,
) {
    out.extend_from_slice(b"{\"data\":");
    let mut is_announced = context.is_some_and(|context| context.trace.is_some());
    let mut before = b'[';
    for item in items {
        out.push(std::mem::replace(&mut before, b','));
        match item.as_span().filter(|span| span.is_otlp()) {
            Some(span) => {
                if !std::mem::replace(&mut is_announced, true) {
                    write_trace(out, span, context);
                    out.push(b',');
                }
                write_span(out, span);
            }
            None => out.extend_from_slice(item.wire()),
        }
    }
    if before == b'[' {
        out.push(before);
    }
    out.extend_from_slice(b"]}");
}

/// Appends the trace object of a span's trace.
pub(super) fn write_trace(out: &mut Vec<u8>, span: &Span, context: Option<&TraceContext>) {
    let facts = span.facts();
    let known = |of_trace: fn(&TraceContext) -> &Option<Text>, of_span: &Option<Text>| {
        let known = context.and_then(|context| of_trace(context).as_deref());
        known.or(of_span.as_deref()).map(str::to_owned)
    };
    let tags: Vec<&str> =
        context.map_or(&facts.tags, |context| &context.tags).iter().map(|tag| &**tag).collect();
    let own = [
        ("user_id", known(|context| &context.user, &facts.user)),
        ("environment", known(|context| &context.environment, &facts.environment)),
        ("release", known(|context| &context.release, &facts.release)),
        ("tags", (!tags.is_empty()).then(|| tags.join(","))),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let said = context.map(|context| context.metadata.as_slice()).unwrap_or_default();
    let said = said.iter().map(|(name, value)| (name.to_string(), value.as_str().to_owned()));
    // OpenAI accepts only strings as values here.
    let metadata: Map<String, Json> =
        said.chain(own).map(|(name, value)| (name, value.into())).collect();
    let workflow = known(|context| &context.workflow, &facts.workflow);
    let object = json!({
        "object": "trace",
        "id": trace_id(span),
        "workflow_name": workflow.as_deref().unwrap_or(DEFAULT_WORKFLOW),
        "group_id": known(|context| &context.session, &facts.session),
        "metadata": (!metadata.is_empty()).then_some(metadata),
    });
    out.extend_from_slice(object.to_string().as_bytes());
}

/// The SDK's default name of a trace.
const DEFAULT_WORKFLOW: &str = "Agent workflow";

/// Appends a span in a form that OpenAI accepts.
pub(super) fn write_span(out: &mut Vec<u8>, span: &Span) {
    write_item(out, span, time, (&members(span), FIELD_BYTES_MAX), error(span).as_deref());
}

/// Appends a span for storage: as a `custom` one with all its attributes as uncut data, and with all digits of its times.
pub fn write_custom(out: &mut Vec<u8>, span: &Span) {
    let detail = span.detail();
    let data = written(|out| write_attributes(out, &detail.attributes));
    let members = ("custom", vec![("name", text(Some(&*detail.name))), ("data", data)]);
    let time = |unix_ns| (unix_ns != 0).then(|| rfc3339::text(unix_ns));
    let error = || json!({ "message": &*detail.status_message, "data": null }).to_string();
    let error = (detail.status_code == STATUS_ERROR).then(error);
    write_item(out, span, time, (&members, usize::MAX), error.as_deref());
}

fn write_item(
    out: &mut Vec<u8>,
    span: &Span,
    time: fn(u64) -> Option<String>,
    (members, field_bytes_max): (&Members, usize),
    error: Option<&str>,
) {
    let detail = span.detail();
    // The ids from before the conversion to OTLP, or ids that are read back as the same. The SDK's have 24 digits, so eight zeros at the
    // end mark an id of OTLP.
    let said = |key, id: SpanId| {
        let said = text_attribute(detail, key);
        Some(said.map_or_else(|| format!("span_{id}00000000"), str::to_owned))
    };
    let parent = span.parent_id.and_then(|parent| said(keys::OPENAI_AGENTS_PARENT_ID, parent));
    let mut object = Object::open(out);
    for (name, value) in [
        ("object", Some("trace.span".to_owned())),
        ("id", said(keys::OPENAI_AGENTS_SPAN_ID, span.span_id)),
        ("trace_id", Some(trace_id(span))),
        ("parent_id", parent),
        ("started_at", time(span.start_ns)),
        ("ended_at", time(span.end_ns)),
    ] {
        write_or_null(object.member(name), text(value.as_deref()).as_deref());
    }
    write_data(object.member("span_data"), members, field_bytes_max);
    write_or_null(object.member("error"), error);
    object.close();
}

fn text_attribute<'a>(detail: &'a Detail, key: &str) -> Option<&'a str> {
    Attribute::last(&detail.attributes, key)?
        .as_text()
        .map(|text| &**text)
        .filter(|text| !text.is_empty())
}

fn trace_id(span: &Span) -> String {
    let said = text_attribute(span.detail(), keys::OPENAI_AGENTS_TRACE_ID);
    said.map_or_else(|| format!("trace_{}", span.trace_id), str::to_owned)
}

// === Types and members ===

/// An item's type, and its members in JSON, none of which is null.
type Members = (&'static str, Vec<(&'static str, Option<String>)>);

fn write_data(out: &mut Vec<u8>, (kind, members): &Members, field_bytes_max: usize) {
    let mut object = Object::open(out);
    write_str(object.member("type"), kind);
    for (name, member) in members {
        match member {
            Some(large) if field_bytes_max < large.len() => {
                write_shrunk(object.member(name), large, field_bytes_max);
            }
            member => write_or_null(object.member(name), member.as_deref()),
        }
    }
    object.close();
}

fn members(span: &Span) -> Members {
    let (detail, facts) = (span.detail(), span.facts());
    let named = |name: &Option<Text>| text(name.as_deref().or(Some(&*facts.name)));
    let said = |key| text_attribute(detail, key);
    let (input, output) = (facts.input.as_ref(), facts.output.as_ref());
    let model = facts.request_model.as_deref().or(facts.response_model.as_deref());
    let model = || ("model", text(model));
    let config = || ("model_config", json_in('{', facts.parameters.as_ref()));
    // The format is enough: the audio itself is rarely in a span and of no use in a dashboard.
    let audio = || {
        let format = said(keys::OPENAI_AGENTS_AUDIO_FORMAT).unwrap_or("pcm");
        Some(json!({ "data": "", "format": format }).to_string())
    };
    match facts.kind {
        Kind::Agent => {
            let list = |key| names(Attribute::last(&detail.attributes, key)?);
            let members = vec![
                ("name", named(&facts.agent)),
                ("handoffs", list(keys::OPENAI_AGENTS_HANDOFFS)),
                ("tools", list(keys::OPENAI_AGENTS_TOOLS)),
                ("output_type", text(said(keys::OPENAI_AGENTS_OUTPUT_TYPE))),
            ];
            ("agent", members)
        }
        Kind::Generation if is_response(detail, facts) => {
            ("response", vec![("response_id", text(facts.response_id.as_deref()))])
        }
        Kind::Generation => {
            let (input, output) = (turns("user", input), turns("assistant", output));
            let mut members = vec![("input", input), ("output", output), model(), config()];
            // Only members that OpenAI knows: without both counts, there is no usage.
            members.extend(usage(&facts.usage).map(|usage| ("usage", Some(usage))));
            ("generation", members)
        }
        Kind::Tool => {
            let members = vec![
                ("name", named(&facts.tool)),
                ("input", payload(input)),
                ("output", payload(output)),
                ("mcp_data", holder("server", facts.mcp_server.as_deref())),
            ];
            ("function", members)
        }
        Kind::Handoff => {
            let from = ("from_agent", text(facts.handoff_from.as_deref()));
            ("handoff", vec![from, ("to_agent", text(facts.handoff_to.as_deref()))])
        }
        Kind::Guardrail => {
            let triggered = facts.guardrail_triggered == Some(true);
            let triggered = ("triggered", Some(triggered.to_string()));
            ("guardrail", vec![("name", named(&facts.guardrail)), triggered])
        }
        Kind::Mcp if facts.mcp_method.as_deref() == Some("tools/list") => {
            let server = ("server", text(facts.mcp_server.as_deref()));
            ("mcp_tools", vec![server, ("result", json_in('[', output))])
        }
        Kind::Speech => {
            let first = facts.first_token_ns.filter(|_| span.start_ns != 0);
            let first = first.and_then(|first| time(span.start_ns.saturating_add(first)));
            let first = ("first_content_at", text(first.as_deref()));
            let (input, output) = (("input", payload(input)), ("output", audio()));
            ("speech", vec![input, output, model(), config(), first])
        }
        Kind::Transcription => {
            let (input, output) = (("input", audio()), ("output", payload(output)));
            ("transcription", vec![input, output, model(), config()])
        }
        _ => custom(span),
    }
}

/// Returns the members of a span without a type of its own.
fn custom(span: &Span) -> Members {
    let (detail, facts) = (span.detail(), span.facts());
    let said = |key| text_attribute(detail, key);
    match (said(keys::OPENAI_AGENTS_SPAN_TYPE), facts.sdk_span_type.as_deref()) {
        (Some("speech_group" | "speech-group"), _) => {
            ("speech_group", vec![("input", payload(facts.input.as_ref()))])
        }
        (_, Some(marked)) => {
            let data = Some(task_or_turn(marked, span));
            ("custom", vec![("name", text(Some(marked))), ("data", data)])
        }
        _ => {
            // The span's data from before the conversion to OTLP, else its attributes.
            let data = said(keys::OPENAI_AGENTS_DATA).filter(|data| data.starts_with('{'));
            let data = written(|out| match data.and_then(Raw::parse) {
                Some(data) => write_shortest(out, data.text()),
                None => write_attributes(out, &detail.attributes),
            });
            ("custom", vec![("name", text(Some(&*facts.name))), ("data", data)])
        }
    }
}

/// Returns whether OpenAI stores the response under its id, and the span adds nothing to it.
fn is_response(detail: &Detail, facts: &Facts) -> bool {
    let was = text_attribute(detail, keys::OPENAI_AGENTS_SPAN_TYPE) == Some("response");
    let has_id = facts.response_id.as_ref().is_some_and(|id| id.starts_with("resp_"));
    has_id && (was || (facts.input.is_none() && facts.output.is_none()))
}

/// Returns the data that the SDK writes for its own tasks and turns.
fn task_or_turn(marked: &str, span: &Span) -> String {
    let facts = span.facts();
    let usage = &facts.aggregate_usage;
    let usage = json!({
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cached_input_tokens": usage.cached_read,
        "cache_write_input_tokens": usage.cache_write,
        "total_tokens": usage.total,
    });
    let agent = facts.agent.as_deref();
    let data = match Attribute::last(&span.detail().attributes, keys::OPENAI_AGENTS_TURN) {
        Some(Value::Int(turn)) => {
            json!({ "sdk_span_type": marked, "turn": turn, "agent_name": agent, "usage": usage })
        }
        _ => json!({ "sdk_span_type": marked, "name": &*facts.name, "usage": usage }),
    };
    known(data).to_string()
}

/// Returns the usage as the SDK for Python sends it to OpenAI.
fn usage(usage: &Usage) -> Option<String> {
    let (input, output) = (usage.input?, usage.output?);
    let usage = json!({ "input_tokens": input, "output_tokens": output, "details": {
        "total_tokens": usage.total,
        "input_tokens_details": { "cached_tokens": usage.cached_read, "cache_write_tokens": usage.cache_write },
        "output_tokens_details": { "reasoning_tokens": usage.reasoning },
    } });
    Some(known(usage).to_string())
}

/// Returns an object without the members that are null; null if all are.
fn known(value: Json) -> Json {
    let Json::Object(members) = value else { return value };
    let members = members.into_iter().map(|(name, member)| (name, known(member)));
    let members: Map<_, _> = members.filter(|(_, member)| !member.is_null()).collect();
    if members.is_empty() { Json::Null } else { members.into() }
}

fn error(span: &Span) -> Option<String> {
    let failure = span.facts().error.as_ref();
    if failure.is_none() && span.detail().status_code != STATUS_ERROR {
        return None;
    }
    let said = failure.map(|failure| &*failure.message).filter(|said| !said.is_empty());
    let kind = failure.and_then(|failure| failure.kind.as_deref());
    let data = match failure.and_then(|failure| failure.data.as_ref()) {
        None => holder("type", kind),
        data => json_in('{', data).or_else(|| holder("error", data.map(Payload::as_str))),
    };
    written(|out| {
        let mut object = Object::open(out);
        write_str(object.member("message"), said.or(kind).unwrap_or("error"));
        write_or_null(object.member("data"), data.as_deref());
        object.close();
    })
}

// === Encoding ===

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Option<String> {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).ok()
}

fn write_or_null(out: &mut Vec<u8>, json: Option<&str>) {
    out.extend_from_slice(json.unwrap_or("null").as_bytes());
}

fn text(text: Option<&str>) -> Option<String> {
    text.and_then(|text| written(|out| write_str(out, text)))
}

fn payload(payload: Option<&Payload>) -> Option<String> {
    text(payload.map(Payload::as_str))
}

/// Returns an object with one text member.
fn holder(name: &str, text: Option<&str>) -> Option<String> {
    Some(json!({ name: text? }).to_string())
}

/// Returns a list of texts.
fn names(value: &Value) -> Option<String> {
    let Value::Array(names) = value else { return None };
    let names: Vec<&str> = names.iter().filter_map(|name| Some(&**name.as_text()?)).collect();
    Some(json!(names).to_string())
}

/// Returns the payload if it is JSON that begins with this character.
fn json_in(first: char, payload: Option<&Payload>) -> Option<String> {
    let Some(Payload::Json(json)) = payload else { return None };
    let begins = json.trim_start().starts_with(first);
    begins.then(|| written(|out| write_shortest(out, json)))?
}

/// Returns a list of turns in the SDK's form. Plain text becomes one turn of this role.
fn turns(role: &str, payload: Option<&Payload>) -> Option<String> {
    json_in('[', payload).or_else(|| match payload? {
        Payload::Json(json) => Some(format!("[{}]", written(|out| write_shortest(out, json))?)),
        Payload::Text(text) => Some(json!([{ "role": role, "content": &**text }]).to_string()),
    })
}

/// Returns a time with six decimals, as Python writes it; `None` if it is unknown.
fn time(unix_ns: u64) -> Option<String> {
    const DIGITS_TOO_MANY: usize = "000Z".len();
    let mut text = rfc3339::text(unix_ns);
    text.truncate(text.len() - DIGITS_TOO_MANY);
    (unix_ns != 0).then(|| text + "+00:00")
}
