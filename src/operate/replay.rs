//! Replays: dead letters or a range of the journal delivered again to a sink, and the quarantine received again into the journal.
//!
//! A replay reads a journal with a filter, off the runtime's threads and one delivery ahead, and passes deliveries to the sink's lane as
//! jobs. Delivery is at least once: if a replay is interrupted or a daemon dies, the next replay resends items that were delivered but not
//! yet resolved.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use super::command::{CommandError, ItemCount, Progress, off_thread};
use super::store::{Entry, Range, Resolver, Selection};
use crate::feed::{
    Attachment, Deciding, Decisions, DecodedRequest, Intake, Records, Traces, look_back,
};
use crate::journal::{Journal, Mark, Position, Record};
use crate::normalize::{Envelope, Limits, Outcome, decode_record};
use crate::pipeline::{JobHandle, LaneHandle, Rejected, delivery_of};
use crate::rules::{BeforeJournal, KnownTraces, Ruled, Rules};
use crate::sinks::Delivery;
use crate::span::{Batch, TraceId, TraceNeeds};
use crate::support::clock::nanos;

// === Reading ===

/// The items that are read, and the task that reads them, with its result.
type Reading<T, R> = (mpsc::Receiver<T>, JoinHandle<io::Result<R>>);

/// Reads off the runtime's threads, because it blocks on the disk, one item ahead. Stops once the receiver is gone.
fn reading<T: Send + 'static, R: Send + 'static>(
    read: impl FnOnce(&mut dyn FnMut(T) -> bool) -> io::Result<R> + Send + 'static,
) -> Reading<T, R> {
    let (sender, items) = mpsc::channel(1);
    (items, spawn_blocking(move || read(&mut |item| sender.blocking_send(item).is_ok())))
}

/// One delivery of a replay.
#[derive(Default)]
struct Chunk {
    delivery: Delivery,
    /// For each batch of the delivery, the id and the number of items of its entry; empty for the journal.
    entries: Vec<(u64, u64)>,
    /// Entries that the sink's rules drop completely.
    filtered: Vec<(u64, u64)>,
    /// Items that this version cannot decode.
    not_understood: u64,
    /// Items that cannot be read.
    unreadable: u64,
    /// Roots of traces, to be sent after it.
    roots: Vec<Delivery>,
}

/// Delivers what is read through a lane. `resolve` records what was delivered, and `progress` is updated. Returns the reader's result.
async fn deliver<R: Send + 'static>(
    (mut chunks, read): Reading<Chunk, R>,
    jobs: &JobHandle,
    resolve: Option<(&Resolver, &str, Outcome)>,
    progress: &watch::Sender<Progress>,
) -> Result<R, CommandError> {
    while let Some(chunk) = chunks.recv().await {
        let mut items = match &chunk.entries[..] {
            [] => chunk.delivery.len() as u64,
            entries => entries.iter().map(|(_, items)| items).sum(),
        };
        progress.send_modify(|progress| {
            progress.items += items + chunk.not_understood;
            progress.not_understood += chunk.not_understood;
            progress.unreadable += chunk.unreadable;
        });
        let rejected = if chunk.delivery.is_empty() {
            Vec::new()
        } else {
            jobs.deliver(chunk.delivery).await?
        };
        if let Some((resolver, sink, outcome)) = resolve {
            // Entries that another sink's rules drop stay with their own sink.
            if outcome == Outcome::Delivered {
                resolver.resolve(sink, Outcome::Dropped, chunk.filtered).await?;
            }
            let is_rejected = |at: usize| rejected.iter().any(|item| item.batch == at);
            let arrived = chunk.entries.iter().enumerate();
            let arrived = arrived.filter(|(at, _)| !is_rejected(*at)).map(|(_, entry)| *entry);
            resolver.resolve(sink, outcome, arrived).await?;
        }
        progress.send_modify(|progress| {
            for (reason, lost) in by_reason(rejected, &chunk.entries) {
                items = items.saturating_sub(lost);
                progress.reject(reason, lost);
            }
            progress.delivered += items;
        });
        for roots in chunk.roots {
            // Roots are not items: they repeat what their spans contain, so a rejected root loses nothing.
            jobs.deliver(roots).await?;
        }
    }
    Ok(read.await.map_err(io::Error::other)??)
}

/// Returns the items lost per rejection: all of its entry's, which stays as it is, counted once.
fn by_reason(rejected: Vec<Rejected>, entries: &[(u64, u64)]) -> Vec<(String, u64)> {
    let mut seen = HashSet::new();
    let items = rejected.into_iter().filter_map(|Rejected { batch, reason }| {
        let Some((_, items)) = entries.get(batch) else { return Some((reason, 1)) };
        seen.insert(batch).then_some((reason, *items))
    });
    items.collect()
}

// === Entries ===

/// Delivers the selected entries of one sink through a lane, and resolves those that are delivered with `outcome`. Updates `progress`.
pub async fn replay_entries(
    resolver: &Resolver,
    (sink, selection): (&str, &Selection),
    (jobs, outcome): (&JobHandle, Outcome),
    progress: &watch::Sender<Progress>,
) -> Result<(), CommandError> {
    let selection = Selection { sink: Some(sink.to_owned()), ..selection.clone() };
    let (store, limits) = (resolver.store.clone(), jobs.lane.limits);
    let rules = Arc::clone(&jobs.lane.status.rules);
    let chunks = reading(move |give| {
        let mut chunk = Chunk::default();
        for entry in store.entries(selection)? {
            chunk.add_entry(&entry?, &rules);
            if limits.is_met_by(&chunk.delivery) && !give(std::mem::take(&mut chunk)) {
                break;
            }
        }
        give(chunk);
        Ok(())
    });
    deliver(chunks, jobs, Some((resolver, sink, outcome)), progress).await
}

impl Chunk {
    /// Adds what the sink's rules leave of an entry.
    fn add_entry(&mut self, entry: &Entry, rules: &Rules) {
        let Some(decoded) = entry.understood() else {
            self.not_understood += entry.items;
            return;
        };
        // It was kept when it became a dead letter.
        let Ruled { batch, filtered, .. } =
            rules.apply_again(&Arc::new(decoded.batch), KnownTraces::Kept);
        if batch.items.is_empty() && filtered > 0 {
            self.filtered.push((entry.id, entry.items));
        } else {
            self.delivery.add(&batch, 0..batch.items.len());
            self.entries.push((entry.id, entry.items));
        }
    }
}

/// Drops the selected entries. Returns the number of their items.
pub async fn drop_entries(resolver: &Resolver, selection: Selection) -> Result<u64, CommandError> {
    let store = resolver.store.clone();
    let by_sink = off_thread(move || {
        let mut by_sink: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for entry in store.entries(selection)? {
            let entry = entry?;
            by_sink.entry(entry.aside.sink).or_default().push((entry.id, entry.items));
        }
        Ok(by_sink)
    });
    let mut dropped = 0;
    for (sink, entries) in by_sink.await? {
        dropped += resolver.resolve(&sink, Outcome::Dropped, entries).await?;
    }
    Ok(dropped)
}

/// Receives the selected entries of the quarantine again, as far as this version can decode them. After these rules, they go to every sink
/// like any request, and are resolved. Updates `progress`.
pub async fn receive_entries(
    resolver: &Resolver,
    selection: Selection,
    (intake, rules): (&Intake, Option<Arc<BeforeJournal>>),
    progress: &watch::Sender<Progress>,
) -> Result<(), CommandError> {
    let store = resolver.store.clone();
    let (mut arrivals, read) = reading(move |give| {
        for entry in store.entries(selection)? {
            if !give(again(entry?, rules.as_deref())) {
                break;
            }
        }
        Ok(())
    });
    while let Some(((id, items), arrival)) = arrivals.recv().await {
        let Some(arrival) = arrival else {
            progress.send_modify(|progress| {
                progress.items += items;
                progress.not_understood += items;
            });
            continue;
        };
        // The quarantine belongs to no sink.
        if arrival.decoded.batch.items.is_empty() {
            resolver.resolve("", Outcome::Dropped, [(id, items)]).await?;
            continue;
        }
        intake.accept(arrival).await?;
        let received = resolver.resolve("", Outcome::Delivered, [(id, items)]).await?;
        progress.send_modify(|progress| {
            progress.items += received;
            progress.delivered += received;
        });
    }
    Ok(read.await.map_err(io::Error::other)??)
}

/// Turns an entry of the quarantine, named by its id and its number of items, into a new request. No rule has seen its items yet, and rules
/// may have changed. Returns `None` if this version cannot decode all of it, or if it cannot be redacted as the rules require.
fn again(entry: Entry, rules: Option<&BeforeJournal>) -> ((u64, u64), Option<DecodedRequest>) {
    let (name, decoded) = ((entry.id, entry.items), entry.understood());
    let Entry { mut envelope, body, .. } = entry;
    let clean = |decoded| match rules {
        None => Some(DecodedRequest { envelope, sent: body, decoded }),
        Some(rules) => {
            // Decodable entries of the quarantine are not compressed.
            let kept = rules.clean(&mut envelope, body.clone(), &body, decoded, &Limits::default());
            let kept = kept.ok().filter(|(_, decoded, _)| decoded.refused.is_empty());
            kept.map(|(sent, decoded, _)| DecodedRequest { envelope, sent, decoded })
        }
    };
    (name, decoded.and_then(clean))
}

// === The journal ===

/// Delivers a range of the journal, up to a position, again, or only counts it if there is no lane. Records after the position are pending
/// and will be delivered by the sink's lane, whose cursor does not move. Updates `progress`.
pub async fn replay_journal(
    journal: &Journal<Attachment>,
    (range, until): (Range, Position),
    jobs: Option<&JobHandle>,
    progress: &watch::Sender<Progress>,
) -> Result<ItemCount, CommandError> {
    let source = JournalReplay {
        journal: journal.clone(),
        range,
        until,
        lane: jobs.map(|jobs| jobs.lane.clone()),
        decided: None,
        traces: None,
        last_ns: 0,
        replayed: HashSet::new(),
        census: ItemCount::default(),
    };
    match jobs {
        Some(jobs) => deliver(reading(|give| source.read(give)), jobs, None, progress).await,
        None => off_thread(move || source.read(&mut |_| true)).await,
    }
}

/// Reads a range of the journal and counts its items.
struct JournalReplay {
    journal: Journal<Attachment>,
    range: Range,
    until: Position,
    /// The sink's lane; `None` if nothing is delivered.
    lane: Option<LaneHandle>,
    decided: Option<Deciding>,
    /// For a sink that needs trace contexts: as in its lane, from the records read and those before them.
    traces: Option<Traces>,
    /// When the last record that was read for these was received, in nanoseconds since 1970.
    last_ns: u64,
    /// Traces with items in the replay, whose roots follow them.
    replayed: HashSet<TraceId>,
    census: ItemCount,
}

impl JournalReplay {
    fn read(mut self, give: &mut dyn FnMut(Chunk) -> bool) -> io::Result<ItemCount> {
        let mut chunk = Chunk::default();
        for record in Records::all(&self.journal) {
            self.add(&record?, &mut chunk);
            let is_met =
                self.lane.as_ref().is_some_and(|lane| lane.limits.is_met_by(&chunk.delivery));
            if is_met && !give(self.with_traces(std::mem::take(&mut chunk), false)) {
                return Ok(self.census);
            }
        }
        give(self.with_traces(chunk, true));
        Ok(self.census)
    }

    /// Adds trace contexts to a chunk, and the roots of replayed traces that have been quiet in the records read; at the end, of all traces.
    fn with_traces(&mut self, mut chunk: Chunk, is_over: bool) -> Chunk {
        let (Some(traces), Some(lane)) = (&mut self.traces, &self.lane) else { return chunk };
        self.replayed.extend(chunk.delivery.items().map(|(_, item)| item.trace_id()));
        let contexts = traces.contexts(chunk.delivery.items().map(|(_, item)| item));
        chunk.delivery = chunk.delivery.with_contexts(contexts);
        if is_over {
            let quiet = lane.trace_needs.unwrap_or_default().quiet;
            traces.advance(self.last_ns.saturating_add(nanos(quiet)));
        }
        while let Some(due) = traces.take_roots(lane.limits.items_max) {
            let roots = due.roots.into_iter();
            let roots = roots.filter(|root| self.replayed.remove(&root.span.trace_id));
            chunk.roots.extend(delivery_of(roots.collect()));
        }
        chunk
    }

    fn add(&mut self, record: &Record, chunk: &mut Chunk) {
        let items = record.items();
        let is_pending = self.until <= record.start.position;
        let payload = record.payload.as_ref();
        let Some((payload, (envelope, _))) =
            payload.and_then(|payload| Some((payload, Envelope::split(payload).ok()?)))
        else {
            self.census.unreadable += items;
            chunk.unreadable += if is_pending { 0 } else { items };
            return;
        };
        let received_at_ns = envelope.source.received_at_ns;
        if self.census.oldest_ns.is_none() {
            self.census.oldest_ns = Some(received_at_ns);
            let wants_earlier = self.range.from_ns.is_none_or(|from| from < received_at_ns);
            self.census.begins_late = self.journal.start().position.0 > 0 && wants_earlier;
        }
        let is_meant = self.range.takes_time(received_at_ns);
        let lane = self.lane.as_ref().filter(|_| !is_pending);
        let lane = lane.map(|lane| (Arc::clone(&lane.status.rules), lane.trace_needs));
        let is_delivered = lane.is_some();
        // Later records are read too if traces matter, because a root summarizes all of its spans.
        if !(is_meant || is_delivered && self.traces.is_some()) {
            return;
        }
        let is_decoded = is_delivered || self.range.trace.is_some();
        let batch = is_decoded.then(|| decode_record(payload)).and_then(Result::ok);
        let batch = batch.map(|(_, decoded)| decoded.batch);
        if is_meant {
            let meant = match (self.range.trace, &batch) {
                (None, _) => items,
                (Some(trace), Some(batch)) => of_trace(batch, trace).count() as u64,
                (Some(_), None) => 0,
            };
            let receiver = envelope.source.receiver.as_str();
            self.census.count(receiver, meant, is_pending, received_at_ns);
        }
        match (batch, lane) {
            (Some(batch), Some((rules, needs))) => {
                let batch = self.ruled(record, batch, &rules);
                if let Some(needs) = needs {
                    let rules = (rules.as_ref(), self.decided.as_ref().map(|it| &it.table));
                    let begin = || traces_before(record.start, &self.journal, rules, needs);
                    self.last_ns = self.last_ns.max(received_at_ns);
                    self.traces.get_or_insert_with(begin).feed(&batch, record.start.position);
                }
                match self.range.trace {
                    _ if !is_meant => {}
                    None => chunk.delivery.add(&batch, 0..batch.items.len()),
                    Some(trace) => of_trace(&batch, trace)
                        .for_each(|place| chunk.delivery.add(&batch, place..place + 1)),
                }
            }
            (None, Some(_)) if is_meant => chunk.not_understood += items,
            _ => {}
        }
    }

    /// Applies the rules to a record.
    fn ruled(&mut self, record: &Record, batch: Batch, rules: &Arc<Rules>) -> Arc<Batch> {
        let batch = Arc::new(batch);
        if !rules.wait_for_traces() {
            return rules.apply_again(&batch, KnownTraces::Request).batch;
        }
        let begin = || Deciding::new(&self.journal, rules, record.start);
        let known = self.decided.get_or_insert_with(begin).of(&batch, record.end);
        rules.apply_again(&batch, KnownTraces::Decided(&known)).batch
    }
}

/// Returns the places of a trace's items.
fn of_trace(batch: &Batch, trace: TraceId) -> impl Iterator<Item = usize> {
    let places = batch.items.iter().enumerate();
    places.filter(move |(_, item)| item.trace_id() == trace).map(|(place, _)| place)
}

/// Returns the trace contexts from the records before a replay's first one.
fn traces_before(
    start: Mark,
    journal: &Journal<Attachment>,
    rules: (&Rules, Option<&Mutex<Decisions>>),
    needs: TraceNeeds,
) -> Traces {
    // Spans are sent again in their order; amendments would send them a third time.
    let mut traces = Traces::new(TraceNeeds { replaces_by_id: false, ..needs }, 0);
    look_back(journal, start, rules, &mut traces);
    // Nothing in it is pending.
    traces.settle(Position(u64::MAX));
    traces
}
