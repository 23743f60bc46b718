//! Compares facts of spans with the expected ones; every difference is a line of text.

use serde_json::{Map, Number, Value};

/// Maximum length of a value in a message.
const SHOWN_CHARS: usize = 300;
/// Maximum difference of two numbers with a fraction.
pub(crate) const NEAR: f64 = 1e-9;

/// A span at one sink.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Its name, and the displayed one if that differs.
    pub(crate) names: [String; 2],
    pub(crate) start_ns: u64,
    /// Columns, attributes, or their interpretation by a reader.
    pub(crate) facts: Map<String, Value>,
}

/// Returns the errors of spans; each name has its expected facts.
pub(crate) fn facts(expected: &Value, spans: &[&Shown]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, facts) in expected.as_object().unwrap_or(&Map::new()) {
        let named = named(name, spans);
        if named.is_empty() {
            wrong.push(format!("{name}: not there"));
        }
        for span in named {
            for (key, wanted) in facts.as_object().unwrap() {
                let got = span.facts.get(key).unwrap_or(&Value::Null);
                if !is_same(key, wanted, got) {
                    let (got, wanted) = (cut(&got.to_string()), cut(&wanted.to_string()));
                    wrong.push(format!("{name}: {key}: {got} instead of {wanted}"));
                }
            }
        }
    }
    wrong
}

/// Returns the spans of a name, or the one that `#` and a number select.
fn named<'a>(name: &str, spans: &[&'a Shown]) -> Vec<&'a Shown> {
    let of = |name: &str| -> Vec<&'a Shown> {
        let is_so = |span: &&&Shown| span.names.iter().any(|one| one == name);
        spans.iter().filter(is_so).copied().collect()
    };
    match name.rsplit_once('#').and_then(|(name, place)| Some((name, place.parse::<usize>().ok()?)))
    {
        Some((name, place)) => of(name).into_iter().skip(place - 1).take(1).collect(),
        None => of(name),
    }
}

fn is_same(key: &str, wanted: &Value, got: &Value) -> bool {
    match (wanted, got) {
        (Value::Number(wanted), Value::Number(got)) => is_same_number(wanted, got),
        (Value::Object(wanted), Value::Object(got)) => {
            let is_whole = key == "usage" || wanted.is_empty();
            let same = |(name, wanted): (&String, &Value)| {
                is_same(name, wanted, got.get(name).unwrap_or(&Value::Null))
            };
            wanted.iter().all(same) && (!is_whole || wanted.len() == got.len())
        }
        (Value::Object(_) | Value::Array(_), Value::String(text)) => {
            serde_json::from_str(text).is_ok_and(|got: Value| is_same(key, wanted, &got))
        }
        _ => wanted == got,
    }
}

/// Compares large integers as integers, since floats are not exact.
fn is_same_number(wanted: &Number, got: &Number) -> bool {
    match (wanted.as_i64(), got.as_i64(), wanted.as_f64(), got.as_f64()) {
        (Some(wanted), Some(got), ..) => wanted == got,
        (.., Some(wanted), Some(got)) => (wanted - got).abs() < NEAR,
        _ => wanted == got,
    }
}

/// Returns the beginning of a text.
pub(crate) fn cut(text: &str) -> String {
    let beginning: String = text.chars().take(SHOWN_CHARS).collect();
    let is_whole = beginning.len() == text.len();
    if is_whole { beginning } else { format!("{beginning}... ({} bytes)", text.len()) }
}
