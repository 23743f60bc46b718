//! Derives what spans tell about each other: their depths, their agents, and whose tokens count. Pure.
//!
//! It serves a delivery, whose spans are written with the result, and the documents of a complete trace, which are corrected if they were
//! written before the rest of their trace arrived. [`Tree`] decides the structure and whose tokens count.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

use crate::span::{Own, Spends, Spent, Tree};

/// Values for the source of a document's tokens, apart from their place: see [`Spends`].
pub(super) const MODEL: &str = "model";
pub(super) const LOG: &str = "log";
pub(super) const OTHER: &str = "other";
/// Like [`OTHER`], but possibly a part of the model call above it.
pub(super) const STEP: &str = "step";
pub(super) const RECORD: &str = "record";
/// A model call without tokens.
pub(super) const SILENT: &str = "silent";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agent<'a> {
    pub(super) name: &'a str,
    /// The id of the agent's span.
    pub(super) span: Option<&'a str>,
}

/// A span of a trace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a, T, K> {
    pub(super) trace: T,
    pub(super) id: K,
    /// Its own facts.
    pub(super) own: Own<K, Agent<'a>>,
    /// The number of spans above it if it has no parent: a synthetic root, which is not among the given spans.
    pub(super) depth: u16,
    pub(super) start_us: u64,
}

/// The result for each span, in the given order.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Place<'a> {
    /// The nearest agent at or above it. For a span whose tokens stand for agents below it, the first of them.
    pub(super) agent: Option<Agent<'a>>,
    /// The number of spans above it, if all of them are known.
    pub(super) depth: Option<u16>,
    pub(super) counts: bool,
}

/// The spans of one trace.
struct Whole<'a, K> {
    tree: Tree<K, Agent<'a>, { usize::MAX }>,
    /// Spans without a parent, and the number of spans above each.
    tops: HashMap<K, u16, RandomState>,
    /// Spans that are agents, with their start times.
    agents: Vec<(u64, Agent<'a>, K)>,
}

/// Builds the trees of all traces. A parent that is missing still connects its children.
pub(super) fn places<'a, T: Copy + Eq + Hash, K: Copy + Ord + Hash>(
    spans: impl Iterator<Item = Node<'a, T, K>>,
) -> Vec<Place<'a>> {
    let (mut wholes, mut names) = (HashMap::<T, Whole<'a, K>>::new(), Vec::new());
    for span in spans {
        names.push((span.trace, span.id));
        let new = || Whole { tree: Tree::default(), tops: HashMap::default(), agents: Vec::new() };
        wholes.entry(span.trace).or_insert_with(new).add(span);
    }
    let places: HashMap<T, _> =
        wholes.into_iter().map(|(trace, whole)| (trace, whole.places())).collect();
    let place = |(trace, id): &(T, K)| places.get(trace)?.get(id).copied();
    names.iter().map(|name| place(name).unwrap_or_default()).collect()
}

impl<'a, K: Copy + Ord + Hash> Whole<'a, K> {
    fn add<T>(&mut self, Node { id, own, depth, start_us, .. }: Node<'a, T, K>) {
        // A span that is its own parent has none.
        if own.parent.is_none_or(|parent| parent == id) {
            self.tops.insert(id, depth);
        }
        let is_agent = |agent: &Agent<'_>| agent.span.is_some();
        self.agents.extend(own.agent.filter(is_agent).map(|agent| (start_us, agent, id)));
        self.tree.add(id, own);
    }

    fn places(mut self) -> HashMap<K, Place<'a>, RandomState> {
        let (first_below, mut memo) = (self.first_below(), Spent::default());
        self.tree.inherited(|id, own, above: Option<Place<'a>>| {
            let (Some(own), above) = (own, above.unwrap_or_default()) else {
                return Place::default();
            };
            let counts = self.tree.counts(id, &mut memo);
            let speaks = counts && own.spends == Spends::Other;
            let below = first_below.get(&id).filter(|_| speaks).copied();
            let agent = inherited(own.agent, above.agent).or(below);
            let depth = self.tops.get(&id).copied();
            let depth = depth.or_else(|| Some(above.depth?.saturating_add(1)));
            Place { agent, depth, counts }
        })
    }

    /// Returns the first agent below each span that has one.
    fn first_below(&mut self) -> HashMap<K, Agent<'a>, RandomState> {
        let mut first = HashMap::default();
        self.agents.sort_by_key(|(start_us, agent, _)| (*start_us, agent.span));
        for (_, agent, id) in &self.agents {
            for above in self.tree.path(*id).skip(1) {
                // Every span above this one has one, too.
                if first.contains_key(&above) {
                    break;
                }
                first.insert(above, *agent);
            }
        }
        first
    }
}

/// Returns the agent of a span. Without its own, it inherits that of the span above. If it has only a name, it learns the agent's span from
/// the nearest agent above with the same name.
fn inherited<'a>(own: Option<Agent<'a>>, above: Option<Agent<'a>>) -> Option<Agent<'a>> {
    match (own, above) {
        (Some(own), Some(above)) if own.span.is_none() && own.name == above.name => Some(above),
        (own, above) => own.or(above),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::span::Spending;

    type Span = Node<'static, (), usize>;

    fn node(spends: Spends) -> Span {
        let is_call = spends == Spends::Model;
        let own = Own { spends, is_call, is_step: false, ..Own::of(Spending::default(), "") };
        Node { trace: (), id: 0, own, depth: 0, start_us: 0 }
    }

    fn at(id: usize, parent: Option<usize>, node: Span) -> Span {
        Node { id, own: Own { parent, ..node.own }, ..node }
    }

    /// Returns for each span with its parent whether its tokens count.
    fn counts(spans: &[(Option<usize>, Span)]) -> Vec<bool> {
        let all = spans.iter().enumerate().map(|(id, (parent, node))| at(id, *parent, *node));
        places(all).into_iter().map(|place| place.counts).collect()
    }

    #[test]
    fn of_all_that_speak_of_one_call_one_counts() {
        use Spends::{Log, Model, Nothing, Other};
        let (task, call, log) = (node(Other), node(Model), node(Log));
        let silent = Node { own: Own { is_call: true, ..node(Nothing).own }, ..node(Nothing) };
        let tool = Node { own: Own { is_boundary: true, ..node(Nothing).own }, ..node(Nothing) };
        let record = node(Spends::Record);
        for (spans, expected) in [
            (vec![(None, task), (Some(0), record)], vec![true, false]),
            (vec![(Some(9), record), (Some(9), call)], vec![true, true]),
            (vec![(Some(9), record), (Some(9), tool), (Some(1), call)], vec![false, false, true]),
            (vec![(None, task)], vec![true]),
            (vec![(None, task), (Some(0), silent)], vec![true, false]),
            (vec![(None, task), (Some(0), call)], vec![false, true]),
            (vec![(None, task), (Some(0), task)], vec![true, false]),
            (vec![(None, task), (Some(0), task), (Some(1), call)], vec![false, false, true]),
            (vec![(None, call), (Some(0), call)], vec![false, true]),
            (vec![(None, call), (Some(0), tool), (Some(1), call)], vec![true, false, true]),
            (vec![(None, tool), (Some(0), call), (Some(0), log)], vec![false, true, false]),
            (vec![(None, tool), (Some(0), silent), (Some(0), log)], vec![false, false, true]),
            // Siblings below a missing span.
            (vec![(Some(9), call), (Some(9), log)], vec![true, false]),
            (vec![(None, silent), (None, log)], vec![false, true]),
        ] {
            assert_eq!(counts(&spans), expected, "{spans:?}");
        }
    }

    #[test]
    fn calls_of_another_trace_decide_nothing() {
        let silent = Node {
            own: Own { is_call: true, ..node(Spends::Nothing).own },
            ..node(Spends::Nothing)
        };
        let spans = [(0, 0, node(Spends::Model)), (0, 1, node(Spends::Log)), (1, 0, silent)];
        let spans = spans.map(|(trace, id, Node { own, depth, start_us, .. })| Node {
            trace,
            id,
            own,
            depth,
            start_us,
        });
        let counts = places(spans.into_iter()).into_iter().map(|place| place.counts);
        assert_eq!(counts.collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn tokens_that_a_task_says_for_its_agents_belong_to_the_first_of_them() {
        let agent = |id, name, start_us| {
            let agent = Some(Agent { name, span: Some(name) });
            let own = Own { agent, parent: Some(0), ..node(Spends::Nothing).own };
            Node { id, own, start_us, ..node(Spends::Nothing) }
        };
        let of = |task: Span| {
            let spans = [Node { depth: 1, ..task }, agent(1, "late", 9), agent(2, "first", 3)];
            let place = places(spans.into_iter()).swap_remove(0);
            (place.agent.map(|agent| agent.name), place.depth)
        };
        assert_eq!(of(node(Spends::Other)), (Some("first"), Some(1)));
        assert_eq!(of(node(Spends::Nothing)), (None, Some(1)), "it says nothing");
    }

    #[test]
    fn spans_above_each_other_in_a_circle_are_no_trouble() {
        let circle = [(0, 1), (1, 2), (2, 0), (3, 3), (4, 0)];
        let all = circle.map(|(id, parent)| at(id, Some(parent), node(Spends::Nothing)));
        let depths: Vec<_> = places(all.into_iter()).into_iter().map(|place| place.depth).collect();
        assert_eq!(depths, [None, None, None, Some(0), None]);
    }

    #[test]
    fn a_long_chain_of_tasks_takes_one_step_for_each() {
        // With quadratic time, this would take minutes, and with cubic time forever.
        let count = 200_000;
        let chain = |at: usize| (at.checked_sub(1), node(Spends::Other));
        let tasks: Vec<_> = (0..count).map(chain).collect();
        let counted = counts(&tasks);
        assert!(counted[0] && !counted[1..].contains(&true), "the first speaks for all");
    }

    /// Generates a tree in which each span's parent precedes it, with a flag for agents.
    fn tree() -> impl Strategy<Value = Vec<(Option<usize>, bool)>> {
        proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..24).prop_map(
            |spans| {
                let all = spans.iter().enumerate();
                all.map(|(at, (parent, agent))| ((at != 0).then(|| parent.index(at)), *agent))
                    .collect()
            },
        )
    }

    const NAMES: [&str; 24] = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
        "s", "t", "u", "v", "w", "x",
    ];

    proptest! {
        #[test]
        fn every_span_finds_its_agent_and_depth_whatever_the_order(
            (tree, order) in tree().prop_flat_map(|tree| {
                let all: Vec<usize> = (0..tree.len()).collect();
                (Just(tree), Just(all).prop_shuffle())
            })
        ) {
            let spans = order.iter().map(|&span| {
                let (parent, is_agent) = tree[span];
                let name = NAMES[span];
                let agent = is_agent.then_some(Agent { name, span: Some(name) });
                let node = node(Spends::Nothing);
                at(span, parent, Node { own: Own { agent, ..node.own }, ..node })
            });
            for (span, place) in order.iter().zip(places(spans)) {
                let path: Vec<usize> =
                    std::iter::successors(Some(*span), |at| tree[*at].0).collect();
                prop_assert_eq!(usize::from(place.depth.unwrap()) + 1, path.len());
                let agent = path.iter().find(|at| tree[**at].1).map(|at| NAMES[*at]);
                prop_assert_eq!(place.agent.map(|agent| agent.name), agent);
            }
        }
    }
}
