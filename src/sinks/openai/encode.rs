//! Deliveries become requests: one account's items together, at most 128 in each. Pure.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;

use super::agents_sdk::{write_span, write_trace};
use super::sanitize::{Origin, write_item};
use crate::sinks::Delivery;
use crate::span::{Item, Receiver, Source, TraceId};

/// The most items of a request: what the SDKs send at most, so what OpenAI is known to take.
pub(super) const ITEMS_MAX: usize = 128;

/// In whose name a request is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Account {
    pub(super) key: Key,
    pub(super) organization: Option<String>,
    pub(super) project: Option<String>,
    pub(super) beta: Option<String>,
}

/// Which key an account has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// The caller's own, by its fingerprint.
    Caller(String),
    /// The one in the configuration.
    Configured,
    /// The caller had none, and none is configured.
    None,
}

/// An item in a request.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its place in the delivery; none for a trace object that was made here.
    pub(super) place: Option<usize>,
    /// Where it stands in the body.
    pub(super) range: Range<usize>,
    /// The trace that it announces, if it was made here.
    pub(super) announces: Option<TraceId>,
    /// How often it was mended after OpenAI had refused it.
    pub(super) repairs: u32,
}

/// A request's body.
#[derive(Debug, Clone, Default)]
pub(super) struct Body {
    /// `{"data":[...]}`.
    pub(super) bytes: Bytes,
    /// Its items, in order.
    pub(super) entries: Vec<Entry>,
}

impl Body {
    /// The places of its items in the delivery.
    pub(super) fn places(&self) -> Vec<usize> {
        self.entries.iter().filter_map(|entry| entry.place).collect()
    }

    /// An item as it is written.
    pub(super) fn item(&self, index: usize) -> Option<&str> {
        let range = self.entries.get(index)?.range.clone();
        std::str::from_utf8(self.bytes.get(range)?).ok()
    }

    /// The same with another text for one item, or without it.
    pub(super) fn with(&self, index: usize, text: Option<&[u8]>) -> Self {
        let mut draft = Draft::new();
        for (at, entry) in self.entries.iter().enumerate() {
            let copied = self.bytes.get(entry.range.clone()).unwrap_or_default();
            let (text, repairs) = match text {
                _ if at != index => (copied, entry.repairs),
                Some(text) => (text, entry.repairs + 1),
                None => continue,
            };
            let range = draft.append(|out| out.extend_from_slice(text));
            draft.entries.push(Entry { range, repairs, ..entry.clone() });
        }
        draft.finish()
    }
}

/// The requests of one account, in the order of the delivery.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) account: Account,
    pub(super) bodies: Vec<Body>,
}

impl Group {
    /// The places of its items in the delivery.
    pub(super) fn places(&self) -> Vec<usize> {
        self.bodies.iter().flat_map(Body::places).collect()
    }
}

/// What decides how a delivery is written.
pub(super) trait Rules {
    /// In whose name a source's items are sent; `None` where they are not.
    fn account_of(&self, source: &Source) -> Option<Account>;
    /// Whether a trace object was made for a trace before.
    fn is_announced(&self, trace: TraceId) -> bool;
}

/// What a delivery comes to.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) groups: Vec<Group>,
    /// Places of items that nothing is sent for.
    pub(super) skipped: Vec<usize>,
}

/// Writes a delivery, in requests of so many bytes at most.
pub(super) fn encode(delivery: &Delivery, bytes_max: usize, rules: &impl Rules) -> Encoded {
    let mut skipped = Vec::new();
    let mut writers: Vec<Writer> = Vec::new();
    let mut announced: HashSet<TraceId> = HashSet::new();
    // Items of one request have one account.
    let mut last: Option<(&Source, Option<usize>)> = None;
    for (place, (batch, item)) in delivery.items().enumerate() {
        let known = last.filter(|(source, _)| std::ptr::eq(*source, &raw const batch.source));
        let at = if let Some((_, at)) = known {
            at
        } else {
            let account = rules.account_of(&batch.source);
            account.map(|account| writer_of(&mut writers, account))
        };
        last = Some((&batch.source, at));
        let Some(writer) = at.and_then(|at| writers.get_mut(at)) else {
            skipped.push(place);
            continue;
        };
        let trace = item.trace_id();
        match item {
            Item::Span(span) if span.is_otlp() => {
                if !rules.is_announced(trace) && announced.insert(trace) {
                    writer.push(None, Some(trace), bytes_max, |out| {
                        write_trace(out, span, delivery.context(trace));
                    });
                }
                writer.push(Some(place), None, bytes_max, |out| write_span(out, span));
            }
            agents_sdk => {
                // Arrival has seen to it that items are text.
                let text = std::str::from_utf8(agents_sdk.wire()).unwrap_or_default();
                let origin = Origin::of(&batch.source);
                writer.push(Some(place), None, bytes_max, |out| {
                    write_item(out, text, origin);
                });
            }
        }
    }
    Encoded { groups: writers.into_iter().map(Writer::finish).collect(), skipped }
}

/// The place of an account's writer, new or not. Deliveries have few accounts.
fn writer_of(writers: &mut Vec<Writer>, account: Account) -> usize {
    let known = writers.iter().rposition(|writer| writer.account == account);
    known.unwrap_or_else(|| {
        writers.push(Writer { account, bodies: Vec::new(), draft: Draft::new() });
        writers.len() - 1
    })
}

/// Whether a source's items are in the SDK's own format.
pub(super) fn is_agents_sdk(source: &Source) -> bool {
    source.receiver == Receiver::OpenAi
}

struct Writer {
    account: Account,
    bodies: Vec<Body>,
    draft: Draft,
}

impl Writer {
    fn push(
        &mut self,
        place: Option<usize>,
        announces: Option<TraceId>,
        bytes_max: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut range = self.draft.append(write);
        let is_full = ITEMS_MAX <= self.draft.entries.len()
            || bytes_max < self.draft.out.len() + CLOSING.len();
        if is_full && !self.draft.entries.is_empty() {
            let item = self.draft.out.split_off(range.start);
            self.draft.out.pop();
            let full = std::mem::replace(&mut self.draft, Draft::new());
            self.bodies.push(full.finish());
            range = self.draft.append(|out| out.extend_from_slice(&item));
        }
        self.draft.entries.push(Entry { place, range, announces, repairs: 0 });
    }

    fn finish(mut self) -> Group {
        if !self.draft.entries.is_empty() {
            self.bodies.push(self.draft.finish());
        }
        Group { account: self.account, bodies: self.bodies }
    }
}

const OPENING: &[u8] = b"{\"data\":[";
const CLOSING: &[u8] = b"]}";

/// A body that is being written.
struct Draft {
    out: Vec<u8>,
    entries: Vec<Entry>,
}

impl Draft {
    fn new() -> Self {
        Self { out: OPENING.to_vec(), entries: Vec::new() }
    }

    /// Appends an item, with a comma before all but the first; returns where it stands.
    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        if OPENING.len() < self.out.len() {
            self.out.push(b',');
        }
        let start = self.out.len();
        write(&mut self.out);
        start..self.out.len()
    }

    fn finish(mut self) -> Body {
        self.out.extend_from_slice(CLOSING);
        Body { bytes: Bytes::from(self.out), entries: self.entries }
    }
}
