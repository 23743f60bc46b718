//! `type = "file"`: writes one line for each item, exactly once.
//!
//! ```toml
//! [sinks.archive]
//! type = "file"
//! path = "traces/{date}.jsonl"
//! ```
//!
//! **Formats.** `jsonl` (the default) is one span or trace object per line in flat columns, described in [`jsonl`](super::jsonl).
//! `otlp-json` is one `{"resourceSpans":[...]}` per line, with as many spans as fit into the line length that the OpenTelemetry Collector's
//! `otlpjsonfile` receiver reads. The Agents SDK's trace objects have no counterpart in OTLP and are omitted. `openai` is one item of the
//! Agents SDK per line, as received. An OTLP span becomes a `custom` span with its attributes as `data` and its ids as `trace_` and `span_`
//! strings.
//!
//! **Files.** `{date}` and `{hour}` are the time at which the daemon received the item, in UTC, so an item goes to the same file however
//! late it is delivered. Directories are created as needed. With `rotate_bytes`, a file that has reached this size is complete, and the
//! next one is started: `traces.jsonl`, `traces.1.jsonl`, `traces.2.jsonl`; nothing is renamed or deleted. A delivery is never split, so a
//! file may exceed the size by one delivery. A compressed file consists of complete gzip members or zstd frames, one for each delivery;
//! `zcat` and `zstdcat` read it. A file that is moved or deleted is replaced by a new one.
//!
//! **Durability.** Lines are readable as soon as they are delivered. About once a second they are synced, and the cursor is saved with the
//! files' lengths. After a crash, each file is cut to its saved length and everything after it is delivered again, so every span is in the
//! file exactly once. A file that lost bytes meanwhile is not padded: the loss is logged as an error, and the sink continues after the
//! remaining bytes. Two sinks or processes cannot write the same file: the second one waits.
//!
//! **Failures.** A full disk or a failed write is retried, after the partial delivery was cut. A path without write permission makes the
//! lane hold. After a failed sync, nothing more is written, because the contents of the disk are unknown; a restart continues from the last
//! checkpoint. Nothing is rejected, because every item can be a line.

mod direct;
mod encode;
mod log;
mod options;
mod path;
mod probe;
mod store;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{
    BuildError, Delivery, Kind, Pace, Parts, Pending, Plan, Report, Sink, Verdict, read_options,
};
use crate::span::TraceNeeds;
use crate::support::lock::lock;
pub use options::{Compression, Format, Options};
use path::Template;
use store::{Place, Store};

/// The kind `file`.
pub static KIND: Kind = Kind {
    name: "file",
    summary: "JSON lines on disk, exactly once, for pandas, DuckDB and SQLite; also OTLP/JSON and the Agents SDK's own format",
    example: "path = \"traces/{date}.jsonl\"\n",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| Ok(Box::new(read_options(table, Options::check)?)),
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

/// Writes files. Only threads that may block access the disk.
pub struct FileSink {
    format: Format,
    store: Arc<Mutex<Store>>,
    /// Whether the lane learned that the last delivery arrived, but the store has not settled it yet.
    has_arrived: Arc<AtomicBool>,
}

impl FileSink {
    /// Opens no file. Bytes beyond the saved lengths are cut before anything is written.
    pub fn new(options: &Options, parts: Parts) -> Result<Self, BuildError> {
        let place = Place { prices: parts.prices, ..place(options, parts.name)? };
        let disk = Arc::new(log::RealDisk::default());
        Ok(Self::over(options.format, Store::recall(place, disk, &parts.state)))
    }

    fn over(format: Format, store: Store) -> Self {
        Self { format, store: Arc::new(Mutex::new(store)), has_arrived: Arc::default() }
    }

    /// Runs work on the files on a thread that may block. Work that was abandoned before it started is skipped, because other work may have
    /// replaced it.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, Pace> + Send + 'static,
    ) -> Result<T, Pace> {
        let (store, has_arrived) = (Arc::clone(&self.store), Arc::clone(&self.has_arrived));
        let waiter = Arc::new(());
        let is_wanted = Arc::downgrade(&waiter);
        let done = tokio::task::spawn_blocking(move || {
            // A panic under the lock left at most a torn file, which is cut before the next write.
            let mut store = lock(&store);
            if is_wanted.strong_count() == 0 {
                return Err(Pace::down("it was abandoned"));
            }
            if has_arrived.swap(false, Ordering::SeqCst) {
                store.settle();
            }
            work(&mut store)
        });
        let done = done.await;
        drop(waiter);
        done.unwrap_or_else(|error| Err(Pace::down(format!("the write did not finish: {error}"))))
    }

    async fn write(&self, delivery: &Delivery) -> Report {
        let delivery = delivery.clone();
        match self.work(move |store| store.write(&delivery)).await {
            Ok(()) => {
                // The delivery cannot be abandoned between here and the lane's receipt of the report.
                self.has_arrived.store(true, Ordering::SeqCst);
                Report::delivered()
            }
            Err(pace) => Report::all(Verdict::Retry, pace),
        }
    }
}

fn place(options: &Options, sink: String) -> Result<Place, BuildError> {
    let failed = |problem: String| BuildError(format!("{}: {problem}", options.path));
    // Otherwise a restart in another working directory would look for the files elsewhere.
    let path =
        std::path::absolute(options.full_path()).map_err(|error| failed(error.to_string()))?;
    let path =
        path.to_str().ok_or_else(|| failed("the working directory is not UTF-8".to_owned()))?;
    let template = Template::parse(path).map_err(|bad| failed(bad.what.to_owned()))?;
    Ok(Place { options: options.clone(), template, sink, prices: Arc::default() })
}

impl Sink for FileSink {
    fn trace_needs(&self) -> Option<TraceNeeds> {
        // The other formats contain only what the client sent.
        (self.format == Format::Jsonl).then_some(TraceNeeds::AS_KNOWN)
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(self.write(delivery))
    }

    fn checkpoint(&self) -> Pending<'_, Result<Bytes, Pace>> {
        Box::pin(self.work(Store::checkpoint))
    }
}
