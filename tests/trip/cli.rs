//! The command line as a user sees it: exit codes, mistakes, and `send`, which puts a trace into the file.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A start with an empty journal takes milliseconds; on a busy machine it can take seconds.
const START_MAX: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Returns the binary in its own directory, with only the environment that a process needs.
fn spanferry(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanferry"));
    command.current_dir(dir).env_clear().env("SPANFERRY_STATE_DIR", dir.join("state"));
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    spanferry(dir).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// A daemon that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Waits until a condition holds.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < START_MAX, "{what}");
        std::thread::sleep(POLL_EVERY);
    }
}

#[test]
fn five_mistakes_are_all_shown_and_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let five = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/config-errors/five.toml");
    for verb in ["validate", "run"] {
        let output = run(dir.path(), &[verb, "-c", five]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert_eq!(said.matches("error: ").count(), 5, "{said}");
        assert_eq!(said.matches("hint: ").count(), 5, "{said}");
        assert_eq!(said.lines().filter(|line| line.ends_with('^')).count(), 5, "{said}");
        assert!(said.ends_with("5 mistakes; nothing was done\n"), "{said}");
        assert!(!said.contains('\x1b'), "colours without a terminal");
    }
    assert!(!dir.path().join("state").exists());
}

#[test]
fn a_good_configuration_is_valid_and_a_dubious_one_is_not_when_that_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("spanferry.toml"), "journal.mode = 'memory'\n").unwrap();
    assert_eq!(run(dir.path(), &["validate"]).status.code(), Some(0));
    let strict = run(dir.path(), &["validate", "--strict"]);
    assert_eq!(strict.status.code(), Some(78));
    assert!(said(&strict).contains("spanferry.toml:1:16"), "{}", said(&strict));
}

#[test]
fn what_cannot_be_written_is_no_success_but_where_nobody_reads_on() {
    let dir = tempfile::tempdir().unwrap();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = spanferry(dir.path());
    let output = command.args(["config", "default"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("the output is incomplete"), "{}", said(&output));
    let mut command = spanferry(dir.path());
    let mut child = command
        .args(["config", "schema"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_log_in_json_has_one_object_a_line_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = "127.0.0.1:0";
    let mut command = spanferry(dir.path());
    command.args(["run", "--http", at, "--grpc", at, "--admin", at, "--log-format", "json"]);
    // Something to warn of, and no file, so that it says what to do.
    command.env("SPANFERRY__JOURNAL__MODE", "memory").stdin(Stdio::null()).stderr(Stdio::piped());
    let mut daemon = Running(command.spawn().unwrap());
    let lines = BufReader::new(daemon.0.stderr.take().unwrap()).lines();
    let mut messages = String::new();
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        messages.push_str(line["message"].as_str().unwrap());
        if line["option"] == "admin.listen" {
            break;
        }
    }
    assert!(messages.contains("warning: ") && messages.contains("Point an app here"), "{messages}");
}

#[test]
fn prices_are_shown_and_a_newer_table_is_checked_and_put_there() {
    let dir = tempfile::tempdir().unwrap();
    let on = |arguments: &[&str]| {
        let output = run(dir.path(), &[&["prices"], arguments].concat());
        (output.status.code(), said(&output))
    };
    let day = |date| on(&["show", "o3", "--provider", "openai", "--at", date, "--json"]).1;
    let (before, after) = (day("2025-06-09"), day("2025-06-10"));
    assert!(
        before.contains("\"input_mtok\": \"10\"") && after.contains("\"input_mtok\": \"2\""),
        "{before}{after}"
    );
    let (code, unknown) = on(&["show", "acme-1"]);
    assert_eq!(code, Some(1), "{unknown}");
    assert!(unknown.contains("there is no price") && unknown.contains("hint: "), "{unknown}");

    let newer = r#"[{"id":"acme","model_match":{"contains":"acme"},
        "models":[{"id":"one","match":{"equals":"acme-1"},"prices":{"input_mtok":{"base":1.5,"tiers":[{"start":200000,"price":3}]}}}]}]"#;
    fs::write(dir.path().join("newer.json"), newer).unwrap();
    let (code, made) = on(&["update", "newer.json", "--to", "prices.json"]);
    assert_eq!(code, Some(0), "{made}");
    assert!(made.starts_with("1 models of 1 providers, table:20"), "{made}");
    let own = "[prices]\nfile = 'prices.json'\n[prices.overrides.mine]\ninput = 1\noutput = 0\n";
    fs::write(dir.path().join("spanferry.toml"), own).unwrap();
    let (_, shown) = on(&["show", "acme-1"]);
    assert!(shown.starts_with("acme one (table:20"), "{shown}");
    assert!(shown.contains("1.5, 3 above 200000 input tokens"), "{shown}");
    assert!(on(&["show", "MINE"]).1.starts_with("MINE (override)\n"));

    let kept = fs::read(dir.path().join("prices.json")).unwrap();
    fs::write(dir.path().join("worse.json"), newer.replace("1.5", "-1.5")).unwrap();
    let (code, refused) = on(&["update", "worse.json", "--to", "prices.json"]);
    assert_eq!((code, fs::read(dir.path().join("prices.json")).unwrap()), (Some(1), kept));
    assert!(
        refused.contains("worse.json") && refused.contains("`input_mtok` is not a price"),
        "{refused}"
    );
}

#[test]
fn a_doctor_looks_at_everything_leaves_nothing_and_says_what_would_not_work() {
    let dir = tempfile::tempdir().unwrap();
    let good = "[receivers]\nhttp = '127.0.0.1:0'\ngrpc = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n\
                [sinks.archive]\ntype = 'file'\npath = 'traces/{date}.jsonl'\n\
                [sinks.terminal]\ntype = 'stdout'\n";
    let file = dir.path().join("spanferry.toml");
    fs::write(&file, good).unwrap();
    let output = run(dir.path(), &["doctor"]);
    let lines = said(&output);
    assert_eq!(output.status.code(), Some(0), "{lines}");
    for expected in [
        "sink archive (file): files can be written in ",
        "sink terminal (stdout): has no backend to check",
        "disk: an fsync in ",
        "disk space: ",
        "clock: ",
        "open files: ",
        "receivers.http: 127.0.0.1:0 is free",
        "daemon: no daemon answers",
        "0 failed",
    ] {
        assert!(lines.contains(expected), "{expected}: {lines}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made");

    // Port 9 is "discard", where nothing listens.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let bad = "[sinks.nobody]\ntype = 'otlp'\nendpoint = 'http://127.0.0.1:9'\nheaders = { x-key = 'hunter2' }\n";
    let bad = good.replacen("127.0.0.1:0", &address, 1) + bad;
    fs::write(&file, bad).unwrap();
    let output = run(dir.path(), &["doctor", "--json", "--report"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!said(&output).contains("hunter2"), "{}", said(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = found["findings"].as_array().unwrap().iter();
    let failed: Vec<_> = findings.filter(|finding| finding["level"] == "fail").collect();
    assert_eq!((failed.len(), &found["failed"]), (3, &serde_json::json!(3)), "{failed:?}");
    assert_eq!(failed[0]["what"], "receivers.http");
    assert_eq!(failed[1]["what"], "sink nobody (otlp) at 127.0.0.1:9");
    let refused = failed[1]["found"].as_str().unwrap();
    assert!(refused.starts_with("127.0.0.1 accepts no connection: "), "{refused}");
    let nobody = failed[2]["found"].as_str().unwrap();
    assert!(nobody.contains("http://127.0.0.1:9 does not accept spans now"), "{nobody}");
    assert!(failed.iter().all(|finding| !finding["advice"].as_str().unwrap().is_empty()));
    assert!(said(&output).contains("sinks.nobody.endpoint"), "{}", said(&output));

    fs::write(&file, "byts = 1\n").unwrap();
    let output = run(dir.path(), &["doctor"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("spanferry.toml:1:1"), "{}", said(&output));
}

#[test]
fn a_doctor_reads_what_a_stopped_daemon_left_and_says_who_has_it_when_none_answers() {
    let dir = tempfile::tempdir().unwrap();
    let good = "[receivers]\nhttp = '127.0.0.1:0'\ngrpc = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n\
                [sinks.terminal]\ntype = 'stdout'\n";
    fs::write(dir.path().join("spanferry.toml"), good).unwrap();
    let journal = dir.path().join("state/journal");
    fs::create_dir_all(&journal).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/journal-v3");
    for file in fs::read_dir(golden).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), journal.join(file.file_name())).unwrap();
    }
    let ask = |code, expected: &str| {
        let output = run(dir.path(), &["doctor"]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(expected), "{expected}: {}", said(&output));
    };
    ask(0, "state/journal: is complete");

    let holder = fs::File::create(journal.join("lock")).unwrap();
    holder.lock().unwrap();
    fs::write(journal.join("lock"), "4242").unwrap();
    ask(1, "state/journal: process 4242 has it open, but does not answer");
    drop(holder);

    let segment = journal.join("00000000000000001147.log");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[1000] ^= 1;
    fs::write(&segment, bytes).unwrap();
    ask(1, "state/journal: parts of it cannot be read");
}

#[test]
fn standard_variables_make_a_sink_and_an_address_of_our_own_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let with = |address: &str| {
        let output = spanferry(dir.path())
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", address)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=hunter2")
            .arg("validate")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(!said(&output).contains("hunter2"), "{}", said(&output));
        said(&output)
    };
    let elsewhere = with("http://otel.example.com:4318");
    assert!(elsewhere.contains("sinks: otlp (otlp, OTEL_EXPORTER_OTLP_ENDPOINT)"), "{elsewhere}");
    let ours = with("http://localhost:4318");
    assert!(ours.contains("so it creates no sink"), "{ours}");
    assert!(ours.contains("sinks: traces (file, default)"), "{ours}");
    fs::write(dir.path().join("spanferry.toml"), "[sinks.a]\ntype = 'stdout'\n").unwrap();
    let named = with("http://otel.example.com:4318");
    assert!(named.contains("sinks: a (stdout, spanferry.toml:1)"), "{named}");
    assert!(named.contains("note: OTEL_EXPORTER_OTLP_ENDPOINT creates no sink"), "{named}");
}

#[test]
fn the_starter_file_is_valid_and_the_schema_is_json() {
    let dir = tempfile::tempdir().unwrap();
    let starter = run(dir.path(), &["config", "default"]);
    fs::write(dir.path().join("starter.toml"), &starter.stdout).unwrap();
    assert_eq!(
        run(dir.path(), &["validate", "--strict", "-c", "starter.toml"]).status.code(),
        Some(0)
    );
    let schema: serde_json::Value =
        serde_json::from_slice(&run(dir.path(), &["config", "schema"]).stdout).unwrap();
    assert!(schema["properties"]["sinks"].is_object());
}

#[test]
fn what_is_in_force_is_shown_with_where_it_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("spanferry.toml"), "\nlog.level = 'debug'\n").unwrap();
    let shown = spanferry(dir.path())
        .env("SPANFERRY__LOG__FORMAT", "json")
        .args(["config", "show"])
        .output()
        .unwrap();
    let shown = said(&shown);
    let line = |start: &str| {
        let found = shown.lines().find(|line| line.starts_with(start));
        found.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("level"), "level = \"debug\" # spanferry.toml:2");
    assert_eq!(line("format = \"json\""), "format = \"json\" # SPANFERRY__LOG__FORMAT");
    assert_eq!(line("bytes_max = \"2GiB\""), "bytes_max = \"2GiB\" # default");
}

#[test]
fn kinds_and_version_are_told() {
    let dir = tempfile::tempdir().unwrap();
    assert!(said(&run(dir.path(), &["kinds"])).contains("\nblackhole"));
    assert!(said(&run(dir.path(), &["kinds", "file"])).contains("#path = "));
    let unknown = run(dir.path(), &["kinds", "flie"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said(&unknown).contains("did you mean `file`?"));
    let version: serde_json::Value =
        serde_json::from_slice(&run(dir.path(), &["version", "--json"]).stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(run(dir.path(), &["fly"]).status.code(), Some(2));
}

#[test]
fn without_a_daemon_nothing_is_sent_and_nothing_is_healthy() {
    let dir = tempfile::tempdir().unwrap();
    // Port 9 is "discard", where nothing listens.
    let nowhere = "http://127.0.0.1:9/";
    let sent = run(dir.path(), &["send", "--endpoint", nowhere, "--otlp-endpoint", nowhere]);
    assert_eq!(sent.status.code(), Some(1));
    assert!(said(&sent).contains("hint: start the daemon with: spanferry run"), "{}", said(&sent));
    assert_eq!(run(dir.path(), &["healthcheck", "--url", nowhere]).status.code(), Some(1));
    let inspected = run(dir.path(), &["journal", "inspect"]);
    assert_eq!(inspected.status.code(), Some(1));
    assert!(said(&inspected).contains("there is no journal in"), "{}", said(&inspected));
}

/// Asserts that a running daemon exports what its file has, and announces what it receives.
fn looked_at(dir: &Path, admin: &str, lines: &[serde_json::Value], send: impl Fn()) {
    let items = |lines: &[serde_json::Value]| {
        let id =
            |line: &serde_json::Value| (line["trace_id"].to_string(), line["span_id"].to_string());
        lines.iter().map(id).collect::<BTreeSet<_>>()
    };
    let export = |form| {
        let output = run(dir, &["export", "--url", admin, "--as", form]);
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()
    };
    until("the index lacks something", || items(&export("json")) == items(lines));
    let traces: BTreeSet<_> = lines.iter().map(|line| line["trace_id"].to_string()).collect();
    for (form, member) in [("openai", "data"), ("otlp-json", "resourceSpans")] {
        let documents = export(form);
        assert_eq!(documents.len(), traces.len(), "{form}");
        assert!(documents.iter().all(|document| document[member].is_array()), "{form}");
    }
    let top = run(dir, &["top", "--json", "--window", "1h", "--url", admin]);
    let top: serde_json::Value = serde_json::from_slice(&top.stdout).unwrap();
    // Options may follow words; words that begin with `-` follow `--`.
    let list =
        run(dir, &["traces", "spans:>0", "--json", "--url", admin, "--", "-tokens:>1000000"]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let sum = |column: &str| {
        list["traces"].as_array().unwrap().iter().filter_map(|it| it[column].as_u64()).sum::<u64>()
    };
    assert_eq!(top["traces"], traces.len(), "{top}");
    for column in ["spans", "errors", "total_tokens"] {
        assert_eq!(top[column], sum(column), "{column}");
    }
    let per_hour = top["traces_per_minute"].as_f64().unwrap() * 60.0;
    let expected = top["traces"].as_f64().unwrap();
    assert!((per_hour - expected).abs() < 1e-6, "{per_hour}");
    let shown = run(dir, &["top", "--once", "--window", "1h", "--url", admin]);
    assert!(
        said(&shown).contains("\nslowest\n") && !said(&shown).contains('\u{1b}'),
        "{}",
        said(&shown)
    );
    let wrong = run(dir, &["top", "agnt:x", "--url", admin]);
    assert!(!wrong.status.success() && said(&wrong).contains("did you mean"), "{}", said(&wrong));
    let mut tail = spanferry(dir);
    let notes = dir.join("notes");
    tail.args(["tail", "--json", "--limit", "1", "--url", admin]).stdout(Stdio::piped());
    let mut tail = Running(tail.stderr(fs::File::create(&notes).unwrap()).spawn().unwrap());
    let (told, heard) = std::sync::mpsc::channel();
    let mut out = BufReader::new(tail.0.stdout.take().unwrap());
    let hearing = std::thread::spawn(move || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        told.send(line).unwrap();
    });
    let mut line = String::new();
    // It announces only what comes once it listens.
    until("nothing was told of", || {
        send();
        heard.try_recv().map(|heard| line = heard).is_ok()
    });
    hearing.join().unwrap();
    let trace: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(trace["spans"].as_u64() > Some(0), "{line}");
    // Each `send` makes several traces, and one line at a time is asked for.
    until("nothing was told of what is left out", || {
        send();
        fs::read_to_string(&notes).unwrap().contains(" more traces grew; --limit shows more")
    });
}

#[test]
fn a_demo_trace_goes_through_a_daemon_into_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[receivers]\nhttp = '127.0.0.1:0'\ngrpc = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n\
                  [log]\nformat = 'json'\n\
                  [sinks.traces]\ntype = 'file'\npath = 'traces.jsonl'\n";
    fs::write(dir.path().join("spanferry.toml"), config).unwrap();
    let log = dir.path().join("log");
    let child = spanferry(dir.path())
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut daemon = Running(child);
    let mut start = serde_json::Value::Null;
    until("no line that it is ready", || {
        let text = fs::read_to_string(&log).unwrap();
        let ready = text.lines().find(|line| line.contains("spanferry is ready"));
        start = ready.map(|line| serde_json::from_str(line).unwrap()).unwrap_or_default();
        !start.is_null()
    });
    let url =
        |listener: &str, path: &str| format!("http://{}{path}", start[listener].as_str().unwrap());
    until("never ready", || {
        run(dir.path(), &["healthcheck", "--ready", "--url", &url("admin", "/readyz")])
            .status
            .success()
    });
    // An address without a path leads to what was asked for.
    let ready = run(dir.path(), &["healthcheck", "--ready", "--url", &url("admin", "")]);
    assert_eq!(String::from_utf8_lossy(&ready.stdout), "ready\n");

    let (agents_sdk, otlp) = (url("http", "/v1/traces/ingest"), url("http", "/v1/traces"));
    let sent = run(dir.path(), &["send", "--endpoint", &agents_sdk, "--otlp-endpoint", &otlp]);
    assert_eq!(sent.status.code(), Some(0), "{}", said(&sent));
    let file = dir.path().join("traces.jsonl");
    let mut lines: Vec<serde_json::Value> = Vec::new();
    until("the trace is not in the file", || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.len() >= 16
    });
    let kinds: Vec<&serde_json::Value> = lines.iter().map(|line| &line["kind"]).collect();
    for kind in ["agent", "tool", "handoff", "guardrail", "generation"] {
        assert!(kinds.iter().any(|found| *found == kind), "{kind} in {kinds:?}");
    }

    looked_at(dir.path(), &url("admin", ""), &lines, || {
        run(dir.path(), &["send", "--endpoint", &agents_sdk, "--otlp-endpoint", &otlp]);
    });

    let verified = run(dir.path(), &["journal", "verify", "--json"]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
    // SIGHUP stops nothing: the configuration is read again. A command does the same and prints the result.
    let pid = rustix::process::Pid::from_child(&daemon.0);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    until("no word about a reload", || {
        assert_eq!(daemon.0.try_wait().unwrap(), None, "SIGHUP ended the daemon");
        fs::read_to_string(&log).unwrap().contains("configuration reloaded")
    });
    // SIGUSR1, which ends a program that does not know it, logs the status.
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    until("no status in the log", || {
        assert_eq!(daemon.0.try_wait().unwrap(), None, "SIGUSR1 ended the daemon");
        let log = fs::read_to_string(&log).unwrap();
        log.contains("as SIGUSR1 asks") && log.contains("receives_at")
    });
    let reload = ["reload", "--url", &url("admin", "")];
    let reloaded = run(dir.path(), &reload);
    assert_eq!(reloaded.status.code(), Some(0), "{}", said(&reloaded));
    assert!(said(&reloaded).contains("nothing is new; kept: "), "{}", said(&reloaded));
    let alive = run(dir.path(), &["healthcheck", "--url", &url("admin", "/health")]);
    assert_eq!(alive.status.code(), Some(0), "{}", said(&alive));
    // As a shell does: SIGTERM, then the exit status shows whether the stop was orderly.
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(daemon.0.wait().unwrap().success(), "{}", fs::read_to_string(&log).unwrap());
}

#[test]
fn a_port_in_use_is_one_clear_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(dir.path(), &["run", "--http", &address, "--log-format", "text"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("receivers.http"), "{said}");
}
