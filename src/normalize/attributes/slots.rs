//! Collects the best value for each field in one pass over a span's attributes, and the facts that are spread over several keys.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::fields::{Condition, Field};
use super::index::{Index, Rule, index};
use super::value::{self, Read};
use crate::normalize::messages::{Flattened, index as index_of};
use crate::normalize::raw::{Raw, payloads, written};
use crate::normalize::tables::{self, Beginnings};
use crate::span::{
    Attribute, Convention, Detail, Kind, Payload, Score, Span, Text, Value, keys, named,
};
use crate::support::json::object::Object;
use crate::support::json::write_str;

named! {
    /// Facts that are spread over several keys: lists flattened into indexed keys, and single entries.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    (pub(super)) Spread {
        InputMessages "input_messages",
        OutputMessages "output_messages",
        Tools "tools",
        Embeddings "embeddings",
        InputDocuments "input_documents",
        OutputDocuments "output_documents",
        Prompt "prompt",
        Completion "completion",
        Functions "functions",
        Evaluations "evaluations",
        Metadata "metadata",
        Parameter "parameter",
        Inputs "inputs",
        /// Details of tokens, which are parts of counts.
        Detail "detail",
        /// Tokens or costs under an unknown key.
        Uncounted "uncounted",
    }
}

/// Prefixes of keys without rows.
pub(super) static SPREAD: LazyLock<Beginnings<Spread>> =
    LazyLock::new(|| Beginnings::of("keys", Spread::named));

/// Scopes that identify a convention unambiguously.
static SCOPES: LazyLock<Beginnings<Convention>> =
    LazyLock::new(|| Beginnings::of("scopes", Convention::named));

/// Keys that belong to a convention.
pub(super) static KEYS: LazyLock<Beginnings<Convention>> =
    LazyLock::new(|| Beginnings::of("conventions", Convention::named));

/// The best value for each field.
pub(super) struct Slots<'a> {
    pub(super) span: &'a Span,
    pub(super) detail: &'a Detail,
    /// The name of the instrumentation scope.
    pub(super) scope: &'a str,
    /// Whether another Spanferry marked the span's usage as a repetition of other spans' usage.
    pub(super) is_repeated: bool,
    /// The first attribute with tokens or costs that cannot be counted.
    pub(super) uncounted: Option<&'a Text>,
    index: &'static Index,
    /// For each field, the place of its value in `found`; beyond its end without one.
    places: [u8; Field::COUNT],
    found: Vec<(Rule, &'a Attribute)>,
    /// Values that were found inside JSON.
    inside: Vec<(Field, Value)>,
    /// Attributes without rows: each with what follows its prefix.
    flat: Vec<(Spread, &'a str, &'a Attribute)>,
}

/// Events whose attributes are their span's: content was in events before 1.37, and is again in one event since.
static CONTENTS: LazyLock<Vec<(Condition, &str)>> = LazyLock::new(|| {
    tables::listed("contents").map(|(section, name)| (Condition::of(&section), name)).collect()
});

impl<'a> Slots<'a> {
    /// Fills the slots in one pass over the attributes.
    pub(super) fn fill(span: &'a Span, detail: &'a Detail) -> Self {
        let mut slots = Self {
            span,
            detail,
            scope: &span.scope.name,
            is_repeated: false,
            uncounted: None,
            index: index(),
            places: [u8::MAX; Field::COUNT],
            found: Vec::new(),
            inside: Vec::new(),
            flat: Vec::new(),
        };
        detail.attributes.iter().for_each(|attribute| slots.take(attribute));
        for event in &detail.events {
            let is_content = |(condition, name): &(Condition, &str)| {
                tables::matches(name, &event.name) && condition.is_open(&span.scope.name, "")
            };
            if CONTENTS.iter().any(is_content) {
                event.attributes.iter().for_each(|attribute| slots.take(attribute));
            }
        }
        slots
    }

    fn take(&mut self, attribute: &'a Attribute) {
        let mut key = &*attribute.key;
        if let Some(repeated) = key.strip_prefix(keys::SPANFERRY_AGGREGATE) {
            self.is_repeated = true;
            key = repeated;
        }
        let rules = self.index.rules(key.as_bytes());
        let json = LazyCell::new(|| value::json_text(&attribute.value));
        for &rule in
            rules.iter().filter(|rule| self.index.is_open(**rule, self.scope, || &self.detail.name))
        {
            match rule.read {
                Read::Inside(place) => {
                    let value = json.as_ref().and_then(|json| value::inside(json, place));
                    if let Some(value) = value
                        && self.consider(rule, attribute, &value)
                    {
                        self.inside.retain(|(field, _)| *field != rule.field);
                        self.inside.push((rule.field, value));
                    }
                }
                _ => _ = self.consider(rule, attribute, &attribute.value),
            }
        }
        if rules.is_empty() {
            self.take_by_prefix(key, attribute);
        }
    }

    /// Stores the value for a field if its rule takes precedence over the one found so far. Returns whether it did.
    fn consider(&mut self, rule: Rule, attribute: &'a Attribute, value: &Value) -> bool {
        if !rule.field.takes(value, rule.read) {
            if rule.field.is_usage() && !value::is_empty(value) {
                self.uncounted.get_or_insert(&attribute.key);
            }
            return false;
        }
        let Some(place) = self.places.get_mut(rule.field as usize) else { return false };
        match self.found.get_mut(usize::from(*place)) {
            Some((found, _)) if found.rank < rule.rank => return false,
            // If a key repeats, the last value counts.
            Some(slot) => *slot = (rule, attribute),
            None => {
                *place = u8::try_from(self.found.len()).unwrap_or(u8::MAX);
                self.found.push((rule, attribute));
            }
        }
        true
    }

    fn take_by_prefix(&mut self, key: &'a str, attribute: &'a Attribute) {
        let Some((length, spread)) = SPREAD.all(key.as_bytes()).next() else { return };
        let rest = key.get(length..).unwrap_or_default();
        match spread {
            Spread::Uncounted => _ = self.uncounted.get_or_insert(&attribute.key),
            Spread::Detail => (),
            list => self.flat.push((list, rest, attribute)),
        }
    }

    /// Returns whether a field was found.
    pub(super) fn has(&self, field: Field) -> bool {
        self.get(field).is_some()
    }

    /// Returns the unconverted value of a field.
    pub(super) fn value(&self, field: Field) -> Option<&Value> {
        self.get(field).map(|(_, value)| value)
    }

    /// Returns the convention that a field's value came from.
    pub(super) fn convention_of(&self, field: Field) -> Option<Convention> {
        self.get(field).map(|(rule, _)| rule.convention)
    }

    /// Returns the key that a field's value came from.
    pub(super) fn key_of(&self, field: Field) -> Option<&'a Text> {
        self.found(field).map(|(_, attribute)| &attribute.key)
    }

    /// Returns the kind that the user's configuration gives the span.
    pub(super) fn configured_kind(&self) -> Option<Kind> {
        let (rule, attribute) = self.found(Field::ConfiguredKind)?;
        self.index.configured_kind(&attribute.key, &value::word(&attribute.value, rule.read)?)
    }

    pub(super) fn text(&self, field: Field) -> Option<Text> {
        self.get(field).and_then(|(rule, value)| value::text(value, rule.read))
    }

    /// Copies the texts of found fields to their places and does not touch the others. Most spans have few fields, and moving an empty
    /// value costs as much as moving a text.
    pub(super) fn copy_texts<const N: usize>(&self, places: [(Field, &mut Option<Text>); N]) {
        for (field, place) in places {
            if let Some((rule, value)) = self.get(field) {
                *place = value::text(value, rule.read);
            }
        }
    }

    /// Returns a field's text for inspection, without copying it if possible.
    pub(super) fn word(&self, field: Field) -> Option<Cow<'_, str>> {
        self.get(field).and_then(|(rule, value)| value::word(value, rule.read))
    }

    pub(super) fn texts(&self, field: Field) -> Vec<Text> {
        self.get(field).map(|(rule, value)| value::texts(value, rule.read)).unwrap_or_default()
    }

    pub(super) fn count(&self, field: Field) -> Option<u64> {
        self.value(field).and_then(value::count)
    }

    pub(super) fn seconds(&self, field: Field) -> Option<f64> {
        self.get(field).and_then(|(rule, value)| value::seconds(value, rule.read))
    }

    pub(super) fn cost(&self, field: Field) -> Option<f64> {
        // OpenLIT writes 0 for models without a known price, in Python and JavaScript.
        let says_zero = || ["openlit.", "@openlit/"].iter().any(|it| self.scope.starts_with(it));
        let amount = self.get(field).and_then(|(rule, value)| value::scaled(value, rule.read));
        amount.filter(|amount| *amount != 0.0 || !says_zero())
    }

    pub(super) fn truth(&self, field: Field) -> Option<bool> {
        self.value(field).and_then(value::truth)
    }

    pub(super) fn payload(&self, field: Field) -> Option<Payload> {
        self.get(field).and_then(|(rule, value)| value::payload(value, rule.read))
    }

    /// Returns a payload whose type another attribute declares.
    pub(super) fn payload_as(&self, field: Field, mime: Field) -> Option<Payload> {
        let (rule, value) = self.get(field)?;
        let is_json = rule.convention == Convention::OpenInference
            && self.word(mime).is_some_and(|mime| mime.contains("json"));
        value::payload(value, if is_json { Read::Json } else { rule.read })
    }

    /// Returns an object as valid JSON text.
    pub(super) fn object(&self, field: Field) -> Option<Text> {
        self.value(field).and_then(value::json_text)
    }

    /// Iterates over the attributes that a fact is spread over, each with what follows its prefix.
    fn spread(&self, of: Spread) -> impl Iterator<Item = (&'a str, &'a Attribute)> {
        self.flat.iter().filter(move |(found, ..)| *found == of).map(|(_, rest, it)| (*rest, *it))
    }

    /// Returns the members of an object that came in single keys.
    pub(super) fn members(&self, of: Spread) -> Option<Payload> {
        let mut members = self.spread(of).peekable();
        members.peek()?;
        let mut json = Vec::new();
        let mut object = Object::open(&mut json);
        members.for_each(|(name, it)| value::write_json(&it.value, object.member(name)));
        object.close();
        Some(Payload::Json(written(json)))
    }

    /// Returns the metadata of single keys, followed by that of one object.
    pub(super) fn metadata(&self) -> Vec<(Text, Payload)> {
        let single = self.spread(Spread::Metadata).filter_map(|(name, attribute)| {
            let payload = value::payload(&attribute.value, Read::Json)?;
            Some((attribute.key.slice_ref(name), payload))
        });
        let mut metadata: Vec<_> = single.collect();
        if let Some(object) = self.object(Field::Metadata) {
            metadata.extend(payloads(&object, Raw::trusted(&object)));
        }
        metadata
    }

    /// Returns a flattened list, unless a convention before this one has the same in one key.
    pub(super) fn flattened_before(
        &self,
        flat: Spread,
        field: Field,
        convention: Convention,
    ) -> Option<Payload> {
        match self.convention_of(field) {
            Some(found) if found < convention => None,
            _ => self.flattened(flat),
        }
    }

    /// Returns a flattened list as one JSON list.
    pub(super) fn flattened(&self, flat: Spread) -> Option<Payload> {
        if self.flat.is_empty() {
            return None;
        }
        let mut list = Flattened::default();
        for (path, attribute) in self.spread(flat) {
            // Vectors are of no use to a reader, and are most of an embedding span.
            if !path.ends_with(".vector") {
                list.put(path, leaf(path, &attribute.value));
            }
        }
        (!list.is_empty()).then(|| Payload::Json(list.to_json(flat == Spread::Tools)))
    }

    /// Returns evaluations that came flattened: `N.evaluation.name` and similar keys, or without a number if there is only one.
    pub(super) fn scores(&self) -> Vec<Score> {
        let mut scores: BTreeMap<(&str, u32), Score> = BTreeMap::new();
        for (_, Attribute { key, value }) in self.spread(Spread::Evaluations) {
            let digits = key.find(|digit: char| digit.is_ascii_digit());
            let (list, rest) = (**key).split_at(digits.unwrap_or_default());
            let index = rest.split('.').next().and_then(index_of);
            let Some(index) = index.or(list.is_empty().then_some(0)) else { continue };
            let score = scores.entry((list, index)).or_default();
            let text = || value::text(value, Read::Plain);
            match key.rsplit('.').next().unwrap_or_default() {
                "name" | "metric_name" => score.name = text().unwrap_or_default(),
                "score" | "value" => score.value = value::number(value),
                "label" => score.label = text(),
                "explanation" => score.explanation = text(),
                _ => (),
            }
        }
        scores.into_values().filter(|score| !score.name.is_empty()).collect()
    }

    /// Returns the first convention that left evidence, for spans without a known word for their kind.
    pub(super) fn detected(&self) -> Option<Convention> {
        let keys = self.detail.attributes.iter().filter_map(|it| KEYS.first(it.key.as_bytes()));
        let vercel = (self.scope == "ai").then_some(Convention::Vercel);
        let scope = vercel.or_else(|| SCOPES.first(self.scope.as_bytes()));
        scope.or_else(|| keys.min()).or_else(|| self.configured())
    }

    /// Returns the user's own convention if a mapped attribute is the only evidence, so that the span counts as recognized.
    fn configured(&self) -> Option<Convention> {
        let mut rules = self.found.iter().map(|(rule, _)| rule.convention);
        rules.find(|convention| *convention == Convention::Configured)
    }

    fn get(&self, field: Field) -> Option<(Rule, &Value)> {
        let (mut rule, attribute) = self.found(field)?;
        if !matches!(rule.read, Read::Inside(_)) {
            return Some((rule, &attribute.value));
        }
        let (_, value) = self.inside.iter().find(|(found, _)| *found == field)?;
        rule.read = Read::Json;
        Some((rule, value))
    }

    fn found(&self, field: Field) -> Option<(Rule, &'a Attribute)> {
        self.found.get(usize::from(*self.places.get(field as usize)?)).copied()
    }
}

/// Encodes a flattened value as JSON. Schemas that are JSON in a string are embedded as JSON.
fn leaf<'a>(path: &str, value: &'a Value) -> Cow<'a, str> {
    match value {
        Value::Text(text) if path.ends_with("json_schema") && Raw::parse(text).is_some() => {
            Cow::Borrowed(text)
        }
        Value::Text(text) => {
            let mut json = Vec::with_capacity(text.len() + 2);
            write_str(&mut json, text);
            Cow::Owned(written(json).to_string())
        }
        value => Cow::Owned(value::json(value).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalize::tables::beginnings;

    #[test]
    fn every_beginning_means_something() {
        let count = |section| beginnings(section, |word| Some(word.to_owned())).count();
        for section in ["keys", "messages"] {
            assert_eq!(beginnings(section, Spread::named).count(), count(section));
        }
        for section in ["scopes", "conventions"] {
            assert_eq!(beginnings(section, Convention::named).count(), count(section));
        }
    }
}
