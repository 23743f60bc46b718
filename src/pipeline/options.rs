//! The options that every sink has in addition to those of its kind. Their comments appear in the starter file and the schema.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::journal::WhenFull;
use crate::rules::DecideOptions;
use crate::sinks::TraceUrl;
use crate::support::{byte_size::ByteSize, duration, written::As};

/// Settings of a lane.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LaneOptions {
    /// How spans are batched: a batch is sent when it reaches any of these bounds.
    pub batch: BatchLimits,
    /// How long to wait after a failed attempt. The number of attempts is not limited: the journal keeps what waits.
    pub retry: RetryOptions,
    /// How often the sink's cursor is saved. After a crash, items delivered since are delivered again, unless the sink recognises them
    /// (files do).
    #[serde(with = "As::<duration::Duration>")]
    pub commit_every: Duration,
    /// What happens when the journal is full of items that this sink has not accepted: `refuse` makes clients wait and retry, `drop_oldest`
    /// drops this sink's oldest spans and counts them.
    pub when_full: WhenFull,
    /// How long rules with `decide = "trace"` wait for a trace. What waits is in the journal.
    pub decide: DecideOptions,
    /// The address at which a browser shows a trace of this sink, for links in the console and in `trace show`; `{trace_id}` and
    /// `{span_id}` are filled in. Sinks of type `langfuse`, and the presets `phoenix` and `jaeger`, derive it from their address.
    #[schemars(with = "Option<String>", extend("examples" = ["https://jaeger.example.com/trace/{trace_id}"]))]
    pub trace_url: Option<TraceUrl>,
}

/// The bounds of a delivery, which is due when it reaches any of them.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchLimits {
    /// Spans in one delivery. Files and object stores take whole requests, and so may get more.
    pub items_max: usize,
    /// Size of one delivery, as the spans were on the wire.
    #[serde(with = "As::<ByteSize>")]
    pub bytes_max: usize,
    /// The longest a span waits for others.
    #[serde(with = "As::<duration::Duration>")]
    pub age_max: Duration,
}

/// How long to wait after a failed attempt.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryOptions {
    /// The longest first wait; each further wait is up to twice as long.
    #[serde(with = "As::<duration::Duration>")]
    pub first: Duration,
    /// No wait is longer, unless the sink asks for it.
    #[serde(with = "As::<duration::Duration>")]
    pub longest: Duration,
    /// The wait between probes of a sink that refuses the credentials or the address it was given.
    #[serde(with = "As::<duration::Duration>")]
    pub hold: Duration,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self {
            batch: BatchLimits::default(),
            retry: RetryOptions::default(),
            // Each save is an fsync: one per second is cheap for a disk, and a second's items are few to deliver again.
            commit_every: Duration::from_secs(1),
            when_full: WhenFull::default(),
            decide: DecideOptions::default(),
            trace_url: None,
        }
    }
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            // Large enough to spread the cost of a request over many spans, small enough for the limit of every backend.
            items_max: 1000,
            // About 600 agent spans of 7 KB; most backends refuse bodies of more than 5 to 16 MB.
            bytes_max: 4 << 20,
            // Short enough for a person who watches.
            age_max: Duration::from_millis(200),
        }
    }
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            // Most failures are over in less than a second.
            first: Duration::from_millis(250),
            // A recovered sink is noticed within half a minute, and so is a corrected key or address.
            longest: Duration::from_secs(30),
            hold: Duration::from_secs(30),
        }
    }
}
