//! What models only thought is left out of what OpenAI is sent, as both SDKs do, each in its own way.

use memchr::memmem;

use super::sanitize::Origin;
use crate::support::json::raw::Raw;
use crate::support::json::write_str;

/// What an SDK counts as reasoning.
struct Rules {
    /// Members that an assistant's turn loses.
    members: &'static [&'static str],
    /// Types of content parts that an assistant's turn loses.
    parts: &'static [&'static str],
    /// Types of content parts that lose their member `reasoning`.
    annotated_parts: &'static [&'static str],
    /// What an element's `object` says when it holds more turns.
    holder: &'static str,
    /// Where it holds them.
    held: &'static str,
}

static PYTHON: Rules = Rules {
    members: &["reasoning", "reasoning_content", "thinking_blocks", "thinking"],
    parts: &["thinking", "redacted_thinking"],
    annotated_parts: &[],
    holder: "response",
    held: "output",
};

static JAVASCRIPT: Rules = Rules {
    members: &["reasoning"],
    parts: &["reasoning"],
    annotated_parts: &["text", "refusal"],
    holder: "chat.completion",
    held: "choices",
};

/// A list of turns without reasoning; `None` where there is nothing to leave out.
pub(super) fn without_reasoning(value: &str, origin: Origin) -> Option<String> {
    // An escape may hide a word.
    let is_suspect = |word: &&str| memmem::find(value.as_bytes(), word.as_bytes()).is_some();
    let turns = Raw::trusted(value);
    if !turns.is_array() || !["reasoning", "thinking", "\\u"].iter().any(is_suspect) {
        return None;
    }
    let rules = if origin.is_python() { &PYTHON } else { &JAVASCRIPT };
    let mut omission = Omission { rules, out: Vec::with_capacity(value.len()), has_changed: false };
    omission.turns(turns, Level::Top);
    omission.has_changed.then(|| String::from_utf8(omission.out).ok())?
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Top,
    /// Inside an element that holds more turns: those hold no others.
    Held,
}

/// What becomes of an element or a member's value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Omitted,
    Copied,
    /// It was written already.
    Written,
}

/// A walk that writes what is kept.
struct Omission {
    rules: &'static Rules,
    out: Vec<u8>,
    has_changed: bool,
}

impl Omission {
    fn turns(&mut self, turns: Raw<'_>, level: Level) {
        self.array(turns, |omission, turn| {
            if is_of_type(turn, &["reasoning"]) {
                return Fate::Omitted;
            }
            omission.turn(turn, level)
        });
    }

    fn turn(&mut self, turn: Raw<'_>, level: Level) -> Fate {
        let rules = self.rules;
        let is_assistant = says(turn, "role", "assistant");
        let is_holder = level == Level::Top && says(turn, "object", rules.holder);
        if !is_assistant && !is_holder {
            return Fate::Copied;
        }
        self.object(turn, |omission, name, value| {
            if is_assistant && rules.members.contains(&name) {
                return Fate::Omitted;
            }
            if is_assistant && name == "content" && value.is_array() {
                omission.parts(value);
                return Fate::Written;
            }
            if is_holder && name == rules.held && value.is_array() {
                omission.held(value);
                return Fate::Written;
            }
            Fate::Copied
        });
        Fate::Written
    }

    /// The turns inside an element: themselves (responses), or each as the `message` of a choice (chat completions).
    fn held(&mut self, held: Raw<'_>) {
        if self.rules.held == "output" {
            return self.turns(held, Level::Held);
        }
        self.array(held, |omission, choice| {
            if !choice.is_object() {
                return Fate::Copied;
            }
            omission.object(choice, |omission, name, value| {
                if name == "message" { omission.turn(value, Level::Held) } else { Fate::Copied }
            });
            Fate::Written
        });
    }

    fn parts(&mut self, parts: Raw<'_>) {
        self.array(parts, |omission, part| {
            if is_of_type(part, omission.rules.parts) {
                return Fate::Omitted;
            }
            if !is_of_type(part, omission.rules.annotated_parts) {
                return Fate::Copied;
            }
            omission.object(
                part,
                |_, name, _| {
                    if name == "reasoning" { Fate::Omitted } else { Fate::Copied }
                },
            );
            Fate::Written
        });
    }

    fn array(&mut self, array: Raw<'_>, fate: impl Fn(&mut Self, Raw<'_>) -> Fate) {
        self.out.push(b'[');
        let empty = self.out.len();
        for element in array.elements() {
            let before = self.out.len();
            if empty < before {
                self.out.push(b',');
            }
            let fate = fate(self, element);
            self.settle(fate, element, before);
        }
        self.out.push(b']');
    }

    fn object(&mut self, object: Raw<'_>, fate: impl Fn(&mut Self, &str, Raw<'_>) -> Fate) {
        self.out.push(b'{');
        let empty = self.out.len();
        for (name, value) in object.members() {
            let before = self.out.len();
            if empty < before {
                self.out.push(b',');
            }
            write_str(&mut self.out, &name);
            self.out.push(b':');
            let fate = fate(self, &name, value);
            self.settle(fate, value, before);
        }
        self.out.push(b'}');
    }

    fn settle(&mut self, fate: Fate, value: Raw<'_>, before: usize) {
        match fate {
            Fate::Omitted => {
                self.out.truncate(before);
                self.has_changed = true;
            }
            Fate::Copied => self.out.extend_from_slice(value.text().as_bytes()),
            Fate::Written => {}
        }
    }
}

fn is_of_type(value: Raw<'_>, types: &[&str]) -> bool {
    value.get_string("type").is_some_and(|kind| types.contains(&&*kind))
}

fn says(value: Raw<'_>, name: &str, text: &str) -> bool {
    value.get_string(name).is_some_and(|found| found == text)
}
