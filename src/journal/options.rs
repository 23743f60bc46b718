//! Settings of a journal, and the limits derived from them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::direct::{PADDING_BYTES_MAX, ZERO_COPY_BYTES_MIN};
use super::record::{FRAME_BYTES, RECORD_BYTES_MAX};
use super::segment::HEADER_BYTES;
use crate::support::clock::nanos;

/// Settings of a journal.
#[derive(Debug, Clone)]
pub struct Options {
    /// Maximum size of the log on disk, in bytes. A record may take half of it.
    pub bytes_max: u64,
    /// A segment is closed at this size, in bytes, or at an eighth of `bytes_max` if that is less.
    pub segment_bytes_max: u64,
    /// How long records are kept for replay after every consumer has passed them. They are removed earlier if space is needed. Use zero for
    /// a journal in memory.
    pub retain: Duration,
    /// Behavior when consumers still need everything in the log.
    pub when_full: WhenFull,
}

/// What happens when the log is full of what consumers still need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Appends are refused until a consumer moves on.
    #[default]
    Refuse,
    /// The oldest segment goes, and what it held is counted.
    DropOldest,
}

/// Two gibibytes hold hours of a busy sidecar's traffic and fit the disk of a small container host.
pub const DEFAULT_BYTES_MAX: u64 = 2 << 30;
/// Small enough that settled data leaves the disk in steps of a few percent, large enough that there are few files.
pub const DEFAULT_SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// A mapping mistake made yesterday can be corrected and replayed today.
pub const DEFAULT_RETAIN: Duration = Duration::from_hours(24);

/// Minimum number of segments in the budget, so that space is freed in steps.
const SEGMENTS_MIN: u64 = 8;
/// Disk space is reserved in steps of this size. Measured on ext4 (`NVMe`, 400 appends, one sync each), an append takes 25 instead of 39 us
/// of CPU and 72 instead of 105 us of time at 300 bytes, 63 instead of 70 and 151 instead of 159 at 30 KB, 92 instead of 108 and 223
/// instead of 237 at 134 KB, because the sync need not allocate blocks or move the end of the file. More important, a full disk is detected
/// when reserving, not in the middle of a record. Writing zeros ahead makes the append even faster (39 us of CPU at 30 KB), but writes
/// everything twice, which costs more than it saves.
const RESERVED_BYTES: u64 = 4 << 20;
/// Maximum size of a group, which is written and synced together. Larger groups gain nothing and delay the records after them.
const GROUP_BYTES_MAX: u64 = 8 << 20;
/// An idle log closes its segment after this fraction of `retain`, so that old records can be removed although few new ones arrive.
const SEGMENT_AGE_PART: u32 = 8;

impl Default for Options {
    fn default() -> Self {
        Self {
            bytes_max: DEFAULT_BYTES_MAX,
            segment_bytes_max: DEFAULT_SEGMENT_BYTES_MAX,
            retain: DEFAULT_RETAIN,
            when_full: WhenFull::default(),
        }
    }
}

/// Limits derived from the options.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Maximum size of all segments together: the budget minus the reserve.
    pub(super) bytes_max: u64,
    /// The size at which a segment is closed.
    pub(super) segment_bytes_max: u64,
    /// The age at which a segment is closed, in nanoseconds.
    pub(super) segment_age_max_ns: u64,
    /// Maximum size of a record with its frame.
    pub(super) record_bytes_max: u64,
    /// Maximum size of a group.
    pub(super) group_bytes_max: u64,
    /// Disk space reserved ahead of what is written.
    pub(super) reserved_bytes: u64,
    /// How long records that no consumer needs are kept, in nanoseconds.
    pub(super) retain_ns: u64,
    /// Behavior when the log is full.
    pub(super) when_full: WhenFull,
}

impl Limits {
    /// Returns the budget as configured.
    pub(super) fn budget(&self) -> u64 {
        self.bytes_max + self.reserved_bytes
    }

    pub(super) fn of(options: &Options) -> Self {
        let smallest = (FRAME_BYTES + HEADER_BYTES) as u64;
        let segment_bytes_max =
            options.segment_bytes_max.min(options.bytes_max / SEGMENTS_MIN).max(smallest);
        let reserved_bytes = RESERVED_BYTES.min(segment_bytes_max / 4);
        let bytes_max = options.bytes_max.saturating_sub(reserved_bytes);
        let age = match options.retain {
            Duration::ZERO => Duration::MAX,
            retain => retain / SEGMENT_AGE_PART,
        };
        // If the active segment has its maximum size (one record of this size), another one fits.
        let record_bytes_max = (bytes_max / 2).saturating_sub(2 * HEADER_BYTES as u64);
        let without_padding = record_bytes_max.min(ZERO_COPY_BYTES_MIN as u64);
        let record_bytes_max =
            record_bytes_max.saturating_sub(PADDING_BYTES_MAX).max(without_padding);
        Self {
            bytes_max,
            segment_bytes_max,
            segment_age_max_ns: nanos(age),
            record_bytes_max: record_bytes_max.min(RECORD_BYTES_MAX),
            group_bytes_max: GROUP_BYTES_MAX.min(segment_bytes_max),
            reserved_bytes,
            retain_ns: nanos(options.retain),
            when_full: options.when_full,
        }
    }
}
