//! Encodes spans as request bodies. Pure.

use std::iter;

use bytes::Bytes;

use super::observation::{self, Encoding};
use super::options::Settings;
use super::reads::usable_ones;
use super::trace::{KnownFacts, Traces};
use crate::sinks::Delivery;
use crate::sinks::http::{Body, cut};
use crate::span::otlp::MessageWriter;
use crate::span::otlp::protobuf::{write_request_in, write_resource, write_scope};
use crate::span::{Resource, Scope, Span};

/// Encodes a delivery.
pub fn encode(delivery: &Delivery, settings: &Settings, known: &KnownFacts) -> Vec<Body> {
    let traces = Traces::of(delivery, settings, &known.starts);
    let encoding = Encoding { settings, traces: &traces, known };
    let bytes_max = settings.options.request_bytes_max.as_usize();
    cut(delivery, bytes_max, ADDED_BYTES, |out, spans| {
        write_request_in(out, spans.iter().copied(), &encoding);
    })
}

/// Average number of bytes added to a span, including tag and length.
const ADDED_BYTES: usize = 512;

/// Resources and scopes are sent as they were received, unless they have attributes that Langfuse cannot use.
impl MessageWriter for Encoding<'_> {
    fn write_resource(&self, out: &mut Vec<u8>, resource: &Resource, wire: &[u8], _: bool) {
        let attributes = usable_ones(&resource.attributes);
        if attributes == resource.attributes {
            return out.extend_from_slice(wire);
        }
        let dropped_attributes_count = resource.dropped_attributes_count;
        let repaired = Resource { attributes, dropped_attributes_count, ..Resource::default() };
        write_resource(out, &repaired, iter::empty());
    }

    fn write_scope(&self, out: &mut Vec<u8>, scope: &Scope, wire: &[u8]) {
        let attributes = usable_ones(&scope.attributes);
        if attributes == scope.attributes {
            return out.extend_from_slice(wire);
        }
        write_scope(out, &Scope { attributes, wire: Bytes::new(), ..scope.clone() });
    }

    fn bytes_guess(&self, span: &Span) -> usize {
        span.wire.len() + ADDED_BYTES
    }

    fn write_span(&self, out: &mut Vec<u8>, span: &Span) {
        observation::write(out, span, self);
    }
}
