//! How the spans of one trace hang together, as far as it takes to find the agent above a span and to count no token twice. Pure.

use std::collections::HashMap;

use crate::span::{Facts, Span, SpanId, Text, Usage};

/// Spans of a trace that are remembered. A run of the SDK has some dozens; a day-long trace with more loses only what is said at
/// [`Tree::is_cut`].
pub(super) const SPANS_MAX: usize = 4_096;
/// Agents of a trace whose names are remembered. Spans below further ones have none.
const AGENTS_MAX: usize = 256;
/// Tasks of a trace whose own sums are remembered, for the case that their model calls say nothing. Further ones count nothing.
const TASKS_MAX: usize = 64;
/// How far above a task another one is looked for. No run is nested deeper.
const HOPS_MAX: usize = 256;

/// The spans of a trace that were seen, and those they name as their parents.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: HashMap<SpanId, Node>,
    agents: Vec<Text>,
    agents_bytes: usize,
    tasks: Vec<(SpanId, Usage)>,
    is_cut: bool,
}

#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts of a span that do not exclude each other")]
struct Node {
    parent: Option<SpanId>,
    /// Its agent's place in the list.
    agent: Option<u16>,
    /// Whether the span itself was seen, not only one that names it.
    is_seen: bool,
    is_task: bool,
    has_failed: bool,
    /// Whether a model call at or below it said how many tokens it took.
    has_usage: bool,
}

/// What is new about a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct News {
    /// It was not seen before, or cannot be told from one that was not.
    pub(super) is_new: bool,
    /// It failed, and that was not known.
    pub(super) has_failed: bool,
}

impl Tree {
    /// Adds a span.
    pub(super) fn add(&mut self, span: &Span, facts: &Facts) -> News {
        let has_failed = facts.error.is_some();
        if !self.has_room_for(span.span_id) {
            return News { is_new: true, has_failed };
        }
        let agent = facts.agent.as_ref().and_then(|name| self.agent_place(name));
        let is_task = facts.sdk_span_type.as_deref() == Some("task");
        let node = self.nodes.entry(span.span_id).or_default();
        let news = News { is_new: !node.is_seen, has_failed: has_failed && !node.has_failed };
        node.parent = span.parent_id;
        node.agent = agent.or(node.agent);
        node.is_seen = true;
        node.is_task = is_task;
        node.has_failed |= has_failed;
        let has_usage = node.has_usage;
        if is_task
            && news.is_new
            && !facts.aggregate_usage.is_empty()
            && self.tasks.len() < TASKS_MAX
        {
            self.tasks.push((span.span_id, facts.aggregate_usage));
        }
        if has_usage {
            self.mark_usage(span.parent_id);
        } else if facts.kind.counts_usage() && facts.usage.has_tokens() {
            self.mark_usage(Some(span.span_id));
        }
        news
    }

    /// Whether spans were left out. Then a task's own sum counts only where no model call of the whole trace has said anything.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The sums of those outermost tasks below which no model call has said anything.
    pub(super) fn unspoken_tasks(&self) -> impl Iterator<Item = &Usage> {
        let is_unspoken = |id: &SpanId| self.nodes.get(id).is_some_and(|node| !node.has_usage);
        self.tasks
            .iter()
            .filter(move |(id, _)| is_unspoken(id) && !self.is_below_a_task(*id))
            .map(|(_, usage)| usage)
    }

    /// The nearest agent at or above each of these spans, as far as there is one.
    pub(super) fn agents_of<'a>(
        &self,
        spans: impl IntoIterator<Item = &'a Span>,
    ) -> HashMap<SpanId, Text> {
        let mut agents = HashMap::new();
        // What was found on the way up serves the next span too, so the whole takes one step for each span that is met.
        let mut found: HashMap<SpanId, Option<u16>> = HashMap::new();
        let mut path = Vec::new();
        for span in spans {
            path.clear();
            let is_known = self.nodes.contains_key(&span.span_id);
            let mut next = if is_known { Some(span.span_id) } else { span.parent_id };
            let mut agent = None;
            while let Some(id) = next {
                if let Some(known) = found.get(&id) {
                    agent = *known;
                    break;
                }
                let Some(node) = self.nodes.get(&id) else { break };
                // Parents may form a circle: there it ends.
                found.insert(id, None);
                path.push(id);
                agent = node.agent;
                next = if agent.is_none() { node.parent } else { None };
            }
            found.extend(path.iter().map(|id| (*id, agent)));
            let name = agent.and_then(|place| self.agents.get(usize::from(place)));
            agents.extend(name.map(|name| (span.span_id, name.clone())));
        }
        agents
    }

    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        // One byte of the table's own for each entry.
        let nodes = self.nodes.capacity() * (size_of::<(SpanId, Node)>() + 1);
        nodes + self.agents_bytes + self.tasks.capacity() * size_of::<(SpanId, Usage)>()
    }

    fn has_room_for(&mut self, id: SpanId) -> bool {
        let has_room = self.nodes.len() < SPANS_MAX || self.nodes.contains_key(&id);
        self.is_cut |= !has_room;
        has_room
    }

    fn agent_place(&mut self, name: &Text) -> Option<u16> {
        let place = self.agents.iter().position(|known| known == name).or_else(|| {
            let copy = super::trace::copied(name).filter(|_| self.agents.len() < AGENTS_MAX)?;
            self.agents_bytes += size_of::<Text>() + copy.len();
            self.agents.push(copy);
            Some(self.agents.len() - 1)
        });
        place.and_then(|place| u16::try_from(place).ok())
    }

    /// Notes for a span and all above it that a model call has said something. Each is noted once, so in the long run this takes
    /// one step for each span, whatever order they come in: who names a parent that was not seen leaves the note there.
    fn mark_usage(&mut self, from: Option<SpanId>) {
        let mut next = from;
        while let Some(id) = next {
            if !self.has_room_for(id) {
                return;
            }
            let node = self.nodes.entry(id).or_default();
            if node.has_usage {
                return;
            }
            node.has_usage = true;
            next = node.parent;
        }
    }

    fn is_below_a_task(&self, id: SpanId) -> bool {
        let mut next = self.nodes.get(&id).and_then(|node| node.parent);
        for _ in 0..HOPS_MAX {
            let Some(node) = next.and_then(|id| self.nodes.get(&id)) else { return false };
            if node.is_task {
                return true;
            }
            next = node.parent;
        }
        false
    }
}
