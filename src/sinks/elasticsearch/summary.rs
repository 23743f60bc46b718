//! The document of a trace: what its spans add up to, and what its trace object says. Pure.
//!
//! It is a function of the documents of its spans and of the part that [`write_object`] joined to it, so whoever makes it makes the
//! same.

use serde_json::value::RawValue;

use super::document::pairs::scalar_of_json;
use super::document::{ENTRIES_MAX, ENTRY_BYTES_MAX, LONG_MAX, write_texts};
use super::item::Members;
use super::names::{NS_PER_MS, NS_PER_US, TIME_NS_MAX, milliseconds};
use super::options::Settings;
use super::queries::{Found, NAMES_MAX, Sum};
use crate::span::{Text, TraceObject};
use crate::support::json::object::Object;
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
        let received_ns = sum.whole("received_at").saturating_mul(NS_PER_MS);
        write_time(&mut doc, "timestamp", start_us.map_or(received_ns, |at| at * NS_PER_US));
        if let Some(end_us) = end_us {
            write_time(&mut doc, "end_time", end_us * NS_PER_US);
        }
        write_time(&mut doc, "updated_at", sum.whole("updated_at").saturating_mul(NS_PER_MS));
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
        self.write_usage(&mut doc);
        self.write_facts(&mut doc);
        doc.close();
    }

    fn write_usage(&self, doc: &mut Object<'_>) {
        let counts = ["input_tokens", "output_tokens", "total_tokens"]
            .map(|name| (name, self.sum.whole(name).min(LONG_MAX)));
        // A sum of numbers with a fraction is a little off: what spans cost is whole billionths of a dollar.
        let cost = (self.sum.number("cost_usd") * 1e9).round() / 1e9;
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

    /// What is said of the trace as a whole: its trace object comes first, and then the span that began first and says it.
    fn write_facts(&self, doc: &mut Object<'_>) {
        let (found, sum) = (&self.found.document, self.sum);
        let object = found.trace_object.as_ref();
        let workflow = object.and_then(|object| object.workflow_name.as_deref());
        let group = object.and_then(|object| object.group_id.as_deref());
        let first = |name| sum.names(name).next();
        write_said(
            doc,
            workflow.or(first("workflow_name")).or(found.workflow_name.as_deref()),
            group.or(first("group_id")).or(found.group_id.as_deref()),
        );
        if let Some(service) = first("service_name") {
            write_str(doc.member("service_name"), service);
        }
        write_metadata(doc, found.metadata.map(RawValue::get));
        if object.is_some() {
            write_object_apart(doc, workflow, group);
        }
    }
}

/// Appends what a trace object says as a change to its trace's document, and as the document of a trace without spans.
pub(super) fn write_object(out: &mut Vec<u8>, object: &TraceObject, name: &str, received_ns: u64) {
    let filled = |text: &'_ Option<Text>| text.clone().filter(|text| !text.is_empty());
    let (workflow, group) = (filled(&object.workflow), filled(&object.group));
    let write = |out: &mut Vec<u8>| {
        let mut doc = Object::open(out);
        write_str(doc.member("trace_id"), name);
        write_said(&mut doc, workflow.as_deref(), group.as_deref());
        write_metadata(&mut doc, object.metadata.as_deref());
        write_object_apart(&mut doc, workflow.as_deref(), group.as_deref());
    };
    out.extend_from_slice(b"{\"doc\":");
    write(out);
    out.extend_from_slice(b"},\"upsert\":");
    write(out);
    for name in ["timestamp", "updated_at"] {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        write_rfc3339(out, received_ns / NS_PER_MS * NS_PER_MS);
    }
    out.extend_from_slice(EMPTY);
    out.extend_from_slice(b"}}");
}

/// What the document of a trace without spans says of them.
const EMPTY: &[u8] = b",\"duration_ms\":0.0,\"status\":\"ok\",\"span_count\":0,\"error_count\":0,\"error_flag\":0,\
    \"agent_span_count\":0,\"tool_call_count\":0,\"generation_count\":0,\"handoff_count\":0,\"max_depth\":0";

fn write_said(doc: &mut Object<'_>, workflow: Option<&str>, group: Option<&str>) {
    for (name, text) in [("workflow_name", workflow), ("group_id", group)] {
        if let Some(text) = text {
            write_str(doc.member(name), text);
        }
    }
}

/// What the trace object says and spans may say otherwise. It is kept apart, so that it is known whose word a field is.
fn write_object_apart(doc: &mut Object<'_>, workflow: Option<&str>, group: Option<&str>) {
    let mut apart = Object::open(doc.member("trace_object"));
    write_said(&mut apart, workflow, group);
    apart.close();
}

fn write_metadata(doc: &mut Object<'_>, metadata: Option<&str>) {
    let Some(metadata) = metadata.filter(|metadata| metadata.starts_with('{')) else { return };
    write_compact(doc.member("metadata"), metadata.as_bytes());
    let members = Members::of(metadata);
    let pairs = members.iter().filter_map(|(name, value)| {
        let pair = format!("{name}={}", scalar_of_json(value)?);
        Some(pair).filter(|pair| pair.len() <= ENTRY_BYTES_MAX)
    });
    let mut pairs: Vec<_> = pairs.take(ENTRIES_MAX).collect();
    pairs.sort_unstable();
    write_names(doc, "metadata_kv", pairs.iter().map(String::as_str));
}

fn write_names<'a>(doc: &mut Object<'_>, name: &str, names: impl Iterator<Item = &'a str>) {
    let mut names = names.take(NAMES_MAX).peekable();
    if names.peek().is_some() {
        write_texts(doc.member(name), names);
    }
}

fn write_time(doc: &mut Object<'_>, name: &str, unix_ns: u64) {
    write_rfc3339(doc.member(name), unix_ns);
}

fn write_rfc3339(out: &mut Vec<u8>, unix_ns: u64) {
    out.push(b'"');
    rfc3339::write(out, unix_ns.min(TIME_NS_MAX));
    out.push(b'"');
}
