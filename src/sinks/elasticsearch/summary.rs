//! The document of a trace: what its spans add up to, and what its trace object says. Pure.
//!
//! It is a function of the documents of its spans and of the part that [`write_object`] joined to it, so whoever makes it makes the
//! same.

use std::borrow::Cow;

use serde_json::json;

use super::document::pairs::scalar_of_json;
use super::document::{ENTRIES_MAX, ENTRY_BYTES_MAX, LONG_MAX, write_texts};
use super::item::members_of;
use super::names::{NS_PER_MS, NS_PER_US, TIME_NS_MAX, milliseconds};
use super::options::Settings;
use super::queries::{Found, Sum};
use crate::span::TraceObject;
use crate::support::json::object::Object;
use crate::support::json::raw::Raw;
use crate::support::json::{write_compact, write_f64, write_str, write_u64};
use crate::support::rfc3339;

/// The largest number that the field type `integer` knows.
const INTEGER_MAX: u64 = i32::MAX as u64;

#[derive(Debug, Clone, Copy)]
pub(super) struct Summary<'a> {
    pub(super) name: &'a str,
    pub(super) sum: &'a Sum,
    pub(super) found: &'a Found<'a>,
    /// The most spans above one.
    pub(super) max_depth: u64,
}

impl Summary<'_> {
    /// Appends it on one line, without the line break.
    pub(super) fn write(&self, out: &mut Vec<u8>, settings: &Settings) {
        let sum = self.sum;
        let mut doc = Object::open(out);
        write_str(doc.member("trace_id"), self.name);
        let (start_us, end_us) = (sum.time_us("start_us"), sum.time_us("end_us"));
        let at_ms = |name| Some(sum.whole(name).saturating_mul(NS_PER_MS));
        for (name, at) in [
            ("timestamp", start_us.map(|at| at * NS_PER_US).or_else(|| at_ms("received_at"))),
            ("end_time", end_us.map(|at| at * NS_PER_US)),
            ("updated_at", at_ms("updated_at")),
        ] {
            if let Some(at) = at {
                write_str(doc.member(name), &rfc3339::text(at.min(TIME_NS_MAX)));
            }
        }
        let lasted_us = start_us.zip(end_us).map_or(0, |(start, end)| end.saturating_sub(start));
        write_f64(doc.member("duration_ms"), milliseconds(lasted_us * NS_PER_US));
        let errors = sum.whole("error_count");
        write_str(doc.member("status"), if errors == 0 { "ok" } else { "error" });
        let called = |kind: &str| {
            sum.of_type(settings.options.span_type_map.get(kind).map_or(kind, String::as_str))
        };
        for (name, count) in [
            ("span_count", sum.spans()),
            ("error_count", errors),
            ("error_flag", u64::from(0 < errors)),
            ("agent_span_count", called("agent")),
            ("tool_call_count", called("function")),
            ("generation_count", called("generation") + called("response")),
            ("handoff_count", called("handoff")),
            ("max_depth", self.max_depth.max(sum.whole("max_depth")).min(i16::MAX as u64)),
        ] {
            write_u64(doc.member(name), count.min(INTEGER_MAX));
        }
        for name in ["agents", "tools", "models"] {
            write_names(&mut doc, name, sum.names(name));
        }
        write_usage(&mut doc, sum);
        write_facts(&mut doc, self.found, sum);
        doc.close();
    }
}

/// Appends what a trace object says as a change to its trace's document, and as the document of a trace without spans.
pub(super) fn write_object(
    out: &mut Vec<u8>,
    object: &TraceObject,
    name: &str,
    received_ns: u64,
    settings: &Settings,
) {
    let mut said = Vec::new();
    let mut writer = Object::open(&mut said);
    let mut apart = Object::open(writer.member("trace_object"));
    for (name, text) in [("workflow_name", &object.workflow), ("group_id", &object.group)] {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            write_str(apart.member(name), text);
        }
    }
    apart.close();
    if let Some(metadata) = &object.metadata {
        write_compact(writer.member("metadata"), metadata.as_bytes());
    }
    writer.close();
    let said = String::from_utf8(said).unwrap_or_default();
    let found = &Found { seq: None, document: Raw::trusted(&said).object() };
    let received_at = json!({ "value": received_ns / NS_PER_MS });
    let sum = &Sum(json!({ "received_at": received_at, "updated_at": received_at }));
    out.extend_from_slice(b"{\"doc\":");
    let mut doc = Object::open(out);
    write_str(doc.member("trace_id"), name);
    write_facts(&mut doc, found, sum);
    doc.close();
    out.extend_from_slice(b",\"upsert\":");
    Summary { name, sum, found, max_depth: 0 }.write(out, settings);
    out.push(b'}');
}

fn write_usage(doc: &mut Object<'_>, sum: &Sum) {
    let counts = ["input_tokens", "output_tokens", "total_tokens"]
        .map(|name| (name, sum.whole(name).min(LONG_MAX)));
    // A sum of numbers with a fraction is a little off: what spans cost is whole billionths of a dollar.
    let cost = (sum.number("cost_usd") * 1e9).round() / 1e9;
    if counts.iter().all(|(_, count)| *count == 0) && cost == 0.0 {
        return;
    }
    let mut usage = Object::open(doc.member("usage"));
    for (name, count) in counts {
        write_u64(usage.member(name), count);
    }
    if cost != 0.0 {
        write_f64(usage.member("cost_usd"), cost);
    }
    usage.close();
}

/// What is said of the trace as a whole: its trace object comes first, and then the span that began first and says it. What the trace
/// object says is kept apart too, so that it is known whose word a field is.
fn write_facts(doc: &mut Object<'_>, found: &Found<'_>, sum: &Sum) {
    let before = &found.document;
    let object = before.get_object("trace_object");
    let first = |name| sum.names(name).next().map(Cow::Borrowed);
    for name in ["workflow_name", "group_id", "service_name"] {
        let said = object.as_ref().and_then(|object| object.get_string(name)).or(first(name));
        let said = said.or_else(|| before.get_string(name));
        if let Some(said) = said {
            write_str(doc.member(name), &said);
        }
    }
    if let Some(metadata) = before.get("metadata").filter(|metadata| metadata.is_object()) {
        write_compact(doc.member("metadata"), metadata.text().as_bytes());
        let members = members_of(metadata).members;
        let pairs = members.iter().filter_map(|(name, value)| {
            let pair = format!("{name}={}", scalar_of_json(*value)?);
            Some(pair).filter(|pair| pair.len() <= ENTRY_BYTES_MAX)
        });
        let mut pairs: Vec<_> = pairs.take(ENTRIES_MAX).collect();
        pairs.sort_unstable();
        write_names(doc, "metadata_kv", pairs.iter().map(String::as_str));
    }
    if let Some(object) = object {
        doc.member("trace_object").extend_from_slice(object.raw.text().as_bytes());
    }
}

fn write_names<'a>(doc: &mut Object<'_>, name: &str, names: impl Iterator<Item = &'a str>) {
    let mut names = names.peekable();
    if names.peek().is_some() {
        write_texts(doc.member(name), names);
    }
}
