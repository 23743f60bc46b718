//! Documents that are too large, and attributes that a server indexes individually.

use super::documents::{document, read};
use super::*;
use crate::sinks::elasticsearch::document::Degradation;
use crate::sinks::samples;
use crate::span::{Attribute, Payload, Scope, Value};

fn large(texts: &[(&'static str, usize)]) -> Item {
    let attribute = |(key, length): &(&'static str, usize)| Attribute {
        key: Text::from_static(key),
        value: Value::Text(Text::from("\u{e9}".repeat(*length))),
    };
    let attributes = texts.iter().map(attribute).collect();
    let detail = Detail { attributes, ..Detail::default() };
    let input = Payload::Json(Text::from(format!("[\"{}\"]", "y".repeat(40_000))));
    let facts = Facts { input: Some(input), ..Facts::default() };
    Item::Span(samples::otlp_span(1, &Arc::<Scope>::default(), detail, facts))
}

#[test]
fn the_longest_texts_are_cut_and_say_so() {
    let item = large(&[("long", 30_000), ("short", 30)]);
    for (bytes_max, is_cut) in [(200_000, false), (60_000, true), (16_384, true)] {
        let text = document(&settings(""), &item, Degradation::Full, bytes_max);
        assert!(text.len() <= bytes_max);
        let doc = read(&text);
        assert_eq!(doc.get("truncated").is_some(), is_cut, "{bytes_max}");
        assert_eq!(doc["attributes"]["short"], "\u{e9}".repeat(30));
        let long = doc["attributes"]["long"].as_str().unwrap();
        assert_eq!(long.contains("...[truncated "), is_cut, "{bytes_max}");
        assert_eq!(long.ends_with(']') && long.contains(" bytes, sha256 "), is_cut);
        assert_eq!(doc["input"].is_string(), is_cut, "JSON that is cut is text");
    }
}

#[test]
fn what_is_large_for_another_reason_keeps_what_is_typed() {
    let detail = Detail {
        attributes: (0..5_000)
            .map(|number| Attribute {
                key: Text::from(format!("attribute.{number}")),
                value: Value::Int(number),
            })
            .collect(),
        ..Detail::default()
    };
    let span = samples::otlp_span(1, &Arc::<Scope>::default(), detail, Facts::default());
    let text = document(&settings(""), &Item::Span(span), Degradation::Full, 16_384);
    assert!(text.len() <= 16_384);
    let doc = read(&text);
    assert_eq!(doc["truncated"], true);
    assert_eq!(doc["span_id"], "0000000000000002");
    assert_eq!(doc.get("attributes"), None);
}

#[test]
fn attributes_that_are_all_indexed_are_guarded() {
    let deep = (0..30).fold(Value::Int(1), |inner, level| {
        Value::Map(vec![Attribute { key: Text::from(format!("level{level}")), value: inner }])
    });
    let attribute = |key: String, value| Attribute { key: Text::from(key), value };
    let detail = Detail {
        attributes: vec![
            attribute("deep".to_owned(), deep),
            attribute("k".repeat(500), Value::Int(1)),
            attribute("nul\0key".to_owned(), Value::Text(Text::from_static("nul\0value"))),
            attribute(String::new(), Value::Bool(true)),
            attribute("long".to_owned(), Value::Text(Text::from("x".repeat(40_000)))),
        ],
        ..Detail::default()
    };
    let item =
        Item::Span(samples::otlp_span(1, &Arc::<Scope>::default(), detail, Facts::default()));
    for option in ["flattened", "flat_object"] {
        let settings = settings(&format!("attributes_mapping = {option:?}"));
        let doc = read(&document(&settings, &item, Degradation::Full, usize::MAX));
        let attributes = &doc["attributes"];
        let mut at = &attributes["deep"];
        let mut depth = 1;
        while let Some(inner) = at.as_object() {
            at = inner.values().next().unwrap();
            depth += 1;
        }
        assert_eq!(depth, 8);
        assert!(at.as_str().unwrap().contains("level0"), "what is deeper is text");
        assert_eq!(attributes[&*"k".repeat(256)], 1);
        assert_eq!(attributes["nulkey"], "nulvalue");
        assert_eq!(attributes["_"], true);
        assert!(attributes["long"].as_str().unwrap().len() < 32_000);
        assert!(doc["resource"].is_null() || doc["resource"].is_object());
    }
}
