//! Agent facts: what a span says about agents, models, tools and tokens, whichever convention it was written in.

use super::{Payload, Text};

/// An enum whose variants have names in files, metrics and tables.
macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($variants:tt)+ }) => {
        named! { $(#[$meta])* (pub) $type { $($variants)+ } }
    };
    ($(#[$meta:meta])* ($vis:vis) $type:ident { $($(#[$doc:meta])* $variant:ident $name:literal,)+ }) => {
        $(#[$meta])*
        $vis enum $type { $($(#[$doc])* $variant,)+ }

        impl $type {
            /// All of them, in order.
            $vis const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Its name in files, metrics and tables.
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The one of a name.
            $vis fn named(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|known| known.as_str() == name)
            }
        }
    };
}
pub(crate) use named;

named! {
    /// What kind of agent work a span is.
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
        /// A look-up in a store of documents.
        Retriever "retriever",
        /// A model call that makes embeddings.
        Embedding "embedding",
        /// A model call that orders documents.
        Reranker "reranker",
        /// A step that groups others: a workflow, task or turn.
        Chain "chain",
        /// A judgement of quality.
        Evaluator "evaluator",
        /// A message of the Model Context Protocol that is no tool call.
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
    /// Whether the span's usage counts towards its trace's total. Parents repeat their children's usage, so only model calls count.
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
    /// Which convention decided a span's kind, in the order of precedence.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
    Convention {
        /// What the user's configuration says of attributes.
        Configured "configured",
        /// The Agents SDK's own ingest format.
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
        /// OpenTelemetry GenAI from 1.37 on.
        GenAi "gen_ai",
        /// Vercel AI SDK's `ai.*` attributes.
        Vercel "vercel",
        /// `traceloop.*` attributes.
        OpenLlmetry "openllmetry",
        /// OpenTelemetry GenAI up to 1.36.
        GenAiLegacy "gen_ai_legacy",
        /// `mcp.*` attributes.
        Mcp "mcp",
        /// A framework's own names.
        Framework "framework",
        /// None of them: a plain span.
        #[default]
        Generic "generic",
    }
}

/// Token counts, inclusive: `input` contains the cached tokens and `output` contains the reasoning tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens read by the model, cached ones included.
    pub input: Option<u64>,
    /// Tokens written by the model, reasoning included.
    pub output: Option<u64>,
    /// Input and output together, as reported.
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
    /// Whether no count is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether any token was counted.
    pub fn has_tokens(&self) -> bool {
        let mut own = *self;
        own.counters().iter().any(|count| count.is_some_and(|count| count != 0))
    }

    /// Every counter, in the order of the fields.
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

/// Money in US dollars, as the client reported it or a table of prices has it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// For the input.
    pub input: Option<f64>,
    /// For the output.
    pub output: Option<f64>,
    /// Altogether.
    pub total: Option<f64>,
}

impl Cost {
    /// Whether anything is said, be it 0.
    pub fn is_said(&self) -> bool {
        *self != Self::default()
    }
}

/// What a span cost that does not say it itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Priced {
    /// In whole billionths of a dollar, so that sums are exact.
    pub cost: Cost,
    /// Whose price it is: `table:2026-11-29`, `override`.
    pub source: Text,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Failure {
    /// The error's type or class, where one is known.
    pub kind: Option<Text>,
    /// The message.
    pub message: Text,
    /// More about it, as JSON.
    pub data: Option<Payload>,
}

/// A judgement of a span.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Score {
    /// What was judged.
    pub name: Text,
    /// As a number.
    pub value: Option<f64>,
    /// As a word.
    pub label: Option<Text>,
    /// Why.
    pub explanation: Option<Text>,
}

/// The agent facts of one span. What a span does not say is `None` or empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// What kind of work it is.
    pub kind: Kind,
    /// Which convention decided the kind.
    pub convention: Convention,
    /// The display name: the span's name, or a better one that the convention has.
    pub name: Text,
    /// The agent.
    pub agent: Option<Text>,
    /// The tool called.
    pub tool: Option<Text>,
    /// The id that ties a tool call to the model's request for it.
    pub tool_call_id: Option<Text>,
    /// Definitions of the tools the model could call, as JSON.
    pub tool_definitions: Option<Payload>,
    /// The model asked for.
    pub request_model: Option<Text>,
    /// The model that answered.
    pub response_model: Option<Text>,
    /// Who serves the model, in the spelling of OpenTelemetry GenAI (`openai`, `azure.ai.openai` ...).
    pub provider: Option<Text>,
    /// The model call's parameters, as a JSON object.
    pub parameters: Option<Payload>,
    /// What went in.
    pub input: Option<Payload>,
    /// What came out.
    pub output: Option<Payload>,
    /// Token counts of a model call.
    pub usage: Usage,
    /// Token counts of everything below, on kinds that do not count themselves.
    pub aggregate_usage: Usage,
    /// Whether a later call beside it has its tokens added, so that they count only where there is none.
    pub adds_up_later: bool,
    /// What it cost.
    pub cost: Cost,
    /// The model's answer id (`resp_...`, `chatcmpl-...`).
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
    /// Free facts of the trace or span.
    pub metadata: Vec<(Text, Payload)>,
    /// Name of the prompt template.
    pub prompt_name: Option<Text>,
    /// Version of the prompt template.
    pub prompt_version: Option<Text>,
    /// Who hands over.
    pub handoff_from: Option<Text>,
    /// Who takes over.
    pub handoff_to: Option<Text>,
    /// The guardrail's name.
    pub guardrail: Option<Text>,
    /// Whether it tripped.
    pub guardrail_triggered: Option<bool>,
    /// The MCP server.
    pub mcp_server: Option<Text>,
    /// The MCP method.
    pub mcp_method: Option<Text>,
    /// What went wrong.
    pub error: Option<Failure>,
    /// Judgements.
    pub scores: Vec<Score>,
    /// The deployment environment.
    pub environment: Option<Text>,
    /// The application's release.
    pub release: Option<Text>,
    /// `task` or `turn` where the Agents SDK marks a span as one; what AG2 says that a record of usage stands for.
    pub sdk_span_type: Option<Text>,
    /// What was not understood; `None` where all was.
    pub notes: Option<Box<Notes>>,
}

/// What of a span was not understood. Names only, never a value: operators are told of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// An attribute that says tokens or costs, and is not counted: it is no number, or unknown, or contradicts the others.
    pub uncounted: Option<Text>,
    /// A word for the kind of operation that this version does not know.
    pub unknown_operation: Option<Text>,
}
