//! Agent facts: what a span tells about agents, models, tools and tokens, in any convention.

use std::sync::LazyLock;

use super::{Payload, Text};

/// Defines an enum whose variants have names in files, metrics and tables.
macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($variants:tt)+ }) => {
        named! { $(#[$meta])* (pub) $type { $($variants)+ } }
    };
    ($(#[$meta:meta])* ($vis:vis) $type:ident { $($(#[$doc:meta])* $variant:ident $name:literal $(= $number:literal)?,)+ }) => {
        $(#[$meta])*
        $vis enum $type { $($(#[$doc])* $variant $(= $number)?,)+ }

        impl $type {
            /// All variants, in order.
            $vis const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Returns its name in files, metrics and tables.
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Returns the variant with this name.
            $vis fn named(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|known| known.as_str() == name)
            }
        }
    };
}
pub(crate) use named;

named! {
    /// The kind of agent work that a span describes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    Kind {
        /// An agent at work.
        Agent "agent",
        /// A model call that generates text or tool calls.
        Generation "generation",
        /// A tool or function call.
        Tool "tool",
        /// Control passes from one agent to another.
        Handoff "handoff",
        /// A check of input or output.
        Guardrail "guardrail",
        /// A query of a document store.
        Retriever "retriever",
        /// A model call that computes embeddings.
        Embedding "embedding",
        /// A model call that ranks documents.
        Reranker "reranker",
        /// A step that groups others: a workflow, task or turn.
        Chain "chain",
        /// An evaluation of quality.
        Evaluator "evaluator",
        /// A message of the Model Context Protocol other than a tool call.
        Mcp "mcp",
        /// Text to speech.
        Speech "speech",
        /// Speech to text.
        Transcription "transcription",
        /// A point in time.
        Event "event",
        /// Anything else.
        #[default]
        Custom "custom",
    }
}

impl Kind {
    /// Returns whether the span's usage counts towards its trace's total. Parents repeat their children's usage, so only model calls count.
    pub fn counts_usage(self) -> bool {
        matches!(
            self,
            Self::Generation
                | Self::Embedding
                | Self::Reranker
                | Self::Speech
                | Self::Transcription
        )
    }
}

named! {
    /// The convention that determined a span's kind, in order of precedence.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
    Convention {
        /// The user's configuration of attributes.
        Configured "configured",
        /// The ingest format of the Agents SDK.
        OpenAiAgents "openai_agents",
        /// `langfuse.*` attributes.
        Langfuse "langfuse",
        /// `langsmith.*` attributes.
        LangSmith "langsmith",
        /// `mlflow.*` attributes.
        Mlflow "mlflow",
        /// `openinference.*` attributes.
        OpenInference "openinference",
        /// Logfire's instrumentation of the Agents SDK.
        Logfire "logfire",
        /// OpenTelemetry GenAI since 1.37.
        GenAi "gen_ai",
        /// Vercel AI SDK's `ai.*` attributes.
        Vercel "vercel",
        /// `traceloop.*` attributes.
        OpenLlmetry "openllmetry",
        /// OpenTelemetry GenAI up to 1.36.
        GenAiLegacy "gen_ai_legacy",
        /// `mcp.*` attributes.
        Mcp "mcp",
        /// Names of a framework.
        Framework "framework",
        /// None of them: a plain span.
        #[default]
        Generic "generic",
    }
}

/// Token counts, inclusive: `input` includes cached tokens and `output` includes reasoning tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens read by the model, cached ones included.
    pub input: Option<u64>,
    /// Tokens written by the model, reasoning included.
    pub output: Option<u64>,
    /// Sum of input and output, as reported.
    pub total: Option<u64>,
    /// Part of `input` that was read from a cache.
    pub cached_read: Option<u64>,
    /// Part of `input` that was written to a cache.
    pub cache_write: Option<u64>,
    /// Part of `output` spent on reasoning.
    pub reasoning: Option<u64>,
    /// Part of `input` that is audio.
    pub input_audio: Option<u64>,
    /// Part of `output` that is audio.
    pub output_audio: Option<u64>,
    /// Part of `cache_write` that the cache keeps for an hour, which costs more.
    pub cache_write_1h: Option<u64>,
}

impl Usage {
    /// Returns whether no count is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether any token was counted.
    pub fn has_tokens(&self) -> bool {
        let mut own = *self;
        own.counters().iter().any(|count| count.is_some_and(|count| count != 0))
    }

    /// Returns every counter, in the order of the fields.
    pub fn counters(&mut self) -> [&mut Option<u64>; 9] {
        [
            &mut self.input,
            &mut self.output,
            &mut self.total,
            &mut self.cached_read,
            &mut self.cache_write,
            &mut self.reasoning,
            &mut self.input_audio,
            &mut self.output_audio,
            &mut self.cache_write_1h,
        ]
    }
}

/// Cost in US dollars, as reported by the client or computed from a price table.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Cost of the input.
    pub input: Option<f64>,
    /// Cost of the output.
    pub output: Option<f64>,
    /// Total cost.
    pub total: Option<f64>,
}

impl Cost {
    /// Returns whether any cost is reported, even if it is 0.
    pub fn is_said(&self) -> bool {
        *self != Self::default()
    }
}

/// The computed cost of a span that does not report its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Priced {
    /// Cost in integral billionths of a dollar, so that sums are exact.
    pub cost: Cost,
    /// Source of the price: `table:2026-11-29`, `override`.
    pub source: Text,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpanError {
    /// The error's type or class, if known.
    pub kind: Option<Text>,
    /// The message.
    pub message: Text,
    /// Details, as JSON.
    pub data: Option<Payload>,
}

/// An evaluation of a span.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Score {
    /// The criterion.
    pub name: Text,
    /// The numeric value.
    pub value: Option<f64>,
    /// The value as a label.
    pub label: Option<Text>,
    /// The explanation.
    pub explanation: Option<Text>,
}

/// The agent facts of one span. Missing facts are `None` or empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// The kind of work.
    pub kind: Kind,
    /// The convention that determined the kind.
    pub convention: Convention,
    /// The display name: the span's name, or a better one from the convention.
    pub name: Text,
    /// The agent.
    pub agent: Option<Text>,
    /// The tool called.
    pub tool: Option<Text>,
    /// The id that links a tool call to the model's request for it.
    pub tool_call_id: Option<Text>,
    /// Definitions of the tools the model could call, as JSON.
    pub tool_definitions: Option<Payload>,
    /// The requested model.
    pub request_model: Option<Text>,
    /// The model that answered.
    pub response_model: Option<Text>,
    /// The provider of the model, in the spelling of OpenTelemetry GenAI (`openai`, `azure.ai.openai` ...).
    pub provider: Option<Text>,
    /// The model call's parameters, as a JSON object.
    pub parameters: Option<Payload>,
    /// The input.
    pub input: Option<Payload>,
    /// The output.
    pub output: Option<Payload>,
    /// Token counts of a model call.
    pub usage: Usage,
    /// Token counts of everything below, on kinds that do not count themselves.
    pub aggregate_usage: Usage,
    /// Whether a later sibling call includes its tokens, so that they count only if there is no such call.
    pub adds_up_later: bool,
    /// The cost.
    pub cost: Cost,
    /// The id of the model's response (`resp_...`, `chatcmpl-...`).
    pub response_id: Option<Text>,
    /// Why the model stopped.
    pub finish_reasons: Vec<Text>,
    /// Nanoseconds from the start to the first part of the answer.
    pub first_token_ns: Option<u64>,
    /// The conversation or group.
    pub session: Option<Text>,
    /// The end user.
    pub user: Option<Text>,
    /// The workflow or trace name.
    pub workflow: Option<Text>,
    /// Labels.
    pub tags: Vec<Text>,
    /// Metadata of the trace or span.
    pub metadata: Vec<(Text, Payload)>,
    /// Name of the prompt template.
    pub prompt_name: Option<Text>,
    /// Version of the prompt template.
    pub prompt_version: Option<Text>,
    /// The agent that hands over.
    pub handoff_from: Option<Text>,
    /// The agent that takes over.
    pub handoff_to: Option<Text>,
    /// The guardrail's name.
    pub guardrail: Option<Text>,
    /// Whether it tripped.
    pub guardrail_triggered: Option<bool>,
    /// The MCP server.
    pub mcp_server: Option<Text>,
    /// The MCP method.
    pub mcp_method: Option<Text>,
    /// The error.
    pub error: Option<SpanError>,
    /// Evaluations.
    pub scores: Vec<Score>,
    /// The deployment environment.
    pub environment: Option<Text>,
    /// The application's release.
    pub release: Option<Text>,
    /// `task` or `turn` if the Agents SDK marks a span as one; for AG2, what a record of usage stands for.
    pub sdk_span_type: Option<Text>,
    /// What could not be interpreted; `None` if everything was.
    pub notes: Option<Box<Notes>>,
}

impl Facts {
    /// Returns the facts of a span that tells none.
    pub fn none() -> &'static Self {
        static NONE: LazyLock<Facts> = LazyLock::new(Facts::default);
        &NONE
    }

    /// Returns whether the span failed, and its trace with it. The run goes on after some errors of the Agents SDK, and after those that
    /// `LangGraph` (in JavaScript named in the message), Genkit and `LlamaIndex` raise to wait for a person or to go on elsewhere.
    pub fn fails_trace(&self) -> bool {
        let ends = ["(non-fatal)", "Multiple handoffs requested", "ToolInterruptError"];
        let raised = ["GraphInterrupt", "NodeInterrupt", "ParentCommand", "WaitingForEvent"];
        self.error.as_ref().is_some_and(|error| {
            let kind = error.kind.as_deref().and_then(|kind| kind.rsplit('.').next());
            let mut names = error.message.split("\n\n").chain(kind);
            !ends.iter().any(|end| error.message.ends_with(end))
                && !names.any(|text| raised.iter().any(|name| text.starts_with(name)))
        })
    }
}

/// Parts of a span that could not be interpreted. Names only, never values: they are reported to operators.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// An attribute with tokens or costs that is not counted, because it is not a number, is unknown, or contradicts the others.
    pub uncounted: Option<Text>,
    /// A name of an operation that this version does not know.
    pub unknown_operation: Option<Text>,
}
