//! `dead-letter` lists, shows, replays and drops items that sinks rejected and requests that receivers could not decode. `replay` delivers
//! what the journal still keeps to one sink again. `reload` uses the same path.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::operator::{Place, operate};
use super::output::{Column, harmless, or_dash, say, say_json, seconds, table, table_of};
use super::{Ended, Shell};
use crate::operate::{
    Command, DropRequest, Dropped, EntryView, Group, ItemCount, ListRequest, Listed, ReloadRequest,
    Reloaded, ReplayEntriesRequest, ReplayJournalRequest, Replayed, ShowRequest, counts,
};
use crate::support::rfc3339;

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetterVerb {
    /// List entries by sink and reason, and the newest one by one
    List(InStores<ListRequest>),
    /// One entry; its item and the answer of the backend only where they are asked for
    Show(InStores<ShowRequest>),
    /// Deliver entries to their sink again; those that arrive are removed. With --quarantine: receive them again
    Replay(Asked<ReplayEntriesRequest>),
    /// Give entries up; they are counted as dropped
    Drop(InStores<DropRequest>),
}

/// A command and who is to carry it out.
#[derive(Debug, Args)]
pub(super) struct Asked<C: Args> {
    #[command(flatten)]
    pub(super) place: Place,
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) request: C,
}

/// A command that needs no lanes.
#[derive(Debug, Args)]
pub(super) struct InStores<C: Args> {
    /// A state directory without a running daemon, if there is no configuration for it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["url", "files"])]
    dir: Option<PathBuf>,
    #[command(flatten)]
    asked: Asked<C>,
}

/// Runs a verb. A replay fails if something was not delivered.
pub(super) fn dead_letter(verb: DeadLetterVerb, shell: Shell<'_>) -> Ended {
    match verb {
        DeadLetterVerb::List(asked) => run(asked.with_dir(), shell, listed_text),
        DeadLetterVerb::Show(asked) => run(asked.with_dir(), shell, entry_text),
        DeadLetterVerb::Replay(asked) => run(asked, shell, replayed_text),
        DeadLetterVerb::Drop(asked) => run(asked.with_dir(), shell, |dropped: &Dropped| {
            (format!("{} items dropped\n", dropped.items), Ok(()))
        }),
    }
}

/// Replays a range of the journal; fails if something was not delivered.
pub(super) fn replay(asked: Asked<ReplayJournalRequest>, shell: Shell<'_>) -> Ended {
    let is_dry = asked.request.dry_run;
    run(asked, shell, |replayed: &Replayed| {
        if !is_dry {
            return replayed_text(replayed);
        }
        let census = replayed.census.as_ref().map(census_text).unwrap_or_default();
        (census + "dry run: nothing was sent\n", Ok(()))
    })
}

/// Makes a running daemon reload its configuration; prints what changed.
pub(super) fn reload(asked: Asked<ReloadRequest>, shell: Shell<'_>) -> Ended {
    run(asked, shell, |reloaded: &Reloaded| (format!("{reloaded}\n"), Ok(())))
}

impl<C: Args> InStores<C> {
    fn with_dir(self) -> Asked<C> {
        let place = Place { dir: self.dir, ..self.asked.place };
        Asked { place, ..self.asked }
    }
}

/// Carries out a command and prints the answer as `text` formats it, or as JSON. `text` also decides the exit code.
pub(super) fn run<C: Command + Args>(
    asked: Asked<C>,
    shell: Shell<'_>,
    text: impl FnOnce(&C::Answer) -> (String, Ended),
) -> Ended {
    let answer = operate(&asked.place, asked.request, shell)?;
    let (text, ended) = text(&answer);
    if asked.json {
        say_json(&serde_json::to_value(&answer).unwrap_or(Value::Null));
    } else {
        say(&harmless(&text));
    }
    ended
}

fn listed_text(listed: &Listed) -> (String, Ended) {
    let mut text = format!("{} entries with {} items\n", listed.entries, listed.items);
    let gone = "more items of this store can no longer be shown or replayed: they were evicted by newer ones, or are damaged";
    text += &counts([(listed.items_gone, gone)]);
    let groups: [Column<Group>; 5] = [
        ("sink", |group| or_dash(&group.sink)),
        ("items", |group| group.items.to_string()),
        ("first", |group| seconds(&group.first)),
        ("last", |group| seconds(&group.last)),
        ("reason", |group| group.reason.clone()),
    ];
    if !listed.groups.is_empty() {
        write!(text, "\n{}", table_of(&groups, &listed.groups)).ok();
    }
    let newest: [Column<EntryView>; 6] = [
        ("id", |entry| entry.id.to_string()),
        ("at", |entry| seconds(&entry.at)),
        ("sink", |entry| or_dash(&entry.sink)),
        ("receiver", |entry| entry.receiver.clone()),
        ("bytes", |entry| entry.bytes.to_string()),
        ("trace", |entry| or_dash(entry.traces.first().map_or("", String::as_str))),
    ];
    if !listed.newest.is_empty() {
        write!(text, "\n{}", table_of(&newest, &listed.newest)).ok();
    }
    (text, Ok(()))
}

fn entry_text(entry: &EntryView) -> (String, Ended) {
    let mut text = String::new();
    for (name, value) in [
        ("id", entry.id.to_string()),
        ("sink", or_dash(&entry.sink)),
        ("reason", entry.reason.clone()),
        ("at", entry.at.clone()),
        ("received", entry.received_at.clone()),
        ("receiver", entry.receiver.clone()),
        ("items", entry.items.to_string()),
        ("bytes", entry.bytes.to_string()),
        ("traces", or_dash(&entry.traces.join(" "))),
    ] {
        writeln!(text, "{name:<9} {value}").ok();
    }
    for (name, shown) in [
        ("answer", &entry.answer),
        ("payload", &entry.payload),
        ("payload, base64", &entry.payload_base64),
    ] {
        if let Some(shown) = shown {
            writeln!(text, "\n{name}\n{shown}").ok();
        }
    }
    (text, Ok(()))
}

/// Formats the result of a replay. It succeeded if all selected items were delivered.
fn replayed_text(replayed: &Replayed) -> (String, Ended) {
    let mut text = replayed.census.as_ref().map(census_text).unwrap_or_default();
    let progress = &replayed.progress;
    writeln!(text, "{} items, {} delivered", progress.items, progress.delivered).ok();
    text += &counts([
        (progress.rejected, "rejected; they stay dead letters"),
        (progress.not_understood, "not understood by this version; they stay dead letters"),
        (progress.unreadable, "could not be read: damaged, or removed in the meantime"),
    ]);
    for (reason, items) in &progress.reasons {
        writeln!(text, "  {items}  {reason}").ok();
    }
    let has_all = progress.delivered == progress.items && progress.unreadable == 0;
    (text, if has_all { Ok(()) } else { Err(ExitCode::FAILURE) })
}

fn census_text(census: &ItemCount) -> String {
    let rows = census.receivers.iter().map(|(name, receiver)| {
        let (first, last) = (time(receiver.first_ns), time(receiver.last_ns));
        vec![name.clone(), receiver.records.to_string(), receiver.items.to_string(), first, last]
    });
    let rows: Vec<_> = rows.collect();
    let mut text = if rows.is_empty() {
        "the journal has none of it\n".to_owned()
    } else {
        table(&["receiver", "requests", "items", "first", "last"], &rows)
    };
    if let Some(oldest_ns) = census.oldest_ns.filter(|_| census.begins_late) {
        let what = "older items are no longer kept (journal.retain)";
        writeln!(text, "the journal goes back to {}: {what}", time(oldest_ns)).ok();
    }
    text + &counts([
        (census.pending, "more items are still pending: the sink gets them anyway"),
        (census.unreadable, "items of the journal cannot be read"),
    ])
}

/// Formats nanoseconds since 1970 in the same way.
pub(super) fn time(unix_ns: u64) -> String {
    seconds(&rfc3339::text(unix_ns))
}
