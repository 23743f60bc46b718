//! Sets of rules that decide whole traces. Pure.

/// The rules among those that decide traces that match an item or a trace: one bit each, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u32);

/// The number of bits; half of them for `[[rules]]`, half for a sink's own rules.
pub(super) const WHOLE_MAX: usize = 32;

impl Marks {
    /// Returns the union.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the mark of the rule at this place among those that decide traces.
    pub(crate) fn of(place: u32) -> Self {
        Self(1_u32.checked_shl(place).unwrap_or_default())
    }

    /// Returns whether the sets intersect.
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}
