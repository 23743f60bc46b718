//! The one writer thread: group commit, one sync for many callers.
//!
//! On disk a record is a frame: length of the payload (u32), CRC-32 of the rest (u32), items before it (u64), items in it (u32),
//! all little-endian, then the payload.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use super::storage::StorageFile;
use super::{
    AppendError, Cursor, Entry, Mark, OpenError, Options, Position, Reader, Storage, Synced,
};

pub(super) const FRAME_BYTES: usize = 20;
/// Callers that may wait for one sync; more than any sane number of connections sends at once.
const SUBMITTED_MAX: usize = 1024;
pub(super) const LOG_NAME: &str = "00000000000000000000.log";

type Submitted<P> = (Entry<P>, oneshot::Sender<Result<Mark, AppendError>>);

#[derive(Debug)]
pub(super) struct Shared<P> {
    submit: Mutex<Option<mpsc::Sender<Submitted<P>>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    pub(super) end: watch::Sender<Mark>,
    storage: Arc<dyn Storage>,
    cursors: Mutex<BTreeMap<String, Cursor>>,
}

pub(super) fn open<P: Send + 'static>(
    _options: &Options,
    storage: Arc<dyn Storage>,
    observer: Box<dyn FnMut(Synced<P>) + Send>,
) -> Result<Arc<Shared<P>>, OpenError> {
    let failed = |source| OpenError::Storage { path: LOG_NAME.to_owned(), source };
    let file = storage.open(LOG_NAME).map_err(failed)?;
    let mut end = Mark::default();
    let mut reader = Reader::new(storage.open(LOG_NAME).map_err(failed)?, Position(0), None);
    while let Ok(Some(stored)) = reader.next() {
        end = stored.end;
    }
    let (submit, submitted) = mpsc::channel(SUBMITTED_MAX);
    let (end_sender, _) = watch::channel(end);
    let shared = Arc::new(Shared {
        submit: Mutex::new(Some(submit)),
        thread: Mutex::default(),
        end: end_sender,
        storage,
        cursors: Mutex::default(),
    });
    let writer = Writer { file, end, observer, end_sender: shared.end.clone() };
    let thread = std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || writer.run(submitted))
        .map_err(failed)?;
    *lock(&shared.thread) = Some(thread);
    Ok(shared)
}

impl<P: Send + 'static> Shared<P> {
    pub(super) async fn submit(
        &self,
        entry: Entry<P>,
        answer: oneshot::Sender<Result<Mark, AppendError>>,
    ) -> Result<(), AppendError> {
        let sender = lock(&self.submit).clone().ok_or(AppendError::Closed)?;
        sender.send((entry, answer)).await.map_err(|_| AppendError::Closed)
    }

    #[expect(clippy::unused_self, reason = "retention moves the start")]
    pub(super) fn start(&self) -> Mark {
        Mark::default()
    }

    pub(super) fn read_from(&self, position: Position) -> Reader {
        let file = self.storage.open(LOG_NAME).expect("the log is there");
        Reader::new(file, position, Some(self.end.subscribe()))
    }

    pub(super) fn cursor(&self, consumer: &str) -> Result<Option<Cursor>, OpenError> {
        Ok(lock(&self.cursors).get(consumer).cloned())
    }

    pub(super) fn save_cursor(&self, consumer: &str, cursor: &Cursor) -> std::io::Result<()> {
        lock(&self.cursors).insert(consumer.to_owned(), cursor.clone());
        Ok(())
    }

    pub(super) fn close(&self) {
        lock(&self.submit).take();
        if let Some(thread) = lock(&self.thread).take() {
            thread.join().ok();
        }
    }
}

struct Writer<P> {
    file: Box<dyn StorageFile>,
    end: Mark,
    observer: Box<dyn FnMut(Synced<P>) + Send>,
    end_sender: watch::Sender<Mark>,
}

impl<P> Writer<P> {
    fn run(mut self, mut submitted: mpsc::Receiver<Submitted<P>>) {
        let mut group = Vec::new();
        while submitted.blocking_recv_many(&mut group, SUBMITTED_MAX) > 0 {
            self.commit(&mut group);
        }
    }

    fn commit(&mut self, group: &mut Vec<Submitted<P>>) {
        let mut synced = Vec::with_capacity(group.len());
        for (entry, answer) in group.drain(..) {
            let start = self.end;
            self.file.append(&[&frame(start, &entry), &entry.head, &entry.body]).expect("writes");
            self.end = after(start, entry.items, entry.head.len() + entry.body.len());
            synced.push((Synced { start, end: self.end, passenger: entry.passenger }, answer));
        }
        self.file.sync().expect("syncs");
        for (record, answer) in synced {
            let end = record.end;
            (self.observer)(record);
            answer.send(Ok(end)).ok();
        }
        self.end_sender.send_replace(self.end);
    }
}

fn frame<P>(start: Mark, entry: &Entry<P>) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[..4].copy_from_slice(
        &u32::try_from(entry.head.len() + entry.body.len()).expect("small").to_le_bytes(),
    );
    frame[8..16].copy_from_slice(&start.items.to_le_bytes());
    frame[16..].copy_from_slice(&entry.items.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[8..]);
    crc.update(&entry.head);
    crc.update(&entry.body);
    frame[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
    frame
}

pub(super) fn after(start: Mark, items: u32, payload_bytes: usize) -> Mark {
    Mark {
        position: Position(start.position.0 + (FRAME_BYTES + payload_bytes) as u64),
        items: start.items + u64::from(items),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
