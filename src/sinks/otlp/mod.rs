//! `type = "otlp"`: any backend that speaks OTLP.
//!
//! ```toml
//! [sinks.collector]
//! type = "otlp"
//! endpoint = "https://otel.example.com:4318"
//! ```
//!
//! **Spans.** OTLP spans are sent as received, byte for byte, including unknown fields. Only their order may change, because the spans of a
//! delivery are grouped by resource and scope. Spans are rewritten for `http/json`, or if their tokens repeat those of others (an agent's,
//! of the calls below it): the attributes with tokens get the prefix `spanferry.aggregate.`, because backends sum all that they see. Most
//! backends do not replace spans by id, so no span is sent again when a later one shows that it repeats another, or that its trace has a
//! root or a session. Agents SDK spans become OTLP spans under the names of `dialect`, each with its conversation and agent, as far as
//! these are known when it is sent. Trace objects are not spans, and nothing is sent for them. Spans without a parent get a common root
//! according to `root_span`, which is sent after the trace has been idle for a while.
//!
//! **Requests.** A delivery larger than `request_bytes_max` is sent as several consecutive requests; the first one that must be retried
//! ends the attempt. The same delivery always yields the same requests, byte for byte. A gRPC request is a unary call with Spanferry's own
//! framing over the HTTP client that all sinks share.
//!
//! **Answers** are interpreted by the table in `response.rs`. If the backend accepted a request but dropped some of its spans, OTLP does
//! not name them: they are counted and logged, and nothing is sent again.
//!
//! **Presets** contain a backend's address, headers, project and names: `preset = "phoenix"` and an `api_key` suffice.
//! `spanferry config show` prints a preset's effective options.

pub(super) mod encode;
mod options;
mod settings;
mod response;
mod token;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, TE};
use hyper::{HeaderMap, StatusCode};

use super::http::{self, Compression, Endpoint, Response};
use super::{
    BuildError, Delivery, Kind, Pace, Parts, Pending, Plan, Refusal, RejectClass, Report, Sink,
    TraceUrl,
};
use crate::span::TraceNeeds;
pub use options::{Dialect, Options, Wire};
pub use settings::Settings;
pub use token::Exchange;
use token::Token;

/// The kind `otlp`.
pub static KIND: Kind = Kind {
    name: "otlp",
    summary: "any OTLP backend, over gRPC or HTTP, with presets for the well-known ones",
    example: "endpoint = \"https://otel.example.com:4318\"\n",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| Ok(Box::new(settings::parse(table)?)),
};

impl Plan for Settings {
    fn build(&self, _parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(Otlp::new(self.clone())?))
    }

    fn expanded(&self) -> toml::Table {
        self.shown.clone()
    }

    fn trace_url(&self) -> Option<TraceUrl> {
        self.trace_url.clone()
    }

    fn probe(&self) -> Option<Pending<'_, Result<String, String>>> {
        Some(Box::pin(probe(self)))
    }
}

/// Sends spans to one backend.
#[derive(Debug)]
pub struct Otlp {
    settings: Arc<Settings>,
    endpoint: Endpoint,
    /// For a backend that does not accept the key itself.
    token: Option<Token>,
}

/// Concurrent requests: as many as the Collector has consumers, so that Spanferry loads a backend no more than the Collector does.
const REQUESTS_MAX: usize = 10;

impl Otlp {
    /// Reads certificates, without connecting.
    pub fn new(settings: Settings) -> Result<Self, BuildError> {
        let endpoint = Endpoint::new(&settings.client, &settings.uri, headers(&settings))?;
        let token = settings.exchange.as_ref().map(|it| Token::new(it, &settings.client));
        let token = token.transpose()?;
        Ok(Self { settings: Arc::new(settings), endpoint, token })
    }

    async fn send(&self, delivery: &Delivery) -> Report {
        let (settings, framing) = (Arc::clone(&self.settings), Arc::clone(&self.settings));
        let write = move |delivery: &Delivery| encode::encode(delivery, &settings);
        let seal = move |message| sealed(message, &framing);
        let send = async |spans, body| match self.post(delivery, body).await {
            Ok(response) => response::read(self.settings.wire, &response, spans),
            Err(report) => report,
        };
        http::deliver(delivery, write, seal, send).await
    }

    /// Sends a body, with a token if the backend needs one, and once more with a new token if the backend rejects it.
    async fn post(&self, delivery: &Delivery, body: Bytes) -> Result<Response, Report> {
        let mut request = self.endpoint.request(delivery, body);
        let Some(token) = &self.token else { return self.endpoint.send(&request).await };
        let authorization = token.authorization(None).await?;
        request.headers.insert(AUTHORIZATION, authorization.clone());
        let response = self.endpoint.send(&request).await?;
        if response.status != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let other = token.authorization(Some(&authorization)).await?;
        request.headers.insert(AUTHORIZATION, other);
        self.endpoint.send(&request).await
    }
}

impl Sink for Otlp {
    fn concurrency_max(&self) -> usize {
        REQUESTS_MAX
    }

    fn trace_needs(&self) -> Option<TraceNeeds> {
        Some(self.settings.needs)
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(self.send(delivery))
    }
}

/// Returns a message as it is sent: over gRPC, a byte that tells whether it is compressed and its length precede it.
fn sealed(message: Vec<u8>, settings: &Settings) -> io::Result<Bytes> {
    let message = settings.compression.apply(message)?;
    if settings.wire != Wire::Grpc {
        return Ok(message);
    }
    // No request is near 4 GiB, because `request_bytes_max` and the largest span that a receiver accepts are far below.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let is_compressed = u8::from(settings.compression != Compression::None);
    Ok([&[is_compressed][..], &length.to_be_bytes(), &message].concat().into())
}

/// Returns the headers of every request.
fn headers(settings: &Settings) -> HeaderMap {
    let mut headers = settings.headers.clone();
    let (content_type, coding) = match settings.wire {
        Wire::HttpProtobuf => ("application/x-protobuf", CONTENT_ENCODING),
        Wire::HttpJson => ("application/json", CONTENT_ENCODING),
        Wire::Grpc => ("application/grpc", HeaderName::from_static("grpc-encoding")),
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(value) = settings.compression.header() {
        headers.insert(coding, value);
    }
    if settings.wire == Wire::Grpc {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        // Tells the backend when the client stops waiting.
        let deadline = format!("{}m", settings.client.timeout.as_millis().min(99_999_999));
        headers.extend(
            HeaderValue::try_from(deadline).map(|it| (HeaderName::from_static("grpc-timeout"), it)),
        );
    }
    headers
}

/// Asks a backend whether it would accept deliveries as configured, with an export without spans that leaves nothing there.
async fn probe(settings: &Settings) -> Result<String, String> {
    let sink = Otlp::new(settings.clone()).map_err(|error| error.to_string())?;
    let nothing = match settings.wire {
        Wire::HttpJson => b"{\"resourceSpans\":[]}".to_vec(),
        Wire::HttpProtobuf | Wire::Grpc => Vec::new(),
    };
    let body = sealed(nothing, settings).map_err(|error| format!("cannot compress: {error}"))?;
    // The query is omitted, because it may contain a key.
    let uri = settings.uri.uri().cloned().unwrap_or_default().into_parts();
    let place = uri.scheme.zip(uri.authority).map(|(scheme, host)| format!("{scheme}://{host}"));
    let place = place.unwrap_or_default();
    let report = match sink.post(&Delivery::default(), body).await {
        Ok(response) => response::read(settings.wire, &response, 0),
        Err(report) => report,
    };
    verdict(&place, &report)
}

fn verdict(place: &str, report: &Report) -> Result<String, String> {
    match (&report.pace, report.refusal()) {
        (Pace::Hold { reason }, _) => {
            Err(format!("{place}: {reason}; check the address, the protocol and the key"))
        }
        (_, Some(Refusal { class: RejectClass::Malformed, reason, .. })) => Ok(format!(
            "{place} can be reached, but refuses an empty export ({reason}); the first spans will show whether it accepts others"
        )),
        (Pace::Slow { reason, .. } | Pace::Down { reason, .. }, _)
        | (
            Pace::Go | Pace::Checkpoint,
            Some(Refusal { class: RejectClass::TooLarge, reason, .. }),
        ) => Err(format!("{place} does not accept spans now: {reason}")),
        (Pace::Go | Pace::Checkpoint, _) => Ok(format!("{place} accepted an empty export")),
    }
}
