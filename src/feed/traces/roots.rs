//! Synthetic roots of traces. Pure.
//!
//! A root is pending from the first span that names it as its parent. It is due once its trace has been quiet for as long as the sink
//! wants, in the table's time. It is created once.

use std::collections::VecDeque;

use crate::normalize::RootSource;
use crate::span::{Source, Span, TraceContext};

/// Maximum number of traces that are remembered, after they are otherwise forgotten, because their root was sent: a late span must not
/// cause a second one.
pub(super) const SENT_MAX: usize = 65_536;

/// Approximate memory of a pending root, in bytes: ids, headers and the path to the scope.
const OWED_BYTES: usize = 512;

/// Maximum memory of roots whose traces were evicted, in bytes, estimated: a quarter of the table's. They only wait for the lane's next
/// turn, but one request, or the journal before the cursor, can evict any number of traces.
pub(super) const EARLY_BYTES_MAX: usize = 4 << 20;

/// The state of a trace's root.
#[derive(Debug, Default)]
pub(super) enum Root {
    /// No span needs one.
    #[default]
    Unneeded,
    /// The root is pending: it is sent once the trace is quiet.
    Pending(Box<Pending>),
    /// The root was sent.
    Sent,
}

/// The source of the root, in addition to the trace's context.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) root: RootSource,
    /// The sender of the trace.
    pub(super) source: Source,
}

impl Root {
    pub(super) fn is_owed(&self) -> bool {
        matches!(self, Self::Pending(_))
    }

    /// Returns its memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        if self.is_owed() { OWED_BYTES } else { 0 }
    }
}

/// A root that is due.
#[derive(Debug)]
pub struct DueRoot {
    /// The root span.
    pub span: Span,
    /// The sender of its trace.
    pub source: Source,
    /// The context of its trace.
    pub context: TraceContext,
}

/// Due roots, and their position once they are sent.
#[derive(Debug)]
pub struct DueRoots {
    /// The roots.
    pub roots: Vec<DueRoot>,
    /// All traces whose last record is before this have their root in `roots`, or had it taken earlier. It grows with the journal, is never
    /// 0, and has no other meaning.
    pub until: u64,
}

/// Roots of traces that were evicted before their roots were due.
#[derive(Debug, Default)]
pub(super) struct EarlyRoots {
    /// The roots, each with its size.
    pub(super) roots: VecDeque<(DueRoot, usize)>,
    /// Their memory, in bytes.
    pub(super) bytes: usize,
    /// Number of roots for which there was no space.
    pub(super) given_up: u64,
}

impl EarlyRoots {
    /// Adds a root whose context takes at most `context_bytes`, if there is space.
    pub(super) fn push(&mut self, root: DueRoot, context_bytes: usize) {
        let bytes = size_of::<(DueRoot, usize)>() + OWED_BYTES + context_bytes;
        if EARLY_BYTES_MAX < self.bytes + bytes {
            self.given_up += 1;
            return;
        }
        self.bytes += bytes;
        self.roots.push_back((root, bytes));
    }

    /// Takes up to `count_max` roots, oldest first.
    pub(super) fn take(&mut self, count_max: usize) -> impl Iterator<Item = DueRoot> {
        let taken = self.roots.drain(..count_max.min(self.roots.len()));
        taken.map(|(root, bytes)| {
            self.bytes -= bytes;
            root
        })
    }
}
