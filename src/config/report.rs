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

use std::collections::HashSet;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::layers::{Layers, is_secret_name};
use super::sources::{Source, SourceKind};
use crate::support::options::position;
use crate::support::problem::Problem;

/// More of a line is not pointed at, so that the rest of a long one can be left out.
const POINTED_BYTES_MAX: usize = 100;
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    /// The file's path, or the variable or flag.
    name: String,
    /// In a file.
    line: Option<Line>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Line {
    /// From 1.
    number: usize,
    /// Without credentials.
    text: String,
    /// The bytes of `text` that are pointed at.
    at: Range<usize>,
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
    pub(super) fn new(mut problems: Vec<Problem>, layers: &Layers<'_>) -> Self {
        problems.sort_by_key(|problem| problem.at.as_ref().map(|at| position(at).start));
        let place = |at: &Range<usize>| {
            let source = layers.sources.find(at.start)?;
            let name = source.name.clone();
            match source.kind {
                SourceKind::File => Some(Place { name, line: Some(line(source, at, layers)) }),
                SourceKind::Variable | SourceKind::Flag => Some(Place { name, line: None }),
                SourceKind::Default => None,
            }
        };
        let mut mistakes: Vec<_> = (problems.into_iter())
            .map(|problem| Mistake {
                what: hide(problem.what, layers),
                hint: problem.hint,
                place: problem.at.and_then(|at| place(&position(&at))),
            })
            .collect();
        // The parts of a sink have its mistakes in common.
        let mut said = HashSet::new();
        mistakes.retain(|mistake| said.insert((mistake.what.clone(), mistake.place.clone())));
        Self { mistakes }
    }

    /// How many mistakes there are.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// The whole report, to be printed; each mistake is introduced by this word, `error` or `warning`.
    pub fn render(&self, word: &str, paint: Paint) -> String {
        let renderer = match paint {
            Paint::Plain => Renderer::plain(),
            Paint::Colours => Renderer::styled(),
        };
        let level = if word == "error" { Level::ERROR } else { Level::WARNING };
        let render = |mistake: &Mistake| mistake.render(level.clone(), &renderer) + "\n\n";
        self.mistakes.iter().map(render).collect()
    }
}

/// Says how a reference is written instead of what it stood for.
fn hide(text: String, layers: &Layers<'_>) -> String {
    let long = layers.referenced.iter().filter(|(value, _)| value.len() >= REFERENCED_BYTES_MIN);
    long.fold(text, |text, (value, written)| text.replace(value, written))
}

impl Mistake {
    fn render(&self, level: Level<'_>, renderer: &Renderer) -> String {
        let title = level.primary_title(&self.what);
        let group = match &self.place {
            Some(Place { name, line: Some(line) }) => title.element(
                Snippet::source(&line.text)
                    .path(name)
                    .line_start(line.number)
                    .annotation(AnnotationKind::Primary.span(line.at.clone())),
            ),
            Some(Place { name, line: None }) => title.element(Origin::path(name)),
            None => Group::with_title(title),
        };
        let hint = self
            .hint
            .iter()
            .map(|hint| Group::with_title(Level::HELP.with_name("hint").secondary_title(hint)));
        renderer.render(&[group].into_iter().chain(hint).collect::<Vec<_>>())
    }
}

/// The line of a mistake, without the credentials in it.
fn line(source: &Source<'_>, at: &Range<usize>, layers: &Layers<'_>) -> Line {
    let place = source.line_around(at.start);
    let inside = |position: usize| position.clamp(place.start, place.end) - place.start;
    let text = source.text.get(source.local(place.start)..source.local(place.end));
    let mut text = text.unwrap_or_default().to_owned();
    let quotes = |text: &str| Some((text.find(['"', '\''])?, text.rfind(['"', '\''])? + 1));
    let secrets = layers.secrets().into_iter().map(|(from, to)| (inside(from), inside(to)));
    // Where a mistake in the key keeps that from being known, every string of a line that speaks of a credential is one.
    let is_secret = text.split_once('=').is_some_and(|(key, _)| is_secret_name(key));
    for (from, to) in secrets.chain(quotes(&text).filter(|_| is_secret)).collect::<Vec<_>>() {
        let Some(secret) = text.get(from + 1..to.saturating_sub(1)) else { continue };
        // A reference says only where the credential is.
        if !secret.contains("${") {
            let stars = "*".repeat(secret.len());
            text.replace_range(from + 1..to - 1, &stars);
        }
    }
    let start = inside(at.start);
    let end = text.floor_char_boundary(inside(at.end).min(start + POINTED_BYTES_MAX));
    Line { number: source.line(at.start), at: start..end, text }
}
