//! An operator's commands on a directory that no daemon has: the same operator and the same lanes, which here run jobs only, so
//! that nothing is received and no cursor moves.

use std::path::Path;

use tokio::task::JoinSet;

use super::lanes;
use super::stores::{SetAside, Stores};
use crate::config::Config;
use crate::journal::OpenError;
use crate::operate::Operator;
use crate::pipeline::{Lane, LaneState};
use crate::support::stop::Stop;
use crate::telemetry::Metrics;

/// A state directory that is ours until this is closed.
pub struct Offline {
    operator: Operator,
    opened: Opened,
    lanes: JoinSet<LaneState>,
    stop: Stop,
}

enum Opened {
    SetAside(SetAside),
    Stores(Stores),
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
        let opened = Opened::SetAside(set_aside);
        Ok(Self { operator, opened, lanes: JoinSet::new(), stop: Stop::default() })
    }

    /// Opens everything that is configured, and has the lanes wait for jobs.
    pub fn open(config: &Config) -> Result<Self, OfflineError> {
        let stores = Stores::open(config)?;
        // Callers' keys are in the daemon's memory only: here a sink has the keys of its configuration.
        let made = lanes::make(
            config,
            &stores.feed,
            &stores.set_aside.dead_letters(),
            None,
            &Metrics::default(),
        )?;
        let operator = stores.operator(&made)?;
        let stop = Stop::default();
        let mut tasks = JoinSet::new();
        for lane in made.into_iter().map(Lane::for_jobs) {
            // What is at a sink when the operator breaks off is not waited for: it is not settled.
            tasks.spawn(lane.run(stop.clone(), stop.clone()));
        }
        Ok(Self { operator, opened: Opened::Stores(stores), lanes: tasks, stop })
    }

    /// Where commands are carried out.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Lets go of the directory.
    pub async fn close(mut self) {
        self.stop.stop();
        while self.lanes.join_next().await.is_some() {}
        let closed = tokio::task::spawn_blocking(move || match self.opened {
            Opened::SetAside(set_aside) => set_aside.close(),
            Opened::Stores(stores) => stores.close(),
        });
        closed.await.ok();
    }
}
