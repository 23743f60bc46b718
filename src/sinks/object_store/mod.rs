//! `type = "object_store"`: a data lake in S3, Google Cloud Storage, Azure Blob Storage or a folder, each row exactly once.
//!
//! ```toml
//! [sinks.lake]
//! type = "object_store"
//! url = "s3://traces/agents"
//! ```
//!
//! **Objects.** `PREFIX/dt=2026-11-21/hour=05/lake-5f0c9b1e7a2d4433-0000000017.jsonl.zst`: partitions as Hive, Athena, Spark and
//! DuckDB know them, by when the daemon received the item, in UTC; an object has rows of one hour. A name is made of the sink's name, the writer
//! (a number drawn once for this sink on this journal) and how many objects the writer wrote before: numbers without gaps. Nothing
//! else is written below the prefix.
//!
//! **Formats.** `jsonl` is one span or trace object a line in flat columns, described in [`jsonl`](super::jsonl), and `parquet` the same in
//! typed columns ([`parquet`](super::parquet)). `otlp` is an archive to replay: protobuf requests, each behind its length as a varint, with
//! spans as they were received. Items of the Agents SDK are in it twice: as OTLP spans, which every reader of OTLP understands, and as
//! they came, in the text attribute `spanferry.agents_sdk.body` of a resource without spans, as a body that the ingest takes. Lines and
//! archives are zstd frames one behind the other, as `zstdcat` and readers of such files take them.
//!
//! **Exactly once.** An object is built in memory, compressed, and put when it is full, old enough, its hour is over or the journal is full
//! of it, under the condition that nothing has its name. Its metadata (of a file: an extended attribute, `folder.rs`) holds the place to which the lane's cursor moves
//! then; so the object and the cursor cannot disagree. Where the answer is lost, the same bytes go under the same name again, and what is there is recognised by its SHA-256. After
//! a crash between the put and the saving of the cursor, the sink finds the object by its number and the lane goes on behind it.
//! Until a put, nothing but the journal keeps the rows: what a crash takes is read again. Replays of dead letters are written once for each
//! time that they are asked for.
//!
//! **Trouble.** `answer.rs` is a table of what stores say. The lane is the only retry loop. An object of our next name that we did
//! not write is never overwritten: the lane holds and says which it is. A row that our own code panics on becomes a dead letter: from then
//! until the next put each delivery is tried before it touches the object.

mod answer;
mod connect;
mod facts;
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
use facts::ObjectNote;
use format::Encoder;
use options::Scheme;
pub use options::{Format, Options};
pub use read::{Object, Objects};
use store::Store;

/// Objects in a store.
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
    /// What stands before all names in the store.
    fn root(&self) -> Path {
        let is_folder = self.scheme() == Some(Scheme::File);
        if is_folder { Path::default() } else { Path::from(self.place().1) }
    }
}

/// Writes objects. All but bytes on their way is done on threads that may block.
pub struct Lake {
    store: Store,
    sink: String,
    root: Path,
    options: Options,
    prices: Arc<Prices>,
    ledger: Mutex<WriterState>,
}

/// Where the work stands.
struct WriterState {
    stage: Stage,
    /// What is saved with the cursor; none before the first delivery of a new sink.
    saved: Option<Saved>,
    /// The place of the last checkpoint: what was delivered behind it is in the object that is built, or nowhere.
    place: Bytes,
    /// The hour of a delivery that waits for the store to be asked.
    waiting: Option<u64>,
    /// Whether our own code has panicked on what comes.
    is_careful: bool,
}

enum Stage {
    /// It is not known yet whether the store has more than the cursor says.
    Unasked,
    /// No row waits for a put.
    Empty,
    Open(Box<Open>),
    /// An object that takes no more rows until it is put.
    Sealed(Arc<Sealed>),
    /// Somebody writes to the object, or nobody heard of what became of that: then its rows are read again.
    Torn,
}

/// An object that is built.
struct Open {
    /// Hours since 1970.
    hour: u64,
    since: Instant,
    rows: u64,
    encoder: Encoder,
}

impl Open {
    fn new(hour: u64, encoder: Encoder) -> Self {
        Self { hour, since: Instant::now(), rows: 0, encoder }
    }
}

/// An object as it is put.
struct Sealed {
    hour: u64,
    path: Path,
    bytes: Bytes,
    facts: ObjectNote,
}

/// What is saved with the cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    writer: String,
    /// The number of the next object.
    next: u64,
    /// The hour of the last one, or of the first delivery.
    hour: u64,
}

/// So many hours before its last object a writer looks for others of its own: clocks go back, by less than a day.
const HOURS_BACK: u64 = 24;

fn hour_of(batch: &Batch) -> u64 {
    batch.source.received_at_ns / (3600 * NS_PER_SECOND)
}

impl WriterState {
    /// The object that rows of this hour go to, taken out until they are written; none where a checkpoint must come before.
    fn take(&mut self, hour: u64, encoder: impl FnOnce() -> Encoder) -> Option<Box<Open>> {
        match std::mem::replace(&mut self.stage, Stage::Torn) {
            Stage::Empty => Some(Box::new(Open::new(hour, encoder()))),
            Stage::Open(open) if open.hour == hour => Some(open),
            stage => {
                self.waiting = Some(hour);
                self.stage = stage;
                None
            }
        }
    }

    /// Notes that all before this place is in the store, or before the one where the lane has to go on instead, and the number of the next
    /// object.
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

    /// What the lane saves, and where it goes on if that is elsewhere.
    fn saving(&self, go_on: Option<Bytes>) -> Checkpoint {
        let saved = self.saved.as_ref().and_then(|saved| serde_json::to_vec(saved).ok());
        Checkpoint { state: saved.unwrap_or_default().into(), go_on }
    }
}

impl Lake {
    /// Asks nobody for anything.
    fn over(store: Store, options: &Options, parts: Parts) -> Self {
        // Whatever else it is belongs to a sink of another kind that had this name.
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

    fn encoder(&self) -> Encoder {
        Encoder::new(self.options.format, self.options.compression_level)
    }

    async fn write(&self, delivery: &Delivery) -> Report {
        let again = || Report::all(Verdict::Retry, Pace::Checkpoint);
        let Some(hour) = delivery.items().next().map(|(batch, _)| hour_of(batch)) else {
            return Report::delivered();
        };
        let fitting = delivery.items().take_while(|(batch, _)| hour_of(batch) == hour).count();
        let part = delivery.only(&(0..fitting).collect::<Vec<_>>());
        let is_careful = lock(&self.ledger).is_careful;
        if is_careful {
            let trial = Box::new(Open::new(hour, self.encoder()));
            if let Err(panic) =
                self.encode(trial, part.clone()).await.map_err(JoinError::try_into_panic)
                && let Ok(panic) = panic
            {
                resume_unwind(panic);
            }
        }
        let Some(open) = lock(&self.ledger).take(hour, || self.encoder()) else { return again() };
        let Ok(Ok(open)) = self.encode(open, part).await else {
            lock(&self.ledger).is_careful = true;
            return again();
        };
        let is_full = open.encoder.len() >= self.options.object.bytes_max.as_usize();
        // Nobody can give the delivery up between here and the lane's hearing of it.
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
            Stage::Empty => {
                let mut ledger = lock(&self.ledger);
                (ledger.stage, ledger.place) = (Stage::Empty, place);
                return Ok(ledger.saving(None));
            }
            Stage::Torn => {
                let mut ledger = lock(&self.ledger);
                ledger.stage = Stage::Empty;
                return Ok(ledger.saving(Some(ledger.place.clone())));
            }
            Stage::Open(open) => self.seal(open, place.clone()).await?,
            Stage::Sealed(sealed) => sealed,
        };
        lock(&self.ledger).stage = Stage::Sealed(Arc::clone(&sealed));
        self.put(&sealed, place).await
    }

    /// Finds out whether the store has objects that the cursor does not know of; draws a number for a writer that is new.
    async fn ask(&self, place: Bytes) -> Result<Checkpoint, Pace> {
        let saved = {
            let mut ledger = lock(&self.ledger);
            ledger.stage = Stage::Unasked;
            // Without a row to write there is nothing to know.
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
        let saved = saved.ok_or_else(|| down("the writer has no number".to_owned()))?;
        let format = self.options.format;
        let name = format!("{}{:010}.{}", self.stem(&saved.writer), saved.next, format.extension());
        let path = self.partition(open.hour).join(name);
        let sealing = spawn_blocking(move || {
            let Open { hour, rows, encoder, .. } = *open;
            let bytes = Bytes::from(encoder.finish()?);
            let sha256 = sha256::hex(&bytes);
            let (place, format) = (base64::text(&place), format.version());
            let facts = ObjectNote { place, sha256, rows, format };
            Ok::<_, io::Error>(Arc::new(Sealed { hour, path, bytes, facts }))
        });
        let sealed = sealing.await.map_err(io::Error::other).flatten();
        sealed.map_err(|problem| down(format!("the object could not be finished: {problem}")))
    }

    async fn put(&self, sealed: &Sealed, place: Bytes) -> Result<Checkpoint, Pace> {
        let found = if self.store.create(&sealed.path, &sealed.bytes, &sealed.facts).await? {
            None
        } else {
            let found = self.store.facts_of(&sealed.path).await?;
            // With this content it is the one whose answer was lost.
            Some(found).filter(|found| found.sha256 != sealed.facts.sha256)
        };
        let mut ledger = lock(&self.ledger);
        let next = ledger.saved.as_ref().map_or(0, |saved| saved.next) + 1;
        // A put of an earlier run has come late, and cut the journal elsewhere: its rows are there, and what follows them is read again.
        let go_on = found.map(|found| found.place());
        Ok(ledger.checkpoint(place, go_on, (next, sealed.hour)))
    }

    fn partition(&self, hour: u64) -> Path {
        let mut date = b"dt=".to_vec();
        write_date(&mut date, hour / 24);
        let date = String::from_utf8_lossy(&date);
        self.root.clone().join(date.as_ref()).join(format!("hour={:02}", hour % 24))
    }

    /// What the names of a writer's objects begin with.
    fn stem(&self, writer: &str) -> String {
        format!("{}-{writer}-", self.sink)
    }
}

fn down(reason: String) -> Pace {
    Pace::Down { after: None, reason }
}

impl Sink for Lake {
    fn trace_needs(&self) -> Option<TraceNeeds> {
        // The archive is what the client sent.
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
        // Without a row to write the store need not be asked, so the lane's next checkpoint works although the store does not.
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
