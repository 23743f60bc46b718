//! What a sink will never take, kept whole and replayable: a journal of its own, whatever the sink.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::journal::{AppendError, Entry, Journal};
use crate::normalize::{Aside, Coding, Encoding, Envelope};
use crate::sinks::{Delivery, Rejection};
use crate::span::{Batch, Item, Receiver};
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

    /// Keeps the rejected items; when this returns they are on stable storage. Returns how many there were.
    pub async fn keep(
        &self,
        sink: &str,
        delivery: &Delivery,
        rejections: &[Rejection],
    ) -> Result<u64, AppendError> {
        let mut kept = 0;
        for rejection in rejections {
            let Some((batch, item)) = delivery.items().nth(rejection.index) else { continue };
            let body = request_of(batch, item);
            let envelope = Envelope {
                source: batch.source.clone(),
                encoding: encoding_of(item, batch.source.receiver),
                coding: Coding::Identity,
                items: 1,
                body_bytes: body.len() as u64,
                resent: Vec::new(),
                aside: Some(Aside {
                    sink: sink.to_owned(),
                    reason: rejection.reason.clone(),
                    answer: rejection.answer.clone(),
                    at_ns: clock::unix_now_ns(),
                }),
            };
            self.journal
                .append(Entry { head: envelope.head(body.len()), body, items: 1, passenger: () })
                .await?;
            kept += 1;
        }
        Ok(kept)
    }
}

fn encoding_of(item: &Item, receiver: Receiver) -> Encoding {
    match item {
        Item::Span(span) if span.is_otlp() => Encoding::Protobuf,
        _ if receiver == Receiver::OpenAi => Encoding::Json,
        _ => Encoding::Protobuf,
    }
}

/// A request with this item alone, as its receiver takes it.
fn request_of(_batch: &Batch, item: &Item) -> Bytes {
    const PREFIX: &[u8] = br#"{"data":["#;
    const SUFFIX: &[u8] = b"]}";
    let mut body = BytesMut::with_capacity(PREFIX.len() + item.wire().len() + SUFFIX.len());
    body.put_slice(PREFIX);
    body.put_slice(item.wire());
    body.put_slice(SUFFIX);
    body.freeze()
}
