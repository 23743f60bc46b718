//! Spans that came as OTLP. Pure.
//!
//! Langfuse reads most conventions itself, so such a span goes out as the bytes that came in, with attributes behind them for what
//! Langfuse would not find: what is known of the trace only from other spans, the type of kinds that it has no word for, and tokens
//! in buckets that exclude each other. Only a span with something that Langfuse cannot use is written anew.

use std::collections::BTreeMap;

use super::encode::Encoding;
use super::fields;
use super::native;
use super::reads::{
    Fact, PROMPT_NAME, PROMPT_VERSION, Reads, is_model, is_usage, type_of, usable, usable_ones,
};
use super::trace::{self, Trace};
use super::usage::{write_buckets, write_cost};
use crate::span::otlp::protobuf::{
    self, write_bytes, write_fixed64, write_int32, write_status_and_flags, write_text, write_uint32,
};
use crate::span::{
    Attribute, Convention, Detail, Facts, Kind, Link, Payload, Span, SpanEvent, Text, Tokens,
    Value, keys,
};
use crate::support::json::object::Object;
use crate::support::json::write_f64;

/// Appends the fields of a `Span` message.
pub(super) fn write(out: &mut Vec<u8>, span: &Span, encoding: &Encoding<'_>) {
    let writer = Writer {
        span,
        facts: span.facts(),
        detail: span.detail(),
        trace: encoding.traces.get(span.trace_id),
        tokens: encoding.tokens(span),
        reads: Reads::of(span),
        encoding,
    };
    let change = writer.change();
    if change.is_needed || !writer.is_sound() {
        writer.rewrite(out, &change);
    } else {
        out.extend_from_slice(&span.wire);
    }
    writer.add(out, &change);
}

/// Says that a span is listed as if it had no parent.
const IS_APP_ROOT: &str = "langfuse.internal.is_app_root";

struct Writer<'a> {
    span: &'a Span,
    facts: &'a Facts,
    detail: &'a Detail,
    trace: Option<&'a Trace<'a>>,
    tokens: Tokens<'a>,
    reads: Reads,
    encoding: &'a Encoding<'a>,
}

/// What of a span cannot stay as it came.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "changes that do not exclude each other")]
struct Change {
    /// Whether there is any.
    is_needed: bool,
    /// Model, tokens and costs repeat those of other spans. They become metadata, since Langfuse would add them up.
    hides_usage: bool,
    /// The operation is one that Langfuse takes no tokens from, and those of this span count. It becomes metadata.
    hides_operation: bool,
    /// Name and version of a prompt that Langfuse 3 would drop the span for. They become metadata.
    hides_prompt: bool,
    /// Attributes that are written anew.
    replaced: [Option<&'static str>; 3],
}

impl Change {
    fn replace(&mut self, place: usize, key: &'static str) {
        self.is_needed = true;
        if let Some(slot) = self.replaced.get_mut(place) {
            *slot = Some(key);
        }
    }

    fn replaces(&self, key: &str) -> bool {
        self.replaced.contains(&Some(key))
    }
}

impl Writer<'_> {
    fn change(&self) -> Change {
        let mut change = Change {
            is_needed: self.reads.has(Fact::Unusable),
            hides_usage: self.hides_usage(),
            hides_operation: self.is_exception() && self.reads.has(Fact::Aggregate),
            hides_prompt: self.has_odd_prompt(),
            ..Change::default()
        };
        change.is_needed |= change.hides_usage || change.hides_operation || change.hides_prompt;
        if self.reads.has(Fact::OwnUsage) && !change.hides_usage && self.has_inclusive_usage() {
            change.replace(0, fields::USAGE);
        }
        let mends_cost = self.reads.has(Fact::OwnCost) && !change.hides_usage;
        if mends_cost && mended_cost(self.own(fields::COST)).is_some() {
            change.replace(1, fields::COST);
        }
        if self.reads.has(Fact::Tags) && self.lacks_tags() {
            change.replace(2, trace::TAGS);
        }
        change
    }

    /// Whether Langfuse would count the span's tokens although they are others', or make some up from its model and text. What was
    /// written for Langfuse is meant so, but for a call around another; and of what has no kind and no tokens nobody knows.
    fn hides_usage(&self) -> bool {
        let facts = self.facts;
        let is_read = [Fact::Usage, Fact::Cost, Fact::Model, Fact::OwnUsage, Fact::OwnCost];
        let is_meant = facts.convention == Convention::Langfuse && !facts.kind.counts_usage();
        let is_parent = !self.tokens.counts && facts.kind != Kind::Custom;
        is_read.iter().any(|fact| self.reads.has(*fact))
            && !self.reads.has(Fact::Aggregate)
            && !is_meant
            && (self.tokens.repeats() || is_parent)
    }

    /// Whether the span's tokens count although its kind does not say so.
    fn is_exception(&self) -> bool {
        self.tokens.speaks_for_others(self.facts)
            || self.tokens.counts && !self.facts.kind.counts_usage()
    }

    fn own(&self, key: &str) -> &str {
        let last = self.detail.attributes.iter().rev().find(|attribute| *attribute.key == *key);
        last.and_then(|attribute| attribute.value.as_text()).map_or("", |text| text)
    }

    /// Whether the buckets are not ones of Langfuse but a usage of OpenAI, which it would add up with all its parts.
    fn has_inclusive_usage(&self) -> bool {
        let own = self.own(fields::USAGE);
        let buckets: BTreeMap<String, &serde_json::value::RawValue> =
            serde_json::from_str(own).unwrap_or_default();
        let is_bag = buckets.contains_key("input") || buckets.contains_key("output");
        let is_openai = ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"]
            .iter()
            .any(|name| buckets.contains_key(*name));
        !self.tokens.own.is_empty() && !is_bag && (is_openai || buckets.is_empty())
    }

    /// A prompt has a name and a number, and belongs to a model call.
    fn has_odd_prompt(&self) -> bool {
        let (name, version) =
            (self.reads.has(Fact::PromptName), self.reads.has(Fact::PromptVersion));
        if !name && !version {
            return false;
        }
        let is_number = self.detail.attributes.iter().rev().any(|Attribute { key, value }| {
            let is_number =
                || usable(key, value).is_some_and(|found| matches!(*found, Value::Int(_)));
            &**key == PROMPT_VERSION && is_number()
        });
        !(name && version && is_number && self.facts.kind == Kind::Generation)
    }

    /// Whether the trace has tags that the span does not: Langfuse shows those of the span it got last.
    fn lacks_tags(&self) -> bool {
        let tags = self.trace.map(|trace| &trace.tags[..]).unwrap_or_default();
        tags.iter().any(|tag| !self.facts.tags.contains(tag))
    }

    /// Whether name and times can be used.
    fn is_sound(&self) -> bool {
        let name = &self.detail.name;
        let Span { start_ns, end_ns, .. } = self.span;
        !name.is_empty()
            && fields::cut(name, fields::NAME_UNITS_MAX).len() == name.len()
            && *start_ns != 0
            && start_ns <= end_ns
    }

    // === Anew ===

    fn rewrite(&self, out: &mut Vec<u8>, change: &Change) {
        let Self { span, detail, .. } = self;
        let (start_ns, end_ns) = self.encoding.traces.times(span);
        write_bytes(out, 1, span.trace_id.as_bytes());
        write_bytes(out, 2, span.span_id.as_bytes());
        write_text(out, 3, &detail.trace_state);
        if let Some(parent) = span.parent_id {
            write_bytes(out, 4, parent.as_bytes());
        }
        let names = [&detail.name, &self.facts.name];
        let name = names.into_iter().find(|name| !name.is_empty()).map_or("span", |name| name);
        write_bytes(out, 5, fields::cut(name, fields::NAME_UNITS_MAX).as_bytes());
        write_int32(out, 6, detail.kind);
        write_fixed64(out, 7, start_ns);
        write_fixed64(out, 8, end_ns);
        for attribute in &detail.attributes {
            rewrite_attribute(out, attribute, change);
        }
        write_uint32(out, 10, detail.dropped_attributes_count);
        for event in &detail.events {
            let attributes = usable_ones(&event.attributes);
            protobuf::write_events(out, &[SpanEvent { attributes, ..event.clone() }]);
        }
        write_uint32(out, 12, detail.dropped_events_count);
        for link in &detail.links {
            let attributes = usable_ones(&link.attributes);
            protobuf::write_links(out, &[Link { attributes, ..link.clone() }]);
        }
        write_uint32(out, 14, detail.dropped_links_count);
        write_status_and_flags(out, detail);
    }

    // === Behind ===

    fn add(&self, out: &mut Vec<u8>, change: &Change) {
        self.add_trace(out, change);
        self.add_type(out, change);
        self.add_content(out);
        if self.tokens.counts {
            self.add_model(out, change);
        }
        if let Some(first) = self.facts.first_token_ns
            && !self.reads.has(Fact::CompletionStart)
        {
            let (start_ns, _) = self.encoding.traces.times(self.span);
            fields::time(out, fields::COMPLETION_START, start_ns.saturating_add(first));
        }
        self.add_level(out);
        if self.encoding.left_out.has_all_above(self.span) {
            protobuf::write_attribute(out, fields::ATTRIBUTES, IS_APP_ROOT, &Value::Bool(true));
        }
    }

    /// What is known of the trace and not to be found in the span.
    fn add_trace(&self, out: &mut Vec<u8>, change: &Change) {
        let none = Trace::default();
        let (facts, trace) = (self.facts, self.trace.unwrap_or(&none));
        for (fact, key, own, known) in [
            (Fact::Session, trace::SESSION, &facts.session, &trace.session),
            (Fact::User, trace::USER, &facts.user, &trace.user),
            (Fact::Environment, trace::ENVIRONMENT, &facts.environment, &trace.environment),
            (Fact::Release, trace::RELEASE, &facts.release, &trace.release),
        ] {
            if let Some(value) = own.as_ref().or(known.as_ref()).filter(|_| !self.reads.has(fact)) {
                fields::text(out, key, value);
            }
        }
        let name = facts.workflow.as_ref().or(trace.name.as_ref());
        if let Some(name) = name.filter(|_| !self.reads.has(Fact::TraceName)) {
            trace::write_name(out, name);
        }
        if self.reads.has(Fact::Tags) && !change.replaces(trace::TAGS) {
            return;
        }
        let is_new = |tag: &&Text| !trace.tags.contains(tag);
        let tags: Vec<Text> =
            trace.tags.iter().chain(facts.tags.iter().filter(is_new)).cloned().collect();
        if !tags.is_empty() {
            fields::texts(out, trace::TAGS, &tags);
        }
    }

    /// The type, where Langfuse would find another. It prices neither points in time nor plain spans.
    fn add_type(&self, out: &mut Vec<u8>, change: &Change) {
        // What is hidden may have been what Langfuse would find the type by.
        let is_as_sent = !change.hides_operation && !change.hides_usage;
        let own = self.reads.own_type().filter(|_| is_as_sent);
        let wanted = match type_of(self.facts.kind) {
            None | Some("event") if self.is_exception() => Some("generation"),
            wanted => wanted,
        };
        if let Some(wanted) = wanted
            && !self.reads.has(Fact::Type)
            && own != Some(wanted)
        {
            fields::text(out, fields::TYPE, wanted);
        }
    }

    /// Input and output, where Langfuse does not look for them in the span's convention, or where the root has none and the trace's
    /// own are known. Where one is written both are: Langfuse then looks for neither anywhere else.
    fn add_content(&self, out: &mut Vec<u8>) {
        let (facts, reads) = (self.facts, self.reads);
        if reads.has(Fact::OwnInput) || reads.has(Fact::OwnOutput) {
            return;
        }
        let content = self.trace.and_then(|trace| trace.content(self.span));
        let [of_trace_in, of_trace_out] =
            content.map_or([None, None], |known| [known.input.as_ref(), known.output.as_ref()]);
        let input = said(facts.input.as_ref().or(of_trace_in));
        let output = said(facts.output.as_ref().or(of_trace_out));
        let is_missed = (input.is_some() && !reads.has(Fact::Input))
            || (output.is_some() && !reads.has(Fact::Output));
        let is_known = (input.is_some() || !reads.has(Fact::Input))
            && (output.is_some() || !reads.has(Fact::Output));
        if is_missed && is_known {
            fields::text_if(out, fields::INPUT, input.map(Payload::as_str));
            fields::text_if(out, fields::OUTPUT, output.map(Payload::as_str));
        }
    }

    fn add_model(&self, out: &mut Vec<u8>, change: &Change) {
        let (facts, reads) = (self.facts, self.reads);
        let model = facts.response_model.as_ref().or(facts.request_model.as_ref());
        if let Some(model) = model.filter(|_| !reads.has(Fact::Model)) {
            fields::text(out, fields::MODEL, model);
        }
        if let Some(parameters) = facts.parameters.as_ref().filter(|_| !reads.has(Fact::Parameters))
        {
            native::write_parameters(out, parameters.as_str());
        }
        let usage = self.tokens.own;
        if !usage.is_empty() && (!reads.has(Fact::OwnUsage) || change.replaces(fields::USAGE)) {
            let reasoning = self.encoding.settings.options.reasoning_tokens;
            fields::text_made_of(out, &[fields::USAGE], 0, |out| {
                write_buckets(out, usage, model.map(|model| &**model), reasoning);
            });
        }
        if change.replaces(fields::COST) {
            if let Some(cost) = mended_cost(self.own(fields::COST)) {
                fields::text(out, fields::COST, &cost);
            }
        } else if facts.cost != crate::span::Cost::default() && !reads.has(Fact::Cost) {
            fields::text_made_of(out, &[fields::COST], 0, |out| write_cost(out, &facts.cost));
        }
    }

    /// A warning where a guardrail tripped, an error where only Logfire's level says that there was one.
    fn add_level(&self, out: &mut Vec<u8>) {
        let facts = self.facts;
        if self.reads.has(Fact::Level) || self.detail.status_code == STATUS_ERROR {
            return;
        }
        let (level, message) = match &facts.error {
            Some(error) if facts.convention == Convention::Logfire => ("ERROR", &*error.message),
            _ if facts.guardrail_triggered == Some(true) => ("WARNING", "guardrail triggered"),
            _ => return,
        };
        fields::text(out, fields::LEVEL, level);
        let has_message =
            self.reads.has(Fact::StatusMessage) || !self.detail.status_message.is_empty();
        if !has_message && !message.is_empty() {
            fields::text(out, fields::STATUS_MESSAGE, message);
        }
    }
}

fn rewrite_attribute(out: &mut Vec<u8>, attribute: &Attribute, change: &Change) {
    let Attribute { key, value } = attribute;
    if change.replaces(key) {
        return;
    }
    let is_own = [fields::USAGE, fields::COST, fields::MODEL].contains(&&**key);
    let is_hidden = (change.hides_usage && (is_usage(key) || is_model(key) || is_own))
        || (change.hides_operation && &**key == keys::GEN_AI_OPERATION_NAME)
        || (change.hides_prompt && (&**key == PROMPT_NAME || &**key == PROMPT_VERSION));
    let Some(usable) = usable(key, value) else { return };
    if is_hidden {
        fields::text_made_of(out, &[fields::METADATA_PREFIX, key], 0, |out| {
            fields::write_json(out, value);
        });
    } else {
        protobuf::write_attribute(out, fields::ATTRIBUTES, key, &usable);
    }
}

/// A payload that says something; Langfuse shows an empty text as nothing.
fn said(payload: Option<&Payload>) -> Option<&Payload> {
    payload.filter(|payload| !payload.as_str().is_empty())
}

/// OTLP's status code for an error.
const STATUS_ERROR: i32 = 2;

/// Costs as numbers and with a total, where they are not: Langfuse takes a number in a string for 0, and adds up a total only where
/// there is nothing but input and output.
fn mended_cost(own: &str) -> Option<String> {
    let costs: serde_json::Map<String, serde_json::Value> = serde_json::from_str(own).ok()?;
    let amount = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.trim().parse::<f64>().ok(),
        other => other.as_f64(),
    };
    let has_text = costs.values().any(serde_json::Value::is_string);
    let has_more = costs.keys().any(|name| name != "input" && name != "output");
    let lacks_total = has_more && !costs.contains_key("total");
    if !has_text && !lacks_total {
        return None;
    }
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    let mut sum = 0.0;
    let amounts = costs.iter().filter_map(|(name, value)| Some((name, amount(value)?)));
    for (name, amount) in amounts.filter(|(_, amount)| amount.is_finite()) {
        write_f64(object.member(name), amount);
        sum += amount;
    }
    if !costs.contains_key("total") {
        write_f64(object.member("total"), sum);
    }
    object.close();
    String::from_utf8(out).ok()
}
