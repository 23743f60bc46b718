//! `type = "object_store"`: a data lake in S3, Google Cloud Storage, Azure Blob Storage or a folder, each row exactly once.
//!
//! ```toml
//! [sinks.lake]
//! type = "object_store"
//! url = "s3://traces/agents"
//! ```
//!
//! **Objects.** `PREFIX/dt=2026-11-21/hour=05/lake-5f0c9b1e7a2d4433-0000000017.jsonl.zst`: partitions that Hive, Athena, Spark and DuckDB
//! know, by the hour in which the daemon received the items, in UTC. An object has rows of one hour. Its name consists of the sink's name,
//! the writer (a random number, drawn once for this sink on this journal) and the object's number, without gaps. Nothing else is written
//! below the prefix.
//!
//! **Formats.** `jsonl` has one span or trace object per line in flat columns, described in [`jsonl`](super::jsonl); `parquet` has the same
//! in typed columns ([`parquet`](super::parquet)). `otlp` is an archive to replay: protobuf requests, each preceded by its length as a
//! varint, with spans as they were received. It contains items of the Agents SDK twice: as OTLP spans, for any reader of OTLP, and in the
//! form that was received, as a request body for the ingest in the text attribute `spanferry.agents_sdk.body` of a resource without spans.
//! Lines and archives are consecutive zstd frames, which `zstdcat` and readers of such files accept.
//!
//! **Exactly once.** An object is built and compressed in memory. It is put when it is full or old enough, when its hour is over, or when
//! the journal is full because of it, on the condition that its name does not exist. Its metadata (for a file, an extended attribute:
//! `folder.rs`) holds the place to which the lane's cursor then moves, so object and cursor cannot disagree. If the response is lost, the
//! same bytes are put under the same name again, and an existing object is recognised by its SHA-256. After a crash between the put and
//! saving the cursor, the sink finds the object by its number, and the lane continues after it. Until a put, only the journal holds the
//! rows; after a crash they are read again. Dead letters are written once for each replay.
//!
//! **Errors.** `answer.rs` has a table of stores' error codes. Only the lane retries. An object under our next name that we did not write
//! is never overwritten: the lane holds and names it. A row on which our own code panics becomes a dead letter: after a panic, each
//! delivery until the next put is tried before it is added to the object.

mod answer;
mod connect;
mod folder;
mod format;
mod options;
mod read;
mod store;
#[cfg(test)]
pub(crate) mod folder_tests;
#[cfg(test)]
mod http_tests;
#[cfg(test)]
pub(crate) mod tests;

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use ::object_store::path::{Path, PathPart};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::Instant;

use super::report::Reports;
use super::{
    BuildError, Checkpoint, Delivery, Kind, Pace, Parts, Pending, Plan, Report, Sink, Verdict,
    http, read_options,
};
use crate::prices::Prices;
use crate::span::{Batch, TraceNeeds};
use crate::support::lock::lock;
use crate::support::rfc3339::{NS_PER_SECOND, write_date};
use crate::support::{base64, clock, sha256};
use format::Encoder;
use options::FILE;
pub use options::{Format, Options};
pub use read::Object;
use store::{ObjectNote, Store};

/// The kind of sink that writes objects to a store.
pub static KIND: Kind = Kind {
    name: "object_store",
    summary: "a data lake in S3, Google Cloud Storage, Azure or a folder: partitions of Parquet, JSON lines, or OTLP to replay, each row exactly once",
    example: "url = \"s3://traces/agents\"\nregion = \"eu-central-1\"\n",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| Ok(Box::new(read_options(table, Options::check)?)),
};

impl Plan for Options {
    fn build(&self, parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(Lake::over(connect::store(self)?, self, parts)))
    }

    fn expanded(&self) -> toml::Table {
        http::shown(self)
    }

    fn objects(&self) -> Option<&Options> {
        Some(self)
    }

    fn probe(&self) -> Option<Pending<'_, Result<String, String>>> {
        Some(Box::pin(async {
            let store = connect::store(self).map_err(|error| error.to_string())?;
            let probed = store.probe(&self.root()).await;
            probed.map_err(|pace| pace.reason().unwrap_or_default().to_owned())
        }))
    }
}

impl Options {
    /// Returns the prefix of all names in the store.
    fn root(&self) -> Path {
        let is_folder = self.scheme() == Some(FILE);
        if is_folder { Path::default() } else { Path::from(self.place().1) }
    }
}

/// Writes objects. All work except network transfers runs on threads that may block.
pub struct Lake {
    store: Store,
    sink: String,
    root: Path,
    options: Options,
    prices: Arc<Prices>,
    ledger: Mutex<WriterState>,
}

struct WriterState {
    stage: Stage,
    /// The state saved with the cursor; `None` before the first delivery of a new sink.
    saved: Option<Saved>,
    /// The place of the last checkpoint. Later deliveries are in the open object, or nowhere.
    place: Bytes,
    /// The hour of a delivery that waits until the store has been listed.
    waiting: Option<u64>,
    /// Whether our own code has panicked on the current rows.
    is_careful: bool,
}

enum Stage {
    /// Unknown whether the store has objects beyond the cursor.
    Unasked,
    /// No row waits for a put.
    Empty,
    Open(Box<Open>),
    /// An object that accepts no more rows until it is put.
    Sealed(Arc<Sealed>),
    /// The object is being written, or a write was abandoned. In the latter case, its rows are read again.
    Torn,
}

/// An object that is being built.
struct Open {
    /// Hours since 1970.
    hour: u64,
    since: Instant,
    rows: u64,
    encoder: Encoder,
}

/// A finished object, to be put.
struct Sealed {
    hour: u64,
    path: Path,
    bytes: Bytes,
    facts: ObjectNote,
}

/// The state that is saved with the cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    writer: String,
    /// The number of the next object.
    next: u64,
    /// The hour of the last object, or of the first delivery.
    hour: u64,
}

/// How many hours before its last object a writer looks for its own objects: clocks may be set back by less than a day.
const HOURS_BACK: u64 = 24;

fn hour_of(batch: &Batch) -> u64 {
    batch.source.received_at_ns / (3600 * NS_PER_SECOND)
}

impl WriterState {
    /// Takes the object for rows of this hour out of the state, until they are written; `None` if a checkpoint has to come first.
    fn take(&mut self, hour: u64, open: impl FnOnce() -> Box<Open>) -> Option<Box<Open>> {
        match std::mem::replace(&mut self.stage, Stage::Torn) {
            Stage::Empty => Some(open()),
            Stage::Open(open) if open.hour == hour => Some(open),
            stage => {
                self.waiting = Some(hour);
                self.stage = stage;
                None
            }
        }
    }

    /// Records that all rows before a place are stored, and the number of the next object. The place is `go_on`, from which the lane then
    /// continues, if given.
    fn checkpoint(
        &mut self,
        place: Bytes,
        go_on: Option<Bytes>,
        (next, hour): (u64, u64),
    ) -> Checkpoint {
        (self.stage, self.is_careful) = (Stage::Empty, false);
        self.place = go_on.clone().unwrap_or(place);
        if let Some(saved) = &mut self.saved {
            (saved.next, saved.hour) = (next, hour);
        }
        self.saving(go_on)
    }

    /// Returns the state to save, and the place from which the lane continues if it changes.
    fn saving(&self, go_on: Option<Bytes>) -> Checkpoint {
        let saved = self.saved.as_ref().and_then(|saved| serde_json::to_vec(saved).ok());
        Checkpoint { state: saved.unwrap_or_default().into(), go_on }
    }
}

impl Lake {
    /// Creates the sink without contacting the store.
    fn over(store: Store, options: &Options, parts: Parts) -> Self {
        // Any other state is that of another kind of sink that had this name.
        let saved = serde_json::from_slice(&parts.state).ok();
        let (stage, place, waiting) = (Stage::Unasked, Bytes::new(), None);
        Self {
            store,
            sink: PathPart::from(parts.name).as_ref().to_owned(),
            root: options.root(),
            options: options.clone(),
            prices: parts.prices,
            ledger: Mutex::new(WriterState { stage, saved, place, waiting, is_careful: false }),
        }
    }

    /// Begins an object for rows of this hour.
    fn open(&self, hour: u64) -> Box<Open> {
        let encoder = Encoder::new(self.options.format, self.options.compression_level);
        Box::new(Open { hour, since: Instant::now(), rows: 0, encoder })
    }

    async fn write(&self, delivery: &Delivery) -> Report {
        let again = || Report::all(Verdict::Retry, Pace::Checkpoint);
        let Some(hour) = delivery.items().next().map(|(batch, _)| hour_of(batch)) else {
            return Report::delivered();
        };
        let fitting = delivery.items().take_while(|(batch, _)| hour_of(batch) == hour).count();
        let part = delivery.only(&(0..fitting).collect::<Vec<_>>());
        let is_careful = lock(&self.ledger).is_careful;
        if is_careful
            && let Err(error) = self.encode(self.open(hour), part.clone()).await
            && let Ok(panic) = error.try_into_panic()
        {
            resume_unwind(panic);
        }
        let Some(open) = lock(&self.ledger).take(hour, || self.open(hour)) else { return again() };
        let Ok(Ok(open)) = self.encode(open, part).await else {
            lock(&self.ledger).is_careful = true;
            return again();
        };
        let is_full = open.encoder.len() >= self.options.object.bytes_max.as_usize();
        // Nothing can cancel the delivery between here and the lane's receiving the report.
        lock(&self.ledger).stage = Stage::Open(open);
        let is_done = is_full || fitting < delivery.len();
        let pace = if is_done { Pace::Checkpoint } else { Pace::Go };
        let mut reports = Reports::new(delivery.len());
        reports.add(0..fitting, Report::all(Verdict::Delivered, pace));
        reports.finish()
    }

    async fn encode(
        &self,
        mut open: Box<Open>,
        part: Delivery,
    ) -> Result<io::Result<Box<Open>>, JoinError> {
        let prices = Arc::clone(&self.prices);
        let write = move || {
            open.rows += part.len() as u64;
            open.encoder.write(&part, &prices)?;
            Ok(open)
        };
        spawn_blocking(write).await
    }

    async fn save(&self, place: Bytes) -> Result<Checkpoint, Pace> {
        let stage = std::mem::replace(&mut lock(&self.ledger).stage, Stage::Torn);
        let sealed = match stage {
            Stage::Unasked => return self.ask(place).await,
            Stage::Empty | Stage::Torn => {
                let mut ledger = lock(&self.ledger);
                let go_on = matches!(stage, Stage::Torn).then(|| ledger.place.clone());
                (ledger.stage, ledger.place) = (Stage::Empty, go_on.clone().unwrap_or(place));
                return Ok(ledger.saving(go_on));
            }
            Stage::Open(open) => self.seal(open, place.clone()).await?,
            Stage::Sealed(sealed) => sealed,
        };
        lock(&self.ledger).stage = Stage::Sealed(Arc::clone(&sealed));
        self.put(&sealed, place).await
    }

    /// Finds objects in the store beyond the cursor, or draws the number of a new writer.
    async fn ask(&self, place: Bytes) -> Result<Checkpoint, Pace> {
        let saved = {
            let mut ledger = lock(&self.ledger);
            ledger.stage = Stage::Unasked;
            // Without a row to write, the store need not be listed.
            let Some(hour) = ledger.waiting else { return Ok(ledger.saving(None)) };
            let Some(saved) = ledger.saved.clone() else {
                let writer = RandomState::new().hash_one(clock::unix_now_ns());
                ledger.saved = Some(Saved { writer: format!("{writer:016x}"), next: 0, hour });
                return Ok(ledger.checkpoint(place, None, (0, hour)));
            };
            saved
        };
        let from = self.partition(saved.hour.saturating_sub(HOURS_BACK));
        let stem = self.stem(&saved.writer);
        let mine = self.store.numbered(&self.root, &from, &stem).await?;
        let (mut last, mut next) = (None, saved.next);
        while let Some(path) = mine.get(&next) {
            last = Some(self.store.facts_of(path).await?.place());
            next += 1;
        }
        Ok(lock(&self.ledger).checkpoint(place, last, (next, saved.hour)))
    }

    async fn seal(&self, open: Box<Open>, place: Bytes) -> Result<Arc<Sealed>, Pace> {
        let saved = lock(&self.ledger).saved.clone();
        let saved = saved.ok_or_else(|| Pace::down("the writer has no number"))?;
        let (extension, format) = self.options.format.names();
        let name = format!("{}{:010}.{extension}", self.stem(&saved.writer), saved.next);
        let path = self.partition(open.hour).join(name);
        let sealing = spawn_blocking(move || {
            let Open { hour, rows, encoder, .. } = *open;
            let bytes = Bytes::from(encoder.finish()?);
            let (place, sha256) = (base64::text(&place), sha256::hex(&bytes));
            let facts = ObjectNote { place, sha256, rows, format };
            Ok::<_, io::Error>(Arc::new(Sealed { hour, path, bytes, facts }))
        });
        let sealed = sealing.await.map_err(io::Error::other).flatten();
        sealed.map_err(|problem| Pace::down(format!("the object could not be finished: {problem}")))
    }

    async fn put(&self, sealed: &Sealed, place: Bytes) -> Result<Checkpoint, Pace> {
        let found = if self.store.create(&sealed.path, &sealed.bytes, &sealed.facts).await? {
            None
        } else {
            let found = self.store.facts_of(&sealed.path).await?;
            // With the same content, it is our object whose response was lost.
            Some(found).filter(|found| found.sha256 != sealed.facts.sha256)
        };
        let mut ledger = lock(&self.ledger);
        let next = ledger.saved.as_ref().map_or(0, |saved| saved.next) + 1;
        // An earlier run's late put cut the journal elsewhere. Its rows are stored, so the lane reads on after them.
        let go_on = found.map(|found| found.place());
        Ok(ledger.checkpoint(place, go_on, (next, sealed.hour)))
    }

    fn partition(&self, hour: u64) -> Path {
        let mut date = b"dt=".to_vec();
        write_date(&mut date, hour / 24);
        let date = String::from_utf8_lossy(&date);
        self.root.clone().join(date.as_ref()).join(format!("hour={:02}", hour % 24))
    }

    /// Returns the prefix of the names of a writer's objects.
    fn stem(&self, writer: &str) -> String {
        format!("{}-{writer}-", self.sink)
    }
}

impl Sink for Lake {
    fn trace_needs(&self) -> Option<TraceNeeds> {
        // The archive holds what the client sent, without context.
        (self.options.format != Format::Otlp).then_some(TraceNeeds::AS_KNOWN)
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(self.write(delivery))
    }

    fn gathers(&self) -> bool {
        true
    }

    fn open_until(&self) -> Option<Instant> {
        match &lock(&self.ledger).stage {
            Stage::Open(open) => Some(open.since + self.options.object.age.0),
            Stage::Sealed(_) | Stage::Torn => Some(Instant::now()),
            Stage::Unasked | Stage::Empty => None,
        }
    }

    fn discard(&self) -> bool {
        let mut ledger = lock(&self.ledger);
        // Without a row to write, the store need not be listed, so the lane's next checkpoint works even if the store is down.
        ledger.waiting = None;
        let has_rows = matches!(ledger.stage, Stage::Open(_) | Stage::Sealed(_) | Stage::Torn);
        if has_rows {
            ledger.stage = Stage::Empty;
        }
        has_rows
    }

    fn checkpoint_at(&self, place: Bytes) -> Pending<'_, Result<Checkpoint, Pace>> {
        Box::pin(self.save(place))
    }
}
