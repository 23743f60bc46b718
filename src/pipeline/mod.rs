//! The pipeline after the journal: one lane per sink, from cursor to cursor.
//!
//! A lane reads in journal order, batches deliveries, passes them to its sink and moves its cursor. Retries are unlimited, because the
//! journal keeps the data. Delivery is at least once; a sink that recognizes what it already has (the file sink) makes it exactly once with
//! the state that is saved with the cursor.
//!
//! Items that cannot be sent for a specific reason (a caller's key that is not known yet, a backend that fails on them) are deferred:
//! others overtake them, and only the cursor waits. `window` and `tracker` bound this.
//!
//! If rules decide on whole traces, the lane reads ahead, and a record waits in the journal until its traces are decided (`input`).
//!
//! If the sink needs trace contexts, the lane feeds a table of traces with everything it reads, and each delivery carries what the table
//! knows when it begins. Synthetic roots are delivered like other spans but are not items: the cursor does not count them.

mod lane;
mod input;
mod options;
mod read;
mod send;
mod window;
mod work;
mod tracker;
mod traces;
mod attempt;
mod job;
mod breaker;
mod commit;
mod dead_letter;
mod status;
mod lanes;

pub use dead_letter::DeadLetters;
pub use job::{LaneGone, Rejected};
pub use lane::Lane;
pub use lanes::{JobHandle, LaneHandle, Lanes};
pub use options::{BatchLimits, LaneOptions, RetryOptions};
pub use status::{LaneState, LaneStatus, Latency, OutcomeCounts, Resolved};
pub use traces::delivery_of;

#[cfg(test)]
mod decide_tests;
#[cfg(test)]
mod edge_tests;
#[cfg(test)]
mod hand_over_tests;
#[cfg(test)]
mod lake_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod trace_tests;
