//! The document of a trace: the sums of its spans, and the facts of its trace object. Pure.
//!
//! It is a function of the documents of its spans and of the part that [`write_object`] added to it, so every writer builds the same
//! document.

use serde_json::json;

use super::document::pairs::pairs;
use super::document::{ENTRIES_MAX, LONG_MAX};
use super::fields::Field::{Decimal, Json, Nothing, Number, Time, Words};
use super::fields::{words, write_fields, write_key, write_texts};
use super::item::members_of;
use super::names::{NS_PER_MS, NS_PER_US, TIME_NS_MAX, milliseconds};
use super::options::Settings;
use super::queries::{StoredTrace, Sum};
use crate::span::TraceObject;
use crate::support::json::raw::Raw;
use crate::support::json::write_compact;

/// The largest number of the field type `integer`.
const INTEGER_MAX: u64 = i32::MAX as u64;

#[derive(Debug)]
pub(super) struct Summary<'a> {
    pub(super) name: &'a str,
    pub(super) sum: Sum<'a>,
    pub(super) found: StoredTrace<'a>,
    /// The largest number of ancestors of a span.
    pub(super) max_depth: u64,
}

impl Summary<'_> {
    /// Appends it on one line, without the line break.
    pub(super) fn write(&self, out: &mut Vec<u8>, settings: &Settings) {
        let sum = &self.sum;
        let (start_us, end_us) = (sum.time_us("start_us"), sum.time_us("end_us"));
        let millis = |name| Time(sum.whole(name).saturating_mul(NS_PER_MS).min(TIME_NS_MAX));
        let micros = |at: u64| Time((at * NS_PER_US).min(TIME_NS_MAX));
        let lasted_us = start_us.zip(end_us).map_or(0, |(start, end)| end.saturating_sub(start));
        // A failure that the run survived is its span's alone.
        let errors = sum.whole("error_count").saturating_sub(sum.whole("nonfatal_error_count"));
        let called = |kind: &str| {
            sum.of_type(settings.options.span_type_map.get(kind).map_or(kind, String::as_str))
        };
        let max_depth = self.max_depth.max(sum.whole("max_depth")).min(i16::MAX as u64);
        let count = |count: u64| Number(count.min(INTEGER_MAX));
        // A sum of fractions is slightly inexact, but the costs of spans are whole billionths of a dollar.
        let cost = (sum.number("cost_usd") * 1e9).round() / 1e9;
        let tokens = ["input_tokens", "output_tokens", "total_tokens"].map(|name| sum.whole(name));
        let no_usage = tokens == [0; 3] && cost == 0.0;
        let tokens = tokens.map(|count| Number(count.min(LONG_MAX)).unless(no_usage));
        out.push(b'{');
        let rows = [
            ("", "trace_id", Words(self.name)),
            ("", "timestamp", start_us.map_or_else(|| millis("received_at"), micros)),
            ("", "end_time", end_us.map_or(Nothing, micros)),
            ("", "updated_at", millis("updated_at")),
            ("", "duration_ms", Decimal(milliseconds(lasted_us * NS_PER_US))),
            ("", "status", Words(if errors == 0 { "ok" } else { "error" })),
            ("", "span_count", count(sum.spans())),
            ("", "error_count", count(errors)),
            ("", "error_flag", count(u64::from(0 < errors))),
            ("", "agent_span_count", count(called("agent"))),
            ("", "tool_call_count", count(called("function"))),
            ("", "generation_count", count(called("generation") + called("response"))),
            ("", "handoff_count", count(called("handoff"))),
            ("", "max_depth", count(max_depth)),
            ("usage", "input_tokens", tokens[0]),
            ("usage", "output_tokens", tokens[1]),
            ("usage", "total_tokens", tokens[2]),
            ("usage", "cost_usd", Decimal(cost).unless(cost == 0.0)),
        ];
        write_fields(out, rows);
        for name in ["agents", "tools", "models"] {
            write_texts(out, name, sum.names(name));
        }
        self.write_facts(out);
        out.push(b'}');
    }

    /// Writes facts about the complete trace: from its trace object, or else from the first span that has them. The facts of the trace
    /// object are also kept separately, so that their source stays known.
    fn write_facts(&self, out: &mut Vec<u8>) {
        let before = &self.found.document;
        let object = before.get_object("trace_object");
        let said = |name| {
            let said = object.as_ref().and_then(|object| object.get_string(name));
            let first = self.sum.names(name).next();
            said.or(first).or_else(|| before.get_string(name))
        };
        for name in ["workflow_name", "group_id", "service_name"] {
            write_fields(out, [("", name, words(said(name).as_deref()))]);
        }
        if let Some(metadata) = before.get("metadata").filter(|metadata| metadata.is_object()) {
            write_compact(write_key(out, "metadata"), metadata.text().as_bytes());
            let metadata = members_of(metadata);
            let mut pairs: Vec<String> = pairs("", &metadata).take(ENTRIES_MAX).collect();
            pairs.sort_unstable();
            write_texts(out, "metadata_kv", pairs);
        }
        write_fields(out, [("", "trace_object", object.map_or(Nothing, |it| Json(it.raw.text())))]);
    }
}

/// Appends a trace object's facts as an update of its trace's document, and as the document of a trace without spans.
pub(super) fn write_object(
    out: &mut Vec<u8>,
    object: &TraceObject,
    name: &str,
    received_ns: u64,
    settings: &Settings,
) {
    let mut said = b"{\"trace_object\":{".to_vec();
    let names = [("workflow_name", &object.workflow), ("group_id", &object.group)];
    write_fields(&mut said, names.map(|(name, text)| ("", name, words(text.as_deref()))));
    said.push(b'}');
    if let Some(metadata) = &object.metadata {
        write_compact(write_key(&mut said, "metadata"), metadata.as_bytes());
    }
    said.push(b'}');
    let said = String::from_utf8(said).unwrap_or_default();
    let found = StoredTrace { seq: None, document: Raw::trusted(&said).object() };
    let received_at = json!({ "value": received_ns / NS_PER_MS });
    let sums = json!({ "received_at": received_at, "updated_at": received_at }).to_string();
    let sum = Sum(Raw::trusted(&sums).object());
    let summary = Summary { name, sum, found, max_depth: 0 };
    out.extend_from_slice(b"{\"doc\":{");
    write_fields(out, [("", "trace_id", Words(name))]);
    summary.write_facts(out);
    out.extend_from_slice(b"},\"upsert\":");
    summary.write(out, settings);
    out.push(b'}');
}
