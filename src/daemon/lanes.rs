//! The lanes: one for each configured sink, created at its cursor. It runs until it is handed over or the daemon stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, warn};

use super::stores::Stores;
use crate::config::{Config, SinkConfig};
use crate::feed::Attachment;
use crate::journal::{Cursor, Journal};
use crate::normalize;
use crate::pipeline::{DeadLetters, Lane, LaneHandle, LaneState, LaneStatus, Lanes};
use crate::sinks::{Parts, Sink};
use crate::support::keyring::Keyring;
use crate::support::stop::Stop;
use crate::telemetry::Metrics;

/// Time limit for the deliveries in flight of a lane that is replaced: longer than most answers take. Deliveries that are then cancelled
/// are repeated.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);
/// Time limit after that for saving its cursor.
const END_MAX: Duration = Duration::from_secs(2);

/// What lanes need in addition to their sinks' options. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Workshop {
    pub(super) stores: Stores,
    /// Callers' keys, for sinks that act on their behalf.
    pub(super) keys: Arc<Keyring>,
    pub(super) metrics: Metrics,
}

impl Workshop {
    /// Creates a lane for each sink, at its cursor, and the list of lanes. Blocks on the disk.
    pub(super) fn make_all(&self, config: &Config) -> anyhow::Result<(Vec<Lane>, Lanes)> {
        self.retain(config);
        let made = config.sinks.iter().map(|sink| {
            self.join(&sink.name)?;
            self.make(sink)
        });
        let (made, lanes) = (made.collect::<Result<Vec<_>, _>>()?, Lanes::default());
        lanes.set(made.iter().map(|lane| lane.handle().clone()).collect());
        Ok((made, lanes))
    }

    /// Creates a lane at the sink's saved cursor.
    pub(super) fn make(&self, sink: &SinkConfig) -> anyhow::Result<Lane> {
        let (feed, journal) = (&self.stores.feed, self.stores.feed.journal());
        let cursor = journal.cursor(&sink.name).unwrap_or_default();
        let made = self.build(sink, &cursor)?;
        let reader = feed.reader(cursor.mark);
        let mut status = LaneStatus::new(sink.name.clone(), sink.kind.name, cursor);
        status.rules = Arc::clone(&sink.rules);
        status.trace_url = sink.lane.trace_url.clone().or_else(|| sink.plan.trace_url());
        status.gathers = made.gathers();
        let dead_letters = DeadLetters::new(self.stores.dead_letters.clone());
        let (journal, options) = (journal.clone(), sink.lane.clone());
        Ok(Lane::new(reader, made, journal, dead_letters, options, Arc::new(status)))
    }

    /// Verifies that these sinks can be built, adds new sinks to the journal, and sets how attributes are read. Blocks on the disk.
    pub(super) fn prepare(
        &self,
        old: &Config,
        new: &Config,
        (changed, added): (&[String], &[String]),
    ) -> anyhow::Result<()> {
        for sink in new.sinks.iter().filter(|sink| changed.contains(&sink.name)) {
            self.build(sink, &Cursor::default())?;
        }
        if !added.is_empty() {
            let names = old.sinks.iter().map(|sink| &sink.name).chain(added);
            // Before their cursors are read, so that the records there are not removed in the meantime.
            let names: Vec<_> = names.map(String::as_str).collect();
            self.stores.feed.journal().retain_consumers(&names);
            added.iter().try_for_each(|sink| self.join(sink))?;
        }
        let holds = normalize::install(&new.attributes);
        anyhow::ensure!(
            holds,
            "[attributes] has changed too often for one process: restart the daemon"
        );
        Ok(())
    }

    fn build(&self, sink: &SinkConfig, cursor: &Cursor) -> anyhow::Result<Arc<dyn Sink>> {
        let (name, state) = (sink.name.clone(), cursor.state.clone());
        let figures = self.metrics.of_sink(&name);
        let (keys, prices) = (Arc::clone(&self.keys), Arc::clone(sink.rules.prices()));
        let parts = Parts { name, state, keys, figures, prices };
        sink.plan.build(parts).with_context(|| format!("cannot make sink {}", sink.name))
    }

    /// Tells the journal which sinks there are, so that removed sinks no longer retain records. Blocks on the disk.
    pub(super) fn retain(&self, config: &Config) {
        let names: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
        let journal = self.stores.feed.journal();
        let consumers = journal.consumers().into_iter();
        let gone = consumers.filter(|one| one.is_live && !names.contains(&one.name.as_str()));
        for gone in gone {
            warn!(
                sink = gone.name,
                "this sink is no longer configured; what it had not delivered is kept only as long as journal.retain says"
            );
        }
        journal.retain_consumers(&names);
    }

    /// Ensures that a sink has a cursor at an existing record, and that later records are kept. Blocks on the disk.
    fn join(&self, sink: &str) -> anyhow::Result<()> {
        let journal = self.stores.feed.journal();
        let (saved, start) = (journal.cursor(sink), journal.start());
        let cursor = match saved {
            Some(cursor) if start.position <= cursor.mark.position => return Ok(()),
            Some(cursor) => {
                let gone = start.items.saturating_sub(cursor.mark.items);
                error!(
                    sink,
                    gone,
                    "records that this sink had not delivered when it was removed are gone from the journal; they count as dropped"
                );
                Cursor { mark: start, dropped: cursor.dropped + gone, ..cursor }
            }
            None => first_cursor(journal, sink),
        };
        let saved = journal.save_cursor(sink, &cursor);
        saved.with_context(|| format!("cannot save a cursor for sink {sink}"))
    }
}

/// Returns the cursor of a new sink, which gets what is accepted from now on. It is saved immediately, because after a crash it must not be
/// later. If the list of sinks is lost, the sink may not be new, and gets everything that the journal keeps.
fn first_cursor(journal: &Journal<Attachment>, sink: &str) -> Cursor {
    let is_new = !journal.recovery().consumers_unknown;
    let mark = if is_new { journal.end() } else { journal.start() };
    if !is_new {
        error!(
            sink,
            "the journal's list of sinks and the cursor of this one are gone; it gets all that the journal keeps, so nothing is lost and \
             some of it may arrive twice"
        );
    }
    Cursor { mark, joined: mark.items, ..Cursor::default() }
}

/// The running lanes.
#[derive(Debug)]
pub(super) struct Running {
    tasks: BTreeMap<String, Task>,
    /// Set when the daemon stops.
    pub(super) end: Stop,
    /// Set when it stops waiting.
    deadline: Stop,
    /// The shared list of lanes.
    lanes: Lanes,
}

#[derive(Debug)]
struct Task {
    running: AbortOnDropHandle<LaneState>,
    handle: LaneHandle,
    deadline: Stop,
}

impl Running {
    /// Starts without lanes. They will appear in this list.
    pub(super) fn new(lanes: Lanes) -> Self {
        let (end, deadline) = (Stop::default(), Stop::default());
        Self { tasks: BTreeMap::new(), end, deadline, lanes }
    }

    /// Runs a lane.
    pub(super) fn start(&mut self, lane: Lane) {
        let (handle, deadline) = (lane.handle().clone(), self.deadline.child());
        let sink = handle.status.sink.clone();
        let task = tokio::spawn(lane.run(self.end.clone(), deadline.clone()));
        let running = AbortOnDropHandle::new(task);
        self.tasks.insert(sink, Task { running, handle, deadline });
    }

    /// Returns whether the sink has a running lane.
    pub(super) fn has(&self, sink: &str) -> bool {
        self.tasks.get(sink).is_some_and(|task| !task.running.is_finished())
    }

    /// Ends these lanes concurrently and waits for their deliveries in flight; a lane that does not end in time is aborted.
    pub(super) async fn hand_over(&mut self, sinks: &[String]) {
        let ending = sinks.iter().filter_map(|sink| self.tasks.remove(sink));
        join_all(ending.map(Task::hand_over)).await;
    }

    /// Publishes the lanes of these sinks, in this order.
    pub(super) fn show(&self, sinks: &[SinkConfig]) {
        let before = self.lanes.all();
        let shown = |name: &str| {
            let task = self.tasks.get(name).map(|task| &task.handle);
            task.or_else(|| before.iter().find(|lane| lane.status.sink == name)).cloned()
        };
        self.lanes.set(sinks.iter().filter_map(|sink| shown(&sink.name)).collect());
    }

    /// Lets all lanes deliver what they can until a deadline.
    pub(super) async fn drain(&mut self, by: Instant) {
        self.end.stop();
        if timeout_at(by, self.all_ended()).await.is_err() {
            self.deadline.stop();
            self.all_ended().await;
        }
    }

    async fn all_ended(&mut self) {
        while let Some(mut entry) = self.tasks.first_entry() {
            if let Err(problem) = (&mut entry.get_mut().running).await {
                error!(%problem, "a lane ended unexpectedly; its data waits in the journal for the next start");
            }
            entry.remove();
        }
    }
}

impl Task {
    async fn hand_over(mut self) {
        let sink = &self.handle.status.sink;
        self.handle.hand_over();
        if timeout(HAND_OVER_MAX, &mut self.running).await.is_ok() {
            return;
        }
        warn!(
            sink,
            "deliveries in flight take too long; they are sent again with the new configuration"
        );
        self.deadline.stop();
        if timeout(END_MAX, &mut self.running).await.is_err() {
            // It waits for a disk. Its cursor is older than the last deliveries, so these are repeated.
            self.running.abort();
            self.running.await.ok();
        }
    }
}
