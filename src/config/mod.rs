//! Loads the configuration: files, environment and flags become one [`Config`], or one [`Report`] of everything that is wrong.
//!
//! | from | how |
//! |---|---|
//! | defaults | each is a named constant with its reason, beside what it limits |
//! | files | `--config` (several: tables merge, later ones win), else `$SPANFERRY_CONFIG`, `./spanferry.toml`, `/etc/spanferry/spanferry.toml` |
//! | environment | `SPANFERRY__JOURNAL__DIR` sets `dir` of `[journal]`; `SPANFERRY_LOG` the log's level |
//! | flags | `--log-level` and its like |
//!
//! What stands further down wins. Where none of these names a sink, the standard variables of SDKs do (`standard.rs`):
//! `LANGFUSE_PUBLIC_KEY`, `ELASTICSEARCH_URL`, `OTEL_EXPORTER_OTLP_ENDPOINT`; and without them there is a file. TOML is parsed to a table that knows where everything stands; the tables are merged, `${...}` is
//! expanded inside the strings, and only then each section and each sink is read by whoever it belongs to. So every mistake has its
//! line and column, a reference can bring a value but never structure, and all mistakes are shown at once.
//!
//! Nothing here opens a port or a journal: checking a configuration has no effect.

mod attributes;
mod checks;
mod environment;
mod expand;
mod layers;
mod ourselves;
mod receivers;
mod report;
mod schema;
mod sections;
mod show;
mod sinks;
mod sources;
mod standard;
mod starter;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use tracing_subscriber::filter::Targets;

use crate::feed::FeedOptions;
use crate::journal;
use crate::normalize::Mapping;
use crate::pipeline::LaneOptions;
use crate::receivers::ReceiverOptions;
use crate::sinks::{Kind, Plan};
use crate::support::options::{position, read_on};
use crate::support::problem::Problem;

pub use environment::Environment;
use layers::{Layers, Setting};
use ourselves::Ourselves;
pub use report::{Paint, Report};
pub use schema::schema;
use sections::Sections;
pub use sections::{JournalMode, LogFormat};
pub use show::Shown;
use sources::{SourceKind, Sources};
pub use starter::{describe_kind, starter};

/// The sink that is there when no other is named: JSON lines beside the journal.
pub const DEFAULT_SINK: &str = "traces";
/// Where the default sink writes, below the state directory.
pub const DEFAULT_SINK_PATH: &str = "traces/{date}.jsonl";
const DEFAULT_SINK_KIND: &str = "file";
/// Where a sink comes from that nobody named.
pub const DEFAULT_ORIGIN: &str = "default";

/// Everything the daemon is told.
#[derive(Debug)]
pub struct Config {
    /// Where the Agents SDK's ingest and OTLP over HTTP are served, and gRPC.
    pub receivers: ReceiverOptions,
    /// Where acknowledged records lie.
    pub journal: JournalConfig,
    /// The memory between the journal and the lanes.
    pub feed: FeedOptions,
    /// What the user says of attributes.
    pub attributes: Mapping,
    /// Where health, metrics and status are served.
    pub admin: AdminConfig,
    /// The sinks, in the order of the file.
    pub sinks: Vec<SinkConfig>,
    /// What the daemon says of itself.
    pub log: LogConfig,
    /// How long a stop may take.
    pub shutdown_timeout: Duration,
    /// How long requests are accepted after the signal to stop.
    pub drain_grace: Duration,
    /// Runtime threads; `None` for half as many as there are cores.
    pub threads: Option<usize>,
}

/// `[journal]`.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// The state directory: the journal, the quarantine and the dead letters each have a folder in it.
    pub dir: PathBuf,
    /// On disk or in memory.
    pub mode: JournalMode,
    /// The log's own options.
    pub options: journal::Options,
}

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Address of the admin port.
    pub listen: String,
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Directives such as `info` or `info,spanferry::pipeline=debug`.
    pub level: String,
    /// How lines are written.
    pub format: LogFormat,
}

impl LogConfig {
    /// What of the log is written.
    pub fn filter(&self) -> Targets {
        checks::log_filter(&self.level).unwrap_or_default()
    }
}

/// One `[sinks.NAME]`.
#[derive(Debug)]
pub struct SinkConfig {
    /// NAME: letters that a file's name can have.
    pub name: String,
    /// Where it is named: `spanferry.toml:4`, an environment variable, or [`DEFAULT_ORIGIN`].
    pub origin: String,
    /// What `type` says.
    pub kind: &'static Kind,
    /// How its lane works.
    pub lane: LaneOptions,
    /// Its own options, checked.
    pub plan: Box<dyn Plan>,
}

impl Config {
    /// The sinks in one line: the name of each, its kind, and where it is named.
    pub fn list_sinks(&self) -> String {
        let one =
            |sink: &SinkConfig| format!("{} ({}, {})", sink.name, sink.kind.name, sink.origin);
        self.sinks.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The files of `--config`.
    pub files: Vec<PathBuf>,
    /// Flags that set a value.
    pub flags: Vec<Flag>,
}

/// A flag that sets a value.
#[derive(Debug, Clone)]
pub struct Flag {
    /// With its dashes.
    pub name: &'static str,
    /// The keys that lead to the value.
    pub path: &'static [&'static str],
    /// The value.
    pub value: String,
}

/// A configuration that was read without a mistake.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// The files it was read from; none in the zero configuration.
    pub files: Vec<PathBuf>,
    /// What is probably not meant so.
    pub warnings: Option<Report>,
    /// Standard variables that are set and would make a sink, had the configuration named none.
    pub unused: Vec<&'static str>,
}

/// Reads the configuration, or says everything that is wrong with it.
pub fn load(request: &Request, environment: &Environment) -> Result<Loaded, Report> {
    gather(request, environment, |gathered| {
        let config = gathered.config()?;
        let warnings = checks::warnings(&config, &mut gathered.layers);
        let warnings = (!warnings.is_empty())
            .then(|| Report::new(warnings, gathered.sources, &gathered.layers));
        let unused = std::mem::take(&mut gathered.unused);
        Ok(Loaded { config, files: gathered.files.clone(), warnings, unused })
    })
}

/// The effective configuration: each value with where it comes from, and what presets come to. It must be without mistakes.
pub fn show(request: &Request, environment: &Environment) -> Result<Vec<Shown>, Report> {
    gather(request, environment, |gathered| {
        let config = gathered.config()?;
        Ok(show::shown(gathered.sources, &gathered.layers, &config.sinks))
    })
}

/// All sources, merged and expanded, on their way to a [`Config`].
struct Gathered<'s> {
    sources: &'s Sources,
    layers: Layers<'s>,
    files: Vec<PathBuf>,
    state_dir: PathBuf,
    unused: Vec<&'static str>,
    ourselves: Ourselves,
}

fn gather<R>(
    request: &Request,
    environment: &Environment,
    then: impl FnOnce(&mut Gathered<'_>) -> Result<R, Report>,
) -> Result<R, Report> {
    let files = files(request, environment);
    let mut sources = Sources::default();
    for path in &files {
        let name = path.display().to_string();
        let text = environment::read_file(path).map_err(|error| {
            let hint = "--config names a file, else $SPANFERRY_CONFIG does".to_owned();
            Report::of(format!("cannot read {name}: {error}"), Some(hint))
        })?;
        sources.add(SourceKind::File, &name, text);
    }
    let mut settings = layers::variable_settings(environment);
    settings.extend(request.flags.iter().map(|flag| Setting {
        kind: SourceKind::Flag,
        name: flag.name.to_owned(),
        path: flag.path.iter().map(|&key| key.to_owned()).collect(),
        value: flag.value.clone(),
    }));
    for setting in &settings {
        sources.add(setting.kind, &setting.name, setting.name.clone());
    }
    let standard = standard::sinks(environment, &mut sources);
    let defaults = sources.add(SourceKind::Default, DEFAULT_ORIGIN, String::new());
    let mut layers = Layers::read(&sources, &settings);
    layers.expand(&sources, environment);
    let ourselves = Ourselves::of(&layers, environment);
    let unused = if layers.name_a_sink(&sources) {
        standard.iter().map(|sink| sink.sign).filter(|sign| !layers.refers_to(sign)).collect()
    } else {
        for sink in &standard {
            sink.apply(environment, &ourselves, &mut layers);
        }
        Vec::new()
    };
    let state_dir = set_defaults(&mut layers, defaults, &environment.state_dir());
    then(&mut Gathered { sources: &sources, layers, files, state_dir, unused, ourselves })
}

fn files(request: &Request, environment: &Environment) -> Vec<PathBuf> {
    if !request.files.is_empty() {
        return request.files.clone();
    }
    match environment.variable("SPANFERRY_CONFIG") {
        Some(file) => vec![PathBuf::from(file)],
        None => environment.usual_file().map(Path::to_owned).into_iter().collect(),
    }
}

/// Sets what depends on where the process runs. Returns the state directory.
fn set_defaults(layers: &mut Layers<'_>, defaults: usize, state_dir: &Path) -> PathBuf {
    let dir = match layers.value(&["journal", "dir"]).and_then(|value| value.get_ref().as_str()) {
        // What is absolute replaces what it is joined to.
        Some(dir) => state_dir.join(dir),
        None => state_dir.to_owned(),
    };
    let text = |text: String| DeValue::String(text.into());
    layers.set_default(defaults, &["journal", "dir"], text(dir.display().to_string()));
    let sinks = layers.value(&["sinks"]).map(Spanned::get_ref);
    let has_sinks = match sinks {
        None => false,
        Some(DeValue::Table(sinks)) => !sinks.is_empty(),
        Some(_) => true,
    };
    if !has_sinks {
        let path = dir.join(DEFAULT_SINK_PATH).display().to_string();
        layers.set_default(
            defaults,
            &["sinks", DEFAULT_SINK, "type"],
            text(DEFAULT_SINK_KIND.to_owned()),
        );
        layers.set_default(defaults, &["sinks", DEFAULT_SINK, "path"], text(path));
    }
    dir
}

impl Gathered<'_> {
    /// Reads what was gathered.
    fn config(&mut self) -> Result<Config, Report> {
        let mut problems = std::mem::take(&mut self.layers.problems);
        let (config, found) = self.read();
        problems.extend(found.into_iter().filter(|problem| !self.follows(problem)));
        // A default can only be wrong because of what it was made from.
        if let Some(default) = self.sources.iter().last() {
            let is_default = |at: &Range<usize>| default.base <= position(at).start;
            let others =
                problems.iter().filter(|problem| !problem.at.as_ref().is_some_and(is_default));
            if others.count() > 0 {
                problems.retain(|problem| !problem.at.as_ref().is_some_and(is_default));
            }
        }
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ if problems.is_empty() => {
                Err(Report::of("the configuration cannot be read".to_owned(), None))
            }
            _ => Err(Report::new(problems, self.sources, &self.layers)),
        }
    }

    /// Whether a mistake is only what follows from one that is known.
    fn follows(&self, problem: &Problem) -> bool {
        let Some(at) = &problem.at else { return false };
        let at = position(at);
        let touches = |broken: &Range<usize>| at.start < broken.end && broken.start <= at.end;
        self.layers.broken.iter().any(touches)
    }

    fn read(&self) -> (Option<Config>, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut root = self.layers.root.clone();
        let sinks = match root.get_mut().remove("sinks").map(Spanned::into_inner) {
            Some(DeValue::Table(sinks)) => sinks,
            Some(_) => {
                problems.push(Problem {
                    at: self.layers.place(&["sinks"]),
                    what: "`sinks` is a table of sinks".to_owned(),
                    hint: Some("begin a sink with [sinks.NAME]".to_owned()),
                });
                DeTable::new()
            }
            None => DeTable::new(),
        };
        let sinks = sinks::read_sinks(&sinks, self.sources, &mut problems);
        let attributes = root.get_mut().remove("attributes");
        let attributes = attributes::read(attributes.as_ref(), &mut problems);
        let (sections, found) = read_on::<Sections>(root, &schema());
        problems.extend(found);
        let Some(sections) = sections else { return (None, problems) };
        let found = checks::problems(&sections, &self.layers, self.sources, &problems);
        problems.extend(found);
        problems.extend(checks::loops(&self.ourselves, &self.layers));
        (Some(self.assemble(sections, attributes, sinks)), problems)
    }

    fn assemble(&self, sections: Sections, attributes: Mapping, sinks: Vec<SinkConfig>) -> Config {
        let Sections { receivers, journal, feed, admin, log, .. } = sections;
        Config {
            receivers: receivers.options(),
            journal: JournalConfig {
                dir: self.state_dir.clone(),
                mode: journal.mode,
                options: journal::Options {
                    bytes_max: journal.bytes_max.0,
                    segment_bytes_max: journal.segment_bytes_max.0,
                    retain: match journal.mode {
                        JournalMode::Disk => journal.retain.0,
                        JournalMode::Memory => Duration::ZERO,
                    },
                    when_full: journal::WhenFull::Refuse,
                },
            },
            feed: FeedOptions {
                tail_bytes_max: feed.tail_bytes_max.as_usize(),
                ack_wait: journal.ack_wait.0,
            },
            attributes,
            admin: AdminConfig { listen: admin.listen.to_string() },
            sinks,
            log: LogConfig { level: log.level, format: log.format },
            shutdown_timeout: sections.shutdown_timeout.0,
            drain_grace: sections.drain_grace.0,
            threads: sections.threads.map(usize::from).filter(|threads| *threads > 0),
        }
    }
}

#[cfg(test)]
mod tests;
