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
//! **Once.** A document's id is the span's, so sending it again changes nothing. Spans are the truth: a trace's document is always
//! made of the documents of its spans (`summaries.rs`), some seconds after these arrived, and written only under the condition that
//! nobody else wrote in between. It is exact whatever the order, however often spans come, and however many daemons write.
//!
//! **Agents.** The Agents SDK sends an agent's span after everything below it. What comes together gets the agent's name on the way;
//! what was sent before is changed when the trace's document is made, and so is whose tokens count.
//!
//! **Answers** are read document by document (`response.rs`), and what failed is sent again alone (`deliver.rs`).
//!
//! **Templates** are installed before the first document (`templates.rs`). They have a version, and a hash of what they were made
//! from. Where that is forbidden, the log has the commands for somebody who may.

mod cluster;
mod changes;
mod deliver;
mod document;
mod encode;
mod fields;
mod figures;
mod item;
mod names;
mod options;
mod probe;
mod queries;
mod response;
mod server;
mod setup;
mod summaries;
mod summary;
pub mod templates;
mod tree;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{BuildError, Delivery, Kind, Pace, Parts, Pending, Plan, Report, Sink, SizeLimit};
use crate::span::TraceNeeds;
use crate::support::lock::lock;
use crate::telemetry::SinkFigures;
use changes::Changes;
use cluster::Cluster;
use encode::{Encoder, Rung};
use options::TraceSummary;
pub use options::{Options, Settings, parse};
use setup::Setup;

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
        let sink = Elasticsearch::new(self.clone(), &parts, changes::BYTES_MAX)?;
        // What an earlier life owed need not wait for the next delivery.
        if tokio::runtime::Handle::try_current().is_ok() {
            sink.start_summaries();
        }
        Ok(Arc::new(sink))
    }

    fn expanded(&self) -> toml::Table {
        super::http::shown(&self.options)
    }

    fn probe(&self) -> Option<Pending<'_, Result<String, String>>> {
        Some(Box::pin(async { probe::probe(self).await.map_err(|error| error.to_string()) }))
    }

    fn commands(&self) -> Option<String> {
        let server = server::Server::assumed(self.options.flavor);
        Some(templates::print(&templates::steps(self, server)))
    }
}

/// Sends documents to one cluster.
#[derive(Debug)]
pub struct Elasticsearch {
    backend: Arc<Backend>,
    summaries: OnceLock<AbortOnDropHandle<()>>,
}

/// The cluster, and what is known of it and of the traces there.
#[derive(Debug)]
struct Backend {
    name: String,
    figures: SinkFigures,
    settings: Settings,
    cluster: Cluster,
    setup: Setup,
    changes: Mutex<Changes>,
    has_changed: tokio::sync::Notify,
    /// The largest request that is tried, in bytes before compression.
    size_limit: Mutex<SizeLimit>,
    unreadable: Mutex<Option<String>>,
    /// Large requests in a row during which the connection broke.
    broken: AtomicU32,
}

impl Elasticsearch {
    /// Reads certificates; connects to nobody. What is kept in mind of traces takes no more than so many bytes.
    fn new(
        settings: Settings,
        parts: &Parts,
        changes_bytes_max: usize,
    ) -> Result<Self, BuildError> {
        let settings = Settings { prices: Arc::clone(&parts.prices), ..settings };
        figures::show(&parts.figures);
        let mut changes = Changes::new(changes_bytes_max, settings.options.refresh_wait.0);
        if !parts.state.is_empty() && settings.options.trace_summary == TraceSummary::On {
            changes.owe(owed_since(&parts.state), Instant::now().into_std());
        }
        let backend = Backend {
            name: parts.name.clone(),
            figures: parts.figures.clone(),
            cluster: Cluster::new(&settings)?,
            setup: Setup::default(),
            changes: Mutex::new(changes),
            has_changed: tokio::sync::Notify::new(),
            size_limit: Mutex::default(),
            broken: AtomicU32::new(0),
            unreadable: Mutex::new(None),
            settings,
        };
        Ok(Self { backend: Arc::new(backend), summaries: OnceLock::new() })
    }

    async fn send(&self, delivery: &Delivery) -> Report {
        let backend = &self.backend;
        if let Err(report) = backend.prepare().await {
            return report;
        }
        self.start_summaries();
        backend.deliver(delivery).await
    }

    /// Starts the task that makes summaries, where there are any and it does not run yet.
    fn start_summaries(&self) {
        if self.backend.encoder().has_summaries() {
            self.summaries.get_or_init(|| summaries::start(&self.backend));
        }
    }
}

/// Since when something may be that no summary counts, going by a checkpoint. One that cannot be read was written by another
/// version; an hour has all that a daemon that works ever owes.
fn owed_since(checkpoint: &[u8]) -> u64 {
    const HOUR_MS: u64 = 3_600_000;
    let read = std::str::from_utf8(checkpoint).ok().and_then(|text| text.parse().ok());
    let now_ms = || crate::support::clock::unix_now_ns() / names::NS_PER_MS;
    read.unwrap_or_else(|| now_ms().saturating_sub(HOUR_MS))
}

/// The bodies of the requests that a delivery becomes, compressed: what a delivery costs before it is sent, for whoever measures it.
pub fn bodies(delivery: &Delivery, settings: &Settings) -> io::Result<Vec<Bytes>> {
    let encoder = Encoder {
        settings,
        server: server::Server::assumed(settings.options.flavor),
        request_bytes_max: settings.options.request_bytes_max.as_usize(),
        doc_bytes_max: settings.options.doc_bytes_max.as_usize(),
    };
    let bulks = encoder.delivery(delivery, Rung::Full, |_| true).bulks;
    bulks.iter().map(|bulk| super::http::Compression::Gzip.of(&bulk.body)).collect()
}

impl Sink for Elasticsearch {
    fn concurrency_max(&self) -> usize {
        usize::try_from(self.backend.settings.options.concurrency)
            .map_or(usize::MAX, |each| each.saturating_mul(self.backend.cluster.len()))
    }

    fn trace_needs(&self) -> Option<TraceNeeds> {
        let settings = &self.backend.settings;
        let Options { root_span: root, context_wait, .. } = settings.options;
        let (context_wait, replaces_by_id) = (context_wait.0, settings.replaces_by_id());
        Some(TraceNeeds { root, context_wait, replaces_by_id, ..TraceNeeds::default() })
    }

    fn replaces_by_id(&self) -> bool {
        self.backend.encoder().has_patches()
    }

    fn notice(&self) -> Option<String> {
        lock(&self.backend.setup.notice).clone().or_else(|| lock(&self.backend.unreadable).clone())
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(self.send(delivery))
    }

    /// When the first of what no summary counts was received. What was received before is counted; what is delivered after this
    /// is delivered again, or is in the next one.
    fn checkpoint(&self) -> Pending<'_, Result<Bytes, Pace>> {
        let since = self.backend.changes().owed_since_ms();
        let since = since.map(|since| since.to_string()).unwrap_or_default();
        Box::pin(async { Ok(Bytes::from(since)) })
    }
}

impl Backend {
    fn encoder(&self) -> Encoder<'_> {
        let now = Instant::now().into_std();
        let learned = lock(&self.size_limit).bytes_max(now).unwrap_or(usize::MAX);
        let request_bytes_max = self.settings.options.request_bytes_max.as_usize().min(learned);
        // A document alone has to fit as well, with the line before it.
        let doc_bytes_max = self.settings.options.doc_bytes_max.as_usize();
        Encoder {
            settings: &self.settings,
            server: self.server(),
            request_bytes_max,
            doc_bytes_max: doc_bytes_max.min(request_bytes_max / 10 * 9),
        }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        lock(&self.changes)
    }
}
