//! Rules that decide of whole traces (`decide = "trace"`): such a rule is for all items of a trace where it is for one of them. Pure.
//!
//! Each item is first asked alone which of these rules are for it ([`Rules::marks`]). Who has seen enough of a trace knows from that which
//! are for all of it, and says so when the rules are applied ([`Known`]).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::redact::Shared;
use super::{Action, Rules, Step};
use crate::span::{Batch, Item, Source, TraceId};
use crate::support::{duration, written::As};

/// How long a lane waits for a trace before rules with `decide = "trace"` decide of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecideOptions {
    /// A trace is decided when nothing of it has arrived for so long.
    #[serde(with = "As::<duration::Duration>")]
    pub quiet: Duration,
    /// A trace that is never quiet is kept after so long, and counted. The sink is at most so far behind for its rules; 15 minutes at
    /// most.
    #[serde(with = "As::<duration::Duration>")]
    pub longest: Duration,
}

/// How long a decision holds for what comes of a trace after it, counted from what came last. It is longer than any wait for a decision:
/// what waits to be delivered is always known.
pub const REMEMBER: Duration = Duration::from_mins(15);

impl Default for DecideOptions {
    fn default() -> Self {
        // SDKs send what has ended every five seconds, so a trace is quiet between two of their requests.
        Self { quiet: Duration::from_secs(10), longest: Duration::from_mins(2) }
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

/// Which of the rules that decide of traces are for an item, or for a trace: a bit for each, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u32);

/// As many as have a bit; half of them for [[rules]], half for a sink's own.
pub(super) const WHOLE_MAX: usize = 32;

impl Marks {
    /// Those of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The one at this place among the rules that decide of traces.
    pub(crate) fn of(place: u32) -> Self {
        Self(1_u32.checked_shl(place).unwrap_or_default())
    }

    pub(super) fn has(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }
}

/// What is known of traces where rules are applied.
#[derive(Debug, Clone, Copy)]
pub enum Known<'k> {
    /// What the request itself says.
    Request,
    /// That they were kept: they are not decided again.
    Kept,
    /// Which rules are for each; one that is not there was kept.
    Decided(&'k HashMap<TraceId, Marks>),
}

/// The same, for one request.
pub(super) enum Decided<'k> {
    Kept,
    Here(HashMap<TraceId, Marks>),
    There(&'k HashMap<TraceId, Marks>),
}

impl Decided<'_> {
    pub(super) fn of(&self, trace: TraceId, kept: Marks) -> Marks {
        let known = match self {
            Self::Kept => None,
            Self::Here(known) => known.get(&trace),
            Self::There(known) => known.get(&trace),
        };
        known.copied().unwrap_or(kept)
    }
}

impl Rules {
    /// Whether any of them decides of whole traces, so that they are applied when traces are known.
    pub fn decide_of_traces(&self) -> bool {
        self.all.iter().any(|(rule, _)| rule.mark.is_some())
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
        let keeps = self.all.iter().filter(|(rule, _)| matches!(rule.action, Action::Keep));
        keeps.filter_map(|(rule, _)| rule.mark).fold(Marks::default(), Marks::with)
    }

    /// The traces of a request, each with the rules that are for one of its items here.
    pub fn marks(&self, batch: &Batch) -> HashMap<TraceId, Marks> {
        let (mut traces, mut shared) = (HashMap::new(), Shared::default());
        for item in &batch.items {
            let marks = traces.entry(item.trace_id()).or_insert(Marks::default());
            *marks = marks.with(self.marks_of(&batch.source, item, &mut shared));
        }
        traces
    }

    /// Which rules are for an item, asked as if it were alone. One that a rule takes away reaches no later rule.
    fn marks_of(&self, source: &Source, item: &Item, shared: &mut Shared) -> Marks {
        let (mut changed, mut is_kept): (Option<Box<Item>>, _) = (None, false);
        let mut marks = Marks::default();
        let last = self.all.iter().rposition(|(rule, _)| rule.mark.is_some());
        for (rule, _) in self.all.iter().take(last.map_or(0, |last| last + 1)) {
            let item = changed.as_deref().unwrap_or(item);
            let step = AssertUnwindSafe(|| {
                rule.matches(source, item).then(|| match rule.mark {
                    Some(_) if !matches!(rule.action, Action::Keep) => None,
                    _ => Some(self.act(&rule.action, item, shared)),
                })
            });
            let Ok(Some(step)) = catch_unwind(step) else { continue };
            marks = marks.with(rule.mark.unwrap_or_default());
            match step {
                Some(Step::Takes) if is_kept => {}
                Some(Step::Takes | Step::Routes) => break,
                Some(Step::Becomes(item)) => changed = Some(item),
                Some(Step::Is(super::Effect::Kept)) => is_kept = true,
                Some(Step::Is(_)) | None => {}
            }
        }
        marks
    }
}
