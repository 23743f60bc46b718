//! `run`: logs, the runtime, signals, and the words with which a daemon begins.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::output::{Output, explain};
use super::{Ended, Shell, config_mistakes};
use crate::config::{
    self, DEFAULT_ORIGIN, DEFAULT_SINK_PATH, Loaded, LogFormat, LogOptions, Paint, Request,
};
use crate::daemon::{Addresses, Daemon, SetLog};
use crate::operate::{Reloads, Reread};
use crate::support::stop::Stop;

/// What is said of the configuration at the start: the configuration itself goes to the daemon.
struct Start {
    files: String,
    has_files: bool,
    sinks: String,
    /// Variables that are set and make no sink.
    unused: Vec<&'static str>,
    journal: String,
    /// What the sink writes that is there because none was named.
    default_file: Option<String>,
}

/// Runs the daemon until it is told to stop.
pub(super) fn run(request: &Request, shell: Shell<'_>) -> Ended {
    let Shell { environment, output } = shell;
    let loaded = config::load(request, environment);
    let loaded = loaded.map_err(|report| config_mistakes(&report, output))?;
    let (format, set_log) = begin_log(&loaded.config.log, output);
    if let Some(warnings) = &loaded.warnings {
        explain(&warnings.render("warning", output.paint()));
    }
    serve(loaded, set_log).map_err(|problem| {
        if format == LogFormat::Json {
            error!("{problem:#}");
            return ExitCode::FAILURE;
        }
        output.fail(&format!("{problem:#}"), None)
    })
}

/// A runtime for one request.
pub(super) fn small_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Waits for what asks others.
pub(super) fn block_on<T>(asking: impl Future<Output = T>, output: Output) -> Result<T, ExitCode> {
    let runtime = small_runtime().map_err(|error| output.fail(&error.to_string(), None))?;
    Ok(runtime.block_on(asking))
}

/// Begins the log on stderr; returns the format that `auto` became, and what sets another level.
fn begin_log(log: &LogOptions, output: Output) -> (LogFormat, SetLog) {
    let format = match log.format {
        LogFormat::Auto if io::stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    };
    // The filter decides, not the builder.
    let builder =
        tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(io::stderr);
    let filter = log.filter().unwrap_or_default();
    let (begun, set_log): (_, SetLog) = if format == LogFormat::Json {
        let (filter, handle) = reload::Layer::new(filter);
        let builder = builder.json().flatten_event(true);
        let log = builder.with_current_span(false).with_span_list(false).finish().with(filter);
        (log.try_init(), set_log(handle))
    } else {
        let (filter, handle) = reload::Layer::new(filter);
        let log = builder.with_ansi(output.paint() == Paint::Colours).finish().with(filter);
        (log.try_init(), set_log(handle))
    };
    if let Err(problem) = begun {
        output.fail(&format!("there will be no log: {problem}"), None);
    }
    (format, set_log)
}

fn set_log<S: 'static>(handle: reload::Handle<Targets, S>) -> SetLog {
    Box::new(move |log| {
        if let Err(problem) = handle.reload(log.filter().unwrap_or_default()) {
            warn!(%problem, "the log's level stays as it was");
        }
    })
}

fn serve(loaded: Loaded, set_log: SetLog) -> anyhow::Result<()> {
    let config = &loaded.config;
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().thread_name("spanferry");
    builder.worker_threads(config.threads.unwrap_or_else(default_threads));
    let runtime = builder.build().context("cannot start the runtime")?;
    let start = Start::of(&loaded);
    std::panic::set_hook(Box::new(|panic| {
        // Where it was, and nothing of what it says: that may quote payload.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(place, "our own code panicked");
    }));
    let ended = runtime.block_on(serve_until_told(loaded, set_log, &start));
    // After a second signal nothing more is waited for.
    runtime.shutdown_background();
    ended
}

/// Half of the cores. Measured on two of them with agent spans and eight connections: 7.1 us of CPU a span with one thread and 9.1 with
/// two, at a higher rate, because a request is not handed from core to core.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

async fn serve_until_told(loaded: Loaded, set_log: SetLog, start: &Start) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let daemon = tokio::select! {
        built = Daemon::build(loaded) => built?.with_log(set_log),
        () = signals.stop() => return Ok(()),
    };
    start.announce(&daemon.addresses()?);
    let (stop, reloads) = (Stop::default(), daemon.reloads());
    let mut running = std::pin::pin!(daemon.run(stop.clone()));
    tokio::select! {
        ended = &mut running => return ended,
        () = signals.stop_or_reload(&reloads) => stop.stop(),
    }
    tokio::select! {
        ended = running => ended,
        () = signals.stop() => {
            Err(anyhow::anyhow!("stopped at once by a second signal; what was acknowledged is in the journal"))
        }
    }
}

/// The signals that mean to stop, and one that means to reload.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one that means to stop. A SIGHUP meanwhile is kept.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The same; has a SIGHUP reload the configuration, which says itself in the log what came of it.
    async fn stop_or_reload(&mut self, reloads: &Reloads) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    let reloads = reloads.clone();
                    tokio::spawn(async move { reloads.ask(Reread::All).await });
                }
            }
        }
    }
}

impl Start {
    fn of(loaded: &Loaded) -> Self {
        let Loaded { config, files, unused, .. } = loaded;
        let dir = &config.journal.dir;
        let is_default = config.sinks.iter().any(|sink| sink.origin == DEFAULT_ORIGIN);
        Self {
            files: loaded.list_files("none"),
            has_files: !files.is_empty(),
            sinks: config.list_sinks(),
            unused: unused.clone(),
            journal: match config.journal.mode {
                config::JournalMode::Disk => dir.display().to_string(),
                config::JournalMode::Memory => {
                    "in memory: a restart loses what was not delivered".to_owned()
                }
            },
            default_file: is_default.then(|| dir.join(DEFAULT_SINK_PATH).display().to_string()),
        }
    }

    /// One line for the log; without a file also what to paste into an app.
    fn announce(&self, addresses: &Addresses) {
        info!(
            version = env!("CARGO_PKG_VERSION"),
            config = self.files,
            http = %addresses.http,
            grpc = %addresses.grpc,
            admin = %addresses.admin,
            sinks = self.sinks,
            journal = self.journal,
            "spanferry is ready"
        );
        for variable in &self.unused {
            info!(
                variable,
                "this variable makes no sink, because the configuration names its own sinks"
            );
        }
        if !self.has_files {
            explain(&self.welcome(addresses));
        }
    }

    /// What to paste into an app. The lines are those of the SDKs' own documentation.
    fn welcome(&self, addresses: &Addresses) -> String {
        let Addresses { http, grpc, admin } = addresses;
        let mut text = String::new();
        write!(
            text,
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

  sinks    {}{}
  health   http://{admin}/health
  options  spanferry config default > spanferry.toml

",
            self.sinks,
            self.default_file
                .as_ref()
                .map(|file| format!("\n  files    {file}"))
                .unwrap_or_default(),
        )
        .ok();
        text
    }
}
