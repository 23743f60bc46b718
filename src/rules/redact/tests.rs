//! Planted secrets in every place of both formats, and properties of everything else.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};
use toml::de::DeTable;

use super::*;
use crate::normalize::{Decoded, Encoding, Envelope, Limits, decode, decode_record};
use crate::rules::{BeforeJournal, Place, read};
use crate::span::{Attribute, Receiver, Source};
use crate::support::planted::{
    IN_CONTEXT, PLANTED, agents_sdk_everywhere, otlp_everywhere, sdk_span,
};
use crate::support::problem::Problem;

fn all_names() -> String {
    let names: Vec<_> = PATTERNS.iter().map(|pattern| format!("'{}'", pattern.name)).collect();
    names.join(", ")
}

fn parsed(action: &str, toml: &str) -> (Option<Rewrite>, Vec<Problem>) {
    let text = format!("value = {toml}");
    let table = DeTable::parse(&text).unwrap().into_inner();
    let mut problems = Vec::new();
    let rewrite = Rewrite::read(action, table.get("value").unwrap(), &mut problems);
    (rewrite, problems)
}

fn rewrite(action: &str, toml: &str) -> Rewrite {
    let (rewrite, problems) = parsed(action, toml);
    assert!(problems.is_empty(), "{problems:?}");
    rewrite.unwrap()
}

fn masking_all() -> Rewrite {
    rewrite("redact", &format!("{{ patterns = [{}] }}", all_names()))
}

fn value_of(rewrite: &Rewrite, text: &str) -> Option<String> {
    let Rewrite::Redact(redaction) = rewrite else { panic!() };
    redaction.value(b"", text.as_bytes()).map(|text| String::from_utf8(text).unwrap())
}

fn cleaned(rewrite: &Rewrite, text: &str) -> String {
    value_of(rewrite, text).unwrap_or_else(|| text.to_owned())
}

fn envelope(receiver: Receiver, encoding: Encoding, body: &[u8]) -> Envelope {
    let source = Source { receiver, ..Source::unknown() };
    Envelope::new(source, encoding, body.len())
}

fn read_body(receiver: Receiver, encoding: Encoding, body: &Bytes) -> Decoded {
    decode(&envelope(receiver, encoding, body), body, &Limits::default()).unwrap()
}

fn agents_sdk(items: &[Value]) -> Vec<Item> {
    let body = Bytes::from(json!({ "data": items }).to_string());
    read_body(Receiver::OpenAi, Encoding::Json, &body).batch.items
}

fn otlp_items(request: &ExportTraceServiceRequest) -> Vec<Item> {
    let body = Bytes::from(request.encode_to_vec());
    read_body(Receiver::OtlpHttp, Encoding::Protobuf, &body).batch.items
}

/// Returns everything that is visible of an item.
fn seen(item: &Item) -> String {
    let wire = String::from_utf8_lossy(item.wire()).into_owned();
    match item {
        Item::Trace(trace) => format!("{wire}{trace:?}"),
        Item::Span(span) => {
            let scope = &span.scope;
            let wires = [&scope.wire, &scope.resource.wire]
                .map(|wire| String::from_utf8_lossy(wire).into_owned());
            format!(
                "{wire}{:?}{:?}{wires:?}{:?}{:?}",
                span.detail(),
                span.facts(),
                scope,
                scope.resource
            )
        }
    }
}

#[test]
fn every_pattern_finds_its_secrets_and_says_what_was_there() {
    let rule = masking_all();
    for (name, secret) in PLANTED {
        for (before, after) in [
            ("", ""),
            ("key: ", "."),
            ("(", ")"),
            ("\"", "\""),
            ("a\n", "\nb"),
            ("\u{e9} ", " \u{e9}"),
            ("x=", "&y"),
        ] {
            let found = cleaned(&rule, &format!("{before}{secret}{after}"));
            assert_eq!(found, format!("{before}[{name}]{after}"), "{secret}");
            assert_eq!(value_of(&rule, &found), None, "twice is once: {found}");
        }
    }
    for (name, told, secret) in IN_CONTEXT {
        let found = cleaned(&rule, &format!("before {told} after"));
        assert!(found.contains(&format!("[{name}]")) && !found.contains(secret), "{found}");
        assert!(found.starts_with("before ") && found.ends_with(" after"), "{found}");
    }
    let tested = PLANTED.map(|(name, _)| name);
    let in_context = IN_CONTEXT.map(|(name, ..)| name);
    for pattern in PATTERNS {
        assert!(
            tested.contains(&pattern.name) || in_context.contains(&pattern.name),
            "{}",
            pattern.name
        );
    }
}

#[test]
fn what_only_looks_like_a_secret_stays() {
    let rule = masking_all();
    for innocent in [
        "task-management-system-for-everybody",
        "sk-learn-something-very-long-name",
        "4111 1111 1111 1112",
        "1795238969114407720",
        "0.4111111111111111",
        "version 1.2.3",
        "10:20:30",
        "std::vector",
        "DE00 3704 0044 0532 0130 00",
        "000-12-3456",
        "2026-11-28",
        "256.1.1.1",
        "1.2.3.4.5",
        "AKIA1234",
        "user@localhost",
        "a@b",
        "@decorator",
        "https://example.com/a:b@",
        "eyJ.eyJ.x",
        "12:34",
        "trace_0123456789abcdef0123456789abcdef",
        "2026-11-28T10:00:00.123456+00:00",
        "bearer of good news and much more of it",
        "[openai_key] [email:1a2b3c4d5e6f] [credit_card]",
        "call_0123456789abcdefABCDEF",
        "gpt-4o-mini-2024-07-18",
        "3.14159265358979",
    ] {
        assert_eq!(value_of(&rule, innocent), None, "{innocent}");
    }
    let image =
        format!("data:image/png;base64,{}-sk-{}", "iVBORw0KGgo".repeat(60), "abcd0123".repeat(60));
    assert_eq!(value_of(&rule, &image), None, "base64 is left alone");
    let short = "data:image/png;base64,iVBORw0KGgo+sk-abcd0123abcd0123abcd0123";
    assert_eq!(value_of(&rule, short), None);
}

#[test]
fn the_longest_header_of_a_token_is_found_and_beginnings_without_an_end_stay() {
    let header = format!("eyJ{}", "a".repeat(508));
    assert_eq!(cleaned(&masking_all(), &format!("{header}.eyJ12345678.")), "[jwt]");
    let text = "eyJ".repeat(100_000);
    assert_eq!(cleaned(&masking_all(), &text), text);
}

#[test]
fn a_secret_behind_escapes_is_found_and_json_stays_json() {
    let rule = masking_all();
    let secret = "sk-proj-abcdefghij0123456789ABCDEFGHIJ";
    let hidden = secret.replace('-', r"\u002D").replacen('p', r"\u0070", 1);
    let nested = json!({ "arguments": json!({ "deep": json!({ "key": secret, "card": 4_111_111_111_111_111_u64 }).to_string() }).to_string() });
    let twice = format!(r#"{{"a":"{{\"k\":\"{}\"}}"}}"#, hidden.replace('\\', r"\\\\"));
    for json in [
        format!(r#"{{"k":"{hidden}","n":1}}"#),
        format!(r#"["line\n{secret}\tnext", 4111111111111111, "\u00a04111 1111 1111 1111"]"#),
        nested.to_string(),
        twice,
        format!(r#"{{"jane@example.com":"{secret}"}}"#),
        format!(r#"{{"url":"https:\/\/u:{secret}@h.example\/"}}"#),
        r#"{"SecretAccessKey":"wJalrXUtnFEMI/K7MDENG\/bPxRfiCYEXAMPLEKEY","aws_secret_access_key":"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}"#.to_owned(),
    ] {
        let found = cleaned(&rule, &json);
        let parsed: Value = serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found}"));
        let shown = parsed.to_string();
        for gone in ["abcdefghij0123456789", "4111", "jane@", r"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY,"] {
            assert!(!shown.contains(gone), "{gone} in {found}");
        }
        assert_eq!(value_of(&rule, &found), None, "{found}");
    }
    let kept = r#"{ "k" : "caf\u00e9 \/ x", "t":"jane@example.com", "n":1.50 }"#;
    assert_eq!(
        cleaned(&rule, kept),
        kept.replace("jane@example.com", "[email]"),
        "nothing else moves"
    );
    let cut = format!(r#"{{"messages":[{{"content":"my key is {hidden} and {hidden}"#);
    assert_eq!(
        cleaned(&rule, &cut),
        r#"{"messages":[{"content":"my key is [openai_key] and [openai_key]"#,
        "JSON that was cut off"
    );
}

#[test]
fn no_planted_secret_is_left_in_any_place_of_an_otlp_span() {
    let rule = masking_all();
    for (name, secret) in PLANTED {
        for item in otlp_items(&otlp_everywhere(secret)) {
            let mut shared = Shared::default();
            let found = rule.apply(&item, &mut shared).unwrap().unwrap();
            assert!(!seen(&found).contains(secret), "{secret}: {}", seen(&found));
            assert!(seen(&found).contains(name));
            OtlpSpan::decode(found.wire().clone()).unwrap();
            assert!(rule.apply(&found, &mut shared).unwrap().is_none(), "twice is once: {secret}");
            let (Item::Span(before), Item::Span(after)) = (&item, &found) else { panic!() };
            assert_eq!(
                (before.span_id, before.start_ns, before.end_ns),
                (after.span_id, after.start_ns, after.end_ns)
            );
        }
    }
}

#[test]
fn no_planted_secret_is_left_in_any_place_of_an_item_of_the_sdk() {
    let rule = masking_all();
    for (_, secret) in PLANTED {
        for item in agents_sdk(&agents_sdk_everywhere(secret)) {
            let mut shared = Shared::default();
            let found = rule.apply(&item, &mut shared).unwrap().unwrap();
            let found = match found {
                // Its trace object is rewritten separately.
                Item::Span(span) => Item::Span(span.with_trace(None)),
                trace @ Item::Trace(_) => trace,
            };
            assert!(!seen(&found).contains(secret), "{secret}: {}", seen(&found));
            let json: Value = serde_json::from_slice(found.wire()).unwrap();
            let before: Value = serde_json::from_slice(item.wire()).unwrap();
            assert_eq!(shape(&json), shape(&before));
            assert!(rule.apply(&found, &mut shared).unwrap().is_none(), "twice is once");
        }
    }
}

/// Returns a value with all strings and numbers made equal.
fn shape(value: &Value) -> Value {
    match value {
        Value::String(_) | Value::Number(_) => Value::String(String::new()),
        Value::Array(elements) => elements.iter().map(shape).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), shape(value))).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn a_secret_that_only_its_key_tells_is_found_in_every_kind_of_value() {
    let rule = rewrite("redact", "{ patterns = ['aws_secret', 'email'] }");
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let text = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.into())) };
    let list = |values| any_value::Value::ArrayValue(ArrayValue { values });
    let of_key =
        |key: &str, value| KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() };
    let mut request = otlp_everywhere("x");
    request.resource_spans[0].scope_spans[0].spans[0].attributes = vec![
        of_key("aws_secret_access_key", text(secret)),
        of_key(
            "aws.secret_access_key",
            AnyValue { value: Some(list(vec![text("x"), text(secret)])) },
        ),
        of_key("jane@example.com", text("stays")),
        of_key("aws_secret_access_key", text(&format!("{secret} jane@example.com"))),
    ];
    let found = rule.apply(&otlp_items(&request)[0], &mut Shared::default()).unwrap().unwrap();
    let span = OtlpSpan::decode(found.wire().clone()).unwrap();
    let values = [
        text("[aws_secret]"),
        AnyValue { value: Some(list(vec![text("x"), text("[aws_secret]")])) },
        text("stays"),
        text("[aws_secret] [email]"),
    ];
    let left: Vec<_> =
        span.attributes.iter().filter_map(|attribute| attribute.value.clone()).collect();
    assert_eq!(left, values);
    let json = format!(r#"{{"aws_secret_access_key":"{secret} jane@example.com"}}"#);
    assert_eq!(cleaned(&rule, &json), r#"{"aws_secret_access_key":"[aws_secret] [email]"}"#);
}

#[test]
fn an_unknown_field_stays_unless_it_holds_a_match() {
    let rule = masking_all();
    let mut clean = otlp_everywhere("nothing")
        .resource_spans
        .remove(0)
        .scope_spans
        .remove(0)
        .spans
        .remove(0)
        .encode_to_vec();
    protobuf::write_bytes(&mut clean, 99, b"\x0a\x05hello");
    let mut dirty = clean.clone();
    protobuf::write_bytes(&mut dirty, 98, b"\x0a\x2a-sk-proj-abcdefghij0123456789ABCDEFGHIJabc");
    let item = |wire: &[u8]| {
        let body = otlp_everywhere("x");
        let item = otlp_items(&body).remove(0);
        remade(&item, Bytes::copy_from_slice(wire), None).unwrap()
    };
    let mut shared = Shared::default();
    assert!(rule.apply(&item(&clean), &mut shared).unwrap().is_none());
    let found = rule.apply(&item(&dirty), &mut shared).unwrap().unwrap();
    assert_eq!(found.wire(), &clean);
}

#[test]
fn only_the_fields_that_are_named_are_touched() {
    let secret = "jane@example.com";
    for (field, touched, kept) in [
        ("input", "input.value", "failed: jane@example.com"),
        ("error", "failed: [email]", "call jane@example.com"),
        ("name", "call [email]", "failed: jane@example.com"),
        ("events", "event [email]", "call jane@example.com"),
        ("resource", "lib [email]", "call jane@example.com"),
        ("attribute.input.*", "input.value", "failed: jane@example.com"),
        ("resource.host.*", "host.name", "lib jane@example.com"),
    ] {
        let rule = rewrite("redact", &format!("{{ fields = ['{field}'], patterns = ['email'] }}"));
        let item = otlp_items(&otlp_everywhere(secret)).remove(0);
        let found = seen(&rule.apply(&item, &mut Shared::default()).unwrap().unwrap());
        assert!(
            found.contains(touched) && found.contains(kept) && found.contains("[email]"),
            "{field}: {found}"
        );
    }
    let rule = rewrite("redact", "{ fields = ['output'], patterns = ['email'] }");
    let item = agents_sdk(&[sdk_span(
        &json!({ "type": "function", "name": "f", "input": secret, "output": secret }),
    )])
    .remove(0);
    let found = rule.apply(&item, &mut Shared::default()).unwrap().unwrap();
    let Item::Span(span) = &found else { panic!() };
    assert_eq!(span.facts().input.as_ref().unwrap().as_str(), secret);
    assert_eq!(span.facts().output.as_ref().unwrap().as_str(), "[email]");
}

#[test]
fn actions_mask_hash_drop_and_cut() {
    let hash =
        rewrite("redact", "{ patterns = ['email'], action = 'hash', key = '0123456789abcdef' }");
    let one = cleaned(&hash, "to a@example.com and b@example.com and a@example.com");
    let hashes: Vec<_> = one.split(' ').filter(|word| word.starts_with("[email:")).collect();
    assert!(
        hashes.len() == 3
            && hashes[0] == hashes[2]
            && hashes[0] != hashes[1]
            && hashes[0].len() == 20,
        "{one}"
    );
    let other =
        rewrite("redact", "{ patterns = ['email'], action = 'hash', key = 'another key of it' }");
    assert_ne!(cleaned(&other, "a@example.com"), cleaned(&hash, "a@example.com"));
    let dropping = rewrite("redact", "{ patterns = ['email'], action = 'drop' }");
    assert_eq!(cleaned(&dropping, "write to a@example.com"), "");
    assert_eq!(cleaned(&dropping, r#"{"a":"to a@example.com","b":1}"#), r#"{"a":"","b":1}"#);
    let own = rewrite("redact", r"{ regex = { employee = 'E-\d{6}' } }");
    assert_eq!(
        cleaned(&own, r#"{"who":"E-123456","x":"E\u002d654321"}"#),
        r#"{"who":"[employee]","x":"[employee]"}"#
    );
    let across = rewrite("redact", r#"{ regex = { pin = '"pin":\s*"?[0-9]+"?' } }"#);
    assert_eq!(cleaned(&across, r#"{"pin": "1234", "n": 1}"#), r#"{"pin": "[pin]", "n": 1}"#);
    let cut = rewrite("redact", "{ fields = ['input', 'output'], action = { cut = 5 } }");
    let items = agents_sdk(&[sdk_span(
        &json!({ "type": "function", "name": "function", "input": "1234\u{e9}67", "output": [7, "abcdefg"] }),
    )]);
    let found = cut.apply(&items[0], &mut Shared::default()).unwrap().unwrap();
    let json: Value = serde_json::from_slice(found.wire()).unwrap();
    assert_eq!(
        json["span_data"],
        json!({ "type": "function", "name": "function", "input": "1234", "output": [7, "abcde"] })
    );
    assert!(cut.apply(&found, &mut Shared::default()).unwrap().is_none());
    let whole = rewrite("redact", "{ fields = ['input'] }");
    let found = whole
        .apply(&otlp_items(&otlp_everywhere("x y")).remove(0), &mut Shared::default())
        .unwrap()
        .unwrap();
    let Item::Span(span) = &found else { panic!() };
    assert_eq!(span.facts().input.as_ref().unwrap().as_str(), "[redacted]");
}

#[test]
fn a_rule_that_cannot_work_is_a_mistake_with_its_place() {
    for (toml, what) in [
        ("{ patterns = ['email'], action = 'hash' }", "a hash needs a key"),
        ("{ patterns = ['email'], action = 'hash', key = 'short' }", "the key is too short"),
        ("{ patterns = ['email'], action = 'maks' }", "unknown action"),
        ("{ patterns = ['email'], key = '0123456789abcdef' }", "a key without `action = \"hash\"`"),
        ("{ patterns = ['email'], action = { cut = 5 } }", "`cut` goes by length, not by matches"),
        ("{ fields = ['inptu'], patterns = ['email'] }", "unknown field"),
        ("{ fields = [], patterns = ['email'] }", "no field"),
        ("{ patterns = [] }", "the rule searches for nothing"),
        ("{ action = 'drop' }", "the rule would replace every text"),
        ("{ regex = { a = 'x*' } }", "the expression matches the empty string"),
        ("{ regex = { a = '(?s).+' } }", "the expression matches everything"),
        ("{ regex = { a = '(x' } }", "not a regular expression"),
        ("{ regex = { email = 'x' } }", "there is a built-in pattern with this name"),
        ("{ regex = { 'a b' = 'x' } }", "not a valid pattern name"),
    ] {
        let (found, problems) = parsed("redact", toml);
        assert!(!problems.is_empty(), "{toml}: {found:?}");
        assert!(
            problems.iter().any(|problem| problem.what == what && problem.at.is_some()),
            "{toml}: {problems:?}"
        );
    }
    for (toml, what) in [
        ("{ }", "the rule sets nothing"),
        ("{ enviroment = 'x' }", "not a fact that can be set"),
        ("{ session = { form = 'x' } }", "not a source for a value"),
        ("{ service = { from = 'attribute.x' } }", "not a source for a value"),
        ("{ 'resource.x' = { from = 'metadata.x' } }", "not a source for a value"),
    ] {
        assert_eq!(parsed("set", toml).1[0].what, what, "{toml}");
    }
}

#[test]
fn the_page_about_rules_has_every_pattern_and_field() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rules.md")).unwrap();
    for Pattern { name, finds, .. } in PATTERNS {
        assert!(page.contains(&format!("\n| `{name}` | {finds} |\n")), "| `{name}` | {finds} |");
    }
    for (field, _) in FIELDS {
        assert!(page.contains(&format!("\n| `{field}` |")), "{field}");
    }
}

#[test]
fn what_is_set_is_what_facts_and_attributes_say() {
    let rule = rewrite(
        "set",
        "{ session = 'S', user = { from = 'resource.host.name' }, environment = 'prod', release = 'r1', tags = 'a, b', name = 'N', team = { from = 'attribute.plain' }, service = 'svc' }",
    );
    let item = otlp_items(&otlp_everywhere("host-7")).remove(0);
    let found = rule.apply(&item, &mut Shared::default()).unwrap().unwrap();
    let Item::Span(span) = &found else { panic!() };
    let facts = span.facts();
    let texts = [&facts.session, &facts.user, &facts.environment, &facts.release]
        .map(|text| text.as_deref().unwrap_or_default());
    assert_eq!(texts, ["S", "host-7", "prod", "r1"]);
    assert_eq!((&*facts.name, facts.tags.len()), ("N", 2));
    let has = |attributes: &[Attribute], key: &str, wanted: &str| {
        attributes.iter().any(|one| {
            &*one.key == key && one.value == crate::span::Value::Text(Text::from(wanted.to_owned()))
        })
    };
    assert!(
        has(&span.detail().attributes, "team", "nothing here")
            && has(&span.scope.resource.attributes, "service.name", "svc")
    );
    OtlpSpan::decode(found.wire().clone()).unwrap();

    let rule = rewrite(
        "set",
        "{ session = 'S', user = { from = 'metadata.who' }, environment = 'prod', tags = 'a, b', team = 'core', service = 'svc' }",
    );
    let mut sent = sdk_span(&json!({ "type": "agent", "name": "A" }));
    sent["metadata"] = json!({ "who": "jane", "kept": 1 });
    let trace = json!({ "object": "trace", "id": "trace_0123456789abcdef0123456789abcdef", "workflow_name": "w", "metadata": { "who": "jim" } });
    for item in agents_sdk(&[sent, trace]) {
        let found = rule.apply(&item, &mut Shared::default()).unwrap().unwrap();
        let facts = match &found {
            Item::Span(span) => {
                assert!(
                    has(&span.detail().attributes, "team", "core")
                        && has(&span.detail().attributes, "session.id", "S")
                );
                assert!(has(&span.scope.resource.attributes, "service.name", "svc"));
                span.facts().clone()
            }
            Item::Trace(trace) => crate::normalize::trace_facts(trace),
        };
        let who = if matches!(found, Item::Span(_)) { "jane" } else { "jim" };
        assert_eq!(
            (facts.session.as_deref(), facts.user.as_deref(), facts.environment.as_deref()),
            (Some("S"), Some(who), Some("prod"))
        );
        assert_eq!(facts.tags.len(), 2);
        assert!(facts.metadata.iter().all(|(name, _)| &**name != "spanferry.set"));
    }
}

fn before_journal(redact: &str) -> BeforeJournal {
    rules_before_journal(&format!("[[rules]]\nredact = {redact}\nbefore_journal = true\n"))
}

fn rules_before_journal(text: &str) -> BeforeJournal {
    let table = DeTable::parse(text).unwrap().into_inner();
    let mut problems = Vec::new();
    let rules = read(table.get("rules"), Place::Global, &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    BeforeJournal::of(&rules, &Arc::default()).unwrap()
}

/// Returns the stored body of a request, and what is decoded from it and quarantined.
fn kept(
    rules: &BeforeJournal,
    receiver: Receiver,
    encoding: Encoding,
    body: &Bytes,
) -> (Bytes, Decoded) {
    let mut envelope = envelope(receiver, encoding, body);
    envelope.source.headers =
        vec![("user-agent".to_owned(), "Agents/JavaScript 1 jane@example.com".to_owned())];
    let decoded = decode(&envelope, body, &Limits::default()).unwrap();
    let items = decoded.batch.items.len();
    let (sent, decoded, dropped) =
        rules.clean(&mut envelope, body.clone(), body, decoded, &Limits::default()).unwrap();
    assert_eq!(decoded.batch.items.len() + dropped, items);
    envelope.items = u32::try_from(decoded.batch.items.len()).unwrap();
    let record = Bytes::from([envelope.head(sent.len()), sent.to_vec()].concat());
    let again = decode_record(&record).unwrap().1;
    let wires = |batch: &crate::span::Batch| {
        batch.items.iter().map(|item| item.wire().clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        wires(&again.batch),
        wires(&decoded.batch),
        "what is read again is what was published"
    );
    (record, decoded)
}

#[test]
fn before_the_journal_nothing_that_matches_is_in_the_record_or_set_aside() {
    let rules = before_journal(&format!("{{ patterns = [{}] }}", all_names()));
    for (_, secret) in PLANTED {
        let mut request = otlp_everywhere(secret);
        // An undecodable span, and a resource without spans.
        let spans = &mut request.resource_spans[0].scope_spans[0].spans;
        let mut broken = spans[0].clone();
        broken.trace_id = vec![1; 3];
        let more = spans[0].clone();
        spans.extend([broken, more]);
        let empty = ResourceSpans { scope_spans: Vec::new(), ..request.resource_spans[0].clone() };
        request.resource_spans.push(empty);
        let protobuf = Bytes::from(request.encode_to_vec());
        let json = Bytes::from(serde_json::to_vec(&request).unwrap());
        let sdk_body = json!({ "data": [sdk_span(&json!({ "type": "function", "name": secret, "input": secret })), { "object": "odd", "x": [secret] }, secret], "outside": secret });
        let sdk_body = Bytes::from(sdk_body.to_string());
        for (receiver, encoding, body, items) in [
            (Receiver::OtlpHttp, Encoding::Protobuf, &protobuf, 2),
            (Receiver::OtlpHttp, Encoding::Json, &json, 2),
            (Receiver::OpenAi, Encoding::Json, &sdk_body, 1),
        ] {
            let (record, decoded) = kept(&rules, receiver, encoding, body);
            let shown = String::from_utf8_lossy(&record).into_owned();
            assert!(!shown.contains(secret), "{secret} in {encoding:?}: {shown}");
            assert!(!shown.contains("jane@example.com"));
            assert_eq!(decoded.batch.items.len(), items);
            assert!(!decoded.refused.is_empty());
            for refused in &decoded.refused {
                let aside = String::from_utf8_lossy(&refused.request()).into_owned();
                assert!(!aside.contains(secret), "{secret} set aside in {encoding:?}: {aside}");
            }
        }
    }
}

#[test]
fn a_card_in_a_whole_number_is_not_set_aside() {
    let rules = before_journal("{ patterns = ['credit_card'] }");
    let mut request = otlp_everywhere("x");
    let spans = &mut request.resource_spans[0].scope_spans[0].spans;
    let value = any_value::Value::IntValue(4_111_111_111_111_111);
    let value = Some(AnyValue { value: Some(value) });
    let card = KeyValue { key: "card".to_owned(), value, ..KeyValue::default() };
    let mut broken = spans[0].clone();
    broken.trace_id = vec![1; 3];
    spans.push(broken.clone());
    broken.attributes.push(card);
    spans.push(broken);
    let body = Bytes::from(request.encode_to_vec());
    let (_, decoded) = kept(&rules, Receiver::OtlpHttp, Encoding::Protobuf, &body);
    let aside: Vec<_> = decoded.refused.iter().map(|refused| refused.wire.is_empty()).collect();
    assert_eq!(aside, [false, true]);
}

#[test]
fn a_number_is_what_it_says_wherever_it_stands() {
    let rule =
        rewrite("redact", "{ regex = { account = '^[0-9]{8}$' }, patterns = ['credit_card'] }");
    let json = r#"{"a":12345678,"b":[12345678,1234567],"c":null,"d":12345678.5}"#;
    let left = r#"{"a":"[account]","b":["[account]",1234567],"c":null,"d":12345678.5}"#;
    assert_eq!(cleaned(&rule, json), left);
    let values = [
        (any_value::Value::IntValue(12_345_678), "[account]"),
        (any_value::Value::IntValue(4_111_111_111_111_111), "[credit_card]"),
    ];
    for (value, label) in values {
        let mut request = otlp_everywhere("x");
        let span = &mut request.resource_spans[0].scope_spans[0].spans[0];
        let value = Some(AnyValue { value: Some(value) });
        span.attributes = vec![KeyValue { key: "k".to_owned(), value, ..KeyValue::default() }];
        let item = &otlp_items(&request)[0];
        let item = rule.apply(item, &mut Shared::default()).unwrap().unwrap();
        let attributes = &item.as_span().unwrap().detail().attributes;
        let value = Attribute::last(attributes, "k");
        assert!(matches!(value, Some(crate::span::Value::Text(text)) if &**text == label));
    }
}

#[test]
fn a_body_that_is_no_request_is_set_aside_without_what_matches() {
    let rules = before_journal(&format!("{{ patterns = [{}] }}", all_names()));
    for (_, secret) in PLANTED {
        let json = json!({ "x": [secret] }).to_string();
        for (encoding, body) in [
            (Encoding::Json, json.clone()),
            (Encoding::Json, json.replace('}', "")),
            (Encoding::Protobuf, format!("this is {secret}")),
        ] {
            let kept = rules.clean_unread(encoding, false, body.clone().into());
            let kept = String::from_utf8_lossy(&kept).into_owned();
            assert!(!kept.contains(secret), "{secret}: {kept}");
        }
    }
    let kept = |is_compressed| rules.clean_unread(Encoding::Json, is_compressed, "[4711]".into());
    assert_eq!((kept(false), kept(true)), ("[4711]".into(), Bytes::new()));
}

#[test]
fn a_request_without_a_match_keeps_its_bytes() {
    let rules = before_journal("{ patterns = ['email', 'openai_key', 'credit_card'] }");
    for (receiver, encoding, body) in [
        (Receiver::OtlpHttp, Encoding::Protobuf, Bytes::from(otlp_everywhere("nobody 12 at home").encode_to_vec())),
        (Receiver::OpenAi, Encoding::Json, Bytes::from(json!({ "data": [sdk_span(&json!({ "type": "agent", "name": "4711 08 15" }))], "x": "@a" }).to_string())),
    ] {
        let (record, decoded) = kept(&rules, receiver, encoding, &body);
        assert!(record.ends_with(&body));
        assert!(!decoded.batch.items.is_empty());
    }
}

#[test]
fn an_item_on_which_a_rule_cannot_be_kept_loses_its_texts() {
    let rules = before_journal(
        "{ regex = { short = '[a-z]' }, action = 'hash', key = '0123456789abcdef' }",
    );
    let body = Bytes::from(json!({ "data": [sdk_span(&json!({ "type": "function", "name": "f", "input": "a ".repeat(4000) }))] }).to_string());
    let (record, decoded) = kept(&rules, Receiver::OpenAi, Encoding::Json, &body);
    assert!(record.len() < body.len() * 3, "{} of {}", record.len(), body.len());
    assert_eq!(decoded.batch.items.len(), 1);
    assert!(!String::from_utf8_lossy(&record).contains("a a a"));
}

#[test]
fn what_is_dropped_before_the_journal_is_in_no_record_and_what_hung_below_it_hangs_above() {
    let rules = rules_before_journal(
        "[[rules]]\nmatch = { name = \"kept *\" }\nkeep = true\nbefore_journal = true\n\
         [[rules]]\nmatch = { name = \"*health*\" }\ndrop = true\nbefore_journal = true\n\
         [[rules]]\nsample = 0\n",
    );
    let names = ["top", "GET /health", "below", "kept health"];
    let ids = |id: usize| [0, 1, 2, 2][id];
    let otlp_span = |(id, name): (usize, &&str)| OtlpSpan {
        trace_id: vec![9; 16],
        span_id: vec![u8::try_from(id + 1).unwrap(); 8],
        parent_span_id: if id == 0 { vec![] } else { vec![u8::try_from(ids(id)).unwrap(); 8] },
        name: (*name).to_owned(),
        ..OtlpSpan::default()
    };
    let sdk_item = |(id, name): (usize, &&str)| {
        let mut item = sdk_span(&json!({ "type": "custom", "name": name, "data": {} }));
        item["id"] = json!(format!("span_{}", id + 1));
        item["parent_id"] = if id == 0 { Value::Null } else { json!(format!("span_{}", ids(id))) };
        item
    };
    let scope_spans = vec![ScopeSpans {
        spans: names.iter().enumerate().map(otlp_span).collect(),
        ..ScopeSpans::default()
    }];
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }],
    };
    let data: Vec<_> = names.iter().enumerate().map(sdk_item).collect();
    for (receiver, encoding, body) in [
        (Receiver::OtlpGrpc, Encoding::Protobuf, request.encode_to_vec()),
        (Receiver::OtlpHttp, Encoding::Json, serde_json::to_vec(&request).unwrap()),
        (Receiver::OpenAi, Encoding::Json, json!({ "data": data }).to_string().into()),
    ] {
        let (record, decoded) = kept(&rules, receiver, encoding, &body.into());
        assert!(!String::from_utf8_lossy(&record).contains("GET /health"));
        let spans: Vec<_> = decoded.batch.spans().collect();
        let left: Vec<_> = spans.iter().map(|span| span.facts().name.to_string()).collect();
        assert_eq!(
            left,
            ["top", "below", "kept health"],
            "a later rule is for sinks: {receiver:?}"
        );
        for below in [spans[1], spans[2]] {
            assert_eq!(below.parent_id, Some(spans[0].span_id), "{receiver:?}");
        }
    }
}

fn words() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ -~]{0,12}",
        Just("\\u002d".to_owned()),
        Just("\\\"".to_owned()),
        Just("\u{e9}\n".to_owned()),
        Just("4111111111111111".to_owned()),
        Just("jane@example.com".to_owned()),
        Just("sk-abcdefghij0123456789".to_owned()),
        Just("{\"a\":".to_owned()),
        Just("\"}".to_owned()),
        Just("+1 555 010 4567".to_owned()),
        Just("::1".to_owned()),
        Just("1.2.3.4".to_owned()),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// Returns texts with much that numbers and addresses consist of.
fn numbers() -> impl Strategy<Value = String> {
    let secrets = PLANTED.map(|(_, secret)| secret).into_iter();
    let secrets = secrets.chain(IN_CONTEXT.map(|(_, told, _)| told)).map(str::to_owned);
    let piece = prop_oneof![
        "[0-9]{1,5}",
        "[0-9]{12,20}",
        "[-+ ./():@]{1,2}",
        "[A-Fa-fXx\\n\"]{1,2}",
        "[0-9]{3}[-. ][0-9]{2,3}[-. ][0-9]{4}",
        "[0-9]{1,3}([.][0-9]{1,3}){3}",
        "[0-9a-f]{1,4}(::?[0-9a-f]{1,4}){1,7}",
        proptest::sample::select(secrets.collect::<Vec<_>>()),
    ];
    proptest::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn what_matches_in_a_text_is_marked_in_any_wire(text in numbers(), far in 0..130_usize, before in "[ -~]{0,4}", after in "[ -~]{0,4}") {
        let rule = masking_all();
        let Rewrite::Redact(redaction) = &rule else { panic!() };
        let found = redaction.search.find(text.as_bytes());
        let before = "x".repeat(far) + &before;
        let wire = format!("{before}{text}{after}");
        let marks = redaction.search.marks(wire.as_bytes());
        for (range, _) in &found {
            let part = before.len()..before.len() + range.end;
            prop_assert!(marks.touch(&part), "{:?} of {:?} in {:?}", range, text, wire);
        }
        let json = json!(text).to_string();
        let slashes = json.replace('/', "\\/");
        for json in [json!(json).to_string(), json!(slashes).to_string(), json, slashes] {
            prop_assert!(found.is_empty() || redaction.search.marks(json.as_bytes()).any(), "{}", json);
        }
    }
}

proptest! {
    #[test]
    fn any_text_stays_a_text_and_is_clean_after_once(text in words()) {
        let rule = masking_all();
        for text in [text.clone(), json!({ "t": text, "n": [1, true] }).to_string(), json!({ "t": json!([text]).to_string() }).to_string()] {
            let is_json = text.starts_with(['{', '[']) && serde_json::from_str::<Value>(&text).is_ok();
            let once = cleaned(&rule, &text);
            prop_assert_eq!(value_of(&rule, &once), None, "{:?} became {:?}", text, once);
            prop_assert!(!is_json || serde_json::from_str::<Value>(&once).is_ok(), "{} became {}", text, once);
            prop_assert!(!once.contains("jane@example.com") || !text.contains("jane@example.com"));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        let rule = masking_all();
        let Rewrite::Redact(redaction) = &rule else { panic!() };
        redaction.value(b"", &bytes);
        let item = otlp_items(&otlp_everywhere("x")).remove(0);
        if let Some(item) = remade(&item, Bytes::from(bytes), None) {
            rule.apply(&item, &mut Shared::default()).ok();
        }
    }
}
