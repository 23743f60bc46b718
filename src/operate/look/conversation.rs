//! The conversation of a trace as turns: the input of its first model call that has one, then the answer of each model call and tool, in
//! the order of their starts. It reads every message format of the supported conventions; anything else is text. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::span::{Kind, Payload, Span};

/// Maximum number of turns shown.
const TURNS_MAX: usize = 2_000;
/// Maximum text of one turn, in bytes; longer text is truncated and ends with `...`.
const TURN_BYTES_MAX: usize = 64 << 10;
/// Maximum text of all turns, in bytes.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// Members of a message, or of a part of one, that contain its text.
const SAYING: [&str; 9] =
    ["parts", "content", "text", "summary", "tool_calls", "output", "response", "result", "value"];

/// One turn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The speaker: `system`, `user`, `assistant`, `tool` ...
    pub role: String,
    /// The text.
    pub text: String,
    /// Its span: 16 digits.
    pub span_id: String,
}

/// Returns the turns of these spans.
pub(super) fn conversation<'a>(spans: impl Iterator<Item = &'a Span>) -> Vec<Turn> {
    let speaks = |span: &&Span| matches!(span.facts().kind, Kind::Generation | Kind::Tool);
    let mut speaking: Vec<_> = spans.filter(speaks).collect();
    speaking.sort_by_key(|span| span.start_ns);
    let mut turns = Turns::default();
    let mut has_asked = false;
    for span in speaking {
        // Turns that are not shown are not read; a trace may have ten times as many.
        if turns.said.len() >= TURNS_MAX || turns.bytes >= TEXT_BYTES_MAX {
            break;
        }
        let facts = span.facts();
        turns.span_id = span.span_id.to_string();
        if facts.kind == Kind::Tool {
            let name = facts.tool.as_ref().unwrap_or(&facts.name);
            let side =
                |side: &Option<Payload>| side.as_ref().map_or("", Payload::as_str).to_owned();
            turns.add("tool", &format!("{name}({})\n{}", side(&facts.input), side(&facts.output)));
            continue;
        }
        if let Some(input) = facts.input.as_ref().filter(|_| !has_asked) {
            // It begins the conversation, and repeats what calls without an input and tools said before.
            let before = std::mem::take(&mut turns.said);
            turns.payload("user", input);
            let is_said =
                |turn: &Turn, of: &Turn| turn.role == of.role && of.text.ends_with(&turn.text);
            turns.said.retain(|turn| !before.iter().any(|said| is_said(turn, said)));
            turns.said.extend(before);
            has_asked = true;
        }
        if let Some(output) = &facts.output {
            turns.payload("assistant", output);
        }
    }
    turns.said
}

#[derive(Default)]
struct Turns {
    said: Vec<Turn>,
    bytes: usize,
    span_id: String,
}

impl Turns {
    fn add(&mut self, role: &str, text: &str) {
        let room = TURN_BYTES_MAX.min(TEXT_BYTES_MAX.saturating_sub(self.bytes));
        let whole = text.trim_end();
        let text = whole.get(..whole.floor_char_boundary(room)).unwrap_or_default();
        let end = if text.len() < whole.len() { "..." } else { "" };
        if !text.is_empty() && self.said.len() < TURNS_MAX {
            self.bytes += text.len();
            let (role, text) = (role.to_owned(), format!("{text}{end}"));
            self.said.push(Turn { role, text, span_id: self.span_id.clone() });
        }
    }

    fn payload(&mut self, role: &str, payload: &Payload) {
        let json =
            matches!(payload, Payload::Json(_)).then(|| serde_json::from_str(payload.as_str()));
        match json {
            Some(Ok(value)) => self.value(role, &value),
            _ => self.add(role, payload.as_str()),
        }
    }

    /// Adds messages, or an answer that contains some.
    fn value(&mut self, role: &str, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.value(role, value)),
            Value::Object(object) => {
                let inner = ["messages", "choices", "message", "output"];
                let is_message = object.contains_key("role") || object.contains_key("type");
                match inner.iter().find_map(|key| object.get(*key)) {
                    Some(inner) if !is_message => self.value(role, inner),
                    _ => {
                        let role = object.get("role").and_then(Value::as_str).unwrap_or(role);
                        self.add(role, &text_of(value));
                    }
                }
            }
            _ => self.add(role, &text_of(value)),
        }
    }
}

/// Returns the text of a message or of a part of one.
fn text_of(value: &Value) -> String {
    let object = match value {
        Value::String(text) => return text.clone(),
        Value::Null => return String::new(),
        Value::Array(parts) => {
            let parts = parts.iter().map(text_of).filter(|part| !part.is_empty());
            return parts.collect::<Vec<_>>().join("\n");
        }
        Value::Object(object) => object,
        other => return other.to_string(),
    };
    let text = |key: &str| object.get(key).map(text_of).filter(|text| !text.is_empty());
    // A call by name and arguments, of the model or within a part of a message.
    let inner = ["function", "functionCall"].iter().find_map(|key| object.get(*key)?.as_object());
    let call = inner.unwrap_or(object);
    let given = ["arguments", "input", "args"].iter().find_map(|key| call.get(*key));
    let of_call = || call.get("toolName").filter(|_| !call.contains_key("output"));
    let name = call.get("name").or_else(of_call).and_then(Value::as_str);
    if let (Some(name), Some(arguments)) = (name, given) {
        let whole = if arguments.is_object() { arguments.to_string() } else { text_of(arguments) };
        return format!("-> {name}({whole})");
    }
    let said = SAYING.iter().filter_map(|key| text(key)).collect::<Vec<_>>();
    match object.get("type").and_then(Value::as_str) {
        _ if !said.is_empty() => said.join("\n"),
        _ if object.contains_key("role") => String::new(),
        Some(kind) if object.len() > 1 => format!("[{kind}]"),
        _ => value.to_string(),
    }
}
