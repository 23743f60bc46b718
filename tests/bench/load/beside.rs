//! The cost of something next to the measured load: a sink that is dead for the entire run, TLS, or other clients at the same port. Runs
//! without and with it alternate.

use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::version::TLS13;
use tokio::net::TcpListener;

use super::Arguments;
use super::authority::Authority;
use super::run::{Load, Measured};
use super::strangers::Strangers;

/// Number of runs without and with the dead sink, each. They alternate, so that other load on the machine affects both.
const ROUNDS: usize = 3;

/// How a sink is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DeadSink {
    /// Nothing listens at the address.
    Refusing,
    /// Accepts connections, and never answers.
    Silent,
}

/// Reads a figure from a run.
type Figure<'a> = &'a dyn Fn(&Measured) -> f64;

/// With a dead sink the journal keeps the entire run, and a full journal would refuse the load.
const ROOM: &str = "bytes_max = \"16GiB\"";

/// An addition to the daemon with the measured sink.
#[derive(Default)]
pub(crate) struct Beside {
    /// Its name in the output.
    name: &'static str,
    pub(crate) tables: String,
    /// Lines for `[receivers]`.
    pub(crate) receivers: String,
    pub(crate) tls: Option<rustls::ClientConfig>,
    pub(crate) strangers: Option<Strangers>,
    /// Holds the directory of the certificates.
    _authority: Option<Authority>,
}

impl Beside {
    /// Adds a dead sink.
    pub(crate) async fn dead_sink(how: DeadSink) -> std::io::Result<Self> {
        let address = address(how).await?;
        let tables = format!("\n[sinks.dead]\ntype = \"otlp\"\nendpoint = \"http://{address}\"\n");
        let name = match how {
            DeadSink::Refusing => "a sink where nobody listens",
            DeadSink::Silent => "a sink that never answers",
        };
        Ok(Self { name, tables, ..Self::default() })
    }

    /// Adds other clients at the measured port.
    pub(crate) fn strangers(strangers: Strangers) -> Self {
        Self { name: strangers.name(), strangers: Some(strangers), ..Self::default() }
    }

    /// Adds TLS 1.3 on the receivers.
    pub(crate) fn tls() -> Self {
        let authority = Authority::new();
        authority.renew("localhost");
        let files = authority.options().trim_end().replace('\n', ", ");
        Self {
            name: "TLS",
            receivers: format!("tls = {{ {files} }}"),
            tls: Some(authority.client(&[&TLS13], None)),
            _authority: Some(authority),
            ..Self::default()
        }
    }
}

/// Measures without and with the addition, and returns the comparison.
pub(crate) async fn compare(
    arguments: &Arguments,
    load: &Load,
    beside: &Beside,
) -> Result<String, Box<dyn Error>> {
    let mut arguments = arguments.clone();
    if arguments.journal_option.is_empty() {
        arguments.journal_option.push(ROOM.to_owned());
    }
    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (runs, beside) in runs.iter_mut().zip([&Beside::default(), beside]) {
            runs.push(super::measure_alone(&arguments, load, &arguments.sink, beside).await?);
        }
    }
    let (without, with) = (&runs[0], &runs[1]);
    let mut text = format!(
        "{} {} spans to {}, without and with {}: the median of {ROUNDS} runs each\n",
        load.protocol.name(),
        load.size.name(),
        arguments.sink,
        beside.name
    );
    let seconds = |time: Duration| time.as_secs_f64();
    let figures: [(&str, Figure<'_>); 5] = [
        ("spans/s", &Measured::rate),
        ("p50 ms", &|run| 1e3 * seconds(run.latency(0.5))),
        ("p99 ms", &|run| 1e3 * seconds(run.latency(0.99))),
        ("CPU us/span", &|run| run.micros_per_span(run.cpu.unwrap_or_default().total())),
        ("settled s", &|run| seconds(run.settled.took)),
    ];
    for (name, figure) in figures {
        let (without, with) = (median(without, figure), median(with, figure));
        writeln!(
            text,
            "  {name:<12}{without:>12.2} without, {with:>12.2} with, ratio {:.3}",
            with / without
        )?;
    }
    let errors: u64 = runs.iter().flatten().flat_map(|run| run.errors.values()).sum();
    writeln!(text, "  errors      {errors}")?;
    Ok(text)
}

fn median(runs: &[Measured], figure: impl Fn(&Measured) -> f64) -> f64 {
    let mut figures: Vec<_> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Returns the address of the dead sink.
async fn address(how: DeadSink) -> std::io::Result<SocketAddr> {
    if how == DeadSink::Refusing {
        return Ok(super::process::free_port());
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            held.push(accepted);
        }
    });
    Ok(address)
}
