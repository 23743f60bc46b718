//! Encodes deliveries as requests, each with at most 128 items of one account. Pure.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::accounts::{Account, Accounts};
use super::agents_sdk::{write_span, write_trace};
use super::edit::Origin;
use super::sanitize::write_item;
use crate::sinks::Delivery;
use crate::span::{Item, Source, TraceId};

/// The largest number of items in a request: the SDKs' own maximum, so OpenAI is known to accept it.
pub(super) const ITEMS_MAX: usize = 128;

/// An item in a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    /// Its place in the delivery; `None` for a trace object that was created here.
    pub(super) place: Option<usize>,
    /// Its range in the body.
    pub(super) range: Range<usize>,
    /// The trace that it announces, if it was created here.
    pub(super) announces: Option<TraceId>,
    /// How often it was repaired after OpenAI rejected it.
    pub(super) repairs: u32,
}

/// A request's body.
#[derive(Debug, Clone)]
pub(super) struct Body {
    /// The account of all its items.
    pub(super) account: Arc<Account>,
    /// `{"data":[...]}`.
    pub(super) bytes: Bytes,
    /// Its items, in order.
    pub(super) entries: Vec<Entry>,
}

impl Body {
    /// Returns the places of its items in the delivery.
    pub(super) fn places(&self) -> Vec<usize> {
        self.entries.iter().filter_map(|entry| entry.place).collect()
    }

    /// Returns an item's text.
    pub(super) fn item(&self, index: usize) -> Option<&str> {
        let range = self.entries.get(index)?.range.clone();
        std::str::from_utf8(self.bytes.get(range)?).ok()
    }

    /// Returns the same body with another text for one item, or without it.
    pub(super) fn with(&self, index: usize, text: Option<&[u8]>) -> Self {
        let mut draft = Draft::new(Arc::clone(&self.account));
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

/// Encodes a delivery in requests of at most so many bytes. Those of an account have the order of the delivery.
pub(super) fn encode(delivery: &Delivery, bytes_max: usize, accounts: &Accounts) -> Vec<Body> {
    let mut bodies = Vec::new();
    let mut drafts: Vec<Draft> = Vec::new();
    let mut announced: HashSet<TraceId> = HashSet::new();
    // All items of one received request have the same account.
    let mut last: Option<(&Source, usize)> = None;
    for (place, (batch, item)) in delivery.items().enumerate() {
        let known = last.filter(|(source, _)| std::ptr::eq(*source, &raw const batch.source));
        let at = match known {
            Some((_, at)) => at,
            None => draft_of(&mut drafts, accounts.of(&batch.source)),
        };
        last = Some((&batch.source, at));
        let Some(draft) = drafts.get_mut(at) else { continue };
        let trace = item.trace_id();
        let entry = Entry { place: Some(place), ..Entry::default() };
        match item {
            Item::Span(span) if span.is_otlp() => {
                if !accounts.is_announced(trace) && announced.insert(trace) {
                    let made = Entry { announces: Some(trace), ..Entry::default() };
                    bodies.extend(draft.push(&made, bytes_max, |out| {
                        write_trace(out, span, delivery.context(trace));
                    }));
                }
                bodies.extend(draft.push(&entry, bytes_max, |out| write_span(out, span)));
            }
            agents_sdk => {
                // The receiver checked that items are text.
                let text = std::str::from_utf8(agents_sdk.wire()).unwrap_or_default();
                let origin = Origin::of(&batch.source);
                bodies.extend(draft.push(&entry, bytes_max, |out| write_item(out, text, origin)));
            }
        }
    }
    bodies.extend(drafts.into_iter().map(Draft::finish));
    bodies
}

/// Returns the index of an account's draft, which is created if it is new. Deliveries have few accounts.
fn draft_of(drafts: &mut Vec<Draft>, account: Account) -> usize {
    let known = drafts.iter().rposition(|draft| *draft.account == account);
    known.unwrap_or_else(|| {
        drafts.push(Draft::new(Arc::new(account)));
        drafts.len() - 1
    })
}

const OPENING: &[u8] = b"{\"data\":[";
const CLOSING: &[u8] = b"]}";

/// A body that is being written.
struct Draft {
    account: Arc<Account>,
    out: Vec<u8>,
    entries: Vec<Entry>,
}

impl Draft {
    fn new(account: Arc<Account>) -> Self {
        Self { account, out: OPENING.to_vec(), entries: Vec::new() }
    }

    /// Adds an item. If it does not fit, the item begins a new body, and the full one is returned.
    fn push(
        &mut self,
        entry: &Entry,
        bytes_max: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Body> {
        let range = self.append(write);
        let is_full = ITEMS_MAX <= self.entries.len() || bytes_max < self.out.len() + CLOSING.len();
        if !is_full || self.entries.is_empty() {
            self.entries.push(Entry { range, ..*entry });
            return None;
        }
        let item = self.out.split_off(range.start);
        self.out.pop();
        let next = Self::new(Arc::clone(&self.account));
        let full = std::mem::replace(self, next).finish();
        let range = self.append(|out| out.extend_from_slice(&item));
        self.entries.push(Entry { range, ..*entry });
        Some(full)
    }

    /// Appends an item, with a comma before all but the first. Returns its range.
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
        Body { account: self.account, bytes: Bytes::from(self.out), entries: self.entries }
    }
}
