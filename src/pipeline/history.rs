//! Replays of what the journal still keeps, once more to one sink, and what there is of it.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::known::delivery_of;
use super::replay::off_thread;
use super::{BatchLimits, Progress, ReplayError, Way};
use crate::feed::{Arrived, Traces, look_back};
use crate::journal::{self, Journal, Mark, Position, ReadError};
use crate::normalize::{Envelope, decode_record};
use crate::sinks::Delivery;
use crate::span::{Batch, TraceId, TraceNeeds};

/// Which part of the journal is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stretch {
    /// What was received at this time or later, in nanoseconds since 1970.
    pub from_ns: Option<u64>,
    /// What was received before this time, in nanoseconds since 1970.
    pub to_ns: Option<u64>,
    /// Of this trace.
    pub trace: Option<TraceId>,
}

/// What a stretch of the journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Per receiver, by its name.
    pub receivers: BTreeMap<String, ReceiverCensus>,
    /// Items that are meant but that the sink's own lane has not delivered yet; it will, so they are not replayed.
    pub pending: u64,
    /// Items that cannot be read, or not be understood by this version.
    pub unreadable: u64,
    /// When the oldest record that is kept was received, in nanoseconds since 1970; `None` for an empty journal.
    pub oldest_ns: Option<u64>,
    /// Whether records have been removed that may have been meant.
    pub begins_late: bool,
}

/// What came through one receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverCensus {
    /// Requests.
    pub records: u64,
    /// Items.
    pub items: u64,
    /// When the first was received, in nanoseconds since 1970.
    pub first_ns: u64,
    /// When the last was received, in nanoseconds since 1970.
    pub last_ns: u64,
}

impl Census {
    /// Items to be replayed.
    pub fn items(&self) -> u64 {
        self.receivers.values().map(|receiver| receiver.items).sum()
    }
}

/// Counts what a replay up to a position would deliver.
pub async fn count(
    journal: &Journal<Arrived>,
    stretch: Stretch,
    until: Position,
) -> Result<Census, ReplayError> {
    let journal = journal.clone();
    off_thread(move || take_census(&journal, stretch, until)).await
}

fn take_census(
    journal: &Journal<Arrived>,
    stretch: Stretch,
    until: Position,
) -> io::Result<Census> {
    let mut census = Census::default();
    let mut records = Records::of(journal);
    let is_first_day = journal.start().position == Position::default();
    while let Some(read) = records.next()? {
        let (stored, envelope) = match read {
            Read::Record(record) => *record,
            Read::Lost(items) => {
                census.unreadable += items;
                continue;
            }
        };
        let received_at_ns = envelope.source.received_at_ns;
        if census.oldest_ns.is_none() {
            census.oldest_ns = Some(received_at_ns);
            let wants_earlier = stretch.from_ns.is_none_or(|from| from < received_at_ns);
            census.begins_late = !is_first_day && wants_earlier;
        }
        if !stretch.takes_time(received_at_ns) {
            continue;
        }
        let items = match stretch.trace {
            None => stored.end.items.saturating_sub(stored.start.items),
            Some(trace) => match decode_record(&stored.payload) {
                Ok((_, decoded)) => {
                    let items = decoded.batch.items.iter();
                    items.filter(|item| item.trace_id() == trace).count() as u64
                }
                Err(_) => 0,
            },
        };
        if items == 0 {
            continue;
        }
        if until <= stored.start.position {
            census.pending += items;
            continue;
        }
        let name = envelope.source.receiver.as_str().to_owned();
        let receiver = census.receivers.entry(name).or_default();
        if receiver.records == 0 {
            receiver.first_ns = received_at_ns;
        }
        receiver.records += 1;
        receiver.items += items;
        receiver.first_ns = receiver.first_ns.min(received_at_ns);
        receiver.last_ns = receiver.last_ns.max(received_at_ns);
    }
    Ok(census)
}

/// Delivers a stretch of the journal, up to a position, once more. The lane's own cursor stays where it is. `progress` follows.
pub async fn replay_journal(
    journal: &Journal<Arrived>,
    stretch: Stretch,
    until: Position,
    way: &Way,
    progress: &watch::Sender<Progress>,
) -> Result<(), ReplayError> {
    let mut records = Records::of(journal);
    let mut retold = way.trace_needs().map(Retold::new);
    loop {
        let (limits, journal) = (way.limits(), journal.clone());
        let (gathered, roots);
        (records, retold, gathered, roots) = off_thread(move || {
            let gathered = records.gather((&journal, stretch, until), limits, retold.as_mut())?;
            let quiet = if gathered.is_end { Quiet::Forever } else { Quiet::SoFar };
            let roots = retold.as_mut().map(|retold| retold.roots(quiet, limits.items_max));
            Ok((records, retold, gathered, roots.unwrap_or_default()))
        })
        .await?;
        let items = gathered.delivery.len() as u64;
        progress.send_modify(|progress| {
            progress.items += items + gathered.not_understood;
            progress.not_understood += gathered.not_understood;
            progress.unreadable += gathered.lost;
        });
        if items > 0 {
            let reported = way.deliver(gathered.delivery).await?;
            progress.send_modify(|progress| {
                progress.delivered += items.saturating_sub(reported.len() as u64);
                for item in reported {
                    progress.reject(item.reason, 1);
                }
            });
        }
        for delivery in roots {
            // They are no items: what a root says, its spans have said, so a root that is rejected is nothing lost.
            way.deliver(delivery).await?;
        }
        if gathered.is_end {
            return Ok(());
        }
    }
}

/// The records that the journal keeps, with what cannot be read between them.
struct Records {
    reader: journal::Reader,
    end: Mark,
    /// Items before what is read next.
    items: u64,
}

enum Read {
    Record(Box<(journal::Stored, Envelope)>),
    /// So many items.
    Lost(u64),
}

/// One delivery's worth of the journal.
#[derive(Default)]
struct Gathered {
    delivery: Delivery,
    not_understood: u64,
    lost: u64,
    is_end: bool,
}

impl Records {
    fn of(journal: &Journal<Arrived>) -> Self {
        let start = journal.start();
        let reader = journal.read_from(start.position);
        Self { reader, end: journal.end(), items: start.items }
    }

    fn next(&mut self) -> io::Result<Option<Read>> {
        if self.end.position <= self.reader.position() {
            return Ok(None);
        }
        let before = self.items;
        match self.reader.next() {
            Ok(None) => Ok(None),
            Ok(Some(stored)) => {
                self.items = stored.end.items;
                let items = stored.end.items.saturating_sub(stored.start.items);
                Ok(Some(match Envelope::split(&stored.payload) {
                    Ok((envelope, _)) => Read::Record(Box::new((stored, envelope))),
                    Err(_) => Read::Lost(items),
                }))
            }
            Err(ReadError::Damaged { resume, .. } | ReadError::Removed { resume, .. }) => {
                self.items = resume.items;
                Ok(Some(Read::Lost(resume.items.saturating_sub(before))))
            }
            Err(ReadError::Storage(problem)) => Err(problem),
        }
    }

    fn gather(
        &mut self,
        (journal, stretch, until): (&Journal<Arrived>, Stretch, Position),
        limits: BatchLimits,
        mut retold: Option<&mut Retold>,
    ) -> io::Result<Gathered> {
        let mut gathered = Gathered::default();
        while !limits.is_met_by(&gathered.delivery) {
            if until <= self.reader.position() {
                gathered.is_end = true;
                break;
            }
            let (stored, envelope) = match self.next()? {
                Some(Read::Record(record)) => *record,
                Some(Read::Lost(items)) => {
                    gathered.lost += items;
                    continue;
                }
                None => {
                    gathered.is_end = true;
                    break;
                }
            };
            let is_meant = stretch.takes_time(envelope.source.received_at_ns);
            // What follows is read too where traces matter: a root says what all of its spans say.
            if !is_meant && !retold.as_ref().is_some_and(|retold| retold.has_begun) {
                continue;
            }
            let Ok((_, decoded)) = decode_record(&stored.payload) else {
                if is_meant {
                    gathered.not_understood += stored.end.items.saturating_sub(stored.start.items);
                }
                continue;
            };
            let mut batch = decoded.batch;
            if let Some(retold) = &mut retold {
                retold.read(journal, stored.start, &batch);
            }
            if !is_meant {
                continue;
            }
            if let Some(trace) = stretch.trace {
                batch.items.retain(|item| item.trace_id() == trace);
            }
            let items = batch.items.len();
            if items > 0 {
                gathered.delivery.add(&Arc::new(batch), 0..items);
            }
        }
        if let Some(retold) = retold {
            gathered.delivery = retold.with_contexts(gathered.delivery);
        }
        Ok(gathered)
    }
}

/// What a replay knows of the traces that it tells again, for a sink that wants to know: as a lane does, from what it reads and
/// from what stands before that.
struct Retold {
    traces: Traces,
    needs: TraceNeeds,
    has_begun: bool,
    /// When what was read last was received, in nanoseconds since 1970.
    last_ns: u64,
    /// Traces with items in the replay, whose roots are to follow them.
    replayed: HashSet<TraceId>,
}

/// Which traces are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quiet {
    /// Those that were quiet in what was read so far.
    SoFar,
    /// All: there is no more to read.
    Forever,
}

impl Retold {
    fn new(needs: TraceNeeds) -> Self {
        // What was told is told again in its order; nothing of it goes a third time.
        let needs = TraceNeeds { replaces_by_id: false, ..needs };
        let traces = Traces::new(needs, 0);
        Self { traces, needs, has_begun: false, last_ns: 0, replayed: HashSet::new() }
    }

    fn read(&mut self, journal: &Journal<Arrived>, start: Mark, batch: &Batch) {
        if !self.has_begun {
            look_back(journal, start, &mut self.traces);
            self.has_begun = true;
        }
        self.last_ns = self.last_ns.max(batch.source.received_at_ns);
        self.traces.feed(batch, start.position);
        self.traces.settle(self.traces.feeds());
    }

    fn with_contexts(&mut self, delivery: Delivery) -> Delivery {
        self.replayed.extend(delivery.items().map(|(_, item)| item.trace_id()));
        let contexts = self.traces.contexts(delivery.items().map(|(_, item)| item));
        delivery.with_contexts(contexts)
    }

    /// The roots of traces that were replayed and are over.
    fn roots(&mut self, quiet: Quiet, count_max: usize) -> Vec<Delivery> {
        if quiet == Quiet::Forever {
            let wait_ns = u64::try_from(self.needs.quiet.as_nanos()).unwrap_or(u64::MAX);
            self.traces.advance(self.last_ns.saturating_add(wait_ns));
        }
        let mut deliveries = Vec::new();
        while let Some(due) = self.traces.take_roots(count_max, self.traces.feeds()) {
            let roots = due.roots.into_iter();
            let roots = roots.filter(|root| self.replayed.remove(&root.span.trace_id)).collect();
            deliveries.extend(delivery_of(roots));
        }
        deliveries
    }
}

impl Stretch {
    fn takes_time(&self, received_at_ns: u64) -> bool {
        self.from_ns.is_none_or(|from| from <= received_at_ns)
            && self.to_ns.is_none_or(|to| received_at_ns < to)
    }
}
