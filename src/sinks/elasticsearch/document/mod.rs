//! Spans become documents: typed fields that are indexed, and everything else as it came, unindexed. Pure.
//!
//! Fields are those of `templates.rs`. What the client said and no field has stays in `attributes`: for OTLP the attributes, for
//! the Agents SDK the item's own members (`attributes.span_data.type` ...). Inputs and outputs are not written twice.

mod sent;
pub(super) mod pairs;
mod cut;

use std::borrow::Cow;

use cut::shortened;
use memchr::memchr2;

use crate::sinks::elasticsearch::item::ItemMembers;
use crate::sinks::elasticsearch::names::{
    NS_PER_US, Names, OURS, TIME_NS_MAX, event_ns, is_odd, milliseconds,
};
use crate::sinks::elasticsearch::options::Settings;
use crate::sinks::elasticsearch::tree::{LOG, MODEL, OTHER, Place, SILENT};
use crate::span::{
    Detail, Facts, Kind, Payload, RootSpan, STATUS_ERROR, Source, Span, Spends, Text, TraceContext,
    TraceObject, Usage,
};
use crate::support::json::object::Object;
use crate::support::json::{write_compact, write_f64, write_str, write_u64};
use crate::support::rfc3339;

/// A span, and what is read of it before it is written.
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
        let names = Names::of(span, &item.own, context, root);
        Self { span, source, context, item, names }
    }
}

/// How much of a span is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Rung {
    #[default]
    Full,
    /// Everything, but what has no type of its own as one text that nobody looks into: for a backend that refused the rest.
    Folded,
}

/// Appends a document on one line, without the line break; `place` is what others of its trace say of the span. It is at most
/// `bytes_max` long: in a longer one the longest texts are cut, and say how much of them is missing.
pub(super) fn write(
    out: &mut Vec<u8>,
    (subject, place): (&Subject<'_>, &Place<'_>),
    settings: &Settings,
    rung: Rung,
    bytes_max: usize,
) {
    let start = out.len();
    let span = subject.span;
    let detail = (span.is_otlp() || span.is_synthetic()).then(|| span.detail());
    // Texts are cut to an eighth of what is allowed, then to ever less, until the whole fits.
    let limits = std::iter::successors(Some(bytes_max / 8), |limit| Some(limit / 4));
    let limits = limits.take_while(|limit| SHORT_TEXT_BYTES <= *limit);
    let attempts = std::iter::once(usize::MAX).chain(limits).map(|text_max| (Some(rung), text_max));
    // Thousands of attributes: what is typed is small.
    for (rung, text_max) in attempts.chain([(None, SHORT_TEXT_BYTES)]) {
        out.truncate(start);
        let facts = span.facts();
        Document { out, subject, place, settings, span, facts, detail, text_max }.write(rung);
        if out.len() - start <= bytes_max {
            return;
        }
    }
}

/// Texts are not cut shorter than this, in bytes.
const SHORT_TEXT_BYTES: usize = 256;
/// Entries of `tags`, `attr_kv` and `metadata_kv`. What a client said beyond that is in the attributes.
pub(super) const ENTRIES_MAX: usize = 64;
/// Bytes of an entry there; longer ones would not be indexed.
pub(super) const ENTRY_BYTES_MAX: usize = 1024;
/// The largest number that the field type `long` knows.
pub(super) const LONG_MAX: u64 = i64::MAX as u64;

struct Document<'a, 'o> {
    out: &'o mut Vec<u8>,
    subject: &'a Subject<'a>,
    place: &'a Place<'a>,
    settings: &'a Settings,
    span: &'a Span,
    facts: &'a Facts,
    /// Only where it is all there is: for an item it would have to be made up first.
    detail: Option<&'a Detail>,
    /// Texts longer than this, in bytes, are cut.
    text_max: usize,
}

impl Document<'_, '_> {
    /// Writes everything; without a rung only what is typed.
    fn write(mut self, rung: Option<Rung>) {
        self.out.push(b'{');
        self.times();
        self.identity();
        self.words(rung);
        self.usage();
        if let Some(rung) = rung {
            if rung == Rung::Full {
                self.pairs();
            }
            self.free(rung);
            if rung == Rung::Full {
                self.searchable();
            }
        }
        if rung != Some(Rung::Full) || self.text_max != usize::MAX {
            self.key("truncated").extend_from_slice(b"true");
        }
        self.out.push(b'}');
    }

    fn times(&mut self) {
        let (span, source) = (self.span, self.subject.source);
        let field = if self.settings.is_stream() { "@timestamp" } else { "timestamp" };
        self.time(field, event_ns(span, source));
        if !is_odd(span.end_ns) {
            self.time("end_time", span.end_ns);
        }
        self.time("ingested_at", source.received_at_ns.min(TIME_NS_MAX));
        for (name, at) in [("start_us", span.start_ns), ("end_us", span.end_ns)] {
            if !is_odd(at) {
                write_u64(self.key(name), at / NS_PER_US);
            }
        }
        if has_odd_time(span) {
            self.open("odd_time");
            for (name, at) in [("start_ns", span.start_ns), ("end_ns", span.end_ns)] {
                self.text(name, &at.to_string());
            }
            self.close();
        } else {
            write_f64(self.key("duration_ms"), milliseconds(span.duration_ns()));
        }
    }

    fn identity(&mut self) {
        let subject = self.subject;
        self.text("trace_id", &subject.names.trace);
        self.text("span_id", &subject.names.span);
        self.text("parent_id", subject.names.parent.as_deref().unwrap_or_default());
        let raw_type = raw_type(subject);
        let mapped = self.settings.options.span_type_map.get(&*raw_type);
        self.text("span_type", mapped.map_or(&*raw_type, String::as_str));
        let name = if self.facts.name.is_empty() {
            self.detail.map_or(&*raw_type, |detail| &detail.name)
        } else {
            &self.facts.name
        };
        self.text("name", name);
        if let Some(depth) = self.place.depth {
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
        let known = |of: fn(&TraceContext) -> &Option<Text>| of(subject.context?).as_deref();
        // As it came with the span, and as the lane knows it.
        let objects =
            [subject.span.trace.as_ref(), subject.context.and_then(|it| it.trace.as_ref())];
        let object = |of: fn(&TraceObject) -> &Option<Text>| {
            objects.into_iter().flatten().find_map(|object| of(object).as_deref())
        };
        // The name of a task of the Agents SDK, which is a workflow too, comes after that of its trace.
        let workflow = object(|it| &it.workflow).filter(|name| !name.is_empty());
        let workflow = workflow.or(facts.workflow.as_deref()).or(known(|it| &it.workflow));
        let group = facts.session.as_deref().or(object(|it| &it.group)).or(known(|it| &it.session));
        for (name, text) in [
            ("service_name", self.span.scope.resource.service_name().map(|name| &**name)),
            ("workflow_name", workflow),
            ("group_id", group),
            ("user", facts.user.as_deref().or(known(|it| &it.user))),
        ] {
            self.text(name, text.unwrap_or_default());
        }
        // Where a span has no labels, those of its trace.
        let tags = subject.context.map(|it| &it.tags).filter(|_| facts.tags.is_empty());
        let tags = tags.unwrap_or(&facts.tags).iter();
        let tags = tags.filter(|tag| !tag.is_empty() && tag.len() <= ENTRY_BYTES_MAX);
        let mut tags = tags.take(ENTRIES_MAX).map(|tag| &**tag).peekable();
        if tags.peek().is_some() {
            write_texts(self.key("tags"), tags);
        }
        if is_error(self.span) {
            self.open("error");
            let error = facts.error.as_ref();
            self.text("type", error.and_then(|error| error.kind.as_deref()).unwrap_or_default());
            if rung == Some(Rung::Full) {
                let status = self.detail.map(|detail| &detail.status_message);
                let message = error.map(|error| &error.message).or(status);
                let message = message.map_or("", |message| message);
                self.text("message", &shortened(message, self.text_max));
            }
            self.close();
        }
        let agent = self.place.agent;
        let name = agent.map(|agent| agent.name).or(facts.agent.as_deref());
        self.group("agent", &[("name", name), ("span_id", agent.and_then(|agent| agent.span))]);
        self.group("tool", &[("name", facts.tool.as_deref())]);
        let (from, to) = (facts.handoff_from.as_deref(), facts.handoff_to.as_deref());
        if from.is_some() || to.is_some() {
            let pair = format!("{} -> {}", from.unwrap_or("?"), to.unwrap_or("?"));
            self.group("handoff", &[("from", from), ("to", to), ("pair", Some(&pair))]);
        }
        if facts.guardrail.is_some() || facts.guardrail_triggered.is_some() {
            self.open("guardrail");
            self.text("name", facts.guardrail.as_deref().unwrap_or_default());
            if let Some(triggered) = facts.guardrail_triggered {
                self.key("triggered").extend_from_slice(if triggered { b"true" } else { b"false" });
            }
            self.close();
        }
        let model = facts.response_model.as_deref().or(facts.request_model.as_deref());
        let provider = facts.provider.as_deref().filter(|_| model.is_some());
        self.group("model", &[("name", model), ("provider", provider)]);
    }

    /// Tokens and money that count, or those that repeat what others say; and what decides which.
    fn usage(&mut self) {
        let facts = self.facts;
        let tokens = self.settings.prices.tokens_of(self.subject.context, self.span);
        let source = tokens.cost_source.filter(|_| tokens.counts);
        self.tokens("usage", tokens.own, (tokens.own_cost().total, source));
        if tokens.repeats {
            self.tokens("aggregate_usage", tokens.aggregate, (tokens.cost.total, None));
        }
        let spends = match Spends::of(facts) {
            Spends::Model if tokens.counts => "",
            Spends::Model => MODEL,
            Spends::Log => LOG,
            Spends::Other => OTHER,
            Spends::Nothing if facts.kind.counts_usage() => SILENT,
            Spends::Nothing => "",
        };
        let is_boundary = matches!(facts.kind, Kind::Tool | Kind::Agent | Kind::Handoff)
            || facts.sdk_span_type.as_deref() == Some("task");
        if spends.is_empty() && !is_boundary {
            return;
        }
        self.open("counting");
        self.text("spends", spends);
        if is_boundary {
            self.key("is_boundary").extend_from_slice(b"true");
        }
        self.close();
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
        self.open(name);
        for (name, count) in [
            ("input_tokens", usage.input),
            ("output_tokens", usage.output),
            ("total_tokens", total_tokens(usage)),
            ("cached_tokens", usage.cached_read),
            ("reasoning_tokens", usage.reasoning),
        ] {
            if let Some(count) = count {
                write_u64(self.key(name), count.min(LONG_MAX));
            }
        }
        if let Some(cost) = cost {
            write_f64(self.key("cost_usd"), cost);
            self.text("cost_source", source.unwrap_or_default());
        }
        self.close();
    }

    /// A name of ours, which needs no escape.
    fn key(&mut self, name: &'static str) -> &mut Vec<u8> {
        // No value ends with the brace that tells the first.
        self.out.extend_from_slice(if self.out.last() == Some(&b'{') { b"\"" } else { b",\"" });
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn open(&mut self, name: &'static str) {
        self.key(name).push(b'{');
    }

    fn close(&mut self) {
        self.out.push(b'}');
    }

    /// Text; nothing when it is empty.
    fn text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            write_str(self.key(name), text);
        }
    }

    /// An object of texts; nothing when all are empty.
    fn group(&mut self, name: &'static str, fields: &[(&'static str, Option<&str>)]) {
        if fields.iter().all(|(_, text)| text.is_none_or(str::is_empty)) {
            return;
        }
        self.open(name);
        for (field, text) in fields {
            self.text(field, text.unwrap_or_default());
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
            Some(Payload::Text(text)) => self.text(name, text),
            Some(Payload::Json(json)) => write_json(self.key(name), json),
        }
    }

    /// A member as the client named and wrote it.
    fn member(&mut self, name: &str, json: &str) {
        write_json(Object::within(self.out).member(name), json);
    }
}

/// Whether a span has an invalid time. 0 stands for a missing one.
pub(super) fn has_odd_time(span: &Span) -> bool {
    [span.start_ns, span.end_ns].into_iter().any(|at| at != 0 && is_odd(at))
}

fn is_error(span: &Span) -> bool {
    span.facts().error.is_some() || (span.is_otlp() && span.detail().status_code == STATUS_ERROR)
}

/// Input and output together, where the client did not add them up.
fn total_tokens(usage: &Usage) -> Option<u64> {
    usage.total.or_else(|| Some(usage.input?.saturating_add(usage.output?)))
}

/// What the Agents SDK calls such a span, whoever made it.
fn raw_type<'a>(subject: &'a Subject<'_>) -> Cow<'a, str> {
    let span = subject.span;
    if !span.is_otlp() {
        if let Some(said) = subject.item.data.get_string("type") {
            return said;
        }
    }
    Cow::Borrowed(match span.facts().kind {
        Kind::Tool => "function",
        Kind::Mcp => "mcp_tools",
        kind => kind.as_str(),
    })
}

/// Appends a list of texts.
pub(super) fn write_texts<'t>(out: &mut Vec<u8>, texts: impl Iterator<Item = &'t str>) {
    out.push(b'[');
    for (at, text) in texts.enumerate() {
        if at != 0 {
            out.push(b',');
        }
        write_str(out, text);
    }
    out.push(b']');
}

/// Appends JSON on one line. Clients send it without line breaks, and then it is copied as it is.
fn write_json(out: &mut Vec<u8>, json: &str) {
    if memchr2(b'\n', b'\r', json.as_bytes()).is_none() {
        out.extend_from_slice(json.as_bytes());
    } else {
        write_compact(out, json.as_bytes());
    }
}
