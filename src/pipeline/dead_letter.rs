//! The dead-letter store: items that sinks rejected, complete and replayable, in a separate journal for all sinks.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::join_all;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::feed::{Records, aside};
use crate::journal::{AppendError, Entry, Journal};
use crate::normalize::{Encoding, Envelope, Kept, SetAside};
use crate::sinks::{Delivery, Refusal};
use crate::span::otlp::protobuf;
use crate::span::{Item, Source, Span, sdk_request};
use crate::support::lock::lock;

/// The store of dead letters. Each is a record like those of the main journal, with one item and the reason, so a replay simply decodes it.
/// This is a handle: clones share the store.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    journal: Journal<()>,
    /// Stored letters of items that may be rejected again, and how many of each there are.
    known: Arc<Mutex<HashMap<Identity, u32>>>,
}

/// A hash of the arrival time of an item's request and of the item's ids, which no rule changes, or of a whole record's bytes.
type Identity = u64;

impl DeadLetters {
    /// Creates the store over a separate journal.
    pub fn new(journal: Journal<()>) -> Self {
        Self { journal, known: Arc::default() }
    }

    /// Reads which letters a sink has, because items rejected after its saved cursor are rejected again and already have one. Blocks on the
    /// disk.
    pub(super) fn recall(&self, sink: &str) -> io::Result<()> {
        let mut known = HashMap::new();
        for record in Records::all(&self.journal) {
            if let Some(record) = record?.payload
                && let Ok(Kept::Letter(envelope, body)) = Kept::read(&record)
                && envelope.aside.as_ref().is_some_and(|aside| aside.sink == sink)
            {
                *known.entry(identity(&envelope, &body)).or_default() += 1;
            }
        }
        *lock(&self.known) = known;
        Ok(())
    }

    /// Stores the rejected items; when this returns, they are on stable storage. Returns their number, without synthetic roots. After an
    /// error the call can be repeated: items that are already stored are not stored twice.
    pub async fn keep(
        &self,
        sink: &str,
        delivery: &Delivery,
        refused: &[(usize, Arc<Refusal>)],
    ) -> Result<u64, AppendError> {
        let items: Vec<_> = delivery.items().collect();
        let appends = refused.iter().filter_map(|(place, refusal)| {
            let (batch, item) = items.get(*place)?;
            // A synthetic root was never accepted, so it cannot be lost.
            if item.as_span().is_some_and(Span::is_synthetic) {
                return None;
            }
            let (encoding, body) = request_of(item);
            let envelope = Envelope::new(batch.source.clone(), encoding, body.len());
            let ids = ids_of(item);
            let aside = SetAside { ids, ..aside(sink, &refusal.reason, &refusal.answer) };
            Some(self.append(Envelope { items: 1, aside: Some(aside), ..envelope }, body))
        });
        // All share one sync.
        let kept = join_all(appends).await;
        if kept.iter().any(Result::is_err) {
            for kept in kept.iter().flatten() {
                *lock(&self.known).entry(*kept).or_default() += 1;
            }
        }
        kept.into_iter().try_fold(0, |count, kept| kept.map(|_| count + 1))
    }

    /// Stores an entire record that cannot be delivered for `reason`, with the number of items that the journal counts for it.
    pub async fn keep_record(
        &self,
        sink: &str,
        record: &Bytes,
        items: u64,
        reason: &str,
    ) -> Result<(), AppendError> {
        let unknown = || Envelope::new(Source::unknown(), Encoding::Protobuf, record.len());
        let (mut envelope, body) =
            Envelope::split(record).unwrap_or_else(|_| (unknown(), record.clone()));
        envelope.aside = Some(aside(sink, reason, ""));
        envelope.items = u32::try_from(items).unwrap_or(u32::MAX);
        self.append(envelope, body).await.map(drop)
    }

    /// Appends a dead letter unless it is already stored; returns its identity.
    async fn append(&self, envelope: Envelope, body: Bytes) -> Result<Identity, AppendError> {
        let identity = identity(&envelope, &body);
        if !self.is_known(identity) {
            let (head, items) = (envelope.head(body.len()), envelope.items);
            self.journal.append(Entry { head, body, items, attachment: () }).await?;
        }
        Ok(identity)
    }

    /// Returns whether there is a letter for the item. It counts for no other item, because a request may repeat one.
    fn is_known(&self, identity: Identity) -> bool {
        lock(&self.known).get_mut(&identity).is_some_and(|left| {
            let is_left = 0 < *left;
            *left -= u32::from(is_left);
            is_left
        })
    }
}

fn identity(envelope: &Envelope, body: &[u8]) -> Identity {
    let ids = envelope.aside.as_ref().map(|aside| &*aside.ids).filter(|ids| !ids.is_empty());
    xxh3_64_with_seed(ids.unwrap_or(body), envelope.source.received_at_ns)
}

/// Returns the ids of an item's trace and span.
fn ids_of(item: &Item) -> Vec<u8> {
    let span = item.as_span().map_or(&[][..], |span| span.span_id.as_bytes());
    [item.trace_id().as_bytes(), span].concat()
}

/// Encodes a request with only this item, as its receiver accepts it.
fn request_of(item: &Item) -> (Encoding, Bytes) {
    match item {
        Item::Span(span) if span.is_otlp() => {
            let mut body = Vec::with_capacity(span.wire.len() + REQUEST_BYTES_GUESS);
            protobuf::write_request(&mut body, [span]);
            (Encoding::Protobuf, Bytes::from(body))
        }
        Item::Span(_) | Item::Trace(_) => (Encoding::Json, sdk_request(item.wire())),
    }
}

/// Typical size of resource and scope in addition to the span.
const REQUEST_BYTES_GUESS: usize = 512;
