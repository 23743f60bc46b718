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
//! **Servers.** Langfuse 3.22 and later, best from 3.98.2 on, which knows agents and tools. `spanferry doctor` says which
//! version a server is and whether it knows the keys. Spans go over OTLP/HTTP, which is the one way in that every version from 3.22
//! to 4 has; they can be seen within seconds.
//!
//! **What arrives.** A span is one observation, sent once, whole; once more when something that it was sent without becomes known (a session
//! that only the root says), since Langfuse replaces by id. A span that comes again keeps the start that it was delivered with, as long
//! as it is remembered. Spans of the Agents SDK become agents, generations, tools, chains
//! and guardrails as the table in `observation.rs` says; ids as the SDK wrote them are metadata. Spans that came as OTLP go out as they
//! came, with attributes behind them for what Langfuse would not find by itself. Every span carries name, session,
//! user, tags, environment, release and metadata of its trace, because Langfuse 4 sums up cost by the spans that do.
//!
//! With `keep = "llm"` spans that have nothing to do with models (HTTP, databases) are left out, as Langfuse's own SDKs do: it stands
//! for a rule, which every sink can have.
//!
//! **Cost.** Langfuse prices tokens by model. Tokens are sent in buckets that exclude each other, and only model calls carry any: what
//! parents repeat is metadata. The Agents SDK's `response` spans name no model; `models` names it by agent or for all, or `lookup`
//! asks OpenAI for it. Where no model call of a run says its tokens (the SDK for JavaScript with the Responses API), the outermost
//! task carries them. A call whose tokens another span says is sent with 0 of them: of none Langfuse makes some up. With `send_cost` calls are sent with what they cost by our table of prices, which Langfuse then shows instead of
//! its own; a cost that the client says is sent always.
//!
//! **What Langfuse cannot use** is mended before it is sent: an attribute without a value makes it lose a whole request after it has
//! said yes; maps, bytes, large integers and infinities become text; prompts without a number become metadata; names are cut at 1000
//! characters; a span ends no earlier than it starts.
//!
//! A span that the server finds too large alone (413) is sent again with its longest texts cut, to a half of its size and then less;
//! its metadata says so under `spanferry.truncated`.
//!
//! **Requests** are compressed with gzip, unless the server is on this machine, and hold at most `request_bytes_max`, since Langfuse limits requests, not spans. The same
//! delivery gives the same requests, byte for byte. **Answers** are read as the table in `response.rs` says.

mod encode;
#[cfg(test)]
mod encode_tests;
mod change;
mod fields;
mod lookup;
mod metadata;
mod observation;
mod options;
mod probe;
mod reads;
mod response;
mod trace;
mod usage;

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};

use super::http::{self, Endpoint, Ready};
use super::shrink::otlp::shrink;
use super::{
    BuildError, Delivery, Kind, Parts, Pending, Plan, RejectClass, Report, Sink, TraceUrl, Verdict,
};
use crate::span::{SpanId, TraceId, TraceNeeds};
use crate::support::lock::lock;
use crate::support::recent::Recent;
use encode::KnownFacts;
use lookup::Lookup;
use observation::Answers;
pub use options::{
    Keep, Lookup as LookupOptions, Models, Options, ReasoningTokens, Settings, parse,
};
use reads::{Fact, FactSet, facts_of};
use trace::FirstStarts;

/// What `keep = "llm"` stands for.
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

    /// Langfuse leads from there to the trace's page, whatever project it is in.
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
    /// When spans started that were delivered: Langfuse's rows are keyed by id and start, so that a span that comes again with another
    /// start, be it a millisecond off, would be a second row.
    starts: Mutex<Recent<(TraceId, SpanId), u64>>,
}

/// Spans whose start is remembered, in about 5 MiB: as many as are recognised when they come again.
const STARTS_MAX: usize = 65_536;

/// Requests under way at once. The cloud limits requests by the minute, not spans, so that few and large ones go furthest.
const REQUESTS_MAX: usize = 4;

impl Langfuse {
    /// Reads certificates; connects to nobody.
    pub fn new(settings: Settings) -> Result<Self, BuildError> {
        let client = settings.options.limits().client();
        let endpoint = Endpoint::new(&client, &settings.traces, headers(&settings))?;
        let lookup = Lookup::new(&settings)?;
        let starts = Mutex::new(Recent::new(STARTS_MAX));
        Ok(Self { settings: Arc::new(settings), endpoint, lookup, starts })
    }

    async fn send(&self, delivery: &Delivery) -> Report {
        let answers = match &self.lookup {
            Some(lookup) => lookup.answers(delivery, &self.settings).await,
            None => Answers::default(),
        };
        let known = Arc::new(KnownFacts { answers, starts: self.first_starts(delivery) });
        let (settings, shared) = (Arc::clone(&self.settings), Arc::clone(&known));
        let prepare = move |delivery: &Delivery| prepare(delivery, &settings, &shared);
        let mut report =
            http::deliver(delivery, prepare, |_, body| self.send_one(delivery, body)).await;
        if delivery.len() == 1 && report.is_refused(RejectClass::TooLarge) {
            report = self.send_shrunk(delivery, &known, report).await;
        }
        self.remember_starts(delivery, &report);
        report
    }

    /// Sends a span that Langfuse finds too large alone with less and less of its payload, until it fits. It is cut no earlier, since
    /// nobody but the server knows what it takes.
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
            report = match body {
                Ok(body) => self.send_one(delivery, body).await,
                Err(error) => Report::down(None, format!("cannot compress: {error}")),
            };
        }
        report
    }

    fn first_starts(&self, delivery: &Delivery) -> FirstStarts {
        let starts = lock(&self.starts);
        let ids = delivery.spans().map(|span| (span.trace_id, span.span_id));
        ids.filter_map(|id| Some((id, *starts.get(&id)?))).collect()
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

/// The bodies of the requests that a delivery becomes, compressed: what a delivery costs before it is sent, for whoever measures it.
pub fn bodies(delivery: &Delivery, settings: &Settings) -> io::Result<Vec<Bytes>> {
    let requests = prepare(delivery, settings, &KnownFacts::default())?;
    Ok(requests.into_iter().filter_map(|request| request.body).collect())
}

fn prepare(delivery: &Delivery, settings: &Settings, known: &KnownFacts) -> io::Result<Vec<Ready>> {
    let seal = |message| settings.compression.apply(message);
    let bodies = encode::encode(delivery, settings, known);
    bodies.into_iter().map(|body| body.ready(seal)).collect()
}

/// The only span of a delivery, cut to less than it was refused with (as a whole, or cut to so many bytes), and to how many.
fn shrunk(
    delivery: &Delivery,
    settings: &Settings,
    known: &KnownFacts,
    refused_bytes: Option<usize>,
) -> Option<(io::Result<Bytes>, usize)> {
    let message = encode::encode(delivery, settings, known).pop()?.message;
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
    Some((settings.compression.apply(cut?), bytes_max))
}

/// A span is cut no further: a server that takes less than this has another problem.
const SHRUNK_BYTES_MIN: usize = 16 << 10;

/// Says what was cut, beside the metadata of the client.
const TRUNCATED: &str = "langfuse.observation.metadata.spanferry.truncated";

/// The headers of every request. The version lets a server in between 3 and 4 show spans at once; the name is our own, since that of
/// a Langfuse SDK would promise what only that one does.
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
