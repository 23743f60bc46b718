//! Rules that decide whole traces (`decide = "trace"`): such a rule applies to all items of a trace if it matches one of them. Pure.
//!
//! First, each item is tested alone against these rules ([`Rules::survey`]). The code that has seen enough of a trace combines the results
//! and passes them along when the rules are applied ([`KnownTraces`]).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::redact::Shared;
use super::reparent::{Dropped, Elsewhere, Key, is_caller};
use super::{Action, Effect, Rule, Rules};
use crate::span::{Batch, Item, Source, TraceId};
use crate::support::{duration, written::As};

/// The rules among those that decide traces that match an item or a trace: one bit each, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u32);

/// The number of bits; half of them for `[[rules]]`, half for a sink's own rules.
pub(super) const WHOLE_MAX: usize = 32;

impl Marks {
    /// Returns the union.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the mark of the rule at this place among those that decide traces.
    pub(crate) fn of(place: u32) -> Self {
        Self(1_u32.checked_shl(place).unwrap_or_default())
    }

    /// Returns whether the sets intersect.
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}

/// How long a sink waits for a trace before rules with `decide = "trace"` decide of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecideOptions {
    /// A trace is decided when nothing of it has arrived for this long.
    #[serde(with = "As::<duration::Duration>")]
    pub quiet: Duration,
    /// A trace that is never quiet is kept after this long, and counted. The rules delay the sink by at most this long; 15 minutes at most.
    #[serde(with = "As::<duration::Duration>")]
    pub longest: Duration,
    /// Whether the sink waits for every trace where rules drop single spans, so that children of dropped spans move to the nearest ancestor
    /// that is kept even if they arrive in another request. Without it, only spans of the same request are looked at.
    pub reparent: bool,
}

/// How long a decision applies to later items of a trace, counted from its last item. This exceeds every wait for a decision, so the
/// decision on pending items is always known.
pub const REMEMBER: Duration = Duration::from_mins(15);

impl Default for DecideOptions {
    fn default() -> Self {
        // SDKs export finished spans every five seconds, so a trace is quiet between two requests. Reparenting is off because people who
        // watch agents live want spans as they come, and seldom drop spans that have others below them.
        Self { quiet: Duration::from_secs(10), longest: Duration::from_mins(2), reparent: false }
    }
}

impl DecideOptions {
    /// Returns what is wrong with the options, and what to do about it.
    pub fn mistake(&self) -> Option<(&'static str, &'static str)> {
        if self.longest < self.quiet {
            return Some((
                "`decide.longest` is shorter than `decide.quiet`, so no trace would be decided by its rules",
                "write a longer time, or a shorter `quiet`",
            ));
        }
        let is_too_long = REMEMBER < self.longest;
        is_too_long.then_some(("`decide.longest` is longer than 15 minutes", "write `15m` or less"))
    }
}

/// What is known about traces when rules are applied.
#[derive(Debug, Clone, Copy)]
pub enum KnownTraces<'k> {
    /// Only what the request itself contains.
    Request,
    /// They were kept, and are not decided again.
    Kept,
    /// They were decided.
    Decided(&'k Decided),
}

impl<'k> KnownTraces<'k> {
    /// Returns the decisions, if there are any.
    pub fn of(decided: Option<&'k Decided>) -> Self {
        decided.map_or(Self::Request, Self::Decided)
    }
}

/// The decisions on the traces of a request.
#[derive(Debug, Clone, Default)]
pub struct Decided {
    /// The rules that match each trace; a trace that is missing was kept.
    pub traces: HashMap<TraceId, Marks>,
    /// Ancestors of its spans in other requests.
    pub elsewhere: Elsewhere,
}

/// What must be remembered of a request until its traces are decided.
#[derive(Debug, Default)]
pub struct UndecidedRequest {
    /// Its traces, each with the rules that match one of its items here.
    pub traces: HashMap<TraceId, Marks>,
    /// Spans that rules drop.
    pub dropped: Vec<(Key, Dropped)>,
    /// Spans from which other requests may originate.
    pub callers: Vec<Key>,
}

impl Decided {
    /// Returns the rules that match a trace; `kept` for a trace that was kept.
    pub(super) fn of(decided: Option<&Self>, trace: TraceId, kept: Marks) -> Marks {
        decided.and_then(|decided| decided.traces.get(&trace)).copied().unwrap_or(kept)
    }
}

impl Rules {
    /// Returns whether any rule decides whole traces, so that rules are applied only once traces are known.
    pub fn decide_of_traces(&self) -> bool {
        self.all.iter().any(|rule| rule.mark.is_some())
    }

    /// Sets the waiting times.
    #[must_use]
    pub fn waiting(self, decide: DecideOptions) -> Self {
        Self { decide, ..self }
    }

    /// Returns how long the rules wait for a trace.
    pub fn decide(&self) -> DecideOptions {
        self.decide
    }

    /// Returns the marks of a trace that is kept without a decision: all `keep` rules match it, and no rule removes it.
    pub fn kept(&self) -> Marks {
        self.marks_of(self.all.len(), Rule::keeps)
    }

    /// Returns the marks of those among the first `count` rules for which the predicate holds.
    fn marks_of(&self, count: usize, are_such: impl Fn(&Rule) -> bool) -> Marks {
        let such = self.all.iter().take(count).filter(|rule| are_such(rule));
        such.filter_map(|rule| rule.mark).fold(Marks::default(), Marks::with)
    }

    /// Returns whether traces must be known before the rules are applied.
    pub fn wait_for_traces(&self) -> bool {
        self.decide_of_traces() || self.reparent()
    }

    /// Returns whether the rules drop single spans, and spans below them in other requests must be known.
    fn reparent(&self) -> bool {
        self.decide.reparent && self.all.iter().any(|rule| rule.is_of_single_spans())
    }

    /// Collects what must be remembered of a request. It does not panic: a rule that panics on an item does not match it.
    pub fn survey(&self, batch: &Batch) -> UndecidedRequest {
        let (mut survey, mut shared) = (UndecidedRequest::default(), Shared::default());
        let reparent = self.reparent();
        let last = self.all.iter().rposition(|rule| rule.mark.is_some());
        let count = if reparent { self.all.len() } else { last.map_or(0, |last| last + 1) };
        // Rules without a condition match every trace, even if its first items never reach them: they apply to later ones.
        let for_all = self.marks_of(self.all.len(), |rule| rule.condition.is_none());
        let is_for_another = self.is_for_another(&batch.source);
        for item in batch.items.iter().filter(|_| !is_for_another) {
            let (marks, spared_by) = self.ask(&batch.source, item, count, &mut shared);
            let of_trace = survey.traces.entry(item.trace_id()).or_insert(for_all);
            *of_trace = of_trace.with(marks);
            let Some(span) = item.as_span().filter(|_| reparent) else { continue };
            let key = (span.trace_id, span.span_id);
            // An unreadable span keeps its parent.
            let note = AssertUnwindSafe(|| match spared_by {
                Some(spared_by) => survey.dropped.push((key, Dropped::of(span, spared_by))),
                None if is_caller(span) => survey.callers.push(key),
                None => {}
            });
            catch_unwind(note).ok();
        }
        survey
    }

    /// Returns which of the first `count` rules that decide traces match an item on its own. If another rule drops the item, it also
    /// returns the marks of the rules that would have kept it. A dropped item reaches no later rule.
    fn ask(
        &self,
        source: &Source,
        item: &Item,
        count: usize,
        shared: &mut Shared,
    ) -> (Marks, Option<Marks>) {
        let mut marks = Marks::default();
        let left = self.judge((source, item, None), count, shared, &mut |place, effect| {
            let mark = self.all.get(place).and_then(|rule| rule.mark);
            marks = marks.with(mark.filter(|_| effect != Effect::Failed).unwrap_or_default());
        });
        let spared_by = |place: usize| match self.all.get(place).map(|rule| &rule.action) {
            Some(Action::Route(_)) => Marks::default(),
            _ => self.marks_of(place + 1, Rule::keeps),
        };
        (marks, left.dropped_by.map(spared_by))
    }
}

impl Rule {
    /// Returns whether it may drop a span and leave others of its trace. A condition on the sender alone matches all of the sender's spans.
    fn is_of_single_spans(&self) -> bool {
        let takes = matches!(self.action, Action::Drop | Action::Sample(_) | Action::Route(_));
        let is_of_some = |condition: &Condition| !condition.is_of_sender();
        takes && !self.is_of_traces && self.condition.as_ref().is_some_and(is_of_some)
    }
}
