//! Input and output, from the first place where Langfuse finds them. Content assembled from several values is only noted as present.

use opentelemetry_proto::tonic::trace::v1::Span;

use super::{Attributes, attributes, plain};

/// Attributes with input and output, in order of precedence: the first pair with a value decides.
const PAIRS: [[&str; 2]; 6] = [
    ["mlflow.spanInputs", "mlflow.spanOutputs"],
    ["traceloop.entity.input", "traceloop.entity.output"],
    ["input.value", "output.value"],
    ["input", "output"],
    // Pydantic's agent; Langfuse looks at the scope too.
    ["pydantic_ai.all_messages", "final_result"],
    ["tool_arguments", "tool_response"],
];
/// The same for content that is spread over many attributes.
const PREFIXES: [[&str; 2]; 2] =
    [["gen_ai.prompt", "gen_ai.completion"], ["llm.input_messages", "llm.output_messages"]];
/// Those of the semantic conventions.
const MESSAGES: [[&str; 2]; 2] = [
    ["gen_ai.input.messages", "gen_ai.output.messages"],
    ["gen_ai.tool.call.arguments", "gen_ai.tool.call.result"],
];

type Content = (Option<String>, Option<String>);

/// Returns a span's input and output.
pub(super) fn of(span: &Span, own: &Attributes, scope: &str) -> Content {
    let said = ["langfuse.observation.input", "langfuse.observation.output"]
        .map(|key| own.get(key).map(plain));
    if said.iter().any(Option::is_some) {
        let [input, output] = said;
        return (input, output);
    }
    match scope {
        "genkit-tracer" => return (text(own, &["genkit:input"]), text(own, &["genkit:output"])),
        "ai" => return of_vercel(own),
        _ => {}
    }
    let places: [&dyn Fn() -> Content; 7] = [
        &|| of_details(span),
        &|| of_events(span),
        &|| of_adk(own),
        &|| (text(own, &["prompt"]), text(own, &["all_messages_events"])),
        &|| of_livekit(own),
        &|| first(own, &PAIRS),
        &|| of_many(own),
    ];
    let found = places.iter().map(|place| place()).find(is_there);
    found.unwrap_or_else(|| first(own, &MESSAGES))
}

fn is_there((input, output): &Content) -> bool {
    input.is_some() || output.is_some()
}

fn text(own: &Attributes, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| own.get(*key).map(plain).filter(|text| !text.is_empty()))
}

fn first(own: &Attributes, pairs: &[[&str; 2]]) -> Content {
    let pairs = pairs.iter().map(|[input, output]| (text(own, &[input]), text(own, &[output])));
    pairs.into_iter().find(is_there).unwrap_or_default()
}

fn of_vercel(own: &Attributes) -> Content {
    let (input, output) = first(own, &MESSAGES);
    let own_input = text(own, &["ai.prompt.messages", "ai.prompt", "ai.toolCall.args"]);
    let own_output = text(
        own,
        &[
            "ai.response.text",
            "ai.result.text",
            "ai.toolCall.result",
            "ai.response.object",
            "ai.result.object",
            "ai.response.toolCalls",
            "ai.result.toolCalls",
        ],
    );
    (own_input.or(input), own_output.or(output))
}

/// From the event of semantic conventions since 1.37.
fn of_details(span: &Span) -> Content {
    let is_details = |name: &str| name == "gen_ai.client.inference.operation.details";
    let events = span.events.iter().filter(|event| is_details(&event.name));
    let attributes = events.filter_map(|event| attributes(&event.attributes, &mut Vec::new()).ok());
    attributes.map(|own| first(&own, &MESSAGES)).find(is_there).unwrap_or_default()
}

/// From the events of semantic conventions before that.
fn of_events(span: &Span) -> Content {
    let from = |names: &[&str]| {
        let is_there = span.events.iter().any(|event| names.contains(&event.name.as_str()));
        is_there.then(|| "from events".to_owned())
    };
    let messages = ["gen_ai.system.message", "gen_ai.user.message", "gen_ai.assistant.message"];
    let content =
        (from(&[&messages[..], &["gen_ai.tool.message"]].concat()), from(&["gen_ai.choice"]));
    if is_there(&content) {
        return content;
    }
    // If one is present, the other is an empty object.
    let either = from(&["gen_ai.content.prompt", "gen_ai.content.completion"]);
    (either.clone(), either)
}

fn of_adk(own: &Attributes) -> Content {
    // A tool has `{}` where a model call has its request.
    let is_filled = |text: &String| text != "{}";
    let side = |model: &str, tool: &str| {
        text(own, &[model]).filter(is_filled).or_else(|| text(own, &[tool]))
    };
    (
        side("gcp.vertex.agent.llm_request", "gcp.vertex.agent.tool_call_args"),
        side("gcp.vertex.agent.llm_response", "gcp.vertex.agent.tool_response"),
    )
}

fn of_livekit(own: &Attributes) -> Content {
    let livekit = (
        text(own, &["lk.input_text", "lk.user_transcript", "lk.chat_ctx"]),
        text(own, &["lk.function_tool.output", "lk.response.text"]),
    );
    if is_there(&livekit) {
        return livekit;
    }
    // Logfire's list of events.
    let events = text(own, &["events"]).unwrap_or_default();
    let events: Vec<serde_json::Value> = serde_json::from_str(&events).unwrap_or_default();
    let from = |is_answer: bool| {
        let is_meant =
            |event: &serde_json::Value| (event["event.name"] == "gen_ai.choice") == is_answer;
        events.iter().any(is_meant).then(|| "from events".to_owned())
    };
    (from(false), from(true))
}

fn of_many(own: &Attributes) -> Content {
    let from = |prefix: &str| {
        let is_there = own.keys().any(|key| key.starts_with(prefix));
        is_there.then(|| format!("from {prefix}"))
    };
    let pairs = PREFIXES.iter().map(|[input, output]| (from(input), from(output)));
    pairs.into_iter().find(is_there).unwrap_or_default()
}
