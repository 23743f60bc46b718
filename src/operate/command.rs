//! What an operator can ask for, and what comes of it. The requests are both the arguments of the command line and the bodies of HTTP.

use std::collections::BTreeMap;
use std::io;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::feed::Refusal;
use crate::journal::AppendError;
use crate::pipeline::LaneGone;

// === Requests ===

/// Which entries are meant. Everything that is given must fit.
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

/// Asks which entries there are.
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
    /// Its id, as `list` says it
    pub id: u64,
    /// In the quarantine
    #[arg(long)]
    #[serde(default)]
    pub quarantine: bool,
    /// Show the item itself, which is somebody's data
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

/// The entries there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// How many are meant.
    pub entries: u64,
    /// The items they hold.
    pub items: u64,
    /// Items of the whole store that cannot be listed or replayed any more: they gave way to newer ones, or are damaged.
    pub items_gone: u64,
    /// By sink and reason, the most first.
    pub groups: Vec<Group>,
    /// The newest, the oldest of them first.
    pub newest: Vec<EntryView>,
}

/// Entries of one sink with one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The sink; empty in the quarantine.
    pub sink: String,
    /// The reason.
    pub reason: String,
    /// The items they hold.
    pub items: u64,
    /// When the first was set aside.
    pub first: String,
    /// When the last was set aside.
    pub last: String,
}

/// One entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// Its id.
    pub id: u64,
    /// The sink; empty in the quarantine.
    pub sink: String,
    /// Why it was set aside.
    pub reason: String,
    /// When it was set aside.
    pub at: String,
    /// When it was received.
    pub received_at: String,
    /// Through which receiver.
    pub receiver: String,
    /// The items it holds.
    pub items: u64,
    /// The size of its body.
    pub bytes: u64,
    /// The traces it belongs to; none where it is not understood.
    pub traces: Vec<String>,
    /// What the backend answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The item as JSON: as the client sent it, or OTLP's mapping of what came as protobuf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The body in base64, where it is not understood and no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

/// What was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many items.
    pub items: u64,
}

/// What was replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// What came of it; nothing for a dry run.
    pub progress: Progress,
    /// What the journal holds of it; `None` for entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub census: Option<Census>,
}

/// How far a replay is. Items are spans and trace objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Items that were read and are meant.
    pub items: u64,
    /// Of these, how many the sink has.
    pub delivered: u64,
    /// How many it will not take; they stay where they are.
    pub rejected: u64,
    /// How many this version does not understand; they stay where they are.
    pub not_understood: u64,
    /// How many cannot be read, because they were removed meanwhile or are damaged.
    pub unreadable: u64,
    /// Why items were rejected, with how many.
    pub reasons: BTreeMap<String, u64>,
}

/// What a range of the journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Per receiver, by its name.
    pub receivers: BTreeMap<String, ReceiverCensus>,
    /// Items that are meant but that the sink's own lane has not delivered yet; it will, so they are not replayed.
    pub pending: u64,
    /// Items that cannot be read, or not be understood by this version.
    pub unreadable: u64,
    /// When the oldest record that is kept was received, in nanoseconds since 1970; `None` for an empty journal.
    pub oldest_ns: Option<u64>,
    /// Whether records have been removed that may have been meant.
    pub begins_late: bool,
}

/// What came through one receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverCensus {
    /// Requests.
    pub records: u64,
    /// Items.
    pub items: u64,
    /// When the first was received, in nanoseconds since 1970.
    pub first_ns: u64,
    /// When the last was received, in nanoseconds since 1970.
    pub last_ns: u64,
}

/// A line of an answer over HTTP: how far it is, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// It goes on.
    Working(Working),
    /// It was carried out.
    Done(T),
    /// It was not.
    Error(String),
}

/// How far a replay is, for whoever waits for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Working {
    /// How far.
    pub progress: Progress,
    /// What keeps its sinks from taking more, if anything.
    pub problems: Vec<String>,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It cannot be meant so.
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
    /// Nobody follows which traces there are.
    #[error(
        "`admin.traces` is false, so there is no list of traces; `trace show` and `trace verify` work without it"
    )]
    NoIndex,
    /// Somebody else is at it.
    #[error("another replay or drop is working on these entries; retry when it is done")]
    Busy,
    /// The configuration as it is now cannot be taken: everything that is wrong with it, as `validate` shows it.
    #[error("the configuration is invalid, and nothing has changed:\n\n{0}")]
    Invalid(String),
    /// What is new in it cannot be changed while the daemon runs, or not now.
    #[error("nothing has changed: {0}")]
    Refused(String),
    /// The daemon stops.
    #[error("the daemon is stopping; its next start reads the configuration")]
    Stopping,
    /// Nobody has read a configuration.
    #[error("no daemon is running; its next start reads the configuration")]
    NoDaemon,
    /// There are no lanes here.
    #[error("nothing can be replayed here")]
    NoLanes,
    /// The lane has ended.
    #[error(transparent)]
    Lane(#[from] LaneGone),
    /// What is meant cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// What was in the quarantine cannot be received again.
    #[error("it cannot be received again: {0}")]
    Receive(#[from] Refusal),
    /// What became of entries cannot be noted. What arrived is sent again by the next replay.
    #[error("it cannot be noted: {0}")]
    Resolve(#[from] AppendError),
}

impl CommandError {
    /// The same in one line.
    pub fn in_short(&self) -> String {
        let Self::Invalid(report) = self else { return self.to_string() };
        let mistakes = report.lines().filter_map(|line| line.strip_prefix("error: "));
        mistakes.collect::<Vec<_>>().join("; ")
    }
}

/// Runs what blocks on the disk where that costs nobody else.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, CommandError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(io::Error::other)??)
}

/// Distinct reasons that are told apart; a backend that quotes the item in each would make as many as there are items.
const REASONS_MAX: usize = 20;
/// Where the others are counted.
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

impl Census {
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
