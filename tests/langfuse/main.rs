//! The Langfuse sink and a whole daemon against a Langfuse in this process: each rule, each fault, every captured request.
//!
//! A test cannot have a real Langfuse. Therefore `fake.rs` answers as version 4.16.0 does (keys, encodings, the 200 that is a queue's job,
//! 429, 413, 500, 503, no answer at all), `mapping.rs` makes rows of accepted requests as Langfuse's worker does, and loses an entire
//! request if the worker would, and `prices.rs` has some rows of its price table. They are written from measurements and from reading
//! Langfuse, not from the sink's code. Tested are each sanitising rule on hand-made spans, each shape of usage, every type of both SDKs,
//! and every captured request through a daemon. Each of its traces is compared with its items: spans once, no parent missing, types,
//! levels, exact tokens, dollars to 1e-9, and session, user, tags and environment on every row. The printed table is what a user sees. Each
//! fault hits a daemon that must lose nothing and send no span under two starts.
//!
//! Nothing may be worse than without Spanferry: for every captured request, report and program, `untouched.rs` compares what Langfuse makes
//! of the client's body with what it makes of the sink's. Types, sessions, users, tags, input and output must be there, and sums must be
//! right. Where Langfuse's own sums differ, a table explains why they are wrong.
//!
//! Not proven here: that the real Langfuse behaves as it was read, now or in future.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests may panic, and show what they see"
)]

#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../planted/mod.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod planted;
mod acceptance;
#[path = "../reports/case.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod cases;
mod fake;
mod faults;
mod mapping;
mod agents_sdk;
mod parts;
mod prices;
mod rules;
mod secrets;
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
use spanferry::normalize::{Encoding, Envelope, Limits, decode};
use spanferry::sinks::{Delivery, Parts, Report, Sink, langfuse};
use spanferry::span::{Receiver, Source, TraceContext, TraceId};

use fake::Fake;
use mapping::Row;

/// 2026-11-21T05:15:09.529503Z.
pub(crate) const START_NS: u64 = 1_795_238_109_529_503_000;

/// Creates a sink with these options.
pub(crate) fn sink(options: &str) -> Arc<dyn Sink> {
    let table = toml::de::DeTable::parse(options).unwrap();
    let plan = (langfuse::KIND.parse)(table).unwrap_or_else(|problems| panic!("{problems:?}"));
    plan.build(Parts { name: "langfuse".to_owned(), ..Parts::default() }).unwrap()
}

/// Makes a delivery of a client's body, as a lane does.
pub(crate) fn delivery(receiver: Receiver, body: impl Into<Bytes>) -> Delivery {
    let body = body.into();
    let is_agents_sdk = receiver == Receiver::OpenAi;
    let envelope = Envelope::new(
        Source { receiver, received_at_ns: START_NS + 5_000_000_000, ..Source::unknown() },
        if is_agents_sdk { Encoding::Json } else { Encoding::Protobuf },
        body.len(),
    );
    let decoded = decode(&envelope, &body, &Limits::default()).unwrap();
    assert_eq!(decoded.refused, []);
    let batch = Arc::new(decoded.batch);
    let mut delivery = Delivery::default();
    delivery.add(&batch, 0..batch.items.len());
    delivery
}

/// Sets the same context for every trace of a delivery.
pub(crate) fn known(delivery: Delivery, context: &TraceContext) -> Delivery {
    let ids: Vec<TraceId> = delivery.items().map(|(_, item)| item.trace_id()).collect();
    let contexts: HashMap<_, _> = ids.into_iter().map(|id| (id, context.clone())).collect();
    delivery.with_contexts(Arc::new(contexts))
}

/// Returns Langfuse's rows after a delivery with these additional options.
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

// === Hand-made spans ===

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

/// Returns a valid span with these attributes.
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

/// Builds a request with these spans under a resource with these attributes.
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

/// Returns the row of one span with these attributes.
pub(crate) async fn row(attributes: Vec<KeyValue>) -> Row {
    arrived("", &otlp(vec![span(attributes)])).await.remove(0)
}
