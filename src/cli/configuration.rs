//! Verbs that speak of the configuration and start nothing.

use std::process::ExitCode;

use super::output::{Output, explain, say, say_json, table};
use super::{EXIT_CONFIG, config_mistakes};
use crate::config::{self, Environment, Request};
use crate::sinks::KINDS;
use crate::support::options::did_you_mean;

/// What `validate` makes of a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    /// It is shown.
    Lenient,
    /// It is a mistake.
    Strict,
}

impl Strictness {
    /// What the flag says.
    pub(super) fn of(is_strict: bool) -> Self {
        if is_strict { Self::Strict } else { Self::Lenient }
    }
}

/// `validate`.
pub(super) fn validate(
    request: &Request,
    strictness: Strictness,
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
    let verdict = match (&loaded.warnings, strictness) {
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
    ExitCode::SUCCESS
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
