//! The schema equals `columns.md`, and the lines equal the golden files.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::prices::Prices;
use crate::sinks::{Delivery, samples};
use crate::span::{Cost, Detail, Facts, Item, Kind, Payload, Text, TraceObject, Usage};
use crate::support::golden;

fn lines(delivery: &Delivery) -> String {
    let mut out = Vec::new();
    let prices = Prices::default();
    let mut lines = Lines::of(delivery, &prices);
    for (batch, item) in delivery.items() {
        lines.write(&mut out, batch, item);
    }
    String::from_utf8(out).unwrap()
}

fn every_line() -> String {
    lines(&samples::delivery(samples::START_NS, samples::every_item()))
}

/// Returns the columns and types of the page.
fn columns() -> BTreeMap<&'static str, &'static str> {
    let rows = include_str!("columns.md").lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (column, rest) = row.split_once("` | ").unwrap();
        (column, rest.split_once(" |").unwrap().0)
    })
    .collect()
}

fn type_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

/// The names in an object, including repeated ones.
struct Names(Vec<String>);

impl<'de> serde::Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> serde::de::Visitor<'de> for Collect {
            type Value = Names;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[test]
fn the_lines_are_those_of_the_golden() {
    golden::check("sinks/jsonl.jsonl", &every_line());
}

#[test]
fn every_line_has_only_columns_of_the_front_page_with_their_types_and_no_name_twice() {
    let columns = columns();
    let mut used = BTreeMap::new();
    for line in every_line().lines() {
        let object: Json = serde_json::from_str(line).unwrap();
        let names: Names = serde_json::from_str(line).unwrap();
        assert_eq!(
            names.0.len(),
            object.as_object().unwrap().len(),
            "a name is there twice: {line}"
        );
        for (name, value) in object.as_object().unwrap() {
            assert_eq!(columns.get(name.as_str()), Some(&type_of(value)), "{name}");
            *used.entry(name.clone()).or_insert(0) += 1;
        }
    }
    for (column, _) in columns.into_iter().filter(|(column, _)| !used.contains_key(*column)) {
        // Columns that no sample has.
        assert!(
            ["tenant", "openai_organization", "output_attribute", "tool_definitions_attribute"]
                .contains(&column),
            "{column}"
        );
    }
}

#[test]
fn columns_that_are_in_every_line_are() {
    for line in every_line().lines() {
        let object: Json = serde_json::from_str(line).unwrap();
        let rows = include_str!("columns.md").lines().filter_map(|line| line.strip_prefix("| `"));
        for row in rows.filter(|row| {
            row.contains("in every line")
                || (row.contains("in every span") && object["record"] == "span")
        }) {
            let (column, _) = row.split_once('`').unwrap();
            assert!(!object[column].is_null(), "{column} in {line}");
        }
    }
}

#[test]
fn an_attribute_that_is_a_column_is_written_once_and_its_twin_is_kept() {
    let line = every_line().lines().nth(15).unwrap().to_owned();
    let object: Json = serde_json::from_str(&line).unwrap();
    assert_eq!(object["input_attribute"], "gen_ai.input.messages");
    assert_eq!(object["attributes"].get("gen_ai.input.messages"), None);
    // Another attribute has the same text, but is not the column's source.
    assert_eq!(object["attributes"]["input.value"], object["input"]);
}

#[test]
fn what_is_hard_to_write_reads_back() {
    let line = every_line().lines().nth(16).unwrap().to_owned();
    let object: Json = serde_json::from_str(&line).unwrap();
    assert_eq!(
        object["name"],
        "control \u{1}\u{7f} line\nquote \" backslash \\ \u{2028} \u{1f31e}"
    );
    assert_eq!(object["span_kind"], "77");
    assert_eq!(object["status"], "-1");
    let attributes = &object["attributes"];
    assert_eq!(attributes["twice"], "the last one");
    assert_eq!(attributes["least"], i64::MIN);
    assert_eq!(attributes["nan"], "NaN");
    assert_eq!(attributes["bytes"], "AP8Q");
    assert_eq!(attributes["map"][""], 9);
    assert_eq!(object["input"], "");
    assert_eq!(object.get("cost_usd"), None);
}

#[test]
fn metadata_of_a_trace_object_are_strings_whatever_they_were() {
    let line = every_line().lines().last().unwrap().to_owned();
    let object: Json = serde_json::from_str(&line).unwrap();
    let expected =
        serde_json::json!({"a": "b", "escaped": "\u{e9}\"", "n": "[1,2]", "surrogate": "\u{fffd}"});
    assert_eq!(object["metadata"], expected);
}

#[test]
fn metadata_of_a_trace_object_has_no_member_without_a_value_and_the_last_of_repeated_ones() {
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let mut items = samples::every_item();
    let Some(Item::Trace(object)) = items.pop() else { panic!("a trace object") };
    let metadata = format!(r#"{{"twice":1,"none":null,"deep":{deep},"twice":2}}"#);
    let object = Arc::into_inner(object).unwrap();
    let object = TraceObject { metadata: Some(Text::from(metadata)), ..object };
    let line = lines(&samples::delivery(0, vec![Item::Trace(Arc::new(object))]));
    let line: Json = serde_json::from_str(&line).unwrap();
    assert_eq!(line["metadata"], serde_json::json!({"deep": deep, "twice": "2"}));
}

#[test]
fn many_attributes_take_time_that_grows_with_their_number() {
    let attributes: Vec<_> = (0..200_000)
        .map(|number| crate::span::Attribute {
            key: Text::from((number % 150_000).to_string()),
            value: crate::span::Value::Int(number),
        })
        .collect();
    let mut out = Vec::new();
    write_attributes(&mut out, &attributes);
    let object: Json = serde_json::from_slice(&out).unwrap();
    assert_eq!(object.as_object().unwrap().len(), 150_000);
    assert_eq!(object["49999"], 199_999);
}

proptest! {
    #[test]
    fn any_text_in_any_place_reads_back(name: String, input: String, key: String, value: String) {
        let detail = Detail {
            name: Text::from(name.clone()),
            attributes: vec![crate::span::Attribute {
                key: Text::from(key.clone()),
                value: crate::span::Value::Text(Text::from(value.clone())),
            }],
            ..Detail::default()
        };
        let facts = Facts { input: Some(Payload::Text(Text::from(input.clone()))), ..Facts::default() };
        let span = samples::otlp_span(1, &Arc::default(), detail, facts);
        let text = lines(&samples::delivery(0, vec![Item::Span(span)]));
        prop_assert_eq!(text.matches('\n').count(), 1);
        let object: Json = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&object["name"], &name);
        prop_assert_eq!(&object["input"], &input);
        prop_assert_eq!(&object["attributes"][&key], &value);
    }
}

#[test]
fn a_cost_that_nobody_said_is_that_of_the_prices_and_says_so() {
    let prices = "overrides.gpt-4o = { input = 2.5, output = 10 }";
    let prices = Prices::new(&toml::from_str(prices).unwrap(), None);
    let usage = Usage { input: Some(1000), output: Some(1), ..Usage::default() };
    let line = |cost| {
        let request_model = Some(Text::from_static("gpt-4o"));
        let facts =
            Facts { kind: Kind::Generation, request_model, usage, cost, ..Facts::default() };
        let span = samples::otlp_span(1, &Arc::default(), Detail::default(), facts);
        let delivery = samples::delivery(0, vec![Item::Span(span)]);
        let mut out = Vec::new();
        for (batch, item) in delivery.items() {
            Lines::of(&delivery, &prices).write(&mut out, batch, item);
        }
        let line: Json = serde_json::from_slice(&out).unwrap();
        ["cost_usd", "input_cost_usd", "output_cost_usd", "cost_source"]
            .map(|key| line[key].clone().to_string())
    };
    assert_eq!(
        line(Cost::default()),
        ["0.00251", "0.0025", "1e-5", "\"override\""].map(str::to_owned)
    );
    let said = Cost { total: Some(0.25), ..Cost::default() };
    assert_eq!(line(said), ["0.25", "null", "null", "\"sdk\""].map(str::to_owned));
}
