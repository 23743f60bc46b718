//! The only append path: a request becomes a record in the journal, synced and published, or is refused.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::{Attachment, Feed};
use crate::journal::{AppendError, Entry};
use crate::normalize::{Decoded, Encoding, Envelope, Refused, SetAside};
use crate::span::{Batch, Item, Source};
use crate::support::clock;

/// A decoded request to store.
#[derive(Debug)]
pub struct DecodedRequest {
    /// Its metadata.
    pub envelope: Envelope,
    /// Its body as the client sent it, still compressed.
    pub sent: Bytes,
    /// Its items.
    pub decoded: Decoded,
}

/// The result of an accepted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Number of items that are now in the journal.
    pub items: u32,
    /// Number of items that were there already.
    pub resent: u32,
    /// Number of invalid items, which are in the quarantine.
    pub quarantined: u32,
}

/// Why a request was refused. The client should retry later.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no space until a sink moves on.
    #[error("the journal is full")]
    Full,
    /// The disk is full.
    #[error("the disk is full")]
    NoSpace,
    /// The process is stopping, or must stop.
    #[error("the daemon is stopping")]
    Stopping,
    /// A record cannot be that large.
    #[error("the request is larger than the journal accepts")]
    TooLarge,
}

/// The input of the journal. Nothing else appends to it.
#[derive(Debug, Clone)]
pub struct Intake {
    feed: Feed,
}

impl Intake {
    pub(super) fn new(feed: Feed) -> Self {
        Self { feed }
    }

    /// Stores a request. When this returns, its valid items are on stable storage in the journal, and its invalid ones in the quarantine.
    pub async fn accept(&self, arrival: DecodedRequest) -> Result<Accepted, Refusal> {
        let DecodedRequest { mut envelope, sent, mut decoded } = arrival;
        let wires = decoded.batch.items.iter().map(Item::wire);
        let reservation = self.feed.dedup.reserve(&envelope.source, wires).await;
        let resent = count(reservation.resent.len());
        let is_resend = resent > 0 && reservation.resent.len() == decoded.batch.items.len();
        if is_resend {
            // Its invalid items were quarantined when it first came.
            return Ok(Accepted { items: 0, resent, quarantined: count(decoded.refused.len()) });
        }
        let quarantined = count(decoded.refused.len());
        if quarantined > 0 {
            self.quarantine(&envelope, &sent, &decoded.refused).await?;
        }
        if resent > 0 {
            envelope.resent = places_in_body(&reservation.resent, &decoded.refused);
            // Readers of the record skip the same items.
            leave_out(&mut decoded.batch, &reservation.resent);
        }
        let items = count(decoded.batch.items.len());
        if items > 0 {
            envelope.items = items;
            let head = envelope.head(sent.len());
            let attachment = Attachment { batch: Arc::new(decoded.batch), reservation };
            let entry = Entry { head, body: sent, items, attachment };
            self.feed.journal.append_within(entry, self.feed.ack_wait).await?;
        }
        Ok(Accepted { items, resent, quarantined })
    }

    /// Stores an entire invalid body in the quarantine.
    pub async fn set_aside(
        &self,
        source: Source,
        encoding: Encoding,
        body: Bytes,
        reason: String,
    ) -> Result<(), Refusal> {
        let envelope = Envelope::new(source, encoding, body.len());
        self.feed.quarantine.append(unknown(envelope, body, &reason)).await?;
        Ok(())
    }

    /// Quarantines invalid items, unless the same body came before. Each is stored with its resource and scope, so it can be much larger
    /// than in the request: at most [`QUARANTINE_BYTES_MAX`] of them are created before they are stored.
    async fn quarantine(
        &self,
        envelope: &Envelope,
        sent: &Bytes,
        refused: &[Refused],
    ) -> Result<(), Refusal> {
        // A redacted body does not contain the invalid items, so these are reserved too.
        let parts = std::iter::once(sent).chain(refused.iter().map(|item| &item.wire));
        let reservation = self.feed.dedup.reserve(&envelope.source, parts).await;
        if reservation.resent.len() > refused.len() {
            return Ok(());
        }
        let (mut appends, mut bytes) = (Vec::new(), 0);
        for item in refused {
            let entry = quarantined(envelope, item);
            bytes += entry.body.len();
            appends.push(self.feed.quarantine.append(entry));
            if bytes >= QUARANTINE_BYTES_MAX {
                try_join_all(std::mem::take(&mut appends)).await?;
                bytes = 0;
            }
        }
        try_join_all(appends).await?;
        reservation.settle();
        Ok(())
    }
}

/// Memory limit for items that are quarantined under one sync, not counting the last one. The items of an ordinary request fit.
const QUARANTINE_BYTES_MAX: usize = 4 << 20;

/// Creates a separate record for an invalid item.
fn quarantined(envelope: &Envelope, item: &Refused) -> Entry<()> {
    let body = item.request();
    let envelope = Envelope::new(envelope.source.clone(), item.encoding, body.len());
    unknown(envelope, body, item.reason)
}

/// Creates a record for the quarantine that counts as one item and belongs to no sink.
fn unknown(mut envelope: Envelope, body: Bytes, reason: &str) -> Entry<()> {
    envelope.items = 1;
    envelope.aside = Some(aside("", reason, ""));
    let head = envelope.head(body.len());
    Entry { head, body, items: 1, attachment: () }
}

/// Describes a quarantined item or dead letter: the reason, the sink and its answer, and the current time.
pub fn aside(sink: &str, reason: &str, answer: &str) -> SetAside {
    let [sink, reason, answer] = [sink, reason, answer].map(str::to_owned);
    SetAside { sink, reason, answer, at_ns: clock::unix_now_ns(), ids: Vec::new() }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full { .. } => Self::Full,
            AppendError::NoSpace => Self::NoSpace,
            AppendError::TooLarge { .. } => Self::TooLarge,
            AppendError::Poisoned(_) | AppendError::Closed => Self::Stopping,
        }
    }
}

/// Converts indexes among the valid items to indexes among all items of the body; both lists are in ascending order. A later mapping may
/// accept more items, so only the index in the body remains valid.
fn places_in_body(understood: &[u32], refused: &[Refused]) -> Vec<u32> {
    let mut refused = refused.iter().map(|item| item.index).peekable();
    let mut before = 0;
    let place = |&index: &u32| {
        while refused.next_if(|refused| *refused <= index + before).is_some() {
            before += 1;
        }
        index + before
    };
    understood.iter().map(place).collect()
}

/// Removes items from a batch, by ascending indexes.
fn leave_out(batch: &mut Batch, places: &[u32]) {
    let mut place = 0;
    let mut left_out = places.iter().peekable();
    batch.items.retain(|_| {
        let stays = left_out.next_if(|left_out| **left_out == place).is_none();
        place += 1;
        stays
    });
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::feed::FeedOptions;
    use crate::feed::tests::{accept, arrival, item};
    use crate::journal::{Journal, MemoryStorage, Options};
    use crate::normalize::decode_record;

    #[tokio::test]
    async fn what_was_sent_before_is_left_out_of_a_batch_as_it_is_of_its_record() {
        let storage = Arc::<MemoryStorage>::default;
        let quarantine = Journal::open(&Options::default(), storage(), drop).unwrap();
        let feed = Feed::open(&FeedOptions::default(), &Options::default(), storage(), quarantine)
            .unwrap();
        let trace = r#"{"object":"trace","id":"trace_1","workflow_name":"w"}"#.to_owned();
        accept(&feed, &[item("a"), trace.clone(), item("b")]).await;
        let second = feed.journal().end();
        let bad = r#"{"object":"odd"}"#.to_owned();
        let items = [item("a"), bad.clone(), item("c"), trace, bad, item("b"), item("d")];
        let accepted = accept(&feed, &items).await;
        assert_eq!((accepted.items, accepted.resent, accepted.quarantined), (2, 3, 2));
        let batch = feed.reader(second).next().await.batch;
        let record = feed.journal().read_from(second.position).next().unwrap().unwrap();
        let again = decode_record(&record.payload.unwrap()).unwrap().1.batch;
        let told = |batch: &Batch| -> Vec<(Bytes, bool)> {
            let knows = |item: &Item| item.as_span().is_some_and(|span| span.trace.is_some());
            batch.items.iter().map(|item| (item.wire().clone(), knows(item))).collect()
        };
        assert_eq!(told(&batch), told(&again));
        assert_eq!(told(&batch), [(Bytes::from(item("c")), true), (Bytes::from(item("d")), true)]);
    }

    #[tokio::test]
    async fn a_request_that_is_refused_ten_times_sets_its_bad_items_aside_once() {
        let storage = Arc::<MemoryStorage>::default;
        let quarantine = Journal::open(&Options::default(), storage(), drop).unwrap();
        let options = FeedOptions { ack_wait: Duration::ZERO, ..FeedOptions::default() };
        let full = Options { bytes_max: 16 << 10, ..Options::default() };
        let feed = Feed::open(&options, &full, storage(), quarantine).unwrap();
        let bad = r#"{"object":"odd"}"#.to_owned();
        let large = "x".repeat(1000);
        let mut taken = 0;
        while feed.intake().accept(arrival(&[item(&format!("{taken}{large}"))])).await.is_ok() {
            taken += 1;
        }
        for _ in 0..10 {
            let refused = feed.intake().accept(arrival(&[item(&large), bad.clone()])).await;
            assert!(matches!(refused, Err(Refusal::Full)), "{refused:?}");
        }
        assert_eq!(feed.quarantine().end().items, 1);
        // Another request with the same item is handled separately.
        feed.intake().accept(arrival(&[bad.clone(), bad.clone()])).await.unwrap();
        assert_eq!(feed.quarantine().end().items, 3);
        feed.intake().accept(arrival(&[bad.clone(), bad])).await.unwrap();
        assert_eq!(feed.quarantine().end().items, 3);
    }

    #[test]
    fn places_are_counted_over_refused_items_too() {
        let refused = |places: &[u32]| -> Vec<Refused> {
            places
                .iter()
                .map(|&index| {
                    let (wire, encoding) = (Bytes::new(), Encoding::Json);
                    Refused { index, reason: "", wire, encoding, scope: None }
                })
                .collect()
        };
        assert_eq!(places_in_body(&[0, 2], &refused(&[])), [0, 2]);
        // The body is: invalid, a, invalid, invalid, b, c, invalid.
        assert_eq!(places_in_body(&[0, 1, 2], &refused(&[0, 2, 3, 6])), [1, 4, 5]);
        assert_eq!(places_in_body(&[2], &refused(&[0, 2, 3, 6])), [5]);
    }
}
