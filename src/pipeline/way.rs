//! A lane's way through the journal: what comes next and, where rules wait for whole traces, what is known of these.
//!
//! For such rules the lane reads **ahead**: a second reader feeds a table of traces, and a record is given out once all of its traces are
//! decided. Until then it waits where it is, in the journal, so nothing is taken out of order. What was read ahead is not held: the
//! lane reads it again when it is its turn, from the tail or from the disk.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::traces::{IN_JOURNAL_WITHIN, READ_INLINE_ITEMS_MAX};
use crate::feed::{Arrived, Decisions, Fed, Reader, Undecided, recall};
use crate::journal::{Journal, Mark, Position};
use crate::rules::{Decided, Rules, Survey};
use crate::span::{Batch, Item};
use crate::support::clock::{self, nanos};
use crate::support::lock::lock;

/// Rules are applied where the lane runs to requests of up to so many bytes: a millisecond's work where each is searched.
const RULED_INLINE_BYTES_MAX: usize = 256 << 10;

/// What comes next, and which rules are for its traces.
pub(super) type Next = (Fed, Option<Decided>);

/// The way.
pub(super) struct Way {
    reader: Reader,
    ahead: Option<Ahead>,
}

struct Ahead {
    reader: Reader,
    rules: Arc<Rules>,
    table: Arc<Mutex<Decisions>>,
    /// Everything before this was fed.
    fed_until: Position,
    /// What was read ahead and is to be fed. Its time was told.
    peeked: Option<Fed>,
    /// What is to be fed of it, as it is found away from the runtime's threads.
    surveying: Option<JoinHandle<Survey>>,
    /// What is next to be given out.
    head: Option<Fed>,
    /// When it is decided, in the table's time, as it was known last: it may be later.
    head_due_ns: u64,
    /// Whether the lane is to end, and what is next waits for what has not been received.
    is_stuck: bool,
}

impl Way {
    /// Along this reader. One that decides of traces has another, which goes ahead.
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

    /// What is decided; `None` where no rule decides of traces.
    pub(super) fn decisions(&self) -> Option<Arc<Mutex<Decisions>>> {
        self.ahead.as_ref().map(|ahead| Arc::clone(&ahead.table))
    }

    /// Finds out what was decided of the traces before a mark, where the way goes on.
    pub(super) async fn look_back(&mut self, journal: &Journal<Arrived>, mark: Mark) {
        let Some(ahead) = &mut self.ahead else { return };
        let (journal, rules) = (journal.clone(), Arc::clone(&ahead.rules));
        let now_ns = everything_until_ns();
        let recalled = spawn_blocking(move || recall(&journal, mark, &rules, now_ns)).await;
        // When it panics, open traces are decided by what comes.
        let (table, fed_until) = recalled
            .unwrap_or_else(|_| (Decisions::new(ahead.rules.decide(), ahead.rules.kept()), mark));
        *lock(&ahead.table) = table;
        ahead.go_to(fed_until);
    }

    /// The next record, when its traces are decided. Safe to cancel. `None` where the lane is to end and what is next is not decided by
    /// what the journal has: it waits there.
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
            let due_at = instant_of(ahead.told_at_ns());
            tokio::select! {
                peeked = ahead.reader.next() => ahead.peek(peeked),
                () = sleep_until(due_at) => {}
            }
        }
    }

    /// Whether there is something to come without waiting for a request to arrive.
    pub(super) fn has_next(&self) -> bool {
        self.head().is_some() || self.reader.has_next()
    }

    /// Whether nothing can come before a request arrives, or time goes by.
    pub(super) fn is_stuck(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| ahead.is_stuck)
    }

    /// When what waits to be decided was received, in nanoseconds since 1970.
    pub(super) fn waits_since_ns(&self) -> Option<u64> {
        self.head().map(|head| head.batch.source.received_at_ns)
    }

    fn head(&self) -> Option<&Fed> {
        self.ahead.as_ref()?.head.as_ref()
    }

    /// Goes on at another mark. What was fed is known.
    pub(super) fn seek(&mut self, mark: Mark) {
        self.reader.seek(mark);
        if let Some(ahead) = &mut self.ahead {
            (ahead.head, ahead.is_stuck) = (None, false);
            if ahead.fed_until < mark.position {
                ahead.go_to(mark);
            }
        }
    }

    /// How many traces are remembered, and how many were kept without a decision.
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

    /// What is next, if it was fed and is decided.
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

    /// When it is due by the clock.
    fn told_at_ns(&self) -> u64 {
        lock(&self.table).time.told_for(self.head_due_ns).saturating_add(nanos(IN_JOURNAL_WITHIN))
    }

    /// What is decided by the time at which this was received is given out before it is fed.
    fn peek(&mut self, peeked: Fed) {
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
            // The runtime ends, and nothing is given out any more.
            survey.unwrap_or_default()
        } else {
            self.rules.survey(&peeked.batch)
        };
        lock(&self.table).feed(peeked.batch.source.received_at_ns, survey);
        self.fed_until = peeked.end.position;
        self.peeked = None;
    }
}

/// Everything that was received before this is in the journal, unless that is full.
fn everything_until_ns() -> u64 {
    clock::unix_now_ns().saturating_sub(nanos(IN_JOURNAL_WITHIN))
}

/// A time of the wall clock as one to wake up at.
pub(super) fn instant_of(unix_ns: u64) -> Instant {
    Instant::now() + Duration::from_nanos(unix_ns.saturating_sub(clock::unix_now_ns()))
}

/// Whether a request is so much that rules are applied to it away from the runtime's threads.
pub(super) fn is_much(batch: &Batch) -> bool {
    batch.items.len() > READ_INLINE_ITEMS_MAX || batch.bytes > RULED_INLINE_BYTES_MAX
}
