//! One file that lines are added to, of which everything beyond a settled length can be taken back.
#![expect(clippy::disallowed_types, reason = "this sink writes files")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{error, warn};

use super::path::{Period, number_of, numbered};
use super::state::SavedFile;

/// The disk as this sink uses it, so that tests can fill and break it.
pub(super) trait Disk: Send + Sync {
    /// Opens a file for reading and writing, and makes it where there is none.
    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
    }

    /// Writes all of these bytes at this place.
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    /// Returns when what was written is on stable storage.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// The real one.
pub(super) struct RealDisk;

impl Disk for RealDisk {}

/// A file that lines are added to.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    base: PathBuf,
    period: Period,
    number: u32,
    path: PathBuf,
    handle: Option<Handle>,
    /// How much of it is settled.
    length: u64,
    /// Whether there may be bytes beyond the settled length. They are cut before anything else happens.
    torn: bool,
    /// Whether something was written since the last sync.
    dirty: bool,
    pub(super) note: Note,
    /// When it was last asked for; counts deliveries.
    pub(super) used: u64,
}

/// What is known of a file in what is saved with the cursor. Nothing may be written before the file is there with its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// No checkpoint has it.
    Missing,
    /// A checkpoint was handed to the lane with it, which may have failed to save it.
    HandedOver,
    /// It was saved: the lane went on with a delivery although it was asked to save first.
    Saved,
}

struct Handle {
    file: File,
    /// Device and inode, by which a file that was replaced is told.
    identity: (u64, u64),
}

/// How a file differs from what we left there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Not at all.
    None,
    /// Its length: it goes on from there.
    Length,
    /// It is gone, or another file has its name.
    Gone,
}

impl Log {
    /// The file to go on with for a path, never one below `number_min`. It is made if need be, with its folders.
    pub(super) fn begin(
        disk: &Arc<dyn Disk>,
        base: &Path,
        period: Period,
        number_min: u32,
    ) -> io::Result<Self> {
        if let Some(folder) = base.parent() {
            fs::create_dir_all(folder)?;
        }
        let number = highest_number(base)?.unwrap_or(0).max(number_min);
        let mut log = Self {
            disk: Arc::clone(disk),
            path: numbered(base, number),
            base: base.to_owned(),
            period,
            number,
            handle: None,
            length: 0,
            torn: false,
            dirty: false,
            note: Note::Missing,
            used: 0,
        };
        log.length = log.open()?.metadata()?.len();
        Ok(log)
    }

    /// A file of the last checkpoint. What is beyond its length is cut when it is first used.
    pub(super) fn recall(disk: &Arc<dyn Disk>, saved: SavedFile) -> Self {
        let base = PathBuf::from(saved.base);
        Self {
            disk: Arc::clone(disk),
            path: numbered(&base, saved.number),
            base,
            period: Period(saved.period),
            number: saved.number,
            handle: None,
            length: saved.length,
            torn: true,
            dirty: false,
            note: Note::Saved,
            used: 0,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    pub(super) fn period(&self) -> Period {
        self.period
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn to_saved(&self) -> SavedFile {
        SavedFile {
            base: self.base.to_string_lossy().into_owned(),
            period: self.period.0,
            number: self.number,
            length: self.length,
        }
    }

    /// Whether it can be added to without harm although no checkpoint knows it: it ends with a whole line. Whether compressed
    /// content is whole cannot be told without reading all of it, so that is never added to.
    pub(super) fn ends_whole(&mut self) -> io::Result<bool> {
        let Some(last) = self.length.checked_sub(1) else { return Ok(true) };
        let packed = self.base.extension().is_some_and(|end| end == "gz" || end == "zst");
        let mut byte = [0];
        self.open()?.read_exact_at(&mut byte, last)?;
        Ok(!packed && byte == *b"\n")
    }

    /// Writes at a place that is not before the settled length, and returns the length to settle or to write behind. Until it is
    /// settled it can be taken back.
    pub(super) fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<u64> {
        self.torn = true;
        self.dirty = true;
        let disk = Arc::clone(&self.disk);
        disk.write(self.open()?, bytes, at)?;
        Ok(at + bytes.len() as u64)
    }

    /// What was written up to here counts.
    pub(super) fn settle(&mut self, length: u64) {
        self.length = length;
        self.torn = false;
    }

    /// Cuts what is not settled. A file that is shorter than what was settled is never made longer.
    pub(super) fn take_back(&mut self) -> io::Result<()> {
        if !self.torn {
            return Ok(());
        }
        let settled = self.length;
        if self.handle.is_none() && !fs::exists(&self.path)? {
            if settled != 0 {
                warn!(path = %self.path.display(), settled, "the file is gone");
            }
            self.settle(0);
            if settled != 0 {
                self.note = Note::Missing;
            }
            return Ok(());
        }
        let file = self.open()?;
        let length = file.metadata()?.len();
        if settled < length {
            file.set_len(settled)?;
        } else if length < settled {
            let missing = settled - length;
            error!(path = %self.path.display(), settled, length, missing, "the file lost bytes that were on stable storage; it is added to");
            self.length = length;
            self.note = Note::Missing;
        }
        self.torn = false;
        self.dirty = true;
        Ok(())
    }

    /// Brings what is settled to stable storage.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            let disk = Arc::clone(&self.disk);
            disk.sync(self.open()?)?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Looks whether somebody else changed the file, and goes on from the length it has now.
    pub(super) fn look(&mut self) -> io::Result<Change> {
        let seen = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Change::Gone),
            seen => seen?,
        };
        if self.handle.as_ref().is_some_and(|handle| handle.identity != (seen.dev(), seen.ino())) {
            return Ok(Change::Gone);
        }
        if self.torn || seen.len() == self.length {
            return Ok(Change::None);
        }
        warn!(path = %self.path.display(), settled = self.length, length = seen.len(), "somebody else changed the file; it is added to");
        self.length = seen.len();
        self.note = Note::Missing;
        Ok(Change::Length)
    }

    /// Closes the file; it is opened again when it is needed.
    pub(super) fn close(&mut self) {
        self.handle = None;
    }

    fn open(&mut self) -> io::Result<&File> {
        if self.handle.is_none() {
            self.handle = Some(open(self.disk.as_ref(), &self.path)?);
        }
        self.handle
            .as_ref()
            .map(|handle| &handle.file)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn open(disk: &dyn Disk, path: &Path) -> io::Result<Handle> {
    let file = disk.open(path)?;
    let seen = file.metadata()?;
    if !seen.is_file() {
        let what = "it is no regular file; to write to the standard output, use type = \"stdout\"";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let what = "another sink or process writes it";
            Err(io::Error::new(io::ErrorKind::ResourceBusy, what))
        }
        // Where the file system knows no locks, two writers are the operator's concern.
        Ok(()) | Err(TryLockError::Error(_)) => {
            Ok(Handle { identity: (seen.dev(), seen.ino()), file })
        }
    }
}

/// The highest number among the files of a path; `None` when there is none.
fn highest_number(base: &Path) -> io::Result<Option<u32>> {
    let mut highest = None;
    let folder = base.parent().filter(|folder| !folder.as_os_str().is_empty());
    for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
        let name = entry?.file_name();
        highest = highest.max(number_of(base, &name.to_string_lossy()));
    }
    Ok(highest)
}

/// Makes the names of new files durable: syncs the folder, and the folders above it, which may be new as well.
pub(super) fn sync_folders(path: &Path) -> io::Result<()> {
    for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            // Folders that may be passed through but not read were there before us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            synced => synced?,
        }
    }
    Ok(())
}
