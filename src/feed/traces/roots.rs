//! The roots that stand for traces. Pure.
//!
//! A root is owed from the first span that names it as its parent on. It is due once its trace has been quiet for as long as the
//! sink wants, in the time of the table, and it is made once.

use std::collections::VecDeque;

use crate::normalize::RootSource;
use crate::span::{Source, Span, TraceContext};

/// Traces whose root was sent and that are remembered for it after they are forgotten otherwise, so that a late span does not
/// bring a second one.
pub(super) const SENT_MAX: usize = 65_536;

/// Memory of a trace that owes a root, in bytes, roughly: ids, headers and the way to the scope.
const OWED_BYTES: usize = 512;

/// Memory of roots that wait because their traces were evicted, in bytes, estimated: a quarter of the table's. They wait for the lane's
/// next turn only, but one request, or the journal before the cursor, can evict any number of traces.
pub(super) const EARLY_BYTES_MAX: usize = 4 << 20;

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

impl Root {
    pub(super) fn is_owed(&self) -> bool {
        matches!(self, Self::Owed(_))
    }

    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        if self.is_owed() { OWED_BYTES } else { 0 }
    }
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

/// Roots that are due, and what is said of their place once they are sent.
#[derive(Debug)]
pub struct DueRoots {
    /// The roots.
    pub roots: Vec<DueRoot>,
    /// The roots of all traces whose last record is before this are these, or were taken before. It grows with the journal, is never 0,
    /// and says nothing else.
    pub until: u64,
}

/// Roots of traces that had to be forgotten before they were due.
#[derive(Debug, Default)]
pub(super) struct EarlyRoots {
    /// Each with its size.
    pub(super) roots: VecDeque<(DueRoot, usize)>,
    /// Memory they take.
    pub(super) bytes: usize,
    /// How many there was no room for.
    pub(super) given_up: u64,
}

impl EarlyRoots {
    /// Adds a root whose context takes at most so many bytes, if there is room.
    pub(super) fn push(&mut self, root: DueRoot, context_bytes: usize) {
        let bytes = size_of::<(DueRoot, usize)>() + OWED_BYTES + context_bytes;
        if EARLY_BYTES_MAX < self.bytes + bytes {
            self.given_up += 1;
            return;
        }
        self.bytes += bytes;
        self.roots.push_back((root, bytes));
    }

    /// Takes so many, the first ones first.
    pub(super) fn take(&mut self, count_max: usize) -> impl Iterator<Item = DueRoot> {
        let taken = self.roots.drain(..count_max.min(self.roots.len()));
        taken.map(|(root, bytes)| {
            self.bytes -= bytes;
            root
        })
    }
}
