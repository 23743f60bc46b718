//! What a configuration file says, section by section, in its own words. The sentences here are those of `config default`, of the
//! schema and of the documentation; the defaults are those of the components.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::receivers::ReceiversSection;
use crate::feed::{DEFAULT_ACK_WAIT, DEFAULT_TAIL_BYTES_MAX};
use crate::journal;
use crate::support::address::Address;
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;

/// The file but for its sinks.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sections {
    /// How long an orderly stop may take before what is left is kept in the journal for the next start. Less than the 30 s after
    /// which Kubernetes and Docker Compose (as configured here) kill.
    pub(super) shutdown_timeout: Duration,
    /// How long requests are still accepted after the signal to stop. An app that is stopped together with its sidecar sends its
    /// last spans after the sidecar got the signal; 2s lets them in.
    pub(super) drain_grace: Duration,
    /// Threads that serve requests and sinks. Without it, half as many as there are cores, and at least one: the journal and heavy
    /// work have threads of their own, and what passes from core to core costs more than it gains.
    #[schemars(example = 2)]
    pub(super) threads: Option<u16>,
    /// Where traces come in.
    pub(super) receivers: ReceiversSection,
    /// What is acknowledged is on disk here.
    pub(super) journal: JournalSection,
    /// What is kept in memory between the journal and the sinks.
    pub(super) feed: FeedSection,
    /// Health, readiness, metrics and status.
    pub(super) admin: AdminSection,
    /// What the daemon says of itself, on stderr.
    pub(super) log: LogSection,
}

/// `[journal]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct JournalSection {
    /// Where the journal, the quarantine and the dead letters lie. A relative path is relative to the state directory, which is also
    /// the default: `$SPANFERRY_STATE_DIR`, `$XDG_STATE_HOME/spanferry`, `/var/lib/spanferry` where it is writable, or
    /// `~/.local/state/spanferry`.
    #[schemars(example = "/var/lib/spanferry")]
    pub(super) dir: Option<PathBuf>,
    /// `disk`, or `memory` where there is no disk: then a restart loses what was not delivered.
    pub(super) mode: JournalMode,
    /// The most the journal may take. When sinks have been down for so long that it is full, clients are told to come again.
    pub(super) bytes_max: ByteSize,
    /// The size of one of its files; at most an eighth of `bytes_max` is used.
    pub(super) segment_bytes_max: ByteSize,
    /// How long records are kept for replay after every sink has them. They give way before that when room is needed. Nothing is kept
    /// for replay in memory.
    pub(super) retain: Duration,
    /// How long a request waits for room in a full journal before its client is told to come again.
    pub(super) ack_wait: Duration,
}

/// Where the journal is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JournalMode {
    /// On disk, fsynced before every acknowledgement.
    #[default]
    Disk,
    /// In memory: a restart loses what was not delivered.
    Memory,
}

/// `[feed]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FeedSection {
    /// Memory for spans on their way to the sinks. What does not fit is read from the journal again.
    pub(super) tail_bytes_max: ByteSize,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AdminSection {
    /// Where it is served. It has no keys of its own: keep it on loopback or inside a cluster.
    pub(super) listen: Address,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogSection {
    /// `error`, `warn`, `info`, `debug` or `trace`, also for a part of the program: `info,spanferry::pipeline=debug`.
    pub(super) level: String,
    /// `text`, `json`, or `auto`: text on a terminal, else json.
    pub(super) format: LogFormat,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The options that every sink has, beside those of its kind.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LaneSection {
    /// How spans are gathered before they are handed over: whichever bound is met first.
    pub(super) batch: BatchSection,
    /// How long to wait after a failed attempt. There is no limit to the number of attempts: the journal keeps what waits.
    pub(super) retry: RetrySection,
    /// How often the sink's place in the journal is saved. What was delivered since is delivered again after a crash, unless the
    /// sink can tell (files can).
    pub(super) commit_every: Duration,
    /// What happens when the journal is full of what this sink has not taken: `refuse` makes clients wait and come again,
    /// `drop_oldest` gives up this sink's oldest spans, and counts them.
    pub(super) when_full: WhenFull,
}

/// What happens when the journal is full because of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum WhenFull {
    /// Clients wait and come again.
    #[default]
    Refuse,
    /// The sink's oldest spans are given up and counted.
    DropOldest,
}

/// `[sinks.NAME.batch]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "all three are bounds, and are called so")]
pub(super) struct BatchSection {
    /// Spans in one delivery.
    pub(super) items_max: u32,
    /// Size of one delivery, as the spans were on the wire.
    pub(super) bytes_max: ByteSize,
    /// The longest that a span waits for company.
    pub(super) age_max: Duration,
}

/// `[sinks.NAME.retry]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetrySection {
    /// The first wait is up to this long, each next one up to twice as long.
    pub(super) first: Duration,
    /// No wait is longer, unless the sink asks for it.
    pub(super) longest: Duration,
    /// The wait between probes of a sink that refuses the credentials or the address it was given.
    pub(super) hold: Duration,
}

/// Twenty seconds leave a third of Kubernetes' thirty for what stands around the process.
const DEFAULT_SHUTDOWN_TIMEOUT: Duration = seconds(20);
/// A native sidecar is stopped after its app, so there is nothing to wait for.
const DEFAULT_DRAIN_GRACE: Duration = seconds(0);
/// The Collector's health port, so that its probes fit.
const DEFAULT_ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 13133);
/// Large enough that the cost of a request is shared by many, small enough for every backend's limit.
const DEFAULT_BATCH_ITEMS_MAX: u32 = 1000;
/// About 600 agent spans of 7 KB; most backends refuse bodies of more than 5 to 16 MB.
const DEFAULT_BATCH_BYTES_MAX: ByteSize = ByteSize(4 << 20);
/// Soon enough for somebody who watches.
const DEFAULT_BATCH_AGE_MAX: Duration = milliseconds(200);
/// Most failures are over in less than a second.
const DEFAULT_RETRY_FIRST: Duration = milliseconds(250);
/// A sink that has come back is noticed within half a minute.
const DEFAULT_RETRY_LONGEST: Duration = seconds(30);
/// A mended key or address is noticed within half a minute.
const DEFAULT_RETRY_HOLD: Duration = seconds(30);
/// Each saving is an fsync; one a second is nothing for a disk, and a second is little to deliver again.
const DEFAULT_COMMIT_EVERY: Duration = seconds(1);

const fn seconds(count: u64) -> Duration {
    Duration(std::time::Duration::from_secs(count))
}

const fn milliseconds(count: u64) -> Duration {
    Duration(std::time::Duration::from_millis(count))
}

impl Default for Sections {
    fn default() -> Self {
        Self {
            shutdown_timeout: DEFAULT_SHUTDOWN_TIMEOUT,
            drain_grace: DEFAULT_DRAIN_GRACE,
            threads: None,
            receivers: ReceiversSection::default(),
            journal: JournalSection::default(),
            feed: FeedSection::default(),
            admin: AdminSection::default(),
            log: LogSection::default(),
        }
    }
}

impl Default for JournalSection {
    fn default() -> Self {
        let options = journal::Options::default();
        Self {
            dir: None,
            mode: JournalMode::default(),
            bytes_max: ByteSize(options.bytes_max),
            segment_bytes_max: ByteSize(options.segment_bytes_max),
            retain: Duration(options.retain),
            ack_wait: Duration(DEFAULT_ACK_WAIT),
        }
    }
}

impl Default for FeedSection {
    fn default() -> Self {
        Self { tail_bytes_max: ByteSize(DEFAULT_TAIL_BYTES_MAX as u64) }
    }
}

impl Default for AdminSection {
    fn default() -> Self {
        Self { listen: Address(DEFAULT_ADMIN.into()) }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

impl Default for LaneSection {
    fn default() -> Self {
        Self {
            batch: BatchSection::default(),
            retry: RetrySection::default(),
            commit_every: DEFAULT_COMMIT_EVERY,
            when_full: WhenFull::default(),
        }
    }
}

impl Default for BatchSection {
    fn default() -> Self {
        Self {
            items_max: DEFAULT_BATCH_ITEMS_MAX,
            bytes_max: DEFAULT_BATCH_BYTES_MAX,
            age_max: DEFAULT_BATCH_AGE_MAX,
        }
    }
}

impl Default for RetrySection {
    fn default() -> Self {
        Self {
            first: DEFAULT_RETRY_FIRST,
            longest: DEFAULT_RETRY_LONGEST,
            hold: DEFAULT_RETRY_HOLD,
        }
    }
}
