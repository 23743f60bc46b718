//! How far an import is (`--resume`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::sources::Mark;

/// How far an import is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Where it goes and which spans are meant: a resume of another import would leave out what that one has to send.
    asked: String,
    /// By name.
    pub(super) sources: BTreeMap<String, Progress>,
}

/// How far a source is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// How it begins.
    pub(super) mark: Mark,
    /// Lines or messages from its beginning that are done with.
    pub(super) done: u64,
    /// Items of them that the daemon acknowledged.
    pub(super) accepted: u64,
}

impl State {
    /// What an earlier run left in this file; the beginning of an import where it is not there.
    pub(super) fn load(file: &Path, asked: &str) -> Result<Self, String> {
        let state = match fs::read(file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self { asked: asked.to_owned(), ..Self::default() }
            }
            Err(error) => return Err(error.to_string()),
        };
        if state.asked == asked {
            return Ok(state);
        }
        Err(format!("it is of another import, {}; this one is {asked}", state.asked))
    }

    /// Replaces the file. Either the old state or the new one is there after a crash.
    pub(super) fn save(&self, file: &Path) -> io::Result<()> {
        let beside = PathBuf::from(format!("{}.new", file.display()));
        let mut written = File::create(&beside)?;
        written.write_all(&serde_json::to_vec(self)?)?;
        written.sync_data()?;
        fs::rename(beside, file)
    }
}
