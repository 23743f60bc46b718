//! Everything a value can come from, laid out one after the other, so that one number says where something stands.
//!
//! A position in a file is an offset in the file; the files, environment variables and flags of one configuration lie behind one
//! another as if they were one text. What toml and serde say of one of them becomes a position in all of them by adding its `base`.

use std::ops::Range;

/// Everything a value can come from.
#[derive(Debug, Default)]
pub(super) struct Sources {
    list: Vec<Source>,
}

/// Something that values come from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) kind: SourceKind,
    /// The file's path as it was given, the variable's name, or the flag.
    pub(super) name: String,
    /// What positions count in: the file's text; the name again for a variable or a flag, whose value may be a secret.
    pub(super) text: String,
    /// The position of its first byte.
    pub(super) base: usize,
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    /// A configuration file.
    File,
    /// An environment variable.
    Variable,
    /// An argument of the command line.
    Flag,
    /// What holds when nobody says anything.
    Default,
}

impl Sources {
    /// Adds one and returns its base.
    pub(super) fn add(&mut self, kind: SourceKind, name: &str, text: String) -> usize {
        // One byte stays free between two, so that the end of one is not the start of the next.
        let base = self.list.last().map_or(0, |last| last.base + last.text.len() + 1);
        self.list.push(Source { kind, name: name.to_owned(), text, base });
        base
    }

    /// All of them, in the order in which later ones win.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.list.iter()
    }

    /// The source in which a position lies.
    pub(super) fn find(&self, position: usize) -> Option<&Source> {
        let next = self.list.partition_point(|source| source.base <= position);
        self.list.get(next.checked_sub(1)?)
    }
}

impl Source {
    /// A position counted from this source's own start.
    pub(super) fn local(&self, at: &Range<usize>) -> Range<usize> {
        let inside = |position: usize| position.saturating_sub(self.base).min(self.text.len());
        inside(at.start)..inside(at.end)
    }

    /// The line of a position in this source, from 1.
    pub(super) fn line(&self, local: usize) -> usize {
        self.text.bytes().take(local).filter(|byte| *byte == b'\n').count() + 1
    }

    /// Where a value comes from, in words: `spanferry.toml:4`, or the variable.
    pub(super) fn origin(&self, at: &Range<usize>) -> String {
        match self.kind {
            SourceKind::File => format!("{}:{}", self.name, self.line(self.local(at).start)),
            SourceKind::Variable | SourceKind::Flag | SourceKind::Default => self.name.clone(),
        }
    }
}
