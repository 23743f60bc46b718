//! Spans become documents: typed fields that are indexed, and everything else as it came, unindexed. Pure.
//!
//! Fields are those of `templates.rs`. What the client said and no field has stays in `attributes`: for OTLP the attributes, for
//! the Agents SDK the item's own members (`attributes.span_data.type` ...). Inputs and outputs are not written twice.

use std::borrow::Cow;
use std::ptr;
use std::sync::Arc;

use memchr::memchr2;

use super::item::{ItemMembers, Members, text};
use super::names::{Names, TIME_NS_MAX, event_ns, sha256_hex};
use super::options::{AttributesMapping, Rotation, Settings};
use crate::sinks::jsonl::{write_attributes, write_attributes_but};
use crate::span::{
    Attribute, Detail, Facts, Kind, Link, Payload, Source, Span, SpanEvent, Text, TraceContext,
    Value,
};
use crate::support::json::{write_compact, write_f64, write_i64, write_str, write_u64};
use crate::support::rfc3339;

/// What is known of a span from others of its trace.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Known {
    /// The nearest agent at or above it.
    pub(super) agent: Option<Arc<str>>,
    /// That agent's span.
    pub(super) agent_span: Option<Arc<str>>,
    /// Spans above it, up to the root.
    pub(super) depth: Option<u16>,
}

/// Everything a document is made of.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) span: &'a Span,
    pub(super) source: &'a Source,
    pub(super) context: Option<&'a TraceContext>,
    pub(super) item: &'a ItemMembers<'a>,
    pub(super) names: &'a Names<'a>,
    pub(super) known: &'a Known,
    pub(super) settings: &'a Settings,
}

/// How much of a span is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rung {
    /// Everything.
    Full,
    /// Everything, but what has no type of its own as one text that nobody looks into: for a far side that refused the rest.
    Folded,
}

/// Appends a document on one line, without the line break. It is at most `bytes_max` long: in a longer one the longest texts are
/// cut, and say how much of them is missing.
pub(super) fn write(out: &mut Vec<u8>, subject: Subject<'_>, rung: Rung, bytes_max: usize) {
    let start = out.len();
    // Texts are cut to an eighth of what is allowed, then to ever less, until the whole fits.
    let limits = std::iter::successors(Some(bytes_max / 8), |limit| Some(limit / 4));
    let limits = limits.take_while(|limit| SHORT_TEXT_BYTES <= *limit);
    for text_max in std::iter::once(usize::MAX).chain(limits) {
        out.truncate(start);
        Document::new(out, subject, text_max).write(Some(rung));
        if out.len() - start <= bytes_max {
            return;
        }
    }
    // Thousands of attributes: what is typed is small.
    out.truncate(start);
    Document::new(out, subject, SHORT_TEXT_BYTES).write(None);
}

/// Texts are not cut shorter than this, in bytes.
const SHORT_TEXT_BYTES: usize = 256;
/// Entries of `attr_kv`.
const PAIRS_MAX: usize = 64;
/// Bytes of an entry of `attr_kv`; longer ones would not be indexed.
const PAIR_BYTES_MAX: usize = 1024;
/// Texts that are indexed word by word, in bytes: of longer ones only the beginning is.
const SEARCHED_BYTES_MAX: usize = 1 << 20;

struct Document<'a, 'o> {
    out: &'o mut Vec<u8>,
    separator: &'static [u8],
    subject: Subject<'a>,
    span: &'a Span,
    facts: &'a Facts,
    /// Only where it is all there is: for an item it would have to be made up first.
    detail: Option<&'a Detail>,
    /// Texts longer than this, in bytes, are cut.
    text_max: usize,
    is_cut: bool,
}

impl<'a, 'o> Document<'a, 'o> {
    fn new(out: &'o mut Vec<u8>, subject: Subject<'a>, text_max: usize) -> Self {
        let span = subject.span;
        let is_told_by_detail = span.is_otlp() || span.is_synthetic();
        let detail = is_told_by_detail.then(|| span.detail());
        let facts = span.facts();
        Self { out, separator: b"", subject, span, facts, detail, text_max, is_cut: false }
    }

    /// Writes everything; without a rung only what is typed.
    fn write(mut self, rung: Option<Rung>) {
        self.out.push(b'{');
        self.times();
        self.identity();
        self.words(rung);
        self.usage();
        match rung {
            Some(Rung::Full) => {
                self.pairs();
                self.as_sent();
                self.searchable();
            }
            Some(Rung::Folded) => self.folded(),
            None => self.is_cut = true,
        }
        if self.is_cut {
            self.key("truncated").extend_from_slice(b"true");
        }
        self.out.push(b'}');
    }

    fn times(&mut self) {
        let (span, source) = (self.span, self.subject.source);
        let field = match self.subject.settings.rotation {
            Rotation::DataStream => "@timestamp",
            _ => "timestamp",
        };
        self.time(field, event_ns(span, source));
        if span.end_ns != 0 && span.end_ns <= TIME_NS_MAX {
            self.time("end_time", span.end_ns);
        }
        self.time("ingested_at", source.received_at_ns.min(TIME_NS_MAX));
        for (name, at) in [("start_us", span.start_ns), ("end_us", span.end_ns)] {
            if at != 0 {
                write_u64(self.key(name), at / NS_PER_US);
            }
        }
        write_f64(self.key("duration_ms"), milliseconds(span.duration_ns()));
    }

    fn identity(&mut self) {
        let subject = self.subject;
        self.text("trace_id", &subject.names.trace);
        self.text("span_id", &subject.names.span);
        self.text("parent_id", subject.names.parent.as_deref().unwrap_or_default());
        let raw_type = raw_type(subject);
        let mapped = subject.settings.span_type_map.get(&*raw_type);
        self.text("span_type", mapped.map_or(&*raw_type, String::as_str));
        let name = if self.facts.name.is_empty() {
            self.detail.map_or(&*raw_type, |detail| &detail.name)
        } else {
            &self.facts.name
        };
        self.text("name", name);
        if let Some(depth) = subject.known.depth {
            write_u64(self.key("depth"), depth.into());
        }
        let is_error = is_error(self.span);
        self.text("status", if is_error { "error" } else { "ok" });
        write_u64(self.key("error_flag"), is_error.into());
        self.text(
            "source",
            if self.span.is_synthetic() { OURS } else { subject.source.receiver.as_str() },
        );
    }

    fn words(&mut self, rung: Option<Rung>) {
        let (facts, subject) = (self.facts, self.subject);
        self.text("service_name", service_name(self.span).unwrap_or_default());
        self.text("workflow_name", workflow(subject).unwrap_or_default());
        self.text("group_id", group(subject).unwrap_or_default());
        let status = self.detail.map(|detail| &detail.status_message);
        if is_error(self.span) {
            self.open("error");
            let kind = facts.error.as_ref().and_then(|error| error.kind.as_deref());
            self.text("type", kind.unwrap_or_default());
            if rung == Some(Rung::Full) {
                let message = facts.error.as_ref().map(|error| &error.message).or(status);
                self.long("message", message.map_or("", |message| message));
            }
            self.close();
        }
        if let Some(agent) = subject.known.agent.as_deref().or(facts.agent.as_deref()) {
            self.open("agent");
            self.text("name", agent);
            self.text("span_id", subject.known.agent_span.as_deref().unwrap_or_default());
            self.close();
        }
        self.group("tool", &[("name", facts.tool.as_ref())]);
        if facts.handoff_from.is_some() || facts.handoff_to.is_some() {
            let pair = |side: &Option<Text>| side.as_deref().unwrap_or("?").to_owned();
            let pair = format!("{} -> {}", pair(&facts.handoff_from), pair(&facts.handoff_to));
            let pair = Text::from(pair);
            self.group(
                "handoff",
                &[
                    ("from", facts.handoff_from.as_ref()),
                    ("to", facts.handoff_to.as_ref()),
                    ("pair", Some(&pair)),
                ],
            );
        }
        if facts.guardrail.is_some() || facts.guardrail_triggered.is_some() {
            self.open("guardrail");
            self.text("name", facts.guardrail.as_deref().unwrap_or_default());
            if let Some(triggered) = facts.guardrail_triggered {
                self.key("triggered").extend_from_slice(if triggered { b"true" } else { b"false" });
            }
            self.close();
        }
        let model = facts.response_model.as_ref().or(facts.request_model.as_ref());
        let provider = facts.provider.as_ref().filter(|_| model.is_some());
        self.group("model", &[("name", model), ("provider", provider)]);
    }

    /// Tokens and money of model calls. What others repeat of them is in the attributes, and would be counted twice here.
    fn usage(&mut self) {
        let (usage, cost) = (&self.facts.usage, self.facts.cost.total);
        let cost = cost.filter(|cost| cost.is_finite());
        if !self.facts.kind.counts_usage() || (usage.is_empty() && cost.is_none()) {
            return;
        }
        self.open("usage");
        for (name, count) in [
            ("input_tokens", usage.input),
            ("output_tokens", usage.output),
            ("total_tokens", total_tokens(self.facts)),
            ("cached_tokens", usage.cached_read),
            ("reasoning_tokens", usage.reasoning),
        ] {
            if let Some(count) = count {
                write_u64(self.key(name), count.min(LONG_MAX));
            }
        }
        if let Some(cost) = cost {
            write_f64(self.key("cost_usd"), cost);
        }
        self.close();
    }

    // === As sent ===

    fn as_sent(&mut self) {
        let mapping = self.subject.settings.attributes_mapping;
        if mapping == AttributesMapping::Disabled {
            self.attributes();
        } else {
            let (start, separator) = (self.out.len(), self.separator);
            self.attributes();
            guard(self.out, start, separator);
        }
        self.resource();
        self.payload("input", self.facts.input.as_ref());
        self.payload("output", self.facts.output.as_ref());
        let Some(detail) = self.detail else { return };
        self.list("events", &detail.events, Self::event);
        self.list("links", &detail.links, Self::link);
    }

    fn attributes(&mut self) {
        self.open("attributes");
        match self.detail {
            Some(detail) => self.otlp_attributes(detail),
            None => self.item_members(),
        }
        self.close();
    }

    fn otlp_attributes(&mut self, detail: &'a Detail) {
        let extras = [
            ("otel.span_kind", u64::try_from(detail.kind).unwrap_or_default()),
            ("otel.flags", detail.flags.into()),
            ("otel.dropped_attributes_count", detail.dropped_attributes_count.into()),
            ("otel.dropped_events_count", detail.dropped_events_count.into()),
            ("otel.dropped_links_count", detail.dropped_links_count.into()),
        ];
        for (name, number) in extras {
            if number != 0 {
                write_u64(self.key(name), number);
            }
        }
        self.long("otel.trace_state", &detail.trace_state);
        self.long("otel.status_message", &detail.status_message);
        self.join_attributes(&detail.attributes);
    }

    /// Adds attributes to the object that is open.
    fn join_attributes(&mut self, attributes: &'a [Attribute]) {
        let cut = (self.text_max != usize::MAX).then(|| self.cut_attributes(attributes));
        let sides = [self.facts.input.as_ref(), self.facts.output.as_ref()];
        let is_elsewhere =
            |attribute: &Attribute| sides.iter().any(|side| is_same_text(*side, &attribute.value));
        // What is written is an object of its own: its braces take the place of those that are open.
        let is_first = self.separator.is_empty();
        if is_first {
            self.out.pop();
        }
        let start = self.out.len();
        write_attributes_but(self.out, cut.as_deref().unwrap_or(attributes), |attribute| {
            attribute.key.starts_with("otel.") && is_ours(&attribute.key) || is_elsewhere(attribute)
        });
        self.out.pop();
        if self.out.len() == start + 1 {
            self.out.truncate(start + usize::from(is_first));
            return;
        }
        self.separator = b",";
        if let Some(brace) = self.out.get_mut(start).filter(|_| !is_first) {
            *brace = b',';
        }
    }

    /// The members of an item that have no field of their own.
    fn item_members(&mut self) {
        let members = &self.subject.item.own;
        for (name, value) in members.iter() {
            match name {
                "object" | "id" | "trace_id" | "parent_id" | "started_at" | "ended_at" => {}
                "span_data" if !self.subject.item.data.is_empty() => {
                    self.open("span_data");
                    let data = &self.subject.item.data;
                    let written = written_elsewhere(data, self.facts);
                    for (name, value) in data.iter().filter(|(name, _)| !written.contains(name)) {
                        self.member(name, value);
                    }
                    self.close();
                }
                _ => self.member(name, value),
            }
        }
    }

    fn resource(&mut self) {
        let scope = &self.span.scope;
        let is_empty = scope.resource.attributes.is_empty();
        if is_empty && (self.detail.is_none() || scope.name.is_empty()) {
            return;
        }
        self.open("resource");
        if self.detail.is_some() {
            self.text("otel.scope.name", &scope.name);
            self.text("otel.scope.version", &scope.version);
            if !scope.attributes.is_empty() {
                write_attributes(self.key("otel.scope.attributes"), &scope.attributes);
            }
        }
        self.join_attributes(&self.span.scope.resource.attributes);
        self.close();
    }

    fn event(&mut self, event: &SpanEvent) {
        self.time("time", event.time_ns);
        self.text("name", &event.name);
        if !event.attributes.is_empty() {
            self.cut_object("attributes", &event.attributes);
        }
    }

    fn link(&mut self, link: &Link) {
        self.text("trace_id", &link.trace_id.to_string());
        self.text("span_id", &link.span_id.to_string());
        self.text("trace_state", &link.trace_state);
        if !link.attributes.is_empty() {
            self.cut_object("attributes", &link.attributes);
        }
    }

    fn cut_object(&mut self, name: &'static str, attributes: &[Attribute]) {
        if self.text_max == usize::MAX {
            write_attributes(self.key(name), attributes);
        } else {
            let cut = self.cut_attributes(attributes);
            write_attributes(self.key(name), &cut);
        }
    }

    fn list<T>(&mut self, name: &'static str, elements: &[T], write: impl Fn(&mut Self, &T)) {
        if elements.is_empty() {
            return;
        }
        self.key(name).push(b'[');
        for (index, element) in elements.iter().enumerate() {
            self.out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
            self.separator = b"";
            write(self, element);
            self.out.push(b'}');
        }
        self.out.push(b']');
        self.separator = b",";
    }

    /// Everything that has no type of its own, as one text.
    fn folded(&mut self) {
        let mut inner = vec![b'{'];
        fold(&mut inner, self.subject, self.text_max);
        inner.push(b'}');
        write_str(self.key("raw_json"), &String::from_utf8_lossy(&inner));
        self.is_cut = true;
    }

    // === What can be searched ===

    /// `key=value` of everything that is one value.
    fn pairs(&mut self) {
        let mut pairs = Pairs { entries: 0, text: String::new() };
        let start = self.out.len();
        self.key("attr_kv").push(b'[');
        if let Some(detail) = self.detail {
            let sides = [self.facts.input.as_ref(), self.facts.output.as_ref()];
            let all = detail.attributes.iter();
            for attribute in
                all.filter(|known| !sides.iter().any(|side| is_same_text(*side, &known.value)))
            {
                pairs.add(self.out, "", &attribute.key, &scalar_of(&attribute.value));
            }
        } else {
            let metadata = self.subject.item.own.get("metadata").map(Members::of);
            let metadata = metadata.unwrap_or_default();
            for (prefix, members) in
                [("span_data.", &self.subject.item.data), ("metadata.", &metadata)]
            {
                for (key, value) in members.iter() {
                    pairs.add(self.out, prefix, key, &scalar_of_json(value));
                }
            }
        }
        if pairs.entries == 0 {
            self.out.truncate(start);
        } else {
            self.out.push(b']');
        }
    }

    fn searchable(&mut self) {
        if !self.subject.settings.payload_search {
            return;
        }
        let sides = [("input_text", &self.facts.input), ("output_text", &self.facts.output)];
        for (name, payload) in sides {
            if let Some(payload) = payload {
                let text = beginning(payload.as_str(), SEARCHED_BYTES_MAX.min(self.text_max));
                self.text(name, text);
            }
        }
    }

    // === Fields ===

    /// A name of ours, which needs no escape.
    fn key(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.out.extend_from_slice(self.separator);
        self.separator = b",";
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn open(&mut self, name: &'static str) {
        self.key(name).push(b'{');
        self.separator = b"";
    }

    fn close(&mut self) {
        self.out.push(b'}');
        self.separator = b",";
    }

    /// Text; nothing when it is empty.
    fn text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            write_str(self.key(name), text);
        }
    }

    /// Text that may have to be cut; nothing when it is empty.
    fn long(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            let cut = self.cut(text);
            write_str(self.key(name), &cut);
        }
    }

    fn group(&mut self, name: &'static str, fields: &[(&'static str, Option<&Text>)]) {
        if fields.iter().all(|(_, text)| text.is_none_or(|text| text.is_empty())) {
            return;
        }
        self.open(name);
        for (field, text) in fields {
            self.text(field, text.map_or("", |text| text));
        }
        self.close();
    }

    fn time(&mut self, name: &'static str, unix_ns: u64) {
        let out = self.key(name);
        out.push(b'"');
        rfc3339::write(out, unix_ns);
        out.push(b'"');
    }

    fn payload(&mut self, name: &'static str, payload: Option<&Payload>) {
        match payload {
            None => {}
            Some(Payload::Text(text)) => self.long(name, text),
            Some(Payload::Json(json)) => {
                self.key(name);
                self.json(json);
            }
        }
    }

    /// A member as the client named and wrote it.
    fn member(&mut self, name: &str, json: &str) {
        self.out.extend_from_slice(self.separator);
        self.separator = b",";
        write_str(self.out, name);
        self.out.push(b':');
        self.json(json);
    }

    /// JSON as it came; where it is too long, its beginning as text.
    fn json(&mut self, json: &str) {
        if self.text_max < json.len() {
            let whole = text(json).unwrap_or(Cow::Borrowed(json));
            let cut = self.cut(&whole);
            write_str(self.out, &cut);
        } else {
            write_json(self.out, json);
        }
    }

    fn cut<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let cut = shortened(text, self.text_max);
        self.is_cut |= matches!(cut, Cow::Owned(_));
        cut
    }

    fn cut_attributes(&mut self, attributes: &[Attribute]) -> Vec<Attribute> {
        let all = attributes.iter();
        all.map(|Attribute { key, value }| {
            let key = Text::from(&*self.cut(key));
            Attribute { key, value: self.cut_value(value) }
        })
        .collect()
    }

    fn cut_value(&mut self, value: &Value) -> Value {
        match value {
            Value::Text(text) if self.text_max < text.len() => {
                Value::Text(Text::from(&*self.cut(text)))
            }
            Value::Bytes(bytes) if self.text_max < bytes.len() => {
                self.is_cut = true;
                Value::Text(Text::from(marker(bytes.len(), bytes)))
            }
            Value::Array(elements) => {
                Value::Array(elements.iter().map(|element| self.cut_value(element)).collect())
            }
            Value::Map(entries) => Value::Map(self.cut_attributes(entries)),
            other => other.clone(),
        }
    }
}

/// Appends the members of the text that holds everything without a type of its own.
fn fold(out: &mut Vec<u8>, subject: Subject<'_>, text_max: usize) {
    let mut document = Document::new(out, subject, text_max);
    let facts = document.facts;
    let message = facts.error.as_ref().map_or("", |error| &*error.message);
    document.long("error.message", message);
    document.attributes();
    document.resource();
    document.payload("input", facts.input.as_ref());
    document.payload("output", facts.output.as_ref());
    if let Some(detail) = document.detail {
        document.list("events", &detail.events, Document::event);
        document.list("links", &detail.links, Document::link);
    }
}

/// Who made a root that stands for a trace.
pub(super) const OURS: &str = "spanferry";

const NS_PER_US: u64 = 1_000;
const NS_PER_MS: f64 = 1e6;
/// The largest number that the field type `long` knows.
const LONG_MAX: u64 = i64::MAX as u64;

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a span fit a double's 53 bits")]
pub(super) fn milliseconds(ns: u64) -> f64 {
    ns as f64 / NS_PER_MS
}

/// Whether a span failed.
pub(super) fn is_error(span: &Span) -> bool {
    const STATUS_ERROR: i32 = 2;
    span.facts().error.is_some() || (span.is_otlp() && span.detail().status_code == STATUS_ERROR)
}

/// Input and output together, where the client did not add them up.
pub(super) fn total_tokens(facts: &Facts) -> Option<u64> {
    let usage = &facts.usage;
    usage.total.or_else(|| Some(usage.input?.saturating_add(usage.output?)))
}

/// The service that a span belongs to.
pub(super) fn service_name(span: &Span) -> Option<&str> {
    let attributes = span.scope.resource.attributes.iter().rev();
    let mut named = attributes.filter(|attribute| &*attribute.key == "service.name");
    named.next()?.value.as_text().map(|text| &**text)
}

/// The workflow that a span belongs to.
pub(super) fn workflow(subject: Subject<'_>) -> Option<&str> {
    let of_trace = subject.span.trace.as_deref().and_then(|trace| trace.workflow.as_deref());
    let of_context = subject.context.and_then(|context| context.workflow.as_deref());
    subject.span.facts().workflow.as_deref().or(of_trace).or(of_context)
}

/// The conversation or group that a span belongs to.
pub(super) fn group(subject: Subject<'_>) -> Option<&str> {
    let of_trace = subject.span.trace.as_deref().and_then(|trace| trace.group.as_deref());
    let of_context = subject.context.and_then(|context| context.session.as_deref());
    subject.span.facts().session.as_deref().or(of_trace).or(of_context)
}

/// What the Agents SDK calls such a span, whoever made it.
fn raw_type(subject: Subject<'_>) -> Cow<'_, str> {
    let span = subject.span;
    if !span.is_otlp() {
        let said = subject.item.data.text("type").filter(|kind| !kind.is_empty());
        if let Some(said) = said {
            return said;
        }
    }
    Cow::Borrowed(match span.facts().kind {
        Kind::Tool => "function",
        Kind::Mcp => "mcp_tools",
        kind => kind.as_str(),
    })
}

/// Members of `span_data` that are the document's input and output, word for word.
fn written_elsewhere(data: &Members<'_>, facts: &Facts) -> &'static [&'static str] {
    match data.text("type").as_deref() {
        Some("generation" | "function") => match (&facts.input, &facts.output) {
            (Some(_), Some(_)) => &["input", "output"],
            (Some(_), None) => &["input"],
            (None, Some(_)) => &["output"],
            (None, None) => &[],
        },
        _ => &[],
    }
}

/// Whether an attribute has the name of one that we write ourselves.
fn is_ours(key: &str) -> bool {
    [
        "otel.span_kind",
        "otel.flags",
        "otel.dropped_attributes_count",
        "otel.dropped_events_count",
        "otel.dropped_links_count",
        "otel.trace_state",
        "otel.status_message",
        "otel.scope.name",
        "otel.scope.version",
        "otel.scope.attributes",
    ]
    .contains(&key)
}

/// Whether an attribute is the very text that an input or output was taken from.
fn is_same_text(side: Option<&Payload>, value: &Value) -> bool {
    let (Some(side), Value::Text(text)) = (side, value) else { return false };
    let side = side.as_str();
    !text.is_empty() && ptr::eq(side.as_ptr(), text.as_ptr()) && side.len() == text.len()
}

/// Appends JSON on one line. Clients send it without line breaks, and then it is copied as it is.
fn write_json(out: &mut Vec<u8>, json: &str) {
    if memchr2(b'\n', b'\r', json.as_bytes()).is_none() {
        out.extend_from_slice(json.as_bytes());
    } else {
        write_compact(out, json.as_bytes());
    }
}

/// A text of at most so many bytes, or nearly: its beginning, and how much is missing.
fn shortened(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let kept = beginning(text, bytes_max.saturating_sub(MARKER_BYTES));
    Cow::Owned(format!("{kept}{}", marker(text.len() - kept.len(), text.as_bytes())))
}

fn marker(missing: usize, whole: &[u8]) -> String {
    format!("...[truncated {missing} bytes, sha256 {}]", sha256_hex(whole))
}

/// What [`marker`] takes.
const MARKER_BYTES: usize = 112;

/// As much of a text as fits so many bytes.
fn beginning(text: &str, bytes_max: usize) -> &str {
    let end = text.floor_char_boundary(bytes_max.min(text.len()));
    text.get(..end).unwrap_or_default()
}

// === Pairs ===

/// One value, as text.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    /// No single value.
    None,
}

struct Pairs {
    entries: usize,
    text: String,
}

impl Pairs {
    fn add(&mut self, out: &mut Vec<u8>, prefix: &str, key: &str, value: &Scalar<'_>) {
        let Scalar::Text(value) = value else { return };
        if PAIR_BYTES_MAX < prefix.len() + key.len() + value.len() || PAIRS_MAX <= self.entries {
            return;
        }
        self.text.clear();
        for part in [prefix, key, "=", value] {
            self.text.push_str(part);
        }
        if self.entries != 0 {
            out.push(b',');
        }
        write_str(out, &self.text);
        self.entries += 1;
    }
}

fn scalar_of(value: &Value) -> Scalar<'_> {
    let mut number = Vec::new();
    match value {
        Value::Text(text) => return Scalar::Text(Cow::Borrowed(text)),
        Value::Bool(truth) => return Scalar::Text(truth.to_string().into()),
        Value::Int(int) => write_i64(&mut number, *int),
        Value::Double(double) if double.is_finite() => write_f64(&mut number, *double),
        _ => return Scalar::None,
    }
    Scalar::Text(String::from_utf8(number).unwrap_or_default().into())
}

fn scalar_of_json(json: &str) -> Scalar<'_> {
    match json.as_bytes().first() {
        Some(b'"') if json.len() <= PAIR_BYTES_MAX => text(json).map_or(Scalar::None, Scalar::Text),
        Some(b'"' | b'{' | b'[' | b'n') | None => Scalar::None,
        Some(_) => Scalar::Text(Cow::Borrowed(json)),
    }
}

// === Guards ===

/// Levels that `flattened` takes with room to spare: its own limit is 20.
const GUARDED_DEPTH_MAX: usize = 8;
/// Bytes of a key in a field that indexes keys.
const GUARDED_KEY_BYTES_MAX: usize = 256;
/// Bytes of a value there: with its key it has to stay below Lucene's 32,766.
const GUARDED_TEXT_BYTES_MAX: usize = 30_000;

/// Mends the attributes that were written from `start` on, for fields that index every one of them.
fn guard(out: &mut Vec<u8>, start: usize, separator: &[u8]) {
    let written = out.split_off(start);
    let field = written.get(separator.len()..).unwrap_or_default();
    let value = field.splitn(2, |&byte| byte == b':').nth(1).unwrap_or_default();
    let value = serde_json::from_slice(value).unwrap_or_default();
    out.extend_from_slice(separator);
    out.extend_from_slice(b"\"attributes\":");
    out.extend_from_slice(guarded(value, 1).to_string().as_bytes());
}

fn guarded(value: serde_json::Value, depth: usize) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::Object(_) | Json::Array(_) if GUARDED_DEPTH_MAX < depth => {
            guarded(Json::String(value.to_string()), depth)
        }
        Json::Object(members) => Json::Object(
            members
                .into_iter()
                .map(|(key, value)| {
                    let key = beginning(&key, GUARDED_KEY_BYTES_MAX).replace('\0', "");
                    let key = if key.is_empty() { "_".to_owned() } else { key };
                    (key, guarded(value, depth + 1))
                })
                .collect(),
        ),
        Json::Array(elements) => {
            Json::Array(elements.into_iter().map(|value| guarded(value, depth + 1)).collect())
        }
        Json::String(text) => {
            Json::String(shortened(&text, GUARDED_TEXT_BYTES_MAX).replace('\0', ""))
        }
        other => other,
    }
}
