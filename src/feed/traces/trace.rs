//! What is remembered of one trace. Pure. All of it is copied: a slice would keep the whole request in memory.

use std::sync::Arc;

use bytes::Bytes;

use super::contents::Contents;
use super::sent::{Amendments, Sent, Told};
use super::tree::Tree;
use crate::journal::Position;
use crate::normalize::trace_facts;
use crate::span::{
    Facts, Payload, RootSpan, Span, SpanId, Text, TraceContext, TraceObject, Traced,
};

/// The longest name, id or label that is remembered. A longer one is left out, since half an id is another one.
const TEXT_BYTES_MAX: usize = 1 << 10;
/// Labels of a trace that are remembered. Further ones are left out.
const TAGS_MAX: usize = 64;
/// The most metadata of a trace object that is remembered. A larger one is left out from the entry that does not fit.
const METADATA_BYTES_MAX: usize = 8 << 10;
/// How much of the first input and the last output is remembered. What is longer is cut off there and is plain text then.
pub(super) const PAYLOAD_BYTES_MAX: usize = 4 << 10;

/// One trace.
#[derive(Debug, Default)]
pub(super) struct Trace {
    object: Option<Arc<TraceObject>>,
    /// What the trace object said of itself.
    of_object: Words,
    /// What the spans said first.
    of_spans: Words,
    tags: Vec<Text>,
    metadata: Vec<(Text, Payload)>,
    /// How many of them were known when a span without a parent or the trace object said so last.
    tags_of_tops: usize,
    tree: Tree,
    sent: Sent,
    spans: u64,
    errors: u64,
    start_ns: u64,
    end_ns: u64,
    contents: Contents,
    /// The root that stands for the trace, where it needs one.
    root: Option<SpanId>,
    /// The first native span without a parent.
    first: Option<SpanId>,
    /// Bytes of what was copied, the tree aside.
    copied_bytes: usize,
}

/// What is said of a trace in single words.
#[derive(Debug, Default)]
struct Words {
    workflow: Option<Text>,
    session: Option<Text>,
    user: Option<Text>,
    environment: Option<Text>,
    release: Option<Text>,
}

impl Trace {
    /// Whether the trace object was seen.
    pub(super) fn has_object(&self) -> bool {
        self.object.is_some()
    }

    /// Adds a span. One that was seen before is not counted again.
    /// Where it stands in the journal is said where it may have to be sent again.
    pub(super) fn add_span(&mut self, span: &Span, traced: Traced, at: Option<(Position, usize)>) {
        if let Some(object) = &span.trace {
            self.add_object(object);
        }
        let nothing = Facts::default();
        let is_read = traced.reads(span) || self.tree.is_above_a_call(span.span_id);
        let facts = if is_read { span.facts() } else { &nothing };
        let news = self.tree.add(span, facts);
        self.spans += u64::from(news.is_new);
        self.errors += u64::from(news.has_failed);
        if span.start_ns != 0 && (self.start_ns == 0 || span.start_ns < self.start_ns) {
            self.start_ns = span.start_ns;
        }
        self.end_ns = self.end_ns.max(span.end_ns);
        self.copied_bytes += self.of_spans.fill(facts);
        self.add_tags(&facts.tags, span.parent_id.is_none());
        match at {
            Some(at) => self.sent.read(span, facts, at),
            None => self.tree.forget_doubts(),
        }
        if news.is_new && self.contents.has(span.span_id) {
            self.contents.move_up(span.span_id, self.tree.top_of(span));
        }
        if facts.kind.counts_usage() {
            self.contents.add(self.tree.top_of(span), span, facts);
        }
    }

    /// Takes note of a native span without a parent: whether the trace needs a root that stands for it, and which. By the rule a
    /// task of the Agents SDK is a root by itself, but not beside another, since backends list every root as a trace of its own.
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
        if by_rule.is_none() && self.root.is_none() && !has_root && first == span.span_id {
            return None;
        }
        Some(*self.root.insert(root))
    }

    /// Adds the trace object. The first one counts.
    pub(super) fn add_object(&mut self, object: &TraceObject) {
        if self.object.is_some() {
            return;
        }
        let facts = trace_facts(object);
        self.copied_bytes += self.of_object.fill(&facts);
        self.add_tags(&facts.tags, true);
        let mut room = METADATA_BYTES_MAX;
        for (name, value) in &facts.metadata {
            let Some(left) = room.checked_sub(name.len() + value.as_str().len()) else { break };
            room = left;
            self.metadata.push((Text::from(&**name), cut(value, METADATA_BYTES_MAX)));
        }
        let whole = object.metadata.as_ref().filter(|json| json.len() <= METADATA_BYTES_MAX);
        let copy = TraceObject {
            trace_id: object.trace_id,
            native_id: copied(&object.native_id).unwrap_or_default(),
            workflow: self.of_object.workflow.clone(),
            group: object.group.as_ref().and_then(copied),
            metadata: whole.map(|json| Text::from(&**json)),
            wire: Bytes::new(),
        };
        self.copied_bytes += size_of::<TraceObject>()
            + copy.native_id.len()
            + copy.metadata.as_ref().map_or(0, |json| json.len())
            + (METADATA_BYTES_MAX - room)
            + self.metadata.capacity() * size_of::<(Text, Payload)>();
        self.object = Some(Arc::new(copy));
    }

    /// What is known now, with the agents of these spans.
    pub(super) fn context(&self, spans: &[&Span]) -> TraceContext {
        let (object, said) = (&self.of_object, &self.of_spans);
        let first =
            |one: &Option<Text>, other: &Option<Text>| one.clone().or_else(|| other.clone());
        TraceContext {
            trace: self.object.clone(),
            workflow: first(&object.workflow, &said.workflow),
            session: first(&object.session, &said.session),
            user: first(&object.user, &said.user),
            environment: first(&object.environment, &said.environment),
            release: first(&object.release, &said.release),
            tags: self.tags.clone(),
            metadata: self.metadata.clone(),
            agents: self.tree.agents_of(spans.iter().copied()),
            exceptions: self.tree.exceptions(spans.iter().map(|span| span.span_id)),
            spans: self.spans,
            errors: self.errors,
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            root: self.root,
            contents: spans
                .iter()
                .filter_map(|span| Some((span.span_id, self.contents.of(span.span_id)?)))
                .collect(),
        }
    }

    /// The same for the root that stands for the trace.
    pub(super) fn context_of_root(&self, root: SpanId) -> TraceContext {
        let contents = [(root, self.contents.of_all())].into();
        TraceContext { contents, ..self.context(&[]) }
    }

    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.copied_bytes + self.tree.bytes() + self.sent.bytes() + self.contents.bytes()
    }

    fn add_tags(&mut self, tags: &[Text], are_of_a_top: bool) {
        let before = self.tags.len();
        for tag in tags {
            if self.tags.len() < TAGS_MAX
                && !self.tags.contains(tag)
                && let Some(copy) = copied(tag)
            {
                self.copied_bytes += size_of::<Text>() + copy.len();
                self.tags.push(copy);
            }
        }
        if are_of_a_top && before < self.tags.len() {
            self.tags_of_tops = self.tags.len();
        }
    }

    /// Takes note that these spans are handed to the sink with this context.
    pub(super) fn told(&mut self, spans: &[&Span], context: &TraceContext) {
        self.sent.told(spans.iter().map(|span| span.span_id), context);
    }

    /// Takes note that all spans were handed to the sink, with what is known now.
    pub(super) fn told_all(&mut self) {
        let ids = self.sent.ids();
        let exceptions = self.tree.exceptions(ids.iter().copied());
        self.sent.told(ids, &TraceContext { exceptions, ..self.context(&[]) });
        self.amend(&mut Amendments::new());
    }

    /// Adds the spans that were sent with what is wrong now.
    pub(super) fn amend(&mut self, amendments: &mut Amendments) {
        let known = Told {
            session: self.of_object.session.is_some() || self.of_spans.session.is_some(),
            user: self.of_object.user.is_some() || self.of_spans.user.is_some(),
            tags: self.tags_of_tops,
            root: self.root.is_some(),
        };
        let ids = self.sent.suspects(known, self.tree.take_doubts());
        let exceptions = self.tree.exceptions(ids.iter().copied());
        for id in ids {
            self.sent.amend(id, known, exceptions.contains(&id), amendments);
        }
    }
}

impl Words {
    /// Takes what is not known yet; returns how many bytes that were.
    fn fill(&mut self, facts: &Facts) -> usize {
        let pairs = [
            (&mut self.workflow, &facts.workflow),
            (&mut self.session, &facts.session),
            (&mut self.user, &facts.user),
            (&mut self.environment, &facts.environment),
            (&mut self.release, &facts.release),
        ];
        let mut bytes = 0;
        for (known, said) in pairs {
            if known.is_none() {
                *known = said.as_ref().and_then(copied);
                bytes += known.as_ref().map_or(0, |text| text.len());
            }
        }
        bytes
    }
}

/// A copy of a name, id or label; `None` for one that is too long to be one.
pub(super) fn copied(text: &Text) -> Option<Text> {
    (text.len() <= TEXT_BYTES_MAX).then(|| Text::from(&**text))
}

/// A copy of a payload up to a length.
pub(super) fn cut(payload: &Payload, bytes_max: usize) -> Payload {
    let text = payload.as_str();
    match payload {
        Payload::Json(_) if text.len() <= bytes_max => Payload::Json(Text::from(text)),
        _ => {
            let end = text.floor_char_boundary(bytes_max);
            Payload::Text(Text::from(text.get(..end).unwrap_or_default()))
        }
    }
}
