//! Where appenders leave their records for the writer thread. It is bounded, and all that waits is taken at once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::retention::Admission;
use super::{AppendError, Entry, Mark};
use crate::support::lock::lock;

/// Records that may wait for the writer thread; more than any sane number of connections sends at once. Their bytes are bounded by
/// the log's budget, and by the receivers before that.
const WAITING_MAX: usize = 4096;

pub(super) type Answer = oneshot::Sender<Result<Mark, AppendError>>;

/// A record on its way to the writer thread.
#[derive(Debug)]
pub(super) struct Submitted<P> {
    pub(super) entry: Entry<P>,
    pub(super) payload_checksum: u32,
    pub(super) admission: Admission,
    pub(super) answer: Answer,
}

#[derive(Debug)]
pub(super) struct Inbox<P> {
    waiting: Mutex<Waiting<P>>,
    arrived: Condvar,
    slots: Semaphore,
}

#[derive(Debug)]
struct Waiting<P> {
    records: VecDeque<Submitted<P>>,
    is_closed: bool,
    /// The writer thread sleeps: somebody must wake it.
    is_watched: bool,
}

/// What the writer thread finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Records,
    /// Nobody came in the time given.
    Nothing,
    Closed,
}

impl<P> Inbox<P> {
    pub(super) fn new() -> Self {
        let waiting = Waiting { records: VecDeque::new(), is_closed: false, is_watched: false };
        Self {
            waiting: Mutex::new(waiting),
            arrived: Condvar::new(),
            slots: Semaphore::new(WAITING_MAX),
        }
    }

    /// Leaves a record. Waits while there are too many. Safe to cancel: then nothing was left.
    pub(super) async fn submit(&self, submitted: Submitted<P>) -> Result<(), AppendError> {
        // A closed semaphore means a closed inbox.
        self.slots.acquire().await.map_err(|_| AppendError::Closed)?.forget();
        let mut waiting = lock(&self.waiting);
        if waiting.is_closed {
            return Err(AppendError::Closed);
        }
        waiting.records.push_back(submitted);
        let wake = std::mem::take(&mut waiting.is_watched);
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Moves what waits into `group`, up to the bounds but at least one record. Without a patience it waits as long as it takes.
    pub(super) fn take(
        &self,
        group: &mut Vec<Submitted<P>>,
        bounds: GroupBounds,
        patience: Option<Duration>,
    ) -> Taken {
        let mut waiting = lock(&self.waiting);
        while waiting.records.is_empty() {
            if waiting.is_closed {
                return Taken::Closed;
            }
            waiting.is_watched = true;
            waiting = match patience {
                None => self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.arrived.wait_timeout(waiting, patience);
                    let (waiting, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
                    if outcome.timed_out() && waiting.records.is_empty() && !waiting.is_closed {
                        return Taken::Nothing;
                    }
                    waiting
                }
            };
        }
        let mut bytes = 0;
        while let Some(next) = waiting.records.front() {
            bytes += next.entry.payload_bytes();
            if !group.is_empty() && (bounds.bytes_max < bytes || bounds.records_max <= group.len())
            {
                break;
            }
            group.extend(waiting.records.pop_front());
        }
        drop(waiting);
        self.slots.add_permits(group.len());
        Taken::Records
    }

    /// Takes no more. What waits is still written.
    pub(super) fn close(&self) {
        lock(&self.waiting).is_closed = true;
        self.slots.close();
        self.arrived.notify_all();
    }

    /// Takes no more, and gives back what waits.
    pub(super) fn close_and_empty(&self) -> VecDeque<Submitted<P>> {
        self.close();
        std::mem::take(&mut lock(&self.waiting).records)
    }
}

/// How much is written and synced in one go.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupBounds {
    pub(super) bytes_max: u64,
    pub(super) records_max: usize,
}
