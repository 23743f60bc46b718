//! Which lanes there are now. Whoever shows or uses lanes asks here each time: a reload changes them.

use std::sync::Arc;

use tokio::sync::watch;

use super::job::Jobs;
use super::{BatchLimits, LaneGone, LaneStatus, Rejected};
use crate::sinks::Delivery;
use crate::span::TraceNeeds;
use crate::support::stop::Stop;

/// The lanes there are now, in the order of the configuration. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Lanes(Arc<watch::Sender<Vec<LaneHandle>>>);

/// A lane, for whoever does not run it.
#[derive(Debug, Clone)]
pub struct LaneHandle {
    /// Where it can be seen.
    pub status: Arc<LaneStatus>,
    /// How large a delivery should be.
    pub limits: BatchLimits,
    /// What the sink wants to know of traces. A delivery that has contexts keeps them; any other gets what the lane knows.
    pub trace_needs: Option<TraceNeeds>,
    pub(super) jobs: Jobs,
    pub(super) handing_over: Stop,
}

/// The way into the lane of a sink, also when another lane takes its place.
#[derive(Debug, Clone)]
pub struct JobHandle {
    /// The lane as it was when it was asked for. Whoever makes a delivery applies its rules.
    pub lane: LaneHandle,
    lanes: Lanes,
}

impl Lanes {
    /// All of them, as they are now.
    pub fn all(&self) -> Vec<LaneHandle> {
        self.0.borrow().clone()
    }

    /// The way into the lane of a sink.
    pub fn jobs(&self, sink: &str) -> Option<JobHandle> {
        Some(JobHandle { lane: of(&self.0.borrow(), sink)?, lanes: self.clone() })
    }

    /// From now on these.
    pub fn set(&self, lanes: Vec<LaneHandle>) {
        self.0.send_replace(lanes);
    }
}

fn of(lanes: &[LaneHandle], sink: &str) -> Option<LaneHandle> {
    lanes.iter().find(|lane| lane.status.sink == sink).cloned()
}

impl LaneHandle {
    /// Has the lane begin nothing more: it ends with what is under way, and saves its cursor, so that another one can go on from
    /// there. What was read and has not begun is in the journal.
    pub fn hand_over(&self) {
        self.handing_over.stop();
    }
}

impl JobHandle {
    /// Has this delivered; returns the items that the sink will never take. When this returns, what arrived is safe with the sink:
    /// its checkpoint has been saved. It waits for as long as it takes; dropped, it gives up what has not begun. Where the lane is
    /// replaced meanwhile, the next one gets what this one gave up.
    pub async fn deliver(&self, delivery: Delivery) -> Result<Vec<Rejected>, LaneGone> {
        let mut lanes = self.lanes.0.subscribe();
        loop {
            let lane = of(&lanes.borrow_and_update(), &self.lane.status.sink).ok_or(LaneGone)?;
            match lane.jobs.deliver(delivery.clone()).await {
                Err(LaneGone) if lane.handing_over.is_stopped() => {
                    lanes.changed().await.map_err(|_| LaneGone)?;
                }
                ended => return ended,
            }
        }
    }
}
