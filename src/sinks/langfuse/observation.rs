//! A span becomes an observation. Pure.
//!
//! Langfuse reads most conventions itself, so a span that came as OTLP goes out as the bytes that came in, with attributes behind them
//! for what Langfuse would not find: what is known of the trace only from other spans, the type of kinds that it has no word for, and
//! tokens in buckets that exclude each other. Only a span with something that Langfuse cannot use is written anew.
//!
//! In an item of the Agents SDK it finds nothing, so all of it is written:
//!
//! | the SDK's span | type | what else |
//! |---|---|---|
//! | task, turn, and the root made for a trace | chain | their token counts, which repeat those below them, are metadata |
//! | agent | agent | tools, handoffs and output type are metadata |
//! | generation, response | generation | model, parameters, input, output, tokens |
//! | function | tool | input, output; the MCP server is metadata |
//! | handoff | span | input is who hands over, output who takes over |
//! | guardrail | guardrail | output is whether it tripped; if so, it is a warning |
//! | `mcp_tools` | span | output is the list of tools |
//! | transcription, speech | generation | audio is its format and size |
//! | `speech_group`, custom, whatever else | span | data is metadata |
//!
//! Whatever of an item has no place of its own is metadata of the observation, the ids as the SDK wrote them included.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::change::{Change, speaks};
use super::fields;
use super::metadata::{write_item, write_parameters};
use super::options::Settings;
use super::reads::{Fact, Reads, facts_of, type_of, usable_ones};
use super::trace::{self, Trace, Traces};
use super::usage::{write_buckets, write_cost};
use crate::span::otlp::protobuf;
use crate::span::{
    Attribute, Convention, Detail, Facts, Kind, Link, Payload, STATUS_ERROR, Span, SpanEvent, Text,
    Tokens, TraceId, Usage, Value,
};

/// What observations are written with.
pub(super) struct Encoding<'a> {
    pub(super) settings: &'a Settings,
    pub(super) traces: &'a Traces<'a>,
    pub(super) answers: &'a Answers,
}

/// What OpenAI said of the answers of a delivery.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    /// By the answers' ids.
    pub(super) by_id: HashMap<Text, Arc<Answer>>,
    /// Traces whose tokens are known from there, now or before.
    pub(super) counted: HashSet<TraceId>,
}

/// What OpenAI said of an answer when it was asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Answer {
    pub(super) model: Option<Text>,
    pub(super) usage: Usage,
    pub(super) output: Option<Payload>,
}

/// Appends the fields of a `Span` message.
pub(super) fn write(out: &mut Vec<u8>, span: &Span, encoding: &Encoding<'_>) {
    let is_otlp = span.is_otlp();
    let detail = span.brief_detail();
    let reads = if is_otlp { Reads::of(span) } else { Reads::default() };
    let trace = encoding.traces.get(span.trace_id);
    let prices = &encoding.settings.prices;
    let tokens = prices.tokens_of(trace.and_then(|trace| trace.context), span);
    let tags = trace.map(|trace| &trace.tags[..]).unwrap_or_default();
    let change = Change::of(span, &detail, reads, &tokens, tags);
    let facts = span.facts();
    let reads = reads.without(change.gone());
    let observation = Observation {
        span,
        is_otlp,
        facts,
        detail: &detail,
        trace,
        tokens,
        reads,
        change,
        encoding,
    };
    let has_sound_times = encoding.traces.times(span) == (span.start_ns, span.end_ns);
    if is_otlp && has_sound_times && !observation.change.is_needed() {
        out.extend_from_slice(&span.wire);
    } else {
        observation.write_whole(out);
    }
    observation.add(out);
}

/// Buckets are seldom longer.
const USAGE_BYTES: usize = 120;

/// What an observation is written from.
struct Observation<'a> {
    span: &'a Span,
    is_otlp: bool,
    facts: &'a Facts,
    detail: &'a Detail,
    trace: Option<&'a Trace<'a>>,
    tokens: Tokens<'a>,
    /// What Langfuse finds by itself in what is sent of it.
    reads: Reads,
    change: Change,
    encoding: &'a Encoding<'a>,
}

impl Observation<'_> {
    // === The span itself ===

    fn write_whole(&self, out: &mut Vec<u8>) {
        let Self { span, detail, .. } = self;
        let context = self.trace.and_then(|trace| trace.context);
        let parent = self.encoding.settings.options.root_span.parent_of(context, span);
        let name = self.name();
        let name = if name.is_empty() { "span" } else { &*name };
        let as_sent = detail.attributes.iter().filter(|_| self.is_otlp);
        let event = |event: &SpanEvent| SpanEvent {
            attributes: usable_ones(&event.attributes),
            ..event.clone()
        };
        let link = |link: &Link| Link { attributes: usable_ones(&link.attributes), ..link.clone() };
        let whole = Detail {
            name: fields::cut(name, fields::NAME_UNITS_MAX).into(),
            attributes: as_sent.filter_map(|one| self.change.changed(one)).collect(),
            events: detail.events.iter().map(event).collect(),
            links: detail.links.iter().map(link).collect(),
            trace_state: detail.trace_state.clone(),
            status_message: detail.status_message.clone(),
            agents_sdk: None,
            ..**detail
        };
        let times = self.encoding.traces.times(span);
        protobuf::write_span(out, span, times, parent, &whole);
        if !self.is_otlp {
            write_item(out, detail, &self.tokens);
        }
    }

    /// Of a model call without a model in its name, but with one in the configuration, the name says that. The root that was made
    /// for a trace is called like the trace.
    fn name(&self) -> Cow<'_, str> {
        let facts = self.facts;
        let of_trace = facts.workflow.as_ref().filter(|_| self.span.is_synthetic());
        let as_sent = Some(&self.detail.name).filter(|name| self.is_otlp && !name.is_empty());
        let name = as_sent.or(of_trace).unwrap_or(&facts.name);
        let is_bare = !self.is_otlp && facts.kind == Kind::Generation && &**name == "chat";
        match self.model().filter(|_| is_bare) {
            Some(model) => Cow::Owned(format!("{name} {model}")),
            None => Cow::Borrowed(name),
        }
    }

    // === What Langfuse does not find in it ===

    fn add(&self, out: &mut Vec<u8>) {
        self.add_trace(out);
        self.add_type(out);
        self.add_level(out);
        self.add_content(out);
        if self.tokens.counts {
            self.add_model(out);
        }
        if let Some(first) = self.facts.first_token_ns
            && !self.reads.has(Fact::CompletionStart)
        {
            let (start_ns, _) = self.encoding.traces.times(self.span);
            fields::time(out, fields::COMPLETION_START, start_ns.saturating_add(first));
        }
        let says_agent = [Kind::Agent, Kind::Handoff].contains(&self.facts.kind);
        if let Some(agent) = self.agent().filter(|_| !self.is_otlp && !says_agent) {
            fields::metadata(out, "agent", &Value::Text(agent.clone()));
        }
    }

    /// What is known of the trace. An OTLP span's own word goes first; of an item of the SDK nothing is said but in its trace.
    fn add_trace(&self, out: &mut Vec<u8>) {
        let none = Trace::default();
        let (facts, trace) = (self.facts, self.trace.unwrap_or(&none));
        for (fact, key, own, known) in [
            (Fact::Session, trace::SESSION, &facts.session, &trace.session),
            (Fact::User, trace::USER, &facts.user, &trace.user),
            (Fact::Environment, trace::ENVIRONMENT, &facts.environment, &trace.environment),
            (Fact::Release, trace::RELEASE, &facts.release, &trace.release),
            (Fact::TraceName, trace::NAME, &facts.workflow, &trace.name),
        ] {
            let (first, second) = if self.is_otlp { (own, known) } else { (known, own) };
            if let Some(value) = first.as_ref().or(second.as_ref())
                && !self.finds(fact, own.as_ref())
            {
                let is_name = fact == Fact::TraceName;
                let value = if is_name { fields::cut(value, trace::NAME_UNITS_MAX) } else { value };
                fields::text(out, key, value);
            }
        }
        if !self.reads.has(Fact::Tags) {
            let is_new = |tag: &&Text| !trace.tags.contains(tag);
            let tags = trace.tags.iter().chain(facts.tags.iter().filter(is_new));
            fields::texts(out, trace::TAGS, tags);
        }
        if !self.is_otlp {
            out.extend_from_slice(&trace.metadata);
        }
    }

    /// Whether Langfuse finds that, and of several sessions or users the one that goes before.
    fn finds(&self, fact: Fact, own: Option<&Text>) -> bool {
        let is_it = |one: &Attribute| {
            one.value.as_text().is_none_or(|text| Some(text) == own) && facts_of(&one.key).has(fact)
        };
        let is_one_of_several = [Fact::Session, Fact::User].contains(&fact) && own.is_some();
        self.reads.has(fact) && (!is_one_of_several || self.detail.attributes.iter().any(is_it))
    }

    /// The type, where Langfuse would find another. It prices neither points in time nor plain spans.
    fn add_type(&self, out: &mut Vec<u8>) {
        let is_step = self.facts.sdk_span_type.is_some();
        let wanted = match type_of(self.facts.kind) {
            // The SDK's `speech_group` is the only chain that is neither a task nor a turn.
            Some("chain") if !self.is_otlp && !is_step && !self.span.is_synthetic() => Some("span"),
            wanted if !self.is_otlp => wanted.or(Some("span")),
            None | Some("event") if speaks(self.facts, &self.tokens) => Some("generation"),
            wanted => wanted,
        };
        if let Some(wanted) = wanted
            && !self.reads.has(Fact::Type)
            && self.reads.own_type() != Some(wanted)
        {
            fields::text(out, fields::TYPE, wanted);
        }
    }

    /// An error, where OTLP's status does not say it (that of Logfire is in its level), or a warning where a guardrail tripped.
    fn add_level(&self, out: &mut Vec<u8>) {
        let (facts, detail) = (self.facts, self.detail);
        let is_read = self.reads.has(Fact::Level) || detail.status_code == STATUS_ERROR;
        if self.is_otlp && is_read {
            return;
        }
        let is_said = !self.is_otlp || facts.convention == Convention::Logfire;
        let (level, message) = match &facts.error {
            Some(error) if is_said => ("ERROR", &*error.message),
            _ if facts.guardrail_triggered == Some(true) => ("WARNING", "guardrail triggered"),
            _ => return,
        };
        fields::text(out, fields::LEVEL, level);
        let has_message = self.reads.has(Fact::StatusMessage)
            || (self.is_otlp && !detail.status_message.is_empty());
        if !has_message && !message.is_empty() {
            fields::text(out, fields::STATUS_MESSAGE, message);
        }
    }

    /// Input and output, where Langfuse does not find them in the span's convention. Where one is written both are: Langfuse then
    /// looks for neither anywhere else.
    fn add_content(&self, out: &mut Vec<u8>) {
        let has = |fact| self.reads.has(fact);
        if has(Fact::OwnInput) || has(Fact::OwnOutput) {
            return;
        }
        let [input, output] = self.content();
        let is_missed =
            (input.is_some() && !has(Fact::Input)) || (output.is_some() && !has(Fact::Output));
        let is_known =
            (input.is_some() || !has(Fact::Input)) && (output.is_some() || !has(Fact::Output));
        if is_missed && is_known {
            for (key, text) in [(fields::INPUT, input), (fields::OUTPUT, output)] {
                if let Some(text) = text {
                    fields::text(out, key, text);
                }
            }
        }
    }

    /// Langfuse shows input and output of the root as the trace's own, so a root or task without any gets the first and last that
    /// went through a model below it. It shows an empty text as nothing.
    fn content(&self) -> [Option<&str>; 2] {
        let facts = self.facts;
        match facts.kind {
            Kind::Handoff if !self.is_otlp => {
                [&facts.handoff_from, &facts.handoff_to].map(Option::as_deref)
            }
            Kind::Guardrail if !self.is_otlp => {
                let output = facts.guardrail_triggered.map(|triggered| {
                    if triggered { r#"{"triggered":true}"# } else { r#"{"triggered":false}"# }
                });
                [None, output]
            }
            _ => {
                let known = self.trace.and_then(|trace| trace.content(self.span));
                let answer = self.answer().and_then(|answer| answer.output.as_ref());
                let input = facts.input.as_ref();
                let output = facts.output.as_ref().or(answer);
                let input = input.or(known.and_then(|known| known.input.as_ref()));
                let output = output.or(known.and_then(|known| known.output.as_ref()));
                let is_said = |text: &&str| !self.is_otlp || !text.is_empty();
                [input, output].map(|payload| payload.map(Payload::as_str).filter(is_said))
            }
        }
    }

    // === Model ===

    /// What OpenAI said when it was asked for the answer.
    fn answer(&self) -> Option<&Answer> {
        let id = self.facts.response_id.as_ref().filter(|_| !self.is_otlp)?;
        self.encoding.answers.by_id.get(id).map(AsRef::as_ref)
    }

    /// The agent at whose behest the span is.
    fn agent(&self) -> Option<&Text> {
        let context = self.trace.and_then(|trace| trace.context);
        let known = context.and_then(|context| context.agents.get(&self.span.span_id));
        self.facts.agent.as_ref().or(known)
    }

    /// The model: as the span says, else as the configuration, else as OpenAI.
    fn model(&self) -> Option<&str> {
        let facts = self.facts;
        let models = &self.encoding.settings.options.models;
        let (asked, answered) = (facts.request_model.as_ref(), facts.response_model.as_ref());
        if self.is_otlp {
            return answered.or(asked).map(|model| &**model);
        }
        let own = asked.or(answered).map(|model| &**model);
        let default = models.default.as_deref();
        match facts.kind {
            Kind::Generation => own
                .or_else(|| models.agents.get(&**self.agent()?).map(String::as_str))
                .or(default)
                .or_else(|| self.answer()?.model.as_deref()),
            kind if kind.counts_usage() => own,
            // One model for all agents can price a task; several cannot be told apart.
            _ => default.filter(|_| models.agents.is_empty()),
        }
    }

    /// Model, parameters, tokens and cost, of a span whose tokens count.
    fn add_model(&self, out: &mut Vec<u8>) {
        let (facts, has) = (self.facts, |fact| self.reads.has(fact));
        let is_call = self.is_otlp || facts.kind.counts_usage();
        if !is_call && self.encoding.answers.counted.contains(&self.span.trace_id) {
            return;
        }
        let model = self.model();
        let has_model = has(Fact::Model) && !has(Fact::QuotedModel);
        if let Some(model) = model.filter(|_| !has_model) {
            fields::text(out, fields::MODEL, model);
        }
        if let Some(parameters) = facts.parameters.as_ref().filter(|_| !has(Fact::Parameters)) {
            write_parameters(out, parameters.as_str());
        }
        let mut usage = self.tokens.own;
        if let Some(answer) = self.answer().filter(|_| usage.is_empty()) {
            usage = &answer.usage;
        }
        let is_said = !usage.is_empty() || (model.is_some() && self.counts_zero(has_model));
        if is_said && !has(Fact::OwnUsage) {
            let reasoning = self.encoding.settings.options.reasoning_tokens;
            fields::text_made_of(out, &[fields::USAGE], USAGE_BYTES, |out| {
                write_buckets(out, usage, model, reasoning);
            });
        }
        if let Some(cost) = &self.change.cost {
            fields::text(out, fields::COST, cost);
        } else if self.tokens.cost_source.is_some() && !has(Fact::Cost) {
            fields::text_made_of(out, &[fields::COST], 0, |out| write_cost(out, self.tokens.cost));
        }
    }

    /// Of a text with a model and without tokens Langfuse makes up both tokens and cost, unless it is told a count, be it 0. It is
    /// told that where another span says the tokens, and where it has model or text from here alone: what we write is JSON around
    /// the words, or stands for audio, so that it would be far off.
    fn counts_zero(&self, has_model: bool) -> bool {
        let (facts, has) = (self.facts, |fact| self.reads.has(fact));
        let has_text = has(Fact::Input) || has(Fact::Output);
        let is_texted = has_text || facts.input.is_some() || facts.output.is_some();
        let is_from_here = !has_model || !has_text;
        let is_estimated = is_texted && facts.error.is_none() && !has(Fact::Usage);
        is_estimated && (self.tokens.is_told || is_from_here)
    }
}
