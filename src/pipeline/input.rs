//! A lane's path through the journal: the next record and, if rules wait for whole traces, the decisions on its traces.
//!
//! For such rules the lane reads **ahead**: a second reader feeds a table of traces, and a record is released once all of its traces are
//! decided. Until then it waits in the journal, so the order is kept. Records read ahead are not held in memory: the lane reads them again
//! in turn, from the tail or from disk.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::traces::{IN_JOURNAL_WITHIN, READ_INLINE_ITEMS_MAX};
use crate::feed::{Attachment, Decisions, FeedEntry, Reader, Undecided, recall};
use crate::journal::{Journal, Mark, Position};
use crate::rules::{Decided, Rules, UndecidedRequest};
use crate::span::{Batch, Item};
use crate::support::clock::{self, nanos};
use crate::support::lock::lock;

/// Maximum size of requests to which rules are applied on the lane's own task, in bytes: a millisecond's work if each is searched.
const RULED_INLINE_BYTES_MAX: usize = 256 << 10;

/// The next record, and the decisions on its traces.
pub(super) type Next = (FeedEntry, Option<Decided>);

/// See the module documentation.
pub(super) struct LaneInput {
    reader: Reader,
    ahead: Option<Ahead>,
}

struct Ahead {
    reader: Reader,
    rules: Arc<Rules>,
    table: Arc<Mutex<Decisions>>,
    /// Everything before this was fed.
    fed_until: Position,
    /// A record that was read ahead and is not fed yet; the table knows its time.
    peeked: Option<FeedEntry>,
    /// Its survey, while that is computed off the runtime's threads.
    surveying: Option<JoinHandle<UndecidedRequest>>,
    /// The record to release next.
    head: Option<FeedEntry>,
    /// When `head` is decided, in the table's time, as far as known: it may be later.
    head_due_ns: u64,
    /// Whether the lane is ending while `head` waits for records that have not been received.
    is_stuck: bool,
}

impl LaneInput {
    /// Creates a path along `reader`, with a second reader ahead if rules decide on traces.
    pub(super) fn new(reader: Reader, rules: &Arc<Rules>) -> Self {
        let ahead = rules.wait_for_traces().then(|| Ahead {
            reader: reader.another(),
            rules: Arc::clone(rules),
            table: Arc::new(Mutex::new(Decisions::new(rules.decide(), rules.kept()))),
            fed_until: reader.at().position,
            peeked: None,
            surveying: None,
            head: None,
            head_due_ns: 0,
            is_stuck: false,
        });
        Self { reader, ahead }
    }

    /// Returns the decisions; `None` if no rule decides on traces.
    pub(super) fn decisions(&self) -> Option<Arc<Mutex<Decisions>>> {
        self.ahead.as_ref().map(|ahead| Arc::clone(&ahead.table))
    }

    /// Restores the decisions on traces before `mark`, where the path continues.
    pub(super) async fn look_back(&mut self, journal: &Journal<Attachment>, mark: Mark) {
        let Some(ahead) = &mut self.ahead else { return };
        let (journal, rules) = (journal.clone(), Arc::clone(&ahead.rules));
        let now_ns = everything_until_ns();
        let recalled = spawn_blocking(move || recall(&journal, mark, &rules, now_ns)).await;
        // After a panic, open traces are decided by later records.
        let (table, fed_until) = recalled
            .unwrap_or_else(|_| (Decisions::new(ahead.rules.decide(), ahead.rules.kept()), mark));
        *lock(&ahead.table) = table;
        ahead.go_to(fed_until);
    }

    /// Returns the next record once its traces are decided. Safe to cancel. Returns `None` if the lane is ending and the journal does not
    /// decide the next record, which waits there.
    pub(super) async fn next(&mut self, is_ending: bool) -> Option<Next> {
        let Some(ahead) = &mut self.ahead else { return Some((self.reader.next().await, None)) };
        loop {
            if ahead.head.is_none() {
                ahead.head = Some(self.reader.next().await);
                ahead.head_due_ns = 0;
            }
            if let Some(next) = ahead.take_decided() {
                return Some(next);
            }
            if ahead.peeked.is_some() {
                ahead.feed().await;
                continue;
            }
            if ahead.reader.has_next() {
                let peeked = ahead.reader.next().await;
                ahead.peek(peeked);
                continue;
            }
            lock(&ahead.table).time.pass(everything_until_ns());
            if let Some(next) = ahead.take_decided() {
                return Some(next);
            }
            if is_ending {
                ahead.is_stuck = true;
                return None;
            }
            let told_at_ns = lock(&ahead.table).time.told_for(ahead.head_due_ns);
            let due_at = instant_of(told_at_ns.saturating_add(nanos(IN_JOURNAL_WITHIN)));
            tokio::select! {
                peeked = ahead.reader.next() => ahead.peek(peeked),
                () = sleep_until(due_at) => {}
            }
        }
    }

    /// Returns whether a record can come without waiting for a new request.
    pub(super) fn has_next(&self) -> bool {
        self.head().is_some() || self.reader.has_next()
    }

    /// Returns whether no record can come before a new request arrives or time passes.
    pub(super) fn is_stuck(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| ahead.is_stuck)
    }

    /// Returns when the undecided record was received, in nanoseconds since 1970.
    pub(super) fn waits_since_ns(&self) -> Option<u64> {
        self.head().map(|head| head.batch.source.received_at_ns)
    }

    fn head(&self) -> Option<&FeedEntry> {
        self.ahead.as_ref()?.head.as_ref()
    }

    /// Continues at another mark. Records that were fed need not be fed again.
    pub(super) fn seek(&mut self, mark: Mark) {
        self.reader.seek(mark);
        if let Some(ahead) = &mut self.ahead {
            (ahead.head, ahead.is_stuck) = (None, false);
            if ahead.fed_until < mark.position {
                ahead.go_to(mark);
            }
        }
    }

    /// Returns the number of remembered traces, and of those kept without a decision.
    pub(super) fn figures(&self) -> Option<(usize, Undecided)> {
        let table = lock(&self.ahead.as_ref()?.table);
        Some((table.remembered(), table.undecided()))
    }
}

impl Ahead {
    fn go_to(&mut self, mark: Mark) {
        (self.peeked, self.surveying, self.head) = (None, None, None);
        self.fed_until = mark.position;
        self.reader.seek(mark);
    }

    /// Takes the head if it was fed and is decided.
    fn take_decided(&mut self) -> Option<Next> {
        let head = self.head.take_if(|head| head.end.position <= self.fed_until)?;
        let mut table = lock(&self.table);
        if table.time.now_ns() < self.head_due_ns {
            self.head = Some(head);
            return None;
        }
        if let Some(due_ns) = table.decided_at_ns(head.batch.items.iter().map(Item::trace_id)) {
            self.head_due_ns = due_ns;
            self.head = Some(head);
            return None;
        }
        let known = table.of_batch(&head.batch);
        drop(table);
        Some((head, Some(known)))
    }

    /// Advances the table's time to when this record was received, so that traces decided by then are released before it is fed.
    fn peek(&mut self, peeked: FeedEntry) {
        lock(&self.table).time.tell(peeked.batch.source.received_at_ns);
        self.peeked = Some(peeked);
    }

    async fn feed(&mut self) {
        let Some(peeked) = &self.peeked else { return };
        let survey = if self.surveying.is_some() || is_much(&peeked.batch) {
            let surveying = self.surveying.get_or_insert_with(|| {
                let (rules, batch) = (Arc::clone(&self.rules), Arc::clone(&peeked.batch));
                spawn_blocking(move || rules.survey(&batch))
            });
            let survey = surveying.await;
            self.surveying = None;
            // The runtime is shutting down, and nothing is released any more.
            survey.unwrap_or_default()
        } else {
            self.rules.survey(&peeked.batch)
        };
        lock(&self.table).feed(peeked.batch.source.received_at_ns, survey);
        self.fed_until = peeked.end.position;
        self.peeked = None;
    }
}

/// Returns the time before which every received request is in the journal, unless that is full.
fn everything_until_ns() -> u64 {
    clock::unix_now_ns().saturating_sub(nanos(IN_JOURNAL_WITHIN))
}

/// Converts a wall clock time to an instant for a timer.
pub(super) fn instant_of(unix_ns: u64) -> Instant {
    Instant::now() + Duration::from_nanos(unix_ns.saturating_sub(clock::unix_now_ns()))
}

/// Returns whether a request is so large that rules are applied to it off the runtime's threads.
pub(super) fn is_much(batch: &Batch) -> bool {
    batch.items.len() > READ_INLINE_ITEMS_MAX || batch.bytes > RULED_INLINE_BYTES_MAX
}
