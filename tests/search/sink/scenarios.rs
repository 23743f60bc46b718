//! All captured traffic of the Agents SDK, through a real daemon into a real server.

use std::process::Command;
use std::sync::Arc;

use super::World;
use super::compare::assert_is_there;
use super::truth::{Truth, captured};
use crate::dashboards;
use crate::process::POLL_EVERY;
use crate::servers::{self, Node};

/// Every span is there once with its parent, agent, tokens and errors; every trace has the summary that its spans add up to.
#[tokio::test]
async fn every_captured_run_is_there_with_its_tree_names_tokens_and_summary() {
    let requests = captured();
    let truth = Truth::of(&requests);
    for server in servers::available() {
        let world = World::alone(&server, &[], "").await;
        world.send(&requests).await;
        let sink = world.settled().await;
        assert_eq!(sink["dead_lettered"], 0, "{sink}");
        assert_is_there(&world, &truth).await;
        dashboards::assert_alive(&world.node).await;
        report(&world, &truth).await;
    }
}

/// The same with every request sent again after a kill, when the daemon has forgotten it: no duplicates, and summaries stay exact.
#[tokio::test]
async fn what_is_sent_again_after_a_restart_changes_nothing() {
    let requests: Vec<_> =
        captured().into_iter().filter(|request| !request.name.contains("batches")).collect();
    let truth = Truth::of(&requests);
    for server in servers::available() {
        let mut world = World::new(Node::shared(&server).await, "again", "").await;
        // The second half comes after a restart, and out of order.
        let (first, second) = requests.split_at(requests.len() / 2);
        world.send(first).await;
        world.kill();
        world.start().await;
        world.send(second.iter().rev().chain(first)).await;
        world.settled().await;
        assert_is_there(&world, &truth).await;
    }
}

/// JSON lines of a first daemon are imported through a second one: the documents and summaries are those of the live run.
#[tokio::test]
async fn what_is_imported_from_lines_has_the_documents_and_summaries_of_the_live_run() {
    let requests = captured();
    let truth = Truth::of(&requests);
    for server in servers::available() {
        let lines = "[sinks.written]\ntype = \"file\"\npath = \"lines.jsonl\"\n";
        let live = World::new(Node::shared(&server).await, "live", lines).await;
        live.send(&requests).await;
        while live.sinks().iter().any(|sink| sink["pending"] != 0) {
            tokio::time::sleep(POLL_EVERY).await;
        }
        assert_is_there(&live, &truth).await;

        let second = World::new(Arc::clone(&live.node), "imported", "").await;
        let lines = live.dir.path().join("lines.jsonl");
        let endpoint = format!("http://{}", second.place.http);
        let mut import = Command::new(env!("CARGO_BIN_EXE_spanferry"));
        import.args(["import", "--endpoint", &endpoint]).arg(lines);
        assert!(import.status().unwrap().success());
        second.settled().await;
        assert_is_there(&second, &truth).await;
    }
}

/// Prints what a user sees, in counts read back from the server.
async fn report(world: &World, truth: &Truth) {
    let (spans, traces) = (world.documents("spans").await, world.documents("traces").await);
    let sum = |field: &str| {
        let of = |document: &serde_json::Value| document.pointer(field)?.as_u64();
        spans.iter().filter_map(|(_, document)| of(document)).sum::<u64>()
    };
    let with = |field: &str| {
        spans.iter().filter(|(_, document)| document.pointer(field).is_some()).count()
    };
    println!(
        "{}: {} spans sent, {} documents, {} traces, {} with an agent, {} + {} tokens, {} errors, 0 twice, 0 without their parent",
        world.node.server().name,
        truth.spans.len(),
        spans.len(),
        traces.len(),
        with("/agent/name"),
        sum("/usage/input_tokens"),
        sum("/usage/output_tokens"),
        sum("/error_flag"),
    );
}
