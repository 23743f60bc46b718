//! What became of a delivery, request by request, and the report that it makes.

use std::time::Duration;

use crate::sinks::report::Reports;
use crate::sinks::{Omitted, Pace, RejectClass, Report};

/// What a sink says of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// Every item arrived.
    Delivered,
    /// Nothing is known to have arrived and it is worth trying again, not before `after` where the far side asked for that.
    Retry {
        /// The wait that the far side asked for.
        after: Option<Duration>,
        /// Why, without payload text.
        reason: String,
    },
    /// As [`Outcome::Retry`], and the far side asks for less at a time (429, 503, `RESOURCE_EXHAUSTED`).
    Throttled {
        /// The wait that the far side asked for.
        after: Option<Duration>,
        /// Why, without payload text.
        reason: String,
    },
    /// The far side broke while it worked on this delivery (500, INTERNAL), perhaps because of one of its items: worth trying again
    /// some times, then in halves.
    Fault {
        /// Why, without payload text.
        reason: String,
        /// What the far side answered. It may quote payload: it goes to the dead letter only.
        answer: String,
    },
    /// The request is larger than the far side takes, and nothing arrived: try it in halves. One item alone will never be taken.
    TooLarge {
        /// The size that was refused, in bytes before compression.
        request_bytes: usize,
        /// Why, without payload text.
        reason: String,
        /// What the far side answered. It may quote payload: it goes to the dead letter only.
        answer: String,
    },
    /// The request was refused as a whole because of what is in it, and nothing arrived: try it in halves. One item alone will
    /// never be taken.
    Malformed {
        /// Why, without payload text.
        reason: String,
        /// What the far side answered. It may quote payload: it goes to the dead letter only.
        answer: String,
    },
    /// These items will never be taken; all others arrived.
    Reject(Vec<Rejection>),
    /// The delivery arrived, but the far side left out some of it and did not say which: there is nothing to send again.
    Incomplete {
        /// How many items the far side left out.
        rejected: u64,
        /// Why, without payload text.
        reason: String,
    },
    /// The items arrived, but something that goes with them (the summary of their trace) did not, for this reason. They are handed
    /// over again only for its sake, and the sink remembers which they are.
    Owed(Box<Outcome>),
    /// The delivery went out in several requests, and these are theirs. Each item is in one part; places in a part's own outcome
    /// are places in the delivery. A part never has parts.
    Parts(Vec<Part>),
    /// It cannot work as configured (credentials, address): hold everything, and try again slowly until an operator has mended it.
    Stop {
        /// Why, without payload text.
        reason: String,
    },
}

/// What became of a part of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    /// Its items' places in the delivery. None where something else arrived, which shows that the far side works.
    pub(super) items: Vec<usize>,
    /// How it went for them.
    pub(super) outcome: Outcome,
}

/// An item that a sink will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    /// Its place in the delivery.
    pub(super) index: usize,
    /// Why, without payload text.
    pub(super) reason: String,
    /// What the far side answered. It may quote payload: it goes to the dead letter only.
    pub(super) answer: String,
}

impl Outcome {
    /// What a lane is told, of a delivery with so many items.
    pub(super) fn report(self, items: usize) -> Report {
        let mut reports = Reports::new(items);
        add(&mut reports, (0..items).collect(), self);
        reports.finish()
    }

    /// What a whole request or a step before it means for the lane.
    pub(super) fn of(report: Report) -> Self {
        match report.pace {
            Pace::Hold { reason } => Self::Stop { reason },
            Pace::Slow { after, reason } => Self::Throttled { after, reason },
            Pace::Down { after, reason } => Self::Retry { after, reason },
            Pace::Go | Pace::Checkpoint => Self::Delivered,
        }
    }
}

fn add(reports: &mut Reports, places: Vec<usize>, outcome: Outcome) {
    let report = match outcome {
        Outcome::Delivered => Report::delivered(),
        Outcome::Retry { after, reason } => Report::down(after, reason),
        Outcome::Throttled { after, reason } => Report::slow(after, reason),
        Outcome::Fault { reason, answer } => Report::fault(reason, answer),
        Outcome::TooLarge { reason, answer, .. } => {
            Report::split(RejectClass::TooLarge, reason, answer)
        }
        Outcome::Malformed { reason, answer } => {
            Report::split(RejectClass::Malformed, reason, answer)
        }
        Outcome::Stop { reason } => Report::hold(reason),
        Outcome::Incomplete { rejected, reason } => {
            let omitted = Some(Omitted { items: rejected, reason });
            Report { omitted, ..Report::delivered() }
        }
        Outcome::Owed(reason) => return add(reports, places, *reason),
        Outcome::Reject(rejections) => {
            reports.add(places, Report::delivered());
            for Rejection { index, reason, answer } in rejections {
                reports.add([index], Report::reject(reason, answer));
            }
            return;
        }
        Outcome::Parts(parts) => {
            for Part { items, outcome } in parts {
                add(reports, items, outcome);
            }
            return;
        }
    };
    reports.add(places, report);
}
