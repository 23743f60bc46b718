//! Tells one observer of spans that were not wholly understood, when their facts are first read. How facts are read stays pure: nothing
//! comes back from the observer.

use std::sync::OnceLock;

use super::{Convention, Facts, Span};

type Observer = Box<dyn Fn(&Span, &Facts) + Send + Sync>;

static OBSERVER: OnceLock<Observer> = OnceLock::new();

/// Sets who is told of spans with [`Facts::notes`] and of spans without a known convention: once for each span as it lies in memory, so
/// again for what is read from the journal again. The first observer of a process stays. It must not ask the span for its facts,
/// which are only just being read.
pub fn observe(observer: impl Fn(&Span, &Facts) + Send + Sync + 'static) {
    OBSERVER.set(Box::new(observer)).ok();
}

/// Shows the observer facts that were just read.
pub(super) fn show(span: &Span, facts: &Facts) {
    let is_strange = facts.notes.is_some() || facts.convention == Convention::Generic;
    if is_strange && let Some(observer) = OBSERVER.get() {
        observer(span, facts);
    }
}
