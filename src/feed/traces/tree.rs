//! How the spans of one trace hang together, as far as it takes to find the agent above a span and to count no token twice. Pure.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::bounds::{AGENTS_MAX, SPANS_MAX, copied, table_bytes};
use crate::span::{Kind, Span, SpanId, Spending, Spends, Text};

/// Spans of a trace whose tokens may turn out to count or not to count at any time, and that are looked at with each request. Further
/// ones keep what was decided when they were sent.
const OPEN_MAX: usize = 256;
/// Climbing so few steps again costs less than remembering where they lead.
const STEPS_KEPT: usize = 4;

/// The spans of a trace that were seen, and those they name as their parents. None is below itself: the parent of a span that
/// would close a circle is left out.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: HashMap<SpanId, Node, RandomState>,
    agents: Vec<Text>,
    agents_bytes: usize,
    /// The model calls without a parent.
    calls: Calls,
    /// Whether any model call spends.
    has_models: bool,
    /// Spans for which it was decided otherwise just now.
    turned: Vec<SpanId>,
    /// Logs, and those that sum up others and have nothing below them: for these it may be decided otherwise at any time.
    open: Vec<SpanId>,
    is_cut: bool,
}

#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts of a span that do not exclude each other")]
struct Node {
    parent: Option<SpanId>,
    /// Its agent's place in the list.
    agent: Option<u16>,
    /// Those right below it.
    calls: Calls,
    spends: Spends,
    /// Whether the span itself was seen, not only one that names it.
    is_seen: bool,
    /// Whether it is a model call.
    is_call: bool,
    /// Whether it may be a part of the model call above it.
    is_step: bool,
    /// Whether a model call below it is another than one above it.
    is_boundary: bool,
    has_failed: bool,
    /// Whether a model call or log below it spends.
    has_spender: bool,
    /// Whether a model call below it spends, with no boundary in between.
    has_model: bool,
}

/// Spans of model calls.
#[derive(Debug, Clone, Copy, Default)]
struct Calls {
    seen: u16,
    /// Of these, how many say nothing of tokens.
    silent: u16,
}

/// What is new about a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// It was not seen before, or cannot be told from one that was not.
    pub is_new: bool,
    /// It failed, and that was not known.
    pub has_failed: bool,
    /// Others have named it as their parent before it came.
    pub is_awaited: bool,
}

/// What was found on the way up from spans, for the next ones. It holds as long as nothing is added to the tree.
#[derive(Debug, Default)]
pub struct Memo {
    is_odd: Found<bool>,
    calls: Found<bool>,
    agents: Found<u16>,
}

impl Tree {
    /// Has room for so many more spans, which are likely to come.
    pub fn expect(&mut self, spans: usize) {
        self.nodes.reserve(spans.min(SPANS_MAX.saturating_sub(self.nodes.len())));
    }

    /// Adds a span.
    pub fn add(
        &mut self,
        span: &Span,
        spending: Spending,
        agent: Option<&Text>,
        has_failed: bool,
    ) -> News {
        let Spending { spends, kind, is_task, .. } = spending;
        let id = span.span_id;
        self.has_models |= spends == Spends::Model;
        if !self.has_room_for(id) {
            return News { is_new: true, has_failed, is_awaited: false };
        }
        let agent = agent.and_then(|name| self.agent_place(name));
        let parent = span.parent_id.filter(|parent| !self.is_at_or_below(*parent, id));
        let (was, node) = match self.nodes.entry(id) {
            Place::Occupied(known) => (Some(*known.get()), known.into_mut()),
            Place::Vacant(place) => (None, place.insert(Node::default())),
        };
        let is_awaited = was.is_some_and(|was| !was.is_seen);
        let was = was.unwrap_or_default();
        node.agent = agent.or(was.agent);
        node.has_failed |= has_failed;
        if !was.is_seen {
            node.is_seen = true;
            // A parent that changes would move all below it, and no client does that.
            node.parent = parent;
            node.is_call = kind.counts_usage() && spends != Spends::Log;
            node.is_step = matches!(kind, Kind::Chain | Kind::Custom);
            node.is_boundary = is_task || matches!(kind, Kind::Tool | Kind::Agent | Kind::Handoff);
        }
        if was.spends == Spends::Nothing {
            node.spends = spends;
            let is_open = spends == Spends::Log || (spends == Spends::Other && !was.has_spender);
            if is_open && self.open.len() < OPEN_MAX {
                self.open.push(id);
            }
        }
        let node = *node;
        // Names its parent.
        if let Some(parent) = node.parent.filter(|parent| self.has_room_for(*parent)) {
            self.nodes.entry(parent).or_default();
        }
        self.count_call(was, node);
        self.mark_above(node);
        News { is_new: !was.is_seen, has_failed: has_failed && !was.has_failed, is_awaited }
    }

    /// Whether a span's tokens and cost count otherwise than its kind alone says; see [`Spends`]. In a tree from which spans were
    /// left out, nobody knows what lies below a span that sums up others: it counts only where no model call of the whole trace
    /// spends.
    pub fn is_odd(&self, id: SpanId, memo: &mut Memo) -> bool {
        let Some(node) = self.nodes.get(&id) else { return false };
        match node.spends {
            Spends::Nothing => false,
            Spends::Model => node.has_model,
            Spends::Log => {
                let calls = node.parent.map_or(Some(self.calls), |parent| {
                    self.nodes.get(&parent).map(|parent| parent.calls)
                });
                calls.is_none_or(|calls| calls.seen == 0 || calls.silent != 0)
            }
            Spends::Other if node.has_spender || (self.is_cut && self.has_models) => false,
            Spends::Other => {
                let counts =
                    |node: &Node| (node.spends == Spends::Other).then_some(!node.has_spender);
                let is_call = |node: &Node| match node.spends {
                    Spends::Model => Some(true),
                    _ => node.is_boundary.then_some(false),
                };
                let repeats_call = node.is_step
                    && self.nearest(node.parent, &mut memo.calls, is_call) == Some(true);
                !repeats_call && self.nearest(node.parent, &mut memo.is_odd, counts) != Some(true)
            }
        }
    }

    /// Whether a span has a call below it that may repeat one above it, so that its kind matters.
    pub(super) fn is_above_a_call(&self, id: SpanId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.has_model)
    }

    /// Those of these spans whose tokens and cost count otherwise than their kind alone says.
    pub(super) fn exceptions(&self, ids: impl IntoIterator<Item = SpanId>) -> HashSet<SpanId> {
        let mut memo = Memo::default();
        ids.into_iter().filter(|id| self.is_odd(*id, &mut memo)).collect()
    }

    /// Spans for which it may have been decided otherwise since this was asked last.
    pub(super) fn take_doubts(&mut self) -> Vec<SpanId> {
        let nodes = &self.nodes;
        self.open.retain(|id| {
            nodes.get(id).is_some_and(|node| node.spends == Spends::Log || !node.has_spender)
        });
        let mut doubts = std::mem::take(&mut self.turned);
        doubts.extend(&self.open);
        doubts
    }

    /// Nobody asks for these.
    pub fn forget_doubts(&mut self) {
        self.turned.clear();
        self.open.clear();
    }

    /// The nearest agent at or above a span that was added.
    pub fn agent_at(&self, id: SpanId, memo: &mut Memo) -> Option<&Text> {
        let place = self.nearest(Some(id), &mut memo.agents, |node| node.agent)?;
        self.agents.get(usize::from(place))
    }

    /// The nearest agent at or above each of these spans, as far as there is one.
    pub(super) fn agents_of<'a>(
        &self,
        spans: impl IntoIterator<Item = &'a Span>,
    ) -> HashMap<SpanId, Text> {
        if self.agents.is_empty() {
            return HashMap::new();
        }
        let mut memo = Memo::default();
        let name = |span: &Span| {
            let is_known = self.nodes.contains_key(&span.span_id);
            let from = if is_known { span.span_id } else { span.parent_id? };
            Some((span.span_id, self.agent_at(from, &mut memo)?.clone()))
        };
        spans.into_iter().filter_map(name).collect()
    }

    /// The topmost that is known at or above a span: its own id, or that of the first span above it that was not seen or has no parent.
    pub(super) fn top_of(&self, span: &Span) -> SpanId {
        let is_known = self.nodes.contains_key(&span.span_id);
        let from = span.parent_id.filter(|_| !is_known).unwrap_or(span.span_id);
        let above = std::iter::successors(Some(from), |id| self.nodes.get(id)?.parent);
        above.take(1 + self.nodes.len()).last().unwrap_or(from)
    }

    /// The nearest agent at or above a span, and whether that is known: nothing is missing up to there or, to the top or without an
    /// agent, up to a span without a parent. It looks so many steps far.
    pub fn agent_above(
        &self,
        span: SpanId,
        to_top: bool,
        steps_max: usize,
    ) -> (Option<&Text>, bool) {
        let (mut agent, mut next, mut is_known) = (None, Some(span), false);
        for _ in 0..steps_max.min(1 + self.nodes.len()) {
            // What was left out of the tree will never be known.
            let Some(node) = next.and_then(|id| self.nodes.get(&id)) else {
                is_known = true;
                break;
            };
            agent = agent.or(node.agent);
            is_known = node.is_seen && (node.parent.is_none() || (agent.is_some() && !to_top));
            next = node.parent;
            if is_known || !node.is_seen {
                break;
            }
        }
        (agent.and_then(|place| self.agents.get(usize::from(place))), is_known)
    }

    /// Whether all spans were seen that are named as parents.
    pub fn is_whole(&self) -> bool {
        self.nodes.values().all(|node| node.is_seen)
    }

    /// How many of these spans are within one another at most.
    pub fn depth_of(&self, spans: &HashSet<SpanId>) -> usize {
        let mut depths: HashMap<SpanId, usize> = HashMap::new();
        for span in spans {
            let (mut path, mut next) = (Vec::new(), Some(*span));
            while let Some(id) = next.filter(|id| !depths.contains_key(id)) {
                // Where a circle was overlooked, it ends here.
                depths.insert(id, 0);
                path.push(id);
                next = self.nodes.get(&id).and_then(|node| node.parent);
            }
            let mut depth = next.and_then(|id| depths.get(&id).copied()).unwrap_or_default();
            for id in path.into_iter().rev() {
                depth += usize::from(spans.contains(&id));
                depths.insert(id, depth);
            }
        }
        depths.into_values().max().unwrap_or_default()
    }

    /// What the nearest at or above this one says, of those that say anything. What was found on the way up serves the next span
    /// too where it took some steps, so the whole takes a few for each span that is met.
    fn nearest<T: Copy>(
        &self,
        from: Option<SpanId>,
        found: &mut Found<T>,
        said: impl Fn(&Node) -> Option<T>,
    ) -> Option<T> {
        let (mut next, mut answer, mut steps) = (from, None, 0);
        // Where a circle was overlooked, in a tree that is cut, it ends.
        while let Some(id) = next.filter(|_| steps <= self.nodes.len()) {
            if let Some(known) = found.get(&id) {
                answer = *known;
                break;
            }
            let Some(node) = self.nodes.get(&id) else { break };
            steps += 1;
            answer = said(node);
            next = if answer.is_none() { node.parent } else { None };
        }
        if STEPS_KEPT < steps {
            let path = std::iter::successors(from, |id| self.nodes.get(id)?.parent);
            found.extend(path.take(steps).map(|id| (id, answer)));
        }
        answer
    }

    /// Memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        table_bytes::<(SpanId, Node)>(self.nodes.capacity()) + self.agents_bytes
    }

    fn has_room_for(&mut self, id: SpanId) -> bool {
        let has_room = self.nodes.len() < SPANS_MAX || self.nodes.contains_key(&id);
        self.is_cut |= !has_room;
        has_room
    }

    fn agent_place(&mut self, name: &Text) -> Option<u16> {
        let place = self.agents.iter().position(|known| known == name).or_else(|| {
            let copy = copied(name).filter(|_| self.agents.len() < AGENTS_MAX)?;
            self.agents_bytes += size_of::<Text>() + copy.len();
            self.agents.push(copy);
            Some(self.agents.len() - 1)
        });
        place.and_then(|place| u16::try_from(place).ok())
    }

    /// Whether a span is this one or lies below it. Only one that was named before it was seen has any below it, so mostly nobody has
    /// to climb.
    fn is_at_or_below(&self, span: SpanId, above: SpanId) -> bool {
        let steps = if self.nodes.contains_key(&above) { self.nodes.len() } else { 0 };
        let chain = std::iter::successors(Some(span), |id| self.nodes.get(id)?.parent);
        chain.take(1 + steps).any(|id| id == above)
    }

    /// Counts a model call beside its siblings, or notes that one that was counted before spends.
    fn count_call(&mut self, was: Node, node: Node) {
        let is_silent = |node: Node| node.spends != Spends::Model;
        if !node.is_call || (was.is_seen && is_silent(was) == is_silent(node)) {
            return;
        }
        let calls = match node.parent {
            None => Some(&mut self.calls),
            Some(parent) => self.nodes.get_mut(&parent).map(|parent| &mut parent.calls),
        };
        let Some(calls) = calls else { return };
        if was.is_seen {
            calls.silent = calls.silent.saturating_sub(1);
        } else {
            calls.seen = calls.seen.saturating_add(1);
            calls.silent = calls.silent.saturating_add(u16::from(is_silent(node)));
        }
    }

    /// Notes for all above a span what spends at or below it. Each is noted once, so in the long run this takes two steps for each
    /// span, whatever order they come in: who names a parent that was not seen leaves the note there.
    fn mark_above(&mut self, from: Node) {
        let mut below = from;
        while let Some(id) = below.parent {
            let spends = matches!(below.spends, Spends::Model | Spends::Log);
            let has_spender = below.has_spender || spends;
            let has_model =
                below.spends == Spends::Model || (below.has_model && !below.is_boundary);
            let Some(node) = self.nodes.get_mut(&id).filter(|_| has_spender) else { return };
            if node.has_spender && (node.has_model || !has_model) {
                return;
            }
            node.has_spender = true;
            node.has_model |= has_model;
            if matches!(node.spends, Spends::Model | Spends::Other) {
                self.turned.push(id);
            }
            below = *node;
        }
    }
}

/// What was found at or above spans.
type Found<T> = HashMap<SpanId, Option<T>, RandomState>;
