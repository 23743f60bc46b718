//! A mistake in a configuration file, and where it stands.

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
