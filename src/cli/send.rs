//! `send`: puts a demo agent trace through a running daemon, once as the Agents SDK sends it and once as OpenTelemetry does.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use serde_json::Value;

use super::ConfigArguments;
use super::client::{Answer, Question, ask};
use super::demo::{Demo, agents_sdk, otlp};
use super::health::reachable;
use super::output::{Output, say};
use super::run::small_runtime;
use crate::config::{self, Environment};
use crate::support::clock;

/// A journal that is full answers after `ack_wait`; this is well beyond.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(super) struct SendArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Where the Agents SDK's trace goes [default: the address of the configuration]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Where OpenTelemetry's trace goes [default: the address of the configuration]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// The key to send; needed where the receivers ask for one
    #[arg(long, default_value = "local", value_name = "KEY", hide_default_value = true)]
    token: String,
}

/// One of the two traces.
struct Parcel {
    what: &'static str,
    url: String,
    trace_id: String,
    items: usize,
    body: Value,
}

/// Sends both; fails when either is not taken whole.
pub(super) fn send(
    arguments: &SendArguments,
    environment: &Environment,
    output: Output,
) -> ExitCode {
    let http = match config::load(&arguments.config.request(), environment) {
        Ok(loaded) => reachable(&loaded.config.receivers.http),
        Err(report) => return super::config_mistakes(&report, output),
    };
    let url = |given: &Option<String>, path: &str| {
        given.clone().unwrap_or_else(|| format!("http://{http}{path}"))
    };
    let demo = Demo::new(clock::unix_now_ns());
    let (native, bridged) = (agents_sdk(&demo), otlp(&demo));
    let parcels = [
        Parcel {
            what: "Agents SDK",
            url: url(&arguments.endpoint, "/v1/traces/ingest"),
            trace_id: native.trace_id,
            items: native.items,
            body: native.body,
        },
        Parcel {
            what: "OpenTelemetry",
            url: url(&arguments.otlp_endpoint, "/v1/traces"),
            trace_id: bridged.trace_id,
            items: bridged.items,
            body: bridged.body,
        },
    ];
    let runtime = match small_runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.fail(&error.to_string(), None);
            return ExitCode::FAILURE;
        }
    };
    let mut code = ExitCode::SUCCESS;
    for parcel in &parcels {
        say(&format!("{}: {} items to {}\n", parcel.what, parcel.items, parcel.url));
        if runtime.block_on(deliver(parcel, &arguments.token, output)).is_none() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Sends one; `None` when it was not taken whole, which was said then.
async fn deliver(parcel: &Parcel, token: &str, output: Output) -> Option<()> {
    let question = Question {
        url: &parcel.url,
        headers: vec![
            (CONTENT_TYPE, "application/json".to_owned()),
            (AUTHORIZATION, format!("Bearer {token}")),
            (USER_AGENT, concat!("spanferry-send/", env!("CARGO_PKG_VERSION")).to_owned()),
        ],
        body: Some(Bytes::from(parcel.body.to_string())),
        patience: PATIENCE,
    };
    let answer = match ask(question).await {
        Ok(answer) => answer,
        Err(error) => {
            output.fail(&error.to_string(), Some("start the daemon with: spanferry run"));
            return None;
        }
    };
    let said = answer.text();
    let said = if said.is_empty() { String::new() } else { format!(" {said}") };
    say(&format!("  answered {}{said}\n  trace id {}\n", answer.status, parcel.trace_id));
    if answer.status.is_success() && !has_rejected(&answer) {
        return Some(());
    }
    output.fail("the trace was not taken whole", hint_for(&answer));
    None
}

/// Whether a partial success says that something was not kept.
fn has_rejected(answer: &Answer) -> bool {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let rejected = body.get("partialSuccess").and_then(|partial| partial.get("rejectedSpans"));
    rejected.is_some_and(|count| count != "0" && count != 0)
}

fn hint_for(answer: &Answer) -> Option<&'static str> {
    match answer.status.as_u16() {
        401 => Some("the receivers ask for a key: --token KEY"),
        404 | 405 => Some("is that a Spanferry? --endpoint and --otlp-endpoint say where it is"),
        503 => Some("it has no room or is stopping; its log says which"),
        _ => None,
    }
}
