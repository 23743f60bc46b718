//! Who carries out an operator's command: the daemon that has the directory, over its admin port, or this process, when none has.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::interval;

use super::client::{Question, ask_for_lines};
use super::health::reachable;
use super::output::{Output, explain};
use super::run::small_runtime;
use super::{ConfigArguments, config_mistakes};
use crate::admin::{Command, Working};
use crate::config::{self, Config, Environment, JournalMode};
use crate::daemon::{Offline, OfflineError};

/// A daemon at work says something each second; one that reads a large shelf first takes longer.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often a replay in this process says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Where the letters and the journal are.
#[derive(Debug, Clone, Default)]
pub(super) struct Place<'a> {
    /// The configuration, which names a directory and an admin address.
    pub(super) config: Option<&'a ConfigArguments>,
    /// The directory in place of that of the configuration. Nothing can be replayed then.
    pub(super) dir: Option<&'a PathBuf>,
    /// The admin port of a running daemon, whatever the configuration says.
    pub(super) url: Option<&'a str>,
}

/// Why a command was not carried out.
#[derive(Debug)]
struct Failure {
    what: String,
    hint: Option<&'static str>,
}

impl Failure {
    #[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
    fn new(what: impl ToString) -> Self {
        Self { what: what.to_string(), hint: None }
    }
}

/// Has a command carried out and returns its answer. What went wrong has been said when it returns an exit code.
pub(super) fn operate<T: DeserializeOwned>(
    place: &Place<'_>,
    command: Command,
    environment: &Environment,
    output: Output,
) -> Result<T, ExitCode> {
    let config = match (place.url, place.dir, place.config) {
        (None, None, Some(arguments)) => match config::load(&arguments.request(), environment) {
            Ok(loaded) => Some(loaded.config),
            Err(report) => return Err(config_mistakes(&report, output)),
        },
        _ => None,
    };
    let fail = |Failure { what, hint }| {
        output.fail(&what, hint);
        ExitCode::FAILURE
    };
    let runtime = small_runtime().map_err(|error| fail(Failure::new(error)))?;
    let mut told = Told::default();
    let answered = runtime.block_on(async {
        match (place.url, place.dir, &config) {
            (Some(url), _, _) => ask_daemon(url, &command, &mut |working| told.tell(working)).await,
            (None, Some(dir), _) => beside(dir, command, &mut told).await,
            (None, None, Some(config)) => as_configured(config, command, &mut told).await,
            (None, None, None) => Err(Failure::new("neither a configuration nor a directory")),
        }
    });
    let answer = answered.map_err(fail)?;
    serde_json::from_value(answer).map_err(|problem| {
        fail(Failure { what: problem.to_string(), hint: Some("is the daemon of another version?") })
    })
}

/// On a directory, without a configuration.
async fn beside(dir: &Path, command: Command, told: &mut Told) -> Result<Value, Failure> {
    check_dir(dir)?;
    match Offline::open_letters(dir) {
        Ok(offline) => carry_out(offline, command, told).await,
        Err(running @ OfflineError::Running { .. }) => Err(Failure {
            what: running.to_string(),
            hint: Some("-c names its configuration, or --url its admin port: it is asked then"),
        }),
        Err(failed) => Err(Failure::new(failed)),
    }
}

/// In this process when nobody has the directory, and else over the daemon's admin port.
async fn as_configured(
    config: &Config,
    command: Command,
    told: &mut Told,
) -> Result<Value, Failure> {
    let url = format!("http://{}", reachable(&config.admin.listen));
    if config.journal.mode == JournalMode::Memory {
        return ask_daemon(&url, &command, &mut |working| told.tell(working)).await;
    }
    let dir = &config.journal.dir;
    check_dir(dir)?;
    let needs_sinks = matches!(command, Command::ReplayLetters(_) | Command::ReplayJournal(_));
    let opened = if needs_sinks { Offline::open(config) } else { Offline::open_letters(dir) };
    match opened {
        Ok(offline) => carry_out(offline, command, told).await,
        Err(running @ OfflineError::Running { .. }) => {
            let asked = ask_daemon(&url, &command, &mut |working| told.tell(working)).await;
            asked.map_err(|failure| match failure.hint {
                Some(NOT_REACHED) => {
                    Failure { what: format!("{running}, but {}", failure.what), ..failure }
                }
                _ => failure,
            })
        }
        Err(failed) => Err(Failure::new(failed)),
    }
}

fn check_dir(dir: &Path) -> Result<(), Failure> {
    if dir.join("journal").is_dir() {
        return Ok(());
    }
    Err(Failure {
        what: format!("there is no journal in {}", dir.display()),
        hint: Some("-c names the configuration of the daemon"),
    })
}

const NOT_REACHED: &str = "--url names its admin port; or stop it and run this again";

/// Has a daemon carry it out; returns its answer.
async fn ask_daemon(
    url: &str,
    command: &Command,
    tell: &mut dyn FnMut(&Working),
) -> Result<Value, Failure> {
    let (path, body) = command.request();
    let url = format!("{}{path}", url.trim_end_matches('/'));
    let question = Question {
        url: &url,
        headers: vec![(CONTENT_TYPE, "application/json".to_owned())],
        body: Some(Bytes::from(body.map_err(Failure::new)?)),
        patience: PATIENCE,
    };
    let mut text = Vec::new();
    let mut last = Value::Null;
    let answered = ask_for_lines(question, |line| {
        // A replay answers with an object a line; everything else with one object over many.
        match serde_json::from_slice::<Value>(line) {
            Ok(value) if value.get("done").is_some() || value.get("error").is_some() => {
                last = value;
            }
            Ok(Value::Object(mut object)) if object.contains_key("working") => {
                let working = object.remove("working").map(serde_json::from_value);
                if let Some(Ok(working)) = working {
                    tell(&working);
                }
            }
            _ => text.extend_from_slice(line),
        }
    });
    let unreached = |what: String| Failure { what, hint: Some(NOT_REACHED) };
    let status = answered.await.map_err(|error| unreached(error.to_string()))?;
    if let Some(error) = last.get("error") {
        return Err(Failure::new(error.as_str().unwrap_or_default()));
    }
    if let Some(done) = last.get_mut("done") {
        return Ok(done.take());
    }
    if !status.is_success() {
        let said = String::from_utf8_lossy(&text);
        return Err(Failure {
            what: format!("{url} answers {status}: {}", said.trim()),
            hint: Some("is that a Spanferry, and of this version?"),
        });
    }
    serde_json::from_slice(&text).map_err(|_| Failure {
        what: format!("{url} broke off before it was done"),
        hint: Some("its log says why; what had arrived is settled, so this can be run again"),
    })
}

/// Carries it out here.
async fn carry_out(offline: Offline, command: Command, told: &mut Told) -> Result<Value, Failure> {
    let (progress, seen) = watch::channel(crate::admin::Progress::default());
    let ended = {
        let desk = offline.desk();
        let mut running = std::pin::pin!(desk.run(command, &progress));
        let mut ticks = interval(SAY_EVERY);
        ticks.tick().await;
        loop {
            tokio::select! {
                ended = &mut running => break ended,
                _ = ticks.tick() => told.tell(&Working {
                    progress: seen.borrow().clone(),
                    problems: desk.problems(),
                }),
            }
        }
    };
    offline.close().await;
    serde_json::to_value(ended.map_err(Failure::new)?).map_err(Failure::new)
}

/// Says how far a replay is, when that has changed.
#[derive(Default)]
struct Told {
    last: String,
}

impl Told {
    fn tell(&mut self, working: &Working) {
        let progress = &working.progress;
        let mut line = format!(
            "{} items read, {} delivered, {} rejected",
            progress.items, progress.delivered, progress.rejected
        );
        for problem in &working.problems {
            line.push_str("; ");
            line.push_str(problem);
        }
        line.push('\n');
        if line != self.last {
            explain(&line);
            self.last = line;
        }
    }
}
