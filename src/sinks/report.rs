//! A sink's answer for a delivery: a [`Verdict`] for each item, and the [`Pace`] of the next deliveries. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::span::named;

/// A sink's answer for a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The result of each item.
    pub verdicts: Verdicts,
    /// How the lane should proceed with the next deliveries.
    pub pace: Pace,
    /// Items that the backend dropped from a delivery that arrived.
    pub omitted: Option<Omitted>,
}

/// The verdict of each item of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdicts {
    /// All items have the same verdict.
    All(Verdict),
    /// One verdict for each item, by its index in the delivery.
    Each(Vec<Verdict>),
}

/// The result of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived.
    Delivered,
    /// It may not have arrived, and should be sent again unchanged.
    Retry,
    /// The backend failed (500, INTERNAL) on a request with this item, perhaps because of it. The request is retried a few times and then
    /// split in halves.
    Fault(Arc<Refusal>),
    /// The backend rejected the request with this item. The request is split in halves; a single item will never be accepted.
    Split(Arc<Refusal>),
    /// The backend will never accept it.
    Reject(Arc<Refusal>),
    /// It cannot be sent yet, for a reason that says nothing about the backend. It waits separately until
    /// [`Sink::is_deferred`](super::Sink::is_deferred) returns false, and other items overtake it. If there is no room for more, the oldest
    /// one becomes a dead letter. Only for sinks that take several concurrent deliveries.
    Defer(Arc<Deferral>),
}

/// Why items are rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The class of the reason.
    pub class: RejectClass,
    /// The reason, without payload text.
    pub reason: String,
    /// The backend's answer. It may quote payload, so it goes only to the dead letter.
    pub answer: String,
}

/// What deferred items wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    /// The sink's own name for it; not a secret.
    pub key: String,
    /// The reason, without payload text.
    pub reason: String,
}

named! {
    /// The class of a rejection, few enough for a metric's label.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    RejectClass {
        /// The sink named the item.
        Item "item",
        /// The backend rejected a request that contained only this item.
        Malformed "malformed",
        /// The item alone exceeds the backend's size limit.
        TooLarge "too_large",
        /// The backend fails on this item repeatedly.
        Fault "fault",
        /// It was deferred for as long as there was room.
        Deferred "deferred",
        /// This version cannot decode its record.
        NotUnderstood "not_understood",
        /// Spanferry panics on it.
        Panic "panic",
    }
}

/// How the lane should proceed with the next deliveries. Reasons contain no payload text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pace {
    /// The backend works: continue. Retries may start immediately, so [`Verdict::Retry`] needs another pace.
    #[default]
    Go,
    /// It asks for a lower rate (429, 503, `RESOURCE_EXHAUSTED`).
    Slow {
        /// The wait that it asked for.
        after: Option<Duration>,
        /// The reason.
        reason: String,
    },
    /// It is unreachable or does not work: retry after a wait.
    Down {
        /// The wait that it asked for.
        after: Option<Duration>,
        /// The reason.
        reason: String,
    },
    /// It cannot work as configured (credentials, address): retry slowly until an operator has fixed it.
    Hold {
        /// The reason.
        reason: String,
    },
    /// Nothing is wrong, but the sink's checkpoint must be saved before the next delivery.
    Checkpoint,
}

impl Pace {
    /// Returns [`Pace::Down`] without a wait that was asked for.
    pub fn down(reason: impl Into<String>) -> Self {
        Self::Down { after: None, reason: reason.into() }
    }

    /// Returns [`Pace::Hold`].
    pub fn hold(reason: impl Into<String>) -> Self {
        Self::Hold { reason: reason.into() }
    }

    /// Returns the reason for anything but continuing.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Go | Self::Checkpoint => None,
            Self::Slow { reason, .. } | Self::Down { reason, .. } | Self::Hold { reason } => {
                Some(reason)
            }
        }
    }
}

/// Items that a backend dropped from a delivery that arrived, without naming them, so that none can be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Omitted {
    /// The number of items.
    pub items: u64,
    /// The reason, without payload text.
    pub reason: String,
}

impl Verdicts {
    /// Returns the verdict of the item at an index. An item without a verdict did not arrive.
    pub fn of(&self, place: usize) -> &Verdict {
        match self {
            Self::All(verdict) => verdict,
            Self::Each(verdicts) => verdicts.get(place).unwrap_or(&Verdict::Retry),
        }
    }
}

impl Report {
    /// Reports the same verdict for all items.
    pub fn all(verdict: Verdict, pace: Pace) -> Self {
        Self { verdicts: Verdicts::All(verdict), pace, omitted: None }
    }

    /// Reports that every item arrived.
    pub fn delivered() -> Self {
        Self::all(Verdict::Delivered, Pace::Go)
    }

    /// Reports that the backend is down: all items are retried, not before `after`.
    pub fn down(after: Option<Duration>, reason: impl Into<String>) -> Self {
        Self::all(Verdict::Retry, Pace::Down { after, reason: reason.into() })
    }

    /// Reports that the backend throttles: all items are retried, not before `after`.
    pub fn slow(after: Option<Duration>, reason: impl Into<String>) -> Self {
        Self::all(Verdict::Retry, Pace::Slow { after, reason: reason.into() })
    }

    /// Reports that an operator must fix something: all items are retried afterwards.
    pub fn hold(reason: impl Into<String>) -> Self {
        Self::all(Verdict::Retry, Pace::hold(reason))
    }

    /// Reports that the backend rejected the complete request because of its contents.
    pub fn split(class: RejectClass, reason: String, answer: String) -> Self {
        Self::all(Verdict::Split(Arc::new(Refusal { class, reason, answer })), Pace::Go)
    }

    /// Reports that the backend failed on the request.
    pub fn fault(reason: String, answer: String) -> Self {
        let refusal = Refusal { class: RejectClass::Fault, reason: reason.clone(), answer };
        Self::all(Verdict::Fault(Arc::new(refusal)), Pace::down(reason))
    }

    /// Reports that the backend will never accept any of the items.
    pub fn reject(reason: impl Into<String>, answer: impl Into<String>) -> Self {
        let (reason, answer) = (reason.into(), answer.into());
        let refusal = Refusal { class: RejectClass::Item, reason, answer };
        Self::all(Verdict::Reject(Arc::new(refusal)), Pace::Go)
    }

    /// Returns whether the next request would fail, too. A backend that failed on this one may well accept another.
    pub(super) fn ends_attempt(&self) -> bool {
        self.pace != Pace::Go && *self.verdicts.of(0) == Verdict::Retry
    }

    /// Returns the first item's rejection; `None` if it was not rejected.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self.verdicts.of(0) {
            Verdict::Fault(refusal) | Verdict::Split(refusal) | Verdict::Reject(refusal) => {
                Some(refusal)
            }
            Verdict::Delivered | Verdict::Retry | Verdict::Defer(_) => None,
        }
    }

    /// Returns whether the first item was rejected with this class.
    pub fn is_refused(&self, class: RejectClass) -> bool {
        self.refusal().is_some_and(|refusal| refusal.class == class)
    }
}

/// Merges the reports of several requests.
#[derive(Debug, Default)]
pub(super) struct Reports {
    verdicts: Vec<Verdict>,
    pace: Pace,
    omitted: Option<Omitted>,
}

impl Reports {
    /// Starts for a delivery of this many items. An item that is in no reported request did not arrive.
    pub(super) fn new(items: usize) -> Self {
        Self { verdicts: vec![Verdict::Retry; items], ..Self::default() }
    }

    /// Adds the report of a request whose items have these indices, in the order of the request.
    pub(super) fn add(&mut self, places: impl IntoIterator<Item = usize>, report: Report) {
        for (at, place) in places.into_iter().enumerate() {
            self.set(place, report.verdicts.of(at).clone());
        }
        if let Some(more) = report.omitted {
            let items = self.omitted.as_ref().map_or(0, |known| known.items) + more.items;
            self.omitted = Some(Omitted { items, ..more });
        }
        if self.pace == Pace::Go {
            self.pace = report.pace;
        }
    }

    /// Sets the verdict of one item.
    pub(super) fn set(&mut self, place: usize, verdict: Verdict) {
        if let Some(known) = self.verdicts.get_mut(place) {
            *known = verdict;
        }
    }

    /// Returns the merged report.
    pub(super) fn finish(self) -> Report {
        let Self { verdicts, pace, omitted } = self;
        let shared = match verdicts.first() {
            None => Some(Verdict::Delivered),
            Some(first) => verdicts.iter().all(|other| other == first).then(|| first.clone()),
        };
        Report { verdicts: shared.map_or(Verdicts::Each(verdicts), Verdicts::All), pace, omitted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_several_requests_are_one_where_they_agree() {
        let mut both = Reports::new(2);
        both.add([0], Report::delivered());
        both.add([1], Report::delivered());
        assert_eq!(both.finish(), Report::delivered());
        assert_eq!(Reports::new(0).finish(), Report::delivered());
    }

    #[test]
    fn a_rejection_of_an_item_that_is_not_there_makes_none_count_as_delivered() {
        let mut reports = Reports::new(3);
        reports.add([0, 1], Report::delivered());
        let refused = Report::reject("odd", "");
        reports.set(3, refused.verdicts.of(0).clone());
        reports.add([usize::MAX], refused);
        let verdicts = reports.finish().verdicts;
        let seen: Vec<_> = (0..5).map(|place| verdicts.of(place) == &Verdict::Delivered).collect();
        assert_eq!(seen, [true, true, false, false, false]);
        assert_eq!(verdicts.of(2), &Verdict::Retry, "nobody spoke of it");
    }

    #[test]
    fn the_first_request_that_does_not_go_on_sets_the_pace_and_what_was_not_tried_comes_again() {
        let mut reports = Reports::new(4);
        reports.add([3, 0], Report::delivered());
        reports.add([1], Report::slow(None, "429"));
        reports.add([9], Report::hold("out of range"));
        let report = reports.finish();
        assert_eq!(report.pace, Report::slow(None, "429").pace);
        let verdicts = [Verdict::Delivered, Verdict::Retry, Verdict::Retry, Verdict::Delivered];
        assert_eq!(report.verdicts, Verdicts::Each(verdicts.to_vec()));
        assert_eq!(*report.verdicts.of(4), Verdict::Retry, "what is not spoken of did not arrive");
    }
}
