//! What is known of the traces of a delivery, and the attributes that say so on every span of them. Pure.
//!
//! Langfuse 4 has no traces, only spans: a session, user or tag that stands on the root alone costs every other span its place in
//! the session's sums. So each span gets all of it.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;

use super::fields;
use super::options::Settings;
use crate::sinks::Delivery;
use crate::span::{
    Content, Facts, Item, Payload, Span, SpanId, Text, TraceContext, TraceId, TraceObject,
};

/// What is known of one trace.
#[derive(Debug, Default)]
pub(super) struct Trace<'a> {
    /// What the lane found out.
    pub(super) context: Option<&'a TraceContext>,
    /// Its name.
    pub(super) name: Option<Text>,
    /// Its conversation or group.
    pub(super) session: Option<Text>,
    /// Its end user.
    pub(super) user: Option<Text>,
    /// Where it ran.
    pub(super) environment: Option<Text>,
    /// What ran.
    pub(super) release: Option<Text>,
    /// Its labels.
    pub(super) tags: Vec<Text>,
    /// All of this as attributes of a native span.
    pub(super) stamp: Vec<u8>,
}

/// What is known of the traces of a delivery.
#[derive(Debug, Default)]
pub(super) struct Traces<'a> {
    by_id: HashMap<TraceId, Trace<'a>>,
    /// When spans arrived that say neither when they started nor when they ended.
    received_at_ns: HashMap<(TraceId, SpanId), u64>,
}

/// Langfuse's own SDKs cut the names of traces here.
const NAME_UNITS_MAX: usize = 200;

/// What a delivery itself says of a trace.
#[derive(Default, Clone, Copy)]
struct Said<'a> {
    object: Option<&'a TraceObject>,
    facts: Option<&'a Facts>,
}

impl<'a> Traces<'a> {
    /// Reads a delivery and what the lane found out about its traces.
    pub(super) fn of(delivery: &'a Delivery, settings: &Settings) -> Self {
        let mut said: HashMap<TraceId, Said<'a>> = HashMap::new();
        let mut received_at_ns = HashMap::new();
        for (batch, item) in delivery.items() {
            let said = said.entry(item.trace_id()).or_default();
            match item {
                Item::Trace(object) => said.object = Some(object),
                Item::Span(span) => {
                    if span.start_ns == 0 && span.end_ns == 0 {
                        let id = (span.trace_id, span.span_id);
                        received_at_ns.insert(id, batch.source.received_at_ns);
                    }
                    if let Some(object) = &span.trace
                        && said.facts.is_none()
                    {
                        *said = Said { object: Some(object), facts: Some(span.facts()) };
                    }
                }
            }
        }
        let traces = said
            .into_iter()
            .map(|(id, said)| (id, Trace::of(delivery.context(id), said, settings)));
        Self { by_id: traces.collect(), received_at_ns }
    }

    /// What is known of a trace.
    pub(super) fn get(&self, id: TraceId) -> Option<&Trace<'a>> {
        self.by_id.get(&id)
    }

    /// When a span started and ended, in nanoseconds since 1970, such that Langfuse can use it: a time that is missing is the other
    /// one, and an end before the start is the start.
    pub(super) fn times(&self, span: &Span) -> (u64, u64) {
        match (span.start_ns, span.end_ns) {
            (0, 0) => {
                let id = (span.trace_id, span.span_id);
                let received = self.received_at_ns.get(&id).copied().unwrap_or_default();
                (received, received)
            }
            (0, end) => (end, end),
            (start, end) => (start, end.max(start)),
        }
    }
}

impl<'a> Trace<'a> {
    fn of(context: Option<&'a TraceContext>, said: Said<'a>, settings: &Settings) -> Self {
        let object = said.object.or(context.and_then(|context| context.trace.as_deref()));
        let metadata = match context {
            Some(context) if !context.metadata.is_empty() => context.metadata.clone(),
            _ => object.and_then(|object| object.metadata.as_ref()).map_or_else(Vec::new, members),
        };
        let member = |name: &str| {
            let found = metadata.iter().find(|(known, _)| **known == *name);
            found.map(|(_, value)| value)
        };
        let first = |from_context: fn(&TraceContext) -> &Option<Text>,
                     from_facts: fn(&Facts) -> &Option<Text>| {
            let of_context = context.map(from_context).cloned().flatten();
            of_context.or_else(|| said.facts.map(from_facts).cloned().flatten())
        };
        let options = &settings.options;
        let mut trace = Self {
            context,
            name: first(|context| &context.workflow, |facts| &facts.workflow)
                .or_else(|| object.and_then(|object| object.workflow.clone()))
                .filter(|name| !name.is_empty()),
            session: first(|context| &context.session, |facts| &facts.session)
                .or_else(|| object.and_then(|object| object.group.clone()))
                .filter(|session| !session.is_empty()),
            user: member(&options.user_from)
                .map(plain)
                .or_else(|| first(|context| &context.user, |facts| &facts.user)),
            environment: first(|context| &context.environment, |facts| &facts.environment)
                .or_else(|| options.environment.clone().map(Text::from)),
            release: first(|context| &context.release, |facts| &facts.release)
                .or_else(|| options.release.clone().map(Text::from)),
            tags: member(&options.tags_from).map(tags).unwrap_or_default(),
            stamp: Vec::new(),
        };
        let of_context = context.map(|context| &context.tags[..]).unwrap_or_default();
        let of_facts = said.facts.map(|facts| &facts.tags[..]).unwrap_or_default();
        for tag in of_context.iter().chain(of_facts) {
            if !trace.tags.contains(tag) {
                trace.tags.push(tag.clone());
            }
        }
        trace.stamp = trace.stamp(&metadata);
        trace
    }

    /// What went through the models below a span that has no parent.
    pub(super) fn content(&self, span: &Span) -> Option<&'a Content> {
        self.context?.contents.get(&span.span_id)
    }

    fn stamp(&self, metadata: &[(Text, Payload)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in [
            (SESSION, &self.session),
            (USER, &self.user),
            (ENVIRONMENT, &self.environment),
            (RELEASE, &self.release),
        ] {
            fields::text_if(&mut out, key, value.as_deref());
        }
        if let Some(name) = &self.name {
            write_name(&mut out, name);
        }
        if !self.tags.is_empty() {
            fields::texts(&mut out, TAGS, &self.tags);
        }
        for (name, value) in metadata {
            let guess = value.as_str().len() + 2;
            fields::text_made_of(&mut out, &[METADATA, name], guess, |out| {
                fields::write_payload_as_json(out, value);
            });
        }
        out
    }
}

/// Appends the trace's name.
pub(super) fn write_name(out: &mut Vec<u8>, name: &str) {
    fields::text(out, NAME, fields::cut(name, NAME_UNITS_MAX));
}

pub(super) const NAME: &str = "langfuse.trace.name";
pub(super) const SESSION: &str = "session.id";
pub(super) const USER: &str = "user.id";
pub(super) const TAGS: &str = "langfuse.trace.tags";
pub(super) const ENVIRONMENT: &str = "langfuse.environment";
pub(super) const RELEASE: &str = "langfuse.release";
/// Goes before a member of the trace's metadata.
const METADATA: &str = "langfuse.trace.metadata.";

/// The members of a JSON object; none where it cannot be read.
fn members(object: &Text) -> Vec<(Text, Payload)> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(object).unwrap_or_default();
    let payload = |value: &RawValue| match serde_json::from_str::<Option<String>>(value.get()) {
        Ok(text) => text.map(|text| Payload::Text(text.into())),
        Err(_) => Some(Payload::Json(object.slice_ref(value.get()))),
    };
    members.into_iter().filter_map(|(name, value)| Some((name.into(), payload(value)?))).collect()
}

fn plain(value: &Payload) -> Text {
    match value {
        Payload::Text(text) | Payload::Json(text) => text.clone(),
    }
}

/// Tags come as a list, or as text with commas between them.
fn tags(value: &Payload) -> Vec<Text> {
    match value {
        Payload::Json(json) => {
            let tags: Vec<serde_json::Value> = serde_json::from_str(json).unwrap_or_default();
            let text = |tag: serde_json::Value| match tag {
                serde_json::Value::String(text) => Text::from(text),
                other => Text::from(other.to_string()),
            };
            tags.into_iter().map(text).collect()
        }
        Payload::Text(text) => {
            let tags = text.split(',').map(str::trim).filter(|tag| !tag.is_empty());
            tags.map(Text::from).collect()
        }
    }
}
