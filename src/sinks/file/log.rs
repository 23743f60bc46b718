//! Appends lines to one file. Everything beyond a settled length can be rolled back.
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

/// The file operations of this sink, so that tests can simulate a full or broken disk.
pub(super) trait Disk: Send + Sync {
    /// Opens a file for reading and writing, and creates it if it does not exist.
    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
    }

    /// Writes all bytes at this offset.
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    /// Syncs the file's data to stable storage.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Syncs the names in a folder to stable storage.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// The real disk.
#[derive(Default)]
pub(super) struct RealDisk {
    /// Aligned memory for writes past the page cache.
    pool: Pool,
}

impl Disk for RealDisk {
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        direct::write(file, bytes, at, &self.pool)
    }
}

/// A file's entry in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedFile {
    /// Its path without its number.
    pub(super) base: PathBuf,
    /// The hour or day of its items.
    pub(super) period: Period,
    /// Its number.
    pub(super) number: u32,
    /// Its settled length, in bytes. Anything beyond it was written later and is delivered again.
    pub(super) length: u64,
}

/// A file that lines are appended to.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    pub(super) at: SavedFile,
    pub(super) path: PathBuf,
    /// `None` if the file has nothing to sync.
    handle: Option<Handle>,
    /// Its length once the last write is settled.
    written: u64,
    /// Whether there may be bytes beyond the settled length. They are cut before any other operation.
    torn: bool,
    /// Whether another process changed it so that it does not end with a complete line.
    pub(super) is_spoilt: bool,
    pub(super) note: Note,
    /// The number of the last delivery that used it.
    pub(super) used: u64,
}

/// Whether the saved state contains the file. Nothing may be written before it does, with the file's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// No checkpoint contains it.
    Missing,
    /// The lane got a checkpoint that contains it, but may have failed to save it.
    HandedOver,
    /// It was saved: the lane was asked to save before the next delivery, and that delivery came.
    Saved,
}

struct Handle {
    file: File,
    /// Device and inode, which reveal a file that was replaced.
    identity: (u64, u64),
}

impl Log {
    /// Opens nothing. Bytes beyond the length of a saved file are cut when it is first used.
    pub(super) fn new(disk: &Arc<dyn Disk>, at: SavedFile, note: Note) -> Self {
        let (disk, path, written) = (Arc::clone(disk), numbered(&at.base, at.number), at.length);
        let (torn, is_spoilt) = (note == Note::Saved, false);
        Self { disk, at, path, handle: None, written, torn, is_spoilt, note, used: 0 }
    }

    /// Opens the file to continue with for a path, with a number of at least `number_min`. Creates it and its folders if necessary.
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

    /// Returns whether a file without a checkpoint can safely be appended to, because it ends with a complete line. Compressed files are
    /// never appended to, because checking them would require reading all of them.
    pub(super) fn ends_whole(&mut self) -> io::Result<bool> {
        let Some(last) = self.at.length.checked_sub(1) else { return Ok(true) };
        let packed = self.at.base.extension().is_some_and(|end| end == "gz" || end == "zst");
        let mut byte = [0];
        self.open()?.read_exact_at(&mut byte, last)?;
        Ok(!packed && byte == *b"\n")
    }

    /// Appends bytes. They can be rolled back until they are settled.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.torn = true;
        let (disk, at) = (Arc::clone(&self.disk), self.written);
        disk.write(self.open()?, bytes, at)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Marks everything written as settled.
    pub(super) fn settle(&mut self) {
        // A file that is known only from a checkpoint may still contain bytes that were written after it.
        if self.written != self.at.length {
            self.at.length = self.written;
            self.torn = false;
        }
    }

    /// Cuts everything that is not settled. A file that is shorter than its settled length is never extended.
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

    /// Syncs everything settled to stable storage, and also the file's name if no checkpoint contains it.
    pub(super) fn sync(&self) -> io::Result<()> {
        if let Some(handle) = &self.handle {
            self.disk.sync(&handle.file)?;
        }
        if self.note == Note::Missing { self.sync_folders() } else { Ok(()) }
    }

    /// Syncs the folder and those above it, which may be new as well.
    fn sync_folders(&self) -> io::Result<()> {
        let folders = self.path.ancestors().skip(1);
        for folder in folders.filter(|folder| !folder.as_os_str().is_empty()) {
            match self.disk.sync_folder(folder) {
                // Such a folder cannot be made durable. Either it may not be read or written, so it existed before, or its file system does
                // not support it.
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

    /// Returns whether the file was removed or replaced. If another process changed it, the sink continues from its current length.
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

    /// Closes the file, which is synced or empty. It is opened again on demand.
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
        // If the file system does not support locks, the operator must prevent two writers.
        Ok(()) | Err(TryLockError::Error(_)) => {
            Ok(Handle { identity: (seen.dev(), seen.ino()), file })
        }
    }
}

/// Returns the highest number among the files of a path; `None` without files.
fn highest_number(base: &Path) -> io::Result<Option<u32>> {
    let mut highest = None;
    let folder = base.parent().filter(|folder| !folder.as_os_str().is_empty());
    for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
        let name = entry?.file_name();
        highest = highest.max(number_of(base, &name.to_string_lossy()));
    }
    Ok(highest)
}
