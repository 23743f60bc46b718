//! The names of a trace's agents, each stored once: spans refer to them by index. Pure.

use super::bounds::{AGENTS_MAX, SPANS_MAX, copied};
use crate::span::{Own, Span, SpanId, Spending, Text, Tree};

/// The tree of a trace's spans, whose agents are indexes into [`Agents`].
pub type SpanTree = Tree<SpanId, u16, SPANS_MAX>;

/// The names of a trace's agents.
#[derive(Debug, Default)]
pub struct Agents {
    names: Vec<Text>,
    bytes: usize,
}

impl Agents {
    /// Returns whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns the name at an index.
    pub fn name(&self, place: u16) -> Option<&Text> {
        self.names.get(usize::from(place))
    }

    /// Returns a span's own data for the tree.
    pub fn own(
        &mut self,
        span: &Span,
        spending: Spending,
        agent: Option<&Text>,
    ) -> Own<SpanId, u16> {
        let agent = agent.and_then(|name| self.place(name));
        let own = Own::of(spending, &span.scope.name);
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

    /// Returns their memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
