//! Sets of rules that decide of whole traces. Pure.

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

    /// Whether it has one of the others.
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}
