//! `dead-letter`: what sinks would not take and what receivers could not understand, listed, shown, replayed and dropped.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::ConfigArguments;
use super::operator::{Place, operate};
use super::output::{Output, say, say_json, table};
use super::replay::{exit_code, progress_text};
use crate::admin::{
    Command, DropRequest, Dropped, LetterView, ListRequest, Listed, ReplayLettersRequest, Replayed,
    ShelfName, ShowRequest, Which,
};
use crate::config::Environment;

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetterVerb {
    /// What there is, by sink and reason, and the newest one by one
    List(ListArguments),
    /// One letter; its item and the answer of the backend only where they are asked for
    Show(ShowArguments),
    /// Give letters to their sink again; those that arrive are settled. With --quarantine: receive them again
    Replay(ReplayArguments),
    /// Give letters up; they are counted as dropped
    Drop(DropArguments),
}

#[derive(Debug, Args)]
struct PlaceArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The admin port of a running daemon [default: that of the configuration, if a daemon runs on its directory]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DirArguments {
    /// A state directory that no daemon runs on, where there is no configuration for it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["url", "files"])]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct WhichArguments {
    /// In the quarantine: what receivers could not understand
    #[arg(long)]
    quarantine: bool,
    /// Only those whose reason has this in it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only those of this trace: 32 digits, or the id in the Agents SDK
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
    /// Only those set aside since: 2026-11-21T15:00:00Z, 2026-11-21, or 2h for two hours ago
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only those set aside before
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    place: PlaceArguments,
    #[command(flatten)]
    dir: DirArguments,
    #[command(flatten)]
    which: WhichArguments,
    /// Only those of this sink
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// How many are listed one by one
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    #[command(flatten)]
    place: PlaceArguments,
    #[command(flatten)]
    dir: DirArguments,
    /// Its id, as `list` says it
    id: u64,
    /// In the quarantine
    #[arg(long)]
    quarantine: bool,
    /// Show the item itself, which is somebody's data
    #[arg(long)]
    payload: bool,
    /// Show what the backend answered, which may quote the item
    #[arg(long)]
    answer: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    #[command(flatten)]
    place: PlaceArguments,
    #[command(flatten)]
    which: WhichArguments,
    /// Ids, as `list` says them [default: all that fit]
    ids: Vec<u64>,
    /// Only those that this sink rejected
    #[arg(long, value_name = "NAME")]
    from_sink: Option<String>,
    /// Give them to this sink in place of their own
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DropArguments {
    #[command(flatten)]
    place: PlaceArguments,
    #[command(flatten)]
    dir: DirArguments,
    #[command(flatten)]
    which: WhichArguments,
    /// Ids, as `list` says them
    ids: Vec<u64>,
    /// Only those of this sink
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// All of them, where nothing is selected
    #[arg(long)]
    all: bool,
}

impl WhichArguments {
    fn which(&self, ids: &[u64], sink: Option<&String>) -> Which {
        Which {
            shelf: shelf_named(self.quarantine),
            ids: ids.to_vec(),
            sink: sink.cloned(),
            reason: self.reason.clone(),
            trace: self.trace.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
        }
    }
}

fn shelf_named(quarantine: bool) -> ShelfName {
    if quarantine { ShelfName::Quarantine } else { ShelfName::DeadLetters }
}

impl PlaceArguments {
    fn place<'a>(&'a self, dir: Option<&'a DirArguments>) -> Place<'a> {
        Place {
            config: Some(&self.config),
            dir: dir.and_then(|arguments| arguments.dir.as_ref()),
            url: self.url.as_deref(),
        }
    }
}

/// Runs a verb. A replay fails when something did not arrive.
pub(super) fn run(verb: &DeadLetterVerb, environment: &Environment, output: Output) -> ExitCode {
    let ended = match verb {
        DeadLetterVerb::List(arguments) => list(arguments, environment, output),
        DeadLetterVerb::Show(arguments) => show(arguments, environment, output),
        DeadLetterVerb::Replay(arguments) => replay(arguments, environment, output),
        DeadLetterVerb::Drop(arguments) => give_up(arguments, environment, output),
    };
    ended.unwrap_or_else(|code| code)
}

fn list(
    arguments: &ListArguments,
    environment: &Environment,
    output: Output,
) -> Result<ExitCode, ExitCode> {
    let which = arguments.which.which(&[], arguments.sink.as_ref());
    let command = Command::List(ListRequest { which, limit: arguments.limit });
    let place = arguments.place.place(Some(&arguments.dir));
    let listed: Listed = operate(&place, command, environment, output)?;
    answer(&listed, arguments.place.json, || listed_text(&listed));
    Ok(ExitCode::SUCCESS)
}

fn show(
    arguments: &ShowArguments,
    environment: &Environment,
    output: Output,
) -> Result<ExitCode, ExitCode> {
    let command = Command::Show(ShowRequest {
        shelf: shelf_named(arguments.quarantine),
        id: arguments.id,
        with_payload: arguments.payload,
        with_answer: arguments.answer,
    });
    let place = arguments.place.place(Some(&arguments.dir));
    let letter: LetterView = operate(&place, command, environment, output)?;
    answer(&letter, arguments.place.json, || letter_text(&letter));
    Ok(ExitCode::SUCCESS)
}

fn replay(
    arguments: &ReplayArguments,
    environment: &Environment,
    output: Output,
) -> Result<ExitCode, ExitCode> {
    let which = arguments.which.which(&arguments.ids, arguments.from_sink.as_ref());
    let to_sink = arguments.sink.clone();
    let command = Command::ReplayLetters(ReplayLettersRequest { which, to_sink });
    let place = arguments.place.place(None);
    let replayed: Replayed = operate(&place, command, environment, output)?;
    answer(&replayed, arguments.place.json, || progress_text(&replayed.progress));
    Ok(exit_code(&replayed.progress))
}

fn give_up(
    arguments: &DropArguments,
    environment: &Environment,
    output: Output,
) -> Result<ExitCode, ExitCode> {
    let which = arguments.which.which(&arguments.ids, arguments.sink.as_ref());
    let command = Command::Drop(DropRequest { which, all: arguments.all });
    let place = arguments.place.place(Some(&arguments.dir));
    let dropped: Dropped = operate(&place, command, environment, output)?;
    answer(&dropped, arguments.place.json, || format!("{} items dropped\n", dropped.items));
    Ok(ExitCode::SUCCESS)
}

fn answer<T: Serialize>(value: &T, as_json: bool, text: impl FnOnce() -> String) {
    if as_json {
        say_json(&serde_json::to_value(value).unwrap_or_default());
    } else {
        say(&text());
    }
}

fn listed_text(listed: &Listed) -> String {
    let mut text = format!("{} letters with {} items\n", listed.letters, listed.items);
    if !listed.groups.is_empty() {
        let rows: Vec<_> = listed
            .groups
            .iter()
            .map(|group| {
                vec![
                    or_dash(&group.sink),
                    group.items.to_string(),
                    seconds(&group.first),
                    seconds(&group.last),
                    group.reason.clone(),
                ]
            })
            .collect();
        let heads = ["sink", "items", "first", "last", "reason"];
        write!(text, "\n{}", table(&heads, &rows)).ok();
    }
    if !listed.newest.is_empty() {
        let rows: Vec<_> = listed
            .newest
            .iter()
            .map(|letter| {
                vec![
                    letter.id.to_string(),
                    seconds(&letter.at),
                    or_dash(&letter.sink),
                    letter.receiver.clone(),
                    letter.bytes.to_string(),
                    or_dash(letter.traces.first().map_or("", String::as_str)),
                ]
            })
            .collect();
        let heads = ["id", "at", "sink", "receiver", "bytes", "trace"];
        write!(text, "\n{}", table(&heads, &rows)).ok();
    }
    text
}

fn letter_text(letter: &LetterView) -> String {
    let mut text = String::new();
    for (name, value) in [
        ("id", letter.id.to_string()),
        ("sink", or_dash(&letter.sink)),
        ("reason", letter.reason.clone()),
        ("at", letter.at.clone()),
        ("received", letter.received_at.clone()),
        ("receiver", letter.receiver.clone()),
        ("items", letter.items.to_string()),
        ("bytes", letter.bytes.to_string()),
        ("traces", or_dash(&letter.traces.join(" "))),
    ] {
        writeln!(text, "{name:<9} {value}").ok();
    }
    for (name, shown) in [
        ("answer", &letter.answer),
        ("payload", &letter.payload),
        ("payload, base64", &letter.payload_base64),
    ] {
        if let Some(shown) = shown {
            writeln!(text, "\n{name}\n{shown}").ok();
        }
    }
    text
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A time without the part of a second, which tables have no room for.
pub(super) fn seconds(time: &str) -> String {
    time.split('.').next().unwrap_or_default().to_owned()
}
