//! Changes some values in an item's JSON; everything else is copied as it was written. Pure.

use std::borrow::Cow;

use crate::span::Source;
use crate::support::json::raw::Raw;
use crate::support::json::write_str;

/// The change of a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It stays unchanged.
    Keep,
    /// It is removed, with its name.
    Remove,
    /// It is replaced by this JSON.
    Replace(Vec<u8>),
}

/// Changes the members of an object; any other value is kept.
pub(super) fn object(value: Raw<'_>, change: impl Fn(&str, Raw<'_>) -> Change) -> Change {
    let changed = value.members().map(|(name, value)| {
        let change = change(&name, value);
        (Some(name), value, change)
    });
    of_children(changed.collect(), *b"{}")
}

/// Changes the elements of an array; any other value is kept.
pub(super) fn array(value: Raw<'_>, change: impl Fn(Raw<'_>) -> Change) -> Change {
    of_children(value.elements().map(|it| (None, it, change(it))).collect(), *b"[]")
}

fn of_children(
    children: Vec<(Option<Cow<'_, str>>, Raw<'_>, Change)>,
    [open, close]: [u8; 2],
) -> Change {
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
            write_str(&mut out, &name);
            out.push(b':');
        }
        out.extend_from_slice(written);
    }
    out.push(close);
    Change::Replace(out)
}

/// The writer of an item, as far as the rules differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The Python SDK, and all writers that do not identify themselves.
    Python,
    /// The Python SDK with an HTTP library that writes spaces and escapes (httpx before 0.28). This is no reason to rewrite the item.
    LoosePython,
    /// The JavaScript SDK.
    JavaScript,
}

impl Origin {
    /// Returns the origin that a request's user agent indicates.
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

    /// Returns whether Python's rules apply.
    pub(super) fn is_python(self) -> bool {
        self != Self::JavaScript
    }
}
