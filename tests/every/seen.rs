//! What a user of a backend sees of the spans there, compared with what was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::expected::{Expected, Id, Span};

/// A span as a backend shows it. Facts that the backend does not have are `None` or empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) id: Id,
    pub(crate) parent: Option<String>,
    pub(crate) name: String,
    /// By the backend's own name.
    pub(crate) kind: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) error: Option<String>,
    pub(crate) start_us: i64,
    pub(crate) session: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) tags: Vec<String>,
}

/// How a backend shows spans, if it differs from others.
pub(crate) struct Words {
    /// The name that it shows for a span.
    pub(crate) name: fn(&Span) -> &str,
    /// Its name for the kind of a span; `None` if it has none for this kind.
    pub(crate) kind: fn(&Span) -> Option<&str>,
    /// Whether it shows model and tokens of a call.
    pub(crate) model_of: fn(&Span) -> Shown,
    /// Whether the outermost task's tokens count for a trace whose model calls have none.
    pub(crate) tokens_of_tasks: Shown,
    /// Whether it distinguishes zero tokens from unknown tokens.
    pub(crate) zero: Shown,
    /// Its time resolution, in microseconds.
    pub(crate) tick_us: i64,
    /// Which facts of the trace it shows on spans.
    pub(crate) session: Shown,
    pub(crate) user: Shown,
    pub(crate) tags: Shown,
}

/// Whether a backend shows something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Yes,
    No,
}

impl Shown {
    fn then<T>(self, value: Option<T>) -> Option<T> {
        value.filter(|_| self == Self::Yes)
    }
}

impl Words {
    /// Returns OpenTelemetry's names, our own kinds, and every fact.
    pub(crate) fn own() -> Self {
        Self {
            name: |span| &span.name,
            kind: |span| Some(span.kind),
            model_of: |_| Shown::Yes,
            tokens_of_tasks: Shown::Yes,
            zero: Shown::Yes,
            tick_us: 1,
            session: Shown::Yes,
            user: Shown::Yes,
            tags: Shown::Yes,
        }
    }
}

/// Returns whether every span and every parent is there.
pub(crate) fn is_complete(seen: &[Seen], expected: &Expected) -> bool {
    let ids: BTreeSet<_> = seen.iter().map(|span| &span.id).collect();
    expected.spans.keys().all(|id| ids.contains(id)) && dangling(seen) == 0
}

fn dangling(seen: &[Seen]) -> usize {
    let ids: BTreeSet<_> = seen.iter().map(|span| &span.id).collect();
    let parent = |span: &Seen| Some((span.id.0.clone(), span.parent.clone()?));
    seen.iter().filter_map(parent).filter(|parent| !ids.contains(parent)).count()
}

/// Asserts that a backend shows what it must, and returns the row of the table with what it shows.
pub(crate) fn check(place: &str, seen: &[Seen], expected: &Expected, words: &Words) -> String {
    let mut by_id: BTreeMap<&Id, &Seen> = BTreeMap::new();
    let twice: Vec<_> = seen.iter().filter(|span| by_id.insert(&span.id, span).is_some()).collect();
    assert!(twice.is_empty(), "{place}: {} are there twice, first {:#?}", twice.len(), twice[0]);
    assert_eq!(dangling(seen), 0, "{place}: spans without their parents");
    for (id, span) in &expected.spans {
        let found = by_id.get(id).unwrap_or_else(|| panic!("{place}: no {span:?}"));
        check_span(place, found, span, words);
    }
    let mut roots = 0;
    for root in seen.iter().filter(|span| !expected.spans.contains_key(&span.id)) {
        // A span that was not sent can only be the root that Spanferry creates for a trace without one.
        roots += 1;
        assert_eq!(root.parent, None, "{place}: {root:?}");
        let below = seen.iter().filter(|span| span.parent.as_ref() == Some(&root.id.1));
        assert_ne!(below.count(), 0, "{place}: {root:?} has no spans");
        let of_trace = expected.spans.iter().find(|(id, _)| id.0 == root.id.0);
        let workflow = of_trace.and_then(|(_, span)| span.workflow.as_deref()).unwrap_or_default();
        assert!(root.name.ends_with(workflow), "{place}: {root:?} does not name {workflow}");
    }
    row(place, seen, roots)
}

fn check_span(place: &str, seen: &Seen, expected: &Span, words: &Words) {
    let case = || format!("{place}: {seen:#?}\nfor {expected:#?}");
    assert_eq!(seen.name, (words.name)(expected), "name, {}", case());
    assert_eq!(seen.kind.as_deref(), (words.kind)(expected), "kind, {}", case());
    if expected.parent.is_some() {
        assert_eq!(seen.parent, expected.parent, "parent, {}", case());
    }
    // Backends show the requested model, or the one that answered.
    match &seen.model {
        Some(model) => assert!(expected.models.contains(model), "model, {}", case()),
        None => assert!(
            expected.models.is_empty() || (words.model_of)(expected) == Shown::No,
            "model, {}",
            case()
        ),
    }
    let task = words.tokens_of_tasks.then(expected.task_tokens).unwrap_or_default();
    let shown = (words.model_of)(expected);
    let input = shown.then(expected.input_tokens.or(task.0));
    let said =
        |tokens: Option<u64>| tokens.filter(|tokens| words.zero == Shown::Yes || 0 < *tokens);
    assert_eq!(said(seen.input_tokens), said(input), "input tokens, {}", case());
    let output = shown.then(expected.output_tokens.or(task.1));
    assert_eq!(said(seen.output_tokens), said(output), "output tokens, {}", case());
    assert_eq!(seen.error, expected.error, "error, {}", case());
    if let Some(start) = expected.start_us {
        assert_eq!(seen.start_us, start - start % words.tick_us, "start, {}", case());
    }
    let facts = [
        ("session", &seen.session, words.session.then(expected.session.as_ref())),
        ("user", &seen.user, words.user.then(expected.user.as_ref())),
    ];
    for (fact, found, wanted) in facts {
        assert_eq!(found.as_ref(), wanted, "{fact}, {}", case());
    }
    let tags = words.tags.then(Some(&expected.tags)).cloned().unwrap_or_default();
    assert_eq!(seen.tags, tags, "tags, {}", case());
}

/// The header of the table of [`check`]'s rows.
pub(crate) const HEAD: &str = "\
| place | spans | roots added | traces | twice | without parent | input tokens | output tokens | models | sessions | users | tags | errors | kinds |
| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |";

/// Returns what a backend shows, counted from what was read back.
fn row(place: &str, seen: &[Seen], roots: usize) -> String {
    fn distinct<'a, T: Ord + 'a>(values: impl Iterator<Item = &'a T>) -> usize {
        values.collect::<BTreeSet<_>>().len()
    }
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for span in seen {
        *kinds.entry(span.kind.as_deref().unwrap_or("(none)")).or_default() += 1;
    }
    let mut told = String::new();
    for (kind, count) in kinds {
        write!(told, "{kind} {count} ").unwrap();
    }
    let ids = distinct(seen.iter().map(|span| &span.id));
    let cells = [
        place.to_owned(),
        seen.len().to_string(),
        roots.to_string(),
        distinct(seen.iter().map(|span| &span.id.0)).to_string(),
        (seen.len() - ids).to_string(),
        dangling(seen).to_string(),
        seen.iter().filter_map(|span| span.input_tokens).sum::<u64>().to_string(),
        seen.iter().filter_map(|span| span.output_tokens).sum::<u64>().to_string(),
        distinct(seen.iter().filter_map(|span| span.model.as_ref())).to_string(),
        distinct(seen.iter().filter_map(|span| span.session.as_ref())).to_string(),
        distinct(seen.iter().filter_map(|span| span.user.as_ref())).to_string(),
        distinct(seen.iter().flat_map(|span| &span.tags)).to_string(),
        seen.iter().filter(|span| span.error.is_some()).count().to_string(),
        told.trim_end().to_owned(),
    ];
    format!("| {} |", cells.join(" | "))
}
