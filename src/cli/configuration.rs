//! Verbs that read the configuration and start nothing.

use std::process::ExitCode;

use super::output::{Column, Output, explain, say, say_json, table_of};
use super::{ConfigArguments, ConfigVerb, EXIT_CONFIG, Ended, Shell, config_mistakes};
use crate::config;
use crate::normalize;
use crate::sinks::{KINDS, Kind};
use crate::support::options::did_you_mean;

/// `validate`.
pub(super) fn validate(config: &ConfigArguments, strict: bool, shell: Shell<'_>) -> Ended {
    let Shell { environment, output } = shell;
    let loaded = shell.load(config)?;
    let files = loaded.list_files("no file");
    for variable in &loaded.unused {
        explain(&format!(
            "note: {variable} creates no sink, because the configuration has its own sinks\n"
        ));
    }
    if let Some(warnings) = &loaded.warnings {
        let word = if strict { "error" } else { "warning" };
        explain(&warnings.render(word, output.paint()));
        if strict {
            return Err(ExitCode::from(EXIT_CONFIG));
        }
    }
    // A mapping that was installed before matters only to daemons.
    normalize::install(&loaded.config.attributes);
    let tested = config::test(&config.request(), environment);
    let (tests, failed) = tested.map_err(|report| config_mistakes(&report, output))?;
    if let Some(failed) = failed {
        explain(&failed.render("error", output.paint()));
        explain(&format!(
            "{} expectations in {tests} tests of rules do not hold\n",
            failed.count()
        ));
        return Err(ExitCode::from(EXIT_CONFIG));
    }
    let verdict = if loaded.warnings.is_some() { "valid, with warnings" } else { "valid" };
    let tests = if tests == 0 { String::new() } else { format!("; tests passed: {tests}") };
    say(&format!("{files}: {verdict}; sinks: {}{tests}\n", loaded.config.list_sinks()));
    Ok(())
}

/// `config`.
pub(super) fn run(verb: &ConfigVerb, shell: Shell<'_>) -> Ended {
    match verb {
        ConfigVerb::Default => say(&config::starter()),
        ConfigVerb::Schema => say_json(&config::schema()),
        ConfigVerb::Show(arguments) => return show(arguments, shell),
        ConfigVerb::Commands(arguments) => return commands(arguments, shell),
    }
    Ok(())
}

/// `config commands`.
fn commands(arguments: &ConfigArguments, shell: Shell<'_>) -> Ended {
    let loaded = shell.load(arguments)?;
    let sinks = loaded.config.sinks.iter();
    let mut installing =
        sinks.filter_map(|sink| Some((&sink.name, sink.plan.commands()?))).peekable();
    if installing.peek().is_none() {
        explain("no sink of this configuration installs anything\n");
    }
    for (name, commands) in installing {
        say(&format!("# sink {name}\n{}\n", commands.trim_end()));
    }
    Ok(())
}

/// `config show`.
fn show(arguments: &ConfigArguments, shell: Shell<'_>) -> Ended {
    let Shell { environment, output } = shell;
    let shown = config::show(&arguments.request(), environment);
    let shown = shown.map_err(|report| config_mistakes(&report, output))?;
    let mut table = "";
    for value in &shown {
        if value.table != table {
            table = &value.table;
            say(&format!("\n[{table}]\n"));
        }
        let setting = format!("{} = {}", value.key, value.value);
        say(&format!("{setting:<48} {}\n", output.answer("2", &format!("# {}", value.origin))));
    }
    Ok(())
}

/// `kinds`.
pub(super) fn kinds(name: Option<&str>, output: Output) -> Ended {
    let Some(name) = name else {
        let columns: [Column<&Kind>; 2] =
            [("type", |kind| kind.name.to_owned()), ("what it is", |kind| kind.summary.to_owned())];
        say(&table_of(&columns, KINDS));
        return Ok(());
    };
    if let Some(kind) = KINDS.iter().find(|kind| kind.name == name) {
        say(&config::describe_kind(kind));
        return Ok(());
    }
    let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    Err(output.fail("there is no such sink type", did_you_mean(name, &names).as_deref()))
}
