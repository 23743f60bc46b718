//! A delivery becomes bulk requests: a document for each span, and what each trace object says joined to the document of its trace.
//! Pure.

use std::sync::Arc;

use super::document::{self, Subject};
use super::names::{self, bounded, event_ns, write_index};
use super::options::{IdMode, Settings, TraceSummary};
use super::response::Action;
use super::server::{Flavor, Server};
use super::tree::{self, Above, Agent, Node, Place};
use crate::sinks::Delivery;
use crate::span::{Item, Kind, Source, Spends, TraceObject};
use crate::support::json::write_str;

pub(super) use super::document::Rung;

/// The body of one request, and what its lines are.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// Actions and documents, each with its line break.
    pub(super) body: Vec<u8>,
    pub(super) lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// What it is about: the place of an item in the delivery, or of a trace in a round.
    pub(super) place: usize,
    pub(super) action: Action,
    pub(super) at: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Encoder<'a> {
    pub(super) settings: &'a Settings,
    pub(super) server: Server,
    /// Bytes of a request; only a single larger document is sent alone.
    pub(super) request_bytes_max: usize,
    pub(super) doc_bytes_max: usize,
}

#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) bulks: Vec<Bulk>,
    /// Each item's trace.
    pub(super) traces: Vec<Arc<str>>,
}

impl Encoder<'_> {
    pub(super) fn has_summaries(&self) -> bool {
        self.settings.options.trace_summary != TraceSummary::Off && self.server.has_indices()
    }

    /// Whether documents can be changed once they are there.
    pub(super) fn has_patches(&self) -> bool {
        self.server.has_indices()
            && !self.settings.is_stream()
            && self.settings.options.id_mode == IdMode::Ids
    }

    /// Everything that a delivery sends of the items that `is_wanted` names.
    pub(super) fn delivery(
        &self,
        delivery: &Delivery,
        rung: Rung,
        is_wanted: impl Fn(usize) -> bool,
    ) -> Encoded {
        let root = self.settings.options.root_span;
        let items = delivery.items().map(|(batch, item)| {
            let span = item.as_span()?;
            Some(Subject::of(span, &batch.source, delivery.context(span.trace_id), root))
        });
        let subjects: Vec<Option<Subject<'_>>> = items.collect();
        let mut places = self.places(&subjects).into_iter();
        let mut bulks = Bulks::new(self.request_bytes_max);
        // About a quarter more than came: names, times, and what is written twice.
        bulks.open.body.reserve((delivery.bytes() / 4 * 5).min(self.request_bytes_max));
        let (mut traces, index) = (Vec::new(), self.settings.spans_index());
        for (at, (subject, (batch, item))) in subjects.iter().zip(delivery.items()).enumerate() {
            let place = if subject.is_some() { places.next() } else { None };
            if let Some((subject, place)) = subject.as_ref().zip(place) {
                add_trace(&mut traces, &subject.names.trace);
                if is_wanted(at) {
                    self.span(&mut bulks, at, (subject, &place), (rung, &index));
                }
            } else if let Item::Trace(object) = item {
                let name = names::searchable((&*object.sdk_id).into());
                add_trace(&mut traces, &name);
                if self.has_summaries() && is_wanted(at) {
                    self.object(&mut bulks, at, (object, &name), &batch.source);
                }
            }
        }
        Encoded { bulks: bulks.done(), traces }
    }

    /// What the spans of a delivery say of each other, and what the lane knows of them: one for each span.
    fn places<'a>(&self, subjects: &'a [Option<Subject<'_>>]) -> Vec<Place<'a>> {
        tree::places(subjects.iter().flatten().map(|subject| {
            let (span, facts) = (subject.span, subject.span.facts());
            let root = subject.context.and_then(|context| context.root);
            let above = match self.settings.options.root_span.parent_of(subject.context, span) {
                None => Above::Nothing,
                Some(parent) if root == Some(parent) => Above::Root,
                Some(parent) => Above::Span((span.trace_id, parent)),
            };
            let is_agent = facts.kind == Kind::Agent;
            let own = facts.agent.as_deref();
            let told = || subject.context?.agents.get(&span.span_id).map(|name| &**name);
            let agent = own.or_else(told).map(|name| Agent {
                name,
                span: (is_agent && own.is_some()).then_some(&*subject.names.span),
            });
            let (start_us, spends) = (span.start_ns / names::NS_PER_US, Spends::of(facts));
            let node = Node { agent, start_us, spends, ..Node::default() };
            ((span.trace_id, span.span_id), above, node)
        }))
    }

    fn span(
        &self,
        bulks: &mut Bulks,
        at: usize,
        (subject, place): (&Subject<'_>, &Place<'_>),
        (rung, index): (Rung, &str),
    ) {
        let settings = self.settings;
        let is_quickwit = self.server.flavor == Flavor::Quickwit;
        let is_created = settings.is_stream() || is_quickwit;
        let action = if is_created { Action::Create } else { Action::Index };
        bulks.add(at, action, |out| {
            out.extend_from_slice(action.opening());
            let event_ns = event_ns(subject.span, subject.source);
            write_index(out, index, settings.options.rotation, event_ns);
            let id = match settings.options.id_mode {
                _ if is_quickwit => None,
                IdMode::Auto => None,
                IdMode::ContentHash => {
                    let content = [subject.names.trace.as_bytes(), b"\n", &subject.span.wire];
                    Some(crate::support::sha256::hex(&content.concat()).into())
                }
                IdMode::Ids => Some(subject.names.doc_id()),
            };
            if let Some(id) = id {
                out.extend_from_slice(b",\"_id\":");
                write_str(out, &id);
            }
            out.extend_from_slice(b"}}\n");
            document::write(out, (subject, place), settings, rung, self.doc_bytes_max);
            out.push(b'\n');
        });
    }

    /// What a trace object says stands in no document of a span: it is joined to the document of its trace, and makes one where
    /// there is none yet.
    fn object(
        &self,
        bulks: &mut Bulks,
        place: usize,
        (object, name): (&TraceObject, &str),
        source: &Source,
    ) {
        bulks.add(place, Action::Update, |out| {
            write_action(out, Action::Update, &self.settings.traces_index(), &bounded(name));
            out.extend_from_slice(b",\"retry_on_conflict\":3}}\n");
            super::summary::write_object(out, object, name, source.received_at_ns);
            out.push(b'\n');
        });
    }
}

/// Items of one trace stand together for the most part, and share its name.
fn add_trace(traces: &mut Vec<Arc<str>>, name: &str) {
    let last = traces.last().filter(|last| ***last == *name).cloned();
    traces.push(last.unwrap_or_else(|| name.into()));
}

pub(super) fn write_action(out: &mut Vec<u8>, action: Action, index: &str, id: &str) {
    out.extend_from_slice(action.opening());
    write_str(out, index);
    out.extend_from_slice(b",\"_id\":");
    write_str(out, id);
}

pub(super) struct Bulks {
    bytes_max: usize,
    done: Vec<Bulk>,
    open: Bulk,
}

impl Bulks {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, done: Vec::new(), open: Bulk::default() }
    }

    /// Adds one line. If the request becomes too large by it, it begins the next one.
    pub(super) fn add(&mut self, place: usize, action: Action, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.open.body.len();
        write(&mut self.open.body);
        let mut line = Line { place, action, at };
        if self.bytes_max < self.open.body.len() && 0 < at {
            let body = self.open.body.split_off(at);
            self.done.push(std::mem::replace(&mut self.open, Bulk { body, lines: Vec::new() }));
            line.at = 0;
        }
        self.open.lines.push(line);
    }

    pub(super) fn done(mut self) -> Vec<Bulk> {
        if !self.open.lines.is_empty() {
            self.done.push(self.open);
        }
        self.done
    }
}

impl Bulk {
    pub(super) fn index_of(&self, line: &Line) -> Option<String> {
        let action = self.body.get(line.at..)?.split(|&byte| byte == b'\n').next()?;
        let action: serde_json::Value = serde_json::from_slice(action).ok()?;
        let (_, metadata) = action.as_object()?.iter().next()?;
        Some(metadata.get("_index")?.as_str()?.to_owned())
    }
}
