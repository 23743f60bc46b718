//! Mistakes as they are shown: the file, the line and column, the line itself with a caret, and a hint.
//!
//! ```text
//! error: unknown key `byts_max`
//!  --> spanferry.toml:4:1
//!   |
//! 4 | byts_max = "2GiB"
//!   | ^^^^^^^^
//! hint: did you mean `bytes_max`?
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;

use super::layers::{Layers, is_secret_name};
use super::sources::{Source, SourceKind, Sources};
use crate::support::options::position;
use crate::support::problem::Problem;

/// More of a line than this is not shown: the line of a certificate in a string is long.
const LINE_CHARS_MAX: usize = 140;
/// What is shown before the caret of a longer line.
const LEAD_CHARS: usize = 40;
/// A shorter text is not searched for in a message: it would be found everywhere.
const REFERENCED_BYTES_MIN: usize = 6;

/// Everything that is wrong with a configuration, in the order of its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    mistakes: Vec<Mistake>,
}

/// One mistake, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mistake {
    what: String,
    hint: Option<String>,
    place: Option<Place>,
}

/// Where a mistake stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// The file's path, or the variable or flag.
    name: String,
    /// For a file: line and column from 1, and the line with its caret.
    snippet: Option<Snippet>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Snippet {
    line: usize,
    column: usize,
    text: String,
    /// The characters of `text` that are pointed at.
    caret: Range<usize>,
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Letters only.
    Plain,
    /// With the colours of a terminal.
    Colours,
}

impl Paint {
    /// The text in bold red, or whatever the escape codes say, where colours are wanted.
    pub fn with(self, codes: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colours => format!("\x1b[{codes}m{text}\x1b[0m"),
        }
    }
}

impl Report {
    /// A mistake that stands nowhere.
    pub(super) fn of(what: String, hint: Option<String>) -> Self {
        Self { mistakes: vec![Mistake { what, hint, place: None }] }
    }

    /// Finds the places of all problems.
    pub(super) fn new(problems: Vec<Problem>, sources: &Sources, layers: &Layers<'_>) -> Self {
        let secrets = layers.secrets();
        let mut problems = problems;
        problems.sort_by_key(|problem| problem.at.as_ref().map(|at| position(at).start));
        let mut mistakes: Vec<Mistake> = Vec::new();
        for problem in problems {
            let place =
                problem.at.as_ref().and_then(|at| Place::find(&position(at), sources, &secrets));
            let mistake = Mistake { what: hide(problem.what, layers), hint: problem.hint, place };
            if mistakes.last() != Some(&mistake) {
                mistakes.push(mistake);
            }
        }
        Self { mistakes }
    }

    /// How many mistakes there are.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// The whole report, to be printed; each mistake is introduced by this word, `error` or `warning`.
    pub fn render(&self, word: &str, paint: Paint) -> String {
        let mut text = String::new();
        for mistake in &self.mistakes {
            mistake.render(word, paint, &mut text);
            text.push('\n');
        }
        text
    }
}

/// Says how a reference is written instead of what it stood for.
fn hide(text: String, layers: &Layers<'_>) -> String {
    let long = layers.referenced.iter().filter(|(value, _)| REFERENCED_BYTES_MIN <= value.len());
    long.fold(text, |text, (value, written)| text.replace(value, written))
}

impl Mistake {
    fn render(&self, word: &str, paint: Paint, text: &mut String) {
        let codes = if word == "error" { "1;31" } else { "1;33" };
        writeln!(text, "{}: {}", paint.with(codes, word), self.what).ok();
        match &self.place {
            Some(Place { name, snippet: Some(snippet) }) => {
                snippet.render(name, codes, paint, text);
            }
            Some(Place { name, snippet: None }) => {
                writeln!(text, " --> {name}").ok();
            }
            None => {}
        }
        if let Some(hint) = &self.hint {
            writeln!(text, "{}: {hint}", paint.with("1;36", "hint")).ok();
        }
    }
}

impl Place {
    fn find(
        at: &Range<usize>,
        sources: &Sources,
        secrets: &BTreeSet<(usize, usize)>,
    ) -> Option<Self> {
        let source = sources.find(at.start)?;
        let name = source.name.clone();
        match source.kind {
            SourceKind::File => {
                Some(Self { name, snippet: Some(Snippet::cut(source, &source.local(at), secrets)) })
            }
            SourceKind::Variable | SourceKind::Flag => Some(Self { name, snippet: None }),
            SourceKind::Default => None,
        }
    }
}

impl Snippet {
    fn cut(source: &Source, local: &Range<usize>, secrets: &BTreeSet<(usize, usize)>) -> Self {
        let before = source.text.get(..local.start).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = source.text.get(start..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        let chars_before =
            |end: usize| line.char_indices().take_while(|(index, _)| start + index < end).count();
        let first = chars_before(local.start);
        let caret = first..chars_before(local.end).max(first + 1);
        let mut text: Vec<char> =
            line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        for (from, to) in hidden(source, start, line, secrets) {
            for letter in text.get_mut(chars_before(from)..chars_before(to)).into_iter().flatten() {
                *letter = '*';
            }
        }
        let number = source.line(local.start);
        let (text, caret) = window(&text, caret);
        Self { line: number, column: first + 1, text, caret }
    }

    fn render(&self, name: &str, codes: &str, paint: Paint, text: &mut String) {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let bar = paint.with("1;34", "|");
        let arrow = paint.with("1;34", "-->");
        let carets = paint.with(codes, &"^".repeat(self.caret.len()));
        let lead = " ".repeat(self.caret.start);
        writeln!(text, "{margin}{arrow} {name}:{}:{}", self.line, self.column).ok();
        writeln!(text, "{margin} {bar}").ok();
        writeln!(text, "{} {bar} {}", paint.with("1;34", &number), self.text.trim_end()).ok();
        writeln!(text, "{margin} {bar} {lead}{carets}").ok();
    }
}

/// What of a line must not be shown, as offsets in the source: strings that are credentials by their keys, or, where a mistake in the
/// line's key keeps that from being known, every string of a line that speaks of one.
fn hidden(
    source: &Source,
    start: usize,
    line: &str,
    secrets: &BTreeSet<(usize, usize)>,
) -> Vec<(usize, usize)> {
    let mut found: Vec<_> = secrets
        .iter()
        .filter(|(from, _)| *from >= source.base)
        .map(|(from, to)| (from - source.base, to - source.base))
        .collect();
    if line.split_once('=').is_some_and(|(key, _)| is_secret_name(key)) {
        let quotes: Vec<usize> =
            line.match_indices(['"', '\'']).map(|(at, _)| start + at).collect();
        let ends = quotes.first().zip(quotes.last()).filter(|(first, last)| first < last);
        found.extend(ends.map(|(first, last)| (*first, last + 1)));
    }
    // A reference says only where the credential is.
    found.retain(|(from, to)| !source.text.get(*from..*to).is_some_and(|text| text.contains("${")));
    found.into_iter().map(|(from, to)| (from + 1, to.saturating_sub(1).max(from + 1))).collect()
}

/// The part of a long line around its caret.
fn window(line: &[char], caret: Range<usize>) -> (String, Range<usize>) {
    if line.len() <= LINE_CHARS_MAX {
        return (line.iter().collect(), caret);
    }
    let skipped = caret.start.saturating_sub(LEAD_CHARS);
    let shown = line.iter().skip(skipped).take(LINE_CHARS_MAX);
    let lead = if skipped > 0 { "..." } else { "" };
    let text: String = lead.chars().chain(shown.copied()).collect();
    let start = caret.start - skipped + lead.len();
    let end = (caret.end - skipped + lead.len()).min(text.chars().count()).max(start + 1);
    (text, start..end)
}
