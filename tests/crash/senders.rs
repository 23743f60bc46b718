//! Clients that number their spans and send a request again, unchanged, until it is acknowledged, as SDKs do.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::ledger::Ledger;
use super::process::client::{Answer, Client, Protocol};
use super::process::{Daemon, POLL_EVERY, Place};

/// Prefix of every span's name; its number follows.
pub(crate) const NAME: &str = "crash-span-";
/// Two clients for each.
const PROTOCOLS: [Protocol; 3] = [Protocol::Openai, Protocol::OtlpHttp, Protocol::OtlpGrpc];
const CLIENTS_EACH: usize = 2;
/// Maximum number of spans per request.
const SPANS_PER_REQUEST_MAX: u32 = 50;
/// A client without an answer by then gives up and sends again.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Time before a client sends again. It is shorter than in the SDKs, so that more requests are hit by a kill.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// A daemon that acknowledges nothing for this long hangs.
const PROGRESS_MAX: Duration = Duration::from_mins(1);

/// A pseudo-random sequence (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub(crate) fn duration_below(&mut self, end: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(end.as_micros()).unwrap()))
    }
}

/// All clients of a test.
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

/// What is known once every span is acknowledged.
pub(crate) struct Sent {
    pub(crate) ledger: Ledger,
    pub(crate) acknowledged: u32,
    pub(crate) resent: u64,
    /// Number of requests that the daemon refused for now.
    pub(crate) refused: u64,
}

struct Shared {
    /// Each client sends to one of these.
    places: Vec<Place>,
    spans: u32,
    form: Form,
    state: Mutex<State>,
}

/// The form of the spans.
#[derive(Debug, Clone, Copy, Default)]
struct Form {
    /// Bytes of text added to every span.
    ballast: usize,
    /// Whether traces extend over several requests.
    is_interleaved: bool,
}

impl Form {
    /// Returns the trace of a request whose first span has this number.
    fn trace(self, first: u32) -> u32 {
        if self.is_interleaved { first / 2000 * 2000 + first % 30 } else { first }
    }
}

struct State {
    random: Random,
    next: u32,
    ledger: Ledger,
    acknowledged: u32,
    resent: u64,
    refused: u64,
    /// An answer that no client should get.
    wrong: Option<String>,
}

impl Crowd {
    /// Starts clients that send spans of some hundred bytes.
    pub(crate) fn begin(place: &Place, spans: u32, seed: u32) -> Self {
        Self::begin_with(&[place], spans, seed, Form::default())
    }

    /// Starts clients that send spans of some hundred bytes to several daemons.
    #[allow(dead_code, reason = "not every suite has several")]
    pub(crate) fn begin_at(places: &[&Place], spans: u32, seed: u32) -> Self {
        Self::begin_with(places, spans, seed, Form::default())
    }

    /// Starts clients whose spans belong, among others, to traces that extend over several requests.
    pub(crate) fn begin_interleaved(place: &Place, spans: u32, seed: u32) -> Self {
        Self::begin_with(&[place], spans, seed, Form { is_interleaved: true, ..Form::default() })
    }

    /// Starts clients that send spans of more than two kilobytes.
    pub(crate) fn begin_large(place: &Place, spans: u32, seed: u32) -> Self {
        Self::begin_with(&[place], spans, seed, Form { ballast: 2000, ..Form::default() })
    }

    fn begin_with(places: &[&Place], spans: u32, seed: u32, form: Form) -> Self {
        let state = State {
            random: Random::new(u64::from(seed) + 1),
            next: 0,
            ledger: Ledger::new(spans),
            acknowledged: 0,
            resent: 0,
            refused: 0,
            wrong: None,
        };
        let places = places.iter().map(|&place| place.clone()).collect();
        let shared = Arc::new(Shared { places, spans, form, state: Mutex::new(state) });
        let mut clients = JoinSet::new();
        for protocol in PROTOCOLS {
            for number in 0..CLIENTS_EACH {
                clients.spawn(send_all(Arc::clone(&shared), protocol, number));
            }
        }
        Self { shared, clients }
    }

    pub(crate) fn acknowledged(&self) -> u32 {
        self.shared.with(|state| state.acknowledged)
    }

    /// Returns what is acknowledged now.
    pub(crate) fn ledger(&self) -> Ledger {
        self.shared.with(|state| state.ledger.clone())
    }

    /// Waits until this many spans are acknowledged.
    pub(crate) async fn reaches(&self, spans: u32, daemon: &mut Daemon) {
        self.wait_until(daemon, |state| spans <= state.acknowledged).await;
    }

    /// Waits until a request is refused or has no answer for some seconds, which a full disk may cause too.
    pub(crate) async fn is_refused(&self, daemon: &mut Daemon) {
        self.wait_until(daemon, |state| 10 <= state.refused).await;
    }

    /// Waits until everything is acknowledged.
    pub(crate) async fn finish(self, daemon: &mut Daemon) -> Sent {
        self.reaches(self.shared.spans, daemon).await;
        self.clients.join_all().await;
        self.shared.with(|state| Sent {
            ledger: state.ledger.clone(),
            acknowledged: state.acknowledged,
            resent: state.resent,
            refused: state.refused,
        })
    }

    async fn wait_until(&self, daemon: &mut Daemon, reached: impl Fn(&State) -> bool) {
        let mut last = (self.acknowledged(), Instant::now());
        while !self.shared.with(|state| reached(state)) {
            let place = daemon.place.clone();
            let said = || place.said();
            if let Some(wrong) = self.shared.with(|state| state.wrong.clone()) {
                panic!("a client was answered {wrong}; the daemon said:\n{}", said());
            }
            assert!(daemon.ended().is_none(), "the daemon ended by itself:\n{}", said());
            let acknowledged = self.acknowledged();
            if acknowledged != last.0 {
                last = (acknowledged, Instant::now());
            }
            assert!(
                last.1.elapsed() < PROGRESS_MAX,
                "stuck at {acknowledged} spans; the daemon said:\n{}",
                said()
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

impl Shared {
    fn with<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        read(&mut self.state.lock().unwrap())
    }

    /// Returns the numbers of the next request.
    fn take(&self) -> Range<u32> {
        self.with(|state| {
            let count =
                1 + u32::try_from(state.random.below(SPANS_PER_REQUEST_MAX.into())).unwrap();
            let first = state.next;
            state.next = (first + count).min(self.spans);
            first..state.next
        })
    }
}

async fn send_all(shared: Arc<Shared>, protocol: Protocol, number: usize) {
    let place = shared.places[number % shared.places.len()].clone();
    let mut client = None;
    loop {
        let numbers = shared.take();
        if numbers.is_empty() {
            return;
        }
        let body = body(protocol, numbers.clone(), shared.form);
        while !send(&shared, &place, &mut client, protocol, body.clone()).await {
            if shared.with(|state| state.wrong.is_some()) {
                return;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
            shared.with(|state| state.resent += 1);
        }
        shared.with(|state| {
            for number in numbers {
                assert!(state.ledger.add(number));
                state.acknowledged += 1;
            }
        });
    }
}

/// Sends once; returns whether it was acknowledged.
async fn send(
    shared: &Shared,
    place: &Place,
    client: &mut Option<Client>,
    protocol: Protocol,
    body: Bytes,
) -> bool {
    if client.is_none() {
        *client = Client::connect(protocol, protocol.address(place), None).await.ok();
    }
    let Some(connected) = client else { return false };
    match tokio::time::timeout(ANSWER_MAX, connected.send(body)).await {
        Ok(Ok(Answer::Kept)) => return true,
        // Full, or about to stop: the only refusals after which every client sends again.
        Ok(Ok(Answer::Status(503) | Answer::Code(14))) => shared.with(|state| state.refused += 1),
        Ok(Ok(wrong)) => {
            shared.with(|state| state.wrong = Some(format!("{wrong} over {}", protocol.name())));
        }
        // The connection is unusable, and it is unknown whether the request was kept.
        Ok(Err(_)) | Err(_) => *client = None,
    }
    false
}

/// Returns a text that only this span has, of a length that differs from span to span.
pub(crate) fn text_of(number: u32) -> String {
    let mut random = Random::new(number.into());
    let length = 16 + random.below(240);
    (0..length).map(|_| char::from(b'a' + u8::try_from(random.below(26)).unwrap())).collect()
}

fn body(protocol: Protocol, numbers: Range<u32>, form: Form) -> Bytes {
    let (trace, ballast) = (form.trace(numbers.start), form.ballast);
    let texts =
        numbers.map(|number| (number, text_of(number) + " " + &"ballast ".repeat(ballast / 8)));
    match protocol {
        Protocol::Openai => openai_body(trace, texts).into(),
        Protocol::OtlpHttp | Protocol::OtlpJson | Protocol::OtlpGrpc => {
            otlp_request(trace, texts).encode_to_vec().into()
        }
    }
}

fn openai_body(trace: u32, texts: impl Iterator<Item = (u32, String)>) -> Vec<u8> {
    let trace = format!("trace_{:032x}", u128::from(trace) | 1 << 100);
    let mut items = vec![
        json!({"object": "trace", "id": trace, "workflow_name": "crash", "group_id": null, "metadata": null}),
    ];
    items.extend(texts.map(|(number, text)| {
        json!({
            "object": "trace.span", "id": format!("span_{:024x}", u128::from(number) | 1 << 90), "trace_id": trace, "parent_id": null,
            "started_at": "2026-11-21T05:14:17.100376+00:00", "ended_at": "2026-11-21T05:14:17.165377+00:00",
            "span_data": {"type": "custom", "name": format!("{NAME}{number}"), "data": {"text": text}}, "error": null,
        })
    }));
    json!({"data": items}).to_string().into_bytes()
}

fn otlp_request(
    trace: u32,
    texts: impl Iterator<Item = (u32, String)>,
) -> ExportTraceServiceRequest {
    let spans = texts.map(|(number, text)| Span {
        trace_id: (u128::from(trace) | 1 << 100).to_be_bytes().to_vec(),
        span_id: (u64::from(number) | 1 << 60).to_be_bytes().to_vec(),
        name: format!("{NAME}{number}"),
        start_time_unix_nano: 1_795_219_200_000_000_000 + u64::from(number),
        end_time_unix_nano: 1_795_219_200_000_000_500 + u64::from(number),
        attributes: vec![KeyValue {
            key: "text".to_owned(),
            value: Some(AnyValue { value: Some(Value::StringValue(text)) }),
            ..KeyValue::default()
        }],
        ..Span::default()
    });
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }],
    }
}
