//! The conditions of rules (`match`), and how they are evaluated for an item. Pure.

use regex::{Regex, escape};

use super::field::{Beside, Fact, Field, FieldValue};
use crate::span::Item;

/// A condition on an item.
#[derive(Debug)]
pub(super) enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// The inner condition is false or undecidable.
    Unless(Box<Self>),
    /// One of the field's values passes one of the tests.
    Field(Field, Vec<Test>),
}

/// A test of one value.
#[derive(Debug)]
pub(super) enum Test {
    Exists,
    Text(String),
    /// A pattern that occurs in the text; a glob is anchored at both ends.
    Pattern(Regex),
    Number(Comparison, f64),
    Flag(bool),
}

/// A comparison of a value with the wanted number.
pub(super) type Comparison = fn(&f64, &f64) -> bool;

/// All comparisons as written; longer ones come before their prefixes.
pub(super) const COMPARISONS: [(&str, Comparison); 5] =
    [("<=", f64::le), (">=", f64::ge), ("<", f64::lt), (">", f64::gt), ("=", f64::eq)];

impl Condition {
    /// Evaluates the condition. Returns `None` if the item's form lacks the field: a trace object has no kind, so neither a rule for a kind
    /// nor one for all other kinds matches it.
    pub(super) fn holds(&self, beside: Beside<'_>, item: &Item) -> Option<bool> {
        match self {
            Self::All(all) => decide(all, false, beside, item),
            Self::Any(any) => decide(any, true, beside, item),
            Self::Not(inner) => inner.holds(beside, item).map(|holds| !holds),
            Self::Unless(inner) => Some(inner.holds(beside, item) != Some(true)),
            Self::Field(field, tests) => {
                field.any(beside, item, &mut |found| tests.iter().any(|test| test.is_met_by(found)))
            }
        }
    }

    /// Returns whether it can be evaluated without reading the contents.
    pub(super) fn is_at_hand(&self) -> bool {
        self.asks_only(Field::is_at_hand)
    }

    /// Returns whether it tests only the sender and the receiver, so that it holds for whole requests.
    pub(super) fn is_of_sender(&self) -> bool {
        self.asks_only(|field| matches!(field, Field::Fact(Fact::Tenant | Fact::Receiver)))
    }

    fn asks_only(&self, is_such: fn(&Field) -> bool) -> bool {
        match self {
            Self::All(several) | Self::Any(several) => {
                several.iter().all(|one| one.asks_only(is_such))
            }
            Self::Not(inner) | Self::Unless(inner) => inner.asks_only(is_such),
            Self::Field(field, _) => is_such(field),
        }
    }
}

/// Combines several conditions; the first result equal to `decisive` decides.
fn decide(several: &[Condition], decisive: bool, beside: Beside<'_>, item: &Item) -> Option<bool> {
    let mut answer = Some(!decisive);
    for one in several {
        match one.holds(beside, item) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => {}
            None => answer = None,
        }
    }
    answer
}

impl Test {
    /// Tests a value. Clients also write numbers and flags as texts, so texts are parsed if the test is for one of these.
    fn is_met_by(&self, found: FieldValue<'_>) -> bool {
        match (self, found) {
            (Self::Exists, _) => true,
            (Self::Text(wanted), FieldValue::Text(text)) => text == wanted,
            (Self::Text(wanted), FieldValue::Number(number)) => wanted.parse() == Ok(number),
            (Self::Text(wanted), FieldValue::Flag(flag)) => wanted.parse() == Ok(flag),
            (Self::Pattern(pattern), FieldValue::Text(text)) => pattern.is_match(text),
            (Self::Number(comparison, wanted), FieldValue::Number(number)) => {
                comparison(&number, wanted)
            }
            (Self::Number(comparison, wanted), FieldValue::Text(text)) => {
                text.parse().is_ok_and(|number| comparison(&number, wanted))
            }
            (Self::Flag(wanted), FieldValue::Flag(flag)) => flag == *wanted,
            (Self::Flag(wanted), FieldValue::Text(text)) => text.parse() == Ok(*wanted),
            _ => false,
        }
    }
}

/// Returns a pattern for a glob: `*` stands for any text, `?` for one character. Returns `None` if the pattern is too long.
pub fn glob(form: &str) -> Option<Regex> {
    let pattern = escape(form).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("(?s)^{pattern}$")).ok()
}
