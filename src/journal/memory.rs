//! A directory in memory, for `journal.mode = "memory"` and for tests.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};

use super::log::lock;
use super::storage::{Guard, Lock, Storage, StorageFile};

/// Files grow in pieces of this size: growing never copies what is there, and what is unused stays small.
const PIECE_BYTES: usize = 256 << 10;

/// A directory in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    files: Arc<Mutex<BTreeMap<String, Arc<Mutex<Pieces>>>>>,
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
        let pieces = Arc::default();
        lock(&self.files).insert(name.to_owned(), Arc::clone(&pieces));
        Ok(Box::new(MemoryFile { pieces }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(MemoryFile { pieces: self.file(name)? }))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.open(name)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.file(name)?;
        let pieces = lock(&file);
        let mut bytes = vec![0; pieces.length];
        pieces.read_at(&mut bytes, 0);
        Ok(bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut pieces = Pieces::default();
        pieces.write_at(bytes, 0);
        lock(&self.files).insert(name.to_owned(), Arc::new(Mutex::new(pieces)));
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
    fn file(&self, name: &str) -> io::Result<Arc<Mutex<Pieces>>> {
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
struct MemoryFile {
    pieces: Arc<Mutex<Pieces>>,
}

impl StorageFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.pieces).length as u64)
    }

    fn write_at(&mut self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut pieces = lock(&self.pieces);
        let mut at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        for part in parts {
            pieces.write_at(part, at);
            at += part.len();
        }
        Ok(())
    }

    fn reserve(&mut self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        lock(&self.pieces).truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(lock(&self.pieces).read_at(bytes, at))
    }
}

#[derive(Debug, Default)]
struct Pieces {
    pieces: Vec<Vec<u8>>,
    length: usize,
}

impl Pieces {
    fn write_at(&mut self, bytes: &[u8], offset: usize) {
        let (mut rest, mut at) = (bytes, offset);
        while !rest.is_empty() {
            let (index, within) = (at / PIECE_BYTES, at % PIECE_BYTES);
            let count = rest.len().min(PIECE_BYTES - within);
            let (now, later) = rest.split_at(count);
            if self.pieces.len() <= index {
                self.pieces.resize_with(index + 1, Vec::new);
            }
            if let Some(piece) = self.pieces.get_mut(index) {
                // Nearly always nothing: the log only grows.
                let (kept, skipped) = (piece.len().min(within), within.saturating_sub(piece.len()));
                let behind = piece.split_off(kept);
                piece.resize(kept + skipped, 0);
                piece.extend_from_slice(now);
                piece.extend_from_slice(behind.get(count..).unwrap_or_default());
            }
            (rest, at) = (later, at + count);
        }
        self.length = self.length.max(at);
    }

    fn read_at(&self, bytes: &mut [u8], offset: usize) -> usize {
        let wanted = bytes.len().min(self.length.saturating_sub(offset));
        let mut filled = 0;
        while filled < wanted {
            let at = offset + filled;
            let (index, within) = (at / PIECE_BYTES, at % PIECE_BYTES);
            let count = (wanted - filled).min(PIECE_BYTES - within);
            let Some(to) = bytes.get_mut(filled..filled + count) else { break };
            // What was never written reads as zeros, as in a file with a hole.
            to.fill(0);
            let from =
                self.pieces.get(index).and_then(|piece| piece.get(within..)).unwrap_or_default();
            for (byte, value) in to.iter_mut().zip(from) {
                *byte = *value;
            }
            filled += count;
        }
        filled
    }

    fn truncate(&mut self, length: usize) {
        if self.length <= length {
            return;
        }
        self.length = length;
        self.pieces.truncate(length.div_ceil(PIECE_BYTES));
        if let Some(last) = self.pieces.last_mut() {
            let within = length - (length - 1) / PIECE_BYTES * PIECE_BYTES;
            last.truncate(within);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_where_they_were_written_whatever_the_piece() {
        let storage = MemoryStorage::default();
        let mut file = storage.create("a").unwrap();
        let pattern: Vec<u8> = (0..251).cycle().take(3 * PIECE_BYTES + 7).collect();
        file.write_at(&mut [IoSlice::new(&pattern[..100]), IoSlice::new(&pattern[100..])], 0)
            .unwrap();
        let mut read = vec![0; 1000];
        assert_eq!(file.read_at(&mut read, PIECE_BYTES as u64 - 500).unwrap(), 1000);
        assert_eq!(read, pattern[PIECE_BYTES - 500..PIECE_BYTES + 500]);
        file.truncate(PIECE_BYTES as u64).unwrap();
        assert_eq!(file.read_at(&mut read, PIECE_BYTES as u64 - 10).unwrap(), 10);
        file.truncate(0).unwrap();
        assert_eq!(file.length().unwrap(), 0);
        file.write_at(&mut [IoSlice::new(b"x")], 5).unwrap();
        assert_eq!(storage.read("a").unwrap(), b"\0\0\0\0\0x");
    }
}
