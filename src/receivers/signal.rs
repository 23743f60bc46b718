//! The signals of OTLP: <https://opentelemetry.io/docs/specs/otlp/>.
//!
//! Traces are kept. Metrics, logs and profiles are counted, without building anything from them, and answered with a partial
//! success that says they are not stored: an error would make every client that has not switched them off complain for ever.

use std::collections::HashSet;
use std::sync::Mutex;

use hyper::header::{HeaderMap, USER_AGENT};
use tracing::info;

use super::estimate::each_message;
use crate::normalize::{Encoding, Malformed};
use crate::support::json::scan::{Broken, Scanner};
use crate::support::lock::lock;

/// What an export request holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Signal {
    /// Spans.
    Traces,
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
    /// Profiles.
    Profiles,
}

/// What is to be known of a signal.
#[derive(Debug)]
pub(super) struct About {
    /// Its name in logs and metrics.
    pub(super) name: &'static str,
    /// What `partial_success` calls the number of items that were not taken, in the JSON mapping.
    pub(super) rejected_member: &'static str,
    /// What a client that gets this signal refused should do.
    pub(super) advice: &'static str,
    /// The way from a request to its items, by `opentelemetry/proto/{metrics,logs,profiles}`.
    way: &'static [Step],
}

/// One step on the way to the items: the numbers of the fields that lead on, and their names in JSON.
type Step = (&'static [u32], &'static [&'static str]);

static TRACES: About =
    About { name: "traces", rejected_member: "rejectedSpans", advice: "", way: &[] };
static METRICS: About = About {
    name: "metrics",
    rejected_member: "rejectedDataPoints",
    advice: "metrics are not stored here, only traces: set OTEL_METRICS_EXPORTER=none",
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
    advice: "logs are not stored here, only traces: set OTEL_LOGS_EXPORTER=none",
    way: &[
        (&[1], &["resourceLogs", "resource_logs"]),
        (&[2], &["scopeLogs", "scope_logs"]),
        (&[2], &["logRecords", "log_records"]),
    ],
};
static PROFILES: About = About {
    name: "profiles",
    rejected_member: "rejectedProfiles",
    advice: "profiles are not stored here, only traces: switch their exporter off",
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
    /// What is to be known of it.
    pub(super) fn about(self) -> &'static About {
        match self {
            Self::Traces => &TRACES,
            Self::Metrics => &METRICS,
            Self::Logs => &LOGS,
            Self::Profiles => &PROFILES,
        }
    }

    /// How many items a request holds.
    pub(super) fn count(self, encoding: Encoding, body: &[u8]) -> Result<u64, Malformed> {
        let way = self.about().way;
        match encoding {
            Encoding::Protobuf => count_protobuf(body, way).ok_or(Malformed::Syntax {
                expected: "an OTLP protobuf message",
                problem: "its fields cannot be walked".to_owned(),
            }),
            Encoding::Json => count_json(body, way).map_err(|broken| Malformed::Syntax {
                expected: "OTLP in JSON",
                problem: broken.to_string(),
            }),
        }
    }
}

/// Counts the messages at the end of the way; `None` where the wire format is broken.
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

fn count_json(body: &[u8], way: &[Step]) -> Result<u64, Broken> {
    let mut json = Scanner::new(body);
    let count = count_objects(body, &mut json, way)?;
    match json.peek() {
        None => Ok(count),
        Some(_) => Err(Broken { at: json.at, expected: "the end" }),
    }
}

/// Counts what is at the end of the way in a list of objects, in one alone, or in `null`.
fn count_objects(body: &[u8], json: &mut Scanner<'_>, way: &[Step]) -> Result<u64, Broken> {
    if !json.eat(b'[') {
        return count_object(body, json, way);
    }
    let mut count = 0;
    if json.eat(b']') {
        return Ok(count);
    }
    loop {
        count += count_object(body, json, way)?;
        if !json.eat(b',') {
            json.expect(b']', "a comma or ]")?;
            return Ok(count);
        }
    }
}

fn count_object(body: &[u8], json: &mut Scanner<'_>, way: &[Step]) -> Result<u64, Broken> {
    let Some(((_, names), below)) = way.split_first() else {
        return json.skip_value().map(|()| 1);
    };
    if json.peek() == Some(b'n') {
        return json.skip_value().map(|()| 0);
    }
    let mut count = 0;
    json.each_member(|json, name| {
        let name = body.get(name.start..name.end).unwrap_or_default();
        if names.iter().any(|known| known.as_bytes() == name) {
            count += count_objects(body, json, below)?;
        } else {
            json.skip_value()?;
        }
        Ok(())
    })?;
    Ok(count)
}

/// Clients that were seen sending signals which are not stored, so that each is logged once.
#[derive(Debug, Default)]
pub(super) struct FirstSeen(Mutex<HashSet<(Signal, String)>>);

/// Different clients that are remembered, and so the most lines that are logged.
const CLIENTS_MAX: usize = 256;
/// Of a user agent so much is remembered and logged.
const USER_AGENT_BYTES_MAX: usize = 100;

impl FirstSeen {
    /// Logs a client's first request with this signal.
    pub(super) fn meet(&self, signal: Signal, headers: &HeaderMap) {
        let client = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
        let client = client.get(..USER_AGENT_BYTES_MAX).unwrap_or(client);
        let mut seen = lock(&self.0);
        if seen.len() < CLIENTS_MAX && seen.insert((signal, client.to_owned())) {
            drop(seen);
            let signal = signal.about().name;
            info!(signal, client, "a client sends a signal that is not stored");
        }
    }
}
