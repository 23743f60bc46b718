//! Collects what is known of a delivery's traces, and writes it as attributes of each of their spans. Pure.
//!
//! Langfuse 4 has no traces, only spans: if a session, user or tag is on the root alone, every other span is missing from the session's
//! sums. So each span carries all of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::fields;
use super::options::Settings;
use crate::sinks::Delivery;
use crate::span::{
    Facts, Item, Payload, Span, SpanId, Text, TraceContext, TraceId, TraceObject, Usage, payloads,
    tags,
};
use crate::support::json::raw::Raw;

/// The known facts about one trace.
#[derive(Debug, Default)]
pub(super) struct Trace<'a> {
    /// The lane's context of the trace.
    pub(super) context: Option<&'a TraceContext>,
    pub(super) name: Option<Text>,
    pub(super) session: Option<Text>,
    pub(super) user: Option<Text>,
    pub(super) environment: Option<Text>,
    pub(super) release: Option<Text>,
    pub(super) tags: Vec<Text>,
    /// Its metadata, encoded as attributes of an Agents SDK span.
    pub(super) metadata: Vec<u8>,
}

/// The known facts about a delivery's traces.
#[derive(Debug, Default)]
pub(super) struct Traces<'a> {
    by_id: HashMap<TraceId, Trace<'a>>,
    unknown: Trace<'a>,
    /// Start times, in nanoseconds since 1970, of spans that are not sent with their own.
    starts: FirstStarts,
}

/// Facts about a delivery's spans that are known from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct KnownFacts {
    /// OpenAI's responses, by their ids.
    pub(super) answers: HashMap<Text, Arc<Answer>>,
    /// Traces whose tokens are known from responses, of this or earlier deliveries.
    pub(super) counted: HashSet<TraceId>,
    /// The start times of spans that were delivered before.
    pub(super) starts: FirstStarts,
}

/// A response that was fetched from OpenAI.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Answer {
    pub(super) model: Option<Text>,
    pub(super) usage: Usage,
    pub(super) output: Option<Payload>,
}

/// Start times of spans, in nanoseconds since 1970.
pub(super) type FirstStarts = HashMap<(TraceId, SpanId), u64>;

/// Returns a span's start: if it has none, its end, and if it has neither, the time at which it was received.
pub(super) fn start_of(span: &Span, received_at_ns: u64) -> u64 {
    let known = [span.start_ns, span.end_ns].into_iter().find(|time| *time != 0);
    known.unwrap_or(received_at_ns)
}

/// Langfuse's own SDKs cut trace names at this length.
pub(super) const NAME_UNITS_MAX: usize = 200;

/// The trace object and the facts of the delivery itself.
type DeliveredFacts<'a> = (Option<&'a TraceObject>, Option<&'a Facts>);

impl<'a> Traces<'a> {
    /// Reads a delivery and the lane's context of its traces. Spans that were delivered before keep their start.
    pub(super) fn of(delivery: &'a Delivery, settings: &Settings, first: &FirstStarts) -> Self {
        let mut said: HashMap<TraceId, DeliveredFacts<'a>> = HashMap::new();
        let mut starts = HashMap::new();
        for (batch, item) in delivery.items() {
            let said = said.entry(item.trace_id()).or_default();
            match item {
                Item::Trace(object) => said.0 = Some(object),
                Item::Span(span) => {
                    let id = (span.trace_id, span.span_id);
                    let own = start_of(span, batch.source.received_at_ns);
                    let start = first.get(&id).copied().unwrap_or(own);
                    if start != span.start_ns {
                        starts.insert(id, start);
                    }
                    if let Some(object) = &span.trace
                        && said.1.is_none()
                    {
                        *said = (Some(object), Some(span.facts()));
                    }
                }
            }
        }
        let traces = said
            .into_iter()
            .map(|(id, said)| (id, Trace::of(delivery.context(id), said, settings)));
        Self { by_id: traces.collect(), unknown: Trace::default(), starts }
    }

    /// Returns the known facts about a trace.
    pub(super) fn get(&self, id: TraceId) -> &Trace<'a> {
        self.by_id.get(&id).unwrap_or(&self.unknown)
    }

    /// Returns a span's start and end, in nanoseconds since 1970, in a form that Langfuse can use: no end precedes its start.
    pub(super) fn times(&self, span: &Span) -> (u64, u64) {
        let start = self.starts.get(&(span.trace_id, span.span_id));
        let start = start.copied().unwrap_or(span.start_ns);
        (start, span.end_ns.max(start))
    }
}

impl<'a> Trace<'a> {
    fn of(
        context: Option<&'a TraceContext>,
        (object, facts): DeliveredFacts<'a>,
        settings: &Settings,
    ) -> Self {
        let object = object.or(context.and_then(|context| context.trace.as_deref()));
        let metadata = match context {
            Some(context) if !context.metadata.is_empty() => context.metadata.clone(),
            _ => {
                let said = object.and_then(|object| object.metadata.as_ref());
                said.into_iter().flat_map(|json| payloads(json, Raw::trusted(json))).collect()
            }
        };
        let member = |name: &str| {
            metadata.iter().rfind(|(known, _)| **known == *name).map(|(_, value)| value)
        };
        let plain = |(Payload::Text(text) | Payload::Json(text)): &Payload| text.clone();
        let no_context = TraceContext::default();
        let known = context.unwrap_or(&no_context);
        let facts = facts.unwrap_or(Facts::none());
        let first =
            |known: &Option<Text>, said: &Option<Text>| known.as_ref().or(said.as_ref()).cloned();
        let of_object = |said: fn(&TraceObject) -> &Option<Text>| said(object?).clone();
        let option = |option: &Option<String>| option.clone().map(Text::from);
        let options = &settings.options;
        let mut trace = Self {
            context,
            name: first(&known.workflow, &facts.workflow)
                .or_else(|| of_object(|object| &object.workflow))
                .filter(|name| !name.is_empty()),
            session: first(&known.session, &facts.session)
                .or_else(|| of_object(|object| &object.group))
                .filter(|session| !session.is_empty()),
            user: member(&options.user_from).map(plain).or_else(|| first(&known.user, &facts.user)),
            environment: first(&known.environment, &facts.environment)
                .or_else(|| option(&options.environment)),
            release: first(&known.release, &facts.release).or_else(|| option(&options.release)),
            tags: member(&options.tags_from).map(tags).unwrap_or_default(),
            metadata: metadata_attributes(&metadata),
        };
        for tag in known.tags.iter().chain(&facts.tags) {
            if !trace.tags.contains(tag) {
                trace.tags.push(tag.clone());
            }
        }
        trace
    }
}

pub(super) const NAME: &str = "langfuse.trace.name";
pub(super) const SESSION: &str = "session.id";
pub(super) const USER: &str = "user.id";
pub(super) const TAGS: &str = "langfuse.trace.tags";
pub(super) const ENVIRONMENT: &str = "langfuse.environment";
pub(super) const RELEASE: &str = "langfuse.release";
/// Prefix of members of the trace's metadata.
const METADATA: &str = "langfuse.trace.metadata.";

fn metadata_attributes(metadata: &[(Text, Payload)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in metadata {
        let guess = value.as_str().len() + 2;
        fields::text_made_of(&mut out, &[METADATA, name], guess, |out| {
            fields::write_payload_as_json(out, value);
        });
    }
    out
}
