//! Counts as numbers with fractions.

/// A count as a figure. Above 2^53 it loses digits that nobody reads.
#[expect(clippy::cast_precision_loss, reason = "it says so")]
pub fn as_f64(count: u64) -> f64 {
    count as f64
}
