//! An operator's commands on a directory that no daemon has: the same operator and the same lanes, which here run jobs only, so
//! that nothing is received and no cursor moves.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::lanes::Workshop;
use super::stores::{SetAside, Stores};
use crate::config::Config;
use crate::feed::Feed;
use crate::index::{Index, Kept};
use crate::journal::OpenError;
use crate::operate::{Needs, Operator};
use crate::pipeline::{Lane, LaneState, Lanes};
use crate::support::stop::Stop;
use crate::telemetry::Metrics;

/// A state directory that is ours until this is closed.
pub struct Offline {
    operator: Operator,
    set_aside: SetAside,
    feed: Option<Feed>,
    lanes: JoinSet<LaneState>,
    stop: Stop,
}

/// Why a directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A daemon has it.
    #[error("a daemon is running on {dir} (process {pid})")]
    Running {
        /// The state directory.
        dir: String,
        /// The process, as far as it can be told.
        pid: String,
    },
    /// It cannot be opened.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for OfflineError {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast_ref() {
            Some(OpenError::Locked { dir, pid }) => {
                // The state directory, and not the one in it that was met first.
                let dir = Path::new(dir).parent().unwrap_or(Path::new(dir));
                Self::Running { dir: dir.display().to_string(), pid: pid.trim().to_owned() }
            }
            _ => Self::Failed(error),
        }
    }
}

impl Offline {
    /// Opens what was set aside below a state directory: enough for everything but replays.
    pub fn open_stores(dir: &Path) -> Result<Self, OfflineError> {
        let set_aside = SetAside::open(Some(dir))?;
        let operator = set_aside.operator(None)?;
        let (lanes, stop) = (JoinSet::new(), Stop::default());
        Ok(Self { operator, set_aside, feed: None, lanes, stop })
    }

    /// Opens everything that is configured, and has the lanes wait for jobs; looks which traces there are where that is `needed`.
    pub fn open(config: &Config, needed: Needs) -> Result<Self, OfflineError> {
        let stores = Stores::open(config)?;
        // Callers' keys are in the daemon's memory only: here a sink has the keys of its configuration.
        let (keys, metrics) = (Arc::default(), Metrics::default());
        let workshop = Workshop { stores: stores.clone(), keys, metrics };
        let (made, lanes) = (workshop.make_all(config)?, Lanes::default());
        lanes.set(made.iter().map(|lane| lane.handle().clone()).collect());
        let kept = Kept { traces: needed == Needs::Index, agents: false };
        let index = Index::keeping(kept, Arc::clone(&config.prices));
        if kept.traces {
            let journal = stores.feed.journal();
            index.rebuild(journal, journal.end(), || false);
        }
        let operator = stores.operator(lanes, config)?.with_index(index);
        let stop = Stop::default();
        let mut tasks = JoinSet::new();
        for lane in made.into_iter().map(Lane::for_jobs) {
            // What is at a sink when the operator breaks off is not waited for: it is not settled.
            tasks.spawn(lane.run(stop.clone(), stop.clone()));
        }
        let Stores { feed, set_aside } = stores;
        Ok(Self { operator, set_aside, feed: Some(feed), lanes: tasks, stop })
    }

    /// Where commands are carried out.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Lets go of the directory.
    pub async fn close(mut self) {
        self.stop.stop();
        while self.lanes.join_next().await.is_some() {}
        let closed = tokio::task::spawn_blocking(move || {
            self.feed.inspect(|feed| feed.journal().close());
            self.set_aside.close();
        });
        closed.await.ok();
    }
}
