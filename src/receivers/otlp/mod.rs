//! OTLP over HTTP and gRPC: <https://opentelemetry.io/docs/specs/otlp/>.
//!
//! Traces are kept. Metrics, logs and profiles are counted and answered with a partial success that says they are not stored:
//! an error would make every client that has not switched them off complain for ever.

mod count;
pub(super) mod grpc;
pub(super) mod http;
pub(super) mod reply;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hyper::header::{HeaderMap, USER_AGENT};
use hyper::http::request::Parts;
use tracing::info;

pub(super) use self::grpc::Serving;
use super::auth::Identity;
use super::body::Body;
use super::decode::Form;
use super::refusal::Refusal;
use super::{Kept, OtherSignals, Receivers, Taken, source_of};
use crate::normalize::{Coding, Encoding};
use crate::span::Receiver;
use crate::telemetry::ReceiverLabels;

/// An export request that is let in.
struct Call<'a> {
    receivers: &'a Receivers,
    signal: Signal,
    head: &'a Parts,
    identity: Identity,
}

impl<'a> Call<'a> {
    /// Lets a signal in that is stored, or that the operator wants acknowledged.
    fn admit(
        receivers: &'a Receivers,
        signal: Signal,
        head: &'a Parts,
        identity: Identity,
    ) -> Result<Self, Refusal> {
        if signal != Signal::Traces {
            receivers.0.first_seen.meet(signal, &head.headers);
            if receivers.0.options.other_signals == OtherSignals::Reject {
                return Err(Refusal::Unwanted);
            }
        }
        Ok(Self { receivers, signal, head, identity })
    }

    /// Keeps traces; counts everything else.
    async fn take(
        self,
        receiver: Receiver,
        labels: &ReceiverLabels,
        form: (Encoding, Coding),
        body: Body,
    ) -> Result<Taken, Refusal> {
        let Self { receivers, signal, head, identity } = self;
        if signal == Signal::Traces {
            let source = source_of(receiver, head, identity);
            let kept = receivers.keep(labels, source, form, body).await?;
            return Ok(Taken { partial: Partial::of(&kept), health: None });
        }
        let (encoding, coding) = form;
        let form = Form { receiver, encoding, coding };
        let count = move |_, body: Bytes| Ok(count::items(signal, encoding, &body)?);
        let (items, _) = receivers.0.decoder.read(form, body, count).await?;
        receivers.0.metrics.unstored(signal.as_str(), items);
        Ok(Taken { partial: Partial::unstored(signal, items), health: None })
    }
}

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
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Profiles => "profiles",
        }
    }

    /// What `partial_success` calls the number of items that were not taken, in the JSON mapping.
    fn rejected_member(self) -> &'static str {
        match self {
            Self::Traces => "rejectedSpans",
            Self::Metrics => "rejectedDataPoints",
            Self::Logs => "rejectedLogRecords",
            Self::Profiles => "rejectedProfiles",
        }
    }

    /// What a client that gets this signal refused should do.
    fn advice(self) -> &'static str {
        match self {
            Self::Traces => "",
            Self::Metrics => {
                "metrics are not stored here, only traces: set OTEL_METRICS_EXPORTER=none"
            }
            Self::Logs => "logs are not stored here, only traces: set OTEL_LOGS_EXPORTER=none",
            Self::Profiles => {
                "profiles are not stored here, only traces: switch their exporter off"
            }
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

    fn encoding(self) -> Encoding {
        match self {
            Self::XProtobuf | Self::Protobuf => Encoding::Protobuf,
            Self::Json => Encoding::Json,
        }
    }

    /// What its receiver is called in metrics.
    pub(super) fn labels(self) -> ReceiverLabels {
        let format = match self.encoding() {
            Encoding::Protobuf => "protobuf",
            Encoding::Json => "json",
        };
        ReceiverLabels { receiver: "otlp_http", transport: "http", format }
    }
}

/// What OTLP over gRPC is called in metrics.
pub(super) const GRPC_LABELS: ReceiverLabels =
    ReceiverLabels { receiver: "otlp_grpc", transport: "grpc", format: "protobuf" };

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
    /// What a client should know of a request that is kept; `None` when everything was as it should be.
    fn of(kept: &Kept) -> Option<Self> {
        if kept.reasons.is_empty() && kept.warnings.is_empty() {
            return None;
        }
        let mut text = String::new();
        let mut separator = "";
        if 0 < kept.quarantined {
            let (quarantined, items) = (kept.quarantined, kept.items);
            write!(text, "{quarantined} of {items} spans are not valid and were set aside").ok();
            separator = ": ";
        }
        for (reason, count) in &kept.reasons {
            write!(text, "{separator}{reason} ({count})").ok();
            separator = ", ";
        }
        for warning in &kept.warnings {
            let separator = if text.is_empty() { "" } else { "; " };
            write!(text, "{separator}{} ({})", warning.what, warning.count).ok();
        }
        Some(Self { signal: Signal::Traces, rejected: kept.quarantined.into(), text })
    }

    /// What a client should know that sent items of a signal which is not stored; `None` when there were none.
    fn unstored(signal: Signal, items: u64) -> Option<Self> {
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
    fn meet(&self, signal: Signal, headers: &HeaderMap) {
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
