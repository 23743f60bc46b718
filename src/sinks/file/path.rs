//! Paths with placeholders: `traces/{date}/{hour}.jsonl`.
//!
//! Values never contain a separator and are never `.` or `..`, and no part of the path after the first placeholder is `..`. Therefore a
//! rendered path cannot leave the folder that the text before the placeholder names.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::support::rfc3339::{NS_PER_SECOND, SECONDS_PER_DAY, write_date};

/// A path that may depend on the time at which an item was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    text: String,
    step: Step,
}

/// How often the path changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Never,
    Daily,
    Hourly,
}

/// The hour or day, counted from 1970, that a path belongs to; 0 for a path that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Period(pub(super) u64);

/// Why a text is not a valid path. It does not quote the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadPath {
    /// The problem.
    pub(super) what: &'static str,
    /// The remedy.
    pub(super) hint: &'static str,
}

const KNOWN_PLACES: &str = "the placeholders are {date}, {hour} and {sink}";

const SECONDS_PER_HOUR: u64 = 3600;

impl Template {
    /// Parses a path with the placeholders `{date}`, `{hour}` and `{sink}`.
    pub(super) fn parse(text: &str) -> Result<Self, BadPath> {
        let bad = |what, hint| Err(BadPath { what, hint });
        if text.is_empty() || text.ends_with('/') || text.contains('\0') {
            return bad("not a path to a file", "write for example \"traces/{date}.jsonl\"");
        }
        let mut step = Step::Never;
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return bad("a `{` in the path has no `}`", KNOWN_PLACES);
            };
            step = step.max(match name {
                "date" => Step::Daily,
                "hour" => Step::Hourly,
                "sink" => Step::Never,
                _ => return bad("unknown placeholder in a path", KNOWN_PLACES),
            });
            rest = after;
        }
        let (_, after_first) = text.split_once('{').unwrap_or((text, ""));
        if Path::new(after_first).components().any(|part| part == Component::ParentDir) {
            return bad("`..` after a placeholder", "put it before the placeholder, or remove it");
        }
        if step == Step::Hourly && !text.contains("{date}") {
            return bad("`{hour}` without `{date}` would mix the days", "add `{date}`");
        }
        Ok(Self { text: text.to_owned(), step })
    }

    /// Returns the period of an item by its time of arrival, in nanoseconds since 1970.
    pub(super) fn period(&self, received_at_ns: u64) -> Period {
        let seconds = received_at_ns / NS_PER_SECOND;
        Period(match self.step {
            Step::Never => 0,
            Step::Daily => seconds / SECONDS_PER_DAY,
            Step::Hourly => seconds / SECONDS_PER_HOUR,
        })
    }

    /// Returns the path of a period for a sink of this name.
    pub(super) fn render(&self, period: Period, sink: &str) -> PathBuf {
        let (day, hour) = match self.step {
            Step::Never | Step::Daily => (period.0, 0),
            Step::Hourly => (period.0 / 24, period.0 % 24),
        };
        let mut date = Vec::new();
        write_date(&mut date, day);
        let text = self.text.replace("{date}", &String::from_utf8_lossy(&date));
        let text = text.replace("{hour}", &format!("{hour:02}"));
        PathBuf::from(text.replace("{sink}", &harmless(sink)))
    }
}

/// Inserts a number before the path's last extension, `traces.2.jsonl`. The first file, 0, has none.
pub(super) fn numbered(base: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return base.to_owned();
    }
    let (stem, extension) = split_name(base);
    base.with_file_name(format!("{stem}.{number}{extension}"))
}

/// Returns the number in a file's name, if the file next to `base` belongs to it.
pub(super) fn number_of(base: &Path, name: &str) -> Option<u32> {
    let (stem, extension) = split_name(base);
    let middle = name.strip_prefix(&stem)?.strip_suffix(&extension)?;
    if middle.is_empty() {
        return Some(0);
    }
    let digits = middle.strip_prefix('.')?;
    let number: u32 = digits.parse().ok()?;
    // This sink did not write `traces.01.jsonl`.
    (number != 0 && number.to_string() == digits).then_some(number)
}

/// Splits a file's name into stem and extension. The extension includes its dot and that of the compression.
fn split_name(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let packed = [".gz", ".zst"].into_iter().find(|packed| name.ends_with(packed)).unwrap_or("");
    let plain = name.strip_suffix(packed).unwrap_or(&name);
    match plain.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => {
            (stem.to_owned(), format!(".{extension}{packed}"))
        }
        _ => (plain.to_owned(), packed.to_owned()),
    }
}

/// Makes a name safe as one part of a path: characters other than letters, digits, `-`, `_` and inner dots become `_`.
fn harmless(name: &str) -> String {
    let keep = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let clean: String = name.chars().map(|c| if keep(c) { c } else { '_' }).collect();
    if clean.starts_with('.') || clean.is_empty() { format!("_{clean}") } else { clean }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-21T05:15:09Z.
    const RECEIVED_AT_NS: u64 = 1_795_238_109_000_000_000;

    fn rendered(text: &str, sink: &str) -> PathBuf {
        let template = Template::parse(text).unwrap();
        template.render(template.period(RECEIVED_AT_NS), sink)
    }

    #[test]
    fn places_are_filled_in_from_when_the_item_was_received() {
        for (text, expected) in [
            ("traces.jsonl", "traces.jsonl"),
            ("/var/{sink}/{date}.jsonl", "/var/archive/2026-11-21.jsonl"),
            ("a/{date}/{hour}-{sink}", "a/2026-11-21/05-archive"),
            ("{date}T{hour}{date}.jsonl", "2026-11-21T052026-11-21.jsonl"),
            ("../up/{date}.jsonl", "../up/2026-11-21.jsonl"),
        ] {
            assert_eq!(rendered(text, "archive"), PathBuf::from(expected), "{text}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_or_could_escape_is_a_mistake() {
        for text in [
            "",
            "logs/",
            "a\0b",
            "{day}.jsonl",
            "{date",
            "{date}/../../etc/x",
            "x/{sink}/..",
            "{hour}.jsonl",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_stand_before_the_extension_and_are_found_again() {
        for (base, expected) in [
            ("t/traces.jsonl", "t/traces.7.jsonl"),
            ("t/traces.jsonl.gz", "t/traces.7.jsonl.gz"),
            ("t.d/traces", "t.d/traces.7"),
            ("t/.hidden", "t/.hidden.7"),
            ("t/2026-11-21.05.jsonl.zst", "t/2026-11-21.05.7.jsonl.zst"),
        ] {
            let path = numbered(Path::new(base), 7);
            assert_eq!(path, PathBuf::from(expected));
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(number_of(Path::new(base), name), Some(7));
        }
        let base = Path::new("traces.jsonl");
        assert_eq!(number_of(base, "traces.jsonl"), Some(0));
        for other in [
            "traces.01.jsonl",
            "traces.x.jsonl",
            "traces.1.jsonl.gz",
            "more.jsonl",
            "traces..jsonl",
        ] {
            assert_eq!(number_of(base, other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_name_of_a_sink_leads_out_of_the_folder(sink: String, received_at_ns: u64) {
            let template = Template::parse("/base/{sink}/{date}.jsonl").unwrap();
            let path = template.render(template.period(received_at_ns), &sink);
            let parts: Vec<_> = path.components().collect();
            prop_assert_eq!(parts.len(), 4, "{:?}", path);
            prop_assert!(path.starts_with("/base") && !parts.contains(&Component::ParentDir));
        }
    }
}
