//! Detects changes of the configuration and of the files that it refers to.
//!
//! It reads the configuration as a reload does and compares the result with the effective one; a difference triggers a normal reload. Files
//! are often replaced in several steps, so a change counts only once two reads have found the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::admin::View;
use crate::config::{Effective, Loaded, Report};
use crate::operate::Reread;
use crate::pipeline::{LaneHandle, LaneState};
use crate::support::lock::lock;

/// Interval if the configuration is watched, or while a sink's credentials are refused.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Interval otherwise: a rotated credential is noticed before the old one expires.
const LOOK_AT_REFERENCES_EVERY: Duration = Duration::from_mins(1);

/// The state of the watch.
#[derive(Debug)]
pub(super) struct Watch {
    ticks: Interval,
    looked: Instant,
    seen: Option<Seen>,
    /// The last reported result, even if it was refused: it is not reported again unless it changes.
    reported: Option<Seen>,
}

/// A result, in comparable form.
type Seen = Result<Effective, Report>;

impl Watch {
    pub(super) fn new() -> Self {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, looked: Instant::now(), seen: None, reported: None }
    }

    /// Waits until the configuration differs from the effective one; returns what to read again.
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
            // A configuration that was refused may be valid again, as far as it was read.
            let was_refused = lock(&view.refused_reload)
                .as_ref()
                .is_some_and(|refused| watches || refused.reread == Reread::References);
            if self.is_news(read.map(|read| read.effective), &loaded.effective, was_refused) {
                return if watches { Reread::All } else { Reread::References };
            }
        }
    }

    /// Returns whether this is a change that was read twice and not yet reported, or the effective configuration after a refused one.
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
