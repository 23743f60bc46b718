//! `journal`: reads the journal, the quarantine and the dead letters of a state directory, with or without a running daemon.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::operate::time;
use super::output::{say, say_json, table};
use super::{ConfigArguments, Ended, Shell};
use crate::config::STORES;
use crate::journal::{
    BadHeader, Cursor, Damage, DirStorage, Inspection, SegmentCheck, SegmentView, Verification,
    inspect, is_of_log, repair, verify,
};

#[derive(Debug, Subcommand)]
pub(super) enum JournalVerb {
    /// Show segments, cursors and damage
    Inspect(JournalArguments),
    /// Read everything and check every checksum
    Verify(JournalArguments),
    /// Settle all damage: health no longer reports it; what was set aside stays in damaged/
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

/// The result for one log: for people, and for programs.
type LogReport = (String, Value);

/// Runs a verb on every log. Fails if a log is unreadable or damaged.
pub(super) fn run(verb: &JournalVerb, shell: Shell<'_>) -> Ended {
    let output = shell.output;
    let (JournalVerb::Inspect(arguments)
    | JournalVerb::Verify(arguments)
    | JournalVerb::Repair(arguments)) = verb;
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => shell.load(&arguments.config)?.config.state_dir,
    };
    let logs = logs_of(&dir);
    if logs.is_empty() {
        let what = format!("there is no journal in {}", dir.display());
        let hint = "name the directory with --dir, or the configuration with -c";
        return Err(output.fail(&what, Some(hint)));
    }
    let mut all = serde_json::Map::new();
    let mut ended = Ok(());
    for log in logs {
        let name = log.display().to_string();
        match look(verb, &log) {
            Ok((text, value)) => {
                if !arguments.json {
                    say(&format!("{name}\n{text}\n"));
                }
                if value.get("whole") == Some(&Value::Bool(false)) {
                    ended = Err(ExitCode::FAILURE);
                }
                all.insert(name, value);
            }
            Err(problem) => ended = Err(output.fail(&format!("{name}: {problem:#}"), None)),
        }
    }
    if arguments.json {
        say_json(&all.into());
    }
    ended
}

/// Returns the logs in a state directory, or the directory itself if it is a log.
pub(super) fn logs_of(dir: &Path) -> Vec<PathBuf> {
    let inside: Vec<_> =
        STORES.iter().map(|log| dir.join(log)).filter(|log| log.is_dir()).collect();
    let is_log = dir.read_dir().is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|it| it.file_name().to_str().is_some_and(is_of_log)))
    });
    if inside.is_empty() && is_log { vec![dir.to_owned()] } else { inside }
}

fn look(verb: &JournalVerb, log: &Path) -> anyhow::Result<LogReport> {
    let storage = DirStorage::existing(log)?;
    Ok(match verb {
        JournalVerb::Inspect(_) => inspected(&inspect(&storage)?),
        JournalVerb::Verify(_) => verified(&verify(&storage)?),
        JournalVerb::Repair(_) => repaired(&repair(&storage)?),
    })
}

fn inspected(found: &Inspection) -> LogReport {
    let segment = |segment: &SegmentView| {
        json!({
            "name": segment.name(),
            "position": segment.base.position.0,
            "items_before": segment.base.items,
            "bytes": segment.file_bytes,
            "begun_unix_nano": segment.created_ns,
            "header": header(segment),
        })
    };
    let cursor = |(name, cursor): &(String, Option<Cursor>)| match cursor {
        None => json!({ "name": name, "damaged": true }),
        Some(cursor) => json!({
            "name": name,
            "position": cursor.mark.position.0,
            "settled": cursor.mark.items,
            "pending": found.end.items.saturating_sub(cursor.mark.items),
            "dead_lettered": cursor.dead_lettered,
            "filtered": cursor.filtered,
            "dropped": cursor.dropped,
        }),
    };
    let end = found.end;
    let segments: Value = found.segments.iter().map(segment).collect();
    let cursors: Value = found.cursors.iter().map(cursor).collect();
    let keys = ["name", "position", "items_before", "bytes", "begun_unix_nano", "header"];
    let mut text = table_of("segment", &segments, &keys);
    writeln!(text, "end: position {}, {} items", end.position.0, end.items).ok();
    if !found.cursors.is_empty() {
        let keys = ["name", "position", "pending", "dead_lettered", "filtered", "dropped"];
        write!(text, "\n{}", table_of("cursor", &cursors, &keys)).ok();
    }
    text.push_str(&damages_text(&found.damages));
    let value = json!({
        "segments": segments,
        "end": { "position": end.position.0, "items": end.items },
        "cursors": cursors,
        "damages": damages_value(&found.damages),
    });
    (text, value)
}

fn verified(found: &Verification) -> LogReport {
    let segment = |check: &SegmentCheck| {
        json!({
            "name": check.segment.name(),
            "records": check.records,
            "items": check.end.items.saturating_sub(check.segment.base.items),
            "header": header(&check.segment),
            "state": state(check),
            "damages": damages_value(&check.damages),
            "settled": damages_value(&check.settled),
        })
    };
    let is_good = found.is_whole();
    let segments: Value = found.segments.iter().map(segment).collect();
    let keys = ["name", "records", "items", "header", "state"];
    let mut text = table_of("segment", &segments, &keys);
    if found.torn_bytes > 0 {
        let what = "behind the last whole record: a torn tail that was never acknowledged, or what is being written now";
        writeln!(text, "{} bytes {what}", found.torn_bytes).ok();
    }
    for check in &found.segments {
        text.push_str(&damages_text(&check.damages));
    }
    text.push_str(if is_good { "whole\n" } else { "NOT whole\n" });
    let value = json!({ "whole": is_good, "torn_bytes": found.torn_bytes, "segments": segments });
    (text, value)
}

fn state(segment: &SegmentCheck) -> &'static str {
    match (segment.damages.is_empty(), segment.settled.is_empty()) {
        (true, true) => "whole",
        (true, false) => "settled",
        (false, _) => "damaged",
    }
}

fn repaired(settled: &[Damage]) -> LogReport {
    let text = match settled {
        [] => "no damage to settle\n".to_owned(),
        settled => format!("settled:{}", damages_text(settled)),
    };
    (text, json!({ "settled": damages_value(settled) }))
}

fn damages_text(damages: &[Damage]) -> String {
    let line = |damage: &Damage| {
        format!(
            "\ndamage: {} and {} items cannot be read, from position {} on, in {}\n",
            size(damage.bytes()),
            damage.items(),
            damage.from.position.0,
            damage.segment_name(),
        )
    };
    damages.iter().map(line).collect()
}

fn damages_value(damages: &[Damage]) -> Value {
    let value = |damage: &Damage| {
        json!({
            "segment": damage.segment.0,
            "from": damage.from.position.0,
            "to": damage.to.position.0,
            "items": damage.items(),
        })
    };
    damages.iter().map(value).collect()
}

fn header(segment: &SegmentView) -> String {
    match segment.bad {
        None => "good".to_owned(),
        Some(BadHeader::Damaged) => "damaged".to_owned(),
        Some(BadHeader::Version(version)) => format!("version {version}"),
        Some(BadHeader::Missing) => "missing".to_owned(),
    }
}

/// Formats some columns of named rows as a table.
fn table_of(named: &str, rows: &Value, keys: &[&str]) -> String {
    let heads: Vec<_> = keys
        .iter()
        .map(|key| match *key {
            "name" => named.to_owned(),
            "bytes" => "size".to_owned(),
            "begun_unix_nano" => "begun".to_owned(),
            "dead_lettered" => "dead letters".to_owned(),
            key => key.replace('_', " "),
        })
        .collect();
    let heads: Vec<_> = heads.iter().map(String::as_str).collect();
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    let cells = |row: &Value| keys.iter().map(|key| cell(row, key)).collect();
    table(&heads, &rows.iter().map(cells).collect::<Vec<_>>())
}

fn cell(row: &Value, key: &str) -> String {
    match (key, row.get(key).unwrap_or(&Value::Null)) {
        ("bytes", bytes) => size(bytes.as_u64().unwrap_or_default()),
        ("begun_unix_nano", at) if at.as_u64() > Some(0) => time(at.as_u64().unwrap_or_default()),
        ("begun_unix_nano", _) => "unknown".to_owned(),
        ("position", Value::Null) => "damaged".to_owned(),
        (_, Value::Null) => String::new(),
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    }
}

/// Returns an approximate size for people; JSON has the exact number.
fn size(bytes: u64) -> String {
    const UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| *unit <= bytes) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_other_files_is_not_taken_for_a_log_without_damage() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("syslog.log"), "not ours").unwrap();
        assert!(logs_of(dir.path()).is_empty());
        // A log of which only this is left.
        std::fs::write(dir.path().join("start.mark"), "").unwrap();
        assert_eq!(logs_of(dir.path()), [dir.path()]);
    }

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
