//! What an operator can ask for, and what comes of it: the same over HTTP and on the command line.

use serde::{Deserialize, Serialize};

use crate::pipeline::{Census, Progress};

// === Commands ===

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// What letters there are.
    List(ListRequest),
    /// One letter.
    Show(ShowRequest),
    /// Give letters up.
    Drop(DropRequest),
    /// Give letters to their sink again; what is in the quarantine is received again.
    ReplayLetters(ReplayLettersRequest),
    /// Deliver what the journal keeps once more.
    ReplayJournal(ReplayJournalRequest),
}

/// Which letters are meant. Everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// The shelf.
    pub shelf: ShelfName,
    /// These ids; none for all.
    pub ids: Vec<u64>,
    /// Rejected by this sink.
    pub sink: Option<String>,
    /// With this in the reason.
    pub reason: Option<String>,
    /// Of this trace, by its 32 digits or its id in the Agents SDK.
    pub trace: Option<String>,
    /// Set aside at this time or later.
    pub from: Option<String>,
    /// Set aside before this time.
    pub to: Option<String>,
}

/// Where letters lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShelfName {
    /// What a sink would not take.
    #[default]
    DeadLetters,
    /// What a receiver could not understand.
    Quarantine,
}

/// See [`Command::List`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListRequest {
    /// Which.
    pub which: Which,
    /// How many are listed one by one, the newest of them.
    pub limit: Option<usize>,
}

/// See [`Command::Show`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// The shelf.
    #[serde(default)]
    pub shelf: ShelfName,
    /// The letter.
    pub id: u64,
    /// Whether to show the item itself, which is somebody's data.
    #[serde(default)]
    pub with_payload: bool,
    /// Whether to show what the backend answered, which may quote the item.
    #[serde(default)]
    pub with_answer: bool,
}

/// See [`Command::Drop`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DropRequest {
    /// Which.
    pub which: Which,
    /// Whether all may be meant: without it, something must be selected.
    pub all: bool,
}

/// See [`Command::ReplayLetters`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayLettersRequest {
    /// Which.
    pub which: Which,
    /// The sink that gets them in place of their own.
    pub to_sink: Option<String>,
}

/// See [`Command::ReplayJournal`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayJournalRequest {
    /// The sink that gets it.
    pub sink: String,
    /// Received at this time or later.
    #[serde(default)]
    pub from: Option<String>,
    /// Received before this time.
    #[serde(default)]
    pub to: Option<String>,
    /// Of this trace, by its 32 digits or its id in the Agents SDK.
    #[serde(default)]
    pub trace: Option<String>,
    /// Whether to count only.
    #[serde(default)]
    pub dry_run: bool,
}

// === Answers ===

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Command::List`].
    Listed(Listed),
    /// To [`Command::Show`].
    Letter(Box<LetterView>),
    /// To [`Command::Drop`].
    Dropped(Dropped),
    /// To the replays.
    Replayed(Replayed),
}

/// The letters there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// How many are meant.
    pub letters: u64,
    /// The items they hold.
    pub items: u64,
    /// By sink and reason, the most first.
    pub groups: Vec<Group>,
    /// The newest, the oldest of them first.
    pub newest: Vec<LetterView>,
}

/// Letters of one sink with one reason.
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

/// One letter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterView {
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
    /// Through which door.
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
    /// What the journal holds of it; `None` for letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub census: Option<Census>,
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be meant so.
    #[error("{0}")]
    Mistake(String),
    /// There is no such letter.
    #[error("there is no letter {0}; it was replayed or dropped, or gave way to newer ones")]
    NoLetter(u64),
    /// Somebody else is at it.
    #[error("another replay or drop is at work on these letters; try again when it is done")]
    Busy,
    /// It did not work.
    #[error("{0}")]
    Failed(String),
}
