//! The Agents SDK's ingest format: `{"data": [item, ...]}`.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Decoded, Envelope, Limits, Malformed, Refused};
use crate::span::{
    Batch, Detail, Facts, Format, Item, NativeIds, Outline, Scope, Span, SpanId, Text, TraceId,
    TraceObject,
};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    object: &'a str,
    id: String,
    trace_id: Option<String>,
    parent_id: Option<String>,
    started_at: Option<&'a str>,
    ended_at: Option<&'a str>,
    workflow_name: Option<String>,
    group_id: Option<String>,
}

pub(super) fn decode(
    envelope: &Envelope,
    body: &Bytes,
    _limits: &Limits,
) -> Result<Decoded, Malformed> {
    let parsed: Body<'_> = serde_json::from_slice(body)
        .map_err(|error| Malformed::Syntax { expected: "JSON", problem: error.to_string() })?;
    let scope = Arc::new(Scope::default());
    let mut items = Vec::with_capacity(parsed.data.len());
    let mut refused = Vec::new();
    for (index, raw) in parsed.data.iter().enumerate() {
        let wire = body.slice_ref(raw.get().as_bytes());
        match item(raw.get(), &wire, &scope) {
            Some(item) => items.push(item),
            None => refused.push(Refused { index: index as u32, reason: "not understood", wire }),
        }
    }
    let bytes = body.len() + items.len() * size_of::<Item>();
    let batch = Batch { source: envelope.source.clone(), items, bytes };
    Ok(Decoded { batch, refused, warnings: Vec::new() })
}

fn item(text: &str, wire: &Bytes, scope: &Arc<Scope>) -> Option<Item> {
    let parsed: Wire<'_> = serde_json::from_str(text).ok()?;
    if parsed.object == "trace" {
        return Some(Item::Trace(Arc::new(TraceObject {
            trace_id: trace_id(&parsed.id),
            native_id: Text::from(parsed.id),
            workflow: parsed.workflow_name.map(Text::from),
            group: parsed.group_id.map(Text::from),
            metadata: None,
            wire: wire.clone(),
        })));
    }
    let native_trace = parsed.trace_id?;
    let outline = Outline {
        trace_id: trace_id(&native_trace),
        span_id: span_id(&native_trace, &parsed.id),
        parent_id: parsed.parent_id.map(|parent| span_id(&native_trace, &parent)),
        start_ns: parsed.started_at.map_or(0, nanos),
        end_ns: parsed.ended_at.map_or(0, nanos),
        wire: wire.clone(),
    };
    Some(Item::Span(Span::new(outline, Arc::clone(scope), None, &OpenAi)))
}

fn nanos(text: &str) -> u64 {
    text.parse::<jiff::Timestamp>()
        .ok()
        .and_then(|time| u64::try_from(time.as_nanosecond()).ok())
        .unwrap_or(0)
}

fn trace_id(native: &str) -> TraceId {
    native.strip_prefix("trace_").and_then(TraceId::from_hex).unwrap_or_else(|| {
        let digest = Sha256::new().chain_update("trace\0").chain_update(native).finalize();
        TraceId::from_slice(&digest[..16]).expect("not zero")
    })
}

fn span_id(native_trace: &str, native: &str) -> SpanId {
    let digest = Sha256::new()
        .chain_update("span\0")
        .chain_update(native_trace)
        .chain_update("\0")
        .chain_update(native)
        .finalize();
    SpanId::from_slice(&digest[..8]).expect("not zero")
}

#[derive(Debug)]
struct OpenAi;

impl Format for OpenAi {
    fn is_otlp(&self) -> bool {
        false
    }

    fn detail(&self, span: &Span) -> Detail {
        let parsed: Wire<'_> = serde_json::from_slice(&span.wire).expect("parsed before");
        let native = Some(NativeIds {
            trace: parsed.trace_id.map(Text::from).unwrap_or_default(),
            span: Text::from(parsed.id),
            parent: parsed.parent_id.map(Text::from),
        });
        Detail { native, ..Detail::default() }
    }

    fn facts(&self, _span: &Span) -> Facts {
        Facts::default()
    }
}
