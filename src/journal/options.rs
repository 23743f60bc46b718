//! Settings of a journal.

/// Settings of a journal.
#[derive(Debug, Clone)]
pub struct Options {
    /// The most the log may take on disk, in bytes.
    pub bytes_max: u64,
    /// A segment is closed when it has reached this size, in bytes.
    pub segment_bytes_max: u64,
}

/// Two gigabytes are hours of a busy sidecar's traffic and fit the disk of a small container host.
pub const DEFAULT_BYTES_MAX: u64 = 2 << 30;
/// Small enough that settled data leaves the disk in steps of a few percent, large enough that files stay few.
pub const DEFAULT_SEGMENT_BYTES_MAX: u64 = 64 << 20;

impl Default for Options {
    fn default() -> Self {
        Self { bytes_max: DEFAULT_BYTES_MAX, segment_bytes_max: DEFAULT_SEGMENT_BYTES_MAX }
    }
}
