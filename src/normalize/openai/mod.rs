//! Decodes the Agents SDK's ingest format: `{"data": [item, ...]}`.
//!
//! One pass walks the body. Items are slices of it, and on arrival only a span's ids and times are read. Real clients send values that JSON
//! does not allow (`NaN`, halves of surrogate pairs, invalid UTF-8); the items that contain them are repaired, and an item that cannot be
//! repaired is refused alone. The format is known from the Agents SDK for Python 0.0.7 to 0.24 and for JavaScript 0.0.17 to 0.20.

mod detail;
mod facts;
mod item;
mod repair;
mod root;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use self::detail::Messages;
use self::item::Members;
use super::json::kind_of;
use super::raw::{inside, share, utf8};
use super::shape::{self, BodyShape};
use super::{Decoded, Encoding, Envelope, Limits, Malformed, Refused, Warning, ids, time};
use crate::span::{
    Batch, Detail, Format, Item, Resource, RootSpan, Scope, Source, Span, SpanHeader, SpanId,
    SpanReading, Text, TraceId, TraceObject, keys,
};
use crate::support::json::scan::Scanner;
use crate::support::rfc3339::is_odd;

pub use facts::trace_facts;
pub use repair::scrub_credentials;
pub use root::{RootSource, root_span};

/// Decodes a body of the ingest format.
pub(super) fn decode(
    envelope: &Envelope,
    body: &Bytes,
    limits: &Limits,
) -> Result<Decoded, Malformed> {
    let (text, replaced) = utf8(&scrub_credentials(body.clone()));
    let mut request = Request {
        items_max: limits.items_max,
        resent: &envelope.resent,
        scope: Arc::new(scope(&envelope.source)),
        ..Request::default()
    };
    let mut scanner = Scanner::new(text.as_bytes());
    // A byte order mark is not JSON, but harmless.
    scanner.at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    request.read(&mut scanner, &text)?;
    if scanner.peek().is_some() {
        return Err(scanner.broken("the end of the body").into());
    }
    Ok(request.finish(envelope, text.len(), replaced))
}

/// Decodes an item's wire under this scope. Returns `None` if it cannot be read.
pub(super) fn item_of(wire: Bytes, scope: Arc<Scope>) -> Option<Item> {
    let source = Text::try_from(wire).ok()?;
    let mut scanner = Scanner::new(source.as_bytes());
    let item = item::Item::read(&mut scanner, &source).ok()?;
    let members = item.members.as_ref().filter(|_| !item.flawed && !item.too_deep)?;
    Request { scope, ..Request::default() }.decode_item(&source, &item, members).ok()
}

/// The format of ingest spans.
#[derive(Debug)]
struct OpenAi;

impl Format for OpenAi {
    fn is_otlp(&self) -> bool {
        false
    }

    fn detail(&self, span: &Span) -> Detail {
        detail::detail(span, Messages::Mapped)
    }

    fn brief_detail(&self, span: &Span) -> Detail {
        detail::detail(span, Messages::LeftOut)
    }

    fn said(&self, span: &Span, reading: &mut SpanReading) {
        detail::said(span, reading);
    }

    fn brief_facts(&self, span: &Span, reading: &mut SpanReading) {
        detail::brief_facts(span, &mut reading.facts);
    }

    fn synthetic_root(&self, span: &Span, rule: RootSpan) -> Option<SpanId> {
        let is_needed = match rule {
            RootSpan::Auto => span.facts().sdk_span_type.as_deref() != Some("task"),
            RootSpan::Always => true,
            RootSpan::Never => false,
        };
        is_needed.then(|| root::sdk_trace(span)).flatten().map(ids::root_span_id)
    }
}

/// The expected body, for error messages to the client.
const EXPECTED: &str = r#"{"data": [...]} as the Agents SDK sends it"#;

/// A body that is being decoded.
#[derive(Default)]
struct Request<'a> {
    items_max: usize,
    /// Indices of the items to omit, in ascending order.
    resent: &'a [u32],
    scope: Arc<Scope>,
    index: u32,
    items: Vec<Item>,
    refused: Vec<Refused>,
    traces: HashMap<TraceId, Arc<TraceObject>>,
    repaired: u32,
    /// Bytes of the repaired items, which do not share the body's memory.
    repaired_bytes: usize,
    /// Spans with a time that is unreadable, before 2000 or after 2100.
    odd_times: u32,
}

impl Request<'_> {
    fn read(&mut self, scanner: &mut Scanner<'_>, text: &Text) -> Result<(), Malformed> {
        let first = scanner.peek();
        if first != Some(b'{') {
            scanner.skip_value()?;
            return Err(Malformed::Shape(shape::sentence(
                EXPECTED,
                &BodyShape::Other(kind_of(first)),
            )));
        }
        let mut found = Some(BodyShape::Members(Vec::new()));
        scanner.each_member(|scanner, name| {
            let name = &*inside(text, name);
            if name == "data" {
                found = self.read_data(scanner, text)?;
                return Ok(());
            }
            if let Some(BodyShape::Members(names)) = &mut found
                && shape::is_telling(name, names.len())
            {
                names.push(name.to_owned());
            }
            scanner.skip_value().map_err(Malformed::from)
        })?;
        match found {
            None => Ok(()),
            Some(found) => Err(Malformed::Shape(shape::sentence(EXPECTED, &found))),
        }
    }

    /// Reads the items. If `data` is not an array, returns what it is instead.
    fn read_data(
        &mut self,
        scanner: &mut Scanner<'_>,
        text: &Text,
    ) -> Result<Option<BodyShape>, Malformed> {
        // If the name repeats, the last value counts.
        self.index = 0;
        self.items.clear();
        self.refused.clear();
        let first = scanner.peek();
        if first != Some(b'[') {
            scanner.skip_value()?;
            return Ok(Some(BodyShape::Data(kind_of(first))));
        }
        scanner.each_element(|scanner| {
            if self.items_max <= self.items.len() + self.refused.len() {
                return Err(Malformed::TooMany { what: "items", max: self.items_max });
            }
            let item = item::Item::read(scanner, text)?;
            self.take(text, &item);
            self.index = self.index.saturating_add(1);
            Ok(())
        })?;
        Ok(None)
    }

    fn take(&mut self, source: &Text, item: &item::Item<'_>) {
        let understood = match item {
            item::Item { members: None, .. } => Err("the item is not an object"),
            item::Item { too_deep: true, .. } => Err("the item is nested too deeply"),
            item::Item { flawed: true, text, .. } => self.repair(text),
            item::Item { members: Some(members), .. } => self.decode_item(source, item, members),
        };
        let is_resent = self.resent.binary_search(&self.index).is_ok();
        match understood {
            Ok(item) => {
                // A resent trace object still applies to the new spans of this request.
                if let Item::Trace(trace) = &item {
                    self.traces.insert(trace.trace_id, Arc::clone(trace));
                }
                if !is_resent {
                    self.items.push(item);
                }
            }
            Err(_) if is_resent => (),
            Err(reason) => {
                let wire = source.slice_ref(item.text).into_bytes();
                let (index, encoding) = (self.index, Encoding::Json);
                self.refused.push(Refused { index, reason, wire, encoding, scope: None });
            }
        }
    }

    fn repair(&mut self, text: &str) -> Result<Item, &'static str> {
        const BEYOND_REPAIR: &str = "the item is not JSON and could not be repaired";
        let repaired = Text::from(repair::repair(text).ok_or(BEYOND_REPAIR)?);
        let mut scanner = Scanner::new(repaired.as_bytes());
        let item = item::Item::read(&mut scanner, &repaired).map_err(|_| BEYOND_REPAIR)?;
        let members = item.members.as_ref().filter(|_| !item.flawed).ok_or(BEYOND_REPAIR)?;
        self.repaired += 1;
        self.repaired_bytes += repaired.len();
        self.decode_item(&repaired, &item, members)
    }

    fn decode_item(
        &mut self,
        source: &Text,
        item: &item::Item<'_>,
        members: &Members<'_>,
    ) -> Result<Item, &'static str> {
        let wire = source.slice_ref(item.text).into_bytes();
        let said = |text: Cow<'_, str>| Some(share(source, text)).filter(|text| !text.is_empty());
        let id = members.id.clone().filter(|id| !id.is_empty()).ok_or("its `id` is not text")?;
        match members.object.as_deref() {
            Some("trace") => Ok(Item::Trace(Arc::new(TraceObject {
                trace_id: ids::trace_id(&id),
                sdk_id: share(source, id),
                workflow: members.workflow_name.clone().and_then(said),
                group: members.group_id.clone().and_then(said),
                metadata: members.metadata.map(|metadata| source.slice_ref(metadata.text())),
                wire,
            }))),
            Some("trace.span") => {
                let trace = members.trace_id.as_deref().filter(|id| !id.is_empty());
                let trace = trace.ok_or("its `trace_id` is not text")?;
                let parent = members.parent_id.as_deref().filter(|id| !id.is_empty());
                let times = [&members.started_at, &members.ended_at];
                let times = times.map(|text| Some(time::nanos(text.as_deref()?).unwrap_or(0)));
                self.odd_times += u32::from(times.into_iter().flatten().any(is_odd));
                let [start_ns, end_ns] = times.map(Option::unwrap_or_default);
                let outline = SpanHeader {
                    trace_id: ids::trace_id(trace),
                    span_id: ids::span_id(trace, &id),
                    parent_id: parent.map(|parent| ids::span_id(trace, parent)),
                    start_ns,
                    end_ns,
                    wire,
                };
                let span = Span::new(outline, Arc::clone(&self.scope), None, &OpenAi);
                Ok(Item::Span(span.with_value_offsets(item.value_offsets)))
            }
            Some(_) => Err("the item is neither a trace nor a trace.span"),
            None => Err("the item does not say what object it is"),
        }
    }

    fn finish(mut self, envelope: &Envelope, body_bytes: usize, replaced: u32) -> Decoded {
        for item in &mut self.items {
            if let Item::Span(span) = item {
                span.trace = self.traces.get(&span.trace_id).cloned();
            }
        }
        let warnings = [
            ("bytes that are not UTF-8 were replaced", replaced),
            ("items with values that JSON does not allow were repaired", self.repaired),
            ("unreadable times, or ones before 2000 or after 2100, were kept", self.odd_times),
        ];
        let warnings = warnings.into_iter().filter(|(_, count)| *count != 0);
        let bytes = body_bytes + self.repaired_bytes + self.items.capacity() * size_of::<Item>();
        Decoded {
            batch: Batch { source: envelope.source.clone(), items: self.items, bytes },
            refused: self.refused,
            warnings: warnings.map(|(what, count)| Warning { what, count }).collect(),
            odd_times: self.odd_times.into(),
        }
    }
}

/// Derives the scope and resource of a request. The SDK identifies itself only in its user agent.
fn scope(source: &Source) -> Scope {
    let agent = source.header("user-agent").unwrap_or_default();
    let (language, version) = match agent.strip_prefix("Agents/JavaScript") {
        Some(version) => (Some("nodejs"), version.trim()),
        // The Python SDK sends its HTTP library's name, without a version of its own.
        None => (agent.starts_with("python-httpx").then_some("python"), ""),
    };
    let attributes = detail::attributes([
        (keys::TELEMETRY_SDK_NAME, language.map(|_| Text::from_static("openai-agents"))),
        (keys::TELEMETRY_SDK_LANGUAGE, language.map(Text::from_static)),
        (keys::TELEMETRY_SDK_VERSION, Some(Text::from(version)).filter(|text| !text.is_empty())),
    ]);
    Scope {
        resource: Arc::new(Resource { attributes, ..Resource::default() }),
        name: Text::from_static("spanferry"),
        version: Text::from_static(env!("CARGO_PKG_VERSION")),
        schema_url: Text::from_static(keys::SCHEMA_URL),
        ..Scope::default()
    }
}
