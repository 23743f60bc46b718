//! Spans that came as OTLP, as items of the Agents SDK. Pure.
//!
//! Each becomes the type that shows it best in OpenAI's dashboard; what has no type of its own becomes `custom`, with its attributes
//! as `data`. The SDK sends an object for each trace before its spans: it is written from what is known of the trace.

use super::sanitize::FIELD_BYTES_MAX;
use crate::sinks::jsonl::write_attributes;
use crate::sinks::shrink::write_shrunk;
use crate::span::{
    Attribute, Detail, Facts, Item, Kind, Payload, STATUS_ERROR, Span, SpanId, Text, TraceContext,
    Usage, Value, keys,
};
use crate::support::json::object::Object;
use crate::support::json::raw::Raw;
use crate::support::json::{write_shortest, write_str, write_u64};
use crate::support::rfc3339;

/// Appends the items of a trace as the Agents SDK sends them: `{"data":[...]}`. What came so is as it was sent.
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
        context.and_then(|context| of_trace(context).clone()).or_else(|| of_span.clone())
    };
    let workflow = known(|context| &context.workflow, &facts.workflow);
    let tags = context.map_or(&facts.tags, |context| &context.tags);
    let tags: Vec<&str> = tags.iter().map(|tag| &**tag).collect();
    let own = [
        ("user_id", known(|context| &context.user, &facts.user)),
        ("environment", known(|context| &context.environment, &facts.environment)),
        ("release", known(|context| &context.release, &facts.release)),
        ("tags", Some(Text::from(tags.join(","))).filter(|_| !tags.is_empty())),
    ];
    let own = own.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let said = context.map(|context| context.metadata.as_slice()).unwrap_or_default();
    let said = said.iter().map(|(name, value)| (&**name, value.as_str()));
    let mut metadata = said.chain(own).peekable();

    let mut object = Object::open(out);
    write_str(object.member("object"), "trace");
    write_str(object.member("id"), &trace_id(span));
    write_str(object.member("workflow_name"), workflow.as_deref().unwrap_or(DEFAULT_WORKFLOW));
    let session = known(|context| &context.session, &facts.session);
    write_or_null(object.member("group_id"), session.as_deref(), write_str);
    // OpenAI takes strings only as values here.
    let has_metadata = metadata.peek().is_some().then_some(metadata);
    write_or_null(object.member("metadata"), has_metadata, |out, metadata| {
        let mut object = Object::open(out);
        metadata.for_each(|(name, value)| write_str(object.member(name), value));
        object.close();
    });
    object.close();
}

/// The name that the SDK gives a trace without one.
const DEFAULT_WORKFLOW: &str = "Agent workflow";

/// Appends a span.
pub(super) fn write_span(out: &mut Vec<u8>, span: &Span) {
    let detail = span.detail();
    // The ids that it had before it became OTLP, or some that read back as the same: the SDK's have 24 digits, so eight zeros at the end
    // say that the others are an id of OTLP.
    let said = |key, id: SpanId| {
        let said = text_attribute(detail, key);
        said.map_or_else(|| format!("span_{id}00000000"), str::to_owned)
    };
    let parent = span.parent_id.map(|parent| said(keys::OPENAI_AGENTS_PARENT_ID, parent));
    let mut object = Object::open(out);
    write_str(object.member("object"), "trace.span");
    write_str(object.member("id"), &said(keys::OPENAI_AGENTS_SPAN_ID, span.span_id));
    write_str(object.member("trace_id"), &trace_id(span));
    write_or_null(object.member("parent_id"), parent.as_deref(), write_str);
    write_time(object.member("started_at"), span.start_ns);
    write_time(object.member("ended_at"), span.end_ns);
    write_data(object.member("span_data"), span);
    write_error(object.member("error"), span);
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

// === What it is ===

/// How a member of `span_data` is written.
#[derive(Clone, Copy)]
enum Member<'a> {
    Text(Option<&'a str>),
    /// A list of turns, as the SDK has it: plain text is one turn of this role.
    Turns(&'static str, Option<&'a Payload>),
    /// JSON that begins like this; null where it is something else.
    Json(char, Option<&'a Payload>),
    /// A list of texts.
    Names(Option<&'a Value>),
    Flag(bool),
    Time(u64),
    /// An object with this one text.
    Holder(&'static str, Option<&'a str>),
    /// The audio itself is seldom in a span, and never of use in a dashboard: its format.
    Audio(Option<&'a str>),
    Usage(&'a Usage),
    /// What the SDK says of its own tasks and turns.
    TaskOrTurn(&'a str),
    /// What the span said before it became OTLP, else its attributes.
    Data,
}

/// The type of an item, and its members.
type Members<'a> = (&'static str, Vec<(&'static str, Member<'a>)>);

fn members<'a>(span: &'a Span) -> Members<'a> {
    use Member::{Audio, Flag, Holder, Json, Names, Time, Turns, Usage};
    let (detail, facts) = (span.detail(), span.facts());
    let named = |name: Option<&'a Text>| text(Some(name.unwrap_or(&facts.name)));
    let said = |key| text_attribute(detail, key);
    let (input, output) = (facts.input.as_ref(), facts.output.as_ref());
    let model = facts.request_model.as_ref().or(facts.response_model.as_ref());
    let model = || ("model", text(model));
    let config = || ("model_config", Json('{', facts.parameters.as_ref()));
    let audio = || Audio(said(keys::OPENAI_AGENTS_AUDIO_FORMAT));
    let is_list_of_tools = || facts.mcp_method.as_deref() == Some("tools/list");
    match facts.kind {
        Kind::Agent => {
            let list = |key| Names(Attribute::last(&detail.attributes, key));
            let members = vec![
                ("name", named(facts.agent.as_ref())),
                ("handoffs", list(keys::OPENAI_AGENTS_HANDOFFS)),
                ("tools", list(keys::OPENAI_AGENTS_TOOLS)),
                ("output_type", Member::Text(said(keys::OPENAI_AGENTS_OUTPUT_TYPE))),
            ];
            ("agent", members)
        }
        Kind::Generation if is_response(detail, facts) => {
            ("response", vec![("response_id", text(facts.response_id.as_ref()))])
        }
        Kind::Generation => {
            let (input, output) = (Turns("user", input), Turns("assistant", output));
            let usage = ("usage", Usage(&facts.usage));
            ("generation", vec![("input", input), ("output", output), model(), config(), usage])
        }
        Kind::Tool => {
            let members = vec![
                ("name", named(facts.tool.as_ref())),
                ("input", payload(input)),
                ("output", payload(output)),
                ("mcp_data", Holder("server", facts.mcp_server.as_deref())),
            ];
            ("function", members)
        }
        Kind::Handoff => {
            let from = ("from_agent", text(facts.handoff_from.as_ref()));
            ("handoff", vec![from, ("to_agent", text(facts.handoff_to.as_ref()))])
        }
        Kind::Guardrail => {
            let triggered = Flag(facts.guardrail_triggered == Some(true));
            ("guardrail", vec![("name", named(facts.guardrail.as_ref())), ("triggered", triggered)])
        }
        Kind::Mcp if is_list_of_tools() => {
            let server = ("server", text(facts.mcp_server.as_ref()));
            ("mcp_tools", vec![server, ("result", Json('[', output))])
        }
        Kind::Speech => {
            let first = facts.first_token_ns.filter(|_| span.start_ns != 0);
            let first = Time(first.map_or(0, |first| span.start_ns.saturating_add(first)));
            let first = ("first_content_at", first);
            let (input, output) = (("input", payload(input)), ("output", audio()));
            ("speech", vec![input, output, model(), config(), first])
        }
        Kind::Transcription => {
            let (input, output) = (audio(), payload(output));
            ("transcription", vec![("input", input), ("output", output), model(), config()])
        }
        _ => custom(detail, facts),
    }
}

/// What has no type of its own.
fn custom<'a>(detail: &'a Detail, facts: &'a Facts) -> Members<'a> {
    let said = text_attribute(detail, keys::OPENAI_AGENTS_SPAN_TYPE);
    match (said, facts.sdk_span_type.as_deref()) {
        (Some("speech_group" | "speech-group"), _) => {
            ("speech_group", vec![("input", payload(facts.input.as_ref()))])
        }
        (_, Some(marked)) => {
            let name = ("name", Member::Text(Some(marked)));
            ("custom", vec![name, ("data", Member::TaskOrTurn(marked))])
        }
        _ => ("custom", vec![("name", text(Some(&facts.name))), ("data", Member::Data)]),
    }
}

fn text(text: Option<&Text>) -> Member<'_> {
    Member::Text(text.map(|text| &**text))
}

fn payload(payload: Option<&Payload>) -> Member<'_> {
    Member::Text(payload.map(Payload::as_str))
}

/// Whether OpenAI has the answer itself under its id, and the span has nothing to add.
fn is_response(detail: &Detail, facts: &Facts) -> bool {
    let was = text_attribute(detail, keys::OPENAI_AGENTS_SPAN_TYPE) == Some("response");
    let has_id = facts.response_id.as_ref().is_some_and(|id| id.starts_with("resp_"));
    has_id && (was || (facts.input.is_none() && facts.output.is_none()))
}

fn write_data(out: &mut Vec<u8>, span: &Span) {
    let (kind, members) = members(span);
    let mut object = Object::open(out);
    write_str(object.member("type"), kind);
    for (name, member) in members {
        // Only what OpenAI knows: without both counts there is no usage.
        if matches!(member, Member::Usage(usage) if usage.input.is_none() || usage.output.is_none())
        {
            continue;
        }
        let out = object.member(name);
        let start = out.len();
        write_member(out, member, span);
        if FIELD_BYTES_MAX < out.len() - start {
            let large = String::from_utf8(out.split_off(start)).unwrap_or_default();
            write_shrunk(out, &large, FIELD_BYTES_MAX);
        }
    }
    object.close();
}

fn write_member(out: &mut Vec<u8>, member: Member<'_>, span: &Span) {
    match member {
        Member::Text(text) => write_or_null(out, text, write_str),
        Member::Turns(role, payload) => write_or_null(out, payload, |out, payload| {
            write_turns(out, role, payload);
        }),
        Member::Json(first, payload) => write_or_null(out, json(first, payload), write_shortest),
        Member::Names(Some(Value::Array(names))) => {
            out.push(b'[');
            for (at, name) in names.iter().filter_map(Value::as_text).enumerate() {
                out.extend_from_slice(if at == 0 { b"" } else { b"," });
                write_str(out, name);
            }
            out.push(b']');
        }
        Member::Names(_) => out.extend_from_slice(b"null"),
        Member::Flag(flag) => out.extend_from_slice(if flag { b"true" } else { b"false" }),
        Member::Time(unix_ns) => write_time(out, unix_ns),
        Member::Holder(name, text) => write_or_null(out, text, |out, text| {
            let mut object = Object::open(out);
            write_str(object.member(name), text);
            object.close();
        }),
        Member::Audio(format) => {
            let mut object = Object::open(out);
            write_str(object.member("data"), "");
            write_str(object.member("format"), format.unwrap_or("pcm"));
            object.close();
        }
        Member::Usage(usage) => write_usage(out, usage),
        Member::TaskOrTurn(marked) => write_task_or_turn(out, marked, span),
        Member::Data => {
            let detail = span.detail();
            let said = text_attribute(detail, keys::OPENAI_AGENTS_DATA);
            match said.filter(|data| data.starts_with('{')).and_then(Raw::parse) {
                Some(data) => write_shortest(out, data.text()),
                None => write_attributes(out, &detail.attributes),
            }
        }
    }
}

/// The payload, where it is JSON that begins like this.
fn json(first: char, payload: Option<&Payload>) -> Option<&str> {
    match payload {
        Some(Payload::Json(json)) => {
            Some(&**json).filter(|json| json.trim_start().starts_with(first))
        }
        _ => None,
    }
}

fn write_turns(out: &mut Vec<u8>, role: &str, payload: &Payload) {
    if let Some(turns) = json('[', Some(payload)) {
        return write_shortest(out, turns);
    }
    out.push(b'[');
    match payload {
        Payload::Json(json) => write_shortest(out, json),
        Payload::Text(text) => {
            let mut turn = Object::open(out);
            write_str(turn.member("role"), role);
            write_str(turn.member("content"), text);
            turn.close();
        }
    }
    out.push(b']');
}

fn write_task_or_turn(out: &mut Vec<u8>, marked: &str, span: &Span) {
    let facts = span.facts();
    let mut object = Object::open(out);
    write_str(object.member("sdk_span_type"), marked);
    if let Some(Value::Int(turn)) =
        Attribute::last(&span.detail().attributes, keys::OPENAI_AGENTS_TURN)
    {
        write_u64(object.member("turn"), u64::try_from(*turn).unwrap_or_default());
        write_or_null(object.member("agent_name"), facts.agent.as_deref(), write_str);
    } else {
        write_str(object.member("name"), &facts.name);
    }
    let usage = &facts.aggregate_usage;
    if !usage.is_empty() {
        let counts = [
            ("input_tokens", usage.input),
            ("output_tokens", usage.output),
            ("cached_input_tokens", usage.cached_read),
            ("cache_write_input_tokens", usage.cache_write),
            ("total_tokens", usage.total),
        ];
        write_counts(object.member("usage"), &counts);
    }
    object.close();
}

fn write_usage(out: &mut Vec<u8>, usage: &Usage) {
    let mut object = Object::open(out);
    for (name, count) in [("input_tokens", usage.input), ("output_tokens", usage.output)] {
        write_u64(object.member(name), count.unwrap_or_default());
    }
    let details = [
        ("total_tokens", usage.total),
        ("cached_tokens", usage.cached_read),
        ("cache_write_tokens", usage.cache_write),
        ("reasoning_tokens", usage.reasoning),
    ];
    if details.iter().any(|(_, count)| count.is_some()) {
        write_counts(object.member("details"), &details);
    }
    object.close();
}

fn write_counts(out: &mut Vec<u8>, counts: &[(&str, Option<u64>)]) {
    let mut object = Object::open(out);
    for (name, count) in counts.iter().filter_map(|(name, count)| Some((name, (*count)?))) {
        write_u64(object.member(name), count);
    }
    object.close();
}

/// With six digits behind the point, as Python writes it; null where nothing is known.
fn write_time(out: &mut Vec<u8>, unix_ns: u64) {
    const DIGITS_TOO_MANY: usize = "000Z".len();
    if unix_ns == 0 {
        return out.extend_from_slice(b"null");
    }
    out.push(b'"');
    rfc3339::write(out, unix_ns);
    out.truncate(out.len() - DIGITS_TOO_MANY);
    out.extend_from_slice(b"+00:00\"");
}

fn write_or_null<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => write(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_error(out: &mut Vec<u8>, span: &Span) {
    let failure = span.facts().error.as_ref();
    if failure.is_none() && span.detail().status_code != STATUS_ERROR {
        return out.extend_from_slice(b"null");
    }
    let said = failure.map(|failure| &*failure.message).filter(|said| !said.is_empty());
    let kind = failure.and_then(|failure| failure.kind.as_deref());
    let data = failure.and_then(|failure| failure.data.as_ref());
    let more = match (data, kind) {
        (Some(_), _) if json('{', data).is_some() => Member::Json('{', data),
        (Some(data), _) => Member::Holder("error", Some(data.as_str())),
        (None, kind) => Member::Holder("type", kind),
    };
    let mut object = Object::open(out);
    write_str(object.member("message"), said.or(kind).unwrap_or("error"));
    write_member(object.member("data"), more, span);
    object.close();
}
