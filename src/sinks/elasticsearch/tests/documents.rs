//! What spans and traces look like as documents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value as Json;

use super::*;
use crate::sinks::elasticsearch::server::Server;
use crate::sinks::samples;
use crate::span::{Attribute, Detail, Facts, Item, Payload, Text, Value};
use crate::support::golden;

const GOLDEN: &str = "sinks-elasticsearch/bulk.ndjson";

/// The requests that a delivery makes, one after the other.
fn bulk(settings: &Settings, delivery: &Delivery) -> String {
    let encoder = Encoder {
        settings,
        server: Server::assumed(settings.flavor),
        request_bytes_max: settings.request_bytes_max,
        doc_bytes_max: settings.doc_bytes_max,
    };
    let mut traces = Traces::new(Limits::default(), settings.refresh_wait);
    let now = Instant::now().into_std();
    let bulks = encoder.delivery(delivery, &mut traces, now);
    bulks.into_iter().map(|bulk| String::from_utf8(bulk.body).unwrap()).collect()
}

/// Actions with their documents.
fn pairs(bulk: &str) -> Vec<(Json, Json)> {
    let lines: Vec<Json> = bulk.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

fn every_item() -> Delivery {
    samples::delivery(samples::START_NS, samples::every_item())
}

#[test]
fn the_documents_of_every_item_are_those_of_the_golden() {
    let written = bulk(&settings("payload_search = true"), &every_item());
    if std::env::vars_os().any(|(name, _)| name == "UPDATE_GOLDENS") {
        std::fs::create_dir_all(golden::path("sinks-elasticsearch")).unwrap();
        std::fs::write(golden::path(GOLDEN), &written).unwrap();
    }
    let kept = String::from_utf8(golden::read(GOLDEN)).unwrap();
    for (line, (written, kept)) in written.lines().zip(kept.lines()).enumerate() {
        assert_eq!(written, kept, "line {}; UPDATE_GOLDENS=1 accepts it", line + 1);
    }
    assert_eq!(written.lines().count(), kept.lines().count());
}
