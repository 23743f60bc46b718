//! What a sink answers for a delivery: a [`Verdict`] for each item, and the [`Pace`] for what comes next. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::span::named;

/// What a sink answers for a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What became of each item.
    pub verdicts: Verdicts,
    /// What the backend wants of whatever comes next.
    pub pace: Pace,
    /// What the backend left out of items that arrived.
    pub omitted: Option<Omitted>,
}

/// The verdict of each item of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdicts {
    /// All items share one.
    All(Verdict),
    /// One for each item, by its place in the delivery.
    Each(Vec<Verdict>),
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived.
    Delivered,
    /// It is not known to have arrived, and is worth sending again as it is.
    Retry,
    /// The backend broke (500, INTERNAL) while it worked on a request with this item, perhaps because of it: it is sent again some
    /// times, then in halves.
    Fault(Arc<Refusal>),
    /// The backend refused the request that this item was in: it is sent again in halves. Alone, it will never be taken.
    Split(Arc<Refusal>),
    /// It will never be taken.
    Reject(Arc<Refusal>),
    /// It cannot go yet for a reason of its own, which says nothing about the backend: it waits aside until
    /// [`Sink::is_deferred`](super::Sink::is_deferred) says no, and others go past it. Where there is no room for more of it, the oldest
    /// becomes a dead letter. Only for sinks that take several deliveries at once.
    Defer(Arc<Deferral>),
}

/// Why items are not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of refusal it is.
    pub class: RejectClass,
    /// Why, without payload text.
    pub reason: String,
    /// What the backend answered. It may quote payload: it goes to the dead letter only.
    pub answer: String,
}

/// What items wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    /// What they wait for, in the sink's own words; no secret.
    pub key: String,
    /// Why, without payload text.
    pub reason: String,
}

named! {
    /// Why items are not taken, coarsely enough for a label.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    RejectClass {
        /// The sink named the item.
        Item "item",
        /// The backend refused a request with nothing but this item in it.
        Malformed "malformed",
        /// The item alone is larger than the backend takes.
        TooLarge "too_large",
        /// The backend breaks on this item, again and again.
        Fault "fault",
        /// It waited for something of its own for as long as there was room.
        Deferred "deferred",
        /// This version does not understand its record.
        NotUnderstood "not_understood",
        /// Our own code panics on it.
        Panic "panic",
    }
}

/// What the backend wants of whatever comes next. Reasons are without payload text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pace {
    /// It works: go on. What comes again may come at once, so [`Verdict::Retry`] goes with another pace.
    #[default]
    Go,
    /// It asks for less at a time (429, 503, `RESOURCE_EXHAUSTED`).
    Slow {
        /// The wait that it asked for.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// It cannot be reached, or does not work: try again after a wait.
    Down {
        /// The wait that it asked for.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// It cannot work as configured (credentials, address): try again slowly until an operator has mended it.
    Hold {
        /// Why.
        reason: String,
    },
    /// Nothing is wrong, but the sink's checkpoint must be saved before anything else is handed over.
    Checkpoint,
}

impl Pace {
    /// Why it does not just go on.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Go | Self::Checkpoint => None,
            Self::Slow { reason, .. } | Self::Down { reason, .. } | Self::Hold { reason } => {
                Some(reason)
            }
        }
    }
}

/// Items that a backend left out of a delivery that arrived, without saying which: there is nothing to send again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Omitted {
    /// How many.
    pub items: u64,
    /// Why, without payload text.
    pub reason: String,
}

impl Verdicts {
    /// The verdict of the item at a place. An item that the sink does not speak of did not arrive.
    pub fn of(&self, place: usize) -> &Verdict {
        match self {
            Self::All(verdict) => verdict,
            Self::Each(verdicts) => verdicts.get(place).unwrap_or(&Verdict::Retry),
        }
    }
}

impl Report {
    /// All items share this verdict.
    pub fn all(verdict: Verdict, pace: Pace) -> Self {
        Self { verdicts: Verdicts::All(verdict), pace, omitted: None }
    }

    /// Every item arrived.
    pub fn delivered() -> Self {
        Self::all(Verdict::Delivered, Pace::Go)
    }

    /// The backend is down: everything again, not before `after`.
    pub fn down(after: Option<Duration>, reason: impl Into<String>) -> Self {
        Self::all(Verdict::Retry, Pace::Down { after, reason: reason.into() })
    }

    /// The backend asks for less: everything again, not before `after`.
    pub fn slow(after: Option<Duration>, reason: impl Into<String>) -> Self {
        Self::all(Verdict::Retry, Pace::Slow { after, reason: reason.into() })
    }

    /// An operator has to mend something: everything again after that.
    pub fn hold(reason: impl Into<String>) -> Self {
        Self::all(Verdict::Retry, Pace::Hold { reason: reason.into() })
    }

    /// The backend refused the request as a whole, for what is in it.
    pub fn split(class: RejectClass, reason: String, answer: String) -> Self {
        Self::all(Verdict::Split(Arc::new(Refusal { class, reason, answer })), Pace::Go)
    }

    /// The backend broke on the request.
    pub fn fault(reason: String, answer: String) -> Self {
        let pace = Pace::Down { after: None, reason: reason.clone() };
        let refusal = Refusal { class: RejectClass::Fault, reason, answer };
        Self::all(Verdict::Fault(Arc::new(refusal)), pace)
    }

    /// The backend will never take any of it.
    pub fn reject(reason: impl Into<String>, answer: impl Into<String>) -> Self {
        let (reason, answer) = (reason.into(), answer.into());
        let refusal = Refusal { class: RejectClass::Item, reason, answer };
        Self::all(Verdict::Reject(Arc::new(refusal)), Pace::Go)
    }

    /// Whether the next request would go no better: a backend that broke on this one may well take another.
    pub(super) fn ends_attempt(&self) -> bool {
        self.pace != Pace::Go && *self.verdicts.of(0) == Verdict::Retry
    }

    /// The first item's refusal; `None` where it was not refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self.verdicts.of(0) {
            Verdict::Fault(refusal) | Verdict::Split(refusal) | Verdict::Reject(refusal) => {
                Some(refusal)
            }
            Verdict::Delivered | Verdict::Retry | Verdict::Defer(_) => None,
        }
    }

    /// Whether the first item was refused like this.
    pub fn is_refused(&self, class: RejectClass) -> bool {
        self.refusal().is_some_and(|refusal| refusal.class == class)
    }
}

/// Makes one report out of those of several requests.
#[derive(Debug, Default)]
pub(super) struct Reports {
    verdicts: Vec<Verdict>,
    pace: Pace,
    omitted: Option<Omitted>,
}

impl Reports {
    /// Of a delivery with so many items. What no request is said to have had in it did not arrive.
    pub(super) fn new(items: usize) -> Self {
        Self { verdicts: vec![Verdict::Retry; items], ..Self::default() }
    }

    /// Adds the report of a request with the items at these places, whose verdicts are by their order in the request.
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

    /// Says what became of one item.
    pub(super) fn set(&mut self, place: usize, verdict: Verdict) {
        if let Some(known) = self.verdicts.get_mut(place) {
            *known = verdict;
        }
    }

    /// The report of all.
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
