//! Decodes a received body: reserves memory, decompresses, removes credentials and parses the items.
//!
//! A request reserves its memory once, when its body has arrived: for the body, its decompressed size, and the most that decoding makes of
//! that ([`memory_bound`]). The need of a compressed body is unknown before it is decompressed, so it starts with a guess. If that was too
//! low, the request releases everything and reserves more: no request waits for memory while holding some.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::body::Body;
use super::budget::{Memory, Reservation};
use super::estimate::{memory_bound, worst_bound};
use super::options::ReceiverOptions;
use super::refusal::Refusal;
use crate::feed::DecodedRequest;
use crate::normalize::{
    Coding, Decoded, Encoding, Envelope, InflateError, Limits, Refused, decode, inflate,
    scrub_credentials,
};
use crate::rules::{BeforeJournal, MEMORY_BYTES, MEMORY_RATIO};
use crate::span::{Receiver, Source};

/// Up to these sizes a body is decoded on the thread that received it, which takes at most 500 microseconds; moving to a blocking thread
/// and back costs 10 to 30, more than a typical body. Measured (`tests/bench/decode.rs`, two busy cores): 30 KB of small spans take 35 us
/// as protobuf and 170 as JSON, 134 KB of agent spans 12 and 120.
const INLINE_PROTOBUF_BYTES_MAX: usize = 384 << 10;
const INLINE_JSON_BYTES_MAX: usize = 160 << 10;
const INLINE_INFLATED_BYTES_MAX: usize = 160 << 10;

/// Growth factor if a guess of the decompressed size was too low: the wasted work is at most a seventh of the total.
const ROOM_GROWTH: usize = 8;

/// Requests whose worst case is within this share of the memory are not counted exactly: they hold it only briefly.
const UNCOUNTED_SHARE: usize = 4;
/// Typical memory of decoding per byte of input: less for long texts, three times as much for small spans.
const USUAL_DECODED_RATIO: usize = 2;

/// Decodes requests. All receivers share one decoder, because memory and processors are shared. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    memory: Memory,
    /// Limits large bodies to one per processor: more would only take more memory.
    heavy: Arc<Semaphore>,
    limits: Limits,
    bytes_max_inflated: usize,
    /// The rules that apply before anything is written.
    pub(super) before_journal: Option<Arc<BeforeJournal>>,
}

/// The memory that a request needs in addition to its body.
#[derive(Debug, Clone, Copy)]
struct Need {
    inflated: usize,
    decoded: usize,
}

/// The format of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// Its receiver.
    pub(super) receiver: Receiver,
    pub(super) encoding: Encoding,
    pub(super) coding: Coding,
}

impl Decoder {
    /// Creates a decoder with this memory for all requests.
    pub(super) fn new(options: &ReceiverOptions, memory_bytes: usize) -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Self {
            memory: Memory::new(memory_bytes),
            heavy: Arc::new(Semaphore::new(processors)),
            limits: Limits::default(),
            bytes_max_inflated: options.body_bytes_max_inflated,
            before_journal: None,
        }
    }

    /// Decodes a request to store, without the items that rules drop, and returns their number. Its memory is held as long as the
    /// reservation.
    pub(super) async fn decode(
        &self,
        source: Source,
        form: Form,
        body: Body,
    ) -> Result<(DecodedRequest, usize, Reservation), Refusal> {
        let mut envelope =
            Envelope { coding: form.coding, ..Envelope::new(source, form.encoding, 0) };
        let (wire_bytes, limits) = (body.bytes.len(), self.limits);
        let before_journal = self.before_journal.clone();
        let decoding = self.read(form, body, move |sent, inflated| {
            envelope.body_bytes = inflated.len() as u64;
            let (sent, body) = without_credentials(&mut envelope, sent, inflated);
            let decoded = decode(&envelope, &body, &limits)?;
            let (sent, decoded, dropped) = match before_journal {
                Some(rules) => rules.clean(&mut envelope, sent, &body, decoded, &limits)?,
                None => (sent, decoded, 0),
            };
            Ok((DecodedRequest { envelope, sent, decoded }, dropped))
        });
        let ((arrival, dropped), mut reservation) = decoding.await?;
        let body_bytes = usize::try_from(arrival.envelope.body_bytes).unwrap_or(usize::MAX);
        let inflated = if form.coding == Coding::Identity { 0 } else { body_bytes };
        // This is about what remains in memory until the answer; the worst case was reserved only for decoding.
        let Decoded { batch, refused, .. } = &arrival.decoded;
        let kept = batch.bytes + refused.capacity() * size_of::<Refused>();
        reservation.shrink(wire_bytes.saturating_add(inflated).saturating_add(kept));
        Ok((arrival, dropped, reservation))
    }

    /// Redacts an invalid body and its sender for storage. A body on which a rule panics is replaced by an empty one.
    #[cfg(feature = "kafka")]
    pub(super) async fn unread(
        &self,
        source: &mut Source,
        (encoding, is_compressed): (Encoding, bool),
        body: Bytes,
    ) -> Bytes {
        let Some(rules) = self.before_journal.clone() else { return body };
        rules.clean_headers(source);
        let clean = move || rules.clean_unread(encoding, is_compressed, body);
        spawn_blocking(clean).await.unwrap_or_default()
    }

    /// Reserves memory for a body, and passes it to `read`: as received, and decompressed.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        form: Form,
        body: Body,
        read: impl FnOnce(Bytes, Bytes) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<(T, Reservation), Refusal> {
        let sent = body.bytes.clone();
        let (inflated, reservation) = self.inflate(form, body).await?;
        let inline_max = match form.encoding {
            Encoding::Protobuf => INLINE_PROTOBUF_BYTES_MAX,
            Encoding::Json => INLINE_JSON_BYTES_MAX,
        };
        let is_heavy = inline_max < inflated.len();
        let reading = move || read(sent, inflated).map(|request| (request, reservation));
        self.work(is_heavy, reading).await?
    }

    /// Reserves memory for a body, and decompresses it.
    async fn inflate(&self, form: Form, body: Body) -> Result<(Bytes, Reservation), Refusal> {
        let Body { bytes, arrival } = body;
        let mut arrival = Some(arrival);
        let mut need = self.first_need(form, &bytes)?;
        loop {
            let total = bytes.len().saturating_add(need.inflated).saturating_add(need.decoded);
            let reservation = self.memory.reserve(total).await?;
            // From here on, the reservation covers the body.
            drop(arrival.take());
            if form.coding == Coding::Identity {
                return Ok((bytes, reservation));
            }
            let (decoder, input) = (self.clone(), bytes.clone());
            let attempt = move || decoder.attempt(form, input, need, reservation);
            match self.work(INLINE_INFLATED_BYTES_MAX < need.inflated, attempt).await?? {
                Ok(read) => return Ok(read),
                Err(more) => need = more,
            }
        }
    }

    /// Returns the memory that a body needs: exact if it is not compressed, else a guess.
    fn first_need(&self, form: Form, bytes: &[u8]) -> Result<Need, Refusal> {
        let uncounted = self.memory.bytes_max / UNCOUNTED_SHARE;
        if form.coding != Coding::Identity {
            return Ok(self.guess(form, bytes.len(), inflated_guess(form.coding, bytes)));
        }
        if self.bytes_max_inflated < bytes.len() {
            return Err(InflateError::TooLarge { max: self.bytes_max_inflated }.into());
        }
        let decoded = memory_bound(form.receiver, form.encoding, bytes, uncounted);
        Ok(Need { inflated: 0, decoded: decoded.saturating_add(self.rewriting(bytes.len())) })
    }

    /// Returns the memory that the rules before the journal may need for a body of this length.
    fn rewriting(&self, bytes: usize) -> usize {
        let most = bytes.saturating_mul(MEMORY_RATIO).saturating_add(MEMORY_BYTES);
        if self.before_journal.is_some() { most } else { 0 }
    }

    /// Guesses what a compressed body may need. A guess never exceeds the total memory; only the exact need may.
    fn guess(&self, form: Form, wire_bytes: usize, inflated: usize) -> Need {
        let inflated = inflated.min(self.bytes_max_inflated);
        let worst = worst_bound(form.receiver, form.encoding, inflated);
        let decoded = worst.min(self.memory.bytes_max / UNCOUNTED_SHARE);
        let decoded = decoded.max(inflated.saturating_mul(USUAL_DECODED_RATIO));
        let decoded = decoded.saturating_add(self.rewriting(inflated));
        let left = self.memory.bytes_max.saturating_sub(wire_bytes.saturating_add(inflated));
        Need { inflated, decoded: decoded.min(left) }
    }

    /// Decompresses a body within a reservation. If that is too small, releases it and returns the need.
    fn attempt(
        &self,
        form: Form,
        body: Bytes,
        need: Need,
        reservation: Reservation,
    ) -> Result<Result<(Bytes, Reservation), Need>, Refusal> {
        let wire_bytes = body.len();
        let inflated = match inflate(form.coding, body, need.inflated) {
            Err(InflateError::TooLarge { .. }) if need.inflated < self.bytes_max_inflated => {
                let larger = need.inflated.saturating_mul(ROOM_GROWTH);
                return Ok(Err(self.guess(form, wire_bytes, larger)));
            }
            inflated => inflated?,
        };
        let left = (need.inflated + need.decoded).saturating_sub(inflated.len());
        let decoded = memory_bound(form.receiver, form.encoding, &inflated, left);
        let decoded = decoded.saturating_add(self.rewriting(inflated.len()));
        if left < decoded {
            return Ok(Err(Need { inflated: inflated.len(), decoded }));
        }
        Ok(Ok((inflated, reservation)))
    }

    /// Runs work; heavy work runs where it blocks no other task. What it holds lives as long as the work, even if the client is gone.
    async fn work<T: Send + 'static>(
        &self,
        is_heavy: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        if !is_heavy {
            return Ok(work());
        }
        let turn = Arc::clone(&self.heavy).acquire_owned().await;
        let turn = turn.map_err(|_| Refusal::STOPPING)?;
        let working = spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        // A panic in the work is returned as an error.
        working.await.map_err(|_| Refusal::PANICKED)
    }
}

/// Removes the keys that some Agents SDK items contain, from what is stored and from what is decoded. Everything else stays as sent.
fn without_credentials(envelope: &mut Envelope, sent: Bytes, body: Bytes) -> (Bytes, Bytes) {
    if envelope.source.receiver != Receiver::OpenAi {
        return (sent, body);
    }
    let scrubbed = scrub_credentials(body.clone());
    if scrubbed.len() == body.len() {
        return (sent, body);
    }
    envelope.coding = Coding::Identity;
    envelope.body_bytes = scrubbed.len() as u64;
    (scrubbed.clone(), scrubbed)
}

/// Returns the compression of the request's body.
pub(super) fn content_coding(headers: &HeaderMap) -> Result<Coding, Refusal> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Coding::Identity) };
    value.to_str().ok().and_then(Coding::from_header).ok_or(Refusal::Coding)
}

/// Guesses the decompressed size of a body: from its framing if that has the size, else from a typical ratio. It is only good for reserving
/// memory, because the sender may have written anything.
fn inflated_guess(coding: Coding, body: &[u8]) -> usize {
    let usual = body.len().saturating_mul(USUAL_RATIO);
    let guess = match coding {
        Coding::Identity => body.len(),
        Coding::Deflate => usual,
        // RFC 1952: the last four bytes are the last member's length modulo 2^32.
        Coding::Gzip => match body.last_chunk().map(|length| u32::from_le_bytes(*length)) {
            Some(length) if 0 < length => usize::try_from(length)
                .unwrap_or(usize::MAX)
                .min(body.len().saturating_mul(DEFLATE_RATIO_MAX)),
            _ => usual,
        },
        Coding::Zstd => match zstd::zstd_safe::get_frame_content_size(body) {
            Ok(Some(length)) => usize::try_from(length).unwrap_or(usize::MAX),
            _ => usual,
        },
    };
    guess.max(GUESS_BYTES_MIN)
}

/// Traces shrink to between a fifth and a tenth of their size.
const USUAL_RATIO: usize = 8;
/// Deflate produces at most 258 bytes from two bits.
const DEFLATE_RATIO_MAX: usize = 1032;
/// Smaller sizes are not worth guessing.
const GUESS_BYTES_MIN: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::receivers::body::Bodies;

    #[tokio::test]
    async fn memory_is_held_as_long_as_somebody_works_with_it_and_no_longer() {
        let decoder = Decoder::new(&ReceiverOptions::default(), 8 << 20);
        let form = Form {
            receiver: Receiver::OtlpHttp,
            encoding: Encoding::Protobuf,
            coding: Coding::Identity,
        };
        let body = |bytes: usize| Body {
            bytes: Bytes::from(vec![0; bytes]),
            arrival: Bodies::new(&ReceiverOptions::default(), 1).begin(),
        };
        let all = decoder.memory.bytes_max;
        let (begun, has_begun) = mpsc::sync_channel(1);
        let (go_on, may_go_on) = mpsc::sync_channel(1);
        let work = move |_, _| {
            begun.send(()).unwrap();
            may_go_on.recv().unwrap();
            Ok(())
        };
        let request = {
            let decoder = decoder.clone();
            let body = body(1 + INLINE_PROTOBUF_BYTES_MAX);
            tokio::spawn(async move { decoder.read(form, body, work).await.map(drop) })
        };
        spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
        // Its client is gone.
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        let everything = decoder.memory.reserve(all);
        let mut everything = std::pin::pin!(everything);
        assert!(futures_util::poll!(everything.as_mut()).is_pending());
        go_on.send(()).unwrap();
        drop(everything.await.unwrap());
        // If no work has started on it, its memory is released immediately.
        let held = decoder.memory.reserve(all).await.unwrap();
        let waiting = Box::pin(decoder.read(form, body(100), |_, _| Ok(())));
        drop(waiting);
        drop(held);
        assert!(decoder.memory.reserve(all).await.is_ok());
    }
}
