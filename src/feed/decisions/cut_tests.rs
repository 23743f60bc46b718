//! Every captured trace, split into requests of one span: children of dropped spans get the same parents as in a single request.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::normalize::{Encoding, Envelope, Limits, decode};
use crate::rules::{KnownTraces, Rules, of_text};
use crate::sinks::Delivery;
use crate::span::{Receiver, Source, Span, SpanId};
use crate::support::golden;

const SECOND: u64 = 1_000_000_000;

/// Rules that drop single spans: the first is the rule of Langfuse's `keep = "llm"`.
const RULES: [&str; 5] = [
    "[[rules]]\nmatch = { llm = false }\ndrop = true\n",
    "[[rules]]\nmatch = { not = { kind = [\"generation\", \"tool\"] } }\ndrop = true\n",
    "[[rules]]\nmatch = { kind = \"agent\" }\ndrop = true\n",
    "[[rules]]\nmatch = { kind = [\"tool\", \"custom\", \"chain\"] }\ndrop = true\n",
    "[[rules]]\nmatch = { kind = \"generation\" }\nkeep = true\n[[rules]]\nmatch = { name = \"*a*\" }\ndrop = true\n",
];

/// One or more traces after rules.
pub(crate) struct Cut {
    /// Its source, and how it was split.
    pub(crate) name: String,
    /// The remaining items, in requests of one item each.
    pub(crate) left: Vec<Arc<Batch>>,
    /// The ids of dropped spans.
    pub(crate) dropped: HashSet<SpanId>,
    /// The same as texts, in OTLP's form and in the client's.
    dropped_texts: HashSet<String>,
}

impl Cut {
    /// Returns everything that remains as one delivery.
    pub(crate) fn delivery(&self) -> Delivery {
        let mut delivery = Delivery::default();
        self.left.iter().for_each(|batch| delivery.add(batch, 0..batch.items.len()));
        delivery
    }

    /// Does the same for an OTLP id, which is empty without a parent.
    pub(crate) fn check_parent_id(&self, told: &[u8]) {
        let told = told.iter().fold(String::new(), |all, byte| format!("{all}{byte:02x}"));
        self.check_parent(&told);
    }

    /// Fails if a backend is told this parent but never gets it.
    pub(crate) fn check_parent(&self, told: &str) {
        assert!(!self.dropped_texts.contains(told), "{told} is dropped: {}", self.name);
    }
}

fn texts_of(span: &Span) -> impl Iterator<Item = String> + use<> {
    let agents_sdk =
        span.detail().agents_sdk.as_ref().map(|agents_sdk| agents_sdk.span.to_string());
    [span.span_id.to_string()].into_iter().chain(agents_sdk)
}

fn rules(text: &str) -> Rules {
    let options = DecideOptions { reparent: true, ..DecideOptions::default() };
    Rules::compile(["here"], of_text(text)).waiting(options)
}

/// Returns all items of each captured scenario.
fn captured() -> BTreeMap<String, Vec<Item>> {
    let mut scenarios: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for (folder, receiver) in [("agents-sdk", Receiver::OpenAi), ("otlp", Receiver::OtlpHttp)] {
        for fixture in golden::fixtures(folder) {
            let body = match receiver {
                Receiver::OpenAi => fixture.body.clone(),
                _ => fixture.decoded.clone().unwrap_or_else(|| json!(0)).to_string().into(),
            };
            let source = Source { receiver, ..Source::unknown() };
            let envelope = Envelope::new(source, Encoding::Json, body.len());
            let Ok(decoded) = decode(&envelope, &body, &Limits::default()) else { continue };
            let scenario = fixture.name.split('/').next().unwrap();
            let items = scenarios.entry(format!("{folder}/{scenario}")).or_default();
            items.extend(decoded.batch.items);
        }
    }
    scenarios
}

fn batch(items: Vec<Item>, received_at_ns: u64) -> Arc<Batch> {
    let is_otlp = items.iter().all(|item| item.as_span().is_some_and(Span::is_otlp));
    let receiver = if is_otlp { Receiver::OtlpHttp } else { Receiver::OpenAi };
    let source = Source { receiver, received_at_ns, ..Source::unknown() };
    Arc::new(Batch { source, items, bytes: 0 })
}

/// Applies rules to items that come one by one, in a lane that waits for decisions.
fn one_by_one(rules: &Rules, items: &[Item]) -> Vec<Arc<Batch>> {
    let mut decisions = Decisions::new(rules.decide(), rules.kept());
    let mut times = (1..).map(|number| number * SECOND / 100);
    let batches: Vec<_> =
        items.iter().zip(&mut times).map(|(item, at)| batch(vec![item.clone()], at)).collect();
    for batch in &batches {
        decisions.feed(batch.source.received_at_ns, rules.survey(batch));
    }
    decisions.time.pass(times.next().unwrap() + 10 * SECOND);
    let left = batches.iter().map(|batch| {
        let known = decisions.of_batch(batch);
        rules.apply(batch, KnownTraces::Decided(&known)).batch
    });
    left.filter(|batch| !batch.items.is_empty()).collect()
}

/// Checks every captured scenario with each of some rules, split in the original order and in reverse.
pub(crate) fn each_cut(mut check: impl FnMut(&Cut)) {
    let mut dropped_at_all = 0;
    for (name, items) in captured() {
        for text in RULES {
            let rules = rules(text);
            let ids = |items: &[Item]| -> HashSet<SpanId> {
                items.iter().filter_map(|item| Some(item.as_span()?.span_id)).collect()
            };
            let whole = rules.apply(&batch(items.clone(), SECOND), KnownTraces::Request).batch;
            let dropped: HashSet<_> = ids(&items).difference(&ids(&whole.items)).copied().collect();
            dropped_at_all += dropped.len();
            let spans = items.iter().filter_map(Item::as_span);
            let gone = spans.filter(|span| dropped.contains(&span.span_id));
            let dropped_texts: HashSet<_> = gone.flat_map(texts_of).collect();
            for is_reverse in [false, true] {
                let mut items = items.clone();
                if is_reverse {
                    items.reverse();
                }
                let name = format!("{name}, reverse: {is_reverse}, {text}");
                let left = one_by_one(&rules, &items);
                let (dropped, dropped_texts) = (dropped.clone(), dropped_texts.clone());
                check(&Cut { name, left, dropped, dropped_texts });
            }
        }
    }
    assert!(dropped_at_all > 500, "{dropped_at_all}");
}

#[test]
fn what_is_cut_into_requests_of_one_span_hangs_as_if_it_came_in_one() {
    let mut whole = HashMap::new();
    for (name, items) in captured() {
        for text in RULES {
            let left = rules(text).apply(&batch(items.clone(), SECOND), KnownTraces::Request).batch;
            let hangs = left.spans().map(|span| ((span.trace_id, span.span_id), span.parent_id));
            let hangs: HashMap<_, _> = hangs.collect();
            for is_reverse in [false, true] {
                let name = format!("{name}, reverse: {is_reverse}, {text}");
                whole.insert(name, hangs.clone());
            }
        }
    }
    each_cut(|cut| {
        for span in cut.left.iter().flat_map(|batch| batch.spans()) {
            let key = (span.trace_id, span.span_id);
            assert_eq!(span.parent_id, whole[&cut.name][&key], "{} of {}", span.span_id, cut.name);
            assert!(!span.parent_id.is_some_and(|id| cut.dropped.contains(&id)), "{}", cut.name);
        }
    });
}

#[test]
fn without_waiting_the_same_cuts_leave_orphans() {
    let mut orphans = 0;
    for items in captured().into_values() {
        let rules = rules(RULES[1]);
        let left = items
            .iter()
            .map(|item| rules.apply(&batch(vec![item.clone()], SECOND), KnownTraces::Request));
        let left: Vec<_> = left.flat_map(|left| left.batch.items.clone()).collect();
        let spans = left.iter().filter_map(Item::as_span);
        let ids: HashSet<_> = spans.clone().map(|span| span.span_id).collect();
        orphans += spans.filter(|span| span.parent_id.is_some_and(|id| !ids.contains(&id))).count();
    }
    assert!(orphans > 20, "{orphans}");
}

#[test]
fn a_trace_that_is_kept_keeps_the_spans_that_a_later_rule_would_drop() {
    let text = "[[rules]]\nmatch = { name = \"chat*\" }\nkeep = true\ndecide = \"trace\"\n
        [[rules]]\nmatch = { name = \"GET*\" }\ndrop = true\n";
    let rules = rules(text);
    let span = |id: &str, parent: &str, name: &str| {
        let span = json!({ "trace_id": "0123456789abcdef0123456789abcdef", "span_id": id,
            "parent_span_id": parent, "name": name });
        crate::rules::batch_of_span(&span, "").unwrap().items.remove(0)
    };
    let (a, b, c) = ("1111111111111111", "2222222222222222", "3333333333333333");
    let below = [span(c, b, "step"), span(b, a, "GET /"), span(a, "", "top")];
    let parents = |items: &[Item]| -> Vec<_> {
        let left = one_by_one(&rules, items);
        left.iter().flat_map(|left| left.spans().map(|span| span.parent_id)).collect()
    };
    let id = |text| SpanId::from_hex(text);
    assert_eq!(parents(&below), [id(a), None]);
    let kept: Vec<_> = below.into_iter().chain([span("4444444444444444", a, "chat")]).collect();
    assert_eq!(parents(&kept), [id(b), id(a), None, id(a)]);
}

#[test]
fn spans_without_room_are_counted_and_what_is_below_them_keeps_its_parent() {
    let rules = rules(RULES[0]);
    let options = DecideOptions { quiet: Duration::from_secs(1), ..rules.decide() };
    let mut decisions = Decisions { spans_max: 2, ..Decisions::new(options, rules.kept()) };
    let items = captured().into_values().flatten();
    let dropped =
        |item: &Item| rules.apply(&batch(vec![item.clone()], 1), KnownTraces::Request).filtered > 0;
    for item in items.filter(|item| item.as_span().is_some() && dropped(item)).take(5) {
        decisions.feed(SECOND, rules.survey(&batch(vec![item], SECOND)));
    }
    assert_eq!((decisions.dropped.len(), decisions.undecided().no_room), (2, 3));
}
