//! `type = "file"`: one line for each item, in files that hold everything exactly once.
//!
//! ```toml
//! [sinks.archive]
//! type = "file"
//! path = "traces/{date}.jsonl"
//! ```
//!
//! **Formats.** `jsonl` (the default) is one span or trace object a line in flat columns, described in [`jsonl`](super::jsonl).
//! `otlp-json` is one `{"resourceSpans":[...]}` a line, with as many spans as stay below the line length that the OpenTelemetry
//! Collector's `otlpjsonfile` receiver reads; the Agents SDK's trace objects have no counterpart in OTLP and are left out.
//! `openai` is one item of the Agents SDK a line, as it came; a span that came as OTLP becomes a `custom` span with its
//! attributes as `data` and its ids as `trace_` and `span_` strings.
//!
//! **Files.** `{date}` and `{hour}` come from when the daemon received the item, in UTC, so that an item goes to the same file
//! however late it is delivered. Folders are made as needed. With `rotate_bytes`, a file that has reached this size is left
//! alone and the next one is begun: `traces.jsonl`, `traces.1.jsonl`, `traces.2.jsonl`; nothing is renamed or deleted. A delivery
//! is never cut in two, so a file may exceed the size by one. A compressed file is a chain of whole gzip members or zstd
//! frames, one for each delivery; `zcat` and `zstdcat` read it. A file that is moved or deleted is begun anew.
//!
//! **What is durable when.** Lines can be read as soon as they were delivered. They are synced, and the cursor saved with the
//! files' lengths, about once a second. After a crash each file is cut to its saved length and what followed is delivered again:
//! every span is in the file exactly once. A file that lost bytes meanwhile is not filled up; that is logged as an error and
//! the sink goes on behind what is left. Two sinks or processes cannot write the same file: the second one waits.
//!
//! **Trouble.** A full disk or a failed write is tried again, and whatever was written of the delivery is cut. A path that may not
//! be written makes the lane hold. After a failed sync nothing more is written, since nobody knows what is on the disk; a restart
//! goes on from the last checkpoint. Nothing is rejected: every item can be a line.

mod encode;
mod log;
mod options;
mod path;
mod probe;
mod state;
mod store;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::task::JoinError;

use super::{BuildError, Delivery, Kind, Outcome, Parts, Pending, Plan, Sink, read_options};
use crate::span::TraceNeeds;
pub use options::{Compression, Format, Options};
use path::Template;
use store::{Failure, Place, Store};

/// Files of JSON.
pub static KIND: Kind = Kind {
    name: "file",
    summary: "JSON lines on disk, exactly once, for pandas, DuckDB and SQLite; also OTLP/JSON and the Agents SDK's own format",
    example: "path = \"traces/{date}.jsonl\"\n",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| {
        let options = read_options(table, Options::check)?;
        Ok(Box::new(options))
    },
};

impl Plan for Options {
    fn build(&self, parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(FileSink::new(self, parts)?))
    }

    fn probe(&self) -> Option<Pending<'_, Result<String, String>>> {
        Some(Box::pin(async {
            let path = std::path::absolute(self.full_path()).map_err(|error| error.to_string())?;
            probe::probe(&path)
        }))
    }
}

/// Writes files.
pub struct FileSink {
    format: Format,
    store: Arc<Mutex<Store>>,
    /// The delivery that may write. One that was given up may still be running somewhere; it must not write any more.
    turn: Arc<AtomicU64>,
}

impl FileSink {
    /// Opens nothing that is not in the saved state; what lies beyond the lengths saved there is cut.
    pub fn new(options: &Options, parts: Parts) -> Result<Self, BuildError> {
        let place = place(options, parts.name)?;
        Ok(Self::over(options.format, Store::open(place, Box::new(log::RealDisk), &parts.state)))
    }

    fn over(format: Format, store: Store) -> Self {
        Self { format, store: Arc::new(Mutex::new(store)), turn: Arc::default() }
    }
}

fn place(options: &Options, sink: String) -> Result<Place, BuildError> {
    let failed = |problem: String| BuildError(format!("{}: {problem}", options.path));
    // A restart in another working directory would otherwise look for the files elsewhere.
    let path = std::path::absolute(PathBuf::from(options.full_path()))
        .map_err(|error| failed(error.to_string()))?;
    let path =
        path.to_str().ok_or_else(|| failed("the working directory is not UTF-8".to_owned()))?;
    let template = Template::parse(path).map_err(|bad| failed(bad.what.to_owned()))?;
    Ok(Place { options: options.clone(), template, sink })
}

impl Sink for FileSink {
    fn trace_needs(&self) -> Option<TraceNeeds> {
        // The other formats are what the client sent.
        (self.format == Format::Jsonl).then_some(TraceNeeds::AS_KNOWN)
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Outcome> {
        Box::pin(async {
            let turn = self.turn.fetch_add(1, Ordering::SeqCst) + 1;
            let (store, turns) = (Arc::clone(&self.store), Arc::clone(&self.turn));
            let delivery = delivery.clone();
            let write = move || {
                let mut store = lock(&store);
                if turns.load(Ordering::SeqCst) != turn {
                    return Err(Failure::Retry("the delivery was given up".to_owned()));
                }
                store.write(&delivery)
            };
            let written = tokio::task::spawn_blocking(write).await;
            match written.map_err(|error| Failure::Retry(ended(&error))).flatten() {
                Ok(grown) => {
                    // Nobody can give the delivery up between here and the lane's hearing of it.
                    lock(&self.store).settle(grown);
                    Outcome::Delivered
                }
                Err(Failure::Retry(reason)) => Outcome::Retry { after: None, reason },
                Err(Failure::Stop(reason)) => Outcome::Stop { reason },
            }
        })
    }

    fn needs_checkpoint(&self, delivery: &Delivery) -> bool {
        lock(&self.store).prepare(delivery)
    }

    fn checkpoint(&self) -> Pending<'_, Result<Bytes, String>> {
        let store = Arc::clone(&self.store);
        Box::pin(async move {
            let checkpoint = move || lock(&store).checkpoint();
            tokio::task::spawn_blocking(checkpoint).await.map_err(|error| ended(&error)).flatten()
        })
    }
}

/// A panic while the lock was held left at most a torn file, which is cut before the next write.
fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended(error: &JoinError) -> String {
    format!("the write did not end: {error}")
}
