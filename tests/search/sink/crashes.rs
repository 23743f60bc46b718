//! SIGKILL, to the daemon and to the server, in the middle of deliveries.

use std::time::Duration;

use super::World;
use super::compare::assert_is_there;
use super::truth::{Truth, captured};
use crate::servers;

/// Times of a kill after the last acknowledgement: before anything is delivered, and during delivery.
const MOMENTS_MS: [u64; 6] = [0, 20, 60, 150, 250, 400];

#[tokio::test]
async fn what_was_acknowledged_is_there_once_whoever_is_killed() {
    let requests = captured();
    let truth = Truth::of(&requests);
    for server in servers::available() {
        let mut world =
            World::alone(&server, &[], "concurrency = 2\nbatch = { items_max = 50 }").await;
        let parts = requests.chunks(requests.len().div_ceil(MOMENTS_MS.len()));
        for (number, (part, moment)) in parts.zip(MOMENTS_MS).enumerate() {
            world.send(part).await;
            tokio::time::sleep(Duration::from_millis(moment)).await;
            world.kill();
            if number % 2 == 1 {
                // What the server acknowledged before is on its disk.
                world.node_mut().kill();
                world.start().await;
                let part_again = &part[..1];
                world.send(part_again).await;
                world.node_mut().restart().await;
            } else {
                world.start().await;
            }
        }
        let sink = world.settled().await;
        assert_eq!(sink["dead_lettered"], 0, "{sink}");
        assert_is_there(&world, &truth).await;
    }
}
