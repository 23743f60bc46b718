//! `healthcheck`: queries a running daemon. In an image without a shell, nothing else could.

use clap::Args;

use super::client::{Question, TrustArguments, ask, below};
use super::output::say;
use super::run::block_on;
use super::{ConfigArguments, Ended, Shell};
use crate::support::address::UNIX;
use crate::support::duration::Duration;

#[derive(Debug, Args)]
pub(super) struct HealthArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// What to ask instead of the configuration's admin address: an http or https address, or `unix:/SOCKET:/PATH`
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    trust: TrustArguments,
    /// Check readiness instead of health
    #[arg(long)]
    ready: bool,
    /// How long to wait
    #[arg(long, default_value = "2s", value_name = "TIME")]
    timeout: Duration,
}

/// Succeeds if the daemon reports that it is healthy.
pub(super) fn check(arguments: &HealthArguments, shell: Shell<'_>) -> Ended {
    let output = shell.output;
    let path = if arguments.ready { "/readyz" } else { "/health" };
    let url = if let Some(url) = &arguments.url {
        url.clone()
    } else {
        let config = shell.load(&arguments.config)?.config;
        config.admin.listen.url(config.admin.tls.is_some())
    };
    let has_path = match url.split_once("://") {
        Some((_, host)) => host.trim_end_matches('/').contains('/'),
        None => url.trim_start_matches(UNIX).contains(":/"),
    };
    let url = if has_path { url } else { below(&url, path) };
    let (patience, ca) = (arguments.timeout.0, arguments.trust.ca.as_deref());
    let question = Question { url: &url, patience, ca, ..Question::default() };
    let answered = block_on(ask(question), output)?;
    let hint = Some("is the daemon running?");
    let answer = answered.map_err(|error| output.fail(&error, hint))?;
    if !answer.status.is_success() {
        let what = format!("{url} answers {}: {}", answer.status, answer.text());
        return Err(output.fail(&what, None));
    }
    say(&format!("{}\n", answer.text()));
    Ok(())
}
