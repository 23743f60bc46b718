//! From a body as it came to a decoded request: memory taken, compression undone, credentials taken out, items read.
//!
//! A request takes its memory once, when its body is there, and all of it: what came, what it decompresses to, and the most that
//! decoding makes of that ([`memory_bound`]). What decompressed bodies need shows only then, so a request begins with a guess, and
//! where that was too low it gives everything back and takes more: nobody waits for memory while holding some.

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
use crate::feed::Arrival;
use crate::normalize::{
    Coding, Decoded, Encoding, Envelope, InflateError, Limits, Refused, decode, inflate,
    scrub_credentials,
};
use crate::rules::{BeforeJournal, MEMORY_BYTES, MEMORY_RATIO};
use crate::span::{Receiver, Source};

/// Up to these sizes a body is read on the thread that received it, which takes 500 microseconds at most; moving to a thread that may
/// block and back costs 10 to 30, more than a usual body. Measured (`tests/bench/decode.rs`, two busy cores): 30 KB of small spans
/// take 35 us as protobuf and 170 as JSON, 134 KB of agent spans 12 and 120.
const INLINE_PROTOBUF_BYTES_MAX: usize = 384 << 10;
const INLINE_JSON_BYTES_MAX: usize = 160 << 10;
const INLINE_INFLATED_BYTES_MAX: usize = 160 << 10;

/// Where a first guess at a body's decompressed size was too low, the next is this much higher: what was done in vain is then at
/// most a seventh of the work.
const ROOM_GROWTH: usize = 8;

/// A request for which this share of the memory is enough at the worst is not counted: it holds so much for a moment only.
const UNCOUNTED_SHARE: usize = 4;
/// What decoding usually takes beside the bytes it reads, in bytes for each: little for long texts, three times as much for small spans.
const USUAL_DECODED_RATIO: usize = 2;

/// Decodes requests. One for all receivers, since memory and processors are shared. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    memory: Memory,
    /// As many heavy bodies are read at a time as there are processors: more would only take more memory.
    heavy: Arc<Semaphore>,
    limits: Limits,
    bytes_max_inflated: usize,
    /// The rules that hold before anything is written.
    pub(super) before_journal: Option<Arc<BeforeJournal>>,
}

/// What a request takes in memory beside what came.
#[derive(Debug, Clone, Copy)]
struct Need {
    inflated: usize,
    decoded: usize,
}

/// How a body is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// Who reads it.
    pub(super) receiver: Receiver,
    pub(super) encoding: Encoding,
    pub(super) coding: Coding,
}

impl Decoder {
    /// A decoder with this memory for all requests.
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

    /// Decodes a request that is kept, without the items that rules dropped of it, and says how many these were. Its memory is held as
    /// long as the reservation is.
    pub(super) async fn decode(
        &self,
        source: Source,
        form: Form,
        body: Body,
    ) -> Result<(Arrival, usize, Reservation), Refusal> {
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
            Ok((Arrival { envelope, sent, decoded }, dropped))
        });
        let ((arrival, dropped), mut reservation) = decoding.await?;
        let body_bytes = usize::try_from(arrival.envelope.body_bytes).unwrap_or(usize::MAX);
        let inflated = if form.coding == Coding::Identity { 0 } else { body_bytes };
        // About what is kept beside the body until it is answered; the worst was held while it was decoded.
        let Decoded { batch, refused, .. } = &arrival.decoded;
        let kept = batch.bytes + refused.capacity() * size_of::<Refused>();
        reservation.shrink(wire_bytes.saturating_add(inflated).saturating_add(kept));
        Ok((arrival, dropped, reservation))
    }

    /// A body that is no request, and who sent it, as they may be kept. What a rule panics on is not.
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

    /// Takes memory for a body, and reads it: as it came, and with its compression undone.
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

    /// Takes memory for a body, and undoes its compression.
    async fn inflate(&self, form: Form, body: Body) -> Result<(Bytes, Reservation), Refusal> {
        let Body { bytes, arrival } = body;
        let mut arrival = Some(arrival);
        let mut need = self.first_need(form, &bytes)?;
        loop {
            let total = bytes.len().saturating_add(need.inflated).saturating_add(need.decoded);
            let reservation = self.memory.reserve(total).await?;
            // The body is counted there from now on.
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

    /// What a body needs as far as it shows: all of it where it is not compressed, else a guess.
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

    /// What the rules before the journal may take for a body of this length.
    fn rewriting(&self, bytes: usize) -> usize {
        let most = bytes.saturating_mul(MEMORY_RATIO).saturating_add(MEMORY_BYTES);
        if self.before_journal.is_some() { most } else { 0 }
    }

    /// What a compressed body may need. A guess never asks for more than there is: that is for the exact need to say.
    fn guess(&self, form: Form, wire_bytes: usize, inflated: usize) -> Need {
        let inflated = inflated.min(self.bytes_max_inflated);
        let worst = worst_bound(form.receiver, form.encoding, inflated);
        let decoded = worst.min(self.memory.bytes_max / UNCOUNTED_SHARE);
        let decoded = decoded.max(inflated.saturating_mul(USUAL_DECODED_RATIO));
        let decoded = decoded.saturating_add(self.rewriting(inflated));
        let left = self.memory.bytes_max.saturating_sub(wire_bytes.saturating_add(inflated));
        Need { inflated, decoded: decoded.min(left) }
    }

    /// Decompresses a body within a reservation. Where that is too little it is given back, and the need is said.
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

    /// Does work, heavy work where it keeps nobody waiting. What it holds lives as long as the work does, also where its client is gone.
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
        // A panic in there comes back as an error.
        working.await.map_err(|_| Refusal::PANICKED)
    }
}

/// The request without the keys that some Agents SDK items carry: what is kept and what is understood. Everything else stays as
/// sent.
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

/// The coding that a request says its body has.
pub(super) fn content_coding(headers: &HeaderMap) -> Result<Coding, Refusal> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Coding::Identity) };
    value.to_str().ok().and_then(Coding::from_header).ok_or(Refusal::Coding)
}

/// How large a body may be once inflated: what its own framing claims where it does, and a usual ratio elsewhere. Only good for
/// reserving room, since the sender may have written anything.
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

/// Traces shrink to between a fifth and a tenth.
const USUAL_RATIO: usize = 8;
/// Deflate writes at most 258 bytes for two bits.
const DEFLATE_RATIO_MAX: usize = 1032;
/// Not worth guessing below.
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
        // Where nobody works with it yet, it comes back at once.
        let held = decoder.memory.reserve(all).await.unwrap();
        let waiting = Box::pin(decoder.read(form, body(100), |_, _| Ok(())));
        drop(waiting);
        drop(held);
        assert!(decoder.memory.reserve(all).await.is_ok());
    }
}
