//! `${...}` inside a string of the configuration, after the file was parsed: a reference can bring a value, never structure.
//!
//! | form | meaning |
//! |---|---|
//! | `${NAME}`, `${env:NAME}` | the variable; not set is a mistake |
//! | `${NAME:-text}` | the variable, or this text where it is not set or empty |
//! | `${NAME:?text}` | the variable; not set or empty is a mistake that says this text |
//! | `${file:/path}` | what the file holds, without the newline at its end |
//! | `$$` | a dollar sign |
//!
//! The grammar is that of OpenTelemetry's declarative configuration
//! (<https://opentelemetry.io/docs/specs/otel/configuration/data-model/#environment-variable-substitution>), and `:?` and `file:` beside
//! it. Other than there, a variable that is not set is no empty string.

use std::ops::Range;

/// A part of a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// Stands for itself.
    Text(&'t str),
    /// Stands for something else.
    Reference {
        /// As it is written, from `${` to `}`.
        written: &'t str,
        /// What it means.
        target: Target<'t>,
    },
}

/// What a reference stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target<'t> {
    /// An environment variable.
    Variable {
        /// Its name.
        name: &'t str,
        /// What holds when it is not set.
        otherwise: Otherwise<'t>,
    },
    /// A file's text.
    File(&'t str),
}

/// What holds when a variable is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Otherwise<'t> {
    /// It is a mistake.
    Mistake,
    /// It is a mistake, and this says why.
    Explained(&'t str),
    /// This text.
    Text(&'t str),
}

/// A reference that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    /// Where in the string.
    pub(super) at: Range<usize>,
    /// What is wrong.
    pub(super) what: &'static str,
}

/// Takes a string apart.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Malformed> {
    let mut pieces = Vec::new();
    let (mut rest, mut start) = (text, 0);
    while let Some(dollar) = rest.find('$') {
        let (before, from) = rest.split_at(dollar);
        let here = start + dollar;
        let (piece, length) = if from.starts_with("$$") {
            (Piece::Text("$"), 2)
        } else if let Some(inner) = from.strip_prefix("${") {
            let malformed = |what| Malformed { at: here..text.len(), what };
            let close = inner.find('}').ok_or_else(|| malformed("`${` without a `}`"))?;
            let (written, _) = from.split_at(close + 3);
            let (inner, _) = inner.split_at(close);
            let end = here + written.len();
            let target = target(inner).map_err(|what| Malformed { at: here..end, what })?;
            (Piece::Reference { written, target }, written.len())
        } else {
            (Piece::Text("$"), 1)
        };
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(piece);
        (_, rest) = from.split_at(length);
        start = here + length;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// Reads what stands between `${` and `}`.
fn target(inner: &str) -> Result<Target<'_>, &'static str> {
    if let Some(path) = inner.strip_prefix("file:") {
        return if path.is_empty() {
            Err("`${file:}` names no file")
        } else {
            Ok(Target::File(path))
        };
    }
    if inner.contains("${") {
        return Err("a reference cannot stand inside another");
    }
    let inner = inner.strip_prefix("env:").unwrap_or(inner);
    let (name, otherwise) = match inner.split_once(':') {
        None => (inner, Otherwise::Mistake),
        Some((name, rest)) => match (rest.strip_prefix('-'), rest.strip_prefix('?')) {
            (Some(text), _) => (name, Otherwise::Text(text)),
            (_, Some(why)) => (name, Otherwise::Explained(why)),
            (None, None) => return Err("after the name only `:-` or `:?` may follow"),
        },
    };
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if starts_well && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(Target::Variable { name, otherwise });
    }
    Err("not the name of a variable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable<'t>(written: &'t str, name: &'t str, otherwise: Otherwise<'t>) -> Piece<'t> {
        Piece::Reference { written, target: Target::Variable { name, otherwise } }
    }

    #[test]
    fn every_form_of_reference_is_understood() {
        for (text, expected) in [
            ("", vec![]),
            ("plain", vec![Piece::Text("plain")]),
            ("${A}", vec![variable("${A}", "A", Otherwise::Mistake)]),
            ("${env:A_1}", vec![variable("${env:A_1}", "A_1", Otherwise::Mistake)]),
            ("${A:-}", vec![variable("${A:-}", "A", Otherwise::Text(""))]),
            ("${A:-b:-c}", vec![variable("${A:-b:-c}", "A", Otherwise::Text("b:-c"))]),
            ("${A:?set it}", vec![variable("${A:?set it}", "A", Otherwise::Explained("set it"))]),
            (
                "${file:/run/x}",
                vec![Piece::Reference {
                    written: "${file:/run/x}",
                    target: Target::File("/run/x"),
                }],
            ),
            (
                "a${B}c${D}",
                vec![
                    Piece::Text("a"),
                    variable("${B}", "B", Otherwise::Mistake),
                    Piece::Text("c"),
                    variable("${D}", "D", Otherwise::Mistake),
                ],
            ),
        ] {
            assert_eq!(pieces(text), Ok(expected), "{text}");
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
            let joined: String = pieces(text)
                .unwrap()
                .into_iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text,
                    Piece::Reference { written, .. } => panic!("{written} in {text}"),
                })
                .collect();
            assert_eq!(joined, expected);
        }
    }

    #[test]
    fn a_malformed_reference_is_pointed_at() {
        for (text, at) in [
            ("a ${B", 2..5),
            ("a ${} c", 2..5),
            ("a ${B c} d", 2..8),
            ("${1A}", 0..5),
            ("${A:-${B}}", 0..9),
            ("${A:b}", 0..6),
            ("${A:=b}", 0..7),
            ("${file:}", 0..8),
            ("${ A}", 0..5),
        ] {
            assert_eq!(pieces(text).unwrap_err().at, at, "{text}");
        }
    }
}
