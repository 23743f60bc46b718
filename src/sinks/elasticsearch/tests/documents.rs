//! The documents of spans and traces.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::feed::decisions::cut_tests::each_cut;
use crate::sinks::elasticsearch::document::{Degradation, Subject};
use crate::sinks::elasticsearch::names::{Names, event_ns, index_at};
use crate::sinks::elasticsearch::options::Rotation;
use crate::sinks::elasticsearch::server::Server;
use crate::sinks::elasticsearch::tree::Place;
use crate::sinks::samples;
use crate::span::{Attribute, RootSpan, Scope, SpanError, TraceContext, Value, keys};
use crate::support::golden;

const GOLDEN: &str = "sinks-elasticsearch/bulk.ndjson";

fn encoder(settings: &Settings) -> Encoder<'_> {
    let server = Server::assumed(settings.options.flavor);
    Encoder::new(settings, server, settings.options.request_bytes_max.as_usize())
}

/// Encodes a delivery and concatenates its requests.
fn bulk(settings: &Settings, delivery: &Delivery) -> String {
    let bulks = encoder(settings).delivery(delivery, |_| true);
    bulks.into_iter().map(|bulk| String::from_utf8(bulk.body.into()).unwrap()).collect()
}

/// Parses actions with their documents.
fn pairs(bulk: &str) -> Vec<(Json, Json)> {
    // One sample has half of a surrogate pair, which servers accept and serde does not.
    let read = |line: &str| serde_json::from_str(&line.replace("\\ud83d", "?")).unwrap();
    let lines: Vec<Json> = bulk.lines().map(read).collect();
    lines.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

fn every_item() -> Delivery {
    samples::delivery(samples::START_NS, samples::every_item())
}

/// Returns the document of a span.
pub(super) fn document(
    settings: &Settings,
    item: &Item,
    degradation: Degradation,
    bytes_max: usize,
) -> String {
    document_in(settings, item, None, degradation, bytes_max)
}

/// Returns the document of a span, given a trace context.
fn document_in(
    settings: &Settings,
    item: &Item,
    context: Option<&TraceContext>,
    degradation: Degradation,
    bytes_max: usize,
) -> String {
    let span = item.as_span().unwrap();
    let source = Source { received_at_ns: START_NS, ..Source::unknown() };
    let subject = Subject::of(span, &source, context, RootSpan::Auto);
    let mut out = Vec::new();
    document::write(&mut out, (&subject, &Place::default()), settings, degradation, bytes_max);
    String::from_utf8(out).unwrap()
}

pub(super) fn read(document: &str) -> Json {
    serde_json::from_str(document).unwrap()
}

#[test]
fn the_documents_of_every_item_are_those_of_the_golden() {
    let written = bulk(&settings("payload_search = true"), &every_item());
    if std::env::vars_os().any(|(name, _)| name == "UPDATE_GOLDENS") {
        std::fs::create_dir_all(golden::path("sinks-elasticsearch")).unwrap();
        std::fs::write(golden::path(GOLDEN), &written).unwrap();
    }
    let kept = String::from_utf8(golden::read(GOLDEN)).unwrap();
    for (line, (written, kept)) in written.lines().zip(kept.lines()).enumerate() {
        assert_eq!(written, kept, "line {}; UPDATE_GOLDENS=1 accepts it", line + 1);
    }
    assert_eq!(written.lines().count(), kept.lines().count());
}

// === The mapping ===

/// Finds fields of a document that its mapping lacks.
fn unmapped(doc: &Json, properties: &Json, path: &str, found: &mut BTreeSet<String>) {
    for (name, value) in doc.as_object().unwrap() {
        let path = format!("{path}{name}");
        let Some(field) = properties.get(name) else {
            found.insert(path);
            continue;
        };
        if let Some(inner) = field.get("properties") {
            unmapped(value, inner, &format!("{path}."), found);
        } else if field["type"] == "alias" {
            found.insert(format!("{path} is an alias"));
        }
    }
}

#[test]
fn every_field_that_is_written_is_in_the_mapping() {
    for options in ["", "payload_search = true", "rotation = \"data_stream\""] {
        let settings = settings(options);
        let server = Server::assumed(settings.options.flavor);
        let mut found = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut spans: Vec<Item> = samples::every_item();
        let mut agent = Told::agent(1, 1, Some(0), "Triage");
        agent.facts.error = Some(SpanError::default());
        spans.extend([agent.item(), Told::model_call(1, 2, Some(1), 1, 1).item()]);
        let mut odd = Told::new(1, 9, None, Kind::Custom);
        odd.start_ns = Some(1);
        odd.facts.aggregate_usage = Usage { input: Some(1), ..Usage::default() };
        spans.extend([trace_object(1, "checkout"), odd.item()]);
        let mut docs = pairs(&bulk(&settings, &samples::delivery(START_NS, spans)));
        docs.push((json!({"index": {"_index": TRACES}}), summary_of_everything(&settings)));
        for (action, mut doc) in docs {
            let action = action.as_object().unwrap().values().next().unwrap();
            let index = action["_index"].as_str().unwrap();
            if doc["upsert"].is_object() {
                doc = doc["upsert"].take();
            }
            let mapping = templates::index_body(&settings, server, index);
            unmapped(&doc, &mapping["mappings"]["properties"], "", &mut found);
            names.extend(doc.as_object().unwrap().keys().cloned());
        }
        for item in samples::every_item().iter().filter(|item| item.as_span().is_some()) {
            let doc = read(&document(&settings, item, Degradation::Folded, usize::MAX));
            let mapping = templates::index_body(&settings, server, SPANS);
            unmapped(&doc, &mapping["mappings"]["properties"], "", &mut found);
            names.extend(doc.as_object().unwrap().keys().cloned());
        }
        assert_eq!(found, BTreeSet::new(), "{options}");
        // Every field of the mapping must be filled.
        let mapped = [SPANS, TRACES].into_iter().flat_map(|index| {
            let mapping = templates::index_body(&settings, server, index);
            let properties = mapping["mappings"]["properties"].as_object().unwrap().clone();
            properties.into_iter().filter(|(_, field)| field["type"] != "alias")
        });
        let unused: Vec<_> =
            mapped.map(|(name, _)| name).filter(|name| !names.contains(name)).collect();
        assert_eq!(unused, Vec::<String>::new(), "{options}");
    }
}

/// Builds a summary that has every field.
fn summary_of_everything(settings: &Settings) -> Json {
    let value = |value: f64| json!({ "value": value });
    let names = json!({ "buckets": [{ "key": "agent", "doc_count": 2 }] });
    let us = 1_795_238_109_529_503.0;
    let sum = json!({
        "key": "t", "doc_count": 3, "start_us": value(us), "end_us": value(us + 9.0),
        "received_at": value(1.0), "updated_at": value(2.0), "error_count": value(1.0), "nonfatal_error_count": value(0.0),
        "max_depth": value(1.0), "types": names, "agents": names, "tools": names, "models": names,
        "workflow_name": names, "group_id": names, "service_name": names,
        "input_tokens": value(1.0), "output_tokens": value(1.0), "total_tokens": value(2.0),
        "cost_usd": value(0.5),
    });
    let shards = json!({ "failed": 0 });
    let answer =
        json!({"responses": [{"_shards": shards, "aggregations": {"traces": {"buckets": [sum]}}}]});
    let answer = answer.to_string();
    let mut looked = queries::read_looked(answer.as_bytes()).unwrap();
    let body = json!({"docs": [{"_id": "t", "_source": {"metadata": {"a": 1}, "trace_object": {"group_id": "g"}}}]});
    let body = body.to_string();
    let found = queries::read_found(body.as_bytes()).unwrap().remove("t").unwrap();
    let sum = looked.sums.remove("t").unwrap();
    let mut out = Vec::new();
    summary::Summary { name: "t", sum, found, max_depth: 4 }.write(&mut out, settings);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn what_a_trace_object_says_comes_before_what_spans_say() {
    let doc = summary_of_everything(&settings(""));
    assert_eq!((&doc["workflow_name"], &doc["group_id"]), (&json!("agent"), &json!("g")));
    assert_eq!((&doc["agent_span_count"], &doc["max_depth"]), (&json!(2), &json!(4)));
    assert_eq!((&doc["duration_ms"], &doc["metadata_kv"]), (&json!(0.009), &json!(["a=1"])));
}

#[test]
fn the_name_of_a_task_does_not_beat_that_of_its_trace() {
    let mut task = Told::new(1, 1, None, Kind::Chain);
    task.facts.workflow = Some(Text::from_static("a task"));
    let Item::Trace(object) = trace_object(1, "checkout") else { panic!() };
    let context = TraceContext { trace: Some(object), ..TraceContext::default() };
    let workflow = |context| {
        let doc = document_in(&settings(""), &task.item(), context, Degradation::Full, usize::MAX);
        read(&doc)["workflow_name"].clone()
    };
    assert_eq!((workflow(Some(&context)), workflow(None)), (json!("checkout"), json!("a task")));
}

#[test]
fn times_at_which_no_agent_was_at_work_are_kept_apart() {
    for (start_ns, end_ns) in
        [(1, START_NS), (START_NS, u64::MAX), (START_NS, 10_413_792_000_000_000_000)]
    {
        let mut odd = Told::new(1, 1, None, Kind::Custom);
        (odd.start_ns, odd.end_ns) = (Some(start_ns), Some(end_ns));
        let doc = read(&document(&settings(""), &odd.item(), Degradation::Full, usize::MAX));
        assert_eq!(doc.get("duration_ms"), None, "it would be in the average of all");
        assert_eq!(doc["odd_time"]["start_ns"], start_ns.to_string());
        assert_eq!(doc["odd_time"]["end_ns"], end_ns.to_string());
        assert_eq!(doc.get("start_us").is_some(), start_ns == START_NS);
        assert_eq!(doc.get("end_us").is_some(), end_ns == START_NS);
    }
}

#[test]
fn an_id_that_is_too_long_to_be_searched_for_is_hashed_everywhere_and_kept() {
    let long = "\u{e9}".repeat(257);
    let wire = json!({"id": long, "trace_id": long, "parent_id": long}).to_string();
    let wire: &'static str = Box::leak(wire.into_boxed_str());
    let id = Text::from(long.as_str());
    let ids = SdkIds { trace: id.clone(), span: id.clone(), parent: Some(id) };
    let detail = Detail { agents_sdk: Some(ids), ..Detail::default() };
    let mut span = samples::sdk_span(0, wire, detail, Facts::default());
    span.parent_id = Some(span_id(7));
    let doc = read(&document(&settings(""), &Item::Span(span), Degradation::Full, usize::MAX));
    for field in ["trace_id", "span_id", "parent_id"] {
        assert_eq!(doc[field].as_str().unwrap().len(), 64, "{field}");
    }
    assert_eq!(doc["attributes"]["trace_id"], long);
    let short = "\u{e9}".repeat(256);
    assert_eq!(names::searchable(short.as_str().into()), short);
}

#[test]
fn the_mapping_is_closed_and_small() {
    fn count(properties: &Json) -> usize {
        let fields = properties.as_object().unwrap().values();
        fields.map(|field| 1 + field.get("properties").map_or(0, count)).sum()
    }
    let settings = settings("");
    for index in [SPANS, TRACES] {
        let body =
            templates::index_body(&settings, Server::assumed(settings.options.flavor), index);
        assert_eq!(body["mappings"]["dynamic"], false);
        assert_eq!(body["mappings"]["_meta"]["schema_version"], templates::SCHEMA_VERSION);
        assert!(count(&body["mappings"]["properties"]) < 80);
    }
}

// === Ids and indices ===

#[test]
fn documents_are_named_after_spans() {
    let settings = settings("");
    let otlp = samples::delivery(START_NS, vec![Item::Span(samples::numbered_span(1))]);
    let id = |delivery: &Delivery| pairs(&bulk(&settings, delivery))[0].0["index"]["_id"].clone();
    assert_eq!(id(&otlp), "5b8efff798038103d269b633813fc60c-0000000000000002");
    assert_eq!(id(&told(&[Told::new(1, 7, None, Kind::Custom)])), span_name(7).as_str());
}

#[test]
fn user_and_tags_are_the_spans_own_or_else_those_of_its_trace() {
    let tags = |tags: &[&str]| tags.iter().map(|tag| Text::from(*tag)).collect::<Vec<_>>();
    let long = "x".repeat(1025);
    let own = Facts {
        user: Some(Text::from("ada")),
        tags: tags(&["eu", "", &long, "beta"]),
        ..Facts::default()
    };
    let settings = settings("");
    let trace = TraceContext {
        user: Some(Text::from("of the trace")),
        tags: tags(&["a"]),
        ..TraceContext::default()
    };
    let all = (0..100).map(|number| Text::from(number.to_string()));
    for (facts, context, user, tags) in [
        (own.clone(), None, json!("ada"), json!(["eu", "beta"])),
        (own, Some(&trace), json!("ada"), json!(["eu", "beta"])),
        (Facts::default(), Some(&trace), json!("of the trace"), json!(["a"])),
        (Facts::default(), None, Json::Null, Json::Null),
        (
            Facts { tags: all.collect(), ..Facts::default() },
            None,
            Json::Null,
            (0..64).map(|number| number.to_string()).collect(),
        ),
    ] {
        let item = Item::Span(samples::sdk_span(0, "{}", Detail::default(), facts));
        let doc = read(&document_in(&settings, &item, context, Degradation::Full, usize::MAX));
        assert_eq!((&doc["user"], &doc["tags"]), (&user, &tags));
    }
}

#[test]
fn an_id_that_is_too_long_to_name_a_document_is_hashed() {
    let long = "s".repeat(600);
    let names =
        Names { trace: "t".into(), span: long.as_str().into(), parent: None, is_agents_sdk: true };
    assert_eq!(names.doc_id().len(), 64);
    let short = "s".repeat(512);
    assert_eq!(Names { span: short.as_str().into(), ..names }.doc_id(), short);
}

#[test]
fn an_index_is_named_after_when_a_span_started() {
    let source = Source { received_at_ns: START_NS + 86_400_000_000_000, ..Source::unknown() };
    let name = |rotation, start_ns, end_ns| {
        let Item::Span(mut span) = Told::new(1, 1, None, Kind::Custom).item() else { panic!() };
        (span.start_ns, span.end_ns) = (start_ns, end_ns);
        index_at(SPANS, rotation, event_ns(&span, &source)).into_owned()
    };
    let day = START_NS;
    for (rotation, start_ns, end_ns, expected) in [
        (Rotation::None, day, day, "agent-traces-spans"),
        (Rotation::DataStream, day, day, "agent-traces-spans"),
        (Rotation::Daily, day, day, "agent-traces-spans-2026.11.21"),
        (Rotation::Monthly, day, day, "agent-traces-spans-2026.11"),
        // Without a start, and with a broken clock.
        (Rotation::Daily, 0, day, "agent-traces-spans-2026.11.21"),
        (Rotation::Daily, 0, 0, "agent-traces-spans-2026.11.22"),
        (Rotation::Daily, 1, 2, "agent-traces-spans-2026.11.22"),
        (Rotation::Daily, u64::MAX, u64::MAX, "agent-traces-spans-2026.11.22"),
    ] {
        assert_eq!(name(rotation, start_ns, end_ns), expected);
    }
}

#[test]
fn a_root_of_our_own_and_what_is_below_it_spell_its_id_alike() {
    let attribute = Attribute {
        key: Text::from_static(keys::OPENAI_AGENTS_TRACE_ID),
        value: Value::Text(Text::from(trace_name(1))),
    };
    let detail = Detail { attributes: vec![attribute], ..Detail::default() };
    let outline = SpanHeader {
        trace_id: trace_id(1),
        span_id: span_id(99),
        parent_id: None,
        start_ns: START_NS,
        end_ns: START_NS,
        wire: Bytes::new(),
    };
    let facts =
        Facts { kind: Kind::Chain, name: Text::from_static("checkout"), ..Facts::default() };
    let root = Span::synthetic(outline, Arc::default(), detail, facts);
    let child = Told { below_root: Some(99), ..Told::new(1, 1, None, Kind::Agent) };
    let bulk = bulk(&settings(""), &delivery(vec![child.item(), Item::Span(root)]));
    let docs = pairs(&bulk);
    let [(_, child), (action, root)] = docs.as_slice() else { panic!("{bulk}") };
    assert_eq!(child["parent_id"], root["span_id"]);
    assert_eq!((&child["depth"], &root["depth"]), (&json!(1), &json!(0)));
    assert_eq!(root["trace_id"], trace_name(1).as_str());
    assert_eq!(root["source"], "spanferry");
    let id = format!("{}-{}", trace_name(1), root["span_id"].as_str().unwrap());
    assert_eq!(action["index"]["_id"], id.as_str());
}

// === Arbitrary values ===

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Empty),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Double),
        "\\PC{0,40}".prop_map(|text| Value::Text(Text::from(text))),
        "[\\x00-\\x1f\"\\\\]{0,20}".prop_map(|text| Value::Text(Text::from(text))),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let entries = proptest::collection::vec(("[a-c.]{0,2}", inner.clone()), 0..4);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::Array),
            entries.prop_map(|entries| Value::Map(attributes(entries))),
        ]
    })
}

fn attributes(entries: Vec<(String, Value)>) -> Vec<Attribute> {
    let entries = entries.into_iter();
    entries.map(|(key, value)| Attribute { key: Text::from(key), value }).collect()
}

/// Returns whether a text is JSON without repeated names in an object.
fn is_strict(text: &str) -> bool {
    struct Strict;
    impl<'de> serde::Deserialize<'de> for Strict {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(Look)
        }
    }
    struct Look;
    impl<'de> serde::de::Visitor<'de> for Look {
        type Value = Strict;
        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("anything")
        }
        fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_str<E>(self, _: &str) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_unit<E>(self) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
            while seq.next_element::<Strict>()?.is_some() {}
            Ok(Strict)
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
            let mut names = BTreeSet::new();
            while let Some(name) = map.next_key::<String>()? {
                // serde represents numbers of any size as an object with a special name.
                let is_new = names.insert(name);
                if !is_new {
                    return Err(serde::de::Error::custom("a name twice"));
                }
                map.next_value::<Strict>()?;
            }
            Ok(Strict)
        }
    }
    serde_json::from_str::<Strict>(text).is_ok()
}

proptest! {
    #[test]
    fn a_document_is_one_line_of_strict_json_and_never_too_large(
        entries in proptest::collection::vec(("[a-d.]{0,3}", value()), 0..12),
        bytes_max in 16_384_usize..40_000,
        is_folded in any::<bool>(),
    ) {
        let detail = Detail { attributes: attributes(entries), ..Detail::default() };
        let span = samples::otlp_span(1, &Arc::<Scope>::default(), detail, Facts::default());
        let degradation = if is_folded { Degradation::Folded } else { Degradation::Full };
        let text = document(&settings(""), &Item::Span(span), degradation, bytes_max);
        prop_assert!(text.len() <= bytes_max);
        prop_assert!(!text.contains('\n') && !text.contains('\r'));
        prop_assert!(is_strict(&text), "{}", text);
    }
}

#[test]
fn no_document_has_a_parent_that_rules_dropped_in_another_request() {
    let settings = settings("");
    each_cut(|cut| {
        for parent in bulk(&settings, &cut.delivery()).split("\"parent_id\":\"").skip(1) {
            cut.check_parent(parent.split('"').next().unwrap());
        }
    });
}
