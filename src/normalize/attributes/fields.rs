//! The fields that an attribute can fill ([`Field`]), and the condition under which a row applies ([`Condition`]).

use super::value::{self, Read};
use crate::normalize::tables::Section;
use crate::normalize::usage::is_cost;
use crate::span::Value;

/// The condition under which a row applies. Plain names such as `name` and `input` are meaningful only under their own scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Always,
    /// The instrumentation scope has this name.
    Scope(&'static str),
    /// The scope's name has this prefix.
    ScopePrefix(&'static str),
    /// The span has this name.
    Span(&'static str),
    /// The span's name has this prefix.
    SpanPrefix(&'static str),
}

impl Condition {
    /// Returns the condition of a section of the tables.
    pub(super) fn of(section: &Section) -> Self {
        match (section.scope.strip_suffix('*'), section.span.strip_suffix('*')) {
            (Some(prefix), _) => Self::ScopePrefix(prefix),
            (None, Some(prefix)) => Self::SpanPrefix(prefix),
            (None, None) if !section.scope.is_empty() => Self::Scope(section.scope),
            (None, None) if !section.span.is_empty() => Self::Span(section.span),
            (None, None) => Self::Always,
        }
    }

    /// Returns whether it may hold under a scope whose name begins with this byte.
    pub(super) fn may_open(self, first: usize) -> bool {
        let (Self::Scope(name) | Self::ScopePrefix(name)) = self else { return true };
        name.bytes().next().is_none_or(|byte| usize::from(byte) == first)
    }

    pub(super) fn is_open(self, scope: &str, span: &str) -> bool {
        match self {
            Self::Always => true,
            Self::Scope(name) => scope == name,
            Self::ScopePrefix(prefix) => begins(scope, prefix),
            Self::Span(name) => span == name,
            Self::SpanPrefix(prefix) => begins(span, prefix),
        }
    }
}

/// Returns whether the text has this prefix. It compares the first byte first, because most prefixes already differ there.
#[inline]
pub(super) fn begins(text: &str, beginning: &str) -> bool {
    let first = beginning.as_bytes().first();
    first.is_none_or(|first| text.as_bytes().first() == Some(first)) && text.starts_with(beginning)
}

macro_rules! fields {
    ($($class:ident: $($field:ident)+;)+) => {
        /// A field that an attribute can fill.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field { $($($field,)+)+ }

        impl Field {
            /// The number of fields.
            pub(super) const COUNT: usize = [$($(Self::$field,)+)+].len();

            /// Finds a field by its name in the tables (`input_tokens`).
            pub(super) fn named(name: &str) -> Option<Self> {
                let name = name.replace('_', "");
                $($(if name.eq_ignore_ascii_case(stringify!($field)) { return Some(Self::$field); })+)+
                None
            }

            /// Returns the type of the field's values.
            fn class(self) -> Class {
                match self { $($(Self::$field)|+ => Class::$class,)+ }
            }
        }
    };
}

/// The type of a field's values.
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

/// The largest attribute that counts as short, in bytes.
pub(super) const SHORT_BYTES: usize = 256;

fields! {
    // The kind of span, as each convention names it.
    Text: ConfiguredKind NativeType LangfuseType LangsmithKind MlflowKind OpeninferenceKind LogfireTemplate LogfireSpanType Operation
        CallType VercelOperation TraceloopKind RequestType McpMethod FrameworkKind;
    Text: Name PlainName Agent Tool ToolCallId RequestModel ResponseModel Provider Workflow HandoffFrom HandoffTo Guardrail
        McpServer SdkSpanType ErrorType ErrorMessage Level CompletionStart OutputType SpringStop Step Steps Detail GraphNode;
    Text: Session NoSession User InputMime OutputMime ResponseId PromptName PromptVersion Environment Release;
    Payload: ToolDefinitions ToolCalls Thoughts Parameters Input Output SystemInstructions ErrorData;
    Object: LangfuseUsage Usage MoreUsage CostDetails ErrorObject Metadata;
    List: FinishReasons Tags;
    Count: InputTokens OutputTokens TotalTokens CachedRead CacheWrite Reasoning InputAudio OutputAudio CacheWrite1h AggregateInputTokens
        AggregateOutputTokens AggregateTotalTokens AggregateCachedRead AggregateCacheWrite AggregateReasoning LevelNumber Turn;
    Number: CostInput CostOutput CostTotal FirstToken;
    Truth: GuardrailTriggered Failed;
}

impl Field {
    /// Returns whether the field holds tokens or costs in any form.
    pub(super) fn is_usage(self) -> bool {
        match self.class() {
            Class::Count => !matches!(self, Self::LevelNumber | Self::Turn),
            Class::Number => matches!(self, Self::CostInput | Self::CostOutput | Self::CostTotal),
            _ => matches!(self, Self::LangfuseUsage | Self::Usage | Self::MoreUsage),
        }
    }

    /// Returns whether totals need the field from an attribute of this size. Facts in contents, such as a handoff's names, are short.
    pub(super) fn is_summed(self, bytes: usize) -> bool {
        match self {
            Self::Input | Self::Output => bytes <= SHORT_BYTES,
            Self::SystemInstructions | Self::ErrorData | Self::Metadata => false,
            _ => self.class() != Class::List,
        }
    }

    /// Returns whether the field can use this value (Logfire scrubs sessions). If not, the next convention fills the field.
    pub(super) fn takes(self, value: &Value, read: Read) -> bool {
        match self.class() {
            Class::Text => value::word(value, read).is_some_and(|word| {
                !matches!(self, Self::Session | Self::User) || !word.starts_with("[Scrubbed due to")
            }),
            Class::Payload | Class::List => !value::is_empty(value),
            Class::Object => value::is_object(value),
            Class::Count => value::count(value).is_some(),
            Class::Number if self.is_usage() => value::scaled(value, read).is_some_and(is_cost),
            Class::Number => value::number(value).is_some(),
            Class::Truth => value::truth(value).is_some(),
        }
    }
}
