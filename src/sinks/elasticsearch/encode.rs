//! A delivery becomes bulk requests: a document for each span, and what each trace object says joined to the document of its trace.
//! Pure.

use std::collections::HashMap;

use super::document::{self, Known, Subject};
use super::item::ItemMembers;
use super::names::{self, Names, bounded, event_ns, write_index};
use super::options::{IdMode, Rotation, Settings, TraceSummary};
use super::response::Action;
use super::server::{Flavor, Server};
use super::tree::{self, Above, Agent, Node};
use crate::sinks::Delivery;
use crate::span::{Item, Kind, Source, Span, Spends, TraceContext, TraceObject};
use crate::support::json::write_str;

pub(super) use super::document::Rung;

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
    /// What it is about: the place of an item in the delivery, or of a trace in a round.
    pub(super) place: usize,
    /// How it is sent.
    pub(super) action: Action,
    /// Where it begins in the body.
    pub(super) at: usize,
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

/// What a delivery is sent as.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) bulks: Vec<Bulk>,
    /// The traces it is about.
    pub(super) traces: Vec<Box<str>>,
    /// Each item's trace, by its place there.
    pub(super) trace_of: Vec<usize>,
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
        self.settings.options.trace_summary != TraceSummary::Off && self.server.has_indices()
    }

    /// Whether documents can be changed once they are there.
    pub(super) fn has_patches(&self) -> bool {
        self.server.has_indices()
            && self.settings.options.rotation != Rotation::DataStream
            && self.settings.options.id_mode == IdMode::Ids
    }

    /// Everything that a delivery sends of the items that `is_wanted` names.
    pub(super) fn delivery(
        &self,
        delivery: &Delivery,
        rung: Rung,
        is_wanted: impl Fn(usize) -> bool,
    ) -> Encoded {
        let views: Vec<Option<View<'_>>> = delivery
            .items()
            .map(|(batch, item)| self.view(delivery, &batch.source, item))
            .collect();
        let known = self.known(&views);
        let mut bulks = Bulks::new(self.request_bytes_max);
        // About a quarter more than came: names, times, and what is written twice.
        bulks.open.body.reserve((delivery.bytes() / 4 * 5).min(self.request_bytes_max));
        let (mut traces, index) = (Traces::default(), self.settings.spans_index());
        for (place, (view, (batch, item))) in views.iter().zip(delivery.items()).enumerate() {
            match (view, item) {
                (Some(view), _) => {
                    traces.add(&view.names.trace);
                    if let Some(known) = known.get(place).filter(|_| is_wanted(place)) {
                        self.span(&mut bulks, place, view, known, (rung, &index));
                    }
                }
                (None, Item::Trace(object)) => {
                    let name = names::searchable((&*object.native_id).into());
                    traces.add(&name);
                    if self.has_summaries() && is_wanted(place) {
                        self.object(&mut bulks, place, (object, &name), &batch.source);
                    }
                }
                (None, Item::Span(_)) => {}
            }
        }
        Encoded { bulks: bulks.done(), traces: traces.names, trace_of: traces.of_items }
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
        let names = Names::of(span, &item.own, context, self.settings.options.root_span);
        Some(View { span, source, context, item, names })
    }

    /// What the spans of a delivery say of each other, and what the lane knows of them.
    fn known<'a>(&self, views: &'a [Option<View<'_>>]) -> Vec<Known<'a>> {
        let spans = views.iter().flatten().map(|view| {
            let (span, facts) = (view.span, view.span.facts());
            let root = view.context.and_then(|context| context.root);
            let above = match self.settings.options.root_span.parent_of(view.context, span) {
                None => Above::Nothing,
                Some(parent) if root == Some(parent) => Above::Root,
                Some(parent) => Above::Span((span.trace_id, parent)),
            };
            let is_agent = facts.kind == Kind::Agent;
            let own = facts.agent.as_deref();
            let told = || view.context?.agents.get(&span.span_id).map(|name| &**name);
            let agent = own.or_else(told).map(|name| Agent {
                name,
                span: (is_agent && own.is_some()).then_some(&*view.names.span),
            });
            let node = Node {
                agent,
                start_us: span.start_ns / NS_PER_US,
                spends: Spends::of(facts),
                ..Node::default()
            };
            ((span.trace_id, span.span_id), above, node)
        });
        let mut places = tree::places(spans).into_iter();
        let known = |view: &Option<View<'_>>| {
            view.as_ref().and_then(|_| places.next()).map_or_else(Known::default, |place| Known {
                agent: place.agent,
                depth: place.depth,
            })
        };
        views.iter().map(known).collect()
    }

    fn span(
        &self,
        bulks: &mut Bulks,
        place: usize,
        view: &View<'_>,
        known: &Known<'_>,
        (rung, index): (Rung, &str),
    ) {
        let subject = Subject {
            span: view.span,
            source: view.source,
            context: view.context,
            item: &view.item,
            names: &view.names,
            known,
            settings: self.settings,
        };
        let settings = self.settings;
        let is_quickwit = self.server.flavor == Flavor::Quickwit;
        let is_created = settings.options.rotation == Rotation::DataStream || is_quickwit;
        let action = if is_created { Action::Create } else { Action::Index };
        bulks.add(place, action, |out| {
            out.extend_from_slice(action.opening());
            let event_ns = event_ns(view.span, view.source);
            write_index(out, index, settings.options.rotation, event_ns);
            let id = match settings.options.id_mode {
                _ if is_quickwit => None,
                IdMode::Auto => None,
                IdMode::ContentHash => Some(names::sha256_hex(&hashed(view)).into()),
                IdMode::Ids => Some(view.names.doc_id()),
            };
            if let Some(id) = id {
                out.extend_from_slice(b",\"_id\":");
                write_str(out, &id);
            }
            out.extend_from_slice(b"}}\n");
            document::write(out, subject, rung, self.doc_bytes_max);
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

/// Distinct traces, and whose each item is.
#[derive(Default)]
struct Traces {
    names: Vec<Box<str>>,
    of_items: Vec<usize>,
    by_name: HashMap<Box<str>, usize>,
}

impl Traces {
    fn add(&mut self, name: &str) {
        let last = self.of_items.last().copied();
        let known = last.filter(|last| self.names.get(*last).is_some_and(|known| **known == *name));
        let place = known.or_else(|| self.by_name.get(name).copied()).unwrap_or_else(|| {
            self.names.push(name.into());
            self.by_name.insert(name.into(), self.names.len() - 1);
            self.names.len() - 1
        });
        self.of_items.push(place);
    }
}

/// What a document's name is made of where its content names it.
fn hashed(view: &View<'_>) -> Vec<u8> {
    [view.names.trace.as_bytes(), b"\n", &view.span.wire].concat()
}

/// Appends the beginning of an action.
pub(super) fn write_action(out: &mut Vec<u8>, action: Action, index: &str, id: &str) {
    out.extend_from_slice(action.opening());
    write_str(out, index);
    out.extend_from_slice(b",\"_id\":");
    write_str(out, id);
}

const NS_PER_US: u64 = 1_000;

/// Requests that are being written.
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
    /// The name of the index that a line names.
    pub(super) fn index_of(&self, line: &Line) -> Option<String> {
        let action = self.body.get(line.at..)?.split(|&byte| byte == b'\n').next()?;
        let action: serde_json::Value = serde_json::from_slice(action).ok()?;
        let (_, metadata) = action.as_object()?.iter().next()?;
        Some(metadata.get("_index")?.as_str()?.to_owned())
    }
}
