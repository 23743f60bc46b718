//! Errors, one enum per operation; each variant stands for a different action of the caller.

use std::io;

/// Why a record was not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// No space until a consumer moves on: wait or refuse, and retry.
    #[error("the journal is full: {used} of {max} bytes are waiting for a sink")]
    Full {
        /// Bytes in the log.
        used: u64,
        /// The configured budget.
        max: u64,
    },
    /// The disk is full: refuse, and retry.
    #[error("the journal's disk is full")]
    NoSpace,
    /// The record is larger than the log accepts: refuse it permanently.
    #[error("a record of {bytes} bytes is over the journal's limit of {max}")]
    TooLarge {
        /// The record's size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A write or sync failed and the log no longer guarantees anything: the process must end.
    #[error("the journal is poisoned after a failed write: {0}")]
    Poisoned(String),
    /// The log was closed: the process is stopping.
    #[error("the journal is closed")]
    Closed,
}

/// Why the log could not be opened. Damaged data is never the reason.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has locked the directory.
    #[error("{dir} is in use by process {pid}")]
    Locked {
        /// The directory.
        dir: String,
        /// The process id of the other process, if known.
        pid: String,
    },
    /// A later version of the program wrote this file. Nothing is changed: use that version, or another directory.
    #[error("{segment} has format version {version}; this program knows {known}")]
    Version {
        /// The file.
        segment: String,
        /// Its format version.
        version: u32,
        /// The format version of this program.
        known: u32,
    },
    /// The directory cannot be used.
    #[error("cannot use {path}")]
    Storage {
        /// The file or directory.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}
