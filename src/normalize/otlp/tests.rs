//! OTLP as real clients, hostile hands and chance send it.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::{Value, json};

use crate::normalize::{Coding, Decoded, Encoding, Envelope, Limits, Malformed, decode, inflate};
use crate::span::{Receiver, Source, otlp};
use crate::support::golden::{self, Fixture};

const BODY_BYTES_MAX: usize = 64 << 20;

fn envelope(encoding: Encoding) -> Envelope {
    let source = Source {
        receiver: Receiver::OtlpHttp,
        received_at_ns: 0,
        tenant: String::new(),
        key_fingerprint: String::new(),
        headers: Vec::new(),
    };
    Envelope {
        source,
        encoding,
        coding: Coding::Identity,
        items: 0,
        body_bytes: 0,
        resent: Vec::new(),
        aside: None,
    }
}

fn protobuf(body: &Bytes) -> Result<Decoded, Malformed> {
    decode(&envelope(Encoding::Protobuf), body, &Limits::default())
}

fn json(body: &Bytes) -> Result<Decoded, Malformed> {
    decode(&envelope(Encoding::Json), body, &Limits::default())
}

fn plain_body(fixture: &Fixture) -> Bytes {
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

/// Our OTLP/JSON of what was decoded.
fn written(decoded: &Decoded) -> Value {
    let mut out = Vec::new();
    otlp::json::write_request(&mut out, decoded.batch.spans());
    serde_json::from_slice(&out).unwrap()
}

/// Makes two decodings comparable: members that hold a default may be there or not, and only spans under the same resource and
/// scope are brought together.
fn canonical(request: &Value) -> Vec<(String, String, Value)> {
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
        // Numbers are kept as they are written, and 1e-5 is also 1e-05.
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

/// The spans of a request as the oracle understands them, each with what it was sent under.
fn oracle_spans(request: &ExportTraceServiceRequest) -> Vec<String> {
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

fn passed_on(decoded: &Decoded) -> ExportTraceServiceRequest {
    let mut out = Vec::new();
    otlp::protobuf::write_request(&mut out, decoded.batch.spans());
    ExportTraceServiceRequest::decode(out.as_slice()).unwrap()
}

/// The request rebuilt from what was read of every span, none of it from the slices.
fn rebuilt(decoded: &Decoded) -> ExportTraceServiceRequest {
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
    let resource_spans = decoded.batch.spans().map(|span| {
        let resource =
            crate::span::Resource { wire: Bytes::new(), ..unshared(&span.scope.resource) };
        let scope = crate::span::Scope { wire: Bytes::new(), ..unshared_scope(&span.scope) };
        let mut message = Vec::new();
        otlp::protobuf::write_span(&mut message, span, span.detail());
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

/// A status that says nothing is the same as none, and entity references are passed on but not read.
fn without_empty_status(mut request: ExportTraceServiceRequest) -> ExportTraceServiceRequest {
    for resource in &mut request.resource_spans {
        if let Some(resource) = &mut resource.resource {
            resource.entity_refs.clear();
        }
        for span in resource.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
            span.status = span.status.take().filter(|status| *status != Default::default());
        }
    }
    request
}

/// What the decoder makes of each case of `json-mapping/cases.json`: the file `ours.json` beside it. Writing it anew needs a look at
/// every line that changed.
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
    if std::option_env!("SPANFERRY_BLESS").is_some() {
        std::fs::write(
            golden::path("otlp/json-mapping/ours.json"),
            serde_json::to_string_pretty(&ours).unwrap(),
        )
        .unwrap();
    }
    let written_down: Value =
        serde_json::from_slice(&golden::read("otlp/json-mapping/ours.json")).unwrap();
    assert_eq!(ours, written_down);
}
