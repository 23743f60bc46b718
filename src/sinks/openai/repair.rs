//! An item that OpenAI has refused is mended where it said what is wrong with it. Rare, so that a tree may be built.

use serde_json::Value;

use super::response::{Complaint, Step};
use crate::sinks::shrink::write_shrunk;

/// What an item cannot do without: without one of these it is set aside.
const NEEDED: [&str; 7] =
    ["object", "id", "trace_id", "parent_id", "started_at", "ended_at", "type"];

/// The item without what the complaint is about; `None` where that cannot be mended.
pub(super) fn mended(item: &str, complaint: &Complaint) -> Option<Vec<u8>> {
    let (last, parents) = complaint.path.split_last()?;
    if matches!(last, Step::Name(name) if NEEDED.contains(&name.as_str())) {
        return None;
    }
    let mut tree: Value = serde_json::from_str(item).ok()?;
    let mut holder = &mut tree;
    for step in parents {
        holder = value_at(holder, step)?;
    }
    match remedy(complaint) {
        Remedy::Remove => match (last, holder) {
            (Step::Name(name), Value::Object(members)) => drop(members.shift_remove(name)?),
            (Step::Index(index), Value::Array(elements)) if *index < elements.len() => {
                elements.remove(*index);
            }
            _ => return None,
        },
        Remedy::Shorten => {
            let value = value_at(holder, last)?;
            *value = shortened(value)?;
        }
        Remedy::AsText => {
            let value = value_at(holder, last)?;
            if value.is_string() {
                return None;
            }
            *value = Value::String(value.to_string());
        }
        Remedy::None => return None,
    }
    let text = tree.to_string();
    (text != item).then(|| text.into_bytes())
}

enum Remedy {
    Remove,
    Shorten,
    AsText,
    None,
}

fn remedy(complaint: &Complaint) -> Remedy {
    let answer = complaint.answer.to_ascii_lowercase();
    let is_about_size = ["too large", "too long", "maximum length", "above_max_length"]
        .iter()
        .any(|phrase| answer.contains(phrase));
    let is_metadata = complaint.path.first() == Some(&Step::Name("metadata".to_owned()));
    match &*complaint.code {
        "unknown_parameter" => Remedy::Remove,
        _ if is_about_size => Remedy::Shorten,
        "invalid_type" if is_metadata && 1 < complaint.path.len() => Remedy::AsText,
        _ => Remedy::None,
    }
}

fn value_at<'a>(holder: &'a mut Value, step: &Step) -> Option<&'a mut Value> {
    match step {
        Step::Name(name) => holder.get_mut(name),
        Step::Index(index) => holder.get_mut(index),
    }
}

/// Half of a value: nobody says how much is taken.
fn shortened(value: &Value) -> Option<Value> {
    let text = value.to_string();
    let mut out = Vec::new();
    write_shrunk(&mut out, &text, text.len() / 2);
    serde_json::from_slice(&out).ok().filter(|shorter| shorter != value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mend(item: &str, path: &[&str], code: &str, answer: &str) -> Option<String> {
        let step = |name: &&str| match name.parse() {
            Ok(index) => Step::Index(index),
            Err(_) => Step::Name((*name).to_owned()),
        };
        let complaint = Complaint {
            index: 0,
            path: path.iter().map(step).collect(),
            code: code.to_owned(),
            reason: String::new(),
            answer: answer.to_owned(),
        };
        mended(item, &complaint).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn only_what_the_complaint_is_about_changes() {
        let item = r#"{"id":"s","span_data":{"usage":{"input_tokens":1e+0,"requests":1},"list":[1,2]},"metadata":{"a":{"b":[1.50]},"c":"text"}}"#;
        assert_eq!(
            mend(item, &["span_data", "usage", "requests"], "unknown_parameter", "").unwrap(),
            item.replace(r#","requests":1"#, "")
        );
        assert_eq!(
            mend(item, &["span_data", "list", "0"], "unknown_parameter", "").unwrap(),
            item.replace("[1,2]", "[2]")
        );
        assert_eq!(
            mend(item, &["metadata", "a"], "invalid_type", "").unwrap(),
            item.replace(r#"{"b":[1.50]}"#, r#""{\"b\":[1.50]}""#)
        );
    }

    #[test]
    fn a_large_value_is_cut_to_half() {
        let item = format!(r#"{{"span_data":{{"input":"{}"}}}}"#, "x".repeat(1_000));
        let shorter = mend(&item, &["span_data", "input"], "", "data payload too large.").unwrap();
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
            assert_eq!(mend(item, path, code, ""), None, "{path:?}");
        }
    }
}
