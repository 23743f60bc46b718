//! The state of one trace. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::agents::{Agents, SpanTree};
use super::bounds::{METADATA_BYTES_MAX, TAGS_MAX, copied, cut};
use super::contents::Contents;
use super::sent::{Amendments, Sent, SentFacts};
use crate::journal::Position;
use crate::normalize::trace_facts;
use crate::span::{
    AncestorCache, Facts, Own, Payload, RootSpan, Span, SpanId, Spending, Spent, Text,
    TraceContext, TraceNeeds, TraceObject,
};

/// One trace.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The context that all of its spans share; the other fields are empty.
    known: TraceContext,
    /// Number of known labels when a span without a parent or the trace object last added some.
    tags_of_tops: usize,
    tree: SpanTree,
    agents: Agents,
    sent: Sent,
    contents: Contents,
    /// Whether an OTLP span without a parent was seen.
    has_root: bool,
    /// The first Agents SDK span without a parent.
    first: Option<SpanId>,
    /// Bytes of copied texts, without the tree.
    copied_bytes: usize,
}

impl Trace {
    /// Returns whether the trace object was seen.
    pub(super) fn has_object(&self) -> bool {
        self.known.trace.is_some()
    }

    /// Adds a span. A span that was seen before is not counted again. `at` is its place in the journal, if it may have to be sent again.
    pub(super) fn add_span(
        &mut self,
        span: &Span,
        needs: &TraceNeeds,
        at: Option<(Position, usize)>,
    ) {
        if let Some(object) = &span.trace {
            self.add_object(object);
        }
        let facts = if needs.traced.reads(span) { span.facts() } else { Facts::none() };
        let is_asked = needs.traced.follows(span) || self.tree.is_above_a_call(span.span_id);
        let spending = if is_asked { span.spending() } else { Spending::default() };
        let agent = facts.agent.as_ref().filter(|_| needs.agents);
        let own = self.agents.own(span, spending, agent);
        let is_estimated = needs.estimates && span.is_otlp() && own.is_call;
        let own = Own { is_estimated, ..own };
        let news = self.tree.add(span.span_id, own);
        let known = &mut self.known;
        if span.start_ns != 0 && (known.start_ns == 0 || span.start_ns < known.start_ns) {
            known.start_ns = span.start_ns;
        }
        known.end_ns = known.end_ns.max(span.end_ns);
        let is_root = span.is_otlp() && span.parent_id.is_none();
        self.learn(facts, is_root && !self.has_root);
        self.has_root |= is_root;
        self.add_tags(&facts.tags, span.parent_id.is_none());
        match at {
            Some(at) => self.sent.read(span, facts, at),
            None => self.tree.forget_doubts(),
        }
        if news.is_new && self.contents.has(span.span_id) {
            self.contents.move_up(span.span_id, self.top_of(span));
        }
        if facts.kind.counts_usage() && needs.wants_contents_of(span) {
            self.contents.add(self.top_of(span), span, facts);
        }
    }

    /// Registers an Agents SDK span without a parent; returns the trace's synthetic root, if it needs one. By the rule, an Agents SDK task
    /// is itself a root, but not next to another one, because backends list every root as a separate trace.
    pub(super) fn note_top(
        &mut self,
        span: &Span,
        rule: RootSpan,
        has_root: bool,
    ) -> Option<SpanId> {
        let by_rule = span.synthetic_root(rule);
        if by_rule.is_none() && rule != RootSpan::Auto {
            return None;
        }
        let root = by_rule.or_else(|| span.synthetic_root(RootSpan::Always))?;
        let first = *self.first.get_or_insert(span.span_id);
        if by_rule.is_none() && self.known.root.is_none() && !has_root && first == span.span_id {
            return None;
        }
        Some(*self.known.root.insert(root))
    }

    /// Adds the trace object. Only the first one counts.
    pub(super) fn add_object(&mut self, object: &TraceObject) {
        if self.has_object() {
            return;
        }
        let facts = trace_facts(object);
        self.learn(&facts, true);
        self.add_tags(&facts.tags, true);
        let mut room = METADATA_BYTES_MAX;
        for (name, value) in &facts.metadata {
            let Some(left) = room.checked_sub(name.len() + value.as_str().len()) else { break };
            room = left;
            self.known.metadata.push((Text::from(&**name), cut(value, METADATA_BYTES_MAX)));
        }
        let whole = object.metadata.as_ref().filter(|json| json.len() <= METADATA_BYTES_MAX);
        let copy = TraceObject {
            trace_id: object.trace_id,
            sdk_id: copied(&object.sdk_id).unwrap_or_default(),
            workflow: facts.workflow.as_ref().and_then(copied),
            group: object.group.as_ref().and_then(copied),
            metadata: whole.map(|json| Text::from(&**json)),
            wire: Bytes::new(),
        };
        self.copied_bytes += size_of::<TraceObject>()
            + copy.sdk_id.len()
            + copy.metadata.as_ref().map_or(0, |json| json.len())
            + (METADATA_BYTES_MAX - room)
            + self.known.metadata.capacity() * size_of::<(Text, Payload)>();
        self.known.trace = Some(Arc::new(copy));
    }

    /// Returns the current context, with the parts that these spans need.
    pub(super) fn context(&self, spans: &[&Span]) -> TraceContext {
        let contents = |span: &&Span| Some((span.span_id, self.contents.of(span.span_id)?));
        TraceContext {
            agents: self.agents_of(spans),
            exceptions: self.exceptions(spans.iter().map(|span| span.span_id)),
            contents: spans.iter().filter_map(contents).collect(),
            ..self.known.clone()
        }
    }

    /// Returns those of these spans that belong in [`TraceContext::exceptions`].
    fn exceptions(&self, ids: impl IntoIterator<Item = SpanId>) -> HashSet<SpanId> {
        let mut memo = Spent::default();
        ids.into_iter().filter(|id| self.tree.is_exception(*id, &mut memo)).collect()
    }

    /// Returns the nearest agent at or above each of these spans, if there is one.
    fn agents_of(&self, spans: &[&Span]) -> HashMap<SpanId, Text> {
        if self.agents.is_empty() {
            return HashMap::new();
        }
        let mut memo = AncestorCache::default();
        let name = |span: &&Span| {
            let place = self.tree.agent_at(self.known_at(span)?, &mut memo)?;
            Some((span.span_id, self.agents.name(place)?.clone()))
        };
        spans.iter().filter_map(name).collect()
    }

    /// Returns the topmost known id at or above a span: its own, or that of the first ancestor that was not seen or has no parent.
    fn top_of(&self, span: &Span) -> SpanId {
        let from = self.known_at(span).unwrap_or(span.span_id);
        self.tree.path(from).last().unwrap_or(from)
    }

    /// Returns the span's node in the tree, or its parent's if there was no space for it.
    fn known_at(&self, span: &Span) -> Option<SpanId> {
        if self.tree.knows(span.span_id) { Some(span.span_id) } else { span.parent_id }
    }

    /// Returns the context of the trace's synthetic root.
    pub(super) fn context_of_root(&self, root: SpanId) -> TraceContext {
        let contents = [(root, self.contents.of_all())].into();
        TraceContext { contents, ..self.context(&[]) }
    }

    /// Returns its memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let tree_bytes = self.tree.bytes() + self.agents.bytes();
        self.copied_bytes + tree_bytes + self.sent.bytes() + self.contents.bytes()
    }

    fn add_tags(&mut self, tags: &[Text], are_of_a_top: bool) {
        let known = &mut self.known.tags;
        let before = known.len();
        for tag in tags {
            if known.len() < TAGS_MAX
                && !known.contains(tag)
                && let Some(copy) = copied(tag)
            {
                self.copied_bytes += size_of::<Text>() + copy.len();
                known.push(copy);
            }
        }
        if are_of_a_top && before < known.len() {
            self.tags_of_tops = known.len();
        }
    }

    /// Notes that these spans are sent with this context.
    pub(super) fn told(&mut self, spans: &[&Span], context: &TraceContext) {
        self.sent.told(spans.iter().map(|span| span.span_id), context);
    }

    /// Notes that all spans were sent with the current context.
    pub(super) fn told_all(&mut self) {
        let ids = self.sent.ids();
        let exceptions = self.exceptions(ids.iter().copied());
        self.sent.told(ids, &TraceContext { exceptions, ..self.context(&[]) });
        self.amend(&mut Amendments::new());
    }

    /// Adds the spans that were sent with a context that is now wrong.
    pub(super) fn amend(&mut self, amendments: &mut Amendments) {
        let known = SentFacts { tags: self.tags_of_tops, ..SentFacts::of(&self.known) };
        let ids = self.sent.suspects(known, self.tree.take_doubts());
        let exceptions = self.exceptions(ids.iter().copied());
        for id in ids {
            self.sent.amend(id, known, exceptions.contains(&id), amendments);
        }
    }

    /// Learns workflow, session and so on. The first value counts, but trace object and first root take precedence: agents below may
    /// differ.
    fn learn(&mut self, said: &Facts, is_of_trace: bool) {
        let known = &mut self.known;
        let pairs = [
            (&mut known.workflow, &said.workflow),
            (&mut known.session, &said.session),
            (&mut known.user, &said.user),
            (&mut known.environment, &said.environment),
            (&mut known.release, &said.release),
        ];
        for (known, said) in pairs {
            if (is_of_trace || known.is_none())
                && let Some(copy) = said.as_ref().and_then(copied)
            {
                self.copied_bytes += copy.len();
                let before = known.replace(copy);
                self.copied_bytes -= before.map_or(0, |before| before.len());
            }
        }
    }
}
