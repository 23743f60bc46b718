//! Which lanes there are now. Whoever shows or uses lanes asks here each time: a reload changes them.

use std::sync::{Arc, Mutex};

use super::{JobHandle, LaneStatus};
use crate::support::lock::lock;
use crate::support::stop::Stop;

/// The lanes there are now, in the order of the configuration. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Lanes(Arc<Mutex<Vec<LaneHandle>>>);

/// A lane, for whoever does not run it.
#[derive(Debug, Clone)]
pub struct LaneHandle {
    /// Where it can be seen.
    pub status: Arc<LaneStatus>,
    /// The way in for what a replay wants delivered.
    pub jobs: JobHandle,
    pub(super) handing_over: Stop,
}

impl Lanes {
    /// All of them, as they are now.
    pub fn all(&self) -> Vec<LaneHandle> {
        lock(&self.0).clone()
    }

    /// The lane of a sink.
    pub fn of(&self, sink: &str) -> Option<LaneHandle> {
        lock(&self.0).iter().find(|lane| lane.status.sink == sink).cloned()
    }

    /// From now on these.
    pub fn set(&self, lanes: Vec<LaneHandle>) {
        *lock(&self.0) = lanes;
    }
}

impl LaneHandle {
    pub(super) fn new(status: Arc<LaneStatus>, jobs: JobHandle) -> Self {
        Self { status, jobs, handing_over: Stop::default() }
    }

    /// Has the lane begin nothing more: it ends with what is under way, and saves its cursor, so that another one can go on from
    /// there. What was read and has not begun is in the journal.
    pub fn hand_over(&self) {
        self.handing_over.stop();
    }
}
