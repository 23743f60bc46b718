//! A delivery becomes bulk requests: spans first, then what else their traces need. Pure but for the table of traces.
//!
//! Behind the spans come changes to documents of earlier deliveries (agents that are known now) and one summary for each trace.
//! A server applies the lines of a request in order, and one trace is never in two requests at once, so a change always finds the
//! document it changes.

use std::collections::HashSet;
use std::time::Instant;

use super::document::{self, Rung, Subject, group, service_name, total_tokens, workflow};
use super::item::ItemMembers;
use super::kin::Kin;
use super::names::{self, Names, bounded, event_ns, write_index};
use super::options::{IdMode, Rotation, Settings, TraceSummary};
use super::response::Action;
use super::server::{Flavor, Server};
use super::traces::{
    Condition, Patch, Seen, SpanFacts, Summary, Tokens, TraceFacts, Traces, write_facts,
};
use crate::sinks::Delivery;
use crate::span::{Item, Source, Span, SpanId, TraceContext, TraceId, tokens_of};
use crate::support::json::{write_str, write_u64};

/// The body of one request, and what its lines are.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// Actions and documents, each with its line break.
    pub(super) body: Vec<u8>,
    /// One for each action.
    pub(super) lines: Vec<Line>,
}

/// One action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// What it is about.
    pub(super) what: What,
    /// How it is sent.
    pub(super) action: Action,
    /// Where it begins in the body.
    pub(super) at: usize,
}

/// What an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The document of the item at this place of the delivery.
    Span { place: usize, rung: Rung },
    /// A change to the document of a span that was sent before.
    Patch { trace: TraceId, span: SpanId },
    /// A trace's summary, in this version.
    Summary { trace: TraceId, version: u64 },
    /// A change to the document of a span that somebody else has sent.
    Late { trace: TraceId },
    /// What a trace object says, joined to a summary that somebody else wrote.
    Facts { trace: TraceId },
}

/// What a delivery is encoded with.
#[derive(Clone, Copy)]
pub(super) struct Encoder<'a> {
    pub(super) settings: &'a Settings,
    pub(super) server: Server,
    /// Bytes of a request; only a single larger document is sent alone.
    pub(super) request_bytes_max: usize,
    /// Bytes of a document.
    pub(super) doc_bytes_max: usize,
}

/// What is read of a span before it is written.
struct View<'a> {
    span: &'a Span,
    source: &'a Source,
    context: Option<&'a TraceContext>,
    item: ItemMembers<'a>,
    names: Names<'a>,
}

impl Encoder<'_> {
    /// Whether there are documents of traces.
    pub(super) fn has_summaries(&self) -> bool {
        self.settings.trace_summary != TraceSummary::Off && self.server.has_indices()
    }

    /// Whether documents can be changed once they are there.
    pub(super) fn has_patches(&self) -> bool {
        self.server.has_indices()
            && self.settings.rotation != Rotation::DataStream
            && self.settings.id_mode == IdMode::Ids
    }

    /// Everything that a delivery sends.
    pub(super) fn delivery(
        &self,
        delivery: &Delivery,
        has_arrived: &[bool],
        traces: &mut Traces,
        now: Instant,
    ) -> Vec<Bulk> {
        let has_arrived = |place: usize| has_arrived.get(place) == Some(&true);
        let views: Vec<Option<View<'_>>> = delivery
            .items()
            .map(|(batch, item)| self.view(delivery, &batch.source, item))
            .collect();
        let mut order = Vec::new();
        let mut objects = HashSet::new();
        for (place, (view, (batch, item))) in views.iter().zip(delivery.items()).enumerate() {
            let id = item.trace_id();
            if order.last() != Some(&id) {
                order.push(id);
            }
            match (view, item) {
                (Some(view), _) => self.see(view, traces, now),
                (None, Item::Trace(trace)) => {
                    let facts = TraceFacts {
                        workflow: trace.workflow.as_deref(),
                        group: trace.group.as_deref(),
                        service: None,
                        metadata: trace.metadata.as_deref(),
                    };
                    let received_ms = batch.source.received_at_ns / NS_PER_MS;
                    traces.see_facts(id, &trace.native_id, facts, received_ms, now);
                    if !has_arrived(place) {
                        objects.insert(id);
                    }
                }
                (None, Item::Span(_)) => {}
            }
        }
        order.sort_unstable();
        order.dedup();
        let mut bulks = Bulks::new(self.request_bytes_max);
        // About a quarter more than came: names, times, and what is written twice.
        bulks.open.body.reserve((delivery.bytes() / 4 * 5).min(self.request_bytes_max));
        for (place, view) in views.iter().enumerate() {
            if let Some(view) = view {
                if !has_arrived(place) {
                    self.span(&mut bulks, place, view, traces, Rung::Full);
                }
                traces.stamp(view.span.trace_id, view.span.span_id);
            }
        }
        for trace in order {
            self.rest_of_trace(&mut bulks, trace, objects.contains(&trace), traces);
        }
        bulks.done()
    }

    /// What the far side refused as it was, in its plainest form.
    pub(super) fn folded(
        &self,
        delivery: &Delivery,
        places: &[usize],
        traces: &Traces,
    ) -> Vec<Bulk> {
        let mut bulks = Bulks::new(self.request_bytes_max);
        for (place, (batch, item)) in delivery.items().enumerate() {
            if places.contains(&place)
                && let Some(view) = self.view(delivery, &batch.source, item)
            {
                self.span(&mut bulks, place, &view, traces, Rung::Folded);
            }
        }
        bulks.done()
    }

    /// What traces need beside their spans. `objects` are those of which this delivery has the trace object.
    pub(super) fn traces(
        &self,
        ids: &[TraceId],
        objects: impl Fn(TraceId) -> bool,
        traces: &mut Traces,
    ) -> Vec<Bulk> {
        let mut bulks = Bulks::new(self.request_bytes_max);
        for &trace in ids {
            self.rest_of_trace(&mut bulks, trace, objects(trace), traces);
        }
        bulks.done()
    }

    fn view<'a>(
        &self,
        delivery: &'a Delivery,
        source: &'a Source,
        item: &'a Item,
    ) -> Option<View<'a>> {
        let span = item.as_span()?;
        let context = delivery.context(span.trace_id);
        let item = ItemMembers::of(span);
        let names = Names::of(span, &item.own, context, self.settings.root);
        Some(View { span, source, context, item, names })
    }

    fn see(&self, view: &View<'_>, traces: &mut Traces, now: Instant) {
        let (span, facts) = (view.span, view.span.facts());
        let known = document::Known::default();
        let subject = self.subject(view, &known);
        let told = tokens_of(view.context, span);
        let usage = Tokens {
            input: told.own.input.unwrap_or_default(),
            output: told.own.output.unwrap_or_default(),
            total: total_tokens(told.own).unwrap_or_default(),
            cost_usd: told.own_cost().total.filter(|cost| cost.is_finite()).unwrap_or_default(),
        };
        let object = span.trace.as_deref();
        let object = object.or_else(|| view.context.and_then(|context| context.trace.as_deref()));
        let parent = self.settings.root.parent_of(view.context, span);
        traces.see(
            &Seen {
                trace: span.trace_id,
                trace_name: &view.names.trace,
                span: span.span_id,
                span_name: &view.names.span,
                parent,
                facts: SpanFacts {
                    start_us: span.start_ns / NS_PER_US,
                    end_us: span.end_ns / NS_PER_US,
                    event_ns: event_ns(span, view.source),
                    kind: facts.kind,
                    is_error: document::is_error(span),
                    is_synthetic: span.is_synthetic(),
                    usage,
                    agent: facts.agent.as_deref(),
                    tool: facts.tool.as_deref(),
                    model: facts.response_model.as_deref().or(facts.request_model.as_deref()),
                },
                about_trace: TraceFacts {
                    workflow: workflow(subject),
                    group: group(subject),
                    service: service_name(span),
                    metadata: object.and_then(|object| object.metadata.as_deref()),
                },
                received_ms: view.source.received_at_ns / NS_PER_MS,
            },
            now,
        );
    }

    fn subject<'a>(&'a self, view: &'a View<'a>, known: &'a document::Known) -> Subject<'a> {
        Subject {
            span: view.span,
            source: view.source,
            context: view.context,
            item: &view.item,
            names: &view.names,
            known,
            settings: self.settings,
        }
    }

    fn span(&self, bulks: &mut Bulks, place: usize, view: &View<'_>, traces: &Traces, rung: Rung) {
        let span = view.span;
        let mut known = traces.known(span.trace_id, span.span_id);
        if known.agent.is_none() {
            let agents = view.context.map(|context| &context.agents);
            let agent = agents.and_then(|agents| agents.get(&span.span_id));
            known.agent = agent.map(|name| std::sync::Arc::from(&**name));
        }
        let subject = self.subject(view, &known);
        let is_stream = self.settings.rotation == Rotation::DataStream;
        let is_quickwit = self.server.flavor == Flavor::Quickwit;
        let action = if is_stream || is_quickwit { Action::Create } else { Action::Index };
        let has_id = !is_quickwit && self.settings.id_mode != IdMode::Auto;
        bulks.add(What::Span { place, rung }, action, |out| {
            out.extend_from_slice(if action == Action::Create { CREATE } else { INDEX });
            let event_ns = event_ns(span, view.source);
            write_index(out, &self.settings.spans_index(), self.settings.rotation, event_ns);
            if has_id {
                out.extend_from_slice(b",\"_id\":");
                match self.settings.id_mode {
                    IdMode::ContentHash => {
                        write_str(out, &names::sha256_hex(&hashed(view)));
                    }
                    IdMode::Ids | IdMode::Auto => write_str(out, &view.names.doc_id()),
                }
            }
            out.extend_from_slice(b"}}\n");
            document::write(out, subject, rung, self.doc_bytes_max);
            out.push(b'\n');
        });
    }

    fn rest_of_trace(
        &self,
        bulks: &mut Bulks,
        trace: TraceId,
        has_object: bool,
        traces: &mut Traces,
    ) {
        if self.has_patches() {
            let patches = traces.take_patches(trace);
            if let Some(name) = traces.name(trace) {
                for patch in &patches {
                    self.patch(bulks, trace, name, patch);
                }
            }
        }
        if !self.has_summaries() {
            return;
        }
        let index = self.settings.traces_index();
        if let Some((summary, version, condition)) = traces.stale(trace) {
            bulks.with(|bulk| self.summary(bulk, trace, &summary, version, condition));
        } else if has_object
            && traces.is_shared(trace)
            && let Some((name, facts)) = traces.facts(trace)
        {
            bulks.add(What::Facts { trace }, Action::Update, |out| {
                write_action(out, UPDATE, &index, &bounded(name));
                out.extend_from_slice(b"}}\n{\"doc\":");
                write_facts(out, name, facts);
                out.extend_from_slice(b",\"doc_as_upsert\":true}\n");
            });
        }
    }

    /// Adds a trace's document.
    pub(super) fn summary(
        &self,
        bulk: &mut Bulk,
        trace: TraceId,
        summary: &Summary<'_>,
        version: u64,
        condition: Condition,
    ) {
        let (action, opening) = match condition {
            Condition::Absent => (Action::Create, CREATE),
            Condition::At(_) => (Action::Conditional, INDEX),
            Condition::Free => (Action::Index, INDEX),
        };
        let index = self.settings.traces_index();
        bulk.add(What::Summary { trace, version }, action, |out| {
            write_action(out, opening, &index, &bounded(summary.name));
            if let Condition::At(seq) = condition {
                out.extend_from_slice(b",\"if_seq_no\":");
                write_u64(out, seq.number);
                out.extend_from_slice(b",\"if_primary_term\":");
                write_u64(out, seq.term);
            }
            out.extend_from_slice(b"}}\n");
            summary.write(out);
            out.push(b'\n');
        });
    }

    fn patch(&self, bulks: &mut Bulks, trace: TraceId, name: &str, patch: &Patch) {
        let span = patch.span;
        bulks.add(What::Patch { trace, span }, Action::Update, |out| {
            out.extend_from_slice(UPDATE);
            let settings = self.settings;
            write_index(out, &settings.spans_index(), settings.rotation, patch.event_ns);
            out.extend_from_slice(b",\"_id\":");
            match &patch.native {
                Some(native) => write_str(out, &bounded(native)),
                None => write_str(out, &bounded(&format!("{name}-{span}"))),
            }
            write_late(out, &patch.known);
        });
    }
}

/// Appends the end of an action, and what is known of a span since its document was sent.
fn write_late(out: &mut Vec<u8>, known: &document::Known) {
    out.extend_from_slice(b"}}\n{\"doc\":{");
    let mut separator = "";
    if let Some(agent) = &known.agent {
        out.extend_from_slice(b"\"agent\":{\"name\":");
        write_str(out, agent);
        if let Some(agent_span) = &known.agent_span {
            out.extend_from_slice(b",\"span_id\":");
            write_str(out, agent_span);
        }
        out.push(b'}');
        separator = ",";
    }
    if let Some(depth) = known.depth {
        out.extend_from_slice(separator.as_bytes());
        out.extend_from_slice(b"\"depth\":");
        write_u64(out, depth.into());
    }
    out.extend_from_slice(b"}}\n");
}

/// What a document's name is made of where its content names it.
fn hashed(view: &View<'_>) -> Vec<u8> {
    [view.names.trace.as_bytes(), b"\n", &view.span.wire].concat()
}

fn write_action(out: &mut Vec<u8>, opening: &[u8], index: &str, id: &str) {
    out.extend_from_slice(opening);
    write_str(out, index);
    out.extend_from_slice(b",\"_id\":");
    write_str(out, id);
}

const INDEX: &[u8] = b"{\"index\":{\"_index\":";
const CREATE: &[u8] = b"{\"create\":{\"_index\":";
const UPDATE: &[u8] = b"{\"update\":{\"_index\":";
const NS_PER_US: u64 = 1_000;
const NS_PER_MS: u64 = 1_000_000;

/// Requests that are being written.
struct Bulks {
    bytes_max: usize,
    done: Vec<Bulk>,
    open: Bulk,
}

impl Bulks {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, done: Vec::new(), open: Bulk::default() }
    }

    fn add(&mut self, what: What, action: Action, write: impl FnOnce(&mut Vec<u8>)) {
        self.with(|bulk| bulk.add(what, action, write));
    }

    /// Adds one line. If the request becomes too large by it, it begins the next one.
    fn with(&mut self, add: impl FnOnce(&mut Bulk)) {
        let at = self.open.body.len();
        add(&mut self.open);
        if self.bytes_max < self.open.body.len() && 0 < at {
            let body = self.open.body.split_off(at);
            let last = self.open.lines.pop().map(|line| Line { at: 0, ..line });
            let next = Bulk { body, lines: last.into_iter().collect() };
            self.done.push(std::mem::replace(&mut self.open, next));
        }
    }

    fn done(mut self) -> Vec<Bulk> {
        if !self.open.lines.is_empty() {
            self.done.push(self.open);
        }
        self.done
    }
}

impl Bulk {
    /// Adds a change to a document that somebody else has sent.
    pub(super) fn add_late(&mut self, trace: TraceId, kin: &Kin, known: &document::Known) {
        self.add(What::Late { trace }, Action::Update, |out| {
            write_action(out, UPDATE, &kin.index, &kin.id);
            write_late(out, known);
        });
    }

    fn add(&mut self, what: What, action: Action, write: impl FnOnce(&mut Vec<u8>)) {
        self.lines.push(Line { what, action, at: self.body.len() });
        write(&mut self.body);
    }

    /// Places of the items whose documents it has.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.lines.iter().filter_map(|line| match line.what {
            What::Span { place, .. } => Some(place),
            _ => None,
        })
    }

    /// The name of the index that a line names.
    pub(super) fn index_of(&self, what: What) -> Option<String> {
        let line = self.lines.iter().find(|line| line.what == what)?;
        let action = self.body.get(line.at..)?.split(|&byte| byte == b'\n').next()?;
        let action: serde_json::Value = serde_json::from_slice(action).ok()?;
        let (_, metadata) = action.as_object()?.iter().next()?;
        Some(metadata.get("_index")?.as_str()?.to_owned())
    }

    /// Whether it has both documents of spans and other lines.
    pub(super) fn is_mixed(&self) -> bool {
        let is_span = |line: &Line| matches!(line.what, What::Span { .. });
        self.lines.iter().any(is_span) && !self.lines.iter().all(is_span)
    }

    /// The documents of spans, and the rest, each as a request of its own.
    pub(super) fn split(mut self) -> [Self; 2] {
        let is_rest = |line: &Line| !matches!(line.what, What::Span { .. });
        let first = self.lines.iter().position(is_rest).unwrap_or(self.lines.len());
        let mut lines = self.lines.split_off(first);
        let at = lines.first().map_or(self.body.len(), |line| line.at);
        let body = self.body.split_off(at);
        for line in &mut lines {
            line.at -= at;
        }
        [self, Self { body, lines }]
    }
}
