//! Verbs that speak of the configuration and start nothing.

use std::process::ExitCode;
use std::time::Duration;

use super::output::{Output, explain, say, say_json, table};
use super::run::small_runtime;
use super::{EXIT_CONFIG, ValidateArguments, config_mistakes};
use crate::config::{self, Config, Environment, Request};
use crate::sinks::KINDS;
use crate::support::options::did_you_mean;

/// The longest that a sink's backend is asked. Several requests with the usual timeout of 10 s fit.
const PROBE_MAX: Duration = Duration::from_secs(30);

/// What `validate` makes of a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// It is shown.
    Lenient,
    /// It is a mistake.
    Strict,
}

/// What `validate` does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Depth {
    strictness: Strictness,
    reach: Reach,
}

/// How far `validate` looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// At the configuration.
    Here,
    /// At what sinks send to as well.
    FarSides,
}

impl Depth {
    /// What the flags say.
    pub(super) fn of(arguments: &ValidateArguments) -> Self {
        Self {
            strictness: if arguments.strict { Strictness::Strict } else { Strictness::Lenient },
            reach: if arguments.probe { Reach::FarSides } else { Reach::Here },
        }
    }
}

/// `validate`.
pub(super) fn validate(
    request: &Request,
    depth: Depth,
    environment: &Environment,
    output: Output,
) -> ExitCode {
    let loaded = match config::load(request, environment) {
        Ok(loaded) => loaded,
        Err(report) => return config_mistakes(&report, output),
    };
    let files: Vec<_> = loaded.files.iter().map(|file| file.display().to_string()).collect();
    let files = if files.is_empty() { "no file".to_owned() } else { files.join(", ") };
    for variable in &loaded.unused {
        explain(&format!(
            "note: {variable} makes no sink, because the configuration names its own sinks\n"
        ));
    }
    let verdict = match (&loaded.warnings, depth.strictness) {
        (None, _) => "valid",
        (Some(warnings), Strictness::Lenient) => {
            explain(&warnings.render("warning", output.paint()));
            "valid, with warnings"
        }
        (Some(warnings), Strictness::Strict) => {
            explain(&warnings.render("error", output.paint()));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    say(&format!("{files}: {verdict}; sinks: {}\n", loaded.config.list_sinks()));
    match depth.reach {
        Reach::Here => ExitCode::SUCCESS,
        Reach::FarSides => probe(&loaded.config, output),
    }
}

/// Asks one backend after the other; a line for each.
fn probe(config: &Config, output: Output) -> ExitCode {
    let runtime = match small_runtime() {
        Ok(runtime) => runtime,
        Err(problem) => {
            output.fail(&format!("cannot start the runtime: {problem}"), None);
            return ExitCode::FAILURE;
        }
    };
    let mut code = ExitCode::SUCCESS;
    for sink in &config.sinks {
        let name = format!("{} ({})", sink.name, sink.kind.name);
        let Some(asked) = sink.plan.probe() else {
            say(&format!("{name}: there is nobody to ask\n"));
            continue;
        };
        let answer = runtime.block_on(async { tokio::time::timeout(PROBE_MAX, asked).await });
        match answer.unwrap_or_else(|_| Err(format!("no answer within {PROBE_MAX:?}"))) {
            Ok(found) => say(&format!("{name}: ok, {found}\n")),
            Err(problem) => {
                say(&format!("{name}: would not work: {problem}\n"));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// `config default`.
pub(super) fn starter() -> ExitCode {
    say(&config::starter());
    ExitCode::SUCCESS
}

/// `config schema`.
pub(super) fn schema() -> ExitCode {
    say_json(&config::schema());
    ExitCode::SUCCESS
}

/// `config commands`.
pub(super) fn commands(request: &Request, environment: &Environment, output: Output) -> ExitCode {
    let loaded = match config::load(request, environment) {
        Ok(loaded) => loaded,
        Err(report) => return config_mistakes(&report, output),
    };
    let sinks = loaded.config.sinks.iter();
    let mut installing =
        sinks.filter_map(|sink| Some((&sink.name, sink.plan.commands()?))).peekable();
    if installing.peek().is_none() {
        explain("no sink of this configuration installs anything\n");
    }
    for (name, commands) in installing {
        say(&format!("# sink {name}\n{}\n", commands.trim_end()));
    }
    ExitCode::SUCCESS
}

/// `config show`.
pub(super) fn show(request: &Request, environment: &Environment, output: Output) -> ExitCode {
    let shown = match config::show(request, environment) {
        Ok(shown) => shown,
        Err(report) => return config_mistakes(&report, output),
    };
    let mut table = "";
    for value in &shown {
        if value.table != table {
            table = &value.table;
            say(&format!("\n[{table}]\n"));
        }
        let setting = format!("{} = {}", value.key, value.value);
        say(&format!("{setting:<48} {}\n", output.faint(&format!("# {}", value.origin))));
    }
    ExitCode::SUCCESS
}

/// `kinds`.
pub(super) fn kinds(name: Option<&str>, output: Output) -> ExitCode {
    let Some(name) = name else {
        let row = |kind: &&_| {
            let kind: &crate::sinks::Kind = kind;
            vec![kind.name.to_owned(), kind.summary.to_owned()]
        };
        say(&table(&["type", "what it is"], &KINDS.iter().map(row).collect::<Vec<_>>()));
        return ExitCode::SUCCESS;
    };
    if let Some(kind) = KINDS.iter().find(|kind| kind.name == name) {
        say(&config::describe_kind(kind));
        return ExitCode::SUCCESS;
    }
    let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    output.fail("there is no such kind of sink", did_you_mean(name, &names).as_deref());
    ExitCode::FAILURE
}
