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

use super::checks::{CARD_DIGITS_MIN, Run, is_in_base64, is_word, may_tell};
use super::patterns::{Body, Edges, NumberStart, Pattern, Start};
use crate::normalize::wire::{Content, Fields};

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
    literals: Option<Searcher>,
    /// The patterns that start with each literal; empty for an escape.
    owners: Vec<BTreeSet<usize>>,
    /// The patterns around an `@`.
    around_at: Vec<usize>,
    /// The patterns that start with digits, and where each may start.
    numbers: Vec<(usize, NumberStart)>,
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
        let (mut named, mut around_at, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
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
                Start::Digits(start) => numbers.push((place, start)),
                Start::AroundAt => around_at.push(place),
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
        Ok(Self {
            is_all: false,
            named,
            own,
            literals: searcher(&literals),
            owners,
            around_at,
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
        self.each_start(wire, |_, Range { start, end }| {
            // Digits of other texts may be next to those of the text.
            marks.extend([start, (end - 1).min(start + CARD_DIGITS_MIN - 1), end - 1]);
        });
        if !self.numbers.is_empty() {
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

    /// Visits the places where a pattern may start at an `@` or a number, with the pattern and what was found.
    fn each_start(&self, text: &[u8], mut visit: impl FnMut(usize, Range<usize>)) {
        for at in memchr_iter(b'@', text).take_while(|_| !self.around_at.is_empty()) {
            let matches = |place: &&usize| self.try_named(**place, text, at).is_some();
            self.around_at.iter().filter(matches).for_each(|place| visit(*place, at..at + 1));
        }
        if !self.numbers.is_empty() {
            each_run(text, |run| {
                let starts = self.numbers.iter();
                for (place, start) in
                    starts.filter_map(|(place, start)| Some((*place, start(run)?)))
                {
                    visit(place, start..run.end);
                }
            });
        }
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
        let mut found = Vec::new();
        let mut done = 0;
        self.each_literal(text, |literal, start| {
            let mut owners = self.owners.get(literal).into_iter().flatten();
            let match_here = |place: &usize| self.try_named(*place, text, start);
            if start >= done
                && !is_in_base64(text, start)
                && let Some(one) = owners.find_map(match_here)
            {
                done = one.range.end;
                found.push(one);
            }
        });
        self.each_start(text, |place, Range { start, .. }| {
            found.extend(self.try_named(place, text, start));
        });
        for (place, (_, regex)) in (self.named.len()..).zip(&self.own) {
            let matches = regex.find_iter(text).filter(|found| !found.is_empty());
            found.extend(matches.map(|found| PatternMatch { range: found.range(), name: place }));
        }
        let found = found.into_iter().map(|found| (found, ()));
        apart(found.collect()).into_iter().map(|(found, ())| found).collect()
    }

    /// Tries a pattern at a possible start.
    fn try_named(&self, place: usize, text: &[u8], start: usize) -> Option<PatternMatch> {
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
        let is_it = pattern.edges.hold(text, whole.start..inner.end)
            && (pattern.check)(text.get(inner.clone())?);
        is_it.then_some(PatternMatch { range: inner, name: place })
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

/// Bytes that are searched for digits together.
const BLOCK_BYTES: usize = u64::BITS as usize;
/// Distance between two colons of an IPv6 address.
const COLON_DISTANCE_MAX: u32 = 5;

/// Visits the runs of digits in a text that may be part of a number, and the colons that may be part of an address.
fn each_run<'t>(text: &'t [u8], mut visit: impl FnMut(&Run<'t>)) {
    let mut last = [0; BLOCK_BYTES];
    let (blocks, rest) = text.as_chunks::<BLOCK_BYTES>();
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let (mut begin, mut digits_before, mut colons_before) = (0, 0, 0);
    for block in blocks.iter().chain([&last]) {
        let digits = bits_of(block, |byte| byte.is_ascii_digit());
        let colons = bits_of(block, |byte| byte == b':');
        let near = (1..=COLON_DISTANCE_MAX).fold(0, |near, distance| {
            near | colons << distance | colons_before >> (u64::BITS - distance)
        });
        let firsts = digits & !(digits << 1 | digits_before >> (u64::BITS - 1));
        let mut places = firsts | colons & near;
        while places != 0 {
            let place = places.trailing_zeros();
            places &= places - 1;
            let count = (digits >> place).trailing_ones().max(1) as usize;
            let start = begin + place as usize;
            if !may_tell(text, start..start + count) {
                continue;
            }
            // Digits may go on in the next block.
            let end = start + count;
            let rest = text.get(end..).filter(|_| end == begin + BLOCK_BYTES);
            let more = rest.unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
            visit(&Run { text, start, end: end + more.count() });
        }
        (digits_before, colons_before) = (digits, colons);
        begin += BLOCK_BYTES;
    }
}

/// Sets a bit for each byte of a kind.
fn bits_of(block: &[u8; BLOCK_BYTES], is_of_kind: impl Fn(u8) -> bool) -> u64 {
    // The compiler uses vectors for this.
    let mut flags = [0; BLOCK_BYTES];
    for (flag, byte) in flags.iter_mut().zip(block) {
        *flag = u8::from(is_of_kind(*byte));
    }
    let (words, _) = flags.as_chunks();
    let mut all = [0; size_of::<u64>()];
    for (bits, word) in all.iter_mut().zip(words) {
        // The lowest bits of all bytes get into the last one.
        [.., *bits] = u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080).to_le_bytes();
    }
    u64::from_le_bytes(all)
}

/// Returns a search for many literals at once, with the processor's vector instructions if it has them.
fn searcher(literals: &[&str]) -> Option<Searcher> {
    let build = |config: &Config| config.builder().extend(literals).build();
    build(&Config::new()).or_else(|| build(Config::new().only_rabin_karp(true)))
}
