//! What a rule's `match` asks, and how an item answers. Pure.

use regex::Regex;

use super::field::{Beside, Fact, Field, Found};
use crate::span::Item;

/// Something that holds for an item or does not.
#[derive(Debug)]
pub(super) enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// This does not hold, or cannot be told.
    Unless(Box<Self>),
    /// One of the field's values passes one of the tests.
    Field(Field, Vec<Test>),
}

/// What is asked of one value.
#[derive(Debug)]
pub(super) enum Test {
    Exists,
    Text(String),
    /// A pattern that the text has; a glob is one that is the whole text.
    Pattern(Regex),
    Number(Comparison, f64),
    Flag(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

impl Condition {
    /// Whether it holds; `None` where the item's form has not what it takes to know: a trace object has no kind, so that neither a
    /// rule for a kind nor one for all but a kind is for it.
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

    /// Whether it can be answered without reading what the client wrote.
    pub(super) fn is_at_hand(&self) -> bool {
        self.asks_only(Field::is_at_hand)
    }

    /// Whether it asks for nothing but who sent the request and how, so that it is for whole requests.
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

/// What several conditions come to, where one that says `decisive` decides.
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
    /// Clients write numbers and flags as texts too, so what a text stands for is compared where one of these is asked for.
    fn is_met_by(&self, found: Found<'_>) -> bool {
        match (self, found) {
            (Self::Exists, _) => true,
            (Self::Text(wanted), Found::Text(text)) => text == wanted,
            (Self::Text(wanted), Found::Number(number)) => wanted.parse() == Ok(number),
            (Self::Text(wanted), Found::Flag(flag)) => wanted.parse() == Ok(flag),
            (Self::Pattern(pattern), Found::Text(text)) => pattern.is_match(text),
            (Self::Number(comparison, wanted), Found::Number(number)) => {
                comparison.holds(number, *wanted)
            }
            (Self::Number(comparison, wanted), Found::Text(text)) => {
                text.parse().is_ok_and(|number| comparison.holds(number, *wanted))
            }
            (Self::Flag(wanted), Found::Flag(flag)) => flag == *wanted,
            (Self::Flag(wanted), Found::Text(text)) => text.parse() == Ok(*wanted),
            _ => false,
        }
    }
}

impl Comparison {
    /// All of them as they are written, longer ones before those that they begin with.
    pub(super) const WRITTEN: [(&str, Self); 5] = [
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("<", Self::Less),
        (">", Self::More),
        ("=", Self::Equal),
    ];

    #[expect(clippy::float_cmp, reason = "a user who asks for 0.25 means 0.25")]
    fn holds(self, number: f64, wanted: f64) -> bool {
        match self {
            Self::Less => number < wanted,
            Self::AtMost => number <= wanted,
            Self::Equal => number == wanted,
            Self::AtLeast => wanted <= number,
            Self::More => wanted < number,
        }
    }
}
