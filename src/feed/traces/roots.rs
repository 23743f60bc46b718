//! Which traces still need a root, and when. Pure: it is told the time.
//!
//! A root is owed from the first span that names it as its parent on. It is due once its trace has been quiet for as long as the
//! sink wants, in the time of the journal, and it is made once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};

use crate::normalize::RootSource;
use crate::span::{Source, Span, TraceContext, TraceId};

/// Traces whose root was sent and that are remembered for it after they are forgotten otherwise, so that a late span does not
/// bring a second one.
const SENT_MAX: usize = 65_536;

/// Memory of a trace that owes a root, in bytes, roughly: ids, headers and the way to the scope.
pub(super) const OWED_BYTES: usize = 512;

/// How it stands with a trace's root.
#[derive(Debug, Default)]
pub(super) enum Root {
    /// No span needs one.
    #[default]
    Unneeded,
    /// It is to be sent once the trace is quiet.
    Owed(Box<Owed>),
    /// It was sent.
    Sent,
}

/// What the root is made from, beside what is known of its trace.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) root: RootSource,
    /// Who sent the trace.
    pub(super) source: Source,
}

/// A root that is due.
#[derive(Debug)]
pub struct DueRoot {
    /// The span that is the root.
    pub span: Span,
    /// Who sent the trace it stands for.
    pub source: Source,
    /// What is known of that trace.
    pub context: TraceContext,
}

/// Roots that are due, and what is said of their time once they are sent.
#[derive(Debug)]
pub struct DueRoots {
    /// The roots.
    pub roots: Vec<DueRoot>,
    /// All roots that were due up to this time, in nanoseconds since 1970, are these or were taken before.
    pub until_ns: u64,
}

/// The order in which roots are due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// When to look at a trace again: one entry for each that owes a root, too early when it was not quiet since.
    looks: BinaryHeap<Reverse<(u64, TraceId)>>,
    /// Traces that have been quiet long enough, with the time at which they had been.
    due: VecDeque<(u64, TraceId)>,
    /// Roots of traces that had to be forgotten before they were due.
    early: Vec<DueRoot>,
    sent: HashSet<TraceId>,
    /// The same, in order.
    sent_order: VecDeque<TraceId>,
    /// Roots due up to this time were sent before the last start.
    until_ns: u64,
}

impl Schedule {
    pub(super) fn until_ns(&self) -> u64 {
        self.until_ns
    }

    pub(super) fn set_until(&mut self, until_ns: u64) {
        self.until_ns = until_ns;
    }

    /// Forgets what is owed.
    pub(super) fn clear(&mut self) {
        self.looks.clear();
        self.due.clear();
        self.early.clear();
    }

    pub(super) fn was_sent(&self, trace: TraceId) -> bool {
        self.sent.contains(&trace)
    }

    pub(super) fn note_sent(&mut self, trace: TraceId) {
        if self.sent.insert(trace) {
            self.sent_order.push_back(trace);
        }
        if SENT_MAX < self.sent_order.len()
            && let Some(oldest) = self.sent_order.pop_front()
        {
            self.sent.remove(&oldest);
        }
    }

    pub(super) fn look_at(&mut self, trace: TraceId, at_ns: u64) {
        self.looks.push(Reverse((at_ns, trace)));
    }

    /// The next trace to look at, if it is time.
    pub(super) fn next_look(&mut self, now_ns: u64) -> Option<TraceId> {
        let Reverse((at_ns, _)) = self.looks.peek()?;
        if now_ns < *at_ns {
            return None;
        }
        self.looks.pop().map(|Reverse((_, trace))| trace)
    }

    /// Entries of traces that are gone stay until their time; this takes them out when they become many.
    pub(super) fn tidy(&mut self, looks_max: usize, is_owing: impl Fn(TraceId) -> bool) {
        if looks_max < self.looks.len() {
            self.looks.retain(|Reverse((_, trace))| is_owing(*trace));
        }
    }

    pub(super) fn is_due(&mut self, trace: TraceId, due_ns: u64) {
        self.due.push_back((due_ns, trace));
    }

    pub(super) fn is_early(&mut self, root: DueRoot) {
        self.early.push(root);
    }

    /// What was set aside early, as far as it goes.
    pub(super) fn take_early(&mut self, count_max: usize) -> Vec<DueRoot> {
        self.early.drain(..count_max.min(self.early.len())).collect()
    }

    /// The next that is due.
    pub(super) fn first_due(&self) -> Option<(u64, TraceId)> {
        self.due.front().copied()
    }

    /// Takes that one.
    pub(super) fn take_first_due(&mut self) {
        self.due.pop_front();
    }

    pub(super) fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// When to look at a trace again.
    pub(super) fn next_look_ns(&self) -> Option<u64> {
        self.looks.peek().map(|Reverse((at_ns, _))| *at_ns)
    }
}
