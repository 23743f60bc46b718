//! Spans and trace objects become lines.

use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr;

use serde_json::value::RawValue;

use crate::prices::Prices;
use crate::sinks::Delivery;
use crate::span::plain::{self, Numbers, Repeated, Style};
use crate::span::{
    Attribute, Batch, Detail, Facts, Item, Link, Payload, Scope, Score, Source, Span, SpanEvent,
    Text, Tokens, TraceContext, TraceId, TraceObject, Usage, Value,
};
use crate::support::find::place_of;
use crate::support::json::object::Object;
use crate::support::json::{write_compact, write_f64, write_inside, write_str, write_u64};
use crate::support::rfc3339;

/// The version of the schema that the front page describes.
pub const SCHEMA_VERSION: u64 = 2;

/// A column's name with what stands before and behind it: most columns are short, and it is copied as one.
macro_rules! column {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// The columns of token counts, in the order of [`Usage::counts`].
macro_rules! token_columns {
    ($prefix:literal) => {
        [
            concat!(",\"", $prefix, "input_tokens\":"),
            concat!(",\"", $prefix, "output_tokens\":"),
            concat!(",\"", $prefix, "total_tokens\":"),
            concat!(",\"", $prefix, "cache_read_input_tokens\":"),
            concat!(",\"", $prefix, "cache_creation_input_tokens\":"),
            concat!(",\"", $prefix, "reasoning_output_tokens\":"),
            concat!(",\"", $prefix, "audio_input_tokens\":"),
            concat!(",\"", $prefix, "audio_output_tokens\":"),
            concat!(",\"", $prefix, "cache_creation_1h_input_tokens\":"),
        ]
    };
}

/// Writes lines. What many lines share (resource and scope, the request) is encoded once and copied.
pub struct Lines<'a> {
    delivery: &'a Delivery,
    prices: &'a Prices,
    scope: Option<(&'a Scope, Vec<u8>)>,
    source: Option<(&'a Source, Vec<u8>)>,
}

impl<'a> Lines<'a> {
    /// For items of this delivery, with what it knows of their traces; calls without a cost get one by these prices.
    pub fn of(delivery: &'a Delivery, prices: &'a Prices) -> Self {
        Self { delivery, prices, scope: None, source: None }
    }

    /// Appends an item of a batch as one line, with the line break.
    pub fn write(&mut self, out: &mut Vec<u8>, batch: &'a Batch, item: &'a Item) {
        let mut line = Line { out };
        match item {
            Item::Span(span) => {
                let context = self.delivery.context(span.trace_id);
                line.span(span, context, self.prices.tokens_of(context, span));
                line.out.extend_from_slice(shared(&mut self.scope, &span.scope, scope_columns));
            }
            Item::Trace(trace) => line.trace(trace),
        }
        line.out.extend_from_slice(shared(&mut self.source, &batch.source, source_columns));
        line.out.extend_from_slice(b"}\n");
    }
}

/// The columns that the last line had of the same thing, or new ones.
fn shared<'k, 'a, T>(
    known: &'k mut Option<(&'a T, Vec<u8>)>,
    of: &'a T,
    write: fn(&mut Line<'_>, &T),
) -> &'k [u8] {
    let same = known.take().filter(|(known, _)| ptr::eq(*known, of));
    let (_, columns) = known.insert(same.unwrap_or_else(|| {
        let mut out = Vec::new();
        write(&mut Line { out: &mut out }, of);
        (of, out)
    }));
    columns
}

fn scope_columns(line: &mut Line<'_>, scope: &Scope) {
    let resource = &scope.resource;
    line.attributes(column!("resource"), &resource.attributes);
    line.count(column!("resource_dropped_attributes_count"), resource.dropped_attributes_count);
    line.text(column!("resource_schema_url"), &resource.schema_url);
    line.text(column!("scope_name"), &scope.name);
    line.text(column!("scope_version"), &scope.version);
    line.attributes(column!("scope_attributes"), &scope.attributes);
    line.count(column!("scope_dropped_attributes_count"), scope.dropped_attributes_count);
    line.text(column!("scope_schema_url"), &scope.schema_url);
    line.fact(column!("service_name"), resource.service_name());
}

fn source_columns(line: &mut Line<'_>, source: &Source) {
    line.time(column!("received_at"), source.received_at_ns);
    line.text(column!("receiver"), source.receiver.as_str());
    line.text(column!("tenant"), &source.tenant);
    line.text(column!("user_agent"), source.header("user-agent").unwrap_or_default());
    line.text(
        column!("openai_organization"),
        source.header("openai-organization").unwrap_or_default(),
    );
    line.text(column!("openai_project"), source.header("openai-project").unwrap_or_default());
}

/// A line that is being written. Every column begins with its comma.
struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn begin(&mut self, record: &'static str, trace_id: TraceId) {
        self.out.extend_from_slice(b"{\"schema_version\":");
        write_u64(self.out, SCHEMA_VERSION);
        self.quoted(column!("record"), record.as_bytes());
        self.quoted(column!("trace_id"), &trace_id.to_hex());
    }

    fn trace(&mut self, trace: &TraceObject) {
        self.begin("trace", trace.trace_id);
        write_str(self.column(column!("name")), trace.workflow.as_deref().unwrap_or_default());
        // Readers that know no missing integers would take a column with gaps for one of floats, which are too coarse for
        // nanoseconds.
        self.number(column!("start_time_unix_nano"), 0);
        self.number(column!("end_time_unix_nano"), 0);
        self.number(column!("duration_ns"), 0);
        self.fact(column!("workflow_name"), trace.workflow.as_ref());
        self.fact(column!("session_id"), trace.group.as_ref());
        if let Some(metadata) = &trace.metadata {
            self.metadata_text(metadata);
        }
        self.text(column!("openai_trace_id"), &trace.sdk_id);
        self.item(&trace.wire, &[]);
    }

    fn span(&mut self, span: &Span, context: Option<&TraceContext>, tokens: Tokens<'_>) {
        let (detail, facts) = (span.head(), span.facts());
        self.begin("span", span.trace_id);
        self.quoted(column!("span_id"), &span.span_id.to_hex());
        if let Some(parent_id) = span.parent_id {
            self.quoted(column!("parent_span_id"), &parent_id.to_hex());
        }
        self.text(column!("trace_state"), &detail.trace_state);
        self.count(column!("flags"), detail.flags);
        write_str(self.column(column!("name")), &detail.name);
        if facts.name != detail.name {
            self.text(column!("display_name"), &facts.name);
        }
        self.quoted(column!("kind"), facts.kind.as_str().as_bytes());
        self.quoted(column!("convention"), facts.convention.as_str().as_bytes());
        self.fact(column!("sdk_span_type"), facts.sdk_span_type.as_ref());
        self.coded(column!("span_kind"), SPAN_KINDS, detail.kind);
        for (column, at_ns) in
            [(column!("start_time"), span.start_ns), (column!("end_time"), span.end_ns)]
        {
            if at_ns != 0 {
                self.time(column, at_ns);
            }
        }
        self.number(column!("start_time_unix_nano"), span.start_ns);
        self.number(column!("end_time_unix_nano"), span.end_ns);
        self.number(column!("duration_ns"), span.duration_ns());
        self.coded(column!("status"), STATUSES, detail.status_code);
        self.text(column!("status_message"), &detail.status_message);
        self.facts(facts, context, tokens);
        let payloads = self.payloads(facts);
        if let Some(agents_sdk) = &detail.agents_sdk {
            self.text(column!("openai_trace_id"), &agents_sdk.trace);
            self.text(column!("openai_span_id"), &agents_sdk.span);
            self.fact(column!("openai_parent_id"), agents_sdk.parent.as_ref());
        }
        if span.is_otlp() {
            self.as_sent(detail, facts);
        } else {
            self.item(&span.wire, &payloads);
        }
    }

    fn facts(&mut self, facts: &Facts, context: Option<&TraceContext>, tokens: Tokens<'_>) {
        if let Some(error) = &facts.error {
            self.fact(column!("error_type"), error.kind.as_ref());
            self.text(column!("error_message"), &error.message);
            self.json(column!("error_data"), error.data.as_ref());
        }
        self.fact(column!("environment"), facts.environment.as_ref());
        self.fact(column!("release"), facts.release.as_ref());
        self.fact(column!("workflow_name"), facts.workflow.as_ref());
        let of_trace = |said: fn(&TraceContext) -> &Option<Text>| context.map(said)?.as_ref();
        let session = facts.session.as_ref().or_else(|| of_trace(|trace| &trace.session));
        let user = facts.user.as_ref().or_else(|| of_trace(|trace| &trace.user));
        let tags = context.map(|trace| &trace.tags).filter(|_| facts.tags.is_empty());
        self.fact(column!("session_id"), session);
        self.fact(column!("user_id"), user);
        self.texts(column!("tags"), tags.unwrap_or(&facts.tags));
        // Of a repeated name the last.
        let metadata = facts.metadata.iter();
        self.metadata(&metadata.map(|(name, value)| (&**name, value.as_str())).collect());
        self.fact(column!("agent_name"), facts.agent.as_ref());
        self.fact(column!("tool_name"), facts.tool.as_ref());
        self.fact(column!("tool_call_id"), facts.tool_call_id.as_ref());
        self.fact(column!("provider_name"), facts.provider.as_ref());
        self.fact(column!("request_model"), facts.request_model.as_ref());
        self.fact(column!("response_model"), facts.response_model.as_ref());
        self.fact(column!("response_id"), facts.response_id.as_ref());
        self.texts(column!("finish_reasons"), &facts.finish_reasons);
        self.json(column!("parameters"), facts.parameters.as_ref());
        self.known(column!("time_to_first_token_ns"), facts.first_token_ns);
        self.tokens(tokens);
        self.fact(column!("prompt_name"), facts.prompt_name.as_ref());
        self.fact(column!("prompt_version"), facts.prompt_version.as_ref());
        self.fact(column!("handoff_from"), facts.handoff_from.as_ref());
        self.fact(column!("handoff_to"), facts.handoff_to.as_ref());
        self.fact(column!("guardrail_name"), facts.guardrail.as_ref());
        if let Some(triggered) = facts.guardrail_triggered {
            self.boolean(column!("guardrail_triggered"), triggered);
        }
        self.fact(column!("mcp_server"), facts.mcp_server.as_ref());
        self.fact(column!("mcp_method"), facts.mcp_method.as_ref());
        self.list(column!("scores"), &facts.scores, write_score);
    }

    fn tokens(&mut self, tokens: Tokens<'_>) {
        self.usage(tokens.own, token_columns!(""));
        self.usage(tokens.aggregate, token_columns!("aggregate_"));
        if tokens.counts {
            self.money(column!("cost_usd"), tokens.cost.total);
            self.money(column!("input_cost_usd"), tokens.cost.input);
            self.money(column!("output_cost_usd"), tokens.cost.output);
            self.text(column!("cost_source"), tokens.cost_source.unwrap_or_default());
        } else {
            self.money(column!("aggregate_cost_usd"), tokens.cost.total);
        }
    }

    fn usage(&mut self, usage: &Usage, columns: [&'static str; 9]) {
        if !usage.is_empty() {
            for (column, count) in columns.into_iter().zip(usage.counts()) {
                self.known(column, count);
            }
        }
    }

    /// Writes what went in and what came out, and says where.
    fn payloads<'f>(&mut self, facts: &'f Facts) -> [Written<'f>; 2] {
        let input = self.payload(column!("input"), column!("input_is_json"), facts.input.as_ref());
        let output =
            self.payload(column!("output"), column!("output_is_json"), facts.output.as_ref());
        self.json(column!("tool_definitions"), facts.tool_definitions.as_ref());
        [input, output]
    }

    fn payload<'f>(
        &mut self,
        name: &'static str,
        is_json: &'static str,
        payload: Option<&'f Payload>,
    ) -> Written<'f> {
        let Some(payload) = payload else { return Written::default() };
        let text = payload.as_str();
        let out = self.column(name);
        let start = out.len() + 1;
        write_str(out, text);
        let inside = start..out.len() - 1;
        self.boolean(is_json, matches!(payload, Payload::Json(_)));
        Written { text, inside }
    }

    /// What an OTLP client sent beside the columns above.
    fn as_sent(&mut self, detail: &Detail, facts: &Facts) {
        let columns = [&facts.input, &facts.output, &facts.tool_definitions];
        let mut sources: [Option<&Text>; 3] = [None; 3];
        write_attributes_but(self.column(column!("attributes")), &detail.attributes, |attribute| {
            let mut places = columns.iter().zip(&mut sources);
            let found = places.find(|(column, _)| is_same_text(column.as_ref(), &attribute.value));
            // An attribute that says the same again is written.
            found.is_some_and(|(_, source)| {
                source.replace(source.unwrap_or(&attribute.key)).is_none()
            })
        });
        let [input, output, tool_definitions] = sources;
        self.fact(column!("input_attribute"), input);
        self.fact(column!("output_attribute"), output);
        self.fact(column!("tool_definitions_attribute"), tool_definitions);
        self.count(column!("dropped_attributes_count"), detail.dropped_attributes_count);
        self.list(column!("events"), &detail.events, write_event);
        self.count(column!("dropped_events_count"), detail.dropped_events_count);
        self.list(column!("links"), &detail.links, write_link);
        self.count(column!("dropped_links_count"), detail.dropped_links_count);
    }

    fn column(&mut self, column: &'static str) -> &mut Vec<u8> {
        self.out.extend_from_slice(column.as_bytes());
        self.out
    }

    /// Text; nothing when it is empty.
    fn text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            write_str(self.column(name), text);
        }
    }

    fn fact(&mut self, name: &'static str, text: Option<&Text>) {
        self.text(name, text.map_or("", |text| text));
    }

    fn json(&mut self, name: &'static str, payload: Option<&Payload>) {
        self.text(name, payload.map_or("", Payload::as_str));
    }

    /// Text that needs no escape.
    fn quoted(&mut self, name: &'static str, text: &[u8]) {
        let out = self.column(name);
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    }

    /// The word for a number of OTLP, or the number itself, in quotes either way.
    fn coded(&mut self, name: &'static str, words: &[&'static str], code: i32) {
        match usize::try_from(code).ok().and_then(|code| words.get(code)) {
            Some(word) => self.quoted(name, word.as_bytes()),
            None => self.quoted(name, code.to_string().as_bytes()),
        }
    }

    fn time(&mut self, name: &'static str, unix_ns: u64) {
        let out = self.column(name);
        out.push(b'"');
        rfc3339::write(out, unix_ns);
        out.push(b'"');
    }

    fn number(&mut self, name: &'static str, number: u64) {
        write_u64(self.column(name), number);
    }

    fn known(&mut self, name: &'static str, number: Option<u64>) {
        if let Some(number) = number {
            self.number(name, number);
        }
    }

    fn count(&mut self, name: &'static str, count: u32) {
        if count != 0 {
            self.number(name, count.into());
        }
    }

    fn money(&mut self, name: &'static str, amount: Option<f64>) {
        if let Some(amount) = amount.filter(|amount| amount.is_finite()) {
            write_f64(self.column(name), amount);
        }
    }

    fn boolean(&mut self, name: &'static str, value: bool) {
        self.column(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn texts(&mut self, name: &'static str, texts: &[Text]) {
        self.list(name, texts, |out, text| write_str(out, text));
    }

    fn list<T>(&mut self, name: &'static str, elements: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
        if elements.is_empty() {
            return;
        }
        let out = self.column(name);
        out.push(b'[');
        for (index, element) in elements.iter().enumerate() {
            if index != 0 {
                out.push(b',');
            }
            write(out, element);
        }
        out.push(b']');
    }

    fn attributes(&mut self, name: &'static str, attributes: &[Attribute]) {
        if !attributes.is_empty() {
            write_attributes(self.column(name), attributes);
        }
    }

    /// Metadata that is a JSON object as text. What is no object is left to `openai_item`.
    fn metadata_text(&mut self, metadata: &str) {
        let members = serde_json::from_str::<BTreeMap<String, &RawValue>>(metadata);
        let texts = members.unwrap_or_default().into_iter().map(|(name, value)| {
            let text = serde_json::from_str(value.get());
            (name, text.unwrap_or_else(|_| value.get().to_owned()))
        });
        self.metadata(&texts.collect());
    }

    /// Names to strings, in the order of names.
    fn metadata<T: AsRef<str> + Ord>(&mut self, entries: &BTreeMap<T, T>) {
        if entries.is_empty() {
            return;
        }
        let mut object = Object::open(self.column(column!("metadata")));
        for (name, value) in entries {
            write_str(object.member(name.as_ref()), value.as_ref());
        }
        object.close();
    }

    /// The item as sent. Line breaks outside of strings would only be escaped. Pieces of it that are columns already are copied
    /// from there.
    fn item(&mut self, wire: &[u8], written: &[Written<'_>]) {
        let out = self.column(column!("openai_item"));
        out.push(b'"');
        if memchr::memchr(b'\n', wire).is_some() {
            let mut compact = Vec::new();
            write_compact(&mut compact, wire);
            write_inside(out, &compact);
        } else {
            write_item_inside(out, wire, written);
        }
        out.push(b'"');
    }
}

/// Text that was written as a string, and where it stands in the output without its quotes.
#[derive(Debug, Default)]
struct Written<'a> {
    text: &'a str,
    inside: Range<usize>,
}

fn write_item_inside(out: &mut Vec<u8>, wire: &[u8], written: &[Written<'_>]) {
    out.reserve(wire.len());
    let mut done = 0;
    // What came out may have been sent before what went in.
    let mut pieces: [Option<(Range<usize>, &Range<usize>)>; 2] = [None, None];
    for (piece, written) in pieces.iter_mut().zip(written) {
        *piece = place_of(written.text.as_bytes(), wire).map(|place| (place, &written.inside));
    }
    pieces.sort_unstable_by_key(|piece| piece.as_ref().map(|(place, _)| place.start));
    for (place, inside) in pieces.into_iter().flatten() {
        // An empty text may have any place, and one payload may be a part of the other.
        let Some(before) = wire.get(done..place.start) else { continue };
        write_inside(out, before);
        out.extend_from_within(inside.clone());
        done = place.end;
    }
    write_inside(out, wire.get(done..).unwrap_or_default());
}

/// OTLP's `SpanKind`, by number.
pub const SPAN_KINDS: &[&str] =
    &["unspecified", "internal", "server", "client", "producer", "consumer"];

/// OTLP's status codes, by number.
pub const STATUSES: &[&str] = &["unset", "ok", "error"];

const STYLE: Style = Style { numbers: Numbers::Finite, repeated: Repeated::Last };

/// Appends attributes as one object, as they stand in lines and in other outputs that are read as lines are.
pub fn write_attributes(out: &mut Vec<u8>, attributes: &[Attribute]) {
    write_attributes_but(out, attributes, |_| false);
}

/// Appends attributes as one object, without those for which `skip` says true.
pub fn write_attributes_but<'a>(
    out: &mut Vec<u8>,
    attributes: &'a [Attribute],
    skip: impl FnMut(&'a Attribute) -> bool,
) {
    plain::write_attributes_but(out, attributes, STYLE, skip);
}

/// Whether a column was taken from this very value: the same bytes of the same request, not only equal ones.
fn is_same_text(column: Option<&Payload>, value: &Value) -> bool {
    let (Some(column), Value::Text(text)) = (column, value) else { return false };
    let column = column.as_str();
    !text.is_empty() && ptr::eq(column.as_ptr(), text.as_ptr()) && column.len() == text.len()
}

fn write_score(out: &mut Vec<u8>, score: &Score) {
    out.extend_from_slice(b"{\"name\":");
    write_str(out, &score.name);
    let mut line = Line { out };
    line.money(column!("value"), score.value);
    line.fact(column!("label"), score.label.as_ref());
    line.fact(column!("explanation"), score.explanation.as_ref());
    out.push(b'}');
}

fn write_event(out: &mut Vec<u8>, event: &SpanEvent) {
    out.extend_from_slice(b"{\"name\":");
    write_str(out, &event.name);
    let mut line = Line { out };
    line.time(column!("time"), event.time_ns);
    line.number(column!("time_unix_nano"), event.time_ns);
    line.attributes(column!("attributes"), &event.attributes);
    line.count(column!("dropped_attributes_count"), event.dropped_attributes_count);
    out.push(b'}');
}

fn write_link(out: &mut Vec<u8>, link: &Link) {
    out.extend_from_slice(b"{\"trace_id\":\"");
    out.extend_from_slice(&link.trace_id.to_hex());
    out.push(b'"');
    let mut members = Line { out };
    members.quoted(column!("span_id"), &link.span_id.to_hex());
    members.text(column!("trace_state"), &link.trace_state);
    members.count(column!("flags"), link.flags);
    members.attributes(column!("attributes"), &link.attributes);
    members.count(column!("dropped_attributes_count"), link.dropped_attributes_count);
    out.push(b'}');
}
