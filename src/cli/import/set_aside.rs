//! Writes rejected data as lines that can be imported once the cause is fixed.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::base64;

/// Data that is invalid or was refused.
#[derive(Debug)]
pub(super) struct SetAside {
    /// Its place, in words.
    pub(super) place: String,
    pub(super) reason: String,
    pub(super) bytes: Bytes,
}

impl SetAside {
    /// Returns it as a line of `--rejects`, which can be imported once the cause is fixed.
    pub(super) fn line(&self) -> String {
        let (member, content) = match std::str::from_utf8(&self.bytes) {
            Ok(text) => ("text", text.to_owned()),
            Err(_) => ("base64", base64::text(&self.bytes)),
        };
        format!("{}\n", json!({"set_aside": self.place, "reason": self.reason, member: content}))
    }
}

/// Returns the data in a line of `--rejects`.
pub(super) fn content_of(line: &[u8]) -> Option<Bytes> {
    let line: Value = serde_json::from_slice(line).ok()?;
    let text = |member: &str| line.get(member)?.as_str();
    let binary = || base64::read(text("base64")?).map(Bytes::from);
    text("text").map(|text| Bytes::from(text.to_owned())).or_else(binary)
}
