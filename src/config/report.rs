//! How mistakes are shown: file, line and column, the line itself with a caret, and a hint.
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
use crate::support::terminal::Paint;

/// Only this much of a line is marked, so that the rest of a long one can be left out.
const POINTED_BYTES_MAX: usize = 100;
/// Shorter values are not searched for in messages, because they would match everywhere.
const REFERENCED_BYTES_MIN: usize = 6;

/// All mistakes of a configuration, in the order of its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    mistakes: Vec<Mistake>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mistake {
    what: String,
    hint: Option<String>,
    place: Option<Place>,
}

/// The place of a mistake.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    /// The file's path, or the variable or flag.
    name: String,
    line: Option<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Line {
    number: usize,
    /// The line without credentials.
    text: String,
    /// The marked bytes of `text`.
    at: Range<usize>,
}

impl Report {
    /// Creates a report of one mistake without a place.
    pub(super) fn of(what: String, hint: Option<String>) -> Self {
        Self { mistakes: vec![Mistake { what, hint, place: None }] }
    }

    /// Creates a report of the problems, with their places.
    pub(super) fn new(mut problems: Vec<Problem>, layers: &Layers<'_>) -> Self {
        problems.sort_by_key(|problem| problem.at.as_ref().map(|at| position(at).start));
        let place = |at: &Range<usize>, hint: Option<&str>| {
            let source = layers.sources.find(at.start)?;
            let line = match source.kind {
                SourceKind::File => Some(line(source, at, hint, layers)),
                SourceKind::Variable | SourceKind::Flag => None,
                SourceKind::Default => return None,
            };
            Some(Place { name: source.name.clone(), line })
        };
        let mut mistakes: Vec<_> = (problems.into_iter())
            .map(|problem| Mistake {
                what: hide(problem.what, layers),
                place: problem.at.and_then(|at| place(&position(&at), problem.hint.as_deref())),
                hint: problem.hint,
            })
            .collect();
        // The parts of a sink share its mistakes.
        let mut said = HashSet::new();
        mistakes.retain(|mistake| said.insert((mistake.what.clone(), mistake.place.clone())));
        Self { mistakes }
    }

    /// Returns the number of mistakes.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// Renders the report for printing; each mistake begins with this word, `error` or `warning`.
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

/// Replaces the values of references with their notation.
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

/// Returns the line of a mistake, without credentials.
fn line(source: &Source<'_>, at: &Range<usize>, hint: Option<&str>, layers: &Layers<'_>) -> Line {
    let place = source.line_around(at.start);
    let inside = |position: usize| position.clamp(place.start, place.end) - place.start;
    let (before, rest) =
        source.text.split_at_checked(source.local(place.start)).unwrap_or_default();
    let mut text = rest.get(..place.len()).unwrap_or_default().to_owned();
    let secrets = layers.secrets.iter();
    let secrets = secrets.map(|(from, to)| inside(from + 1)..inside(to.saturating_sub(1)));
    let mut hidden: Vec<_> = secrets.chain(in_addresses(&text)).map(|range| (range, "")).collect();
    // The misspelt key may be that of a credential.
    let may_be = hint.is_some_and(|hint| hint.split('`').any(is_secret_name));
    hidden.extend(may_be.then(|| (inside(at.end)..text.len(), " []{},='\"")));
    let mut broken = layers.broken.iter();
    if broken.any(|broken| broken.start <= place.end && place.start <= broken.end) {
        // The contents of a broken line are unknown, but not what precedes them.
        let from = behind_a_secret_name(before, &text);
        hidden.extend(from.map(|from| (from..text.len(), " []{},='\"")));
    }
    for (range, kept) in hidden {
        put_stars(&mut text, range, kept);
    }
    let start = inside(at.start);
    let end = text.floor_char_boundary(inside(at.end).min(start + POINTED_BYTES_MAX));
    Line { number: source.line(at.start), at: start..end, text }
}

/// Returns the ranges of an address's user info and query.
fn in_addresses(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("://").flat_map(|(at, scheme)| {
        let from = at + scheme.len();
        let rest = text.get(from..).unwrap_or_default();
        let rest = rest.split(['"', '\'', ' ']).next().unwrap_or_default();
        let who = rest.rfind('@').map(|end| from..from + end);
        let query = rest.find('?').map(|start| from + start + 1..from + rest.len());
        who.into_iter().chain(query)
    })
}

/// Returns where a credential may begin in an unparsable line: after a name that marks one, in the line itself or in the line that it
/// continues.
fn behind_a_secret_name(before: &str, text: &str) -> Option<usize> {
    let is_of_key = |letter: char| letter.is_ascii_alphanumeric() || "_-.\"' ".contains(letter);
    let key = |line: &'_ str| -> Option<String> {
        let key = line.split_once('=')?.0;
        key.chars().all(is_of_key).then(|| key.to_owned())
    };
    if key(text).is_none()
        && before.lines().rev().find_map(key).is_some_and(|key| is_secret_name(&key))
    {
        return Some(0);
    }
    let mut words = text.split(|letter: char| !is_of_key(letter) || " \"'.".contains(letter));
    let word = words.find(|word| is_secret_name(word))?;
    Some(text.find(word)? + word.len())
}

/// Hides a part of a line, except for these characters and for references, which say only where a credential is.
fn put_stars(text: &mut String, range: Range<usize>, kept: &str) {
    let mut stars = String::new();
    let Some(mut rest) = text.get(range.clone()) else { return };
    while let Some(letter) = rest.chars().next() {
        let reference = rest.strip_prefix("${").and_then(|inner| inner.split_once('}'));
        let is_bare = |inner: &str| inner.split_once(":-").is_none_or(|(_, text)| text.is_empty());
        let reference = reference.map(|(inner, _)| inner).filter(|inner| is_bare(inner));
        let length = reference.map_or(letter.len_utf8(), |inner| "${}".len() + inner.len());
        let (part, behind) = rest.split_at(length);
        if reference.is_some() || kept.contains(letter) {
            stars += part;
        } else {
            stars += &"*".repeat(length);
        }
        rest = behind;
    }
    text.replace_range(range, &stars);
}
