//! The words that say which traces are meant: `agent:triage status:error dur:>2s tokens:>1000 refund`. Pure.
//!
//! | word | meaning |
//! |---|---|
//! | `agent: tool: model: workflow: session: user:` | a name of the trace has this in it, in whatever case |
//! | `status:error`, `status:ok` | whether a span failed |
//! | `dur: tokens: cost: spans: errors:` | compares, with `>`, `>=`, `<`, `<=` or `=`: a length of time, a number, dollars |
//! | any other text | one of its names has this in it |
//!
//! All words must hold; `-` before one turns it around. Spaces stand within double quotes: `agent:"Triage agent"`.

use std::ops::Range;

use super::trace::{By, Entry, Sums};
use crate::support::duration::Duration;
use crate::support::options::did_you_mean;

/// What must hold of a trace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter(Vec<Term>);

/// A word that is not understood. It shows where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}\n  {text}\n  {}{}\n{hint}", " ".repeat(self.column()), "^".repeat(self.width()))]
pub struct FilterMistake {
    text: String,
    at: Range<usize>,
    what: String,
    hint: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Term {
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    /// A name of this kind has the text, which is lowercase, in it.
    Has(Names, String),
    Failed(bool),
    Compares(Figure, Compare, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Of(By),
    Workflow,
    Session,
    User,
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    DurationNs,
    Tokens,
    CostNanos,
    Spans,
    Errors,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    AtLeast,
    Above,
    AtMost,
    Below,
    Equal,
}

const NAMES: [(&str, Names); 6] = [
    ("agent", Names::Of(By::Agent)),
    ("tool", Names::Of(By::Tool)),
    ("model", Names::Of(By::Model)),
    ("workflow", Names::Workflow),
    ("session", Names::Session),
    ("user", Names::User),
];
const FIGURES: [(&str, Figure); 5] = [
    ("dur", Figure::DurationNs),
    ("tokens", Figure::Tokens),
    ("cost", Figure::CostNanos),
    ("spans", Figure::Spans),
    ("errors", Figure::Errors),
];
/// The longer ones first.
const COMPARES: [(&str, Compare); 5] = [
    (">=", Compare::AtLeast),
    ("<=", Compare::AtMost),
    (">", Compare::Above),
    ("<", Compare::Below),
    ("=", Compare::Equal),
];
const STATUS: &str = "status";
const WORDS: [&str; 12] = [
    "agent", "tool", "model", "workflow", "session", "user", "status", "dur", "tokens", "cost",
    "spans", "errors",
];

impl Filter {
    /// Reads words.
    pub fn read(text: &str) -> Result<Self, FilterMistake> {
        let mistake =
            |(at, what, hint)| FilterMistake { text: text.replace('\n', " "), at, what, hint };
        let words = split(text).map_err(mistake)?;
        let terms = words.into_iter().map(term).collect::<Result<_, _>>().map_err(mistake)?;
        Ok(Self(terms))
    }

    /// Whether a trace with these sums is meant.
    pub(super) fn takes(&self, entry: &Entry, sums: Sums) -> bool {
        self.0.iter().all(|term| term.test.holds(entry, sums) != term.negated)
    }
}

/// Where something is wrong, what, and what to do.
type Mistake = (Range<usize>, String, String);

/// A word without its quotes, and where it stands.
struct Word {
    at: Range<usize>,
    /// Where its first colon is that no quote is around.
    colon: Option<usize>,
    text: String,
}

fn split(text: &str) -> Result<Vec<Word>, Mistake> {
    let mut words: Vec<Word> = Vec::new();
    let (mut is_open, mut quote) = (false, None);
    for (at, letter) in text.char_indices() {
        if letter == '"' {
            quote = if quote.is_none() { Some(at) } else { None };
        }
        if letter.is_whitespace() && quote.is_none() {
            is_open = false;
            continue;
        }
        if !is_open {
            words.push(Word { at: at..at, colon: None, text: String::new() });
            is_open = true;
        }
        let Some(word) = words.last_mut() else { continue };
        word.at.end = at + letter.len_utf8();
        if letter == ':' && quote.is_none() && word.colon.is_none() {
            word.colon = Some(word.text.len());
        }
        if letter != '"' {
            word.text.push(letter);
        }
    }
    match quote {
        Some(at) => {
            let what = "a quote is not closed".to_owned();
            Err((at..text.len(), what, "write agent:\"Triage agent\"".to_owned()))
        }
        None => Ok(words),
    }
}

fn term(word: Word) -> Result<Term, Mistake> {
    let Word { at, colon, text } = word;
    let negated = text.starts_with('-');
    let skip = usize::from(negated);
    let body = text.get(skip..).unwrap_or_default();
    let colon = colon.and_then(|colon| colon.checked_sub(skip));
    let Some((key, value)) = colon.and_then(|colon| body.split_at_checked(colon)) else {
        return Ok(Term { negated, test: Test::Has(Names::Any, body.to_lowercase()) });
    };
    let value = value.trim_start_matches(':');
    let of_key = at.start + skip..at.start + skip + key.len();
    let of_value = of_key.end + 1..at.end;
    let is_name = NAMES.iter().find(|(name, _)| *name == key);
    let is_figure = FIGURES.iter().find(|(name, _)| *name == key);
    let test = match (is_name, is_figure) {
        _ if value.is_empty() && WORDS.contains(&key) => {
            let hint = format!("write what it should be behind the colon: {}", example(key));
            return Err((of_key, format!("`{key}:` says nothing"), hint));
        }
        (Some((_, names)), _) => Test::Has(*names, value.to_lowercase()),
        (_, Some((_, figure))) => compares(*figure, value, of_value)?,
        _ if key == STATUS => match value {
            "error" => Test::Failed(true),
            "ok" => Test::Failed(false),
            _ => {
                let what = "a status is `error` or `ok`".to_owned();
                return Err((of_value, what, "write status:error".to_owned()));
            }
        },
        _ => {
            let hint = did_you_mean(key, &WORDS).unwrap_or_default();
            let hint = format!("{hint} Text with a colon stands within quotes: \"{body}\"");
            return Err((of_key, format!("there is no word `{key}:`"), hint));
        }
    };
    Ok(Term { negated, test })
}

fn example(key: &str) -> &'static str {
    match key {
        STATUS => "status:error",
        "dur" => "dur:>2s",
        "tokens" => "tokens:>1000",
        "cost" => "cost:>0.05",
        "spans" => "spans:>100",
        "errors" => "errors:>=2",
        _ => "agent:triage",
    }
}

fn compares(figure: Figure, value: &str, at: Range<usize>) -> Result<Test, Mistake> {
    let found = COMPARES
        .iter()
        .find_map(|(sign, compare)| value.strip_prefix(sign).map(|rest| (*compare, rest.trim())));
    let (compare, rest) = found.unwrap_or((Compare::Equal, value));
    let dollars = || {
        let dollars: f64 = rest.trim_start_matches('$').parse().ok()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked before"
        )]
        (dollars.is_finite() && dollars >= 0.0).then(|| (dollars * 1e9).round() as u64)
    };
    let number = match figure {
        Figure::DurationNs => {
            let length: Option<Duration> = rest.parse().ok();
            length.and_then(|length| u64::try_from(length.0.as_nanos()).ok())
        }
        Figure::CostNanos => dollars(),
        Figure::Tokens | Figure::Spans | Figure::Errors => rest.parse().ok(),
    };
    number.map(|number| Test::Compares(figure, compare, number)).ok_or_else(|| {
        let (what, hint) = match figure {
            Figure::DurationNs => ("this is no length of time", "write dur:>2s or dur:<=1m30s"),
            Figure::CostNanos => ("this is no number of dollars", "write cost:>0.05"),
            Figure::Tokens | Figure::Spans | Figure::Errors => {
                ("this is no whole number", "write tokens:>1000 or spans:=1")
            }
        };
        (at, what.to_owned(), hint.to_owned())
    })
}

impl Test {
    fn holds(&self, entry: &Entry, sums: Sums) -> bool {
        match self {
            Self::Has(names, text) => {
                let has = |name: &str| name.to_lowercase().contains(text);
                match names {
                    Names::Of(by) => entry.names(*by).any(has),
                    Names::Workflow => entry.workflow().is_some_and(has),
                    Names::Session => entry.session().is_some_and(has),
                    Names::User => entry.user().is_some_and(has),
                    Names::Any => entry.all_names().any(has),
                }
            }
            Self::Failed(has_failed) => (entry.errors > 0) == *has_failed,
            Self::Compares(figure, compare, number) => {
                let figure = match figure {
                    Figure::DurationNs => entry.duration_ns(),
                    Figure::Tokens => sums.total,
                    Figure::CostNanos => sums.cost_nanos.unwrap_or(0),
                    Figure::Spans => entry.spans,
                    Figure::Errors => entry.errors,
                };
                match compare {
                    Compare::AtLeast => figure >= *number,
                    Compare::Above => figure > *number,
                    Compare::AtMost => figure <= *number,
                    Compare::Below => figure < *number,
                    Compare::Equal => figure == *number,
                }
            }
        }
    }
}

impl FilterMistake {
    fn column(&self) -> usize {
        self.text.get(..self.at.start).unwrap_or_default().chars().count()
    }

    fn width(&self) -> usize {
        self.text.get(self.at.clone()).unwrap_or_default().chars().count().max(1)
    }
}
