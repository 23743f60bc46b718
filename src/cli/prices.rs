//! `prices show` and `prices update`. They ask nobody: prices come from the binary, the configuration or a file.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{Output, explain, say, say_json, table};
use super::{ConfigArguments, Ended, Shell};
use crate::config;
use crate::support::clock;
use crate::support::rfc3339::{NS_PER_SECOND, SECONDS_PER_DAY};

#[derive(Debug, Subcommand)]
pub(super) enum PricesVerb {
    /// What a model costs by the prices in force, and where that is from
    Show(ShowArguments),
    /// Check a table of prices (the data of genai-prices, or LiteLLM's list) and make a small one of it for `[prices] file`
    Update(UpdateArguments),
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
    /// The day, such as 2026-11-29; without it, today
    #[arg(long, value_name = "DATE")]
    at: Option<jiff::civil::Date>,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArguments {
    /// The table that there is
    file: PathBuf,
    /// Where the small one is written; without it, to the standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// `prices`.
pub(super) fn run(verb: &PricesVerb, shell: Shell<'_>) -> Ended {
    match verb {
        PricesVerb::Show(arguments) => show(arguments, shell),
        PricesVerb::Update(arguments) => update(arguments, shell.output),
    }
}

fn show(arguments: &ShowArguments, shell: Shell<'_>) -> Ended {
    let config = shell.load(&arguments.config)?.config;
    let day = arguments.at.map(|day| day.duration_since(jiff::civil::date(1970, 1, 1)).as_secs());
    let second = day.map_or(clock::unix_now_ns() / NS_PER_SECOND, |day| {
        // The whole day, as far as prices change with days.
        u64::try_from(day).unwrap_or_default() + SECONDS_PER_DAY / 2
    });
    let (model, provider) = (&arguments.model, arguments.provider.as_deref());
    let Some(quote) = config.prices.quote(provider, model, second) else {
        let hint = "name the provider with --provider, or give it a price in [prices.overrides]";
        return Err(shell.output.fail("no price is known of this model", Some(hint)));
    };
    let known = quote.model.map(|(provider, model)| (provider.id.as_str(), model.id.as_str()));
    if arguments.json {
        let prices: serde_json::Map<_, _> =
            quote.prices.into_iter().map(|(name, price)| (name.to_owned(), price.into())).collect();
        let (provider, model) = known.unzip();
        say_json(
            &json!({ "source": quote.source, "provider": provider, "model": model, "prices": prices }),
        );
        return Ok(());
    }
    let name =
        known.map_or_else(|| model.clone(), |(provider, model)| format!("{provider} {model}"));
    say(&format!("{name} ({})\n", quote.source));
    let rows = quote.prices.into_iter().map(|(name, price)| vec![name.to_owned(), price]);
    say(&table(&["price", "US dollars"], &rows.collect::<Vec<_>>()));
    Ok(())
}

fn update(arguments: &UpdateArguments, output: Output) -> Ended {
    let path = arguments.file.display().to_string();
    let made = config::table_of(&path).map_err(|problem| output.fail(&problem, None))?;
    let (text, models) = (made.to_json(), made.models());
    match &arguments.to {
        None => say(&text),
        Some(to) => std::fs::write(to, &text).map_err(|error| {
            output.fail(&format!("cannot write {}: {error}", to.display()), None)
        })?,
    }
    let date = if made.date.is_empty() { "without a date" } else { &made.date };
    explain(&format!("{models} models of {} providers, {date}\n", made.providers.len()));
    Ok(())
}
