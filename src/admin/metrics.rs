//! Metrics as `OpenMetrics` text: the counters of components, and a snapshot of everything else.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::status::{Figure, RuleView};
use super::{Status, View};
use crate::journal::Timings;
use crate::support::number::as_f64;
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
        let journal = &status.journal;
        let (memory, cpu) = (process::resident_bytes(), process::cpu_time().as_secs_f64());
        #[rustfmt::skip]
        let gauges = [
            ("journal_bytes", "Bytes the journal takes", as_f64(journal.bytes)),
            ("quarantined_items", "Items in the quarantine: they could not be understood", as_f64(journal.quarantined)),
            ("journal_bytes_max", "Bytes the journal may take", as_f64(journal.bytes_max)),
            ("journal_good", "1 while the journal is whole and writable", as_flag(journal.health == "good")),
            ("ready", "1 while requests are accepted", as_flag(status.unready().is_none())),
            ("uptime_seconds", "Seconds since the process started", status.uptime_seconds),
            ("process_resident_memory_bytes", "Memory of the process", as_f64(memory)),
        ];
        for (name, help, value) in gauges {
            single(&mut encoder, name, help, &ConstGauge::new(value))?;
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

fn sinks(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let Some(first) = status.sinks.first() else { return Ok(()) };
    for (place, figure) in first.figures.iter().enumerate() {
        let (name, metric_type) = (format!("sink_{}", figure.metric), figure.metric_type);
        let mut family = encoder.encode_descriptor(&name, figure.help, None, metric_type)?;
        for sink in &status.sinks {
            let Some(Figure { value, .. }) = sink.figures.get(place) else { continue };
            let labels = [("sink", sink.name.as_str()), ("type", sink.kind)];
            let series = family.encode_family(&labels)?;
            match value.as_bool() {
                _ if matches!(metric_type, MetricType::Counter) => {
                    ConstCounter::new(value.as_u64().unwrap_or(0)).encode(series)?;
                }
                Some(flag) => ConstGauge::new(as_flag(flag)).encode(series)?,
                None => ConstGauge::new(value.as_f64().unwrap_or(0.0)).encode(series)?,
            }
        }
    }
    let (name, help) =
        ("sink_delivery_latency", "Time from receiving a request to delivering its items");
    let (unit, kind) = (Some(&Unit::Seconds), MetricType::Histogram);
    let mut family = encoder.encode_descriptor(name, help, unit, kind)?;
    for sink in &status.sinks {
        let labels = [("sink", sink.name.as_str()), ("type", sink.kind)];
        sink.latency.0.encode(family.encode_family(&labels)?)?;
    }
    // A separate counter, because the gauge goes down when dead letters are replayed or dropped.
    let name = "sink_dead_lettered_spans";
    let help = "Items that became dead letters since the start, by reason";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for sink in &status.sinks {
        for (reason, items) in &sink.dead_letters_by_reason {
            let labels = [("sink", sink.name.as_str()), ("type", sink.kind), ("reason", reason)];
            ConstCounter::new(*items).encode(family.encode_family(&labels)?)?;
        }
    }
    rules(encoder, status, "matched_spans", "Items that a rule matched", |rule| rule.matched)?;
    let help = "Items that a rule failed on and left unchanged";
    rules(encoder, status, "failures", help, |rule| rule.failures)
}

fn rules(
    encoder: &mut DescriptorEncoder<'_>,
    status: &Status,
    name: &str,
    help: &str,
    figure: impl Fn(&RuleView) -> u64,
) -> fmt::Result {
    let name = format!("sink_rule_{name}");
    let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for sink in &status.sinks {
        for rule in &sink.rules {
            let labels = [("sink", sink.name.as_str()), ("rule", rule.name.as_str())];
            ConstCounter::new(figure(rule)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn as_flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}
