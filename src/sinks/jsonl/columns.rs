//! The columns of an item, in their order: one table for all sinks that write rows. Pure.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::LazyLock;

use super::SCHEMA_VERSION;
use crate::prices::Prices;
use crate::sinks::Delivery;
use crate::span::plain::{self, Style};
use crate::span::{
    Attribute, Batch, Detail, Facts, Item, Link, Payload, SPAN_KINDS, STATUSES, Scope, Score,
    Source, Span, SpanEvent, Text, Tokens, TraceContext, TraceObject, Value, payloads,
};
use crate::support::json::object::Object;
use crate::support::json::raw::Raw;
use crate::support::json::{write_f64, write_integer, write_str};
use crate::support::rfc3339;

/// A column of the schema.
#[derive(Debug)]
pub(in crate::sinks) struct Column {
    /// Its name.
    pub(in crate::sinks) name: &'static str,
    /// The name with the JSON punctuation around it in a line, so that it is copied in one step.
    pub(super) key: &'static str,
    /// Its value for an item.
    pub(in crate::sinks) cell: Cell,
}

/// A column's value for an item, by type. A missing value is `None`, or nothing is appended.
#[derive(Debug)]
pub(in crate::sinks) enum Cell {
    /// An integer.
    Number(fn(&Row<'_>) -> Option<u64>),
    /// A finite number.
    Money(fn(&Row<'_>) -> Option<f64>),
    /// A boolean.
    Flag(fn(&Row<'_>) -> Option<bool>),
    /// Nanoseconds since 1970.
    Time(fn(&Row<'_>) -> Option<u64>),
    /// Text without characters that JSON must escape, appended.
    Plain(fn(&Row<'_>, &mut Vec<u8>)),
    /// Text.
    Text(for<'r> fn(&'r Row<'r>) -> Option<&'r str>),
    /// Text that may be contained in an Agents SDK item.
    Payload(for<'r> fn(&'r Row<'r>) -> Option<&'r Payload>),
    /// Strings; empty if missing.
    Texts(for<'r> fn(&'r Row<'r>) -> &'r [Text]),
    /// An object, or an array of objects, appended as JSON.
    Json(fn(&Row<'_>, &mut Vec<u8>)),
    /// An Agents SDK item, as received.
    Item(for<'r> fn(&'r Row<'r>) -> Option<&'r [u8]>),
}

/// An item with everything that its columns need.
pub(in crate::sinks) struct Row<'a> {
    item: &'a Item,
    span: Option<&'a Span>,
    trace: Option<&'a TraceObject>,
    detail: &'a Detail,
    facts: &'a Facts,
    context: Option<&'a TraceContext>,
    /// `None` for a trace object.
    tokens: Option<Tokens<'a>>,
    /// The attributes whose texts are the columns `input`, `output` and `tool_definitions`.
    columns_of: [Option<&'a Attribute>; 3],
    /// The scope that a span was sent under.
    pub(in crate::sinks) scope: Option<&'a Scope>,
    /// The request of the item.
    pub(in crate::sinks) source: &'a Source,
}

/// The detail of a trace object.
static NOTHING: LazyLock<Detail> = LazyLock::new(Detail::default);

impl<'a> Row<'a> {
    /// Collects the values for an item of a batch of this delivery.
    pub(in crate::sinks) fn of(
        (delivery, prices): (&'a Delivery, &'a Prices),
        (batch, item): (&'a Batch, &'a Item),
    ) -> Self {
        let (span, trace) = match item {
            Item::Span(span) => (Some(span), None),
            Item::Trace(trace) => (None, Some(&**trace)),
        };
        let context = delivery.context(item.trace_id());
        let known = span.map(|span| (span.head(), span.facts()));
        let (detail, facts) = known.unwrap_or_else(|| (&NOTHING, Facts::none()));
        let is_otlp = span.is_some_and(Span::is_otlp);
        Self {
            item,
            span,
            trace,
            detail,
            facts,
            context: context.filter(|_| span.is_some()),
            tokens: span.map(|span| prices.tokens_of(context, span)),
            columns_of: if is_otlp { columns_of(detail, facts) } else { [None; 3] },
            scope: span.map(|span| &*span.scope),
            source: &batch.source,
        }
    }

    fn of_trace(&self, said: fn(&TraceContext) -> &Option<Text>) -> Option<&Text> {
        self.context.map(said)?.as_ref()
    }

    fn tags(&self) -> &[Text] {
        let known = self.context.map(|trace| &trace.tags).filter(|_| self.facts.tags.is_empty());
        known.unwrap_or(&self.facts.tags)
    }

    /// Returns the rest of what an OTLP client sent, in addition to the facts.
    fn sent(&self) -> Option<&Detail> {
        self.span?.is_otlp().then_some(self.detail)
    }

    fn attribute_of(&self, column: usize) -> Option<&str> {
        self.columns_of.get(column).copied().flatten().and_then(|found| said(&found.key))
    }
}

macro_rules! columns {
    ($($name:literal $cell:ident($take:expr),)+) => {
        &[$(Column { name: $name, key: concat!(",\"", $name, "\":"), cell: Cell::$cell($take) }),+]
    };
}

/// Columns from the item itself or its trace.
pub(super) static OF_ITEM: &[Column] = columns![
    "schema_version" Number(|_| Some(SCHEMA_VERSION)),
    "record" Plain(|row, out| out.extend_from_slice(if row.trace.is_some() { b"trace" } else { b"span" })),
    "trace_id" Plain(|row, out| out.extend_from_slice(&row.item.trace_id().to_hex())),
    "span_id" Plain(|row, out| if let Some(span) = row.span { out.extend_from_slice(&span.span_id.to_hex()) }),
    "parent_span_id" Plain(|row, out| if let Some(id) = row.span.and_then(|span| span.parent_id) { out.extend_from_slice(&id.to_hex()) }),
    "trace_state" Text(|row| said(&row.detail.trace_state)),
    "flags" Number(|row| count(row.detail.flags)),
    "name" Text(|row| Some(row.name())),
    "display_name" Text(|row| said(&row.facts.name).filter(|name| **name != *row.detail.name)),
    "kind" Plain(|row, out| if row.span.is_some() { out.extend_from_slice(row.facts.kind.as_str().as_bytes()) }),
    "convention" Plain(|row, out| if row.span.is_some() { out.extend_from_slice(row.facts.convention.as_str().as_bytes()) }),
    "sdk_span_type" Text(|row| fact(row.facts.sdk_span_type.as_ref())),
    "span_kind" Plain(|row, out| if row.span.is_some() { write_code(out, SPAN_KINDS, row.detail.kind) }),
    "start_time" Time(|row| row.span.map(|span| span.start_ns).filter(|at| *at != 0)),
    "end_time" Time(|row| row.span.map(|span| span.end_ns).filter(|at| *at != 0)),
    // A trace object, like a span without times, has the times 0. pandas would read a column that is null in some lines and a number in
    // others as floats, which are too imprecise for nanoseconds.
    "start_time_unix_nano" Number(|row| Some(row.span.map_or(0, |span| span.start_ns))),
    "end_time_unix_nano" Number(|row| Some(row.span.map_or(0, |span| span.end_ns))),
    "duration_ns" Number(|row| Some(row.span.map_or(0, Span::duration_ns))),
    "status" Plain(|row, out| if row.span.is_some() { write_code(out, STATUSES, row.detail.status_code) }),
    "status_message" Text(|row| said(&row.detail.status_message)),
    "error_type" Text(|row| fact(row.facts.error.as_ref()?.kind.as_ref())),
    "error_message" Text(|row| said(&row.facts.error.as_ref()?.message)),
    "error_data" Text(|row| json(row.facts.error.as_ref()?.data.as_ref())),
    "environment" Text(|row| fact(row.facts.environment.as_ref())),
    "release" Text(|row| fact(row.facts.release.as_ref())),
    "workflow_name" Text(|row| fact(row.facts.workflow.as_ref().or(row.trace.and_then(|trace| trace.workflow.as_ref())))),
    "session_id" Text(|row| fact(row.session())),
    "user_id" Text(|row| fact(row.facts.user.as_ref().or_else(|| row.of_trace(|trace| &trace.user)))),
    "tags" Texts(|row| row.tags()),
    "metadata" Json(write_metadata),
    "agent_name" Text(|row| fact(row.facts.agent.as_ref())),
    "tool_name" Text(|row| fact(row.facts.tool.as_ref())),
    "tool_call_id" Text(|row| fact(row.facts.tool_call_id.as_ref())),
    "provider_name" Text(|row| fact(row.facts.provider.as_ref())),
    "request_model" Text(|row| fact(row.facts.request_model.as_ref())),
    "response_model" Text(|row| fact(row.facts.response_model.as_ref())),
    "response_id" Text(|row| fact(row.facts.response_id.as_ref())),
    "finish_reasons" Texts(|row| &row.facts.finish_reasons),
    "parameters" Text(|row| json(row.facts.parameters.as_ref())),
    "time_to_first_token_ns" Number(|row| row.facts.first_token_ns),
    "input_tokens" Number(|row| row.tokens?.own.input),
    "output_tokens" Number(|row| row.tokens?.own.output),
    "total_tokens" Number(|row| row.tokens?.own.total),
    "cache_read_input_tokens" Number(|row| row.tokens?.own.cached_read),
    "cache_creation_input_tokens" Number(|row| row.tokens?.own.cache_write),
    "reasoning_output_tokens" Number(|row| row.tokens?.own.reasoning),
    "audio_input_tokens" Number(|row| row.tokens?.own.input_audio),
    "audio_output_tokens" Number(|row| row.tokens?.own.output_audio),
    "cache_creation_1h_input_tokens" Number(|row| row.tokens?.own.cache_write_1h),
    "aggregate_input_tokens" Number(|row| row.tokens?.aggregate.input),
    "aggregate_output_tokens" Number(|row| row.tokens?.aggregate.output),
    "aggregate_total_tokens" Number(|row| row.tokens?.aggregate.total),
    "aggregate_cache_read_input_tokens" Number(|row| row.tokens?.aggregate.cached_read),
    "aggregate_cache_creation_input_tokens" Number(|row| row.tokens?.aggregate.cache_write),
    "aggregate_reasoning_output_tokens" Number(|row| row.tokens?.aggregate.reasoning),
    "aggregate_audio_input_tokens" Number(|row| row.tokens?.aggregate.input_audio),
    "aggregate_audio_output_tokens" Number(|row| row.tokens?.aggregate.output_audio),
    "aggregate_cache_creation_1h_input_tokens" Number(|row| row.tokens?.aggregate.cache_write_1h),
    "cost_usd" Money(|row| money(row.tokens?.own_cost().total)),
    "input_cost_usd" Money(|row| money(row.tokens?.own_cost().input)),
    "output_cost_usd" Money(|row| money(row.tokens?.own_cost().output)),
    "cost_source" Text(|row| said(row.tokens.filter(|tokens| tokens.counts)?.cost_source?)),
    "aggregate_cost_usd" Money(|row| money(row.tokens.filter(|tokens| !tokens.counts)?.cost.total)),
    "prompt_name" Text(|row| fact(row.facts.prompt_name.as_ref())),
    "prompt_version" Text(|row| fact(row.facts.prompt_version.as_ref())),
    "handoff_from" Text(|row| fact(row.facts.handoff_from.as_ref())),
    "handoff_to" Text(|row| fact(row.facts.handoff_to.as_ref())),
    "guardrail_name" Text(|row| fact(row.facts.guardrail.as_ref())),
    "guardrail_triggered" Flag(|row| row.facts.guardrail_triggered),
    "mcp_server" Text(|row| fact(row.facts.mcp_server.as_ref())),
    "mcp_method" Text(|row| fact(row.facts.mcp_method.as_ref())),
    "scores" Json(|row, out| write_list(out, &row.facts.scores, write_score)),
    "input" Payload(|row| row.facts.input.as_ref()),
    "input_is_json" Flag(|row| row.facts.input.as_ref().map(is_json)),
    "output" Payload(|row| row.facts.output.as_ref()),
    "output_is_json" Flag(|row| row.facts.output.as_ref().map(is_json)),
    "tool_definitions" Text(|row| json(row.facts.tool_definitions.as_ref())),
    "openai_trace_id" Text(|row| said(row.sdk_trace_id()?)),
    "openai_span_id" Text(|row| said(&row.detail.agents_sdk.as_ref()?.span)),
    "openai_parent_id" Text(|row| fact(row.detail.agents_sdk.as_ref()?.parent.as_ref())),
    "openai_item" Item(|row| Some(&**row.item.wire()).filter(|_| row.sent().is_none())),
    "attributes" Json(write_sent_attributes),
    "input_attribute" Text(|row| row.attribute_of(0)),
    "output_attribute" Text(|row| row.attribute_of(1)),
    "tool_definitions_attribute" Text(|row| row.attribute_of(2)),
    "dropped_attributes_count" Number(|row| count(row.sent()?.dropped_attributes_count)),
    "events" Json(|row, out| write_list(out, row.sent().map_or(&[], |sent| &sent.events), write_event)),
    "dropped_events_count" Number(|row| count(row.sent()?.dropped_events_count)),
    "links" Json(|row, out| write_list(out, row.sent().map_or(&[], |sent| &sent.links), write_link)),
    "dropped_links_count" Number(|row| count(row.sent()?.dropped_links_count)),
];

/// Columns from a span's resource and scope. Many spans share them.
pub(super) static OF_SCOPE: &[Column] = columns![
    "resource" Json(|row, out| if let Some(scope) = row.scope { write_said(out, &scope.resource.attributes) }),
    "resource_dropped_attributes_count" Number(|row| count(row.scope?.resource.dropped_attributes_count)),
    "resource_schema_url" Text(|row| said(&row.scope?.resource.schema_url)),
    "scope_name" Text(|row| said(&row.scope?.name)),
    "scope_version" Text(|row| said(&row.scope?.version)),
    "scope_attributes" Json(|row, out| if let Some(scope) = row.scope { write_said(out, &scope.attributes) }),
    "scope_dropped_attributes_count" Number(|row| count(row.scope?.dropped_attributes_count)),
    "scope_schema_url" Text(|row| said(&row.scope?.schema_url)),
    "service_name" Text(|row| fact(row.scope?.resource.service_name())),
];

/// Columns from the request. All its items share them.
pub(super) static OF_SOURCE: &[Column] = columns![
    "received_at" Time(|row| Some(row.source.received_at_ns)),
    "receiver" Plain(|row, out| out.extend_from_slice(row.source.receiver.as_str().as_bytes())),
    "tenant" Text(|row| said(&row.source.tenant)),
    "user_agent" Text(|row| said(row.source.header("user-agent")?)),
    "openai_organization" Text(|row| said(row.source.header("openai-organization")?)),
    "openai_project" Text(|row| said(row.source.header("openai-project")?)),
];

/// All columns, by what shares them.
pub(in crate::sinks) static ALL: [&[Column]; 3] = [OF_ITEM, OF_SCOPE, OF_SOURCE];

impl Row<'_> {
    fn name(&self) -> &str {
        match self.trace {
            Some(trace) => trace.workflow.as_deref().unwrap_or_default(),
            None => &self.detail.name,
        }
    }

    fn session(&self) -> Option<&Text> {
        let group = self.trace.and_then(|trace| trace.group.as_ref());
        let known = || self.of_trace(|trace| &trace.session);
        self.facts.session.as_ref().or(group).or_else(known)
    }

    fn sdk_trace_id(&self) -> Option<&str> {
        match self.trace {
            Some(trace) => Some(&trace.sdk_id),
            None => self.detail.agents_sdk.as_ref().map(|ids| &*ids.trace),
        }
    }
}

fn said(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn fact(text: Option<&Text>) -> Option<&str> {
    said(text?)
}

fn json(payload: Option<&Payload>) -> Option<&str> {
    said(payload?.as_str())
}

fn count(number: u32) -> Option<u64> {
    Some(number.into()).filter(|number| *number != 0)
}

fn money(amount: Option<f64>) -> Option<f64> {
    amount.filter(|amount| amount.is_finite())
}

fn is_json(payload: &Payload) -> bool {
    matches!(payload, Payload::Json(_))
}

/// Writes the name of an OTLP enum's number, or the number itself if it is unknown.
fn write_code(out: &mut Vec<u8>, words: &[&str], code: i32) {
    match usize::try_from(code).ok().and_then(|code| words.get(code)) {
        Some(word) => out.extend_from_slice(word.as_bytes()),
        None => out.extend_from_slice(code.to_string().as_bytes()),
    }
}

/// Appends attributes as one object, in the form of lines and of similar outputs.
pub fn write_attributes(out: &mut Vec<u8>, attributes: &[Attribute]) {
    let mut object = Object::open(out);
    join_attributes_but(&mut object, attributes, |_| false);
    object.close();
}

/// Adds attributes to an object, except those for which `skip` returns true.
pub fn join_attributes_but<'a>(
    object: &mut Object<'_>,
    attributes: &'a [Attribute],
    skip: impl FnMut(&'a Attribute) -> bool,
) {
    plain::join_attributes_but(object, attributes, Style::Strict, skip);
}

/// Finds the attributes that the columns `input`, `output` and `tool_definitions` come from. They must share the same memory; an attribute
/// with merely equal text is not the source.
fn columns_of<'a>(detail: &'a Detail, facts: &Facts) -> [Option<&'a Attribute>; 3] {
    let columns = [&facts.input, &facts.output, &facts.tool_definitions];
    let mut found = [None; 3];
    if columns.iter().all(|column| column.is_none()) {
        return found;
    }
    for attribute in &detail.attributes {
        let Value::Text(text) = &attribute.value else { continue };
        let is_source = |column: &Option<Payload>| {
            column.as_ref().is_some_and(|column| ptr::eq(column.as_str(), &raw const **text))
        };
        let places = columns.iter().zip(&mut found);
        if let Some((_, place)) = places.into_iter().find(|(column, _)| is_source(column))
            && !text.is_empty()
        {
            place.get_or_insert(attribute);
        }
    }
    found
}

/// Writes the attributes that are not columns.
fn write_sent_attributes(row: &Row<'_>, out: &mut Vec<u8>) {
    let Some(sent) = row.sent() else { return };
    let columns = row.columns_of;
    let mut object = Object::open(out);
    join_attributes_but(&mut object, &sent.attributes, |attribute| {
        columns.iter().flatten().any(|column| ptr::eq(*column, attribute))
    });
    object.close();
}

/// Writes metadata as an object of strings, sorted by name. If a name repeats, the last value counts.
fn write_metadata(row: &Row<'_>, out: &mut Vec<u8>) {
    let of_trace = row.trace.and_then(|trace| trace.metadata.as_ref());
    let of_trace = of_trace.map(|json| payloads(json, Raw::trusted(json)).collect());
    let metadata: &Vec<_> = of_trace.as_ref().unwrap_or(&row.facts.metadata);
    let sorted = metadata.iter().map(|(name, value)| (&**name, value.as_str()));
    let sorted: BTreeMap<&str, &str> = sorted.collect();
    if sorted.is_empty() {
        return;
    }
    let mut object = Object::open(out);
    for (name, value) in sorted {
        write_str(object.member(name), value);
    }
    object.close();
}

fn write_said(out: &mut Vec<u8>, attributes: &[Attribute]) {
    if !attributes.is_empty() {
        write_attributes(out, attributes);
    }
}

/// Appends text without characters that JSON must escape, in quotes.
pub(super) fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// Appends an array; nothing if it is empty.
pub(super) fn write_list<T>(out: &mut Vec<u8>, elements: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    for (index, element) in elements.iter().enumerate() {
        out.push(if index == 0 { b'[' } else { b',' });
        write(out, element);
    }
    if !elements.is_empty() {
        out.push(b']');
    }
}

fn write_score(out: &mut Vec<u8>, score: &Score) {
    let mut object = Object::open(out);
    write_str(object.member("name"), &score.name);
    if let Some(value) = money(score.value) {
        write_f64(object.member("value"), value);
    }
    write_text(&mut object, "label", score.label.as_deref().unwrap_or_default());
    write_text(&mut object, "explanation", score.explanation.as_deref().unwrap_or_default());
    object.close();
}

fn write_event(out: &mut Vec<u8>, event: &SpanEvent) {
    let mut object = Object::open(out);
    write_str(object.member("name"), &event.name);
    quoted(object.member("time"), |out| rfc3339::write(out, event.time_ns));
    write_integer(object.member("time_unix_nano"), event.time_ns);
    write_more(object, &event.attributes, event.dropped_attributes_count);
}

fn write_link(out: &mut Vec<u8>, link: &Link) {
    let mut object = Object::open(out);
    write_str(object.member("trace_id"), &link.trace_id.to_string());
    write_str(object.member("span_id"), &link.span_id.to_string());
    write_text(&mut object, "trace_state", &link.trace_state);
    write_count(&mut object, "flags", link.flags);
    write_more(object, &link.attributes, link.dropped_attributes_count);
}

/// Writes the common end of an event and a link.
fn write_more(mut object: Object<'_>, attributes: &[Attribute], dropped: u32) {
    if !attributes.is_empty() {
        write_attributes(object.member("attributes"), attributes);
    }
    write_count(&mut object, "dropped_attributes_count", dropped);
    object.close();
}

fn write_text(object: &mut Object<'_>, name: &str, text: &str) {
    if !text.is_empty() {
        write_str(object.member(name), text);
    }
}

fn write_count(object: &mut Object<'_>, name: &str, number: u32) {
    if let Some(number) = count(number) {
        write_integer(object.member(name), number);
    }
}
