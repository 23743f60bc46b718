//! `[sinks.NAME]`: reads what all sinks have in common; the kind reads the rest.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::layers::{Layers, Whole};
use super::schema::{lane_schema, sink_schema};
use super::sections::SinkConfig;
use crate::pipeline::LaneOptions;
use crate::prices::Prices;
use crate::rules::{self, EXCEPT, ONLY, Place, Rule, Rules};
use crate::sinks::{KINDS, Kind};
use crate::support::options::{check, nearest, position, properties, read};
use crate::support::problem::Problem;

/// Sink names are used in file names and metric labels.
const NAME_CHARS_MAX: usize = 64;

/// Reads all sinks, in the order of the file.
pub(super) fn read_sinks(
    table: DeTable<'_>,
    global: (&[Arc<Rule>], &Arc<Prices>),
    layers: &Layers<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<SinkConfig> {
    let mut sinks = Vec::new();
    for (name, value) in table {
        let (at, span) = (position(&name.span()), value.span());
        let name = name.into_inner().into_owned();
        problems.extend(check_name(&name, &at));
        let DeValue::Table(options) = value.into_inner() else {
            let hint = format!("write [sinks.{name}], and `type = ...` on the next line");
            problems.push(Problem::new(Some(position(&span)), "a sink must be a table", hint));
            continue;
        };
        let (named, table) = ((name, layers.origin(&at)), Spanned::new(span, options));
        match read_sink(named, table, global, &layers.wholes) {
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
    let hint = format!("use at most {NAME_CHARS_MAX} of the letters a-z 0-9 _ -");
    Some(Problem::new(Some(at.clone()), "not a valid sink name", hint))
}

fn read_sink(
    (name, origin): (String, String),
    mut table: Spanned<DeTable<'_>>,
    (global, prices): (&[Arc<Rule>], &Arc<Prices>),
    wholes: &[Whole],
) -> Result<SinkConfig, Vec<Problem>> {
    let span = table.span();
    let mut wrong = Vec::new();
    let own = table.get_mut().remove("rules");
    let own = rules::read(own.as_ref(), Place::Sink, &mut wrong);
    let bounds: Vec<_> = [ONLY, EXCEPT]
        .into_iter()
        .filter_map(|option| Rule::of_option(option, &table.get_mut().remove(option)?, &mut wrong))
        .collect();
    let type_at = table.get_ref().get("type").map(|value| position(&value.span()));
    let kind = take_kind(&mut table);
    if let Ok(kind) = kind {
        wrong.extend(kind.missing().map(|(what, hint)| Problem::new(type_at, what, hint)));
        let whose = format!(" for a sink of type `{}`", kind.name);
        wrong.extend(check(&table, &sink_schema(kind), &whose));
    }
    let mut lane = DeTable::new();
    for (key, _) in properties(&lane_schema()) {
        if let Some((key, value)) = table.get_mut().remove_entry(key.as_str()) {
            lane.insert(key, value);
        }
    }
    let lane = read::<LaneOptions>(Spanned::new(span.clone(), lane));
    let kind = match kind {
        Ok(kind) if wrong.is_empty() => kind,
        Ok(_) => return Err(wrong),
        Err(problem) => {
            return Err(lane.err().into_iter().flatten().chain(wrong).chain([problem]).collect());
        }
    };
    let lane = lane.and_then(|lane| match check_lane(&lane) {
        found if found.is_empty() => Ok(lane),
        found => Err(found),
    });
    match (lane, (kind.parse)(table)) {
        (Ok(lane), Ok(plan)) => {
            let of_options = rules::of_text(plan.rules());
            // Rules for all sinks may set the fields that these conditions test, except for the sender.
            let (first, then): (Vec<_>, Vec<_>) =
                bounds.into_iter().partition(|rule| rule.asks_who_sent());
            let all = first.into_iter().chain(global.iter().cloned()).chain(then);
            let all = all.chain(own).chain(of_options);
            let whole = wholes.iter().find(|whole| whole.parts.contains(&name));
            let names = [&name].into_iter().chain(whole.map(|whole| &whole.name));
            let rules = Rules::compile(names.map(String::as_str), all).waiting(lane.decide);
            let rules = rules.with_prices(Arc::clone(prices));
            let rules = Arc::new(rules);
            let same = rules.same_names();
            if !same.is_empty() {
                return Err(same);
            }
            Ok(SinkConfig { name, origin, kind, lane, rules, plan })
        }
        (lane, plan) => {
            let found = lane.err().into_iter().chain(plan.err()).flatten();
            let place = |problem: Problem| Problem {
                at: problem.at.or_else(|| Some(position(&span))),
                ..problem
            };
            Err(found.map(place).collect())
        }
    }
}

/// Takes `type` from the table and returns its kind.
fn take_kind(table: &mut Spanned<DeTable<'_>>) -> Result<&'static Kind, Problem> {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let all = names.join(", ");
    let Some(value) = table.get_mut().remove("type") else {
        let hint = format!("add `type = ...` here; the kinds of sinks are {all}");
        return Err(Problem::new(Some(position(&table.span())), "missing key `type`", hint));
    };
    let at = Some(position(&value.span()));
    let Some(said) = value.get_ref().as_str() else {
        let hint = format!("the kinds of sinks are {all}");
        return Err(Problem::new(at, "expected a string", hint));
    };
    KINDS.iter().find(|kind| kind.name == said).copied().ok_or_else(|| {
        let near = nearest(said, names.iter().copied());
        let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        Problem::new(at, "unknown sink type", format!("{near}the kinds of sinks are {all}"))
    })
}

/// Checks the lane options where one depends on another.
fn check_lane(LaneOptions { batch, decide, .. }: &LaneOptions) -> Vec<Problem> {
    let limits = [(batch.items_max, "items_max"), (batch.bytes_max, "bytes_max")];
    let of_nothing = limits.into_iter().filter(|(limit, _)| *limit == 0);
    let of_nothing = of_nothing.map(|(_, name)| {
        let what = format!("with `batch.{name} = 0` nothing would be delivered");
        Problem::new(None, what, "leave it out for the default")
    });
    let undecided = decide.mistake().map(|(what, hint)| Problem::new(None, what, hint));
    of_nothing.chain(undecided).collect()
}
