//! Every kind of mistake, alone and in combination.

use std::path::PathBuf;

use serde::Deserialize;

use super::*;
use crate::support::address::Address;
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;
use crate::support::secret::Secret;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct Example {
    path: PathBuf,
    listen: Address,
    format: Format,
    inner: Inner,
    #[serde(default)]
    size: ByteSize,
    #[serde(default)]
    wait: Duration,
    #[serde(default)]
    count: u16,
    #[serde(default)]
    ratio: f64,
    #[serde(default)]
    on: bool,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    inners: Vec<Inner>,
    #[serde(default)]
    counts: Vec<u8>,
    key: Option<Secret>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct Inner {
    age: Duration,
    bytes: ByteSize,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    Lines,
    OtlpJson,
}

const GOOD: &str = r#"path = "a"
listen = "127.0.0.1:1"
format = "lines"
inner = { age = "1s", bytes = "1B" }
"#;

/// Returns each mistake as `text at it: what / hint`.
fn mistakes(text: &str) -> Vec<String> {
    let table = DeTable::parse(text).unwrap();
    let problems = read::<Example>(table).unwrap_err();
    let line = |problem: Problem| {
        let at = problem.at.and_then(|at| text.get(at)).unwrap_or_default();
        format!("{at}: {} / {}", problem.what, problem.hint.unwrap_or_default())
    };
    problems.into_iter().map(line).collect()
}

#[test]
fn a_table_without_mistakes_is_read() {
    let read = read::<Example>(DeTable::parse(GOOD).unwrap()).unwrap();
    assert!(matches!(read.format, Format::Lines));
}

#[test]
fn each_mistake_stands_at_its_place_with_a_hint() {
    for (added, expected) in [
        ("conut = 1", "conut: unknown key `conut` / did you mean `count`?"),
        (
            "count = \"1\"",
            "\"1\": expected a whole number from 0 to 65535, found a string / write it without quotes",
        ),
        ("count = 70000", "70000: expected a whole number from 0 to 65535 / "),
        (
            "on = \"yes\"",
            "\"yes\": expected true or false, found a string / write true or false, without quotes",
        ),
        (
            "size = \"8 apples\"",
            "\"8 apples\": not a unit of size / the units are B, KiB, MiB, GiB, TiB, KB, MB, GB and TB",
        ),
        ("wait = 5", "5: a duration needs a unit / write for example \"5s\""),
        (
            "names = \"a\"",
            "\"a\": expected an array, found a string / write a list, between [ and ], in a file",
        ),
        (
            "inners = [\"1s\"]",
            "\"1s\": expected a table, found a string / write { age = ..., bytes = ... }",
        ),
        ("counts = [1, 2, 300, \"x\"]", "300: expected a whole number from 0 to 255 / "),
        ("key = 5", "5: expected a string, found a whole number / put it in quotes"),
    ] {
        assert_eq!(mistakes(&format!("{GOOD}{added}\n"))[0], expected);
    }
}

#[test]
fn all_mistakes_of_a_table_are_reported_at_once_in_the_order_of_the_file() {
    let found = mistakes(
        r#"paht = "a"
listen = "nowhere"
format = "line"
count = "1"
inner = { age = 5, byte = "1B" }
counts = [1, 300, "x"]
on = 1
"#,
    );
    let expected = [
        "paht: unknown key `paht` / did you mean `path`?",
        "\"nowhere\": not an address with a port / write for example \"127.0.0.1:4318\" or \"unix:/run/spanferry/http.sock\"",
        "\"line\": not one of the allowed values / did you mean `lines`?",
        "\"1\": expected a whole number from 0 to 65535, found a string / write it without quotes",
        "5: a duration needs a unit / write for example \"5s\"",
        "byte: unknown key `byte` / did you mean `bytes`?",
        "300: expected a whole number from 0 to 255 / ",
        "\"x\": expected a whole number from 0 to 255, found a string / write it without quotes",
        "1: expected true or false, found a whole number / write true or false, without quotes",
    ];
    assert_eq!(found, expected);
}

#[test]
fn everything_that_is_missing_is_named() {
    let names = ["path", "listen", "format", "inner"];
    let expected: Vec<_> = names
        .iter()
        .map(|name| format!(": missing key `{name}` / add `{name} = ...` here"))
        .collect();
    assert_eq!(mistakes(""), expected);
}

#[test]
fn a_value_is_never_quoted() {
    let found = mistakes(&format!(
        "{GOOD}key = \"sk-1\"\ncount = \"sk-2\"\nsize = \"sk-3\"\nwait = \"sk-4\"\n"
    ));
    for line in found {
        let (_, said) = line.split_once(": ").unwrap();
        assert!(!said.contains("sk-"), "{said}");
    }
}

#[test]
fn a_string_that_came_by_reference_may_be_a_number_or_a_boolean_where_that_is_wanted() {
    let mut table = DeTable::parse(GOOD).unwrap();
    for (index, (name, text)) in
        [("count", "7"), ("on", "true"), ("ratio", "0.5"), ("key", "12345")].into_iter().enumerate()
    {
        let at = REFERENCED + index..REFERENCED + index + 1;
        let value = Spanned::new(at, DeValue::String(text.into()));
        table.get_mut().insert(Spanned::new(0..1, name.into()), value);
    }
    let example = read::<Example>(table).unwrap();
    assert_eq!((example.count, example.on, example.ratio), (7, true, 0.5));
    assert_eq!(example.key.unwrap().reveal(), "12345");
}

#[test]
fn a_reference_brings_no_structure() {
    let mut table = DeTable::parse(GOOD).unwrap();
    let value = Spanned::new(REFERENCED + 3..REFERENCED + 4, DeValue::String("[\"a\"]".into()));
    table.get_mut().insert(Spanned::new(0..1, "names".into()), value);
    let problems = read::<Example>(table).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].at, Some(3..4));
}
