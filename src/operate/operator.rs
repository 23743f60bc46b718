//! Carries out commands. Each command is a type that defines its path, its answer and its implementation.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};
use tokio::time::interval;

use super::command::{
    CommandError, DropRequest, Dropped, EntryView, Group, ListRequest, Listed, Progress,
    ReplayEntriesRequest, ReplayJournalRequest, Replayed, ShowRequest, Which, Working, off_thread,
};
use super::reload::{ReloadRequest, Reloaded, Reloads, Reread};
use super::replay::{drop_entries, receive_entries, replay_entries, replay_journal};
use super::store::{Entry, Range, Resolver, Selection, Store};
use crate::feed::Feed;
use crate::index::Index;
use crate::normalize::{Outcome, ids};
use crate::pipeline::{JobHandle, LaneHandle, LaneState, Lanes};
use crate::rules::BeforeJournal;
use crate::span::otlp::json;
use crate::span::{Span, TraceId};
use crate::support::lock::lock;
use crate::support::{base64, clock, moment, rfc3339};

/// Default number of listed entries or traces.
pub(super) const LIST_DEFAULT: usize = 20;
/// Maximum number of listed entries or traces: more than a person reads, and it bounds the answer.
pub(super) const LIST_MAX: usize = 1000;
/// Maximum number of listed groups. Reasons come from backends, which may create one per item.
const GROUPS_MAX: usize = 1000;
/// Maximum number of traces read concurrently: each may have 256 MiB.
const READING_MAX: usize = 2;
/// Interval of a replay's progress reports.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Everything that commands need.
#[derive(Debug)]
pub struct Operator {
    /// Items that sinks rejected.
    pub dead_letters: Store,
    /// Items that could not be decoded.
    pub quarantine: Store,
    /// The journal and the lanes, if replays are possible.
    pub replays: Option<Replays>,
    /// Where to request a reload.
    pub reloads: Option<Reloads>,
    /// The index of traces, the agent metrics, and the current prices. It may contain only the prices.
    pub index: Index,
    /// Limits concurrent reads of traces, which may need much memory.
    pub(super) reading: Arc<Semaphore>,
}

/// What replays need in addition to the stores.
#[derive(Debug)]
pub struct Replays {
    /// The journal.
    pub feed: Feed,
    /// The lanes.
    pub lanes: Lanes,
    /// The rules for requests from the quarantine, as for those from clients.
    pub before_journal: Mutex<Option<Arc<BeforeJournal>>>,
}

/// A command, as it is sent.
pub trait Command: Serialize + DeserializeOwned + Send + 'static {
    /// Its HTTP path.
    const PATH: &'static str;
    /// Whether it takes long enough to report progress.
    const IS_REPLAY: bool = false;
    /// What it needs if no daemon is running.
    const NEEDS: Needs = Needs::Stores;
    /// Its result.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// See [`Operator::carry_out`]. A replay updates `progress`.
    fn run(
        self,
        operator: &Operator,
        progress: &Followed,
    ) -> impl Future<Output = Answered<Self>> + Send;
}

/// What a command needs if no daemon has it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The dead letters and the quarantine.
    Stores,
    /// The journal and the lanes as well.
    Lanes,
    /// The index of traces as well.
    Index,
}

/// The progress of a command, for its observers.
pub(super) type Followed = watch::Sender<Progress>;
/// The result of a command.
pub(super) type Answered<C> = Result<<C as Command>::Answer, CommandError>;

impl Operator {
    /// Creates an operator over both stores; the other fields are set later.
    pub fn new(dead_letters: Store, quarantine: Store, replays: Option<Replays>) -> Self {
        let reading = Arc::new(Semaphore::new(READING_MAX));
        let (reloads, index) = (None, Index::default());
        Self { dead_letters, quarantine, replays, reloads, index, reading }
    }

    /// Replaces the rules with `before_journal`.
    pub fn set_before_journal(&self, rules: Option<Arc<BeforeJournal>>) {
        if let Some(replays) = &self.replays {
            *lock(&replays.before_journal) = rules;
        }
    }

    /// Carries out a command and reports its progress each second. Dropping the future stops it after the deliveries in flight.
    pub async fn carry_out<C: Command>(
        &self,
        command: C,
        mut tell: impl FnMut(Working),
    ) -> Result<C::Answer, CommandError> {
        let progress = watch::Sender::default();
        let mut running = std::pin::pin!(command.run(self, &progress));
        let mut ticks = interval(SAY_EVERY);
        ticks.tick().await;
        loop {
            tokio::select! {
                ended = &mut running => return ended,
                _ = ticks.tick() => {
                    let progress = progress.borrow().clone();
                    tell(Working { progress, problems: self.problems() });
                }
            }
        }
    }

    /// Closes the journals. Blocks on the disk.
    pub fn close(&self) {
        if let Some(replays) = &self.replays {
            replays.feed.journal().close();
        }
        self.quarantine.close();
        self.dead_letters.close();
    }

    /// Returns the problems of sinks.
    pub fn problems(&self) -> Vec<String> {
        let stores = [("dead letters", &self.dead_letters), ("quarantine", &self.quarantine)];
        let broken = stores.into_iter().filter_map(|(name, store)| {
            let (health, problem) = store.health().parts();
            problem.map(|problem| format!("{name} {health}: {problem}"))
        });
        let lanes = self.replays.iter().flat_map(|replays| replays.lanes.all());
        let troubled = lanes.filter_map(|LaneHandle { status, .. }| match status.state() {
            (LaneState::Running | LaneState::Drained, None) => None,
            (state, problem) => {
                let problem = problem.as_deref().unwrap_or("no reason known");
                Some(format!("sink {} is {}: {problem}", status.sink, state.as_str()))
            }
        });
        broken.chain(troubled).collect()
    }

    fn store(&self, is_quarantine: bool) -> &Store {
        if is_quarantine { &self.quarantine } else { &self.dead_letters }
    }

    /// Returns the right to resolve entries of a store, if it has all of these.
    async fn resolver(&self, which: &Which, ids: &[u64]) -> Result<Resolver, CommandError> {
        let resolver = self.store(which.quarantine).resolver().ok_or(CommandError::Busy)?;
        let (store, mut missing) = (resolver.store.clone(), BTreeSet::from_iter(ids.to_vec()));
        let missing = off_thread(move || {
            if !missing.is_empty() {
                for entry in store.entries(Selection::default())? {
                    missing.remove(&entry?.id);
                }
            }
            Ok(missing.pop_first())
        });
        missing.await?.map_or(Ok(resolver), |id| Err(CommandError::NoEntry(id)))
    }

    /// Returns the index of traces, if it is on.
    pub(super) fn traces(&self) -> Option<&Index> {
        Some(&self.index).filter(|index| index.kept().traces)
    }

    pub(super) fn replays(&self) -> Result<&Replays, CommandError> {
        self.replays.as_ref().ok_or(CommandError::NoLanes)
    }

    fn jobs(&self, sink: &str) -> Result<JobHandle, CommandError> {
        let lanes = &self.replays()?.lanes;
        lanes.jobs(sink).ok_or_else(|| {
            let known: Vec<_> = lanes.all().iter().map(|lane| lane.status.sink.clone()).collect();
            let known = known.join(", ");
            CommandError::Mistake(format!("there is no sink {sink:?}; there are: {known}"))
        })
    }
}

// === The commands ===

impl Command for ListRequest {
    const PATH: &'static str = "/api/v1/dead-letters/list";
    type Answer = Listed;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        let selection = self.which.selection(Vec::new(), self.sink)?;
        let limit = self.limit.unwrap_or(LIST_DEFAULT).min(LIST_MAX);
        let store = operator.store(self.which.quarantine).clone();
        off_thread(move || {
            let (mut listed, mut left) = (Listed::default(), 0);
            let (mut groups, mut newest) = (BTreeMap::new(), VecDeque::new());
            for entry in store.entries(Selection::default())? {
                let entry = entry?;
                left += entry.items;
                if !selection.takes(&entry) {
                    continue;
                }
                let view = EntryView::of(&entry);
                listed.entries += 1;
                listed.items += view.items;
                let key = (view.sink.clone(), view.reason.clone());
                if groups.contains_key(&key) || groups.len() < GROUPS_MAX {
                    let (sink, reason, first) =
                        (view.sink.clone(), view.reason.clone(), view.at.clone());
                    let new = Group { sink, reason, first, ..Group::default() };
                    let group = groups.entry(key).or_insert(new);
                    group.items += view.items;
                    group.last.clone_from(&view.at);
                }
                newest.push_back(view);
                if newest.len() > limit {
                    newest.pop_front();
                }
            }
            listed.groups = groups.into_values().collect();
            listed.groups.sort_by_key(|group| Reverse(group.items));
            Ok(Listed { newest: newest.into(), items_gone: store.items_gone(left), ..listed })
        })
        .await
    }
}

impl Command for ShowRequest {
    const PATH: &'static str = "/api/v1/dead-letters/show";
    type Answer = EntryView;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        let store = operator.store(self.quarantine).clone();
        let selection = Selection { ids: vec![self.id], ..Selection::default() };
        let entry = off_thread(move || store.entries(selection)?.next().transpose()).await?;
        let entry = entry.ok_or(CommandError::NoEntry(self.id))?;
        let mut view = EntryView::of(&entry);
        view.answer = self.answer.then(|| entry.aside.answer.clone());
        if self.payload {
            view.payload = payload(&entry);
            let is_text = view.payload.is_some();
            view.payload_base64 = (!is_text).then(|| base64::text(&entry.body));
        }
        Ok(view)
    }
}

impl Command for DropRequest {
    const PATH: &'static str = "/api/v1/dead-letters/drop";
    type Answer = Dropped;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        let resolver = operator.resolver(&self.which, &self.ids).await?;
        let selection = self.which.selection(self.ids, self.sink)?;
        if selection == Selection::default() && !self.all {
            let what = "select entries, or pass --all";
            return Err(CommandError::Mistake(what.to_owned()));
        }
        Ok(Dropped { items: drop_entries(&resolver, selection).await? })
    }
}

impl Command for ReplayEntriesRequest {
    const PATH: &'static str = "/api/v1/dead-letters/replay";
    const IS_REPLAY: bool = true;
    const NEEDS: Needs = Needs::Lanes;
    type Answer = Replayed;

    async fn run(self, operator: &Operator, progress: &Followed) -> Answered<Self> {
        let resolver = operator.resolver(&self.which, &self.ids).await?;
        let selection = self.which.selection(self.ids, self.from_sink)?;
        if self.which.quarantine {
            let replays = operator.replays()?;
            let (intake, rules) = (replays.feed.intake(), lock(&replays.before_journal).clone());
            receive_entries(&resolver, selection, (&intake, rules), progress).await?;
        } else {
            let mut replays = Vec::new();
            let (store, meant) = (resolver.store.clone(), selection.clone());
            let sinks = move || store.entries(meant)?.map(|it| Ok(it?.aside.sink)).collect();
            for sink in off_thread::<BTreeSet<String>>(sinks).await? {
                // Entries delivered to another sink count as dropped for their own.
                let is_own = self.sink.as_ref().is_none_or(|other| *other == sink);
                let outcome = if is_own { Outcome::Delivered } else { Outcome::Dropped };
                let jobs = operator.jobs(self.sink.as_ref().unwrap_or(&sink))?;
                replays.push((sink, jobs, outcome));
            }
            let replays = replays.iter().map(|(sink, jobs, outcome)| {
                replay_entries(&resolver, (sink, &selection), (jobs, *outcome), progress)
            });
            // All sinks concurrently, so that one that is down delays no other.
            join_all(replays).await.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(Replayed { progress: progress.borrow().clone(), census: None })
    }
}

impl Command for ReplayJournalRequest {
    const PATH: &'static str = "/api/v1/replay";
    const IS_REPLAY: bool = true;
    const NEEDS: Needs = Needs::Lanes;
    type Answer = Replayed;

    async fn run(self, operator: &Operator, progress: &Followed) -> Answered<Self> {
        let jobs = operator.jobs(&self.sink)?;
        let range = range(self.from.as_deref(), self.to.as_deref(), self.trace.as_deref())?;
        let until = jobs.lane.status.cursor().mark.position;
        let jobs = (!self.dry_run).then_some(&jobs);
        let journal = operator.replays()?.feed.journal();
        let census = replay_journal(journal, (range, until), jobs, progress).await?;
        Ok(Replayed { progress: progress.borrow().clone(), census: Some(census) })
    }
}

impl Command for ReloadRequest {
    const PATH: &'static str = "/api/v1/reload";
    type Answer = Reloaded;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        operator.reloads.as_ref().ok_or(CommandError::NoDaemon)?.ask(Reread::All).await
    }
}

impl Which {
    fn selection(&self, ids: Vec<u64>, sink: Option<String>) -> Result<Selection, CommandError> {
        let range = range(self.from.as_deref(), self.to.as_deref(), self.trace.as_deref())?;
        Ok(Selection { ids, sink, reason: self.reason.clone(), range })
    }
}

fn range(from: Option<&str>, to: Option<&str>, trace: Option<&str>) -> Result<Range, CommandError> {
    Ok(Range { from_ns: time(from)?, to_ns: time(to)?, trace: trace.map(trace_named) })
}

/// Returns the trace with these 32 digits, or with this id in the Agents SDK.
pub(super) fn trace_named(text: &str) -> TraceId {
    TraceId::from_hex(text).unwrap_or_else(|| ids::trace_id(text))
}

pub(super) fn time(text: Option<&str>) -> Result<Option<u64>, CommandError> {
    let read = text.map(|text| moment::read(text, clock::unix_now_ns())).transpose();
    read.map_err(|problem| CommandError::Mistake(problem.to_string()))
}

// === What is shown ===

impl EntryView {
    fn of(entry: &Entry) -> Self {
        Self {
            id: entry.id,
            sink: entry.aside.sink.clone(),
            reason: entry.aside.reason.clone(),
            at: rfc3339::text(entry.aside.at_ns),
            received_at: rfc3339::text(entry.envelope.source.received_at_ns),
            receiver: entry.envelope.source.receiver.as_str().to_owned(),
            items: entry.items,
            bytes: entry.body.len() as u64,
            traces: entry.traces().iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }
}

/// Returns the item, if it can be shown as text.
fn payload(entry: &Entry) -> Option<String> {
    let as_otlp = entry.decode().ok().and_then(|decoded| {
        let spans: Vec<&Span> = decoded.batch.spans().collect();
        let is_otlp = !spans.is_empty() && spans.iter().all(|span| span.is_otlp());
        is_otlp.then(|| {
            let mut text = Vec::new();
            json::write_request(&mut text, spans);
            String::from_utf8(text).ok()
        })?
    });
    as_otlp.or_else(|| String::from_utf8(entry.body.to_vec()).ok())
}
