//! `[sinks.NAME]`: what every sink has is read here, the rest by its kind.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::SinkConfig;
use super::schema::{lane_schema, sink_schema};
use super::sections::{LaneSection, WhenFull};
use super::sources::Sources;
use crate::journal;
use crate::pipeline::{BatchLimits, LaneOptions};
use crate::sinks::{KINDS, Kind};
use crate::support::options::{check, did_you_mean, position, properties, read};
use crate::support::problem::Problem;

/// Names become the names of files and labels of metrics.
const NAME_CHARS_MAX: usize = 64;

/// Reads all sinks, in the order of the file.
pub(super) fn read_sinks(
    table: &DeTable<'_>,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) -> Vec<SinkConfig> {
    let mut sinks = Vec::new();
    for (name, value) in table {
        let at = position(&name.span());
        let name = name.get_ref().clone().into_owned();
        problems.extend(check_name(&name, &at));
        let DeValue::Table(options) = value.get_ref() else {
            problems.push(Problem {
                at: Some(position(&value.span())),
                what: "a sink is a table".to_owned(),
                hint: Some(format!(
                    "begin it with [sinks.{name}], and `type = ...` in the next line"
                )),
            });
            continue;
        };
        let table = Spanned::new(value.span(), options.clone());
        let origin = sources.find(at.start).map(|source| source.origin(&at)).unwrap_or_default();
        match read_sink(name, origin, table) {
            Ok(sink) => sinks.push(sink),
            Err(found) => problems.extend(found),
        }
    }
    sinks
}

fn check_name(name: &str, at: &Range<usize>) -> Option<Problem> {
    let good =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.bytes().all(good) {
        return None;
    }
    Some(Problem {
        at: Some(at.clone()),
        what: "not a name for a sink".to_owned(),
        hint: Some(format!("use at most {NAME_CHARS_MAX} of the letters a-z 0-9 _ -")),
    })
}

fn read_sink(
    name: String,
    origin: String,
    mut table: Spanned<DeTable<'_>>,
) -> Result<SinkConfig, Vec<Problem>> {
    let span = table.span();
    let kind = take_kind(&mut table);
    let found = match kind {
        Ok(kind) => {
            let whose = format!(" for a sink of type `{}`", kind.name);
            check(&table, &sink_schema(kind), &whose)
        }
        Err(_) => Vec::new(),
    };
    let mut lane = DeTable::new();
    for (key, _) in properties(&lane_schema()) {
        if let Some((key, value)) = table.get_mut().remove_entry(key.as_str()) {
            lane.insert(key, value);
        }
    }
    let kind = match kind {
        Ok(kind) if found.is_empty() => kind,
        Ok(_) => return Err(found),
        Err(problem) => {
            let lane = read::<LaneSection>(Spanned::new(span, lane));
            return Err(lane.err().into_iter().flatten().chain([problem]).collect());
        }
    };
    let lane = read::<LaneSection>(Spanned::new(span.clone(), lane)).and_then(lane_options);
    match (lane, (kind.parse)(table)) {
        (Ok(lane), Ok(plan)) => Ok(SinkConfig { name, origin, kind, lane, plan }),
        (lane, plan) => {
            let (lane, plan) = (lane.err().unwrap_or_default(), plan.err().unwrap_or_default());
            let mut problems: Vec<_> = lane.into_iter().chain(plan).collect();
            for problem in &mut problems {
                problem.at.get_or_insert_with(|| position(&span));
            }
            Err(problems)
        }
    }
}

/// The kind that `type` names.
fn take_kind(table: &mut Spanned<DeTable<'_>>) -> Result<&'static Kind, Problem> {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let all = names.join(", ");
    let Some(value) = table.get_mut().remove("type") else {
        return Err(Problem {
            at: Some(position(&table.span())),
            what: "missing key `type`".to_owned(),
            hint: Some(format!("add `type = ...` here; the kinds of sinks are {all}")),
        });
    };
    let at = Some(position(&value.span()));
    let Some(said) = value.get_ref().as_str() else {
        let what = "expected a string".to_owned();
        return Err(Problem { at, what, hint: Some(format!("the kinds of sinks are {all}")) });
    };
    KINDS.iter().find(|kind| kind.name == said).copied().ok_or_else(|| {
        let near = did_you_mean(said, &names).filter(|hint| hint.ends_with('?'));
        let near = near.map(|hint| format!("{hint} ")).unwrap_or_default();
        let hint = Some(format!("{near}the kinds of sinks are {all}"));
        Problem { at, what: "unknown kind of sink".to_owned(), hint }
    })
}

/// Turns the section into the lane's options, or says what does not fit together.
fn lane_options(section: LaneSection) -> Result<LaneOptions, Vec<Problem>> {
    let LaneSection { batch, retry, commit_every, when_full } = section;
    let nothing = [(batch.items_max == 0, "items_max"), (batch.bytes_max.0 == 0, "bytes_max")];
    let problems: Vec<_> = nothing
        .into_iter()
        .filter(|(is_zero, _)| *is_zero)
        .map(|(_, name)| Problem {
            at: None,
            what: format!("`batch.{name}` of 0 delivers nothing"),
            hint: Some("leave it out for the default".to_owned()),
        })
        .collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(LaneOptions {
        batch: BatchLimits {
            items_max: usize::try_from(batch.items_max).unwrap_or(usize::MAX),
            bytes_max: batch.bytes_max.as_usize(),
            age_max: batch.age_max.0,
        },
        commit_every: commit_every.0,
        retry_first: retry.first.0,
        retry_longest: retry.longest.0,
        hold_probe: retry.hold.0,
        when_full: match when_full {
            WhenFull::Refuse => journal::WhenFull::Refuse,
            WhenFull::DropOldest => journal::WhenFull::DropOldest,
        },
    })
}
