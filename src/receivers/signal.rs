//! The signals of OTLP: <https://opentelemetry.io/docs/specs/otlp/>.
//!
//! Traces are stored. Metrics, logs and profiles are only counted, without decoding them into structures, and answered with a partial
//! success that says they are not stored: after an error, every client that has not disabled them would complain forever.

use std::collections::HashSet;
use std::sync::Mutex;

use hyper::header::{HeaderMap, USER_AGENT};
use tracing::info;

use super::estimate::each_message;
use crate::normalize::{Encoding, Malformed};
use crate::server::header_text;
use crate::support::json::raw::Raw;
use crate::support::lock::lock;

/// The signal of an export request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Signal {
    Traces,
    Metrics,
    Logs,
    Profiles,
}

/// Properties of a signal.
#[derive(Debug)]
pub(super) struct About {
    /// Its name in logs and metrics.
    pub(super) name: &'static str,
    /// The name of the number of rejected items in `partial_success`, in the JSON mapping.
    pub(super) rejected_member: &'static str,
    /// Advice for a client whose signal is refused.
    pub(super) advice: &'static str,
    /// The path from a request to its items, by `opentelemetry/proto/{metrics,logs,profiles}`.
    way: &'static [Step],
}

/// A step of the path to the items: the numbers of the fields to follow, and their names in JSON.
type Step = (&'static [u32], &'static [&'static str]);

static TRACES: About =
    About { name: "traces", rejected_member: "rejectedSpans", advice: "", way: &[] };
static METRICS: About = About {
    name: "metrics",
    rejected_member: "rejectedDataPoints",
    advice: "only traces are stored here, not metrics: set OTEL_METRICS_EXPORTER=none",
    way: &[
        (&[1], &["resourceMetrics", "resource_metrics"]),
        (&[2], &["scopeMetrics", "scope_metrics"]),
        (&[2], &["metrics", "metric"]),
        (&[5, 7, 9, 10, 11], METRIC_KINDS),
        (&[1], &["dataPoints", "data_points"]),
    ],
};
static LOGS: About = About {
    name: "logs",
    rejected_member: "rejectedLogRecords",
    advice: "only traces are stored here, not logs: set OTEL_LOGS_EXPORTER=none",
    way: &[
        (&[1], &["resourceLogs", "resource_logs"]),
        (&[2], &["scopeLogs", "scope_logs"]),
        (&[2], &["logRecords", "log_records"]),
    ],
};
static PROFILES: About = About {
    name: "profiles",
    rejected_member: "rejectedProfiles",
    advice: "only traces are stored here, not profiles: switch their exporter off",
    way: &[
        (&[1], &["resourceProfiles", "resource_profiles"]),
        (&[2], &["scopeProfiles", "scope_profiles"]),
        (&[2], &["profiles", "profile"]),
    ],
};

#[rustfmt::skip]
const METRIC_KINDS: &[&str] = &[
    "gauge", "Gauge", "sum", "Sum", "histogram", "Histogram", "exponentialHistogram", "exponential_histogram", "summary", "Summary",
];

impl Signal {
    pub(super) fn about(self) -> &'static About {
        match self {
            Self::Traces => &TRACES,
            Self::Metrics => &METRICS,
            Self::Logs => &LOGS,
            Self::Profiles => &PROFILES,
        }
    }

    pub(super) fn count(self, encoding: Encoding, body: &[u8]) -> Result<u64, Malformed> {
        let way = self.about().way;
        match encoding {
            Encoding::Protobuf => count_protobuf(body, way).ok_or(Malformed::Syntax {
                expected: "an OTLP protobuf message",
                problem: "its fields cannot be read".to_owned(),
            }),
            Encoding::Json => {
                let json = str::from_utf8(body).ok().and_then(Raw::parse);
                json.map(|json| count_json(json, way)).ok_or(Malformed::Syntax {
                    expected: "OTLP in JSON",
                    problem: "it is not JSON".to_owned(),
                })
            }
        }
    }
}

/// Counts the messages at the end of the path; `None` if the wire format is broken.
fn count_protobuf(message: &[u8], way: &[Step]) -> Option<u64> {
    let Some(((fields, _), below)) = way.split_first() else { return Some(1) };
    let mut count = 0;
    each_message(message, |number, content| {
        if fields.contains(&number) {
            count += count_protobuf(content, below)?;
        }
        Some(())
    })?;
    Some(count)
}

/// Counts the values at the end of the path in an object, or in each element of a list.
fn count_json(json: Raw<'_>, way: &[Step]) -> u64 {
    if json.is_array() {
        return json.elements().map(|one| count_json(one, way)).sum();
    }
    let Some(((_, names), below)) = way.split_first() else { return 1 };
    let inner = json.members().filter(|(name, _)| names.contains(&&**name));
    inner.filter_map(|(_, inner)| Some(count_json(inner.set()?, below))).sum()
}

/// Clients that sent signals which are not stored, so that each is logged once.
#[derive(Debug, Default)]
pub(super) struct FirstSeen(Mutex<HashSet<(Signal, String)>>);

/// Maximum number of remembered clients, and thus of log lines.
const CLIENTS_MAX: usize = 256;
/// Maximum size of a user agent that is remembered and logged.
const USER_AGENT_BYTES_MAX: usize = 100;

impl FirstSeen {
    /// Logs a client's first request with this signal.
    pub(super) fn meet(&self, signal: Signal, headers: &HeaderMap) {
        let client = header_text(headers, USER_AGENT).unwrap_or_default();
        let client = client.get(..USER_AGENT_BYTES_MAX).unwrap_or(client);
        let mut seen = lock(&self.0);
        if seen.len() < CLIENTS_MAX && seen.insert((signal, client.to_owned())) {
            drop(seen);
            let signal = signal.about().name;
            info!(signal, client, "a client sends a signal that is not stored");
        }
    }
}
