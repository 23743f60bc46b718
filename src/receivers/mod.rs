//! Doors in. Nothing is acknowledged before the journal has it.
//!
//! Every port serves every protocol, over HTTP/1.1 and HTTP/2 with prior knowledge; gRPC over HTTP/2 alone, since the trailers with its
//! status would be lost elsewhere:
//!
//! | path | takes | success |
//! |---|---|---|
//! | `POST /v1/traces/ingest` | what the Agents SDK sends | 204 |
//! | `POST /v1/traces` and its aliases (`routes`) | OTLP traces in protobuf or JSON | 200 |
//! | `/opentelemetry.proto.collector.trace.v1.TraceService/Export` | OTLP traces over gRPC | OK |
//! | metrics, logs and profiles by HTTP or gRPC | counted, not stored, and the answer says so | 200, OK |
//! | `/grpc.health.v1.Health/Check` | | `SERVING` |
//!
//! | what happened | HTTP | gRPC | does a client come again |
//! |---|---|---|---|
//! | kept, in part or whole | 200, 204 | 0 | no |
//! | not understood | 400 | 3 | no |
//! | missing or wrong key | 401 | 16 | no |
//! | unknown path, wrong method | 404, 405 | 12 | no |
//! | larger than a limit | 413 | 8 without `RetryInfo` | no |
//! | unknown media type or coding | 415 | 12 | no |
//! | sent by a sink of this daemon itself, or through more than 12 daemons | 508 | 7 | no: the lane holds |
//! | no room in memory, journal or disk; stopping; a panic | 503 with `Retry-After` | 14 with `RetryInfo` | yes |
//! | the body stops coming | the connection is closed | 4 | yes |
//!
//! There is no 3xx, 429 or 500: clients take the first for success or lose the body, old Agents SDKs drop on the second, and
//! everybody drops on the third. TLS and Unix sockets are not served here: a sidecar listens on the loopback.

mod routes;
mod failure;
mod reply;
mod gate;
mod openai;
mod otlp;
mod server;
mod options;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, EXPECT, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
    WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::time::Instant;
use tracing::{error, warn};

use self::failure::Failure;
use self::gate::cors::Cors;
use self::gate::{Body, Gate, Identity};
use self::otlp::{Newcomers, Partial};
use self::reply::Reply;
use self::routes::{Language, Place, Routes};
use crate::feed::Intake;
use crate::normalize::{Coding, Encoding, Envelope, Refused, Warning};
use crate::span::{Receiver, Source};
use crate::support::clock;
use crate::support::hops::{Hops, SENDER_HEADER};
use crate::support::keyring::Keyring;
use crate::support::stop::Stop;
use crate::telemetry::{Door, Metrics};

pub use options::*;
pub use server::serve;

/// Headers that matter later, beside the user agent.
static KEPT_HEADERS: [HeaderName; 5] = [
    USER_AGENT,
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static(SENDER_HEADER),
];

/// A kept header is cut here: they are stored with every record, and real ones stay far below.
const KEPT_HEADER_BYTES_MAX: usize = 256;

/// What a connection ended without an answer counts as in the figures; no HTTP status and no gRPC code.
const HUNG_UP: u16 = 499;

/// All doors: what requests are answered with. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct Doors(Arc<Shared>);

/// What the doors are built with.
#[derive(Debug)]
pub struct DoorsParts {
    /// The settings, which were checked.
    pub options: ReceiverOptions,
    /// The way into the journal.
    pub intake: Intake,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// Where callers' keys are kept, if a sink acts in their name.
    pub keys: Option<Arc<Keyring>>,
    /// Turned when requests are no longer taken: clients are told to come again.
    pub refusing: Stop,
}

#[derive(Debug)]
struct Shared {
    intake: Intake,
    metrics: Metrics,
    refusing: Stop,
    gate: Gate,
    routes: Routes,
    cors: Option<Cors>,
    newcomers: Newcomers,
    options: ReceiverOptions,
}

/// A request that was taken.
#[derive(Debug, Default)]
struct Taken {
    /// What the client should know beside that.
    partial: Option<Partial>,
    /// The answer's message where it is not the one of an export: gRPC health.
    health: Option<otlp::Serving>,
}

/// A request that is kept.
#[derive(Debug)]
struct Kept {
    /// How many items it held.
    items: usize,
    /// How many of them are set aside.
    quarantined: u32,
    /// Why, with counts.
    reasons: Vec<(&'static str, u32)>,
    /// What was mended.
    warnings: Vec<Warning>,
}

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer: {0}")]
struct HangUp(Failure);

/// The code of ours panicked.
struct Panicked;

impl Doors {
    /// Builds the doors. They open when they are served.
    pub fn new(parts: DoorsParts) -> Self {
        let DoorsParts { options, intake, metrics, keys, refusing } = parts;
        Self(Arc::new(Shared {
            intake,
            metrics,
            refusing,
            gate: Gate::new(&options, keys),
            routes: Routes::new(options.path_aliases),
            cors: options.cors.as_ref().map(Cors::new),
            newcomers: Newcomers::default(),
            options,
        }))
    }

    /// Answers one request.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Reply>, HangUp> {
        let started = Instant::now();
        let (head, mut incoming) = request.into_parts();
        let place = self.0.routes.find(head.uri.path());
        let language = Language::of(place, &head);
        let cors = self.0.cors.as_ref();
        let origin = cors.and_then(|cors| cors.allowed_origin(&head.headers));
        if head.method == Method::OPTIONS {
            return Ok(self.options_answer(&head.headers, origin));
        }
        let outcome = caught(self.enter(place, language, &head, &mut incoming)).await;
        let outcome = outcome.unwrap_or_else(|Panicked| {
            error!(?place, "a request made the code that reads it panic");
            Err(Failure::PANICKED)
        });
        let door = language.door(place);
        self.count_failure(&door, &outcome);
        if let Err(failure) = &outcome
            && language.hangs_up(failure)
        {
            self.0.metrics.answered(door.receiver, HUNG_UP, started.elapsed());
            return Err(HangUp(failure.clone()));
        }
        let (mut response, code) = language.reply(&outcome);
        if let Some(origin) = origin {
            Cors::admit(origin, response.headers_mut());
        }
        if outcome.is_err() && is_to_be_discarded(&head, &incoming) {
            // On HTTP/1.1 a client reads the answer after it has sent its body. There is one such task a connection, and it ends.
            tokio::spawn(gate::discard(incoming));
        }
        self.0.metrics.answered(door.receiver, code, started.elapsed());
        Ok(response)
    }

    /// Lets a request through to its place.
    async fn enter(
        &self,
        place: Place,
        language: Language,
        head: &Parts,
        incoming: &mut Incoming,
    ) -> Result<Taken, Failure> {
        if place == Place::Nowhere {
            return Err(self.directions(head));
        }
        if head.method != Method::POST {
            return Err(Failure::Method(place.takes()));
        }
        if place == Place::Health && language == Language::Grpc {
            return otlp::grpc::health(self, incoming).await;
        }
        if is_from_ourselves(&head.headers) {
            warn!(
                ?place,
                "a request of one of our own sinks came back to us, perhaps through other daemons, and was not taken"
            );
            return Err(Failure::Loop);
        }
        if self.0.refusing.is_stopped() {
            return Err(Failure::STOPPING);
        }
        let identity = self.gate().identify(&head.headers)?;
        match (place, language) {
            (Place::Ingest, _) => openai::ingest(self, head, incoming, identity).await,
            (Place::Rpc(signal), Language::Grpc) => {
                otlp::grpc::export(self, signal, head, incoming, identity).await
            }
            (Place::Export(signal), Language::Otlp(media)) => {
                otlp::http::export(self, signal, media, head, incoming, identity).await
            }
            // What gRPC's path is no place for has one of its own.
            (Place::Rpc(_), Language::Otlp(_)) => Err(self.directions(head)),
            _ => Err(Failure::MediaType(place.media_types())),
        }
    }

    /// Understands a request body and keeps what is good of it.
    async fn keep(
        &self,
        door: &Door,
        source: Source,
        form: (Encoding, Coding),
        body: Body,
    ) -> Result<Kept, Failure> {
        let Body { bytes, mut reservation } = body;
        let (encoding, coding) = form;
        self.0.metrics.received_bytes(door, bytes.len());
        let envelope = Envelope {
            source,
            encoding,
            coding,
            items: 0,
            body_bytes: 0,
            resent: Vec::new(),
            aside: None,
        };
        let arrival = self.gate().understand(envelope, bytes, &mut reservation).await?;
        let decoded = &arrival.decoded;
        let mut kept = Kept {
            items: decoded.batch.items.len() + decoded.refused.len(),
            quarantined: 0,
            reasons: reasons(&decoded.refused),
            warnings: decoded.warnings.clone(),
        };
        let odd_times = decoded.odd_times;
        let count = u32::try_from(kept.items).unwrap_or(u32::MAX);
        let accepted = self.0.intake.accept(arrival).await;
        let accepted = accepted.map_err(|refusal| Failure::refused(&refusal, count))?;
        drop(reservation);
        self.0.metrics.accepted(door, accepted.items);
        if 0 < accepted.resent {
            self.0.metrics.resent(door, accepted.resent);
        }
        if 0 < odd_times {
            self.0.metrics.odd_times(door.receiver, odd_times);
        }
        if 0 < accepted.quarantined {
            self.0.metrics.failed(door, accepted.quarantined);
            warn!(
                receiver = door.receiver,
                items = accepted.quarantined,
                reason = kept.reasons.first().map(|(reason, _)| reason),
                "items could not be understood and are in the quarantine"
            );
        }
        kept.quarantined = accepted.quarantined;
        Ok(kept)
    }

    fn directions(&self, head: &Parts) -> Failure {
        routes::directions(head, &self.0.options.http)
    }

    fn gate(&self) -> &Gate {
        &self.0.gate
    }

    fn options_answer(&self, head: &HeaderMap, origin: Option<HeaderValue>) -> Response<Reply> {
        let mut response = Response::new(Reply::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ALLOW, ALLOWED_METHODS);
        if let (Some(cors), Some(origin)) = (&self.0.cors, origin) {
            cors.preflight(head, headers);
            Cors::admit(origin, headers);
        }
        response
    }

    fn count_failure(&self, door: &Door, outcome: &Result<Taken, Failure>) {
        match outcome {
            Ok(_) | Err(Failure::Gone | Failure::Slow) => (),
            Err(Failure::Busy { items, .. }) => self.0.metrics.refused(door, *items),
            Err(_) => self.0.metrics.failed(door, 1),
        }
    }
}

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// The status of a failure over HTTP, and the headers that go with it. The body is for the door to write.
fn http_failure(failure: &Failure) -> (Response<Reply>, StatusCode) {
    let mut response = Response::new(Reply::default());
    let headers = response.headers_mut();
    let status = match failure {
        Failure::NotFound(_) | Failure::Unwanted => StatusCode::NOT_FOUND,
        Failure::Method(_) => {
            headers.insert(ALLOW, ALLOWED_METHODS);
            StatusCode::METHOD_NOT_ALLOWED
        }
        Failure::Unauthenticated => {
            let challenge = HeaderValue::from_static("Bearer realm=\"spanferry\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
            StatusCode::UNAUTHORIZED
        }
        Failure::Loop => StatusCode::LOOP_DETECTED,
        Failure::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Failure::Coding => {
            let codings = HeaderValue::from_static("gzip, deflate, zstd, identity");
            headers.insert(ACCEPT_ENCODING, codings);
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        Failure::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::Malformed(_) | Failure::Frame(_) => StatusCode::BAD_REQUEST,
        Failure::Busy { .. } | Failure::Slow | Failure::Gone => {
            headers.insert(RETRY_AFTER, HeaderValue::from(reply::retry_after_seconds()));
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    *response.status_mut() = status;
    (response, status)
}

/// Who sent this, when and how.
fn source_of(receiver: Receiver, head: &Parts, identity: Identity) -> Source {
    let kept = |name: &HeaderName| {
        let text = head.headers.get(name)?.to_str().ok()?;
        let text = text.get(..KEPT_HEADER_BYTES_MAX).unwrap_or(text);
        Some((name.as_str().to_owned(), text.to_owned()))
    };
    Source {
        receiver,
        received_at_ns: clock::unix_now_ns(),
        tenant: identity.tenant,
        key_fingerprint: identity.key_fingerprint,
        headers: KEPT_HEADERS.iter().filter_map(kept).collect(),
    }
}

/// Whether a sink of this process sent what is in the request, perhaps to another daemon that sent it on, or so many daemons did that it
/// must go in a circle.
fn is_from_ourselves(headers: &HeaderMap) -> bool {
    let sender = headers.get(SENDER_HEADER).and_then(|value| value.to_str().ok());
    sender.is_some_and(|sender| Hops::read(sender).is_circle())
}

/// Whether something of the request is still to come that a client must have sent before it reads the answer.
fn is_to_be_discarded(head: &Parts, incoming: &Incoming) -> bool {
    // A client that asked for permission to send has seen that it has none.
    head.version < Version::HTTP_2
        && !incoming.is_end_stream()
        && !head.headers.contains_key(EXPECT)
}

/// Each reason once, with a count. There are a dozen different ones at most.
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

/// Runs a future; a panic in it ends it and nothing else. What it touched is either its own or behind locks that survive this.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut future = pin!(future);
    std::future::poll_fn(move |context| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    })
    .await
}
