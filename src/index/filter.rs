//! Filters for traces: `agent:triage status:error dur:>2s tokens:>1000 refund`. Pure.
//!
//! | word | meaning |
//! |---|---|
//! | `agent: tool: model: workflow: session: user:` | a name of the trace contains this, ignoring case; with `=` before it, equals this |
//! | `status:error`, `status:ok` | whether a span failed, other than with an error after which the run went on |
//! | `dur: tokens: cost: spans: errors:` | compares, with `>`, `>=`, `<`, `<=` or `=`: a length of time, a number, dollars |
//! | a trace's id, as 32 digits or of the Agents SDK | it is this trace |
//! | any other text | one of its names contains this; with `=` before it, equals this |
//!
//! All words must hold; `-` before a word negates it. Double quotes keep spaces together: `agent:"Triage agent"`.

use std::cmp::Ordering;
use std::ops::Range;

use super::By;
use super::summary::SettledTrace;
use super::trace::nanos_of;
use crate::span::TraceId;
use crate::support::clock::nanos;
use crate::support::duration::Duration;
use crate::support::options::did_you_mean;

/// A condition on traces: tests, each with whether it is negated.
#[derive(Debug, Clone, Default)]
pub struct Filter(Vec<(bool, Test)>);

/// An invalid word, with its position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}\n  {text}\n  {}{}\n{hint}", " ".repeat(self.letters(0..self.at.start)), "^".repeat(self.letters(self.at.clone()).max(1)))]
pub struct FilterMistake {
    text: String,
    at: Range<usize>,
    what: String,
    hint: String,
}

#[derive(Debug, Clone)]
enum Test {
    /// One of these names contains the text, which is lowercase; with `=` before it, equals it.
    Has(NamesOf, String),
    HasFailed(bool),
    Is(TraceId),
    /// A number compares in this way with another.
    Compares(FigureOf, &'static [Ordering], u64),
}

type NamesOf = for<'t> fn(&SettledTrace<'t>) -> Vec<&'t str>;
type FigureOf = fn(&SettledTrace<'_>) -> u64;

/// The meaning of a word.
enum Kind {
    Names(NamesOf),
    Status,
    Figure(FigureOf, Unit),
}

/// The unit of a number: how to parse it, and what to say if it is invalid.
struct Unit {
    read: fn(&str) -> Option<u64>,
    what: &'static str,
    hint: &'static str,
}

const NUMBER: Unit = Unit {
    read: |text| text.parse().ok(),
    what: "not a whole number",
    hint: "write tokens:>1000 or spans:=1",
};
const TIME: Unit = Unit {
    read: |text| text.parse::<Duration>().ok().map(|length| nanos(length.0)),
    what: "not a duration",
    hint: "write dur:>2s or dur:<=1m30s",
};
const DOLLARS: Unit = Unit {
    read: |text| text.trim_start_matches('$').parse().ok().and_then(nanos_of),
    what: "not an amount in dollars",
    hint: "write cost:>0.05",
};

#[expect(
    clippy::redundant_closure_for_method_calls,
    reason = "the method is for one lifetime, the closure for all"
)]
const WORDS: [(&str, Kind); 12] = [
    ("agent", Kind::Names(|trace| trace.all(By::Agent).collect())),
    ("tool", Kind::Names(|trace| trace.all(By::Tool).collect())),
    ("model", Kind::Names(|trace| trace.all(By::Model).collect())),
    ("workflow", Kind::Names(|trace| trace.text(trace.trace.workflow).into_iter().collect())),
    ("session", Kind::Names(|trace| trace.text(trace.trace.session).into_iter().collect())),
    ("user", Kind::Names(|trace| trace.text(trace.trace.user).into_iter().collect())),
    ("status", Kind::Status),
    ("dur", Kind::Figure(|trace| trace.duration_ns(), TIME)),
    ("tokens", Kind::Figure(|trace| trace.trace.sums.total, NUMBER)),
    ("cost", Kind::Figure(|trace| trace.trace.sums.cost_nanos().unwrap_or(0), DOLLARS)),
    ("spans", Kind::Figure(|trace| trace.trace.spans, NUMBER)),
    ("errors", Kind::Figure(|trace| trace.trace.errors, NUMBER)),
];

/// Returns the names that a word without a key is compared with.
fn any_names<'t>(trace: &SettledTrace<'t>) -> Vec<&'t str> {
    let lists = [By::Agent, By::Tool, By::Model].into_iter().flat_map(|by| trace.all(by));
    let own = trace.text(trace.trace.name).unwrap_or_default();
    lists.chain(trace.text(trace.trace.workflow)).chain([own]).collect()
}

/// Longer operators first.
const COMPARES: [(&str, &[Ordering]); 5] = [
    (">=", &[Ordering::Greater, Ordering::Equal]),
    ("<=", &[Ordering::Less, Ordering::Equal]),
    (">", &[Ordering::Greater]),
    ("<", &[Ordering::Less]),
    ("=", EQUAL),
];
const EQUAL: &[Ordering] = &[Ordering::Equal];

impl Filter {
    /// Parses a filter.
    pub fn read(text: &str) -> Result<Self, FilterMistake> {
        let mistake =
            |(at, what, hint)| FilterMistake { text: text.replace('\n', " "), at, what, hint };
        split(text).and_then(|words| words.map(term).collect()).map(Self).map_err(mistake)
    }

    /// Returns whether a trace matches.
    pub(super) fn takes(&self, trace: &SettledTrace<'_>) -> bool {
        self.0.iter().all(|(is_negated, test)| test.holds(trace) != *is_negated)
    }
}

/// The position of a mistake, what is wrong, and what to do.
type Mistake = (Range<usize>, String, String);

/// Splits text into words with their positions; spaces within quotes do not separate.
fn split(text: &str) -> Result<impl Iterator<Item = (usize, &str)>, Mistake> {
    let mut is_quoted = false;
    let words = text.split(move |letter: char| {
        is_quoted ^= letter == '"';
        letter.is_whitespace() && !is_quoted
    });
    match text.rfind('"').filter(|_| text.matches('"').count() % 2 == 1) {
        Some(at) => {
            let (what, hint) = ("a quote is not closed", "write agent:\"Triage agent\"");
            Err((at..text.len(), what.to_owned(), hint.to_owned()))
        }
        None => Ok(words
            .filter(|word| !word.is_empty())
            .map(|word| (word.as_ptr().addr() - text.as_ptr().addr(), word))),
    }
}

fn term((start, word): (usize, &str)) -> Result<(bool, Test), Mistake> {
    let body = word.strip_prefix('-').unwrap_or(word);
    let is_negated = body.len() < word.len();
    let unquoted = |text: &str| text.replace('"', "");
    let key = body.split_once(':').filter(|(name, _)| !name.contains('"'));
    let Some((name, value)) = key else {
        let text = unquoted(body).to_lowercase();
        let id = TraceId::from_hex(text.strip_prefix("trace_").unwrap_or(&text));
        return Ok((is_negated, id.map_or(Test::Has(any_names, text), Test::Is)));
    };
    let value = &*unquoted(value);
    let start = start + usize::from(is_negated);
    let end = start + body.len();
    let of_name = start..start + name.len();
    let Some((_, kind)) = WORDS.iter().find(|(known, _)| *known == name) else {
        let hint = did_you_mean(name, &WORDS.map(|(known, _)| known)).unwrap_or_default();
        let hint = format!("{hint}\nput text with a colon in quotes: \"{}\"", unquoted(body));
        return Err((of_name, format!("unknown term `{name}:`"), hint));
    };
    match kind.test(value) {
        Ok(test) => Ok((is_negated, test)),
        Err((_, hint)) if value.is_empty() => {
            Err((of_name, format!("`{name}:` says nothing"), hint.to_owned()))
        }
        Err((what, hint)) => Err((of_name.end + 1..end, what.to_owned(), hint.to_owned())),
    }
}

impl Kind {
    /// Parses the text of a word, or returns what is wrong with it and what to do.
    fn test(&self, text: &str) -> Result<Test, (&'static str, &'static str)> {
        match self {
            Self::Names(_) if text.is_empty() => Err(("", "write agent:triage")),
            Self::Names(of) => Ok(Test::Has(*of, text.to_lowercase())),
            Self::Status if matches!(text, "error" | "ok") => Ok(Test::HasFailed(text == "error")),
            Self::Status => Err(("a status is `error` or `ok`", "write status:error")),
            Self::Figure(of, unit) => {
                let sign = |(sign, how)| Some((how, text.strip_prefix(sign)?));
                let (how, rest) = COMPARES.into_iter().find_map(sign).unwrap_or((EQUAL, text));
                let number = (unit.read)(rest.trim()).ok_or((unit.what, unit.hint))?;
                Ok(Test::Compares(*of, how, number))
            }
        }
    }
}

impl Test {
    fn holds(&self, trace: &SettledTrace<'_>) -> bool {
        match self {
            Self::Has(of, text) => of(trace).iter().any(|name| match text.strip_prefix('=') {
                Some(whole) => name.to_lowercase() == whole,
                None => name.to_lowercase().contains(text),
            }),
            Self::HasFailed(has_failed) => (trace.trace.errors > 0) == *has_failed,
            Self::Is(id) => trace.id == *id,
            Self::Compares(of, how, number) => how.contains(&of(trace).cmp(number)),
        }
    }
}

impl FilterMistake {
    fn letters(&self, part: Range<usize>) -> usize {
        self.text.get(part).unwrap_or_default().chars().count()
    }
}
