//! Spans become request bodies. Pure.

use super::observation::{self, Answers, Encoding};
use super::options::Settings;
use super::reads::usable_ones;
use super::trace::{FirstStarts, Traces};
use crate::sinks::Delivery;
use crate::sinks::http::{Body, cut};
use crate::span::otlp::Words;
use crate::span::otlp::protobuf::{self, write_request_in};
use crate::span::{Attribute, Resource, Scope, Span};

/// What is known of a delivery's spans from elsewhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) answers: Answers,
    /// The starts of spans that were delivered before.
    pub(super) starts: FirstStarts,
}

/// Encodes a delivery.
pub(super) fn encode(delivery: &Delivery, settings: &Settings, known: &Known) -> Vec<Body> {
    let traces = Traces::of(delivery, settings, &known.starts);
    let encoding = Encoding { settings, traces: &traces, answers: &known.answers };
    let bytes_max = settings.options.request_bytes_max.as_usize();
    cut(delivery, bytes_max, ADDED_BYTES, |out, spans| {
        write_request_in(out, spans.iter().copied(), &encoding);
    })
}

/// What is added to a span in the mean, tag and length included.
const ADDED_BYTES: usize = 512;

/// Resources and scopes go out as they came, unless they have attributes that Langfuse cannot use.
impl Words for Encoding<'_> {
    fn write_resource(&self, out: &mut Vec<u8>, resource: &Resource, wire: &[u8], _: bool) {
        write_mended(out, wire, &resource.attributes, |attributes| {
            let dropped_attributes_count = resource.dropped_attributes_count;
            let mended = Resource { attributes, dropped_attributes_count, ..Resource::default() };
            protobuf::resource(&mended).into_owned()
        });
    }

    fn write_scope(&self, out: &mut Vec<u8>, scope: &Scope, wire: &[u8]) {
        write_mended(out, wire, &scope.attributes, |attributes| {
            let mended = Scope {
                name: scope.name.clone(),
                version: scope.version.clone(),
                attributes,
                dropped_attributes_count: scope.dropped_attributes_count,
                ..Scope::default()
            };
            protobuf::scope(&mended).into_owned()
        });
    }

    fn bytes_guess(&self, span: &Span) -> usize {
        span.wire.len() + ADDED_BYTES
    }

    fn write_span(&self, out: &mut Vec<u8>, span: &Span) {
        observation::write(out, span, self);
    }
}

fn write_mended(
    out: &mut Vec<u8>,
    wire: &[u8],
    attributes: &[Attribute],
    mended: impl FnOnce(Vec<Attribute>) -> Vec<u8>,
) {
    let usable = usable_ones(attributes);
    if usable == attributes {
        out.extend_from_slice(wire);
    } else {
        out.extend_from_slice(&mended(usable));
    }
}
