//! Encodes a span as an observation. Pure.
//!
//! Langfuse reads most conventions itself. An OTLP span is therefore sent as the bytes that were received, followed by attributes for what
//! Langfuse would not find: the trace's context from other spans, the type of kinds that Langfuse does not know, and tokens in mutually
//! exclusive buckets. A span is rewritten only if Langfuse cannot use part of it.
//!
//! Langfuse finds nothing in an item of the Agents SDK, so all of its fields are written:
//!
//! | the SDK's span | type | other fields |
//! |---|---|---|
//! | task, turn, and the root created for a trace | chain | their token counts, which repeat those below them, are metadata |
//! | agent | agent | tools, handoffs and output type are metadata |
//! | generation, response | generation | model, parameters, input, output, tokens |
//! | function | tool | input, output; the MCP server is metadata |
//! | handoff | span | input is the agent that hands over, output the agent that takes over |
//! | guardrail | guardrail | output is whether it was triggered; if so, the level is a warning |
//! | `mcp_tools` | span | output is the list of tools |
//! | transcription, speech | generation | audio is its format and size |
//! | `speech_group`, custom, any other | span | data is metadata |
//!
//! All other data of an item is metadata of the observation, including the SDK's own ids.

use std::borrow::Cow;

use super::change::{Change, speaks};
use super::fields;
use super::options::Settings;
use super::reads::{Fact, Reads, facts_of, type_of, usable_ones};
use super::trace::{self, Answer, KnownFacts, Trace, Traces};
use super::usage::{write_buckets, write_cost};
use crate::span::otlp::protobuf;
use crate::span::{
    Attribute, Detail, Facts, Kind, Link, Payload, STATUS_ERROR, Span, SpanEvent, Text, Tokens,
    Value,
};
use crate::support::rfc3339;

/// The inputs of encoding.
pub(super) struct Encoding<'a> {
    pub(super) settings: &'a Settings,
    pub(super) traces: &'a Traces<'a>,
    pub(super) known: &'a KnownFacts,
}

/// Appends the fields of a `Span` message.
pub(super) fn write(out: &mut Vec<u8>, span: &Span, encoding: &Encoding<'_>) {
    let is_otlp = span.is_otlp();
    let detail = &*span.brief_detail();
    let reads = if is_otlp { Reads::of(span) } else { Reads::default() };
    let trace = encoding.traces.get(span.trace_id);
    let prices = &encoding.settings.prices;
    let tokens = prices.tokens_of(trace.context, span);
    let change = Change::of(span, detail, reads, &tokens, &trace.tags);
    let facts = span.facts();
    let reads = reads.without(change.gone());
    let has_sound_times = encoding.traces.times(span) == (span.start_ns, span.end_ns);
    let is_as_sent = is_otlp && has_sound_times && !change.is_needed();
    let this = Observation { span, is_otlp, facts, detail, trace, tokens, reads, change, encoding };
    if is_as_sent {
        out.extend_from_slice(&span.wire);
    } else {
        this.write_whole(out);
    }
    this.add(out);
}

/// The usual maximum size of the buckets.
const USAGE_BYTES: usize = 120;

/// The inputs of one observation.
struct Observation<'a> {
    span: &'a Span,
    is_otlp: bool,
    facts: &'a Facts,
    detail: &'a Detail,
    trace: &'a Trace<'a>,
    tokens: Tokens<'a>,
    /// The facts that Langfuse finds by itself in the span.
    reads: Reads,
    change: Change,
    encoding: &'a Encoding<'a>,
}

impl Observation<'_> {
    // === The span itself ===

    fn write_whole(&self, out: &mut Vec<u8>) {
        let Self { span, detail, .. } = self;
        let rule = self.encoding.settings.options.root_span;
        let parent = rule.parent_of(self.trace.context, span);
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
            fields::write_item(out, detail, &self.tokens);
        }
    }

    /// Returns the span's name. If a model call's name contains no model but the configuration has one, the model is added to it. The root
    /// created for a trace is named like the trace.
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

    // === Facts that Langfuse does not find ===

    fn add(&self, out: &mut Vec<u8>) {
        self.add_trace(out);
        self.add_type(out);
        self.add_level(out);
        self.add_content(out);
        if self.tokens.counts {
            self.add_model(out);
        }
        if let Some(first) = self.facts.first_token_ns
            && !self.reads.found.has(Fact::CompletionStart)
        {
            let (start_ns, _) = self.encoding.traces.times(self.span);
            let at = rfc3339::text(start_ns.saturating_add(first));
            fields::text(out, fields::COMPLETION_START, &at);
        }
        let says_agent = [Kind::Agent, Kind::Handoff].contains(&self.facts.kind);
        if let Some(agent) = self.agent().filter(|_| !self.is_otlp && !says_agent) {
            fields::metadata(out, "agent", &Value::Text(agent.clone()));
        }
    }

    /// Adds the trace's context. An OTLP span's own values take precedence; an SDK item has values only from its trace.
    fn add_trace(&self, out: &mut Vec<u8>) {
        let (facts, trace) = (self.facts, self.trace);
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
        if !self.reads.found.has(Fact::Tags) {
            let is_new = |tag: &&Text| !trace.tags.contains(tag);
            let tags = trace.tags.iter().chain(facts.tags.iter().filter(is_new));
            fields::texts(out, trace::TAGS, tags);
        }
        if !self.is_otlp {
            out.extend_from_slice(&trace.metadata);
        }
    }

    /// Returns whether Langfuse finds the fact and, of several sessions or users, the one that takes precedence.
    fn finds(&self, fact: Fact, own: Option<&Text>) -> bool {
        let is_it = |one: &Attribute| {
            one.value.as_text().is_none_or(|text| Some(text) == own) && facts_of(&one.key).has(fact)
        };
        let is_one_of_several = [Fact::Session, Fact::User].contains(&fact) && own.is_some();
        self.reads.found.has(fact)
            && (!is_one_of_several || self.detail.attributes.iter().any(is_it))
    }

    /// Adds the type if Langfuse would infer another. Langfuse prices neither events nor plain spans.
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
            && !self.reads.found.has(Fact::Type)
            && self.reads.own_type() != Some(wanted)
        {
            fields::text(out, fields::TYPE, wanted);
        }
    }

    /// Adds an error that the OTLP status does not have (many clients put it in an attribute), or a warning for a triggered guardrail.
    fn add_level(&self, out: &mut Vec<u8>) {
        let (facts, detail) = (self.facts, self.detail);
        let is_read = self.reads.found.has(Fact::Level) || detail.status_code == STATUS_ERROR;
        if self.is_otlp && is_read {
            return;
        }
        let (level, message) = match &facts.error {
            Some(error) => ("ERROR", &*error.message),
            _ if facts.guardrail_triggered == Some(true) => ("WARNING", "guardrail triggered"),
            _ => return,
        };
        fields::text(out, fields::LEVEL, level);
        let has_message = self.reads.found.has(Fact::StatusMessage)
            || (self.is_otlp && !detail.status_message.is_empty());
        if !has_message && !message.is_empty() {
            fields::text(out, fields::STATUS_MESSAGE, message);
        }
    }

    /// Adds input and output if Langfuse does not find them in the span's convention. If one is written, both are, because Langfuse then
    /// looks for neither elsewhere.
    fn add_content(&self, out: &mut Vec<u8>) {
        let has = |fact| self.reads.found.has(fact);
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

    /// Returns input and output. Langfuse shows those of the root as the trace's, so a root or task without any gets the first input and
    /// the last output of the models below it. Langfuse shows an empty text as nothing.
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
                let known = self.trace.context.and_then(|it| it.contents.get(&self.span.span_id));
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

    /// Returns the response that was fetched from OpenAI.
    fn answer(&self) -> Option<&Answer> {
        let id = self.facts.response_id.as_ref().filter(|_| !self.is_otlp)?;
        self.encoding.known.answers.get(id).map(AsRef::as_ref)
    }

    /// Returns the agent that the span belongs to.
    fn agent(&self) -> Option<&Text> {
        let context = self.trace.context;
        let known = context.and_then(|context| context.agents.get(&self.span.span_id));
        self.facts.agent.as_ref().or(known)
    }

    /// Returns the model: from the span, else from the configuration, else from OpenAI.
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
            // A single model for all agents can price a task; several cannot be told apart.
            _ => default.filter(|_| models.agents.is_empty()),
        }
    }

    /// Adds model, parameters, tokens and cost of a span whose tokens count.
    fn add_model(&self, out: &mut Vec<u8>) {
        let (facts, has) = (self.facts, |fact| self.reads.found.has(fact));
        let is_call = self.is_otlp || facts.kind.counts_usage();
        if !is_call && self.encoding.known.counted.contains(&self.span.trace_id) {
            return;
        }
        let model = self.model();
        let has_model = has(Fact::Model) && !has(Fact::QuotedModel);
        if let Some(model) = model.filter(|_| !has_model) {
            fields::text(out, fields::MODEL, model);
        }
        if let Some(parameters) = facts.parameters.as_ref().filter(|_| !has(Fact::Parameters)) {
            fields::write_parameters(out, parameters.as_str());
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

    /// Returns whether to send a count of 0. Langfuse estimates tokens and cost of text with a model unless it receives a count. It gets 0
    /// if another span has the tokens, or if model or text come only from us: our text is JSON around the words, or describes audio, so the
    /// estimate would be far off.
    fn counts_zero(&self, has_model: bool) -> bool {
        let (facts, has) = (self.facts, |fact| self.reads.found.has(fact));
        let has_text = has(Fact::Input) || has(Fact::Output);
        let is_texted = has_text || facts.input.is_some() || facts.output.is_some();
        let is_from_here = !has_model || !has_text;
        let is_estimated = is_texted && facts.error.is_none() && !has(Fact::Usage);
        is_estimated && (self.tokens.is_told || is_from_here)
    }
}
