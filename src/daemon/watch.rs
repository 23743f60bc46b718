//! Looks whether the configuration, or what it refers to, has become another.
//!
//! There is one way to find out and one to act on it: it is read as for a reload, and what is other than what is in force is put in
//! force like any reload. Files are replaced in more than one step, so a change counts once two looks have seen the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::admin::View;
use crate::config::{Effective, Loaded, Report};
use crate::operate::Reread;
use crate::pipeline::{LaneHandle, LaneState};
use crate::support::lock::lock;

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

    /// Waits until the configuration is other than the one in force; returns what is to be read again for that.
    pub(super) async fn changed(&mut self, loaded: &Arc<Loaded>, view: &View) -> Reread {
        loop {
            self.ticks.tick().await;
            let watches = loaded.config.reload.watch;
            let is_held = |lane: &LaneHandle| lane.status.state().0 == LaneState::Holding;
            let is_due = watches
                || self.seen.is_some()
                || LOOK_AT_REFERENCES_EVERY <= self.looked.elapsed()
                || view.lanes.all().iter().any(is_held);
            if !is_due {
                continue;
            }
            self.looked = Instant::now();
            let origin = loaded.origin.clone();
            let look = move || if watches { origin.read_again() } else { origin.expand_again() };
            let Ok(read) = tokio::task::spawn_blocking(look).await else { continue };
            // What was refused is good again, as far as it was looked at.
            let was_refused = lock(&view.refused_reload)
                .as_ref()
                .is_some_and(|refused| watches || refused.reread == Reread::References);
            if self.is_news(read.map(|read| read.effective), &loaded.effective, was_refused) {
                return if watches { Reread::All } else { Reread::References };
            }
        }
    }

    /// Whether this was read twice, is not in force, and was not reported; or is in force again, although something else was refused.
    fn is_news(&mut self, found: Seen, in_force: &Effective, was_refused: bool) -> bool {
        if found.as_ref().is_ok_and(|found| found == in_force) {
            (self.seen, self.reported) = (None, None);
            return was_refused;
        }
        if self.reported.as_ref() == Some(&found) {
            return false;
        }
        let is_stable = self.seen.as_ref() == Some(&found);
        (self.seen, self.reported) =
            if is_stable { (None, Some(found)) } else { (Some(found), None) };
        is_stable
    }
}
