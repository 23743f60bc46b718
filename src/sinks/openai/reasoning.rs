//! Removes models' reasoning from what is sent to OpenAI, as each SDK does in its own way.

use memchr::memmem;

use super::edit::{self, Change, Origin};
use crate::support::json::raw::Raw;

/// The parts that an SDK considers reasoning.
struct Rules {
    /// Members that are removed from an assistant's turn.
    members: &'static [&'static str],
    /// Types of content parts that are removed from an assistant's turn.
    parts: &'static [&'static str],
    /// Types of content parts whose member `reasoning` is removed.
    annotated_parts: &'static [&'static str],
    /// The `object` of an element that contains more turns.
    holder: &'static str,
    /// The member that contains them.
    held: &'static str,
    /// The member of each element that is the turn; `None` if elements are turns themselves (responses, not chat completions).
    message: Option<&'static str>,
}

static PYTHON: Rules = Rules {
    members: &["reasoning", "reasoning_content", "thinking_blocks", "thinking"],
    parts: &["thinking", "redacted_thinking"],
    annotated_parts: &[],
    holder: "response",
    held: "output",
    message: None,
};

static JAVASCRIPT: Rules = Rules {
    members: &["reasoning"],
    parts: &["reasoning"],
    annotated_parts: &["text", "refusal"],
    holder: "chat.completion",
    held: "choices",
    message: Some("message"),
};

/// Removes reasoning from a list of turns.
pub(super) fn without_reasoning(value: Raw<'_>, origin: Origin) -> Change {
    // An escape may hide a word.
    let is_suspect = |word: &str| memmem::find(value.text().as_bytes(), word.as_bytes()).is_some();
    if !["reasoning", "thinking", "\\u"].into_iter().any(is_suspect) {
        return Change::Keep;
    }
    turns(value, if origin.is_python() { &PYTHON } else { &JAVASCRIPT }, true)
}

/// Changes the elements of a list. Only those at the top can contain more turns.
fn turns(value: Raw<'_>, rules: &Rules, is_top: bool) -> Change {
    edit::array(value, |element| {
        let is_reasoning = is_of_type(element, &["reasoning"]);
        if is_reasoning { Change::Remove } else { turn(element, rules, is_top) }
    })
}

fn turn(value: Raw<'_>, rules: &Rules, is_top: bool) -> Change {
    let is_assistant = says(value, "role", "assistant");
    let is_holder = is_top && says(value, "object", rules.holder);
    if !is_assistant && !is_holder {
        return Change::Keep;
    }
    edit::object(value, |name, inner| match name {
        name if is_assistant && rules.members.contains(&name) => Change::Remove,
        "content" if is_assistant => parts(inner, rules),
        name if is_holder && name == rules.held => match rules.message {
            None => turns(inner, rules, false),
            Some(message) => edit::array(inner, |choice| {
                edit::object(choice, |name, inner| {
                    if name == message { turn(inner, rules, false) } else { Change::Keep }
                })
            }),
        },
        _ => Change::Keep,
    })
}

fn parts(value: Raw<'_>, rules: &Rules) -> Change {
    edit::array(value, |part| {
        if is_of_type(part, rules.parts) {
            return Change::Remove;
        }
        let is_annotated = is_of_type(part, rules.annotated_parts);
        edit::object(part, |name, _| {
            if is_annotated && name == "reasoning" { Change::Remove } else { Change::Keep }
        })
    })
}

fn is_of_type(value: Raw<'_>, types: &[&str]) -> bool {
    value.get_string("type").is_some_and(|kind| types.contains(&&*kind))
}

fn says(value: Raw<'_>, name: &str, text: &str) -> bool {
    value.get_string(name).is_some_and(|found| found == text)
}
