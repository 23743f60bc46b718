//! Faults of a real server, induced one after the other: nothing is lost, nothing waits for one invalid document, and all counts add up.

use std::sync::Arc;

use serde_json::{Value, json};

use super::World;
use super::compare::assert_is_there;
use super::truth::{Captured, Truth, captured};
use crate::servers::{self, Node};

/// A fault that an operator can induce and repair while the server runs.
struct Fault {
    name: &'static str,
    induce: Change,
    mend: Change,
}

/// A request with its body.
type Change = (&'static str, &'static str, fn() -> Value);

/// Both indices, spans and traces.
const INDICES: &str = "/agent-traces-spans,agent-traces-traces";

const FAULTS: [Fault; 5] = [
    Fault {
        name: "the flood stage of a full disk",
        induce: ("PUT", "_settings", || json!({ "index.blocks.read_only_allow_delete": true })),
        mend: ("PUT", "_settings", || json!({ "index.blocks.read_only_allow_delete": null })),
    },
    Fault {
        name: "a read-only index",
        induce: ("PUT", "_settings", || json!({ "index.blocks.write": true })),
        mend: ("PUT", "_settings", || json!({ "index.blocks.write": null })),
    },
    Fault {
        name: "a read-only cluster",
        induce: (
            "PUT",
            "/_cluster/settings",
            || json!({ "persistent": { "cluster.blocks.read_only": true } }),
        ),
        mend: (
            "PUT",
            "/_cluster/settings",
            || json!({ "persistent": { "cluster.blocks.read_only": null } }),
        ),
    },
    Fault {
        name: "a closed index",
        induce: ("POST", "_close", || Value::Null),
        mend: ("POST", "_open", || Value::Null),
    },
    Fault {
        name: "a circuit breaker",
        induce: (
            "PUT",
            "/_cluster/settings",
            || json!({ "persistent": { "indices.breaker.total.limit": "1%" } }),
        ),
        mend: (
            "PUT",
            "/_cluster/settings",
            || json!({ "persistent": { "indices.breaker.total.limit": null } }),
        ),
    },
];

async fn change(node: &Node, (method, path, body): Change) {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("{INDICES}/{path}") };
    let answer = match method {
        "PUT" => node.put(&path, body()).await,
        _ => node.post(&path, body()).await,
    };
    assert_eq!(answer["acknowledged"], true, "{path}: {answer}");
}

/// Returns requests of moderate size.
fn some() -> Vec<Captured> {
    captured().into_iter().filter(|request| !request.name.contains("old_sdk")).collect()
}

#[tokio::test]
async fn a_server_that_takes_nothing_for_a_while_gets_everything_afterwards() {
    let requests = some();
    let truth = Truth::of(&requests);
    for server in servers::available() {
        let world = World::alone(&server, &[], "").await;
        let mut parts = requests.chunks(requests.len().div_ceil(FAULTS.len() + 1));
        world.send(parts.next().unwrap()).await;
        world.settled().await;
        for (fault, part) in FAULTS.iter().zip(parts) {
            change(&world.node, fault.induce).await;
            world.send(part).await;
            let sink = world
                .until(fault.name, |sink| sink["state"] != "running" && sink["retries"] != 0)
                .await;
            assert_ne!(sink["pending"], 0, "{}: {sink}", fault.name);
            assert!(world.place.ask("/health").unwrap().contains("degraded"), "{}", fault.name);
            change(&world.node, fault.mend).await;
            let sink = world.settled().await;
            assert_eq!(sink["dead_lettered"], 0, "{}: {sink}", fault.name);
        }
        assert_is_there(&world, &truth).await;
    }
}

/// The write queue has space for two requests in addition to the current one, in front of four shards: of many concurrent requests, some
/// documents are refused.
#[tokio::test]
async fn what_a_full_write_queue_refuses_is_sent_again() {
    let (requests, settings) =
        (some(), [("thread_pool.write.size", "1"), ("thread_pool.write.queue_size", "2")]);
    let truth = Truth::of(&requests);
    for server in servers::available() {
        let node = Node::start(&server, &settings).await;
        let custom = json!({ "template": { "settings": { "index.number_of_shards": 3 } } });
        node.put("/_component_template/agent-traces-spans@custom", custom).await;
        let options = "concurrency = 4\nbatch = { items_max = 100 }";
        let world = World::new(node.into(), "agent-traces", options).await;
        world.send(&requests).await;
        let sink = world.settled().await;
        assert_eq!(sink["dead_lettered"], 0, "{sink}");
        assert_is_there(&world, &truth).await;
        let stats = world.node.get("/_nodes/stats/thread_pool").await;
        let nodes = stats["nodes"].as_object().unwrap().values();
        let refused: u64 =
            nodes.map(|node| node["thread_pool"]["write"]["rejected"].as_u64().unwrap()).sum();
        assert!(refused > 0, "the queue was never full: {stats}");
        let metrics = world.place.ask("/metrics").unwrap();
        let name = "spanferry_es_docs_total{sink=\"search\",outcome=\"retried\"} ";
        let retried = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_ne!(retried, "0", "{refused} parts of requests were refused");
        println!(
            "{}: the write queue refused {refused} parts of requests",
            world.node.server().name
        );
    }
}

#[tokio::test]
async fn an_index_that_the_server_does_not_make_is_made() {
    let requests = some();
    let truth = Truth::of(&requests);
    for server in servers::available() {
        let settings = [("action.auto_create_index", "false")];
        let world = World::alone(&server, &settings, "").await;
        world.send(&requests).await;
        let sink = world.settled().await;
        assert_eq!(sink["dead_lettered"], 0, "{sink}");
        assert_is_there(&world, &truth).await;
        for index in ["agent-traces-spans", "agent-traces-traces"] {
            let mapping = world.node.get(&format!("/{index}/_mapping")).await;
            assert_eq!(mapping[index]["mappings"]["dynamic"], "false", "{mapping}");
        }
    }
}

/// A document that the user's mapping cannot hold is stored with all free-form fields folded into one text.
#[tokio::test]
async fn what_a_users_own_mapping_refuses_is_folded_and_its_neighbours_are_not() {
    let requests = some();
    let truth = Truth::of(&requests);
    for server in servers::available() {
        let node = Node::shared(&server).await;
        for (prefix, custom) in [
            // Attributes are indexed by any name and type, up to a limit.
            (
                "limited",
                json!({
                    "settings": { "index.mapping.total_fields.limit": 80 },
                    "mappings": { "properties": { "attributes": { "type": "object", "enabled": true, "dynamic": true } } },
                }),
            ),
            // No attribute is in the mapping.
            (
                "strict",
                json!({ "mappings": { "properties": { "attributes": { "type": "object", "enabled": true, "dynamic": "strict" } } } }),
            ),
        ] {
            let path = format!("/_component_template/{prefix}-spans@custom");
            node.put(&path, json!({ "template": custom })).await;
            let world = World::new(Arc::clone(&node), prefix, "").await;
            world.send(&requests).await;
            let sink = world.settled().await;
            assert_eq!(sink["dead_lettered"], 0, "{prefix}: {sink}");
            assert_is_there(&world, &truth).await;
            let spans = world.documents("spans").await;
            let (folded, whole): (Vec<_>, Vec<_>) =
                spans.iter().partition(|(_, span)| span.get("raw_json").is_some());
            assert!(!folded.is_empty(), "{prefix}: nothing was refused");
            assert!(folded.iter().all(|(_, span)| span["truncated"] == true), "{prefix}");
            assert!(prefix == "strict" || !whole.is_empty(), "{prefix}: everything was folded");
            println!(
                "{}, {prefix}: {} folded, {} whole",
                server.server.name,
                folded.len(),
                whole.len()
            );
        }
    }
}

/// A mapping without the sink's own fields accepts no form of a document: each becomes a dead letter, and the storable ones are stored.
#[tokio::test]
async fn what_is_taken_in_no_form_becomes_a_dead_letter() {
    let requests = some();
    let truth = Truth::of(&requests);
    for server in servers::available() {
        let node = Node::shared(&server).await;
        let mappings =
            json!({ "dynamic": "strict", "properties": { "trace_id": { "type": "keyword" } } });
        let template =
            json!({ "index_patterns": ["refusing-spans*"], "template": { "mappings": mappings } });
        node.put("/_index_template/refusing-spans", template).await;
        // Trace objects are accepted.
        let mappings =
            json!({ "properties": { "metadata": { "type": "object", "enabled": false } } });
        let template =
            json!({ "index_patterns": ["refusing-traces"], "template": { "mappings": mappings } });
        node.put("/_index_template/refusing-traces", template).await;
        let options = "manage_templates = \"off\"\nroot_span = \"never\"";
        let world = World::new(node, "refusing", options).await;
        world.send(&requests).await;
        let sink = world.settled().await;
        assert_eq!(sink["dead_lettered"], truth.spans.len(), "{sink}");
        assert_eq!(sink["delivered"], truth.traces.len(), "{sink}");
        assert_eq!(world.documents("spans").await, []);
    }
}

/// The server answers a body that is too large with an empty 413: the request is halved, and the next ones are smaller.
#[tokio::test]
async fn a_request_that_is_too_large_is_halved_until_it_fits() {
    const LIMIT_KB: u64 = 700;
    let requests = some();
    let sent_kb = requests.iter().map(|request| request.body.len() as u64).sum::<u64>() >> 10;
    let truth = Truth::of(&requests);
    for server in servers::available() {
        let settings = [("http.max_content_length", &*format!("{LIMIT_KB}kb"))];
        let options =
            "concurrency = 1\nbatch = { items_max = 5000, age_max = \"2s\", bytes_max = \"4MiB\" }";
        let world = World::alone(&server, &settings, options).await;
        world.send(&requests).await;
        let sink = world.settled().await;
        assert_eq!(sink["dead_lettered"], 0, "{sink}");
        let deliveries = sink["deliveries"].as_u64().unwrap();
        assert!(LIMIT_KB < sent_kb / deliveries, "nothing was too large: {sink}");
        assert_is_there(&world, &truth).await;
    }
}
