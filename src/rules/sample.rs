//! Decides which traces a sample keeps, by the trace id alone, so that all of its spans, every sink and every daemon decide alike. Pure.
//!
//! This is OpenTelemetry's consistent probability sampling (its enhancement proposal 235): the last 56 bits of a trace id are random and
//! are compared with a threshold. So every larger sample contains the traces of a smaller one.

use crate::span::TraceId;

/// Number of values of an id's random bits.
const RANGE: u64 = 1 << 56;

/// A sampling rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Traces whose random bits are below this are not kept.
    threshold: u64,
}

impl Sample {
    /// Creates a sample of this fraction of all traces, from 0 to 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "56 bits have room for it, and what is rounded is less than one trace in 10^15"
    )]
    pub(super) fn new(rate: f64) -> Self {
        let kept = rate.clamp(0.0, 1.0) * RANGE as f64;
        Self { threshold: RANGE - kept.round() as u64 }
    }

    pub(super) fn keeps(self, trace: TraceId) -> bool {
        let (_, low) = trace.as_bytes().split_at(8);
        let low = low.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        self.threshold <= low % RANGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(low: u64) -> TraceId {
        TraceId::from_hex(&format!("{:016x}{low:016x}", 1)).unwrap()
    }

    #[test]
    fn the_last_56_bits_of_a_trace_are_compared_with_the_threshold_of_otep_235() {
        // The proposal's own table: 1/2 is 8, 1/4 is c, 1/16 is f, 1/10 is e6666666666666 (a half rounds away from zero).
        for (rate, threshold) in [
            (1.0, 0),
            (0.5, 0x80_0000_0000_0000),
            (0.25, 0xc0_0000_0000_0000),
            (0.0625, 0xf0_0000_0000_0000),
            (0.1, 0xe6_6666_6666_6666),
            (0.0, RANGE),
        ] {
            let sample = Sample::new(rate);
            assert_eq!(sample.threshold, threshold, "{rate}");
            if rate > 0.0 {
                assert!(sample.keeps(trace(RANGE - 1)) && sample.keeps(trace(threshold)));
            }
            if threshold > 0 {
                assert!(!sample.keeps(trace(threshold - 1)), "{rate}");
                assert!(!sample.keeps(trace(0xff << 56)), "the first bits say nothing");
            }
        }
    }
}
