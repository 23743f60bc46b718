//! The disk behind a small trait, so that tests can inject faults. No other file of the journal opens files.
#![expect(clippy::disallowed_types, reason = "this is the journal's one door to the disk")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, chown,
};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

use super::direct::{BLOCK_BYTES, DIRECT_BYTES_MIN, Direct, can_be_read_directly, write_all};

/// Directory for copies of damaged files and notes on them, inside the log's directory.
pub(super) const ASIDE: &str = "damaged/";

const LOCK_NAME: &str = "lock";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// A directory of files. Names are plain, or plain names in `damaged/`.
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// Returns its location, for messages.
    fn place(&self) -> String;
    /// Locks the directory for this process.
    fn lock(&self) -> io::Result<Lock>;
    /// Lists the names of the files, in no particular order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file and replaces any file of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Opens a file for reading.
    fn open_to_read(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.open(name)
    }
    /// Reads a small file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Replaces a small file atomically: at any moment it has either the old or the new bytes. Afterwards it is on stable storage.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Keeps a file's bytes under a second name too, without changing the first. Does nothing if the second exists.
    fn keep_also_as(&self, name: &str, second: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the directory's entries durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// Reads a small file. One that is missing or has a bad sector is empty, which passes no checksum either.
pub(super) fn read_small(storage: &dyn Storage, name: &str) -> io::Result<Vec<u8>> {
    match storage.read(name) {
        Err(error) if is_bad_sector(&error) || error.kind() == io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        read => read,
    }
}

/// Returns whether the disk cannot read a sector.
pub(super) fn is_bad_sector(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::IO)
}

/// One file.
pub trait StorageFile: Send + Sync + std::fmt::Debug {
    /// Returns its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Writes the parts one after the other from `offset`.
    fn write_at(&mut self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Reserves space up to `len` and fills it with zeros. Does nothing if the file system cannot reserve space.
    fn reserve(&mut self, _len: u64) -> io::Result<()> {
        Ok(())
    }
    /// Makes its bytes durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Truncates it to a length.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Fills `bytes` with what the file has from `offset`; returns the number of bytes.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Returns whether somebody has deleted it since it was opened: what is written to it is lost when it is closed.
    fn is_deleted(&self) -> bool {
        false
    }
}

/// The result of [`Storage::lock`].
#[derive(Debug)]
pub enum Lock {
    /// This process has the lock until the guard is dropped.
    Held(Box<dyn Guard>),
    /// Another process has the lock: its process id, if known.
    Elsewhere(String),
}

/// Keeps a directory locked while it lives.
pub trait Guard: Send + Sync + std::fmt::Debug {}

impl<T: Send + Sync + std::fmt::Debug> Guard for T {}

// === DirStorage ===

/// A directory of the file system.
#[derive(Debug)]
pub struct DirStorage {
    dir: PathBuf,
    /// The directory itself, open: its list is synced also when clients have taken all descriptors.
    handle: File,
}

impl DirStorage {
    /// Opens the directory. A missing one is created for its user and group only, because it holds payloads.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        dir.parent().map_or(Ok(()), fs::create_dir_all)?;
        create_dir(&dir)?;
        Self::existing(dir)
    }

    /// Opens an existing directory for inspection; creates nothing.
    pub fn existing(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::read_dir(&dir)?;
        Ok(Self { handle: File::open(&dir)?, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn open_to_write(
        &self,
        name: &str,
        options: &mut OpenOptions,
    ) -> io::Result<Box<dyn StorageFile>> {
        let path = self.path(name);
        let file = options.read(true).write(true).open(&path)?;
        let (direct, counts_links) = (open_direct(&path), links(&file) != Some(0));
        Ok(Box::new(DiskFile { file, direct, past_cache: None, counts_links }))
    }

    /// Creates the directory for copies of damaged files and notes, if a name is in it.
    fn create_aside(&self, name: &str) -> io::Result<()> {
        if name.starts_with(ASIDE) { create_dir(&self.dir.join(ASIDE)) } else { Ok(()) }
    }
}

/// Creates a directory, unless it exists.
fn create_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o770).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(|()| give(dir)),
    }
}

/// Gives what is new to the owner of its directory: what root creates while inspecting that must not keep the daemon out.
fn give(path: &Path) {
    let owner = path.parent().and_then(|dir| fs::metadata(dir).ok());
    owner.map(|owner| chown(path, Some(owner.uid()), Some(owner.gid())));
}

impl Storage for DirStorage {
    fn place(&self) -> String {
        self.dir.display().to_string()
    }

    fn lock(&self) -> io::Result<Lock> {
        let (path, mut options) = (self.path(LOCK_NAME), OpenOptions::new());
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
        give(&path);
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.write_all(std::process::id().to_string().as_bytes())?;
                Ok(Lock::Held(Box::new(file)))
            }
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                file.rewind()?;
                file.read_to_string(&mut process)?;
                Ok(Lock::Elsewhere(process))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = names_in(&self.dir, "")?;
        match names_in(&self.dir.join(ASIDE), ASIDE) {
            Ok(aside) => names.extend(aside),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.open_to_write(name, OpenOptions::new().create(true).truncate(true))?;
        give(&self.path(name));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.open_to_write(name, &mut OpenOptions::new())
    }

    fn open_to_read(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let path = self.path(name);
        let past_cache = open_past_cache(OpenOptions::new().read(true), &path);
        let file = File::open(path)?;
        Ok(Box::new(DiskFile { file, direct: None, past_cache, counts_links: false }))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (path, temporary) = (self.path(name), self.path(&format!("{name}{TEMPORARY_SUFFIX}")));
        self.create_aside(name)?;
        let mut file = File::create(&temporary)?;
        give(&temporary);
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&temporary, &path)?;
        sync_parent(&path)
    }

    fn keep_also_as(&self, name: &str, second: &str) -> io::Result<()> {
        let (from, to) = (self.path(name), self.path(second));
        self.create_aside(second)?;
        match fs::hard_link(&from, &to) {
            Ok(()) => sync_parent(&to),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // Not every file system has hard links.
            Err(_) => {
                let temporary = self.path(&format!("{second}{TEMPORARY_SUFFIX}"));
                fs::copy(&from, &temporary)?;
                give(&temporary);
                File::open(&temporary)?.sync_data()?;
                fs::rename(&temporary, &to)?;
                sync_parent(&to)
            }
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// Returns `None` if the file system does not support direct writes.
fn open_direct(path: &Path) -> Option<Direct> {
    open_past_cache(OpenOptions::new().write(true), path).map(Direct::new)
}

/// Returns `None` if the file system does not support direct I/O (tmpfs, some network and FUSE file systems).
fn open_past_cache(options: &mut OpenOptions, path: &Path) -> Option<File> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
    options.custom_flags(flags).open(path).ok()
}

fn names_in(dir: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(format!("{prefix}{name}"));
        }
    }
    Ok(names)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[derive(Debug)]
struct DiskFile {
    file: File,
    /// Writes that bypass the page cache.
    direct: Option<Direct>,
    /// Reads that bypass the page cache, which does not hold what was written past it.
    past_cache: Option<File>,
    /// Whether the file system counts a file's names. Some FUSE file systems say 0 for every file.
    counts_links: bool,
}

/// Returns the number of names that a file has.
fn links(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.nlink())
}

impl StorageFile for DiskFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn write_at(&mut self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let direct = self.direct.as_mut().filter(|_| DIRECT_BYTES_MIN <= bytes);
        match direct.map(|direct| direct.write_at(&self.file, parts, offset)) {
            // Direct I/O is supported, but this disk needs a different alignment.
            Some(Err(error)) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.direct = None;
                write_all(&self.file, parts, offset, 1)
            }
            Some(written) => written,
            None => write_all(&self.file, parts, offset, 1),
        }
    }

    fn reserve(&mut self, len: u64) -> io::Result<()> {
        let from = self.length()?;
        if len <= from {
            return Ok(());
        }
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), from, len - from)) {
            // Some file systems cannot reserve space; a full disk then shows on writing.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            reserved => Ok(reserved?),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(file) = &self.past_cache
            && can_be_read_directly(bytes, offset)
        {
            match fill(file, bytes, offset, BLOCK_BYTES) {
                // Direct I/O is supported, but this disk needs a different alignment.
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
                filled => return filled,
            }
        }
        fill(&self.file, bytes, offset, 1)
    }

    fn is_deleted(&self) -> bool {
        self.counts_links && links(&self.file) == Some(0)
    }
}

/// Fills `bytes` with what the file has; reads complete units of `unit` bytes.
fn fill(file: &File, bytes: &mut [u8], offset: u64, unit: usize) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if !filled.is_multiple_of(unit) {
            // Only the end of the file yields part of a unit.
            break;
        }
    }
    Ok(filled)
}
