//! `replay`: delivers what the journal still keeps once more to one sink.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::ConfigArguments;
use super::dead_letter::seconds;
use super::operator::{Place, operate};
use super::output::{Output, say, say_json, table};
use crate::admin::{Census, Command, Progress, ReplayJournalRequest, Replayed};
use crate::config::Environment;
use crate::support::rfc3339;

#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The admin port of a running daemon [default: that of the configuration, if a daemon runs on its directory]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The sink that gets it
    #[arg(long, value_name = "NAME")]
    sink: String,
    /// Only what was received since: 2026-11-21T15:00:00Z, 2026-11-21, or 2h for two hours ago
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only what was received before
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only this trace: 32 digits, or its id in the Agents SDK
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
    /// Count only
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Replays; fails when something did not arrive.
pub(super) fn run(
    arguments: &ReplayArguments,
    environment: &Environment,
    output: Output,
) -> ExitCode {
    let command = Command::ReplayJournal(ReplayJournalRequest {
        sink: arguments.sink.clone(),
        from: arguments.from.clone(),
        to: arguments.to.clone(),
        trace: arguments.trace.clone(),
        dry_run: arguments.dry_run,
    });
    let place = Place { config: Some(&arguments.config), dir: None, url: arguments.url.as_deref() };
    let replayed: Replayed = match operate(&place, command, environment, output) {
        Ok(replayed) => replayed,
        Err(code) => return code,
    };
    if arguments.json {
        say_json(&serde_json::to_value(&replayed).unwrap_or_default());
    } else {
        let census = replayed.census.as_ref().map(census_text).unwrap_or_default();
        let progress = if arguments.dry_run {
            "nothing was sent: this was a dry run\n".to_owned()
        } else {
            progress_text(&replayed.progress)
        };
        say(&format!("{census}{progress}"));
    }
    exit_code(&replayed.progress)
}

/// Success when everything that is meant arrived.
pub(super) fn exit_code(progress: &Progress) -> ExitCode {
    if progress.delivered == progress.items && progress.unreadable == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What came of a replay.
pub(super) fn progress_text(progress: &Progress) -> String {
    let mut text = format!("{} items, {} delivered\n", progress.items, progress.delivered);
    for (count, what) in [
        (progress.rejected, "rejected; they stay where they were"),
        (progress.not_understood, "not understood by this version; they stay where they were"),
        (progress.unreadable, "could not be read: damaged, or removed meanwhile"),
    ] {
        if count > 0 {
            writeln!(text, "{count} {what}").ok();
        }
    }
    for (reason, items) in &progress.reasons {
        writeln!(text, "  {items}  {reason}").ok();
    }
    text
}

fn census_text(census: &Census) -> String {
    let rows: Vec<_> = census
        .receivers
        .iter()
        .map(|(name, receiver)| {
            vec![
                name.clone(),
                receiver.records.to_string(),
                receiver.items.to_string(),
                time(receiver.first_ns),
                time(receiver.last_ns),
            ]
        })
        .collect();
    let mut text = if rows.is_empty() {
        "the journal keeps nothing of it\n".to_owned()
    } else {
        table(&["receiver", "requests", "items", "first", "last"], &rows)
    };
    if census.begins_late
        && let Some(oldest_ns) = census.oldest_ns
    {
        writeln!(
            text,
            "the journal goes back to {}: what was received before is no longer kept (journal.retain)",
            time(oldest_ns)
        )
        .ok();
    }
    if census.pending > 0 {
        writeln!(text, "{} more items are pending: the sink gets them anyway", census.pending).ok();
    }
    if census.unreadable > 0 {
        writeln!(text, "{} items of the journal cannot be read", census.unreadable).ok();
    }
    text
}

fn time(unix_ns: u64) -> String {
    let mut text = Vec::new();
    rfc3339::write(&mut text, unix_ns);
    seconds(&String::from_utf8_lossy(&text))
}
