//! Who stands above whom in one trace: the nearest agent of each span and how deep it lies, whatever the order of arrival. Pure.
//!
//! Spans are sent when they end, so children come before their parents. A span whose line to the root is not known yet waits at
//! the first gap in it; when the span that fills the gap comes, everything that waited there moves up to the next gap, or is done.
//! Each span is touched once for each of its ancestors that comes after it, never more.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Seen, Tokens};
use crate::span::{Kind, SpanId};

/// The spans of a trace.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// Each in a piece of its own: a table of them would be half empty most of the time, and be copied whenever it grows.
    nodes: HashMap<SpanId, Box<Node>>,
    /// Spans that wait for the one that is missing.
    gaps: HashMap<SpanId, Vec<SpanId>>,
    /// Spans whose documents lack something that is known now.
    unstamped: Vec<SpanId>,
    /// Names that many spans share.
    names: Vec<Arc<str>>,
}

/// A span.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// The client's own id.
    pub(super) native: Option<Box<str>>,
    pub(super) parent: Option<SpanId>,
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    pub(super) event_ns: u64,
    pub(super) kind: Kind,
    pub(super) is_error: bool,
    pub(super) is_synthetic: bool,
    pub(super) usage: Tokens,
    pub(super) tool: Option<Arc<str>>,
    pub(super) model: Option<Arc<str>>,
    /// The nearest agent at or above it.
    pub(super) agent: Option<Arc<str>>,
    /// That agent's span.
    pub(super) agent_span: Option<SpanId>,
    /// Spans above it, where all of them are known.
    pub(super) depth: Option<u16>,
    /// The first that is missing above it, and how many steps up that is.
    gap: Option<(SpanId, u16)>,
    /// Whether its document was sent with all that was known of it.
    is_stamped: bool,
}

/// What spans take here is most of the sink's memory.
const _: () = assert!(size_of::<Node>() <= 168);

/// Names that are shared; further ones are kept with their spans.
const SHARED_NAMES_MAX: usize = 64;

impl Lineage {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Spans that a summary counts.
    pub(super) fn counted(&self) -> u64 {
        self.nodes.values().filter(|node| !node.is_synthetic).count() as u64
    }

    pub(super) fn get(&self, span: SpanId) -> Option<&Node> {
        self.nodes.get(&span).map(|node| &**node)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (SpanId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, &**node))
    }

    /// Adds a span, or what is new about one that came before. Returns whether anything is.
    pub(super) fn join(&mut self, seen: &Seen<'_>) -> bool {
        let mut node = self.node_of(seen);
        if let Some(known) = self.nodes.get_mut(&seen.span) {
            // Its place stays: a parent that changes would move all below it, and no client does that.
            node.parent = known.parent;
            node.depth = known.depth;
            node.gap = known.gap;
            node.is_stamped = known.is_stamped;
            if node.agent.is_none() || (node.agent_span.is_none() && known.agent_span.is_some()) {
                node.agent.clone_from(&known.agent);
                node.agent_span = known.agent_span;
            }
            let is_new = **known != node;
            **known = node;
            return is_new;
        }
        // Whoever waited for this span is taken first: it may itself have to wait for one of them, in a circle.
        let waiting = self.gaps.remove(&seen.span).unwrap_or_default();
        self.place(seen.span, &mut node);
        self.nodes.insert(seen.span, Box::new(node));
        self.move_up(seen.span, &waiting);
        true
    }

    /// Says that a span's document has everything that is known.
    pub(super) fn stamp(&mut self, span: SpanId) {
        if let Some(node) = self.nodes.get_mut(&span) {
            node.is_stamped = true;
        }
    }

    /// Says that a span's document lacks something.
    pub(super) fn unstamp(&mut self, span: SpanId) {
        if self.nodes.contains_key(&span) {
            self.unstamped.push(span);
        }
    }

    /// Spans whose documents lack something; each once.
    pub(super) fn take_unstamped(&mut self) -> Vec<SpanId> {
        let mut spans = std::mem::take(&mut self.unstamped);
        spans.sort_unstable();
        spans.dedup();
        spans
    }

    /// Takes out a span that never arrived. What is below keeps what it learnt from it. Returns whether it was there.
    pub(super) fn remove(&mut self, span: SpanId) -> bool {
        self.nodes.remove(&span).is_some()
    }

    fn node_of(&mut self, seen: &Seen<'_>) -> Node {
        let facts = &seen.facts;
        let agent = facts.agent.map(|name| self.shared(name));
        let agent_span = (facts.kind == Kind::Agent && agent.is_some()).then_some(seen.span);
        let hex = seen.span.to_hex();
        let is_native = seen.span_name.as_bytes() != hex;
        Node {
            native: is_native.then(|| seen.span_name.into()),
            parent: seen.parent.filter(|parent| *parent != seen.span),
            start_us: facts.start_us,
            end_us: facts.end_us,
            event_ns: facts.event_ns,
            kind: facts.kind,
            is_error: facts.is_error,
            is_synthetic: facts.is_synthetic,
            usage: facts.usage,
            tool: facts.tool.map(|name| self.shared(name)),
            model: facts.model.map(|name| self.shared(name)),
            agent,
            agent_span,
            depth: None,
            gap: None,
            is_stamped: false,
        }
    }

    /// Finds a new span's place below its parent.
    fn place(&mut self, span: SpanId, node: &mut Node) {
        let Some(parent) = node.parent else {
            node.depth = Some(0);
            return;
        };
        let Some(above) = self.nodes.get(&parent) else {
            node.gap = Some((parent, 1));
            self.gaps.entry(parent).or_default().push(span);
            return;
        };
        inherit(node, above.agent.as_ref(), above.agent_span);
        node.depth = above.depth.map(|depth| depth.saturating_add(1));
        node.gap = above.gap.map(|(gap, steps)| (gap, steps.saturating_add(1)));
        if let Some((gap, _)) = node.gap {
            self.gaps.entry(gap).or_default().push(span);
        }
    }

    /// Moves those that waited for a span to where it stands.
    fn move_up(&mut self, span: SpanId, waiting: &[SpanId]) {
        let Some(above) = self.nodes.get(&span) else { return };
        let (agent, agent_span) = (above.agent.clone(), above.agent_span);
        let (depth, gap) = (above.depth, above.gap);
        for &id in waiting {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let steps = node.gap.map_or(1, |(_, steps)| steps);
            let was_known = (node.agent.is_some(), node.agent_span, node.depth);
            inherit(node, agent.as_ref(), agent_span);
            node.depth = depth.map(|depth| depth.saturating_add(steps));
            node.gap = gap.map(|(gap, further)| (gap, further.saturating_add(steps)));
            let is_news = was_known != (node.agent.is_some(), node.agent_span, node.depth);
            if node.is_stamped && is_news {
                self.unstamped.push(id);
            }
            if let Some((gap, _)) = node.gap {
                self.gaps.entry(gap).or_default().push(id);
            }
        }
    }

    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| ***known == *name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(name);
        if self.names.len() < SHARED_NAMES_MAX {
            self.names.push(Arc::clone(&name));
        }
        name
    }
}

/// A span without an agent has that of the span above it. One that only says its agent's name learns which span that is where
/// the nearest agent above has the same name.
fn inherit(node: &mut Node, agent: Option<&Arc<str>>, agent_span: Option<SpanId>) {
    if node.agent.is_none() {
        node.agent = agent.cloned();
        node.agent_span = agent_span;
    } else if node.agent_span.is_none() && node.agent.as_ref() == agent {
        node.agent_span = agent_span;
    }
}
