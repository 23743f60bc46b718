//! The current lanes. A reload changes them, so users of lanes look them up here each time.

use std::sync::Arc;

use tokio::sync::watch;

use super::job::Jobs;
use super::{BatchLimits, LaneGone, LaneStatus, Rejected};
use crate::sinks::Delivery;
use crate::span::TraceNeeds;
use crate::support::stop::Stop;

/// The current lanes, in the order of the configuration. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Lanes(Arc<watch::Sender<Vec<LaneHandle>>>);

/// A handle to a lane, for code that does not run it.
#[derive(Debug, Clone)]
pub struct LaneHandle {
    /// Its status.
    pub status: Arc<LaneStatus>,
    /// The size of its deliveries.
    pub limits: BatchLimits,
    /// The trace context that the sink needs. A delivery that already has contexts keeps them; any other gets those of the lane.
    pub trace_needs: Option<TraceNeeds>,
    pub(super) jobs: Jobs,
    pub(super) handing_over: Stop,
}

/// Sends jobs to the lane of a sink, even if another lane replaces it.
#[derive(Debug, Clone)]
pub struct JobHandle {
    /// The lane at the time of the look-up. The caller applies its rules to deliveries.
    pub lane: LaneHandle,
    lanes: Lanes,
}

impl Lanes {
    /// Returns all lanes.
    pub fn all(&self) -> Vec<LaneHandle> {
        self.0.borrow().clone()
    }

    /// Returns a handle for jobs of a sink's lane.
    pub fn jobs(&self, sink: &str) -> Option<JobHandle> {
        Some(JobHandle { lane: of(&self.0.borrow(), sink)?, lanes: self.clone() })
    }

    /// Replaces the lanes.
    pub fn set(&self, lanes: Vec<LaneHandle>) {
        self.0.send_replace(lanes);
    }
}

fn of(lanes: &[LaneHandle], sink: &str) -> Option<LaneHandle> {
    lanes.iter().find(|lane| lane.status.sink == sink).cloned()
}

impl LaneHandle {
    /// Stops the lane from beginning anything more: it ends after the deliveries under way and saves its cursor, from which another lane
    /// continues. Records that it has read but not begun remain in the journal.
    pub fn hand_over(&self) {
        self.handing_over.stop();
    }
}

impl JobHandle {
    /// Delivers `delivery` and returns the items that the sink rejected. When this returns, the delivered items are safe with the sink,
    /// because its checkpoint has been saved. This waits without limit; dropping it cancels what has not begun. If the lane is replaced
    /// meanwhile, the next one gets what this one cancelled.
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
