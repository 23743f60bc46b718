//! A backend that accepts only a part of each request: everything arrives, and no request is in vain.

use std::collections::BTreeMap;

use super::fake::{Manner, Room};
use super::*;

const TRACES_OF_CASE: u64 = 5;

/// Deliveries in the order of the Agents SDK: spans below an agent first, so that each later delivery changes documents of earlier
/// ones, and some traces with a trace object.
fn deliveries() -> Vec<Delivery> {
    let id = |trace: u64, number: u64| trace * 20 + number;
    let mut deepest = Vec::new();
    let mut middle = Vec::new();
    let mut top = Vec::new();
    for trace in 0..TRACES_OF_CASE {
        for number in 4..10 {
            let parent = Some(id(trace, 1 + number % 3));
            deepest.push(Told::model_call(trace, id(trace, number), parent, number, 1).item());
        }
        for number in 1..4 {
            let parent = Some(id(trace, 0));
            middle.push(Told::new(trace, id(trace, number), parent, Kind::Tool).item());
        }
        if trace % 2 == 0 {
            top.push(trace_object(trace, "checkout"));
        }
        top.push(Told::agent(trace, id(trace, 0), None, "Triage").item());
    }
    [deepest, middle, top].map(delivery).into()
}

/// Delivers until everything has arrived, and asserts that each request stores something new.
async fn deliver_in(sink: &Elasticsearch, fake: &Fake, deliveries: &[Delivery], lines_max: usize) {
    for delivery in deliveries {
        let before = fake.bulks().len();
        let mut waiting = Some(delivery.clone());
        while let Some(next) = waiting.take() {
            waiting = rest(&next, &sink.deliver(&next).await);
            let requests = fake.bulks().len() - before;
            assert!(requests <= lines_max, "more requests than lines");
        }
        settled(sink).await;
    }
}

fn lines(fake: &Fake) -> usize {
    let lines = |body: &Bytes| body.split(|&byte| byte == b'\n').count() / 2;
    fake.bulks().iter().map(|bulk| lines(&bulk.body)).sum()
}

/// Returns every document of both indices.
fn everything(fake: &Fake) -> BTreeMap<String, Json> {
    fake.docs(SPANS).into_iter().chain(fake.docs(TRACES)).collect()
}

/// Iterates over queues with room for one part of each request: with a few shards, and with nearly one shard for each document.
fn rooms() -> impl Iterator<Item = Room> {
    let sizes = [(1, 1), (3, 1), (3, 2), (1_000, 1)];
    sizes
        .into_iter()
        .flat_map(|(shards, parts)| (0..6).map(move |order| Room { shards, parts, order }))
}

#[tokio::test]
async fn however_little_of_a_request_is_taken_everything_arrives() {
    let calm = Fake::start(Manner::default()).await;
    deliver_in(&sink(&calm, ""), &calm, &deliveries(), usize::MAX).await;
    let (expected, lines) = (everything(&calm), lines(&calm));
    for room in rooms() {
        let fake = Fake::start(Manner { room: Some(room), ..Manner::default() }).await;
        deliver_in(&sink(&fake, ""), &fake, &deliveries(), lines * 2).await;
        assert_eq!(everything(&fake), expected, "{room:?}");
    }
}
