//! `run`: logs, the runtime, signals, and the start messages.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry, reload};

use super::output::{Output, explain};
use super::{Ended, Shell, config_mistakes};
use crate::admin::Status;
use crate::config::{
    self, Config, DEFAULT_ORIGIN, DEFAULT_SINK_PATH, JournalMode, Loaded, LogFormat, LogOptions,
    Paint, Request,
};
use crate::daemon::{Addresses, Daemon, SetLog};
use crate::operate::Reread;
use crate::support::stop::Stop;

/// Runs the daemon until it is told to stop.
pub(super) fn run(request: &Request, shell: Shell<'_>) -> Ended {
    let Shell { environment, output } = shell;
    let loaded = config::load(request, environment);
    let loaded = loaded.map_err(|report| config_mistakes(&report, output))?;
    let is_json = is_json(&loaded.config.log);
    let set_log = begin_log(&loaded.config.log, output);
    if let Some(warnings) = &loaded.warnings {
        let render = |paint| warnings.render("warning", paint);
        if is_json {
            warn!("{}", render(Paint::Plain).trim_end());
        } else {
            explain(&render(output.paint()));
        }
    }
    serve(loaded, set_log).map_err(|problem| {
        if is_json {
            error!("{problem:#}");
            return ExitCode::FAILURE;
        }
        output.fail(&format!("{problem:#}"), None)
    })
}

/// Runs a future that waits for other processes.
pub(super) fn block_on<T>(asking: impl Future<Output = T>, output: Output) -> Result<T, ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| output.fail(&error.to_string(), None))?;
    Ok(runtime.block_on(asking))
}

/// Returns whether stderr consists of JSON lines only.
fn is_json(log: &LogOptions) -> bool {
    match log.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        chosen => chosen == LogFormat::Json,
    }
}

/// Starts the log on stderr; returns a handle that changes the level.
fn begin_log(log: &LogOptions, output: Output) -> SetLog {
    let layer = fmt::layer().with_writer(io::stderr);
    let layer = if is_json(log) {
        let layer = layer.json().flatten_event(true);
        layer.with_current_span(false).with_span_list(false).boxed()
    } else {
        layer.with_ansi(output.paint() == Paint::Colours).boxed()
    };
    let (filter, handle) = reload::Layer::new(log.filter().unwrap_or_default());
    if let Err(problem) = registry().with(layer).with(filter).try_init() {
        output.fail(&format!("cannot start the log: {problem}"), None);
    }
    let set_log = move |log: &LogOptions| {
        if let Err(problem) = handle.reload(log.filter().unwrap_or_default()) {
            warn!(%problem, "the log level stays unchanged");
        }
    };
    Box::new(set_log)
}

fn serve(loaded: Loaded, set_log: SetLog) -> anyhow::Result<()> {
    let config = &loaded.config;
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().thread_name("spanferry");
    // By default half of the cores. On two cores, with agent spans and eight connections, a span took 7.1 us of CPU with one thread and
    // 9.1 us with two, and the rate was higher with one, because requests do not move between cores.
    let half = || std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let threads = config.threads.map(usize::from).filter(|threads| *threads > 0);
    builder.worker_threads(threads.unwrap_or_else(half));
    let runtime = builder.build().context("cannot start the runtime")?;
    // The default soft limit is for programs with few files; the daemon has one for each client.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).ok();
    std::panic::set_hook(Box::new(|panic| {
        // Only the location: the message may quote payload.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(place, "our own code panicked");
    }));
    let ended = runtime.block_on(serve_until_told(loaded, set_log));
    // After a second signal, nothing else is awaited.
    runtime.shutdown_background();
    ended
}

async fn serve_until_told(loaded: Loaded, set_log: SetLog) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut stops = [listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?];
    // Until the daemon is built, they stay pending.
    let mut hang_ups = listen(SignalKind::hangup())?;
    let mut questions = listen(SignalKind::user_defined1())?;
    let daemon = tokio::select! {
        built = Daemon::build(loaded, set_log) => built?,
        () = stop_signal(&mut stops) => return Ok(()),
    };
    announce(daemon.loaded(), &daemon.addresses()?);
    let (stop, reloads, view) = (Stop::default(), daemon.reloads(), daemon.view());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                // A reload logs its own result.
                _ = hang_ups.recv() => drop(reloads.ask(Reread::All).await),
                _ = questions.recv() => {
                    let status = serde_json::to_string(&Status::of(&view)).unwrap_or_default();
                    info!(status, "the state of the daemon, as SIGUSR1 asks");
                }
            }
        }
    });
    let mut running = std::pin::pin!(daemon.run(stop.clone()));
    tokio::select! {
        ended = &mut running => return ended,
        () = stop_signal(&mut stops) => stop.stop(),
    }
    tokio::select! {
        ended = running => ended,
        () = stop_signal(&mut stops) => {
            Err(anyhow::anyhow!("stopped at once by a second signal; acknowledged items are in the journal, unless that is in memory"))
        }
    }
}

/// Waits for the next signal to stop.
async fn stop_signal([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Logs where the daemon listens; without a configuration file, also prints what to paste into an app.
fn announce(loaded: &Loaded, addresses: &Addresses) {
    let config = &loaded.config;
    if addresses.admin.socket().is_some() {
        let admin = addresses.admin.url(config.admin.tls.is_some());
        info!("the console is at {admin}/ui/");
    }
    let journal = match config.journal.mode {
        JournalMode::Disk => config.state_dir.display().to_string(),
        JournalMode::Memory => "in memory: a restart loses undelivered items".to_owned(),
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        config = loaded.list_files("none"),
        http = %addresses.http,
        grpc = %addresses.grpc,
        admin = %addresses.admin,
        sinks = config.list_sinks(),
        journal,
        "spanferry is ready"
    );
    for variable in &loaded.unused {
        info!(
            variable,
            "this variable creates no sink, because the configuration has its own sinks"
        );
    }
    if loaded.list_files("").is_empty() {
        let welcome = welcome(config, addresses);
        if is_json(&config.log) { info!("{}", welcome.trim()) } else { explain(&welcome) }
    }
}

/// Returns the lines to paste into an app, which are those of the SDKs' own documentation.
fn welcome(config: &Config, addresses: &Addresses) -> String {
    let Addresses { http, grpc, admin } = addresses;
    let sinks = config.list_sinks();
    let is_default = config.sinks.iter().any(|sink| sink.origin == DEFAULT_ORIGIN);
    let file = config.state_dir.join(DEFAULT_SINK_PATH);
    let file = if is_default { format!("\n  files    {}", file.display()) } else { String::new() };
    format!(
        "
Point an app here:

  # OpenAI Agents SDK, Python
  from agents.tracing.processors import default_exporter
  default_exporter().endpoint = \"http://{http}/v1/traces/ingest\"

  // OpenAI Agents SDK, JavaScript
  import {{ setTraceProcessors, BatchTraceProcessor, OpenAITracingExporter }} from '@openai/agents';
  setTraceProcessors([new BatchTraceProcessor(new OpenAITracingExporter({{
    endpoint: 'http://{http}/v1/traces/ingest', apiKey: 'local' }}))]);

  # anything with an OpenTelemetry SDK
  export OTEL_EXPORTER_OTLP_ENDPOINT=http://{http}      # gRPC: http://{grpc}

Or send a demo trace from another terminal:  spanferry send

  sinks    {sinks}{file}
  console  http://{admin}/ui/
  health   http://{admin}/health
  options  spanferry config default > spanferry.toml

"
    )
}
