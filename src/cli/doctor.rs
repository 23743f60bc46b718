//! `doctor`: checks everything that a daemon needs, and the running daemon, and recommends what to do.
//!
//! It contacts backends and tests the disk, and leaves nothing behind. Its output contains no credentials, so it can be pasted into an
//! issue.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clap::Args;
use hyper::header::AUTHORIZATION;
use rustix::process::{Resource, getrlimit, getuid};
use serde::Serialize;
use serde_json::{Value, json};

use super::client::{Question, ask, below};
use super::journal::logs_of;
use super::output::{Output, say, say_json};
use super::reach::{Reached, reach};
use super::run::block_on;
use super::{ConfigArguments, Ended, Shell, about, about_in_one_line};
use crate::config::{self, Config, DEFAULT_ORIGIN, JournalMode, Loaded, Paint};
use crate::daemon::addresses;
use crate::journal::{DirStorage, Lock, Storage, verify};
use crate::server::{Listener, TlsOptions};
use crate::sinks::Plan;
use crate::support::address::Address;
use crate::support::clock;

/// Time limit for the probe of a sink's backend. Several requests with the usual timeout of 10 s fit.
const PROBE_MAX: Duration = Duration::from_secs(30);
/// Time limit for the running daemon's status.
const STATUS_MAX: Duration = Duration::from_secs(5);
/// Number of writes in the disk test, and the size of each: about that of a small request.
const SYNCS: usize = 9;
const SYNC_BYTES: usize = 4 << 10;
/// Each acknowledgement waits for one sync; clients that send one request after the other notice longer ones.
const SYNC_SLOW: Duration = Duration::from_millis(50);
/// Open files besides client connections: operators' connections, the journal, and connections to sinks.
const OTHER_FILES: u64 = 328;
/// 2026-01-01. An earlier clock was never set.
const FIRST: Duration = Duration::from_hours(490_896);
/// Clocks of two machines that share a disk may differ by this much.
const AHEAD_MAX: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Add the settings that differ from the defaults, without credentials, to paste into an issue
    #[arg(long)]
    report: bool,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// What was checked, the result, and what to do about it.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    what: String,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

/// Severity of a problem, and what to do about it.
type Concern = Option<(Level, &'static str)>;

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

/// Checks everything. Fails if something would not work.
pub(super) fn doctor(arguments: &DoctorArguments, shell: Shell<'_>) -> Ended {
    let Shell { environment, output } = shell;
    let mut findings = Findings::default();
    let request = arguments.config.request();
    match config::load(&request, environment) {
        Err(report) => {
            let mistakes = report.render("error", Paint::Plain);
            let trouble = Some((Level::Fail, "fix it and run this again"));
            findings.add("configuration", mistakes.trim(), trouble);
        }
        Ok(loaded) => {
            findings.configuration(&loaded);
            findings.machine(&loaded.config);
            findings.disk(&loaded.config);
            findings.certificates(&loaded.config);
            block_on(findings.ask_around(&loaded.config), output)?;
        }
    }
    let shown = if arguments.report { config::show(&request, environment).ok() } else { None };
    let said = shown.into_iter().flatten().filter(|shown| shown.origin != DEFAULT_ORIGIN);
    let in_force = said.map(|shown| format!("{}.{} = {}", shown.table, shown.key, shown.value));
    findings.say(arguments.json, &in_force.collect::<Vec<_>>(), output);
    if findings.count(Level::Fail) > 0 { Err(ExitCode::FAILURE) } else { Ok(()) }
}

impl Findings {
    fn add(&mut self, what: &str, found: impl Into<String>, trouble: Concern) {
        let (level, advice) =
            trouble.map_or((Level::Ok, None), |(level, to_do)| (level, Some(to_do)));
        self.0.push(Finding { level, what: what.to_owned(), found: found.into(), advice });
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
        let mut text = format!("{}\n", about_in_one_line());
        for Finding { level, what, found, advice } in &self.0 {
            let word = match level {
                Level::Ok => output.answer("32", "ok  "),
                Level::Warn => output.answer("33", "warn"),
                Level::Fail => output.answer("1;31", "FAIL"),
            };
            writeln!(text, "{word}  {what}: {found}").ok();
            if let Some(advice) = advice {
                writeln!(text, "      -> {advice}").ok();
            }
        }
        writeln!(text, "{failed} failed, {warned} with a warning\n{}", in_force.join("\n")).ok();
        say(&text);
    }

    fn configuration(&mut self, loaded: &Loaded) {
        let files = loaded.list_files("no file");
        let found = format!("{files}; sinks: {}", loaded.config.list_sinks());
        self.add("configuration", found, None);
        if let Some(warnings) = &loaded.warnings {
            let warnings = warnings.render("warning", Paint::Plain);
            self.add("configuration", warnings.trim(), Some((Level::Warn, "is this intended?")));
        }
    }

    /// Checks the clock and the process's limits.
    fn machine(&mut self, config: &Config) {
        let now = Duration::from_nanos(clock::unix_now_ns());
        let changed = config.state_dir.join("journal").metadata().and_then(|dir| dir.modified());
        let changed = changed.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let is_behind = changed.is_some_and(|changed| now + AHEAD_MAX < changed);
        let found =
            if is_behind { "behind the journal's last write" } else { "not behind the journal" };
        let advice = "set it: spans are stamped and retained by it";
        let is_wrong = is_behind || now < FIRST;
        self.add("clock", found, is_wrong.then_some((Level::Fail, advice)));

        let needed = (config.receivers.connections_max as u64).saturating_mul(2) + OTHER_FILES;
        let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let found = format!("this shell's limit is {limit}, up to {needed} may be needed");
        let advice =
            "raise the limit (ulimit -n, LimitNOFILE=), or lower receivers.connections_max";
        self.add("open files", found, (limit < needed).then_some((Level::Warn, advice)));
    }

    fn disk(&mut self, config: &Config) {
        if config.journal.mode == JournalMode::Memory {
            let advice = "acknowledged items are lost with the process; mode = \"disk\" keeps them";
            return self.add("disk", "journal.mode is \"memory\"", Some((Level::Warn, advice)));
        }
        let dir = &config.state_dir;
        let Some(existing) = dir.ancestors().find(|dir| dir.is_dir()) else { return };
        let place = existing.display();
        match try_disk(existing) {
            Err(problem) => {
                let user = getuid().as_raw();
                let found = format!("{place} cannot be written to by user {user}: {problem}");
                self.add("disk", found, Some((Level::Fail, to_write(&problem))));
            }
            Ok((usual, worst)) => {
                let found = format!("an fsync in {place} takes {usual:.1?}, at most {worst:.1?}");
                let advice = "each acknowledgement waits for that; a local SSD takes one or two ms";
                self.add("disk", found, (usual > SYNC_SLOW).then_some((Level::Warn, advice)));
            }
        }
        let Ok(disk) = rustix::fs::statvfs(existing) else { return };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let files = std::fs::read_dir(dir.join("journal")).into_iter().flatten().flatten();
        let taken: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        let wanted = config.journal.bytes_max.0.saturating_sub(taken);
        let found =
            format!("{} MiB are free, the journal may grow by {} MiB", free >> 20, wanted >> 20);
        self.add("disk space", found, (free < wanted).then_some((Level::Warn, FULL)));
    }

    fn certificates(&mut self, config: &Config) {
        for (section, tls) in [("receivers", &config.receivers.tls), ("admin", &config.admin.tls)] {
            let advice =
                "fix the file: until then the daemon does not start, or keeps the old certificate";
            if let Some(found) = tls.as_ref().map(TlsOptions::check_files) {
                let trouble = found.is_err().then_some((Level::Fail, advice));
                let found = found.err().unwrap_or_else(|| "can be used".to_owned());
                self.add(&format!("{section}.tls"), found, trouble);
            }
        }
    }

    /// Queries the daemon, tests its addresses, and probes every backend.
    async fn ask_around(&mut self, config: &Config) {
        let admin = config.admin.listen.url(config.admin.tls.is_some());
        let url = below(&admin, "/status");
        let token = config.admin.tokens.first();
        let headers = token.map(|token| (AUTHORIZATION, format!("Bearer {}", token.reveal())));
        let headers = headers.into_iter().collect();
        let question = Question { url: &url, headers, patience: STATUS_MAX, ..Question::default() };
        let answer = ask(question).await.ok();
        let status = answer.and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
        if let Some(status) = &status {
            self.running(status);
        } else {
            self.add("daemon", format!("no daemon answers at {admin}"), None);
            self.stopped(&config.state_dir);
        }
        for (option, address) in addresses(config) {
            self.address(option, address, status.is_some()).await;
        }
        let now_ns = clock::unix_now_ns();
        let asked = config.sinks.iter().map(async |sink| {
            let what = format!("sink {} ({})", sink.name, sink.kind.name);
            let (reached, answer) = tokio::join!(reach(&*sink.plan, now_ns), probe(&*sink.plan));
            let reached = reached.into_iter();
            let all = reached.map(|(address, found)| (format!("{what} at {address}"), found));
            all.chain([(what.clone(), answer)]).collect::<Vec<_>>()
        });
        for (what, found) in futures_util::future::join_all(asked).await.into_iter().flatten() {
            match found {
                Ok((found, ends_soon)) => {
                    self.add(&what, found, ends_soon.then_some((Level::Warn, "renew it")));
                }
                Err((problem, advice)) => self.add(&what, problem, Some((Level::Fail, advice))),
            }
        }
    }

    async fn address(&mut self, option: &str, address: &Address, is_running: bool) {
        let (found, trouble) = match Listener::bind(address).await {
            Ok(_) if is_running => {
                let advice = "has the configuration changed? spanferry reload";
                ("is free, although a daemon is running".to_owned(), Some((Level::Warn, advice)))
            }
            Ok(_) => ("is free".to_owned(), None),
            Err(problem) if problem.kind() == io::ErrorKind::AddrInUse && is_running => {
                ("is in use, apparently by the daemon".to_owned(), None)
            }
            Err(problem) => {
                let advice = "stop the process that listens there, or set another address";
                (format!("cannot be bound: {problem}"), Some((Level::Fail, advice)))
            }
        };
        self.add(option, format!("{address} {found}"), trouble);
    }

    /// Checks the files of a daemon that does not answer.
    fn stopped(&mut self, state_dir: &Path) {
        for log in logs_of(state_dir) {
            let (found, trouble) = match look_at_stopped(&log) {
                Ok(None) => ("is complete".to_owned(), None),
                Ok(Some(process)) => {
                    let found = format!("process {process} has it open, but does not answer");
                    (found, Some((Level::Fail, "does that daemon use another admin.listen?")))
                }
                Err(problem) => {
                    let advice =
                        "run spanferry journal verify to see which, and repair to settle it";
                    (problem.to_string(), Some((Level::Fail, advice)))
                }
            };
            self.add(&log.display().to_string(), found, trouble);
        }
    }

    /// Evaluates the status of a running daemon.
    fn running(&mut self, status: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = text(&status["version"]);
        let is_other = version != env!("CARGO_PKG_VERSION");
        let trouble = is_other.then_some((Level::Warn, "restart it to run this version"));
        self.add("daemon", format!("version {version}"), trouble);
        let journal =
            |key: &str| text(status.pointer(&format!("/journal/{key}")).unwrap_or(&Value::Null));
        let (health, problem) = (journal("health"), journal("problem"));
        let verify = "run spanferry journal verify to see what is damaged";
        let advice = if health == "no_space" { FULL } else { verify };
        let trouble = (health != "good").then_some((Level::Fail, advice));
        self.add("journal", format!("{health} {problem}").trim_end(), trouble);
        for sink in status["sinks"].as_array().into_iter().flatten() {
            let what = format!("running sink {}", text(&sink["name"]));
            let (state, problem) = (text(&sink["state"]), text(&sink["problem"]));
            let level = if state == "holding" { Level::Fail } else { Level::Warn };
            let is_well = state == "running" && problem.is_empty();
            let found = format!(
                "{state}, {} delivered, {} pending {problem}",
                sink["delivered"], sink["pending"]
            );
            self.add(&what, found.trim(), (!is_well).then_some((level, WAITS)));
            let count = |key: &str| sink[key].as_u64().unwrap_or(0);
            let (dead, dropped) = (count("dead_lettered"), count("dropped"));
            if dead + dropped > 0 {
                let found = format!("{dead} dead letters, {dropped} dropped");
                let advice = "run spanferry dead-letter list to see why";
                self.add(&what, found, Some((Level::Warn, advice)));
            }
        }
    }
}

/// Reads a whole log of a state directory. If a process has locked it, returns that process instead.
fn look_at_stopped(log: &Path) -> io::Result<Option<String>> {
    let storage = DirStorage::existing(log)?;
    match storage.lock()? {
        Lock::Elsewhere(process) => Ok(Some(process)),
        Lock::Held(_) if verify(&storage)?.is_whole() => Ok(None),
        Lock::Held(_) => Err(io::Error::other("parts of it cannot be read")),
    }
}

/// What to do about a full disk.
const FULL: &str =
    "free space or lower journal.bytes_max: on a full disk clients are told to retry";

/// Returns what to do about a directory that cannot be written to.
fn to_write(problem: &io::Error) -> &'static str {
    match problem.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FULL,
        _ => "run this as the daemon's user; give that user the directory, or set journal.dir",
    }
}

/// Explains a problem of a sink.
const WAITS: &str = "nothing is lost: until that is fixed the sink's data waits in the journal";

/// Asks a sink's backend whether the configured deliveries would be accepted, without leaving anything there.
async fn probe(plan: &dyn Plan) -> Reached {
    let Some(asked) = plan.probe() else {
        return Ok(("has no backend to check".to_owned(), false));
    };
    let answer = tokio::time::timeout(PROBE_MAX, asked).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {PROBE_MAX:?}")));
    answer.map(|found| (found, false)).map_err(|problem| (problem, WAITS))
}

/// Writes to a directory and syncs; returns the typical and the longest time that this took.
fn try_disk(dir: &Path) -> io::Result<(Duration, Duration)> {
    let path = dir.join(format!("spanferry-doctor-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let sync = |_| {
        let began = Instant::now();
        file.write_all(&[0; SYNC_BYTES])?;
        file.sync_data()?;
        Ok(began.elapsed())
    };
    let times: io::Result<Vec<Duration>> = (0..SYNCS).map(sync).collect();
    std::fs::remove_file(&path)?;
    let mut times = times?;
    times.sort_unstable();
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    Ok((at(SYNCS / 2), at(SYNCS - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_asks_for_space_and_not_for_a_look_at_the_journal_or_its_owner() {
        let mut findings = Findings::default();
        for (health, problem) in [("no_space", "its disk is full"), ("damaged", "9 bytes")] {
            findings.running(&json!({ "journal": { "health": health, "problem": problem } }));
        }
        let journal = findings.0.iter().filter(|finding| finding.what == "journal");
        let advice: Vec<_> = journal.map(|finding| finding.advice.unwrap()).collect();
        assert!(advice[0] == FULL && advice[1].contains("journal verify"), "{advice:?}");
        assert_eq!(to_write(&io::ErrorKind::StorageFull.into()), FULL);
        assert!(to_write(&io::ErrorKind::PermissionDenied.into()).contains("user"));
    }
}
