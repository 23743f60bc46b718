//! Reads the agent facts of OTLP spans from their attributes, whichever convention wrote them.
//!
//! A span may follow several conventions at once. Each field takes its value from the first convention that has a usable one. The kind
//! comes from the first convention with a known word for it, which [`Facts::convention`] names. All attributes stay in the detail, and
//! unrecognized values are noted ([`Facts::notes`]).
//!
//! Conventions are data (`normalize/tables`): rows that map keys to fields, and words that map to kinds. `refine.rs` holds the rules that
//! rows cannot express. The user's mapping ([`Mapping`]) precedes all of it.

mod value;
mod fields;
pub(in crate::normalize) mod provider;
mod index;
mod slots;
mod events;
mod kinds;
mod refine;
mod parts;

#[cfg(test)]
pub(in crate::normalize) use self::index::keys;
pub use self::index::{Fact, Mapping, install, tells};
pub use self::parts::{Parts, parts_of};

use std::sync::LazyLock;

use self::fields::{Field, SHORT_BYTES};
use self::index::Rule;
use self::slots::{KEYS, SPREAD, Slots, Spread};
use self::value::Read;
use super::raw::{Raw, share, with_first};
use super::{raw, time, usage};
use crate::span::{
    Convention, Cost, Detail, Facts, Kind, Notes, Payload, STATUS_ERROR, Span, SpanError, Text,
    Usage, keys,
};

/// Returns whether an attribute of this key and size can change what totals need of a span of this name under this scope. `seen` is the
/// convention that earlier keys revealed. A test compares the results with and without the attributes that this rejects.
pub(super) fn matters_to_sums<'s>(
    (key, bytes): (&[u8], usize),
    (scope, name): (&str, impl Fn() -> &'s str),
    seen: &mut Option<Convention>,
) -> bool {
    let index = index::index();
    let rules = index.rules(key);
    let is_summed = |rule: &Rule| rule.field.is_summed(bytes) && index.is_open(*rule, scope, &name);
    let is_summed = rules.iter().any(is_summed);
    if SHORT_BYTES < bytes || (is_summed && seen.is_some()) {
        return is_summed;
    }
    // A key may be the only evidence of its convention; the first convention in the order of precedence decides.
    let own = KEYS.first(key).filter(|own| seen.is_none_or(|known| *own < known));
    *seen = own.or(*seen);
    let is_uncounted = || rules.is_empty() && SPREAD.first(key) == Some(Spread::Uncounted);
    let is_repeated = || key.starts_with(keys::SPANFERRY_AGGREGATE.as_bytes());
    is_summed || own.is_some() || is_repeated() || is_uncounted()
}

/// Reads the facts of a span from those attributes and events that this detail has, into empty facts.
pub(in crate::normalize) fn facts(span: &Span, detail: &Detail, facts: &mut Facts) {
    let slots = Slots::fill(span, detail);
    let kinds::Decision { convention, kind, unknown } = kinds::decide(&slots);
    (facts.kind, facts.convention) = (kind, convention);
    texts(&slots, facts);
    model(&slots, facts);
    content(&slots, facts);
    surroundings(&slots, span, facts);
    refine::refine(&slots, facts);
    let is_total_odd = tokens(&slots, facts);
    finish_names(&slots, facts);
    facts.scores = slots.scores();
    if !detail.events.is_empty() {
        events::read(span, detail, facts);
    }
    facts.error = failure(&slots, facts.error.take());
    let odd_total = is_total_odd.then(|| Text::from_static("total_tokens"));
    let notes =
        Notes { uncounted: slots.uncounted.cloned().or(odd_total), unknown_operation: unknown };
    facts.notes = (notes != Notes::default()).then(|| Box::new(notes));
}

/// Copies the facts that are text in the attributes, too.
fn texts(slots: &Slots<'_>, facts: &mut Facts) {
    facts.name = slots.text(Field::Name).unwrap_or_else(|| slots.detail.name.clone());
    facts.guardrail_triggered = slots.truth(Field::GuardrailTriggered);
    slots.copy_texts([
        (Field::Agent, &mut facts.agent),
        (Field::Tool, &mut facts.tool),
        (Field::ToolCallId, &mut facts.tool_call_id),
        (Field::Workflow, &mut facts.workflow),
        (Field::HandoffFrom, &mut facts.handoff_from),
        (Field::HandoffTo, &mut facts.handoff_to),
        (Field::Guardrail, &mut facts.guardrail),
        (Field::McpMethod, &mut facts.mcp_method),
        (Field::McpServer, &mut facts.mcp_server),
        (Field::SdkSpanType, &mut facts.sdk_span_type),
        (Field::PromptName, &mut facts.prompt_name),
        (Field::PromptVersion, &mut facts.prompt_version),
        (Field::ResponseId, &mut facts.response_id),
        (Field::Session, &mut facts.session),
        (Field::User, &mut facts.user),
        (Field::Environment, &mut facts.environment),
        (Field::Release, &mut facts.release),
    ]);
    // Microsoft's Agent Framework sends the previous response's id as the conversation, others `unknown`, -1, a number that is a thread of
    // the system, or `session.llm` (opencode, for an agent).
    let other = slots.text(Field::NoSession);
    let is_thread =
        slots.key_of(Field::Session).is_some_and(|key| matches!(&**key, "thread_id" | "thread.id"));
    facts.session.take_if(|id| {
        let is_other = other.as_ref() == Some(id) || (is_thread && id.parse::<u64>().is_ok());
        is_other || id.starts_with("resp_")
    });
    for name in [&mut facts.session, &mut facts.user, &mut facts.agent] {
        name.take_if(|name| matches!(&**name, "unknown" | "-1" | "session.llm"));
    }
}

/// Completes the names that follow from the kind.
fn finish_names(slots: &Slots<'_>, facts: &mut Facts) {
    match facts.kind {
        Kind::Tool => {
            facts.tool = facts.tool.take().or_else(|| refine::in_name("tools", slots));
            facts.name = facts.tool.as_ref().unwrap_or(&facts.name).clone();
            facts.guardrail = None;
        }
        Kind::Agent | Kind::Guardrail => {
            let shown = if facts.kind == Kind::Agent { &facts.agent } else { &facts.guardrail };
            let name = shown.as_ref().filter(|name| is_behind_a_verb(&facts.name, name));
            facts.name = name.unwrap_or(&facts.name).clone();
        }
        Kind::Handoff => {
            let (from, to) = (facts.handoff_from.as_deref(), facts.handoff_to.as_deref());
            if from.is_some() || to.is_some() {
                facts.name =
                    Text::from(format!("handoff {} -> {}", from.unwrap_or("?"), to.unwrap_or("?")));
            }
        }
        _ => (),
    }
}

/// Returns whether a span is named `invoke_agent <name>` or `guardrail <name>`, as OpenTelemetry and Spanferry name spans.
fn is_behind_a_verb(span_name: &str, name: &str) -> bool {
    let verb = span_name.strip_suffix(name).map(str::trim_end);
    matches!(verb, Some("invoke_agent" | "create_agent" | "guardrail"))
}

fn model(slots: &Slots<'_>, facts: &mut Facts) {
    // Spring AI and LiteLLM write these words if there is no model.
    let named =
        |model: &Text| !["none", "unknown"].iter().any(|word| model.eq_ignore_ascii_case(word));
    facts.request_model = slots.text(Field::RequestModel).filter(named);
    // Spanferry writes OpenInference's single model name for both models, so it does not tell which one it is.
    let is_ambiguous = facts.convention == Convention::OpenAiAgents
        && slots.convention_of(Field::ResponseModel) == Some(Convention::OpenInference);
    facts.response_model =
        slots.text(Field::ResponseModel).filter(|model| !is_ambiguous && named(model));
    // Strands for TypeScript names the service instead, as it does for its scope.
    let own = || slots.span.scope.resource.service_name();
    let named = slots.text(Field::Provider).filter(|it| **it != *slots.scope || own() != Some(it));
    facts.provider = named.and_then(|name| provider::normalized(&name));
    facts.finish_reasons = slots.texts(Field::FinishReasons);
    facts.parameters =
        slots.payload(Field::Parameters).or_else(|| slots.members(Spread::Parameter));
    facts.tool_definitions = slots
        .flattened(Spread::Tools)
        .or_else(|| slots.flattened(Spread::Functions))
        .or_else(|| slots.payload(Field::ToolDefinitions));
    if facts.request_model.is_none() {
        facts.request_model = match facts.convention {
            // These have one name for both models.
            Convention::Langfuse | Convention::Mlflow => facts.response_model.clone(),
            Convention::OpenInference if !refine::is_agents_bridge(slots.scope) => {
                model_parameter(facts)
            }
            _ => None,
        };
    }
    facts.first_token_ns = slots.seconds(Field::FirstToken).and_then(events::nanoseconds);
}

fn model_parameter(facts: &Facts) -> Option<Text> {
    let Some(Payload::Json(parameters)) = &facts.parameters else { return None };
    Raw::trusted(parameters).get_string("model").map(|model| share(parameters, model))
}

fn content(slots: &Slots<'_>, facts: &mut Facts) {
    facts.input = input(slots);
    facts.output = slots
        .flattened_before(Spread::OutputMessages, Field::Output, Convention::OpenInference)
        .or_else(|| {
            slots.flattened_before(Spread::Completion, Field::Output, Convention::GenAiLegacy)
        })
        .or_else(|| slots.payload_as(Field::Output, Field::OutputMime))
        .or_else(|| slots.payload(Field::ToolCalls).or_else(|| slots.payload(Field::Thoughts)))
        .or_else(|| slots.flattened(Spread::OutputDocuments));
}

fn input(slots: &Slots<'_>) -> Option<Payload> {
    let input = slots
        .flattened_before(Spread::InputMessages, Field::Input, Convention::OpenInference)
        .or_else(|| slots.flattened_before(Spread::Prompt, Field::Input, Convention::GenAiLegacy))
        .or_else(|| slots.payload_as(Field::Input, Field::InputMime))
        .or_else(|| slots.flattened(Spread::Embeddings))
        .or_else(|| slots.flattened(Spread::InputDocuments))
        .or_else(|| slots.members(Spread::Inputs));
    let instructions = slots.payload(Field::SystemInstructions);
    match (input, instructions) {
        (Some(Payload::Json(messages)), Some(instructions)) => {
            Some(Payload::Json(with_instructions(messages, &instructions)))
        }
        (None, Some(instructions)) => Some(instructions),
        (input, _) => input,
    }
}

/// Puts system instructions before the other messages, unless the messages have some already.
fn with_instructions(messages: Text, instructions: &Payload) -> Text {
    let list = Raw::trusted(&messages);
    let has_system =
        list.elements().any(|message| message.get_string("role").as_deref() == Some("system"));
    let Payload::Json(parts) = instructions else { return messages };
    if has_system || !list.is_array() {
        return messages;
    }
    with_first(&format!(r#"{{"role":"system","parts":{parts}}}"#), list)
}

/// Reads the facts of the trace and of the resource.
fn surroundings(slots: &Slots<'_>, span: &Span, facts: &mut Facts) {
    facts.tags = slots.texts(Field::Tags);
    facts.tags.retain(|tag| !refine::is_run_tag(tag));
    facts.metadata = slots.metadata();
    for attribute in &span.scope.resource.attributes {
        let fact = match &*attribute.key {
            "deployment.environment.name" | "deployment.environment" | "langfuse.environment" => {
                &mut facts.environment
            }
            "langfuse.release" => &mut facts.release,
            "session.id" => &mut facts.session,
            "user.id" | "enduser.id" => &mut facts.user,
            _ => continue,
        };
        if fact.is_none() {
            *fact = value::text(&attribute.value, Read::Plain);
        }
    }
    let start = slots.word(Field::CompletionStart).and_then(|start| time::nanos(&start));
    if let Some(start) = start.filter(|_| span.start_ns != 0) {
        facts.first_token_ns = start.checked_sub(span.start_ns);
    }
}

/// Reads tokens and costs. Returns whether a total was dropped because it is less than its parts.
fn tokens(slots: &Slots<'_>, facts: &mut Facts) -> bool {
    // In the order of `Usage::counters`: the fields of a call's counts, and of sums.
    static FIELDS: LazyLock<[[Option<Field>; 2]; 9]> = LazyLock::new(|| {
        usage::COUNTERS.map(|name| [name, &format!("aggregate_{name}")].map(Field::named))
    });
    let object = |field, read: fn(Raw<'_>) -> Usage| {
        slots.object(field).map(|text| read(Raw::trusted(&text)))
    };
    let mut usage = object(Field::LangfuseUsage, usage::from_langfuse)
        .or_else(|| object(Field::Usage, usage::from_json))
        .unwrap_or_default();
    for (count, [field, _]) in usage.counters().into_iter().zip(*FIELDS) {
        let Some(field) = field else { continue };
        *count = match slots.convention_of(field) {
            // The user's mapping precedes the object.
            Some(Convention::Configured) => slots.count(field),
            _ => count.or_else(|| slots.count(field)),
        };
    }
    let more = object(Field::MoreUsage, usage::from_json).unwrap_or_default();
    usage::fill(&mut usage, &more);
    let is_total_odd = usage::settle(&mut usage, |part| refine::is_beside(part, slots, facts));
    for (count, [_, field]) in facts.aggregate_usage.counters().into_iter().zip(*FIELDS) {
        *count = field.and_then(|field| slots.count(field));
    }
    facts.cost = match slots.object(Field::CostDetails) {
        _ if slots.is_repeated => Cost::default(),
        Some(cost) => usage::cost_from_json(Raw::trusted(&cost)),
        None => Cost {
            input: slots.cost(Field::CostInput),
            output: slots.cost(Field::CostOutput),
            total: slots.cost(Field::CostTotal),
        },
    };
    let parts = [facts.cost.input, facts.cost.output].into_iter().flatten();
    facts.cost.total = facts.cost.total.or_else(|| parts.reduce(|sum, part| sum + part));
    facts.adds_up_later = refine::adds_up_later(slots, facts);
    if refine::says_its_own(slots, facts) && !slots.is_repeated {
        facts.usage = usage;
    } else {
        usage::fill(&mut facts.aggregate_usage, &usage);
    }
    is_total_odd
}

/// Combines the failure in attributes and status with an exception from the events.
fn failure(slots: &Slots<'_>, exception: Option<SpanError>) -> Option<SpanError> {
    let status =
        (slots.detail.status_code == STATUS_ERROR).then(|| slots.detail.status_message.clone());
    let object = slots.object(Field::ErrorObject).or_else(|| value::of_python(status.as_ref()?));
    let kind = slots.text(Field::ErrorType);
    let is_error_level = slots.word(Field::Level).as_deref() == Some("ERROR")
        || slots.count(Field::LevelNumber).unwrap_or_default() >= LOGFIRE_ERROR;
    let is_failed = is_error_level || slots.truth(Field::Failed) == Some(true);
    if status.is_none() && object.is_none() && kind.is_none() && exception.is_none() && !is_failed {
        return None;
    }
    let mut failure = exception.unwrap_or_default();
    if let Some(object) = object {
        let error = Raw::trusted(&object);
        failure.message =
            error.get_string("message").map(|message| share(&object, message)).unwrap_or_default();
        failure.data = error.get("data").and_then(|data| raw::payload(&object, data));
    }
    if failure.data.is_none() {
        failure.data = slots.payload(Field::ErrorData);
    }
    failure.kind = failure.kind.or(kind);
    let messages = [
        slots.text(Field::ErrorMessage),
        status,
        slots
            .text(Field::Name)
            .filter(|_| slots.convention_of(Field::Name) == Some(Convention::Logfire)),
        failure.kind.clone(),
    ];
    let said = messages.into_iter().flatten().find(|message| !message.is_empty());
    if failure.message.is_empty() {
        failure.message = said.unwrap_or_default();
    }
    Some(failure)
}

/// The lowest of Logfire's levels that is an error.
const LOGFIRE_ERROR: u64 = 17;
