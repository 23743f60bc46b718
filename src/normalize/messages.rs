//! Converts the messages of a model call: OpenAI's formats to the parts of OpenTelemetry GenAI v1.41.1, and flattened keys to one list.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::raw::{Object, Raw, written};
use crate::span::Text;
use crate::support::json::{object, write_list, write_str};

/// The side of a model call that messages are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The input. Plain text is the user's.
    Input,
    /// The output. Plain text is the assistant's, and every message has a finish reason.
    Output,
}

/// Converts messages to the JSON text of `gen_ai.input.messages` or `gen_ai.output.messages`. It accepts Chat Completions messages,
/// Responses items, complete responses of both APIs, and plain text. Returns `None` if there are no messages.
pub(super) fn to_parts(value: Raw<'_>, side: Side) -> Option<Text> {
    let mut writer =
        Writer { json: Vec::with_capacity(value.text().len() + 64), side, finish: None };
    writer.write(&["["]);
    if value.is_array() {
        value.objects().for_each(|element| writer.entry(&element));
    } else {
        writer.entry(&value.object());
    }
    writer.write(&["]"]);
    (writer.json != b"[]").then(|| written(writer.json))
}

struct Writer<'a> {
    json: Vec<u8>,
    side: Side,
    finish: Option<&'a str>,
}

impl<'a> Writer<'a> {
    /// Writes one element of the SDK's input or output. A complete response contains messages, never another response.
    fn entry(&mut self, object: &Object<'a>) {
        let value = object.raw;
        if value.set().is_none() {
            return;
        }
        if !value.is_object() {
            let role = if self.side == Side::Input { "user" } else { "assistant" };
            self.message(role, |writer| writer.text_part("text", value));
            return;
        }
        let is_response = object.get_string("object").as_deref() == Some("response");
        if let Some(output) = object.get("output").filter(|_| is_response) {
            output.objects().for_each(|item| self.item(&item));
        } else if let Some(choices) = object.get("choices") {
            for choice in choices.objects() {
                self.finish = choice.get("finish_reason").map(Raw::text);
                if let Some(message) = choice.get_object("message") {
                    self.item(&message);
                }
            }
            self.finish = None;
        } else {
            self.item(object);
        }
    }

    fn item(&mut self, item: &Object<'a>) {
        let kind = item.get_string("type");
        match kind.as_deref() {
            Some("function_call") => {
                self.message("assistant", |writer| writer.call_part(item, item));
            }
            Some("function_call_output" | "function_call_result") => {
                self.message("tool", |writer| writer.response_part(item, item.get("output")));
            }
            Some("reasoning") => {
                let texts = item.get("summary").into_iter().flat_map(Raw::elements);
                let texts: Vec<_> = texts.filter_map(|summary| summary.get("text")).collect();
                self.message("assistant", |writer| {
                    for text in texts {
                        writer.text_part("reasoning", text);
                    }
                });
            }
            _ if item.get_string("role").is_some() => self.chat_message(item),
            // An item with a type but no role (a web search call ...) is a part as sent.
            _ => self.message("assistant", |writer| writer.part(&[item.raw.text()])),
        }
    }

    fn chat_message(&mut self, message: &Object<'a>) {
        let role = message.get_string("role").unwrap_or_default();
        let role = if role == "developer" { "system" } else { &*role };
        self.message(role, |writer| {
            if role == "tool" {
                writer.response_part(message, message.get("content"));
                return;
            }
            if let Some(reasoning) =
                message.get("reasoning_content").filter(|text| text.string().is_some())
            {
                writer.text_part("reasoning", reasoning);
            }
            match message.get("content") {
                Some(content) if content.is_array() => {
                    content.objects().for_each(|part| writer.content_part(&part));
                }
                Some(content) => writer.text_part("text", content),
                None => (),
            }
            if let Some(refusal) = message.get("refusal") {
                writer.text_part("refusal", refusal);
            }
            for call in message.get("tool_calls").into_iter().flat_map(Raw::objects) {
                let function = call.get_object("function");
                writer.call_part(&call, function.as_ref().unwrap_or(&call));
            }
        });
    }

    fn message(&mut self, role: &str, parts: impl FnOnce(&mut Self)) {
        self.part(&["{\"role\":"]);
        write_str(&mut self.json, role);
        self.write(&[",\"parts\":["]);
        parts(self);
        self.write(&["]"]);
        if self.side == Side::Output {
            self.write(&[",\"finish_reason\":", self.finish.unwrap_or("\"stop\"")]);
        }
        self.write(&["}"]);
    }

    fn content_part(&mut self, part: &Object<'a>) {
        let kind = part.get_string("type");
        let image = part.get("image_url").map(|image| image.get("url").unwrap_or(image));
        match (kind.as_deref(), part.get("text"), image) {
            (Some("text" | "input_text" | "output_text"), Some(text), _) => {
                self.text_part("text", text);
            }
            (Some("image_url" | "input_image"), _, Some(url)) => {
                self.part(&[r#"{"type":"uri","modality":"image","uri":"#, url.text(), "}"]);
            }
            (None, _, _) if !part.raw.is_object() => self.text_part("text", part.raw),
            // As the client wrote it.
            _ => self.part(&[part.raw.text()]),
        }
    }

    fn text_part(&mut self, kind: &str, text: Raw<'a>) {
        self.part(&["{\"type\":\"", kind, "\",\"content\":", text.text(), "}"]);
    }

    /// Writes a request to call a function. `call` holds its id, and `function` its name and arguments.
    fn call_part(&mut self, call: &Object<'a>, function: &Object<'a>) {
        self.part(&["{\"type\":\"tool_call\""]);
        self.member("id", call_id(call).or_else(|| call.get("id")));
        self.member("name", function.get("name"));
        // The arguments are JSON inside a string. Valid ones are embedded as JSON.
        if let Some(arguments) = function.get("arguments") {
            match arguments.string() {
                Some(text) if Raw::parse(&text).is_some() => {
                    self.write(&[",\"arguments\":", &text]);
                }
                _ => self.member("arguments", Some(arguments)),
            }
        }
        self.write(&["}"]);
    }

    fn response_part(&mut self, message: &Object<'a>, response: Option<Raw<'a>>) {
        self.part(&["{\"type\":\"tool_call_response\""]);
        self.member("id", call_id(message));
        self.write(&[",\"response\":", response.map_or("null", Raw::text), "}"]);
    }

    fn member(&mut self, name: &str, value: Option<Raw<'a>>) {
        if let Some(value) = value {
            self.write(&[",\"", name, "\":", value.text()]);
        }
    }

    /// Writes the next element of the open list.
    fn part(&mut self, pieces: &[&str]) {
        if !self.json.ends_with(b"[") {
            self.json.push(b',');
        }
        self.write(pieces);
    }

    fn write(&mut self, pieces: &[&str]) {
        for piece in pieces {
            self.json.extend_from_slice(piece.as_bytes());
        }
    }
}

/// Returns the id that links a call to its result, as Chat Completions, Responses and the JavaScript SDK spell it.
fn call_id<'a>(value: &Object<'a>) -> Option<Raw<'a>> {
    ["call_id", "callId", "tool_call_id"].iter().find_map(|name| value.get(name))
}

/// Flattened keys with larger indices are ignored; real lists are far shorter.
const INDEX_MAX: u32 = 10_000;
/// Flattened keys that nest more deeply are ignored.
const DEPTH_MAX: usize = 8;

/// A tree built from flattened keys such as `0.message.tool_calls.1.tool_call.id`. Lists are maps by index, so a large index costs no
/// memory.
#[derive(Debug, Default)]
pub(super) struct Flattened<'a> {
    elements: BTreeMap<u32, Node<'a>>,
}

#[derive(Debug)]
enum Node<'a> {
    /// A value as JSON text.
    Leaf(Cow<'a, str>),
    List(BTreeMap<u32, Node<'a>>),
    Members(Vec<(&'a str, Node<'a>)>),
}

impl Default for Node<'_> {
    fn default() -> Self {
        Self::Members(Vec::new())
    }
}

impl<'a> Flattened<'a> {
    /// Puts a value, which is JSON text, at a path that begins with an index. Returns `None` for an invalid or contradictory path.
    pub(super) fn put(&mut self, path: &'a str, json: Cow<'a, str>) -> Option<()> {
        let mut steps = path.split('.');
        if DEPTH_MAX < steps.clone().count() {
            return None;
        }
        let index = index(steps.next()?)?;
        let mut node = self.elements.entry(index).or_default();
        for step in steps.filter(|step| !WRAPPERS.contains(step)) {
            node = node.child(step)?;
        }
        *node = Node::Leaf(json);
        Some(())
    }

    /// Returns whether nothing was put.
    pub(super) fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Encodes the list as JSON text. If `is_bare`, each element has a single member and is written as that member's value.
    pub(super) fn to_json(&self, is_bare: bool) -> Text {
        let mut json = Vec::new();
        write_list(&mut json, self.elements.values(), |json, node| {
            write_node(json, if is_bare { node.only() } else { node });
        });
        written(json)
    }
}

impl<'a> Node<'a> {
    /// Returns the child of this name, and creates it if there is none. An index turns a node without members into a list.
    fn child(&mut self, step: &'a str) -> Option<&mut Self> {
        let is_index = step.bytes().all(|digit| digit.is_ascii_digit());
        if is_index && matches!(self, Self::Members(members) if members.is_empty()) {
            *self = Self::List(BTreeMap::new());
        }
        match self {
            Self::List(list) => Some(list.entry(index(step)?).or_default()),
            Self::Members(members) if !is_index => {
                let found = members.iter().position(|(name, _)| *name == step);
                let place = found.unwrap_or(members.len());
                if found.is_none() {
                    members.push((step, Self::default()));
                }
                members.get_mut(place).map(|(_, node)| node)
            }
            _ => None,
        }
    }

    /// Returns an object's first member, and any other node itself.
    fn only(&self) -> &Self {
        match self {
            Self::Members(members) => members.first().map_or(self, |(_, only)| only),
            _ => self,
        }
    }
}

/// Steps without meaning that OpenInference puts between an index and the members.
const WRAPPERS: [&str; 5] = ["message", "tool_call", "message_content", "tool", "document"];

/// Parses an index of a flattened key. Returns `None` if it is too large.
pub(super) fn index(step: &str) -> Option<u32> {
    let is_digits = !step.is_empty() && step.bytes().all(|digit| digit.is_ascii_digit());
    is_digits.then(|| step.parse().ok()).flatten().filter(|index| *index < INDEX_MAX)
}

fn write_node(json: &mut Vec<u8>, node: &Node<'_>) {
    match node {
        Node::Leaf(text) => json.extend_from_slice(text.as_bytes()),
        Node::List(list) => write_list(json, list.values(), write_node),
        Node::Members(members) => {
            let mut object = object::Object::open(json);
            for (name, node) in members {
                write_node(object.member(name), node);
            }
            object.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parts(value: &Value, side: Side) -> Value {
        serde_json::from_str(&to_parts(Raw::parse(&value.to_string()).unwrap(), side).unwrap())
            .unwrap()
    }

    #[test]
    fn chat_messages_become_parts() {
        let sent = json!([
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:x"}}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "not json"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "21C"},
        ]);
        assert_eq!(
            parts(&sent, Side::Input),
            json!([
                {"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
                {"role": "user", "parts": [{"type": "text", "content": "hi"}, {"type": "uri", "modality": "image", "uri": "data:x"}]},
                {"role": "assistant", "parts": [
                    {"type": "tool_call", "id": "c1", "name": "f", "arguments": {"a": 1}},
                    {"type": "tool_call", "id": "c2", "name": "g", "arguments": "not json"}]},
                {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "21C"}]},
            ])
        );
    }

    #[test]
    fn whole_answers_of_both_apis_become_messages() {
        let chat = json!([{"object": "chat.completion", "choices": [
            {"finish_reason": "length", "message": {"role": "assistant", "content": "yo", "reasoning_content": "hm"}}]}]);
        assert_eq!(
            parts(&chat, Side::Output),
            json!([{"role": "assistant", "finish_reason": "length",
                "parts": [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "yo"}]}])
        );
        let response = json!([{"object": "response", "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yo"}]},
            {"type": "web_search_call", "id": "w"}]}]);
        let roles_and_parts = parts(&response, Side::Output);
        assert_eq!(roles_and_parts[0]["parts"], json!([{"type": "reasoning", "content": "hm"}]));
        assert_eq!(
            roles_and_parts[1]["parts"],
            json!([{"type": "tool_call", "id": "c", "name": "f", "arguments": {}}])
        );
        assert_eq!(roles_and_parts[2]["parts"], json!([{"type": "text", "content": "yo"}]));
        assert_eq!(roles_and_parts[3]["parts"], json!([{"type": "web_search_call", "id": "w"}]));
    }

    #[test]
    fn plain_text_is_the_users_or_the_assistants() {
        assert_eq!(parts(&json!("hi"), Side::Input)[0]["role"], "user");
        assert_eq!(parts(&json!("yo"), Side::Output)[0]["role"], "assistant");
        assert_eq!(to_parts(Raw::trusted("null"), Side::Input), None);
        assert_eq!(to_parts(Raw::trusted("[]"), Side::Input), None);
    }

    #[test]
    fn flattened_keys_become_one_list_and_hostile_ones_cost_nothing() {
        let mut messages = Flattened::default();
        assert!(messages.put("1.message.role", "\"tool\"".into()).is_some());
        assert!(messages.put("0.message.role", "\"assistant\"".into()).is_some());
        assert!(
            messages
                .put("0.message.tool_calls.0.tool_call.function.name", "\"f\"".into())
                .is_some()
        );
        assert!(messages.put("0.message.tool_calls.0.tool_call.id", "\"c\"".into()).is_some());
        for path in [
            "4000000000.message.role",
            "99999.x",
            "x.role",
            "",
            "0",
            "0.message.role.0",
            "-1.x",
            "0.a.b.c.d.e.f.g.h",
        ] {
            let taken = messages.put(path, "1".into()).is_some();
            assert_eq!(taken, path == "0", "{path}");
            if taken {
                // A bare index replaces the earlier value, because the last one counts.
                assert!(messages.put("0.message.role", "\"assistant\"".into()).is_none());
            }
        }
        assert_eq!(messages.to_json(false), r#"[1,{"role":"tool"}]"#);
        let mut messages = Flattened::default();
        messages.put("2.message.content", "\"b\"".into());
        messages.put("0.message.tool_calls.0.tool_call.id", "\"c\"".into());
        assert_eq!(messages.to_json(false), r#"[{"tool_calls":[{"id":"c"}]},{"content":"b"}]"#);
    }
}
