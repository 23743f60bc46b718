//! Metrics as `OpenMetrics` text: the counters of components, and a snapshot of everything else.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use serde_json::Value;

use super::status::{Figure, RuleView};
use super::{SinkView, Status, View};
use crate::journal::Timings;
use crate::support::{clock, process};

/// Returns the whole page.
pub(super) fn text(view: &View, with_exemplars: bool) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("spanferry");
    view.metrics.register(&mut registry);
    let Timings { sync_seconds, group_records } = view.feed.journal().timings().clone();
    let help = "How long the journal takes to write and sync what it then acknowledges";
    registry.register_with_unit("journal_fsync_duration", help, Unit::Seconds, sync_seconds);
    let help = "How many requests share one fsync of the journal";
    registry.register("journal_group_requests", help, group_records);
    registry.register_collector(Box::new(Look(Status::of(view))));
    let mut page = String::new();
    text::encode_registry(&mut page, &registry)?;
    view.operator.index.write_agents(clock::unix_now_ns(), &mut page, with_exemplars)?;
    text::encode_eof(&mut page)?;
    Ok(page)
}

#[derive(Debug)]
struct Look(Status);

impl Collector for Look {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(status) = self;
        sinks(&mut encoder, status)?;
        for Figure { metric, help, value, .. } in &status.journal.figures {
            if !metric.is_empty() {
                single(&mut encoder, metric, help, &gauge(value))?;
            }
        }
        let (memory, cpu) = (process::resident_bytes(), process::cpu_time().as_secs_f64());
        for (name, help, value) in [
            ("ready", "1 while requests are accepted", status.unready().is_none().into()),
            ("uptime_seconds", "Seconds since the process started", status.uptime_seconds.into()),
            ("process_resident_memory_bytes", "Memory of the process", memory.into()),
        ] {
            single(&mut encoder, name, help, &gauge(&value))?;
        }
        let help = "Processor time of the process";
        single(&mut encoder, "process_cpu_seconds", help, &ConstCounter::new(cpu))?;
        single(&mut encoder, "build", "This binary", &Info::new(vec![("version", status.version)]))
    }
}

fn single(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// Encodes a metric of sinks, a series for each of these labels.
fn family<'v, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    series: impl IntoIterator<Item = ([(&'v str, &'v str); N], Value)>,
) -> fmt::Result {
    let name = format!("sink_{name}");
    let mut family = encoder.encode_descriptor(&name, help, None, kind)?;
    for (labels, value) in series {
        let series = family.encode_family(&labels)?;
        match kind {
            MetricType::Counter => ConstCounter::new(value.as_u64().unwrap_or(0)).encode(series)?,
            _ => gauge(&value).encode(series)?,
        }
    }
    Ok(())
}

fn sinks(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let Some(first) = status.sinks.first() else { return Ok(()) };
    for (place, Figure { metric, help, metric_type, .. }) in first.figures.iter().enumerate() {
        let series = status.sinks.iter();
        let series =
            series.filter_map(|sink| Some((labels(sink), sink.figures.get(place)?.value.clone())));
        family(encoder, (metric, help, *metric_type), series)?;
    }
    let (name, help) =
        ("sink_delivery_latency", "Time from receiving a request to delivering its items");
    let (unit, kind) = (Some(&Unit::Seconds), MetricType::Histogram);
    let mut latency = encoder.encode_descriptor(name, help, unit, kind)?;
    for sink in &status.sinks {
        sink.latency.0.encode(latency.encode_family(&labels(sink))?)?;
    }
    // A separate counter, because the gauge goes down when dead letters are replayed or dropped.
    let help = "Items that became dead letters since the start, by reason";
    let letters = status.sinks.iter().flat_map(|sink| {
        let [whose, kind] = labels(sink);
        let reasons = sink.dead_letters_by_reason.iter();
        reasons.map(move |(reason, items)| ([whose, kind, ("reason", *reason)], (*items).into()))
    });
    family(encoder, ("dead_lettered_spans", help, MetricType::Counter), letters)?;
    for (name, help, count) in RULES {
        let rules = status.sinks.iter().flat_map(|sink| {
            let [whose, _] = labels(sink);
            sink.rules.iter().map(move |rule| ([whose, ("rule", &rule.name)], count(rule).into()))
        });
        family(encoder, (name, help, MetricType::Counter), rules)?;
    }
    Ok(())
}

/// A counter of rules: its name, help and value.
type RuleCounter = (&'static str, &'static str, fn(&RuleView) -> u64);

const RULES: [RuleCounter; 2] = [
    ("rule_matched_spans", "Items that a rule matched", |rule| rule.matched),
    ("rule_failures", "Items that a rule failed on and left unchanged", |rule| rule.failures),
];

fn labels(sink: &SinkView) -> [(&str, &str); 2] {
    [("sink", &sink.name), ("type", sink.kind)]
}

/// Returns a gauge of a number, or of a flag as 1 or 0.
fn gauge(value: &Value) -> ConstGauge<f64> {
    let flag = value.as_bool().map(|flag| f64::from(u8::from(flag)));
    ConstGauge::new(flag.or(value.as_f64()).unwrap_or(0.0))
}
