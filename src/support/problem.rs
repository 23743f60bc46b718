//! A mistake in a configuration file, and where it stands; and one in options that nobody has a place of yet.

use std::ops::Range;

/// One mistake. Whoever prints it knows the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the file it stands at; `None` for something that is missing as a whole.
    pub at: Option<Range<usize>>,
    /// What is wrong: lowercase, no full stop, never a secret's value.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// One at a place, where that is known; a hint without words is none.
    pub fn new(at: Option<Range<usize>>, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { at, what: what.into(), hint: Some(hint.into()).filter(|hint| !hint.is_empty()) }
    }
}

/// What is wrong with an option that can be read. Whoever knows where the option stands makes a [`Problem`] of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake<Words = &'static str> {
    /// The option's key; empty where it is of no single one.
    pub option: &'static str,
    /// See [`Problem::what`].
    pub what: Words,
    /// See [`Problem::hint`].
    pub hint: Words,
}

/// Mistakes that were found.
#[derive(Debug, Default)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// Adds one, where it is there.
    pub fn note(
        &mut self,
        is_there: bool,
        option: &'static str,
        what: &'static str,
        hint: &'static str,
    ) {
        self.0.extend(is_there.then_some(Mistake { option, what, hint }));
    }
}
