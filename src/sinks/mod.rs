//! Sinks: the contract [`Sink`], what it answers for each item ([`Report`]), and the table of kinds ([`KINDS`]).
//!
//! A sink only speaks a protocol. It knows no journal, no retry loop and no other sink: a lane hands it a [`Delivery`], and it says
//! how that went. Lifecycle: a kind's options are parsed and checked without any input or output, built, then asked to deliver until
//! the lane ends.

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
use crate::support::hops::{Hops, SENDER_HEADER};
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

/// A future on the heap, since a lane does not know which kind of sink it drives.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place where spans go.
pub trait Sink: Send + Sync + 'static {
    /// How many deliveries it takes at once. With one, they come in the order of the journal; with more, those of one trace do. A
    /// sink with a checkpoint takes one.
    fn concurrency_max(&self) -> usize {
        1
    }

    /// What the lane is to find out about traces before it delivers; `None` where the spans alone are enough.
    fn trace_needs(&self) -> Option<TraceNeeds> {
        None
    }

    /// Whether, as far as is known of the backend by now, a span that is sent again takes the place of the one before
    /// ([`TraceNeeds::replaces_by_id`]).
    fn replaces_by_id(&self) -> bool {
        self.trace_needs().is_some_and(|needs| needs.replaces_by_id)
    }

    /// What an operator should know although the sink works; it degrades health. Asked after each delivery.
    fn notice(&self) -> Option<String> {
        None
    }

    /// Whether items with the verdict [`Verdict::Defer`] that wait for this key have still to wait. Asked often, so it must be cheap.
    fn is_deferred(&self, _key: &str) -> bool {
        false
    }

    /// Hands over a delivery. What did not arrive comes again, alone or with others. Nothing here or in [`Sink::checkpoint`] may block
    /// the thread that polls it.
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report>;

    /// Makes everything delivered so far durable and returns what the sink wants to find again after a restart. The lane stores it
    /// together with its cursor, in one step. After [`Pace::Checkpoint`] the next delivery comes only when such a checkpoint was saved.
    fn checkpoint(&self) -> Pending<'_, Result<Bytes, Pace>> {
        Box::pin(async { Ok(Bytes::new()) })
    }

    /// [`Sink::checkpoint`] for a sink that writes the lane's place, which is opaque to it, beside what it has by then. It may send the lane to
    /// another place than this one: all before that it has, and what it had behind it is gone.
    fn checkpoint_at(&self, _place: Bytes) -> Pending<'_, Result<Checkpoint, Pace>> {
        let checkpoint = self.checkpoint();
        Box::pin(async { Ok(Checkpoint { state: checkpoint.await?, go_on: None }) })
    }

    /// Whether it gathers what was delivered until a checkpoint, which may be minutes: until then it counts as pending.
    fn gathers(&self) -> bool {
        false
    }

    /// Until when what was delivered may wait for its checkpoint; `None` where the lane's options say how often there is one.
    fn open_until(&self) -> Option<Instant> {
        None
    }

    /// Forgets what was delivered since the last checkpoint, because its user gives it up. Returns whether there was anything that only
    /// a checkpoint makes durable.
    fn discard(&self) -> bool {
        false
    }
}

/// What a checkpoint comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// What the sink wants to find again after a restart.
    pub state: Bytes,
    /// The place where the lane goes on, if it is not the one that was given.
    pub go_on: Option<Bytes>,
}

/// A kind of sink. Help, documentation, the example configuration and the checks are made from [`KINDS`].
#[derive(Debug)]
pub struct Kind {
    /// What `type` says.
    pub name: &'static str,
    /// One sentence for lists.
    pub summary: &'static str,
    /// The smallest working table, as TOML without its `[sinks.name]` header.
    pub example: &'static str,
    /// The JSON Schema of its options.
    pub schema: fn() -> serde_json::Value,
    /// Reads and checks its options: all mistakes at once, no input or output. `type` and the options that every sink has
    /// (`batch`, `retry` ...) were taken out of the table before, and `${...}` was expanded.
    pub parse: Parse,
}

impl Kind {
    /// What is missing in this build for sinks of this kind, and what to do; `None` where nothing is.
    pub fn missing(&self) -> Option<(&'static str, &'static str)> {
        (self.name == kafka::KIND.name && !IS_BUILT).then_some(NOT_BUILT)
    }
}

/// See [`Kind::parse`].
pub type Parse = fn(Spanned<DeTable<'_>>) -> Result<Box<dyn Plan>, Vec<Problem>>;

/// Options that were read and checked, ready to be built.
pub trait Plan: Send + Sync + std::fmt::Debug {
    /// Makes the sink. This may open files; a backend that is not there is no error.
    fn build(&self, parts: Parts) -> Result<Arc<dyn Sink>, BuildError>;

    /// What the options came to, with defaults and presets filled in and credentials redacted, for `config show`.
    fn expanded(&self) -> toml::Table {
        toml::Table::new()
    }

    /// Rules that options stand for, in the words of the configuration (`[[rules]]`): the last ones for this sink.
    fn rules(&self) -> &'static str {
        ""
    }

    /// Where a browser shows a trace that the sink has, as far as its address tells.
    fn trace_url(&self) -> Option<TraceUrl> {
        None
    }

    /// Whether it acts in the name of callers, so that their keys have to be kept in memory for it.
    fn uses_keys(&self) -> bool {
        false
    }

    /// Asks the backend whether it would take what is configured, for `doctor`. It leaves nothing there. A sentence says
    /// what was found, or what is wrong and how to mend it; `None` for kinds that have no backend.
    fn probe(&self) -> Option<Pending<'_, Result<String, String>>> {
        None
    }

    /// How it reaches the store of its objects, for `import`; `None` for kinds without objects.
    fn objects(&self) -> Option<&object_store::Options> {
        None
    }

    /// What the sink installs at the backend, as commands for somebody who has the right to run them where the sink has not;
    /// `None` for kinds that install nothing.
    fn commands(&self) -> Option<String> {
        None
    }
}

/// Every place spans can go. `kinds`, `config default`, `validate`, the example file and the documentation are made from this list.
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

/// What a sink is built with.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Its name in the configuration.
    pub name: String,
    /// What [`Sink::checkpoint`] returned when the cursor was last saved; empty for a new sink.
    pub state: Bytes,
    /// Keys of callers, for a sink that acts in their name.
    pub keys: Arc<Keyring>,
    /// Where it counts what only its kind has.
    pub figures: SinkFigures,
    /// What calls cost whose clients do not say it.
    pub prices: Arc<Prices>,
}

/// Why a sink could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);

/// What a lane hands its sink in one go: items of one or more batches, in the order of the journal.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    batches: Vec<Arc<Batch>>,
    picks: Vec<Pick>,
    bytes: usize,
    contexts: TraceContexts,
}

/// Where an item is: the place of its batch among those of the delivery, and its own place in that.
type Pick = (usize, usize);

impl Delivery {
    /// Adds items of a batch, by their places in it.
    pub fn add(&mut self, batch: &Arc<Batch>, items: Range<usize>) {
        let added = batch.items.get(items.clone()).unwrap_or_default();
        self.bytes += added.iter().map(|item| item.wire().len()).sum::<usize>();
        let at = self.batches.len();
        self.batches.push(Arc::clone(batch));
        self.picks.extend(items.map(|item| (at, item)));
    }

    /// The items, each with the batch it came in.
    pub fn items(&self) -> impl Iterator<Item = (&Batch, &Item)> {
        self.picks.iter().filter_map(|pick| self.picked(*pick))
    }

    fn picked(&self, (batch, item): Pick) -> Option<(&Batch, &Item)> {
        let batch = self.batches.get(batch)?;
        Some((batch, batch.items.get(item)?))
    }

    /// The item at a place.
    pub fn item(&self, place: usize) -> Option<&Item> {
        self.picked(*self.picks.get(place)?).map(|(_, item)| item)
    }

    /// The requests that its items came in, whole: with what is in other parts, in other deliveries or left out.
    pub fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().map(AsRef::as_ref)
    }

    /// Who sent its items, when and how; each request at least once.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let mut last = None;
        self.picks.iter().filter_map(move |(batch, _)| {
            let is_new = last.replace(batch) != Some(batch);
            self.batches.get(*batch).filter(|_| is_new).map(|batch| &batch.source)
        })
    }

    /// Through which daemons its items came.
    fn hops(&self) -> Hops {
        let mut hops = Hops::default();
        for header in self.sources().filter_map(|source| source.header(SENDER_HEADER)) {
            hops.join(&Hops::read(header));
        }
        hops
    }

    /// Which of the batches that were added an item came in, counted from 0: the same in every part of the delivery.
    pub fn batch_of(&self, place: usize) -> Option<usize> {
        self.picks.get(place).map(|(batch, _)| *batch)
    }

    /// Gives the delivery what is known of its traces. It stays the same for all attempts and all parts.
    #[must_use]
    pub fn with_contexts(self, contexts: TraceContexts) -> Self {
        Self { contexts, ..self }
    }

    /// Whether anything is known of its traces.
    pub fn has_contexts(&self) -> bool {
        !self.contexts.is_empty()
    }

    /// What is known of a trace; `None` where the sink did not ask for it.
    pub fn context(&self, trace: TraceId) -> Option<&TraceContext> {
        self.contexts.get(&trace)
    }

    /// The spans among the items.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.items().filter_map(|(_, item)| item.as_span())
    }

    /// The delivery of only these items, by their places; the way to try a part of it alone.
    #[must_use]
    pub fn only(&self, places: &[usize]) -> Self {
        let picks = places.iter().filter_map(|&place| self.picks.get(place).copied()).collect();
        let (batches, contexts) = (self.batches.clone(), Arc::clone(&self.contexts));
        let mut part = Self { batches, picks, bytes: 0, contexts };
        part.bytes = part.items().map(|(_, item)| item.wire().len()).sum();
        part
    }

    /// The same without the batches that it has nothing of, so that it keeps no more in memory than it must.
    #[must_use]
    pub fn alone(mut self) -> Self {
        static NOTHING: LazyLock<Arc<Batch>> = LazyLock::new(|| {
            Arc::new(Batch { source: Source::unknown(), items: Vec::new(), bytes: 0 })
        });
        let used: HashSet<usize> = self.picks.iter().map(|(batch, _)| *batch).collect();
        for (at, batch) in self.batches.iter_mut().enumerate() {
            if !used.contains(&at) {
                // Their numbers stay: `batch_of` is the same in every part.
                *batch = Arc::clone(&NOTHING);
            }
        }
        self
    }

    /// How many batches it was made of.
    pub fn batch_count(&self) -> usize {
        self.batches.len()
    }

    /// Whether both can be one delivery: what they know of their traces is the same.
    pub fn goes_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.contexts, &other.contexts)
            || !self.has_contexts() && !other.has_contexts()
    }

    /// Adds the items of another delivery behind its own, with the batches that they came in.
    pub fn append(&mut self, other: Self) {
        let before = self.batches.len();
        self.batches.extend(other.batches);
        let picks = other.picks.into_iter();
        self.picks.extend(picks.map(|(batch, item)| (before + batch, item)));
        self.bytes += other.bytes;
    }

    /// The delivery cut into parts by trace, each with its number; the parts keep the order. `part_of` answers below `count`.
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

    /// How many items it has.
    pub fn len(&self) -> usize {
        self.picks.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// The size of its items on the wire, in bytes.
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

/// Reads a kind's options from its table, and says what they come to. A mistake is shown at its option's value, or at the whole table
/// where the option was not written.
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
