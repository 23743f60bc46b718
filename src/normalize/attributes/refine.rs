//! Corrects facts that rows cannot express: those that conventions name otherwise, or put into the span's name.

use std::sync::LazyLock;

use super::fields::{Condition, Field, begins};
use super::provider;
use super::slots::Slots;
use crate::normalize::raw::{Raw, share};
use crate::normalize::tables;
use crate::normalize::usage::Part;
use crate::span::{Convention, Facts, Kind, Payload, Text};

/// Scope of Logfire's bridge for the Agents SDK.
const LOGFIRE_AGENTS: &str = "logfire.openai_agents";

const VOLTAGENT: &str = "@voltagent/core";

/// Corrects the facts, by the convention that decided the kind.
pub(super) fn refine(slots: &Slots<'_>, facts: &mut Facts) {
    match facts.convention {
        Convention::OpenAiAgents
            if matches!(facts.sdk_span_type.as_deref(), Some("task" | "turn")) =>
        {
            facts.kind = Kind::Chain;
        }
        Convention::OpenInference => openinference(slots, facts),
        Convention::Logfire if slots.scope == LOGFIRE_AGENTS && facts.kind != Kind::Event => {
            logfire(slots, facts);
        }
        Convention::GenAi => genai(slots, facts),
        Convention::Vercel => vercel(slots, facts),
        Convention::OpenLlmetry => openllmetry(slots, facts),
        Convention::Mlflow => mlflow(slots, facts),
        Convention::Framework => framework(slots, facts),
        _ => (),
    }
    not_an_agent(slots, facts);
    not_a_tool(slots, facts);
    if facts.kind == Kind::Agent && facts.agent.is_none() {
        facts.agent = in_name("agents", slots);
    }
    // A tool that says which agent goes on, as LangGraph's do.
    if facts.kind == Kind::Tool && facts.handoff_to.is_some() {
        (facts.kind, facts.tool) = (Kind::Handoff, None);
    }
    if facts.kind == Kind::Handoff {
        facts.agent = facts.agent.take().or_else(|| facts.handoff_from.clone());
        facts.handoff_from = facts.handoff_from.take().or_else(|| facts.agent.clone());
    }
}

/// Extracts the name of an agent (`agents`) or a tool (`tools`) from the span's name.
pub(super) fn in_name(of: &str, slots: &Slots<'_>) -> Option<Text> {
    static NAMES: LazyLock<Vec<(&str, Condition, &str)>> = LazyLock::new(|| {
        let names = tables::listed("names");
        names.map(|(section, line)| (section.fact, Condition::of(&section), line)).collect()
    });
    let name = &slots.detail.name;
    let names = NAMES.iter().filter(|(what, gate, _)| *what == of && gate.is_open(slots.scope, ""));
    let mut inside = names.filter_map(|(.., pattern)| {
        let (before, behind) = pattern.split_once('*')?;
        name.strip_prefix(before)?.strip_suffix(behind).filter(|inside| !inside.is_empty())
    });
    inside.next().map(|inside| name.slice_ref(inside))
}

/// Returns whether this is the scope of one of OpenInference's bridges for the Agents SDK (Python and JavaScript). Their parameters are
/// those of the response, so the model in them is not the requested one.
pub(super) fn is_agents_bridge(scope: &str) -> bool {
    scope == "openinference.instrumentation.openai_agents"
        || scope == "@arizeai/openinference-instrumentation-openai-agents"
}

/// Corrects OpenInference. Its bridge for the Agents SDK makes a handoff a tool call between agents and the trace an agent without a name,
/// and names a turn only in the span's name. LiteLLM's exporter for Arize makes a model call with tools a tool.
fn openinference(slots: &Slots<'_>, facts: &mut Facts) {
    let (name, is_root) = (&slots.detail.name, slots.span.parent_id.is_none());
    match facts.kind {
        Kind::Tool if name.starts_with("handoff to ") => {
            // In JavaScript, the names are inside objects.
            let agent = |payload: Option<Payload>, member| match payload? {
                Payload::Json(object) => {
                    Raw::trusted(&object).get_string(member).map(|name| share(&object, name))
                }
                Payload::Text(name) => Some(name),
            };
            facts.handoff_from = agent(facts.input.take(), "from_agent");
            facts.handoff_to = agent(facts.output.take(), "to_agent")
                .or_else(|| name.strip_prefix("handoff to ").map(Text::from));
        }
        Kind::Tool if facts.tool.is_none() && slots.has(Field::OutputTokens) => {
            facts.kind = Kind::Generation;
        }
        Kind::Guardrail if facts.guardrail.is_none() => facts.guardrail = Some(name.clone()),
        Kind::Agent if facts.agent.is_none() && is_root && is_agents_bridge(slots.scope) => {
            facts.kind = Kind::Chain;
            facts.workflow = Some(name.clone());
        }
        Kind::Chain if is_agents_bridge(slots.scope) && &**name == "turn" => {
            facts.sdk_span_type = Some(Text::from_static("turn"));
        }
        _ => (),
    }
}

/// Corrects Logfire's bridge for the Agents SDK. Its plain `name` belongs to the field that the kind suggests.
fn logfire(slots: &Slots<'_>, facts: &mut Facts) {
    let name = slots.text(Field::PlainName);
    let template = slots.word(Field::LogfireTemplate).unwrap_or_default();
    match facts.kind {
        Kind::Agent => facts.agent.clone_from(&name),
        Kind::Tool => facts.tool.clone_from(&name),
        Kind::Guardrail => facts.guardrail.clone_from(&name),
        Kind::Chain if template.starts_with("OpenAI Agents trace") => {
            facts.workflow.clone_from(&name);
        }
        Kind::Handoff => facts.agent.clone_from(&facts.handoff_from),
        Kind::Mcp => facts.mcp_method = Some(Text::from_static("tools/list")),
        _ => (),
    }
    if let Some(turn) = slots.count(Field::Turn) {
        facts.name = Text::from(format!("turn {turn}"));
    } else if let Some(name) = name {
        facts.name = name;
    }
}

/// Scope of OpenTelemetry's own bridge for the Agents SDK.
const OPENTELEMETRY_AGENTS: &str = "opentelemetry.instrumentation.openai_agents";
/// The agent that version 0.1.0 of this bridge names on every span that is not an agent.
const PLACEHOLDER: &str = "OpenAI Agent";

/// Corrects GenAI. OpenTelemetry's bridge for the Agents SDK makes the trace an agent without a name, and writes a placeholder as the
/// agent. OpenLLMetry also calls the tasks and workflows of CrewAI and LangChain `invoke_agent`.
fn genai(slots: &Slots<'_>, facts: &mut Facts) {
    if slots.scope == OPENTELEMETRY_AGENTS {
        if facts.kind != Kind::Agent && facts.agent.as_deref() == Some(PLACEHOLDER) {
            facts.agent = None;
        }
        if facts.kind == Kind::Agent && facts.agent.is_none() && slots.span.parent_id.is_none() {
            facts.kind = Kind::Chain;
            facts.workflow = Some(slots.detail.name.clone());
        }
    }
    if facts.kind == Kind::Agent && slots.scope == OPENLIT_AGENTS {
        openlit(slots, facts);
    }
    let output = slots.word(Field::OutputType);
    if facts.kind == Kind::Generation && matches!(output.as_deref(), Some("speech" | "audio")) {
        facts.kind = Kind::Speech;
    }
    let entity = slots.word(Field::TraceloopKind);
    if facts.kind == Kind::Agent && matches!(entity.as_deref(), Some("task" | "workflow")) {
        // The name is that of a step or of the program.
        (facts.kind, facts.agent) = (Kind::Chain, None);
    }
}

/// Scope of OpenLIT's bridge for the Agents SDK.
const OPENLIT_AGENTS: &str = "openlit.instrumentation.openai_agents";

/// Corrects OpenLIT's bridge for the Agents SDK, which makes guardrails, handoffs, tasks and turns agents. Tasks and turns have no name.
fn openlit(slots: &Slots<'_>, facts: &mut Facts) {
    if slots.has(Field::GuardrailTriggered) {
        (facts.kind, facts.guardrail) = (Kind::Guardrail, facts.agent.take());
    } else if facts.handoff_from.is_some() {
        (facts.kind, facts.handoff_to) = (Kind::Handoff, facts.agent.take());
    } else if facts.agent.is_none() {
        facts.kind = Kind::Chain;
    }
}

/// Corrects MLflow, which has names only in the span's name. Methods and the trace itself have the agent type, too.
fn mlflow(slots: &Slots<'_>, facts: &mut Facts) {
    let (name, is_root) = (&slots.detail.name, slots.span.parent_id.is_none());
    match facts.kind {
        Kind::Agent if facts.agent.is_none() && !is_root && !name.contains('.') => {
            facts.agent = Some(name.clone());
        }
        Kind::Guardrail if facts.guardrail.is_none() => facts.guardrail = Some(name.clone()),
        _ => (),
    }
}

/// Corrects the AI SDK: a call that may use tools is an agent.
fn vercel(slots: &Slots<'_>, facts: &mut Facts) {
    let operation = slots.word(Field::VercelOperation);
    let is_outer = matches!(operation.as_deref(), Some("ai.generateText" | "ai.streamText"));
    if is_outer && (slots.has(Field::ToolDefinitions) || slots.has(Field::ToolCalls)) {
        facts.kind = Kind::Agent;
    }
}

/// Returns whether a span's tokens are its own, as those of a call are. Exceptions: the AI SDK's outer embedding span has the sum of its
/// calls, Spring AI 1's next call includes the calls before it, and `VoltAgent`'s agents have the sum of their calls, without agents below.
pub(super) fn says_its_own(slots: &Slots<'_>, facts: &Facts) -> bool {
    match slots.word(Field::VercelOperation) {
        _ if slots.scope == VOLTAGENT => facts.kind == Kind::Agent,
        Some(operation) if !operation.contains(".do") => false,
        _ => facts.kind.counts_usage() && !facts.adds_up_later,
    }
}

/// Returns whether Spring AI 1 adds this call's tokens to its next sibling, the call with the tools' results.
pub(super) fn adds_up_later(slots: &Slots<'_>, facts: &Facts) -> bool {
    // Since version 2, which needs Spring Boot 4, each call reports only its own tokens.
    let is_old = facts.kind == Kind::Generation && slots.span.scope.version.starts_with('3');
    let stop = slots.word(Field::SpringStop).filter(|_| is_old);
    stop.is_some_and(|stop| stop.contains("TOOL_CALLS") || stop.contains("tool_use"))
}

/// Uses the entity's name as the agent's or the tool's if there is no better one.
fn openllmetry(slots: &Slots<'_>, facts: &mut Facts) {
    let entity = slots.text(Field::Name);
    match facts.kind {
        Kind::Agent if facts.agent.is_none() => facts.agent = entity,
        Kind::Tool if facts.tool.is_none() => facts.tool = entity,
        _ => (),
    }
}

/// Corrects individual frameworks. Genkit names a call after its model (`googleai/gemini-2.5-flash`). LiveKit's `update_agent` is a handoff
/// to the agent that it names. AG2's `subtask` is marked, because it may repeat the usage of a sibling.
fn framework(slots: &Slots<'_>, facts: &mut Facts) {
    if facts.kind == Kind::Handoff {
        facts.handoff_to = facts.agent.take().or(facts.handoff_to.take());
    }
    openllmetry(slots, facts);
    if slots.word(Field::FrameworkKind).as_deref() == Some("subtask") {
        facts.sdk_span_type = Some(Text::from_static("subtask"));
    }
    if matches!(facts.kind, Kind::Generation | Kind::Embedding)
        && facts.request_model.is_none()
        && let Some(name) = slots.text(Field::Name)
        && let Some((maker, model)) = name.split_once('/')
    {
        facts.provider = provider::normalized(&name.slice_ref(maker));
        facts.request_model = Some(name.slice_ref(model));
    }
    // LlamaIndex writes the `repr` of the step: `ToolCall(tool_name='get_weather', ...`.
    if facts.kind == Kind::Tool
        && let Some(step) = slots.text(Field::Step)
        && let Some((_, rest)) = step.split_once("tool_name='")
    {
        facts.tool = rest.split('\'').next().map(|name| step.slice_ref(name));
    }
}

/// Removes agents that are the name of a program or a purpose: Copilot's on model calls, Gemini CLI's everywhere, OpenInference's graph
/// nodes on steps and workflows, and Claude Code's prefix of an agent's name. A node of `LangGraph` is an agent unless all have it.
fn not_an_agent(slots: &Slots<'_>, facts: &mut Facts) {
    if has_key(slots, Field::Agent, "query_source") {
        let name = |it: Text| Some(it.slice_ref(it.strip_prefix("agent:")?.split_once(':')?.1));
        facts.agent = facts.agent.take().and_then(name);
    }
    let is_purpose = facts.kind == Kind::Generation && slots.scope.starts_with("copilot");
    let is_program = slots.scope == "gemini-cli";
    let is_node = facts.kind != Kind::Agent
        && slots.key_of(Field::Agent).is_some_and(|key| key.starts_with("graph.node."));
    let is_named = is_program && has_key(slots, Field::Agent, "gen_ai.agent.name");
    if is_purpose || is_named || is_node {
        facts.agent = None;
    }
    let is_part = |node: &Text| NODES.iter().any(|name| tables::matches(name, node));
    facts.agent = facts.agent.take().or(slots.text(Field::GraphNode).filter(|it| !is_part(it)));
    if is_program {
        // Here it identifies the turn of a session.
        facts.prompt_name = None;
        facts.provider = facts.provider.take().or(Some(Text::from_static("gcp.gemini")));
    }
}

/// Names of the nodes of LangChain's own agents.
static NODES: LazyLock<Vec<&str>> =
    LazyLock::new(|| tables::listed("nodes").map(|(_, node)| node).collect());

/// Removes the names, ids and arguments of requested tool calls, which OpenLIT puts on the model's span.
fn not_a_tool(slots: &Slots<'_>, facts: &mut Facts) {
    if facts.kind != Kind::Generation {
        return;
    }
    (facts.tool, facts.tool_call_id) = (None, None);
    if slots.key_of(Field::Input).is_some_and(|key| key.starts_with("gen_ai.tool.")) {
        facts.input = None;
    }
}

/// A part, and words in the names of the providers or models for which it is counted exclusively (all if there are none).
type Beside = (Part, &'static [&'static str]);

/// Clients that count a part exclusively, by a prefix of their scope.
static BESIDE: LazyLock<Vec<(&str, Beside)>> = LazyLock::new(|| {
    let named = |what: &str| match what {
        "cached" => Some((Part::Cached, [].as_slice())),
        "cached anthropic" => Some((Part::Cached, ANTHROPIC)),
        "reasoning gemini" => Some((Part::Reasoning, GEMINI)),
        _ => None,
    };
    tables::beginnings("beside", named).collect()
});

/// Words in the name of the provider or the model.
const ANTHROPIC: &[&str] = &["anthropic", "claude", "bedrock"];
const GEMINI: &[&str] = &["gemini"];

/// Returns whether the client is known to count the part exclusively.
pub(super) fn is_beside(part: Part, slots: &Slots<'_>, facts: &Facts) -> bool {
    // Clients of OpenAI's protocol get OpenAI's counts, whatever the model's name.
    let provider = facts.provider.as_deref().unwrap_or_default();
    if ["openai", "openrouter", "azure.", "litellm"].iter().any(|host| provider.starts_with(host)) {
        return false;
    }
    let names = [&facts.provider, &facts.request_model, &facts.response_model];
    let is_of = |makers: &[&str]| {
        let mut names = names.iter().filter_map(|name| name.as_deref());
        names.any(|name| makers.iter().any(|maker| name.contains(maker)))
    };
    let is_listed = |(scope, (listed, makers)): &(&str, Beside)| {
        *listed == part && begins(slots.scope, scope) && (makers.is_empty() || is_of(makers))
    };
    BESIDE.iter().any(is_listed)
        || match part {
            Part::Cached => is_raw(slots) || (is_old(slots) && is_of(ANTHROPIC)),
            // ADK before 2.3 passes on Gemini's counts.
            Part::Reasoning => {
                has_key(slots, Field::Reasoning, "gen_ai.usage.experimental.") && is_of(GEMINI)
            }
        }
}

fn has_key(slots: &Slots<'_>, field: Field, beginning: &str) -> bool {
    slots.key_of(field).is_some_and(|key| key.starts_with(beginning))
}

/// Returns whether this is Pi, Claude Code under its own names (2.1.332 also sends OpenTelemetry's), or OpenLLMetry without a total.
fn is_raw(slots: &Slots<'_>) -> bool {
    let is_claude_code = slots.detail.name.starts_with("claude_code.");
    let is_raw = slots.scope == "opentelemetry.instrumentation.anthropic";
    (is_claude_code && !has_key(slots, Field::InputTokens, "gen_ai."))
        || (is_raw && !slots.has(Field::TotalTokens))
        || has_key(slots, Field::CachedRead, "pi.")
}

/// Returns whether this is the AI SDK up to 5 or Strands up to 1.45. Later versions detail the input and count inclusively, and so does
/// OpenInference, which adds its own counts to Strands' spans.
fn is_old(slots: &Slots<'_>) -> bool {
    let details = |begin: &[&str]| {
        let has = |field| begin.iter().any(|key| has_key(slots, field, key));
        has(Field::CachedRead) || has(Field::CacheWrite)
    };
    (slots.has(Field::VercelOperation) && !details(&["ai.usage.inputTokenDetails."]))
        || (slots.scope == "strands.telemetry.tracer"
            && !details(&["gen_ai.usage.cache_read.", "gen_ai.usage.cache_creation.", "llm."]))
}

/// Returns whether a tag is one of LangChain's own rather than the user's.
pub(super) fn is_run_tag(tag: &str) -> bool {
    static OWN: LazyLock<Vec<(&str, ())>> =
        LazyLock::new(|| tables::beginnings("tags", |_| Some(())).collect());
    OWN.iter().any(|(beginning, ())| tag.starts_with(beginning))
}
