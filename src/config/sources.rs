//! All sources of values, laid out one after the other, so that a single number identifies a place.
//!
//! A position in a file is an offset. The files, environment variables and flags of a configuration are treated as one text, in which each
//! source begins at its `base`.

use std::borrow::Cow;
use std::ops::Range;

/// All sources of values; later ones take precedence.
#[derive(Debug, Default)]
pub(super) struct Sources<'s>(Vec<Source<'s>>);

/// A source of values.
#[derive(Debug)]
pub(super) struct Source<'s> {
    pub(super) kind: SourceKind,
    /// The file's path as given, or the name of the variable or flag.
    pub(super) name: String,
    /// The text that positions refer to: the file's text; for a variable or flag its name, because its value may be a secret.
    pub(super) text: Cow<'s, str>,
    /// The position of its first byte.
    pub(super) base: usize,
}

/// The kind of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    File,
    Variable,
    Flag,
    /// Values that are not configured.
    Default,
}

impl<'s> Sources<'s> {
    /// Returns the base of the next source. One byte separates sources, so that the end of one is not the start of the next.
    pub(super) fn end(&self) -> usize {
        self.0.last().map_or(0, |last| last.base + last.text.len() + 1)
    }

    /// Adds a source and returns its range.
    pub(super) fn add(&mut self, kind: SourceKind, name: &str, text: Cow<'s, str>) -> Range<usize> {
        let base = self.end();
        let at = base..base + text.len();
        self.0.push(Source { kind, name: name.to_owned(), text, base });
        at
    }

    pub(super) fn find(&self, position: usize) -> Option<&Source<'s>> {
        let next = self.0.partition_point(|source| source.base <= position);
        self.0.get(next.checked_sub(1)?)
    }

    /// Describes where a value comes from: `spanferry.toml:4`, or the variable.
    pub(super) fn origin(&self, position: usize) -> String {
        match self.find(position) {
            None => String::new(),
            Some(source) if source.kind == SourceKind::File => {
                format!("{}:{}", source.name, source.line(position))
            }
            Some(source) => source.name.clone(),
        }
    }
}

impl Source<'_> {
    /// Converts a position to an offset in this source.
    pub(super) fn local(&self, position: usize) -> usize {
        position.saturating_sub(self.base).min(self.text.len())
    }

    /// Returns the line of a position, from 1.
    pub(super) fn line(&self, position: usize) -> usize {
        self.text.bytes().take(self.local(position)).filter(|byte| *byte == b'\n').count() + 1
    }

    /// Returns the range of the line that contains a position.
    pub(super) fn line_around(&self, position: usize) -> Range<usize> {
        let (before, after) = self.text.split_at_checked(self.local(position)).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = before.len() + after.find('\n').unwrap_or(after.len());
        self.base + start..self.base + end
    }
}
