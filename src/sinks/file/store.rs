//! The writing part: which files are open, what is in them for certain, and what is taken back.
//!
//! Exactly once rests on three rules. A file is written to only after a checkpoint was saved that names it and its length. A
//! delivery is written behind the settled lengths and settled when the lane hears that it arrived; what is not settled (an error,
//! a delivery given up, a crash) is cut before anything else happens. A checkpoint brings the files to stable storage and returns
//! their settled lengths, which the lane saves together with its cursor.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tracing::{error, warn};

use super::encode::{compress, encode};
use super::log::{Change, Disk, Log, Note, sync_folders};
use super::options::{Compression, Options};
use super::path::{Period, Template};
use super::state::State;
use crate::sinks::Delivery;
use crate::span::{Batch, Item};

/// Files of past hours that are kept open: items arrive almost in the order of time, so that one is enough, and a few do no harm.
const PAST_FILES_MAX: usize = 4;

/// Files that are open at the same time. A delivery that was long in the journal may hold items of many hours.
const OPEN_FILES_MAX: usize = 64;

/// Lines are written when there are this many bytes of them: few calls, and what is written is still in the processor's cache
/// when the kernel copies it.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// Memory that is kept from one delivery to the next for its lines. Only compressed deliveries and very long lines need more than
/// a piece; such a delivery has about half of this.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Where lines go, and how.
pub(super) struct Place {
    pub(super) options: Options,
    pub(super) template: Template,
    /// The sink's name.
    pub(super) sink: String,
}

/// Why a delivery did not arrive.
#[derive(Debug)]
pub(super) enum Failure {
    /// A file is new: it has to be in a saved checkpoint before it is written to.
    Checkpoint,
    /// It may work later.
    Retry(String),
    /// An operator has to mend something.
    Stop(String),
}

/// A file that a delivery was written to, by its path without number, and the length it has with it.
pub(super) type Grown = (PathBuf, u64);

/// The files of one sink.
pub(super) struct Store {
    place: Place,
    disk: Arc<dyn Disk>,
    /// The file that is added to, for each path without number.
    current: BTreeMap<PathBuf, Log>,
    /// Files that nothing is added to any more, to be cut to what is settled, synced and closed at the next checkpoint.
    past: Vec<Log>,
    /// Counts deliveries.
    turn: u64,
    /// Whether the lane was told to save a checkpoint before it goes on. When it goes on, it has.
    awaits_checkpoint: bool,
    /// Why nothing more is written: after a failed sync nobody knows what is on stable storage.
    poisoned: Option<String>,
    lines: Vec<u8>,
}

type Items<'a> = Vec<(&'a Batch, &'a Item)>;

impl Store {
    /// Goes on from the last checkpoint. It looks at no file: what was written after that checkpoint is cut before anything else is done.
    pub(super) fn recall(place: Place, disk: Arc<dyn Disk>, state: &[u8]) -> Self {
        let mut store = Self {
            place,
            disk,
            current: BTreeMap::new(),
            past: Vec::new(),
            turn: 0,
            awaits_checkpoint: false,
            poisoned: None,
            lines: Vec::new(),
        };
        let state = State::read(state).unwrap_or_else(|problem| {
            error!(sink = store.place.sink, problem, "what the file sink had saved cannot be read; after a crash some spans may be in the file twice");
            State::default()
        });
        for saved in state.files {
            let log = Log::recall(&store.disk, saved);
            if store.base(log.period()) == log.base() {
                store.current.insert(log.base().to_owned(), log);
            } else {
                // The options say something else now. What is in this file too early comes again in another one.
                store.past.push(log);
            }
        }
        store
    }

    /// Finds or makes the files that a delivery goes to. Fails when one of them is not saved with the cursor yet.
    fn prepare(&mut self, delivery: &Delivery) -> Result<(), Failure> {
        self.turn += 1;
        if std::mem::take(&mut self.awaits_checkpoint) {
            let logs = self.current.values_mut();
            let handed_over = logs.filter(|log| log.note == Note::HandedOver);
            handed_over.for_each(|log| log.note = Note::Saved);
        }
        let mut is_new = false;
        for period in self.periods(delivery) {
            let base = self.base(period);
            let log = self.current_log(period).map_err(|error| failure(&base, &error))?;
            is_new |= log.note != Note::Saved;
        }
        self.awaits_checkpoint = is_new;
        if is_new { Err(Failure::Checkpoint) } else { Ok(()) }
    }

    /// Writes a delivery. It does not count before [`Store::settle`].
    pub(super) fn write(&mut self, delivery: &Delivery) -> Result<Vec<Grown>, Failure> {
        if let Some(reason) = &self.poisoned {
            return Err(Failure::Stop(reason.clone()));
        }
        self.take_back()?;
        self.prepare(delivery)?;
        let mut grown = Vec::new();
        for (period, items) in self.group(delivery) {
            match self.write_items(period, delivery, &items) {
                Ok(more) => grown.extend(more),
                Err(failure) => {
                    // All or nothing: the whole delivery will come again. If this fails too, it is tried again then.
                    self.take_back().ok();
                    return Err(failure);
                }
            }
        }
        self.lines.clear();
        self.lines.shrink_to(KEPT_BYTES_MAX);
        Ok(grown)
    }

    /// The lane has heard that the delivery arrived.
    pub(super) fn settle(&mut self, grown: Vec<Grown>) {
        for (base, length) in grown {
            if let Some(log) = self.current.get_mut(&base) {
                log.settle(length);
            }
        }
    }

    /// Brings everything settled to stable storage and returns the state to save with the cursor.
    pub(super) fn checkpoint(&mut self) -> Result<Bytes, Failure> {
        if let Some(reason) = &self.poisoned {
            return Err(Failure::Stop(reason.clone()));
        }
        self.take_back()?;
        for log in self.current.values_mut().chain(&mut self.past) {
            let synced = log.sync();
            let named = match log.note {
                Note::Missing => sync_folders(log.path()),
                Note::HandedOver | Note::Saved => Ok(()),
            };
            if let Err(error) = synced.and(named) {
                let path = log.path().display();
                let reason = format!(
                    "{path} could not be synced: {error}; restart to go on from the last checkpoint"
                );
                error!(sink = self.place.sink, reason, "nothing more is written");
                self.poisoned = Some(reason.clone());
                return Err(Failure::Stop(reason));
            }
        }
        self.past.clear();
        self.forget_old();
        for log in self.current.values_mut() {
            if log.note == Note::Missing {
                log.note = Note::HandedOver;
            }
        }
        Ok(State::new(self.current.values().map(Log::to_saved).collect()).to_bytes())
    }

    fn base(&self, period: Period) -> PathBuf {
        self.place.template.render(period, &self.place.sink)
    }

    fn periods(&self, delivery: &Delivery) -> BTreeSet<Period> {
        let received = delivery.items().map(|(batch, _)| batch.source.received_at_ns);
        received.map(|at_ns| self.place.template.period(at_ns)).collect()
    }

    /// The items by the file they go to, in order.
    fn group<'a>(&self, delivery: &'a Delivery) -> BTreeMap<Period, Items<'a>> {
        let mut groups: BTreeMap<Period, Items<'a>> = BTreeMap::new();
        for (batch, item) in delivery.items() {
            let period = self.place.template.period(batch.source.received_at_ns);
            groups.entry(period).or_default().push((batch, item));
        }
        groups
    }

    fn write_items<'a>(
        &mut self,
        period: Period,
        delivery: &'a Delivery,
        items: &Items<'a>,
    ) -> Result<Option<Grown>, Failure> {
        let base = self.base(period);
        let is_crowded = OPEN_FILES_MAX < self.current.len();
        let log = self.current.get_mut(&base).ok_or(Failure::Checkpoint)?;
        let Place { options, .. } = &self.place;
        let lines = &mut self.lines;
        lines.clear();
        let settled = log.length();
        let mut length = settled;
        let is_plain = options.compression == Compression::None;
        let written = encode(options.format, delivery, items, lines, |lines| {
            if is_plain && PIECE_BYTES <= lines.len() {
                length = log.write(lines, length)?;
                lines.clear();
            }
            Ok(())
        });
        let written = written.and_then(|()| {
            if lines.is_empty() {
                return Ok(length);
            }
            let packed = if is_plain { None } else { Some(compress(options, lines)?) };
            log.write(packed.as_ref().unwrap_or(lines), length)
        });
        let length = written.map_err(|error| failure(log.path(), &error))?;
        if length == settled {
            return Ok(None);
        }
        if is_crowded {
            log.sync().map_err(|error| failure(log.path(), &error))?;
            log.close();
        }
        Ok(Some((base, length)))
    }

    /// The file that items of this period are added to. It is made, or the next one begun, where that is due.
    fn current_log(&mut self, period: Period) -> io::Result<&mut Log> {
        let base = self.base(period);
        let rotate_bytes = self.place.options.rotate_bytes.map_or(u64::MAX, |bytes| bytes.0);
        let number_min = match self.current.get_mut(&base) {
            None => Some(0),
            Some(log) => {
                log.take_back()?;
                match log.look()? {
                    Change::Gone => {
                        warn!(path = %log.path().display(), "the file was moved or deleted; a new one is begun");
                        Some(0)
                    }
                    Change::None | Change::Length if rotate_bytes <= log.length() => {
                        Some(log.number().saturating_add(1))
                    }
                    Change::None | Change::Length => None,
                }
            }
        };
        if let Some(number_min) = number_min {
            let mut log = Log::begin(&self.disk, &base, period, number_min)?;
            while rotate_bytes <= log.length() || !log.ends_whole()? {
                log = Log::begin(&self.disk, &base, period, log.number().saturating_add(1))?;
            }
            if OPEN_FILES_MAX < self.current.len() {
                log.close();
            }
            self.past.extend(self.current.insert(base.clone(), log));
        }
        let log = self.current.get_mut(&base).ok_or(io::ErrorKind::NotFound)?;
        log.used = self.turn;
        Ok(log)
    }

    /// Cuts whatever is not settled.
    fn take_back(&mut self) -> Result<(), Failure> {
        for log in self.current.values_mut().chain(&mut self.past) {
            log.take_back().map_err(|error| failure(log.path(), &error))?;
        }
        Ok(())
    }

    /// Forgets files that the last delivery did not go to, all but a few.
    fn forget_old(&mut self) {
        while PAST_FILES_MAX < self.current.len() {
            let Some((oldest, used)) = self
                .current
                .iter()
                .map(|(base, log)| (base, log.used))
                .min_by_key(|(_, used)| *used)
            else {
                return;
            };
            if used == self.turn {
                return;
            }
            let oldest = oldest.clone();
            self.current.remove(&oldest);
        }
    }
}

/// Which errors an operator has to mend, and which may pass.
fn failure(path: &Path, error: &io::Error) -> Failure {
    let reason = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied
        // A file stands where a folder should be made.
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::ResourceBusy => Failure::Stop(reason),
        _ => Failure::Retry(reason),
    }
}
