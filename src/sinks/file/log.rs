//! One file that lines are added to, of which everything beyond a settled length can be taken back.
#![expect(clippy::disallowed_types, reason = "this sink writes files")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::direct;
use super::path::{Period, number_of, numbered};
use crate::support::pool::Pool;

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

    /// Returns when the names in a folder are on stable storage.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// The real one.
#[derive(Default)]
pub(super) struct RealDisk {
    /// Aligned memory for what is written past the page cache.
    pool: Pool,
}

impl Disk for RealDisk {
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        direct::write(file, bytes, at, &self.pool)
    }
}

/// A file as a checkpoint has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedFile {
    /// Its path without its number.
    pub(super) base: PathBuf,
    /// The hour or day it is for.
    pub(super) period: Period,
    /// Its number.
    pub(super) number: u32,
    /// How much of it is settled. What lies beyond was written later and is delivered again.
    pub(super) length: u64,
}

/// A file that lines are added to.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    pub(super) at: SavedFile,
    pub(super) path: PathBuf,
    /// None of a file with nothing to sync.
    handle: Option<Handle>,
    /// How long it will be once what was written last is settled.
    written: u64,
    /// Whether there may be bytes beyond the settled length. They are cut before anything else happens.
    torn: bool,
    /// Whether somebody else changed it, and not so that it ends with a whole line.
    pub(super) is_spoilt: bool,
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

impl Log {
    fn new(disk: &Arc<dyn Disk>, at: SavedFile, note: Note) -> Self {
        let (disk, path, written) = (Arc::clone(disk), numbered(&at.base, at.number), at.length);
        let (torn, is_spoilt) = (note == Note::Saved, false);
        Self { disk, at, path, handle: None, written, torn, is_spoilt, note, used: 0 }
    }

    /// A file of the last checkpoint. What is beyond its length is cut when it is first used.
    pub(super) fn recall(disk: &Arc<dyn Disk>, saved: SavedFile) -> Self {
        Self::new(disk, saved, Note::Saved)
    }

    /// The file to go on with for a path, never one below `number_min`. It is made if need be, with its folders.
    pub(super) fn begin(
        disk: &Arc<dyn Disk>,
        base: PathBuf,
        period: Period,
        number_min: u32,
    ) -> io::Result<Self> {
        if let Some(folder) = base.parent() {
            fs::create_dir_all(folder)?;
        }
        let number = highest_number(&base)?.unwrap_or(0).max(number_min);
        let mut log = Self::new(disk, SavedFile { base, period, number, length: 0 }, Note::Missing);
        let length = log.open()?.metadata()?.len();
        (log.at.length, log.written) = (length, length);
        Ok(log)
    }

    /// Whether it can be added to without harm although no checkpoint knows it: it ends with a whole line. Whether compressed
    /// content is whole cannot be told without reading all of it, so that is never added to.
    pub(super) fn ends_whole(&mut self) -> io::Result<bool> {
        let Some(last) = self.at.length.checked_sub(1) else { return Ok(true) };
        let packed = self.at.base.extension().is_some_and(|end| end == "gz" || end == "zst");
        let mut byte = [0];
        self.open()?.read_exact_at(&mut byte, last)?;
        Ok(!packed && byte == *b"\n")
    }

    /// Writes behind what was written before. Until it is settled it can be taken back.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.torn = true;
        let (disk, at) = (Arc::clone(&self.disk), self.written);
        disk.write(self.open()?, bytes, at)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// What was written counts.
    pub(super) fn settle(&mut self) {
        // What is known only from a checkpoint may still be followed by what came behind that.
        if self.written != self.at.length {
            self.at.length = self.written;
            self.torn = false;
        }
    }

    /// Cuts what is not settled. A file that is shorter than what was settled is never made longer.
    pub(super) fn take_back(&mut self) -> io::Result<()> {
        if self.torn {
            let settled = self.at.length;
            if self.handle.is_none() && !fs::exists(&self.path)? {
                if settled != 0 {
                    warn!(path = %self.path.display(), settled, "the file is gone");
                    (self.at.length, self.note) = (0, Note::Missing);
                }
            } else {
                let file = self.open()?;
                let length = file.metadata()?.len();
                if settled < length {
                    file.set_len(settled)?;
                } else if length < settled {
                    let missing = settled - length;
                    error!(path = %self.path.display(), settled, length, missing, "the file lost bytes that were on stable storage");
                    self.goes_on_from(length)?;
                }
            }
            self.torn = false;
        }
        self.written = self.at.length;
        Ok(())
    }

    /// Brings what is settled to stable storage, and the file's name where no checkpoint has it.
    pub(super) fn sync(&self) -> io::Result<()> {
        if let Some(handle) = &self.handle {
            self.disk.sync(&handle.file)?;
        }
        if self.note == Note::Missing { self.sync_folders() } else { Ok(()) }
    }

    /// Syncs the folder, and the folders above it, which may be new as well.
    fn sync_folders(&self) -> io::Result<()> {
        let folders = self.path.ancestors().skip(1);
        for folder in folders.filter(|folder| !folder.as_os_str().is_empty()) {
            match self.disk.sync_folder(folder) {
                // Nobody can make such a folder durable: it may not be read or written, so it was there before us, or its file
                // system does not do that.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied
                            | io::ErrorKind::ReadOnlyFilesystem
                            | io::ErrorKind::InvalidInput
                            | io::ErrorKind::Unsupported
                    ) => {}
                synced => synced?,
            }
        }
        Ok(())
    }

    /// Whether the file is gone, or another has its name. One that somebody else changed goes on from the length it has now.
    pub(super) fn is_gone(&mut self) -> io::Result<bool> {
        let seen = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            seen => seen?,
        };
        if self.handle.as_ref().is_some_and(|handle| handle.identity != (seen.dev(), seen.ino())) {
            return Ok(true);
        }
        let (settled, length) = (self.at.length, seen.len());
        if length != settled {
            warn!(path = %self.path.display(), settled, length, "another process changed the file");
            self.goes_on_from(length)?;
        }
        Ok(false)
    }

    fn goes_on_from(&mut self, length: u64) -> io::Result<()> {
        (self.at.length, self.written, self.note) = (length, length, Note::Missing);
        self.is_spoilt = !self.ends_whole()?;
        Ok(())
    }

    /// Closes the file, which is synced or empty; it is opened again when it is needed.
    pub(super) fn close(&mut self) {
        self.handle = None;
    }

    fn open(&mut self) -> io::Result<&File> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => open(self.disk.as_ref(), &self.path)?,
        };
        Ok(&self.handle.insert(handle).file)
    }
}

fn open(disk: &dyn Disk, path: &Path) -> io::Result<Handle> {
    let file = disk.open(path)?;
    let seen = file.metadata()?;
    if !seen.is_file() {
        let what = "it is not a regular file; to write to standard output, use type = \"stdout\"";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let what = "another sink or process is writing to it";
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
