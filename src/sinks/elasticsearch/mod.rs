//! `type = "elasticsearch"`: Elasticsearch 7 to 9, OpenSearch 1 to 3, and what speaks their `_bulk`.
//!
//! ```toml
//! [sinks.search]
//! type = "elasticsearch"
//! endpoints = ["https://es.example.com:9200"]
//! api_key = "${ELASTICSEARCH_API_KEY}"
//! ```
//!
//! **What arrives.** One document for each span in `<prefix>-spans`, one for each trace in `<prefix>-traces`, under the names that
//! exporters copied from articles use, so that dashboards made for those work. What is searched and summed up has a typed field;
//! everything else is kept as it came and not indexed, so no document can conflict with another one's types.
//!
//! **Once.** A document's id is the span's, so sending it again changes nothing. A trace's document is made of the set of its
//! spans' ids and written only under the condition that nobody else wrote in between; where somebody did, or after a restart, it
//! is made of what the far side has. It is exact whatever the order and however often spans come.
//!
//! **Agents.** The Agents SDK sends an agent's span after everything below it. What was not yet sent gets the agent's name on the
//! way; what was is changed at the far side, in the same request.
//!
//! **Answers** are read document by document (`response.rs`). Only what failed is sent again: a span that arrived does not come
//! along with the summary that did not, so everything arrives however little of a request a busy server takes. A document that is
//! refused for what is in it is sent once more with everything free-form folded into one text, and only then rejected. What became
//! of documents is counted (`figures.rs`).
//!
//! **Templates** are installed before the first document, and versioned (`templates.rs`). Where that is forbidden, the log has the
//! commands for somebody who may.

mod cluster;
mod document;
mod encode;
mod figures;
mod item;
mod kin;
mod names;
mod options;
mod outcome;
mod probe;
mod progress;
mod resolve;
mod response;
mod server;
mod setup;
pub mod templates;
mod traces;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};
use tokio::time::Instant;
use tracing::warn;

use super::http::{Failure, INLINE_BYTES_MAX};
use super::{BuildError, Delivery, Kind, Pace, Parts, Pending, Plan, Report, Sink};
use crate::span::{Item, TraceNeeds};
use crate::telemetry::SinkFigures;
use cluster::Cluster;
use encode::{Bulk, Encoder, What};
use options::{IdMode, Rotation, TraceSummary};
pub use options::{Options, Settings, parse};
use outcome::{Outcome, Part};
use progress::{Conflicts, Progress, Tally, Trouble};
use response::{Class, Whole, judge};
use setup::Setup;
use traces::{Limits, Traces};

/// Elasticsearch and its like.
pub static KIND: Kind = Kind {
    name: "elasticsearch",
    summary: "Elasticsearch or OpenSearch, with a document for each span and each trace",
    example: "endpoints = [\"https://es.example.com:9200\"]\n",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| Ok(Box::new(parse(table)?)),
};

impl Plan for Settings {
    fn build(&self, parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        let sink = Elasticsearch::new(self.clone(), &parts)?;
        // What waited when an earlier life ended need not wait for the next delivery.
        if !sink.far_side.traces().is_settled() && tokio::runtime::Handle::try_current().is_ok() {
            sink.start_resolver();
        }
        Ok(Arc::new(sink))
    }

    fn expanded(&self) -> toml::Table {
        Self::expanded(self)
    }

    fn probe(&self) -> Option<Pending<'_, Result<String, String>>> {
        Some(Box::pin(probe::probe(self)))
    }

    fn commands(&self) -> Option<String> {
        Some(probe::commands(self))
    }
}

/// Sends documents to one cluster.
#[derive(Debug)]
pub struct Elasticsearch {
    far_side: Arc<FarSide>,
    /// The task that keeps the summaries of shared traces, once there is one.
    resolver: OnceLock<tokio::task::AbortHandle>,
}

/// The cluster, and what is known of it and of the traces there.
#[derive(Debug)]
struct FarSide {
    name: String,
    figures: SinkFigures,
    settings: Settings,
    cluster: Cluster,
    setup: Setup,
    traces: Mutex<Traces>,
    /// Wakes the task that keeps the summaries of shared traces.
    shared: tokio::sync::Notify,
    /// The largest request that is tried, in bytes before compression: less than configured once one was refused.
    request_bytes_max: AtomicUsize,
    /// Whether the key may not read, so that the last writer wins.
    is_blind: AtomicBool,
    /// Items that arrived without what goes with them, so that only that is sent when they come again.
    arrived: Mutex<HashSet<usize>>,
    /// Large requests in a row during which the connection broke.
    broken: AtomicU32,
}

/// Rounds of one delivery: everything; what was refused, plainer; summaries without what was rejected even so.
const ROUNDS_MAX: usize = 4;
/// A connection that breaks during a request larger than this may be the answer to its size.
const LARGE_BYTES: usize = 1 << 20;
/// That many times in a row it is.
const BROKEN_MAX: u32 = 2;
/// No cluster refuses requests of this size for their size.
const LEARNED_BYTES_MIN: usize = 64 << 10;

impl Elasticsearch {
    /// Reads certificates; connects to nobody.
    pub fn new(settings: Settings, parts: &Parts) -> Result<Self, BuildError> {
        Self::with_limits(settings, parts, Limits::default())
    }

    fn with_limits(settings: Settings, parts: &Parts, limits: Limits) -> Result<Self, BuildError> {
        figures::count(&parts.figures, &Tally::default());
        figures::count_resolved(&parts.figures, 0);
        let mut traces = Traces::new(limits, settings.refresh_wait);
        traces.restore(&parts.state, Instant::now().into_std());
        Ok(Self {
            far_side: Arc::new(FarSide {
                name: parts.name.clone(),
                figures: parts.figures.clone(),
                cluster: Cluster::new(&settings)?,
                setup: Setup::new(&settings),
                traces: Mutex::new(traces),
                shared: tokio::sync::Notify::new(),
                request_bytes_max: AtomicUsize::new(settings.request_bytes_max),
                broken: AtomicU32::new(0),
                is_blind: AtomicBool::new(false),
                arrived: Mutex::default(),
                settings,
            }),
            resolver: OnceLock::new(),
        })
    }

    /// See [`Sink::deliver`].
    async fn deliver(&self, delivery: &Delivery) -> Outcome {
        let far_side = &self.far_side;
        if let Err(outcome) =
            far_side.setup.prepare(&far_side.name, &far_side.settings, &far_side.cluster).await
        {
            return outcome;
        }
        self.start_resolver();
        far_side.deliver(delivery).await
    }

    /// Starts the task that keeps the summaries of shared traces, where there are any and it does not run yet.
    fn start_resolver(&self) {
        let far_side = &self.far_side;
        if far_side.settings.trace_summary == TraceSummary::On
            && far_side.setup.server().has_indices()
        {
            self.resolver.get_or_init(|| resolve::start(far_side));
        }
    }
}

/// The bodies of the requests that a delivery becomes, compressed: what a delivery costs before it is sent, for whoever measures it.
pub fn bodies(delivery: &Delivery, settings: &Settings) -> io::Result<Vec<Bytes>> {
    let encoder = Encoder {
        settings,
        server: server::Server::assumed(settings.flavor),
        request_bytes_max: settings.request_bytes_max,
        doc_bytes_max: settings.doc_bytes_max,
    };
    let mut traces = Traces::new(Limits::default(), settings.refresh_wait);
    let bulks = encoder.delivery(delivery, &[], &mut traces, Instant::now().into_std());
    bulks.into_iter().map(|bulk| super::http::Compression::Gzip.apply(bulk.body)).collect()
}

impl Drop for Elasticsearch {
    fn drop(&mut self) {
        if let Some(resolver) = self.resolver.get() {
            resolver.abort();
        }
    }
}

impl Sink for Elasticsearch {
    fn concurrency_max(&self) -> usize {
        self.far_side.settings.concurrency * self.far_side.cluster.len().max(1)
    }

    fn trace_needs(&self) -> Option<TraceNeeds> {
        let settings = &self.far_side.settings;
        let context_wait = settings.context_wait;
        // Where documents have names of their own making, or are appended only, a span that is sent again is another one.
        let replaces_by_id =
            settings.id_mode == IdMode::Ids && settings.rotation != Rotation::DataStream;
        let root = settings.root;
        Some(TraceNeeds { root, context_wait, replaces_by_id, ..TraceNeeds::default() })
    }

    fn replaces_by_id(&self) -> bool {
        self.far_side.encoder().has_patches()
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(async { self.deliver(delivery).await.report(delivery.len()) })
    }

    /// The traces whose summary is still to be made of what the far side has. Whatever delivery is settled, its traces are
    /// among them.
    fn checkpoint(&self) -> Pending<'_, Result<Bytes, Pace>> {
        let saved = self.far_side.traces().save();
        Box::pin(async { Ok(Bytes::from(saved)) })
    }
}

impl FarSide {
    async fn deliver(self: &Arc<Self>, delivery: &Delivery) -> Outcome {
        let has_arrived = self.arrived(delivery);
        let mut progress = Progress::new(delivery, has_arrived.clone());
        let mut bulks = match self.encode(delivery, has_arrived).await {
            Ok(bulks) => bulks,
            Err(error) => {
                return Outcome::Retry { after: None, reason: format!("cannot encode: {error}") };
            }
        };
        for _ in 0..ROUNDS_MAX {
            let mut trouble = None;
            for bulk in bulks {
                match &trouble {
                    None => trouble = self.send_bulk(bulk, &mut progress).await,
                    Some(trouble) => progress.failed(&bulk, trouble, &mut self.traces()),
                }
            }
            bulks = self.follow_up(delivery, &mut progress, trouble.as_ref());
            if bulks.is_empty() {
                break;
            }
        }
        self.traces().arrived(progress.arrived(), Instant::now().into_std());
        if !self.traces().is_settled() {
            self.shared.notify_one();
        }
        self.report(&progress);
        let outcome = progress.outcome();
        self.remember(delivery, &(0..delivery.len()).collect::<Vec<_>>(), &outcome);
        outcome
    }

    /// Which items arrived before.
    fn arrived(&self, delivery: &Delivery) -> Vec<bool> {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        delivery.items().map(|(_, item)| arrived.contains(&name_of(item))).collect()
    }

    fn remember(&self, delivery: &Delivery, places: &[usize], outcome: &Outcome) {
        if let Outcome::Parts(parts) = outcome {
            for Part { items, outcome } in parts {
                self.remember(delivery, items, outcome);
            }
            return;
        }
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let items: Vec<_> = delivery.items().map(|(_, item)| name_of(item)).collect();
        for name in places.iter().filter_map(|&place| items.get(place)) {
            match outcome {
                Outcome::Owed(_) => arrived.insert(*name),
                Outcome::Retry { .. } | Outcome::Throttled { .. } | Outcome::Stop { .. } => false,
                _ => arrived.remove(name),
            };
        }
    }

    /// What has to be sent after the answers are known.
    fn follow_up(
        &self,
        delivery: &Delivery,
        progress: &mut Progress,
        trouble: Option<&Trouble>,
    ) -> Vec<Bulk> {
        let (to_fold, to_correct) = (progress.take_to_fold(), progress.take_to_correct());
        let mut traces = self.traces();
        let encoder = self.encoder();
        let mut bulks = encoder.folded(delivery, &to_fold, &traces);
        bulks.extend(encoder.traces(&to_correct, |trace| progress.has_object(trace), &mut traces));
        if let Some(trouble) = trouble {
            for bulk in bulks.drain(..) {
                progress.failed(&bulk, trouble, &mut traces);
            }
        }
        bulks
    }

    /// Sends one request and reads its answer. Returns why the next one need not be tried.
    async fn send_bulk(self: &Arc<Self>, bulk: Bulk, progress: &mut Progress) -> Option<Trouble> {
        let mut waiting = vec![bulk];
        while let Some(mut bulk) = waiting.pop() {
            match self.exchange(&mut bulk, progress).await {
                None => {}
                Some(outcome @ (Outcome::Malformed { .. } | Outcome::Fault { .. })) => {
                    if bulk.is_mixed() {
                        // So that it is known whose fault it is; the documents of spans first.
                        let [spans, rest] = bulk.split();
                        waiting.extend([rest, spans]);
                    } else if bulk.places().next().is_some() {
                        progress.shares(&bulk, outcome);
                    } else {
                        progress.give_up(&bulk, &mut self.traces());
                    }
                }
                Some(Outcome::TooLarge { request_bytes, reason, answer }) => {
                    self.learn(request_bytes);
                    if bulk.is_mixed() {
                        let [spans, rest] = bulk.split();
                        waiting.extend([rest, spans]);
                    } else {
                        self.too_large(&bulk, request_bytes, reason, answer, progress);
                    }
                }
                Some(outcome) => {
                    let trouble = trouble_of(outcome);
                    let mut traces = self.traces();
                    progress.failed(&bulk, &trouble, &mut traces);
                    for bulk in &waiting {
                        progress.failed(bulk, &trouble, &mut traces);
                    }
                    return Some(trouble);
                }
            }
        }
        None
    }

    /// A request that was too large even so: in halves, and a document alone in its plainest form, cut to what is taken.
    fn too_large(
        &self,
        bulk: &Bulk,
        request_bytes: usize,
        reason: String,
        answer: String,
        progress: &mut Progress,
    ) {
        match bulk.lines.as_slice() {
            [line] => match line.what {
                What::Span { place, rung: document::Rung::Full } => progress.fold(place),
                What::Span { place, .. } => {
                    progress.reject(place, reason, answer, &mut self.traces());
                }
                _ => progress.give_up(bulk, &mut self.traces()),
            },
            _ if bulk.places().next().is_some() => {
                progress.shares(bulk, Outcome::TooLarge { request_bytes, reason, answer });
            }
            _ => progress.failed(bulk, &Trouble::Retry { after: None, reason }, &mut self.traces()),
        }
    }

    /// One request and its answers: nothing where each line had its own, else what all share.
    async fn exchange(&self, bulk: &mut Bulk, progress: &mut Progress) -> Option<Outcome> {
        let mut may_make_index = true;
        loop {
            let response = match self.post(bulk).await {
                Ok(response) => response,
                Err(outcome) => return Some(outcome),
            };
            let answers = match response::read(&response, bulk.lines.len(), bulk.body.len()) {
                Whole::All(outcome) => return Some(outcome),
                Whole::Items(answers) => answers,
            };
            let mut both = bulk.lines.iter().zip(&answers);
            let missing = both.find(|(line, answer)| judge(answer, line.action) == Class::NoIndex);
            if let Some((line, _)) = missing.filter(|_| may_make_index) {
                may_make_index = false;
                // What was stored is stored again under the same ids.
                if self.make_index(line.what, bulk).await {
                    continue;
                }
            }
            let conflicts = match self.settings.trace_summary {
                TraceSummary::On if !self.is_blind.load(Ordering::Relaxed) => Conflicts::Resolved,
                _ => Conflicts::Overwritten,
            };
            let now = Instant::now().into_std();
            let mut traces = self.traces();
            for (line, answer) in bulk.lines.iter().zip(&answers) {
                progress.answered(line, answer, &mut traces, conflicts, now);
            }
            return None;
        }
    }

    async fn post(&self, bulk: &mut Bulk) -> Result<super::http::Response, Outcome> {
        let bytes = bulk.body.len();
        let number = |number: usize| HeaderValue::from(u64::try_from(number).unwrap_or(u64::MAX));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        headers.insert(EVENT_COUNT, number(bulk.lines.len()));
        headers.insert(UNCOMPRESSED_LENGTH, number(bytes));
        if let Some(coding) = self.settings.compression.header() {
            headers.insert(CONTENT_ENCODING, coding);
        }
        let body = self.compress(bulk).await.map_err(|error| Outcome::Retry {
            after: None,
            reason: format!("cannot compress: {error}"),
        })?;
        let path = format!("/_bulk?filter_path={}", response::FILTER_PATH);
        match self.cluster.send(&Method::POST, &path, &headers, body).await {
            Ok(response) => {
                self.broken.store(0, Ordering::Relaxed);
                Ok(response)
            }
            // Some servers say that a request is too large by closing the connection while it is sent.
            Err(Failure::Broken(reason)) if LARGE_BYTES < bytes => {
                if BROKEN_MAX <= self.broken.fetch_add(1, Ordering::Relaxed) + 1 {
                    self.broken.store(0, Ordering::Relaxed);
                    let reason = format!("the connection broke again: {reason}");
                    let answer = String::new();
                    return Err(Outcome::TooLarge { request_bytes: bytes, reason, answer });
                }
                Err(Outcome::of(Failure::Broken(reason).report()))
            }
            Err(failure) => Err(Outcome::of(failure.report())),
        }
    }

    /// The body as it is sent. It is lent to the thread that compresses it, and not copied.
    async fn compress(&self, bulk: &mut Bulk) -> io::Result<Bytes> {
        let compression = self.settings.compression;
        if bulk.body.len() <= INLINE_BYTES_MAX {
            return compression.of(&bulk.body);
        }
        let body = std::mem::take(&mut bulk.body);
        let compress = move || (compression.of(&body), body);
        let (compressed, body) = tokio::task::spawn_blocking(compress).await?;
        bulk.body = body;
        compressed
    }

    /// Encodes a delivery, off the reactor where that takes long.
    async fn encode(
        self: &Arc<Self>,
        delivery: &Delivery,
        has_arrived: Vec<bool>,
    ) -> io::Result<Vec<Bulk>> {
        let now = Instant::now().into_std();
        if delivery.bytes() <= INLINE_BYTES_MAX {
            return Ok(self.encoder().delivery(delivery, &has_arrived, &mut self.traces(), now));
        }
        let (this, delivery) = (Arc::clone(self), delivery.clone());
        let encode =
            move || this.encoder().delivery(&delivery, &has_arrived, &mut this.traces(), now);
        Ok(tokio::task::spawn_blocking(encode).await?)
    }

    fn encoder(&self) -> Encoder<'_> {
        let request_bytes_max = self.request_bytes_max.load(Ordering::Relaxed);
        // A document alone has to fit as well, with the line before it.
        let doc_bytes_max = self.settings.doc_bytes_max.min(request_bytes_max / 10 * 9);
        Encoder {
            settings: &self.settings,
            server: self.setup.server(),
            request_bytes_max,
            doc_bytes_max,
        }
    }

    /// Remembers that a request was too large.
    fn learn(&self, request_bytes: usize) {
        let learned = (request_bytes / 10 * 9).max(LEARNED_BYTES_MIN);
        let before = self.request_bytes_max.fetch_min(learned, Ordering::Relaxed);
        if learned < before {
            warn!(sink = self.name, request_bytes, "the far side takes no requests of this size");
        }
    }

    /// Makes an index that is missing, where the first document was to make it and may not. Returns whether it is there now.
    async fn make_index(&self, what: What, bulk: &Bulk) -> bool {
        let server = self.setup.server();
        let is_spans = matches!(what, What::Span { .. } | What::Patch { .. });
        if !server.has_indices() || (is_spans && self.settings.rotation == Rotation::DataStream) {
            return false;
        }
        let index = bulk.index_of(what).unwrap_or_default();
        let made = setup::make_index(&index, is_spans, &self.settings, server, &self.cluster).await;
        if let Err(reason) = &made {
            warn!(sink = self.name, index, reason, "the index is missing and cannot be made");
        }
        made.is_ok()
    }

    /// Counts what happened, and says in the log what nobody else says.
    fn report(&self, progress: &Progress) {
        let tally = progress.tally;
        figures::count(&self.figures, &tally);
        let sink = &self.name;
        if 0 < tally.folded {
            warn!(sink, count = tally.folded, "spans were refused as they were and sent folded");
        }
        if 0 < tally.refused {
            warn!(sink, count = tally.refused, "trace documents or changes were refused for good");
        }
        if 0 < tally.unverified {
            warn!(sink, count = tally.unverified, "trace documents could not be verified");
        }
    }

    fn traces(&self) -> MutexGuard<'_, Traces> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many documents a request has, for those who meter by them.
const EVENT_COUNT: HeaderName = HeaderName::from_static("x-elastic-event-count");
/// How long a request is before compression, likewise.
const UNCOMPRESSED_LENGTH: HeaderName =
    HeaderName::from_static("x-elastic-uncompressed-request-length");

/// An item as it is told from others while the lane keeps it to send it again: by where its bytes are.
fn name_of(item: &Item) -> usize {
    item.wire().as_ptr().addr()
}

/// An outcome of a whole request that says nothing against what is in it.
fn trouble_of(outcome: Outcome) -> Trouble {
    match outcome {
        Outcome::Stop { reason } => Trouble::Stop { reason },
        Outcome::Throttled { after, reason } => Trouble::Throttled { after, reason },
        Outcome::Retry { after, reason } => Trouble::Retry { after, reason },
        other => Trouble::Retry { after: None, reason: format!("unexpected: {other:?}") },
    }
}
