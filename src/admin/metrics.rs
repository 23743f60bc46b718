//! The figures as `OpenMetrics` text: what components count, and one look at the rest.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{SinkView, Status, View};
use crate::support::process;

/// The whole page.
pub(super) fn text(view: &View) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("spanferry");
    view.metrics.register(&mut registry);
    registry.register_collector(Box::new(Look(Status::of(view))));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

#[derive(Debug)]
struct Look(Status);

impl Collector for Look {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(status) = self;
        for &(name, help, figure) in SINK_COUNTERS {
            per_sink(&mut encoder, status, name, help, |sink| Figure::Counter(figure(sink)))?;
        }
        for &(name, help, figure) in SINK_GAUGES {
            per_sink(&mut encoder, status, name, help, |sink| Figure::Gauge(figure(sink)))?;
        }
        dead_letters_by_reason(&mut encoder, status)?;
        let journal = &status.journal;
        let gauges = [
            ("journal_bytes", "Bytes the journal takes", as_f64(journal.bytes)),
            (
                "quarantined_items",
                "Items that could not be understood and are kept aside",
                as_f64(journal.quarantined),
            ),
            ("journal_bytes_max", "Bytes the journal may take", as_f64(journal.bytes_max)),
            (
                "journal_good",
                "1 while the journal is whole and writable",
                f64::from(u8::from(journal.health == "good")),
            ),
            (
                "ready",
                "1 while requests are taken",
                f64::from(u8::from(status.unready().is_none())),
            ),
            ("uptime_seconds", "Seconds since the start", status.uptime_seconds),
            (
                "process_resident_memory_bytes",
                "Memory of the process",
                as_f64(process::resident_bytes()),
            ),
        ];
        for (name, help, value) in gauges {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let counters = [(
            "process_cpu_seconds",
            "Processor time of the process",
            process::cpu_time().as_secs_f64(),
        )];
        for (name, help, value) in counters {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let info = prometheus_client::metrics::info::Info::new(vec![("version", status.version)]);
        info.encode(encoder.encode_descriptor("build", "This binary", None, info.metric_type())?)
    }
}

type SinkFigure<T> = (&'static str, &'static str, fn(&SinkView) -> T);

/// Per sink, at any moment: accepted = sent + pending + dead letters + filtered by a rule + dropped.
const SINK_COUNTERS: &[SinkFigure<u64>] = &[
    ("sink_accepted_spans", "Items accepted for the sink", |sink| sink.accepted),
    ("sink_sent_spans", "Items delivered", |sink| sink.delivered),
    ("sink_filtered_spans", "Items left out by a rule", |sink| sink.filtered),
    (
        "sink_dropped_spans",
        "Items given up: the journal was full (when_full = drop_oldest), or an operator dropped dead letters",
        |sink| sink.dropped,
    ),
    ("sink_deliveries", "Deliveries handed to the sink", |sink| sink.deliveries),
    ("sink_retries", "Failed attempts that were tried again", |sink| sink.retries),
    ("sink_traces_evicted", "Traces forgotten early because there were too many", |sink| {
        sink.traces_evicted
    }),
    ("sink_roots", "Root spans made for traces that had none; no items", |sink| sink.roots),
    ("sink_roots_rejected", "Root spans the sink would not take", |sink| sink.roots_rejected),
    ("sink_amended_spans", "Spans sent once more with what became known of them", |sink| {
        sink.amended
    }),
    (
        "sink_unamended_spans",
        "Spans to be sent once more that were not taken or not in the journal any more",
        |sink| sink.unamended,
    ),
    ("sink_throttles", "Attempts that the backend answered by asking for less", |sink| {
        sink.throttles
    }),
    ("sink_holds", "Attempts of a sink that could not work as configured", |sink| sink.holds),
    (
        "sink_left_out_spans",
        "Delivered items that the backend left out, not saying which",
        |sink| sink.left_out,
    ),
    ("sink_replayed_spans", "Items that an operator had delivered again", |sink| sink.replayed),
];

const SINK_GAUGES: &[SinkFigure<f64>] = &[
    ("sink_pending_spans", "Items still to be delivered (the queue)", |sink| as_f64(sink.pending)),
    ("sink_pending_bytes", "Bytes of the journal still to be delivered (the queue)", |sink| {
        as_f64(sink.pending_bytes)
    }),
    ("sink_pending_oldest_age_seconds", "Age of the oldest pending item (the queue)", |sink| {
        sink.oldest_age_seconds
    }),
    ("sink_in_flight_requests", "Deliveries at the sink right now", |sink| as_f64(sink.in_flight)),
    ("sink_parked_spans", "Pending items that wait for their caller's key or the like", |sink| {
        as_f64(sink.parked)
    }),
    ("sink_traces", "Traces whose facts are remembered for the sink", |sink| as_f64(sink.traces)),
    ("sink_traces_bytes", "Memory these take, estimated", |sink| as_f64(sink.traces_bytes)),
    ("sink_dead_letter_spans", "Items the sink would not take, kept as dead letters", |sink| {
        as_f64(sink.dead_lettered)
    }),
    ("sink_concurrency", "Deliveries that may be at the sink at once", |sink| {
        as_f64(sink.concurrency as u64)
    }),
    ("sink_breaker_open", "1 while no attempt works and one is made at a time", |sink| {
        f64::from(u8::from(sink.breaker_open))
    }),
    (
        "sink_holding",
        "1 while the sink cannot work as configured and waits for an operator",
        |sink| f64::from(u8::from(sink.state == "holding")),
    ),
    (
        "sink_learned_bytes",
        "The most sent in one go, as learned from refusals; 0 if unknown",
        |sink| as_f64(sink.learned_bytes_max as u64),
    ),
    ("sink_up", "1 while the last attempt worked", |sink| {
        f64::from(u8::from(sink.state == "running"))
    }),
];

enum Figure {
    Counter(u64),
    Gauge(f64),
}

fn per_sink(
    encoder: &mut DescriptorEncoder<'_>,
    status: &Status,
    name: &str,
    help: &str,
    figure: impl Fn(&SinkView) -> Figure,
) -> fmt::Result {
    let Some(first) = status.sinks.first() else { return Ok(()) };
    let metric_type = match figure(first) {
        Figure::Counter(_) => MetricType::Counter,
        Figure::Gauge(_) => MetricType::Gauge,
    };
    let mut family = encoder.encode_descriptor(name, help, None, metric_type)?;
    for sink in &status.sinks {
        let labels = [("sink", sink.name.as_str()), ("type", sink.kind)];
        let series = family.encode_family(&labels)?;
        match figure(sink) {
            Figure::Counter(value) => ConstCounter::new(value).encode(series)?,
            Figure::Gauge(value) => ConstGauge::new(value).encode(series)?,
        }
    }
    Ok(())
}

/// A counter of its own: the gauge goes down when dead letters are replayed or dropped.
fn dead_letters_by_reason(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    if status.sinks.is_empty() {
        return Ok(());
    }
    let name = "sink_dead_lettered_spans";
    let help = "Items that became dead letters since the start, by why";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for sink in &status.sinks {
        for (reason, items) in &sink.dead_letters_by_reason {
            let labels = [("sink", sink.name.as_str()), ("type", sink.kind), ("reason", reason)];
            ConstCounter::new(*items).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures above 2^53 lose digits nobody reads")]
fn as_f64(value: u64) -> f64 {
    value as f64
}
