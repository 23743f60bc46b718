//! The set of acknowledged spans, one bit each, and its comparison with a file.

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde::de::IgnoredAny;

use super::senders::{NAME, text_of};

/// A set of span numbers.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    bits: Vec<u64>,
    spans: u32,
}

/// The differences between a file and the acknowledged spans.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Number of lines with a span of the test.
    pub(crate) lines: u64,
    /// Acknowledged and absent. Must be empty.
    pub(crate) missing: Vec<u32>,
    /// Present more than once. Must be empty.
    pub(crate) doubled: Vec<u32>,
    /// Present, but not as sent: invalid JSON, or another text. Must be empty.
    pub(crate) damaged: Vec<String>,
    /// Present without an acknowledgement, which is possible if the daemon was killed before it answered.
    pub(crate) early: u64,
}

impl Ledger {
    pub(crate) fn new(spans: u32) -> Self {
        Self { bits: vec![0; spans.div_ceil(64) as usize], spans }
    }

    /// Adds a span; returns whether it is new.
    pub(crate) fn add(&mut self, number: u32) -> bool {
        let (word, bit) = (&mut self.bits[number as usize / 64], 1 << (number % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        self.bits[number as usize / 64] & (1 << (number % 64)) != 0
    }

    /// Reads a file of JSON lines, in constant memory.
    pub(crate) fn compare(&self, file: &Path) -> Found {
        let mut found = Found::default();
        let mut seen = Self::new(self.spans);
        let mut lines = BufReader::new(File::open(file).unwrap());
        let mut line = String::new();
        while 0 < lines.read_line(&mut line).unwrap() {
            found.lines += 1;
            match number_of(&line) {
                Ok(Some(number)) if self.spans <= number => {
                    found.damaged.push(format!("span {number} was never sent"));
                }
                Ok(Some(number)) if !seen.add(number) => found.doubled.push(number),
                Ok(Some(number)) => found.early += u64::from(!self.has(number)),
                Ok(None) => found.lines -= 1,
                Err(what) => found.damaged.push(what),
            }
            line.clear();
        }
        found.missing =
            (0..self.spans).filter(|number| self.has(*number) && !seen.has(*number)).collect();
        found
    }
}

impl Found {
    pub(crate) fn has_all_that_was_acknowledged(&self) {
        self.lacks_nothing();
        assert!(
            self.doubled.is_empty(),
            "delivered twice: {self}; first {:?}",
            first(&self.doubled)
        );
    }

    /// Asserts that nothing is missing or damaged; spans may be there twice.
    pub(crate) fn lacks_nothing(&self) {
        assert!(
            self.missing.is_empty(),
            "acknowledged and lost: {self}; first {:?}",
            first(&self.missing)
        );
        assert!(self.damaged.is_empty(), "not as sent: {self}; first {:?}", first(&self.damaged));
    }

    /// Asserts in addition that nothing is early, once everything was acknowledged.
    pub(crate) fn is_exactly_once(&self) {
        self.has_all_that_was_acknowledged();
        assert_eq!(self.early, 0, "in the file, but never acknowledged");
    }
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missing, doubled, damaged) =
            (self.missing.len(), self.doubled.len(), self.damaged.len());
        write!(
            out,
            "{} lines: {missing} missing, {doubled} twice, {damaged} damaged, {} not acknowledged",
            self.lines, self.early
        )
    }
}

fn first<T>(all: &[T]) -> &[T] {
    const SHOWN: usize = 20;
    &all[..all.len().min(SHOWN)]
}

/// Returns the number of a line's span, or why it is not as sent; `None` for a line without one, such as a trace object.
fn number_of(line: &str) -> Result<Option<u32>, String> {
    let shown = || line.chars().take(300).collect::<String>();
    if !line.ends_with('\n') || serde_json::from_str::<IgnoredAny>(line).is_err() {
        return Err(format!("not a line of JSON: {}", shown()));
    }
    let mut numbers = line.match_indices(NAME).map(|(at, _)| digits_at(line, at + NAME.len()));
    let Some(number) = numbers.next() else { return Ok(None) };
    if numbers.any(|other| other != number) {
        return Err(format!("two spans in one line: {}", shown()));
    }
    let number = number.ok_or_else(|| format!("no number: {}", shown()))?;
    if line.contains(&text_of(number)) {
        Ok(Some(number))
    } else {
        Err(format!("another text: {}", shown()))
    }
}

fn digits_at(line: &str, at: usize) -> Option<u32> {
    let digits: String = line[at..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
