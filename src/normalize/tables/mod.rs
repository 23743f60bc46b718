//! Reads the tables of conventions: attributes (`attributes.txt`, by prefix `beginnings.txt`), kinds (`kinds.txt`) and providers
//! (`providers.txt`). The callers interpret the words in them.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A row of `attributes.txt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) section: Section,
    pub(super) key: &'static str,
    pub(super) fact: &'static str,
    /// How the value is written, or its path inside JSON; empty for a value of its own type.
    pub(super) coercion: &'static str,
}

/// A section's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Section {
    /// The words before the conditions: a fact and a convention, or only a convention.
    pub(super) fact: &'static str,
    pub(super) convention: &'static str,
    /// The instrumentation scope, or its prefix followed by `*`; empty for any.
    pub(super) scope: &'static str,
    /// The span's name, in the same form.
    pub(super) span: &'static str,
}

const ATTRIBUTES: &str = include_str!("attributes.txt");
const KINDS: &str = include_str!("kinds.txt");
const BEGINNINGS: &str = include_str!("beginnings.txt");

/// Providers, by their other names in lowercase.
pub(super) static PROVIDERS: LazyLock<HashMap<String, &str>> = LazyLock::new(|| {
    let names = lines(include_str!("providers.txt")).filter_map(|(_, line)| line.split_once(": "));
    names
        .flat_map(|(name, names)| names.split(", ").map(move |it| (it.to_lowercase(), name)))
        .collect()
});

/// The paths into JSON in all rows (`.usage.total`), without duplicates.
pub(super) static PATHS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let mut paths: Vec<_> =
        rows().map(|row| row.coercion).filter(|coercion| coercion.starts_with('.')).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
});

/// Iterates over the rows of `attributes.txt`, in their order.
pub(super) fn rows() -> impl Iterator<Item = Row> {
    lines(ATTRIBUTES).filter_map(|(section, line)| {
        let mut words = line.split_whitespace();
        let (key, fact) = (words.next()?, words.next()?);
        Some(Row { section, key, fact, coercion: words.next().unwrap_or_default() })
    })
}

/// Returns the sections of `kinds.txt` in their order, each with words and the kinds that they stand for. A section with `as: fact` has the
/// words of that fact's sections.
pub(super) fn kinds() -> Vec<(Section, Vec<(&'static str, &'static str)>)> {
    let mut sections: Vec<(Section, Vec<_>)> = Vec::new();
    for (section, line) in lines(KINDS) {
        if sections.last().is_none_or(|(last, _)| *last != section) {
            sections.push((section, Vec::new()));
        }
        let Some((_, words)) = sections.last_mut() else { continue };
        match line.strip_prefix("as: ") {
            Some(fact) => {
                let same = lines(KINDS).filter(|(section, _)| section.fact == fact);
                words.extend(same.flat_map(|(_, line)| words_in(line)));
            }
            None => words.extend(words_in(line)),
        }
    }
    sections
}

/// Iterates over a section of `beginnings.txt`: prefixes, and what `named` makes of the word after each.
pub(super) fn beginnings<T>(
    section: &'static str,
    named: impl Fn(&'static str) -> Option<T>,
) -> impl Iterator<Item = (&'static str, T)> {
    let lines = lines(BEGINNINGS).filter(move |(header, _)| header.convention == section);
    let words = lines.filter_map(|(_, line)| line.split_once(' '));
    words.filter_map(move |(beginning, word)| Some((beginning, named(word)?)))
}

/// Iterates over the whole lines of sections of `beginnings.txt` with this name, each with its section.
pub(super) fn listed(name: &'static str) -> impl Iterator<Item = (Section, &'static str)> {
    lines(BEGINNINGS).filter(move |(section, _)| section.convention == name)
}

/// A section of `beginnings.txt`, grouped by first byte, in which most prefixes differ.
pub(super) struct Beginnings<T>([Vec<(&'static str, T)>; 128]);

impl<T: Copy> Beginnings<T> {
    /// Reads a section; see [`beginnings`].
    pub(super) fn of(section: &'static str, named: impl Fn(&'static str) -> Option<T>) -> Self {
        let mut by_first = [const { Vec::new() }; 128];
        for row in beginnings(section, named) {
            let first = row.0.bytes().next().map(usize::from);
            by_first.get_mut(first.unwrap_or_default()).into_iter().for_each(|rows| rows.push(row));
        }
        Self(by_first)
    }

    /// Returns the meaning of a text's first prefix.
    pub(super) fn first(&self, text: &[u8]) -> Option<T> {
        self.all(text).next().map(|(_, means)| means)
    }

    /// Iterates over the prefixes of a text, in the table's order: the length of each, and its meaning.
    pub(super) fn all(&self, text: &[u8]) -> impl Iterator<Item = (usize, T)> {
        let like = text.first().and_then(|first| self.0.get(usize::from(*first)));
        let like = like.map_or(&[][..], Vec::as_slice).iter();
        like.filter(|(beginning, _)| text.starts_with(beginning.as_bytes()))
            .map(|(beginning, means)| (beginning.len(), *means))
    }
}

fn words_in(line: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let (kind, words) = line.split_once(": ").unwrap_or_default();
    words.split(", ").map(move |word| (word, kind))
}

/// Iterates over the lines except comments and blank ones, each with its section.
fn lines(text: &'static str) -> impl Iterator<Item = (Section, &'static str)> {
    let mut section = Section::default();
    text.lines().filter_map(move |line| {
        let header = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
        if let Some(header) = header {
            section = header_of(header);
            return None;
        }
        (!line.is_empty() && !line.starts_with('#')).then_some((section, line))
    })
}

fn header_of(header: &'static str) -> Section {
    let mut section = Section::default();
    for word in header.split_whitespace() {
        match word.split_once('=') {
            Some(("scope", scope)) => section.scope = scope,
            Some((_, span)) => section.span = span,
            // The last word is the convention.
            None => (section.fact, section.convention) = (section.convention, word),
        }
    }
    section
}

/// Returns whether a word matches a pattern, ignoring case. A `*` at the pattern's end or beginning matches any text.
pub(super) fn matches(pattern: &str, word: &str) -> bool {
    let (pattern, word) = (pattern.as_bytes(), word.as_bytes());
    match (pattern.strip_suffix(b"*"), pattern.strip_prefix(b"*")) {
        (Some(beginning), _) => {
            word.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning))
        }
        (None, Some(ending)) => {
            let start = word.len().checked_sub(ending.len());
            start.and_then(|at| word.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(ending))
        }
        (None, None) => word.eq_ignore_ascii_case(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_rows_and_words_are_read_in_order() {
        let claude = rows().find(|row| row.key == "span.type").unwrap();
        let section =
            Section { fact: "", convention: "framework", scope: "", span: "claude_code.*" };
        assert_eq!(claude, Row { section, key: "span.type", fact: "framework_kind", coercion: "" });
        let lines =
            ATTRIBUTES.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
        assert_eq!(rows().count(), lines.count());
        let words = |fact| -> Vec<_> {
            let sections = kinds().into_iter().filter(|(section, _)| section.fact == fact);
            sections.flat_map(|(_, words)| words).collect()
        };
        assert_eq!(words("request_type"), words("operation"));
    }

    #[test]
    fn a_pattern_stands_for_beginnings_or_ends() {
        for (pattern, word, expected) in [
            ("chat", "CHAT", true),
            ("chat", "chats", false),
            ("Agent run*", "Agent run: 'A'", true),
            ("*.doGenerate", "ai.generateText.doGenerate", true),
            ("*", "anything", true),
            ("long*", "lon", false),
        ] {
            assert_eq!(matches(pattern, word), expected, "{pattern} {word}");
        }
    }
}
