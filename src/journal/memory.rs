//! A directory in memory, for `journal.mode = "memory"` and for tests.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};

use super::storage::{Guard, Lock, Storage, StorageFile};
use crate::support::lock::lock;

/// Large pieces of memory grow without being copied, and what is reserved takes nothing before it is written to.
type Contents = Arc<Mutex<Vec<u8>>>;

/// A directory in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    files: Arc<Mutex<BTreeMap<String, Contents>>>,
    locked: Arc<Mutex<bool>>,
}

impl Storage for MemoryStorage {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn lock(&self) -> io::Result<Lock> {
        let mut locked = lock(&self.locked);
        if *locked {
            return Ok(Lock::Elsewhere(std::process::id().to_string()));
        }
        *locked = true;
        Ok(Lock::Held(Box::new(MemoryLock { locked: Arc::clone(&self.locked) })))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.files).keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let contents = Contents::default();
        lock(&self.files).insert(name.to_owned(), Arc::clone(&contents));
        Ok(Box::new(MemoryFile(contents)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(MemoryFile(self.file(name)?)))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.open(name)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(lock(&*self.file(name)?).clone())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        lock(&self.files).insert(name.to_owned(), Arc::new(Mutex::new(bytes.to_vec())));
        Ok(())
    }

    fn keep_also_as(&self, name: &str, second: &str) -> io::Result<()> {
        let file = self.file(name)?;
        lock(&self.files).entry(second.to_owned()).or_insert(file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.files).remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

impl MemoryStorage {
    fn file(&self, name: &str) -> io::Result<Contents> {
        let file = lock(&self.files).get(name).map(Arc::clone);
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Debug)]
struct MemoryLock {
    locked: Arc<Mutex<bool>>,
}

impl Guard for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        *lock(&self.locked) = false;
    }
}

#[derive(Debug)]
struct MemoryFile(Contents);

impl StorageFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn write_at(&mut self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut bytes = lock(&self.0);
        let mut at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        for part in parts {
            // Nearly always nothing: the log only grows.
            let over = part.len().min(bytes.len().saturating_sub(at));
            let (known, new) = part.split_at(over);
            if let Some(there) = bytes.get_mut(at..at + over) {
                there.copy_from_slice(known);
            }
            at += part.len();
            if !new.is_empty() {
                bytes.resize(at - new.len(), 0);
                bytes.extend_from_slice(new);
            }
        }
        Ok(())
    }

    fn reserve(&mut self, len: u64) -> io::Result<()> {
        let mut bytes = lock(&self.0);
        let more = usize::try_from(len).unwrap_or(usize::MAX).saturating_sub(bytes.len());
        bytes.try_reserve_exact(more).map_err(|_| io::ErrorKind::StorageFull.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut bytes = lock(&self.0);
        bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        bytes.shrink_to_fit();
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let there = lock(&self.0);
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let from = there.get(at..).unwrap_or_default();
        let count = from.len().min(bytes.len());
        if let (Some(to), Some(from)) = (bytes.get_mut(..count), from.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_where_they_were_written() {
        let storage = MemoryStorage::default();
        let mut file = storage.create("a").unwrap();
        let pattern: Vec<u8> = (0..251).cycle().take(1007).collect();
        file.write_at(&mut [IoSlice::new(&pattern[..100]), IoSlice::new(&pattern[100..])], 0)
            .unwrap();
        let mut read = vec![0; 1000];
        assert_eq!(file.read_at(&mut read, 500).unwrap(), 507);
        assert_eq!(read[..507], pattern[500..]);
        file.write_at(&mut [IoSlice::new(b"over"), IoSlice::new(b"lapping")], 1000).unwrap();
        assert_eq!(storage.read("a").unwrap()[998..], *b"\xf5\xf6overlapping");
        file.truncate(510).unwrap();
        assert_eq!(file.read_at(&mut read, 500).unwrap(), 10);
        file.truncate(0).unwrap();
        assert_eq!((file.length().unwrap(), file.read_at(&mut read, 5).unwrap()), (0, 0));
        file.write_at(&mut [IoSlice::new(b"x")], 5).unwrap();
        assert_eq!(storage.read("a").unwrap(), b"\0\0\0\0\0x");
    }
}
