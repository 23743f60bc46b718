//! `type = "elasticsearch"`: Elasticsearch 7 to 9, OpenSearch 1 to 3, and compatible `_bulk` endpoints.
//!
//! ```toml
//! [sinks.search]
//! type = "elasticsearch"
//! endpoints = ["https://es.example.com:9200"]
//! api_key = "${ELASTICSEARCH_API_KEY}"
//! ```
//!
//! **Documents.** Each span becomes a document in `<prefix>-spans`, and each trace one in `<prefix>-traces`. The field names are those of
//! widely copied exporters, so that their dashboards work. Data that is searched and aggregated has a typed field. Everything else is kept
//! as sent and not indexed, so no document can conflict with another one's types.
//!
//! **Exactly once.** A document's id is the span's, so sending it again changes nothing. Spans are the source of truth: a trace's document
//! is always built from the documents of its spans (`summaries.rs`), some seconds after they arrived, and written only if no other writer
//! has written it meanwhile. It is exact in any order, however often spans are resent, and however many daemons write.
//!
//! **Agents.** The Agents SDK sends an agent's span after everything below it. Spans of the same delivery get the agent's name when they
//! are written. Earlier spans are updated when the trace's document is built; so is the decision whose tokens count.
//!
//! **Answers** are read document by document (`response.rs`), and only failed documents are sent again (`deliver.rs`).
//!
//! **Templates** are installed before the first document (`templates.rs`). They have a version, and a hash of their source. If installing
//! them is forbidden, the log has the commands for an administrator.

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

use std::collections::BTreeSet;
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
pub use encode::Encoder;
use options::TraceSummary;
pub use options::{Flavor, Options, Settings, parse};
pub use server::Server;

/// The kind `elasticsearch`.
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
        // Work that remains from before the restart need not wait for the next delivery.
        if tokio::runtime::Handle::try_current().is_ok() {
            sink.start_summaries();
        }
        Ok(Arc::new(sink))
    }

    fn expanded(&self) -> toml::Table {
        super::http::shown(&self.options)
    }

    fn probe(&self) -> Option<Pending<'_, Result<String, String>>> {
        let sink = Elasticsearch::new(self.clone(), &Parts::default(), 0);
        Some(Box::pin(async {
            let backend = sink.map_err(|error| error.to_string())?.backend;
            backend.probe().await.map_err(|error| error.to_string())
        }))
    }

    fn commands(&self) -> Option<String> {
        let server = Server::assumed(self.options.flavor);
        Some(templates::print(&templates::steps(self, server)))
    }
}

/// Sends documents to one cluster.
#[derive(Debug)]
pub struct Elasticsearch {
    backend: Arc<Backend>,
    summaries: OnceLock<AbortOnDropHandle<()>>,
}

/// The cluster, with what is known of it and of its traces.
#[derive(Debug)]
struct Backend {
    name: String,
    figures: SinkFigures,
    settings: Settings,
    cluster: Cluster,
    /// The identified server.
    server: OnceLock<Server>,
    /// A notice for the operator although documents arrive.
    notice: Mutex<Option<String>>,
    /// Indices whose mapping is not verified: all at first, then those that a document may just have created.
    doubted: Mutex<BTreeSet<String>>,
    /// Held during the setup.
    stage: tokio::sync::Mutex<()>,
    changes: Mutex<Changes>,
    has_changed: tokio::sync::Notify,
    /// The largest request to try, in bytes before compression.
    size_limit: Mutex<SizeLimit>,
    unreadable: Mutex<Option<String>>,
    /// Consecutive large requests during which the connection broke.
    broken: AtomicU32,
}

impl Elasticsearch {
    /// Reads certificates, without connecting. The table of changed traces takes at most `changes_bytes_max`.
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
            server: OnceLock::new(),
            notice: Mutex::default(),
            doubted: Mutex::new(settings.indices.clone().into()),
            stage: tokio::sync::Mutex::default(),
            changes: Mutex::new(changes),
            has_changed: tokio::sync::Notify::new(),
            size_limit: Mutex::default(),
            unreadable: Mutex::default(),
            broken: AtomicU32::new(0),
            settings,
        };
        Ok(Self { backend: Arc::new(backend), summaries: OnceLock::new() })
    }

    /// Starts the task that builds summaries, if they are enabled and it is not running.
    fn start_summaries(&self) {
        if self.backend.encoder().has_summaries() {
            let run = || tokio::spawn(summaries::run(Arc::clone(&self.backend)));
            self.summaries.get_or_init(|| AbortOnDropHandle::new(run()));
        }
    }
}

/// Returns since when there may be uncounted spans, according to a checkpoint. An unreadable one is from another version. In that case, an
/// hour covers everything that a working daemon can have left uncounted.
fn owed_since(checkpoint: &[u8]) -> u64 {
    const HOUR_MS: u64 = 3_600_000;
    let read = std::str::from_utf8(checkpoint).ok().and_then(|text| text.parse().ok());
    let now_ms = || crate::support::clock::unix_now_ns() / names::NS_PER_MS;
    read.unwrap_or_else(|| now_ms().saturating_sub(HOUR_MS))
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
        lock(&self.backend.notice).clone().or_else(|| lock(&self.backend.unreadable).clone())
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(async {
            if let Err(report) = self.backend.prepare().await {
                return report;
            }
            self.start_summaries();
            self.backend.deliver(delivery).await
        })
    }

    /// Saves when the first uncounted span was received. Everything received earlier is counted. Everything delivered after this checkpoint
    /// is delivered again, or is in the next checkpoint.
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
        Encoder::new(&self.settings, self.server(), request_bytes_max)
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        lock(&self.changes)
    }
}
