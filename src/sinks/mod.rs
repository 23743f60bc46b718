//! Sinks: the contract [`Sink`], a sink's answer for each item ([`Report`]), and the table of kinds ([`KINDS`]).
//!
//! A sink only speaks a protocol. It knows no journal, no retry loop and no other sink: a lane hands it a [`Delivery`], and the sink
//! reports the result. Lifecycle: a kind's options are parsed and checked without any input or output, the sink is built, and it delivers
//! until the lane ends.

pub mod http;
mod report;
mod shrink;
mod size_limit;
mod trace_url;
pub mod jsonl;
pub mod parquet;
pub mod langfuse;
pub mod elasticsearch;
pub mod otlp;
pub mod kafka;
pub mod file;
pub mod object_store;
pub mod openai;
pub mod stdout;
pub mod blackhole;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use toml::Spanned;
use toml::de::DeTable;

use crate::prices::Prices;
use crate::span::{
    Batch, DEFAULT_CONTEXT_WAIT, Item, Source, Span, TraceContext, TraceContexts, TraceId,
    TraceNeeds,
};
use crate::support::duration;
use crate::support::forwarding::{ForwardingPath, SENDER_HEADER};
use crate::support::kafka::{IS_BUILT, NOT_BUILT};
use crate::support::keyring::Keyring;
use crate::support::options::{position, read};
use crate::support::problem::{Mistake, Mistakes, Problem};
use crate::telemetry::SinkFigures;
pub use report::{Deferral, Omitted, Pace, Refusal, RejectClass, Report, Verdict, Verdicts};
pub use size_limit::SizeLimit;
#[cfg(test)]
use tests::samples;
pub use trace_url::TraceUrl;

/// A boxed future, because a lane does not know the kind of its sink.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A destination for spans.
pub trait Sink: Send + Sync + 'static {
    /// Returns the highest number of concurrent deliveries. With one, deliveries keep the order of the journal; with more, and after a
    /// rejection of a whole one, only those of the same trace do. A sink with a checkpoint takes one.
    fn concurrency_max(&self) -> usize {
        1
    }

    /// Returns what the lane must learn about traces before it delivers; `None` if the spans suffice.
    fn trace_needs(&self) -> Option<TraceNeeds> {
        None
    }

    /// Returns whether a span that is sent again replaces the earlier one, as far as is known of the backend
    /// ([`TraceNeeds::replaces_by_id`]).
    fn replaces_by_id(&self) -> bool {
        self.trace_needs().is_some_and(|needs| needs.replaces_by_id)
    }

    /// Returns a notice for the operator although the sink works; it degrades health. It is called after each delivery.
    fn notice(&self) -> Option<String> {
        None
    }

    /// Returns whether items with the verdict [`Verdict::Defer`] under this key must wait longer. It is called often, so it must be cheap.
    fn is_deferred(&self, _key: &str) -> bool {
        false
    }

    /// Sends a delivery. Items that did not arrive are delivered again, alone or with others. Neither this nor [`Sink::checkpoint`] may
    /// block the thread that polls it.
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report>;

    /// Makes everything delivered so far durable and returns the state that the sink needs after a restart. The lane saves it atomically
    /// with its cursor. After [`Pace::Checkpoint`], the next delivery begins only after such a checkpoint was saved.
    fn checkpoint(&self) -> Pending<'_, Result<Bytes, Pace>> {
        Box::pin(async { Ok(Bytes::new()) })
    }

    /// Does the same as [`Sink::checkpoint`] for a sink that stores the lane's opaque position together with its data. It may move the lane
    /// to another position: the sink has everything before it, and lost what it had after it.
    fn checkpoint_at(&self, _place: Bytes) -> Pending<'_, Result<Checkpoint, Pace>> {
        let checkpoint = self.checkpoint();
        Box::pin(async { Ok(Checkpoint { state: checkpoint.await?, go_on: None }) })
    }

    /// Returns whether the sink collects deliveries until a checkpoint, possibly for minutes. Until then, they count as pending.
    fn gathers(&self) -> bool {
        false
    }

    /// Returns until when deliveries may wait for their checkpoint; `None` if the lane's options set the interval.
    fn open_until(&self) -> Option<Instant> {
        None
    }

    /// Drops what was delivered since the last checkpoint, because the lane evicts it. Returns whether there was anything that only a
    /// checkpoint makes durable.
    fn discard(&self) -> bool {
        false
    }
}

/// The result of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The state that the sink needs after a restart.
    pub state: Bytes,
    /// The position where the lane continues, if it differs from the given one.
    pub go_on: Option<Bytes>,
}

/// A kind of sink. Help, documentation, the example configuration and the checks are made from [`KINDS`].
#[derive(Debug)]
pub struct Kind {
    /// The value of `type`.
    pub name: &'static str,
    /// One sentence for lists.
    pub summary: &'static str,
    /// The smallest working table, as TOML without its `[sinks.name]` header.
    pub example: &'static str,
    /// The JSON Schema of its options.
    pub schema: fn() -> serde_json::Value,
    /// Reads and checks its options, without input or output, and returns all mistakes. `type` and the options that every sink has
    /// (`batch`, `retry` ...) are already removed from the table, and `${...}` is expanded.
    pub parse: Parse,
}

impl Kind {
    /// Returns what this build lacks for sinks of this kind, and the remedy; `None` if nothing is missing.
    pub fn missing(&self) -> Option<(&'static str, &'static str)> {
        (self.name == kafka::KIND.name && !IS_BUILT).then_some(NOT_BUILT)
    }
}

/// See [`Kind::parse`].
pub type Parse = fn(Spanned<DeTable<'_>>) -> Result<Box<dyn Plan>, Vec<Problem>>;

/// Checked options from which a sink can be built.
pub trait Plan: Send + Sync + std::fmt::Debug {
    /// Builds the sink. This may open files. An unreachable backend is not an error.
    fn build(&self, parts: Parts) -> Result<Arc<dyn Sink>, BuildError>;

    /// Returns the options with defaults and presets filled in and credentials redacted, for `config show`.
    fn expanded(&self) -> toml::Table {
        toml::Table::new()
    }

    /// Returns the rules that options stand for, in the format of the configuration (`[[rules]]`). The sink applies them last.
    fn rules(&self) -> &'static str {
        ""
    }

    /// Returns where a browser shows a trace of the sink, if its address tells.
    fn trace_url(&self) -> Option<TraceUrl> {
        None
    }

    /// Returns whether it uses callers' keys, which must then be kept in memory.
    fn uses_keys(&self) -> bool {
        false
    }

    /// Asks the backend whether it would accept deliveries as configured, for `doctor`, and leaves nothing there. Returns a sentence with
    /// the finding, or with the problem and its remedy; `None` for kinds without a backend.
    fn probe(&self) -> Option<Pending<'_, Result<String, String>>> {
        None
    }

    /// Returns the options of its object store, for `import`; `None` for kinds without objects.
    fn objects(&self) -> Option<&object_store::Options> {
        None
    }

    /// Returns what the sink installs at the backend, as commands for an administrator if the sink lacks the permission; `None` for kinds
    /// that install nothing.
    fn commands(&self) -> Option<String> {
        None
    }
}

/// All kinds of sinks. `kinds`, `config default`, `validate`, the example file and the documentation are made from this list.
pub static KINDS: &[&Kind] = &[
    &langfuse::KIND,
    &elasticsearch::KIND,
    &otlp::KIND,
    &kafka::KIND,
    &openai::KIND,
    &file::KIND,
    &object_store::KIND,
    &stdout::KIND,
    &blackhole::KIND,
];

/// Everything that a sink needs to be built, except its options.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Its name in the configuration.
    pub name: String,
    /// The state that [`Sink::checkpoint`] returned when the cursor was last saved; empty for a new sink.
    pub state: Bytes,
    /// Callers' keys, for a sink that uses them.
    pub keys: Arc<Keyring>,
    /// Metrics that only its kind has.
    pub figures: SinkFigures,
    /// Prices for calls whose clients report no cost.
    pub prices: Arc<Prices>,
}

/// Why a sink could not be built.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);

/// The items that a lane gives to its sink in one call. They come from one or more batches and keep the order of the journal.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    batches: Vec<Arc<Batch>>,
    picks: Vec<Pick>,
    bytes: usize,
    contexts: TraceContexts,
}

/// The position of an item: the index of its batch in the delivery, and its index in the batch.
type Pick = (usize, usize);

impl Delivery {
    /// Adds items of a batch, by their indices in it.
    pub fn add(&mut self, batch: &Arc<Batch>, items: Range<usize>) {
        let added = batch.items.get(items.clone()).unwrap_or_default();
        self.bytes += added.iter().map(|item| item.wire().len()).sum::<usize>();
        let at = self.batches.len();
        self.batches.push(Arc::clone(batch));
        self.picks.extend(items.map(|item| (at, item)));
    }

    /// Iterates over the items, each with its batch.
    pub fn items(&self) -> impl Iterator<Item = (&Batch, &Item)> {
        self.picks.iter().filter_map(|pick| self.picked(*pick))
    }

    fn picked(&self, (batch, item): Pick) -> Option<(&Batch, &Item)> {
        let batch = self.batches.get(batch)?;
        Some((batch, batch.items.get(item)?))
    }

    /// Returns the item at an index.
    pub fn item(&self, place: usize) -> Option<&Item> {
        self.picked(*self.picks.get(place)?).map(|(_, item)| item)
    }

    /// Iterates over the complete requests of its items, including items of other parts or deliveries and filtered ones.
    pub fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().map(AsRef::as_ref)
    }

    /// Iterates over the sources of its items; each request occurs at least once.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let mut last = None;
        self.picks.iter().filter_map(move |(batch, _)| {
            let is_new = last.replace(batch) != Some(batch);
            self.batches.get(*batch).filter(|_| is_new).map(|batch| &batch.source)
        })
    }

    /// Returns the forwarding path of its items.
    fn hops(&self) -> ForwardingPath {
        let mut hops = ForwardingPath::default();
        for header in self.sources().filter_map(|source| source.header(SENDER_HEADER)) {
            hops.join(&ForwardingPath::read(header));
        }
        hops
    }

    /// Returns the index of an item's batch among all that were added. It is the same in every part of the delivery.
    pub fn batch_of(&self, place: usize) -> Option<usize> {
        self.picks.get(place).map(|(batch, _)| *batch)
    }

    /// Sets the trace contexts. They stay the same for all attempts and all parts.
    #[must_use]
    pub fn with_contexts(self, contexts: TraceContexts) -> Self {
        Self { contexts, ..self }
    }

    /// Returns whether it has any trace context.
    pub fn has_contexts(&self) -> bool {
        !self.contexts.is_empty()
    }

    /// Returns the context of a trace; `None` if the sink did not ask for it.
    pub fn context(&self, trace: TraceId) -> Option<&TraceContext> {
        self.contexts.get(&trace)
    }

    /// Iterates over the spans among the items.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.items().filter_map(|(_, item)| item.as_span())
    }

    /// Returns a delivery with only the items at these indices, to try a part alone.
    #[must_use]
    pub fn only(&self, places: &[usize]) -> Self {
        let picks = places.iter().filter_map(|&place| self.picks.get(place).copied()).collect();
        let (batches, contexts) = (self.batches.clone(), Arc::clone(&self.contexts));
        let mut part = Self { batches, picks, bytes: 0, contexts };
        part.bytes = part.items().map(|(_, item)| item.wire().len()).sum();
        part
    }

    /// Releases the batches without any of its items, to save memory.
    #[must_use]
    pub fn alone(mut self) -> Self {
        static NOTHING: LazyLock<Arc<Batch>> = LazyLock::new(|| {
            Arc::new(Batch { source: Source::unknown(), items: Vec::new(), bytes: 0 })
        });
        let used: HashSet<usize> = self.picks.iter().map(|(batch, _)| *batch).collect();
        for (at, batch) in self.batches.iter_mut().enumerate() {
            if !used.contains(&at) {
                // The indices must not change, because `batch_of` is the same in every part.
                *batch = Arc::clone(&NOTHING);
            }
        }
        self
    }

    /// Returns the number of batches that were added.
    pub fn batch_count(&self) -> usize {
        self.batches.len()
    }

    /// Returns whether both can be merged, because they have the same trace contexts.
    pub fn goes_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.contexts, &other.contexts)
            || !self.has_contexts() && !other.has_contexts()
    }

    /// Appends the items of another delivery, with their batches.
    pub fn append(&mut self, other: Self) {
        let before = self.batches.len();
        self.batches.extend(other.batches);
        let picks = other.picks.into_iter();
        self.picks.extend(picks.map(|(batch, item)| (before + batch, item)));
        self.bytes += other.bytes;
    }

    /// Splits the delivery by trace into numbered parts that keep the order. `part_of` returns a number below `count`.
    pub fn partition(self, count: usize, part_of: impl Fn(TraceId) -> usize) -> Vec<(usize, Self)> {
        if self.is_empty() {
            return Vec::new();
        }
        if count <= 1 {
            return vec![(0, self)];
        }
        let mut places = vec![Vec::new(); count];
        for (place, (_, item)) in self.items().enumerate() {
            if let Some(part) = places.get_mut(part_of(item.trace_id())) {
                part.push(place);
            }
        }
        let parts = places.iter().enumerate().filter(|(_, places)| !places.is_empty());
        parts.map(|(part, places)| (part, self.only(places))).collect()
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.picks.len()
    }

    /// Returns whether it has no items.
    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// Returns the size of its items on the wire, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Reads a kind's options from its table and checks them.
fn read_options<T: DeserializeOwned + JsonSchema>(
    table: Spanned<DeTable<'_>>,
    check: impl FnOnce(&T) -> Vec<Mistake>,
) -> Result<T, Vec<Problem>> {
    settle_options(table, |options| {
        let mistakes = check(&options);
        if mistakes.is_empty() { Ok(options) } else { Err(mistakes) }
    })
}

/// Reads a kind's options from its table and resolves them. A mistake is reported at its option's value, or at the complete table if the
/// option was not set.
fn settle_options<T: DeserializeOwned + JsonSchema, Settings, Words: Into<String>>(
    table: Spanned<DeTable<'_>>,
    settle: impl FnOnce(T) -> Result<Settings, Vec<Mistake<Words>>>,
) -> Result<Settings, Vec<Problem>> {
    let whole = position(&table.span());
    let values = table.get_ref().iter();
    let values = values.map(|(key, value)| (key.get_ref().to_string(), position(&value.span())));
    let places: HashMap<String, Range<usize>> = values.collect();
    settle(read(table)?).map_err(|mistakes| {
        let problem = |Mistake { option, what, hint }| {
            Problem::new(Some(places.get(option).unwrap_or(&whole).clone()), what, hint)
        };
        mistakes.into_iter().map(problem).collect()
    })
}

/// See [`DEFAULT_CONTEXT_WAIT`].
fn default_context_wait() -> duration::Duration {
    DEFAULT_CONTEXT_WAIT.into()
}

#[cfg(test)]
mod tests;
