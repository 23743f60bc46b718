//! Routes an operator's command: to the daemon that has the directory open, over its admin port, or else to this process.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::Value;

use super::client::{Question, TrustArguments, ask_for_lines, below};
use super::output::{Output, explain};
use super::run::block_on;
use super::{ConfigArguments, EXIT_CONFIG, Shell};
use crate::config::{Config, JournalMode};
use crate::daemon::{Offline, who_has_it};
use crate::operate::{Command, Needs, Reply, Working};

/// A working daemon reports its progress every second; it may take longer to read a large store first.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the stores and the journal are.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Place {
    #[command(flatten)]
    pub(super) config: ConfigArguments,
    /// The admin port of a running daemon [default: the configuration's, if a daemon runs on its directory]
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
    /// One of the daemon's `admin.tokens` [default: the first in the configuration]
    #[arg(long, value_name = "KEY", env = "SPANFERRY_ADMIN_TOKEN", hide_env_values = true)]
    pub(super) admin_token: Option<String>,
    #[command(flatten)]
    pub(super) trust: TrustArguments,
    /// Replaces the configuration's directory; nothing can then be replayed.
    #[arg(skip)]
    pub(super) dir: Option<PathBuf>,
    /// Whether the command needs a running daemon.
    #[arg(skip)]
    pub(super) is_live: bool,
}

/// Executes commands.
enum Carrier {
    /// This process.
    Here(Box<Offline>),
    /// A running daemon, at its admin port.
    Daemon {
        url: String,
        token: Option<String>,
        /// Evidence that the daemon has the directory open, if it was found by that.
        found: Option<String>,
    },
}

/// Carries out a command and returns its answer. If it returns an exit code, the error was printed already.
pub(super) fn operate<C: Command>(
    place: &Place,
    command: C,
    shell: Shell<'_>,
) -> Result<C::Answer, ExitCode> {
    let output = shell.output;
    let carried_out = async {
        let mut last = String::new();
        let mut tell = |working: Working| say_progress(&working, &mut last);
        match place.carrier(C::NEEDS, shell)? {
            Carrier::Here(offline) => {
                let ended = offline.operator.carry_out(command, tell).await;
                offline.close().await;
                ended.map_err(|problem| output.fail(&problem.to_string(), None))
            }
            Carrier::Daemon { url, token, found } => {
                let mut headers = vec![(CONTENT_TYPE, "application/json".to_owned())];
                headers.extend(token.map(|token| (AUTHORIZATION, format!("Bearer {token}"))));
                let body = serde_json::to_vec(&command).map(Bytes::from);
                let body = body.map_err(|problem| output.fail(&problem.to_string(), None))?;
                let (url, ca) = (below(&url, C::PATH), place.trust.ca.as_deref());
                let question =
                    Question { url: &url, headers, body: Some(body), patience: PATIENCE, ca };
                let answer = ask_daemon(question, found, output, &mut tell).await?;
                serde_json::from_value(answer)
                    .map_err(|problem| output.fail(&problem.to_string(), Some(OF_THIS_VERSION)))
            }
        }
    };
    block_on(carried_out, output)?
}

impl Place {
    /// Returns this process if no process has the directory open, and otherwise the daemon. Blocks on the disk.
    fn carrier(&self, needs: Needs, shell: Shell<'_>) -> Result<Carrier, ExitCode> {
        let token = self.admin_token.clone();
        if let Some(url) = self.url.clone() {
            return Ok(Carrier::Daemon { url, token, found: None });
        }
        let (dir, config) = if let Some(dir) = self.dir.clone() {
            (dir, None)
        } else {
            let config = shell.load(&self.config)?.config;
            (config.state_dir.clone(), Some(config))
        };
        let daemon = |config: &Config, found| {
            let url = config.admin.listen.url(config.admin.tls.is_some());
            let configured = config.admin.tokens.first().map(|token| token.reveal().to_owned());
            Carrier::Daemon { url, token: token.or(configured), found }
        };
        if let Some(config) = &config
            && (self.is_live || config.journal.mode == JournalMode::Memory)
        {
            return Ok(daemon(config, None));
        }
        // A directory of another user may contain a journal; its daemon knows.
        if matches!(dir.join("journal").try_exists(), Ok(false)) {
            let what = format!("there is no journal in {}", dir.display());
            let hint = "-c names the configuration of the daemon";
            return Err(shell.output.fail(&what, Some(hint)));
        }
        let opened = match &config {
            Some(config) if needs != Needs::Stores => Offline::open(config, needs),
            _ => Offline::open_stores(&dir),
        };
        let problem = match opened {
            Ok(offline) => return Ok(Carrier::Here(Box::new(offline))),
            Err(problem) => problem,
        };
        match (who_has_it(&problem), &config) {
            (found @ Some(_), Some(config)) => Ok(daemon(config, found)),
            (Some(found), None) => {
                let hint =
                    "name its configuration with -c, or its admin port with --url, to ask it";
                Err(shell.output.fail(&found, Some(hint)))
            }
            (None, _) => Err(shell.output.fail(&format!("{problem:#}"), None)),
        }
    }
}

const OF_THIS_VERSION: &str = "is that a Spanferry, and of this version?";

/// Sends a command to a daemon and returns its answer.
async fn ask_daemon(
    question: Question<'_>,
    found: Option<String>,
    output: Output,
    tell: &mut dyn FnMut(Working),
) -> Result<Value, ExitCode> {
    let url = question.url;
    let (mut ended, mut text) = (None, Vec::new());
    let answered = ask_for_lines(question, |line| match serde_json::from_slice(line) {
        Ok(Reply::Working(working)) => tell(working),
        Ok(Reply::Done(answer)) => ended = Some(Ok(answer)),
        Ok(Reply::Error(problem)) => ended = Some(Err(problem)),
        Err(_) => text.extend_from_slice(line),
    });
    let status = answered.await.map_err(|error| match found {
        Some(found) => {
            let hint = "name its admin port with --url, or stop it and run this again";
            output.fail(&format!("{found}, but {error}"), Some(hint))
        }
        None => output.fail(&error, Some("is the daemon running?")),
    })?;
    let said = String::from_utf8_lossy(&text);
    let is_config = matches!(ended, Some(Err(_))) && status == StatusCode::UNPROCESSABLE_ENTITY;
    let (what, hint) = match ended {
        Some(Ok(answer)) => return Ok(answer),
        Some(Err(problem)) => (problem, None),
        None if status.is_success() && said.trim().is_empty() => {
            let hint = "its log says why; progress was saved, so this can be run again";
            (format!("the connection to {url} broke before it was done"), Some(hint))
        }
        None => (format!("{url} answers {status}: {}", said.trim()), Some(OF_THIS_VERSION)),
    };
    let failed = output.fail(&what, hint);
    // The daemon answers this if its configuration has mistakes.
    Err(if is_config { ExitCode::from(EXIT_CONFIG) } else { failed })
}

/// Prints the progress of a replay whenever it has changed.
fn say_progress(Working { progress, problems }: &Working, last: &mut String) {
    let mut line = format!(
        "{} items read, {} delivered, {} rejected",
        progress.items, progress.delivered, progress.rejected
    );
    for problem in problems {
        line.extend(["; ", problem]);
    }
    line.push('\n');
    if line != *last {
        explain(&line);
        *last = line;
    }
}
