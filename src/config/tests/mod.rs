//! Golden mistakes, layers, references, defaults, the schema, and the example files.

mod attributes;
mod examples;
mod parts;
mod secrets;
mod show;
mod standard;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::sinks::KINDS;
use crate::support::golden;
use crate::support::options::{nearest, properties, without_null};

/// The variables that the golden files refer to.
const VARIABLES: &[(&str, &str)] = &[
    ("SPANFERRY_STATE_DIR", "/state"),
    ("HOST", "127.0.0.1"),
    ("TAIL", "hunter2-is-no-size"),
    ("SECRET", "hunter2"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Reads a configuration of these texts in this environment.
fn read_texts(
    texts: &[&str],
    variables: &[(&str, &str)],
    flags: Vec<Flag>,
) -> Result<Loaded, Report> {
    let (_dir, request) = request(texts, flags);
    let environment = Environment::with(VARIABLES.iter().chain(variables).copied());
    load(&request, &environment)
}

fn request(texts: &[&str], flags: Vec<Flag>) -> (tempfile::TempDir, Request) {
    let dir = tempfile::tempdir().unwrap();
    let write = |(index, text): (usize, &&str)| {
        let path = dir.path().join(format!("{index}.toml"));
        fs::write(&path, text).unwrap();
        path
    };
    let files = texts.iter().enumerate().map(write).collect();
    (dir, Request { files, flags })
}

fn read_text(text: &str) -> Config {
    match read_texts(&[text], &[], Vec::new()) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{}", report.render("error", Paint::Plain)),
    }
}

fn values(texts: &[&str], variables: &[(&str, &str)], flags: Vec<Flag>) -> Vec<String> {
    let (dir, request) = request(texts, flags);
    let environment = Environment::with(VARIABLES.iter().chain(variables).copied());
    let prefix = format!("{}/", dir.path().display());
    let line = |shown: Shown| {
        let origin = shown.origin.replace(&prefix, "");
        format!("{}.{} = {} # {origin}", shown.table, shown.key, shown.value)
    };
    show(&request, &environment).unwrap().into_iter().map(line).collect()
}

/// Returns text that is equal for equivalent configurations.
fn summary(config: &Config) -> String {
    format!("{config:#?}")
}

#[test]
fn every_golden_file_is_reported_as_it_was() {
    let dir = root().join("tests/golden/config-errors");
    let mut names: Vec<PathBuf> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    names.sort();
    assert!(names.len() >= 5, "the golden files were not found");
    let mut changed = Vec::new();
    for path in names {
        let request = Request { files: vec![path.clone()], flags: Vec::new() };
        let environment = Environment::with(VARIABLES.iter().copied());
        let report = load(&request, &environment).unwrap_err();
        let said = report.render("error", Paint::Plain).replace(&format!("{}/", dir.display()), "");
        assert!(!said.contains("hunter2"), "a secret is shown:\n{said}");
        let golden = path.with_extension("txt");
        if golden::is_update() {
            fs::write(&golden, &said).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != said {
            changed.push(format!("{}:\n{said}", golden.display()));
        }
    }
    assert!(changed.is_empty(), "UPDATE_GOLDENS=1 accepts this:\n\n{}", changed.join("\n"));
}

#[test]
fn five_mistakes_are_five_reports_each_with_a_caret_and_a_hint() {
    let request =
        Request { files: vec![root().join("tests/golden/config-errors/five.toml")], flags: vec![] };
    let report = load(&request, &Environment::with([])).unwrap_err();
    let said = report.render("error", Paint::Plain);
    assert_eq!(report.count(), 5);
    assert_eq!(said.matches("error: ").count(), 5);
    assert_eq!(said.lines().filter(|line| line.trim_end().ends_with('^')).count(), 5);
    assert_eq!(said.matches("hint: ").count(), 5);
}

#[test]
fn with_nothing_at_all_everything_has_a_default() {
    let environment = Environment::with([("SPANFERRY_STATE_DIR", "/state")]);
    let loaded = load(&Request::default(), &environment).unwrap();
    assert_eq!(loaded.list_files("none"), "none");
    let config = loaded.config;
    assert_eq!(loaded.warnings, None);
    assert_eq!(config.receivers.http.to_string(), "127.0.0.1:4318");
    assert_eq!(config.receivers.grpc.to_string(), "127.0.0.1:4317");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:13133");
    assert_eq!(config.state_dir, Path::new("/state"));
    assert_eq!(config.shutdown_timeout, Duration::from_secs(20));
    let [sink] = config.sinks.as_slice() else { panic!("one sink") };
    assert_eq!((sink.name.as_str(), sink.kind.name), ("traces", "file"));
    let shown = values(&[], &[], Vec::new());
    assert!(
        shown.contains(&r#"sinks.traces.path = "/state/traces/{date}.jsonl" # default"#.to_owned()),
        "{shown:#?}"
    );
}

#[test]
fn the_state_directory_is_the_first_of_its_places_that_is_known() {
    for (variables, expected) in [
        (vec![("SPANFERRY_STATE_DIR", "/a"), ("XDG_STATE_HOME", "/b"), ("HOME", "/c")], "/a"),
        (
            vec![("SPANFERRY_STATE_DIR", ""), ("XDG_STATE_HOME", "/b"), ("HOME", "/c")],
            "/b/spanferry",
        ),
        (vec![("HOME", "/c")], "/c/.local/state/spanferry"),
        (vec![], "spanferry-state"),
    ] {
        assert_eq!(Environment::with(variables).state_dir(), Path::new(expected));
    }
}

#[test]
fn a_relative_journal_lies_in_the_state_directory_and_the_default_sink_beside_it() {
    let config = read_text("journal.dir = 'here'");
    assert_eq!(config.state_dir, Path::new("/state/here"));
    let shown = values(&["journal.dir = 'here'"], &[], Vec::new());
    assert!(
        shown.contains(
            &r#"sinks.traces.path = "/state/here/traces/{date}.jsonl" # default"#.to_owned()
        ),
        "{shown:#?}"
    );
}

#[test]
fn what_is_said_later_wins() {
    let one = "[log]\nlevel = 'debug'\nformat = 'json'\n[sinks.a]\ntype = 'stdout'\n";
    let two = "log.level = 'trace'\n[sinks.b]\ntype = 'blackhole'\n";
    let level = |texts: &[&str], variables: &[(&str, &str)], flags| {
        let shown = values(texts, variables, flags);
        shown.into_iter().find(|line| line.starts_with("log.level")).unwrap()
    };
    let flag = Flag { name: "--log-level", path: &["log", "level"], value: "off".to_owned() };
    let variables =
        [("RUST_LOG", "warn"), ("SPANFERRY_LOG", "error"), ("SPANFERRY__LOG__LEVEL", "info")];
    assert_eq!(level(&[one], &[], vec![]), r#"log.level = "debug" # 0.toml:2"#);
    assert_eq!(level(&[one, two], &[], vec![]), r#"log.level = "trace" # 1.toml:1"#);
    assert_eq!(level(&[one], &variables[..1], vec![]), r#"log.level = "warn" # RUST_LOG"#);
    assert_eq!(level(&[one], &variables[..2], vec![]), r#"log.level = "error" # SPANFERRY_LOG"#);
    assert_eq!(level(&[one], &variables, vec![]), r#"log.level = "info" # SPANFERRY__LOG__LEVEL"#);
    assert_eq!(level(&[one], &variables, vec![flag]), r#"log.level = "off" # --log-level"#);
    let merged = read_texts(&[one, two], &[], vec![]).unwrap().config;
    assert_eq!(merged.log.format, LogFormat::Json);
    let names: Vec<_> = merged.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_variable_sets_any_option_also_of_a_sink_whose_name_has_a_dash() {
    let variables = [
        ("SPANFERRY__SINKS__MY_FILE__BATCH__ITEMS_MAX", "7"),
        ("SPANFERRY__SINKS__MY_FILE__PATH", "b.jsonl"),
        ("SPANFERRY__SINKS__NEW__TYPE", "stdout"),
        ("SPANFERRY__THREADS", "3"),
    ];
    let text = "[sinks.my-file]\ntype = 'file'\npath = 'a.jsonl'\n";
    let config = read_texts(&[text], &variables, vec![]).unwrap().config;
    let names: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["my-file", "new"]);
    assert_eq!(config.sinks[0].lane.batch.items_max, 7);
    assert!(summary(&config).contains("b.jsonl"));
    assert_eq!(config.threads, Some(3));
}

#[test]
fn a_mistake_in_a_variable_names_the_variable_and_not_its_value() {
    let variables = [
        ("SPANFERRY__JOURNAL__BYTES_MAX", "hunter2"),
        ("SPANFERRY__JOURNAL__BYTE_MAX", "1"),
        ("SPANFERRY____DIR", "x"),
        ("SPANFERRY__FEED", "hunter2"),
    ];
    let report = read_texts(&[], &variables, vec![]).unwrap_err();
    let said = report.render("error", Paint::Plain);
    assert!(!said.contains("hunter2"), "{said}");
    for (name, _) in variables {
        assert!(said.contains(&format!("--> {name}\n")), "{said}");
    }
}

#[test]
fn a_reference_brings_a_value_but_never_structure() {
    let variables =
        [("DIR", "/d\"\n[sinks.evil]\ntype=\"stdout\""), ("GRACE", "3s"), ("ITEMS", "12")];
    let text = "drain_grace = '${GRACE}'\njournal.dir = '${DIR}'\n\
                [sinks.a]\ntype = '${KIND:-stdout}'\nbatch.items_max = '${ITEMS}'\n";
    let config = read_texts(&[text], &variables, vec![]).unwrap().config;
    assert_eq!(config.state_dir, Path::new("/d\"\n[sinks.evil]\ntype=\"stdout\""));
    assert_eq!(config.drain_grace, Duration::from_secs(3));
    assert_eq!(config.sinks.len(), 1);
    assert_eq!(config.sinks[0].lane.batch.items_max, 12);
}

#[test]
fn a_file_reference_brings_the_file_without_its_last_newline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("value");
    fs::write(&path, "/from/file\n").unwrap();
    let config = read_text(&format!("journal.dir = '${{file:{}}}'", path.display()));
    assert_eq!(config.state_dir, Path::new("/from/file"));
}

#[test]
fn references_are_not_looked_for_in_what_references_brought() {
    let text = "journal.dir = '/${A}'\nsinks.a.type = 'stdout'";
    let config = read_texts(&[text], &[("A", "${B}$$")], vec![]).unwrap().config;
    assert_eq!(config.state_dir, Path::new("/${B}$$"));
}

#[test]
fn credentials_are_not_shown() {
    let text = "[sinks.a]\ntype = 'stdout'\n";
    let shown = values(&[text], &[("SPANFERRY__SINKS__A__FORMAT", "json")], vec![]);
    assert!(shown.contains(&r#"sinks.a.format = "json" # SPANFERRY__SINKS__A__FORMAT"#.to_owned()));
    assert!(layers::is_secret_name("api_key") && layers::is_secret_name("Authorization"));
    assert!(!layers::is_secret_name("path"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let request = Request { files: vec![PathBuf::from("/nowhere/spanferry.toml")], flags: vec![] };
    let said = load(&request, &Environment::with([])).unwrap_err().render("error", Paint::Plain);
    assert!(said.contains("cannot read /nowhere/spanferry.toml"), "{said}");
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let loaded =
        read_texts(&["journal.mode = 'memory'\n[sinks.a]\ntype = 'blackhole'\n"], &[], vec![])
            .unwrap();
    assert_eq!(loaded.config.journal.options().retain, Duration::ZERO);
    assert_eq!(loaded.warnings.map(|warnings| warnings.count()), Some(2));
}

#[test]
fn the_starter_file_says_what_holds_without_it() {
    let without = read_text("");
    let with = read_text(&starter());
    assert_eq!(summary(&without), summary(&with));
}

#[test]
fn the_full_example_is_the_starter_file() {
    let path = root().join("config/full.toml");
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if golden::is_update() {
        fs::write(&path, starter()).unwrap();
        return;
    }
    assert!(kept == starter(), "UPDATE_GOLDENS=1 writes it anew, as does `config default`");
}

#[test]
fn every_setting_that_the_starter_file_shows_can_be_switched_on() {
    let text = starter();
    let (_, sinks) = text.split_once("# === Sinks").unwrap();
    for kind in KINDS.iter().filter(|kind| kind.missing().is_none()) {
        let (_, shown) = sinks.split_once(&format!("#[sinks.{}]", kind.name)).unwrap();
        let shown = shown.split("# ---").next().unwrap();
        let settings = shown.lines().filter_map(|line| line.strip_prefix('#'));
        let settings = settings.filter(|line| !line.starts_with(' ') && !line.ends_with("= ..."));
        let lines: Vec<_> = settings.collect();
        // A compression level without compression, the default, is a mistake.
        let lines = lines.join("\n").replace("compression = \"none\"", "compression = \"gzip\"");
        read_text(&format!("[sinks.{}]\n{lines}\n", kind.name));
    }
}

#[test]
fn every_kind_s_example_loads() {
    for kind in KINDS.iter().filter(|kind| kind.missing().is_none()) {
        read_text(&format!("[sinks.a]\ntype = '{}'\n{}", kind.name, kind.example));
    }
}

#[test]
fn the_schema_has_every_section_and_every_kind_and_refers_to_nothing_else() {
    let schema = schema();
    let text = schema.to_string();
    assert!(!text.contains("$ref") && !text.contains("$defs"), "{text}");
    let properties = schema["properties"].as_object().unwrap();
    for section in
        ["receivers", "journal", "feed", "admin", "log", "attributes", "sinks", "shutdown_timeout"]
    {
        assert!(properties.contains_key(section), "{section}");
    }
    let kinds = properties["sinks"]["additionalProperties"]["oneOf"].as_array().unwrap();
    let (parts, kinds) = kinds.split_last().unwrap();
    assert_eq!(parts["properties"]["type"]["enum"].as_array().unwrap().len(), KINDS.len());
    let names: Vec<_> = kinds.iter().map(|kind| &kind["properties"]["type"]["const"]).collect();
    let expected: Vec<Value> = KINDS.iter().map(|kind| json!(kind.name)).collect();
    assert_eq!(names, expected.iter().collect::<Vec<_>>());
    assert!(kinds.iter().all(|kind| kind["properties"]["batch"].is_object()));
    assert_eq!(schema["properties"]["journal"]["properties"]["bytes_max"]["default"], "2GiB");
    assert!(schema["properties"]["journal"]["properties"]["bytes_max"]["description"].is_string());
}

#[test]
fn every_option_of_the_schema_has_a_sentence() {
    fn walk(path: &str, schema: &Value) {
        for (name, property) in properties(schema) {
            let path = format!("{path}.{name}");
            assert!(property["description"].as_str().is_some_and(|text| text.len() > 5), "{path}");
            walk(&path, without_null(property));
        }
    }
    walk("", &schema::sections_schema());
    walk("sinks.*", &schema::lane_schema());
    for kind in KINDS {
        walk(kind.name, &(kind.schema)());
    }
}

#[test]
fn a_wrong_kind_is_answered_with_the_nearest() {
    let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(nearest("stduot", names), Some("stdout"));
}

#[test]
fn a_journal_without_room_for_the_largest_body_is_a_warning() {
    let warnings = |text: &str| {
        let (_dir, request) = request(&[text], Vec::new());
        let loaded = load(&request, &Environment::with([])).unwrap();
        loaded.warnings.map(|report| report.render("warning", Paint::Plain)).unwrap_or_default()
    };
    let said = warnings("journal.bytes_max = '128MiB'\n");
    assert!(said.contains("no room for a body of 64MiB") && said.contains(":1:"), "{said}");
    assert_eq!(warnings("journal.bytes_max = '140MiB'\n"), "");
    assert_eq!(warnings("journal.bytes_max = '20MiB'\nreceivers.body_bytes_max = '8MiB'\n"), "");
}

#[test]
fn what_everybody_can_reach_is_a_warning_until_keys_are_asked_for() {
    let warnings = |text: &str| {
        let (_dir, request) = request(&[text], Vec::new());
        let loaded = load(&request, &Environment::with([])).unwrap();
        loaded.warnings.map(|report| report.render("warning", Paint::Plain)).unwrap_or_default()
    };
    let open = "[receivers]\ngrpc = \"0.0.0.0:4317\"\n";
    let said = warnings(open);
    assert!(
        said.contains("anybody who can reach receivers.grpc") && said.contains(":2:"),
        "{said}"
    );
    assert!(said.contains("hint: name keys in `receivers.tokens`"), "{said}");
    assert_eq!(
        warnings(&format!("{open}tokens = [{{ token = \"${{X:-a}}\", tenant = \"a\" }}]\n")),
        ""
    );
    let only_known = "admin.tls = { cert = \"a\", key = \"b\", client_ca = \"c\" }\n";
    assert!(warnings(only_known).contains("probes need a certificate"), "{}", warnings(only_known));
    assert_eq!(warnings(&only_known.replace(" }", ", client_auth = \"optional\" }")), "");
}
