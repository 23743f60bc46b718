//! Properties of OTLP decoding, with the crate `opentelemetry-proto` as the oracle.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use prost::Message as _;

use super::{
    canonical, json, oracle_spans, passed_on, plain_body, protobuf, rebuilt, without_empty_status,
    written,
};
use crate::support::golden;

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        any::<String>().prop_map(|text| Some(Any::StringValue(text))),
        any::<bool>().prop_map(|value| Some(Any::BoolValue(value))),
        any::<i64>().prop_map(|value| Some(Any::IntValue(value))),
        (-1e18..1e18).prop_map(|value| Some(Any::DoubleValue(value))),
        any::<Vec<u8>>().prop_map(|bytes| Some(Any::BytesValue(bytes))),
        // Long enough that lengths take two and three bytes.
        (0_usize..40_000).prop_map(|length| Some(Any::StringValue("x".repeat(length)))),
    ];
    let leaf = leaf.prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 24, 5, |inner| {
        let array =
            vec(inner.clone(), 0..5).prop_map(|values| Any::ArrayValue(ArrayValue { values }));
        let map = vec((".{0,3}", inner), 0..5)
            .prop_map(|entries| Any::KvlistValue(KeyValueList { values: key_values(entries) }));
        prop_oneof![array, map].prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn key_values(entries: Vec<(String, AnyValue)>) -> Vec<KeyValue> {
    entries
        .into_iter()
        .map(|(key, value)| KeyValue { key, value: Some(value), key_strindex: 0 })
        .collect()
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec((".{0,12}", any_value()), 0..4).prop_map(key_values)
}

/// Generates valid ids, which are not all zero.
fn id(bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(1_u8.., bytes)
}

fn event() -> impl Strategy<Value = Event> {
    (any::<u64>(), any::<String>(), attributes(), any::<u32>()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn link() -> impl Strategy<Value = Link> {
    (id(16), id(8), any::<String>(), attributes(), any::<u32>(), any::<u32>()).prop_map(
        |(trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags)| Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        },
    )
}

fn span() -> impl Strategy<Value = Span> {
    let identity =
        (id(16), id(8), prop_oneof![Just(Vec::new()), id(8)], any::<String>(), any::<String>());
    let times = (any::<u64>(), any::<u64>(), -1..9_i32, any::<u32>());
    let lists = (attributes(), vec(event(), 0..3), vec(link(), 0..3));
    let dropped = (0..3_u32, 0..3_u32, any::<u32>());
    let status = prop_oneof![
        Just(None),
        (any::<String>(), 0..4_i32).prop_map(|(message, code)| Some(Status { message, code })),
    ];
    (identity, times, lists, dropped, status).prop_map(
        |(identity, times, lists, dropped, status)| Span {
            trace_id: identity.0,
            span_id: identity.1,
            parent_span_id: identity.2,
            trace_state: identity.3,
            name: identity.4,
            start_time_unix_nano: times.0,
            end_time_unix_nano: times.1,
            kind: times.2,
            flags: times.3,
            attributes: lists.0,
            events: lists.1,
            links: lists.2,
            dropped_attributes_count: dropped.0,
            dropped_events_count: dropped.1,
            dropped_links_count: dropped.2,
            status,
        },
    )
}

fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let resource = (attributes(), 0..2_u32).prop_map(|(attributes, dropped_attributes_count)| {
        Resource { attributes, dropped_attributes_count, entity_refs: Vec::new() }
    });
    let scope = ("[a-c]?", "[0-9]?", attributes(), 0..2_u32).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    );
    let scope_spans = (proptest::option::of(scope), vec(span(), 0..3), "[a-z]{0,3}")
        .prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url });
    let resource_spans = (proptest::option::of(resource), vec(scope_spans, 0..3), "[a-z]{0,3}")
        .prop_map(|(resource, scope_spans, schema_url)| ResourceSpans {
            resource,
            scope_spans,
            schema_url,
        });
    vec(resource_spans, 0..3)
        .prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

/// A change of a body.
#[derive(Debug, Clone)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let one = prop_oneof![
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => any::<prop::sample::Index>().prop_map(Mutation::Cut),
        1 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ];
    vec(one, 1..8)
}

fn mutated(mut body: Vec<u8>, mutations: &[Mutation]) -> Bytes {
    for mutation in mutations {
        if body.is_empty() {
            break;
        }
        match mutation {
            Mutation::Set(at, byte) => *at.get_mut(&mut body) = *byte,
            Mutation::Cut(at) => body.truncate(at.index(body.len())),
            Mutation::Repeat(one, other) => {
                let (one, other) = (one.index(body.len()), other.index(body.len()));
                body.extend_from_within(one.min(other)..one.max(other));
            }
        }
    }
    Bytes::from(body)
}

/// Checks that no body causes a panic, and that the decoded spans can be written in both encodings and decoded again.
fn survives(body: &Bytes) {
    for decoded in [protobuf(body), json(body)].into_iter().flatten() {
        let spans = decoded.batch.items.len();
        assert_eq!(canonical(&written(&decoded)).len(), spans);
        let mut out = Vec::new();
        crate::span::otlp::protobuf::write_request(&mut out, decoded.batch.spans());
        let again = protobuf(&Bytes::from(out)).unwrap();
        assert_eq!((again.batch.items.len(), again.refused.len()), (spans, 0));
        assert_eq!(written(&again), written(&decoded));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_oracle_reads_the_same_of_any_request(request in request()) {
        let decoded = protobuf(&Bytes::from(request.encode_to_vec())).unwrap();
        prop_assert!(decoded.refused.is_empty());
        prop_assert_eq!(oracle_spans(&passed_on(&decoded)), oracle_spans(&request));
        let plain = without_empty_status(request);
        prop_assert_eq!(oracle_spans(&rebuilt(&decoded)), oracle_spans(&plain));
    }

    #[test]
    fn both_encodings_of_any_request_are_the_same_spans(request in request()) {
        let from_protobuf = protobuf(&Bytes::from(request.encode_to_vec())).unwrap();
        let from_json = json(&Bytes::from(serde_json::to_vec(&request).unwrap())).unwrap();
        prop_assert!(from_json.refused.is_empty());
        prop_assert_eq!(canonical(&written(&from_json)), canonical(&written(&from_protobuf)));
        // Encoded JSON decodes to its source.
        let mut text = Vec::new();
        crate::span::otlp::json::write_request(&mut text, from_protobuf.batch.spans());
        let read_back = json(&Bytes::from(text)).unwrap();
        prop_assert_eq!(oracle_spans(&rebuilt(&read_back)), oracle_spans(&rebuilt(&from_protobuf)));
    }

    #[test]
    fn any_bytes_are_survived(body: Vec<u8>) {
        survives(&Bytes::from(body));
    }

    #[test]
    fn any_changed_request_is_survived(request in request(), mutations in mutations()) {
        survives(&mutated(request.encode_to_vec(), &mutations));
        survives(&mutated(serde_json::to_vec(&request).unwrap(), &mutations));
    }
}

#[test]
fn captured_requests_are_survived_however_they_are_changed() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for fixture in golden::fixtures("otlp") {
        if fixture.decoded.is_none() {
            continue;
        }
        let body = plain_body(&fixture);
        for _ in 0..8 {
            let mutations = mutations().new_tree(&mut runner).unwrap().current();
            survives(&mutated(body.to_vec(), &mutations));
        }
    }
}
