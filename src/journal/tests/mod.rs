//! Tests of the entire journal, on disks with realistic faults.
pub(crate) mod faulty;

mod model;
mod append;
mod damage;
mod consumers;
mod retention;
mod golden;
mod zero_copy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use faulty::FaultyStorage;

impl<P> Journal<P> {
    /// Removes a consumer and its cursor.
    pub(crate) fn remove_cursor(&self, consumer: &str) -> io::Result<()> {
        let name = cursor::file_name(consumer).unwrap();
        let log = &*self.shared.log;
        let _saving = lock(&log.saving);
        let mut state = log.state();
        if let Some(live) = &mut state.live {
            live.remove(consumer);
        }
        let is_known = state.cursors.remove(consumer).is_some();
        let names: Vec<String> = state.cursors.keys().cloned().collect();
        drop(state);
        if is_known {
            cursor::write_consumers(&*log.storage, &names)?;
            log.storage.remove(&name)?;
            log.storage.sync_dir()?;
        }
        self.remove_old();
        Ok(())
    }
}

/// A log on a faulty disk, with a fixed clock.
struct World {
    disk: FaultyStorage,
    options: Options,
    now_ns: Arc<AtomicU64>,
}

impl World {
    /// Creates a budget of 64 segments of a kilobyte; passed segments are removed immediately.
    fn new() -> Self {
        let options = Options {
            bytes_max: 64 << 10,
            segment_bytes_max: 1 << 10,
            retain: Duration::ZERO,
            when_full: WhenFull::Refuse,
        };
        Self { disk: FaultyStorage::default(), options, now_ns: Arc::new(AtomicU64::new(1 << 60)) }
    }

    fn open(&self) -> Journal<u64> {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Journal<u64>, OpenError> {
        let now_ns = Arc::clone(&self.now_ns);
        let now = Arc::new(move || now_ns.load(Ordering::Relaxed));
        Journal::open_with(&self.options, Arc::new(self.disk.clone()), now, Box::new(|_| ()))
    }

    fn wait(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap();
        self.now_ns.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

fn entry(payload: impl Into<Vec<u8>>, items: u32) -> Entry<u64> {
    let mut head = payload.into();
    let body = Bytes::from(head.split_off(head.len() / 3));
    Entry { head, body, items, attachment: 0 }
}

/// Appends records of 100 bytes one by one: `from`, `from` + 1 ... each with one item. Returns their ends.
fn append_numbered(journal: &Journal<u64>, from: u64, count: u64) -> Vec<Mark> {
    (from..from + count)
        .map(|number| append(journal, entry(numbered(number), 1)).unwrap())
        .collect()
}

fn numbered(number: u64) -> Vec<u8> {
    format!("{number:0>100}").into_bytes()
}

fn append(journal: &Journal<u64>, entry: Entry<u64>) -> Result<Mark, AppendError> {
    block_on(journal.append(entry))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Returns all readable records, and the unreadable ranges.
fn read_all(journal: &Journal<u64>, from: Position) -> (Vec<Record>, Vec<Record>) {
    let (mut records, mut errors) = (Vec::new(), Vec::new());
    let mut reader = journal.read_from(from);
    while let Some(record) = reader.next().unwrap() {
        let read = if record.payload.is_some() { &mut records } else { &mut errors };
        read.push(record);
        assert!(errors.len() < 1000, "a reader must get on");
    }
    (records, errors)
}

/// Returns the numbers of records created by [`append_numbered`].
fn numbers(journal: &Journal<u64>) -> Vec<u64> {
    let (records, _) = read_all(journal, Position(0));
    records
        .iter()
        .map(|record| {
            std::str::from_utf8(record.payload.as_ref().unwrap()).unwrap().parse().unwrap()
        })
        .collect()
}

fn cursor_at(mark: Mark) -> Cursor {
    Cursor { mark, ..Cursor::default() }
}
