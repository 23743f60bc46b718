//! The spans that were sent, and their context at that time, so that they can be sent again if it proves wrong. Pure.
//!
//! This is used only for sinks at which a span replaces the earlier one with the same id. A session that only the root of a long run has
//! arrives when most of the run was sent long ago.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use xxhash_rust::xxh3::xxh3_64;

use super::bounds::SPANS_MAX;
use crate::journal::Position;
use crate::span::{Facts, Span, SpanId, Text, TraceContext};
use crate::support::by_touch::table_bytes;

/// Maximum number of times that a span is sent again. Session, user, tags, tokens and a root may each become known separately; a span whose
/// trace changes more often keeps the context of that time.
const AMENDED_MAX: u8 = 4;

/// Items to send again: their indexes, by the start of their record.
pub(super) type Amendments = BTreeMap<Position, BTreeSet<usize>>;

/// The spans of one trace.
#[derive(Debug, Default)]
pub(super) struct Sent {
    spans: HashMap<SpanId, Entry>,
    /// The context for which every span was checked last.
    looked_for: SentFacts,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Start of its record, and its index in it.
    position: Position,
    place: usize,
    /// Whether it has its own session and user.
    says: [bool; 2],
    /// Whether it is below the trace's synthetic root, once that exists.
    is_top: bool,
    /// The context it was sent with; `None` while it is queued, because it gets the context known when it is sent.
    told: Option<(SentFacts, bool)>,
    amended: u8,
}

/// The parts of a trace's context for which spans are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SentFacts {
    /// Hashes of session and user; 0 for none.
    pub(super) words: [u64; 2],
    /// Number of tags.
    pub(super) tags: usize,
    pub(super) root: bool,
}

impl SentFacts {
    pub(super) fn of(context: &TraceContext) -> Self {
        let hash = |it: &Option<Text>| it.as_ref().map_or(0, |it| xxh3_64(it.as_bytes()));
        Self {
            words: [&context.session, &context.user].map(hash),
            tags: context.tags.len(),
            root: context.root.is_some(),
        }
    }
}

impl Sent {
    /// Registers a span that was read, with its place in the journal.
    pub(super) fn read(
        &mut self,
        span: &Span,
        facts: &Facts,
        (position, place): (Position, usize),
    ) {
        if SPANS_MAX <= self.spans.len() && !self.spans.contains_key(&span.span_id) {
            return;
        }
        let amended = self.spans.get(&span.span_id).map_or(0, |known| known.amended);
        let entry = Entry {
            position,
            place,
            says: [facts.session.is_some(), facts.user.is_some()],
            is_top: span.parent_id.is_none() && !span.is_otlp(),
            told: None,
            amended,
        };
        self.spans.insert(span.span_id, entry);
    }

    /// Notes that spans are sent with this context.
    pub(super) fn told(&mut self, ids: impl IntoIterator<Item = SpanId>, context: &TraceContext) {
        let told = SentFacts::of(context);
        for id in ids {
            if let Some(entry) = self.spans.get_mut(&id) {
                entry.told = Some((told, context.exceptions.contains(&id)));
            }
        }
    }

    /// Returns all spans.
    pub(super) fn ids(&self) -> Vec<SpanId> {
        self.spans.keys().copied().collect()
    }

    /// Returns the spans that may have been sent with a wrong context: all of them if the trace's context changed, else the doubtful ones.
    pub(super) fn suspects(&mut self, known: SentFacts, doubtful: Vec<SpanId>) -> Vec<SpanId> {
        if std::mem::replace(&mut self.looked_for, known) == known { doubtful } else { self.ids() }
    }

    /// Adds a span to the amendments if the context it was sent with is now wrong.
    pub(super) fn amend(
        &mut self,
        id: SpanId,
        known: SentFacts,
        is_exception: bool,
        amendments: &mut Amendments,
    ) {
        let Some(entry) = self.spans.get_mut(&id) else { return };
        let Some((told, was_exception)) = entry.told else { return };
        let mut words = known.words.iter().zip(&told.words).zip(&entry.says);
        let is_wrong = words.any(|((known, told), says)| known != told && !says)
            || told.tags < known.tags
            || (known.root && !told.root && entry.is_top)
            || was_exception != is_exception;
        if is_wrong && entry.amended < AMENDED_MAX {
            entry.amended += 1;
            entry.told = None;
            amendments.entry(entry.position).or_default().insert(entry.place);
        }
    }

    /// Returns its memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        table_bytes::<(SpanId, Entry)>(self.spans.capacity())
    }
}
