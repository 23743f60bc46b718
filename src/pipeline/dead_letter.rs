//! The dead-letter store: items that sinks rejected, complete and replayable, in a separate journal for all sinks.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::future::join_all;

use crate::feed::{Records, aside};
use crate::journal::{AppendError, Entry, Journal, Position};
use crate::normalize::{Encoding, Envelope, Kept};
use crate::sinks::{Delivery, Refusal};
use crate::span::otlp::protobuf;
use crate::span::{Item, Source, Span, sdk_request};
use crate::support::lock::lock;

/// The store of dead letters. Each is a record like those of the main journal, with one item and the reason, so a replay simply decodes it.
/// This is a handle: clones share the store.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    journal: Journal<()>,
    known: Arc<Mutex<HashSet<u64>>>,
    hasher: RandomState,
}

/// Amount of stored letters that are scanned for those a lane may repeat after a crash, in bytes: more than it rejects between two saves of
/// its cursor.
const RECALLED_BYTES_MAX: u64 = 64 << 20;

impl DeadLetters {
    /// Creates the store over a separate journal.
    pub fn new(journal: Journal<()>) -> Self {
        Self { journal, known: Arc::default(), hasher: RandomState::new() }
    }

    /// Reads which letters a sink has, because items rejected after its saved cursor are rejected again and already have one. Blocks on the
    /// disk.
    pub(super) fn recall(&self, sink: &str) -> io::Result<()> {
        let end = self.journal.end().position.0;
        let oldest = Position(end.saturating_sub(RECALLED_BYTES_MAX));
        for record in Records::after(&self.journal, oldest)? {
            if let Some(record) = record?.payload
                && let Ok(Kept::Letter(envelope, body)) = Kept::read(&record)
                && envelope.aside.as_ref().is_some_and(|aside| aside.sink == sink)
            {
                self.known().insert(self.identity(&envelope, &body));
            }
        }
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
            let aside = aside(sink, &refusal.reason, &refusal.answer);
            Some(self.append(Envelope { items: 1, aside: Some(aside), ..envelope }, body))
        });
        // All share one sync.
        let kept: Vec<u64> = join_all(appends).await.into_iter().collect::<Result<_, _>>()?;
        self.known().retain(|known| !kept.contains(known));
        Ok(kept.len() as u64)
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
        let kept = self.append(envelope, body).await?;
        self.known().remove(&kept);
        Ok(())
    }

    /// Appends a dead letter unless it is already stored; returns its identity.
    async fn append(&self, envelope: Envelope, body: Bytes) -> Result<u64, AppendError> {
        let identity = self.identity(&envelope, &body);
        if !self.known().contains(&identity) {
            let (head, items) = (envelope.head(body.len()), envelope.items);
            self.journal.append(Entry { head, body, items, attachment: () }).await?;
            self.known().insert(identity);
        }
        Ok(identity)
    }

    /// Identifies an item by its sink, arrival time and contents.
    fn identity(&self, envelope: &Envelope, body: &Bytes) -> u64 {
        let sink = envelope.aside.as_ref().map(|aside| &aside.sink);
        self.hasher.hash_one((sink, envelope.source.received_at_ns, body))
    }

    fn known(&self) -> MutexGuard<'_, HashSet<u64>> {
        lock(&self.known)
    }
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
