//! Loads the configuration: files, environment and flags become one [`Config`], or one [`Report`] of all mistakes.
//!
//! | from | how |
//! |---|---|
//! | defaults | named constants, each with its reason, next to what they limit |
//! | files | `--config` (several are merged, later ones take precedence), else `$SPANFERRY_CONFIG`, `./spanferry.toml`, `/etc/spanferry/spanferry.toml` |
//! | environment | `SPANFERRY__JOURNAL__DIR` sets `dir` of `[journal]`; `SPANFERRY_LOG` sets the log level |
//! | flags | `--log-level` and similar |
//!
//! Lower rows take precedence. If none of them defines a sink, the standard variables of SDKs do (`standard.rs`): `LANGFUSE_PUBLIC_KEY`,
//! `ELASTICSEARCH_URL`, `OTEL_EXPORTER_OTLP_ENDPOINT`. Without those, the default is a file.
//! TOML is parsed into tables with positions, the tables are merged, and `${...}` is expanded inside strings. Only then does each module
//! read its section, and each kind its sinks. So every mistake has a line and a column, a reference can supply a value but never structure,
//! and all mistakes are reported together.
//!
//! Nothing here opens a port or a journal: checking a configuration has no side effects.

mod again;
mod attributes;
mod checks;
mod environment;
mod expand;
mod layers;
mod ourselves;
mod parts;
mod prices;
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
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::rules::{self, Place, Rules};
use crate::support::options::{position, read_on};
use crate::support::problem::Problem;

pub use crate::support::terminal::Paint;
pub use again::{Effective, Origin};
pub use environment::Environment;
use layers::{Layers, Wins};
use ourselves::Ourselves;
pub use prices::table_of;
pub use report::Report;
pub use schema::schema;
pub use sections::{
    AdminOptions, Config, JournalMode, JournalOptions, LogFormat, LogOptions, OtlpMetrics,
    ReloadOptions, STORES, SinkConfig, TelemetryOptions,
};
use show::Hiding;
pub use show::Shown;
use sources::SourceKind;
pub use starter::{describe_kind, starter};

/// The default sink, used if no other is configured: JSON lines next to the journal.
pub const DEFAULT_SINK: &str = "traces";
/// Path of the default sink's files, below the state directory.
pub const DEFAULT_SINK_PATH: &str = "traces/{date}.jsonl";
const DEFAULT_SINK_KIND: &str = "file";
/// Origin of the default sink.
pub const DEFAULT_ORIGIN: &str = "default";

impl Config {
    /// Returns the rules of a sink; without one, only the rules for all sinks.
    pub fn rules_of(&self, sink: Option<&str>) -> Arc<Rules> {
        let sink = self.sinks.iter().find(|known| Some(known.name.as_str()) == sink);
        let global = || {
            let rules = Rules::compile([], self.rules.iter().cloned());
            Arc::new(rules.with_prices(Arc::clone(&self.prices)))
        };
        sink.map_or_else(global, |sink| Arc::clone(&sink.rules))
    }

    /// Lists the sinks in one line, each with its name, kind and origin.
    pub fn list_sinks(&self) -> String {
        let one =
            |sink: &SinkConfig| format!("{} ({}, {})", sink.name, sink.kind.name, sink.origin);
        self.sinks.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// The configuration arguments of the command line.
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
    /// The flag's name, including its dashes.
    pub name: &'static str,
    /// The path of keys to the value.
    pub path: &'static [&'static str],
    /// The value.
    pub value: String,
}

/// A configuration that was read without mistakes.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Probable mistakes.
    pub warnings: Option<Report>,
    /// Standard variables that are set, but unused because the configuration defines sinks.
    pub unused: Vec<&'static str>,
    /// All effective values, for comparison with another configuration.
    pub effective: Effective,
    /// The sources from which to read it again.
    pub origin: Origin,
}

impl Loaded {
    /// Lists the files that it was read from in one line, or returns `none` for the default configuration.
    pub fn list_files(&self, none: &str) -> String {
        let files = self.origin.files.iter();
        let files: Vec<_> = files.map(|(file, _)| file.display().to_string()).collect();
        if files.is_empty() { none.to_owned() } else { files.join(", ") }
    }
}

/// Reads the configuration, or reports all its mistakes.
pub fn load(request: &Request, environment: &Environment) -> Result<Loaded, Report> {
    read(Origin::new(request, environment)?)
}

fn read(origin: Origin) -> Result<Loaded, Report> {
    let (mut gathered, config) = Gathered::of(&origin)?;
    let warnings = checks::warnings(&config, &mut gathered.layers);
    Ok(Loaded {
        config,
        warnings: (!warnings.is_empty()).then(|| Report::new(warnings, &gathered.layers)),
        unused: std::mem::take(&mut gathered.unused),
        effective: Effective::of(&gathered.layers),
        origin,
    })
}

/// Runs the tests of the rules. Returns their number and the failures. The configuration must be valid, and its attribute mapping must be
/// installed first.
pub fn test(
    request: &Request,
    environment: &Environment,
) -> Result<(usize, Option<Report>), Report> {
    let origin = Origin::new(request, environment)?;
    let (gathered, config) = Gathered::of(&origin)?;
    let run = |test: &rules::Test| test.run(&config.rules_of(test.sink.as_deref()));
    let failed: Vec<_> = config.tests.iter().flat_map(run).collect();
    let report = (!failed.is_empty()).then(|| Report::new(failed, &gathered.layers));
    Ok((config.tests.len(), report))
}

/// Returns the effective configuration: each value with its origin, and the values that presets resolve to. It must be valid.
pub fn show(request: &Request, environment: &Environment) -> Result<Vec<Shown>, Report> {
    let origin = Origin::new(request, environment)?;
    let (gathered, config) = Gathered::of(&origin)?;
    Ok(show::shown(&gathered.layers, &config.sinks, Hiding::Credentials))
}

/// Reads the files, each padded for [`Layers::add_file`].
fn read_files(
    request: &Request,
    environment: &Environment,
) -> Result<Vec<(PathBuf, String)>, Report> {
    let mut base = 0;
    let read = |path: PathBuf| match environment::read_file(&path) {
        Ok(text) => {
            let padded = " ".repeat(base) + &text;
            base = padded.len() + 1;
            Ok((path, padded))
        }
        Err(error) => {
            let hint = "--config names a file, else $SPANFERRY_CONFIG does".to_owned();
            Err(Report::of(format!("cannot read {}: {error}", path.display()), Some(hint)))
        }
    };
    files(request, environment).into_iter().map(read).collect()
}

fn files(request: &Request, environment: &Environment) -> Vec<PathBuf> {
    if !request.files.is_empty() {
        return request.files.clone();
    }
    let named = environment.variable("SPANFERRY_CONFIG").map(Path::new);
    named.or_else(|| environment.usual_file()).map(Path::to_owned).into_iter().collect()
}

/// All sources, merged and expanded, before they become a [`Config`].
struct Gathered<'s> {
    layers: Layers<'s>,
    state_dir: PathBuf,
    unused: Vec<&'static str>,
    ourselves: Ourselves,
}

impl<'s> Gathered<'s> {
    fn of(Origin { files, request, environment }: &'s Origin) -> Result<(Self, Config), Report> {
        let mut layers = Layers::default();
        for (path, padded) in files {
            layers.add_file(&path.display().to_string(), padded);
        }
        layers.add_variables(environment);
        for flag in &request.flags {
            layers.add_setting(SourceKind::Flag, flag.name, flag.path, &flag.value);
        }
        layers.expand(environment);
        let ourselves = Ourselves::of(&layers, environment);
        let unused = standard::add_sinks(&mut layers, &ourselves, environment);
        let state_dir = set_defaults(&mut layers, &environment.state_dir());
        layers.find_secrets();
        parts::divide(&mut layers);
        let mut gathered = Self { layers, state_dir, unused, ourselves };
        let config = gathered.config()?;
        Ok((gathered, config))
    }

    fn config(&mut self) -> Result<Config, Report> {
        let mut problems = std::mem::take(&mut self.layers.problems);
        let (config, found) = self.read();
        problems.extend(found.into_iter().filter(|problem| !self.follows(problem)));
        // A mistake in a default value can only come from the values that it was derived from.
        let is_default = |problem: &Problem| {
            let at = problem.at.as_ref().map(|at| position(at).start);
            let source = at.and_then(|at| self.layers.sources.find(at));
            source.is_some_and(|source| source.kind == SourceKind::Default)
        };
        if !problems.iter().all(is_default) {
            problems.retain(|problem| !is_default(problem));
        }
        let config = config.filter(|_| problems.is_empty());
        config.ok_or_else(|| Report::new(problems, &self.layers))
    }

    /// Returns whether a mistake only follows from a known one.
    fn follows(&self, problem: &Problem) -> bool {
        let Some(at) = &problem.at else { return false };
        let at = position(at);
        let touches = |broken: &Range<usize>| at.start < broken.end && broken.start <= at.end;
        self.layers.broken.iter().any(touches)
    }

    fn read(&self) -> (Option<Config>, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut root = self.layers.root.clone();
        let sinks = match root.remove("sinks").map(Spanned::into_inner) {
            Some(DeValue::Table(sinks)) => sinks,
            Some(_) => {
                let hint = "write a sink as [sinks.NAME]";
                let at = self.layers.place(&["sinks"]);
                problems.push(Problem::new(at, "`sinks` is a table of sinks", hint));
                DeTable::new()
            }
            None => DeTable::new(),
        };
        let rules = root.remove("rules");
        let rules = rules::read(rules.as_ref(), Place::Global, &mut problems);
        let names: Vec<_> = sinks.keys().map(|name| name.get_ref().to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let wholes = self.layers.wholes.iter().map(|whole| whole.name.as_str());
        let all: Vec<_> = names.iter().copied().chain(wholes).collect();
        problems.extend(rules.iter().flat_map(|rule| rule.check_route(&all)));
        let tests = root.remove("tests");
        let tests = rules::read_tests(tests.as_ref(), &names, &mut problems);
        let attributes = root.remove("attributes");
        let attributes = attributes::read(attributes, &mut problems);
        let (config, found) = read_on::<Config>(Spanned::new(0..0, root), &schema());
        problems.extend(found);
        let prices = config.as_ref().map(|config| config.price_options.clone()).unwrap_or_default();
        let prices = Arc::new(prices::read(&prices, &self.layers, &mut problems));
        let global = (&rules[..], &prices);
        let sinks = sinks::read_sinks(sinks, global, &self.layers, &mut problems);
        let Some(config) = config else { return (None, problems) };
        let config = Config { state_dir: self.state_dir.clone(), ..config };
        let found = checks::problems(&config, &self.layers, &problems);
        problems.extend(found);
        problems.extend(checks::loops(&self.ourselves, &self.layers));
        (Some(Config { attributes, rules, tests, prices, sinks, ..config }), problems)
    }
}

/// Sets defaults that depend on the process's environment. Returns the state directory.
fn set_defaults(layers: &mut Layers<'_>, state_dir: &Path) -> PathBuf {
    let dir = match layers.value(&["journal", "dir"]).and_then(|value| value.get_ref().as_str()) {
        // Joining an absolute path replaces the directory.
        Some(dir) => state_dir.join(dir),
        None => state_dir.to_owned(),
    };
    let is_empty = |sinks: &DeTable<'_>| sinks.is_empty();
    let sinks = layers.value(&["sinks"]);
    let has_sinks = sinks.is_some_and(|sinks| !sinks.get_ref().as_table().is_some_and(is_empty));
    let at = layers.sources.add(SourceKind::Default, DEFAULT_ORIGIN, "".into());
    let mut set = |path: &[&str], text: String| {
        layers.set(Wins::Old, path, &at, DeValue::String(text.into()));
    };
    set(&["journal", "dir"], dir.display().to_string());
    if !has_sinks {
        set(&["sinks", DEFAULT_SINK, "type"], DEFAULT_SINK_KIND.to_owned());
        set(&["sinks", DEFAULT_SINK, "path"], dir.join(DEFAULT_SINK_PATH).display().to_string());
    }
    dir
}

#[cfg(test)]
mod tests;
