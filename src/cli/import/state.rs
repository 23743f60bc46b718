//! How far an import is (`--resume`), and what was set aside (`--rejects`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::batches::SetAside;
use super::sources::Mark;
use crate::support::base64;

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

/// What was set aside, as a line of `--rejects`. Such a line can be imported, once what was wrong is mended.
pub(super) fn rejected(set_aside: &SetAside) -> String {
    let SetAside { place, reason, bytes, .. } = set_aside;
    let (member, content) = match String::from_utf8(bytes.to_vec()) {
        Ok(text) => ("text", text),
        Err(binary) => ("base64", base64_text(binary.as_bytes())),
    };
    format!("{}\n", json!({"set_aside": place, "reason": reason, member: content}))
}

/// What stands in such a line.
pub(super) fn content_of(line: &[u8]) -> Option<Bytes> {
    let line: Value = serde_json::from_slice(line).ok()?;
    let text = |member: &str| line.get(member)?.as_str();
    let binary = || base64::read(text("base64")?).map(Bytes::from);
    text("text").map(|text| Bytes::from(text.to_owned())).or_else(binary)
}

fn base64_text(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    base64::write(&mut text, bytes);
    String::from_utf8(text).unwrap_or_default()
}
