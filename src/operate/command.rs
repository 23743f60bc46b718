//! Operator commands and their answers. The requests are both command line arguments and HTTP bodies.

use std::collections::BTreeMap;
use std::io;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::feed::Refusal;
use crate::journal::AppendError;
use crate::pipeline::LaneGone;

// === Requests ===

/// Selects entries. All conditions must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// In the quarantine: items that receivers could not understand
    #[arg(long)]
    pub quarantine: bool,
    /// Only those whose reason contains this, or with a leading =, is exactly this
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only those of this trace: 32 digits, or its id in the Agents SDK
    #[arg(long, value_name = "ID")]
    pub trace: Option<String>,
    /// Only those set aside since then: 2026-11-21T15:00:00Z, 2026-11-21, or 2h for two hours ago
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only those set aside before then
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

/// Lists entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListRequest {
    /// Which.
    #[command(flatten)]
    pub which: Which,
    /// Only this sink's
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// How many to list one by one
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
}

/// Asks for one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// Its id, as printed by `list`
    pub id: u64,
    /// In the quarantine
    #[arg(long)]
    #[serde(default)]
    pub quarantine: bool,
    /// Show the item itself, which is user data
    #[arg(long)]
    #[serde(default)]
    pub payload: bool,
    /// Show what the backend answered, which may quote the item
    #[arg(long)]
    #[serde(default)]
    pub answer: bool,
}

/// Gives entries up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DropRequest {
    /// Which.
    #[command(flatten)]
    pub which: Which,
    /// Ids, as printed by `list`
    pub ids: Vec<u64>,
    /// Only this sink's
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// All of them, where nothing is selected
    #[arg(long)]
    pub all: bool,
}

/// Gives entries to their sink again; what is in the quarantine is received again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayEntriesRequest {
    /// Which.
    #[command(flatten)]
    pub which: Which,
    /// Ids, as printed by `list` [default: all that match]
    pub ids: Vec<u64>,
    /// Only those rejected by this sink
    #[arg(long, value_name = "NAME")]
    pub from_sink: Option<String>,
    /// Deliver them to this sink instead of their own
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
}

/// Delivers what the journal keeps once more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayJournalRequest {
    /// The sink to deliver to
    #[arg(long, value_name = "NAME")]
    pub sink: String,
    /// Only items received since then: 2026-11-21T15:00:00Z, 2026-11-21, or 2h for two hours ago
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only items received before then
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Only this trace: 32 digits, or its id in the Agents SDK
    #[arg(long, value_name = "ID")]
    pub trace: Option<String>,
    /// Count only
    #[arg(long)]
    pub dry_run: bool,
}

// === Answers ===

/// The selected entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Number of selected entries.
    pub entries: u64,
    /// Number of their items.
    pub items: u64,
    /// Items of the whole store that can no longer be listed or replayed, because they were evicted or are damaged.
    pub items_gone: u64,
    /// By sink and reason, largest first.
    pub groups: Vec<Group>,
    /// The newest entries, in ascending order.
    pub newest: Vec<EntryView>,
}

/// Entries with the same sink and reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The sink; empty in the quarantine.
    pub sink: String,
    /// The reason.
    pub reason: String,
    /// Number of items.
    pub items: u64,
    /// When its first entry was stored.
    pub first: String,
    /// When its last entry was stored.
    pub last: String,
}

/// One entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// Its id.
    pub id: u64,
    /// The sink; empty in the quarantine.
    pub sink: String,
    /// Why it was stored.
    pub reason: String,
    /// When it was stored.
    pub at: String,
    /// When it was received.
    pub received_at: String,
    /// The receiver through which it came.
    pub receiver: String,
    /// Number of items.
    pub items: u64,
    /// Size of its body in bytes.
    pub bytes: u64,
    /// Its traces; empty if it cannot be decoded.
    pub traces: Vec<String>,
    /// The backend's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The item as JSON: as the client sent it, or OTLP's JSON mapping of protobuf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The body in base64, if it can neither be decoded nor shown as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

/// The result of dropping entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Number of items dropped.
    pub items: u64,
}

/// The result of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Its progress; empty for a dry run.
    pub progress: Progress,
    /// What the journal holds of the range; `None` for entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub census: Option<ItemCount>,
}

/// Progress of a replay. Items are spans and trace objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Selected items that were read.
    pub items: u64,
    /// Of these, the number that were delivered.
    pub delivered: u64,
    /// Rejected items; they stay where they are.
    pub rejected: u64,
    /// Items that this version cannot decode; they stay where they are.
    pub not_understood: u64,
    /// Items that cannot be read, because they were removed in the meantime or are damaged.
    pub unreadable: u64,
    /// Number of rejected items per reason.
    pub reasons: BTreeMap<String, u64>,
}

/// The contents of a range of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemCount {
    /// By the receiver's name.
    pub receivers: BTreeMap<String, ReceiverCensus>,
    /// Selected items that the sink's own lane has yet to deliver; they are not replayed.
    pub pending: u64,
    /// Items that are unreadable, or that this version cannot decode.
    pub unreadable: u64,
    /// When the oldest existing record was received, in nanoseconds since 1970; `None` for an empty journal.
    pub oldest_ns: Option<u64>,
    /// Whether records that may have been in the range have been removed.
    pub begins_late: bool,
}

/// What arrived through one receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverCensus {
    /// Number of requests.
    pub records: u64,
    /// Number of items.
    pub items: u64,
    /// When the first was received, in nanoseconds since 1970.
    pub first_ns: u64,
    /// When the last was received, in nanoseconds since 1970.
    pub last_ns: u64,
}

/// A line of an answer over HTTP: progress, or the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// The command is still running.
    Working(Working),
    /// The command succeeded.
    Done(T),
    /// The command failed.
    Error(String),
}

/// Progress of a replay, for the waiting client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Working {
    /// The progress so far.
    pub progress: Progress,
    /// Problems that slow down or stop its sinks.
    pub problems: Vec<String>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The request is contradictory or invalid.
    #[error("{0}")]
    Mistake(String),
    /// There is no such entry.
    #[error("there is no entry {0}; it was replayed, dropped, or evicted by newer ones")]
    NoEntry(u64),
    /// There is no such trace.
    #[error(
        "trace {0} is not in the journal; give its 32 digits, or its id in the Agents SDK; traces are kept as long as journal.retain says"
    )]
    NoTrace(String),
    /// The index of traces is off.
    #[error(
        "`admin.traces` is false, so there is no list of traces; `trace show` and `trace verify` work without it"
    )]
    NoIndex,
    /// Another command has the resolver.
    #[error("another replay or drop is working on these entries; retry when it is done")]
    Busy,
    /// The current configuration is invalid; holds all mistakes, as `validate` shows them.
    #[error("the configuration is invalid, and nothing has changed:\n\n{0}")]
    Invalid(String),
    /// A change cannot be applied while the daemon runs, or not at this time.
    #[error("nothing has changed: {0}")]
    Refused(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping; its next start reads the configuration")]
    Stopping,
    /// No daemon has loaded a configuration.
    #[error("no daemon is running; its next start reads the configuration")]
    NoDaemon,
    /// This process has no lanes.
    #[error("nothing can be replayed here")]
    NoLanes,
    /// The lane has ended.
    #[error(transparent)]
    Lane(#[from] LaneGone),
    /// The data cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// An entry of the quarantine cannot be received again.
    #[error("it cannot be received again: {0}")]
    Receive(#[from] Refusal),
    /// The resolution of entries cannot be saved. The next replay sends delivered items again.
    #[error("it cannot be noted: {0}")]
    Resolve(#[from] AppendError),
}

impl CommandError {
    /// Returns the message in one line.
    pub fn in_short(&self) -> String {
        let Self::Invalid(report) = self else { return self.to_string() };
        let mistakes = report.lines().filter_map(|line| line.strip_prefix("error: "));
        mistakes.collect::<Vec<_>>().join("; ")
    }
}

/// Runs work that blocks on the disk on a separate thread.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, CommandError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(io::Error::other)??)
}

/// Maximum number of distinct reasons; a backend that quotes the item would create as many as there are items.
const REASONS_MAX: usize = 20;
/// Counts all further reasons.
const OTHER_REASONS: &str = "other reasons";

impl Progress {
    pub(super) fn reject(&mut self, reason: String, items: u64) {
        self.rejected += items;
        let is_known = self.reasons.contains_key(&reason);
        let reason = if is_known || self.reasons.len() < REASONS_MAX {
            reason
        } else {
            OTHER_REASONS.to_owned()
        };
        *self.reasons.entry(reason).or_default() += items;
    }
}

impl ItemCount {
    pub(super) fn count(&mut self, receiver: &str, items: u64, is_pending: bool, at_ns: u64) {
        if is_pending {
            self.pending += items;
        } else if items > 0 {
            let none = || ReceiverCensus { first_ns: at_ns, ..ReceiverCensus::default() };
            let receiver = self.receivers.entry(receiver.to_owned()).or_insert_with(none);
            receiver.records += 1;
            receiver.items += items;
            receiver.first_ns = receiver.first_ns.min(at_ns);
            receiver.last_ns = receiver.last_ns.max(at_ns);
        }
    }
}
