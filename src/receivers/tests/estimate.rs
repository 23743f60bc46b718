//! Decoding never takes more memory than estimated.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::normalize::{Decoded, Encoding, Envelope, Limits, Malformed, Refused, decode};
use crate::receivers::estimate::memory_bound;
use crate::span::{Attribute, Item, Receiver, Resource, Scope, Source, TraceObject, Value};
use crate::support::golden::fixtures;

fn decoded(receiver: Receiver, encoding: Encoding, body: &Bytes) -> Result<Decoded, Malformed> {
    let envelope = Envelope::new(Source { receiver, ..Source::unknown() }, encoding, body.len());
    decode(&envelope, body, &Limits::default())
}

/// The two counters of an `Arc`.
const ARC_BYTES: usize = 16;

/// The memory of a decoded request in addition to its body.
#[derive(Default)]
struct Held {
    bytes: usize,
    slices: Vec<(usize, usize)>,
    seen: HashSet<usize>,
}

impl Held {
    fn of(decoded: &Decoded, body: &Bytes) -> usize {
        let mut held = Self { slices: vec![place(body)], ..Self::default() };
        held.bytes += decoded.batch.items.capacity() * size_of::<Item>();
        held.bytes += decoded.refused.capacity() * size_of::<Refused>();
        for item in &decoded.batch.items {
            held.slice(item.wire());
            match item {
                Item::Span(span) => held.scope(&span.scope),
                Item::Trace(trace) => {
                    held.bytes += size_of::<TraceObject>() + ARC_BYTES;
                    held.slice(trace.sdk_id.as_bytes());
                    let texts = [&trace.workflow, &trace.group, &trace.metadata];
                    texts.into_iter().flatten().for_each(|text| held.slice(text.as_bytes()));
                }
            }
        }
        for refused in &decoded.refused {
            held.slice(&refused.wire);
            refused.scope.iter().for_each(|scope| held.scope(scope));
        }
        held.bytes + held.outside(body)
    }

    fn slice(&mut self, bytes: &Bytes) {
        self.slices.push(place(bytes));
    }

    fn is_new<T>(&mut self, shared: &Arc<T>) -> bool {
        self.seen.insert(Arc::as_ptr(shared).addr())
    }

    fn scope(&mut self, scope: &Arc<Scope>) {
        if !self.is_new(scope) {
            return;
        }
        self.bytes += size_of::<Scope>() + ARC_BYTES;
        self.slice(&scope.wire);
        for text in [&scope.name, &scope.version, &scope.schema_url] {
            self.slice(text.as_bytes());
        }
        self.attributes(&scope.attributes, scope.attributes.capacity());
        if self.is_new(&scope.resource) {
            let resource = &scope.resource;
            self.bytes += size_of::<Resource>() + ARC_BYTES;
            self.slice(&resource.wire);
            self.slice(resource.schema_url.as_bytes());
            self.attributes(&resource.attributes, resource.attributes.capacity());
        }
    }

    fn attributes(&mut self, attributes: &[Attribute], capacity: usize) {
        self.bytes += capacity * size_of::<Attribute>();
        for attribute in attributes {
            self.slice(attribute.key.as_bytes());
            self.value(&attribute.value);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => self.slice(text.as_bytes()),
            Value::Bytes(bytes) => self.slice(bytes),
            Value::Array(elements) => {
                self.bytes += elements.capacity() * size_of::<Value>();
                for element in elements {
                    self.value(element);
                }
            }
            Value::Map(entries) => self.attributes(entries, entries.capacity()),
            Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) => {}
        }
    }

    /// Counts bytes that are in no other slice and not in the body.
    fn outside(&mut self, body: &Bytes) -> usize {
        self.slices.sort_unstable();
        let mut covered = 0;
        let mut bytes = 0;
        for &(start, end) in &self.slices {
            bytes += end.saturating_sub(start.max(covered));
            covered = covered.max(end);
        }
        bytes - body.len()
    }
}

fn place(bytes: &Bytes) -> (usize, usize) {
    let start = bytes.as_ptr().addr();
    (start, start + bytes.len())
}

const FORMATS: [(Receiver, Encoding); 3] = [
    (Receiver::OtlpHttp, Encoding::Protobuf),
    (Receiver::OtlpHttp, Encoding::Json),
    (Receiver::OpenAi, Encoding::Json),
];

/// Checks both bounds against the memory of a body, if it is accepted.
fn holds(body: &[u8]) -> Vec<usize> {
    let body = Bytes::copy_from_slice(body);
    let mut taken = Vec::new();
    for (receiver, encoding) in FORMATS {
        let Ok(decoded) = decoded(receiver, encoding, &body) else { continue };
        let held = Held::of(&decoded, &body);
        for enough in [0, usize::MAX] {
            let bound = memory_bound(receiver, encoding, &body, enough);
            assert!(
                held <= bound,
                "{receiver:?} {encoding:?}: {held} bytes in memory, {bound} said, of {} bytes",
                body.len()
            );
        }
        taken.push(decoded.batch.items.len() + decoded.refused.len());
    }
    taken
}

fn repeated(before: &str, element: &str, times: usize, after: &str) -> Vec<u8> {
    let elements = vec![element; times].join(",");
    format!("{before}{elements}{after}").into_bytes()
}

#[test]
fn hostile_json_takes_no_more_than_is_said() {
    let (request, spans) = ("{\"resourceSpans\":[", "{\"scopeSpans\":[{\"spans\":[");
    let ids = "\"traceId\":\"cbcb45b82e82cac9c7c6ce3b0bffc1d6\",\"spanId\":\"cbcb45b82e82cac9\"";
    let span = format!("{request}{spans}{{{ids},\"attributes\":[");
    let nested = |depth: usize, element: &str| {
        let open = "{\"arrayValue\":{\"values\":[".repeat(depth);
        let close = "]}}".repeat(depth);
        let before = format!("{span}{{\"value\":{open}");
        repeated(&before, element, 20_000, &format!("{close}}}]}}]}}]}}]}}"))
    };
    let described = |element: &str| {
        let resource = format!("{request}{{\"resource\":{{\"attributes\":[");
        let behind = format!("]}},\"scopeSpans\":[{{\"spans\":[{{{ids}}}]}}]}}]}}");
        repeated(&resource, element, 20_000, &behind)
    };
    for body in [
        repeated(&format!("{request}{spans}"), "0", 20_000, "]}]}]}"),
        repeated(&format!("{request}{spans}"), &format!("{{{ids}}}"), 20_000, "]}]}]}"),
        repeated(request, &format!("{spans}0]}}]}}"), 5_000, "]}"),
        repeated(&span, "{}", 20_000, "]}]}]}]}"),
        nested(1, "0"),
        nested(10, "{}"),
        nested(10, "0"),
        nested(63, "0"),
        nested(64, "0"),
        described("null"),
        described("{}"),
        described("{\"value\":{\"arrayValue\":{\"values\":[1]}}}"),
        described("{\"value\":{\"kvlistValue\":{\"values\":[null]}}}"),
        repeated("{\"data\":[", "0", 20_000, "]}"),
        repeated("{\"data\":[", "{\"object\":\"trace\",\"id\":\"\\t\"}", 5_000, "]}"),
        repeated("{\"data\":[", "{\"object\":\"trace\",\"id\":\"a\",\"x\":NaN}", 5_000, "]}"),
        repeated("{\"data\":[", "{\"object\":\"trace\",\"id\":\"\u{1}\u{2}\"}", 5_000, "]}"),
        repeated("{\"data\":[{\"tracing_api_key\":0,", "\"tracing_api_key\":0", 5_000, "}]}"),
    ] {
        let shown = String::from_utf8_lossy(body.get(..200).unwrap_or(&body)).into_owned();
        assert!(!holds(&body).is_empty(), "nobody takes {shown}");
    }
}

/// Encodes a protobuf field with these bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut message = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut message);
    message.extend_from_slice(content);
    message
}

#[test]
fn hostile_protobuf_takes_no_more_than_is_said() {
    let ids = [field(1, &[1; 16]), field(2, &[1; 8])].concat();
    let span = field(2, &ids);
    let request = |resource: &[u8], scope: &[u8], spans: &[u8]| {
        field(1, &[resource, &field(2, &[scope, spans].concat())].concat())
    };
    let many = |message: Vec<u8>| message.repeat(20_000);
    let array = field(1, &field(2, &field(5, &field(1, b""))));
    let map = field(1, &field(2, &field(6, &field(1, b""))));
    let repaired = field(2, &[&ids[..], &field(4, b"x"), &vec![0x78; 1000]].concat());
    for body in [
        request(b"", b"", &many(vec![0x12, 0])),
        request(b"", b"", &many(span.clone())),
        request(b"", b"", &many(repaired)),
        many(request(b"", b"", &[0x12, 0])),
        request(&field(1, &many(field(1, b""))), b"", &span),
        request(b"", &field(1, &many(field(3, b""))), &span),
        request(&field(1, &many(array)), b"", &span),
        request(&field(1, &many(map)), b"", &span),
        request(&field(1, &many(field(1, &field(1, &[0xff])))), &field(3, &[0xff; 100]), &span),
        request(&many(field(1, &field(1, b""))), b"", &span),
    ] {
        assert!(!holds(&body).is_empty(), "nobody takes {:?}", body.get(..20));
    }
}

#[test]
fn what_clients_send_takes_no_more_than_is_said_and_little_less() {
    for fixture in fixtures("otlp").into_iter().chain(fixtures("agents-sdk")) {
        holds(&fixture.body);
    }
    // 110,000 spans with ten attributes each.
    let attribute = [field(1, b"some.key.123"), field(2, &field(1, b"a shorter text"))].concat();
    let ids = [field(1, &[1; 16]), field(2, &[1; 8])].concat();
    let span = field(2, &[ids, field(9, &attribute).repeat(10)].concat());
    let body = field(1, &field(2, &span.repeat(110_000)));
    let bound = memory_bound(Receiver::OtlpHttp, Encoding::Protobuf, &body, 0);
    assert!((38 << 20..42 << 20).contains(&body.len()), "{}", body.len());
    assert!(bound < 96 << 20, "{bound}");
    assert_eq!(holds(&body), [110_000]);
}

proptest! {
    #[test]
    fn no_body_takes_more_than_is_said(
        bytes in vec(any::<u8>(), 0..2_000),
        json in "(\\PC|[{}\\[\\],:\"0N\\\\]){0,200}",
        sizes in vec(0..40_usize, 6),
    ) {
        holds(&bytes);
        for before in ["{\"data\":[{", "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{"] {
            holds(format!("{before}{json}").as_bytes());
        }
        let nested = sizes.iter().fold(bytes, |content, times| {
            let field = field(1 + u8::try_from(times % 2).unwrap(), &content);
            field.repeat((*times).min(1 + 100_000 / field.len()))
        });
        holds(&nested);
    }
}
