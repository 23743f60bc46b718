//! `healthcheck`: asks a running daemon. An image without a shell has nothing else to do it with.

use std::net::SocketAddr;

use clap::Args;

use super::client::{Question, ask};
use super::output::{Output, say};
use super::run::block_on;
use super::{ConfigArguments, Ended, load};
use crate::config::Environment;
use crate::support::duration::Duration;

#[derive(Debug, Args)]
pub(super) struct HealthArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// What to ask instead of the admin address of the configuration
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Ask whether requests are taken, not only whether it lives
    #[arg(long)]
    ready: bool,
    /// How long to wait
    #[arg(long, default_value = "2s", value_name = "TIME")]
    timeout: Duration,
}

/// Succeeds when the daemon says that it is well.
pub(super) fn check(
    arguments: &HealthArguments,
    environment: &Environment,
    output: Output,
) -> Ended {
    let path = if arguments.ready { "readyz" } else { "health" };
    let url = if let Some(url) = &arguments.url {
        url.clone()
    } else {
        let config = load(&arguments.config, environment, output)?.config;
        format!("http://{}/{path}", reachable(&config.admin.listen))
    };
    let question =
        Question { url: &url, headers: Vec::new(), body: None, patience: arguments.timeout.0 };
    let answered = block_on(ask(question), output)?;
    let answer = answered
        .map_err(|error| output.fail(&error.to_string(), Some("is the daemon running?")))?;
    if !answer.status.is_success() {
        let what = format!("{url} answers {}: {}", answer.status, answer.text());
        return Err(output.fail(&what, None));
    }
    say(&format!("{}\n", answer.text()));
    Ok(())
}

/// The address under which a listener can be reached from the same machine.
pub(super) fn reachable(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            let loopback = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            format!("{loopback}:{}", address.port())
        }
        Ok(_) | Err(_) => listen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_reached_on_loopback() {
        for (listen, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("0.0.0.0:13133", "127.0.0.1:13133"),
            ("[::]:13133", "[::1]:13133"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            assert_eq!(reachable(listen), expected);
        }
    }
}
