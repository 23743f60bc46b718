//! Decides a span's kind, and which convention decided it.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use super::fields::{Condition, Field};
use super::slots::Slots;
use crate::normalize::tables::{self, Section, matches};
use crate::span::{Convention, Kind, Text};

/// One section of `kinds.txt`: words and the kinds that they stand for.
struct KindRule {
    /// The field that holds the word; `None` for the span's name.
    field: Option<Field>,
    convention: Convention,
    gate: Condition,
    kinds: Vec<(&'static str, Kind)>,
}

/// The sections that may apply to a scope, by the first byte of its name, in the order of precedence.
static KINDS: LazyLock<[Vec<Arc<KindRule>>; 256]> = LazyLock::new(|| {
    let rule = |(section, words): (Section, Vec<_>)| words_of(&section, &words).map(Arc::new);
    let all: Vec<_> = tables::kinds().into_iter().filter_map(rule).collect();
    let of = |first| all.iter().filter(|rule| rule.gate.may_open(first)).cloned().collect();
    std::array::from_fn(of)
});

/// Converts a section. Returns `None` for an unknown name, which a test rules out.
fn words_of(section: &Section, words: &[(&'static str, &str)]) -> Option<KindRule> {
    let field = match section.fact {
        "span" => None,
        fact => Some(Field::named(fact)?),
    };
    let convention = Convention::named(section.convention)?;
    let kinds = words.iter().map(|(word, kind)| Some((*word, Kind::named(kind)?)));
    Some(KindRule {
        field,
        convention,
        gate: Condition::of(section),
        kinds: kinds.collect::<Option<_>>()?,
    })
}

/// A kind, the convention that decided it, and the operation's name if it is unknown.
pub(super) struct Decision {
    pub(super) convention: Convention,
    pub(super) kind: Kind,
    pub(super) unknown: Option<Text>,
}

/// Decides by the first evidence: the user's configuration, then the words of `kinds.txt` in their order, then fields that only spans of
/// one kind have. An unknown word does not hide later evidence.
pub(super) fn decide(slots: &Slots<'_>) -> Decision {
    let decided = |convention, kind| Decision { convention, kind, unknown: None };
    if let Some(kind) = slots.configured_kind() {
        return decided(Convention::Configured, kind);
    }
    let (mut first, mut unknown) = (None, None);
    let name = &slots.detail.name;
    let initial = slots.scope.bytes().next().unwrap_or_default();
    for words in KINDS.get(usize::from(initial)).map_or(&[][..], Vec::as_slice) {
        if words.field.is_some_and(|field| !slots.has(field))
            || !words.gate.is_open(slots.scope, name)
        {
            continue;
        }
        let own = || Some(Cow::Borrowed(&**name));
        let word = words.field.map_or_else(own, |field| slots.word(field));
        let Some(word) = word else { continue };
        if let Some((_, kind)) = words.kinds.iter().find(|(pattern, _)| matches(pattern, &word)) {
            // Conventions that precede OpenInference have explicit kinds, which are final.
            let is_open = Convention::OpenInference <= words.convention;
            let embeds = *kind == Kind::Generation && is_open && embeds(slots);
            return decided(words.convention, if embeds { Kind::Embedding } else { *kind });
        }
        // An unknown word identifies its convention, unless it is a span's name or Logfire's span type, which does not describe agents.
        if words.field.is_some_and(|field| field != Field::LogfireSpanType) {
            first.get_or_insert(words.convention);
        }
        if words.field == Some(Field::Operation) {
            unknown = slots.text(Field::Operation);
        }
    }
    let kind = by_evidence(slots);
    // GenAI had no operations at first.
    let legacy = (kind != Kind::Custom).then_some(Convention::GenAiLegacy);
    let convention = first.or(legacy).or_else(|| slots.detected()).unwrap_or_default();
    Decision { convention, kind, unknown }
}

/// Decides without a known word. A span with a model is a model call if it also has tokens, a provider or an answer.
fn by_evidence(slots: &Slots<'_>) -> Kind {
    let has = |fields: &[Field]| fields.iter().any(|field| slots.has(*field));
    let calls = [
        Field::Provider,
        Field::InputTokens,
        Field::OutputTokens,
        Field::TotalTokens,
        Field::Usage,
        Field::MoreUsage,
        Field::LangfuseUsage,
        Field::FinishReasons,
        Field::ResponseId,
    ];
    match has(&[Field::RequestModel, Field::ResponseModel]) && has(&calls) {
        true if embeds(slots) => Kind::Embedding,
        true => Kind::Generation,
        false if slots.has(Field::Guardrail) => Kind::Guardrail,
        false if slots.has(Field::Tool) => Kind::Tool,
        false => Kind::Custom,
    }
}

/// Returns whether a call embeds: the model's name contains `embed`, and there is no output. Bedrock's instrumentations say `completion`.
fn embeds(slots: &Slots<'_>) -> bool {
    let model = || slots.word(Field::RequestModel).or_else(|| slots.word(Field::ResponseModel));
    let is_silent = slots.count(Field::OutputTokens).unwrap_or_default() == 0;
    is_silent && model().is_some_and(|model| model.contains("embed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_means_something() {
        for (section, words) in tables::kinds() {
            assert!(words_of(&section, &words).is_some(), "{section:?} {words:?}");
        }
    }
}
