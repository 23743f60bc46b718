//! Attributes for fields that index every one of them: as deep, and keys and texts as long, as such a field takes.

use super::cut::{beginning, shortened};

/// Levels that `flattened` takes with room to spare: its own limit is 20.
const GUARDED_DEPTH_MAX: usize = 8;
/// Bytes of a key in a field that indexes keys.
const GUARDED_KEY_BYTES_MAX: usize = 256;
/// Bytes of a value there: with its key it has to stay below Lucene's 32,766.
const GUARDED_TEXT_BYTES_MAX: usize = 30_000;

/// Mends the attributes that were written from `start` on, for fields that index every one of them.
pub(super) fn guard(out: &mut Vec<u8>, start: usize) {
    let written = out.split_off(start);
    let mut parts = written.splitn(2, |&byte| byte == b':');
    out.extend_from_slice(parts.next().unwrap_or_default());
    let value = serde_json::from_slice(parts.next().unwrap_or_default()).unwrap_or_default();
    out.push(b':');
    out.extend_from_slice(guarded(value, 1).to_string().as_bytes());
}

fn guarded(value: serde_json::Value, depth: usize) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::Object(_) | Json::Array(_) if GUARDED_DEPTH_MAX < depth => {
            guarded(Json::String(value.to_string()), depth)
        }
        Json::Object(members) => Json::Object(
            members
                .into_iter()
                .map(|(key, value)| {
                    let key = beginning(&key, GUARDED_KEY_BYTES_MAX).replace('\0', "");
                    let key = if key.is_empty() { "_".to_owned() } else { key };
                    (key, guarded(value, depth + 1))
                })
                .collect(),
        ),
        Json::Array(elements) => {
            Json::Array(elements.into_iter().map(|value| guarded(value, depth + 1)).collect())
        }
        Json::String(text) => {
            Json::String(shortened(&text, GUARDED_TEXT_BYTES_MAX).replace('\0', ""))
        }
        other => other,
    }
}
