//! `config show` for sinks: effective values, and the values that presets resolve to.

use std::fmt::Write as _;

use super::*;

#[test]
fn what_presets_come_to_is_what_the_golden_says() {
    let name = "config-show/presets";
    let request = Request { files: vec![golden::path(&format!("{name}.toml"))], flags: Vec::new() };
    let mut text = String::new();
    let mut table = String::new();
    for shown in show(&request, &Environment::with([])).unwrap() {
        if !shown.table.starts_with("sinks.") || shown.origin == DEFAULT_ORIGIN {
            continue;
        }
        if shown.table != table {
            writeln!(text, "\n[{}]", shown.table).unwrap();
            table = shown.table;
        }
        let origin = shown.origin.rsplit('/').next().unwrap_or_default();
        writeln!(text, "{} = {} # {origin}", shown.key, shown.value).unwrap();
    }
    assert!(!text.contains("hunter2"), "{text}");
    golden::check(&format!("{name}.txt"), &text);
    let shown: toml::Table = text.parse().unwrap();
    assert_eq!(shown["sinks"].as_table().unwrap().len(), 16, "what is shown is TOML");
}

#[test]
fn a_key_in_the_query_of_an_address_is_never_shown() {
    let text = r#"
        [sinks.a]
        type = "otlp"
        traces_endpoint = "https://a.example.com/ingest?key=hunter2"
        [sinks.b]
        type = "openai"
        endpoint = "https://b.example.com/ingest?key=hunter2"
        "#;
    let shown = values(&[text], &[], Vec::new()).join("\n");
    assert!(!shown.contains("hunter2"), "{shown}");
    for expected in ["a.example.com/ingest?[redacted]", "b.example.com/ingest?[redacted]"] {
        assert!(shown.contains(expected), "{shown}");
    }
}
