//! The trip after the journal: one lane for each sink, from cursor to cursor.
//!
//! A lane reads in the order of the journal, gathers deliveries, hands them to its sink and moves its own cursor. Retry is without
//! limit: the journal is what holds the data meanwhile. Delivery is at least once; a sink that can tell what it has already (the
//! file sink) makes it exactly once with the state that is saved beside the cursor.
//!
//! Where its sink wants to know of traces, the lane feeds a table of them with all it reads, and each delivery carries what the table
//! knew when it began. Roots that stand for traces go the way of all spans but are no items: no figure of the cursor counts them.

mod lane;
mod batch;
mod slots;
mod known;
mod frontier;
mod deliver;
mod breaker;
mod ledger;
mod dead_letter;
mod status;

pub use batch::{BatchLimits, Batcher, Cut, Ready};
pub use dead_letter::DeadLetters;
pub use lane::{Lane, LaneEnd, LaneOptions, LaneParts};
pub use status::{LaneState, LaneStatus};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace_tests;
