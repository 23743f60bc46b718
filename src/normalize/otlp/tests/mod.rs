//! OTLP from real clients, hostile clients and random generators.

mod odd_clients;
mod properties;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Status};
use prost::Message as _;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::normalize::{
    Coding, Decoded, Encoding, Envelope, Limits, Malformed, Refused, decode, inflate,
};
use crate::span::{Source, otlp};
use crate::support::golden::{self, Fixture};

const BODY_BYTES_MAX: usize = 64 << 20;

fn envelope(encoding: Encoding) -> Envelope {
    // From an unknown client, over OTLP/HTTP.
    Envelope::new(Source::unknown(), encoding, 0)
}

pub(super) fn protobuf(body: &Bytes) -> Result<Decoded, Malformed> {
    decode(&envelope(Encoding::Protobuf), body, &Limits::default())
}

pub(super) fn json(body: &Bytes) -> Result<Decoded, Malformed> {
    decode(&envelope(Encoding::Json), body, &Limits::default())
}

pub(super) fn plain_body(fixture: &Fixture) -> Bytes {
    let coding =
        Coding::from_header(fixture.header("content-encoding").unwrap_or_default()).unwrap();
    inflate(coding, fixture.body.clone(), BODY_BYTES_MAX).unwrap()
}

fn decode_fixture(fixture: &Fixture, body: &Bytes) -> Result<Decoded, Malformed> {
    let is_json = fixture
        .header("content-type")
        .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/json"));
    if is_json { json(body) } else { protobuf(body) }
}

/// Encodes what was decoded as OTLP/JSON.
pub(super) fn written(decoded: &Decoded) -> Value {
    let mut out = Vec::new();
    otlp::json::write_request(&mut out, decoded.batch.spans());
    let mut json = serde_json::Deserializer::from_slice(&out);
    json.disable_recursion_limit();
    Value::deserialize(&mut json).unwrap()
}

/// Makes two decodings comparable: members with default values are optional, and only spans under the same resource and scope are
/// grouped.
pub(super) fn canonical(request: &Value) -> Vec<(String, String, Value)> {
    let mut spans = Vec::new();
    for resource in request["resourceSpans"].as_array().into_iter().flatten() {
        let of_resource = (&resource["resource"], &resource["schemaUrl"]);
        for scope in resource["scopeSpans"].as_array().into_iter().flatten() {
            let of_scope = (&scope["scope"], &scope["schemaUrl"]);
            for span in scope["spans"].as_array().into_iter().flatten() {
                let describe = |(what, schema): (&Value, &Value)| {
                    format!("{} {schema}", without_defaults(what))
                };
                spans.push((describe(of_resource), describe(of_scope), without_defaults(span)));
            }
        }
    }
    spans
}

fn without_defaults(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let is_value = |name: &str| name.ends_with("Value") || name == "key" || name == "value";
            let kept = members.iter().map(|(name, value)| (name, without_defaults(value)));
            kept.filter(|(name, value)| is_value(name) || !is_default(value))
                .map(|(name, value)| (name.clone(), value))
                .collect()
        }
        Value::Array(elements) => elements.iter().map(without_defaults).collect(),
        Value::Null => json!({}),
        // Numbers keep their spelling, and 1e-5 equals 1e-05.
        Value::Number(number) => json!(number.as_f64()),
        plain => plain.clone(),
    }
}

fn is_default(value: &Value) -> bool {
    *value == json!({})
        || *value == json!([])
        || *value == json!("")
        || value.as_f64() == Some(0.0)
        || *value == json!("0")
}

#[test]
fn every_captured_trace_request_decodes_as_its_golden_says() {
    let mut compared = 0;
    for fixture in golden::fixtures("otlp") {
        let Some(golden) = &fixture.decoded else { continue };
        let decoded = decode_fixture(&fixture, &plain_body(&fixture))
            .unwrap_or_else(|error| panic!("{}: {error}", fixture.name));
        assert_eq!(decoded.refused, [], "{}", fixture.name);
        assert_eq!(decoded.warnings, [], "{}", fixture.name);
        assert_eq!(canonical(&written(&decoded)), canonical(golden), "{}", fixture.name);
        compared += 1;
    }
    assert_eq!(compared, 81);
}

/// Returns the spans of a request as the oracle decodes them, each with its resource and scope.
pub(super) fn oracle_spans(request: &ExportTraceServiceRequest) -> Vec<String> {
    let mut spans = Vec::new();
    for resource in &request.resource_spans {
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                let resource_facts =
                    (resource.resource.clone().unwrap_or_default(), &resource.schema_url);
                let scope_facts = (scope.scope.clone().unwrap_or_default(), &scope.schema_url);
                spans.push(format!("{resource_facts:?} {scope_facts:?} {span:?}"));
            }
        }
    }
    spans.sort();
    spans
}

pub(super) fn passed_on(decoded: &Decoded) -> ExportTraceServiceRequest {
    let mut out = Vec::new();
    otlp::protobuf::write_request(&mut out, decoded.batch.spans());
    ExportTraceServiceRequest::decode(out.as_slice()).unwrap()
}

/// Rebuilds the request from the decoded details of every span, without using the slices.
pub(super) fn rebuilt(decoded: &Decoded) -> ExportTraceServiceRequest {
    let resource_spans = decoded.batch.spans().map(|span| {
        let resource =
            crate::span::Resource { wire: Bytes::new(), ..unshared(&span.scope.resource) };
        let scope = crate::span::Scope { wire: Bytes::new(), ..unshared_scope(&span.scope) };
        let mut message = Vec::new();
        let times = (span.start_ns, span.end_ns);
        otlp::protobuf::write_span(&mut message, span, times, span.parent_id, span.detail());
        ResourceSpans {
            resource: Some(
                prost::Message::decode(otlp::protobuf::resource(&resource).as_ref()).unwrap(),
            ),
            schema_url: resource.schema_url.to_string(),
            scope_spans: vec![ScopeSpans {
                scope: Some(
                    prost::Message::decode(otlp::protobuf::scope(&scope).as_ref()).unwrap(),
                ),
                schema_url: scope.schema_url.to_string(),
                spans: vec![prost::Message::decode(message.as_slice()).unwrap()],
            }],
        }
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

fn unshared(resource: &crate::span::Resource) -> crate::span::Resource {
    crate::span::Resource {
        attributes: resource.attributes.clone(),
        dropped_attributes_count: resource.dropped_attributes_count,
        schema_url: resource.schema_url.clone(),
        wire: Bytes::new(),
    }
}

fn unshared_scope(scope: &crate::span::Scope) -> crate::span::Scope {
    crate::span::Scope {
        resource: std::sync::Arc::clone(&scope.resource),
        name: scope.name.clone(),
        version: scope.version.clone(),
        attributes: scope.attributes.clone(),
        dropped_attributes_count: scope.dropped_attributes_count,
        schema_url: scope.schema_url.clone(),
        wire: Bytes::new(),
    }
}

#[test]
fn the_oracle_reads_the_same_spans_passed_on_and_rebuilt() {
    for fixture in golden::fixtures("otlp") {
        if fixture.decoded.is_none() || fixture.name.contains(".json") {
            continue;
        }
        let body = plain_body(&fixture);
        let decoded = protobuf(&body).unwrap();
        let expected = ExportTraceServiceRequest::decode(body.clone()).unwrap();
        assert_eq!(
            oracle_spans(&passed_on(&decoded)),
            oracle_spans(&expected),
            "{} passed on",
            fixture.name
        );
        assert_eq!(
            oracle_spans(&rebuilt(&decoded)),
            oracle_spans(&without_empty_status(expected)),
            "{} rebuilt",
            fixture.name
        );
    }
}

/// Removes empty statuses, which equal missing ones, and entity references, which are passed on but not read.
pub(super) fn without_empty_status(
    mut request: ExportTraceServiceRequest,
) -> ExportTraceServiceRequest {
    for resource in &mut request.resource_spans {
        if let Some(resource) = &mut resource.resource {
            resource.entity_refs.clear();
        }
        for span in resource.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
            span.status = span.status.take().filter(|status| *status != Status::default());
        }
    }
    request
}

/// Compares the decoder's results for the cases in `json-mapping/cases.json` with `ours.json` in the same folder.
#[test]
fn every_case_of_the_json_mapping_is_decided_as_written_down() {
    let cases: Vec<Value> =
        serde_json::from_slice(&golden::read("otlp/json-mapping/cases.json")).unwrap();
    assert_eq!(cases.len(), 78);
    let mut ours = serde_json::Map::new();
    for case in &cases {
        let (name, expect) = (case["name"].as_str().unwrap(), case["expect"].as_str().unwrap());
        let body = Bytes::from(case["body"].as_str().unwrap().to_owned());
        let decided = match json(&body) {
            Err(malformed) => json!({ "malformed": malformed.to_string() }),
            Ok(decoded) => {
                let refused: Vec<_> =
                    decoded.refused.iter().map(|refused| refused.reason).collect();
                let warnings: Vec<_> =
                    decoded.warnings.iter().map(|warning| warning.what).collect();
                let spans: Vec<Value> =
                    canonical(&written(&decoded)).into_iter().map(|(_, _, span)| span).collect();
                json!({ "spans": spans, "refused": refused, "warnings": warnings })
            }
        };
        let is_as_expected = match expect.split([' ', ',', ';']).next().unwrap() {
            "accept" => decided["refused"] == json!([]),
            _ if expect.starts_with("reject span") => {
                decided["refused"].as_array().is_some_and(|refused| refused.len() == 1)
            }
            _ => decided["malformed"].is_string(),
        };
        assert!(is_as_expected, "{name}: {expect}, but {decided}");
        ours.insert(name.to_owned(), decided);
    }
    let ours = Value::Object(ours);
    let written_down: Value =
        serde_json::from_slice(&golden::read("otlp/json-mapping/ours.json")).unwrap();
    assert_eq!(ours, written_down);
}

/// Returns whether a fixture is refused or accepted before its body is decoded: by content type, compression, method, path or gRPC framing.
fn is_decided_at_the_door(fixture: &Fixture) -> bool {
    const AT_THE_DOOR: &[&str] =
        &["003", "004", "010", "011", "012", "014", "015", "063", "064", "065"];
    let starts_with = |number| fixture.name.starts_with(&format!("hostile/{number}_"));
    AT_THE_DOOR.iter().any(starts_with) || fixture.name.ends_with(".grpcframe")
}

/// Expected statuses where a sidecar allows several.
const OUR_CHOICES: &[(&str, u64)] = &[
    ("hostile/021_amplify-4M-empty-spans.pb.gz", 413),
    ("hostile/041_deep-array-100.pb", 200),
    ("hostile/042_deep-array-100000.pb", 200),
    ("hostile/043_deep-json-array-5000.json", 200),
    ("hostile/047_invalid-utf8-name.pb", 200),
    ("hostile/060_bom-json.json", 200),
    ("hostile/062_doubled-path.pb", 200),
];

#[test]
fn every_hostile_body_gets_its_expected_answer() {
    let mut answered = 0;
    for fixture in golden::fixtures("otlp/hostile") {
        if is_decided_at_the_door(&fixture) {
            continue;
        }
        let decoded = decode_fixture(&fixture, &plain_body(&fixture));
        let status = match &decoded {
            Ok(_) => 200,
            Err(Malformed::TooMany { .. }) => 413,
            Err(_) => 400,
        };
        let expect = &fixture.sidecar["expect"];
        let our_choice =
            OUR_CHOICES.iter().find(|(name, _)| *name == fixture.name).map(|(_, status)| *status);
        assert_eq!(
            Some(status),
            our_choice.or(expect["http"].as_u64()),
            "{}: {decoded:?}",
            fixture.name
        );
        if let (Ok(decoded), Some(rejected)) = (&decoded, expect["rejected_spans"].as_u64()) {
            assert_eq!(decoded.refused.len() as u64, rejected, "{}", fixture.name);
        }
        // Whatever was accepted can be read, written and passed on.
        if let Ok(decoded) = &decoded {
            assert_eq!(
                canonical(&written(decoded)).len(),
                decoded.batch.items.len(),
                "{}",
                fixture.name
            );
            let mut out = Vec::new();
            otlp::protobuf::write_request(&mut out, decoded.batch.spans());
            assert_eq!(
                protobuf(&Bytes::from(out)).unwrap().batch.items.len(),
                decoded.batch.items.len(),
                "{}",
                fixture.name
            );
        }
        answered += 1;
    }
    assert_eq!(answered, 55);
}

fn hostile(name: &str) -> Decoded {
    let fixtures = golden::fixtures("otlp/hostile");
    let fixture = fixtures.iter().find(|fixture| fixture.name.contains(name)).unwrap();
    decode_fixture(fixture, &plain_body(fixture)).unwrap()
}

#[test]
fn what_is_mended_is_said_and_shown() {
    let said = |name: &str| {
        hostile(name)
            .warnings
            .iter()
            .map(|warning| (warning.what, warning.count))
            .collect::<Vec<_>>()
    };
    assert_eq!(said("032_parent-7"), [(super::tally::repaired::PARENT, 1)]);
    assert_eq!(said("033_parent-zero"), []);
    assert_eq!(said("034_link-bad-id"), [(super::tally::repaired::LINK, 1)]);
    assert_eq!(said("040_deep-array-40"), []);
    assert_eq!(said("041_deep-array-100"), [(super::tally::repaired::TOO_DEEP, 1)]);
    assert_eq!(said("042_deep-array-100000"), [(super::tally::repaired::TOO_DEEP, 1)]);
    assert_eq!(said("043_deep-json-array"), [(super::tally::repaired::TOO_DEEP, 1)]);
    assert_eq!(said("050_end-before-start"), [(super::tally::repaired::END, 1)]);

    let name = |decoded: &Decoded| decoded.batch.spans().next().unwrap().detail().name.to_string();
    assert!(name(&hostile("047_invalid-utf8")).contains(char::REPLACEMENT_CHARACTER));
    for name in ["032_parent-7", "033_parent-zero"] {
        assert_eq!(hostile(name).batch.spans().next().unwrap().parent_id, None, "{name}");
    }
    // Parts for which other receivers would refuse the complete request are not passed on.
    for name in ["032_parent-7", "034_link-bad-id"] {
        let request = passed_on(&hostile(name));
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert!(span.parent_span_id.is_empty() && span.links.is_empty(), "{name}");
    }
}

#[test]
fn a_value_is_read_as_deep_as_the_limit_and_a_marker_stands_below() {
    let deepest = |decoded: &Decoded| {
        let mut value = &decoded.batch.spans().next().unwrap().detail().attributes[0].value;
        let mut depth = 1;
        while let crate::span::Value::Array(elements) = value {
            value = &elements[0];
            depth += 1;
        }
        (depth, value.clone())
    };
    let marker = crate::span::Value::Text(super::TOO_DEEP_MARKER.into());
    let depth_max = Limits::default().depth_max;
    for name in ["041_deep-array-100", "042_deep-array-100000", "043_deep-json-array-5000"] {
        assert_eq!(deepest(&hostile(name)), (depth_max + 1, marker.clone()), "{name}");
    }
    assert_eq!(deepest(&hostile("040_deep-array-40")).0, 41);
}

/// Encodes a message with these fields, all of them length-delimited.
fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, content) in fields {
        otlp::protobuf::write_bytes(&mut out, u32::from(*number), content);
    }
    out
}

fn request_with_span(span: &[u8]) -> Bytes {
    Bytes::from(message(&[(1, &message(&[(2, &message(&[(2, span)]))]))]))
}

const TRACE_ID: &[u8] = &[7; 16];
const SPAN_ID: &[u8] = &[9; 8];

#[test]
fn small_bodies_that_would_become_large_are_stopped_by_the_limits() {
    const BODY_BYTES: usize = 8 << 20;
    // Two bytes each: a tag and the length zero.
    let empty = |number: u8| [(number << 3) | 2, 0].repeat(BODY_BYTES / 2);
    let ids = message(&[(1, TRACE_ID), (2, SPAN_ID)]);
    let span = |inside: Vec<u8>| request_with_span(&[ids.clone(), inside].concat());
    let array = message(&[(9, &message(&[(2, &message(&[(5, &empty(1))]))]))]);
    for (row, body) in [
        ("spans", Bytes::from(message(&[(1, &message(&[(2, &empty(2))]))]))),
        ("links", span(empty(13))),
        ("resource spans", Bytes::from(empty(1))),
        ("attributes", span(empty(9))),
        ("array values", span(array)),
        ("scope spans", Bytes::from(message(&[(1, &empty(2))]))),
        ("events", span(empty(11))),
        (
            "resource attributes",
            Bytes::from(message(&[(1, &message(&[(1, &empty(1)), (2, &message(&[(2, &ids)]))]))])),
        ),
    ] {
        assert!(matches!(protobuf(&body), Err(Malformed::TooMany { .. })), "{row}");
    }
    let list = |open: &str, close: &str| {
        Bytes::from(format!("{open}{}{{}}{close}", "{},".repeat(BODY_BYTES / 2)))
    };
    let span = "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{";
    for (row, body) in [
        ("spans in JSON", list("{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[", "]}]}]}")),
        ("resource spans in JSON", list("{\"resourceSpans\":[", "]}")),
        ("attributes in JSON", list(&format!("{span}\"attributes\":["), "]}]}]}]}")),
        ("links in JSON", list(&format!("{span}\"links\":["), "]}]}]}]}")),
    ] {
        assert!(matches!(json(&body), Err(Malformed::TooMany { .. })), "{row}");
    }
}

#[test]
fn a_broken_span_costs_no_other_span() {
    let good = message(&[(1, TRACE_ID), (2, SPAN_ID), (5, b"good")]);
    let broken_attribute = message(&[(1, TRACE_ID), (2, SPAN_ID), (9, &[0x0a, 200])]);
    let wrong_type = [&good[..], &[0x28, 1]].concat();
    let no_ids = message(&[(5, b"no ids")]);
    let spans =
        [&good, &broken_attribute, &wrong_type, &no_ids, &good].map(|span| (2, span.as_slice()));
    let body = Bytes::from(message(&[(1, &message(&[(2, &message(&spans))]))]));
    let decoded = protobuf(&body).unwrap();
    assert_eq!(decoded.batch.items.len(), 2);
    let refused: Vec<_> =
        decoded.refused.iter().map(|refused| (refused.index, refused.wire.as_ref())).collect();
    assert_eq!(refused, [(1, &broken_attribute[..]), (2, &wrong_type), (3, &no_ids)]);
}

#[test]
fn a_broken_json_span_costs_no_other_span_and_is_kept_as_sent() {
    let ids = "\"traceId\":\"5b8efff798038103d269b633813fc60c\",\"spanId\":\"eee19b7ec3c1b174\"";
    let broken = [
        "5".to_owned(),
        "null".to_owned(),
        "{}".to_owned(),
        format!("{{{ids}, \"attributes\": {{\"k\": [1, {{\"]\": 2}}]}} }}"),
        format!("{{{ids},\"attributes\":[{{\"key\":\"k\",\"value\":{{\"intValue\":[1]}}}}]}}"),
        format!("{{{ids},\"flags\":4294967296}}"),
        format!("{{{ids},\"kind\":\"SERVERS\"}}"),
        format!("{{{ids},\"events\":[{{\"timeUnixNano\":-1}}]}}"),
    ];
    let body = format!(
        "{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{{{ids}}},{},{{{ids},\"name\":\"last\"}}]}}]}}]}}",
        broken.join(" , ")
    );
    let decoded = json(&Bytes::from(body)).unwrap();
    let names: Vec<_> = decoded.batch.spans().map(|span| span.detail().name.to_string()).collect();
    assert_eq!(names, ["", "last"]);
    let refused: Vec<_> =
        decoded.refused.iter().map(|refused| std::str::from_utf8(&refused.wire).unwrap()).collect();
    assert_eq!(refused, broken);
    assert_eq!(
        decoded.refused.iter().map(|refused| refused.index).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
}

#[test]
fn what_is_refused_can_be_decoded_alone_with_what_it_was_sent_under() {
    let sent = Bytes::from_static(
        br#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"app"}}]},
        "schemaUrl":"r","scopeSpans":[{"scope":{"name":"lib","version":"1"},"schemaUrl":"s","spans":[5,{"name":"no ids"}]}]}]}"#,
    );
    let from_json = json(&sent).unwrap().refused;
    let scope = from_json[0].scope.clone().unwrap();
    assert_eq!((&*scope.name, &*scope.resource.schema_url), ("lib", "r"));
    let no_ids = message(&[(5, b"no ids")]);
    let mut body = Vec::new();
    otlp::protobuf::write_lone_request(&mut body, &scope, &no_ids);
    let from_protobuf = protobuf(&Bytes::from(body)).unwrap().refused;
    assert_eq!(from_protobuf[0].wire, no_ids);
    for (refused, encoding) in [
        (&from_json[0], Encoding::Json),
        (&from_json[1], Encoding::Json),
        (&from_protobuf[0], Encoding::Protobuf),
    ] {
        let request = refused.request();
        let again = match encoding {
            Encoding::Json => json(&request),
            Encoding::Protobuf => protobuf(&request),
        };
        let again = again.unwrap();
        assert_eq!(again.batch.items.len(), 0);
        assert_eq!(again.refused, [Refused { index: 0, ..refused.clone() }]);
    }
}

#[test]
fn resent_spans_are_left_out_by_their_place_in_the_body() {
    let name_of = |number: u8| [b'n', b'0' + number];
    let spans: Vec<Vec<u8>> = (0..5)
        .map(|number| match number {
            1 => message(&[(5, b"no ids")]),
            _ => message(&[(1, TRACE_ID), (2, SPAN_ID), (5, &name_of(number))]),
        })
        .collect();
    let fields: Vec<(u8, &[u8])> = spans.iter().map(|span| (2, span.as_slice())).collect();
    let body = Bytes::from(message(&[(1, &message(&[(2, &message(&fields))]))]));
    let mut envelope = envelope(Encoding::Protobuf);
    envelope.resent = vec![2, 4];
    let names = |decoded: &Decoded| {
        decoded.batch.spans().map(|span| span.detail().name.to_string()).collect::<Vec<_>>()
    };
    let decoded = decode(&envelope, &body, &Limits::default()).unwrap();
    assert_eq!(
        (names(&decoded), decoded.refused.len()),
        (vec!["n0".to_owned(), "n3".to_owned()], 1)
    );

    let mut text = Vec::new();
    otlp::json::write_request(&mut text, protobuf(&body).unwrap().batch.spans());
    envelope.encoding = Encoding::Json;
    envelope.resent = vec![1, 2];
    let decoded = decode(&envelope, &Bytes::from(text), &Limits::default()).unwrap();
    assert_eq!(names(&decoded), ["n0", "n4"]);
}

#[test]
fn a_message_in_parts_is_put_together() {
    let attribute = |key: &str| message(&[(1, key.as_bytes())]);
    let span = message(&[(1, TRACE_ID), (2, SPAN_ID)]);
    let scope_spans =
        message(&[(2, &span), (1, &message(&[(1, b"late scope")])), (3, b"scope schema")]);
    let resource = |key: &str| message(&[(1, &attribute(key))]);
    let resource_spans = message(&[
        (1, &resource("a")),
        (2, &scope_spans),
        (1, &resource("b")),
        (3, b"old"),
        (3, b"new"),
    ]);
    let decoded = protobuf(&Bytes::from(message(&[(1, &resource_spans)]))).unwrap();
    let scope = &decoded.batch.spans().next().unwrap().scope;
    assert_eq!(
        (&*scope.name, &*scope.schema_url, &*scope.resource.schema_url),
        ("late scope", "scope schema", "new")
    );
    let keys: Vec<_> =
        scope.resource.attributes.iter().map(|attribute| attribute.key.to_string()).collect();
    assert_eq!(keys, ["a", "b"]);
}

#[test]
fn entity_references_are_passed_on_from_both_encodings() {
    let text = r#"{"resourceSpans":[{"resource":{"entityRefs":[{"schemaUrl":"s","type":"service","idKeys":["service.name"],
        "descriptionKeys":["a","b"]},{}]},"scopeSpans":[{"spans":[
        {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174"}]}]}]}"#;
    let request = passed_on(&json(&Bytes::from_static(text.as_bytes())).unwrap());
    let references = &request.resource_spans[0].resource.as_ref().unwrap().entity_refs;
    let service = &references[0];
    assert_eq!((&*service.schema_url, &*service.r#type), ("s", "service"));
    assert_eq!(
        (&service.id_keys[..], &service.description_keys[..]),
        (&["service.name".to_owned()][..], &["a".into(), "b".into()][..])
    );
    assert_eq!(references.len(), 2);
    let again = passed_on(&protobuf(&Bytes::from(request.encode_to_vec())).unwrap());
    assert_eq!(again, request);
}

#[test]
fn a_refusal_says_what_is_wrong_and_quotes_no_text() {
    let problem =
        |body: &'static str| json(&Bytes::from_static(body.as_bytes())).unwrap_err().to_string();
    assert_eq!(problem(""), "the body is not JSON: expected a value at byte 0");
    assert_eq!(
        problem("{\"secret\" \"text\"}"),
        "the body is not JSON: expected a colon at byte 10"
    );
    assert_eq!(
        problem("\"secret\""),
        "expected an object with resourceSpans, but the body is a string"
    );
    assert_eq!(
        problem("{\"data\":[],\"a b\":1}"),
        "expected an object with resourceSpans, but found an object with \"data\", \"a b\""
    );
    assert_eq!(
        problem("{\"resourceSpans\":{}}"),
        "the body is not an OTLP request in JSON: resourceSpans is not an array"
    );
    assert_eq!(
        protobuf(&Bytes::from_static(&[0x0a, 9, 1])).unwrap_err().to_string(),
        "the body is not an OTLP protobuf message: a field reaches beyond the end of its message at byte 2"
    );
}
