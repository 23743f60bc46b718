//! `journal`: looks into the journal, the quarantine and the dead letters of a state directory, whether a daemon runs on it or not.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ConfigArguments;
use super::output::{Output, say, say_json, table};
use crate::config::{self, Environment};
use crate::journal::{
    Damage, DirStorage, HeaderView, Inspection, SegmentCheck, Verification, inspect, repair, verify,
};
use crate::support::rfc3339;

/// The logs of a state directory.
const LOGS: &[&str] = &["journal", "quarantine", "dead-letter"];

#[derive(Debug, Subcommand)]
pub(super) enum JournalVerb {
    /// What is there: segments, cursors, damage
    Inspect(JournalArguments),
    /// Read everything and check every checksum
    Verify(JournalArguments),
    /// Settle all damage: health stops speaking of it, what was set aside stays under damaged/
    Repair(JournalArguments),
}

#[derive(Debug, Args)]
pub(super) struct JournalArguments {
    #[command(flatten)]
    pub(super) config: ConfigArguments,
    /// The state directory, or one log in it [default: that of the configuration]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What was found in one log: for people, for programs, and whether it is good.
struct Found {
    text: String,
    value: Value,
    is_good: bool,
}

/// Runs a verb over every log there is. It fails when a log cannot be read or is not whole.
pub(super) fn run(verb: &JournalVerb, environment: &Environment, output: Output) -> ExitCode {
    let (JournalVerb::Inspect(arguments)
    | JournalVerb::Verify(arguments)
    | JournalVerb::Repair(arguments)) = verb;
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => match config::load(&arguments.config.request(), environment) {
            Ok(loaded) => loaded.config.journal.dir,
            Err(report) => return super::config_mistakes(&report, output),
        },
    };
    let logs = logs_of(&dir);
    if logs.is_empty() {
        let what = format!("there is no journal in {}", dir.display());
        output.fail(&what, Some("--dir names the directory, or -c the configuration that does"));
        return ExitCode::FAILURE;
    }
    let mut all = serde_json::Map::new();
    let mut code = ExitCode::SUCCESS;
    for log in logs {
        let name = log.display().to_string();
        match look(verb, &log) {
            Ok(found) => {
                if !arguments.json {
                    say(&format!("{name}\n{}\n", found.text));
                }
                all.insert(name, found.value);
                if !found.is_good {
                    code = ExitCode::FAILURE;
                }
            }
            Err(problem) => {
                output.fail(&format!("{name}: {problem:#}"), None);
                code = ExitCode::FAILURE;
            }
        }
    }
    if arguments.json {
        say_json(&all.into());
    }
    code
}

/// The logs inside a state directory, or the directory itself when it is one.
fn logs_of(dir: &Path) -> Vec<PathBuf> {
    let inside: Vec<_> = LOGS.iter().map(|log| dir.join(log)).filter(|log| log.is_dir()).collect();
    let is_log = dir.read_dir().is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_file()))
    });
    if inside.is_empty() && is_log { vec![dir.to_owned()] } else { inside }
}

fn look(verb: &JournalVerb, log: &Path) -> anyhow::Result<Found> {
    let storage = DirStorage::existing(log)?;
    Ok(match verb {
        JournalVerb::Inspect(_) => inspected(&inspect(&storage)?),
        JournalVerb::Verify(_) => verified(&verify(&storage)?),
        JournalVerb::Repair(_) => repaired(&repair(&storage)?),
    })
}

fn inspected(found: &Inspection) -> Found {
    let segments: Vec<_> = found
        .segments
        .iter()
        .map(|segment| {
            vec![
                segment.name.clone(),
                segment.base.position.0.to_string(),
                segment.base.items.to_string(),
                size(segment.file_bytes),
                time(segment.created_ns),
                header(segment.header),
            ]
        })
        .collect();
    let cursors: Vec<_> = found
        .cursors
        .iter()
        .map(|(name, cursor)| match cursor {
            Some(cursor) => vec![
                name.clone(),
                cursor.mark.position.0.to_string(),
                found.end.items.saturating_sub(cursor.mark.items).to_string(),
                cursor.dead_lettered.to_string(),
                cursor.filtered.to_string(),
                cursor.dropped.to_string(),
            ],
            None => vec![name.clone(), "damaged".to_owned()],
        })
        .collect();
    let mut text =
        table(&["segment", "position", "items before", "size", "begun", "header"], &segments);
    writeln!(text, "end: position {}, {} items", found.end.position.0, found.end.items).ok();
    if !cursors.is_empty() {
        let heads = ["cursor", "position", "pending", "dead letters", "filtered", "dropped"];
        write!(text, "\n{}", table(&heads, &cursors)).ok();
    }
    text.push_str(&damages_text(&found.damages));
    let value = json!({
        "segments": found.segments.iter().map(|segment| json!({
            "name": segment.name,
            "position": segment.base.position.0,
            "items_before": segment.base.items,
            "bytes": segment.file_bytes,
            "begun_unix_nano": segment.created_ns,
            "header": header(segment.header),
        })).collect::<Vec<_>>(),
        "end": { "position": found.end.position.0, "items": found.end.items },
        "cursors": found.cursors.iter().map(|(name, cursor)| cursor.as_ref().map_or_else(
            || json!({ "name": name, "damaged": true }),
            |cursor| json!({
                "name": name,
                "position": cursor.mark.position.0,
                "settled": cursor.mark.items,
                "pending": found.end.items.saturating_sub(cursor.mark.items),
                "dead_lettered": cursor.dead_lettered,
                "filtered": cursor.filtered,
                "dropped": cursor.dropped,
            }),
        )).collect::<Vec<_>>(),
        "damages": damages_value(&found.damages),
    });
    Found { text, value, is_good: true }
}

fn verified(found: &Verification) -> Found {
    let rows: Vec<_> = found
        .segments
        .iter()
        .map(|segment| {
            vec![
                segment.name.clone(),
                segment.records.to_string(),
                segment.end.items.saturating_sub(segment.base.items).to_string(),
                header(segment.header),
                state(segment).to_owned(),
            ]
        })
        .collect();
    let damages: Vec<_> =
        found.segments.iter().flat_map(|segment| &segment.damages).copied().collect();
    let mut text = table(&["segment", "records", "items", "header", "state"], &rows);
    if found.torn_bytes > 0 {
        writeln!(
            text,
            "{} bytes behind the last whole record: a torn tail that was never acknowledged, or what is being written now",
            found.torn_bytes
        )
        .ok();
    }
    text.push_str(&damages_text(&damages));
    text.push_str(if found.is_whole() { "whole\n" } else { "NOT whole\n" });
    let value = json!({
        "whole": found.is_whole(),
        "torn_bytes": found.torn_bytes,
        "segments": found.segments.iter().map(|segment| json!({
            "name": segment.name,
            "records": segment.records,
            "items": segment.end.items.saturating_sub(segment.base.items),
            "header": header(segment.header),
            "damages": damages_value(&segment.damages),
            "settled": damages_value(&segment.settled),
        })).collect::<Vec<_>>(),
    });
    Found { text, value, is_good: found.is_whole() }
}

fn state(segment: &SegmentCheck) -> &'static str {
    match (segment.damages.is_empty(), segment.settled.is_empty()) {
        (true, true) => "whole",
        (true, false) => "settled",
        (false, _) => "damaged",
    }
}

fn repaired(settled: &[Damage]) -> Found {
    let text = match settled {
        [] => "no damage to settle\n".to_owned(),
        settled => format!("settled:{}", damages_text(settled)),
    };
    Found { text, value: json!({ "settled": damages_value(settled) }), is_good: true }
}

fn damages_text(damages: &[Damage]) -> String {
    let mut text = String::new();
    for damage in damages {
        writeln!(
            text,
            "\ndamage: {} and {} items cannot be read, from position {} on, in {}",
            size(damage.bytes()),
            damage.items(),
            damage.from.position.0,
            damage.segment_name(),
        )
        .ok();
    }
    text
}

fn damages_value(damages: &[Damage]) -> Value {
    damages
        .iter()
        .map(|damage| {
            json!({
                "segment": damage.segment.0,
                "from": damage.from.position.0,
                "to": damage.to.position.0,
                "items": damage.items(),
            })
        })
        .collect()
}

fn header(view: HeaderView) -> String {
    match view {
        HeaderView::Good => "good".to_owned(),
        HeaderView::Damaged => "damaged".to_owned(),
        HeaderView::Version(version) => format!("version {version}"),
        HeaderView::Missing => "missing".to_owned(),
    }
}

/// About how large, for people; JSON has the exact number.
fn size(bytes: u64) -> String {
    const UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| *unit <= bytes) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

fn time(unix_ns: u64) -> String {
    if unix_ns == 0 {
        return "unknown".to_owned();
    }
    let mut text = Vec::new();
    rfc3339::write(&mut text, unix_ns);
    // Seconds are enough here.
    text.truncate("2026-11-21T05:15:09".len());
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (4_200_605, "4.0 MiB"),
            (2 << 30, "2.0 GiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
