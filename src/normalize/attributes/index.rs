//! Finds the rules for a key: one hash table holds all rows, and the user's rows precede the built-in ones.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use super::fields::{Condition, Field};
use super::value::Read;
use crate::normalize::tables;
use crate::span::{Convention, Kind, named};

/// What one row says about a key, with its rank in the order of precedence. It is small because each attribute is compared with several.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// A lower rank takes precedence.
    pub(super) rank: u16,
    pub(super) field: Field,
    pub(super) read: Read,
    pub(super) convention: Convention,
    /// The index of its condition in [`Index::gates`].
    gate: u8,
}

/// The user's attribute mapping, from `[attributes]` in the configuration. It precedes every built-in row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// For each fact, the keys that hold it, in the order of precedence.
    pub facts: BTreeMap<Fact, Vec<String>>,
    /// Attributes whose values map to kinds.
    pub kinds: BTreeMap<String, BTreeMap<String, Kind>>,
}

macro_rules! facts {
    ($($fact:ident $name:literal $field:ident $read:ident $sentence:literal;)+) => {
        named! {
            /// A fact that the user can name attributes for.
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            Fact { $(#[doc = concat!("`", $name, "`: ", $sentence)] $fact $name,)+ }
        }

        impl Fact {
            /// Describes the fact.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$fact => $sentence,)+ }
            }

            fn field(self) -> (Field, Read) {
                match self { $(Self::$fact => (Field::$field, Read::$read),)+ }
            }
        }
    };
}

facts! {
    Agent "agent" Agent Plain "The agent.";
    Tool "tool" Tool Plain "The tool.";
    ToolCallId "tool_call_id" ToolCallId Plain "The id that ties a tool's call to the model's request for it.";
    Model "model" RequestModel Plain "The requested model.";
    ResponseModel "response_model" ResponseModel Plain "The model that answered.";
    Provider "provider" Provider Plain "The model's provider.";
    Input "input" Input Json "The input: text or JSON.";
    Output "output" Output Json "The output: text or JSON.";
    Session "session" Session Json "The session or conversation.";
    User "user" User Json "The end user.";
    Tags "tags" Tags Commas "Labels: a list, or words separated by commas.";
    Workflow "workflow" Workflow Plain "The name of the workflow or trace.";
    InputTokens "input_tokens" InputTokens Plain "Tokens that the model read, including cached ones.";
    OutputTokens "output_tokens" OutputTokens Plain "Tokens that the model wrote, including reasoning.";
    TotalTokens "total_tokens" TotalTokens Plain "All tokens.";
    CachedRead "cache_read_input_tokens" CachedRead Plain "Tokens read from a cache.";
    CacheWrite "cache_creation_input_tokens" CacheWrite Plain "Tokens written to a cache.";
    Reasoning "reasoning_tokens" Reasoning Plain "Tokens spent on reasoning.";
    Cost "cost_usd" CostTotal Plain "The cost in US dollars.";
    FirstTokenMillis "time_to_first_token_ms" FirstToken MILLIS "Milliseconds until the first part of the answer.";
    Environment "environment" Environment Plain "The environment it ran in.";
    Release "release" Release Plain "The application's release.";
}

/// All rules, by key.
#[derive(Debug)]
pub(super) struct Index {
    /// The rules of a key, in the order of precedence.
    rules: HashMap<Box<[u8]>, Vec<Rule>, BuildHasherDefault<KeyHasher>>,
    /// The first one is [`Condition::Always`].
    gates: Vec<Condition>,
    mapping: Mapping,
}

/// Hashes a key in one call.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, key: &[u8]) {
        self.0 = xxh3_64(key);
    }

    /// A slice writes its length first. A single one does not need it.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The most distinct mappings that a process can install. None is ever freed, because spans refer to the index that they were read with.
/// Each takes about 100 KB.
const MAPPINGS_MAX: usize = 64;
static INDEXES: [OnceLock<Index>; MAPPINGS_MAX] = [const { OnceLock::new() }; MAPPINGS_MAX];
/// The slot of the current index.
static CURRENT: AtomicUsize = AtomicUsize::new(0);

/// Returns the current index.
pub(super) fn index() -> &'static Index {
    let [first, ..] = &INDEXES;
    let current = INDEXES.get(CURRENT.load(Ordering::Acquire)).unwrap_or(first);
    current.get_or_init(|| Index::build(&Mapping::default()))
}

/// Installs the user's mapping for all spans that are read from now on. Returns false if no slot for a mapping is left.
pub fn install(mapping: &Mapping) -> bool {
    let built =
        |index: &OnceLock<Index>| index.get_or_init(|| Index::build(mapping)).mapping == *mapping;
    let Some(place) = INDEXES.iter().position(built) else { return false };
    CURRENT.store(place, Ordering::Release);
    true
}

impl Index {
    pub(super) fn build(mapping: &Mapping) -> Self {
        let mut index = Self {
            rules: HashMap::default(),
            gates: vec![Condition::Always],
            mapping: mapping.clone(),
        };
        let configured = |(field, read)| {
            let convention = Convention::Configured;
            Rule { rank: 0, field, read, convention, gate: 0 }
        };
        let facts = mapping.facts.iter().flat_map(|(fact, keys)| {
            keys.iter().map(move |key| (key.as_str(), configured(fact.field())))
        });
        let kind = configured((Field::ConfiguredKind, Read::Json));
        let mut rules: Vec<(&str, Rule)> = facts.collect();
        rules.extend(mapping.kinds.keys().map(|key| (key.as_str(), kind)));
        rules.extend(tables::rows().filter_map(|row| Some((row.key, index.rule(&row)?))));
        for (rank, (key, rule)) in (0..).zip(rules) {
            index.rules.entry(key.as_bytes().into()).or_default().push(Rule { rank, ..rule });
        }
        index
    }

    /// Converts a row to a rule. Returns `None` for an unknown name, which a test rules out.
    fn rule(&mut self, row: &tables::Row) -> Option<Rule> {
        let convention = Convention::named(row.section.convention)?;
        let (field, read) = (Field::named(row.fact)?, Read::named(row.coercion)?);
        let gate = Condition::of(&row.section);
        let known = self.gates.iter().position(|known| *known == gate);
        let gate = known.unwrap_or_else(|| {
            self.gates.push(gate);
            self.gates.len() - 1
        });
        Some(Rule { rank: 0, field, read, convention, gate: u8::try_from(gate).ok()? })
    }

    /// Returns the rules for a key.
    #[inline]
    pub(super) fn rules(&self, key: &[u8]) -> &[Rule] {
        self.rules.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns whether a rule applies to a span of this name under this scope.
    #[inline]
    pub(super) fn is_open<'s>(&self, rule: Rule, scope: &str, span: impl Fn() -> &'s str) -> bool {
        let gate = || self.gates.get(usize::from(rule.gate));
        rule.gate == 0 || gate().is_some_and(|gate| gate.is_open(scope, span()))
    }

    /// Returns the kind that the user's mapping gives to this value of an attribute.
    pub(super) fn configured_kind(&self, key: &str, word: &str) -> Option<Kind> {
        self.mapping.kinds.get(key)?.get(word).copied()
    }
}

/// Returns whether an attribute with this key may hold the fact, under any convention.
pub fn tells(key: &str, fact: Fact) -> bool {
    index().rules(key.as_bytes()).iter().any(|rule| rule.field == fact.field().0)
}

/// Returns every key that has a rule.
#[cfg(test)]
pub(in crate::normalize) fn keys() -> Vec<String> {
    index().rules.keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_means_something_and_is_found_by_its_key() {
        let index = Index::build(&Mapping::default());
        for row in tables::rows() {
            let tables::Section { scope, span, .. } = row.section;
            let is_always = Condition::of(&row.section) == Condition::Always;
            assert_eq!(is_always, scope.is_empty() && span.is_empty(), "{row:?}");
            let field = Field::named(row.fact);
            assert!(field.is_some() && Read::named(row.coercion).is_some(), "{row:?}");
            assert!(Convention::named(row.section.convention).is_some(), "{row:?}");
            assert!(
                index.rules(row.key.as_bytes()).iter().any(|rule| Some(rule.field) == field),
                "{row:?}"
            );
        }
        assert!(index.rules(b"no.such.key").is_empty());
    }

    #[test]
    fn no_section_names_a_key_twice_for_one_fact() {
        let mut seen = std::collections::HashSet::new();
        for tables::Row { section, key, fact, coercion } in tables::rows() {
            let section = (section.convention, section.scope, section.span);
            let way = coercion.strip_prefix('.');
            assert!(seen.insert((section, key, fact, way)), "{section:?} {key} {fact}");
        }
    }

    #[test]
    fn what_the_user_says_goes_first() {
        let mapping = Mapping {
            facts: BTreeMap::from([(
                Fact::Session,
                vec!["acme.thread".to_owned(), "session.id".to_owned()],
            )]),
            kinds: BTreeMap::from([(
                "acme.step".to_owned(),
                BTreeMap::from([("planner".to_owned(), Kind::Agent)]),
            )]),
        };
        let index = Index::build(&mapping);
        let best = |key: &str| {
            index
                .rules(key.as_bytes())
                .iter()
                .min_by_key(|rule| rule.rank)
                .map(|rule| (rule.rank, rule.convention))
        };
        assert_eq!(best("acme.thread"), Some((0, Convention::Configured)));
        assert_eq!(best("session.id"), Some((1, Convention::Configured)));
        assert_eq!(index.configured_kind("acme.step", "planner"), Some(Kind::Agent));
        assert_eq!(index.configured_kind("acme.step", "other"), None);
    }
}
