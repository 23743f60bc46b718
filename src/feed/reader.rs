//! Reads batches in journal order: from the tail, or from disk when behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};
use tracing::error;

use super::Attachment;
use super::tail::{Look, ReaderId, Tail};
use crate::journal::{self, Journal, Mark, Position, Record};
use crate::normalize::decode_record;
use crate::span::{Batch, Source};

/// A batch and its position in the journal.
#[derive(Debug, Clone)]
pub struct FeedEntry {
    /// Start of its record.
    pub start: Mark,
    /// Start of the next record.
    pub end: Mark,
    /// The decoded request; empty if the record is unreadable.
    pub batch: Arc<Batch>,
    /// An intact record that this version cannot decode, at least not completely.
    pub not_understood: Option<Bytes>,
    /// Number of items that rules have removed from the batch.
    pub filtered: u64,
}

impl FeedEntry {
    /// Returns the number of items that the journal counts but that could not be read.
    pub fn unreadable(&self) -> u64 {
        self.end
            .items
            .saturating_sub(self.start.items)
            .saturating_sub(self.batch.items.len() as u64)
            .saturating_sub(self.filtered)
    }
}

/// Number of batches taken from the tail under one lock.
const TAKEN_AT_ONCE: usize = 64;
/// Bytes read from disk and decoded together, off the runtime's threads. The amount is small enough to be still in the processor's cache
/// when the lane encodes it (with 4 MiB, an agent span to Elasticsearch, gzip included, cost 68 us instead of 61), and for the tail to keep
/// it for other readers.
const READ_AT_ONCE_BYTES: usize = 512 << 10;

/// Records up to this size are copied out of the memory that they share with others: keeping an item would keep them all.
const COPIED_BYTES_MAX: usize = 256 << 10;

/// Minimum time between two checks for more. Under load the journal's end moves a thousand times a second; lanes collect batches for longer
/// than this anyway, and waking one costs as much as a dozen spans.
const REST: Duration = Duration::from_millis(5);
/// The wait after a disk error before the next read.
const RETRY_READ: Duration = Duration::from_secs(1);

/// One consumer's path through the journal.
#[derive(Debug)]
pub struct Reader {
    journal: Journal<Attachment>,
    tail: Arc<Tail>,
    id: ReaderId,
    /// Whether followers may go where it has been.
    pub(super) leads: bool,
    pub(super) end: watch::Receiver<Mark>,
    /// Everything before this was returned.
    at: Mark,
    ready: VecDeque<FeedEntry>,
    disk: Option<journal::Reader>,
    /// A read in progress. Cancelling the wait does not cancel the read; the next call gets its result.
    reading: Option<JoinHandle<Read>>,
    woke_at: Instant,
    /// When to read again after a disk error.
    retry_at: Option<Instant>,
}

impl Reader {
    pub(super) fn of(journal: Journal<Attachment>, tail: Arc<Tail>, at: Mark) -> Self {
        let (id, end) = (tail.join(at.position), journal.watch_end());
        Self {
            journal,
            tail,
            id,
            leads: true,
            end,
            at,
            ready: VecDeque::new(),
            disk: None,
            reading: None,
            woke_at: Instant::now(),
            retry_at: None,
        }
    }

    /// Returns the next batch; waits until there is one. Safe to cancel: nothing is lost or skipped.
    pub async fn next(&mut self) -> FeedEntry {
        loop {
            if let Some(fed) = self.ready.pop_front() {
                self.at = fed.end;
                if self.ready.is_empty() {
                    self.tail.advance(self.id, self.at.position, self.leads);
                }
                return fed;
            }
            if let Some(reading) = &mut self.reading {
                let read = reading.await;
                self.reading = None;
                self.take(read);
                continue;
            }
            if let Some(at) = self.retry_at {
                sleep_until(at).await;
                self.retry_at = None;
            }
            let end = *self.end.borrow_and_update();
            match self.tail.look(self.at.position, TAKEN_AT_ONCE) {
                Look::Here(found) => {
                    self.disk = None;
                    self.ready = found.into();
                }
                Look::Behind(low) => self.begin_to_read(low),
                Look::AtEnd if self.at.position < end.position => self.begin_to_read(end.position),
                Look::AtEnd => self.rest().await,
            }
        }
    }

    /// Waits until there is more, but at least [`REST`] since the last time.
    async fn rest(&mut self) {
        // The journal outlives its readers, so the channel stays open.
        self.end.changed().await.unwrap_or_default();
        sleep_until(self.woke_at + REST).await;
        self.woke_at = Instant::now();
    }

    /// Creates another reader at the same position.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::of(self.journal.clone(), Arc::clone(&self.tail), self.at)
    }

    /// Returns the mark before which everything was returned.
    pub fn at(&self) -> Mark {
        self.at
    }

    /// Continues at another mark.
    pub fn seek(&mut self, to: Mark) {
        self.at = to;
        self.ready.clear();
        self.disk = None;
        self.reading = None;
        self.tail.advance(self.id, to.position, false);
    }

    /// Returns whether [`Reader::next`] can return without waiting for a new request.
    pub fn has_next(&self) -> bool {
        !self.ready.is_empty() || self.at.position < self.journal.end().position
    }

    fn begin_to_read(&mut self, up_to: Position) {
        let from = self.at;
        let disk = self.disk.take().filter(|disk| disk.position() == from.position);
        let disk = disk.unwrap_or_else(|| self.journal.read_from(from.position));
        self.reading = Some(tokio::task::spawn_blocking(move || read_some(disk, from, up_to)));
    }

    fn take(&mut self, read: Result<Read, JoinError>) {
        let failed = match read {
            Ok(read) => {
                self.tail.publish_again(self.at.position, &read.ready);
                self.ready = read.ready;
                self.disk = Some(read.disk);
                read.failed
            }
            Err(problem) => Some(problem.to_string()),
        };
        if let Some(problem) = failed {
            let position = self.at.position.0;
            error!(problem, position, "the journal cannot be read; retrying");
            self.disk = None;
            self.retry_at = Some(Instant::now() + RETRY_READ);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.tail.leave(self.id);
    }
}

#[derive(Debug)]
struct Read {
    disk: journal::Reader,
    ready: VecDeque<FeedEntry>,
    failed: Option<String>,
}

fn read_some(mut disk: journal::Reader, from: Mark, up_to: Position) -> Read {
    let mut ready = VecDeque::new();
    let (mut at, mut bytes) = (from, 0);
    while bytes < READ_AT_ONCE_BYTES && at.position < up_to {
        let read = disk.next_before(up_to).map_err(|problem| problem.to_string());
        let record = match read.and_then(|read| read.ok_or("it ends before its own end".to_owned()))
        {
            Ok(record) => record,
            Err(problem) => return Read { disk, ready, failed: Some(problem) },
        };
        let start = if record.payload.is_some() { record.start } else { at };
        bytes += record.payload.as_ref().map_or(0, Bytes::len);
        at = record.end;
        ready.push_back(decoded(&Record { start, ..record }));
    }
    Read { disk, ready, failed: None }
}

fn decoded(record: &Record) -> FeedEntry {
    let payload = match &record.payload {
        Some(short) if short.len() <= COPIED_BYTES_MAX => Some(Bytes::copy_from_slice(short)),
        payload => payload.clone(),
    };
    let (batch, not_understood) = match payload.as_ref().map(decode_record) {
        // The loss was reported when the damage was found; here it is only skipped and counted.
        None => (nothing(), None),
        Some(Ok((_, decoded))) => {
            let missing = record.items().saturating_sub(decoded.batch.items.len() as u64);
            if missing > 0 {
                let position = record.start.position.0;
                error!(
                    position,
                    missing,
                    "this version does not understand some items; their record becomes a dead letter of each sink"
                );
            }
            (decoded.batch, payload.filter(|_| missing > 0))
        }
        Some(Err(problem)) => {
            let position = record.start.position.0;
            error!(position, %problem, "this version does not understand a record; it becomes a dead letter of each sink");
            (nothing(), payload)
        }
    };
    FeedEntry {
        start: record.start,
        end: record.end,
        batch: Arc::new(batch),
        not_understood,
        filtered: 0,
    }
}

fn nothing() -> Batch {
    Batch { source: Source::unknown(), items: Vec::new(), bytes: 0 }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;
    use crate::feed::tests::{accept, item};
    use crate::feed::{Feed, FeedOptions};
    use crate::journal::tests::faulty::FaultyStorage;
    use crate::journal::{MemoryStorage, Options};

    /// Opens a feed without a tail, so that everything is read from disk.
    fn feed(disk: &FaultyStorage) -> Feed {
        let quarantine =
            Journal::open(&Options::default(), Arc::<MemoryStorage>::default(), drop).unwrap();
        let options = FeedOptions { tail_bytes_max: 0, ..FeedOptions::default() };
        Feed::open(&options, &Options::default(), Arc::new(disk.clone()), quarantine).unwrap()
    }

    /// Polls once, and gives up if there is nothing yet.
    async fn ask(reader: &mut Reader) -> Option<FeedEntry> {
        let mut next = std::pin::pin!(reader.next());
        poll_fn(|context| match next.as_mut().poll(context) {
            Poll::Ready(fed) => Poll::Ready(Some(fed)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn a_read_goes_on_when_nobody_waits_for_it_and_is_not_thrown_away() {
        let disk = FaultyStorage::default();
        let feed = feed(&disk);
        for id in ["a", "b"] {
            accept(&feed, &[item(id)]).await;
        }
        let mut reader = feed.reader(Mark::default());
        disk.forget_reads();
        disk.hold_reads();
        for _ in 0..100 {
            assert!(ask(&mut reader).await.is_none(), "the disk is slow");
            tokio::task::yield_now().await;
        }
        while !disk.has_a_read_that_waits() {
            tokio::task::yield_now().await;
        }
        disk.release_reads();
        let first = reader.next().await;
        assert_eq!((first.start.items, first.end.items), (0, 1));
        assert_eq!(reader.next().await.end, feed.journal().end());
        assert_eq!(disk.reads_of_one_block(), 1);
    }

    #[tokio::test]
    async fn a_lane_that_catches_up_reads_each_byte_once() {
        let disk = FaultyStorage::default();
        let feed = feed(&disk);
        let large = "x".repeat(150_000);
        for number in 0..40 {
            accept(&feed, &[item(&format!("{number}{large}"))]).await;
        }
        let mut reader = feed.reader(Mark::default());
        disk.forget_reads();
        let mut read = 0;
        while read < 40 {
            assert!(disk.bytes_read() < 64 << 20, "what is read is thrown away");
            match ask(&mut reader).await {
                Some(_) => read += 1,
                None => tokio::task::yield_now().await,
            }
        }
        assert_eq!(disk.reads_of_one_block(), 1);
        assert!(disk.bytes_read() <= usize::try_from(feed.journal().bytes()).unwrap() + 4096);
    }

    #[tokio::test]
    async fn a_short_record_does_not_keep_the_memory_that_it_was_read_into_with_others() {
        let feed = feed(&FaultyStorage::default());
        accept(&feed, &[item("short")]).await;
        accept(&feed, &[item(&"long".repeat(COPIED_BYTES_MAX / 4))]).await;
        let mut reader = feed.journal().read_from(Position(0));
        for is_copied in [true, false] {
            let record = reader.next().unwrap().unwrap();
            let wire = decoded(&record).batch.items[0].wire().as_ptr();
            assert_eq!(!record.payload.unwrap().as_ptr_range().contains(&wire), is_copied);
        }
    }

    #[tokio::test]
    async fn a_read_for_another_place_is_forgotten() {
        let disk = FaultyStorage::default();
        let feed = feed(&disk);
        for id in ["a", "b", "c"] {
            accept(&feed, &[item(id)]).await;
        }
        let mut reader = feed.reader(Mark::default());
        disk.hold_reads();
        assert!(ask(&mut reader).await.is_none());
        let first = feed.journal().end();
        reader.seek(first);
        disk.release_reads();
        accept(&feed, &[item("d")]).await;
        assert_eq!(reader.next().await.start, first);
    }
}
