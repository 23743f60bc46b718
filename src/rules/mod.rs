//! Rules: the user's changes to spans on their way to a sink. Pure: no clock, disk, network or task.
//!
//! A rule is a table of the configuration: a condition (`match`) and one action. Rules in `[[rules]]` apply to every sink. Those in
//! `[[sinks.NAME.rules]]` follow and apply to one sink. Rules that stand for options of a kind come last. Rules apply in order:
//!
//! | action | effect on a matching item |
//! |---|---|
//! | `keep` | later `drop` and `sample` rules do not apply |
//! | `drop` | the sink does not get it |
//! | `sample` | the sink gets it only if its trace id is in the sample |
//! | `route` | sinks that are not listed do not get it |
//! | `redact`, `set` | it is changed, and later rules see the changed item (`redact/`) |
//!
//! A rule with `decide = "trace"` applies to all items of a trace if it matches one of them (`whole`); a lane then waits for the trace. The
//! options that assign items to a sink (`only.rs`) are `route` rules without a target. A header can restrict a request to one sink; the
//! others then get nothing of it.
//!
//! A lane applies the rules to everything it reads, before any other code sees it ([`Rules::apply`]): removed data reaches no table of
//! traces, no delivery and no dead letter. The result is deterministic, so reading a request again from the journal gives the same items at
//! the same places. If a rule panics on an item, the item stays unchanged, and the failure is counted.

mod condition;
mod field;
mod example;
mod check;
mod only;
mod reading;
mod read;
mod schema;
mod sample;
mod whole;
mod reparent;
mod redact;
#[cfg(test)]
mod mistake_tests;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ops::{Deref, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use check::{Test, read_tests, tests_schema};
use condition::Condition;
pub use condition::glob;
#[cfg(test)]
pub(crate) use example::batch_of_span;
use field::Beside;
pub use field::Fact;
pub use only::{EXCEPT, ONLY};
pub use read::{Place, of_text, read};
pub use redact::{BeforeJournal, FIELDS, MEMORY_BYTES, MEMORY_RATIO, PATTERNS, Pattern};
use redact::{Rewrite, Shared};
use reparent::Gone;
pub use reparent::{Dropped, Elsewhere, Key};
use sample::Sample;
pub use schema::schema;
pub use whole::{DecideOptions, Decided, KnownTraces, Marks, REMEMBER, UndecidedRequest};

use crate::prices::Prices;
use crate::span::{Batch, Item, Source, TraceObject, named};
use crate::support::options::did_you_mean;
use crate::support::problem::Problem;

/// A rule as configured, for any number of sinks.
#[derive(Debug)]
pub struct Rule {
    /// Its name in metrics: the user's, or `rule_3` for the third (`sink_rule_3` for a sink's own).
    pub name: String,
    /// Its position in the configuration; `None` if an option created it.
    pub at: Option<Range<usize>>,
    /// Whether it also applies before a request is written to the journal.
    pub before_journal: bool,
    /// Whether it applies to all items of a trace if it matches one.
    is_of_traces: bool,
    condition: Option<Condition>,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Keep,
    Drop,
    Sample(Sample),
    /// The sinks that get the item, each with the position of its name.
    Route(Vec<(String, Range<usize>)>),
    Rewrite(Rewrite),
}

named! {
    /// The effect of a rule on a matching item.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    Effect {
        /// Later rules do not drop it.
        Kept "kept",
        /// The sink does not get it.
        Dropped "dropped",
        /// The rule would drop it, but an earlier rule keeps it.
        Spared "would drop it, but an earlier rule keeps it",
        /// None: it is in the sample, or the rule routes it to this sink.
        Passed "passed",
        /// It was changed.
        Changed "changed",
        /// There was nothing to change.
        Unchanged "nothing to change",
        /// The rule panicked or produced an unreadable item, so the item is unchanged.
        Failed "failed, and left it unchanged",
    }
}

/// Describes what the matching rules do to an item.
pub fn explained<'r>(steps: impl IntoIterator<Item = &'r (&'r str, Effect)>) -> String {
    let steps = steps.into_iter().map(|(rule, effect)| format!("`{rule}`: {}", effect.as_str()));
    let steps: Vec<_> = steps.collect();
    if steps.is_empty() { "no rule matches it".to_owned() } else { steps.join(", ") }
}

/// The rules of one sink, in order, with their counters.
#[derive(Debug, Default)]
pub struct Rules {
    /// The names by which `route` refers to the sink.
    sinks: Vec<String>,
    all: Vec<Placed>,
    decide: DecideOptions,
    prices: Arc<Prices>,
    /// What is done to an item on which a rule fails. Without it, the item stays as it is.
    on_failure: Option<Rewrite>,
    /// A hook of tests, which runs first.
    #[cfg(test)]
    pub(crate) before: Option<fn(&Batch)>,
}

#[derive(Debug)]
struct Placed {
    rule: Arc<Rule>,
    /// Its mark, if it decides whole traces.
    mark: Option<Marks>,
    matched: AtomicU64,
    failures: AtomicU64,
}

impl Deref for Placed {
    type Target = Rule;

    fn deref(&self) -> &Rule {
        &self.rule
    }
}

/// The result of applying rules to a request.
#[derive(Debug)]
pub struct Ruled {
    /// The remaining request; the original if nothing changed.
    pub batch: Arc<Batch>,
    /// Number of items removed.
    pub filtered: u64,
    /// The original place of each item; `None` if no place changed.
    pub places: Option<Vec<usize>>,
}

impl Ruled {
    /// Returns the original place of an item.
    pub fn place_before(&self, place: usize) -> usize {
        let places = self.places.as_ref();
        places.and_then(|places| places.get(place)).copied().unwrap_or(place)
    }
}

/// What rules leave of an item.
#[derive(Debug, Default)]
struct Left {
    /// The place of the rule that drops it.
    dropped_by: Option<usize>,
    /// The item in its place, if it was changed.
    changed: Option<Box<Item>>,
}

impl Left {
    fn is_as_before(&self) -> bool {
        self.dropped_by.is_none() && self.changed.is_none()
    }

    /// Returns the trace object that remains of one.
    fn object(&self, before: &Arc<TraceObject>) -> Option<Arc<TraceObject>> {
        match self.changed.as_deref() {
            _ if self.dropped_by.is_some() => None,
            Some(Item::Trace(object)) => Some(Arc::clone(object)),
            _ => Some(Arc::clone(before)),
        }
    }
}

impl Rule {
    /// Checks the targets of `route` against the names of all sinks.
    pub fn check_route(&self, sinks: &[&str]) -> Vec<Problem> {
        let Action::Route(to) = &self.action else { return Vec::new() };
        let unknown = to.iter().filter(|(name, _)| !sinks.contains(&name.as_str()));
        let problem = |(name, at): &(String, Range<usize>)| {
            let hint = did_you_mean(name, sinks).unwrap_or_default();
            Problem::new(Some(at.clone()), "there is no sink with this name", hint)
        };
        unknown.map(problem).collect()
    }

    /// Returns whether it drops everything that no earlier rule keeps.
    fn drops_all(&self) -> bool {
        self.condition.is_none() && matches!(self.action, Action::Drop)
    }

    fn matches(&self, beside: Beside<'_>, item: &Item) -> bool {
        match &self.condition {
            None => true,
            Some(condition) => condition.holds(beside, item) == Some(true),
        }
    }

    fn keeps(&self) -> bool {
        matches!(self.action, Action::Keep)
    }

    /// Applies the action to a matching item, for a sink with these names. Returns the changed item, if it was changed.
    fn act(
        &self,
        sinks: &[String],
        item: &Item,
        is_kept: bool,
        shared: &mut Shared,
    ) -> (Effect, Option<Box<Item>>) {
        let effect = match &self.action {
            Action::Keep => Effect::Kept,
            Action::Sample(sample) if sample.keeps(item.trace_id()) => Effect::Passed,
            Action::Drop | Action::Sample(_) if is_kept => Effect::Spared,
            Action::Route(to) if to.iter().any(|(name, _)| sinks.contains(name)) => Effect::Passed,
            Action::Drop | Action::Sample(_) | Action::Route(_) => Effect::Dropped,
            Action::Rewrite(rewrite) => match rewrite.apply(item, shared) {
                Ok(Some(item)) if shared.has_room_for(&item) => {
                    return (Effect::Changed, Some(Box::new(item)));
                }
                Ok(None) => Effect::Unchanged,
                _ => Effect::Failed,
            },
        };
        (effect, None)
    }
}

impl Rules {
    /// Compiles the rules of a sink, in order. A part of a divided sink has several names.
    pub fn compile<'n>(
        sinks: impl IntoIterator<Item = &'n str>,
        rules: impl IntoIterator<Item = Arc<Rule>>,
    ) -> Self {
        let mut marks = (0..).map(Marks::of);
        let all = rules.into_iter().map(|rule| {
            let mark = if rule.is_of_traces { marks.next() } else { None };
            Placed { rule, mark, matched: AtomicU64::default(), failures: AtomicU64::default() }
        });
        Self {
            sinks: sinks.into_iter().map(str::to_owned).collect(),
            all: all.collect(),
            ..Self::default()
        }
    }

    /// Sets the prices that the rules use to compute costs.
    #[must_use]
    pub fn with_prices(self, prices: Arc<Prices>) -> Self {
        Self { prices, ..self }
    }

    /// Returns the prices for these rules and their sink.
    pub fn prices(&self) -> &Arc<Prices> {
        &self.prices
    }

    fn beside<'a>(&'a self, source: &'a Source) -> Beside<'a> {
        Beside { source, prices: &self.prices }
    }

    /// Finds rules with the name of an earlier one, because metrics could not tell them apart.
    pub fn same_names(&self) -> Vec<Problem> {
        let mut names = HashSet::new();
        let same = self.all.iter().filter(|rule| !names.insert(rule.name.as_str()));
        let hint = "metrics tell the rules of a sink apart by their names";
        let what = |rule: &Rule| format!("two rules are named `{}`", rule.name);
        same.map(|rule| Problem::new(rule.at.clone(), what(rule), hint)).collect()
    }

    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns whether any rule reads span contents, which is expensive.
    pub fn read_spans(&self) -> bool {
        self.all.iter().any(|rule| {
            let is_at_hand = rule.condition.as_ref().is_none_or(Condition::is_at_hand);
            !is_at_hand || matches!(rule.action, Action::Rewrite(_))
        })
    }

    /// Returns the rules that no item reaches because an earlier one drops everything.
    pub fn unreached(&self) -> impl Iterator<Item = &Rule> {
        let rules = self.all.iter().map(|placed| placed.rule.as_ref());
        let behind = rules.take_while(|rule| !rule.keeps()).skip_while(|rule| !rule.drops_all());
        behind.skip(1)
    }

    /// Returns each rule's name, the number of items that it matched, and the number on which it failed, since the start.
    pub fn figures(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.all.iter().map(|rule| {
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            (rule.name.as_str(), load(&rule.matched), load(&rule.failures))
        })
    }

    /// Applies the rules to a request that is read for the first time.
    pub fn apply(&self, batch: &Arc<Batch>, known: KnownTraces<'_>) -> Ruled {
        self.apply_noting(batch, known, |_, rule, effect| {
            let Some(rule) = self.all.get(rule) else { return };
            rule.matched.fetch_add(1, Ordering::Relaxed);
            rule.failures.fetch_add(u64::from(effect == Effect::Failed), Ordering::Relaxed);
        })
    }

    /// Applies the rules to a request that was read before, without counting.
    pub fn apply_again(&self, batch: &Arc<Batch>, known: KnownTraces<'_>) -> Ruled {
        self.apply_noting(batch, known, |_, _, _| ())
    }

    /// Applies the rules to a client's request, those with `before_journal` first, and also returns what each did to each matching item.
    pub fn explain(
        &self,
        batch: &Arc<Batch>,
        known: KnownTraces<'_>,
    ) -> (Ruled, Vec<Vec<(&str, Effect)>>) {
        let before: Vec<_> = self.all.iter().filter(|rule| rule.before_journal).collect();
        let sinks = self.sinks.iter().map(String::as_str);
        let rules = Self::compile(sinks, before.iter().map(|rule| Arc::clone(&rule.rule)));
        let rules = rules.with_prices(Arc::clone(&self.prices));
        let mut notes = Vec::new();
        let sent = rules.apply_noting(batch, known, |item, rule, effect| {
            notes.push((item, before.get(rule).copied(), effect));
        });
        let left = self.apply_noting(&sent.batch, known, |item, rule, effect| {
            let acts = matches!(effect, Effect::Dropped | Effect::Changed);
            let rule = self.all.get(rule).filter(|rule| acts || !rule.before_journal);
            notes.push((sent.place_before(item), rule, effect));
        });
        let mut steps = vec![Vec::new(); batch.items.len()];
        for (item, rule, effect) in notes {
            if let (Some(steps), Some(rule)) = (steps.get_mut(item), rule) {
                steps.push((rule.name.as_str(), effect));
            }
        }
        (left, steps)
    }

    fn is_for_another(&self, source: &Source) -> bool {
        source.only_sink().is_some_and(|sink| !self.sinks.iter().any(|known| known == sink))
    }

    /// Applies the rules and notes each step: the places of the item and of the rule that matched it.
    fn apply_noting(
        &self,
        batch: &Arc<Batch>,
        known: KnownTraces<'_>,
        mut note: impl FnMut(usize, usize, Effect),
    ) -> Ruled {
        if self.is_for_another(&batch.source) {
            let filtered = batch.items.len() as u64;
            let nothing = Batch { source: batch.source.clone(), items: Vec::new(), bytes: 0 };
            return Ruled { batch: Arc::new(nothing), filtered, places: Some(Vec::new()) };
        }
        let unchanged = || Ruled { batch: Arc::clone(batch), filtered: 0, places: None };
        if self.is_empty() {
            return unchanged();
        }
        #[cfg(test)]
        if let Some(before) = self.before {
            before(batch);
        }
        let here = (matches!(known, KnownTraces::Request) && self.decide_of_traces())
            .then(|| Decided { traces: self.survey(batch).traces, ..Decided::default() });
        let decided = match known {
            KnownTraces::Request | KnownTraces::Kept => here.as_ref(),
            KnownTraces::Decided(known) => Some(known),
        };
        // Ancestors of its spans in other requests, if any were dropped.
        let elsewhere = decided.map(|decided| &decided.elsewhere);
        let elsewhere = elsewhere.filter(|them| !them.dropped.is_empty());
        let (kept, mut shared) = (self.kept(), Shared::default());
        let left = batch.items.iter().enumerate().map(|(place, item)| {
            let mut note = |rule, effect| note(place, rule, effect);
            let marks = Decided::of(decided, item.trace_id(), kept);
            let one = (&batch.source, item, Some(marks));
            self.judge(one, self.all.len(), &mut shared, &mut note)
        });
        let left: Vec<_> = left.collect();
        let mut source = batch.source.clone();
        let is_same = !self.clean_headers(&mut source) && left.iter().all(Left::is_as_before);
        if is_same && elsewhere.is_none() {
            return unchanged();
        }
        self.made_of(batch, source, left, (decided, elsewhere), &mut shared)
    }

    /// Builds the request of the remaining items, without references to removed ones.
    fn made_of(
        &self,
        batch: &Batch,
        source: Source,
        left: Vec<Left>,
        (decided, elsewhere): (Option<&Decided>, Option<&Elsewhere>),
        shared: &mut Shared,
    ) -> Ruled {
        // Spans refer to the trace objects of their request, even to those that are not items.
        let mut objects = HashMap::new();
        for (item, left) in batch.items.iter().zip(&left) {
            if let Item::Trace(object) = item {
                objects.insert(Arc::as_ptr(object), left.object(object));
            }
        }
        let is_dropped = left.iter().map(|left| left.dropped_by.is_some());
        let gone = Gone::of(batch.items.iter().zip(is_dropped), elsewhere);
        let (mut items, mut places) = (Vec::with_capacity(left.len()), Vec::new());
        for (place, (item, left)) in batch.items.iter().zip(left).enumerate() {
            if left.dropped_by.is_some() {
                continue;
            }
            places.push(place);
            let mut item = left.changed.map_or_else(|| item.clone(), |changed| *changed);
            if let Item::Span(span) = &mut item {
                let mut object_of = |object: &Arc<TraceObject>| {
                    let item = Item::Trace(Arc::clone(object));
                    let marks = Decided::of(decided, object.trace_id, self.kept());
                    let one = (&batch.source, &item, Some(marks));
                    self.judge(one, self.all.len(), shared, &mut |_, _| ()).object(object)
                };
                let object = span.trace.as_ref().and_then(|object| {
                    objects.entry(Arc::as_ptr(object)).or_insert_with(|| object_of(object)).clone()
                });
                if object.as_ref().map(Arc::as_ptr) != span.trace.as_ref().map(Arc::as_ptr) {
                    *span = span.with_trace(object);
                }
                if let Some(hung) = gone.hung(span) {
                    *span = hung;
                }
            }
            items.push(item);
        }
        let filtered = (batch.items.len() - items.len()) as u64;
        let batch = Batch { source, items, bytes: batch.bytes };
        let places = (filtered > 0).then_some(places);
        Ruled { batch: Arc::new(batch), filtered, places }
    }

    /// Applies the first `count` rules to one item of a trace with these marks, each to the result of those before it. Without marks, rules
    /// see the item alone, and those that decide whole traces remove nothing. Each match is noted with the rule's place. A panic counts as a
    /// failure.
    fn judge(
        &self,
        (source, item, marks): (&Source, &Item, Option<Marks>),
        count: usize,
        shared: &mut Shared,
        note: &mut dyn FnMut(usize, Effect),
    ) -> Left {
        let (mut left, mut is_kept) = (Left::default(), false);
        for (place, rule) in self.all.iter().take(count).enumerate() {
            let item = left.changed.as_deref().unwrap_or(item);
            let act = AssertUnwindSafe(|| {
                let is_meant = match (rule.mark, marks) {
                    (Some(mark), Some(marks)) => marks.has(mark),
                    _ => rule.matches(self.beside(source), item),
                };
                let is_decided_later = marks.is_none() && rule.mark.is_some() && !rule.keeps();
                let passed = is_decided_later.then_some((Effect::Passed, None));
                is_meant
                    .then(|| passed.unwrap_or_else(|| rule.act(&self.sinks, item, is_kept, shared)))
            });
            let (mut effect, mut changed) = match catch_unwind(act) {
                Ok(None) => continue,
                Ok(Some(done)) => done,
                Err(_) => (Effect::Failed, None),
            };
            if let (Effect::Failed, Some(instead)) = (effect, &self.on_failure)
                && let Ok(item) = instead.apply(item, shared)
            {
                (effect, changed) = (Effect::Changed, item.map(Box::new));
            }
            is_kept |= effect == Effect::Kept;
            note(place, effect);
            left.changed = changed.or(left.changed);
            if effect == Effect::Dropped || effect == Effect::Failed && rule.is_of_option() {
                left.dropped_by = Some(place);
                break;
            }
        }
        left
    }
}
