//! Encodes a delivery as bulk requests: a document for each span, and an update of its trace's document for each trace object. Pure.

use std::borrow::Cow;
use std::mem;

use bytes::Bytes;

use super::document::{self, Subject};
use super::fields::Field::{Nothing, Number, Words};
use super::fields::{words, write_fields};
use super::names::{self, NS_PER_MS, NS_PER_US, bounded, event_ns, index_at};
use super::options::{IdMode, Settings, TraceSummary};
use super::queries::Seq;
use super::response::Action;
use super::server::{Flavor, Server};
use super::summary;
use super::tree::{self, Agent, Node, Place};
use crate::sinks::Delivery;
use crate::span::{Item, Kind, Own, TraceObject};
use crate::support::sha256;

pub(super) use super::document::Degradation;

/// The body of one request, with its lines.
#[derive(Debug)]
pub struct Bulk {
    /// Actions and documents, each with its line break.
    pub body: Bytes,
    pub(super) lines: Vec<Line>,
}

#[derive(Debug)]
pub(super) struct Line {
    /// The index of the item in the delivery, or of the line in a round.
    pub(super) place: usize,
    pub(super) action: Action,
    pub(super) index: String,
    /// The trace whose summary is stale once the document is stored; when its item was received, in milliseconds since 1970; and whether
    /// the summary counts it.
    pub(super) stale: Option<(String, u64, bool)>,
}

/// Encodes deliveries for a server.
#[derive(Debug)]
pub struct Encoder<'a> {
    pub(super) settings: &'a Settings,
    pub(super) server: Server,
    pub(super) degradation: Degradation,
    /// The most bytes of a request; only a single larger document exceeds it.
    pub(super) request_bytes_max: usize,
    pub(super) doc_bytes_max: usize,
}

impl<'s> Encoder<'s> {
    /// Creates an encoder of full documents. One must fit a request as well, with its action line.
    pub fn new(settings: &'s Settings, server: Server, request_bytes_max: usize) -> Self {
        let doc_bytes_max = settings.options.doc_bytes_max.as_usize();
        Self {
            settings,
            server,
            degradation: Degradation::Full,
            request_bytes_max,
            doc_bytes_max: doc_bytes_max.min(request_bytes_max / 10 * 9),
        }
    }

    pub(super) fn has_summaries(&self) -> bool {
        self.settings.options.trace_summary != TraceSummary::Off && self.server.has_indices()
    }

    /// Returns whether existing documents can be changed.
    pub(super) fn has_patches(&self) -> bool {
        self.server.has_indices() && self.settings.replaces_by_id()
    }

    /// Encodes those items of a delivery for which `is_wanted` returns true.
    pub fn delivery(&self, delivery: &Delivery, is_wanted: impl Fn(usize) -> bool) -> Vec<Bulk> {
        let root = self.settings.options.root_span;
        let subjects = delivery.items().filter_map(|(batch, item)| {
            let span = item.as_span()?;
            Some(Subject::of(span, &batch.source, delivery.context(span.trace_id), root))
        });
        let subjects: Vec<Subject<'_>> = subjects.collect();
        let places = self.places(&subjects);
        let mut spans = subjects.iter().zip(&places);
        // The output is about a quarter larger: names, times, and data that is written twice.
        let bytes = (delivery.bytes() / 4 * 5).min(self.request_bytes_max);
        let mut bulks = Bulks::new(self.request_bytes_max, bytes);
        for (at, (batch, item)) in delivery.items().enumerate() {
            match item {
                Item::Span(_) => {
                    if let Some((subject, place)) = spans.next().filter(|_| is_wanted(at)) {
                        self.span(&mut bulks, at, subject, place);
                    }
                }
                Item::Trace(object) if is_wanted(at) && self.has_summaries() => {
                    self.object(&mut bulks, at, object, batch.source.received_at_ns);
                }
                Item::Trace(_) => {}
            }
        }
        bulks.done()
    }

    /// Returns for each span what the other spans of the delivery and the lane tell about it.
    fn places<'a>(&self, subjects: &'a [Subject<'_>]) -> Vec<Place<'a>> {
        tree::places(subjects.iter().map(|subject| {
            let (span, facts) = (subject.span, subject.span.facts());
            let root = subject.context.and_then(|context| context.root);
            let parent = self.settings.options.root_span.parent_of(subject.context, span);
            let is_top = parent.is_some() && parent == root;
            let own = facts.agent.as_deref();
            let told = || subject.context?.agents.get(&span.span_id).map(|name| &**name);
            let is_agent = facts.kind == Kind::Agent && own.is_some();
            let agent = own
                .or_else(told)
                .map(|name| Agent { name, span: is_agent.then_some(&*subject.names.span) });
            let (parent, spending) = (parent.filter(|_| !is_top), span.spending());
            let own = Own { parent, agent, ..Own::of(spending, &span.scope.name) };
            Node {
                trace: span.trace_id,
                id: span.span_id,
                own,
                depth: is_top.into(),
                start_us: span.start_ns / NS_PER_US,
            }
        }))
    }

    fn span(&self, bulks: &mut Bulks, at: usize, subject: &Subject<'_>, place: &Place<'_>) {
        let Settings { options, .. } = self.settings;
        let is_quickwit = self.server.flavor == Flavor::Quickwit;
        let is_created = self.settings.is_stream() || is_quickwit;
        let action = if is_created { Action::Create } else { Action::Index };
        let event_ns = event_ns(subject.span, subject.source);
        let index = index_at(&self.settings.indices[0], options.rotation, event_ns);
        let id = match options.id_mode {
            IdMode::ContentHash if !is_quickwit => {
                let content = [subject.names.trace.as_bytes(), b"\n", &subject.span.wire];
                Some(sha256::hex(&content.concat()).into())
            }
            IdMode::Ids if !is_quickwit => Some(subject.names.doc_id()),
            _ => None,
        };
        let received_ms = subject.source.received_at_ns / NS_PER_MS;
        let stale = (subject.names.trace.to_string(), received_ms, !subject.span.is_synthetic());
        let stale = self.has_summaries().then_some(stale);
        let line = Line { place: at, action, index: index.into_owned(), stale };
        bulks.add(line, id.as_deref(), None, |out| {
            let (degradation, bytes_max) = (self.degradation, self.doc_bytes_max);
            document::write(out, (subject, place), self.settings, degradation, bytes_max);
        });
    }

    /// Adds a trace object. No span's document contains its facts, so it updates the document of its trace, and creates it if there is none
    /// yet.
    fn object(&self, bulks: &mut Bulks, at: usize, object: &TraceObject, received_ns: u64) {
        let (index, name) =
            (self.settings.indices[1].clone(), names::searchable(Cow::Borrowed(&object.sdk_id)));
        let stale = Some((name.to_string(), received_ns / NS_PER_MS, false));
        let line = Line { place: at, action: Action::Update, index, stale };
        bulks.add(line, Some(&bounded(&name)), None, |out| {
            summary::write_object(out, object, &name, received_ns, self.settings);
        });
    }
}

fn write_action(out: &mut Vec<u8>, line: &Line, id: Option<&str>, seq: Option<Seq>) {
    let operation = match line.action {
        Action::Create => "create",
        Action::Index | Action::Conditional => "index",
        Action::Update => "update",
    };
    let joins = line.action == Action::Update && seq.is_none();
    out.push(b'{');
    let rows = [
        (operation, "_index", Words(&line.index)),
        (operation, "_id", words(id)),
        (operation, "if_seq_no", seq.map_or(Nothing, |(number, _)| Number(number))),
        (operation, "if_primary_term", seq.map_or(Nothing, |(_, term)| Number(term))),
        (operation, "retry_on_conflict", Number(3).unless(!joins)),
    ];
    write_fields(out, rows);
    out.extend_from_slice(b"}\n");
}

/// Requests that are being written.
pub(super) struct Bulks {
    bytes_max: usize,
    /// The number of lines.
    pub(super) count: usize,
    all: Vec<(Vec<u8>, Vec<Line>)>,
}

impl Bulks {
    /// Begins with room for this many bytes.
    pub(super) fn new(bytes_max: usize, bytes: usize) -> Self {
        Self { bytes_max, count: 0, all: vec![(Vec::with_capacity(bytes), Vec::new())] }
    }

    /// Adds an action on a document with an id, and the document, which `write` appends without the final line break. With a version, the
    /// action applies only if the document still has it. If the request becomes too large, they start the next one.
    pub(super) fn add(
        &mut self,
        line: Line,
        id: Option<&str>,
        seq: Option<Seq>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let (mut body, mut lines) = self.all.pop().unwrap_or_default();
        let at = body.len();
        write_action(&mut body, &line, id, seq);
        write(&mut body);
        body.push(b'\n');
        if self.bytes_max < body.len() && 0 < at {
            let next = body.split_off(at);
            self.all.push((mem::replace(&mut body, next), mem::take(&mut lines)));
        }
        lines.push(line);
        self.count += 1;
        self.all.push((body, lines));
    }

    pub(super) fn done(self) -> Vec<Bulk> {
        let bulk = |(body, lines): (Vec<u8>, _)| Bulk { body: body.into(), lines };
        self.all.into_iter().filter(|(_, lines)| !lines.is_empty()).map(bulk).collect()
    }
}
