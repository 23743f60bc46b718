//! Everything a value can come from, laid out one after the other, so that one number says where something stands.
//!
//! A position in a file is an offset in the file; the files, environment variables and flags of one configuration lie behind one
//! another as if they were one text, each from its `base` on.

use std::borrow::Cow;
use std::ops::Range;

/// Everything a value can come from, in the order in which later ones win.
#[derive(Debug, Default)]
pub(super) struct Sources<'s>(Vec<Source<'s>>);

/// Something that values come from.
#[derive(Debug)]
pub(super) struct Source<'s> {
    pub(super) kind: SourceKind,
    /// The file's path as it was given, the variable's name, or the flag.
    pub(super) name: String,
    /// What positions count in: the file's text; the name again for a variable or a flag, whose value may be a secret.
    pub(super) text: Cow<'s, str>,
    /// The position of its first byte.
    pub(super) base: usize,
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    File,
    Variable,
    Flag,
    /// What holds when nobody says anything.
    Default,
}

impl<'s> Sources<'s> {
    /// Where the next one begins. One byte stays free between two, so that the end of one is not the start of the next.
    pub(super) fn end(&self) -> usize {
        self.0.last().map_or(0, |last| last.base + last.text.len() + 1)
    }

    /// Adds one and returns where it lies.
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

    /// Where a value comes from, in words: `spanferry.toml:4`, or the variable.
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
    /// A position counted from this source's own start.
    pub(super) fn local(&self, position: usize) -> usize {
        position.saturating_sub(self.base).min(self.text.len())
    }

    /// The line of a position, from 1.
    pub(super) fn line(&self, position: usize) -> usize {
        self.text.bytes().take(self.local(position)).filter(|byte| *byte == b'\n').count() + 1
    }

    /// The whole line around a position.
    pub(super) fn line_around(&self, position: usize) -> Range<usize> {
        let (before, after) = self.text.split_at_checked(self.local(position)).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = before.len() + after.find('\n').unwrap_or(after.len());
        self.base + start..self.base + end
    }
}
