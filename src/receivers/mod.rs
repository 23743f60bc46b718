//! Receivers: they accept requests from clients and acknowledge nothing before it is in the journal.
//!
//! Every port serves every protocol, over HTTP/1.1 and HTTP/2 with prior knowledge; gRPC only over HTTP/2, because the trailers with its
//! status would be lost over HTTP/1.1:
//!
//! | path | takes | success |
//! |---|---|---|
//! | `POST /v1/traces/ingest` | what the Agents SDK sends | 204 |
//! | `POST /v1/traces` and its aliases (`routes`) | OTLP traces in protobuf or JSON | 200 |
//! | `/opentelemetry.proto.collector.trace.v1.TraceService/Export` | OTLP traces over gRPC | OK |
//! | metrics, logs and profiles by HTTP or gRPC | counted, not stored, and the answer says so | 200, OK |
//! | `/grpc.health.v1.Health/Check` | | `SERVING` |
//!
//! One table (`refusal`) has the reasons for refusals and each protocol's answer. There are no 3xx or 500 answers: on 3xx, clients assume
//! success or lose the body, and on 500 all of them drop the request. Only OTLP gets 429, because old Agents SDKs drop requests on it.
//!
//! Limits are checked in this order: connections ([`crate::server`]), the tenant's rate (`tenants`), the request's size on the wire and the
//! bytes of all bodies still arriving (`body`, `budget`), its decompressed size and the memory of all requests (`decode`), the number of
//! its items (`normalize`). Memory is released when the request is answered, or when its client is gone and no work on it remains.
//!
//! `tower-http` implements CORS, `axum` builds answers, and `tonic-types` encodes the details of statuses. `axum` does not route here and
//! `tonic` serves no gRPC, because
//! * the paths are a table of constants (`routes`), and unknown paths and methods must also be answered in the client's protocol, which a
//!   router's fallbacks would have to determine again;
//! * a body that stops arriving ends its connection without an answer (the nearest status, 408, makes clients drop data that they could
//!   still send), which an infallible service, as required by `axum`, cannot express;
//! * `tonic` reads an entire message before a handler sees it: with its own limit, outside of the budget, and with a code (`OUT_OF_RANGE`)
//!   on which clients send the same message again.

mod auth;
mod body;
mod budget;
mod cors;
mod decode;
mod estimate;
mod grpc;
mod kafka;
mod kafka_options;
mod options;
mod refusal;
mod reply;
mod routes;
mod signal;
mod tenants;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, EXPECT, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Version};
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tracing::{error, warn};

use self::auth::{Auth, Identity};
use self::body::{Bodies, Body};
use self::cors::Origins;
use self::decode::{Decoder, Form, content_coding};
use self::refusal::Refusal;
use self::reply::{Partial, Taken};
use self::routes::{Place, Protocol, labels};
use self::signal::{FirstSeen, Signal};
use self::tenants::{Tenant, Tenants};
use crate::feed::Intake;
use crate::normalize::Refused;
use crate::rules::BeforeJournal;
use crate::server::{Handler, HangUp, Limits, Peer, Tls, header_text};
use crate::span::{ONLY_SINK_HEADER, Receiver, Source};
use crate::support::clock;
use crate::support::forwarding::{ForwardingPath, SENDER_HEADER};
use crate::support::keyring::Keyring;
use crate::support::lock::lock;
use crate::support::seldom::Seldom;
use crate::support::stop::Stop;
use crate::telemetry::{Figure, Label, Metrics};

pub use kafka_options::KafkaOptions;
pub use options::*;
pub use tenants::TENANT_FIGURES;

/// Headers that are stored in addition to the user agent.
static KEPT_HEADERS: [HeaderName; 6] = [
    USER_AGENT,
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static(SENDER_HEADER),
    HeaderName::from_static(ONLY_SINK_HEADER),
];

/// Stored headers are truncated to this size: they are in every record, and real ones are far shorter.
const KEPT_HEADER_BYTES_MAX: usize = 256;

const NO_SINK: &str =
    "spanferry-sink names no sink of this daemon: name one, or leave the header out for all";

/// Code in metrics of a connection that ended without an answer; not an HTTP status or gRPC code.
const HUNG_UP: u16 = 499;

const ACCEPTED: Figure =
    ("receiver_accepted_spans", "Spans and trace objects on stable storage and acknowledged");
const REFUSED: Figure = (
    "receiver_refused_spans",
    "Spans and trace objects, or requests that were not read, whose client was told to retry",
);
/// Invalid items in the quarantine, or entire invalid requests (each counted as one).
const FAILED: Figure = (
    "receiver_failed_spans",
    "Spans and trace objects in the quarantine, and requests that will never be taken",
);
const RESENT: Figure =
    ("receiver_resent_spans", "Exact resends, acknowledged and not delivered twice");
/// The number of received items is `accepted + resent + failed + filtered + refused`.
pub const FILTERED: Figure =
    ("receiver_filtered_spans", "Spans and trace objects that rules dropped before the journal");
/// The counters of each receiver, with their names in `/status`.
pub const RECEIVER_FIGURES: [(&str, Figure); 5] = [
    ("accepted", ACCEPTED),
    ("resent", RESENT),
    ("refused", REFUSED),
    ("failed", FAILED),
    ("filtered", FILTERED),
];
const UNSTORED: Figure = (
    "receiver_unstored_items",
    "Items of signals that are not stored: data points, log records and profiles",
);

/// All receivers. This is a handle: clones share it, even when the settings are replaced.
#[derive(Debug, Clone)]
pub struct Receivers {
    answering: Arc<Mutex<Arc<Answering>>>,
    /// Held while topics are consumed.
    #[cfg(feature = "kafka")]
    consuming: Arc<tokio::sync::Mutex<()>>,
    /// Why no messages arrive from topics.
    trouble: Arc<Mutex<Option<String>>>,
}

/// Everything needed to answer a request.
#[derive(Debug)]
struct Answering {
    intake: Intake,
    metrics: Metrics,
    refusing: Stop,
    auth: Auth,
    tenants: Arc<Tenants>,
    origins: Origins,
    bodies: Bodies,
    decoder: Decoder,
    first_seen: Arc<FirstSeen>,
    quarantined: Arc<Seldom>,
    tls: Option<Tls>,
    sinks: Vec<String>,
    options: ReceiverOptions,
}

/// The settings of receivers, which may be replaced while requests are served.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The checked options.
    pub options: ReceiverOptions,
    /// The TLS state for the certificates in the options.
    pub tls: Option<Tls>,
    /// The rules that apply before anything is written.
    pub before_journal: Option<Arc<BeforeJournal>>,
    /// The store of callers' keys, if a sink uses them.
    pub keys: Option<Arc<Keyring>>,
    /// The names of the sinks: a request may be for a single one.
    pub sinks: Vec<String>,
}

impl Receivers {
    /// Creates receivers that append to the journal through `intake`. They accept requests when they are served; once `refusing` is
    /// signalled, clients are told to retry.
    pub fn new(settings: Settings, intake: Intake, metrics: Metrics, refusing: Stop) -> Self {
        // A counter that exists from the start shows its first item as an increase.
        for (receiver, encoding) in Protocol::ALL.map(Protocol::form) {
            for (_, figure) in RECEIVER_FIGURES {
                metrics.add(figure, &labels(receiver, encoding), 0);
            }
        }
        let answering = Answering::new(settings, (intake, metrics, refusing), None);
        Self {
            answering: Arc::new(Mutex::new(Arc::new(answering))),
            #[cfg(feature = "kafka")]
            consuming: Arc::default(),
            trouble: Arc::default(),
        }
    }

    /// Replaces the settings for new requests, including those on existing connections. Requests in progress keep the old settings and the
    /// memory that they reserved.
    pub fn set(&self, settings: Settings) {
        let old = self.now();
        let parts = (old.intake.clone(), old.metrics.clone(), old.refusing.clone());
        *lock(&self.answering) = Arc::new(Answering::new(settings, parts, Some(&old)));
    }

    /// Returns current problems: of the certificate, if an older one is in use, and of consumed topics.
    pub fn problems(&self) -> Vec<String> {
        let of_tls = self.now().tls.as_ref().and_then(Tls::problem);
        of_tls.into_iter().chain(lock(&self.trouble).clone()).collect()
    }

    #[cfg(feature = "kafka")]
    fn set_trouble(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }

    /// Returns where the Agents SDK's ingest and OTLP over HTTP are reached from this machine.
    pub fn url(&self) -> String {
        let ReceiverOptions { http, tls, .. } = &self.now().options;
        http.url(tls.is_some())
    }

    /// Returns whether requests need a token.
    pub fn need_token(&self) -> bool {
        !self.now().options.tokens.is_empty()
    }

    /// Returns a warning if any client may send from other machines.
    pub fn exposed(&self) -> Option<String> {
        self.now().options.exposed().map(|(_, what)| what)
    }

    fn now(&self) -> Arc<Answering> {
        lock(&self.answering).clone()
    }
}

impl Answering {
    /// Creates the state for these settings. It keeps the memory budget of the previous state, unless its settings changed.
    fn new(
        settings: Settings,
        (intake, metrics, refusing): (Intake, Metrics, Stop),
        before: Option<&Self>,
    ) -> Self {
        let Settings { options, tls, before_journal, keys, sinks } = settings;
        let is_same = |old: &&Self| budget::settings(&options) == budget::settings(&old.options);
        let (bodies, mut decoder) = if let Some(old) = before.filter(is_same) {
            (old.bodies.clone(), old.decoder.clone())
        } else {
            let (arriving, memory) = budget::split(&options);
            (Bodies::new(&options, arriving), Decoder::new(&options, memory))
        };
        decoder.before_journal = before_journal;
        // Tenants keep their debts if the limits are unchanged.
        let owing = before.filter(|old| old.options.limits == options.limits);
        let owing = owing.map(|old| Arc::clone(&old.tenants));
        Self {
            intake,
            refusing,
            auth: Auth::new(&options, keys),
            tenants: owing.unwrap_or_else(|| Tenants::new(&options, metrics.clone()).into()),
            metrics,
            origins: options.cors.as_ref().map(Origins::new).unwrap_or_default(),
            bodies,
            decoder,
            first_seen: before.map(|old| Arc::clone(&old.first_seen)).unwrap_or_default(),
            quarantined: before.map_or_else(
                || Arc::new(Seldom::new(Duration::from_mins(1))),
                |old| Arc::clone(&old.quarantined),
            ),
            tls,
            sinks,
            options,
        }
    }

    /// Answers one request, with CORS if it comes from a browser. On an error the connection is closed without an answer.
    async fn answer_all(&self, request: Request<Incoming>) -> Result<Response, Refusal> {
        match self.origins.admit(request.headers()) {
            Ok(Some(cors)) => {
                let inner = service_fn(|request| self.answer_admitted(request, Ok(())));
                cors.layer(inner).oneshot(request).await
            }
            Ok(None) => self.answer_admitted(request, Ok(())).await,
            Err(refusal) => self.answer_admitted(request, Err(refusal)).await,
        }
    }

    /// Answers one request, or refuses it in its protocol.
    async fn answer_admitted(
        &self,
        request: Request<Incoming>,
        admitted: Result<(), Refusal>,
    ) -> Result<Response, Refusal> {
        let started = Instant::now();
        let (head, mut incoming) = request.into_parts();
        let place = routes::find(head.uri.path(), &self.options);
        let protocol = Protocol::of(place, &head);
        if head.method == Method::OPTIONS && admitted.is_ok() {
            return Ok((StatusCode::NO_CONTENT, [(ALLOW, ALLOWED_METHODS)]).into_response());
        }
        let entering = async {
            admitted?;
            self.enter(place, protocol, &head, &mut incoming).await
        };
        // The state that it uses is either its own or behind locks that survive a panic.
        let outcome = AssertUnwindSafe(entering).catch_unwind().await.unwrap_or_else(|_| {
            error!(?place, "our own code panicked on a request");
            Err(Refusal::PANICKED)
        });
        let (receiver, encoding) = protocol.form();
        self.count_refusal(&labels(receiver, encoding), &outcome);
        let answered = match outcome {
            Err(refusal) if protocol.hangs_up(&refusal) => Err(refusal),
            outcome => {
                if outcome.is_err() && is_to_be_discarded(&head, &incoming) {
                    // Over HTTP/1.1 a client reads the answer after it has sent its body. There is one such task per connection, and it
                    // ends.
                    tokio::spawn(body::discard(incoming));
                }
                Ok(protocol.reply(&outcome))
            }
        };
        let code = answered.as_ref().map_or(HUNG_UP, |(_, code)| *code);
        self.metrics.answered(receiver.as_str(), code, started.elapsed());
        answered.map(|(response, _)| response)
    }

    /// Checks a request and passes it on to its place.
    async fn enter(
        &self,
        place: Place,
        protocol: Protocol,
        head: &Parts,
        incoming: &mut Incoming,
    ) -> Result<Taken, Refusal> {
        if place == Place::Nowhere {
            return Err(routes::directions(head, &self.options));
        }
        if head.method != Method::POST {
            return Err(Refusal::Method(place.takes()));
        }
        if place == Place::Health && protocol == Protocol::Grpc {
            grpc::read_health_check(&self.bodies, head, incoming).await?;
            return Ok(Taken::Health(!self.refusing.is_stopped()));
        }
        if is_from_ourselves(header_text(&head.headers, SENDER_HEADER)) {
            warn!(
                ?place,
                "refused a request that one of our own sinks had sent, perhaps through other daemons: there is a loop"
            );
            return Err(Refusal::Loop);
        }
        if self.refusing.is_stopped() {
            return Err(Refusal::STOPPING);
        }
        let peer = head.extensions.get::<Peer>();
        let certificate = peer.and_then(|peer| peer.certificate.as_deref());
        let identity = self.auth.identify(&head.headers, certificate)?;
        let is_for = |sink: &HeaderValue| self.sinks.iter().any(|known| sink == known.as_str());
        if !head.headers.get_all(ONLY_SINK_HEADER).iter().all(is_for) {
            // It would reach no sink.
            return Err(Refusal::Malformed(NO_SINK.to_owned()));
        }
        let tenant = self.tenants.enter(&identity.tenant)?;
        let signal = match (place, protocol) {
            (Place::Ingest, _) => Signal::Traces,
            (Place::Rpc(signal), Protocol::Grpc)
            | (Place::Export(signal), Protocol::Otlp(Some(_))) => signal,
            // Requests to a gRPC path that are not gRPC are directed to the right path.
            (Place::Rpc(_), Protocol::Otlp(Some(_))) => {
                return Err(routes::directions(head, &self.options));
            }
            _ => return Err(Refusal::MediaType(place.media_types())),
        };
        if signal != Signal::Traces {
            self.first_seen.meet(signal, &head.headers);
            if self.options.other_signals == OtherSignals::Reject {
                return Err(Refusal::Unwanted);
            }
        }
        if place == Place::Ingest {
            self.auth.remember(&head.headers, &identity);
        }
        let (coding, body) = if protocol == Protocol::Grpc {
            grpc::message(&self.bodies, head, incoming, usize::MAX).await?
        } else {
            let coding = content_coding(&head.headers)?;
            (coding, self.bodies.reader(incoming, 0).read().await?)
        };
        tenant.came(body.bytes.len());
        let (receiver, encoding) = protocol.form();
        let form = Form { receiver, encoding, coding };
        let partial = match signal {
            Signal::Traces => {
                let source = source_of(receiver, head, identity);
                self.keep(source, form, body, &tenant).await?
            }
            _ => self.count(signal, form, body, &tenant).await?,
        };
        Ok(Taken::Export(partial))
    }

    /// Counts the items of a request that is not stored.
    async fn count(
        &self,
        signal: Signal,
        form: Form,
        body: Body,
        tenant: &Tenant,
    ) -> Result<Option<Partial>, Refusal> {
        let count = move |_, body: Bytes| Ok(signal.count(form.encoding, &body)?);
        let (items, _) = self.decoder.read(form, body, count).await?;
        tenant.sent(items);
        self.metrics.add(UNSTORED, &[("signal", signal.about().name.into())], items);
        Ok(Partial::unstored(signal, items))
    }

    /// Decodes a request and stores its valid items. Returns what the client should know.
    async fn keep(
        &self,
        source: Source,
        form: Form,
        body: Body,
        tenant: &Tenant,
    ) -> Result<Option<Partial>, Refusal> {
        let (metrics, receiver) = (&self.metrics, form.receiver.as_str());
        let labels = &labels(form.receiver, form.encoding);
        metrics.came(labels, body.bytes.len());
        let (arrival, dropped, reservation) = self.decoder.decode(source, form, body).await?;
        let decoded = &arrival.decoded;
        let items = decoded.batch.items.len() + decoded.refused.len() + dropped;
        tenant.sent(items as u64);
        let (reasons, odd_times) = (reasons(&decoded.refused), decoded.odd_times);
        let warnings = decoded.warnings.clone();
        let accepted = self.intake.accept(arrival).await;
        let accepted = accepted.map_err(|refusal| {
            Refusal::of_journal(&refusal, u32::try_from(items).unwrap_or(u32::MAX))
        })?;
        drop(reservation);
        metrics.add(ACCEPTED, labels, accepted.items.into());
        metrics.add(RESENT, labels, accepted.resent.into());
        metrics.add(FAILED, labels, accepted.quarantined.into());
        metrics.add(FILTERED, labels, dropped as u64);
        if 0 < odd_times {
            metrics.understanding().odd_times(receiver, odd_times);
        }
        if 0 < accepted.quarantined
            && let Some(items) = self.quarantined.note_all(accepted.quarantined.into())
        {
            warn!(
                receiver,
                items,
                reason = reasons.first().map(|(reason, _)| reason),
                "items could not be understood and are in the quarantine"
            );
        }
        Ok(Partial::of((accepted.quarantined, items), &reasons, &warnings))
    }

    fn count_refusal(&self, labels: &[Label], outcome: &Result<Taken, Refusal>) {
        let (figure, items) = match outcome {
            Ok(_) | Err(Refusal::Gone | Refusal::Slow) => return,
            Err(Refusal::Busy { items, .. }) => (REFUSED, *items),
            Err(Refusal::Limited(_)) => (REFUSED, 1),
            Err(_) => (FAILED, 1),
        };
        self.metrics.add(figure, labels, items.into());
    }
}

impl Handler for Receivers {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response, HangUp> {
        self.now().answer_all(request).await.map_err(|refusal| HangUp(refusal.to_string()))
    }

    fn limits(&self) -> Limits {
        let ReceiverOptions { connections_max, drain_timeout, .. } = self.now().options;
        Limits { connections_max, drain_timeout }
    }

    fn tls(&self) -> Option<Tls> {
        self.now().tls.clone()
    }

    /// Aborts a slow body, whose connection then becomes idle.
    fn make_room(&self) {
        self.now().bodies.oldest_gives_way();
    }
}

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// Describes the sender, time and receiver of a request.
fn source_of(receiver: Receiver, head: &Parts, identity: Identity) -> Source {
    let kept = |name: &HeaderName| {
        let text = header_text(&head.headers, name)?;
        Some((name.as_str().to_owned(), kept_part(text).to_owned()))
    };
    Source {
        receiver,
        received_at_ns: clock::unix_now_ns(),
        tenant: identity.tenant,
        key_fingerprint: identity.key_fingerprint,
        headers: KEPT_HEADERS.iter().filter_map(kept).collect(),
    }
}

/// Returns what is stored of a header.
fn kept_part(text: &str) -> &str {
    text.split_at(text.floor_char_boundary(KEPT_HEADER_BYTES_MAX)).0
}

/// Returns whether a sink of this process sent the request, perhaps through other daemons, or so many daemons forwarded it that it must be
/// in a loop.
fn is_from_ourselves(sender: Option<&str>) -> bool {
    sender.is_some_and(|sender| ForwardingPath::read(sender).is_circle())
}

/// Returns whether part of the body is still to come that a client must send before it reads the answer.
fn is_to_be_discarded(head: &Parts, incoming: &Incoming) -> bool {
    // A client that sent `Expect` waits for permission to send, and sees the refusal instead.
    head.version < Version::HTTP_2
        && !incoming.is_end_stream()
        && !head.headers.contains_key(EXPECT)
}

/// Counts the items of each reason. There are at most a dozen different ones.
fn reasons(refused: &[Refused]) -> Vec<(&'static str, u32)> {
    let mut reasons: Vec<(&'static str, u32)> = Vec::new();
    for item in refused {
        match reasons.iter_mut().find(|(reason, _)| *reason == item.reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((item.reason, 1)),
        }
    }
    reasons
}
