//! Spans become request bodies. Pure.
//!
//! What is due at once and too large for one request is cut into several, at the same places each time.

use std::ops::Range;
use std::sync::Arc;

use super::observation::{self, Answers, Encoding};
use super::options::Settings;
use super::reads::usable_ones;
use super::trace::{FirstStarts, Traces};
use crate::prices::Prices;
use crate::sinks::Delivery;
use crate::span::otlp::Words;
use crate::span::otlp::protobuf::{self, write_request_in};
use crate::span::{Attribute, Resource, Scope, Span};

/// The body of one request, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    /// Places of its items in the delivery. Trace objects are among them, and nothing is written for these.
    pub(super) items: Range<usize>,
    /// The message, before compression; empty without spans.
    pub(super) message: Vec<u8>,
}

/// What is known of a delivery's spans from elsewhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) answers: Answers,
    /// The starts of spans that were delivered before.
    pub(super) starts: FirstStarts,
    /// What calls cost, where Langfuse is not to find that out itself.
    pub(super) prices: Arc<Prices>,
}

/// Encodes a delivery.
pub(super) fn encode(delivery: &Delivery, settings: &Settings, known: &Known) -> Vec<Body> {
    let items: Vec<Option<&Span>> = delivery.items().map(|(_, item)| item.as_span()).collect();
    let traces = Traces::of(delivery, settings, &known.starts);
    let Known { answers, prices, .. } = known;
    let encoding = Encoding { settings, traces: &traces, answers, prices };
    let mut bodies = Vec::new();
    if !items.is_empty() {
        encode_some(&encoding, &items, 0..items.len(), &mut bodies);
    }
    bodies
}

/// Encodes these items: as many together as fit, going by the size in which they came, and in halves as long as that is too much.
fn encode_some(
    encoding: &Encoding<'_>,
    all: &[Option<&Span>],
    items: Range<usize>,
    bodies: &mut Vec<Body>,
) {
    let bytes_max = encoding.settings.options.request_bytes_max.as_usize();
    let some = all.get(items.clone()).unwrap_or_default();
    let (mut count, mut bytes_guess) = (0, 0);
    for item in some {
        bytes_guess += item.map_or(0, |span| span.wire.len() + ADDED_BYTES);
        if bytes_max < bytes_guess && count != 0 {
            break;
        }
        count += 1;
    }
    if some.len() <= count {
        let mut message = Vec::with_capacity(bytes_guess);
        write_request_in(&mut message, some.iter().copied().flatten(), encoding);
        if message.len() <= bytes_max || some.len() < 2 {
            return bodies.push(Body { items, message });
        }
        count = some.len() / 2;
    }
    encode_some(encoding, all, items.start..items.start + count, bodies);
    encode_some(encoding, all, items.start + count..items.end, bodies);
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
