//! Finds patterns in a text.
//!
//! Most texts contain no match. So a wire is first searched as a whole for marks ([`Search::marks`]): places where a pattern may start,
//! whatever stands around them. A wire does not show where its texts end, and escapes are not decoded in it, so a mark needs only what a
//! match always has inside: its first characters, an `@` in a host's name, digits in a number's shape. An escape of an ASCII character may
//! hide any of these and is a mark, too. Only texts with marks are searched exactly ([`Search::find`]).

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::packed::{Config, Searcher};
use memchr::memchr_iter;
use regex::bytes::Regex;

use super::checks::{has_digit, is_in_base64, is_word};
use super::patterns::{Body, Edges, Near, Pattern, Start};
use super::shapes::Shape;
use crate::normalize::wire::{Content, Fields};

/// A match, and the pattern's index in the search's names.
pub(super) type PatternMatch = (Range<usize>, usize);

/// A search for several patterns at once.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Whether every text matches, whatever it contains.
    pub(super) is_all: bool,
    named: Vec<Named>,
    own: Vec<(String, Regex)>,
    literals: Option<Searcher>,
    /// The patterns that start with each literal; empty for an escape.
    owners: Vec<BTreeSet<usize>>,
    /// The patterns with a shape, and where they may start.
    near: Vec<(Shape, usize, Near)>,
}

#[derive(Debug)]
struct Named {
    pattern: &'static Pattern,
    /// The body from the start on, if it is a regular expression.
    regex: Option<Regex>,
}

/// The tag of `AnyValue.int_value`.
const INT_VALUE: u8 = 3 << 3;
/// The smallest card number.
pub(super) const LONG_NUMBER_MIN: u64 = 10_u64.pow(12);

/// Buckets of the searcher for literals.
const BUCKETS: usize = 8;

/// Unnecessary escapes of ASCII characters, which may hide a mark.
const ESCAPES: [&str; 6] = [r"\u002", r"\u003", r"\u004", r"\u005", r"\u006", r"\u007"];

impl Search {
    /// Creates a search that matches every text.
    pub(super) fn all() -> Self {
        Self { is_all: true, ..Self::default() }
    }

    /// Creates a search for these patterns and the user's own, by name. An error describes a mistake in the table.
    pub(super) fn new(
        patterns: &[&'static Pattern],
        own: Vec<(String, Regex)>,
    ) -> Result<Self, regex::Error> {
        let (mut named, mut near) = (Vec::new(), Vec::new());
        let mut literals: Vec<(&str, Option<usize>)> =
            ESCAPES.map(|escape| (escape, None)).to_vec();
        for (place, pattern) in patterns.iter().copied().enumerate() {
            let regex = match pattern.body {
                Body::Regex(body) => Some(Regex::new(&format!("^(?-u:{body})"))?),
                Body::Code(_) => None,
            };
            named.push(Named { pattern, regex });
            match pattern.start {
                Start::Literals(beginnings) => {
                    literals.extend(beginnings.iter().map(|literal| (*literal, Some(place))));
                }
                Start::Near(shape, start) => near.push((shape, place, start)),
            }
        }
        // A literal also stands for those that begin with it.
        literals.sort_unstable();
        let mut starts: Vec<(&str, BTreeSet<usize>)> = Vec::new();
        for (literal, place) in literals {
            match starts.last_mut() {
                Some((shorter, places)) if literal.starts_with(*shorter) => places.extend(place),
                _ => starts.push((literal, place.into_iter().collect())),
            }
        }
        // The searcher puts literals into its buckets in turn, goes by their first three bytes, and is fast if those in a bucket are alike.
        starts.sort_by_key(|(literal, _)| literal.as_bytes().get(2).map(|byte| byte >> 4));
        let columns: Vec<_> = starts.chunks(starts.len().div_ceil(BUCKETS)).collect();
        let rows = 0..columns.first().map_or(0, |column| column.len());
        let (literals, owners): (Vec<&str>, Vec<_>) = rows
            .flat_map(|row| {
                columns.iter().filter_map(move |column| column.get(row).or(column.last()))
            })
            .cloned()
            .unzip();
        Ok(Self { is_all: false, named, own, literals: searcher(&literals), owners, near })
    }

    pub(super) fn name(&self, place: usize) -> &str {
        match self.named.get(place) {
            Some(named) => named.pattern.name,
            None => self.own.get(place - self.named.len()).map_or("", |(name, _)| name),
        }
    }

    pub(super) fn is_named(&self, place: usize) -> bool {
        place < self.named.len()
    }

    /// Returns whether any text may contain a match: the user's own expressions can start anywhere.
    pub(super) fn is_anywhere(&self) -> bool {
        self.is_all || !self.own.is_empty()
    }

    /// Returns where patterns may start in a text or a wire.
    pub(super) fn marks(&self, wire: &[u8]) -> Marks {
        Marks((!self.is_anywhere()).then(|| self.starts(wire)))
    }

    /// Returns the places in a text or a wire where a named pattern may start, in ascending order.
    pub(super) fn starts(&self, wire: &[u8]) -> Vec<usize> {
        let mut marks = Vec::new();
        self.each_literal(wire, |literal, start| {
            let may_match = |place: &usize| self.may_begin(*place, wire, start);
            let owners = self.owners.get(literal);
            if owners.is_some_and(|owners| owners.is_empty() || owners.iter().any(may_match)) {
                marks.push(start);
            }
        });
        self.each_shape(wire, |_, _, at| marks.push(at));
        if self.near.iter().any(|(shape, ..)| *shape == Shape::Digits) {
            // The digits of a whole number are not in its message.
            let is_card = |at: &usize| {
                let field = wire.get(*at..).map(|rest| Fields::new(rest).next());
                let Some(Ok(Some((_, Content::Varint(bits @ LONG_NUMBER_MIN..))))) = field else {
                    return false;
                };
                !self.find(bits.cast_signed().to_string().as_bytes()).is_empty()
            };
            marks.extend(memchr_iter(INT_VALUE, wire).filter(is_card));
        }
        marks.sort_unstable();
        marks
    }

    /// Visits the places where a pattern may start by a shape, each with the pattern and a place within the match.
    fn each_shape(&self, text: &[u8], mut visit: impl FnMut(usize, usize, usize)) {
        let has_numbers = self.near.iter().any(|(shape, ..)| *shape != Shape::At);
        Shape::each(text, has_numbers, |found, at| {
            for (_, place, start) in self.near.iter().filter(|(shape, ..)| *shape == found) {
                if let Some(start) = start(text, at) {
                    visit(*place, start, at);
                }
            }
        });
    }

    /// Visits all literals in a text, even those that overlap others.
    fn each_literal(&self, text: &[u8], mut visit: impl FnMut(usize, usize)) {
        let mut at = 0;
        let first = |at: usize| self.literals.as_ref()?.find_in(text, (at..text.len()).into());
        while let Some(found) = first(at) {
            visit(found.pattern().as_usize(), found.start());
            at = found.start() + 1;
        }
    }

    /// Returns whether a pattern continues after its literal, regardless of its surroundings. Patterns in which an escape may occur are not
    /// checked.
    fn may_begin(&self, place: usize, text: &[u8], start: usize) -> bool {
        let Some(named) = self.named.get(place) else { return true };
        match (&named.regex, named.pattern.body) {
            (Some(regex), Body::Regex(body)) if !body.contains('/') => {
                text.get(start..).is_some_and(|rest| regex.is_match(rest))
            }
            _ => true,
        }
    }

    /// Returns all matches in a text without escapes, ordered and disjoint.
    pub(super) fn find(&self, text: &[u8]) -> Vec<PatternMatch> {
        let mut found = self.find_text(text);
        self.each_shape(text, |place, start, _| {
            found.extend(self.try_named(place, text, start));
        });
        found.sort_by_key(|(_, name)| *name);
        apart(found)
    }

    /// Returns the matches that may contain quotes, so that they may span several tokens of JSON: those with literals, and of the user's own
    /// expressions.
    pub(super) fn find_text(&self, text: &[u8]) -> Vec<PatternMatch> {
        let mut found = Vec::new();
        let mut done = 0;
        self.each_literal(text, |literal, start| {
            let mut owners = self.owners.get(literal).into_iter().flatten();
            let match_here = |place: &usize| self.try_named(*place, text, start);
            if start >= done
                && !is_in_base64(text, start)
                && let Some(one) = owners.find_map(match_here)
            {
                done = one.0.end;
                found.push(one);
            }
        });
        for (place, (_, regex)) in (self.named.len()..).zip(&self.own) {
            let matches = regex.find_iter(text).filter(|found| !found.is_empty());
            found.extend(matches.map(|found| (found.range(), place)));
        }
        found
    }

    /// Tries a pattern at a possible start.
    fn try_named(&self, place: usize, text: &[u8], start: usize) -> Option<PatternMatch> {
        let Named { pattern, regex } = self.named.get(place)?;
        let range = match (regex, pattern.body) {
            (Some(regex), _) => {
                let groups = regex.captures(text.get(start..)?)?;
                let found = groups.get(1).or(groups.get(0))?.range();
                start + found.start..start + found.end
            }
            (None, Body::Code(reach)) => reach(text, start)?,
            (None, Body::Regex(_)) => return None,
        };
        let is_word = pattern.has_digit && !has_digit(text.get(range.clone())?);
        (!is_word && pattern.edges.hold(text, start..range.end)).then_some((range, place))
    }
}

/// Where patterns may start in a wire; `None` if anywhere.
#[derive(Debug)]
pub(super) struct Marks(Option<Vec<usize>>);

impl Marks {
    /// Returns whether there may be a match at all.
    pub(super) fn any(&self) -> bool {
        self.0.as_ref().is_none_or(|marks| !marks.is_empty())
    }

    /// Returns the marks in a part of the wire.
    pub(super) fn within(&self, part: &Range<usize>) -> Self {
        let marks = self.0.as_ref().map(|marks| {
            let of_part = marks.iter().filter(|mark| part.contains(mark));
            of_part.map(|mark| mark - part.start).collect()
        });
        Self(marks)
    }

    /// Returns whether there may be a match in a part of the wire.
    pub(super) fn touch(&self, part: &Range<usize>) -> bool {
        let Some(marks) = &self.0 else { return true };
        let first = marks.partition_point(|mark| *mark < part.start);
        marks.get(first).is_some_and(|mark| *mark < part.end)
    }
}

impl Edges {
    fn hold(self, text: &[u8], range: Range<usize>) -> bool {
        let before = range.start.checked_sub(1).and_then(|before| text.get(before).copied());
        let after = text.get(range.end).copied();
        match self {
            Self::Word => !is_word(before) && !is_word(after),
            Self::Number(bytes) => {
                let is_digit = text.get(range.start).is_some_and(u8::is_ascii_digit);
                let is_more = is_digit && before.is_some_and(|before| bytes.contains(&before));
                !is_more && Self::Word.hold(text, range)
            }
            Self::Token => !is_word(before) && !matches!(before, Some(b'-' | b'_')),
            Self::Right => !is_word(after),
            Self::Free => true,
        }
    }
}

/// Orders matches, or what replaces them, and merges those that overlap; of two that start together, the first one counts.
pub(super) fn apart<T>(mut found: Vec<(Range<usize>, T)>) -> Vec<(Range<usize>, T)> {
    found.sort_by_key(|(range, _)| range.start);
    found.dedup_by(|(next, _), (last, _)| {
        let overlaps = next.start < last.end;
        last.end = if overlaps { last.end.max(next.end) } else { last.end };
        overlaps
    });
    found
}

/// Returns a search for many literals at once, with the processor's vector instructions if it has them.
fn searcher(literals: &[&str]) -> Option<Searcher> {
    let build = |config: &Config| config.builder().extend(literals).build();
    build(&Config::new()).or_else(|| build(Config::new().only_rabin_karp(true)))
}
