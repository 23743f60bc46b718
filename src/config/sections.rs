//! The sections of a configuration file. The doc comments also appear in `config default`, in the schema and in the documentation; the
//! defaults are those of the components.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::Targets;

use crate::feed::{DEFAULT_ACK_WAIT, DEFAULT_TAIL_BYTES_MAX, FeedOptions};
use crate::journal;
use crate::normalize::Mapping;
use crate::pipeline::LaneOptions;
use crate::prices::{PriceOptions, Prices};
use crate::receivers::{DEFAULT_GRPC, DEFAULT_HTTP, ReceiverOptions};
use crate::rules::{self, Rule, Rules};
use crate::server::TlsOptions;
use crate::sinks::{Kind, Plan, http};
use crate::support::address::Address;
use crate::support::byte_size::ByteSize;
use crate::support::duration::{Duration, seconds};
use crate::support::secret::Secret;
use crate::support::written::As;

/// The entire configuration: values of the sections, followed by those that are read from the file in other ways.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long an orderly stop may take. What is left then stays in the journal for the next start. Less than the 30 s after which
    /// Kubernetes and Docker Compose (as configured here) kill.
    #[serde(with = "As::<Duration>")]
    pub shutdown_timeout: time::Duration,
    /// How long requests are still accepted after the signal to stop. An app that is stopped together with its sidecar sends its
    /// last spans after the sidecar got the signal; 2s lets them in.
    #[serde(with = "As::<Duration>")]
    pub drain_grace: time::Duration,
    /// Threads that serve requests and sinks. Without it, half the number of cores, and at least one: the journal and heavy work have their
    /// own threads, and moving work between cores costs more than it gains.
    #[schemars(example = 2)]
    pub threads: Option<u16>,
    /// Where traces are received.
    pub receivers: ReceiverOptions,
    /// Acknowledged items are kept on disk here.
    pub journal: JournalOptions,
    /// Memory between the journal and the sinks.
    pub(super) feed: FeedSection,
    /// The cost of model calls whose clients do not say it. See docs/cost.md.
    #[serde(rename = "prices")]
    pub(super) price_options: PriceOptions,
    /// Health, readiness, metrics and status.
    pub admin: AdminOptions,
    /// Where the metrics of `/metrics` are pushed to.
    pub telemetry: TelemetryOptions,
    /// The daemon's own log, on stderr.
    pub log: LogOptions,
    /// When the configuration is reloaded, besides SIGHUP and `spanferry reload`.
    pub reload: ReloadOptions,
    /// The state directory: the journal, the quarantine and the dead letters each have a folder in it.
    #[serde(skip)]
    pub state_dir: PathBuf,
    /// The user's attribute names.
    #[serde(skip)]
    pub attributes: Mapping,
    /// The rules for all sinks, in order.
    #[serde(skip)]
    pub rules: Vec<Arc<Rule>>,
    /// Tests of the rules.
    #[serde(skip)]
    pub tests: Vec<rules::Test>,
    /// Prices of calls whose clients report no cost.
    #[serde(skip)]
    pub prices: Arc<Prices>,
    /// The sinks, in the order of the file.
    #[serde(skip)]
    pub sinks: Vec<SinkConfig>,
}

/// One `[sinks.NAME]`.
#[derive(Debug)]
pub struct SinkConfig {
    /// The name: letters that are allowed in file names.
    pub name: String,
    /// Where it is defined: `spanferry.toml:4`, an environment variable, or [`DEFAULT_ORIGIN`](super::DEFAULT_ORIGIN).
    pub origin: String,
    /// The kind that `type` names.
    pub kind: &'static Kind,
    /// The options of its lane.
    pub lane: LaneOptions,
    /// Its rules, applied to spans before it gets them.
    pub rules: Arc<Rules>,
    /// Its validated options.
    pub plan: Box<dyn Plan>,
}

/// The folders of the state directory: the journal, the quarantine and the dead letters.
pub const STORES: [&str; 3] = ["journal", "quarantine", "dead-letter"];

/// `[journal]`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JournalOptions {
    /// The directory of the journal, the quarantine and the dead letters. A relative path is relative to the state directory, which is also
    /// the default: `$SPANFERRY_STATE_DIR`, `$XDG_STATE_HOME/spanferry`, `/var/lib/spanferry` where it is writable, or
    /// `~/.local/state/spanferry`; for who has no home, `spanferry-state` where it is started.
    #[schemars(example = "/var/lib/spanferry")]
    dir: Option<PathBuf>,
    /// `disk`, or `memory` where there is no disk: then a restart loses undelivered items.
    pub mode: JournalMode,
    /// The largest size of the journal. When it is full because a sink has been down for long, clients are told to retry.
    pub bytes_max: ByteSize,
    /// The size of one of its files; at most an eighth of `bytes_max` is used.
    pub(super) segment_bytes_max: ByteSize,
    /// How long records are kept for replay after every sink has them. They are removed earlier when room is needed. Nothing is kept for
    /// replay in memory.
    retain: Duration,
    /// How long a request waits for room in a full journal before its client is told to retry.
    ack_wait: Duration,
}

impl JournalOptions {
    /// The log's own options.
    pub fn options(&self) -> journal::Options {
        journal::Options {
            bytes_max: self.bytes_max.0,
            segment_bytes_max: self.segment_bytes_max.0,
            retain: match self.mode {
                JournalMode::Disk => self.retain.0,
                JournalMode::Memory => time::Duration::ZERO,
            },
            when_full: journal::WhenFull::Refuse,
        }
    }
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
    /// Memory for spans on their way to the sinks. What does not fit is read from the journal.
    pub(super) tail_bytes_max: ByteSize,
}

/// `[admin]`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminOptions {
    /// Where it is served: an address with a port, or a Unix socket such as `unix:/run/spanferry/admin.sock`.
    pub listen: Address,
    /// Keys for operators, sent as `Authorization: Bearer KEY`: a key allows commands from anywhere, metrics and status. Without keys,
    /// anybody who can reach the port sees metrics and status, and commands are accepted from the same machine only. Health and readiness
    /// need no key.
    pub tokens: Vec<Secret>,
    /// Let everybody see metrics and status even with tokens.
    pub read_without_token: bool,
    /// Add metrics of what agents did to `/metrics` (`gen_ai_*`, runs, tools, tokens; see `docs/metrics.md`). Takes at most 16 MiB, which
    /// are part of those of `traces`, and the CPU to read spans that no sink reads. A change needs a restart.
    pub agent_metrics: bool,
    /// Keep an index of traces, for `spanferry traces`, `stats` and the console. Takes at most 64 MiB, and the CPU to read spans that no
    /// sink reads. It is rebuilt from the journal after a start. A change needs a restart.
    pub traces: bool,
    /// TLS on this port. Who shows a certificate that an authority of `client_ca` has signed needs no token; probes and `spanferry`'s own
    /// commands have none to show, so let them in with `client_auth = "optional"`.
    pub tls: Option<TlsOptions>,
}

/// `[telemetry]`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryOptions {
    /// An OTLP receiver to push all of `/metrics` to, over HTTP. A change needs a restart.
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
    /// How often to push. A failed push is not repeated: the next one is complete again.
    // That of OpenTelemetry's SDKs.
    #[serde(default = "seconds::<60>")]
    pub interval: Duration,
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogOptions {
    /// `error`, `warn`, `info`, `debug` or `trace`, also for single modules: `info,spanferry::pipeline=debug`.
    pub level: String,
    /// `text`, `json`, or `auto`: text on a terminal, else json.
    pub format: LogFormat,
}

/// `[reload]`.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadOptions {
    /// Whether a changed file takes effect within seconds. Files of `${file:}` are checked each minute anyway, and within seconds while a
    /// backend refuses the credentials.
    pub watch: bool,
}

impl LogOptions {
    /// Parses the log level; `None` if it is not a list of directives.
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

/// Twenty seconds leave a third of Kubernetes' thirty for everything around the process.
const DEFAULT_SHUTDOWN_TIMEOUT: time::Duration = time::Duration::from_secs(20);
/// A native sidecar is stopped after its app, so it need not wait.
const DEFAULT_DRAIN_GRACE: time::Duration = time::Duration::ZERO;
/// The Collector's health port, so that its probes fit.
const DEFAULT_ADMIN: Address = Address::loopback(13133);

/// The options with addresses to listen on, and their defaults.
pub(super) const LISTENERS: [([&str; 2], Address); 3] = [
    (["receivers", "http"], DEFAULT_HTTP),
    (["receivers", "grpc"], DEFAULT_GRPC),
    (["admin", "listen"], DEFAULT_ADMIN),
];

impl Config {
    /// Returns the options of the memory between the journal and the lanes.
    pub fn feed_options(&self) -> FeedOptions {
        FeedOptions {
            tail_bytes_max: self.feed.tail_bytes_max.into(),
            ack_wait: self.journal.ack_wait.0,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shutdown_timeout: DEFAULT_SHUTDOWN_TIMEOUT,
            drain_grace: DEFAULT_DRAIN_GRACE,
            threads: None,
            receivers: ReceiverOptions::default(),
            journal: JournalOptions::default(),
            feed: FeedSection::default(),
            price_options: PriceOptions::default(),
            admin: AdminOptions::default(),
            telemetry: TelemetryOptions::default(),
            log: LogOptions::default(),
            reload: ReloadOptions::default(),
            state_dir: PathBuf::default(),
            attributes: Mapping::default(),
            rules: Vec::default(),
            tests: Vec::default(),
            prices: Arc::default(),
            sinks: Vec::default(),
        }
    }
}

impl Default for JournalOptions {
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
            listen: DEFAULT_ADMIN,
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
