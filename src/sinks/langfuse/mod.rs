//! `type = "langfuse"`: Langfuse, in the cloud or self-hosted.
//!
//! ```toml
//! [sinks.langfuse]
//! type = "langfuse"
//! public_key = "${LANGFUSE_PUBLIC_KEY}"
//! secret_key = "${LANGFUSE_SECRET_KEY}"
//! models = { default = "gpt-5-mini" }
//! ```
//!
//! **Servers.** Langfuse 3.22 and later; 3.98.2 and later know agents and tools. `spanferry doctor` reports a server's version and whether
//! it accepts the keys. Spans are sent over OTLP/HTTP, the only protocol that every version from 3.22 to 4 supports; they become visible
//! within seconds.
//!
//! **Spans.** A span is one observation, sent once and complete. It is sent again when context that it lacked becomes known (such as a
//! session that only the root has), since Langfuse replaces by id. It then keeps the start time that it was delivered with, as long as that
//! is remembered. Agents SDK spans become agents, generations, tools, chains and guardrails, as the table in `observation.rs` describes;
//! the SDK's own ids are metadata. OTLP spans are sent as they were received, followed by attributes for what Langfuse would not find by
//! itself. Every span carries name, session, user, tags, environment, release and metadata of its trace, because Langfuse 4 sums up costs
//! by the spans that carry them.
//!
//! `keep = "llm"` filters out spans that do not concern models (HTTP, databases), as Langfuse's own SDKs do. It is short for a rule that
//! every sink can have.
//!
//! **Cost.** Langfuse prices tokens by model. Tokens are sent in mutually exclusive buckets, and only on model calls: counts that parents
//! repeat are metadata. The Agents SDK's `response` spans name no model; `models` supplies it, by agent or for all, or `lookup` requests it
//! from OpenAI. If no model call of a run has tokens (the SDK for JavaScript with the Responses API), the outermost task carries them. A
//! call whose tokens are on another span is sent with 0 tokens, since Langfuse would otherwise estimate them. With `send_cost`, calls carry
//! their cost by our price table, which Langfuse then shows instead of its own; a cost from the client is always sent.
//!
//! **Unusable data** is repaired before it is sent. An attribute without a value makes Langfuse lose a request that it already accepted.
//! Maps, bytes, large integers and infinities become text; prompts without a number become metadata; names are cut at 1000 characters; no
//! span ends before it starts.
//!
//! A span that the server rejects on its own as too large (413) is sent again with its longest texts cut: to `request_bytes_max` or half
//! its size, then further. Its metadata reports this under `spanferry.truncated`.
//!
//! **Requests** are compressed with gzip, unless the server is on this machine, and hold at most `request_bytes_max`, since Langfuse limits
//! requests, not spans. The same delivery yields the same bytes. The table in `response.rs` describes how **responses** are handled.

mod encode;
#[cfg(test)]
mod encode_tests;
mod change;
mod fields;
mod lookup;
mod observation;
mod options;
mod probe;
mod reads;
mod response;
mod trace;
mod usage;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};

use super::http::{self, Endpoint};
use super::shrink::otlp::shrink;
use super::{
    BuildError, Delivery, Kind, Parts, Pending, Plan, RejectClass, Report, Sink, TraceUrl, Verdict,
};
use crate::span::{SpanId, TraceId, TraceNeeds};
use crate::support::lock::lock;
use crate::support::recent::Recent;
pub use encode::encode;
use lookup::Lookup;
pub use options::{
    Keep, Lookup as LookupOptions, Models, Options, ReasoningTokens, Settings, parse,
};
use reads::{Fact, FactSet, facts_of};
pub use trace::KnownFacts;

/// The rule that `keep = "llm"` stands for.
const KEEP_LLM: &str = "[[rules]]\nname = \"keep_llm\"\nmatch = { llm = false }\ndrop = true\n";

/// Langfuse.
pub static KIND: Kind = Kind {
    name: "langfuse",
    summary: "Langfuse, in the cloud or self-hosted",
    example: "public_key = \"pk-lf-...\"\nsecret_key = \"sk-lf-...\"\n",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| Ok(Box::new(parse(table)?)),
};

impl Plan for Settings {
    fn build(&self, parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        let prices = if self.options.send_cost { parts.prices } else { Arc::default() };
        Ok(Arc::new(Langfuse::new(Self { prices, ..self.clone() })?))
    }

    fn expanded(&self) -> toml::Table {
        http::shown(&self.options)
    }

    fn rules(&self) -> &'static str {
        match self.options.keep {
            Keep::All => "",
            Keep::Llm => KEEP_LLM,
        }
    }

    /// This address redirects to the trace's page, whatever project it is in.
    fn trace_url(&self) -> Option<TraceUrl> {
        TraceUrl::below(self.options.base_url.reveal(), "/trace/{trace_id}")
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
    /// Start times of delivered spans. Langfuse's rows are keyed by id and start, so a resent span whose start differs by even a
    /// millisecond would be a second row.
    starts: Mutex<Recent<STARTS_MAX, (TraceId, SpanId), u64>>,
}

/// Spans whose start is remembered, in about 5 MiB: as many as the resend detection remembers.
const STARTS_MAX: usize = 65_536;

/// Concurrent requests. The cloud limits requests per minute, not spans, so few large requests achieve most.
const REQUESTS_MAX: usize = 4;

impl Langfuse {
    /// Reads certificates; does not connect.
    pub fn new(settings: Settings) -> Result<Self, BuildError> {
        let client = settings.options.connection.client();
        let endpoint = Endpoint::new(&client, &settings.traces, headers(&settings))?;
        let lookup = Lookup::new(&settings)?;
        Ok(Self { settings: Arc::new(settings), endpoint, lookup, starts: Mutex::default() })
    }

    async fn send(&self, delivery: &Delivery) -> Report {
        let mut known = match &self.lookup {
            Some(lookup) => lookup.answers(delivery, &self.settings).await,
            None => KnownFacts::default(),
        };
        let ids = delivery.spans().map(|span| (span.trace_id, span.span_id));
        let starts = lock(&self.starts);
        let start = move |id| Some((id, *starts.get(&id)?));
        known.starts = ids.filter_map(start).collect();
        let known = Arc::new(known);
        let (settings, shared) = (Arc::clone(&self.settings), Arc::clone(&known));
        let write = move |delivery: &Delivery| encode(delivery, &settings, &shared);
        let compression = self.settings.compression;
        let seal = move |message| compression.apply(message);
        let send = |_, body| self.send_one(delivery, body);
        let mut report = http::deliver(delivery, write, seal, send).await;
        if delivery.len() == 1 && report.is_refused(RejectClass::TooLarge) {
            report = self.send_shrunk(delivery, &known, report).await;
        }
        self.remember_starts(delivery, &report);
        report
    }

    /// Sends a span that Langfuse rejects on its own as too large, with less and less of its payload, until it is accepted. Only the server
    /// knows its limit, so the span is not cut earlier.
    async fn send_shrunk(
        &self,
        delivery: &Delivery,
        known: &Arc<KnownFacts>,
        refused: Report,
    ) -> Report {
        let (mut report, mut bytes_max) = (refused, None);
        while report.is_refused(RejectClass::TooLarge) {
            let (settings, known) = (Arc::clone(&self.settings), Arc::clone(known));
            let cut = move |only: &Delivery| shrunk(only, &settings, &known, bytes_max);
            let Ok(Some((body, bytes))) = http::encode(delivery, cut).await else { break };
            bytes_max = Some(bytes);
            report = self.send_one(delivery, body).await;
        }
        report
    }

    fn remember_starts(&self, delivery: &Delivery, report: &Report) {
        let mut starts = lock(&self.starts);
        for (place, (batch, item)) in delivery.items().enumerate() {
            let Some(span) = item.as_span() else { continue };
            let id = (span.trace_id, span.span_id);
            if *report.verdicts.of(place) == Verdict::Delivered && starts.get(&id).is_none() {
                starts.insert(id, trace::start_of(span, batch.source.received_at_ns));
            }
        }
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
            contents: true,
            estimates: true,
            ..TraceNeeds::default()
        })
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(self.send(delivery))
    }
}

/// Cuts the only span of a delivery to less than the rejected size (complete, or so many bytes). Also returns the new size.
fn shrunk(
    delivery: &Delivery,
    settings: &Settings,
    known: &KnownFacts,
    refused_bytes: Option<usize>,
) -> Option<(Bytes, usize)> {
    let message = encode(delivery, settings, known).pop()?.message;
    let refused_bytes = refused_bytes.unwrap_or(message.len());
    let most = settings.options.request_bytes_max.as_usize();
    let bytes_max = if most < refused_bytes { most } else { refused_bytes / 2 };
    if bytes_max < SHRUNK_BYTES_MIN {
        return None;
    }
    let cut = shrink(&message, bytes_max, TRUNCATED, |key| {
        let is_ours = key.starts_with("langfuse.") && !key.contains(".metadata.");
        let counts = || FactSet::of([Fact::Usage, Fact::Cost, Fact::Model]);
        is_ours || [trace::SESSION, trace::USER].contains(&key) || facts_of(key).has_any(counts())
    });
    Some((settings.compression.apply(cut?).ok()?, bytes_max))
}

/// A span is cut no further: a server that rejects less than this has another problem.
const SHRUNK_BYTES_MIN: usize = 16 << 10;

/// The metadata key that reports the cut, in addition to the client's metadata.
const TRUNCATED: &str = "langfuse.observation.metadata.spanferry.truncated";

/// Returns the headers of every request. The version lets servers between 3 and 4 show spans immediately. The SDK name is our own, since
/// that of a Langfuse SDK would promise features that only that SDK has.
fn headers(settings: &Settings) -> HeaderMap {
    let mut headers = settings.authorization.clone();
    for (name, value) in [
        (CONTENT_TYPE, "application/x-protobuf"),
        (HeaderName::from_static("x-langfuse-ingestion-version"), "4"),
        (HeaderName::from_static("x-langfuse-sdk-name"), "spanferry"),
        (HeaderName::from_static("x-langfuse-sdk-version"), env!("CARGO_PKG_VERSION")),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(coding) = settings.compression.header() {
        headers.insert(CONTENT_ENCODING, coding);
    }
    headers
}
