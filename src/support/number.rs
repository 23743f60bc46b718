//! Conversion of counts to floating point.

/// Converts a count to a double. Above 2^53 it loses digits that do not matter in a metric.
#[expect(clippy::cast_precision_loss, reason = "it says so")]
pub fn as_f64(count: u64) -> f64 {
    count as f64
}
