//! Looks whether the configuration, or what it refers to, has become another.
//!
//! There is one way to find out and one to act on it: it is read as for a reload, and what is other than what is in force is put in
//! force like any reload. Files are replaced in more than one step, so a change counts once two looks have seen the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::config::{Effective, Loaded, Report};
use crate::pipeline::{LaneState, Lanes};

/// How often it is looked where the configuration is watched, or while a sink is refused.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often else: a credential that was rotated is known before the old one ends.
const LOOK_AT_REFERENCES_EVERY: Duration = Duration::from_mins(1);

/// Who looks.
#[derive(Debug)]
pub(super) struct Watch {
    ticks: Interval,
    looked: Instant,
    seen: Option<Seen>,
    /// What was reported, whatever became of it: it is not reported again before it changes.
    reported: Option<Seen>,
}

/// What was read, as far as it can be compared.
type Seen = Result<Effective, Report>;

impl Watch {
    pub(super) fn new() -> Self {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, looked: Instant::now(), seen: None, reported: None }
    }

    /// Waits for a configuration that is other than the one in force.
    pub(super) async fn changed(
        &mut self,
        loaded: &Arc<Loaded>,
        lanes: &Lanes,
    ) -> Result<Loaded, Report> {
        loop {
            self.ticks.tick().await;
            let watches = loaded.config.reload.watch;
            let is_held =
                || lanes.all().iter().any(|lane| lane.status.state().0 == LaneState::Holding);
            let is_changing = self.seen.is_some();
            if !watches
                && !is_changing
                && self.looked.elapsed() < LOOK_AT_REFERENCES_EVERY
                && !is_held()
            {
                continue;
            }
            self.looked = Instant::now();
            let origin = loaded.origin.clone();
            let look = move || if watches { origin.read_again() } else { origin.expand_again() };
            let Ok(read) = tokio::task::spawn_blocking(look).await else { continue };
            if self.is_news(&read, &loaded.effective) {
                return read;
            }
        }
    }

    /// Whether this was read twice, is not in force, and was not reported.
    fn is_news(&mut self, read: &Result<Loaded, Report>, in_force: &Effective) -> bool {
        let found = match read {
            Ok(read) => Ok(read.effective.clone()),
            Err(report) => Err(report.clone()),
        };
        if found.as_ref().is_ok_and(|found| found == in_force) {
            (self.seen, self.reported) = (None, None);
            return false;
        }
        if self.reported.as_ref() == Some(&found) {
            self.seen = None;
            return false;
        }
        let is_stable = self.seen.as_ref() == Some(&found);
        self.seen = (!is_stable).then(|| found.clone());
        if is_stable {
            self.reported = Some(found);
        }
        is_stable
    }
}
