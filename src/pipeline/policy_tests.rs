//! What a lane learns of its sink, says of it and counts.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::tests::{Told, World, refused};
use super::*;
use crate::journal::Cursor;
use crate::sinks::{Delivery, Outcome, Pending, Rejection, Sink};

/// Takes requests up to a size, and remembers how large each was.
#[derive(Debug)]
struct Narrow {
    bytes_max: usize,
    sizes: Mutex<Vec<usize>>,
}

impl Sink for Narrow {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Outcome> {
        self.sizes.lock().unwrap().push(delivery.bytes());
        let outcome = if self.bytes_max < delivery.bytes() {
            Outcome::TooLarge {
                request_bytes: delivery.bytes(),
                reason: "413".to_owned(),
                answer: String::new(),
            }
        } else {
            Outcome::Delivered
        };
        Box::pin(async { outcome })
    }
}

#[tokio::test]
async fn what_was_too_large_is_not_sent_again_in_that_size() {
    let sink = Arc::new(Narrow { bytes_max: 250_000, sizes: Mutex::default() });
    let world = World::new(sink.clone());
    // Four of them are too large, three are not.
    let large = |round: &str, at: u32| format!("{round}{at}").repeat(40_000);
    for round in ["a", "b", "c"] {
        let ids: Vec<_> = (0..4).map(|at| large(round, at)).collect();
        world.send(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        world.settled().await;
    }
    let refused: Vec<_> =
        sink.sizes.lock().unwrap().iter().copied().filter(|size| 250_000 < *size).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let learned = world.status.learned_bytes_max.load(Ordering::Relaxed);
    assert!(learned <= refused[0] / 10 * 9 && 250_000 < learned, "{learned}");
    assert_eq!((world.status.delivered(), world.status.cursor().dead_lettered), (12, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_said_once_a_minute_and_again_when_it_changes() {
    let status = LaneStatus::new("told".to_owned(), "told", Cursor::default());
    let hold = |status: &LaneStatus| status.set_state(LaneState::Holding, Some("401".to_owned()));
    assert!(hold(&status));
    let mut said = 0;
    for _ in 0..120 {
        tokio::time::advance(Duration::from_secs(1)).await;
        said += u32::from(hold(&status));
    }
    assert_eq!(said, 2);
    assert!(status.set_state(LaneState::Running, None));
    assert!(!status.set_state(LaneState::Running, None));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_now_works_and_now_does_not_is_mentioned_once_a_minute() {
    let status = LaneStatus::new("told".to_owned(), "told", Cursor::default());
    let mut said = 0;
    for _ in 0..1200 {
        tokio::time::advance(Duration::from_millis(100)).await;
        said += u32::from(status.set_state(LaneState::Retrying, None));
        said += u32::from(status.set_state(LaneState::Running, None));
    }
    assert_eq!(said, 4, "two times that it does not, two times that it does");
    assert!(status.set_state(LaneState::Holding, None), "what is worse is said at once");
    assert!(status.set_state(LaneState::Running, None));
}

#[tokio::test]
async fn troubles_are_counted_by_their_kind() {
    let rejection = Rejection { index: 0, reason: "odd".to_owned(), answer: String::new() };
    let sink = Told::answering([
        refused("down"),
        Outcome::Stop { reason: "401".to_owned() },
        Outcome::Reject(vec![rejection]),
        Outcome::Malformed { reason: "400".to_owned(), answer: String::new() },
    ]);
    let world = World::new(sink);
    world.send(&["a", "b"]).await;
    world.settled().await;
    world.send(&["c"]).await;
    world.settled().await;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((count(&world.status.retries), count(&world.status.holds)), (2, 1));
    let dead: Vec<_> = world.status.dead_letters().filter(|(_, items)| *items > 0).collect();
    assert_eq!(dead, [(RejectClass::Item, 1), (RejectClass::Malformed, 1)]);
}

/// Says of everything that some of it was left out.
#[derive(Debug)]
struct Vague;

impl Sink for Vague {
    fn deliver<'a>(&'a self, _delivery: &'a Delivery) -> Pending<'a, Outcome> {
        Box::pin(async { Outcome::Incomplete { rejected: 2, reason: "2 of them".to_owned() } })
    }
}

#[tokio::test]
async fn what_the_far_side_left_out_without_saying_which_is_counted() {
    let world = World::new(Arc::new(Vague));
    world.send(&["a", "b", "c"]).await;
    world.settled().await;
    assert_eq!(world.status.left_out.load(Ordering::Relaxed), 2);
    assert_eq!(world.status.delivered(), 3, "they arrived; the far side answers for the rest");
}
