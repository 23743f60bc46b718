//! The tree of a trace's spans, and what follows from it: whose tokens count, which agent a span belongs to, how deep it is. Pure.
//!
//! All such decisions are made here: the tables of traces and the index add spans as they arrive, in any order and in many requests;
//! Elasticsearch adds those of a delivery, or the contents of a trace's documents.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::iter::successors;

use foldhash::fast::RandomState;

use super::context::TELLER_BITS;
use super::{Spending, Spends};
use crate::support::by_touch::table_bytes;

/// Maximum number of spans per trace that are checked again with each request, because their decision may change at any time. Further spans
/// keep the decision with which they were sent.
const OPEN_MAX: usize = 256;
/// Repeating this few steps costs less than remembering the result.
const STEPS_KEPT: usize = 4;

/// The spans of a trace that were seen, up to a maximum, and those that they name as parents. There are no cycles: a parent that would
/// close one is dropped. The owner of the tree chooses what identifies an agent.
#[derive(Debug)]
pub struct Tree<K, A, const SPANS_MAX: usize> {
    nodes: HashMap<K, Node<K, A>, RandomState>,
    /// Model calls without a parent.
    calls: Calls,
    /// The reporter of each answer: of several instrumentations, the one with the greatest id, with one of its calls that repeat no other
    /// call below them.
    answers: HashMap<u64, (u64, K), RandomState>,
    /// Whether any model call spends.
    has_models: bool,
    /// Spans whose decision has just changed.
    turned: Vec<K>,
    /// Spans whose decision may change at any time: logs, spans that sum up others but have none that spends below them, and calls whose
    /// tokens a sink estimates.
    open: Vec<K>,
    is_cut: bool,
}

/// The data of a span itself.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "facts of their own")]
pub struct Own<K, A> {
    /// Its parent.
    pub parent: Option<K>,
    /// Its agent.
    pub agent: Option<A>,
    /// How it reports tokens and costs.
    pub spends: Spends,
    /// Whether it is a model call.
    pub is_call: bool,
    /// Whether it may be a part of the model call above it.
    pub is_step: bool,
    /// Whether model calls above and below it are separate.
    pub is_boundary: bool,
    /// Whether it is a model call whose tokens a sink estimates if it reports none.
    pub is_estimated: bool,
    /// Whether it failed, and its trace with it.
    pub has_failed: bool,
    /// See [`Spending::answer`].
    pub answer: u64,
}

impl<K, A> Own<K, A> {
    /// Creates the data of a span of this scope that did not fail, without a parent and agent.
    pub fn of(spending: Spending, scope: &str) -> Self {
        Self {
            parent: None,
            agent: None,
            spends: spending.spends,
            is_call: spending.is_call(),
            is_step: spending.is_step(),
            is_boundary: spending.is_boundary(),
            is_estimated: false,
            has_failed: false,
            answer: spending.answer(scope),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Node<K, A> {
    /// `None` for a span that was only named as a parent.
    own: Option<Own<K, A>>,
    below: Below,
}

/// Facts about the spans below a span.
#[derive(Debug, Clone, Copy, Default)]
struct Below {
    /// Model calls directly below it.
    calls: Calls,
    /// Whether a model call or log spends.
    has_spender: bool,
    /// Whether a model call spends, without a boundary in between.
    has_model: bool,
    /// Whether a model call or log spends below a boundary that is directly below it.
    has_worker: bool,
}

/// Counts of sibling model calls.
#[derive(Debug, Clone, Copy, Default)]
struct Calls {
    seen: u16,
    /// Number of those that report no tokens.
    silent: u16,
    /// Whether they have a log as sibling.
    has_log: bool,
}

/// The new facts about an added span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// It was not seen before, or cannot be distinguished from one that was not.
    pub is_new: bool,
    /// The change in the number of failed spans.
    pub failures: i8,
    /// Others had named it as their parent before it arrived.
    pub is_awaited: bool,
}

/// Cached values found at or above spans. They are valid until the tree changes.
pub type AncestorCache<K, T> = HashMap<K, Option<T>, RandomState>;

/// The caches that decide whose tokens count: whether the nearest span that sums up others counts, and whether a model call does.
pub type Spent<K> = (AncestorCache<K, bool>, AncestorCache<K, bool>);

impl<K, A> Node<K, A> {
    fn named() -> Self {
        Self { own: None, below: Below::default() }
    }

    fn spends(&self) -> Spends {
        self.own.as_ref().map_or(Spends::Nothing, |own| own.spends)
    }

    /// Returns whether its decision may still change, or whether another span may still report its tokens.
    fn is_open(&self) -> bool {
        match self.spends() {
            Spends::Nothing => self.own.as_ref().is_some_and(|own| own.is_estimated),
            Spends::Model => false,
            Spends::Log => true,
            Spends::Other | Spends::Record => !self.below.has_spender,
        }
    }
}

impl<K, A, const SPANS_MAX: usize> Default for Tree<K, A, SPANS_MAX> {
    fn default() -> Self {
        Self {
            nodes: HashMap::default(),
            calls: Calls::default(),
            answers: HashMap::default(),
            has_models: false,
            turned: Vec::new(),
            open: Vec::new(),
            is_cut: false,
        }
    }
}

impl<K: Copy + Ord + Hash, A: Copy, const SPANS_MAX: usize> Tree<K, A, SPANS_MAX> {
    /// Creates a tree for the rest of a trace whose earlier spans are unknown. Model calls among them counted.
    pub fn rest() -> Self {
        Self { has_models: true, is_cut: true, ..Self::default() }
    }

    /// Reserves space for this many more spans, which are likely to come.
    pub fn expect(&mut self, spans: usize) {
        self.nodes.reserve(spans.min(SPANS_MAX.saturating_sub(self.nodes.len())));
    }

    /// Adds a span. If it was seen before, only missing facts are added, and the last one says whether it failed. A changed parent is
    /// ignored, because it would move everything below the span, and no client does that.
    pub fn add(&mut self, id: K, own: Own<K, A>) -> News {
        self.has_models |= own.spends == Spends::Model;
        if !self.has_room_for(id) {
            return News { is_new: true, failures: i8::from(own.has_failed), is_awaited: false };
        }
        let parent = own.parent.filter(|parent| !self.is_at_or_below(*parent, id));
        let (is_named, node) = match self.nodes.entry(id) {
            Entry::Occupied(known) => (true, known.into_mut()),
            Entry::Vacant(place) => (false, place.insert(Node::named())),
        };
        let (was, below) = (node.own, node.below);
        let (spent, was_open) = (node.spends(), node.is_open());
        let now = match was {
            None => Own { parent, ..own },
            Some(was) => Own {
                agent: own.agent.or(was.agent),
                spends: if spent == Spends::Nothing { own.spends } else { spent },
                answer: if was.answer == 0 { own.answer } else { was.answer },
                has_failed: own.has_failed,
                ..was
            },
        };
        node.own = Some(now);
        if !was_open && node.is_open() && self.open.len() < OPEN_MAX {
            self.open.push(id);
        }
        // Registers its parent.
        if let Some(parent) = now.parent.filter(|parent| self.has_room_for(*parent)) {
            self.nodes.entry(parent).or_insert_with(Node::named);
        }
        self.count_call(was, now);
        self.mark_above(now, below);
        self.note_answer(id, now.answer);
        let is_new = was.is_none();
        let had_failed = was.is_some_and(|was| was.has_failed);
        let failures = i8::from(own.has_failed) - i8::from(had_failed);
        News { is_new, failures, is_awaited: is_named && is_new }
    }

    /// Returns whether a span's tokens and cost count; see [`Spends`]. In a truncated tree, the spans below a span that sums up others are
    /// unknown: it counts only if no model call of the entire trace spends.
    pub fn counts(&self, id: K, (sums, calls): &mut Spent<K>) -> bool {
        let Some(Node { own: Some(own), below }) = self.nodes.get(&id) else { return false };
        match own.spends {
            Spends::Nothing => false,
            Spends::Model => {
                let told = self.answers.get(&(own.answer >> TELLER_BITS));
                !below.has_model && told.is_none_or(|(said, _)| *said == own.answer)
            }
            Spends::Log => {
                let above = own.parent.and_then(|parent| self.nodes.get(&parent));
                let repeats =
                    |above: &Node<K, A>| above.spends() == Spends::Model && !above.below.has_model;
                !above.is_some_and(repeats)
                    && self.beside(own).is_none_or(|calls| calls.seen == 0 || calls.silent != 0)
            }
            Spends::Record if self.below(own.parent).has_worker => false,
            Spends::Other | Spends::Record
                if below.has_spender || (self.is_cut && self.has_models) =>
            {
                false
            }
            Spends::Other | Spends::Record => {
                let is_part = own.is_step && self.is_within_a_call(own, calls);
                !is_part && !self.is_summed_up(own, sums)
            }
        }
    }

    /// Returns whether the decision differs from the one by kind alone or, if a sink estimates tokens, whether another span reports those
    /// of a call without any.
    pub fn is_exception(&self, id: K, memo: &mut Spent<K>) -> bool {
        let Some(Node { own: Some(own), below }) = self.nodes.get(&id) else { return false };
        match own.spends {
            Spends::Nothing => own.is_estimated && self.is_told(own, *below, memo),
            spends => self.counts(id, memo) != (spends == Spends::Model),
        }
    }

    /// Returns whether another span reports the tokens of a call: a call within or around it, a log next to or below it, or a span that
    /// sums it up.
    fn is_told(&self, own: &Own<K, A>, below: Below, (sums, calls): &mut Spent<K>) -> bool {
        below.has_model
            || below.calls.has_log
            || self.beside(own).is_some_and(|calls| calls.has_log)
            || self.is_within_a_call(own, calls)
            || self.is_summed_up(own, sums)
    }

    /// Returns the sibling model calls of a span, if its parent is known.
    fn beside(&self, own: &Own<K, A>) -> Option<Calls> {
        match own.parent {
            None => Some(self.calls),
            Some(parent) => self.nodes.get(&parent).map(|above| above.below.calls),
        }
    }

    /// Returns whether a span is a part of a model call that spends.
    fn is_within_a_call(&self, own: &Own<K, A>, calls: &mut AncestorCache<K, bool>) -> bool {
        let is_call = |node: &Node<K, A>| match node.own? {
            own if own.spends == Spends::Model => Some(true),
            own => own.is_boundary.then_some(false),
        };
        self.nearest(own.parent, calls, is_call) == Some(true)
    }

    /// Returns whether a span above sums up others and counts for them.
    fn is_summed_up(&self, own: &Own<K, A>, sums: &mut AncestorCache<K, bool>) -> bool {
        let speaks =
            |node: &Node<K, A>| (node.spends() == Spends::Other).then_some(!node.below.has_spender);
        self.nearest(own.parent, sums, speaks) == Some(true)
    }

    /// Returns whether a span is above calls that other spans may repeat, so that its kind matters.
    pub fn is_above_a_call(&self, id: K) -> bool {
        let below = self.below(Some(id));
        below.has_model || below.has_worker
    }

    /// Takes the spans whose decision may have changed since the last call.
    pub fn take_doubts(&mut self) -> Vec<K> {
        let nodes = &self.nodes;
        self.open.retain(|id| nodes.get(id).is_some_and(Node::is_open));
        let mut doubts = std::mem::take(&mut self.turned);
        doubts.extend(&self.open);
        doubts
    }

    /// Clears these spans, because they are not needed.
    pub fn forget_doubts(&mut self) {
        self.turned.clear();
        self.open.clear();
    }

    fn below(&self, id: Option<K>) -> Below {
        id.and_then(|id| self.nodes.get(&id)).map(|node| node.below).unwrap_or_default()
    }

    /// Counts a model call among its siblings, or notes that one counted before now spends, or that there is a log.
    fn count_call(&mut self, was: Option<Own<K, A>>, now: Own<K, A>) {
        let is_silent = |own: Own<K, A>| own.spends != Spends::Model;
        let is_log = now.spends == Spends::Log;
        let has_news = now.is_call && was.is_none_or(|was| is_silent(was) != is_silent(now));
        if !has_news && !is_log {
            return;
        }
        let calls = match now.parent {
            None => Some(&mut self.calls),
            Some(parent) => self.nodes.get_mut(&parent).map(|parent| &mut parent.below.calls),
        };
        let Some(calls) = calls else { return };
        if is_log {
            calls.has_log = true;
        } else if was.is_some() {
            calls.silent = calls.silent.saturating_sub(1);
        } else {
            calls.seen = calls.seen.saturating_add(1);
            calls.silent = calls.silent.saturating_add(u16::from(is_silent(now)));
        }
    }

    /// Marks all spans above a span for what spends at or below it. Each is marked once, so the amortized cost is two steps per span,
    /// whatever the order: a span whose parent was not seen leaves the mark at its placeholder.
    fn mark_above(&mut self, mut own: Own<K, A>, mut below: Below) {
        while let Some(id) = own.parent {
            let has_spender =
                below.has_spender || matches!(own.spends, Spends::Model | Spends::Log);
            let has_model = own.spends == Spends::Model || (below.has_model && !own.is_boundary);
            let Some(node) = self.nodes.get_mut(&id).filter(|_| has_spender) else { return };
            node.below.has_worker |= own.is_boundary && below.has_spender;
            if node.below.has_spender && (node.below.has_model || !has_model) {
                return;
            }
            node.below.has_spender = true;
            node.below.has_model |= has_model;
            if matches!(node.spends(), Spends::Model | Spends::Other) {
                self.turned.push(id);
            }
            let Some(above) = node.own else { return };
            (own, below) = (above, node.below);
        }
    }

    /// Registers the reporter of an answer: if two instrumentations report the same answer side by side, one of them counts.
    fn note_answer(&mut self, id: K, answer: u64) {
        if answer == 0 || self.below(Some(id)).has_model {
            return;
        }
        let known = self.answers.get(&(answer >> TELLER_BITS)).copied();
        if known.is_none_or(|(said, by)| said < answer || self.below(Some(by)).has_model) {
            self.answers.insert(answer >> TELLER_BITS, (answer, id));
            self.turned.extend(known.map(|(_, by)| by));
        }
    }

    /// Returns a span's own data, with its parent in the tree; `None` if it was not seen.
    pub fn own(&self, id: K) -> Option<&Own<K, A>> {
        self.nodes.get(&id)?.own.as_ref()
    }

    /// Returns whether a span was seen, or named by one that was.
    pub fn knows(&self, id: K) -> bool {
        self.nodes.contains_key(&id)
    }

    /// Returns whether all spans that are named as parents were seen.
    pub fn is_whole(&self) -> bool {
        self.nodes.values().all(|node| node.own.is_some())
    }

    /// Returns a span and its known ancestors, upwards.
    pub fn path(&self, from: K) -> impl Iterator<Item = K> {
        // The limit ends a cycle that went unnoticed in a truncated tree.
        successors(Some(from), |id| self.own(*id)?.parent).take(1 + self.nodes.len())
    }

    /// Computes a value for each known span from its own data, if it was seen, and the value of its parent.
    pub fn inherited<T: Copy>(
        &self,
        mut of: impl FnMut(K, Option<&Own<K, A>>, Option<T>) -> T,
    ) -> HashMap<K, T, RandomState> {
        let mut all = HashMap::with_capacity_and_hasher(self.nodes.len(), RandomState::default());
        for id in self.nodes.keys() {
            let path: Vec<K> = self.path(*id).take_while(|id| !all.contains_key(id)).collect();
            for id in path.into_iter().rev() {
                let own = self.own(id);
                let above = own.and_then(|own| all.get(&own.parent?).copied());
                all.insert(id, of(id, own, above));
            }
        }
        all
    }

    /// Returns the maximum number of these spans that are nested in each other.
    pub fn depth_of(&self, spans: &HashSet<K>) -> usize {
        let count =
            |id, above: Option<usize>| above.unwrap_or(0) + usize::from(spans.contains(&id));
        let depths = self.inherited(|id, _, above| count(id, above));
        depths.into_values().max().unwrap_or(0).max(spans.len().min(1))
    }

    /// Returns the nearest agent at or above a span that was added.
    pub fn agent_at(&self, id: K, memo: &mut AncestorCache<K, A>) -> Option<A> {
        self.nearest(Some(id), memo, |node| node.own?.agent)
    }

    /// Returns the nearest agent at or above a span, and whether that is final: no span is missing up to the agent or, if `to_top` is set
    /// or there is no agent, up to a span without a parent. Looks at most `steps_max` steps up.
    pub fn agent_above(&self, span: K, to_top: bool, steps_max: usize) -> (Option<A>, bool) {
        let mut agent = None;
        for id in self.path(span).take(steps_max) {
            match self.nodes.get(&id) {
                // A span that was dropped from the tree remains unknown.
                None => return (agent, true),
                Some(Node { own: None, .. }) => return (agent, false),
                Some(Node { own: Some(own), .. }) => {
                    agent = agent.or(own.agent);
                    if own.parent.is_none() || (agent.is_some() && !to_top) {
                        return (agent, true);
                    }
                }
            }
        }
        (agent, false)
    }

    /// Returns the value of the nearest span at or above `from` that has one. Longer climbs are cached for later spans, so that all climbs
    /// together take a few steps per span.
    fn nearest<T: Copy>(
        &self,
        from: Option<K>,
        found: &mut AncestorCache<K, T>,
        said: impl Fn(&Node<K, A>) -> Option<T>,
    ) -> Option<T> {
        let (mut next, mut answer, mut steps) = (from, None, 0);
        while let Some(id) = next.filter(|_| steps <= self.nodes.len()) {
            if let Some(known) = found.get(&id) {
                answer = *known;
                break;
            }
            let Some(node) = self.nodes.get(&id) else { break };
            steps += 1;
            answer = said(node);
            let parent = node.own.as_ref().and_then(|own| own.parent);
            next = parent.filter(|_| answer.is_none());
        }
        if let Some(from) = from.filter(|_| steps > STEPS_KEPT) {
            found.extend(self.path(from).take(steps).map(|id| (id, answer)));
        }
        answer
    }

    /// Returns its memory, in bytes.
    pub fn bytes(&self) -> usize {
        table_bytes::<(K, Node<K, A>)>(self.nodes.capacity())
            + table_bytes::<(u64, (u64, K))>(self.answers.capacity())
    }

    fn has_room_for(&mut self, id: K) -> bool {
        let has_room = self.nodes.len() < SPANS_MAX || self.nodes.contains_key(&id);
        self.is_cut |= !has_room;
        has_room
    }

    /// Returns whether a span is `above` or below it. Only a span that was named before it was seen has others below it, so climbing is
    /// rarely necessary.
    fn is_at_or_below(&self, span: K, above: K) -> bool {
        span == above || (self.knows(above) && self.path(span).any(|id| id == above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Spends::{Log, Model, Nothing, Other};

    type Calls = Tree<u8, (), 16>;

    fn own(parent: Option<u8>, spends: Spends) -> Own<u8, ()> {
        let is_call = matches!(spends, Nothing | Model);
        Own {
            parent,
            spends,
            is_call,
            is_estimated: is_call,
            is_step: false,
            ..Own::of(Spending::default(), "")
        }
    }

    #[test]
    fn of_calls_beside_each_other_that_tell_of_one_answer_one_counts_whatever_comes_first() {
        let call = |id, parent, answer: u64, teller| {
            (id, Own { answer: answer << TELLER_BITS | teller, ..own(parent, Model) })
        };
        for (spans, expected) in [
            (vec![call(1, Some(9), 7, 2), call(2, Some(9), 7, 1)], vec![1]),
            (vec![call(1, Some(8), 7, 3), call(2, None, 7, 4), call(3, Some(9), 7, 2)], vec![2]),
            (vec![call(1, Some(9), 7, 1), call(2, Some(9), 5, 2)], vec![1, 2]),
            (vec![call(1, Some(9), 0, 0), call(2, Some(9), 0, 0)], vec![1, 2]),
            // A model with the same id in all answers, like a scripted one.
            (vec![call(1, Some(9), 7, 1), call(2, Some(9), 7, 1)], vec![1, 2]),
            // The first repeats one inside it.
            (vec![call(1, Some(9), 7, 3), call(2, Some(1), 7, 2), call(3, Some(9), 7, 1)], vec![2]),
            (vec![call(1, Some(9), 7, 3), call(3, Some(9), 7, 2), call(4, Some(3), 7, 1)], vec![1]),
        ] {
            for start in 0..spans.len() * 2 {
                let mut order = spans.clone();
                order.rotate_left(start % spans.len());
                if spans.len() <= start {
                    order.reverse();
                }
                assert_eq!(counted_in_the_end(&order), expected, "{order:?}");
            }
        }
    }

    /// Returns what counts for a sink that learns of changed decisions.
    fn counted_in_the_end(spans: &[(u8, Own<u8, ()>)]) -> Vec<u8> {
        let (mut tree, mut counted) = (Calls::default(), std::collections::BTreeSet::new());
        for (id, own) in spans {
            tree.add(*id, *own);
            for id in tree.take_doubts().into_iter().chain([*id]) {
                counted.remove(&id);
                counted.extend(tree.counts(id, &mut Spent::default()).then_some(id));
            }
        }
        counted.into_iter().collect()
    }

    #[test]
    fn a_call_that_says_nothing_is_told_by_calls_around_and_within_it_logs_and_what_sums_it_up() {
        let silent = |parent| own(parent, Nothing);
        let step = |parent| Own { is_call: false, is_estimated: false, ..silent(parent) };
        let tool = |parent| Own { is_boundary: true, ..step(parent) };
        // The silent call is the last of these, and its index is its name.
        for (spans, is_told) in [
            (vec![own(None, Model), silent(Some(0))], true),
            (vec![own(None, Model), step(Some(0)), silent(Some(1))], true),
            (vec![own(None, Model), tool(Some(0)), silent(Some(1))], false),
            (vec![own(Some(1), Model), silent(None)], true),
            (vec![own(Some(1), Model), tool(Some(2)), silent(None)], false),
            (vec![own(None, Log), silent(None)], true),
            (vec![own(Some(1), Log), silent(None)], true),
            (vec![own(None, Other), silent(Some(0))], true),
            (vec![own(None, Other), own(Some(0), Model), silent(Some(0))], false),
            (vec![own(None, Model), silent(None)], false),
            (vec![silent(None)], false),
        ] {
            let place = |at: usize| u8::try_from(at).unwrap();
            let name = place(spans.len() - 1);
            for backwards in [false, true] {
                let mut order: Vec<usize> = (0..spans.len()).collect();
                if backwards {
                    order.reverse();
                }
                let mut tree = Calls::default();
                for at in order {
                    tree.add(place(at), spans[at]);
                    tree.add(place(at), spans[at]);
                }
                let memo = &mut Spent::default();
                assert_eq!(tree.is_exception(name, memo), is_told, "{spans:?} {backwards}");
                assert_eq!(tree.take_doubts().extract_if(.., |id| *id == name).count(), 1);
                let ours = Own { is_estimated: false, ..spans[spans.len() - 1] };
                let mut tree = Calls::default();
                tree.add(name, ours);
                assert!(!tree.is_exception(name, memo) && tree.take_doubts().is_empty());
            }
        }
    }
}
