//! JSON of an item with some of its values changed; what stays is copied as it is written. Pure.

use std::borrow::Cow;

use crate::span::Source;
use crate::support::json::raw::Raw;
use crate::support::json::write_str;

/// What becomes of a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It stays as it is.
    Keep,
    /// It goes, with its name.
    Remove,
    /// This stands in its place.
    Replace(Vec<u8>),
}

impl Change {
    /// It goes, or stays.
    pub(super) fn remove_if(is_left_out: bool) -> Self {
        if is_left_out { Self::Remove } else { Self::Keep }
    }
}

/// What becomes of an object when this becomes of its members; whatever else it is stays.
pub(super) fn object(value: Raw<'_>, change: impl Fn(&str, Raw<'_>) -> Change) -> Change {
    members(&value.members().collect::<Vec<_>>(), change)
}

/// What becomes of an object with these members.
pub(super) fn members<'a>(
    members: &[(Cow<'a, str>, Raw<'a>)],
    change: impl Fn(&str, Raw<'_>) -> Change,
) -> Change {
    let named = members.iter().map(|(name, value)| (Some(&**name), *value, change(name, *value)));
    of_children(named.collect(), *b"{}")
}

/// What becomes of an array when this becomes of its elements; whatever else it is stays.
pub(super) fn array(value: Raw<'_>, change: impl Fn(Raw<'_>) -> Change) -> Change {
    of_children(value.elements().map(|it| (None, it, change(it))).collect(), *b"[]")
}

fn of_children(children: Vec<(Option<&str>, Raw<'_>, Change)>, [open, close]: [u8; 2]) -> Change {
    if children.iter().all(|(.., change)| *change == Change::Keep) {
        return Change::Keep;
    }
    let mut out = vec![open];
    for (name, value, change) in children {
        let written = match &change {
            Change::Keep => value.text().as_bytes(),
            Change::Replace(new) => new,
            Change::Remove => continue,
        };
        if 1 < out.len() {
            out.push(b',');
        }
        if let Some(name) = name {
            write_str(&mut out, name);
            out.push(b':');
        }
        out.extend_from_slice(written);
    }
    out.push(close);
    Change::Replace(out)
}

/// Who wrote an item, as far as the rules differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The SDK for Python, and whoever does not say otherwise.
    Python,
    /// The SDK for Python over an HTTP library that writes spaces and escapes (httpx before 0.28): not a reason to write anew.
    LoosePython,
    /// The SDK for JavaScript.
    JavaScript,
}

impl Origin {
    /// The origin that a request's user agent gives away.
    pub(super) fn of(source: &Source) -> Self {
        let agent = source.header("user-agent").unwrap_or_default();
        if agent.starts_with("Agents/JavaScript") {
            return Self::JavaScript;
        }
        let minor = agent.strip_prefix("python-httpx/0.").and_then(|rest| rest.split('.').next());
        match minor.and_then(|minor| minor.parse::<u32>().ok()) {
            Some(0..28) => Self::LoosePython,
            _ => Self::Python,
        }
    }

    /// Whether Python's rules are to be kept.
    pub(super) fn is_python(self) -> bool {
        self != Self::JavaScript
    }
}
