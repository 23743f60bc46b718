//! What an attribute can say ([`Field`]), and where a row holds ([`Gate`]).

use super::value::{self, Read};
use crate::normalize::tables::Section;
use crate::normalize::usage::is_cost;
use crate::span::Value;

/// Where a row holds. Some conventions use names as plain as `name` and `input`, which mean something only under their own scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Always,
    /// The instrumentation scope has this name.
    Scope(&'static str),
    /// Its name begins so.
    ScopePrefix(&'static str),
    /// The span's name begins so.
    SpanPrefix(&'static str),
}

impl Gate {
    /// What a section of the tables says.
    pub(super) fn of(section: &Section) -> Self {
        match (section.scope.strip_suffix('*'), section.span.strip_suffix('*')) {
            (Some(prefix), _) => Self::ScopePrefix(prefix),
            (None, Some(prefix)) => Self::SpanPrefix(prefix),
            (None, None) if section.scope.is_empty() => Self::Always,
            (None, None) => Self::Scope(section.scope),
        }
    }

    pub(super) fn is_open(self, scope: &str, span: &str) -> bool {
        match self {
            Self::Always => true,
            Self::Scope(name) => scope == name,
            Self::ScopePrefix(prefix) => begins(scope, prefix),
            Self::SpanPrefix(prefix) => begins(span, prefix),
        }
    }
}

/// Whether a text begins so. Most of the many beginnings that are looked for differ in their first letter already.
#[inline]
pub(super) fn begins(text: &str, beginning: &str) -> bool {
    let first = beginning.as_bytes().first();
    first.is_none_or(|first| text.as_bytes().first() == Some(first)) && text.starts_with(beginning)
}

macro_rules! fields {
    ($($class:ident: $($field:ident)+;)+) => {
        /// What an attribute can say.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field { $($($field,)+)+ }

        impl Field {
            /// How many fields there are.
            pub(super) const COUNT: usize = [$($(Self::$field,)+)+].len();

            /// The field of a name in the tables (`input_tokens`).
            pub(super) fn named(name: &str) -> Option<Self> {
                let name = name.replace('_', "");
                $($(if name.eq_ignore_ascii_case(stringify!($field)) { return Some(Self::$field); })+)+
                None
            }

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

/// An attribute of no more bytes is short.
pub(super) const SHORT_BYTES: usize = 256;

fields! {
    // What kind of span it is, in each convention's words.
    Text: ConfiguredKind NativeType LangfuseType LangsmithKind MlflowKind OpeninferenceKind LogfireTemplate LogfireSpanType Operation
        CallType VercelOperation TraceloopKind RequestType McpMethod FrameworkKind;
    Text: Name PlainName Agent Tool ToolCallId RequestModel ResponseModel Provider Workflow HandoffFrom HandoffTo Guardrail
        McpServer SdkSpanType ErrorType ErrorMessage Level CompletionStart OutputType SpringStop Step Detail;
    Text: Session User InputMime OutputMime ResponseId PromptName PromptVersion Environment Release;
    Payload: ToolDefinitions ToolCalls Parameters Input Output SystemInstructions ErrorData;
    Object: LangfuseUsage Usage MoreUsage CostDetails ErrorObject Metadata;
    List: FinishReasons Tags;
    Count: InputTokens OutputTokens TotalTokens CachedRead CacheWrite Reasoning InputAudio OutputAudio CacheWrite1h AggregateInput
        AggregateOutput AggregateTotal AggregateCachedRead AggregateCacheWrite AggregateReasoning LevelNumber Turn;
    Number: CostInput CostOutput CostTotal FirstTokenSeconds FirstTokenMillis FirstTokenNanos;
    Truth: GuardrailTriggered Failed;
}

impl Field {
    /// Whether it says how many tokens a span took, or what it cost, in any form.
    pub(super) fn is_usage(self) -> bool {
        match self.class() {
            Class::Count => !matches!(self, Self::LevelNumber | Self::Turn),
            Class::Number => matches!(self, Self::CostInput | Self::CostOutput | Self::CostTotal),
            _ => matches!(self, Self::LangfuseUsage | Self::Usage | Self::MoreUsage),
        }
    }

    /// Whether who sums up needs it in an attribute of so many bytes: what is hidden in contents, like the names of a handoff, is short.
    pub(super) fn is_summed(self, bytes: usize) -> bool {
        match self {
            Self::Input | Self::Output => bytes <= SHORT_BYTES,
            Self::SystemInstructions | Self::ErrorData | Self::Metadata => false,
            _ => self.class() != Class::List,
        }
    }

    /// Whether a value says something in the field. What says nothing leaves the field to the next convention.
    pub(super) fn takes(self, value: &Value, read: Read) -> bool {
        match self.class() {
            Class::Text => value::word(value, read).is_some(),
            Class::Payload | Class::List => !value::is_empty(value),
            Class::Object => value::is_object(value),
            Class::Count => value::count(value).is_some(),
            Class::Number if self.is_usage() => value::number(value).is_some_and(is_cost),
            Class::Number => value::number(value).is_some(),
            Class::Truth => value::truth(value).is_some(),
        }
    }
}
