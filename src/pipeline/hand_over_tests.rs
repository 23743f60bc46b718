//! A lane that is replaced by another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::policy_tests::until;
use super::tests::{World, name, span_item};
use super::*;
use crate::journal::tests::faulty::FaultyStorage;
use crate::journal::{Cursor, Entry, Journal, Mark, Options};
use crate::normalize::{Encoding, Envelope, Limits, decode};
use crate::sinks::{Delivery, Pending, Report, Sink};
use crate::span::{Receiver, Source};
use crate::support::stop::Stop;

/// A sink that accepts as many deliveries as it is allowed.
struct Gate {
    leave: Semaphore,
    begun: Mutex<Vec<String>>,
    arrived: Mutex<Vec<String>>,
}

impl Gate {
    fn new(leave: usize) -> Arc<Self> {
        let leave = Semaphore::new(leave);
        Arc::new(Self { leave, begun: Mutex::default(), arrived: Mutex::default() })
    }

    fn begun(&self) -> usize {
        self.begun.lock().unwrap().len()
    }

    fn arrived(&self) -> Vec<String> {
        self.arrived.lock().unwrap().clone()
    }
}

impl Sink for Gate {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        let names: Vec<String> = delivery.items().map(|(_, item)| name(item.wire())).collect();
        self.begun.lock().unwrap().extend(names.clone());
        Box::pin(async {
            self.leave.acquire().await.unwrap().forget();
            self.arrived.lock().unwrap().extend(names);
            Report::delivered()
        })
    }
}

/// Creates a delivery of one item, like a replay.
fn delivery(id: &str) -> Delivery {
    let body = Bytes::from(format!(r#"{{"data":[{}]}}"#, span_item(id)));
    let source = Source { receiver: Receiver::OpenAi, ..Source::unknown() };
    let envelope = Envelope::new(source, Encoding::Json, body.len());
    let batch = decode(&envelope, &body, &Limits::default()).unwrap().batch;
    let mut delivery = Delivery::default();
    delivery.add(&Arc::new(batch), 0..1);
    delivery
}

#[tokio::test]
async fn what_is_under_way_ends_and_what_has_not_begun_is_left_to_the_next_lane() {
    let gate = Gate::new(0);
    let world = World::new(gate.clone());
    world.send(&["a"]).await;
    until(|| gate.begun() == 1).await;
    world.send(&["b"]).await;
    world.send(&["c", "d"]).await;
    world.handle.hand_over();
    gate.leave.add_permits(9);
    until(|| world.lane.is_finished()).await;
    assert_eq!(gate.arrived(), ["a"]);
    let saved = world.feed.journal().cursor("told").unwrap();
    assert_eq!((saved.mark.items, world.status.cursor()), (1, saved));

    let next = Gate::new(9);
    let lane = world.next_lane(next.clone());
    let status = Arc::clone(&lane.handle().status);
    tokio::spawn(lane.run(world.stop.clone(), world.deadline.clone()));
    until(|| status.cursor().mark == world.feed.journal().end()).await;
    assert_eq!(next.arrived(), ["b", "c", "d"]);
}

#[tokio::test]
async fn a_sink_that_takes_too_long_is_given_up_and_the_next_lane_has_it_again() {
    let gate = Gate::new(0);
    let world = World::new(gate.clone());
    world.send(&["a"]).await;
    until(|| gate.begun() == 1).await;
    world.handle.hand_over();
    world.deadline.stop();
    until(|| world.lane.is_finished()).await;
    assert_eq!((gate.arrived().len(), world.status.cursor().mark.items), (0, 0));
    let next = Gate::new(9);
    let lane = world.next_lane(next.clone());
    let status = Arc::clone(&lane.handle().status);
    tokio::spawn(lane.run(world.stop.clone(), Stop::default()));
    until(|| status.cursor().mark == world.feed.journal().end()).await;
    assert_eq!(next.arrived(), ["a"]);
}

#[tokio::test]
async fn a_job_follows_its_sink_to_the_next_lane_until_there_is_none() {
    let gate = Gate::new(0);
    let world = World::new(gate.clone());
    world.send(&["a"]).await;
    until(|| gate.begun() == 1).await;
    let jobs = world.jobs.clone();
    let item = tokio::spawn(async move { jobs.deliver(delivery("again")).await });
    world.handle.hand_over();
    gate.leave.add_permits(1);
    until(|| world.lane.is_finished()).await;
    assert!(!item.is_finished(), "it waits for the next lane");
    let next = Gate::new(9);
    let lane = world.next_lane(next.clone());
    let running = tokio::spawn(lane.run(world.stop.clone(), world.deadline.clone()));
    assert_eq!(item.await.unwrap(), Ok(Vec::new()));
    assert!(next.arrived().contains(&"again".to_owned()));
    world.stop.stop();
    running.await.unwrap();
    assert_eq!(world.jobs.deliver(delivery("more")).await, Err(LaneGone), "no lane follows");
}

#[tokio::test]
async fn a_job_for_a_lane_that_has_died_hears_it() {
    let world = World::new(Gate::new(0));
    world.lane.abort();
    until(|| world.lane.is_finished()).await;
    let told = tokio::time::timeout(Duration::from_secs(5), world.jobs.deliver(delivery("a")));
    assert_eq!(told.await.unwrap(), Err(LaneGone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_still_reads_what_was_before_ends_by_the_deadline() {
    let world = World::new(Gate::new(9));
    world.send(&["a"]).await;
    let disk = FaultyStorage::default();
    let dead = Journal::open(&Options::default(), Arc::new(disk.clone()), |_| ()).unwrap();
    let entry = Entry { head: Vec::new(), body: Bytes::from("x"), items: 1, attachment: () };
    dead.append(entry).await.unwrap();
    disk.hold_reads();
    let lane = world.another_lane(Gate::new(0), &dead);
    let running = tokio::spawn(lane.run(world.stop.clone(), world.deadline.clone()));
    until(|| disk.has_a_read_that_waits()).await;
    world.deadline.stop();
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
    disk.release_reads();
    ended.expect("it does not wait for the disk").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_waits_for_a_disk_ends_by_the_deadline() {
    let world = World::new(Gate::new(0));
    let items = ["a", "b"].map(span_item);
    // One item is not understood when the record is read again, so the record is due for the dead letters.
    world.send_as(&items[..1], &items, 1).await;
    world.deadline.stop();
    let world = World::over(world.drain().await.1, Gate::new(9));
    let disk = FaultyStorage::default();
    let dead = Journal::open(&Options::default(), Arc::new(disk.clone()), |_| ()).unwrap();
    disk.hold_syncs();
    let status = LaneStatus::new("another".to_owned(), "told", Cursor::default());
    let (reader, letters) = (world.feed.reader(Mark::default()), DeadLetters::new(dead));
    let (journal, options) = (world.feed.journal().clone(), LaneOptions::default());
    let lane = Lane::new(reader, Gate::new(9), journal, letters, options, Arc::new(status));
    let running = tokio::spawn(lane.run(world.stop.clone(), world.deadline.clone()));
    let waiting = disk.clone();
    tokio::task::spawn_blocking(move || waiting.until_a_sync_waits()).await.unwrap();
    world.deadline.stop();
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
    disk.release_syncs();
    ended.expect("it does not wait for the disk").unwrap();
}
