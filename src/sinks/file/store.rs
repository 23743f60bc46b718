//! Manages the files of one sink: which are open, what they certainly contain, and what is rolled back.
//!
//! Exactly-once delivery rests on three rules. A file is written only after a checkpoint with its name and length was saved. A delivery is
//! written after the settled lengths, and settled when the lane learns that it arrived; anything unsettled (after an error, an abandoned
//! delivery, a crash) is cut before any other operation. A checkpoint syncs the files to stable storage and returns their settled lengths,
//! which the lane saves together with its cursor.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::encode::{compress, encode};
use super::log::{Disk, Log, Note, SavedFile};
use super::options::{Compression, Options};
use super::path::{Period, Template};
use crate::prices::Prices;
use crate::sinks::{Delivery, Pace};
use crate::span::{Batch, Item};

/// Files of past hours that stay open. Items arrive almost in the order of time, so one would suffice, and a few do no harm.
const PAST_FILES_MAX: usize = 4;

/// The number of open files. A delivery that waited long in the journal may have items of many hours.
const OPEN_FILES_MAX: usize = 64;

/// The size in bytes at which lines are written: large enough for few calls, and small enough that they are still in the processor's cache
/// when they are copied.
pub(super) const PIECE_BYTES: usize = 512 << 10;

/// The most memory, in bytes, that is kept between deliveries for their lines. Only compressed deliveries and very long lines need more
/// than [`PIECE_BYTES`]; such a delivery has about half of this.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Where and how lines are written.
pub(super) struct Place {
    pub(super) options: Options,
    pub(super) template: Template,
    /// The sink's name.
    pub(super) sink: String,
    pub(super) prices: Arc<Prices>,
}

/// The files of one sink.
pub(super) struct Store {
    place: Place,
    disk: Arc<dyn Disk>,
    /// The current file of each hour or day.
    current: BTreeMap<Period, Log>,
    /// Files that are complete. The next checkpoint cuts them to their settled length, syncs and closes them.
    past: Vec<Log>,
    /// Counts deliveries.
    turn: u64,
    /// Whether the lane was asked to save a checkpoint before it continues. If it continues, it has saved one.
    awaits_checkpoint: bool,
    /// Why nothing more is written. After a failed sync, the contents of stable storage are unknown.
    poisoned: Option<String>,
    lines: Vec<u8>,
}

type Items<'a> = Vec<(&'a Batch, &'a Item)>;

impl Store {
    /// Continues from the last checkpoint without accessing files. Anything written after it is cut before any other operation.
    pub(super) fn recall(place: Place, disk: Arc<dyn Disk>, state: &[u8]) -> Self {
        let files = read_state(state).unwrap_or_else(|problem| {
            error!(sink = place.sink, problem, "the file sink's checkpoint cannot be read; after a crash some spans may be in the file twice");
            Vec::new()
        });
        let logs = files.into_iter().map(|saved| Log::new(&disk, saved, Note::Saved));
        // Files of another path come from earlier options. Anything in them after the checkpoint is delivered again, to the new path.
        let (current, past): (Vec<_>, Vec<_>) =
            logs.partition(|log| place.template.render(log.at.period, &place.sink) == log.at.base);
        let current = current.into_iter().map(|log| (log.at.period, log)).collect();
        let (turn, awaits_checkpoint, poisoned, lines) = (0, false, None, Vec::new());
        Self { place, disk, current, past, turn, awaits_checkpoint, poisoned, lines }
    }

    /// Writes a delivery. It stays unsettled until [`Store::settle`].
    pub(super) fn write(&mut self, delivery: &Delivery) -> Result<(), Pace> {
        self.take_back()?;
        let mut groups: BTreeMap<Period, Items<'_>> = BTreeMap::new();
        for (batch, item) in delivery.items() {
            let period = self.place.template.period(batch.source.received_at_ns);
            groups.entry(period).or_default().push((batch, item));
        }
        self.prepare(groups.keys())?;
        for (period, items) in groups {
            if let Err(pace) = self.write_items(period, delivery, &items) {
                // All or nothing: the complete delivery is retried. If the rollback fails as well, the retry repeats it.
                self.take_back().ok();
                return Err(pace);
            }
        }
        self.lines.clear();
        self.lines.shrink_to(KEPT_BYTES_MAX);
        Ok(())
    }

    /// Settles the last delivery, because the lane learned that it arrived.
    pub(super) fn settle(&mut self) {
        self.current.values_mut().for_each(Log::settle);
    }

    /// Syncs everything settled to stable storage and returns the state to save with the cursor.
    pub(super) fn checkpoint(&mut self) -> Result<Bytes, Pace> {
        self.take_back()?;
        let synced = self.current.values().chain(&self.past);
        let failed = synced.map(|log| log.sync().map_err(|error| (log.path.clone(), error)));
        failed.collect::<Result<(), _>>().map_err(|(path, error)| self.poison(&path, &error))?;
        self.past.clear();
        while PAST_FILES_MAX < self.current.len() {
            let old = self.current.values().filter(|log| log.used != self.turn);
            let Some(oldest) = old.min_by_key(|log| log.used) else { break };
            let oldest = oldest.at.period;
            self.current.remove(&oldest);
        }
        for log in self.current.values_mut().filter(|log| log.note == Note::Missing) {
            log.note = Note::HandedOver;
        }
        Ok(state_of(self.current.values().map(|log| log.at.clone()).collect()))
    }

    /// Cuts everything unsettled.
    fn take_back(&mut self) -> Result<(), Pace> {
        if let Some(reason) = &self.poisoned {
            return Err(Pace::hold(reason));
        }
        for log in self.current.values_mut().chain(&mut self.past) {
            log.take_back().map_err(|error| pace_of(&log.path, &error))?;
        }
        Ok(())
    }

    fn poison(&mut self, path: &Path, error: &io::Error) -> Pace {
        let path = path.display();
        let reason = format!(
            "{path} could not be synced: {error}; restart to go on from the last checkpoint"
        );
        error!(sink = self.place.sink, reason, "nothing more is written");
        self.poisoned = Some(reason.clone());
        Pace::Hold { reason }
    }

    /// Finds or creates the files of a delivery. Fails if the saved state does not contain all of them yet.
    fn prepare<'a>(&mut self, periods: impl Iterator<Item = &'a Period>) -> Result<(), Pace> {
        self.turn += 1;
        if std::mem::take(&mut self.awaits_checkpoint) {
            let logs = self.current.values_mut();
            let handed_over = logs.filter(|log| log.note == Note::HandedOver);
            handed_over.for_each(|log| log.note = Note::Saved);
        }
        for &period in periods {
            let base = self.place.template.render(period, &self.place.sink);
            let log = self.current_log(period, &base).map_err(|error| pace_of(&base, &error))?;
            self.awaits_checkpoint |= log.note != Note::Saved;
        }
        if self.awaits_checkpoint { Err(Pace::Checkpoint) } else { Ok(()) }
    }

    /// Returns the current file of this period. Creates it, or the next one if it has reached its size.
    fn current_log(&mut self, period: Period, base: &Path) -> io::Result<&Log> {
        let rotate_bytes = self.place.options.rotate_bytes.map_or(u64::MAX, |bytes| bytes.0);
        let number_min = match self.current.get_mut(&period) {
            None => Some(0),
            Some(log) => {
                if log.is_gone()? {
                    warn!(path = %log.path.display(), "the file was moved or deleted; a new one is started");
                    Some(0)
                } else {
                    let is_over = rotate_bytes <= log.at.length || log.is_spoilt;
                    is_over.then(|| log.at.number.saturating_add(1))
                }
            }
        };
        if let Some(number_min) = number_min {
            let begin = |number_min| Log::begin(&self.disk, base.to_owned(), period, number_min);
            let mut log = begin(number_min)?;
            while rotate_bytes <= log.at.length || !log.ends_whole()? {
                log = begin(log.at.number.saturating_add(1))?;
            }
            if OPEN_FILES_MAX < self.current.len() {
                log.close();
            }
            self.past.extend(self.current.insert(period, log));
        }
        let log = self.current.get_mut(&period).ok_or(io::ErrorKind::NotFound)?;
        log.used = self.turn;
        Ok(log)
    }

    fn write_items<'a>(
        &mut self,
        period: Period,
        delivery: &'a Delivery,
        items: &Items<'a>,
    ) -> Result<(), Pace> {
        let is_crowded = OPEN_FILES_MAX < self.current.len();
        let log = self.current.get_mut(&period).ok_or(Pace::Checkpoint)?;
        let (options, lines) = (&self.place.options, &mut self.lines);
        lines.clear();
        let is_plain = options.compression == Compression::None;
        let format = (options.format, &*self.place.prices);
        let written = encode(format, delivery, items, lines, |lines| {
            if is_plain && PIECE_BYTES <= lines.len() {
                log.write(lines)?;
                lines.clear();
            }
            Ok(())
        });
        let written = written.and_then(|()| match (lines.is_empty(), is_plain) {
            (true, _) => Ok(()),
            (false, true) => log.write(lines),
            (false, false) => log.write(&compress(options, lines)?),
        });
        written.map_err(|error| pace_of(&log.path, &error))?;
        if is_crowded {
            if let Err(error) = log.sync() {
                let path = log.path.clone();
                return Err(self.poison(&path, &error));
            }
            log.close();
        }
        Ok(())
    }
}

/// The state saved together with the lane's cursor, which verifies its integrity.
#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    /// The files that may be written next.
    files: Vec<SavedFile>,
}

const VERSION: u32 = 1;

/// Decodes a state. No bytes mean no files. An error is a sentence without its full stop.
fn read_state(bytes: &[u8]) -> Result<Vec<SavedFile>, String> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let state: State = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match state.version {
        VERSION => Ok(state.files),
        other => Err(format!("version {other} is not known")),
    }
}

/// Encodes the state with these files, whose paths are UTF-8.
pub(super) fn state_of(files: Vec<SavedFile>) -> Bytes {
    Bytes::from(serde_json::to_vec(&State { version: VERSION, files }).unwrap_or_default())
}

/// Distinguishes errors that an operator must fix from those that may pass.
fn pace_of(path: &Path, error: &io::Error) -> Pace {
    let reason = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied
        // A file exists where a folder should be created.
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::ResourceBusy => Pace::Hold { reason },
        _ => Pace::Down { after: None, reason },
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_state_reads_back_and_a_later_version_is_refused() {
        let base = PathBuf::from("/var/traces \"x\".jsonl");
        let files = vec![SavedFile { base, period: Period(3), number: 1, length: u64::MAX }];
        assert_eq!(read_state(&state_of(files.clone())), Ok(files));
        assert_eq!(read_state(b""), Ok(Vec::new()));
        let known = br#"{"version":1,"files":[{"base":"/a","period":0,"number":0,"length":7}]}"#;
        assert_eq!(read_state(known).unwrap()[0].length, 7, "as every version so far wrote it");
        assert!(read_state(br#"{"version":2,"files":[]}"#).is_err());
        assert!(read_state(&[7; 8]).is_err());
    }
}
