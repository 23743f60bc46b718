//! Who carries out an operator's command: the daemon that has the directory, over its admin port, or this process, when none has.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::client::{Question, ask_for_lines, below, reachable};
use super::output::explain;
use super::run::small_runtime;
use super::{ConfigArguments, EXIT_CONFIG, Shell, config_mistakes};
use crate::config::{self, Config, JournalMode};
use crate::daemon::{Offline, OfflineError};
use crate::operate::{Command, CommandError, Needs, Operator, Reply, Working};
use crate::support::secret::Secret;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::Value;

/// A daemon at work says something each second; one that reads a large store first takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the stores and the journal are.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// The configuration, which names a directory and an admin address.
    pub(super) config: ConfigArguments,
    /// The directory in place of that of the configuration. Nothing can be replayed then.
    pub(super) dir: Option<PathBuf>,
    /// The admin port of a running daemon, whatever the configuration says.
    pub(super) url: Option<String>,
    /// A key of its admin port; without it the first of the configuration is sent.
    pub(super) token: Option<String>,
    /// The only authorities to trust beyond loopback.
    pub(super) ca: Option<PathBuf>,
    /// Whether only a running daemon is of use.
    pub(super) is_live: bool,
}

/// A running daemon's admin port, and how to be let in.
#[derive(Debug)]
struct Admin<'a> {
    url: &'a str,
    token: Option<&'a str>,
    ca: Option<&'a Path>,
}

/// Why a command was not carried out.
#[derive(Debug)]
struct Failure {
    what: String,
    hint: Option<&'static str>,
    /// Whether it is the configuration that has mistakes.
    is_config: bool,
}

impl Failure {
    #[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
    fn new(what: impl ToString) -> Self {
        Self { what: what.to_string(), hint: None, is_config: false }
    }
}

/// A command of any type. What comes of it is JSON, as it is over HTTP.
trait AnyCommand {
    fn path(&self) -> &'static str;
    fn needs(&self) -> Needs;
    fn body(&self) -> serde_json::Result<Vec<u8>>;
    fn carry_out<'a>(
        self: Box<Self>,
        operator: &'a Operator,
        told: &'a mut Told,
    ) -> BoxFuture<'a, Result<Value, CommandError>>;
}

impl<C: Command> AnyCommand for C {
    fn path(&self) -> &'static str {
        C::PATH
    }

    fn needs(&self) -> Needs {
        C::NEEDS
    }

    fn body(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    fn carry_out<'a>(
        self: Box<Self>,
        operator: &'a Operator,
        told: &'a mut Told,
    ) -> BoxFuture<'a, Result<Value, CommandError>> {
        let ended = operator.carry_out(*self, |working| told.tell(&working));
        ended
            .map(|ended| ended.map(|answer| serde_json::to_value(answer).unwrap_or_default()))
            .boxed()
    }
}

/// Has a command carried out and returns its answer. What went wrong has been said when it returns an exit code.
pub(super) fn operate<C: Command>(
    place: &Place,
    command: C,
    shell: Shell<'_>,
) -> Result<C::Answer, ExitCode> {
    let answer = answer(place, Box::new(command), shell)?;
    serde_json::from_value(answer).map_err(|problem| {
        shell.output.fail(&problem.to_string(), Some(OF_THIS_VERSION));
        ExitCode::FAILURE
    })
}

fn answer(
    place: &Place,
    command: Box<dyn AnyCommand>,
    Shell { environment, output }: Shell<'_>,
) -> Result<Value, ExitCode> {
    let fail = |Failure { what, hint, is_config }| {
        output.fail(&what, hint);
        if is_config { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
    };
    let runtime = small_runtime().map_err(|error| fail(Failure::new(error)))?;
    let mut told = Told::default();
    let admin = |url, configured| {
        let token = place.token.as_deref().or(configured);
        Admin { url, token, ca: place.ca.as_deref() }
    };
    let answered = match (&place.url, &place.dir) {
        (Some(url), _) => runtime.block_on(ask_daemon(&admin(url, None), &*command, &mut told)),
        (None, Some(dir)) => runtime.block_on(beside(dir, command, &mut told)),
        (None, None) => {
            let loaded = config::load(&place.config.request(), environment);
            let config = loaded.map_err(|report| config_mistakes(&report, output))?.config;
            let url = reachable(&config.admin.listen, config.admin.tls.is_some());
            let admin = admin(&url, config.admin.tokens.first().map(Secret::reveal));
            if place.is_live || config.journal.mode == JournalMode::Memory {
                runtime.block_on(ask_daemon(&admin, &*command, &mut told))
            } else {
                runtime.block_on(as_configured(&config, &admin, command, &mut told))
            }
        }
    };
    answered.map_err(fail)
}

/// On a directory, without a configuration.
async fn beside(
    dir: &Path,
    command: Box<dyn AnyCommand>,
    told: &mut Told,
) -> Result<Value, Failure> {
    check_dir(dir)?;
    match Offline::open_stores(dir) {
        Ok(offline) => carry_out(offline, command, told).await,
        Err(running @ OfflineError::Running { .. }) => Err(Failure {
            hint: Some("-c names its configuration, or --url its admin port: it is asked then"),
            ..Failure::new(running)
        }),
        Err(failed) => Err(Failure::new(failed)),
    }
}

/// In this process when nobody has the directory, and else over the daemon's admin port.
async fn as_configured(
    config: &Config,
    admin: &Admin<'_>,
    command: Box<dyn AnyCommand>,
    told: &mut Told,
) -> Result<Value, Failure> {
    let dir = &config.journal.dir;
    check_dir(dir)?;
    let opened = match command.needs() {
        Needs::Stores => Offline::open_stores(dir),
        needed => Offline::open(config, needed),
    };
    match opened {
        Ok(offline) => carry_out(offline, command, told).await,
        Err(running @ OfflineError::Running { .. }) => {
            ask_daemon(admin, &*command, told).await.map_err(|failure| match failure.hint {
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
        hint: Some("-c names the configuration of the daemon"),
        ..Failure::new(format!("there is no journal in {}", dir.display()))
    })
}

const OF_THIS_VERSION: &str = "is that a Spanferry, and of this version?";
const NOT_REACHED: &str = "--url names its admin port; or stop it and run this again";

/// Has a daemon carry it out; returns its answer.
async fn ask_daemon(
    admin: &Admin<'_>,
    command: &dyn AnyCommand,
    told: &mut Told,
) -> Result<Value, Failure> {
    let url = below(admin.url, command.path());
    let mut headers = vec![(CONTENT_TYPE, "application/json".to_owned())];
    headers.extend(admin.token.map(|token| (AUTHORIZATION, format!("Bearer {token}"))));
    let question = Question {
        url: &url,
        headers,
        body: Some(Bytes::from(command.body().map_err(Failure::new)?)),
        patience: PATIENCE,
        ca: admin.ca,
    };
    let (mut ended, mut text) = (None, Vec::new());
    let answered = ask_for_lines(question, |line| match serde_json::from_slice(line) {
        Ok(Reply::Working(working)) => told.tell(&working),
        Ok(Reply::Done(answer)) => ended = Some(Ok(answer)),
        Ok(Reply::Error(problem)) => ended = Some(Err(Failure::new(problem))),
        Err(_) => text.extend_from_slice(line),
    });
    let unreached = |what: String| Failure { hint: Some(NOT_REACHED), ..Failure::new(what) };
    let status = answered.await.map_err(|error| unreached(error.to_string()))?;
    if let Some(Err(failure)) = &mut ended {
        failure.is_config = status == StatusCode::UNPROCESSABLE_ENTITY;
    }
    ended.unwrap_or_else(|| {
        let said = String::from_utf8_lossy(&text);
        let (what, hint) = if status.is_success() && said.trim().is_empty() {
            let hint = "its log says why; what had arrived is noted, so this can be run again";
            (format!("{url} broke off before it was done"), hint)
        } else {
            (format!("{url} answers {status}: {}", said.trim()), OF_THIS_VERSION)
        };
        Err(Failure { hint: Some(hint), ..Failure::new(what) })
    })
}

/// Carries it out here.
async fn carry_out(
    offline: Offline,
    command: Box<dyn AnyCommand>,
    told: &mut Told,
) -> Result<Value, Failure> {
    let ended = command.carry_out(offline.operator(), told).await;
    offline.close().await;
    ended.map_err(Failure::new)
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
