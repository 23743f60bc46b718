//! The Langfuse sink against a Langfuse of this process, which takes, refuses and loses what the real one does.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests may panic, and show what they see"
)]

#[path = "../fixtures/mod.rs"]
mod fixtures;
mod acceptance;
#[path = "../reports/case.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod cases;
mod fake;
mod faults;
mod mapping;
mod native;
mod prices;
mod rules;
mod server;
mod untouched;
mod world;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use spanferry::normalize::{Coding, Encoding, Envelope, Limits, decode};
use spanferry::sinks::{Delivery, Parts, Report, Sink, langfuse};
use spanferry::span::{Receiver, Source, TraceContext, TraceId};

use fake::Fake;
use mapping::Row;

/// 2026-11-21T05:15:09.529503Z.
pub(crate) const START_NS: u64 = 1_795_238_109_529_503_000;

/// A sink with these options.
pub(crate) fn sink(options: &str) -> Arc<dyn Sink> {
    let table = toml::de::DeTable::parse(options).unwrap();
    let plan = (langfuse::KIND.parse)(table).unwrap_or_else(|problems| panic!("{problems:?}"));
    plan.build(Parts { name: "langfuse".to_owned(), ..Parts::default() }).unwrap()
}

/// What a client sent, as a lane hands it over.
pub(crate) fn delivery(receiver: Receiver, body: impl Into<Bytes>) -> Delivery {
    let body = body.into();
    let is_native = receiver == Receiver::OpenAi;
    let envelope = Envelope {
        source: Source { receiver, received_at_ns: START_NS + 5_000_000_000, ..Source::unknown() },
        encoding: if is_native { Encoding::Json } else { Encoding::Protobuf },
        coding: Coding::Identity,
        items: 0,
        body_bytes: body.len() as u64,
        resent: Vec::new(),
        aside: None,
    };
    let decoded = decode(&envelope, &body, &Limits::default()).unwrap();
    assert_eq!(decoded.refused, []);
    let batch = Arc::new(decoded.batch);
    let mut delivery = Delivery::default();
    delivery.add(&batch, 0..batch.items.len());
    delivery
}

/// The same context for every trace of a delivery.
pub(crate) fn known(delivery: Delivery, context: &TraceContext) -> Delivery {
    let ids: Vec<TraceId> = delivery.items().map(|(_, item)| item.trace_id()).collect();
    let contexts: HashMap<_, _> = ids.into_iter().map(|id| (id, context.clone())).collect();
    delivery.with_contexts(Arc::new(contexts))
}

/// What Langfuse has after a delivery with these options more.
pub(crate) async fn arrived(options: &str, delivery: &Delivery) -> Vec<Row> {
    let fake = Fake::start().await;
    let sink = sink(&format!("{}{options}", fake.options()));
    assert_eq!(sink.deliver(delivery).await, Report::delivered());
    assert_eq!(fake.lost(), Vec::<String>::new());
    let rows = fake.rows();
    for row in &rows {
        assert_eq!(row.lost_on_v3, Vec::<String>::new(), "{row:?}");
        assert_eq!(row.garbled, Vec::<String>::new(), "{row:?}");
    }
    rows
}

// === Spans made by hand ===

pub(crate) fn any(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

pub(crate) fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Any::StringValue(value.to_owned()))
}

pub(crate) fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Any::IntValue(value))
}

/// A sound span with these attributes.
pub(crate) fn span(attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: vec![9; 8],
        parent_span_id: vec![3; 8],
        name: "work".to_owned(),
        kind: 1,
        start_time_unix_nano: START_NS,
        end_time_unix_nano: START_NS + 2_000_000,
        attributes,
        status: Some(Status::default()),
        ..Span::default()
    }
}

/// A request with these spans under a resource with these attributes.
pub(crate) fn request(resource: Vec<KeyValue>, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope =
        InstrumentationScope { name: "by hand".to_owned(), ..InstrumentationScope::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: resource, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

pub(crate) fn otlp(spans: Vec<Span>) -> Delivery {
    delivery(Receiver::OtlpHttp, request(Vec::new(), spans).encode_to_vec())
}

/// The row of one span with these attributes.
pub(crate) async fn row(attributes: Vec<KeyValue>) -> Row {
    arrived("", &otlp(vec![span(attributes)])).await.remove(0)
}
