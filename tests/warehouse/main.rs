//! Captured traffic as analysts read it: every statement of `docs/warehouse.md` runs in its engine, over Parquet and over JSON lines, and
//! its result must equal what is computed here from the spans themselves. No bucket is needed: `object_store` has its own suite.
//!
//! Engines: `duckdb`, `pandas` with `pyarrow`, `chdb` (`ClickHouse`), `pyspark` and `sqlite3`, as Python packages in a virtual environment
//! below `target/real-servers/` (1.5 GB, a minute); `pyspark` needs Java 17 or later. Services that read buckets by name (Athena and
//! others) are not tested.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, and read files and the environment"
)]

#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../opt_in.rs"]
mod opt_in;
#[path = "../process/mod.rs"]
mod process;
#[path = "../servers/mod.rs"]
mod servers;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use fixtures::{Fixture, agents_sdk, captured, delivery};
use serde_json::{Value, json};
use servers::{Recipe, run};
use spanferry::prices::{PriceOptions, Prices};
use spanferry::sinks::jsonl::Lines;
use spanferry::sinks::object_store::Options;
use spanferry::sinks::parquet::{DEFAULT_ROW_GROUP_BYTES, Rows};
use spanferry::sinks::{Parts, Plan as _};
use spanferry::span::{Kind, STATUS_ERROR};
use tempfile::TempDir;

const ZSTD_LEVEL: i32 = 3;

static ENGINES: Recipe = Recipe {
    name: "warehouse",
    folder: "warehouse",
    source: include_str!("requirements.txt"),
    is_bound_to_its_path: true,
    make: |folder| {
        let list = folder.join("requirements.txt");
        fs::write(&list, include_str!("requirements.txt")).map_err(|error| error.to_string())?;
        run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        run(Command::new(folder.join("venv/bin/python")).args(pip).arg(list))
    },
};

fn traffic() -> Vec<Fixture> {
    let mut all = captured();
    all.extend(agents_sdk());
    all
}

fn prices() -> Prices {
    Prices::new(&PriceOptions::default(), None)
}

fn lines(fixtures: &[Fixture], prices: &Prices) -> Vec<u8> {
    let delivery = delivery(fixtures);
    let (mut out, mut lines) = (Vec::new(), Lines::of(&delivery, prices));
    for (batch, item) in delivery.items() {
        lines.write(&mut out, batch, item);
    }
    out
}

fn parquet(fixtures: &[Fixture], prices: &Prices) -> Vec<u8> {
    let mut rows = Rows::new(ZSTD_LEVEL, DEFAULT_ROW_GROUP_BYTES).unwrap();
    rows.write(&delivery(fixtures), prices).unwrap();
    rows.finish().unwrap()
}

/// Writes traffic in two partitions, as Parquet and as lines of many zstd frames, and all lines in one file.
fn bucket(traffic: &[Fixture]) -> TempDir {
    let (dir, prices) = (TempDir::new().unwrap(), prices());
    let mut all = Vec::new();
    for (hour, part) in traffic.chunks(traffic.len().div_ceil(2)).enumerate() {
        let folder = dir.path().join(format!("traces/dt=2026-11-21/hour=0{hour}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("lake-0000000000.parquet"), parquet(part, &prices)).unwrap();
        let mut frames = Vec::new();
        for fixture in part.chunks(10) {
            let lines = lines(fixture, &prices);
            frames.extend(zstd::bulk::compress(&lines, ZSTD_LEVEL).unwrap());
            all.extend(lines);
        }
        fs::write(folder.join("lake-0000000000.jsonl.zst"), frames).unwrap();
    }
    fs::write(dir.path().join("traces.jsonl"), all).unwrap();
    dir
}

/// Interpolates linearly between the values of a sorted list.
fn percentile(sorted: &[u64], share: f64) -> f64 {
    let place = (sorted.len() - 1) as f64 * share;
    let weight =
        |(at, value): (usize, &u64)| *value as f64 * (1.0 - (at as f64 - place).abs()).max(0.0);
    sorted.iter().enumerate().map(weight).sum()
}

/// Facts of spans, by the grouping of a question.
#[derive(Default)]
struct Sums {
    durations: BTreeMap<[Option<String>; 2], Vec<u64>>,
    tokens: BTreeMap<Option<String>, [Option<f64>; 3]>,
    errors: BTreeMap<(String, Option<String>), f64>,
    lengths: BTreeMap<String, Vec<f64>>,
}

fn add(sum: &mut Option<f64>, value: Option<f64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0.0) + value);
    }
}

/// Returns the Monday of a week.
fn monday(unix_ns: u64) -> String {
    // 1970-01-01 was a Thursday.
    let day = unix_ns / 86_400_000_000_000;
    let mut out = Vec::new();
    spanferry::support::rfc3339::write_date(&mut out, (day + 3) / 7 * 7 - 3);
    String::from_utf8(out).unwrap()
}

/// Computes each question's rows from the spans.
fn expected(traffic: &[Fixture]) -> Value {
    let (delivery, prices, mut sums) = (delivery(traffic), prices(), Sums::default());
    // A trace object is a row too, without an agent.
    let objects = delivery.len() - delivery.spans().count();
    assert!(objects > 0);
    sums.tokens.entry(None).or_default();
    for span in delivery.spans() {
        let (facts, tokens) = (span.facts(), prices.tokens_of(None, span));
        let name = |name: &Option<_>| {
            name.as_ref().map(ToString::to_string).filter(|name| !name.is_empty())
        };
        let agent = name(&facts.agent);
        if [Kind::Agent, Kind::Tool].contains(&facts.kind) {
            let names = [agent.clone(), name(&facts.tool)];
            sums.durations.entry(names).or_default().push(span.duration_ns());
        }
        let [input, output, cost] = sums.tokens.entry(agent).or_default();
        add(input, tokens.own.input.map(|count| count as f64));
        add(output, tokens.own.output.map(|count| count as f64));
        add(cost, tokens.own_cost().total);
        let error = (span.head().status_code == STATUS_ERROR).then(|| {
            let kind = facts.error.as_ref().and_then(|error| name(&error.kind));
            kind.unwrap_or_else(|| "unnamed".to_owned())
        });
        *sums.errors.entry((facts.kind.as_str().to_owned(), error)).or_default() += 1.0;
        if let (Kind::Generation, Some(input)) = (facts.kind, &facts.input) {
            let length = input.as_str().chars().count() as f64;
            sums.lengths.entry(monday(span.start_ns)).or_default().push(length);
        }
    }
    rows(sums)
}

fn rows(mut sums: Sums) -> Value {
    let durations = sums.durations.iter_mut().map(|([agent, tool], durations)| {
        durations.sort_unstable();
        let [median, high] = [0.5, 0.95].map(|share| percentile(durations, share) / 1e6);
        json!([agent, tool, durations.len() as f64, median, high])
    });
    let tokens = sums
        .tokens
        .iter()
        .map(|(agent, [input, output, cost])| json!([agent, input, output, cost]));
    let errors = sums.errors.iter().map(|((kind, error), spans)| {
        let all: f64 =
            sums.errors.iter().filter(|((of, _), _)| of == kind).map(|(_, spans)| spans).sum();
        json!([kind, error, spans, spans / all])
    });
    let lengths = sums.lengths.iter().map(|(week, lengths)| {
        let count = lengths.len() as f64;
        json!([week, count, lengths.iter().sum::<f64>() / count])
    });
    json!({
        "latency": durations.collect::<Vec<_>>(),
        "tokens": tokens.collect::<Vec<_>>(),
        "errors": errors.collect::<Vec<_>>(),
        "drift": lengths.collect::<Vec<_>>(),
    })
}

/// Counts the rows with each column, from the lines.
fn expected_columns(traffic: &[Fixture]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in String::from_utf8(lines(traffic, &prices())).unwrap().lines() {
        // Attributes may be nested more deeply than serde_json's default allows.
        let mut deserializer = serde_json::Deserializer::from_str(line);
        deserializer.disable_recursion_limit();
        let line: BTreeMap<String, &serde_json::value::RawValue> =
            serde::Deserialize::deserialize(&mut deserializer).unwrap();
        for name in line.into_keys() {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

fn is_same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => (one - other).abs() <= 1e-9 * one.abs().max(1e-6),
        _ => one == other,
    }
}

fn assert_same(engine: &str, question: &str, found: &Value, expected: &Value) {
    let sorted = |rows: &Value| {
        let mut rows = rows.as_array().unwrap().clone();
        rows.sort_by_cached_key(|row| {
            let names = row.as_array().unwrap().iter().filter(|cell| !cell.is_number());
            names.map(ToString::to_string).collect::<Vec<_>>()
        });
        rows
    };
    let (found, expected) = (sorted(found), sorted(expected));
    assert_eq!(
        found.len(),
        expected.len(),
        "{engine}, {question}: {found:?}, expected {expected:?}"
    );
    assert!(expected.len() > 1 || question == "drift", "{question} has something to tell apart");
    for (found, expected) in found.iter().zip(&expected) {
        let cells = found.as_array().unwrap().iter().zip(expected.as_array().unwrap());
        for (found_cell, expected_cell) in cells {
            assert!(
                is_same(found_cell, expected_cell),
                "{engine}, {question}: {found}, expected {expected}"
            );
        }
    }
}

fn answers_as_computed(engine: &str, forms: &[&str]) {
    let Some(folder) = ENGINES.have() else { return };
    let traffic = traffic();
    let (dir, source) = (bucket(&traffic), Path::new(env!("CARGO_MANIFEST_DIR")));
    let python = Command::new(folder.join("venv/bin/python"))
        .arg(source.join("tests/warehouse/ask.py"))
        .args([source.join("docs/warehouse.md").as_os_str(), engine.as_ref()])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let said = String::from_utf8(python.stdout).unwrap();
    let found: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let expected = expected(&traffic);
    for form in forms {
        for (question, expected) in expected.as_object().unwrap() {
            let engine = format!("{engine} over {form}");
            assert_same(&engine, question, &found[form][question], expected);
        }
    }
    if let Some(columns) = found.get("columns") {
        let columns: BTreeMap<String, u64> = serde_json::from_value(columns.clone()).unwrap();
        let mut columns: BTreeMap<_, _> =
            columns.into_iter().filter(|(_, count)| *count > 0).collect();
        for partition in ["dt", "hour"] {
            columns.remove(partition);
        }
        assert_eq!(columns, expected_columns(&traffic), "every column of every object is read");
    }
}

#[test]
fn duckdb_reads_all_and_answers_as_computed() {
    answers_as_computed("duckdb", &["parquet", "jsonl"]);
}

#[test]
fn pandas_and_pyarrow_read_all_and_answer_as_computed() {
    answers_as_computed("pandas", &["parquet", "jsonl"]);
}

#[test]
fn clickhouse_answers_as_computed() {
    answers_as_computed("clickhouse", &["parquet", "jsonl"]);
}

#[test]
fn spark_answers_as_computed() {
    answers_as_computed("spark", &["parquet", "jsonl"]);
}

#[test]
fn sqlite_answers_as_computed() {
    answers_as_computed("sqlite", &["jsonl"]);
}

/// Writes a folder through the sink.
async fn written_by_the_sink(traffic: &[Fixture], folder: &Path) {
    let options = format!("url = \"file://{}\"\nformat = \"parquet\"", folder.display());
    let options: Options = toml::from_str(&options).unwrap();
    let parts = Parts { name: "lake".to_owned(), prices: Arc::new(prices()), ..Parts::default() };
    let (sink, delivery) = (options.build(parts).unwrap(), delivery(traffic));
    // The first delivery only makes the sink have its number saved.
    for place in ["0", "1"] {
        sink.deliver(&delivery).await;
        sink.checkpoint_at(place.into()).await.unwrap();
    }
}

#[tokio::test]
async fn duckdb_reads_the_folder_of_a_sink_as_the_page_begins() {
    let Some(folder) = ENGINES.have() else { return };
    let (traffic, dir) = (traffic(), TempDir::new().unwrap());
    written_by_the_sink(&traffic, dir.path()).await;
    let page = include_str!("../../docs/warehouse.md");
    let (_, statement) = page.split_once("duckdb -c \"").unwrap();
    let (statement, _) = statement.split_once('"').unwrap();
    let of_page = "/var/lib/spanferry/lake";
    assert!(statement.contains(of_page));
    let statement = statement.replace(of_page, &dir.path().display().to_string());
    let program = "import duckdb, json, sys; print(json.dumps(duckdb.sql(sys.argv[1]).fetchall(), default=int))";
    let python = Command::new(folder.join("venv/bin/python"))
        .args(["-c", program, &statement])
        .output()
        .unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let found: Vec<(Option<String>, u64, Option<f64>)> =
        serde_json::from_slice(&python.stdout).unwrap();
    let tokens = |agent: &Option<String>| json!([agent, found.iter().find(|row| row.0 == *agent)]);
    assert_eq!(found.iter().map(|row| row.1).sum::<u64>(), delivery(&traffic).len() as u64);
    for row in expected(&traffic)["tokens"].as_array().unwrap() {
        let agent = row[0].as_str().map(ToOwned::to_owned);
        assert!(is_same(&tokens(&agent)[1][2], &row[1]), "{row}: {}", tokens(&agent));
    }
}

#[test]
fn parquet_has_at_most_a_quarter_of_the_bytes_of_lines() {
    let (traffic, prices) = (traffic(), prices());
    let (lines, parquet) = (lines(&traffic, &prices).len(), parquet(&traffic, &prices).len());
    assert!(parquet * 4 <= lines, "{parquet} bytes of Parquet, {lines} of lines");
}

/// Not a test: it ends the suite's output. See `opt_in.rs`.
#[test]
fn zz_what_was_skipped_is_said() {
    opt_in::say_what_was_skipped();
}
