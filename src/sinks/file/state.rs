//! What the sink finds again after a restart: which files it was writing, and how long they were.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Saved together with the lane's cursor, which checks that it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// The files that may be written to next.
    pub(super) files: Vec<SavedFile>,
}

/// A file as it was at a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedFile {
    /// Its path without its number.
    pub(super) base: String,
    /// The hour or day it is for.
    pub(super) period: u64,
    /// Its number.
    pub(super) number: u32,
    /// Its length. What lies beyond was written later and is delivered again.
    pub(super) length: u64,
}

const VERSION: u32 = 1;

impl State {
    pub(super) fn new(files: Vec<SavedFile>) -> Self {
        Self { version: VERSION, files }
    }

    /// The state in these bytes; of no bytes, an empty one. An error is a sentence without its end.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let state: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match state.version {
            VERSION => Ok(state),
            other => Err(format!("version {other} is not known")),
        }
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        // Strings and integers always have a JSON form.
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_back_and_a_later_version_is_refused() {
        let base = "/var/traces \"x\".jsonl".to_owned();
        let state = State::new(vec![SavedFile { base, period: 3, number: 1, length: u64::MAX }]);
        assert_eq!(State::read(&state.to_bytes()), Ok(state));
        assert_eq!(State::read(b""), Ok(State::default()));
        assert!(State::read(br#"{"version":2,"files":[]}"#).is_err());
        assert!(State::read(&[7; 8]).is_err());
    }
}
