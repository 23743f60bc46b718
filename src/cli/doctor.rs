//! `doctor`: looks at everything that a daemon needs, and at the one that runs, and says of each what to do.
//!
//! It asks backends and tries the disk, and leaves nothing behind. Nothing that it prints holds a credential, so that it can be pasted
//! into an issue.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clap::Args;
use rustix::process::{Resource, getrlimit, getuid};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::client::{Question, ask};
use super::health::reachable;
use super::output::{Output, say, say_json};
use super::run::block_on;
use super::{ConfigArguments, Ended, about, in_one_line};
use crate::config::{self, Config, DEFAULT_ORIGIN, Environment, JournalMode, Loaded, Paint};
use crate::support::clock;

/// The longest that a sink's backend is asked. Several requests with the usual timeout of 10 s fit.
const PROBE_MAX: Duration = Duration::from_secs(30);
/// How long a running daemon is asked.
const STATUS_MAX: Duration = Duration::from_secs(5);
/// How often the disk is tried, and with how much: about a small request.
const SYNCS: usize = 9;
const SYNC_BYTES: usize = 4 << 10;
/// Each acknowledgement waits for one; clients that send one request after the other notice more than this.
const SYNC_SLOW: Duration = Duration::from_millis(50);
/// Files that are open beside the connections of clients: of the journal, and to sinks.
const OTHER_FILES: u64 = 200;
/// 2026-01-01. A clock that stands before it was never set.
const FIRST_NS: u64 = 1_767_225_600_000_000_000;
/// Clocks of two machines that share a disk may differ by so much.
const AHEAD_MAX: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Also what is in force and not by default, without credentials: for an issue
    #[arg(long)]
    report: bool,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// What was looked at, and what was found.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    what: String,
    found: String,
    /// What to do about it; nothing where it is good.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

/// Looks at everything. It fails when something would not work.
pub(super) fn doctor(
    arguments: &DoctorArguments,
    environment: &Environment,
    output: Output,
) -> Ended {
    let mut findings = Findings::default();
    let request = arguments.config.request();
    match config::load(&request, environment) {
        Err(report) => {
            let mistakes = report.render("error", Paint::Plain);
            findings.add(Level::Fail, "configuration", mistakes.trim(), "mend it and ask again");
        }
        Ok(loaded) => {
            findings.configuration(&loaded);
            findings.clock(&loaded.config);
            findings.open_files(&loaded.config);
            findings.disk(&loaded.config);
            block_on(findings.ask_around(&loaded.config), output)?;
        }
    }
    let mut in_force = Vec::new();
    if arguments.report {
        let shown = config::show(&request, environment).unwrap_or_default();
        let said = shown.into_iter().filter(|shown| shown.origin != DEFAULT_ORIGIN);
        in_force =
            said.map(|shown| format!("{}.{} = {}", shown.table, shown.key, shown.value)).collect();
    }
    findings.say(arguments.json, &in_force, output);
    if findings.count(Level::Fail) > 0 { Err(ExitCode::FAILURE) } else { Ok(()) }
}

impl Findings {
    fn add(&mut self, level: Level, what: &str, found: impl Into<String>, advice: &str) {
        let (what, found, advice) = (what.to_owned(), found.into(), advice.to_owned());
        self.0.push(Finding { level, what, found, advice });
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    fn say(&self, as_json: bool, in_force: &[String], output: Output) {
        let (failed, warned) = (self.count(Level::Fail), self.count(Level::Warn));
        if as_json {
            return say_json(&json!({
                "program": about(), "findings": self.0, "failed": failed, "warned": warned,
                "in_force": in_force,
            }));
        }
        say(&format!("{}\n", in_one_line(&about())));
        for Finding { level, what, found, advice } in &self.0 {
            let (word, codes) = match level {
                Level::Ok => ("ok  ", "32"),
                Level::Warn => ("warn", "33"),
                Level::Fail => ("FAIL", "1;31"),
            };
            say(&format!("{}  {what}: {found}\n", output.answer(codes, word)));
            if !advice.is_empty() {
                say(&format!("      -> {advice}\n"));
            }
        }
        say(&format!("{failed} failed, {warned} with a warning\n"));
        for line in in_force {
            say(&format!("{line}\n"));
        }
    }

    fn configuration(&mut self, loaded: &Loaded) {
        let files: Vec<_> = loaded.files.iter().map(|file| file.display().to_string()).collect();
        let files = if files.is_empty() { "no file".to_owned() } else { files.join(", ") };
        let found = format!("{files}; sinks: {}", loaded.config.list_sinks());
        self.add(Level::Ok, "configuration", found, "");
        if let Some(warnings) = &loaded.warnings {
            let warnings = warnings.render("warning", Paint::Plain);
            self.add(Level::Warn, "configuration", warnings.trim(), "is that meant so?");
        }
    }

    fn clock(&mut self, config: &Config) {
        let now_ns = clock::unix_now_ns();
        let changed = config.journal.dir.join("journal").metadata().and_then(|dir| dir.modified());
        let changed = changed.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let ahead = changed.and_then(|at| at.checked_sub(Duration::from_nanos(now_ns)));
        let advice = "set the clock; spans are stamped and kept by it";
        if now_ns < FIRST_NS {
            self.add(Level::Fail, "clock", "it stands before 2026", advice);
        } else if let Some(ahead) = ahead.filter(|ahead| *ahead > AHEAD_MAX) {
            let found = format!("the journal was written to {ahead:.0?} in the future");
            self.add(Level::Warn, "clock", found, advice);
        } else {
            self.add(Level::Ok, "clock", "later than all that was written", "");
        }
    }

    fn open_files(&mut self, config: &Config) {
        let needed = config.receivers.connections_max as u64 + OTHER_FILES;
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let found = format!("{limit} may be open in this shell, {needed} can be needed");
        if limit < needed {
            let advice =
                "raise the limit (ulimit -n, LimitNOFILE=), or lower receivers.connections_max";
            self.add(Level::Warn, "open files", found, advice);
        } else {
            self.add(Level::Ok, "open files", found, "");
        }
    }

    fn disk(&mut self, config: &Config) {
        if config.journal.mode == JournalMode::Memory {
            let advice = "what is acknowledged is lost with the process; mode = \"disk\" keeps it";
            return self.add(Level::Warn, "disk", "journal.mode is \"memory\"", advice);
        }
        let dir = &config.journal.dir;
        let Some(existing) = dir.ancestors().find(|dir| dir.is_dir()) else { return };
        let place = existing.display();
        match try_disk(existing) {
            Err(problem) => {
                let found = format!(
                    "{place} cannot be written to by user {}: {problem}",
                    getuid().as_raw()
                );
                let advice =
                    "run this as the daemon's user; give that the directory, or set journal.dir";
                self.add(Level::Fail, "disk", found, advice);
            }
            Ok((usual, worst)) => {
                let level = if usual > SYNC_SLOW { Level::Warn } else { Level::Ok };
                let advice = "each acknowledgement waits for that: a local SSD takes one or two ms";
                let advice = if level == Level::Ok { "" } else { advice };
                let found = format!("an fsync in {place} takes {usual:.1?}, at most {worst:.1?}");
                self.add(level, "disk", found, advice);
            }
        }
        let Ok(disk) = rustix::fs::statvfs(existing) else { return };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let taken = bytes_below(&dir.join("journal")).unwrap_or_default();
        let wanted = config.journal.options.bytes_max.saturating_sub(taken);
        let (free_mib, wanted_mib) = (free >> 20, wanted >> 20);
        let found = format!("{free_mib} MiB are free, the journal may take {wanted_mib} MiB more");
        if free < wanted {
            let advice = "lower journal.bytes_max or make room: where the disk is full, clients are told to come again";
            self.add(Level::Warn, "disk space", found, advice);
        } else {
            self.add(Level::Ok, "disk space", found, "");
        }
    }

    /// Asks the daemon, tries its addresses, and asks every backend.
    async fn ask_around(&mut self, config: &Config) {
        let admin = reachable(&config.admin.listen);
        let url = format!("http://{admin}/status");
        let question =
            Question { url: &url, headers: Vec::new(), body: None, patience: STATUS_MAX };
        let answered = ask(question).await;
        let status =
            answered.as_ref().ok().and_then(|answer| serde_json::from_slice(&answer.body).ok());
        match &status {
            Some(status) => self.running(status),
            None => self.add(Level::Ok, "daemon", format!("none answers at {admin}"), ""),
        }
        let receivers = &config.receivers;
        let addresses = [
            ("receivers.http", &receivers.http),
            ("receivers.grpc", &receivers.grpc),
            ("admin.listen", &config.admin.listen),
        ];
        for (option, address) in addresses {
            self.address(option, address, status.is_some()).await;
        }
        for (sink, answer) in probe(config).await {
            match answer {
                Ok(found) => self.add(Level::Ok, &sink, found, ""),
                Err(problem) => self.add(
                    Level::Fail,
                    &sink,
                    problem,
                    "until then its data waits in the journal",
                ),
            }
        }
    }

    async fn address(&mut self, option: &str, address: &str, is_running: bool) {
        match TcpListener::bind(address).await {
            Ok(_) if is_running => {
                let found = format!("nobody listens on {address}, although a daemon runs");
                self.add(
                    Level::Warn,
                    option,
                    found,
                    "has the configuration changed? spanferry reload",
                );
            }
            Ok(_) => self.add(Level::Ok, option, format!("{address} is free"), ""),
            Err(problem) if problem.kind() == io::ErrorKind::AddrInUse && is_running => {
                self.add(
                    Level::Ok,
                    option,
                    format!("{address} is in use, by the daemon as it seems"),
                    "",
                );
            }
            Err(problem) => {
                let found = format!("{address} cannot be listened on: {problem}");
                self.add(
                    Level::Fail,
                    option,
                    found,
                    "end who listens there, or set another address",
                );
            }
        }
    }

    /// What a running daemon says of itself.
    fn running(&mut self, status: &Value) {
        let version = status["version"].as_str().unwrap_or("unknown");
        let found = format!(
            "version {version}, for {:.0} s",
            status["uptime_seconds"].as_f64().unwrap_or(0.0)
        );
        if version == env!("CARGO_PKG_VERSION") {
            self.add(Level::Ok, "daemon", found, "");
        } else {
            self.add(Level::Warn, "daemon", found, "restart it to run this version");
        }
        let journal = &status["journal"];
        if journal["health"] != "good" {
            let health = journal["health"].as_str().unwrap_or("unknown");
            let found = format!("{health}: {}", journal["problem"].as_str().unwrap_or_default());
            self.add(
                Level::Fail,
                "journal",
                found,
                "spanferry journal verify says what is damaged",
            );
        }
        for sink in status["sinks"].as_array().into_iter().flatten() {
            let text = |key: &str| sink[key].as_str().unwrap_or_default();
            let what = format!("running sink {}", text("name"));
            let count = |key: &str| sink[key].as_u64().unwrap_or(0);
            let is_well = text("state") == "running" && text("problem").is_empty();
            let level = match text("state") {
                _ if is_well => Level::Ok,
                "holding" => Level::Fail,
                _ => Level::Warn,
            };
            let advice =
                if is_well { "" } else { "nothing is lost: its data waits in the journal" };
            let problem = if is_well { String::new() } else { format!(" ({})", text("problem")) };
            let found = format!(
                "{}{problem}; {} delivered, {} pending",
                text("state"),
                count("delivered"),
                count("pending")
            );
            self.add(level, &what, found, advice);
            if count("dead_lettered") + count("dropped") > 0 {
                let found = format!(
                    "{} dead letters, {} dropped",
                    count("dead_lettered"),
                    count("dropped")
                );
                self.add(Level::Warn, &what, found, "spanferry dead-letter list says why");
            }
        }
    }
}

/// Asks every sink's backend whether it would take what is configured; nothing is left there.
async fn probe(config: &Config) -> Vec<(String, Result<String, String>)> {
    let asked = config.sinks.iter().map(async |sink| {
        let answer = match sink.plan.probe() {
            None => Ok("there is nobody to ask".to_owned()),
            Some(asked) => tokio::time::timeout(PROBE_MAX, asked)
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {PROBE_MAX:?}"))),
        };
        (format!("sink {} ({})", sink.name, sink.kind.name), answer)
    });
    futures_util::future::join_all(asked).await
}

/// Writes to a directory and syncs; returns how long that usually takes, and the longest that it did.
fn try_disk(dir: &Path) -> io::Result<(Duration, Duration)> {
    let path = dir.join(format!("spanferry-doctor-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let mut sync = || {
        let began = Instant::now();
        file.write_all(&[0; SYNC_BYTES])?;
        file.sync_data()?;
        Ok(began.elapsed())
    };
    let times: io::Result<Vec<Duration>> = (0..SYNCS).map(|_| sync()).collect();
    std::fs::remove_file(&path)?;
    let mut times = times?;
    times.sort_unstable();
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    Ok((at(SYNCS / 2), at(SYNCS - 1)))
}

fn bytes_below(dir: &Path) -> io::Result<u64> {
    let sizes = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.metadata()?.len()));
    sizes.sum()
}
