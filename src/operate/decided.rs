//! What rules with `decide = "trace"` decided of the traces that a replay brings: as a lane does, from what stands before them in the
//! journal and from what follows.

use std::sync::{Arc, Mutex};

use crate::feed::{Arrived, Decisions, Records, recall};
use crate::journal::{Journal, Mark, Position};
use crate::normalize::decode_record;
use crate::rules::{Decided, Rules};
use crate::span::{Batch, Item};
use crate::support::lock::lock;

/// Reads ahead of a replay. It blocks on the disk.
pub(super) struct Deciding {
    pub(super) table: Mutex<Decisions>,
    rules: Arc<Rules>,
    records: Records,
    fed_until: Position,
    /// What was read and is to be fed: its time was told.
    peeked: Option<(Batch, Position)>,
    is_over: bool,
}

impl Deciding {
    /// At the first record of a replay. What the journal has now is all that is waited for.
    pub(super) fn new(journal: &Journal<Arrived>, rules: &Arc<Rules>, start: Mark) -> Self {
        let (table, fed_until) = recall(journal, start, rules, 0);
        let records = Records::from(journal, fed_until);
        let (table, rules) = (Mutex::new(table), Arc::clone(rules));
        Self { table, rules, records, fed_until: fed_until.position, peeked: None, is_over: false }
    }

    /// What is known of the traces of a record that ends there.
    pub(super) fn of(&mut self, batch: &Batch, end: Mark) -> Decided {
        loop {
            let traces = batch.items.iter().map(Item::trace_id);
            let is_fed = end.position <= self.fed_until;
            if self.is_over || is_fed && lock(&self.table).decided_at_ns(traces).is_none() {
                return lock(&self.table).of_batch(batch);
            }
            self.read_on();
        }
    }

    fn read_on(&mut self) {
        if let Some((batch, end)) = self.peeked.take() {
            let survey = self.rules.survey(&batch);
            lock(&self.table).feed(batch.source.received_at_ns, survey);
            self.fed_until = end;
            return;
        }
        // A disk that fails is met by the replay itself.
        let Some(Ok(record)) = self.records.next() else {
            self.is_over = true;
            return;
        };
        let decoded = record.payload.as_ref().and_then(|payload| decode_record(payload).ok());
        match decoded {
            Some((_, decoded)) => {
                lock(&self.table).time.tell(decoded.batch.source.received_at_ns);
                self.peeked = Some((decoded.batch, record.end.position));
            }
            None => self.fed_until = record.end.position,
        }
    }
}
