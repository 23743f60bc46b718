//! Operator commands on a directory that no daemon has open. They use the same operator and lanes, but lanes run only jobs: nothing is
//! received, and no cursor moves.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use super::lanes::{Running, Workshop};
use super::stores::{Stores, operator, set_aside};
use crate::config::Config;
use crate::index::{Index, Kept};
use crate::journal::OpenError;
use crate::operate::{Needs, Operator};
use crate::pipeline::{Lane, Lanes};
use crate::telemetry::Metrics;

/// A locked state directory.
pub struct Offline {
    /// Carries out commands.
    pub operator: Operator,
    lanes: Running,
}

/// Returns who has a directory open, if that is why it could not be locked: a daemon, or another user, whose daemon may be running.
pub fn who_has_it(problem: &anyhow::Error) -> Option<String> {
    let refusals = problem.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    if refusals.map(io::Error::kind).any(|kind| kind == io::ErrorKind::PermissionDenied) {
        return Some(format!("{problem:#}"));
    }
    let OpenError::Locked { dir, pid } = problem.downcast_ref()? else { return None };
    // The state directory, not the one within it whose lock failed first.
    let dir = Path::new(dir).parent().unwrap_or(Path::new(dir));
    Some(format!("a daemon is running on {} (process {})", dir.display(), pid.trim()))
}

impl Offline {
    /// Opens the dead letters and the quarantine of a state directory: enough for everything except replays.
    pub fn open_stores(dir: &Path) -> anyhow::Result<Self> {
        let operator = operator(&set_aside(Some(dir))?, None)?;
        Ok(Self { operator, lanes: Running::new(Lanes::default()) })
    }

    /// Opens everything that is configured, with lanes that only run jobs; builds the index of traces if `needed`.
    pub fn open(config: &Config, needed: Needs) -> anyhow::Result<Self> {
        let stores = Stores::open(config)?;
        // Only a daemon has callers' keys in memory; here, sinks use the keys of their configuration.
        let (keys, metrics) = (Arc::default(), Metrics::default());
        let workshop = Workshop { stores: stores.clone(), keys, metrics };
        let (made, lanes) = workshop.make_all(config)?;
        let kept = Kept { traces: needed == Needs::Index, agents: false };
        let index = Index::keeping(kept, Arc::clone(&config.prices));
        if kept.traces {
            let journal = stores.feed.journal();
            index.rebuild(journal, journal.end(), || false);
        }
        let mut operator = stores.operator(lanes.clone(), config)?;
        operator.index = index;
        let mut lanes = Running::new(lanes);
        made.into_iter().map(Lane::for_jobs).for_each(|lane| lanes.start(lane));
        Ok(Self { operator, lanes })
    }

    /// Closes the directory.
    pub async fn close(mut self) {
        // If the operator interrupts, deliveries in flight are abandoned: they are not settled.
        self.lanes.drain(Instant::now()).await;
        tokio::task::spawn_blocking(move || self.operator.close()).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn what_another_user_has_may_be_a_running_daemon_s() {
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        let locked = OpenError::Locked { dir: "state/journal".to_owned(), pid: "7".to_owned() };
        let storage = |source| OpenError::Storage { path: "state/journal".to_owned(), source };
        let made = Err::<(), _>(refused()).context("cannot use the directory state/journal");
        for (problem, expected) in [
            (locked.into(), Some("a daemon is running on state (process 7)")),
            (storage(refused()).into(), Some("cannot use state/journal: permission denied")),
            (made.unwrap_err(), Some("cannot use the directory state/journal: permission denied")),
            (storage(io::ErrorKind::StorageFull.into()).into(), None),
        ] {
            assert_eq!(who_has_it(&problem).as_deref(), expected, "{problem:#}");
        }
    }
}
