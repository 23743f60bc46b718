//! Reads rules from the configuration and reports all mistakes in them. Pure.

use std::ops::Range;
use std::sync::Arc;

use regex::Regex;
use serde_json::json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::condition::{COMPARISONS, Condition, Test};
use super::field::{Fact, Field, KEYED, Takes};
use super::glob;
use super::reading::{Reading, reason, texts};
use super::redact::Rewrite;
use super::sample::Sample;
use super::schema::rule_schema;
use super::whole::WHOLE_MAX;
use super::{Action, Rule};
use crate::support::duration::Duration;
use crate::support::options::{check, did_you_mean, position};
use crate::support::problem::Problem;

/// Where rules are configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `[[rules]]`.
    Global,
    /// `[[sinks.NAME.rules]]`.
    Sink,
    /// An option of a kind.
    Option,
}

/// More than anyone writes by hand; each rule has its own counters and is evaluated for every item.
const RULES_MAX: usize = 256;
/// Names become labels of metrics, and longer ones are unreadable.
const NAME_CHARS_MAX: usize = 64;
/// Maximum nesting of conditions; nobody would understand a deeper rule.
pub(super) const DEPTH_MAX: usize = 16;

/// The actions that can apply to whole traces.
const DECIDING: [&str; 3] = ["keep", "drop", "sample"];
/// The actions that can apply before the journal.
const BEFORE_JOURNAL: [&str; 4] = ["redact", "drop", "keep", "sample"];
/// Keys of conditions that contain others.
const GROUPS: [&str; 3] = ["any", "all", "not"];

/// Reads a list of rules. Invalid rules are left out and reported as problems.
pub fn read(
    section: Option<&Spanned<DeValue<'_>>>,
    place: Place,
    problems: &mut Vec<Problem>,
) -> Vec<Arc<Rule>> {
    let Some(section) = section else { return Vec::new() };
    let mut reading = Reading { problems };
    let tables = reading.tables(section, "rule", BEGIN_HINT);
    if tables.len() > RULES_MAX {
        let what = format!("more than {RULES_MAX} rules");
        reading.report(&section.span(), what, "combine some with `any`");
        return Vec::new();
    }
    let read = tables.iter().zip(1..);
    let read = read.filter_map(|(table, number)| reading.rule(table, place, number));
    let rules: Vec<_> = read.map(Arc::new).collect();
    let mut of_traces = rules.iter().filter(|rule: &&Arc<Rule>| rule.is_of_traces);
    if let Some(Rule { at: Some(at), .. }) = of_traces.nth(WHOLE_MAX / 2).map(Arc::as_ref) {
        let what = format!("more than {} rules with `decide = \"trace\"`", WHOLE_MAX / 2);
        reading.report(at, what, "combine some with `any`");
    }
    rules
}

/// Reads the rules in one of our own texts, which has no mistakes.
pub fn of_text(text: &str) -> Vec<Arc<Rule>> {
    let table = DeTable::parse(text).map(Spanned::into_inner).unwrap_or_default();
    let mut problems = Vec::new();
    let rules = read(table.get("rules"), Place::Option, &mut problems);
    debug_assert!(problems.is_empty(), "{problems:?}");
    rules
}

const BEGIN_HINT: &str = "write [[rules]], and `match = { ... }` on the next line";

impl Reading<'_> {
    fn rule(&mut self, table: &Spanned<DeTable<'_>>, place: Place, number: usize) -> Option<Rule> {
        let at = position(&table.span());
        let known = self.problems.len();
        self.problems.extend(check(table, &rule_schema(&json!({})), " for a rule"));
        let is_whole = known == self.problems.len();
        let table = table.get_ref();
        let name = match table.get("name") {
            Some(name) => self.name(name),
            None if place == Place::Sink => format!("sink_rule_{number}"),
            None => format!("rule_{number}"),
        };
        let condition = table.get("match").and_then(|value| self.group(value, DEPTH_MAX));
        // A misspelled action was reported already.
        let action = if is_whole { self.action(table, &at, place) } else { None };
        let before = table.get("before_journal");
        let before = before.filter(|value| flag(value.get_ref()) == Some(true));
        let is_of_traces = self.is_of_traces(table);
        let hint = match () {
            () if place == Place::Sink => "move it to [[rules]]: all sinks share one journal",
            () if !BEFORE_JOURNAL.iter().any(|action| table.contains_key(*action)) => {
                "only `redact`, `drop`, `keep` and `sample` can: remove `before_journal`"
            }
            () if is_of_traces => {
                "a trace waits in the journal until it is decided: remove one of the two"
            }
            () => "",
        };
        if let Some(value) = before.filter(|_| !hint.is_empty()) {
            self.report(&value.span(), "this rule cannot run before the journal", hint);
        }
        let action = action.filter(|_| known == self.problems.len())?;
        let at = (place != Place::Option).then_some(at);
        Some(Rule { name, at, before_journal: before.is_some(), is_of_traces, condition, action })
    }

    fn is_of_traces(&mut self, table: &DeTable<'_>) -> bool {
        let value = table.get("decide");
        let Some(value) = value.filter(|value| value.get_ref().as_str() == Some("trace")) else {
            return false;
        };
        if !DECIDING.iter().any(|action| table.contains_key(*action)) {
            let hint = "only `keep`, `drop` and `sample` decide on whole traces";
            self.report(&value.span(), "this rule cannot decide on a trace", hint);
        }
        true
    }

    fn name(&mut self, value: &Spanned<DeValue<'_>>) -> String {
        let name = value.get_ref().as_str().unwrap_or_default();
        if value.get_ref().is_str() && (name.is_empty() || name.chars().count() > NAME_CHARS_MAX) {
            let hint = format!("use 1 to {NAME_CHARS_MAX} characters");
            self.report(&value.span(), "not a valid rule name", &hint);
        }
        name.to_owned()
    }

    // === Actions ===

    fn action(&mut self, table: &DeTable<'_>, at: &Range<usize>, place: Place) -> Option<Action> {
        let is_action = |name: &str| actions().any(|action| action == name);
        let mut named = table.iter().filter(|(key, _)| is_action(key.get_ref()));
        let Some((key, value)) = named.next() else {
            let all: Vec<_> = actions().map(|action| format!("`{action}`")).collect();
            let hint = format!("add one of {}", all.join(", "));
            return self.wrong(at, "the rule has no action", &hint);
        };
        if let Some((second, _)) = named.next() {
            let what = format!("a second action beside `{}`", key.get_ref());
            let hint = "put it into a rule of its own, after this one";
            return self.wrong(&second.span(), what, hint);
        }
        let at = value.span();
        match (key.get_ref().as_ref(), flag(value.get_ref())) {
            (_, Some(false)) => {
                self.wrong(&at, "the rule has no action", "write `true`, or leave the rule out")
            }
            ("keep", _) => Some(Action::Keep),
            ("drop", _) => Some(Action::Drop),
            ("sample", _) => match number(value.get_ref()) {
                Some(rate @ 0.0..=1.0) => Some(Action::Sample(Sample::new(rate))),
                _ => self.wrong(&at, "not a rate", "write the part to keep, from 0 to 1"),
            },
            ("route", _) => self.route(value, place),
            (rewrite, _) => Rewrite::read(rewrite, value, self.problems).map(Action::Rewrite),
        }
    }

    fn route(&mut self, value: &Spanned<DeValue<'_>>, place: Place) -> Option<Action> {
        if place == Place::Sink {
            let what = "a sink's own rules cannot route to other sinks";
            let hint = "move the rule to [[rules]], or `drop` what this sink should not get";
            return self.wrong(&value.span(), what, hint);
        }
        let to = texts(value).into_iter().map(|(at, name)| (name.to_owned(), position(&at)));
        let to: Vec<_> = to.collect();
        if to.is_empty() && place != Place::Option {
            let hint = "name sinks, or use `drop = true`";
            return self.wrong(&value.span(), "no sink is named", hint);
        }
        Some(Action::Route(to))
    }

    // === Conditions ===

    /// Reads a table of conditions that must all hold.
    pub(super) fn group(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        depth: usize,
    ) -> Option<Condition> {
        let at = value.span();
        let Some(table) = value.get_ref().as_table() else {
            let hint = "write `{ kind = \"tool\" }`";
            return self.wrong(&at, "expected a table of conditions", hint);
        };
        if table.is_empty() {
            let hint = "leave it out to match everything";
            return self.wrong(&at, "there is no condition here", hint);
        }
        if depth == 0 {
            let what = format!("more than {DEPTH_MAX} nested conditions");
            return self.wrong(&at, what, "split it into several rules");
        }
        let mut all = Vec::new();
        for (key, value) in table {
            all.extend(match key.get_ref().as_ref() {
                "not" => {
                    let inner = self.group(value, depth - 1);
                    inner.map(|inner| Condition::Not(Box::new(inner)))
                }
                "any" => self.groups(value, depth - 1).map(Condition::Any),
                "all" => self.groups(value, depth - 1).map(Condition::All),
                name => match KEYED.into_iter().find(|(keyed, _)| *keyed == name) {
                    Some((_, field)) => self.keyed(value, field),
                    None => self.fact(name, &key.span(), value),
                },
            });
        }
        // Conditions that do not need the contents come first.
        all.sort_by_key(|condition| !condition.is_at_hand());
        Some(Condition::All(all))
    }

    fn fact(
        &mut self,
        name: &str,
        at: &Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Condition> {
        if let Some(fact) = Fact::named(name) {
            return self.field(Field::Fact(fact), value);
        }
        let hint = did_you_mean(name, &keys_of_match()).unwrap_or_default();
        let more = "; any attribute is `attribute = { \"key\" = ... }`";
        let hint = if hint.ends_with('?') { hint } else { hint + more };
        self.wrong(at, format!("unknown field `{name}`"), &hint)
    }

    fn groups(&mut self, value: &Spanned<DeValue<'_>>, depth: usize) -> Option<Vec<Condition>> {
        let several = value.get_ref().as_array().filter(|several| !several.is_empty());
        let Some(several) = several else {
            let hint = "write `[{ kind = \"tool\" }, { status = \"error\" }]`";
            return self.wrong(&value.span(), "expected a list of conditions", hint);
        };
        Some(several.iter().filter_map(|one| self.group(one, depth)).collect())
    }

    fn keyed(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        field: fn(String) -> Field,
    ) -> Option<Condition> {
        let table = value.get_ref().as_table().filter(|table| !table.is_empty());
        let Some(table) = table else {
            let hint = "write `attribute = { \"http.route\" = \"/health\" }`, the key in quotes";
            return self.wrong(&value.span(), "expected a table of keys", hint);
        };
        let all = table
            .iter()
            .filter_map(|(key, value)| self.field(field(key.get_ref().to_string()), value));
        Some(Condition::All(all.collect()))
    }

    fn field(&mut self, field: Field, value: &Spanned<DeValue<'_>>) -> Option<Condition> {
        let takes = field.takes();
        let tests = match value.get_ref() {
            DeValue::Array(several) if several.is_empty() => {
                let hint = "list some, or remove it";
                return self.wrong(&value.span(), "an empty list matches nothing", hint);
            }
            DeValue::Array(several) => {
                several.iter().filter_map(|one| self.test(takes, one)).collect()
            }
            DeValue::Table(table) => return self.special(field, &value.span(), table),
            _ => vec![self.test(takes, value)?],
        };
        Some(Condition::Field(field, tests))
    }

    /// Reads `{ regex = "..." }` or `{ exists = true }`.
    fn special(
        &mut self,
        field: Field,
        at: &Range<usize>,
        table: &DeTable<'_>,
    ) -> Option<Condition> {
        let dotted = "put a key with dots in quotes";
        let hint = format!("write `{{ regex = \"...\" }}` or `{{ exists = true }}`; {dotted}");
        let mut members = table.iter();
        let (Some((key, value)), None) = (members.next(), members.next()) else {
            return self.wrong(at, "expected one test", &hint);
        };
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("exists", DeValue::Boolean(exists)) => {
                let there = Condition::Field(field, vec![Test::Exists]);
                Some(if *exists { there } else { Condition::Not(Box::new(there)) })
            }
            ("regex", DeValue::String(text)) => {
                if !matches!(field.takes(), Takes::Text | Takes::Word(_) | Takes::Any) {
                    let hint = "compare it: `\">2\"`";
                    return self.wrong(&value.span(), "this field is not text", hint);
                }
                let pattern = self.pattern(&value.span(), text)?;
                Some(Condition::Field(field, vec![Test::Pattern(pattern)]))
            }
            (name @ ("exists" | "regex"), _) => {
                self.wrong(&value.span(), format!("not a value for `{name}`"), &hint)
            }
            (name, _) => self.wrong(&key.span(), format!("unknown test `{name}`"), &hint),
        }
    }

    fn pattern(&mut self, at: &Range<usize>, text: &str) -> Option<Regex> {
        match Regex::new(text) {
            Ok(pattern) => self.telling(at, pattern),
            Err(error) => {
                let hint =
                    "the syntax is that of Rust's regex crate: no look-around, no back-references";
                self.wrong(at, format!("not a regular expression: {}", reason(&error)), hint)
            }
        }
    }

    /// Returns the pattern, unless it matches everything.
    fn telling(&mut self, at: &Range<usize>, pattern: Regex) -> Option<Regex> {
        if ["", "\0"].iter().all(|text| pattern.is_match(text)) {
            return self.wrong(at, "this pattern matches everything", "use `{ exists = true }`");
        }
        Some(pattern)
    }

    fn test(&mut self, takes: Takes, value: &Spanned<DeValue<'_>>) -> Option<Test> {
        let at = value.span();
        let compared = value.get_ref().as_str().and_then(|text| comparison(text, takes));
        let (what, hint) = match (takes, value.get_ref()) {
            (Takes::Flag | Takes::Any, DeValue::Boolean(flag)) => return Some(Test::Flag(*flag)),
            (Takes::Number | Takes::Any, DeValue::Integer(_) | DeValue::Float(_)) => {
                return number(value.get_ref()).map(|number| Test::Number(f64::eq, number));
            }
            (Takes::Text, _) if compared.is_some() => (
                "text cannot be compared with a number",
                "`duration`, `tokens`, `cost` and attributes can be compared",
            ),
            (Takes::Number | Takes::Time | Takes::Any, _) if compared.is_some() => return compared,
            (Takes::Text | Takes::Word(_) | Takes::Any, DeValue::String(text)) => {
                return self.text(takes, &at, text);
            }
            (Takes::Flag, _) => ("this field is true or false", "write true or false"),
            (Takes::Time, DeValue::String(_)) => {
                ("not a comparison", "write a comparison such as `\">2s\"`")
            }
            (Takes::Number, DeValue::String(_)) => {
                ("not a comparison", "write a comparison such as `\">=1000\"`")
            }
            (Takes::Time, _) => ("a duration needs a unit", "write `\">2s\"`"),
            (Takes::Number, _) => ("this field is a number", "write `\">=1000\"`"),
            (Takes::Text | Takes::Word(_), _) => ("this field is text", "put it in quotes"),
            (Takes::Any, _) => ("expected a string, a number, true or false", ""),
        };
        self.wrong(&at, what, hint)
    }

    fn text(&mut self, takes: Takes, at: &Range<usize>, text: &str) -> Option<Test> {
        let is_glob = text.contains(['*', '?']);
        if text.is_empty() {
            let hint = "use `{ exists = false }`";
            return self.wrong(at, "an empty string is not allowed here", hint);
        }
        if let Takes::Word(words) = takes {
            let (words, pattern) = (words(), is_glob.then(|| glob(text)).flatten());
            let is_met = |word: &&&str| match &pattern {
                Some(pattern) => pattern.is_match(word),
                None => **word == text,
            };
            if words.iter().find(is_met).is_none() {
                let hint = did_you_mean(text, &words).unwrap_or_default();
                return self.wrong(at, "this field has no such value", &hint);
            }
        }
        if is_glob {
            return self.telling(at, glob(text)?).map(Test::Pattern);
        }
        Some(Test::Text(text.to_owned()))
    }
}

fn comparison(text: &str, takes: Takes) -> Option<Test> {
    let text = text.trim();
    let (wanted, comparison) = COMPARISONS
        .iter()
        .find_map(|(written, comparison)| Some((text.strip_prefix(written)?, *comparison)))?;
    let wanted = wanted.trim();
    let number = match takes {
        Takes::Time => wanted.parse::<Duration>().ok()?.0.as_secs_f64() * 1e9,
        _ => wanted.parse().ok().filter(|number: &f64| number.is_finite())?,
    };
    Some(Test::Number(comparison, number))
}

/// Returns a number, also one that a reference (`${RATE}`) stands for.
fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        DeValue::Integer(number) => number.as_str().parse().ok(),
        DeValue::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Returns a flag, also one that a reference stands for.
fn flag(value: &DeValue<'_>) -> Option<bool> {
    value.as_bool().or_else(|| value.as_str()?.parse().ok())
}

/// Returns the keys of actions, of which a rule has one.
fn actions() -> impl Iterator<Item = &'static str> {
    ["keep", "drop", "sample", "route"].into_iter().chain(Rewrite::ACTIONS)
}

fn keys_of_match() -> Vec<&'static str> {
    let keyed = KEYED.map(|(name, _)| name);
    Fact::ALL.iter().map(|fact| fact.as_str()).chain(keyed).chain(GROUPS).collect()
}
