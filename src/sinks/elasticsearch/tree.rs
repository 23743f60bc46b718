//! How spans hang together: how deep each lies, which agent it belongs to, and whose tokens count. Pure.
//!
//! The same rules serve a delivery, whose spans are written with what they say of each other, and the documents of a whole trace,
//! which are corrected where they were written before the rest of their trace was there. Whose tokens count is decided as
//! [`Spends`] says.

use std::collections::HashMap;
use std::hash::Hash;

use crate::span::Spends;

/// What documents say of their tokens, beside where these stand: see [`Spends`].
pub(super) const MODEL: &str = "model";
pub(super) const LOG: &str = "log";
pub(super) const OTHER: &str = "other";
/// A model call that says no tokens.
pub(super) const SILENT: &str = "silent";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agent<'a> {
    pub(super) name: &'a str,
    /// The id of the agent's span.
    pub(super) span: Option<&'a str>,
}

/// What a span says by itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Node<'a> {
    pub(super) agent: Option<Agent<'a>>,
    pub(super) start_us: u64,
    pub(super) spends: Spends,
    /// Whether it is a model call.
    pub(super) is_call: bool,
    /// Whether a model call below it is another than one above it.
    pub(super) is_boundary: bool,
}

/// What stands above a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Above<K> {
    /// Nothing but so many spans that are not among those that are put together: a root of ours.
    Top(u16),
    Span(K),
}

/// What follows for each span, in the order in which they were given.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Place<'a> {
    /// The nearest agent at or above it. For a span whose tokens stand for those of agents below it: the first of these.
    pub(super) agent: Option<Agent<'a>>,
    /// Spans above it, where all of them are there.
    pub(super) depth: Option<u16>,
    pub(super) counts: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Item<'a> {
    node: Node<'a>,
    /// Where its parent is among the items; [`SKY`] without one.
    parent: usize,
    /// From where it was met first on the way up.
    met_from: usize,
    has_spender: bool,
    has_model: bool,
    /// Model calls right below it, and those of them that say no tokens.
    calls: (u32, u32),
    first_below: Option<(u64, Agent<'a>)>,
    /// Whether the nearest span above that sums up others counts; `None` without one.
    above_counts: Option<bool>,
    place: Place<'a>,
}

/// The place of what stands above everything that has nothing above it.
const SKY: usize = 0;

/// Puts spans together. A parent that is not among them joins its children all the same.
pub(super) fn places<'a, K: Copy + Eq + Hash>(
    spans: impl Iterator<Item = (K, Above<K>, Node<'a>)>,
) -> Vec<Place<'a>> {
    let (mut items, mut parents, mut by_key) = (vec![Item::default()], Vec::new(), HashMap::new());
    for (key, above, node) in spans {
        by_key.entry(key).or_insert(items.len());
        items.push(Item { node, ..Item::default() });
        parents.push(above);
    }
    let count = parents.len();
    for (at, above) in (1..).zip(parents) {
        let (parent, depth) = match above {
            Above::Top(depth) => (SKY, Some(depth)),
            Above::Span(key) => {
                let parent = *by_key.entry(key).or_insert(items.len());
                if parent == items.len() {
                    items.push(Item::default());
                }
                // Its own parent is no parent.
                if parent == at { (SKY, Some(0)) } else { (parent, None) }
            }
        };
        if let Some(item) = items.get_mut(at) {
            (item.parent, item.place.depth) = (parent, depth);
        }
    }
    let order = order(&mut items);
    sum_up(&mut items, &order);
    settle(&mut items, &order);
    items.into_iter().skip(1).take(count).map(|item| item.place).collect()
}

/// The places of all, parents before their children. A circle is cut open.
fn order(items: &mut [Item<'_>]) -> Vec<usize> {
    let (mut order, mut path) = (Vec::with_capacity(items.len()), Vec::new());
    for start in 1..items.len() {
        let mut at = start;
        while let Some(item) = items.get_mut(at).filter(|item| at != SKY && item.met_from == 0) {
            item.met_from = start;
            path.push(at);
            at = item.parent;
        }
        let is_circle = items.get(at).is_some_and(|item| item.met_from == start);
        if let Some(last) = path.last().and_then(|last: &usize| items.get_mut(*last))
            && is_circle
        {
            last.parent = SKY;
        }
        order.extend(path.drain(..).rev());
    }
    order
}

/// Tells each span what lies below it.
fn sum_up(items: &mut [Item<'_>], order: &[usize]) {
    for &at in order.iter().rev() {
        let Some(item) = items.get(at).copied() else { continue };
        let Some(parent) = items.get_mut(item.parent) else { continue };
        let node = item.node;
        let is_model = node.spends == Spends::Model;
        parent.has_spender |= item.has_spender || is_model || node.spends == Spends::Log;
        parent.has_model |= is_model || (item.has_model && !node.is_boundary);
        parent.calls.0 += u32::from(node.is_call);
        parent.calls.1 += u32::from(node.is_call && !is_model);
        let own = node.agent.filter(|agent| agent.span.is_some());
        let own = own.map(|agent| (node.start_us, agent));
        let first = [parent.first_below, item.first_below, own].into_iter().flatten();
        parent.first_below = first.min_by_key(|(start_us, agent)| (*start_us, agent.span));
    }
}

/// Tells each span what stands above it, and decides.
fn settle(items: &mut [Item<'_>], order: &[usize]) {
    for &at in order {
        let Some(item) = items.get(at).copied() else { continue };
        let Some(above) = items.get(item.parent).copied() else { continue };
        let above_counts = match above.node.spends {
            Spends::Other => Some(!above.has_spender),
            _ => above.above_counts,
        };
        let counts = match item.node.spends {
            Spends::Nothing => false,
            Spends::Model => !item.has_model,
            Spends::Log => above.calls.0 == 0 || above.calls.1 != 0,
            Spends::Other => !item.has_spender && above_counts != Some(true),
        };
        let speaks = counts && item.node.spends == Spends::Other;
        let below = item.first_below.filter(|_| speaks).map(|(_, agent)| agent);
        let agent = inherited(item.node.agent, above.place.agent).or(below);
        let depth = item.place.depth.or_else(|| Some(above.place.depth?.saturating_add(1)));
        if let Some(item) = items.get_mut(at) {
            item.above_counts = above_counts;
            item.place = Place { agent, depth, counts };
        }
    }
}

/// A span without an agent has that of the span above it. One that only says its agent's name learns which span that is where the
/// nearest agent above has the same name.
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

    fn node(spends: Spends) -> Node<'static> {
        Node { spends, is_call: spends == Spends::Model, ..Node::default() }
    }

    fn above(parent: Option<usize>) -> Above<usize> {
        parent.map_or(Above::Top(0), Above::Span)
    }

    /// Whether each counts, of spans that say what is above them.
    fn counts(spans: &[(Option<usize>, Node<'static>)]) -> Vec<bool> {
        let all = spans.iter().enumerate().map(|(at, (parent, node))| (at, above(*parent), *node));
        places(all).into_iter().map(|place| place.counts).collect()
    }

    #[test]
    fn of_all_that_speak_of_one_call_one_counts() {
        use Spends::{Log, Model, Nothing, Other};
        let (task, call, log) = (node(Other), node(Model), node(Log));
        let silent = Node { is_call: true, ..node(Nothing) };
        let tool = Node { is_boundary: true, ..node(Nothing) };
        for (spans, expected) in [
            (vec![(None, task)], vec![true]),
            (vec![(None, task), (Some(0), silent)], vec![true, false]),
            (vec![(None, task), (Some(0), call)], vec![false, true]),
            (vec![(None, task), (Some(0), task)], vec![true, false]),
            (vec![(None, task), (Some(0), task), (Some(1), call)], vec![false, false, true]),
            (vec![(None, call), (Some(0), call)], vec![false, true]),
            (vec![(None, call), (Some(0), tool), (Some(1), call)], vec![true, false, true]),
            (vec![(None, tool), (Some(0), call), (Some(0), log)], vec![false, true, false]),
            (vec![(None, tool), (Some(0), silent), (Some(0), log)], vec![false, false, true]),
            // Beside each other below a span that is not there.
            (vec![(Some(9), call), (Some(9), log)], vec![true, false]),
            (vec![(None, silent), (None, log)], vec![false, true]),
        ] {
            assert_eq!(counts(&spans), expected, "{spans:?}");
        }
    }

    #[test]
    fn tokens_that_a_task_says_for_its_agents_belong_to_the_first_of_them() {
        let agent = |name, start_us| Node {
            agent: Some(Agent { name, span: Some(name) }),
            start_us,
            ..node(Spends::Nothing)
        };
        let of = |task: Node<'static>| {
            let spans = [(0, Above::Top(1), task), (1, Above::Span(0), agent("late", 9))];
            let spans = spans.into_iter().chain([(2, Above::Span(0), agent("first", 3))]);
            let place = places(spans).swap_remove(0);
            (place.agent.map(|agent| agent.name), place.depth)
        };
        assert_eq!(of(node(Spends::Other)), (Some("first"), Some(1)));
        assert_eq!(of(node(Spends::Nothing)), (None, Some(1)), "it says nothing");
    }

    #[test]
    fn spans_above_each_other_in_a_circle_are_no_trouble() {
        let circle = [(0, 1), (1, 2), (2, 0), (3, 3), (4, 0)];
        let all = circle.map(|(at, parent)| (at, Above::Span(parent), Node::default()));
        let depths: Vec<_> = places(all.into_iter()).into_iter().map(|place| place.depth).collect();
        assert_eq!(depths, [None, None, None, Some(0), None]);
    }

    #[test]
    fn a_long_chain_of_tasks_takes_one_step_for_each() {
        // With a step for each pair of them, this would take minutes; for each three, for ever.
        let count = 200_000;
        let chain = |at: usize| (at.checked_sub(1), node(Spends::Other));
        let tasks: Vec<_> = (0..count).map(chain).collect();
        let counted = counts(&tasks);
        assert!(counted[0] && !counted[1..].contains(&true), "the first speaks for all");
    }

    /// A tree: each span's parent comes before it in the list; and which of them are agents.
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
                (span, above(parent), Node { agent, ..Node::default() })
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
