//! The document of a trace: what its spans add up to, and what its trace object says. Pure.
//!
//! It is a function of the documents of its spans and of the part that [`write_object`] joined to it, so whoever makes it makes the
//! same.

use serde_json::value::RawValue;

use super::document::milliseconds;
use super::item::{Members, text};
use super::names::{NS_PER_MS, NS_PER_US, TIME_NS_MAX};
use super::options::Settings;
use super::queries::{Found, Sum};
use crate::span::TraceObject;
use crate::support::json::{write_compact, write_f64, write_str, write_u64};
use crate::support::rfc3339;

/// Names of one sort in a summary; more would make no list that anybody reads.
pub(super) const NAMES_MAX: usize = 100;
/// Entries of `metadata_kv`.
const PAIRS_MAX: usize = 64;
/// Bytes of an entry of `metadata_kv`; longer ones would not be indexed.
const PAIR_BYTES_MAX: usize = 1024;
/// The largest number that the field type `long` knows.
const LONG_MAX: u64 = i64::MAX as u64;
/// The largest number that the field type `integer` knows.
const INTEGER_MAX: u64 = i32::MAX as u64;

/// What a trace's document is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary<'a> {
    /// The trace's id.
    pub(super) name: &'a str,
    pub(super) sum: &'a Sum,
    /// The document that is there.
    pub(super) found: &'a Found<'a>,
    /// The most spans above one.
    pub(super) max_depth: u64,
}

impl Summary<'_> {
    /// Appends it on one line, without the line break.
    pub(super) fn write(&self, out: &mut Vec<u8>, settings: &Settings) {
        let sum = self.sum;
        out.extend_from_slice(b"{\"trace_id\":");
        write_str(out, self.name);
        let (start_us, end_us) = (sum.start_us(), sum.end_us());
        let first_ns = match start_us {
            Some(start_us) => start_us * NS_PER_US,
            None => sum.received.whole().saturating_mul(NS_PER_MS),
        };
        time(out, "timestamp", first_ns);
        if let Some(end_us) = end_us {
            time(out, "end_time", end_us * NS_PER_US);
        }
        time(out, "updated_at", sum.updated.whole().saturating_mul(NS_PER_MS));
        let lasted_us = start_us.zip(end_us).map_or(0, |(start, end)| end.saturating_sub(start));
        write_f64(key(out, "duration_ms"), milliseconds(lasted_us * NS_PER_US));
        let errors = sum.errors.whole();
        write_str(key(out, "status"), if errors == 0 { "ok" } else { "error" });
        let called = |kind: &str| {
            let name = settings.span_type_map.get(kind).map_or(kind, String::as_str);
            sum.types.count(name)
        };
        for (name, count) in [
            ("span_count", sum.doc_count),
            ("error_count", errors),
            ("error_flag", u64::from(0 < errors)),
            ("agent_span_count", called("agent")),
            ("tool_call_count", called("function")),
            ("generation_count", called("generation") + called("response")),
            ("handoff_count", called("handoff")),
            ("max_depth", self.max_depth.max(sum.depth.whole()).min(i16::MAX as u64)),
        ] {
            write_u64(key(out, name), count.min(INTEGER_MAX));
        }
        for (name, names) in
            [("agents", &sum.agents), ("tools", &sum.tools), ("models", &sum.models)]
        {
            write_names(out, name, names.names());
        }
        self.write_usage(out);
        self.write_facts(out);
        out.push(b'}');
    }

    fn write_usage(&self, out: &mut Vec<u8>) {
        let sum = self.sum;
        let counts = [
            ("input_tokens", sum.input.whole()),
            ("output_tokens", sum.output.whole()),
            ("total_tokens", sum.total.whole()),
        ];
        let cost = sum.cost.value.filter(|cost| cost.is_finite()).unwrap_or_default();
        if counts.iter().all(|(_, count)| *count == 0) && cost == 0.0 {
            return;
        }
        key(out, "usage").push(b'{');
        for (index, (name, count)) in counts.into_iter().enumerate() {
            write_u64(member(out, index != 0, name), count.min(LONG_MAX));
        }
        if cost != 0.0 {
            write_f64(key(out, "cost_usd"), cost);
        }
        out.push(b'}');
    }

    /// What is said of the trace as a whole: its trace object comes first, and then the span that began first and says it.
    fn write_facts(&self, out: &mut Vec<u8>) {
        let (found, sum) = (self.found, self.sum);
        let object = found.object.as_ref();
        let workflow = object.and_then(|object| object.workflow_name.as_deref());
        let group = object.and_then(|object| object.group_id.as_deref());
        for (name, said) in [
            ("workflow_name", workflow.or(sum.workflow.first()).or(found.workflow_name.as_deref())),
            ("group_id", group.or(sum.group.first()).or(found.group_id.as_deref())),
            ("service_name", sum.service.first()),
        ] {
            if let Some(said) = said {
                write_str(key(out, name), said);
            }
        }
        write_metadata(out, found.metadata.map(RawValue::get));
        if object.is_some() {
            write_said(key(out, "trace_object"), workflow, group);
        }
    }
}

/// Appends what a trace object says as a change to its trace's document, and as the document of a trace without spans.
pub(super) fn write_object(out: &mut Vec<u8>, object: &TraceObject, name: &str, received_ns: u64) {
    let (workflow, group) = (filled(object.workflow.as_deref()), filled(object.group.as_deref()));
    let mut said = Vec::new();
    said.extend_from_slice(b"\"trace_id\":");
    write_str(&mut said, name);
    for (name, text) in [("workflow_name", workflow), ("group_id", group)] {
        if let Some(text) = text {
            write_str(key(&mut said, name), text);
        }
    }
    write_metadata(&mut said, object.metadata.as_deref());
    write_said(key(&mut said, "trace_object"), workflow, group);
    out.extend_from_slice(b"{\"doc\":{");
    out.extend_from_slice(&said);
    out.extend_from_slice(b"},\"upsert\":{");
    out.extend_from_slice(&said);
    for name in ["timestamp", "updated_at"] {
        time(out, name, received_ns / NS_PER_MS * NS_PER_MS);
    }
    out.extend_from_slice(EMPTY);
    out.extend_from_slice(b"}}");
}

/// What the document of a trace without spans says of them.
const EMPTY: &[u8] = b",\"duration_ms\":0.0,\"status\":\"ok\",\"span_count\":0,\"error_count\":0,\"error_flag\":0,\
    \"agent_span_count\":0,\"tool_call_count\":0,\"generation_count\":0,\"handoff_count\":0,\"max_depth\":0";

fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// What the trace object says and spans may say otherwise. It is kept apart, so that it is known whose word a field is.
fn write_said(out: &mut Vec<u8>, workflow: Option<&str>, group: Option<&str>) {
    out.push(b'{');
    let mut is_next = false;
    for (name, text) in [("workflow_name", workflow), ("group_id", group)] {
        if let Some(text) = text {
            write_str(member(out, is_next, name), text);
            is_next = true;
        }
    }
    out.push(b'}');
}

fn write_metadata(out: &mut Vec<u8>, metadata: Option<&str>) {
    let Some(metadata) = metadata.filter(|metadata| metadata.starts_with('{')) else { return };
    write_compact(key(out, "metadata"), metadata.as_bytes());
    let members = Members::of(metadata);
    let pairs = members.iter().filter_map(|(name, value)| {
        let value = match value.as_bytes().first()? {
            b'"' => text(value)?,
            b'{' | b'[' | b'n' => return None,
            _ => value.into(),
        };
        Some(format!("{name}={value}")).filter(|pair| pair.len() <= PAIR_BYTES_MAX)
    });
    let mut pairs: Vec<_> = pairs.take(PAIRS_MAX).collect();
    pairs.sort_unstable();
    write_names(out, "metadata_kv", pairs.iter().map(String::as_str));
}

fn write_names<'a>(out: &mut Vec<u8>, name: &str, names: impl Iterator<Item = &'a str>) {
    let mut names = names.take(NAMES_MAX).peekable();
    if names.peek().is_none() {
        return;
    }
    key(out, name).push(b'[');
    while let Some(name) = names.next() {
        write_str(out, name);
        out.push(if names.peek().is_some() { b',' } else { b']' });
    }
}

fn key<'a>(out: &'a mut Vec<u8>, name: &str) -> &'a mut Vec<u8> {
    member(out, true, name)
}

fn member<'a>(out: &'a mut Vec<u8>, is_next: bool, name: &str) -> &'a mut Vec<u8> {
    if is_next {
        out.push(b',');
    }
    write_str(out, name);
    out.push(b':');
    out
}

fn time(out: &mut Vec<u8>, name: &str, unix_ns: u64) {
    let out = key(out, name);
    out.push(b'"');
    rfc3339::write(out, unix_ns.min(TIME_NS_MAX));
    out.push(b'"');
}
