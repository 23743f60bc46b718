//! What serde says about a mistake, taken apart, and said again without quoting the value, which may be a secret.

use super::nearest::did_you_mean;

/// A mistake.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault<'m> {
    /// There is no such key.
    UnknownKey { name: &'m str, known: Vec<&'m str> },
    /// The key must be there.
    MissingKey { name: &'m str },
    /// The value is of a wrong type or says nothing.
    Value { what: String, choices: Vec<&'m str> },
}

impl<'m> Fault<'m> {
    /// Takes serde's (and toml's) message apart. What it does not know it takes as it is.
    pub(super) fn read(message: &'m str) -> Self {
        if let Some(rest) = message.strip_prefix("unknown field ") {
            let (name, known) = name_and_choices(rest);
            return Self::UnknownKey { name, known };
        }
        if let Some(rest) = message.strip_prefix("missing field ") {
            return Self::MissingKey { name: rest.trim_matches('`') };
        }
        if let Some(rest) = message.strip_prefix("unknown variant ") {
            let (_, choices) = name_and_choices(rest);
            return Self::Value { what: message.to_owned(), choices };
        }
        let what = wrong_type(message).unwrap_or_else(|| message.trim_end().to_owned());
        Self::Value { what, choices: Vec::new() }
    }

    /// What is wrong, and what to do about it.
    pub(super) fn describe(&self) -> (String, Option<String>) {
        match self {
            Self::UnknownKey { name, known } => {
                (format!("unknown key `{name}`"), did_you_mean(name, known))
            }
            Self::MissingKey { name } => {
                (format!("missing key `{name}`"), Some(format!("add `{name} = ...` here")))
            }
            Self::Value { what, choices } if choices.is_empty() => match what.split_once("; ") {
                // Our own messages say what to write instead.
                Some((what, hint)) => (what.to_owned(), Some(hint.to_owned())),
                None => (what.clone(), value_hint(what).map(str::to_owned)),
            },
            Self::Value { what, choices } => {
                let said = what.split('`').nth(1).unwrap_or_default();
                ("not one of the choices here".to_owned(), did_you_mean(said, choices))
            }
        }
    }
}

/// Of "`a`, expected one of `b`, `c`": a, and the rest.
fn name_and_choices(text: &str) -> (&str, Vec<&str>) {
    let Some((name, expected)) = text.rsplit_once(", expected ") else {
        let name = text.rsplit_once(", there are no").map_or(text, |(name, _)| name);
        return (name.trim_matches('`'), Vec::new());
    };
    (name.trim_matches('`'), expected.split('`').skip(1).step_by(2).collect())
}

/// Says "invalid type: string "8", expected u16" in the words of the file, without the value.
fn wrong_type(message: &str) -> Option<String> {
    if message.trim_end() == "wanted string or table" {
        return Some("expected a string".to_owned());
    }
    let (form, rest) = message.split_once(": ")?;
    if form != "invalid type" && form != "invalid value" {
        return None;
    }
    let (found, expected) = rest.rsplit_once(", expected ")?;
    let expected = expected_in_words(expected.trim_end());
    if form == "invalid value" {
        return Some(format!("expected {expected}"));
    }
    let found = found.split(['"', '`']).next().unwrap_or_default().trim_end();
    let found = match found {
        "string" => "a string",
        "integer" => "a whole number",
        "floating point" => "a number with a fraction",
        "boolean" => "a boolean",
        "map" => "a table",
        "sequence" => "an array",
        _ => "something else",
    };
    Some(format!("expected {expected}, found {found}"))
}

fn expected_in_words(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "a table",
        "socket address" => "an address with a port",
        "path string" => "a path",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

fn value_hint(what: &str) -> Option<&'static str> {
    match what {
        "invalid socket address syntax" | "expected an address with a port" => {
            Some("write an IP address and a port, such as \"127.0.0.1:4318\"")
        }
        _ if what.contains("a path, found") || what.starts_with("expected a string") => {
            Some("put it in quotes")
        }
        _ if what.ends_with("found a string") && what.contains("number") => {
            Some("write it without quotes")
        }
        _ if what.starts_with("expected true or false") => {
            Some("write true or false, without quotes")
        }
        _ => None,
    }
}
