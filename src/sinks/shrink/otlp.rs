//! Cuts an OTLP span that exceeds its backend's limit until it fits. Pure.
//!
//! Each step is taken only if the previous one does not suffice:
//! 1. The longest texts are cut, all to the same length. Texts shorter than [`KEPT_BYTES`] stay: names, ids, models, tokens.
//! 2. Events and links are removed, and counted as dropped.
//! 3. The largest attributes that the backend does not need are removed, as few as possible, and counted as dropped.

use std::cmp::Reverse;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;

use super::shortened;

/// The longest text that is never cut, in bytes.
const KEPT_BYTES: usize = 1 << 10;

/// The most bytes of the note, including its key.
const NOTE_BYTES: usize = 2 << 10;

/// The most keys that a note names, and the longest key that it names, in bytes.
const NOTE_KEYS_MAX: usize = 8;
const NOTE_KEY_BYTES_MAX: usize = 128;

/// Cuts a request with one span to this many bytes and adds an attribute with the key `note` that describes the cuts. Returns `None` if
/// that is impossible. Attributes for whose keys `is_needed` returns true are kept.
pub(in crate::sinks) fn shrink(
    message: &[u8],
    bytes_max: usize,
    note: &str,
    is_needed: fn(&str) -> bool,
) -> Option<Vec<u8>> {
    let mut request = ExportTraceServiceRequest::decode(message).ok()?;
    let bytes_max = bytes_max.checked_sub(NOTE_BYTES)?;
    let cut = cut_texts(&mut request, bytes_max);
    for step in [leave_out_events, leave_out_attributes] {
        let excess = request.encoded_len().saturating_sub(bytes_max);
        if excess > 0 {
            step(span(&mut request)?, excess, is_needed);
        }
    }
    if bytes_max < request.encoded_len() {
        return None;
    }
    let value = Value::StringValue(note_of(message.len(), &cut));
    let value = Some(AnyValue { value: Some(value) });
    let note = KeyValue { key: note.to_owned(), value, ..KeyValue::default() };
    span(&mut request)?.attributes.push(note);
    Some(request.encode_to_vec())
}

fn span(request: &mut ExportTraceServiceRequest) -> Option<&mut Span> {
    request.resource_spans.first_mut()?.scope_spans.first_mut()?.spans.first_mut()
}

// === Texts ===

/// Cuts the longest texts and returns their keys.
fn cut_texts(request: &mut ExportTraceServiceRequest, bytes_max: usize) -> Vec<String> {
    let excess = request.encoded_len().saturating_sub(bytes_max);
    let mut lengths = Vec::new();
    each_text(request, &mut |_, text| lengths.push(text.len()));
    let text_bytes_max = longest_that_fits(lengths, excess);
    let mut cut: Vec<String> = Vec::new();
    each_text(request, &mut |key, text| {
        if text_bytes_max < text.len() {
            *text = shortened(text, text_bytes_max);
            if !cut.iter().any(|known| known == key) {
                cut.push(key.to_owned());
            }
        }
    });
    cut
}

/// Returns the length to which texts must be cut so that their total shrinks by `excess` bytes.
fn longest_that_fits(mut lengths: Vec<usize>, excess: usize) -> usize {
    lengths.sort_unstable_by_key(|length| Reverse(*length));
    let mut sum = 0;
    for (index, length) in lengths.iter().enumerate() {
        sum += length;
        let next = lengths.get(index + 1).copied().unwrap_or_default().max(KEPT_BYTES);
        if excess + next * (index + 1) <= sum {
            return (sum - excess) / (index + 1);
        }
    }
    KEPT_BYTES
}

/// Visits every text of the request, with its key.
fn each_text(request: &mut ExportTraceServiceRequest, visit: &mut dyn FnMut(&str, &mut String)) {
    for resource in &mut request.resource_spans {
        of_attributes(resource.resource.iter_mut().flat_map(|found| &mut found.attributes), visit);
        for scope in &mut resource.scope_spans {
            of_attributes(scope.scope.iter_mut().flat_map(|found| &mut found.attributes), visit);
            for span in &mut scope.spans {
                of_attributes(&mut span.attributes, visit);
                of_attributes(span.events.iter_mut().flat_map(|it| &mut it.attributes), visit);
                of_attributes(span.links.iter_mut().flat_map(|it| &mut it.attributes), visit);
                if let Some(status) = &mut span.status {
                    visit("status.message", &mut status.message);
                }
            }
        }
    }
}

fn of_attributes<'a>(
    attributes: impl IntoIterator<Item = &'a mut KeyValue>,
    visit: &mut dyn FnMut(&str, &mut String),
) {
    for KeyValue { key, value, .. } in attributes {
        if let Some(value) = value {
            of_value(key, value, visit);
        }
    }
}

/// Recursion is safe, because decoding limits the nesting of values.
fn of_value(key: &str, value: &mut AnyValue, visit: &mut dyn FnMut(&str, &mut String)) {
    match &mut value.value {
        Some(Value::StringValue(text)) => visit(key, text),
        Some(Value::ArrayValue(array)) => {
            array.values.iter_mut().for_each(|element| of_value(key, element, visit));
        }
        Some(Value::KvlistValue(list)) => {
            let members = list.values.iter_mut().filter_map(|member| member.value.as_mut());
            members.for_each(|member| of_value(key, member, visit));
        }
        _ => {}
    }
}

// === Removal ===

fn leave_out_events(span: &mut Span, _: usize, _: fn(&str) -> bool) {
    span.dropped_events_count = dropped(span.dropped_events_count, span.events.len());
    span.dropped_links_count = dropped(span.dropped_links_count, span.links.len());
    (span.events, span.links) = (Vec::new(), Vec::new());
}

fn leave_out_attributes(span: &mut Span, mut excess: usize, is_needed: fn(&str) -> bool) {
    span.attributes.sort_by_key(|it| (is_needed(&it.key), Reverse(it.encoded_len())));
    let goes = |attribute: &&KeyValue| {
        let goes = excess > 0 && !is_needed(&attribute.key);
        excess = excess.saturating_sub(attribute.encoded_len());
        goes
    };
    let left_out = span.attributes.iter().take_while(goes).count();
    span.attributes.drain(..left_out);
    span.dropped_attributes_count = dropped(span.dropped_attributes_count, left_out);
}

fn dropped(before: u32, more: usize) -> u32 {
    before.saturating_add(u32::try_from(more).unwrap_or(u32::MAX))
}

/// Describes the cuts as a JSON object.
fn note_of(bytes: usize, cut: &[String]) -> String {
    let named = cut.iter().filter(|key| key.len() <= NOTE_KEY_BYTES_MAX).take(NOTE_KEYS_MAX);
    json!({ "original_bytes": bytes, "cut": named.collect::<Vec<_>>() }).to_string()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::ArrayValue;
    use opentelemetry_proto::tonic::trace::v1::span::Event;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};

    use super::*;

    const NOTE: &str = "note";

    fn text(key: &str, text: &str) -> KeyValue {
        let value = Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
        KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
    }

    fn message(span: Span) -> Vec<u8> {
        let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
        let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec()
    }

    fn shrunk(span: Span, bytes_max: usize) -> Option<Span> {
        let is_needed = |key: &str| key.starts_with("needed.");
        let out = shrink(&message(span), bytes_max, NOTE, is_needed)?;
        assert!(out.len() <= bytes_max, "{} of {bytes_max}", out.len());
        let mut request = ExportTraceServiceRequest::decode(&out[..]).unwrap();
        super::span(&mut request).cloned()
    }

    fn get<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
        let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    #[test]
    fn the_longest_texts_are_cut_to_one_length_and_the_short_ones_stay() {
        let (long, longer) = ("\u{e4}".repeat(10_000), "b".repeat(60_000));
        let json = format!("{{\"role\":\"user\",\"content\":\"{}\"}}", "c".repeat(50_000));
        let attributes = vec![
            text("long", &long),
            text("longer", &longer),
            text("json", &json),
            text("id", "x"),
        ];
        let span = shrunk(Span { attributes, ..Span::default() }, 66_000).unwrap();
        let (longer, json) = (get(&span, "longer").unwrap(), get(&span, "json").unwrap());
        assert!(get(&span, "id") == Some("x") && get(&span, "long") == Some(&long));
        assert!(longer.ends_with("... [truncated]") && (21_000..22_000).contains(&longer.len()));
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["role"], "user");
        assert!(json["content"].as_str().unwrap().ends_with("... [truncated]"));
        let note: serde_json::Value = serde_json::from_str(get(&span, NOTE).unwrap()).unwrap();
        assert_eq!(note["cut"], json!(["longer", "json"]));
        assert!(note["original_bytes"].as_u64().is_some_and(|bytes| 130_000 < bytes));
    }

    #[test]
    fn no_more_attributes_go_than_must_and_the_largest_first() {
        let numbers = vec![AnyValue { value: Some(Value::DoubleValue(0.5)) }; 2_000];
        let vector = AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: numbers })) };
        let vector = |number: usize| KeyValue {
            key: format!("vector.{number}"),
            value: Some(vector.clone()),
            ..KeyValue::default()
        };
        let mut attributes: Vec<_> = (0..4).map(vector).collect();
        attributes.extend([text("operation", "chat"), text("input", &"i".repeat(1_000))]);
        let span = shrunk(Span { attributes, ..Span::default() }, 50_000).unwrap();
        let keys: Vec<_> = span.attributes.iter().map(|it| it.key.as_str()).collect();
        assert_eq!(keys, ["vector.2", "vector.3", "input", "operation", NOTE]);
        assert_eq!(span.dropped_attributes_count, 2);
    }

    #[test]
    fn events_go_before_attributes_and_what_is_needed_stays() {
        let short = |key: &str, number: usize| text(&format!("{key}.{number}"), &"s".repeat(100));
        let attributes = |key| (0..100).map(|number| short(key, number)).collect::<Vec<_>>();
        let event = Event { attributes: attributes("event"), ..Event::default() };
        let mut all = attributes("free");
        all.push(text("needed.kind", "agent"));
        let span = Span { attributes: all, events: vec![event], ..Span::default() };
        let without_events = shrunk(span.clone(), 20_000).unwrap();
        assert_eq!((without_events.events.len(), without_events.dropped_events_count), (0, 1));
        assert_eq!(without_events.dropped_attributes_count, 0);
        let bare = shrunk(span.clone(), NOTE_BYTES + 400).unwrap();
        assert_eq!((get(&bare, "needed.kind"), bare.dropped_attributes_count), (Some("agent"), 99));
        assert_eq!(shrunk(span, NOTE_BYTES), None);
    }
}
