//! The output: one run as lines, several as a Markdown table.

use std::fmt::Write as _;
use std::time::Duration;

use super::bodies::{Size, Template};
use super::procfs::thread_cpu;
use super::run::{Load, Measured};
use crate::process::client::Protocol;

/// Returns the cost per span of one `serde_json::Value` parse of the same body: the budget of the entire `OpenAI` path.
pub(crate) fn value_parse_per_span(protocol: Protocol, size: Size) -> Option<Duration> {
    const ROUNDS: u32 = 200;
    if protocol != Protocol::Openai {
        return None;
    }
    let body = Template::new(protocol, size, 1).next();
    let before = thread_cpu();
    for _ in 0..ROUNDS {
        let value: serde_json::Value = serde_json::from_slice(&body).expect("the body is valid");
        std::hint::black_box(value);
    }
    let spans = u32::try_from(size.spans_per_request()).expect("few");
    Some(thread_cpu().saturating_sub(before) / ROUNDS / spans)
}

/// Formats a run as lines.
pub(crate) fn lines(
    load: &Load,
    sink: &str,
    measured: &Measured,
    baseline: Option<Duration>,
) -> String {
    let mut text = String::new();
    let mut line =
        |name: &str, what: String| writeln!(text, "  {name:<12}{what}").expect("memory takes it");
    let bytes = measured.body_bytes.checked_div(measured.spans).unwrap_or_default();
    line(
        "spans",
        format!(
            "{} acknowledged in {} requests, {:.0} a second, {bytes} bytes each on the wire",
            measured.spans,
            measured.requests,
            measured.rate()
        ),
    );
    line("latency", latencies(measured));
    if let Some(cpu) = measured.cpu {
        let micros = |time| measured.micros_per_span(time);
        let under_load = measured.cpu_under_load.unwrap_or_default().total();
        line(
            "daemon CPU",
            format!(
                "{:.2} us a span (user {:.2}, system {:.2}); {:.2} of it during the load",
                micros(cpu.total()),
                micros(cpu.user),
                micros(cpu.system),
                micros(under_load)
            ),
        );
    }
    if let Some(memory) = measured.memory {
        line(
            "memory",
            format!("{} MiB now, {} MiB at its peak", mib(memory.now), mib(memory.peak)),
        );
    }
    line("settled", settled(measured));
    line("errors", errors(measured));
    if let Some(baseline) = baseline {
        line(
            "for scale",
            format!(
                "one serde_json::Value parse of the same body costs {:.2} us a span",
                micros(baseline)
            ),
        );
    }
    format!("{} -> {sink}\n{text}", title(load))
}

/// The header of the table of [`row`].
pub(crate) const HEAD: &str = "\
| in | spans | sink | load | spans/s | p50 ms | p90 ms | p99 ms | max ms | CPU us/span | budget | user | system | peak MiB | errors |
| --- | --- | --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |";

/// Formats a run as a row of the table.
pub(crate) fn row(
    load: &Load,
    sink: &str,
    measured: &Measured,
    baseline: Option<Duration>,
) -> String {
    let cpu = measured.cpu.unwrap_or_default();
    let cells = [
        load.protocol.name().to_owned(),
        load.size.name().to_owned(),
        sink.to_owned(),
        pace(load),
        format!("{:.0}", measured.rate()),
        millis(measured.latency(0.5)),
        millis(measured.latency(0.9)),
        millis(measured.latency(0.99)),
        millis(measured.latency(1.0)),
        format!("**{:.2}**", measured.micros_per_span(cpu.total())),
        budget(load, sink, baseline),
        format!("{:.2}", measured.micros_per_span(cpu.user)),
        format!("{:.2}", measured.micros_per_span(cpu.system)),
        mib(measured.memory.unwrap_or_default().peak),
        errors(measured),
    ];
    format!("| {} |", cells.join(" | "))
}

/// Returns the maximum cost of a span in CPU microseconds, saturated: the project's own budgets.
fn budget(load: &Load, sink: &str, baseline: Option<Duration>) -> String {
    let limit = match (load.protocol, load.size, sink) {
        (_, Size::Small, _) if load.pace.is_some() => None,
        (Protocol::Openai, _, "blackhole") => baseline.map(micros),
        (Protocol::OtlpHttp | Protocol::OtlpGrpc, Size::Small, "blackhole") => Some(1.2),
        (Protocol::OtlpJson, Size::Small, "blackhole") => Some(2.5),
        (Protocol::OtlpHttp | Protocol::OtlpGrpc, Size::Agent, "blackhole") => Some(4.0),
        (_, Size::Agent, "file") => Some(12.0),
        (_, Size::Agent, "otlp") => Some(25.0),
        (_, Size::Agent, "elasticsearch" | "langfuse") => Some(45.0),
        _ => None,
    };
    limit.map_or(String::new(), |limit| format!("{limit:.2}"))
}

fn title(load: &Load) -> String {
    format!(
        "{} {} spans, {} a request, {} connections, {}{}",
        load.protocol.name(),
        load.size.name(),
        load.size.spans_per_request(),
        load.connections,
        pace(load),
        if load.gzip { ", gzip" } else { "" }
    )
}

fn pace(load: &Load) -> String {
    load.pace.map_or("saturated".to_owned(), |pace| format!("{pace:.0} requests/s"))
}

fn latencies(measured: &Measured) -> String {
    let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| millis(measured.latency(share)));
    format!("p50 {p50} ms, p90 {p90}, p99 {p99}, max {max}")
}

fn settled(measured: &Measured) -> String {
    let took = measured.settled.took.as_secs_f64();
    match measured.settled.pending {
        Some(pending) if 0.0 < pending => {
            format!("NOT: {pending} spans still pending {took:.1} s after the load")
        }
        Some(_) => format!("all delivered; CPU was counted until {took:.1} s after the load"),
        None => format!("unknown, no /metrics; CPU was counted until {took:.1} s after the load"),
    }
}

fn errors(measured: &Measured) -> String {
    if measured.errors.is_empty() {
        return "none".to_owned();
    }
    let listed: Vec<_> =
        measured.errors.iter().map(|(error, count)| format!("{count} x {error}")).collect();
    listed.join(", ")
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn mib(bytes: u64) -> String {
    format!("{}.{}", bytes >> 20, ((bytes >> 10) % 1024) * 10 / 1024)
}
