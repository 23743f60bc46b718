//! Repairs items that OpenAI rejected with a reason. This is rare, so it may build a tree.

use serde_json::Value;

use super::response::Complaint;
use crate::sinks::shrink::write_shrunk;

/// Required members. An item without one of them becomes a dead letter.
const NEEDED: [&str; 7] =
    ["object", "id", "trace_id", "parent_id", "started_at", "ended_at", "type"];

/// Returns the item without the cause of the complaint; `None` if it cannot be repaired.
pub(super) fn repaired(item: &[u8], complaint: &Complaint) -> Option<Vec<u8>> {
    let (parent, name) = complaint.path.rsplit_once('/')?;
    let mut tree: Value = serde_json::from_slice(item).ok()?;
    let value = tree.pointer_mut(&complaint.path).filter(|_| !NEEDED.contains(&name))?;
    if complaint.code == "unknown_parameter" {
        match tree.pointer_mut(parent)? {
            Value::Object(members) => {
                members.shift_remove(&name.replace("~1", "/").replace("~0", "~"));
            }
            Value::Array(elements) => drop(elements.remove(name.parse().ok()?)),
            _ => return None,
        }
    } else if is_about_size(complaint) {
        *value = shortened(value)?;
    } else if complaint.code == "invalid_type"
        && complaint.path.starts_with("/metadata/")
        && !value.is_string()
    {
        *value = Value::String(value.to_string());
    } else {
        return None;
    }
    Some(tree.to_string().into_bytes()).filter(|text| text != item)
}

fn is_about_size(complaint: &Complaint) -> bool {
    let answer = complaint.answer.to_ascii_lowercase();
    ["too large", "too long", "maximum length", "above_max_length"]
        .iter()
        .any(|phrase| answer.contains(phrase))
}

/// Returns half of a value, since OpenAI does not document its limit.
fn shortened(value: &Value) -> Option<Value> {
    let text = value.to_string();
    let mut out = Vec::new();
    write_shrunk(&mut out, &text, text.len() / 2);
    serde_json::from_slice(&out).ok().filter(|shorter| shorter != value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repair(item: &str, path: &[&str], code: &str, answer: &str) -> Option<String> {
        let complaint = Complaint {
            index: 0,
            path: [&[""][..], path].concat().join("/"),
            code: code.to_owned(),
            reason: String::new(),
            answer: answer.to_owned(),
        };
        repaired(item.as_bytes(), &complaint).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn only_what_the_complaint_is_about_changes() {
        let item = r#"{"id":"s","span_data":{"usage":{"input_tokens":1e+0,"requests":1},"list":[1,2]},"metadata":{"a":{"b":[1.50]},"c":"text"}}"#;
        assert_eq!(
            repair(item, &["span_data", "usage", "requests"], "unknown_parameter", "").unwrap(),
            item.replace(r#","requests":1"#, "")
        );
        assert_eq!(
            repair(item, &["span_data", "list", "0"], "unknown_parameter", "").unwrap(),
            item.replace("[1,2]", "[2]")
        );
        assert_eq!(
            repair(item, &["metadata", "a"], "invalid_type", "").unwrap(),
            item.replace(r#"{"b":[1.50]}"#, r#""{\"b\":[1.50]}""#)
        );
    }

    #[test]
    fn a_large_value_is_cut_to_half() {
        let item = format!(r#"{{"span_data":{{"input":"{}"}}}}"#, "x".repeat(1_000));
        let shorter =
            repair(&item, &["span_data", "input"], "", "data payload too large.").unwrap();
        assert!(
            (400..600).contains(&shorter.len()) && shorter.contains("[truncated]"),
            "{shorter}"
        );
    }

    #[test]
    fn what_cannot_be_mended_is_set_aside() {
        let item = r#"{"id":"s","metadata":{"a":"text"},"span_data":{"type":"x"}}"#;
        for (path, code) in [
            (&["id"][..], "unknown_parameter"),
            (&[], "unknown_parameter"),
            (&["span_data", "type"], "unknown_parameter"),
            (&["gone", "away"], "unknown_parameter"),
            (&["metadata", "a"], "invalid_type"),
            (&["span_data"], "invalid_value"),
        ] {
            assert_eq!(repair(item, path, code, ""), None, "{path:?}");
        }
    }
}
