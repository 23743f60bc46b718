//! Mistakes in a configuration file with their positions, and mistakes in options before their position is known.

use std::ops::Range;

/// A mistake. The code that prints it knows the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its byte range in the file; `None` if something is missing altogether.
    pub at: Option<Range<usize>>,
    /// The problem: lowercase, no full stop, never a secret's value.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// Creates a problem, at its position if known; an empty hint becomes `None`.
    pub fn new(at: Option<Range<usize>>, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { at, what: what.into(), hint: Some(hint.into()).filter(|hint| !hint.is_empty()) }
    }
}

/// A mistake in an option that has a valid syntax. The caller, which knows the option's position, turns it into a [`Problem`].
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake<Words = &'static str> {
    /// The option's key; empty if the mistake concerns several.
    pub option: &'static str,
    /// See [`Problem::what`].
    pub what: Words,
    /// See [`Problem::hint`].
    pub hint: Words,
}

/// A list of mistakes.
#[derive(Debug, Default)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// Adds a mistake, if there is one.
    pub fn note(
        &mut self,
        is_there: bool,
        option: &'static str,
        what: &'static str,
        hint: &'static str,
    ) {
        self.note_all([(is_there, option, what, hint)]);
    }

    /// Adds those of a table's rows that are there.
    pub fn note_all<const N: usize>(
        &mut self,
        rows: [(bool, &'static str, &'static str, &'static str); N],
    ) {
        let wrong = rows.into_iter().filter(|(is_there, ..)| *is_there);
        self.0.extend(wrong.map(|(_, option, what, hint)| Mistake { option, what, hint }));
    }
}
