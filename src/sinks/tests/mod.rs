//! The table of kinds, and the positions at which mistakes in a sink's table are reported.

pub(super) mod samples;

use super::*;

fn parse(kind: &str, text: &str) -> Result<Box<dyn Plan>, Vec<Problem>> {
    let kind = KINDS.iter().find(|known| known.name == kind).unwrap();
    (kind.parse)(DeTable::parse(text).unwrap())
}

#[test]
fn every_kind_has_a_name_of_its_own_and_an_example_that_works() {
    for kind in KINDS {
        assert_eq!(KINDS.iter().filter(|other| other.name == kind.name).count(), 1);
        let plan = parse(kind.name, kind.example).unwrap();
        let parts = Parts { name: "example".to_owned(), ..Parts::default() };
        let is_built = kind.name != "kafka" || cfg!(feature = "kafka");
        assert_eq!(plan.build(parts).is_ok(), is_built, "{}", kind.name);
        let schema = (kind.schema)();
        assert_eq!(schema.get("additionalProperties"), Some(&false.into()), "{}", kind.name);
        assert!(!kind.summary.ends_with('.'));
    }
}

#[test]
fn mistakes_are_shown_where_they_stand() {
    const TLS: &str = "endpoint = \"https://a/b\"\ntls = { key_file = \"a.pem\" }";
    for (kind, text, at, what) in [
        ("file", "path = \"a\"\nformat = \"xml\"", "\"xml\"", ""),
        ("file", "path = \"{day}\"", "\"{day}\"", "unknown placeholder"),
        ("file", "path = \"a\"\ncompression_level = 3", "3", "without compression"),
        (
            "file",
            "compression = \"zstd\"\npath = \"a\"\ncompression_level = 23",
            "23",
            "not a zstd level",
        ),
        ("file", "path = \"a\"\nrotate_bytes = \"10B\"", "\"10B\"", "too small"),
        ("stdout", "colour = \"always\"", "colour", "colour"),
        ("blackhole", "path = \"a\"", "path", "path"),
        ("openai", TLS, "{ key_file = \"a.pem\" }", "go together"),
        ("otlp", TLS, "{ key_file = \"a.pem\" }", "go together"),
        (
            "elasticsearch",
            "endpoints = [\"https://a\"]\ntls = { key_file = \"a.pem\" }",
            "{ key_file = \"a.pem\" }",
            "go together",
        ),
    ] {
        let problems = parse(kind, text).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].what.contains(what), "{problems:?}");
        assert_eq!(text.get(problems[0].at.clone().unwrap()), Some(at));
    }
    assert_eq!(parse("file", "").unwrap_err().len(), 1);
    assert_eq!(parse("file", "path = \"\"\nrotate_bytes = 1").unwrap_err().len(), 2);
}
