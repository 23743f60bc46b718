//! Which spans a sink has been handed, and with what, so that they can be sent once more when it turns out to have been wrong. Pure.
//!
//! Only for sinks at which a span takes the place of the one with the same id that came before. A session that only the root of a long
//! run says comes when most of the run was sent long ago.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use xxhash_rust::xxh3::xxh3_64;

use super::bounds::SPANS_MAX;
use crate::journal::Position;
use crate::span::{Facts, Span, SpanId, Text, TraceContext};
use crate::support::by_touch::table_bytes;

/// How often a span is sent once more. Session, user, tags, tokens and a root may each become known apart from the others; a span
/// whose trace has more news than that keeps what was known then.
const AMENDED_MAX: u8 = 4;

/// Items of records that are to be sent once more: their places, by where the record starts.
pub(super) type Amendments = BTreeMap<Position, BTreeSet<usize>>;

/// The spans of one trace.
#[derive(Debug, Default)]
pub(super) struct Sent {
    spans: HashMap<SpanId, Entry>,
    /// What every span had been looked at for.
    looked_for: Told,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where its record starts, and its place in it.
    position: Position,
    place: usize,
    /// Whether it says a session and a user itself.
    says: [bool; 2],
    /// Whether it hangs below the root that stands for its trace, once there is one.
    is_top: bool,
    /// What it was sent with; none while it waits for its turn, and is given what is known then.
    told: Option<(Told, bool)>,
    amended: u8,
}

/// What is known of a trace, as far as spans are sent again for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// Which session and user, as hashes; 0 for none.
    pub(super) words: [u64; 2],
    /// How many tags.
    pub(super) tags: usize,
    pub(super) root: bool,
}

impl Told {
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
    /// Takes note of a span that was read, at this place of the record that starts there.
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

    /// Takes note that spans are handed to the sink with this.
    pub(super) fn told(&mut self, ids: impl IntoIterator<Item = SpanId>, context: &TraceContext) {
        let told = Told::of(context);
        for id in ids {
            if let Some(entry) = self.spans.get_mut(&id) {
                entry.told = Some((told, context.exceptions.contains(&id)));
            }
        }
    }

    /// All spans.
    pub(super) fn ids(&self) -> Vec<SpanId> {
        self.spans.keys().copied().collect()
    }

    /// Spans that may have been told otherwise than they would be now: all of them where the trace has news, else these.
    pub(super) fn suspects(&mut self, known: Told, doubtful: Vec<SpanId>) -> Vec<SpanId> {
        if std::mem::replace(&mut self.looked_for, known) == known { doubtful } else { self.ids() }
    }

    /// Adds a span to what is to be sent once more, if what it was sent with is wrong now.
    pub(super) fn amend(
        &mut self,
        id: SpanId,
        known: Told,
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

    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        table_bytes::<(SpanId, Entry)>(self.spans.capacity())
    }
}
