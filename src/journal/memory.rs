//! A directory in memory, for `journal.mode = "memory"` and for tests.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, Weak};

use super::storage::{Lock, Storage, StorageFile};
use crate::support::lock::lock;

type Contents = Arc<Mutex<Pieces>>;

/// Bytes in chunks of equal size, so that files can reuse freed memory. Growing large buffers can waste half of it.
#[derive(Debug, Default)]
struct Pieces {
    /// Bytes after `length` are zeros.
    pieces: Vec<Box<[u8]>>,
    length: usize,
}

/// Size of a chunk.
const PIECE_BYTES: usize = 64 << 10;

/// A directory in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    files: Arc<Mutex<BTreeMap<String, Contents>>>,
    /// The guard of the journal that has it open.
    locked: Arc<Mutex<Weak<()>>>,
}

impl Storage for MemoryStorage {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn lock(&self) -> io::Result<Lock> {
        let mut locked = lock(&self.locked);
        if locked.strong_count() > 0 {
            return Ok(Lock::Elsewhere(std::process::id().to_string()));
        }
        let guard = Arc::new(());
        *locked = Arc::downgrade(&guard);
        Ok(Lock::Held(Box::new(guard)))
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

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.file(name)?;
        let contents = lock(&file);
        let mut bytes = contents.pieces.concat();
        bytes.truncate(contents.length);
        Ok(bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut contents = Pieces::default();
        contents.write(0, bytes);
        lock(&self.files).insert(name.to_owned(), Arc::new(Mutex::new(contents)));
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
struct MemoryFile(Contents);

impl StorageFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.0).length as u64)
    }

    fn write_at(&mut self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut contents = lock(&self.0);
        let mut at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        for part in parts {
            contents.write(at, part);
            at += part.len();
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut contents = lock(&self.0);
        contents.resize(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(lock(&self.0).read(at, bytes))
    }
}

impl Pieces {
    /// Writes bytes at an offset; a gap before it is filled with zeros.
    fn write(&mut self, mut at: usize, mut bytes: &[u8]) {
        self.resize(self.length.max(at + bytes.len()));
        while !bytes.is_empty()
            && let Some(piece) = self.pieces.get_mut(at / PIECE_BYTES)
            && let Some(to) = piece.get_mut(at % PIECE_BYTES..)
        {
            let (now, later) = bytes.split_at(bytes.len().min(to.len()));
            to.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            at += now.len();
            bytes = later;
        }
    }

    /// Truncates, or extends with zeros.
    fn resize(&mut self, length: usize) {
        self.pieces.resize_with(length.div_ceil(PIECE_BYTES), || vec![0; PIECE_BYTES].into());
        if length < self.length
            && let Some(cut) = self.pieces.get_mut(length / PIECE_BYTES)
        {
            cut.get_mut(length % PIECE_BYTES..).unwrap_or_default().fill(0);
        }
        self.length = length;
    }

    /// Fills `bytes` with what there is from an offset; returns the number of bytes.
    fn read(&self, mut at: usize, bytes: &mut [u8]) -> usize {
        let count = bytes.len().min(self.length.saturating_sub(at));
        let mut rest = bytes.get_mut(..count).unwrap_or_default();
        while !rest.is_empty()
            && let Some(piece) = self.pieces.get(at / PIECE_BYTES)
            && let Some(from) = piece.get(at % PIECE_BYTES..)
        {
            let (now, later) = rest.split_at_mut(rest.len().min(from.len()));
            now.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            at += now.len();
            rest = later;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::journal::{Entry, Journal, Options, WhenFull};
    use crate::support::memory::{alone, assert_within, resident_bytes};

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
        // Across the boundaries of chunks.
        let long: Vec<u8> = (0..251).cycle().take(3 * PIECE_BYTES).collect();
        for at in [PIECE_BYTES - 2, 0, 2 * PIECE_BYTES, PIECE_BYTES / 2] {
            file.write_at(&mut [IoSlice::new(&long)], at as u64).unwrap();
            let mut read = vec![0; long.len()];
            assert_eq!(file.read_at(&mut read, at as u64).unwrap(), long.len());
            assert!(read == long, "{at}");
            let end = at + long.len() - 5;
            file.truncate(end as u64).unwrap();
            assert_eq!(storage.read("a").unwrap().len(), end);
            assert_eq!(file.read_at(&mut read, end as u64 - 1).unwrap(), 1);
            assert_eq!(read[0], long[long.len() - 6]);
        }
    }

    #[test]
    fn a_full_log_in_memory_stays_within_its_budget_also_by_the_systems_own_count() {
        alone(&["1000", "20000", "3000000"], |size| {
            let options = Options {
                bytes_max: 64 << 20,
                retain: Duration::ZERO,
                when_full: WhenFull::DropOldest,
                ..Options::default()
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let before = resident_bytes();
            let storage = Arc::<MemoryStorage>::default();
            let journal = Journal::open(&options, storage, |_| ()).unwrap();
            let size = size.parse().unwrap();
            let mut most = 0;
            // Twice the available space.
            while journal.end().position.0 < 128 << 20 {
                let appends = (0..=(128 << 10) / size).map(|_| {
                    let (head, body) = (Vec::new(), Bytes::from(vec![b'x'; size]));
                    journal.append(Entry { head, body, items: 1, attachment: () })
                });
                runtime.block_on(futures_util::future::join_all(appends));
                most = most.max(resident_bytes() - before);
            }
            assert_within(&size.to_string(), most, 64 << 20);
        });
    }
}
