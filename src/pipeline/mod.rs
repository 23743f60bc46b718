//! The trip after the journal: one lane for each sink, from cursor to cursor.
//!
//! A lane reads in the order of the journal, gathers deliveries, hands them to its sink and moves its own cursor. Retry is without
//! limit: the journal is what holds the data meanwhile. Delivery is at least once; a sink that can tell what it has already (the
//! file sink) makes it exactly once with the state that is saved beside the cursor.
//!
//! What cannot go for a reason of its own (a caller's key that is not known yet, a backend that breaks on it) is deferred: others go
//! past it, and only the cursor waits. `window` and `tracker` say what bounds that.
//!
//! Where rules decide of whole traces, the lane reads ahead, and a record waits in the journal until its traces are decided (`way`).
//!
//! Where its sink wants to know of traces, the lane feeds a table of them with all it reads, and each delivery carries what the table
//! knew when it began. Roots that stand for traces go the way of all spans but are no items: no figure of the cursor counts them.

mod lane;
mod way;
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
pub use status::{LaneState, LaneStatus, Latency, Resolved, Settled};
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
