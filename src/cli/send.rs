//! `send`: sends a demo agent trace to a running daemon, once as the Agents SDK does and once as OpenTelemetry does.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use serde_json::Value;

use super::client::{Answer, Question, TrustArguments, ask};
use super::demo::{Demo, Sent, agents_sdk, otlp};
use super::output::{Output, say};
use super::run::block_on;
use super::{ConfigArguments, Ended, Shell};
use crate::support::clock;

/// A full journal answers after `ack_wait`; this is far longer.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(super) struct SendArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Where to send the Agents SDK trace [default: the address in the configuration]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Where to send the OpenTelemetry trace [default: the address in the configuration]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// The key to send, if the receivers require one
    #[arg(long, default_value = "local", value_name = "KEY", hide_default_value = true)]
    token: String,
    #[command(flatten)]
    trust: TrustArguments,
}

/// Sends both traces; fails unless both are fully accepted.
pub(super) fn send(arguments: &SendArguments, shell: Shell<'_>) -> Ended {
    let output = shell.output;
    let config = shell.load(&arguments.config)?.config;
    let base = config.receivers.http.url(config.receivers.tls.is_some());
    let demo = Demo::new(clock::unix_now_ns());
    let mut ended = Ok(());
    for (what, trace, given, path) in [
        ("Agents SDK", agents_sdk(&demo), &arguments.endpoint, "/v1/traces/ingest"),
        ("OpenTelemetry", otlp(&demo), &arguments.otlp_endpoint, "/v1/traces"),
    ] {
        let url = given.clone().unwrap_or_else(|| format!("{base}{path}"));
        say(&format!("{what}: {} items to {url}\n", trace.items));
        ended = block_on(deliver(&trace, &url, arguments, output), output)?.and(ended);
    }
    ended
}

/// Sends one trace, which must be fully accepted.
async fn deliver(trace: &Sent, url: &str, arguments: &SendArguments, output: Output) -> Ended {
    let SendArguments { token, trust, .. } = arguments;
    let question = Question {
        url,
        headers: vec![
            (CONTENT_TYPE, "application/json".to_owned()),
            (AUTHORIZATION, format!("Bearer {token}")),
            (USER_AGENT, concat!("spanferry-send/", env!("CARGO_PKG_VERSION")).to_owned()),
        ],
        body: Some(Bytes::from(trace.body.to_string())),
        patience: PATIENCE,
        ca: trust.ca.as_deref(),
    };
    let hint = Some("start the daemon with: spanferry run");
    let answer = ask(question).await.map_err(|error| output.fail(&error, hint))?;
    let said = answer.text();
    let space = if said.is_empty() { "" } else { " " };
    say(&format!("  answered {}{space}{said}\n  trace id {}\n", answer.status, trace.trace_id));
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let rejected = body.pointer("/partialSuccess/rejectedSpans");
    if answer.status.is_success() && rejected.is_none_or(|count| count == "0" || count == 0) {
        return Ok(());
    }
    Err(output.fail("the trace was not accepted completely", hint_for(&answer)))
}

fn hint_for(answer: &Answer) -> Option<&'static str> {
    match answer.status.as_u16() {
        401 => Some("the receivers require a key: --token KEY"),
        404 | 405 => {
            Some("is that a Spanferry? Set its address with --endpoint and --otlp-endpoint")
        }
        429 => Some("its receivers.limits are exhausted"),
        503 => Some("it is full or stopping; its log says which"),
        _ => None,
    }
}
