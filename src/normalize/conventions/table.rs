//! Which attribute says what: rules from a key to a field, by convention, and the index that finds them.

use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64;

use super::value;
use super::{
    genai, langfuse, langsmith, logfire, mcp, mlflow, native, openinference, openllmetry, vercel,
};
use crate::span::Value;

/// A key, the field it fills, and how its value is to be read.
pub(super) type Rule = (&'static str, Field, Read);

/// The rules of one convention. What is listed first is preferred inside it.
pub(super) struct Table {
    /// When they hold.
    pub gate: Gate,
    /// The rules.
    pub rules: &'static [Rule],
}

/// Some conventions use names as plain as `name` and `input`, which mean something only under their own scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Always,
    /// Scope `logfire.openai_agents`.
    LogfireAgents,
    /// Scope `pydantic-ai`.
    PydanticAi,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// As what it is.
    Plain,
    /// As JSON in a string, structured, or plain: a field that its convention declares to be JSON.
    Json,
    /// A list as text between commas.
    Commas,
}

/// All conventions in their order of precedence: for each field the first that says something wins.
static TABLES: [Table; 13] = [
    Table { gate: Gate::Always, rules: native::RULES },
    Table { gate: Gate::Always, rules: langfuse::RULES },
    Table { gate: Gate::Always, rules: langsmith::RULES },
    Table { gate: Gate::Always, rules: mlflow::RULES },
    Table { gate: Gate::Always, rules: openinference::RULES },
    Table { gate: Gate::Always, rules: logfire::RULES },
    Table { gate: Gate::LogfireAgents, rules: logfire::AGENT_RULES },
    Table { gate: Gate::PydanticAi, rules: logfire::PYDANTIC_RULES },
    Table { gate: Gate::Always, rules: genai::RULES },
    Table { gate: Gate::Always, rules: vercel::RULES },
    Table { gate: Gate::Always, rules: openllmetry::RULES },
    Table { gate: Gate::Always, rules: genai::LEGACY_RULES },
    Table { gate: Gate::Always, rules: mcp::RULES },
];

macro_rules! fields {
    ($($class:ident: $($field:ident)+;)+) => {
        /// What an attribute can say.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field { $($($field,)+)+ }

        impl Field {
            /// How many fields there are.
            pub(super) const COUNT: usize = [$($(Self::$field,)+)+].len();

            /// What its values are.
            fn class(self) -> Class {
                match self { $($(Self::$field)|+ => Class::$class,)+ }
            }
        }
    };
}

/// What the values of a field are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Text,
    Payload,
    Object,
    List,
    Count,
    Number,
    Truth,
}

fields! {
    // What kind of span it is, in each convention's words.
    Text: NativeType LangfuseType LangSmithKind MlflowKind OpenInferenceKind LogfireTemplate LogfireSpanType Operation VercelOperation
        TraceloopKind RequestType McpMethod;
    Text: Name PlainName Agent Tool ToolCallId RequestModel ResponseModel Provider ResponseId Session User Workflow PromptName
        PromptVersion HandoffFrom HandoffTo Guardrail McpServer Environment Release SdkSpanType ErrorType ErrorMessage Level
        CompletionStart InputMime OutputMime;
    Payload: ToolDefinitions Parameters Input Output SystemInstructions ToolCalls ErrorData;
    Object: LangfuseUsage MlflowUsage LangSmithUsage LogfireUsage RawUsage CostDetails Metadata ErrorObject McpData;
    List: FinishReasons Tags;
    Count: InputTokens OutputTokens TotalTokens CachedRead CacheWrite Reasoning InputAudio OutputAudio AggregateInput
        AggregateOutput AggregateTotal AggregateCachedRead AggregateCacheWrite AggregateReasoning LevelNumber Turn;
    Number: CostInput CostOutput CostTotal FirstTokenSeconds FirstTokenMillis;
    Truth: GuardrailTriggered;
}

/// Places of some tables in [`TABLES`], for what comes in other forms than one key.
pub(super) mod place {
    pub(in crate::normalize::conventions) const OPENINFERENCE: u16 = 4;
    pub(in crate::normalize::conventions) const LOGFIRE: u16 = 5;
    pub(in crate::normalize::conventions) const VERCEL: u16 = 9;
    pub(in crate::normalize::conventions) const LEGACY: u16 = 11;
}

/// What a rule says of a key, with its place in the order of precedence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranked {
    /// Lower is preferred.
    pub rank: u16,
    pub gate: Gate,
    pub field: Field,
    pub read: Read,
}

/// The rules by key: open addressing over one hash of the key.
struct Index {
    slots: Vec<Option<(&'static str, Vec<Ranked>)>>,
}

/// Four times as many slots as keys, so that few are neighbours. A power of two.
const SLOTS: usize = 2048;

static INDEX: LazyLock<Index> = LazyLock::new(Index::build);

impl Ranked {
    /// The place of its table in the order of precedence.
    pub(super) fn table(self) -> u16 {
        self.rank >> 8
    }
}

/// The rules for a key.
pub(super) fn rules(key: &str) -> &'static [Ranked] {
    INDEX.find(key)
}

/// Whether a value says something in a field. What says nothing leaves the field to the next convention.
pub(super) fn is_usable(rule: Ranked, value: &Value) -> bool {
    match rule.field.class() {
        Class::Text => value::text(value, rule.read).is_some(),
        Class::Payload | Class::List => !value::is_empty(value),
        Class::Object => value::is_object(value),
        Class::Count => value::count(value).is_some(),
        Class::Number => value::number(value).is_some(),
        Class::Truth => value::truth(value).is_some(),
    }
}

/// Every key that has a rule.
#[cfg(test)]
pub(in crate::normalize) fn keys() -> Vec<&'static str> {
    TABLES.iter().flat_map(|table| table.rules.iter().map(|(key, _, _)| *key)).collect()
}

impl Index {
    fn build() -> Self {
        let mut index = Self { slots: vec![None; SLOTS] };
        for (convention, table) in (0_u16..).zip(&TABLES) {
            for (place, &(key, field, read)) in (0_u16..).zip(table.rules) {
                let rank = (convention << 8) | place;
                index.insert(key, Ranked { rank, gate: table.gate, field, read });
            }
        }
        index
    }

    fn insert(&mut self, key: &'static str, rule: Ranked) {
        for place in places(key) {
            match self.slots.get_mut(place) {
                Some(Some((found, rules))) if *found == key => return rules.push(rule),
                Some(slot @ None) => {
                    *slot = Some((key, vec![rule]));
                    return;
                }
                _ => (),
            }
        }
    }

    fn find(&self, key: &str) -> &[Ranked] {
        for place in places(key) {
            match self.slots.get(place) {
                Some(Some((found, rules))) if *found == key => return rules,
                Some(Some(_)) => (),
                _ => return &[],
            }
        }
        &[]
    }
}

/// The slots to look at, in order.
fn places(key: &str) -> impl Iterator<Item = usize> {
    #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
    let first = xxh3_64(key.as_bytes()) as usize;
    (0..SLOTS).map(move |step| first.wrapping_add(step) & (SLOTS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_found_by_its_key_and_fits_its_rank() {
        let mut keys = 0;
        for table in &TABLES {
            assert!(table.rules.len() < 256, "the place must fit the rank's low byte");
            for (key, field, _) in table.rules {
                assert!(rules(key).iter().any(|rule| rule.field == *field), "{key}");
                keys += 1;
            }
        }
        assert!(keys * 4 <= SLOTS, "{keys} keys need more slots");
        assert!(rules("no.such.key").is_empty());
    }

    #[test]
    fn the_places_are_those_of_their_tables() {
        let first_key = |place: u16| TABLES[usize::from(place)].rules[0].0;
        assert_eq!(first_key(place::OPENINFERENCE), "openinference.span.kind");
        assert_eq!(first_key(place::LOGFIRE), "logfire.msg_template");
        assert_eq!(first_key(place::VERCEL), "ai.operationId");
        assert_eq!(first_key(place::LEGACY), "llm.request.type");
    }

    #[test]
    fn no_convention_names_a_key_twice_for_one_field() {
        for table in &TABLES {
            for (place, (key, field, _)) in table.rules.iter().enumerate() {
                let again = table.rules[..place]
                    .iter()
                    .any(|(other, same, _)| other == key && same == field);
                assert!(!again, "{key}");
            }
        }
    }
}
