//! Rules that decide of whole traces (`decide = "trace"`): such a rule is for all items of a trace where it is for one of them. Pure.
//!
//! Each item is first asked alone which of these rules are for it ([`Rules::survey`]). Who has seen enough of a trace knows from that which
//! are for all of it, and says so when the rules are applied ([`Known`]).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::marks::Marks;
use super::redact::Shared;
use super::reparent::{Dropped, Elsewhere, Key, is_caller};
use super::{Action, Effect, Rule, Rules};
use crate::span::{Batch, Item, Source, TraceId};
use crate::support::{duration, written::As};

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

/// How long a decision holds for what comes of a trace after it, counted from what came last. It is longer than any wait for a decision:
/// what waits to be delivered is always known.
pub const REMEMBER: Duration = Duration::from_mins(15);

impl Default for DecideOptions {
    fn default() -> Self {
        // SDKs send what has ended every five seconds, so a trace is quiet between two of their requests.
        // Who watches agents at work sees spans as they come, and seldom has rules that drop what others hang under.
        Self { quiet: Duration::from_secs(10), longest: Duration::from_mins(2), reparent: false }
    }
}

impl DecideOptions {
    /// What cannot be meant, and what to do about it.
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

/// What is known of traces where rules are applied.
#[derive(Debug, Clone, Copy)]
pub enum Known<'k> {
    /// What the request itself says.
    Request,
    /// That they were kept: they are not decided again.
    Kept,
    /// What was decided.
    Decided(&'k Decided),
}

impl<'k> Known<'k> {
    /// What was decided, where rules wait for that.
    pub fn of(decided: Option<&'k Decided>) -> Self {
        decided.map_or(Self::Request, Self::Decided)
    }
}

/// What was decided of the traces of a request.
#[derive(Debug, Clone, Default)]
pub struct Decided {
    /// Which rules are for each trace; one that is not there was kept.
    pub traces: HashMap<TraceId, Marks>,
    /// What is above its spans in other requests.
    pub elsewhere: Elsewhere,
}

/// What has to be remembered of a request until its traces are decided.
#[derive(Debug, Default)]
pub struct Survey {
    /// Its traces, each with the rules that are for one of its items here.
    pub traces: HashMap<TraceId, Marks>,
    /// Spans that rules take away.
    pub dropped: Vec<(Key, Dropped)>,
    /// Spans from which other requests may have come.
    pub callers: Vec<Key>,
}

impl Decided {
    /// Which rules are for a trace, where these are for one that was kept.
    pub(super) fn of(decided: Option<&Self>, trace: TraceId, kept: Marks) -> Marks {
        decided.and_then(|decided| decided.traces.get(&trace)).copied().unwrap_or(kept)
    }
}

impl Rules {
    /// Whether any of them decides of whole traces, so that they are applied when traces are known.
    pub fn decide_of_traces(&self) -> bool {
        self.all.iter().any(|rule| rule.mark.is_some())
    }

    /// The same rules with these waits.
    #[must_use]
    pub fn waiting(self, decide: DecideOptions) -> Self {
        Self { decide, ..self }
    }

    /// How long they wait for a trace.
    pub fn decide(&self) -> DecideOptions {
        self.decide
    }

    /// What marks a trace that is kept without a decision: all that keep are for it, and none that takes away.
    pub fn kept(&self) -> Marks {
        self.marks_of(self.all.len(), Rule::keeps)
    }

    /// What marks those of the first so many rules that are such.
    fn marks_of(&self, count: usize, are_such: impl Fn(&Rule) -> bool) -> Marks {
        let such = self.all.iter().take(count).filter(|rule| are_such(rule));
        such.filter_map(|rule| rule.mark).fold(Marks::default(), Marks::with)
    }

    /// Whether anything has to be known of traces before they are applied.
    pub fn wait_for_traces(&self) -> bool {
        self.decide_of_traces() || self.reparent()
    }

    /// Whether they drop single spans, and it is to be known what is below these in other requests.
    fn reparent(&self) -> bool {
        self.decide.reparent && self.all.iter().any(|rule| rule.is_of_single_spans())
    }

    /// What has to be remembered of a request. It does not panic: what a rule panics on it is not for.
    pub fn survey(&self, batch: &Batch) -> Survey {
        let (mut survey, mut shared) = (Survey::default(), Shared::default());
        let reparent = self.reparent();
        let last = self.all.iter().rposition(|rule| rule.mark.is_some());
        let count = if reparent { self.all.len() } else { last.map_or(0, |last| last + 1) };
        // What asks for nothing is for every trace, also where what came of it first never reaches it: it is for what comes later.
        let for_all = self.marks_of(self.all.len(), |rule| rule.condition.is_none());
        let is_for_another = self.is_for_another(&batch.source);
        for item in batch.items.iter().filter(|_| !is_for_another) {
            let (marks, spared_by) = self.ask(&batch.source, item, count, &mut shared);
            let of_trace = survey.traces.entry(item.trace_id()).or_insert(for_all);
            *of_trace = of_trace.with(marks);
            let Some(span) = item.as_span().filter(|_| reparent) else { continue };
            let key = (span.trace_id, span.span_id);
            // One that cannot be read hangs as it did.
            let note = AssertUnwindSafe(|| match spared_by {
                Some(spared_by) => survey.dropped.push((key, Dropped::of(span, spared_by))),
                None if is_caller(span) => survey.callers.push(key),
                None => {}
            });
            catch_unwind(note).ok();
        }
        survey
    }

    /// Which of the first so many rules that decide of traces are for an item, asked as if it were alone; and where one of the others takes
    /// it away, which of the former it would have been spared by. One that is taken away reaches no later rule.
    fn ask(
        &self,
        source: &Source,
        item: &Item,
        count: usize,
        shared: &mut Shared,
    ) -> (Marks, Option<Marks>) {
        let (mut marks, mut last) = (Marks::default(), 0);
        let left = self.judge((source, item, None), count, shared, &mut |place, effect| {
            last = place;
            let mark = self.all.get(place).and_then(|rule| rule.mark);
            marks = marks.with(mark.filter(|_| effect != Effect::Failed).unwrap_or_default());
        });
        let spared_by = || match self.all.get(last).map(|rule| &rule.action) {
            Some(Action::Route(_)) => Marks::default(),
            _ => self.marks_of(last + 1, Rule::keeps),
        };
        (marks, left.is_nothing().then(spared_by))
    }
}

impl Rule {
    /// Whether it may take a span away and leave others of the trace. What asks for the sender only is for all that he sends.
    fn is_of_single_spans(&self) -> bool {
        let takes = matches!(self.action, Action::Drop | Action::Sample(_) | Action::Route(_));
        let is_of_some = |condition: &Condition| !condition.is_of_sender();
        takes && !self.is_of_traces && self.condition.as_ref().is_some_and(is_of_some)
    }
}
