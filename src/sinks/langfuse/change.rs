//! What of a span that came as OTLP cannot stay as it came. Pure.

use super::fields;
use super::reads::{Fact, FactSet, PROMPT_VERSION, Reads, facts_of, usable};
use super::trace;
use crate::span::{Attribute, Convention, Detail, Facts, Kind, Span, Text, Tokens, Value};
use crate::support::json::object::Object;
use crate::support::json::raw::{Raw, number};
use crate::support::json::write_f64;

/// What Langfuse would count, or make up tokens from.
const COUNTED: [Fact; 5] = [Fact::Usage, Fact::Cost, Fact::Model, Fact::OwnUsage, Fact::OwnCost];

/// What is written anew; the span stays as it came where that is nothing.
#[derive(Default)]
pub(super) struct Change {
    /// Something cannot be used as it is: a value, or the name.
    mends: bool,
    /// What becomes metadata: all that is counted where it repeats other spans, since Langfuse would add it up; a cost that is none, with
    /// which it would work out no other; an operation that it takes no tokens from where those of this span count; name and version of a
    /// prompt that Langfuse 3 would drop the span for.
    hidden: FactSet,
    /// What is said anew behind the other attributes, under the keys of [`REPLACED`].
    replaced: FactSet,
    /// The costs that are said anew.
    pub(super) cost: Option<String>,
}

impl Change {
    /// What it is for a span of a trace with these tags.
    pub(super) fn of(
        span: &Span,
        detail: &Detail,
        reads: Reads,
        tokens: &Tokens<'_>,
        tags: &[Text],
    ) -> Self {
        let facts = span.facts();
        let hides_usage = hides_usage(facts, reads, tokens);
        let mut change =
            Self { mends: reads.has(Fact::Unusable) || !is_sound(&detail.name), ..Self::default() };
        if hides_usage {
            change.hidden.add(FactSet::of(COUNTED));
        }
        if reads.has(Fact::Aggregate) && speaks(facts, tokens) {
            change.hidden.add(FactSet::of([Fact::Operation]));
        }
        if has_odd_prompt(facts, detail, reads) {
            change.hidden.add(FactSet::of([Fact::PromptName, Fact::PromptVersion]));
        }
        let own = |key| last_text(detail, key).unwrap_or_default();
        let has_usage = reads.has(Fact::OwnUsage) && !hides_usage && !tokens.own.is_empty();
        if has_usage && is_inclusive(own(fields::USAGE)) {
            change.replaced.add(FactSet::of([Fact::OwnUsage]));
        }
        if reads.has(Fact::OwnCost) && !hides_usage {
            change.cost = mended_cost(own(fields::COST), facts.cost.total);
            change.replaced.add(FactSet::of(change.cost.is_some().then_some(Fact::OwnCost)));
        } else if reads.has(Fact::Cost) && !facts.cost.is_said() {
            change.hidden.add(FactSet::of([Fact::Cost]));
        }
        // Langfuse shows the tags of the span it got last.
        if reads.has(Fact::Tags) && tags.iter().any(|tag| !facts.tags.contains(tag)) {
            change.replaced.add(FactSet::of([Fact::Tags]));
        }
        change
    }

    /// Whether there is any.
    pub(super) fn is_needed(&self) -> bool {
        self.mends || self.gone() != FactSet::default()
    }

    /// What Langfuse finds no more.
    pub(super) fn gone(&self) -> FactSet {
        let mut gone = self.hidden;
        gone.add(self.replaced);
        gone
    }

    /// An attribute as Langfuse can use it, or as metadata where it is hidden.
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

/// What may be said anew, and under which key it is.
const REPLACED: [(Fact, &str); 3] =
    [(Fact::OwnUsage, fields::USAGE), (Fact::OwnCost, fields::COST), (Fact::Tags, trace::TAGS)];

/// Whether the span's tokens count although its kind does not say so.
pub(super) fn speaks(facts: &Facts, tokens: &Tokens<'_>) -> bool {
    tokens.speaks_for_others(facts) || tokens.counts && !facts.kind.counts_usage()
}

/// The text of an attribute; the last one, where its key repeats.
fn last_text<'d>(detail: &'d Detail, key: &str) -> Option<&'d str> {
    Attribute::last(&detail.attributes, key)?.as_text().map(|text| &**text)
}

/// Whether a name can be used.
fn is_sound(name: &str) -> bool {
    !name.is_empty() && fields::cut(name, fields::NAME_UNITS_MAX).len() == name.len()
}

/// Whether Langfuse would count the span's tokens although they are others', or make some up from its model and text. What was
/// written for Langfuse is meant so, but for a call around another; and of what has no kind and no tokens nobody knows.
fn hides_usage(facts: &Facts, reads: Reads, tokens: &Tokens<'_>) -> bool {
    let is_meant = facts.convention == Convention::Langfuse && !facts.kind.counts_usage();
    let is_parent = !tokens.counts && facts.kind != Kind::Custom;
    reads.has_any(FactSet::of(COUNTED))
        && !reads.has(Fact::Aggregate)
        && !is_meant
        && (tokens.repeats || is_parent)
}

/// Whether buckets are not ones of Langfuse but a usage of OpenAI, which it would add up with all its parts.
fn is_inclusive(buckets: &str) -> bool {
    let names: Vec<_> = Raw::parse(buckets).into_iter().flat_map(Raw::members).collect();
    let has = |known: &[&str]| names.iter().any(|(name, _)| known.contains(&&**name));
    let is_openai = has(&["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"]);
    !has(&["input", "output"]) && (is_openai || names.is_empty())
}

/// A prompt has a name and a number, and belongs to a model call.
fn has_odd_prompt(facts: &Facts, detail: &Detail, reads: Reads) -> bool {
    let (name, version) = (reads.has(Fact::PromptName), reads.has(Fact::PromptVersion));
    let is_number = || {
        let mut versions = detail.attributes.iter().filter(|it| &*it.key == PROMPT_VERSION);
        versions.any(|Attribute { key, value }| {
            usable(key, value).is_some_and(|found| matches!(*found, Value::Int(_)))
        })
    };
    let is_call = facts.kind == Kind::Generation;
    (name || version) && !(name && version && is_call && is_number())
}

/// Costs as numbers and with a total, where they are not: Langfuse takes a number in a string for 0, and adds up a total only where
/// there is nothing but input and output.
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
