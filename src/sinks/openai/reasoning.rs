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
    /// How it holds them: themselves (responses), or each as the `message` of a choice (chat completions).
    held_as: Place,
}

static PYTHON: Rules = Rules {
    members: &["reasoning", "reasoning_content", "thinking_blocks", "thinking"],
    parts: &["thinking", "redacted_thinking"],
    annotated_parts: &[],
    holder: "response",
    held: "output",
    held_as: Place::Turns { is_top: false },
};

static JAVASCRIPT: Rules = Rules {
    members: &["reasoning"],
    parts: &["reasoning"],
    annotated_parts: &["text", "refusal"],
    holder: "chat.completion",
    held: "choices",
    held_as: Place::Choices,
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
    omission.write(turns, Place::Turns { is_top: true });
    omission.has_changed.then(|| String::from_utf8(omission.out).ok())?
}

/// What a value is, as far as something may have to be left out of it.
#[derive(Clone, Copy)]
enum Place {
    /// A list of turns. An element at the top may hold more of them: those hold no others.
    Turns {
        is_top: bool,
    },
    Turn {
        is_top: bool,
    },
    /// A list of choices, each with a turn as its `message`.
    Choices,
    Choice,
    /// A list of content parts.
    Parts,
    /// A part that loses its member `reasoning`.
    AnnotatedPart,
    /// It is copied.
    Other,
}

/// A walk that writes what is kept.
struct Omission {
    rules: &'static Rules,
    out: Vec<u8>,
    has_changed: bool,
}

impl Omission {
    fn write(&mut self, value: Raw<'_>, place: Place) {
        let rules = self.rules;
        match place {
            Place::Turns { is_top } if value.is_array() => self.array(value, |turn| {
                (!is_of_type(turn, &["reasoning"])).then_some(Place::Turn { is_top })
            }),
            Place::Choices if value.is_array() => self.array(value, |_| Some(Place::Choice)),
            Place::Parts if value.is_array() => self.array(value, |part| {
                let is_annotated = is_of_type(part, rules.annotated_parts);
                let place = if is_annotated { Place::AnnotatedPart } else { Place::Other };
                (!is_of_type(part, rules.parts)).then_some(place)
            }),
            Place::Turn { is_top } => self.turn(value, is_top),
            Place::Choice if value.is_object() => self.object(value, |name| {
                let is_turn = name == "message";
                Some(if is_turn { Place::Turn { is_top: false } } else { Place::Other })
            }),
            Place::AnnotatedPart => {
                self.object(value, |name| (name != "reasoning").then_some(Place::Other));
            }
            _ => self.out.extend_from_slice(value.text().as_bytes()),
        }
    }

    fn turn(&mut self, turn: Raw<'_>, is_top: bool) {
        let rules = self.rules;
        let is_assistant = says(turn, "role", "assistant");
        let is_holder = is_top && says(turn, "object", rules.holder);
        if !is_assistant && !is_holder {
            return self.write(turn, Place::Other);
        }
        self.object(turn, |name| match name {
            name if is_assistant && rules.members.contains(&name) => None,
            "content" if is_assistant => Some(Place::Parts),
            name if is_holder && name == rules.held => Some(rules.held_as),
            _ => Some(Place::Other),
        });
    }

    /// Appends the elements that have a place.
    fn array(&mut self, array: Raw<'_>, place_of: impl Fn(Raw<'_>) -> Option<Place>) {
        self.out.push(b'[');
        let mut separator: &[u8] = b"";
        for element in array.elements() {
            let Some(place) = place_of(element) else {
                self.has_changed = true;
                continue;
            };
            self.out.extend_from_slice(separator);
            separator = b",";
            self.write(element, place);
        }
        self.out.push(b']');
    }

    /// Appends the members that have a place.
    fn object(&mut self, object: Raw<'_>, place_of: impl Fn(&str) -> Option<Place>) {
        self.out.push(b'{');
        let mut separator: &[u8] = b"";
        for (name, value) in object.members() {
            let Some(place) = place_of(&name) else {
                self.has_changed = true;
                continue;
            };
            self.out.extend_from_slice(separator);
            separator = b",";
            write_str(&mut self.out, &name);
            self.out.push(b':');
            self.write(value, place);
        }
        self.out.push(b'}');
    }
}

fn is_of_type(value: Raw<'_>, types: &[&str]) -> bool {
    value.get_string("type").is_some_and(|kind| types.contains(&&*kind))
}

fn says(value: Raw<'_>, name: &str, text: &str) -> bool {
    value.get_string(name).is_some_and(|found| found == text)
}
