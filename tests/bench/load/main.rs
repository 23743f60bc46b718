//! The load tool: drives a running daemon over every protocol and prints the cost. `tests/bench/README.md` describes its use.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a tool at the command line, not the daemon"
)]

#[path = "../../../src/support/tests/authority.rs"]
mod authority;
mod bodies;
mod beside;
mod backend;
#[path = "../../process/mod.rs"]
mod process;
mod procfs;
mod report;
mod run;
mod strangers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;

use beside::{Beside, DeadSink};
use bodies::Size;
use process::client::Protocol;
use process::{Config, Daemon, Place};
use run::{Load, MEASURED, Target, Until};
use strangers::Strangers;

#[expect(clippy::struct_excessive_bools, reason = "these are flags")]
/// Drives a running daemon, or one that it starts itself, and prints throughput, latency, and the daemon's CPU time and memory.
#[derive(Debug, Clone, Parser)]
#[command(name = "load", bin_name = "cargo bench --bench load --")]
struct Arguments {
    /// Start the daemon in a separate directory that is removed afterwards.
    #[arg(long)]
    spawn: bool,
    /// Run every protocol with both sizes, each with a separate daemon, and print a Markdown table.
    #[arg(long)]
    matrix: bool,
    /// The HTTP port of a running daemon.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// The gRPC port of a running daemon.
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<SocketAddr>,
    /// The admin port of a running daemon, to know when everything was delivered.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// The process id of a running daemon, to measure its cost.
    #[arg(long)]
    pid: Option<u32>,
    /// The daemon that --spawn and --matrix start.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_spanferry"))]
    program: PathBuf,
    /// The kind of the only sink of a daemon started here. A sink that sends over HTTP gets a stub backend that accepts everything, unless
    /// --sink-option sets an address.
    #[arg(long, value_name = "KIND", default_value = "blackhole")]
    sink: String,
    /// With --spawn: alternate runs without and with a second, dead sink, three times each, and print the effect on the rest.
    #[arg(long, value_enum, value_name = "HOW", requires = "spawn", num_args = 0..=1, default_missing_value = "refusing")]
    dead_sink: Option<DeadSink>,
    /// With --spawn: alternate plain runs and runs over TLS, three times each, and print what TLS costs.
    #[arg(long, requires = "spawn", conflicts_with = "dead_sink")]
    tls: bool,
    /// With --spawn: alternate runs without and with other clients at the same port, three times each, and print the effect on the senders.
    #[arg(long, value_enum, value_name = "WHAT", requires = "spawn", conflicts_with_all = ["dead_sink", "tls"])]
    strangers: Option<Strangers>,
    /// A line for that sink's table, for example `endpoint = "http://127.0.0.1:9999"`. Can be repeated.
    #[arg(long, value_name = "TOML")]
    sink_option: Vec<String>,
    /// A line for the `[journal]` table. Can be repeated.
    #[arg(long, value_name = "TOML")]
    journal_option: Vec<String>,
    #[arg(long, value_enum, default_value = "otlp-http")]
    protocol: Protocol,
    #[arg(long, value_enum, default_value = "small")]
    size: Size,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// How long to send.
    #[arg(long, default_value_t = 5.0, conflicts_with = "requests")]
    seconds: f64,
    /// How many requests to send.
    #[arg(long)]
    requests: Option<u64>,
    /// Requests a second over all connections; without it the next request follows each answer.
    #[arg(long, value_name = "REQUESTS")]
    pace: Option<f64>,
    /// Compress every body. This costs the generator more than the daemon.
    #[arg(long)]
    gzip: bool,
    /// Minimum number of seconds for which CPU time is counted after the load, to include deferred work.
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    settle: f64,
    /// Passed by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

// One thread, so that at least one core is left to the daemon.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    if arguments.matrix {
        return matrix(&arguments).await;
    }
    let load = arguments.load(arguments.protocol, arguments.size);
    let baseline = report::value_parse_per_span(load.protocol, load.size);
    if let Some(how) = arguments.dead_sink {
        println!("{}", beside::compare(&arguments, &load, &Beside::dead_sink(how).await?).await?);
        return Ok(());
    }
    if let Some(strangers) = arguments.strangers {
        let beside = Beside::strangers(strangers);
        println!("{}", beside::compare(&arguments, &load, &beside).await?);
        return Ok(());
    }
    if arguments.tls {
        println!("{}", beside::compare(&arguments, &load, &Beside::tls()).await?);
        return Ok(());
    }
    if arguments.spawn {
        let measured =
            measure_alone(&arguments, &load, &arguments.sink, &Beside::default()).await?;
        println!("{}", report::lines(&load, &arguments.sink, &measured, baseline));
        return Ok(());
    }
    let address = if load.protocol == Protocol::OtlpGrpc { arguments.grpc } else { arguments.http };
    let Some(address) = address else {
        println!(
            "nothing to drive: give --spawn, --matrix, or --http or --grpc of a running daemon; --help says more"
        );
        return Ok(());
    };
    let place = arguments.admin.map(|admin| Place {
        dir: PathBuf::new(),
        http: address,
        grpc: address,
        admin,
    });
    let target = Target { address, pid: arguments.pid, place };
    let measured = run::measure(&load, &target).await;
    println!("{}", report::lines(&load, &address.to_string(), &measured, baseline));
    Ok(())
}

impl Arguments {
    fn load(&self, protocol: Protocol, size: Size) -> Load {
        Load {
            protocol,
            size,
            connections: self.connections,
            until: self
                .requests
                .map_or(Until::Time(Duration::from_secs_f64(self.seconds)), Until::Requests),
            pace: self.pace,
            gzip: self.gzip,
            tls: None,
            settle: Duration::from_secs_f64(self.settle),
        }
    }

    fn config(&self, sink: &str) -> std::io::Result<Config> {
        let mut options = self.sink_option.join("\n");
        if self.sink_option.is_empty() {
            options = match sink {
                "file" => "path = \"traces.jsonl\"".to_owned(),
                _ => backend::options(sink)?,
            };
        }
        let tables = format!("[sinks.{MEASURED}]\ntype = \"{sink}\"\n{options}\n");
        Ok(Config { journal: self.journal_option.join("\n"), tables, ..Config::default() })
    }
}

/// Prints the table of `tests/bench/README.md`.
async fn matrix(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    const PROTOCOLS: [Protocol; 4] =
        [Protocol::Openai, Protocol::OtlpHttp, Protocol::OtlpJson, Protocol::OtlpGrpc];
    // Requests a second that every sink keeps up with. Saturated, more comes in than goes out, and most is read back from disk.
    const KEEPS_UP: f64 = 400.0;
    let mut runs = Vec::new();
    for (size, sink) in
        [(Size::Small, "blackhole"), (Size::Agent, "blackhole"), (Size::Agent, "file")]
    {
        runs.extend(PROTOCOLS.map(|protocol| (arguments.load(protocol, size), sink)));
    }
    for sink in ["otlp", "elasticsearch", "langfuse", "openai"] {
        for protocol in [Protocol::Openai, Protocol::OtlpHttp] {
            for pace in [Some(KEEPS_UP), None] {
                runs.push((Load { pace, ..arguments.load(protocol, Size::Agent) }, sink));
            }
        }
    }
    for pace in [100.0, 1000.0] {
        runs.push((
            Load { pace: Some(pace), ..arguments.load(Protocol::OtlpHttp, Size::Small) },
            "blackhole",
        ));
    }
    println!("{}", report::HEAD);
    for (load, sink) in runs {
        let measured = measure_alone(arguments, &load, sink, &Beside::default()).await?;
        let baseline = report::value_parse_per_span(load.protocol, load.size);
        println!("{}", report::row(&load, sink, &measured, baseline));
    }
    let (half, most) = sync_times()?;
    println!("\nOne 64 KiB write with fdatasync here, idle: p50 {half:.2?}, p99 {most:.2?}.");
    Ok(())
}

/// Starts a daemon with this addition, measures it, and stops it.
async fn measure_alone(
    arguments: &Arguments,
    load: &Load,
    sink: &str,
    beside: &Beside,
) -> Result<run::Measured, Box<dyn std::error::Error>> {
    const DRAIN_MAX: Duration = Duration::from_mins(1);
    // Inside the target folder, because /tmp may be a tmpfs, where a sync costs nothing.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let place = Place::new(dir.path());
    let mut config = arguments.config(sink)?;
    config.tables.push_str(&beside.tables);
    config.receivers.push_str(&beside.receivers);
    let load = &Load { tls: beside.tls.clone(), ..load.clone() };
    place.configure(&config)?;
    let daemon =
        Daemon::start(&place, place.command(&std::path::absolute(&arguments.program)?)?).await?;
    let target = Target {
        address: load.protocol.address(&place),
        pid: Some(daemon.pid()),
        place: Some(place),
    };
    let presence = beside.strangers.map(|strangers| strangers.come(target.address)).transpose()?;
    if presence.is_some() {
        // While they all connect, they fill the kernel's accept queue, which makes no difference between clients.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let measured = run::measure(load, &target).await;
    drop(presence);
    if daemon.terminate(DRAIN_MAX).await?.is_none_or(|status| !status.success()) {
        println!("the daemon did not end well");
    }
    Ok(measured)
}

/// Returns lower bounds for an acknowledgement: the median and the 99th percentile of a write with fdatasync.
fn sync_times() -> std::io::Result<(Duration, Duration)> {
    const ROUNDS: usize = 300;
    let mut file = tempfile::tempfile_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let block = vec![7; 65_536];
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        std::io::Write::write_all(&mut file, &block)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok((times[ROUNDS / 2], times[ROUNDS * 99 / 100]))
}
