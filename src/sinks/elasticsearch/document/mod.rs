//! Converts spans to documents: typed, indexed fields, and everything else as sent, without an index. Pure.
//!
//! The fields are those of `templates.rs`. Data without a field stays in `attributes`: for OTLP the attributes, for the Agents SDK the
//! item's own members (`attributes.span_data.type` ...). Inputs and outputs are not written twice.

mod sent;
pub(super) mod pairs;
mod cut;

use std::borrow::Cow;

use cut::shortened;
use memchr::memchr2;

use crate::sinks::elasticsearch::fields::Field::{Decimal, Nothing, Number, Time, Truth, Words};
use crate::sinks::elasticsearch::fields::{words, write_fields, write_key, write_texts};
use crate::sinks::elasticsearch::item::ItemMembers;
use crate::sinks::elasticsearch::names::{
    NS_PER_US, Names, OURS, TIME_NS_MAX, event_ns, milliseconds,
};
use crate::sinks::elasticsearch::options::Settings;
use crate::sinks::elasticsearch::tree::{LOG, MODEL, OTHER, Place, RECORD, SILENT, STEP};
use crate::span::{
    Detail, Facts, Kind, Payload, RootSpan, STATUS_ERROR, Source, Span, Spends, Text, TraceContext,
    TraceObject, Usage,
};
use crate::support::json::object::Object;
use crate::support::json::{write_compact, write_str};
use crate::support::rfc3339::is_odd;

/// A span with what is parsed of it before it is written.
pub(super) struct Subject<'a> {
    pub(super) span: &'a Span,
    pub(super) source: &'a Source,
    pub(super) context: Option<&'a TraceContext>,
    pub(super) item: ItemMembers<'a>,
    pub(super) names: Names<'a>,
}

impl<'a> Subject<'a> {
    pub(super) fn of(
        span: &'a Span,
        source: &'a Source,
        context: Option<&'a TraceContext>,
        root: RootSpan,
    ) -> Self {
        let item = ItemMembers::of(span);
        let names = Names::of(span, context, root);
        Self { span, source, context, item, names }
    }
}

/// How much of a span is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Degradation {
    #[default]
    Full,
    /// Everything, but untyped data as a single text that is not indexed, for a backend that rejected the full document.
    Folded,
    /// Only typed fields, which are small: for a span with thousands of attributes.
    Typed,
}

/// Appends a document on one line, without the line break. `place` is what other spans of the trace tell about the span. The document has
/// at most `bytes_max` bytes: if it is longer, the longest texts are cut and note the length of the rest.
pub(super) fn write(
    out: &mut Vec<u8>,
    (subject, place): (&Subject<'_>, &Place<'_>),
    settings: &Settings,
    degradation: Degradation,
    bytes_max: usize,
) {
    let start = out.len();
    let span = subject.span;
    let detail = (span.is_otlp() || span.is_synthetic()).then(|| span.detail());
    // Texts are cut to an eighth of the limit, then to ever less, until the document fits.
    let limits = std::iter::successors(Some(bytes_max / 8), |limit| Some(limit / 4));
    let limits = limits.take_while(|limit| SHORT_TEXT_BYTES <= *limit);
    let attempts = std::iter::once(usize::MAX).chain(limits).map(|limit| (degradation, limit));
    for (degradation, text_max) in attempts.chain([(Degradation::Typed, SHORT_TEXT_BYTES)]) {
        out.truncate(start);
        let facts = span.facts();
        Document { out, subject, place, settings, span, facts, detail, degradation, text_max }
            .write();
        if out.len() - start <= bytes_max {
            return;
        }
    }
}

/// The shortest length to which texts are cut, in bytes.
const SHORT_TEXT_BYTES: usize = 256;
/// The most entries of `tags`, `attr_kv` and `metadata_kv`. The attributes contain the rest.
pub(super) const ENTRIES_MAX: usize = 64;
/// The most bytes of such an entry; longer ones would not be indexed.
pub(super) const ENTRY_BYTES_MAX: usize = 1024;
/// The largest number of the field type `long`.
pub(super) const LONG_MAX: u64 = i64::MAX as u64;

struct Document<'a, 'o> {
    out: &'o mut Vec<u8>,
    subject: &'a Subject<'a>,
    place: &'a Place<'a>,
    settings: &'a Settings,
    span: &'a Span,
    facts: &'a Facts,
    /// `None` for an Agents SDK item, whose detail would have to be derived first.
    detail: Option<&'a Detail>,
    degradation: Degradation,
    /// Texts longer than this, in bytes, are cut.
    text_max: usize,
}

impl Document<'_, '_> {
    fn write(mut self) {
        let is_full = self.degradation == Degradation::Full;
        self.out.push(b'{');
        self.typed();
        self.tags();
        self.usage();
        if is_full {
            self.pairs();
        }
        if self.degradation != Degradation::Typed {
            self.free();
        }
        if is_full {
            self.searchable();
        }
        if !is_full || self.text_max != usize::MAX {
            self.key("truncated").extend_from_slice(b"true");
        }
        self.out.push(b'}');
    }

    fn typed(&mut self) {
        let (span, facts, subject) = (self.span, self.facts, self.subject);
        let (names, source, options) = (&subject.names, subject.source, &self.settings.options);
        let raw_type = raw_type(subject);
        let span_type = options.span_type_map.get(&*raw_type).map_or(&*raw_type, String::as_str);
        let own_name = self.detail.map_or(&*raw_type, |detail| &detail.name);
        let name = Some(&*facts.name).filter(|name| !name.is_empty()).unwrap_or(own_name);
        let known = |of: fn(&TraceContext) -> &Option<Text>| of(subject.context?).as_deref();
        // The trace object that came with the span, and the one of the trace context.
        let objects = [span.trace.as_ref(), subject.context.and_then(|it| it.trace.as_ref())];
        let object = |of: fn(&TraceObject) -> &Option<Text>| {
            objects.into_iter().flatten().find_map(|object| of(object).as_deref())
        };
        // The trace's name takes precedence over that of an Agents SDK task, which is also a workflow.
        let workflow = object(|it| &it.workflow).filter(|name| !name.is_empty());
        let workflow = workflow.or(facts.workflow.as_deref()).or(known(|it| &it.workflow));
        let group = facts.session.as_deref().or(object(|it| &it.group)).or(known(|it| &it.session));
        let has_failed = span.is_otlp() && span.detail().status_code == STATUS_ERROR;
        let (error, is_error) = (facts.error.as_ref(), facts.error.is_some() || has_failed);
        let message = error.map(|error| &error.message);
        let message = message.or(self.detail.map(|detail| &detail.status_message));
        let message = message.filter(|_| is_error && self.degradation == Degradation::Full);
        let message = shortened(message.map_or("", |message| message), self.text_max);
        let agent = self.place.agent;
        let (from, to) = (facts.handoff_from.as_deref(), facts.handoff_to.as_deref());
        let pair = from.or(to).map(|_| format!("{} -> {}", from.unwrap_or("?"), to.unwrap_or("?")));
        let model = facts.response_model.as_deref().or(facts.request_model.as_deref());
        let ours = span.is_synthetic().then_some(OURS);
        let at_us = |ns: u64| Number(ns / NS_PER_US).unless(is_odd(ns));
        let has_odd_time = has_odd_time(span);
        let odd = |ns: u64| has_odd_time.then(|| ns.to_string());
        let (odd_start, odd_end) = (odd(span.start_ns), odd(span.end_ns));
        let timestamp = if self.settings.is_stream() { "@timestamp" } else { "timestamp" };
        let rows = [
            ("", timestamp, Time(event_ns(span, source))),
            ("", "end_time", Time(span.end_ns).unless(is_odd(span.end_ns))),
            ("", "ingested_at", Time(source.received_at_ns.min(TIME_NS_MAX))),
            ("", "start_us", at_us(span.start_ns)),
            ("", "end_us", at_us(span.end_ns)),
            ("odd_time", "start_ns", words(odd_start.as_deref())),
            ("odd_time", "end_ns", words(odd_end.as_deref())),
            ("", "duration_ms", Decimal(milliseconds(span.duration_ns())).unless(has_odd_time)),
            ("", "trace_id", Words(&names.trace)),
            ("", "span_id", Words(&names.span)),
            ("", "parent_id", words(names.parent.as_deref())),
            ("", "span_type", Words(span_type)),
            ("", "name", Words(name)),
            ("", "depth", self.place.depth.map_or(Nothing, |depth| Number(depth.into()))),
            ("", "status", Words(if is_error { "error" } else { "ok" })),
            ("", "error_flag", Number(is_error.into())),
            ("", "nonfatal_error_flag", Number(1).unless(error.is_none() || facts.fails_trace())),
            ("", "source", Words(ours.unwrap_or(source.receiver.as_str()))),
            ("", "service_name", words(span.scope.resource.service_name().map(|name| &**name))),
            ("", "workflow_name", words(workflow)),
            ("", "group_id", words(group)),
            ("", "user", words(facts.user.as_deref().or(known(|it| &it.user)))),
            ("error", "type", words(error.and_then(|error| error.kind.as_deref()))),
            ("error", "message", Words(&message)),
            ("agent", "name", words(agent.map(|it| it.name).or(facts.agent.as_deref()))),
            ("agent", "span_id", words(agent.and_then(|agent| agent.span))),
            ("tool", "name", words(facts.tool.as_deref())),
            ("handoff", "from", words(from)),
            ("handoff", "to", words(to)),
            ("handoff", "pair", words(pair.as_deref())),
            ("guardrail", "name", words(facts.guardrail.as_deref())),
            ("guardrail", "triggered", facts.guardrail_triggered.map_or(Nothing, Truth)),
            ("model", "name", words(model)),
            ("model", "provider", words(facts.provider.as_deref().filter(|_| model.is_some()))),
        ];
        write_fields(self.out, rows);
    }

    /// Writes the span's tags, or its trace's if it has none.
    fn tags(&mut self) {
        let (context, own) = (self.subject.context, &self.facts.tags);
        let tags = context.map(|it| &it.tags).filter(|_| own.is_empty()).unwrap_or(own).iter();
        let tags = tags.filter(|tag| !tag.is_empty() && tag.len() <= ENTRY_BYTES_MAX);
        write_texts(self.out, "tags", tags.take(ENTRIES_MAX).map(|tag| &**tag));
    }

    /// Writes the tokens and costs that count, those that repeat other spans', and the evidence for this.
    fn usage(&mut self) {
        let tokens = self.settings.prices.tokens_of(self.subject.context, self.span);
        let source = tokens.cost_source.filter(|_| tokens.counts);
        self.tokens("usage", tokens.own, (tokens.own_cost().total, source));
        if tokens.repeats {
            self.tokens("aggregate_usage", tokens.aggregate, (tokens.cost.total, None));
        }
        let spending = self.span.spending();
        let answer = spending.answer(&self.span.scope.name);
        let spends = match spending.spends {
            Spends::Model if tokens.counts => "",
            Spends::Model => MODEL,
            Spends::Log => LOG,
            Spends::Other if spending.is_step() => STEP,
            Spends::Other => OTHER,
            Spends::Record => RECORD,
            Spends::Nothing if spending.is_call() => SILENT,
            Spends::Nothing => "",
        };
        let rows = [
            ("counting", "spends", Words(spends)),
            ("counting", "is_boundary", Truth(true).unless(!spending.is_boundary())),
            ("counting", "answer", Number(answer).unless(answer == 0)),
        ];
        write_fields(self.out, rows);
    }

    fn tokens(
        &mut self,
        name: &'static str,
        usage: &Usage,
        (cost, source): (Option<f64>, Option<&str>),
    ) {
        let cost = cost.filter(|cost| cost.is_finite());
        if usage.is_empty() && cost.is_none() {
            return;
        }
        let count = |count: Option<u64>| count.map_or(Nothing, |it| Number(it.min(LONG_MAX)));
        let sum = || Some(usage.input?.saturating_add(usage.output?));
        self.open(name);
        let rows = [
            ("", "input_tokens", count(usage.input)),
            ("", "output_tokens", count(usage.output)),
            ("", "total_tokens", count(usage.total.or_else(sum))),
            ("", "cached_tokens", count(usage.cached_read)),
            ("", "reasoning_tokens", count(usage.reasoning)),
            ("", "cost_usd", cost.map_or(Nothing, Decimal)),
            ("", "cost_source", words(source.filter(|_| cost.is_some()))),
        ];
        write_fields(self.out, rows);
        self.close();
    }

    fn key(&mut self, name: &'static str) -> &mut Vec<u8> {
        write_key(self.out, name)
    }

    fn open(&mut self, name: &'static str) {
        self.key(name).push(b'{');
    }

    fn close(&mut self) {
        self.out.push(b'}');
    }

    /// Writes a text unless it is empty.
    fn text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            write_str(self.key(name), text);
        }
    }

    fn payload(&mut self, name: &'static str, payload: Option<&Payload>) {
        match payload {
            None => {}
            Some(Payload::Text(text)) => self.text(name, text),
            Some(Payload::Json(json)) => write_json(self.key(name), json),
        }
    }

    /// Writes a member as the client sent it.
    fn member(&mut self, name: &str, json: &str) {
        write_json(Object::within(self.out).member(name), json);
    }
}

/// Returns whether a span has an invalid time. 0 means a missing one.
pub(super) fn has_odd_time(span: &Span) -> bool {
    [span.start_ns, span.end_ns].into_iter().any(|at| at != 0 && is_odd(at))
}

/// Returns the Agents SDK's type of such a span, whichever client sent it.
fn raw_type<'a>(subject: &'a Subject<'_>) -> Cow<'a, str> {
    let span = subject.span;
    if let Some(said) = subject.item.data.get_string("type") {
        return said;
    }
    Cow::Borrowed(match span.facts().kind {
        Kind::Tool => "function",
        Kind::Mcp => "mcp_tools",
        kind => kind.as_str(),
    })
}

/// Appends JSON on one line. Most clients send it without line breaks, and then it is copied unchanged.
fn write_json(out: &mut Vec<u8>, json: &str) {
    if memchr2(b'\n', b'\r', json.as_bytes()).is_none() {
        out.extend_from_slice(json.as_bytes());
    } else {
        write_compact(out, json.as_bytes());
    }
}
