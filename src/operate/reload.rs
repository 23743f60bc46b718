//! Reloads: the daemon reads its configuration again. The client gets the result; the daemon handles one request after the other.

use std::fmt;

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::command::CommandError;

/// Maximum number of queued requests; further clients wait to enqueue theirs.
const WAITING_MAX: usize = 8;

/// Asks for a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadRequest {}

/// The changes of a reload: only names of sinks and keys, never values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    /// New sinks.
    pub added: Vec<String>,
    /// Removed sinks.
    pub removed: Vec<String>,
    /// Sinks whose options changed.
    pub rebuilt: Vec<Rebuilt>,
    /// Unchanged sinks, whose lanes continue.
    pub kept: Vec<String>,
    /// Keys outside of sinks whose values changed.
    pub applied: Vec<String>,
}

/// A sink whose options changed; it continued from its cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// Its name.
    pub sink: String,
    /// The options that changed.
    pub because_of: Vec<String>,
}

impl Reloaded {
    /// Returns whether nothing changed.
    pub fn is_unchanged(&self) -> bool {
        [&self.added, &self.removed, &self.applied].iter().all(|names| names.is_empty())
            && self.rebuilt.is_empty()
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rebuilt = self.rebuilt.iter();
        let rebuilt: Vec<_> = rebuilt
            .map(|Rebuilt { sink, because_of }| format!("{sink} ({})", because_of.join(", ")))
            .collect();
        let parts = [
            ("added", &self.added),
            ("removed", &self.removed),
            ("rebuilt", &rebuilt),
            ("kept", &self.kept),
            ("applied", &self.applied),
        ];
        let said = parts.into_iter().filter(|(_, names)| !names.is_empty());
        let said: Vec<_> =
            said.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
        let unchanged = if self.is_unchanged() { "nothing is new; " } else { "" };
        write!(out, "{unchanged}{}", said.join("; "))
    }
}

/// What is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reread {
    /// Everything: an explicit request.
    All,
    /// Only what the configuration refers to, such as credentials in files.
    References,
}

/// A reload that was refused, so that the previous configuration is still effective.
#[derive(Debug, Clone, Serialize)]
pub struct RefusedReload {
    /// When it was refused.
    pub at: String,
    /// The reason, without a line of the configuration.
    pub problem: String,
    /// What was read again.
    #[serde(skip)]
    pub reread: Reread,
}

/// A request, and the channel for its answer.
pub type Asked = (Reread, oneshot::Sender<Result<Reloaded, CommandError>>);

/// Sends reload requests to the running daemon. Clones share the channel.
#[derive(Debug, Clone)]
pub struct Reloads(mpsc::Sender<Asked>);

impl Reloads {
    /// Creates the sender and the daemon's receiver. Dropping the receiver refuses requests.
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (asking, asked) = mpsc::channel(WAITING_MAX);
        (Self(asking), asked)
    }

    /// Requests a reload and waits for the result. A caller that stops waiting does not stop the reload.
    pub async fn ask(&self, what: Reread) -> Result<Reloaded, CommandError> {
        let (answer, answered) = oneshot::channel();
        self.0.send((what, answer)).await.map_err(|_| CommandError::Stopping)?;
        answered.await.unwrap_or(Err(CommandError::Stopping))
    }
}
