//! Compares decisions with an oracle that sees everything at the same time, with and without restarts; tests the limit of a table.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::support::memory::{alone, assert_within, resident_bytes};

const SECOND: u64 = 1_000_000_000;
const QUIET: u64 = 10 * SECOND;
const LONGEST: u64 = 60 * SECOND;
/// Start of the times in these tests.
const BEGIN: u64 = 1_000_000 * SECOND;
/// The first rule keeps, the others drop.
const KEPT: u32 = 0;

fn options() -> DecideOptions {
    DecideOptions {
        quiet: Duration::from_secs(10),
        longest: Duration::from_mins(1),
        ..DecideOptions::default()
    }
}

fn kept() -> Marks {
    Marks::of(KEPT)
}

fn table() -> Decisions {
    Decisions::new(options(), kept())
}

fn trace(number: u64) -> TraceId {
    TraceId::from_hex(&format!("{:032x}", number + 1)).unwrap()
}

/// A request: its arrival time, and its traces with the rules that match them.
#[derive(Debug, Clone)]
struct Request {
    at_ns: u64,
    traces: HashMap<TraceId, Marks>,
}

impl Request {
    fn survey(&self) -> UndecidedRequest {
        UndecidedRequest { traces: self.traces.clone(), ..UndecidedRequest::default() }
    }
}

fn request(at_ns: u64, traces: &[(u64, Marks)]) -> Request {
    let traces = traces.iter().map(|(number, marks)| (trace(*number), *marks)).collect();
    Request { at_ns, traces }
}

/// Simulates a lane from one place on: it reads ahead, and releases what is decided before it feeds more. Returns the decisions for each
/// released request, by its number; the last ones wait, unless the lane knows that no more will come.
fn follow(
    decisions: &mut Decisions,
    requests: &[Request],
    from: usize,
    is_all: bool,
) -> BTreeMap<usize, HashMap<TraceId, Marks>> {
    let (mut taken, mut waiting) = (BTreeMap::new(), VecDeque::new());
    let mut take = |decisions: &mut Decisions, waiting: &mut VecDeque<usize>| {
        while let Some(&first) = waiting.front()
            && decisions.decided_at_ns(requests[first].traces.keys().copied()).is_none()
        {
            taken.insert(first, decisions.of(requests[first].traces.keys().copied()));
            waiting.pop_front();
        }
    };
    for (number, request) in requests.iter().enumerate().skip(from) {
        decisions.time.tell(request.at_ns);
        take(decisions, &mut waiting);
        decisions.feed(request.at_ns, request.survey());
        waiting.push_back(number);
    }
    if is_all {
        decisions.time.pass(requests.iter().map(|request| request.at_ns).max().unwrap() + LONGEST);
        take(decisions, &mut waiting);
        assert!(waiting.is_empty());
    }
    taken
}

/// Computes the same from all requests: each trace's arrivals are split where it was forgotten, and the beginning of each part, up to where
/// it was quiet or too long, decides. Each result has the start of its part.
fn oracle(requests: &[Request]) -> BTreeMap<usize, HashMap<TraceId, (u64, Marks)>> {
    let mut arrivals: BTreeMap<TraceId, Vec<(usize, u64, Marks)>> = BTreeMap::new();
    let mut now_ns = 0;
    for (number, request) in requests.iter().enumerate() {
        now_ns = request.at_ns.max(now_ns);
        for (id, marks) in &request.traces {
            arrivals.entry(*id).or_default().push((number, now_ns, *marks));
        }
    }
    let mut decided: BTreeMap<usize, HashMap<TraceId, (u64, Marks)>> = BTreeMap::new();
    for (id, arrivals) in arrivals {
        for part in arrivals.chunk_by(|one, next| next.1 < one.1 + REMEMBER_NS) {
            let begin_ns = part[0].1;
            let pairs = part
                .windows(2)
                .take_while(|pair| pair[1].1 < (pair[0].1 + QUIET).min(begin_ns + LONGEST));
            let in_time = pairs.count() + 1;
            let all = part[..in_time].iter().fold(Marks::default(), |all, one| all.with(one.2));
            let is_quiet = part[in_time - 1].1 + QUIET <= begin_ns + LONGEST;
            let marks = if is_quiet { all } else { kept() };
            for (number, _, _) in part {
                decided.entry(*number).or_default().insert(id, (begin_ns, marks));
            }
        }
    }
    decided
}

prop_compose! {
    /// Times advance by milliseconds up to half an hour, and sometimes a request took some seconds to arrive.
    fn some_requests()(
        steps in prop::collection::vec(
            (
                prop_oneof![8 => 0..3 * SECOND, 3 => 5 * SECOND..15 * SECOND, 1 => 100 * SECOND..1800 * SECOND],
                0..4 * SECOND,
                prop::collection::vec((0_u64..6, prop_oneof![5 => Just(None), 1 => (0_u32..3).prop_map(Some)]), 1..4),
            ),
            1..120,
        )
    ) -> Vec<Request> {
        let mut now_ns = BEGIN;
        steps.into_iter().map(|(step_ns, late_ns, traces)| {
            now_ns += step_ns;
            let marks = |mark: Option<u32>| mark.map(Marks::of).unwrap_or_default();
            let traces: Vec<_> = traces.into_iter().map(|(number, mark)| (number, marks(mark))).collect();
            request(now_ns - late_ns, &traces)
        }).collect()
    }
}

proptest! {
    #[test]
    fn decisions_are_those_of_who_sees_everything_at_once(requests in some_requests()) {
        let decided = follow(&mut table(), &requests, 0, true);
        let expected = oracle(&requests);
        for (number, traces) in &expected {
            for (id, (_, marks)) in traces {
                prop_assert_eq!(decided[number][id], *marks, "request {} of {:?}", number, requests);
            }
        }
    }

    #[test]
    fn a_lane_that_starts_again_anywhere_decides_as_it_did(
        requests in some_requests(),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(requests.len());
        // This looks back twice as far as a decision is remembered.
        let oldest_ns = requests[cut].at_ns.saturating_sub(2 * REMEMBER_NS);
        let from = requests.iter().position(|request| oldest_ns <= request.at_ns).unwrap();
        let mut decisions = table();
        if from > 0 {
            decisions.begin_in_the_middle(oldest_ns);
        }
        for request in &requests[from..cut] {
            decisions.feed(request.at_ns, request.survey());
        }
        let again = follow(&mut decisions, &requests, cut, true);
        let expected = oracle(&requests);
        for number in cut..requests.len() {
            for (id, (began_ns, marks)) in &expected[&number] {
                // A trace that continues for longer than the lookback is kept.
                let known = again[&number][id];
                let is_older = *began_ns < oldest_ns + REMEMBER_NS;
                prop_assert!(
                    known == *marks || known == kept() && from > 0 && is_older,
                    "request {} from {} after {}: {:?} instead of {:?}", number, from, cut, known, marks
                );
            }
        }
    }
}

#[test]
fn a_trace_is_decided_when_it_is_quiet_and_what_comes_later_changes_nothing() {
    let (open, drops) = (Marks::default(), Marks::of(1));
    let mut decisions = table();
    decisions.feed(BEGIN, request(BEGIN, &[(1, open)]).survey());
    assert_eq!(decisions.decided_at_ns([trace(1)]), Some(BEGIN + QUIET));
    decisions.feed(BEGIN + SECOND, request(0, &[(1, drops)]).survey());
    decisions.time.pass(BEGIN + SECOND + QUIET - 1);
    assert_eq!(decisions.decided_at_ns([trace(1)]), Some(BEGIN + SECOND + QUIET));
    decisions.time.pass(BEGIN + SECOND + QUIET);
    assert_eq!(decisions.decided_at_ns([trace(1)]), None);
    decisions.feed(BEGIN + 2 * QUIET, request(0, &[(1, kept())]).survey());
    assert_eq!(decisions.of([trace(1)])[&trace(1)], drops, "a late error does not bring it back");
    assert_eq!(decisions.undecided(), Undecided::default());
}

#[test]
fn a_trace_that_is_never_quiet_is_kept_and_counted_once() {
    let mut decisions = table();
    for second in 0..200 {
        decisions.feed(BEGIN + second * SECOND, request(0, &[(1, Marks::of(1))]).survey());
    }
    assert_eq!(decisions.of([trace(1)])[&trace(1)], kept());
    assert_eq!(decisions.undecided(), Undecided { too_long: 1, no_room: 0 });
}

#[test]
fn a_trace_that_may_have_begun_before_what_is_known_is_kept_and_counted() {
    let mut decisions = table();
    decisions.begin_in_the_middle(BEGIN);
    decisions.feed(BEGIN, request(0, &[(1, Marks::of(1))]).survey());
    decisions.count_from_here();
    for (number, after) in [(1, SECOND), (2, SECOND), (2, QUIET), (3, REMEMBER_NS)] {
        decisions.feed(BEGIN + after, request(0, &[(number, Marks::of(1))]).survey());
    }
    let known = decisions.of([1, 2, 3].map(trace));
    assert_eq!([1, 2, 3].map(|number| known[&trace(number)]), [kept(), kept(), Marks::of(1)]);
    assert_eq!(decisions.undecided(), Undecided { too_long: 1, no_room: 0 });
}

#[test]
fn a_trace_without_room_is_kept_and_counted_and_what_is_open_stays_exact() {
    let mut decisions = Decisions { traces_max: 100, ..table() };
    let drops = Marks::of(1);
    for number in 0..150 {
        decisions.feed(BEGIN, request(0, &[(number, drops)]).survey());
    }
    assert_eq!(decisions.undecided(), Undecided { too_long: 0, no_room: 50 });
    decisions.time.pass(BEGIN + QUIET);
    let known = decisions.of((0..150).map(trace));
    assert_eq!(known.len(), 100, "who is not there was kept");
    assert!(known.values().all(|marks| *marks == drops));
    // Traces that no record waits for are evicted, although they would be remembered for longer.
    decisions.feed(BEGIN + 2 * LONGEST, request(0, &[(200, drops)]).survey());
    assert_eq!((decisions.remembered(), decisions.undecided().no_room), (1, 50));
}

#[test]
fn a_million_open_traces_take_less_than_200_bytes_each_and_are_decided_exactly() {
    alone(&["1000000"], |traces| {
        let traces: u64 = traces.parse().unwrap();
        let before = resident_bytes();
        let mut decisions = table();
        let marks = |number: u64| {
            if number.is_multiple_of(7) { Marks::of(1) } else { Marks::default() }
        };
        for number in 0..traces {
            // All of them are open at the same time.
            let at_ns = BEGIN + number * (QUIET - 1) / traces;
            decisions.feed(at_ns, request(0, &[(number, marks(number))]).survey());
        }
        let taken = resident_bytes().saturating_sub(before);
        assert_within("open traces", taken, usize::try_from(traces).unwrap() * 200);
        assert!(taken < 256 << 20);
        let is_kept = |number: u64| number.is_multiple_of(10);
        for number in (0..traces).filter(|number| is_kept(*number)) {
            decisions.feed(BEGIN + QUIET - 1, request(0, &[(number, kept())]).survey());
        }
        decisions.time.pass(BEGIN + 2 * QUIET);
        for number in 0..traces {
            let late = if is_kept(number) { kept() } else { Marks::default() };
            let known = decisions.of([trace(number)])[&trace(number)];
            assert_eq!(known, marks(number).with(late), "{number}");
        }
        assert_eq!(decisions.undecided(), Undecided::default());
    });
}
