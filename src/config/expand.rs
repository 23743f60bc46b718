//! Expands `${...}` inside a string of the configuration, after the file was parsed: a reference can supply a value, never structure.
//!
//! | form | meaning |
//! |---|---|
//! | `${NAME}`, `${env:NAME}` | the variable; a mistake if it is not set |
//! | `${NAME:-text}` | the variable, or this text if it is not set or empty |
//! | `${NAME:?text}` | the variable; a mistake with this text if it is not set or empty |
//! | `${file:/path}` | the contents of the file, without a final newline |
//! | `$$` | a dollar sign |
//!
//! The grammar is that of OpenTelemetry's declarative configuration
//! (<https://opentelemetry.io/docs/specs/otel/configuration/data-model/#environment-variable-substitution>), plus `:?` and `file:`. Unlike
//! there, a variable that is not set is not an empty string.

use std::path::Path;

use super::environment::{Environment, read_file};

/// A string with its references replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// The value of each reference, and its notation.
    pub(super) references: Vec<(String, String)>,
    /// Whether the string consists of a single reference.
    pub(super) is_reference: bool,
}

/// An invalid reference.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake<'t> {
    pub(super) written: &'t str,
    pub(super) reason: Reason,
}

type Reason = (String, Option<String>);

/// Replaces the references in a string.
pub(super) fn expand<'t>(
    text: &'t str,
    environment: &Environment,
) -> Result<Expanded, Mistake<'t>> {
    let mut expanded = Expanded::default();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, from) = rest.split_at(dollar);
        expanded.text.push_str(before);
        let Some(inner) = from.strip_prefix("${") else {
            expanded.text.push('$');
            rest = from.strip_prefix("$$").or(from.strip_prefix('$')).unwrap_or_default();
            continue;
        };
        let Some((inner, after)) = inner.split_once('}') else {
            return Err(Mistake { written: from, reason: malformed("`${` without a `}`") });
        };
        let (written, _) = from.split_at(from.len() - after.len());
        let value = resolve(inner, environment).map_err(|reason| Mistake { written, reason })?;
        expanded.text.push_str(&value);
        expanded.references.push((value, written.to_owned()));
        expanded.is_reference = written == text;
        rest = after;
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

/// Returns the value for the text between `${` and `}`.
fn resolve(inner: &str, environment: &Environment) -> Result<String, Reason> {
    if let Some(path) = inner.strip_prefix("file:") {
        if path.is_empty() {
            return Err(malformed("`${file:}` names no file"));
        }
        let text = read_file(Path::new(path)).map_err(|error| {
            let hint = "is it mounted, and may this user read it?".to_owned();
            (format!("cannot read the file: {error}"), Some(hint))
        })?;
        return Ok(text.trim_end_matches(['\n', '\r']).to_owned());
    }
    if inner.contains("${") {
        return Err(malformed("references cannot be nested"));
    }
    let inner = inner.strip_prefix("env:").unwrap_or(inner);
    let (name, otherwise) = match inner.split_once(':') {
        Some((name, otherwise)) => (name, otherwise.split_at_checked(1)),
        None => (inner, Some(("", ""))),
    };
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !starts_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(malformed("not a variable's name"));
    }
    let value = environment.text(name);
    let value = value.map_err(|why| (format!("the environment variable {name} {why}"), None))?;
    let hint = match (otherwise, value) {
        (Some(("", _)), Some(value)) => return Ok(value.to_owned()),
        (Some(("-" | "?", _)), Some(value)) if !value.is_empty() => return Ok(value.to_owned()),
        (Some(("-", text)), _) => return Ok(text.to_owned()),
        (Some(("?", why)), _) => (!why.is_empty()).then(|| why.to_owned()),
        (Some(("", _)), None) => Some(format!("set it, or give a default: ${{{name}:-...}}")),
        _ => return Err(malformed("only `:-` or `:?` may follow the name")),
    };
    Err((format!("the environment variable {name} is not set"), hint))
}

fn malformed(what: &str) -> Reason {
    let hint = "write $$ for a literal dollar sign";
    (what.to_owned(), Some(hint.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_reference_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x").display().to_string();
        std::fs::write(&path, "held\r\n").unwrap();
        let file = format!("${{file:{path}}}");
        let environment = Environment::with([("A", "a\n"), ("A_1", "one"), ("EMPTY", "\n")]);
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("${A}", "a"),
            ("${env:A_1}", "one"),
            ("${EMPTY}", ""),
            ("${EMPTY:-b}", "b"),
            ("${NONE:-}", ""),
            ("${NONE:-b:-c}", "b:-c"),
            ("${A:-b}", "a"),
            ("${A:?set it}", "a"),
            (&file, "held"),
            ("a${A}c${A_1}", "aacone"),
        ] {
            let expanded = expand(text, &environment).unwrap();
            assert_eq!(expanded.text, expected, "{text}");
            let is_reference = text.starts_with("${") && text.matches('$').count() == 1;
            assert_eq!(expanded.is_reference, is_reference, "{text}");
            assert_eq!(expanded.references.len(), text.matches("${").count(), "{text}");
        }
    }

    #[test]
    fn a_dollar_sign_that_begins_no_reference_stands_for_itself() {
        for (text, expected) in [
            ("$", "$"),
            ("5$", "5$"),
            ("$HOME", "$HOME"),
            ("$$", "$"),
            ("$${A}", "${A}"),
            ("$$$$", "$$"),
        ] {
            let expanded = expand(text, &Environment::with([])).unwrap();
            assert_eq!((expanded.text.as_str(), expanded.references), (expected, vec![]));
        }
    }

    #[test]
    fn a_wrong_reference_is_pointed_at() {
        for (text, written) in [
            ("a ${B", "${B"),
            ("a ${} c", "${}"),
            ("a ${B c} d", "${B c}"),
            ("${1A}", "${1A}"),
            ("${A:-${B}}", "${A:-${B}"),
            ("${A:b}", "${A:b}"),
            ("${A:=b}", "${A:=b}"),
            ("${A:}", "${A:}"),
            ("${file:}", "${file:}"),
            ("${ A}", "${ A}"),
            ("a ${NONE}", "${NONE}"),
            ("a ${NONE:?} ${A}", "${NONE:?}"),
        ] {
            let mistake = expand(text, &Environment::with([("A", "a")])).unwrap_err();
            assert_eq!(mistake.written, written, "{text}");
        }
    }
}
