//! What is set aside, as lines of `--rejects` that can be imported once what was wrong is mended.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::base64;

/// What is not sent, or was not taken.
#[derive(Debug)]
pub(super) struct SetAside {
    /// Where it stands, in words.
    pub(super) place: String,
    pub(super) reason: String,
    pub(super) bytes: Bytes,
}

/// It as such a line.
pub(super) fn rejected(set_aside: &SetAside) -> String {
    let SetAside { place, reason, bytes, .. } = set_aside;
    let (member, content) = match String::from_utf8(bytes.to_vec()) {
        Ok(text) => ("text", text),
        Err(binary) => ("base64", base64::text(binary.as_bytes())),
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
