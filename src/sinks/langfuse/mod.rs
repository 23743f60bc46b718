//! `type = "langfuse"`: Langfuse, in its cloud or on your own server.
//!
//! ```toml
//! [sinks.langfuse]
//! type = "langfuse"
//! public_key = "${LANGFUSE_PUBLIC_KEY}"
//! secret_key = "${LANGFUSE_SECRET_KEY}"
//! models = { default = "gpt-5-mini" }
//! ```
//!
//! **Servers.** Langfuse 3.22 and later, best from 3.98.2 on, which knows agents and tools. `spanferry validate --probe` says which
//! version a server is and whether it knows the keys. Spans go over OTLP/HTTP, which is the one way in that every version from 3.22
//! to 4 has; they can be seen within seconds.
//!
//! **What arrives.** A span is one observation, sent once, whole; once more when something that it was sent without becomes known (a session
//! that only the root says), since Langfuse replaces by id. Spans of the Agents SDK become agents, generations, tools, chains
//! and guardrails as the table in `native.rs` says; ids as the SDK wrote them are metadata. Spans that came as OTLP go out as they
//! came, with attributes behind them for what Langfuse would not find by itself (`foreign.rs`). Every span carries name, session,
//! user, tags, environment, release and metadata of its trace, because Langfuse 4 sums up cost by the spans that do.
//!
//! With `keep = "llm"` spans that have nothing to do with models (HTTP, databases) are left out, as Langfuse's own SDKs do; the first
//! span below them is marked as the root of its app, so that the trace is listed. That is known of spans that came in the same requests.
//!
//! **Cost.** Langfuse prices tokens by model. Tokens are sent in buckets that exclude each other, and only model calls carry any: what
//! parents repeat is metadata. The Agents SDK's `response` spans name no model; `models` names it by agent or for all, or `lookup`
//! asks OpenAI for it. Where no model call of a run says its tokens (the SDK for JavaScript with the Responses API), the outermost
//! task carries them.
//!
//! **What Langfuse cannot use** is mended before it is sent: an attribute without a value makes it lose a whole request after it has
//! said yes; maps, bytes, large integers and infinities become text; prompts without a number become metadata; names are cut at 1000
//! characters; a span ends no earlier than it starts.
//!
//! A span that the server finds too large alone (413) is sent again with its longest texts cut, to a half of its size and then less;
//! its metadata says so under `spanferry.truncated`.
//!
//! **Requests** are compressed with gzip and hold at most `request_bytes_max`, since Langfuse limits requests, not spans. The same
//! delivery gives the same requests, byte for byte. **Answers** are read as the table in `response.rs` says.

mod encode;
mod fields;
mod foreign;
mod lookup;
mod native;
mod options;
mod probe;
mod reads;
mod response;
mod rule;
mod trace;
mod usage;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};

use super::http::{self, Compression, Endpoint, Ready};
use super::{BuildError, Delivery, Kind, Parts, Pending, Plan, RejectClass, Report, Sink};
use crate::span::{Span, TraceNeeds};
use encode::Answers;
use lookup::Lookup;
pub use options::{
    Keep, Lookup as LookupOptions, Models, Options, ReasoningTokens, Settings, parse,
};

/// Langfuse.
pub static KIND: Kind = Kind {
    name: "langfuse",
    summary: "Langfuse, in its cloud or on your own server",
    example: "public_key = \"pk-lf-...\"\nsecret_key = \"sk-lf-...\"\n",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| Ok(Box::new(parse(table)?)),
};

impl Plan for Settings {
    fn build(&self, _parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(Langfuse::new(self.clone())?))
    }

    fn expanded(&self) -> toml::Table {
        http::shown(&self.options)
    }

    fn probe(&self) -> Option<Pending<'_, Result<String, String>>> {
        Some(Box::pin(probe::probe(self)))
    }
}

/// Sends spans to one project of Langfuse.
#[derive(Debug)]
pub struct Langfuse {
    settings: Arc<Settings>,
    endpoint: Endpoint,
    lookup: Option<Lookup>,
}

/// Requests under way at once. The cloud limits requests by the minute, not spans, so that few and large ones go furthest.
const REQUESTS_MAX: usize = 4;

impl Langfuse {
    /// Reads certificates; connects to nobody.
    pub fn new(settings: Settings) -> Result<Self, BuildError> {
        let client = settings.options.limits().client();
        let endpoint = Endpoint::new(&client, &settings.traces, headers(&settings))?;
        let lookup = Lookup::new(&settings)?;
        Ok(Self { settings: Arc::new(settings), endpoint, lookup })
    }

    async fn send(&self, delivery: &Delivery) -> Report {
        let answers = match &self.lookup {
            Some(lookup) => lookup.answers(delivery, &self.settings).await,
            None => Answers::default(),
        };
        // Only a span that is alone can be cut, so that nothing is kept for others.
        let again = (delivery.len() == 1).then(|| answers.clone());
        let settings = Arc::clone(&self.settings);
        let prepare = move |delivery: &Delivery| prepare(delivery, &settings, &answers);
        let report =
            http::deliver(delivery, prepare, |_, body| self.send_one(delivery, body)).await;
        match again {
            Some(answers) if report.is_refused(RejectClass::TooLarge) => {
                self.send_shrunk(delivery, answers, report).await
            }
            _ => report,
        }
    }

    /// Sends a span that Langfuse finds too large alone with less and less of its payload, until it fits. It is cut no earlier, since
    /// nobody but the server knows what it takes.
    async fn send_shrunk(&self, delivery: &Delivery, answers: Answers, refused: Report) -> Report {
        let (mut report, mut bytes_max) = (refused, None);
        while report.is_refused(RejectClass::TooLarge) {
            let (settings, answers) = (Arc::clone(&self.settings), answers.clone());
            let cut = move |only: &Delivery| shrunk(only, &settings, &answers, bytes_max);
            let Ok(Some((body, bytes))) = http::encode(delivery, cut).await else { break };
            bytes_max = Some(bytes);
            report = match body {
                Ok(body) => self.send_one(delivery, body).await,
                Err(error) => Report::down(None, format!("cannot compress: {error}")),
            };
        }
        report
    }

    async fn send_one(&self, delivery: &Delivery, body: Bytes) -> Report {
        let sent = self.endpoint.send(&self.endpoint.request(delivery, body)).await;
        sent.map_or_else(|report| report, |answer| response::read(&answer))
    }
}

impl Sink for Langfuse {
    fn concurrency_max(&self) -> usize {
        REQUESTS_MAX
    }

    fn trace_needs(&self) -> Option<TraceNeeds> {
        Some(TraceNeeds {
            root: self.settings.options.root_span,
            context_wait: self.settings.options.context_wait.into(),
            replaces_by_id: true,
            ..TraceNeeds::default()
        })
    }

    fn leaves_out(&self) -> Option<fn(&Span) -> bool> {
        (self.settings.options.keep == Keep::Llm).then_some(rule::is_infrastructure)
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(self.send(delivery))
    }
}

/// The bodies of the requests that a delivery becomes, compressed: what a delivery costs before it is sent, for whoever measures it.
pub fn bodies(delivery: &Delivery, settings: &Settings) -> io::Result<Vec<Bytes>> {
    let requests = prepare(delivery, settings, &Answers::default())?;
    Ok(requests.into_iter().filter_map(|request| request.body).collect())
}

fn prepare(delivery: &Delivery, settings: &Settings, answers: &Answers) -> io::Result<Vec<Ready>> {
    let ready = |encode::Body { items, message }| {
        // Langfuse knows no other compression.
        let body = match message.len() {
            0 => None,
            _ => Some(Compression::Gzip.apply(message)?),
        };
        Ok(Ready { items, body })
    };
    encode::encode(delivery, settings, answers).into_iter().map(ready).collect()
}

/// The only span of a delivery, cut to less than it was refused with (as a whole, or cut to so many bytes), and to how many.
fn shrunk(
    delivery: &Delivery,
    settings: &Settings,
    answers: &Answers,
    refused_bytes: Option<usize>,
) -> Option<(io::Result<Bytes>, usize)> {
    let message = encode::encode(delivery, settings, answers).pop()?.message;
    let refused_bytes = refused_bytes.unwrap_or(message.len());
    let bytes_max = encode::next_bytes_max(refused_bytes, settings)?;
    Some((Compression::Gzip.apply(encode::shrunk(&message, bytes_max)?), bytes_max))
}

/// The headers of every request. The version lets a server in between 3 and 4 show spans at once; the name is our own, since that of
/// a Langfuse SDK would promise what only that one does.
fn headers(settings: &Settings) -> HeaderMap {
    let mut headers = settings.authorization.clone();
    for (name, value) in [
        (CONTENT_TYPE, "application/x-protobuf"),
        (CONTENT_ENCODING, "gzip"),
        (HeaderName::from_static("x-langfuse-ingestion-version"), "4"),
        (HeaderName::from_static("x-langfuse-sdk-name"), "spanferry"),
        (HeaderName::from_static("x-langfuse-sdk-version"), env!("CARGO_PKG_VERSION")),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}
