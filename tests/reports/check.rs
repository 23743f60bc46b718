//! Compares what the sinks have with the expected values; every difference is a line of text.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::case::Case;
use super::compare::{NEAR, Shown, cut, facts};
use super::seen::{self, Seen};
use super::world::Answer;

/// Prefix of attributes with usage that spans below count.
const AGGREGATE: &str = "spanferry.aggregate.";

/// Returns the errors in the answer.
pub(crate) fn answer(case: &Case, answer: &Answer) -> Vec<String> {
    let expected = &case.expected["answer"];
    let texts = |member: &str| {
        let texts = expected[member].as_array().cloned().unwrap_or_default();
        texts.into_iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut wrong = Vec::new();
    if expected["status"] != answer.status {
        wrong.push(format!("status: {} instead of {}", answer.status, expected["status"]));
    }
    for text in texts("contains").iter().filter(|text| !answer.body.contains(text.as_str())) {
        wrong.push(format!("the answer does not contain {text:?}"));
    }
    for text in texts("lacks").iter().filter(|text| answer.body.contains(text.as_str())) {
        wrong.push(format!("the answer contains {text:?}"));
    }
    let body = cut(&answer.body);
    wrong.iter().map(|what| format!("{}: {what}: {body}", case.name)).collect()
}

/// Returns the errors at the sinks.
pub(crate) fn case(case: &Case, seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    for (sink, shown) in seen.sinks() {
        let arrived = seen::of(case, shown);
        let spans = seen::last(&arrived);
        let found = [
            counts(case, sink, &arrived),
            facts(&case.expected[sink], &spans),
            sums(&case.expected[format!("{}_sums", sink.trim_end_matches('s')).as_str()], &spans),
        ];
        wrong.extend(found.concat().iter().map(|what| format!("{}: {sink}: {what}", case.name)));
    }
    wrong.extend(as_sent(case, &seen.otlp).iter().map(|what| format!("{}: {what}", case.name)));
    wrong
}

/// Returns the attributes that an OTLP backend does not have as they were sent.
fn as_sent(case: &Case, got: &[Shown]) -> Vec<String> {
    let body: Value = serde_json::from_str(&case.request.body).unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let resources = list(&body["resourceSpans"]).into_iter();
    let scopes = resources.flat_map(|resource| list(&resource["scopeSpans"]));
    let mut wrong = Vec::new();
    for span in scopes.flat_map(|scope| list(&scope["spans"])) {
        // Its presence is checked elsewhere.
        let Some(got) = got.iter().find(|got| span["spanId"] == *got.id) else { continue };
        for pair in list(&span["attributes"]) {
            let key = pair["key"].as_str().unwrap();
            let kept = [key.to_owned(), format!("{AGGREGATE}{key}")];
            let found = kept.iter().find_map(|key| got.facts.get(key)).unwrap_or(&Value::Null);
            if *found != sent(&pair["value"]) {
                wrong.push(format!("otlp: {}: {key} is not as it was sent", got.names[0]));
            }
        }
    }
    wrong
}

/// Converts a value of OTLP/JSON.
fn sent(value: &Value) -> Value {
    let (kind, value) = value.as_object().and_then(|value| value.iter().next()).unwrap();
    match (kind.as_str(), value) {
        ("intValue", Value::String(text)) => text.parse::<i64>().unwrap().into(),
        // With any spelling of the number.
        ("doubleValue", Value::Number(number)) => number.as_f64().into(),
        ("arrayValue", array) => array["values"].as_array().unwrap().iter().map(sent).collect(),
        _ => value.clone(),
    }
}

/// Checks that each span is there, and once unless the sink replaces it.
fn counts(case: &Case, sink: &str, arrived: &[&Shown]) -> Vec<String> {
    let mut by_id: BTreeMap<_, Vec<&Shown>> = BTreeMap::new();
    for span in arrived {
        by_id.entry((&span.trace, &span.id)).or_default().push(span);
    }
    let mut wrong = Vec::new();
    if case.expected["spans"] != by_id.len() {
        wrong.push(format!("{} spans instead of {}", by_id.len(), case.expected["spans"]));
    }
    for forms in by_id.values().filter(|forms| 1 < forms.len()) {
        let name = &forms[0].names[0];
        if sink != "langfuse" {
            wrong.push(format!("{name}: {} times", forms.len()));
        } else if forms.iter().any(|form| form.start_ns != forms[0].start_ns) {
            wrong.push(format!("{name}: came again with another start"));
        }
    }
    wrong
}

fn sums(expected: &Value, spans: &[&Shown]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, wanted) in expected.as_object().unwrap_or(&Map::new()) {
        let sum = spans.iter().filter_map(|span| amount(key, span)).fold(0.0, |sum, one| sum + one);
        let wanted = wanted.as_f64().unwrap();
        if NEAR <= (sum - wanted).abs() {
            wrong.push(format!("the sum of {key}: {sum} instead of {wanted}"));
        }
    }
    wrong
}

/// Returns a span's contribution to a sum: from a column of a line, what Langfuse shows, or what most OTLP backends read.
fn amount(key: &str, span: &Shown) -> Option<f64> {
    let is_line = span.facts.contains_key("schema_version");
    let names: &[&str] = match key {
        "input_tokens" if !is_line => &["gen_ai.usage.input_tokens", "llm.token_count.prompt"],
        "output_tokens" if !is_line => {
            &["gen_ai.usage.output_tokens", "llm.token_count.completion"]
        }
        _ => &[key],
    };
    let found = names.iter().find_map(|name| span.facts.get(*name))?;
    let found = if key == "cost" { &found["total"] } else { found };
    found.as_f64().or_else(|| found.as_str()?.parse().ok())
}
