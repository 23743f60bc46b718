//! Reads agent facts directly from `span_data`, for every span type and version of both SDKs.

use std::borrow::Cow;

use crate::normalize::attributes::provider;
use crate::normalize::raw::{
    Object, Raw, payload, payload_of_text, payloads, share, with_first, written,
};
use crate::normalize::{time, usage};
use crate::span::{
    Convention, Facts, Kind, Opened, Payload, Span, SpanError, Text, TraceObject, Usage, keys, tags,
};
use crate::support::json::object;

/// Reads the facts of a parsed item.
pub(super) fn facts(span: &Span, (source, opened): (&Text, &Opened<'_>), facts: &mut Facts) {
    facts.convention = Convention::OpenAiAgents;
    if let Some(trace) = &span.trace {
        add_trace(trace, facts);
    }
    for (name, value) in &opened.item.members {
        match &**name {
            "error" => facts.error = failure(source, *value),
            "metadata" => facts.metadata.extend(payloads(source, *value)),
            _ => (),
        }
    }
    if let Some(data) = &opened.data {
        Reader { source, data, span }.read(facts);
    }
    if let Some(set) = set_by_rules(&opened.item) {
        facts.metadata.retain(|(name, _)| &**name != keys::SPANFERRY_SET);
        add_set(source, set, facts);
    }
}

/// Returns what the user's rules set on an item.
pub(super) fn set_by_rules<'a>(item: &Object<'a>) -> Option<Raw<'a>> {
    item.get("metadata").and_then(|metadata| metadata.get(keys::SPANFERRY_SET))
}

/// Applies what rules set, which precedes the item's own values.
fn add_set(source: &Text, set: Raw<'_>, facts: &mut Facts) {
    for (key, value) in set.members() {
        let Some(text) = value.string().map(|text| share(source, text)) else { continue };
        match &*key {
            keys::SESSION_ID => facts.session = Some(text),
            keys::USER_ID => facts.user = Some(text),
            keys::ENVIRONMENT => facts.environment = Some(text),
            keys::RELEASE => facts.release = Some(text),
            keys::TAGS => facts.tags = tags(&Payload::Text(text)),
            "name" => facts.name = text,
            _ => (),
        }
    }
}

/// Reads a span's `span_data`.
struct Reader<'a> {
    source: &'a Text,
    data: &'a Object<'a>,
    span: &'a Span,
}

impl<'a> Reader<'a> {
    fn read(&self, facts: &mut Facts) {
        match self.data.get_string("type").as_deref().unwrap_or_default() {
            "agent" => self.agent(facts),
            "response" => self.response(facts),
            "generation" => self.generation(facts),
            "function" => self.function(facts),
            "handoff" => self.handoff(facts),
            "guardrail" => self.guardrail(facts),
            "mcp_tools" => self.mcp_tools(facts),
            "transcription" => self.voice(Kind::Transcription, facts),
            "speech" => self.voice(Kind::Speech, facts),
            // Python spelled it with a hyphen before 0.0.19.
            "speech_group" | "speech-group" => {
                facts.kind = Kind::Chain;
                facts.name = Text::from_static("speech_group");
                facts.input = self.payload("input");
            }
            "custom" => self.custom(facts),
            other => {
                facts.kind = Kind::Custom;
                facts.name = self.text("name").unwrap_or_else(|| Text::from(other));
                facts.metadata.extend(payloads(self.source, self.data.raw));
            }
        }
    }

    fn agent(&self, facts: &mut Facts) {
        facts.kind = Kind::Agent;
        facts.agent = self.text("name");
        facts.provider = Some(Text::from_static("openai"));
        facts.name = facts.agent.clone().unwrap_or(Text::from_static("agent"));
    }

    fn response(&self, facts: &mut Facts) {
        facts.kind = Kind::Generation;
        facts.provider = Some(Text::from_static("openai"));
        facts.response_id = self.text("response_id");
        facts.usage = self.usage("usage");
        facts.input = self.payload("input");
        if let Some(response) = self.data.get_object("response") {
            self.response_content(&response, facts);
        }
        facts.name = name("chat", facts.response_model.as_ref());
    }

    /// Reads the response, if the app adds it (the SDKs send only its id).
    fn response_content(&self, response: &Object<'a>, facts: &mut Facts) {
        self.answer(response, facts);
        facts.output = response.get("output").and_then(|output| payload(self.source, output));
        facts.tool_definitions =
            response.get("tools").and_then(|tools| payload(self.source, tools));
        facts.parameters = parameters(response);
        facts.finish_reasons = finish_reason(response).map(Text::from_static).into_iter().collect();
        if let Some(instructions) = response.get("instructions") {
            facts.input = Some(with_instructions(instructions, self.data.get("input")));
        }
    }

    fn generation(&self, facts: &mut Facts) {
        facts.kind = Kind::Generation;
        self.model_call(facts);
        facts.parameters = facts.parameters.take().filter(|config| config.as_str() != "{}");
        facts.name = name("chat", facts.request_model.as_ref());
        facts.input = self.payload("input");
        facts.output = self.payload("output");
        // JavaScript, and Python when it streams, put the model's complete response into the first element.
        let answer = self.data.get("output").and_then(|output| output.objects().next());
        if let Some(answer) = answer.filter(|answer| answer.raw.is_object()) {
            self.answer(&answer, facts);
            let choices = answer.get("choices").into_iter().flat_map(Raw::objects);
            facts.finish_reasons =
                choices.filter_map(|choice| self.text_of(&choice, "finish_reason")).collect();
        }
    }

    /// Reads a complete response's usage, model and id.
    fn answer(&self, answer: &Object<'a>, facts: &mut Facts) {
        if facts.usage.is_empty() {
            facts.usage = answer.get("usage").map(usage::settled).unwrap_or_default();
        }
        facts.response_model = self.text_of(answer, "model");
        // Python makes up an id when it streams.
        let id = || self.text_of(answer, "id").filter(|id| &**id != "__fake_id__");
        facts.response_id = facts.response_id.take().or_else(id);
    }

    fn function(&self, facts: &mut Facts) {
        facts.kind = Kind::Tool;
        facts.tool = self.text("name");
        facts.name = facts.tool.clone().unwrap_or(Text::from_static("function"));
        facts.input = self.data.get("input").and_then(|it| payload_in(self.source, it));
        facts.output = self.data.get("output").and_then(|it| payload_in(self.source, it));
        // JavaScript sends an object where it declares a string, or the reverse.
        let mcp = self.data.get("mcp_data").and_then(|it| payload_in(self.source, it));
        facts.mcp_method = mcp.as_ref().map(|_| Text::from_static("tools/call"));
        if let Some(Payload::Json(mcp)) = &mcp {
            facts.mcp_server = Raw::trusted(mcp).get_string("server").map(|text| share(mcp, text));
        }
    }

    fn handoff(&self, facts: &mut Facts) {
        facts.kind = Kind::Handoff;
        facts.handoff_from = self.text("from_agent");
        facts.handoff_to = self.text("to_agent");
        facts.agent.clone_from(&facts.handoff_from);
        facts.name = handoff_name(self.data);
    }

    fn guardrail(&self, facts: &mut Facts) {
        facts.kind = Kind::Guardrail;
        facts.guardrail = self.text("name");
        facts.guardrail_triggered = self.data.get("triggered").and_then(Raw::boolean);
        facts.name = facts.guardrail.clone().unwrap_or(Text::from_static("guardrail"));
    }

    fn mcp_tools(&self, facts: &mut Facts) {
        facts.kind = Kind::Mcp;
        facts.mcp_server = self.text("server");
        facts.mcp_method = Some(Text::from_static("tools/list"));
        facts.output = self.payload("result");
        facts.name = name("tools/list", facts.mcp_server.as_ref());
    }

    fn voice(&self, kind: Kind, facts: &mut Facts) {
        facts.kind = kind;
        self.model_call(facts);
        facts.name = name(kind.as_str(), facts.request_model.as_ref());
        facts.input = self.audio("input");
        facts.output = self.audio("output");
        let first = self.data.get_string("first_content_at").as_deref().and_then(time::nanos);
        facts.first_token_ns = first
            .and_then(|first| first.checked_sub(self.span.start_ns))
            .filter(|_| self.span.start_ns != 0);
    }

    fn model_call(&self, facts: &mut Facts) {
        let config = self.data.get("model_config");
        let said = |name| config.and_then(|config| config.get(name)).and_then(Raw::string);
        let (named, address) = (said("provider").unwrap_or_default(), said("base_url"));
        // The AI SDK's adapter also writes it before the model: `anthropic.messages:claude-opus-4-5`.
        let own = |it: &Text| Some(it.slice_ref(it.strip_prefix(&*named)?.strip_prefix(':')?));
        facts.request_model = self.text("model").map(|model| own(&model).unwrap_or(model));
        // Without a name, the only evidence is the server's address. LiteLLM's adapter, which has many, sends an empty one.
        facts.provider = match address.as_deref().unwrap_or("api.openai.com") {
            _ if !named.is_empty() => provider::normalized(&share(self.source, named)),
            openai if openai.contains("api.openai.com") => Some(Text::from_static("openai")),
            azure if azure.contains(".azure.com") => Some(Text::from_static("azure.ai.openai")),
            _ => None,
        };
        facts.parameters = self.payload("model_config");
        facts.usage = self.usage("usage");
    }

    /// Reads a custom span. Its data may mark it as a task or a turn (`turn 3`).
    fn custom(&self, facts: &mut Facts) {
        let data = self.data.get_object("data").unwrap_or_default();
        let sdk_span_type = data.get_string("sdk_span_type");
        let own = self.text("name");
        facts.name = match (sdk_span_type.as_deref(), data.get("turn").and_then(Raw::count)) {
            (Some("task"), _) => {
                self.text_of(&data, "name").or(own).unwrap_or(Text::from_static("task"))
            }
            (Some("turn"), Some(turn)) => Text::from(format!("turn {turn}")),
            (Some("turn"), None) => Text::from_static("turn"),
            _ => own.unwrap_or(Text::from_static("custom")),
        };
        if let Some(kind @ ("task" | "turn")) = sdk_span_type.as_deref() {
            facts.kind = Kind::Chain;
            facts.aggregate_usage = data.get("usage").map(usage::settled).unwrap_or_default();
            if kind == "turn" {
                facts.agent = self.text_of(&data, "agent_name");
            } else if facts.workflow.is_none() {
                facts.workflow = Some(facts.name.clone());
            }
        } else {
            facts.kind = Kind::Custom;
            facts.metadata.extend(payloads(self.source, data.raw));
        }
        facts.sdk_span_type = sdk_span_type.map(|kind| share(self.source, kind));
    }

    fn text(&self, name: &str) -> Option<Text> {
        self.text_of(self.data, name)
    }

    fn text_of(&self, object: &Object<'a>, name: &str) -> Option<Text> {
        object.get_string(name).map(|text| share(self.source, text))
    }

    fn payload(&self, name: &str) -> Option<Payload> {
        payload(self.source, self.data.get(name)?)
    }

    fn usage(&self, name: &str) -> Usage {
        self.data.get(name).map(usage::settled).unwrap_or_default()
    }

    /// Returns a text as it is. Of audio, the base64 is replaced by its size in bytes, because it is of no use to a reader.
    fn audio(&self, name: &str) -> Option<Payload> {
        let audio = self.data.get(name)?;
        let Some(bytes) = audio_bytes(audio) else { return payload(self.source, audio) };
        let bytes = bytes.to_string();
        let about = audio.members().filter(|(name, _)| name != "data");
        object_of(about.chain([("bytes".into(), Raw::trusted(&bytes))]))
    }
}

/// Reads a value, or what a string holds: JSON for a tool's arguments, and text for its result.
pub(super) fn payload_in(source: &Text, value: Raw<'_>) -> Option<Payload> {
    match payload(source, value)? {
        Payload::Text(text) => payload_of_text(&text),
        json @ Payload::Json(_) => Some(json),
    }
}

/// Returns the decoded size of an audio object's base64, in bytes; `None` for other values.
pub(super) fn audio_bytes(audio: Raw<'_>) -> Option<usize> {
    let data = audio.get("data")?.string()?;
    Some(data.trim_end_matches('=').len() * 3 / 4)
}

/// Returns `handoff A -> B`, with `?` for an unknown agent.
fn handoff_name(handoff: &Object<'_>) -> Text {
    match (handoff.get_string("from_agent"), handoff.get_string("to_agent")) {
        (None, None) => Text::from_static("handoff"),
        (from, to) => {
            let [from, to] = [&from, &to].map(|agent| agent.as_deref().unwrap_or("?"));
            Text::from(format!("handoff {from} -> {to}"))
        }
    }
}

/// Joins a verb and its object, if there is one.
pub(super) fn name(verb: &'static str, object: Option<&Text>) -> Text {
    match object {
        Some(object) => Text::from(format!("{verb} {object}")),
        None => Text::from_static(verb),
    }
}

/// Returns the finish reason in the terms of Chat Completions, which Responses expresses differently.
fn finish_reason(response: &Object<'_>) -> Option<&'static str> {
    let status = response.get_string("status");
    let incomplete =
        response.get("incomplete_details").and_then(|details| details.get_string("reason"));
    let calls_a_function = || {
        let mut items = response.get("output").into_iter().flat_map(Raw::elements);
        items.any(|item| item.get_string("type").as_deref() == Some("function_call"))
    };
    match (status.as_deref(), incomplete.as_deref()) {
        (_, Some("max_output_tokens")) => Some("length"),
        (_, Some("content_filter")) => Some("content_filter"),
        (Some("completed"), _) if calls_a_function() => Some("tool_calls"),
        (Some("completed"), _) => Some("stop"),
        (Some("failed"), _) => Some("error"),
        _ => None,
    }
}

/// Returns those request parameters that the response repeats.
fn parameters(response: &Object<'_>) -> Option<Payload> {
    const PARAMETERS: [&str; 12] = [
        "temperature",
        "top_p",
        "max_output_tokens",
        "max_tool_calls",
        "parallel_tool_calls",
        "tool_choice",
        "truncation",
        "reasoning",
        "service_tier",
        "top_logprobs",
        "text",
        "store",
    ];
    let is_set = |(name, value): &&(Cow<'_, str>, Raw<'_>)| {
        PARAMETERS.contains(&&**name) && value.set().is_some()
    };
    object_of(response.members.iter().filter(is_set).cloned())
}

/// Returns an object with these members, if there are any.
fn object_of<'a>(members: impl Iterator<Item = (Cow<'a, str>, Raw<'a>)>) -> Option<Payload> {
    let mut json = Vec::new();
    let mut object = object::Object::open(&mut json);
    for (name, value) in members {
        object.member(&name).extend_from_slice(value.text().as_bytes());
    }
    object.close();
    (json != b"{}").then(|| Payload::Json(written(json)))
}

/// Puts the instructions as the system message before the input, so that the complete input is one list.
fn with_instructions(instructions: Raw<'_>, input: Option<Raw<'_>>) -> Payload {
    let message = |role, text: Raw<'_>| format!(r#"{{"role":"{role}","content":{}}}"#, text.text());
    let system = message("system", instructions);
    Payload::Json(match input.and_then(Raw::set) {
        Some(list) if list.is_array() => with_first(&system, list),
        Some(text) => Text::from(format!("[{system},{}]", message("user", text))),
        None => Text::from(format!("[{system}]")),
    })
}

/// Reads the facts of a trace object: session, user, environment, release, workflow, tags and metadata.
pub fn trace_facts(trace: &TraceObject) -> Facts {
    let mut facts = Facts { convention: Convention::OpenAiAgents, ..Facts::default() };
    add_trace(trace, &mut facts);
    facts
}

fn add_trace(trace: &TraceObject, facts: &mut Facts) {
    facts.session.clone_from(&trace.group);
    facts.workflow.clone_from(&trace.workflow);
    let Some(source) = &trace.metadata else { return };
    let metadata = Raw::trusted(source).object();
    let text = |names: &[&str]| {
        names.iter().find_map(|name| metadata.get(name).and_then(label)).map(|it| share(source, it))
    };
    facts.user = text(&["user_id", "userId", "user"]);
    facts.environment = text(&["environment"]);
    facts.release = text(&["release"]);
    facts.session = facts.session.take().or_else(|| text(&["session_id", "sessionId"]));
    let listed = metadata.get("tags").and_then(|tags| payload(source, tags));
    facts.tags = listed.as_ref().map(tags).unwrap_or_default();
    facts.metadata.extend(payloads(source, metadata.raw));
}

/// Returns a text, or a number as text: the SDKs do not check what an app sets as a group or a user.
pub(super) fn label(value: Raw<'_>) -> Option<Cow<'_, str>> {
    let number = || value.number().map(|_| Cow::Borrowed(value.text()));
    value.string().or_else(number).filter(|text| !text.is_empty())
}

fn failure(source: &Text, error: Raw<'_>) -> Option<SpanError> {
    let error = error.set()?;
    if let Some(message) = error.string() {
        return Some(SpanError { message: share(source, message), ..SpanError::default() });
    }
    let message = error.get_string("message").map(|message| share(source, message));
    Some(SpanError {
        kind: None,
        message: message.unwrap_or_else(|| Text::from_static("error")),
        data: error.get("data").and_then(|data| payload(source, data)),
    })
}
