//! The names of a trace's agents, each once: its spans say their places. Pure.

use super::bounds::{AGENTS_MAX, SPANS_MAX, copied};
use crate::span::{Own, Span, SpanId, Spending, Text, Tree};

/// The tree of a trace's spans, whose agents are places among [`Agents`].
pub type SpanTree = Tree<SpanId, u16, SPANS_MAX>;

/// The names.
#[derive(Debug, Default)]
pub struct Agents {
    names: Vec<Text>,
    bytes: usize,
}

impl Agents {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The one at a place.
    pub fn name(&self, place: u16) -> Option<&Text> {
        self.names.get(usize::from(place))
    }

    /// What a span says of itself to the tree.
    pub fn own(
        &mut self,
        span: &Span,
        spending: Spending,
        agent: Option<&Text>,
        has_failed: bool,
    ) -> Own<SpanId, u16> {
        let agent = agent.and_then(|name| self.place(name));
        let own = Own::of(spending, &span.scope.name, has_failed);
        Own { parent: span.parent_id, agent, ..own }
    }

    fn place(&mut self, name: &Text) -> Option<u16> {
        let place = self.names.iter().position(|known| known == name).or_else(|| {
            let copy = copied(name).filter(|_| self.names.len() < AGENTS_MAX)?;
            self.bytes += size_of::<Text>() + copy.len();
            self.names.push(copy);
            Some(self.names.len() - 1)
        });
        place.and_then(|place| u16::try_from(place).ok())
    }

    /// Memory that they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
