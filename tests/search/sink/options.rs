//! Options that change after indices were made from others: what can be is migrated, and what cannot holds the sink. No span becomes
//! a dead letter, and no mapping is guessed.

use std::sync::Arc;

use serde_json::Value;

use super::truth::captured;
use super::{Captured, World};
use crate::servers::{self, Product};

const SPANS: &str = "agent-traces-spans";

impl World {
    /// Another daemon on the same node, with other options.
    async fn other(&self, options: &str) -> Self {
        let mut other = Self::with(Arc::clone(&self.node), self.prefix, options);
        other.start().await;
        other
    }

    async fn is_held(&self, request: &Captured, why: &str) {
        self.send([request]).await;
        let sink = self.until("held", |sink| sink["state"] == "holding").await;
        assert_eq!(sink["dead_lettered"], 0, "{sink}");
        assert!(sink["problem"].as_str().unwrap().contains(why), "{sink}");
        assert!(self.place.ask("/health").unwrap().contains("degraded"));
    }

    async fn mapping(&self) -> Value {
        let mapping = self.node.get(&format!("/{SPANS}/_mapping")).await;
        mapping[SPANS]["mappings"].clone()
    }
}

#[tokio::test]
async fn options_that_change_are_migrated_or_hold_the_sink() {
    let requests = captured();
    for server in servers::available() {
        let world = World::new(&server, &[], "").await;
        world.send(&requests[..1]).await;
        world.settled().await;
        let streamed = world.other("rotation = \"data_stream\"").await;
        streamed.is_held(&requests[2], "made for other options").await;
        // Elasticsearch's packages come without the types of words and of flattened objects, which is as good as another server's.
        let is_opensearch = world.node.server().product == Product::OpenSearch;
        let why = if is_opensearch { "made for other options" } else { "as configured" };
        let indexed = world.other("attributes_mapping = \"flat_object\"").await;
        indexed.is_held(&requests[3], why).await;
        let unknown = world.other("attributes_mapping = \"flattened\"").await;
        unknown.is_held(&requests[4], "as configured").await;
        let searched = world.other("payload_search = true").await;
        if is_opensearch {
            searched.send(&requests[1..2]).await;
            searched.settled().await;
            assert!(world.mapping().await["properties"]["input_text"].is_object());
        } else {
            searched.is_held(&requests[1], why).await;
        }
        assert_eq!(world.mapping().await["dynamic"], "false");
    }
}

#[tokio::test]
async fn an_index_that_is_deleted_with_its_template_gets_no_guessed_mapping() {
    let requests = captured();
    for server in servers::available() {
        let world = World::new(&server, &[], "trace_summary = \"off\"").await;
        world.send(&requests[..1]).await;
        world.settled().await;
        world.node.delete(&format!("/{SPANS}")).await;
        world.node.delete(&format!("/_index_template/{SPANS}")).await;
        world.is_held(&requests[1], SPANS).await;
        world.node.delete(&format!("/{SPANS}")).await;
        let sink = world.settled().await;
        assert_eq!(sink["dead_lettered"], 0, "{sink}");
        assert_eq!(world.mapping().await["dynamic"], "false");
    }
}
