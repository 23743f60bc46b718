//! Options that change after indices were made with others: what can be migrated is migrated, and anything else holds the sink. No span
//! becomes a dead letter, and no mapping is guessed.

use std::sync::Arc;

use serde_json::{Value, json};

use super::truth::captured;
use super::{Captured, World};
use crate::servers::{self, Node};

impl World {
    /// Starts another daemon on the same node, with other options.
    async fn other(&self, options: &str) -> Self {
        Self::new(Arc::clone(&self.node), self.prefix, options).await
    }

    fn spans(&self) -> String {
        format!("{}-spans", self.prefix)
    }

    async fn is_held(&self, request: &Captured, why: &str) {
        self.send([request]).await;
        let sink = self.until("held", |sink| sink["state"] == "holding").await;
        assert_eq!(sink["dead_lettered"], 0, "{sink}");
        assert!(sink["problem"].as_str().unwrap().contains(why), "{sink}");
        assert!(self.place.ask("/health").unwrap().contains("degraded"));
    }

    /// Returns why an option holds the sink. Elastic's packages lack some field types, and 7.17's lack data streams ("unknown field
    /// `data_stream`"), as another server might: so the server is asked whether it accepts such a template.
    async fn why(&self, mut template: Value) -> &'static str {
        template["index_patterns"] = json!(["probe-*"]);
        let is_known = self.node.takes("/_index_template/probe", &template).await;
        if is_known { "made for other options" } else { "as configured" }
    }

    async fn mapping(&self) -> Value {
        let spans = self.spans();
        let mapping = self.node.get(&format!("/{spans}/_mapping")).await;
        mapping[&spans]["mappings"].clone()
    }
}

#[tokio::test]
async fn options_that_change_are_migrated_or_hold_the_sink() {
    let requests = captured();
    for server in servers::available() {
        let world = World::new(Node::shared(&server).await, "options", "").await;
        world.send(&requests[..1]).await;
        world.settled().await;
        let field =
            |kind| json!({"template": {"mappings": {"properties": {"field": {"type": kind}}}}});
        let stream = json!({"data_stream": {}});
        for (option, needs, request) in [
            ("rotation = \"data_stream\"", stream, &requests[2]),
            ("attributes_mapping = \"flat_object\"", field("flat_object"), &requests[3]),
            ("attributes_mapping = \"flattened\"", field("flattened"), &requests[4]),
        ] {
            let why = world.why(needs).await;
            world.other(option).await.is_held(request, why).await;
        }
        let searched = world.other("payload_search = true").await;
        let why = world.why(field("match_only_text")).await;
        if why == "made for other options" {
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
        let world =
            World::new(Node::shared(&server).await, "deleted", "trace_summary = \"off\"").await;
        world.send(&requests[..1]).await;
        world.settled().await;
        let spans = world.spans();
        // The template goes first: the root that is sent some seconds after its trace must not find it and thereby create a valid index.
        world.node.delete(&format!("/_index_template/{spans}")).await;
        world.node.delete(&format!("/{spans}")).await;
        world.is_held(&requests[1], &spans).await;
        world.node.delete(&format!("/{spans}")).await;
        let sink = world.settled().await;
        assert_eq!(sink["dead_lettered"], 0, "{sink}");
        assert_eq!(world.mapping().await["dynamic"], "false");
    }
}
