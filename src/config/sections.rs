//! What a configuration file says, section by section, in its own words. The sentences here are those of `config default`, of the
//! schema and of the documentation; the defaults are those of the components.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::Targets;

use crate::feed::{DEFAULT_ACK_WAIT, DEFAULT_TAIL_BYTES_MAX};
use crate::journal;
use crate::prices::PriceOptions;
use crate::receivers::ReceiverOptions;
use crate::server::TlsOptions;
use crate::sinks::http;
use crate::support::address::{self, Address};
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;
use crate::support::secret::Secret;

/// The file but for its sinks.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
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
    pub(super) receivers: ReceiverOptions,
    /// What is acknowledged is on disk here.
    pub(super) journal: JournalSection,
    /// What is kept in memory between the journal and the sinks.
    pub(super) feed: FeedSection,
    /// What model calls cost whose clients do not say it. docs/cost.md has more.
    pub(super) prices: PriceOptions,
    /// Health, readiness, metrics and status.
    pub(super) admin: AdminOptions,
    /// Where the figures of `/metrics` go beside that.
    pub(super) telemetry: TelemetryOptions,
    /// What the daemon says of itself, on stderr.
    pub(super) log: LogOptions,
    /// When the configuration is read again, beside SIGHUP and `spanferry reload`.
    pub(super) reload: ReloadOptions,
}

/// `[journal]`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
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
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FeedSection {
    /// Memory for spans on their way to the sinks. What does not fit is read from the journal again.
    pub(super) tail_bytes_max: ByteSize,
}

/// `[admin]`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminOptions {
    /// Where it is served: an address with a port, or a Unix socket such as `unix:/run/spanferry/admin.sock`.
    #[serde(deserialize_with = "address::text")]
    #[schemars(with = "Address")]
    pub listen: String,
    /// Keys for operators, sent as `Authorization: Bearer KEY`: who has one may give commands from anywhere and see metrics and status.
    /// Without any, everybody who reaches the port sees those, and commands are taken from the same machine only. Health and readiness
    /// need none.
    pub tokens: Vec<Secret>,
    /// Let everybody see metrics and status although there are tokens.
    pub read_without_token: bool,
    /// Count on `/metrics` what agents did (`gen_ai_*`, runs, tools, tokens; `docs/metrics.md` has all): at most 16 MiB, part of those of
    /// `traces` where that is on, and the reading of spans that no sink reads. A change needs a restart.
    pub agent_metrics: bool,
    /// Know which traces there are, for `spanferry traces` and `stats`: at most 64 MiB, and the reading of spans that no sink reads. What
    /// the journal keeps is read again after a start. A change needs a restart.
    pub traces: bool,
    /// TLS on this port. Who shows a certificate that an authority of `client_ca` has signed needs no token.
    pub tls: Option<TlsOptions>,
}

/// `[telemetry]`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryOptions {
    /// A receiver of OTLP that is sent all that `/metrics` says, over HTTP. A change needs a restart.
    pub otlp: Option<OtlpMetrics>,
}

/// `[telemetry.otlp]`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpMetrics {
    /// Its base address, to which `/v1/metrics` is added, unless it ends like that.
    #[schemars(with = "String", extend("examples" = ["http://localhost:4328"]))]
    pub endpoint: http::Address,
    /// Headers for every request. The values are treated as credentials.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// How often. What is not taken is not sent again: the next time says it too.
    #[serde(default = "default_interval")]
    pub interval: Duration,
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogOptions {
    /// `error`, `warn`, `info`, `debug` or `trace`, also for a part of the program: `info,spanferry::pipeline=debug`.
    pub level: String,
    /// `text`, `json`, or `auto`: text on a terminal, else json.
    pub format: LogFormat,
}

/// `[reload]`.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadOptions {
    /// Whether a change of the files is noticed within seconds and takes effect. What `${file:}` brings in is looked at each minute
    /// anyway, and within seconds while a sink is refused.
    pub watch: bool,
}

impl LogOptions {
    /// What of the log is written; `None` where the level is no list of directives.
    pub fn filter(&self) -> Option<Targets> {
        self.level.split_whitespace().collect::<String>().parse().ok()
    }
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

/// Twenty seconds leave a third of Kubernetes' thirty for what stands around the process.
const DEFAULT_SHUTDOWN_TIMEOUT: Duration = seconds(20);
/// A native sidecar is stopped after its app, so there is nothing to wait for.
const DEFAULT_DRAIN_GRACE: Duration = seconds(0);
/// The Collector's health port, so that its probes fit.
const DEFAULT_ADMIN: &str = "127.0.0.1:13133";

/// That of OpenTelemetry's SDKs.
fn default_interval() -> Duration {
    seconds(60)
}

const fn seconds(count: u64) -> Duration {
    Duration(std::time::Duration::from_secs(count))
}

impl Default for Sections {
    fn default() -> Self {
        Self {
            shutdown_timeout: DEFAULT_SHUTDOWN_TIMEOUT,
            drain_grace: DEFAULT_DRAIN_GRACE,
            threads: None,
            receivers: ReceiverOptions::default(),
            journal: JournalSection::default(),
            feed: FeedSection::default(),
            prices: PriceOptions::default(),
            admin: AdminOptions::default(),
            telemetry: TelemetryOptions::default(),
            log: LogOptions::default(),
            reload: ReloadOptions::default(),
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

impl Default for AdminOptions {
    fn default() -> Self {
        Self {
            listen: DEFAULT_ADMIN.to_owned(),
            tokens: Vec::new(),
            read_without_token: false,
            agent_metrics: true,
            traces: true,
            tls: None,
        }
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}
