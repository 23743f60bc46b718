//! What can go wrong, one enum per operation; each variant is another action of the caller.

use std::io;

/// Why a record was not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// No room until a consumer moves on: wait or refuse, and try again.
    #[error("the journal is full: {used} of {max} bytes are waiting for a sink")]
    Full {
        /// Bytes in the log.
        used: u64,
        /// The configured budget.
        max: u64,
    },
    /// The disk has no room: refuse, and try again.
    #[error("the journal's disk is full")]
    NoSpace,
    /// The record is larger than the log takes: refuse for good.
    #[error("a record of {bytes} bytes is over the journal's limit of {max}")]
    TooLarge {
        /// The record's size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A write or sync failed and the log can no longer promise anything: the process must end.
    #[error("the journal is poisoned after a failed write: {0}")]
    Poisoned(String),
    /// The log was closed: the process is stopping.
    #[error("the journal is closed")]
    Closed,
}

/// Why the log could not be opened. Data is never the reason.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{dir} is in use by process {pid}")]
    Locked {
        /// The directory.
        dir: String,
        /// The other process, as far as it can be told.
        pid: String,
    },
    /// A later program wrote here. Nothing is changed: go back to that program, or to another directory.
    #[error("{segment} has format version {version}; this program knows {known}")]
    Version {
        /// The file.
        segment: String,
        /// Its format.
        version: u32,
        /// Ours.
        known: u32,
    },
    /// The directory cannot be used.
    #[error("cannot use {path}")]
    Storage {
        /// The file or directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}
