//! A snapshot of the whole daemon, taken on request. The numbers of a sink add up in every snapshot:
//! `accepted = delivered + pending + dead_lettered + filtered + dropped`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::MetricType;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::View;
use crate::journal::{Cursor, Mark};
use crate::operate::RefusedReload;
use crate::pipeline::{LaneHandle, LaneState, LaneStatus, Latency, OutcomeCounts};
use crate::receivers::{FILTERED, RECEIVER_FIGURES, TENANT_FIGURES};
use crate::server::Tls;
use crate::support::clock;
use crate::support::lock::lock;
use crate::telemetry;

/// The current state of the daemon.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The version of this binary.
    pub version: &'static str,
    /// Seconds since the process started.
    pub uptime_seconds: f64,
    /// Whether requests are accepted.
    pub accepting: bool,
    /// Where the Agents SDK's ingest and OTLP over HTTP are reached from this machine.
    pub receives_at: String,
    /// Whether requests there need a token.
    pub needs_token: bool,
    /// The last reload, if it was refused.
    pub refused_reload: Option<RefusedReload>,
    /// The journal.
    pub journal: JournalView,
    /// Counts of unrecognized data in spans.
    pub understanding: Map<String, Value>,
    /// By receiver, since the start: `accepted`, `resent`, `refused`, `failed` and `filtered` items, and `bytes`.
    pub receivers: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// By tenant, if there are any, since the start: `requests`, `items`, `bytes`, and requests beyond its limits (`limited`).
    pub tenants: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// The sinks, in the order of the configuration.
    pub sinks: Vec<SinkView>,
}

/// The current state of the journal.
#[derive(Debug, Serialize)]
pub struct JournalView {
    /// `disk` or `memory`.
    pub mode: &'static str,
    /// `good`, `no_space`, `damaged` or `poisoned`.
    pub health: &'static str,
    /// Details, if it is not good.
    pub problem: Option<String>,
    /// Its metrics.
    #[serde(flatten, serialize_with = "by_key")]
    pub(super) figures: Vec<Figure>,
}

/// The current state of a sink. Items are spans and trace objects, counted since the sink was added.
#[derive(Debug, Serialize)]
pub struct SinkView {
    /// Its name in the configuration.
    pub name: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `running`, `retrying`, `holding` or `drained`.
    pub state: &'static str,
    /// Its last error, if it is not well.
    pub problem: Option<String>,
    /// Items that became dead letters since the start, by reason.
    pub dead_letters_by_reason: BTreeMap<&'static str, u64>,
    /// Its rules, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleView>,
    /// Delivery times of items.
    #[serde(skip)]
    pub(super) latency: Latency,
    /// Its metrics, the same and in the same order for every sink.
    #[serde(flatten, serialize_with = "by_key")]
    pub(super) figures: Vec<Figure>,
}

/// A rule of a sink, with its counters since the start.
#[derive(Debug, Serialize)]
pub struct RuleView {
    /// Its name.
    pub name: String,
    /// Items that it matched.
    pub matched: u64,
    /// Items on which it failed, and which stayed unchanged.
    pub failures: u64,
}

/// A metric of a sink or of the journal, for both pages.
#[derive(Debug)]
pub(super) struct Figure {
    /// Its name in `/status`; empty if `state` replaces it there.
    key: &'static str,
    /// Its name in `/metrics`, without `spanferry_`, `sink_` and `_total`; empty if it is not there.
    pub(super) metric: &'static str,
    pub(super) metric_type: MetricType,
    /// A number or a boolean.
    pub(super) value: Value,
    pub(super) help: &'static str,
}

/// A monotonic counter.
const C: MetricType = MetricType::Counter;
/// A gauge.
const G: MetricType = MetricType::Gauge;

impl Status {
    /// Takes the snapshot.
    pub fn of(view: &View) -> Self {
        let (end, lanes) = (view.feed.journal().end(), view.lanes.all());
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: view.started.elapsed().as_secs_f64(),
            accepting: !view.refusing.is_stopped(),
            receives_at: view.receivers.url(),
            needs_token: view.receivers.need_token(),
            refused_reload: lock(&view.refused_reload).clone(),
            journal: JournalView::of(view, end, &lanes),
            understanding: view.metrics.understanding().figures(),
            receivers: by_label(view, &RECEIVER_FIGURES),
            tenants: by_label(view, &TENANT_FIGURES),
            sinks: lanes.iter().map(|lane| SinkView::of(view, &lane.status)).collect(),
        }
    }

    /// Returns why requests are not accepted; `None` if they are.
    pub(super) fn unready(&self) -> Option<String> {
        if !self.accepting {
            return Some("the daemon is stopping".to_owned());
        }
        let health = self.journal.health;
        matches!(health, "no_space" | "poisoned").then(|| format!("journal: {health}"))
    }

    /// Returns the short form for probes. `warnings` are probable mistakes, which do not make it degraded.
    pub(crate) fn health(&self, view: &View) -> Value {
        let mut problems = view.receivers.problems();
        problems.extend(view.access.now().tls.as_ref().and_then(Tls::problem));
        problems.extend(self.refused_reload.as_ref().map(
            |RefusedReload { at, problem, .. }| {
                format!("the reload at {at} was refused, the previous configuration stays in force: {problem}")
            },
        ));
        if self.journal.health != "good" {
            let more = self.journal.problem.as_deref().unwrap_or_default();
            problems.push(format!("journal {}: {more}", self.journal.health));
        }
        let journal = view.feed.journal();
        let oldest = journal.segment_end(journal.start().position).filter(|_| journal.is_full());
        problems.extend(oldest.and_then(|end| journal.held_by(end.position)).map(|sink| {
            format!("the journal is full: clients are refused until the sink {sink} accepts more")
        }));
        problems.extend(view.operator.problems());
        let status = if problems.is_empty() { "ok" } else { "degraded" };
        let warnings: Vec<_> = view.receivers.exposed().into_iter().collect();
        let mode = self.journal.mode;
        json!({ "status": status, "problems": problems, "warnings": warnings, "journal_mode": mode })
    }
}

/// Returns metrics by the value of their label.
fn by_label(
    view: &View,
    figures: &[(&'static str, telemetry::Figure)],
) -> BTreeMap<String, BTreeMap<&'static str, u64>> {
    let mut all: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
    for (name, figure) in figures {
        for (label, count) in view.metrics.by_label(*figure) {
            all.entry(label).or_default().insert(*name, count);
        }
    }
    all
}

impl JournalView {
    fn of(view: &View, end: Mark, lanes: &[LaneHandle]) -> Self {
        let (journal, quarantine) = (view.feed.journal(), view.feed.quarantine());
        let resolved = view.operator.quarantine.resolved("");
        let of = |lane: &LaneStatus| settled(view, lane, &lane.safe(journal)).dead_lettered;
        let (health, problem) = journal.health().parts();
        let quarantined = quarantine.end().items.saturating_sub(resolved.items());
        let dead_letters = lanes.iter().map(|lane| of(&lane.status)).sum::<u64>();
        let filtered = view.metrics.by_label(FILTERED).values().sum::<u64>();
        #[rustfmt::skip]
        let figures = vec![
            row("bytes", "journal_bytes", G, "Bytes the journal takes", journal.bytes()),
            row("bytes_max", "journal_bytes_max", G, "Bytes the journal may take", journal.bytes_max()),
            row("items", "", C, "Items accepted since it was created", end.items),
            row("filtered", "", C, "Items that rules dropped before the journal, since the start", filtered),
            row("dead_letters", "", G, "Dead letters of all sinks", dead_letters),
            row("quarantined", "quarantined_items", G, "Items in the quarantine: they could not be understood", quarantined),
            row("", "journal_good", G, "1 while the journal is whole and writable", health == "good"),
        ];
        Self { mode: view.mode, health, problem, figures }
    }
}

impl SinkView {
    fn of(view: &View, lane: &LaneStatus) -> Self {
        let (state, problem) = lane.state();
        let rule = |(name, matched, failures): (&str, _, _)| {
            let name = name.to_owned();
            RuleView { name, matched, failures }
        };
        let reasons = lane.dead_letters().map(|(class, items)| (class.as_str(), items));
        Self {
            name: lane.sink.clone(),
            kind: lane.kind,
            state: state.as_str(),
            problem,
            dead_letters_by_reason: reasons.collect(),
            rules: lane.rules.figures().map(rule).collect(),
            latency: lane.latency.clone(),
            figures: items(view, lane).into_iter().chain(work(lane, state)).collect(),
        }
    }
}

/// Counts a sink's items by outcome. At any moment, `accepted = delivered + pending + dead_lettered + filtered + dropped`.
#[rustfmt::skip]
fn items(view: &View, lane: &LaneStatus) -> Vec<Figure> {
    let cursor = lane.safe(view.feed.journal());
    let OutcomeCounts { delivered, dead_lettered, filtered, dropped } = settled(view, lane, &cursor);
    let (accepted, pending, pending_bytes) = LaneStatus::unsettled(&cursor, view.feed.journal().end());
    let received_at_ns = load(&lane.oldest_received_at_ns);
    let is_waiting = 0 < pending && 0 < received_at_ns;
    let since_ns = if is_waiting { received_at_ns } else { u64::MAX };
    let age = Duration::from_nanos(clock::unix_now_ns().saturating_sub(since_ns)).as_secs_f64();
    vec![
        row("accepted", "accepted_spans", C, "Items accepted for the sink", accepted),
        row("delivered", "sent_spans", C, "Items delivered", delivered),
        row("pending", "pending_spans", G, "Items still to be delivered (the queue)", pending),
        row("dead_lettered", "dead_letter_spans", G, "Items the sink rejected, kept as dead letters", dead_lettered),
        row("filtered", "filtered_spans", C, "Items filtered out by a rule", filtered),
        row("dropped", "dropped_spans", C, "Items dropped: the journal was full, or an operator dropped dead letters", dropped),
        row("pending_bytes", "pending_bytes", G, "Bytes of the journal still to be delivered (the queue)", pending_bytes),
        row("oldest_age_seconds", "pending_oldest_age_seconds", G, "Age of the oldest pending item (the queue); 0 without one", age),
    ]
}

/// Returns the metrics of a sink's lane.
#[rustfmt::skip]
fn work(lane: &LaneStatus, state: LaneState) -> Vec<Figure> {
    let traces = lane.traces().unwrap_or_default();
    let (remembered, undecided) = lane.decisions().unwrap_or_default();
    let concurrency = lane.concurrency.load(Ordering::Relaxed);
    let breaker_open = lane.is_breaker_open.load(Ordering::Relaxed);
    let learned = lane.learned_bytes_max.load(Ordering::Relaxed);
    let (is_running, is_holding) = (state == LaneState::Running, state == LaneState::Holding);
    vec![
        row("deliveries", "deliveries", C, "Deliveries handed to the sink", load(&lane.deliveries)),
        row("retries", "retries", C, "Failed attempts that were retried", load(&lane.retries)),
        row("throttles", "throttles", C, "Attempts that the backend throttled", load(&lane.throttles)),
        row("holds", "holds", C, "Attempts that failed because of the sink's configuration", load(&lane.holds)),
        row("left_out", "left_out_spans", C, "Delivered items that the backend left out without saying which", load(&lane.left_out)),
        row("replayed", "replayed_spans", C, "Items that an operator replayed", load(&lane.replayed)),
        row("miscounted", "miscounted_spans", C, "Items that the lane and its cursor count differently", load(&lane.miscounted)),
        row("panics", "panics", C, "Panics of our own code in the lane or its sink", load(&lane.panics)),
        row("concurrency", "concurrency", G, "Deliveries the sink may have in flight", concurrency),
        row("breaker_open", "breaker_open", G, "1 while the circuit breaker is open: one attempt is made at a time", breaker_open),
        row("learned_bytes_max", "learned_bytes", G, "The largest request, as learned from refusals; 0 if unknown", learned),
        row("in_flight", "in_flight_requests", G, "Deliveries in flight", load(&lane.in_flight)),
        row("deferred", "deferred_spans", G, "Pending items that wait for something of their own, such as their caller's key", load(&lane.deferred)),
        row("traces", "traces", G, "Traces whose facts are remembered for the sink", traces.traces),
        row("traces_bytes", "traces_bytes", G, "Estimated memory of the remembered traces", traces.bytes),
        row("traces_evicted", "traces_evicted", C, "Traces forgotten early because there were too many", traces.evicted),
        row("traces_rootless", "traces_rootless", C, "Traces forgotten early without room for their root, so they have none", traces.rootless),
        row("traces_decided", "traces_decided", G, "Traces remembered for rules that decide on whole traces", remembered),
        row("traces_too_long", "traces_too_long", C, "Traces kept without a decision: they were not quiet in time, or the journal may not have their beginning", undecided.too_long),
        row("traces_no_room", "traces_no_room", C, "Requests of traces kept without a decision: there was no room", undecided.no_room),
        row("roots", "roots", C, "Root spans made for traces that had none; they are not items", load(&lane.roots)),
        row("roots_rejected", "roots_rejected", C, "Root spans the sink rejected", load(&lane.roots_rejected)),
        row("amended", "amended_spans", C, "Spans sent again because more became known about them", load(&lane.amended)),
        row("unamended", "unamended_spans", C, "Spans to be sent again that were rejected or are gone", load(&lane.unamended)),
        row("", "up", G, "1 while the last attempt worked", is_running),
        row("", "holding", G, "1 while the sink cannot work as configured and holds until an operator fixes it", is_holding),
    ]
}

fn settled(view: &View, lane: &LaneStatus, cursor: &Cursor) -> OutcomeCounts {
    LaneStatus::settled(cursor, view.operator.dead_letters.resolved(&lane.sink))
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn row(
    key: &'static str,
    metric: &'static str,
    metric_type: MetricType,
    help: &'static str,
    value: impl Into<Value>,
) -> Figure {
    Figure { key, metric, metric_type, value: value.into(), help }
}

fn by_key<S: Serializer>(figures: &[Figure], serializer: S) -> Result<S::Ok, S::Error> {
    let shown = figures.iter().filter(|figure| !figure.key.is_empty());
    serializer.collect_map(shown.map(|figure| (figure.key, &figure.value)))
}
