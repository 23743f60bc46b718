//! Encodes deliveries as requests, each with at most 128 items of one account. Pure.

use std::collections::HashSet;
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
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Its place in the delivery; `None` for a trace object that was created here.
    pub(super) place: Option<usize>,
    /// Its JSON.
    pub(super) text: Vec<u8>,
    /// The trace that it announces, if it was created here.
    pub(super) announces: Option<TraceId>,
    /// How often it was repaired after OpenAI rejected it.
    pub(super) repairs: u32,
}

/// A request's body.
#[derive(Debug)]
pub(super) struct Body {
    /// The account of all its items.
    pub(super) account: Arc<Account>,
    /// Its items, in order.
    pub(super) entries: Vec<Entry>,
}

const OPENING: &[u8] = b"{\"data\":[";
const CLOSING: &[u8] = b"]}";

impl Body {
    /// Returns the places of its items in the delivery.
    pub(super) fn places(&self) -> Vec<usize> {
        self.entries.iter().filter_map(|entry| entry.place).collect()
    }

    /// Returns `{"data":[...]}`.
    pub(super) fn bytes(&self) -> Bytes {
        let items: Vec<&[u8]> = self.entries.iter().map(|entry| &*entry.text).collect();
        [OPENING, &items.join(&b","[..]), CLOSING].concat().into()
    }

    fn has_room(&self, entry: &Entry, bytes_max: usize) -> bool {
        let items = self.entries.iter().map(|entry| entry.text.len() + 1).sum::<usize>();
        let bytes = OPENING.len() + items + entry.text.len() + CLOSING.len();
        self.entries.len() < ITEMS_MAX && bytes <= bytes_max
    }
}

/// Encodes a delivery in requests of at most so many bytes. Those of an account have the order of the delivery.
pub(super) fn encode(delivery: &Delivery, bytes_max: usize, accounts: &Accounts) -> Vec<Body> {
    let mut bodies: Vec<Body> = Vec::new();
    let mut add = |account: &Arc<Account>, entry: Entry| {
        let open = bodies.iter_mut().rfind(|body| body.account == *account);
        match open.filter(|body| body.has_room(&entry, bytes_max)) {
            Some(body) => body.entries.push(entry),
            None => bodies.push(Body { account: Arc::clone(account), entries: vec![entry] }),
        }
    };
    let mut announced: HashSet<TraceId> = HashSet::new();
    // All items of one received request have the same account.
    let mut last: Option<(&Source, Arc<Account>)> = None;
    for (place, (batch, item)) in delivery.items().enumerate() {
        let known =
            last.take().filter(|(source, _)| std::ptr::eq(*source, &raw const batch.source));
        let known = known.unwrap_or_else(|| (&batch.source, Arc::new(accounts.of(&batch.source))));
        let (source, account) = last.insert(known);
        let trace = item.trace_id();
        let mut entry = Entry { place: Some(place), ..Entry::default() };
        match item {
            Item::Span(span) if span.is_otlp() => {
                if !accounts.is_announced(trace) && announced.insert(trace) {
                    let mut made = Entry { announces: Some(trace), ..Entry::default() };
                    write_trace(&mut made.text, span, delivery.context(trace));
                    add(account, made);
                }
                write_span(&mut entry.text, span);
            }
            agents_sdk => {
                // The receiver checked that items are text.
                let text = std::str::from_utf8(agents_sdk.wire()).unwrap_or_default();
                write_item(&mut entry.text, text, Origin::of(source));
            }
        }
        add(account, entry);
    }
    bodies
}
