//! The command line: verbs, output and exit codes.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | success, or nothing wrong |
//! | 1 | failure: a port in use, a daemon that does not answer, a damaged journal |
//! | 2 | invalid arguments |
//! | 78 | the configuration has mistakes (`EX_CONFIG` of `sysexits.h`) |
//!
//! Results go to standard output, everything else to stderr. Colours are used only on a terminal, and never if `NO_COLOR` is set.

mod client;
mod configuration;
mod demo;
mod doctor;
mod health;
mod import;
mod journal;
mod look;
mod operate;
mod operator;
mod output;
mod prices;
mod reach;
mod rules;
mod run;
mod send;
mod top;
#[cfg(test)]
mod operate_tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{self, Environment, Flag, Loaded, Report, Request};
use crate::operate::{ReloadRequest, ReplayJournalRequest, StatsRequest, TracesRequest};
use output::{Output, explain, say, say_json};

/// `EX_CONFIG`.
const EXIT_CONFIG: u8 = 78;

/// Carries AI-agent traces, durably, to where people look at them.
///
/// Without a command it runs the daemon. Without a configuration it listens on loopback, keeps a journal and writes JSON lines to the state
/// directory.
#[derive(Debug, Parser)]
#[command(name = "spanferry", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon (the default command)
    Run(RunArguments),
    /// Check a configuration and show all its mistakes, without starting anything
    Validate {
        #[command(flatten)]
        config: ConfigArguments,
        /// Treat warnings as errors
        #[arg(long)]
        strict: bool,
    },
    /// Print the starter file, the configuration in force, or the JSON Schema
    #[command(subcommand)]
    Config(ConfigVerb),
    /// List the sink types, or the options of one
    Kinds {
        /// A sink type, to see its options
        name: Option<String>,
    },
    /// Check the health of a running daemon; for container health checks
    Healthcheck(health::HealthArguments),
    /// Check everything a daemon needs (disk, addresses, limits, each sink's backend) and the running daemon, and say what to do
    Doctor(doctor::DoctorArguments),
    /// Send a demo agent trace to a running daemon, in both formats
    Send(send::SendArguments),
    /// Import stored traces into a running daemon: archives, JSON lines, OTLP, Agents SDK bodies
    Import(import::ImportArguments),
    /// Inspect, verify or repair the journal
    #[command(subcommand)]
    Journal(journal::JournalVerb),
    /// List, show, replay or drop items that sinks rejected
    #[command(subcommand)]
    DeadLetter(operate::DeadLetterVerb),
    /// Deliver items from the journal to a sink again
    Replay(operate::Asked<ReplayJournalRequest>),
    /// Reload a running daemon's configuration, as SIGHUP does, and print what changed
    Reload(operate::Asked<ReloadRequest>),
    /// List traces, newest first: what agents did, how long it took, what it cost
    Traces(operate::Asked<TracesRequest>),
    /// Follow the traces of a running daemon: one line each time a trace grows
    Tail(operate::Asked<TracesRequest>),
    /// Export selected traces of a running daemon: JSON lines, OTLP, Agents SDK items, Markdown
    Export(operate::Asked<look::Exported>),
    /// Show one trace, or verify that all of it arrived
    #[command(subcommand)]
    Trace(look::TraceVerb),
    /// Watch agents at work: rates, slowest and most expensive traces, failures, sums by agent and model
    Top(operate::Asked<top::Watched>),
    /// Statistics by agent, tool, model or handoff: calls, durations, errors, tokens, cost
    Stats(operate::Asked<StatsRequest>),
    /// Show what a configuration's rules do to spans
    #[command(subcommand)]
    Rules(rules::RulesVerb),
    /// Show what a model costs, or update the table of `[prices] file`
    #[command(subcommand)]
    Prices(prices::PricesVerb),
    /// Print the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// The arguments that select a configuration.
#[derive(Debug, Clone, Default, Args)]
struct ConfigArguments {
    /// A configuration file; several are merged, later ones win. Without one: `$SPANFERRY_CONFIG`, `./spanferry.toml` or
    /// `/etc/spanferry/spanferry.toml`
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default, Args)]
struct RunArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Address for OTLP over HTTP and the Agents SDK's ingest
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// Address for OTLP over gRPC
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<String>,
    /// Address for health, metrics and status
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Directory for the journal
    #[arg(long, value_name = "DIR")]
    journal_dir: Option<String>,
    /// Log level: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Log format: auto, text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Print a starter file: every option with its meaning and default
    Default,
    /// Print every value in force and where it comes from, without credentials
    Show(ConfigArguments),
    /// The JSON Schema of a configuration file, for editors
    Schema,
    /// Print what sinks install in their backends (index templates), as commands for an administrator
    Commands(ConfigArguments),
}

/// Runs the command line; returns the exit code of the process.
pub fn run() -> ExitCode {
    let environment = Environment::of_process();
    let output = Output::of_process(&environment);
    let arguments = match Arguments::parse_from_all(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(help) => {
            // Help and version also arrive here, with exit code 0.
            help.print().ok();
            return u8::try_from(help.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let shell = Shell { environment: &environment, output };
    let ended = match arguments.verb.unwrap_or(Verb::Run(arguments.run)) {
        Verb::Run(arguments) => run::run(&arguments.request(), shell),
        Verb::Validate { config, strict } => configuration::validate(&config, strict, shell),
        Verb::Config(verb) => configuration::run(&verb, shell),
        Verb::Kinds { name } => configuration::kinds(name.as_deref(), output),
        Verb::Healthcheck(arguments) => health::check(&arguments, shell),
        Verb::Doctor(arguments) => doctor::doctor(&arguments, shell),
        Verb::Send(arguments) => send::send(&arguments, shell),
        Verb::Import(arguments) => import::import(&arguments, shell),
        Verb::Journal(verb) => journal::run(&verb, shell),
        Verb::DeadLetter(verb) => operate::dead_letter(verb, shell),
        Verb::Replay(asked) => operate::replay(asked, shell),
        Verb::Reload(asked) => operate::reload(asked, shell),
        Verb::Traces(asked) => look::traces(asked, shell),
        Verb::Tail(asked) => look::tail(asked, shell),
        Verb::Export(asked) => look::export(asked, shell),
        Verb::Trace(verb) => look::trace(verb, shell),
        Verb::Top(asked) => top::top(asked, shell),
        Verb::Stats(asked) => look::stats(asked, shell),
        Verb::Rules(verb) => rules::run(&verb, shell),
        Verb::Prices(verb) => prices::run(&verb, shell),
        Verb::Version { json } => {
            if json {
                say_json(&about());
            } else {
                say(&format!("{}\n", about_in_one_line()));
            }
            Ok(())
        }
    };
    ended.and_then(|()| output.heard()).err().unwrap_or(ExitCode::SUCCESS)
}

/// The end of a verb: success, or an exit code after the error was printed.
type Ended = Result<(), ExitCode>;

/// The surroundings of every verb.
#[derive(Clone, Copy)]
struct Shell<'e> {
    environment: &'e Environment,
    output: Output,
}

impl Shell<'_> {
    /// Reads the configuration, or prints its mistakes.
    fn load(self, arguments: &ConfigArguments) -> Result<Loaded, ExitCode> {
        let loaded = config::load(&arguments.request(), self.environment);
        loaded.map_err(|report| config_mistakes(&report, self.output))
    }
}

impl Arguments {
    /// Parses the arguments. Only `-c` may also precede a verb: other options there belong to a run without a verb.
    fn parse_from_all(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments = Self::try_parse_from(words)?;
        match arguments.run.request().flags.first() {
            Some(flag) if arguments.verb.is_some() => {
                let what = format!("{} cannot precede a verb", flag.name);
                Err(Self::command().error(ErrorKind::ArgumentConflict, what))
            }
            _ => Ok(arguments),
        }
    }
}

impl ConfigArguments {
    fn request(&self) -> Request {
        Request { files: self.files.clone(), flags: Vec::new() }
    }
}

impl RunArguments {
    fn request(&self) -> Request {
        let flags: [(&'static str, &'static [&'static str], &Option<String>); 6] = [
            ("--http", &["receivers", "http"], &self.http),
            ("--grpc", &["receivers", "grpc"], &self.grpc),
            ("--admin", &["admin", "listen"], &self.admin),
            ("--journal-dir", &["journal", "dir"], &self.journal_dir),
            ("--log-level", &["log", "level"], &self.log_level),
            ("--log-format", &["log", "format"], &self.log_format),
        ];
        let set = |(name, path, value): (_, _, &Option<String>)| {
            value.clone().map(|value| Flag { name, path, value })
        };
        Request {
            files: self.config.files.clone(),
            flags: flags.into_iter().filter_map(set).collect(),
        }
    }
}

/// Prints the mistakes of the configuration.
fn config_mistakes(report: &Report, output: Output) -> ExitCode {
    explain(&report.render("error", output.paint()));
    let count = report.count();
    let mistakes = if count == 1 { "mistake" } else { "mistakes" };
    explain(&format!("{count} {mistakes}; nothing was done\n"));
    ExitCode::from(EXIT_CONFIG)
}

/// Returns this program's version and platform.
fn about() -> serde_json::Value {
    serde_json::json!({
        "name": "spanferry",
        "version": env!("CARGO_PKG_VERSION"),
        "architecture": std::env::consts::ARCH,
        "system": std::env::consts::OS,
    })
}

/// Formats the same as text.
fn about_in_one_line() -> String {
    let [version, architecture, system] =
        [env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS];
    format!("spanferry {version} ({architecture}-{system})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::parse_from_all(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_configuration_may_be_named_before_a_verb_and_behind_it() {
        for line in [
            "spanferry -c a journal verify",
            "spanferry journal -c a verify",
            "spanferry journal verify -c a",
        ] {
            let Ok(Some(Verb::Journal(verb))) = parse(line).map(|parsed| parsed.verb) else {
                panic!("{line}")
            };
            let journal::JournalVerb::Verify(arguments) = verb else { panic!("{line}") };
            assert_eq!(arguments.config.files, [PathBuf::from("a")], "{line}");
        }
        let validate = parse("spanferry -c a validate").unwrap().verb;
        assert!(matches!(validate, Some(Verb::Validate { config, .. }) if config.files.len() == 1));
        assert!(parse("spanferry --http b validate").is_err(), "it would be without effect");
    }

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_a_verb_it_runs_with_the_same_arguments() {
        let with =
            Arguments::try_parse_from(["spanferry", "run", "-c", "a", "--http", "b"]).unwrap();
        let without = Arguments::try_parse_from(["spanferry", "-c", "a", "--http", "b"]).unwrap();
        let Some(Verb::Run(with)) = with.verb else { panic!("not run") };
        assert!(without.verb.is_none());
        assert_eq!(format!("{with:?}"), format!("{:?}", without.run));
        let flags: Vec<_> = with.request().flags.iter().map(|flag| flag.name).collect();
        assert_eq!(flags, ["--http"]);
    }
}
