//! A disk that forgets, tears, fills up and fails, on command.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::journal::direct::BLOCK_BYTES;
use crate::journal::segment;
use crate::journal::storage::{Lock, Storage, StorageFile};

/// Unit in which the disk keeps or loses data that was not synced.
const SECTOR_BYTES: usize = 64;

/// The remains of unsynced data after a crash.
#[derive(Debug, Clone, Copy)]
pub(super) enum Crash {
    /// All of it: the process was killed, but the machine kept running.
    KeepsAll,
    /// None of it.
    LosesAll,
    /// Only some sectors.
    Tears(u64),
    /// All of it, and files reappear whose removal was not synced.
    BringsBack,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyStorage {
    disk: Arc<Disk>,
}

#[derive(Debug, Default)]
struct Disk {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    /// The directory on stable storage.
    synced_names: BTreeMap<String, Arc<Mutex<Content>>>,
    lock: Arc<()>,
    room: Option<usize>,
    /// Files removed since the directory was last synced.
    removed: BTreeMap<String, Arc<Mutex<Content>>>,
    /// The error of syncs; a full disk has space again the next time.
    sync_fails: Option<io::ErrorKind>,
    replace_fails: Option<&'static str>,
    write_fails: bool,
    create_fails: Option<rustix::io::Errno>,
    syncs: usize,
    syncs_held: bool,
    syncs_waiting: usize,
    bad_sector: Option<(String, u64)>,
    /// Reads of segments: name, offset, bytes.
    reads: Vec<(String, usize, usize)>,
    /// Whether reads of segments wait until they are released.
    reads_held: bool,
    reads_waiting: usize,
}

#[derive(Debug, Default, Clone)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

impl FaultyStorage {
    /// Stops and restarts the machine.
    pub(super) fn crash(&self, crash: Crash) {
        let mut state = self.state();
        match crash {
            Crash::KeepsAll => {}
            Crash::BringsBack => {
                let removed = std::mem::take(&mut state.removed);
                state.files.extend(removed);
            }
            Crash::LosesAll | Crash::Tears(_) => state.files = state.synced_names.clone(),
        }
        for file in state.files.values() {
            let mut content = file.lock().unwrap();
            content.now = match crash {
                Crash::KeepsAll | Crash::BringsBack => content.now.clone(),
                Crash::LosesAll => content.synced.clone(),
                Crash::Tears(seed) => torn(&content, seed),
            };
            content.synced = content.now.clone();
        }
        state.synced_names = state.files.clone();
        state.sync_fails = None;
        state.write_fails = false;
        state.room = None;
    }

    /// Changes a file without the log's knowledge.
    pub(crate) fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let file = Arc::clone(self.state().files.get(name).unwrap());
        let mut content = file.lock().unwrap();
        change(&mut content.now);
        content.synced = content.now.clone();
    }

    /// Removes a file without the log's knowledge.
    pub(super) fn delete(&self, name: &str) {
        self.remove(name).unwrap();
        self.sync_dir().unwrap();
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        self.replace(name, bytes).unwrap();
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.list().unwrap()
    }

    /// Returns the segment files, oldest first.
    pub(super) fn segments(&self) -> Vec<String> {
        let is_segment = |name: &String| segment::base_of(name).is_some();
        self.names().into_iter().filter(is_segment).collect()
    }

    /// Limits the disk to this many more bytes; `None` for no limit.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.state().room = room;
    }

    pub(crate) fn fail_syncs(&self) {
        self.state().sync_fails = Some(io::ErrorKind::Other);
    }

    /// Makes opening new files fail, or work again.
    pub(super) fn set_out_of_descriptors(&self, is_out: bool) {
        self.state().create_fails = is_out.then_some(rustix::io::Errno::MFILE);
    }

    /// Makes the next replacement of this file fail.
    pub(super) fn fail_next_replace_of(&self, name: &'static str) {
        self.state().replace_fails = Some(name);
    }

    /// Makes the next sync find the disk full.
    pub(super) fn find_no_space_at_sync(&self) {
        self.state().sync_fails = Some(io::ErrorKind::StorageFull);
    }

    pub(super) fn fail_writes(&self) {
        self.state().write_fails = true;
    }

    pub(super) fn make_sector_bad(&self, name: &str, offset: u64) {
        self.state().bad_sector = Some((name.to_owned(), offset));
    }

    pub(super) fn syncs(&self) -> usize {
        self.state().syncs
    }

    /// Makes syncs wait until they are released.
    pub(crate) fn hold_syncs(&self) {
        self.state().syncs_held = true;
    }

    pub(crate) fn release_syncs(&self) {
        self.state().syncs_held = false;
        self.disk.released.notify_all();
    }

    /// Waits until a sync is waiting.
    pub(crate) fn until_a_sync_waits(&self) {
        let state = self.state();
        drop(self.disk.released.wait_while(state, |state| state.syncs_waiting == 0).unwrap());
    }

    /// Clears the record of reads.
    pub(crate) fn forget_reads(&self) {
        self.state().reads.clear();
    }

    /// Returns the number of bytes read from segments.
    pub(crate) fn bytes_read(&self) -> usize {
        self.state().reads.iter().map(|(_, _, bytes)| bytes).sum()
    }

    /// Returns the maximum number of reads of one block of a segment.
    pub(crate) fn reads_of_one_block(&self) -> usize {
        let mut counts = BTreeMap::new();
        for (name, offset, bytes) in &self.state().reads {
            for block in offset / BLOCK_BYTES..(offset + bytes).div_ceil(BLOCK_BYTES) {
                *counts.entry((name.clone(), block)).or_default() += 1;
            }
        }
        counts.into_values().max().unwrap_or_default()
    }

    /// Makes reads of segments wait until they are released.
    pub(crate) fn hold_reads(&self) {
        self.state().reads_held = true;
    }

    pub(crate) fn release_reads(&self) {
        self.state().reads_held = false;
        self.disk.released.notify_all();
    }

    /// Returns whether a read is waiting.
    pub(crate) fn has_a_read_that_waits(&self) -> bool {
        self.state().reads_waiting > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.disk.state.lock().unwrap()
    }

    fn file(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let content =
            self.state().files.get(name).map(Arc::clone).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(FaultyFile { storage: self.clone(), name: name.to_owned(), content }))
    }
}

fn torn(content: &Content, seed: u64) -> Vec<u8> {
    let (mut random, mut after) = (seed | 1, content.synced.clone());
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    if next() % 2 == 0 || content.now.len() < after.len() {
        after.resize(content.now.len(), 0);
    }
    for (from, to) in content.now.chunks(SECTOR_BYTES).zip(after.chunks_mut(SECTOR_BYTES)) {
        if next() % 2 == 0 {
            to.copy_from_slice(&from[..to.len()]);
        }
    }
    after
}

impl Storage for FaultyStorage {
    fn place(&self) -> String {
        "a faulty disk".to_owned()
    }

    fn lock(&self) -> io::Result<Lock> {
        let state = self.state();
        if Arc::strong_count(&state.lock) != 1 {
            return Ok(Lock::Elsewhere("4711".to_owned()));
        }
        Ok(Lock::Held(Box::new(Held { _lock: Arc::clone(&state.lock) })))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut state = self.state();
        if let Some(error) = state.create_fails {
            return Err(error.into());
        }
        state.files.insert(name.to_owned(), Arc::default());
        drop(state);
        self.file(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.file(name)
    }

    fn open_to_read(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.file(name)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        if self.state().bad_sector.as_ref().is_some_and(|(bad, _)| bad == name) {
            return Err(io::Error::from(rustix::io::Errno::IO));
        }
        let file = self.state().files.get(name).map(Arc::clone).ok_or(io::ErrorKind::NotFound)?;
        let content = file.lock().unwrap();
        Ok(content.now.clone())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let content = Arc::new(Mutex::new(Content { now: bytes.to_vec(), synced: bytes.to_vec() }));
        let mut state = self.state();
        if state.replace_fails.take_if(|fails| *fails == name).is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.files.insert(name.to_owned(), Arc::clone(&content));
        state.synced_names.insert(name.to_owned(), content);
        Ok(())
    }

    fn keep_also_as(&self, name: &str, second: &str) -> io::Result<()> {
        let mut state = self.state();
        let content = state.files.get(name).map(Arc::clone).ok_or(io::ErrorKind::NotFound)?;
        state.files.entry(second.to_owned()).or_insert(Arc::clone(&content));
        state.synced_names.entry(second.to_owned()).or_insert(content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let removed = state.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.removed.insert(name.to_owned(), removed);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.removed.clear();
        state.synced_names = state.files.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct Held {
    _lock: Arc<()>,
}

#[derive(Debug)]
struct FaultyFile {
    storage: FaultyStorage,
    name: String,
    content: Arc<Mutex<Content>>,
}

impl StorageFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().now.len() as u64)
    }

    fn write_at(&mut self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut state = self.storage.state();
        if state.write_fails {
            return Err(io::Error::other("the disk fails"));
        }
        let mut content = self.content.lock().unwrap();
        let mut at = usize::try_from(offset).unwrap();
        for part in parts {
            let room = state.room.unwrap_or(usize::MAX);
            let taken = part.len().min(room);
            if content.now.len() < at + taken {
                content.now.resize(at + taken, 0);
            }
            content.now[at..at + taken].copy_from_slice(&part[..taken]);
            state.room = state.room.map(|room| room - taken);
            at += taken;
            if taken < part.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    fn reserve(&mut self, len: u64) -> io::Result<()> {
        let state = self.storage.state();
        let mut content = self.content.lock().unwrap();
        let len = usize::try_from(len).unwrap();
        // An odd limit stands for a file system that cannot reserve, so that the write itself fails.
        match state.room {
            Some(room) if room % 2 == 0 && content.now.len() + room < len => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(_) => Ok(()),
            None => {
                if content.now.len() < len {
                    content.now.resize(len, 0);
                }
                Ok(())
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.storage.state();
        state.syncs += 1;
        state.syncs_waiting += 1;
        self.storage.disk.released.notify_all();
        let mut state =
            self.storage.disk.released.wait_while(state, |state| state.syncs_held).unwrap();
        state.syncs_waiting -= 1;
        if let Some(kind) = state.sync_fails {
            state.sync_fails = Some(kind).filter(|kind| *kind != io::ErrorKind::StorageFull);
            return Err(kind.into());
        }
        let mut content = self.content.lock().unwrap();
        content.synced = content.now.clone();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.content.lock().unwrap().now.truncate(usize::try_from(len).unwrap());
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some((name, bad)) = &self.storage.state().bad_sector
            && *name == self.name
            && offset < bad + SECTOR_BYTES as u64
            && *bad < offset + bytes.len() as u64
        {
            return Err(io::Error::from(rustix::io::Errno::IO));
        }
        let offset = usize::try_from(offset).unwrap();
        let count = {
            let content = self.content.lock().unwrap();
            let rest = content.now.get(offset..).unwrap_or_default();
            let count = rest.len().min(bytes.len());
            bytes[..count].copy_from_slice(&rest[..count]);
            count
        };
        if segment::base_of(&self.name).is_some() {
            let mut state = self.storage.state();
            state.reads.push((self.name.clone(), offset, count));
            state.reads_waiting += 1;
            let held = self.storage.disk.released.wait_while(state, |state| state.reads_held);
            held.unwrap().reads_waiting -= 1;
        }
        Ok(count)
    }
}
