//! `healthcheck`: asks a running daemon. An image without a shell has nothing else to do it with.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use clap::Args;

use super::ConfigArguments;
use super::client::{Question, ask};
use super::output::{Output, say};
use super::run::small_runtime;
use crate::config::{self, Environment};
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
) -> ExitCode {
    let path = if arguments.ready { "readyz" } else { "health" };
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => match config::load(&arguments.config.request(), environment) {
            Ok(loaded) => format!("http://{}/{path}", reachable(&loaded.config.admin.listen)),
            Err(report) => return super::config_mistakes(&report, output),
        },
    };
    let question =
        Question { url: &url, headers: Vec::new(), body: None, patience: arguments.timeout.0 };
    let answered = match small_runtime() {
        Ok(runtime) => runtime.block_on(ask(question)),
        Err(error) => {
            output.fail(&error.to_string(), None);
            return ExitCode::FAILURE;
        }
    };
    match answered {
        Ok(answer) if answer.status.is_success() => {
            say(&format!("{}\n", answer.text()));
            ExitCode::SUCCESS
        }
        Ok(answer) => {
            output.fail(&format!("{url} answers {}: {}", answer.status, answer.text()), None);
            ExitCode::FAILURE
        }
        Err(error) => {
            output.fail(&error.to_string(), Some("is the daemon running?"));
            ExitCode::FAILURE
        }
    }
}

/// The address under which a listener can be reached from the same machine.
pub(super) fn reachable(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(address)) if address.ip().is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())).to_string()
        }
        Ok(SocketAddr::V6(address)) if address.ip().is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())).to_string()
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
