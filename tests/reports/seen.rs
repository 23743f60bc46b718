//! The contents of the sinks, span by span.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::case::Case;
use super::compare::Shown;
use super::mapping::{self, Row};

/// The contents of all sinks, with duplicates.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) lines: Vec<Shown>,
    pub(crate) langfuse: Vec<Shown>,
    pub(crate) otlp: Vec<Shown>,
}

impl Seen {
    pub(crate) fn new(
        lines: &str,
        langfuse: impl Iterator<Item = Bytes>,
        otlp: impl Iterator<Item = ExportTraceServiceRequest>,
    ) -> Self {
        let langfuse = langfuse.map(|post| ExportTraceServiceRequest::decode(&*post).unwrap());
        // The last line may be incomplete.
        let lines = lines.lines().filter_map(|line| line_shown(&serde_json::from_str(line).ok()?));
        Self {
            lines: lines.collect(),
            langfuse: langfuse.flat_map(|request| observations(&request)).collect(),
            otlp: otlp.flat_map(|request| spans(&request)).map(|span| span_shown(&span)).collect(),
        }
    }

    /// Returns each sink with its member of `expected.json`.
    pub(crate) fn sinks(&self) -> [(&'static str, &[Shown]); 3] {
        [("lines", &self.lines), ("langfuse", &self.langfuse), ("otlp", &self.otlp)]
    }

    /// Returns whether every sink has this number of spans of a case.
    pub(crate) fn has(&self, case: &Case, count: usize) -> bool {
        self.sinks().iter().all(|(_, shown)| count <= of(case, shown).len())
    }

    /// Returns spans of traces that belong to no case.
    pub(crate) fn strangers(&self, known: &BTreeSet<String>) -> Vec<String> {
        let all = self.sinks().into_iter().flat_map(|(sink, shown)| {
            shown.iter().filter(|span| !known.contains(&span.trace)).map(move |span| (sink, span))
        });
        all.map(|(sink, span)| format!("{sink}: a span of no case: {}", span.names[0])).collect()
    }
}

/// Returns the spans of a case, in the order of their start.
pub(crate) fn of<'a>(case: &Case, shown: &'a [Shown]) -> Vec<&'a Shown> {
    let traces = case.traces();
    let mut spans: Vec<_> = shown.iter().filter(|span| traces.contains(&span.trace)).collect();
    spans.sort_by_key(|span| span.start_ns);
    spans
}

/// Returns the last version of each span.
pub(crate) fn last<'a>(spans: &[&'a Shown]) -> Vec<&'a Shown> {
    let by_id: BTreeMap<_, _> =
        spans.iter().map(|span| ((span.start_ns, &span.trace, &span.id), *span)).collect();
    by_id.into_values().collect()
}

fn line_shown(line: &Value) -> Option<Shown> {
    let text = |name: &str| Some(line[name].as_str()?.to_owned());
    let name = text("name")?;
    Some(Shown {
        trace: text("trace_id")?,
        id: text("span_id")?,
        names: [name.clone(), name],
        start_ns: line["start_time_unix_nano"].as_u64()?,
        facts: line.as_object()?.clone(),
    })
}

// === Spans of OTLP ===

fn spans(request: &ExportTraceServiceRequest) -> Vec<Span> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

fn span_shown(span: &Span) -> Shown {
    Shown {
        trace: mapping::hex(&span.trace_id),
        id: mapping::hex(&span.span_id),
        names: [span.name.clone(), span.name.clone()],
        start_ns: span.start_time_unix_nano,
        facts: facts(&span.attributes),
    }
}

fn facts(attributes: &[KeyValue]) -> Map<String, Value> {
    let value = |pair: &KeyValue| pair.value.as_ref().map_or(Value::Null, plain);
    attributes.iter().map(|pair| (pair.key.clone(), value(pair))).collect()
}

fn plain(value: &AnyValue) -> Value {
    match &value.value {
        Some(Any::StringValue(text)) => text.as_str().into(),
        Some(Any::BoolValue(value)) => (*value).into(),
        Some(Any::IntValue(number)) => (*number).into(),
        Some(Any::DoubleValue(number)) => (*number).into(),
        Some(Any::ArrayValue(array)) => array.values.iter().map(plain).collect(),
        Some(Any::KvlistValue(list)) => facts(&list.values).into(),
        _ => Value::Null,
    }
}

// === Langfuse's interpretation of them ===

fn observations(request: &ExportTraceServiceRequest) -> Vec<Shown> {
    let rows = mapping::rows(request).unwrap_or_default();
    let shown = spans(request).into_iter().zip(rows).map(|(span, row)| {
        let mut shown = span_shown(&span);
        shown.names[1].clone_from(&row.name);
        let Value::Object(derived) = derived(&row, span.start_time_unix_nano) else { return shown };
        shown.facts.extend(derived);
        shown
    });
    shown.collect()
}

fn derived(row: &Row, start_ns: u64) -> Value {
    let tokens = |side: &str| {
        let buckets = row.usage.iter().filter(|(bucket, _)| bucket.contains(side));
        buckets.map(|(_, count)| count).sum::<u64>()
    };
    let first_token = row.completion_start.as_deref().map(|text| {
        let at: jiff::Timestamp = text.trim_matches('"').parse().unwrap();
        let start = i64::try_from(start_ns / 1_000_000).unwrap();
        at.as_millisecond() - start
    });
    let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    json!({
        "type": row.kind, "model": row.model, "input": row.input, "output": row.output,
        "session": row.session, "user": row.user, "tags": row.tags, "level": row.level,
        "status_message": said(&row.status_message), "usage": row.usage, "cost": row.cost,
        "input_total": tokens("input"), "output_total": tokens("output"),
        "time_to_first_token_ms": first_token,
    })
}
