//! Decides which parts of an OTLP span have to be rewritten for Langfuse. Pure.

use super::fields;
use super::reads::{Fact, FactSet, PROMPT_VERSION, Reads, facts_of, usable};
use super::trace;
use crate::span::{Attribute, Convention, Detail, Facts, Kind, Span, Text, Tokens, Value};
use crate::support::json::object::Object;
use crate::support::json::raw::{Raw, number};
use crate::support::json::write_f64;

/// Facts that Langfuse would count, or estimate tokens from.
const COUNTED: [Fact; 5] = [Fact::Usage, Fact::Cost, Fact::Model, Fact::OwnUsage, Fact::OwnCost];

/// The parts of a span that are rewritten. If there are none, the span is sent as it was received.
#[derive(Default)]
pub(super) struct Change {
    /// The span contains an unusable value or name.
    mends: bool,
    /// Facts that become metadata: all counts of a span that repeats others, because Langfuse would add them up; an invalid cost, which
    /// keeps Langfuse from computing its own; an operation that Langfuse takes no tokens from, if this span's tokens count; a prompt's name
    /// and version, if Langfuse 3 would drop the span because of them.
    hidden: FactSet,
    /// Facts that are written again after the other attributes, under the keys of [`REPLACED`].
    replaced: FactSet,
    /// The costs that are written again.
    pub(super) cost: Option<String>,
}

impl Change {
    /// Returns the change for a span of a trace with these tags.
    pub(super) fn of(
        span: &Span,
        detail: &Detail,
        reads: Reads,
        tokens: &Tokens<'_>,
        tags: &[Text],
    ) -> Self {
        let facts = span.facts();
        let hides_usage = hides_usage(facts, reads, tokens);
        let mut change = Self {
            mends: reads.found.has(Fact::Unusable) || !is_sound(&detail.name),
            ..Self::default()
        };
        if hides_usage {
            change.hidden.add(FactSet::of(COUNTED));
        }
        if reads.found.has(Fact::Aggregate) && speaks(facts, tokens) {
            change.hidden.add(FactSet::of([Fact::Operation]));
        }
        if has_odd_prompt(facts, detail, reads) {
            change.hidden.add(FactSet::of([Fact::PromptName, Fact::PromptVersion]));
        }
        let own = |key| Attribute::last(&detail.attributes, key).and_then(Value::as_text);
        let own = |key| own(key).map(|text| &**text).unwrap_or_default();
        let has_usage = reads.found.has(Fact::OwnUsage) && !hides_usage && !tokens.own.is_empty();
        if has_usage && is_inclusive(own(fields::USAGE)) {
            change.replaced.add(FactSet::of([Fact::OwnUsage]));
        }
        if reads.found.has(Fact::OwnCost) && !hides_usage {
            change.cost = mended_cost(own(fields::COST), facts.cost.total);
            change.replaced.add(FactSet::of(change.cost.is_some().then_some(Fact::OwnCost)));
        } else if reads.found.has(Fact::Cost) && !facts.cost.is_said() {
            change.hidden.add(FactSet::of([Fact::Cost]));
        }
        // Langfuse shows the tags of the span that it received last.
        if reads.found.has(Fact::Tags) && tags.iter().any(|tag| !facts.tags.contains(tag)) {
            change.replaced.add(FactSet::of([Fact::Tags]));
        }
        change
    }

    /// Returns whether anything has to be rewritten.
    pub(super) fn is_needed(&self) -> bool {
        self.mends || self.gone() != FactSet::default()
    }

    /// Returns the facts that Langfuse no longer finds.
    pub(super) fn gone(&self) -> FactSet {
        let mut gone = self.hidden;
        gone.add(self.replaced);
        gone
    }

    /// Returns an attribute in a form that Langfuse can use, or as metadata if it is hidden.
    pub(super) fn changed(&self, Attribute { key, value }: &Attribute) -> Option<Attribute> {
        let is_replaced =
            REPLACED.iter().any(|(fact, known)| self.replaced.has(*fact) && key == known);
        let usable = usable(key, value).filter(|_| !is_replaced)?;
        if !self.hidden.has_any(facts_of(key)) {
            return Some(Attribute { key: key.clone(), value: usable.into_owned() });
        }
        let mut json = Vec::new();
        fields::write_json(&mut json, value);
        Some(Attribute {
            key: format!("{}{key}", fields::METADATA_PREFIX).into(),
            value: Value::Text(String::from_utf8(json).unwrap_or_default().into()),
        })
    }
}

/// Facts that may be written again, with their keys.
const REPLACED: [(Fact, &str); 3] =
    [(Fact::OwnUsage, fields::USAGE), (Fact::OwnCost, fields::COST), (Fact::Tags, trace::TAGS)];

/// Returns whether the span's tokens count although its kind does not imply it.
pub(super) fn speaks(facts: &Facts, tokens: &Tokens<'_>) -> bool {
    tokens.speaks_for_others(facts) || tokens.counts && !facts.kind.counts_usage()
}

/// Returns whether a name can be used.
fn is_sound(name: &str) -> bool {
    !name.is_empty() && fields::cut(name, fields::NAME_UNITS_MAX).len() == name.len()
}

/// Returns whether Langfuse would count tokens of other spans, or estimate some from this span's model and text. Counts written for
/// Langfuse are intended, except for a call around another. A span without kind and tokens is left as it is.
fn hides_usage(facts: &Facts, reads: Reads, tokens: &Tokens<'_>) -> bool {
    let is_meant = facts.convention == Convention::Langfuse && !facts.kind.counts_usage();
    let is_parent = !tokens.counts && facts.kind != Kind::Custom;
    reads.found.has_any(FactSet::of(COUNTED))
        && !reads.found.has(Fact::Aggregate)
        && !is_meant
        && (tokens.repeats || is_parent)
}

/// Returns whether usage has OpenAI's member names instead of Langfuse's buckets. Langfuse would add up all its parts.
fn is_inclusive(buckets: &str) -> bool {
    let names: Vec<_> = Raw::parse(buckets).into_iter().flat_map(Raw::members).collect();
    let has = |known: &[&str]| names.iter().any(|(name, _)| known.contains(&&**name));
    let is_openai = has(&["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"]);
    !has(&["input", "output"]) && (is_openai || names.is_empty())
}

/// Returns whether a prompt is incomplete: it needs a name and a number, and belongs to a model call.
fn has_odd_prompt(facts: &Facts, detail: &Detail, reads: Reads) -> bool {
    let (name, version) = (reads.found.has(Fact::PromptName), reads.found.has(Fact::PromptVersion));
    let is_number = || {
        let mut versions = detail.attributes.iter().filter(|it| &*it.key == PROMPT_VERSION);
        versions.any(|Attribute { key, value }| {
            usable(key, value).is_some_and(|found| matches!(*found, Value::Int(_)))
        })
    };
    let is_call = facts.kind == Kind::Generation;
    (name || version) && !(name && version && is_call && is_number())
}

/// Returns the costs as numbers and with a total, if they are not so already. Langfuse reads a number in a string as 0, and computes the
/// total only if there is nothing but input and output.
fn mended_cost(own: &str, total: Option<f64>) -> Option<String> {
    let costs: Vec<_> = Raw::parse(own)?.members().collect();
    let has_text = costs.iter().any(|(_, amount)| amount.string().is_some());
    let has_more = costs.iter().any(|(name, _)| name != "input" && name != "output");
    let has_total = costs.iter().any(|(name, _)| name == "total");
    if !has_text && (has_total || !has_more) {
        return None;
    }
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    for (name, value) in &costs {
        if let Some(amount) = number(value.text().trim_matches(['"', ' '])) {
            write_f64(object.member(name), amount);
        }
    }
    if let Some(total) = total.filter(|_| !has_total) {
        write_f64(object.member("total"), total);
    }
    object.close();
    String::from_utf8(out).ok()
}
