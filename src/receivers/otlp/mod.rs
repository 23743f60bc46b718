//! OTLP over HTTP and gRPC: <https://opentelemetry.io/docs/specs/otlp/>.
//!
//! Traces are kept. Metrics, logs and profiles are counted and answered with a partial success that says they are not stored:
//! an error would make every client that has not switched them off complain for ever.

pub(super) mod count;
pub(super) mod grpc;
pub(super) mod reply;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use hyper::header::{HeaderMap, USER_AGENT};
use tracing::info;

pub(super) use self::grpc::Serving;
use crate::normalize::{Encoding, Warning};

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

impl Signal {
    /// The signal's name in logs and metrics.
    pub(super) fn as_str(self) -> &'static str {
        self.words()[0]
    }

    /// What `partial_success` calls the number of items that were not taken, in the JSON mapping.
    fn rejected_member(self) -> &'static str {
        self.words()[1]
    }

    /// What a client that gets this signal refused should do.
    fn advice(self) -> &'static str {
        self.words()[2]
    }

    fn words(self) -> [&'static str; 3] {
        match self {
            Self::Traces => ["traces", "rejectedSpans", ""],
            Self::Metrics => [
                "metrics",
                "rejectedDataPoints",
                "metrics are not stored here, only traces: set OTEL_METRICS_EXPORTER=none",
            ],
            Self::Logs => [
                "logs",
                "rejectedLogRecords",
                "logs are not stored here, only traces: set OTEL_LOGS_EXPORTER=none",
            ],
            Self::Profiles => [
                "profiles",
                "rejectedProfiles",
                "profiles are not stored here, only traces: switch their exporter off",
            ],
        }
    }
}

/// The media types of OTLP over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// `application/x-protobuf`, the specification's.
    XProtobuf,
    /// `application/protobuf`, which some clients send.
    Protobuf,
    /// `application/json`.
    Json,
}

impl Media {
    /// The media type with this name, without parameters.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        [Self::XProtobuf, Self::Protobuf, Self::Json]
            .into_iter()
            .find(|media| media.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Its name.
    fn as_str(self) -> &'static str {
        match self {
            Self::XProtobuf => "application/x-protobuf",
            Self::Protobuf => "application/protobuf",
            Self::Json => "application/json",
        }
    }

    /// Its wire format.
    pub(super) fn encoding(self) -> Encoding {
        match self {
            Self::XProtobuf | Self::Protobuf => Encoding::Protobuf,
            Self::Json => Encoding::Json,
        }
    }
}

/// A partial success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partial {
    /// What was counted.
    pub(super) signal: Signal,
    /// Items that were not taken.
    pub(super) rejected: u64,
    /// Why, or what was mended in those that were. Never payload text.
    pub(super) text: String,
}

impl Partial {
    /// What a client should know of a request that is kept, with how many of its items are set aside; `None` when everything was
    /// as it should be.
    pub(super) fn of(
        (quarantined, items): (u32, usize),
        reasons: &[(&'static str, u32)],
        warnings: &[Warning],
    ) -> Option<Self> {
        if reasons.is_empty() && warnings.is_empty() {
            return None;
        }
        let mut text = String::new();
        let mut separator = "";
        if 0 < quarantined {
            write!(text, "{quarantined} of {items} spans are not valid and were set aside").ok();
            separator = ": ";
        }
        for (reason, count) in reasons {
            write!(text, "{separator}{reason} ({count})").ok();
            separator = ", ";
        }
        for Warning { what, count } in warnings {
            let separator = if text.is_empty() { "" } else { "; " };
            write!(text, "{separator}{what} ({count})").ok();
        }
        Some(Self { signal: Signal::Traces, rejected: quarantined.into(), text })
    }

    /// What a client should know that sent items of a signal which is not stored; `None` when there were none.
    pub(super) fn unstored(signal: Signal, items: u64) -> Option<Self> {
        (0 < items).then(|| Self { signal, rejected: items, text: signal.advice().to_owned() })
    }
}

/// Clients that were seen sending signals which are not stored, so that each is logged once.
#[derive(Debug, Default)]
pub(super) struct FirstSeen {
    seen: Mutex<HashSet<(Signal, String)>>,
}

/// Different clients that are remembered, and so the most lines that are logged.
const NEWCOMERS_MAX: usize = 256;
/// Of a user agent so much is remembered and logged.
const USER_AGENT_BYTES_MAX: usize = 100;

impl FirstSeen {
    /// Logs a client's first request with this signal.
    pub(super) fn meet(&self, signal: Signal, headers: &HeaderMap) {
        let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
        let agent = agent.get(..USER_AGENT_BYTES_MAX).unwrap_or(agent);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (signal, agent.to_owned());
        if seen.len() < NEWCOMERS_MAX && seen.insert(key) {
            drop(seen);
            let signal = signal.as_str();
            info!(signal, client = agent, "a client sends a signal that is not stored");
        }
    }
}
