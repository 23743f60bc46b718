//! `prices show` and `prices update`. Neither uses the network: prices come from the binary, the configuration or a file.

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::{Args, Subcommand};
use jiff::civil::{Date, date};
use serde_json::json;

use super::output::{explain, say, say_json, table};
use super::{ConfigArguments, Ended, Shell};
use crate::config;
use crate::support::clock;
use crate::support::rfc3339::{NS_PER_SECOND, SECONDS_PER_DAY};

#[derive(Debug, Subcommand)]
pub(super) enum PricesVerb {
    /// Show what a model costs by the prices in force, and their source
    Show(ShowArguments),
    /// Check a newer price table (the data of genai-prices), and write it where `[prices] file` finds it
    Update {
        /// The newer table
        file: PathBuf,
        /// Where it is put; without this, it is only checked
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The model, as spans name it
    model: String,
    /// Who serves it, as spans name that
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// The day, such as 2026-11-29; without it, now
    #[arg(long, value_name = "DATE")]
    at: Option<Date>,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

/// `prices`.
pub(super) fn run(verb: &PricesVerb, shell: Shell<'_>) -> Ended {
    match verb {
        PricesVerb::Show(arguments) => show(arguments, shell),
        PricesVerb::Update { file, to } => update(file, to.as_deref(), shell),
    }
}

fn show(arguments: &ShowArguments, shell: Shell<'_>) -> Ended {
    let config = shell.load(&arguments.config)?.config;
    // For prices that change within a day, the price at noon is shown.
    let noon = |day: Date| {
        day.duration_since(date(1970, 1, 1)).as_secs().cast_unsigned() + SECONDS_PER_DAY / 2
    };
    let second = arguments.at.map_or_else(|| clock::unix_now_ns() / NS_PER_SECOND, noon);
    let (name, provider) = (&arguments.model, arguments.provider.as_deref());
    let Some(quote) = config.prices.quote(provider, name, second) else {
        let hint = "name the provider with --provider, or set a price in [prices.overrides]";
        return Err(shell.output.fail("there is no price for this model", Some(hint)));
    };
    let (provider, model) = quote.model.map(|(provider, model)| (&provider.id, &model.id)).unzip();
    if arguments.json {
        let prices: serde_json::Map<_, _> =
            quote.prices.into_iter().map(|(name, price)| (name.to_owned(), price.into())).collect();
        let (source, model) = (quote.source, model.unwrap_or(name));
        say_json(
            &json!({ "source": source, "provider": provider, "model": model, "prices": prices }),
        );
        return Ok(());
    }
    let names = provider.into_iter().map(String::as_str).chain([model.unwrap_or(name).as_str()]);
    say(&format!("{} ({})\n", names.collect::<Vec<_>>().join(" "), quote.source));
    let rows = quote.prices.into_iter().map(|(name, price)| vec![name.to_owned(), price]);
    say(&table(&["price", "US dollars"], &rows.collect::<Vec<_>>()));
    Ok(())
}

fn update(file: &Path, to: Option<&Path>, shell: Shell<'_>) -> Ended {
    let made = config::table_of(file).map_err(|problem| shell.output.fail(&problem, None))?;
    if let Some(to) = to {
        put(file, &made.date, to).map_err(|error| {
            shell.output.fail(&format!("cannot write {}: {error}", to.display()), None)
        })?;
    }
    let (models, providers, date) = (made.models(), made.providers.len(), &made.date);
    explain(&format!("{models} models of {providers} providers, table:{date}\n"));
    Ok(())
}

/// Replaces a table atomically, with its date added if it has none.
fn put(file: &Path, date: &str, to: &Path) -> io::Result<()> {
    let mut text = fs::read_to_string(file)?;
    if text.trim_start().starts_with('[') {
        text = format!("{{\"date\":\"{date}\",\"providers\":{text}}}\n");
    }
    let new = to.with_added_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, to)
}
