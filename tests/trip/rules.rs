//! Rules from end to end: what they keep is on disk and what they drop is counted, also after a kill, and the command line explains it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::World;
use super::process::{Daemon, START_MAX};
use super::traffic::Client;

const TABLES: &str = r#"
[[rules]]
name = "no_health_checks"
match = { name = "GET /health*" }
drop = true

[[rules]]
name = "slow"
match = { duration = ">10s" }
route = ["all"]

[sinks.all]
type = "file"
path = "all.jsonl"

[sinks.agents]
type = "file"
path = "agents.jsonl"

[[sinks.agents.rules]]
name = "agents_only"
match = { llm = false }
drop = true

[[tests]]
span = { name = "GET /healthz" }
expect = "dropped"
"#;

/// Builds a request with a trace of an app: an incoming request, a query, an agent, a model below an internal step, and a health check.
fn request(trace: u8) -> Vec<u8> {
    let span = |id: u8, parent: u8, name: &str, seconds: u64, attributes: &[(&str, &str)]| {
        let hex = |id: u8| if id == 0 { String::new() } else { format!("{id:016x}") };
        let attributes = attributes.iter();
        let attributes =
            attributes.map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }));
        json!({
            "traceId": format!("{trace:032x}"), "spanId": hex(id), "parentSpanId": hex(parent), "name": name,
            "startTimeUnixNano": "1796000000000000000",
            "endTimeUnixNano": (1_796_000_000_000_000_000 + seconds * 1_000_000_000).to_string(),
            "attributes": attributes.collect::<Vec<_>>(),
        })
    };
    let spans = [
        span(1, 0, "POST /ask", 3, &[("http.route", "/ask")]),
        span(2, 1, "SELECT", 1, &[("db.system", "postgresql")]),
        span(3, 1, "agent", 2, &[("gen_ai.operation.name", "invoke_agent")]),
        span(4, 3, "prepare", 2, &[]),
        span(5, 4, "chat", 1, &[("gen_ai.operation.name", "chat")]),
        span(6, 3, "chat", 20, &[("gen_ai.operation.name", "chat")]),
        span(7, 0, "GET /healthz", 0, &[]),
    ];
    json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] }).to_string().into_bytes()
}

/// Returns each span of a file with its parent, in order.
fn tree(file: &Path) -> Vec<(u64, u64)> {
    let id = |line: &Value, column: &str| {
        line[column].as_str().map_or(0, |id| u64::from_str_radix(id, 16).unwrap())
    };
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| (id(&line, "span_id"), id(&line, "parent_span_id"))).collect()
}

fn sink<'s>(status: &'s Value, name: &str) -> &'s Value {
    status["sinks"].as_array().unwrap().iter().find(|sink| sink["name"] == name).unwrap()
}

#[tokio::test]
async fn what_rules_leave_arrives_and_what_they_take_is_counted_also_after_a_kill() {
    let world = World::new(TABLES).await;
    let url = format!("http://{}/v1/traces", world.place().http);
    let client = Client::new();
    assert_eq!(client.post(&url, "application/json", "", request(1)).await, 200);
    world.settled().await;
    for (name, delivered, filtered) in [("all", 6, 1), ("agents", 2, 5)] {
        let status = world.status();
        let figures = sink(&status, name);
        assert_eq!(
            (&figures["delivered"], &figures["filtered"]),
            (&json!(delivered), &json!(filtered)),
            "{name}"
        );
        assert_eq!(figures["accepted"], 7, "{name}");
    }
    let status = world.status();
    let matched: Vec<_> = (sink(&status, "agents")["rules"].as_array().unwrap().iter())
        .map(|rule| (rule["name"].as_str().unwrap(), rule["matched"].as_u64().unwrap()))
        .collect();
    assert_eq!(matched, [("no_health_checks", 1), ("slow", 1), ("agents_only", 3)]);
    let page = world.place().ask("/metrics").unwrap();
    for line in [
        r#"spanferry_sink_rule_matched_spans_total{sink="agents",rule="agents_only"} 3"#,
        r#"spanferry_sink_rule_failures_total{sink="all",rule="slow"} 0"#,
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    let World { dir, daemon } = world;
    let (all, agents) = (dir.path().join("all.jsonl"), dir.path().join("agents.jsonl"));
    assert_eq!(tree(&all), [(1, 0), (2, 1), (3, 1), (4, 3), (5, 4), (6, 3)]);
    assert_eq!(tree(&agents), [(3, 0), (5, 3)], "no orphans");

    let place = daemon.place.clone();
    daemon.kill().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_spanferry"));
    let daemon = Daemon::start(&place, place.command(program).unwrap()).await.unwrap();
    let world = World { dir, daemon };
    assert_eq!(client.post(&url, "application/json", "", request(2)).await, 200);
    world.settled().await;
    let status = world.status();
    for (name, delivered, filtered) in [("all", 12, 2), ("agents", 4, 10)] {
        let figures = sink(&status, name);
        assert_eq!(
            (&figures["delivered"], &figures["filtered"]),
            (&json!(delivered), &json!(filtered)),
            "{name}"
        );
    }
    assert_eq!(tree(&agents), [(3, 0), (5, 3), (3, 0), (5, 3)]);
    let World { dir, daemon } = world;
    daemon.terminate(START_MAX).await.unwrap().unwrap();
    check_the_command_line(dir.path());
}

#[tokio::test]
async fn what_is_dropped_before_the_journal_is_counted_answered_and_nowhere_on_disk() {
    let tables = TABLES
        .replace("\"GET /health*\" }", "[\"GET /health*\", \"prepare\"] }\nbefore_journal = true");
    let world = World::new(&tables).await;
    let url = format!("http://{}/v1/traces", world.place().http);
    let client = Client::new();
    assert_eq!(client.post(&url, "application/json", "", request(1)).await, 200);
    let nothing =
        String::from_utf8(request(2)).unwrap().replace("\"name\":\"", "\"name\":\"GET /health ");
    assert_eq!(client.post(&url, "application/json", "", nothing.into_bytes()).await, 200);
    world.settled().await;
    let status = world.status();
    let journal = &status["journal"];
    assert_eq!((&journal["items"], &journal["filtered"]), (&json!(5), &json!(2 + 7)));
    assert_eq!(
        (&sink(&status, "all")["accepted"], &sink(&status, "all")["filtered"]),
        (&json!(5), &json!(0))
    );
    let page = world.place().ask("/metrics").unwrap();
    for line in [
        r#"spanferry_receiver_filtered_spans_total{receiver="otlp_http",transport="http",format="json"} 9"#,
        r#"spanferry_receiver_accepted_spans_total{receiver="otlp_http",transport="http",format="json"} 5"#,
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    assert_eq!(tree(&world.dir.path().join("all.jsonl")), [(1, 0), (2, 1), (3, 1), (5, 3), (6, 3)]);
    let disk = super::redact::everything_in(world.dir.path());
    assert!(disk.windows(6).any(|window| window == b"SELECT"));
    assert!(!disk.windows(11).any(|window| window == b"GET /health"));
}

#[test]
fn rules_try_takes_the_file_for_all_there_is_of_its_traces() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "[[rules]]\nname = 'asks'\nmatch = { kind = 'generation' }\nkeep = true\ndecide = 'trace'\n\
                 [[rules]]\nname = 'none'\nsample = 0\ndecide = 'trace'\n[sinks.here]\ntype = 'blackhole'\n";
    fs::write(dir.path().join("rules.toml"), rules).unwrap();
    let spans = |trace: u8, keep: &[&str]| {
        let mut request: Value = serde_json::from_slice(&request(trace)).unwrap();
        let spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array_mut().unwrap();
        spans.retain(|span| keep.contains(&span["name"].as_str().unwrap()));
        request.to_string()
    };
    // The span that keeps the first trace comes last.
    let file =
        [spans(1, &["SELECT"]), spans(2, &["SELECT", "agent"]), spans(1, &["prepare", "chat"])];
    fs::write(dir.path().join("spans.jsonl"), file.join("\n")).unwrap();
    let said = run(dir.path(), &["rules", "try", "spans.jsonl", "-c", "rules.toml"]);
    for line in [
        "span 0000000000000002 \"SELECT\": as it was (`asks`: kept, `none`: would drop it, but an earlier rule keeps it)",
        "span 0000000000000002 \"SELECT\": dropped (`none`: dropped)",
        "span 0000000000000003 \"agent\": dropped (`none`: dropped)",
        "6 items: 2 dropped, 4 left",
    ] {
        assert!(said.lines().any(|found| found == line), "{line}\n{said}");
    }
}

/// Returns the output of a command in a directory; it must succeed.
fn run(dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanferry"));
    let output = command.current_dir(dir).args(arguments).output().unwrap();
    let (out, err) = (output.stdout, String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{err}");
    String::from_utf8(out).unwrap()
}

/// Asserts that the command line shows the same decisions for what the file sink wrote.
fn check_the_command_line(dir: &Path) {
    let run = |arguments: &[&str]| run(dir, arguments);
    fs::write(dir.join("rules.toml"), TABLES).unwrap();
    let said = run(&["validate", "-c", "rules.toml"]);
    assert!(said.contains("tests passed: 1"), "{said}");
    fs::write(dir.join("request.json"), request(3)).unwrap();
    for (file, items, dropped) in [("all.jsonl", 12, 8), ("request.json", 7, 5)] {
        let said = run(&["rules", "try", file, "-c", "rules.toml", "--sink", "agents", "--json"]);
        let lines: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (totals, lines) = lines.split_last().unwrap();
        assert_eq!(
            (&totals["items"], &totals["dropped"]),
            (&json!(items), &json!(dropped)),
            "{said}"
        );
        assert_eq!(lines.iter().filter(|line| line["left"] == "dropped").count(), dropped);
    }
    let said = run(&["rules", "try", "request.json", "-c", "rules.toml"]);
    assert!(
        said.contains(
            "span 0000000000000007 \"GET /healthz\": dropped (`no_health_checks`: dropped)"
        ),
        "{said}"
    );
    assert!(
        said.contains("7 items: 2 dropped, 5 left"),
        "`slow` is not for a sink that it does not list: {said}"
    );
}
