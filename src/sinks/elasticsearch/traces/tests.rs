//! The table's bounds, and lineage in any order.

use proptest::prelude::*;

use super::shared::MISSES_MAX;
use super::*;
use crate::span::Kind;

fn trace_id(number: u64) -> TraceId {
    TraceId::from_slice(&u128::from(number + 1).to_be_bytes()).unwrap()
}

fn span_id(number: u64) -> SpanId {
    SpanId::new((number + 1).to_be_bytes()).unwrap()
}

fn see(traces: &mut Traces, trace: u64, span: u64, parent: Option<u64>, agent: bool, now: Instant) {
    let name = format!("span_{span}");
    let agent_name = format!("agent {span}");
    let kind = if agent { Kind::Agent } else { Kind::Tool };
    let seen = Seen {
        trace: trace_id(trace),
        trace_name: &format!("trace_{trace}"),
        span: span_id(span),
        span_name: &name,
        parent: parent.map(span_id),
        facts: SpanFacts {
            kind,
            agent: agent.then_some(agent_name.as_str()),
            ..SpanFacts::default()
        },
        about_trace: TraceFacts::default(),
        received_ms: 1,
    };
    traces.see(&seen, now);
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn table(limits: Limits) -> Traces {
    Traces::new(limits, Duration::from_secs(6))
}

#[test]
fn what_nobody_has_heard_of_for_long_is_forgotten_and_so_is_the_oldest_of_too_many() {
    let limits = Limits { traces_max: 10, ..Limits::default() };
    let (mut traces, start) = (table(limits), now());
    for number in 0..100 {
        see(&mut traces, number, 0, None, false, start);
        assert!(traces.table.len() <= 10);
    }
    assert!(traces.table.contains_key(&trace_id(99)));
    see(&mut traces, 100, 0, None, false, start + limits.idle);
    assert_eq!(traces.table.len(), 1);
    assert_eq!(traces.spans, 1);
}

#[test]
fn a_trace_that_is_heard_of_stays() {
    let (mut traces, start) = (table(Limits::default()), now());
    let idle = Limits::default().idle;
    for step in 0..10 {
        see(&mut traces, 0, step, None, false, start + idle / 2 * u32::try_from(step).unwrap());
    }
    assert_eq!(traces.spans, 10);
}

#[test]
fn the_spans_of_all_traces_are_bounded() {
    let limits = Limits { spans_max: 50, ..Limits::default() };
    let (mut traces, start) = (table(limits), now());
    for number in 0..1000 {
        see(&mut traces, number / 10, number, None, false, start);
        assert!(traces.spans <= 51, "{}", traces.spans);
    }
    let counted: usize = traces.table.values().map(|trace| trace.lineage.len()).sum();
    assert_eq!(counted, traces.spans);
}

#[test]
fn a_trace_with_too_many_spans_is_summed_up_by_the_far_side() {
    let limits = Limits { spans_of_trace_max: 5, ..Limits::default() };
    let (mut traces, start) = (table(limits), now());
    for number in 0..20 {
        see(&mut traces, 0, number, None, false, start);
    }
    assert!(traces.is_shared(trace_id(0)));
    assert_eq!(traces.spans, 0);
    assert!(traces.stale(trace_id(0)).is_none());
    assert_eq!(traces.to_find(9).len(), 1);
}

#[test]
fn what_waits_for_its_summary_is_kept_and_bounded() {
    let limits = Limits { traces_max: 4, waiting_max: 3, ..Limits::default() };
    let (mut traces, start) = (table(limits), now());
    for number in 0..5 {
        see(&mut traces, number, number, None, false, start);
        assert_eq!(traces.share(trace_id(number), start), number < 3);
    }
    for number in 5..50 {
        see(&mut traces, number, number, None, false, start);
    }
    let saved = traces.save();
    let mut restored = table(limits);
    restored.restore(&saved, start);
    assert_eq!(restored.all_waiting().len(), 3);
    restored.restore(b"no such line\nzz \"x\"\n", start);
    assert_eq!(restored.all_waiting().len(), 3);
}

#[test]
fn a_sum_that_lacks_spans_is_asked_for_again_but_not_for_ever() {
    let (mut traces, start) = (table(Limits::default()), now());
    see(&mut traces, 0, 0, None, false, start);
    see(&mut traces, 0, 1, None, false, start);
    traces.share(trace_id(0), start);
    traces.found(trace_id(0), Found::default(), start);
    let mut at = start;
    for _ in 0..MISSES_MAX {
        assert!(traces.due(9, at).is_empty());
        at = traces.next_due().unwrap();
        let due = traces.due(9, at);
        assert!(traces.must_wait(&due[0], 1, at));
    }
    at = traces.next_due().unwrap();
    let due = traces.due(9, at);
    assert!(!traces.must_wait(&due[0], 2, at), "all are there");
    assert!(!traces.must_wait(&due[0], 1, at), "it has waited long enough");
}

#[test]
fn spans_above_each_other_in_a_circle_are_no_trouble() {
    let (mut traces, start) = (table(Limits::default()), now());
    for (span, parent) in [(0, 1), (1, 2), (2, 0), (3, 3), (4, 0)] {
        see(&mut traces, 0, span, Some(parent), false, start);
    }
    for span in [0, 1, 2, 4] {
        assert_eq!(traces.known(trace_id(0), span_id(span)).depth, None);
    }
    assert_eq!(traces.known(trace_id(0), span_id(3)).depth, Some(0), "its own parent is none");
}

/// A tree: each span's parent comes before it in the list; and which of them are agents.
fn tree() -> impl Strategy<Value = Vec<(Option<usize>, bool)>> {
    proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..24).prop_map(
        |spans| {
            let all = spans.iter().enumerate();
            all.map(|(at, (parent, agent))| ((at != 0).then(|| parent.index(at)), *agent)).collect()
        },
    )
}

proptest! {
    #[test]
    fn every_document_learns_its_agent_and_depth_in_any_order(
        (tree, order, cuts) in tree().prop_flat_map(|tree| {
            let all: Vec<usize> = (0..tree.len()).collect();
            let cuts = proptest::collection::vec(1_usize..4, tree.len());
            (Just(tree), Just(all).prop_shuffle(), cuts)
        })
    ) {
        let (mut traces, start) = (table(Limits::default()), now());
        let mut documents: HashMap<SpanId, Known> = HashMap::new();
        let mut rest = order.as_slice();
        let mut changes = 0;
        for length in cuts {
            let (batch, later) = rest.split_at(length.min(rest.len()));
            rest = later;
            for &span in batch {
                let (parent, agent) = tree[span];
                see(&mut traces, 0, span as u64, parent.map(|at| at as u64), agent, start);
            }
            for &span in batch {
                let id = span_id(span as u64);
                documents.insert(id, traces.known(trace_id(0), id));
                traces.stamp(trace_id(0), id);
            }
            for patch in traces.take_patches(trace_id(0)) {
                prop_assert!(documents.contains_key(&patch.span), "only what was sent is changed");
                documents.insert(patch.span, patch.known);
                changes += 1;
            }
        }
        for span in 0..tree.len() {
            let path: Vec<usize> =
                std::iter::successors(Some(span), |at| tree[*at].0).collect();
            let agent = path.iter().find(|at| tree[**at].1);
            let document = &documents[&span_id(span as u64)];
            prop_assert_eq!(usize::from(document.depth.unwrap()) + 1, path.len());
            let name = agent.map(|at| format!("agent {at}"));
            prop_assert_eq!(document.agent.as_deref(), name.as_deref());
            let id = agent.map(|at| format!("span_{at}"));
            prop_assert_eq!(document.agent_span.as_deref(), id.as_deref());
        }
        let depths: usize = (0..tree.len())
            .map(|span| std::iter::successors(Some(span), |at| tree[*at].0).count() - 1)
            .sum();
        prop_assert!(changes <= depths, "at most once for each ancestor");
    }
}
