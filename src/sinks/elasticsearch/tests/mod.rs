//! Documents, options, answers, templates; then everything against an in-process backend.

mod answers;
mod documents;
mod exact;
pub(crate) mod fake;
mod options;
mod pressure;
mod setup;
mod sink;
mod sizes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use toml::de::DeTable;

use super::*;
use crate::sinks::{Parts, Verdict};
use crate::span::{
    Batch, Detail, Facts, Format, Item, Kind, Receiver, SdkIds, Source, Span, SpanHeader, SpanId,
    SpanReading, Text, TraceId, TraceObject, Usage,
};
use crate::support::problem::Problem;
use fake::Fake;

/// Settings for a cluster that is never contacted.
fn settings(more: &str) -> Settings {
    parse(&format!("endpoints = [\"http://127.0.0.1:9200\"]\n{more}")).unwrap()
}

fn parse(text: &str) -> Result<Settings, Vec<Problem>> {
    super::options::parse(DeTable::parse(text).unwrap())
}

/// A sink for an in-process backend. Stored documents become searchable soon.
fn sink(fake: &Fake, more: &str) -> Elasticsearch {
    restarted(fake, more, Bytes::new())
}

/// A sink that continues where another one stopped.
fn restarted(fake: &Fake, more: &str, state: Bytes) -> Elasticsearch {
    let text = format!("endpoints = [{:?}]\nrefresh_wait = \"5ms\"\n{more}", fake.address);
    let parts = Parts { name: "search".to_owned(), state, ..Parts::default() };
    Elasticsearch::new(parse(&text).unwrap(), &parts, changes::BYTES_MAX).unwrap()
}

const SPANS: &str = "agent-traces-spans";
const TRACES: &str = "agent-traces-traces";

/// 2026-11-21T05:15:09.529503Z.
const START_NS: u64 = 1_795_238_109_529_503_000;

/// An Agents SDK span with only these facts.
#[derive(Debug, Clone)]
struct Told {
    trace: u64,
    span: u64,
    parent: Option<u64>,
    facts: Facts,
    /// The synthetic root above it.
    below_root: Option<u64>,
    /// A start other than the default.
    start_ns: Option<u64>,
    end_ns: Option<u64>,
}

impl Told {
    fn new(trace: u64, span: u64, parent: Option<u64>, kind: Kind) -> Self {
        let facts = Facts { kind, name: Text::from_static(kind.as_str()), ..Facts::default() };
        let (start_ns, end_ns) = (None, None);
        Self { trace, span, parent, facts, below_root: None, start_ns, end_ns }
    }

    fn agent(trace: u64, span: u64, parent: Option<u64>, name: &'static str) -> Self {
        let mut told = Self::new(trace, span, parent, Kind::Agent);
        told.facts.agent = Some(Text::from_static(name));
        told
    }

    fn model_call(trace: u64, span: u64, parent: Option<u64>, input: u64, output: u64) -> Self {
        let mut told = Self::new(trace, span, parent, Kind::Generation);
        told.facts.usage = Usage { input: Some(input), output: Some(output), ..Usage::default() };
        told
    }

    fn item(&self) -> Item {
        let agents_sdk = SdkIds {
            trace: Text::from(trace_name(self.trace)),
            span: Text::from(span_name(self.span)),
            parent: self.parent.map(|parent| Text::from(span_name(parent))),
        };
        let wire = json!({
            "object": "trace.span", "id": &*agents_sdk.span, "trace_id": &*agents_sdk.trace,
            "parent_id": agents_sdk.parent.as_deref(),
            "span_data": {"type": self.sdk_type(), "note": format!("note of {}", self.span)},
        });
        let outline = SpanHeader {
            trace_id: trace_id(self.trace),
            span_id: span_id(self.span),
            parent_id: self.parent.map(span_id),
            start_ns: self.start_ns.unwrap_or(START_NS + self.span * 1_000_000),
            end_ns: self.end_ns.unwrap_or(START_NS + self.span * 1_000_000 + 2_500_000),
            wire: Bytes::from(wire.to_string()),
        };
        let detail = Detail { agents_sdk: Some(agents_sdk), ..Detail::default() };
        let root = self.below_root.map(span_id);
        let format = Fixed { detail, facts: self.facts.clone(), root };
        // A format must be `'static`, so these few are leaked.
        Item::Span(Span::new(outline, Arc::default(), None, Box::leak(Box::new(format))))
    }

    fn sdk_type(&self) -> &'static str {
        if self.facts.kind == Kind::Tool { "function" } else { self.facts.kind.as_str() }
    }
}

#[derive(Debug)]
struct Fixed {
    detail: Detail,
    facts: Facts,
    root: Option<SpanId>,
}

impl Format for Fixed {
    fn is_otlp(&self) -> bool {
        false
    }

    fn detail(&self, _: &Span) -> Detail {
        self.detail.clone()
    }

    fn said(&self, _: &Span, reading: &mut SpanReading) {
        reading.facts = self.facts.clone();
    }

    fn synthetic_root(&self, _: &Span, _: crate::span::RootSpan) -> Option<SpanId> {
        self.root
    }
}

fn trace_id(number: u64) -> TraceId {
    TraceId::from_slice(&u128::from(number + 1).to_be_bytes()).unwrap()
}

fn span_id(number: u64) -> SpanId {
    SpanId::new((number + 1).to_be_bytes()).unwrap()
}

fn trace_name(number: u64) -> String {
    format!("trace_{number:032}")
}

fn span_name(number: u64) -> String {
    format!("span_{number:024}")
}

fn trace_object(trace: u64, workflow: &'static str) -> Item {
    Item::Trace(Arc::new(TraceObject {
        trace_id: trace_id(trace),
        sdk_id: Text::from(trace_name(trace)),
        workflow: Some(Text::from_static(workflow)),
        group: Some(Text::from_static("group")),
        metadata: Some(Text::from_static(r#"{"team":"red","limits":[1,2]}"#)),
        wire: Bytes::from_static(b"{}"),
    }))
}

fn delivery(items: Vec<Item>) -> Delivery {
    let source = Source {
        receiver: Receiver::OpenAi,
        received_at_ns: START_NS + 5_000_000_000,
        ..Source::unknown()
    };
    let count = items.len();
    let mut delivery = Delivery::default();
    delivery.add(&Arc::new(Batch { source, items, bytes: 0 }), 0..count);
    delivery
}

fn told(spans: &[Told]) -> Delivery {
    delivery(spans.iter().map(Told::item).collect())
}

/// Waits until every trace has its summary.
async fn settled(sink: &Elasticsearch) {
    sink.start_summaries();
    let settled = async {
        while sink.backend.changes().owed_since_ms().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let longest = Duration::from_secs(20);
    tokio::time::timeout(longest, settled).await.expect("summaries are made");
}

/// Returns what remains to be delivered after a report, as a lane computes it.
fn rest(delivery: &Delivery, report: &Report) -> Option<Delivery> {
    let again = |place: &usize| match report.verdicts.of(*place) {
        Verdict::Delivered => false,
        Verdict::Retry => true,
        other => panic!("{other:?}"),
    };
    let places: Vec<usize> = (0..delivery.len()).filter(again).collect();
    (!places.is_empty()).then(|| delivery.only(&places))
}

/// Delivers until everything has arrived.
async fn deliver_all(sink: &Elasticsearch, delivery: Delivery) {
    let mut waiting = Some(delivery);
    while let Some(next) = waiting.take() {
        waiting = rest(&next, &sink.deliver(&next).await);
    }
}

/// Returns what `/metrics` shows.
fn page_of(metrics: &crate::telemetry::Metrics) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    page
}

fn doc(fake: &Fake, index: &str, id: &str) -> Json {
    fake.docs(index).get(id).cloned().unwrap_or(Json::Null)
}
