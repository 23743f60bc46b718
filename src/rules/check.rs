//! `[[tests]]`: a span, and the expected result of the rules. Pure.

use std::ops::Range;
use std::sync::Arc;

use memchr::memmem;
use serde::Deserialize as _;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::condition::Condition;
use super::example::{batch_of_item, batch_of_span, span_schema};
use super::read::DEPTH_MAX;
use super::reading::{Reading, texts};
use super::{Beside, KnownTraces, Rules, explained};
use crate::span::{Batch, Item};
use crate::support::json::write_inside;
use crate::support::options::{check, did_you_mean};
use crate::support::problem::Problem;

/// A test of rules.
#[derive(Debug)]
pub struct Test {
    /// The sink whose rules are tested; without one, only the rules for all sinks are.
    pub sink: Option<String>,
    batch: Arc<Batch>,
    at: Range<usize>,
    is_dropped: bool,
    /// Conditions on the result, with their positions.
    holds: Vec<(Range<usize>, Condition)>,
    /// Texts that must not occur in the result, with their positions.
    absent: Vec<(Range<usize>, String)>,
}

const DROPPED: &str = "dropped";
const KEPT: &str = "kept";
const ABSENT: &str = "absent";

/// Reads a list of tests. Invalid tests are left out and reported as problems.
pub fn read_tests(
    section: Option<&Spanned<DeValue<'_>>>,
    sinks: &[&str],
    problems: &mut Vec<Problem>,
) -> Vec<Test> {
    let Some(section) = section else { return Vec::new() };
    let mut reading = Reading { problems };
    let tables = reading.tables(section, "test", "write a test as [[tests]]");
    tables.iter().filter_map(|table| reading.rule_test(table, sinks)).collect()
}

impl Reading<'_> {
    fn rule_test(&mut self, table: &Spanned<DeTable<'_>>, sinks: &[&str]) -> Option<Test> {
        let known = self.problems.len();
        self.problems.extend(check(table, &test_schema(), " for a test"));
        let (at, table) = (table.span(), table.get_ref());
        let text = |name| table.get(name).and_then(|value| value.get_ref().as_str());
        let sink = text("sink");
        if let Some(name) = sink.filter(|sink| !sinks.contains(sink)) {
            let hint = did_you_mean(name, sinks).unwrap_or_default();
            let at = table.get("sink").map_or(at.clone(), Spanned::span);
            self.report(&at, "there is no sink with this name", &hint);
        }
        if known < self.problems.len() {
            return None;
        }
        let tenant = text("tenant").unwrap_or_default();
        let (value, made) = match (table.get("span"), table.get("openai")) {
            (Some(span), None) => (span, batch_of_span(&plain(span), tenant)),
            (None, Some(item)) => (item, batch_of_item(&plain(item), tenant)),
            _ => {
                let hint = "add `span = { name = \"...\" }` here";
                return self.wrong(&at, "a test has one span", hint);
            }
        };
        let batch = match made {
            Ok(batch) => Arc::new(batch),
            Err(problem) => {
                let what = format!("this is not a span: {problem}");
                return self.wrong(&value.span(), what, "");
            }
        };
        let expect = table.get("expect")?;
        let (mut holds, mut absent) = (Vec::new(), Vec::new());
        match expect.get_ref() {
            DeValue::String(word) if word == DROPPED || word == KEPT => {}
            DeValue::Table(table) => {
                for (key, value) in table {
                    if key.get_ref() == ABSENT {
                        let texts = texts(value).into_iter();
                        absent.extend(texts.map(|(at, text)| (at, text.to_owned())));
                        continue;
                    }
                    let one = DeTable::from_iter([(key.clone(), value.clone())]);
                    let one = Spanned::new(value.span(), DeValue::Table(one));
                    holds.push((value.span(), self.group(&one, DEPTH_MAX)?));
                }
            }
            _ => {
                let hint = "write \"dropped\", \"kept\", or conditions: `{ kind = \"tool\" }`";
                return self.wrong(&expect.span(), "not a valid expectation", hint);
            }
        }
        let (sink, at) = (sink.map(str::to_owned), expect.span());
        let is_dropped = expect.get_ref().as_str() == Some(DROPPED);
        let is_good = known == self.problems.len();
        is_good.then_some(Test { sink, batch, at, is_dropped, holds, absent })
    }
}

/// Returns a value without positions.
fn plain(value: &Spanned<DeValue<'_>>) -> Value {
    Value::deserialize(ValueDeserializer::from(value.clone())).unwrap_or_default()
}

impl Test {
    /// Runs the test and returns the differences from the expected result.
    pub fn run(&self, rules: &Rules) -> Vec<Problem> {
        let (left, steps) = rules.explain(&self.batch, KnownTraces::Request);
        let did = explained(steps.first().into_iter().flatten());
        let failed = |at: &Range<usize>, what: &str| {
            Problem::new(Some(at.clone()), format!("the test fails: {what}"), &*did)
        };
        let item = match (left.batch.items.first(), self.is_dropped) {
            (None, true) => return Vec::new(),
            (Some(_), true) => return vec![failed(&self.at, "the span is kept")],
            (None, false) => return vec![failed(&self.at, "the span is dropped")],
            (Some(item), false) => item,
        };
        let beside = Beside { source: &left.batch.source, prices: rules.prices() };
        let untrue = self.holds.iter().filter(|(_, one)| one.holds(beside, item) != Some(true));
        let untrue = untrue.map(|(at, _)| failed(at, "this does not hold for the result"));
        let there = self.absent.iter().filter(|(_, text)| is_in(item, text));
        let there = there.map(|(at, _)| failed(at, "the result contains this text"));
        untrue.chain(there).collect()
    }
}

/// Returns whether a text occurs anywhere in an item.
fn is_in(item: &Item, text: &str) -> bool {
    let mut escaped = Vec::new();
    // As JSON has it.
    write_inside(&mut escaped, text.as_bytes());
    let forms = [text.as_bytes(), &escaped];
    let has = |bytes: &[u8]| forms.iter().any(|text| memmem::find(bytes, text).is_some());
    match item {
        Item::Trace(object) => has(&object.wire),
        Item::Span(span) => {
            has(&span.wire)
                || has(&span.scope.wire)
                || has(&span.scope.resource.wire)
                || span.trace.as_ref().is_some_and(|object| has(&object.wire))
        }
    }
}

/// Returns the schema of the list of tests.
pub fn tests_schema() -> Value {
    json!({
        "description": "Tests of the rules, run by `spanferry validate`: a span, and the expected result.",
        "default": null,
        "type": "array",
        "items": test_schema(),
        "examples": [[{ "span": { "name": "GET /healthz" }, "expect": DROPPED }]],
    })
}

fn test_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "description": "A name for people.", "type": "string" },
            "sink": { "description": "The sink whose rules are tested; without it, the rules for all sinks.", "type": "string" },
            "tenant": { "description": "The tenant that sends the span.", "type": "string" },
            "span": span_schema(),
            "openai": { "description": "An item of the Agents SDK.", "type": "object" },
            "expect": {
                "description": "`\"dropped\"`, `\"kept\"`, or what holds for what is left, as in `match`, with `absent` for texts that \
                    are nowhere in it.",
            },
        },
        "required": ["expect"],
        "additionalProperties": false,
    })
}
