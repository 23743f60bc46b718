//! Finds patterns in a text.
//!
//! Most texts contain no match. So a wire is first searched as a whole for marks ([`Search::marks`]): literals with which patterns start,
//! `@`, double colons, and escapes of ASCII characters, which may hide any of these. Digits are meaningful only within a text, whose ends
//! are not visible in the wire, so they are searched for text by text ([`Search::has_numbers`]). Only a text with one of these is searched
//! exactly ([`Search::find`]).

use std::ops::Range;

use aho_corasick::packed::{Builder, Searcher};
use aho_corasick::{AhoCorasick, Match};
use memchr::memchr_iter;
use regex::bytes::Regex;

use super::checks::{Run, is_in_base64, is_word};
use super::patterns::{Body, Edges, MayStand, NumberStart, Pattern, Start};

/// A match and its pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PatternMatch {
    pub(super) range: Range<usize>,
    /// The pattern's index in the search's names.
    pub(super) name: usize,
}

/// A search for several patterns at once.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Whether every text matches, whatever it contains.
    pub(super) is_all: bool,
    named: Vec<Named>,
    own: Vec<(String, Regex)>,
    literals: Literals,
    /// The patterns that start with each literal; empty for an escape.
    owners: Vec<Vec<usize>>,
    /// Bytes around which patterns match: the byte, a test of its surroundings, and the patterns.
    around: Vec<(u8, MayStand, Vec<usize>)>,
    /// The patterns that start with digits, and where each may start.
    numbers: Vec<(usize, NumberStart)>,
}

#[derive(Debug)]
struct Named {
    pattern: &'static Pattern,
    /// The body from the start on, if it is a regular expression.
    regex: Option<Regex>,
}

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
        let (mut named, mut numbers) = (Vec::new(), Vec::new());
        let mut around: Vec<(u8, _, Vec<usize>)> = Vec::new();
        let mut literals: Vec<&str> = ESCAPES.to_vec();
        let mut owners = vec![Vec::new(); ESCAPES.len()];
        for (place, pattern) in patterns.iter().copied().enumerate() {
            let regex = match pattern.body {
                Body::Regex(body) => Some(Regex::new(&format!("^(?-u:{body})"))?),
                Body::Code(_) => None,
            };
            named.push(Named { pattern, regex });
            match pattern.start {
                Start::Literals(beginnings) => {
                    literals.extend(beginnings);
                    owners.resize(literals.len(), vec![place]);
                }
                Start::Digits(start) => numbers.push((place, start)),
                Start::Around(byte, may_be) => {
                    match around.iter_mut().find(|(known, ..)| *known == byte) {
                        Some((.., places)) => places.push(place),
                        None => around.push((byte, may_be, vec![place])),
                    }
                }
            }
        }
        // If one literal is a prefix of another, finding either counts for both.
        let owned = owners.clone();
        for (owners, literal) in owners.iter_mut().zip(&literals) {
            let is_like = |other: &str| other.starts_with(literal) || literal.starts_with(other);
            let like = literals.iter().zip(&owned).filter(|(other, _)| is_like(other));
            *owners = like.flat_map(|(_, owners)| owners.iter().copied()).collect();
            owners.sort_unstable();
            owners.dedup();
        }
        Ok(Self {
            is_all: false,
            named,
            own,
            literals: Literals::new(&literals),
            owners,
            around,
            numbers,
        })
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

    /// Returns whether some of the patterns start with digits.
    pub(super) fn is_after_numbers(&self) -> bool {
        !self.numbers.is_empty()
    }

    /// Returns whether a text may contain a match.
    pub(super) fn may_match(&self, text: &[u8]) -> bool {
        self.is_anywhere() || !self.marks(text).is_empty() || self.has_numbers(text)
    }

    /// Returns the places in a wire where a pattern may start, digits aside, in ascending order. A text without marks in its range and
    /// without numbers contains no match.
    pub(super) fn marks(&self, wire: &[u8]) -> Vec<usize> {
        let mut marks = Vec::new();
        self.literals.each(wire, |literal, start| {
            let owners = self.owners.get(literal).map(Vec::as_slice).unwrap_or_default();
            let may_match = |place: &usize| self.may_begin(*place, wire, start);
            if owners.is_empty() || owners.iter().any(may_match) {
                marks.push(start);
            }
        });
        for (byte, may_be, _) in &self.around {
            marks.extend(memchr_iter(*byte, wire).filter(|at| may_be(wire, *at)));
        }
        marks.sort_unstable();
        marks
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

    /// Returns whether a text contains numbers that a pattern may match.
    pub(super) fn has_numbers(&self, text: &[u8]) -> bool {
        let mut found = Vec::new();
        !self.numbers.is_empty()
            && each_run(text, |run| {
                self.try_numbers(&run, Looks::Loosely, &mut found);
                // Digits that belong to a preceding escape do not count.
                let behind = Run { start: behind_escape(&run), ..run };
                if behind.start != run.start {
                    self.try_numbers(&behind, Looks::Loosely, &mut found);
                }
                !found.is_empty()
            })
    }

    /// Returns all matches in a text without escapes, ordered and disjoint.
    pub(super) fn find(&self, text: &[u8]) -> Vec<PatternMatch> {
        let mut found = Vec::new();
        let mut done = 0;
        self.literals.each(text, |literal, start| {
            let mut owners = self.owners.get(literal).into_iter().flatten();
            let match_here = |place: &usize| self.try_named(*place, text, start, Looks::Exactly);
            if start >= done
                && !is_in_base64(text, start)
                && let Some(one) = owners.find_map(match_here)
            {
                done = one.range.end;
                found.push(one);
            }
        });
        for (byte, may_be, places) in &self.around {
            for at in memchr_iter(*byte, text).filter(|at| may_be(text, *at)) {
                let at_mark = |place: &usize| self.try_named(*place, text, at, Looks::Exactly);
                found.extend(places.iter().filter_map(at_mark));
            }
        }
        if !self.numbers.is_empty() {
            each_run(text, |run| {
                self.try_numbers(&run, Looks::Exactly, &mut found);
                false
            });
        }
        for (place, (_, regex)) in (self.named.len()..).zip(&self.own) {
            let matches = regex.find_iter(text).filter(|found| !found.is_empty());
            found.extend(matches.map(|found| PatternMatch { range: found.range(), name: place }));
        }
        let found = found.into_iter().map(|found| (found, ()));
        apart(found.collect()).into_iter().map(|(found, ())| found).collect()
    }

    fn try_numbers(&self, run: &Run<'_>, looks: Looks, found: &mut Vec<PatternMatch>) {
        for (place, start) in &self.numbers {
            if let Some(start) = start(run) {
                found.extend(self.try_named(*place, run.text, start, looks));
            }
        }
    }

    /// Tries a pattern at a possible start.
    fn try_named(
        &self,
        place: usize,
        text: &[u8],
        start: usize,
        looks: Looks,
    ) -> Option<PatternMatch> {
        let Named { pattern, regex } = self.named.get(place)?;
        let (whole, inner) = match (regex, pattern.body) {
            (Some(regex), _) => {
                let groups = regex.captures(text.get(start..)?)?;
                let shifted = |found: regex::bytes::Match<'_>| {
                    found.range().start + start..found.range().end + start
                };
                let whole = shifted(groups.get(0)?);
                (whole.clone(), groups.get(1).map_or(whole, shifted))
            }
            (None, Body::Code(reach)) => {
                let range = reach(text, start)?;
                (range.clone(), range)
            }
            (None, Body::Regex(_)) => return None,
        };
        let stands_alone =
            looks == Looks::Loosely || pattern.edges.hold(text, whole.start..inner.end);
        let is_it = stands_alone && (pattern.check)(text.get(inner.clone())?);
        is_it.then_some(PatternMatch { range: inner, name: place })
    }
}

/// Whether the characters around a match are checked. In a text with escapes they are not, because a neighbour may be an escape's letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    Loosely,
    Exactly,
}

impl Edges {
    fn hold(self, text: &[u8], range: Range<usize>) -> bool {
        let before = range.start.checked_sub(1).and_then(|before| text.get(before).copied());
        let after = text.get(range.end).copied();
        match self {
            Self::Word => !is_word(before) && !is_word(after),
            Self::Token => !is_word(before) && !matches!(before, Some(b'-' | b'_')),
            Self::Right => !is_word(after),
            Self::Free => true,
        }
    }
}

/// Orders matches and merges those that overlap; the first one's name is kept.
pub(super) fn apart<T>(mut found: Vec<(PatternMatch, T)>) -> Vec<(PatternMatch, T)> {
    found.sort_by_key(|(found, _)| (found.range.start, found.name));
    let mut apart: Vec<(PatternMatch, T)> = Vec::with_capacity(found.len());
    for next in found {
        match apart.last_mut() {
            Some((last, _)) if next.0.range.start < last.range.end => {
                last.range.end = last.range.end.max(next.0.range.end);
            }
            _ => apart.push(next),
        }
    }
    apart
}

/// Bytes that are searched for digits together, as vectors.
const CHUNK_BYTES: usize = 32;
/// Bytes that are searched together once there is a digit.
const WORD_BYTES: usize = size_of::<u64>();

/// Visits the runs of digits in a text until `visit` returns true; returns whether it did. Most chunks contain no digits and are skipped as
/// a whole.
fn each_run<'t>(text: &'t [u8], mut visit: impl FnMut(Run<'t>) -> bool) -> bool {
    let (chunks, rest) = text.as_chunks::<CHUNK_BYTES>();
    let mut at = 0;
    for (index, chunk) in chunks.iter().enumerate() {
        if !chunk.iter().fold(false, |any, byte| any | byte.is_ascii_digit()) {
            continue;
        }
        let begin = index * CHUNK_BYTES;
        for (index, word) in chunk.as_chunks::<WORD_BYTES>().0.iter().enumerate() {
            if runs_in(text, begin + index * WORD_BYTES, *word, &mut at, &mut visit) {
                return true;
            }
        }
    }
    let begin = text.len() - rest.len();
    (rest.chunks(WORD_BYTES).enumerate()).any(|(index, piece)| {
        let mut word = [0; WORD_BYTES];
        word.iter_mut().zip(piece).for_each(|(to, from)| *to = *from);
        runs_in(text, begin + index * WORD_BYTES, word, &mut at, &mut visit)
    })
}

/// Visits the runs of digits that start in a word of a text, from an index on; moves the index past them.
fn runs_in<'t>(
    text: &'t [u8],
    begin: usize,
    word: [u8; WORD_BYTES],
    at: &mut usize,
    visit: &mut impl FnMut(Run<'t>) -> bool,
) -> bool {
    let (mut digits, mut place) = (digits_of(u64::from_le_bytes(word)), begin);
    while digits != 0 {
        let gap = digits.trailing_zeros() / u8::BITS;
        let row = (!(digits >> (gap * u8::BITS)) & LOWEST).trailing_zeros() / u8::BITS;
        digits = digits.checked_shr((gap + row) * u8::BITS).unwrap_or(0);
        let start = place + gap as usize;
        place = start + row as usize;
        let rest = text.get(begin + WORD_BYTES..).filter(|_| place == begin + WORD_BYTES);
        let more = rest.unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
        let run = Run { text, start, end: place + more.count() };
        if start < *at {
            continue;
        }
        *at = run.end;
        if run.is_telling() && visit(run) {
            return true;
        }
    }
    false
}

/// The lowest bit of each byte.
const LOWEST: u64 = u64::MAX / 0xff;

/// Sets the lowest bit of each byte that is a digit.
fn digits_of(word: u64) -> u64 {
    let value = word ^ (LOWEST * u64::from(b'0'));
    // In 7 bits, values from 10 on become at least 128.
    (!(((value & (LOWEST * 0x7f)) + LOWEST * 0x76) | value) >> 7) & LOWEST
}

/// Returns where digits start after an escape `\uXXXX` that contains some of them.
fn behind_escape(run: &Run<'_>) -> usize {
    let near = run.text.get(run.start.saturating_sub(5)..run.start).unwrap_or_default();
    match near.windows(2).rposition(|pair| pair == br"\u") {
        Some(place) => (run.start - near.len() + place + 6).clamp(run.start, run.end),
        None => run.start,
    }
}

/// A search for many literals at once.
#[derive(Debug, Default)]
enum Literals {
    /// With the processor's vector instructions.
    Packed(Searcher),
    /// For processors without them.
    Automaton(AhoCorasick),
    #[default]
    Nothing,
}

impl Literals {
    fn new(literals: &[&str]) -> Self {
        let mut builder = Builder::new();
        builder.extend(literals);
        match builder.build() {
            Some(searcher) => Self::Packed(searcher),
            None => AhoCorasick::new(literals).map_or(Self::Nothing, Self::Automaton),
        }
    }

    fn each(&self, text: &[u8], mut visit: impl FnMut(usize, usize)) {
        let mut visit = |found: Match| visit(found.pattern().as_usize(), found.start());
        match self {
            Self::Packed(searcher) => searcher.find_iter(text).for_each(visit),
            Self::Automaton(automaton) => automaton.find_iter(text).for_each(&mut visit),
            Self::Nothing => (),
        }
    }
}
