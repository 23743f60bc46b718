//! Compares the memory that the window reports with what the system counts.

use std::ops::{Add as _, Sub as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::status::LaneStatus;
use super::traces::LaneTraces;
use super::window::{Admission, DEFERRED_BYTES_MAX, Purpose, Task, Wait, Window, Work};
use super::work::{DeferredAmount, PartitionItems};
use super::*;
use crate::feed::tests::{arrival, item};
use crate::journal::Cursor;
use crate::sinks::{Deferral, Delivery, Pending, Report, Sink};
use crate::support::memory::{alone, assert_within, resident_bytes};

struct Never;

impl Sink for Never {
    fn is_deferred(&self, _key: &str) -> bool {
        true
    }

    fn deliver<'a>(&'a self, _delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(async { Report::delivered() })
    }
}

/// Defers a request for its key, like an attempt.
fn defer(window: &mut Window, request: u64, delivery: Delivery) {
    let status = Arc::new(LaneStatus::new("told".to_owned(), "told", Cursor::default()));
    let mut traces = LaneTraces::new(None, status);
    window.push(&Purpose::Journal, request, delivery, Instant::now());
    let mut admission = Admission {
        now: Instant::now(),
        now_ns: 0,
        is_draining: true,
        arrivals: 0,
        has_others: false,
        is_open: false,
        traces: &mut traces,
        sink: &Never,
    };
    let mut work = window.next(&mut admission).unwrap();
    let task: Task = work.tasks.pop_front().unwrap();
    let deferral = Deferral { key: "a word".to_owned(), reason: "no word".to_owned() };
    window.finish(work, vec![(task, Wait::Key(Arc::new(deferral)))], 0);
}

#[test]
fn what_waits_for_a_key_stays_within_its_bound_also_by_the_systems_own_count() {
    alone(&["many", "long", "one of them"], |case| {
        let (spans, words) = if case == "long" { (4, 20_000) } else { (100, 10) };
        let item = |number: u64| {
            format!(
                r#"{{"object":"trace.span","id":"span_{number}","trace_id":"trace_{number}","span_data":{{"type":"generation","model":"m","input":[{{"role":"user","content":"{0}"}}],"output":[]}}}}"#,
                "hello ".repeat(words)
            )
        };
        let request = |number: u64| {
            let items: Vec<_> = (0..spans).map(|place| item(number * spans + place)).collect();
            let batch = Arc::new(arrival(&items).decoded.batch);
            batch.spans().for_each(|span| {
                span.facts();
                span.detail();
            });
            let mut delivery = Delivery::default();
            let places = if case == "one of them" { 0..1 } else { 0..batch.items.len() };
            delivery.add(&batch, places);
            delivery
        };
        let limits =
            BatchLimits { items_max: 512, bytes_max: 1 << 20, age_max: Duration::from_secs(1) };
        // This excludes tables that are created once.
        drop(request(0));
        let mut window = Window::new(limits, 8);
        let before = resident_bytes();
        let mut number = 0;
        while window.has_room_to_defer() {
            defer(&mut window, number, request(number));
            number += 1;
        }
        let bytes = resident_bytes() - before;
        assert_within(case, bytes, DEFERRED_BYTES_MAX);
    });
}

#[test]
fn what_is_deferred_counts_each_request_once_and_for_as_long_as_it_is_held() {
    let batch = Arc::new(arrival(&[item("a"), item("b")]).decoded.batch);
    let wait = || {
        let deferral = Deferral { key: "a word".to_owned(), reason: "no word".to_owned() };
        Wait::Key(Arc::new(deferral))
    };
    let work = |place: usize, wait: Wait| {
        let mut delivery = Delivery::default();
        delivery.add(&batch, place..place + 1);
        let since = Instant::now();
        let piece = PartitionItems { purpose: Purpose::Journal, entry: 0, delivery, since };
        let mut work = Work::of(piece, 0);
        work.wait = wait;
        work
    };
    let works = [work(0, wait()), work(1, wait()), work(1, Wait::Others(0))];
    let (bytes, broken_bytes) = (batch.bytes_when_read(), item("b").len());
    let mut amount = DeferredAmount::default();
    for work in &works {
        amount.count(work, usize::add);
    }
    let mut left = works.iter();
    for expected in
        [(3, 2, bytes + broken_bytes), (2, 2, bytes + broken_bytes), (1, 1, broken_bytes)]
    {
        let DeferredAmount { works, items, kept, bytes } = &amount;
        assert_eq!(
            (*works, *items, kept.len(), *bytes),
            (expected.0, expected.0, expected.1, expected.2)
        );
        amount.count(left.next().unwrap(), usize::sub);
    }
    assert_eq!(amount, DeferredAmount::default());
}
