//! `type = "otlp"`: any backend that speaks OTLP.
//!
//! ```toml
//! [sinks.collector]
//! type = "otlp"
//! endpoint = "https://otel.example.com:4318"
//! ```
//!
//! **What arrives.** Spans that came as OTLP go out as the bytes that came in, unknown fields included; only the order may change,
//! since the spans of a delivery are brought together under their resource and scope. Over `http/json` they are written anew. So is a
//! span whose tokens repeat those of others (an agent's, of the calls below it): the attributes that say them get the prefix
//! `spanferry.aggregate.`, since backends add up all they see. Most backends do not replace a span by its id, so none is sent again
//! when it turns out later that it repeats another, or that its trace has a root or a session. Spans
//! of the Agents SDK become OTLP spans in the words of `dialect`, each with the conversation and the agent that it belongs to, as far
//! as these are known when it is sent. Its trace objects are no spans: nothing is sent for them. Spans without a parent are brought
//! together under a root as `root_span` says; the root is sent once the trace has been quiet for a while.
//!
//! **Requests.** A delivery larger than `request_bytes_max` goes out in several requests, one after the other; the first that has
//! to be tried again ends the attempt. The same delivery gives the same requests, byte for byte. gRPC is a unary call for each
//! request, with our own framing over the HTTP client that all sinks share.
//!
//! **Answers** are read as the table in `response.rs` says. Where the backend took a request but left out some of its spans, OTLP
//! does not say which: that is counted and logged, and nothing is sent again.
//!
//! **Presets** know a backend's address, headers, project and words: `preset = "phoenix"` and an `api_key` are enough.
//! `spanferry config show` prints what a preset comes to.

pub(super) mod encode;
mod options;
mod settings;
mod probe;
mod response;
mod token;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, TE};
use hyper::{HeaderMap, StatusCode};

use super::http::{self, Compression, Endpoint, Ready, Response};
use super::{
    BuildError, Delivery, Kind, Parts, Pending, Plan, Report, Sink, TraceUrl, Verdict, Verdicts,
};
use crate::span::{Item, TraceNeeds};
pub use options::{Dialect, Options, Wire};
pub use settings::Settings;
pub use token::Exchange;
use token::Token;

/// Backends that speak OTLP.
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
        Some(Box::pin(probe::probe(self)))
    }
}

/// Sends spans to one backend.
#[derive(Debug)]
pub struct Otlp {
    settings: Arc<Settings>,
    endpoint: Endpoint,
    /// For a backend that takes no key.
    token: Option<Token>,
}

/// Requests under way at once: as many as the Collector has consumers, so that no backend sees more of us than of it.
const REQUESTS_MAX: usize = 10;

impl Otlp {
    /// Reads certificates; connects to nobody.
    pub fn new(settings: Settings) -> Result<Self, BuildError> {
        let endpoint = Endpoint::new(&settings.client, &settings.uri, headers(&settings))?;
        let token = settings.exchange.clone().map(Token::new);
        Ok(Self { settings: Arc::new(settings), endpoint, token })
    }

    async fn send(&self, delivery: &Delivery) -> Report {
        let settings = Arc::clone(&self.settings);
        let prepare = move |delivery: &Delivery| prepare(delivery, &settings);
        http::deliver(delivery, prepare, |items, body| self.send_one(delivery, items, body)).await
    }

    async fn send_one(&self, delivery: &Delivery, items: Range<usize>, body: Bytes) -> Report {
        let response = match self.post(delivery, body).await {
            Ok(response) => response,
            Err(report) => return report,
        };
        let items = items.map(|place| delivery.item(place).and_then(Item::as_span).is_some());
        let spans = items.clone().filter(|is_span| *is_span).count();
        let mut report = response::read(self.settings.wire, &response, spans);
        if let Verdicts::All(of_spans) = &report.verdicts {
            // There is nothing to send for a trace object.
            let verdict = |is_span| if is_span { of_spans.clone() } else { Verdict::Delivered };
            report.verdicts = Verdicts::Each(items.map(verdict).collect());
        }
        report
    }

    /// Sends a body, with a token where that is wanted; with another where it is refused.
    async fn post(&self, delivery: &Delivery, body: Bytes) -> Result<Response, Report> {
        let mut request = self.endpoint.request(delivery, body);
        let mut refused = None;
        if let Some(token) = &self.token {
            let authorization = token.authorization(self.endpoint.client(), None).await?;
            request.headers.insert(AUTHORIZATION, authorization.clone());
            refused = Some((token, authorization));
        }
        let response = self.endpoint.send(&request).await?;
        let Some((token, refused)) =
            refused.filter(|_| response.status == StatusCode::UNAUTHORIZED)
        else {
            return Ok(response);
        };
        let authorization = token.authorization(self.endpoint.client(), Some(&refused)).await?;
        request.headers.insert(AUTHORIZATION, authorization);
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

fn prepare(delivery: &Delivery, settings: &Settings) -> io::Result<Vec<Ready>> {
    let bodies = encode::encode(delivery, settings);
    bodies.into_iter().map(|body| body.ready(|message| sealed(message, settings))).collect()
}

/// A message as it is sent. Over gRPC a byte that says whether it is compressed and its length stand before it.
fn sealed(message: Vec<u8>, settings: &Settings) -> io::Result<Bytes> {
    let message = settings.compression.apply(message)?;
    if settings.wire != Wire::Grpc {
        return Ok(message);
    }
    // No request is near 4 GiB: `request_bytes_max` and the largest span a receiver takes are far below.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let is_compressed = u8::from(settings.compression != Compression::None);
    Ok([&[is_compressed][..], &length.to_be_bytes(), &message].concat().into())
}

/// The headers of every request.
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
        // Tells the backend when nobody waits any more.
        let deadline = format!("{}m", settings.client.timeout.as_millis().min(99_999_999));
        headers.extend(
            HeaderValue::try_from(deadline).map(|it| (HeaderName::from_static("grpc-timeout"), it)),
        );
    }
    headers
}
