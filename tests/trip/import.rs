//! `import`: the files of one daemon come back through the receivers of another as the same spans, also after a kill.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::World;
use super::process::POLL_EVERY;
use super::traffic::send_captured;

const SINKS: &str = r#"
[sinks.lines]
type = "file"
path = "lines.jsonl"

[sinks.otlp]
type = "file"
format = "otlp-json"
compression = "zstd"
path = "otlp.jsonl"

[sinks.items]
type = "file"
format = "openai"
path = "items.jsonl"
"#;

/// Columns that belong to an arrival and not to a span.
const OF_ARRIVAL: [&str; 2] = ["received_at", "receiver"];
/// An Agents SDK span has this from its trace object, if that came in the same request; batches cut requests differently.
const OF_REQUEST: &str = "workflow_name";
/// A Logfire span has these from the root of its trace, if that came before its line was written.
const OF_ROOT: [&str; 2] = ["session_id", "user_id"];

impl World {
    pub(crate) fn import(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spanferry"));
        let endpoint = format!("http://{}", self.place().http);
        command.args(["import", "--endpoint", &endpoint, "--json", "--give-up-after", "30s"]);
        command.args(arguments).current_dir(self.dir.path());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("lines.jsonl")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }
}

/// Returns the sums that an import printed; it must have the expected exit code.
fn sums(output: &Output, is_good: bool) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(!is_good)), "{said}");
    serde_json::from_slice(&output.stdout).expect(&said)
}

/// Parses lines and removes what depends on their arrival.
fn lasting(lines: &[String]) -> Vec<Value> {
    let lines = lines.iter().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let columns = line.as_object_mut().unwrap();
        let is_agents_sdk = columns.contains_key("openai_item") && columns["record"] == "span";
        let of_request = is_agents_sdk.then_some(OF_REQUEST);
        let is_logfire =
            columns.get("convention").is_some_and(|convention| convention == "logfire");
        let of_root = OF_ROOT.into_iter().filter(|_| is_logfire);
        for column in OF_ARRIVAL.into_iter().chain(of_request).chain(of_root) {
            columns.shift_remove(column);
        }
        line
    });
    lines.collect()
}

#[tokio::test]
async fn imported_lines_are_written_as_the_same_lines() {
    let first = World::new(SINKS).await;
    send_captured(&first).await;
    first.settled().await;
    let second = World::new(SINKS).await;
    let lines = first.path("lines.jsonl");
    let sums = sums(&second.import(&[lines.to_str().unwrap()]).output().unwrap(), true);
    second.settled().await;

    let (sent, arrived) = (lasting(&first.lines()), lasting(&second.lines()));
    assert_eq!(sums["accepted"], sent.len());
    assert_eq!(arrived.len(), sent.len());
    let mut sent: Vec<_> = sent.iter().map(ToString::to_string).collect();
    let mut arrived: Vec<_> = arrived.iter().map(ToString::to_string).collect();
    // A batch has a request for each kind of client.
    sent.sort();
    arrived.sort();
    let different: Vec<_> =
        sent.iter().zip(&arrived).filter(|(sent, arrived)| sent != arrived).collect();
    assert!(
        different.is_empty(),
        "{}: {:#?}",
        different.len(),
        &different[..different.len().min(6)]
    );
}

#[tokio::test]
async fn otlp_and_items_come_back_with_every_id() {
    let first = World::new(SINKS).await;
    send_captured(&first).await;
    first.settled().await;
    for (file, record) in [("otlp.jsonl.zst", "span"), ("items.jsonl", "")] {
        let second = World::new(SINKS).await;
        let file = first.path(file);
        let output = second.import(&[file.to_str().unwrap()]).output().unwrap();
        sums(&output, true);
        second.settled().await;
        let ids = |world: &World| {
            let lines = lasting(&world.lines()).into_iter();
            let lines = lines.filter(|line| record.is_empty() || line["record"] == record);
            let mut ids: Vec<_> = lines
                .map(|line| {
                    format!("{} {} {}", line["trace_id"], line["span_id"], line["start_time"])
                })
                .collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&second), ids(&first), "{}", file.display());
    }
}

/// Returns a line of a span with this number, so long that a few hundred make a batch.
fn line(number: usize) -> String {
    let text = "x".repeat(4000);
    format!(
        r#"{{"schema_version":2,"record":"span","trace_id":"{:032x}","span_id":"{:016x}","name":"n","span_kind":"client","start_time_unix_nano":{},"attributes":{{"text":"{text}"}}}}"#,
        number + 1,
        number + 1,
        1_795_238_109_000_000_000_u64 + number as u64 * 1_000_000_000,
    )
}

/// Writes this number of lines; returns the file.
fn write_lines(world: &World, count: usize) -> PathBuf {
    let path = world.path("source.jsonl");
    let mut file = File::create(&path).unwrap();
    (0..count).for_each(|number| writeln!(file, "{}", line(number)).unwrap());
    path
}

/// Waits until an acknowledgement is recorded in the state file, which records the start of a source before.
async fn wait_for(file: &Path, child: &mut Child) {
    let is_noted = || {
        let state: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        Some(state["sources"].as_object()?.values().any(|source| source["done"] != 0))
    };
    while is_noted() != Some(true) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it noted anything");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

#[tokio::test]
async fn an_import_that_was_killed_goes_on_and_nothing_is_lost_or_there_twice() {
    const LINES: usize = 900;
    let world = World::new(SINKS).await;
    let source = fs::read(write_lines(&world, LINES)).unwrap();
    let state = world.path("state");
    let import = || {
        let mut command = world.import(&["-", "--resume", "state"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    // Sends half of it without an end: the import waits for more when it is killed.
    let mut child = import();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&source[..source.len() / 2]).unwrap();
    wait_for(&state, &mut child).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let noted = fs::read(&state).unwrap();

    let finish = || {
        let mut child = import();
        child.stdin.take().unwrap().write_all(&source).unwrap();
        sums(&child.wait_with_output().unwrap(), true)["accepted"].as_u64().unwrap()
    };
    let accepted = finish();
    assert!(0 < accepted && accepted < LINES as u64, "{accepted} were sent by the second run");
    // Spans that were acknowledged but not recorded are sent again, and recognized.
    fs::write(&state, noted).unwrap();
    assert_eq!(finish(), accepted);
    assert_eq!(finish(), 0, "all is noted");
    world.settled().await;
    let mut ids: Vec<_> =
        lasting(&world.lines()).iter().map(|line| line["span_id"].clone().to_string()).collect();
    ids.sort();
    let expected: Vec<_> = (1..=LINES).map(|number| format!("\"{number:016x}\"")).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn what_is_damaged_is_set_aside_and_the_rest_arrives() {
    let world = World::new(SINKS).await;
    let good = write_lines(&world, 3);
    let text = fs::read_to_string(&good).unwrap();
    let packed = Command::new("gzip").arg("-c").arg(&good).output().unwrap().stdout;
    let whole = line(7);
    let half = whole.get(..900).unwrap();
    for (name, content) in [
        ("cut.jsonl.gz", &packed[..packed.len() - 9]),
        ("empty", b""),
        ("image.png", b"\x89PNG\r\n\x1a\n"),
        ("table.csv", b"trace_id,name\n"),
        ("half.jsonl", format!("{half}\n{}\n", line(5)).as_bytes()),
        ("otlp.jsonl", br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"no ids"}]}]}]}"#),
    ] {
        fs::write(world.path(name), content).unwrap();
    }
    let names = ["cut.jsonl.gz", "empty", "image.png", "table.csv", "half.jsonl", "otlp.jsonl"];
    let output = world.import(&names).args(["--rejects", "rejects"]).output().unwrap();
    let sums = sums(&output, false);
    let said = String::from_utf8_lossy(&output.stderr);
    for place in [
        "image.png, message 1",
        "table.csv, line 1",
        "half.jsonl, line 1",
        "otlp.jsonl, line 1, item 1",
    ] {
        assert!(said.contains(place), "{place}: {said}");
    }
    assert!(said.contains("cut.jsonl.gz, line"), "{said}");
    assert!(!said.contains("xxxx") && text.contains("xxxx"), "payload in what is said");
    assert_eq!(sums["set_aside"], 5);
    assert_eq!(fs::read_to_string(world.path("rejects")).unwrap().lines().count(), 5);
    world.settled().await;
    let found = world.lines().len() as u64;
    assert_eq!(sums["accepted"], found);
    assert!(found >= 1, "the line behind the broken one");
}

#[tokio::test]
async fn only_what_started_within_the_time_is_sent() {
    let world = World::new(SINKS).await;
    let source = write_lines(&world, 10);
    let arguments = [
        source.to_str().unwrap(),
        "--from",
        "2026-11-21T05:15:12Z",
        "--to",
        "2026-11-21T05:15:14Z",
    ];
    let sums = sums(&world.import(&arguments).output().unwrap(), true);
    assert_eq!((sums["accepted"].as_u64(), sums["outside"].as_u64()), (Some(2), Some(8)));
    let refused = world.import(&["x", "--from", "yesterday"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
