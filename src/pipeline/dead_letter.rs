//! What a sink will never take, kept whole and replayable: a journal of its own, whatever the sink.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::journal::{AppendError, Entry, Journal};
use crate::normalize::{Aside, Coding, Encoding, Envelope, native_request};
use crate::sinks::{Delivery, Refusal};
use crate::span::otlp::protobuf;
use crate::span::{Item, Source, Span};
use crate::support::clock;

/// The store of dead letters. Each is a record like those of the main journal, with one item and the reason, so that replaying it
/// is decoding it.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    journal: Journal<()>,
}

impl DeadLetters {
    /// Over a journal of their own.
    pub fn new(journal: Journal<()>) -> Self {
        Self { journal }
    }

    /// Keeps the rejected items; when this returns they are on stable storage. Returns how many there were; roots that
    /// were made here are none.
    pub async fn keep(
        &self,
        sink: &str,
        delivery: &Delivery,
        refused: &[(usize, Arc<Refusal>)],
    ) -> Result<u64, AppendError> {
        let items: Vec<_> = delivery.items().collect();
        let appends = refused.iter().filter_map(|(place, refusal)| {
            let (batch, item) = items.get(*place)?;
            // A root that we made was never accepted, so it is none that could be lost.
            if item.as_span().is_some_and(Span::is_synthetic) {
                return None;
            }
            let (encoding, body) = request_of(item);
            let envelope = Envelope {
                source: batch.source.clone(),
                encoding,
                coding: Coding::Identity,
                items: 1,
                body_bytes: body.len() as u64,
                resent: Vec::new(),
                aside: Some(Aside {
                    sink: sink.to_owned(),
                    reason: refusal.reason.clone(),
                    answer: refusal.answer.clone(),
                    at_ns: clock::unix_now_ns(),
                }),
            };
            let head = envelope.head(body.len());
            Some(self.journal.append(Entry { head, body, items: 1, passenger: () }))
        });
        // All under one sync.
        Ok(try_join_all(appends).await?.len() as u64)
    }

    /// Keeps a whole record that this version does not understand, and that the journal counts so many items for.
    pub async fn keep_record(
        &self,
        sink: &str,
        record: &Bytes,
        items: u64,
    ) -> Result<(), AppendError> {
        let (mut envelope, body) =
            Envelope::split(record).unwrap_or_else(|_| (unknown(record), record.clone()));
        envelope.aside = Some(Aside {
            sink: sink.to_owned(),
            reason: "the record is not understood by this version".to_owned(),
            answer: String::new(),
            at_ns: clock::unix_now_ns(),
        });
        let head = envelope.head(body.len());
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        self.journal.append(Entry { head, body, items, passenger: () }).await.map(drop)
    }
}

/// The envelope of bytes that are not even a record.
fn unknown(record: &Bytes) -> Envelope {
    Envelope {
        source: Source::unknown(),
        encoding: Encoding::Protobuf,
        coding: Coding::Identity,
        items: 1,
        body_bytes: record.len() as u64,
        resent: Vec::new(),
        aside: None,
    }
}

/// A request with this item alone, as its receiver takes it.
fn request_of(item: &Item) -> (Encoding, Bytes) {
    match item {
        Item::Span(span) if span.is_otlp() => {
            let mut body = Vec::with_capacity(span.wire.len() + REQUEST_BYTES_GUESS);
            protobuf::write_request(&mut body, [span]);
            (Encoding::Protobuf, Bytes::from(body))
        }
        Item::Span(_) | Item::Trace(_) => (Encoding::Json, native_request(item.wire())),
    }
}

/// What resource and scope usually take beside the span.
const REQUEST_BYTES_GUESS: usize = 512;
