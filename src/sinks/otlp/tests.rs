//! Options, presets, bodies and answers; no network.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use toml::de::DeTable;

use super::encode::{encode, in_dialect};
use super::response::read;
use super::settings::PRESETS;
use super::*;
use crate::feed::decisions::cut_tests::each_cut;
use crate::sinks::http::Response;
use crate::sinks::samples;
use crate::sinks::{Delivery, Pace, Refusal, RejectClass, Verdict, Verdicts};
use crate::span::{
    Attribute, Detail, Facts, Item, Kind as Work, Payload, Scope, Span, Text, TraceContext,
    TraceObject, Usage, Value, keys,
};
use crate::support::base64::write as write_base64;
use crate::support::golden;
use crate::support::problem::Problem;

// === Options ===

fn parse(text: &str) -> Result<Settings, Vec<Problem>> {
    settings::parse(DeTable::parse(text).unwrap())
}

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err().into_iter().map(|problem| problem.what).collect()
}

#[test]
fn the_path_of_the_traces_is_added_as_opentelemetry_has_it() {
    for (endpoint, uri) in [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
        ("https://example.com/otel/", "https://example.com/otel/v1/traces"),
        ("https://example.com/v1/traces", "https://example.com/v1/traces"),
        ("https://example.com/otel/v1/traces/", "https://example.com/otel/v1/traces"),
    ] {
        let settings = parse(&format!("endpoint = {endpoint:?}")).unwrap();
        assert_eq!(settings.uri.reveal(), uri);
    }
    let verbatim = parse("traces_endpoint = \"https://example.com/ingest?x=1\"").unwrap();
    assert_eq!(verbatim.uri.reveal(), "https://example.com/ingest?x=1");
    let grpc = parse("endpoint = \"https://example.com/v1\"\nprotocol = \"grpc\"").unwrap();
    let path = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
    assert_eq!(grpc.uri.reveal(), format!("https://example.com/{path}"));
}

#[test]
fn a_key_in_the_query_of_an_address_is_sent_and_never_shown() {
    let settings = parse(
        "traces_endpoint = \"https://a/ingest?key=hush\"\napi_key = \"k\"\n\
         auth_endpoint = \"https://a/token?key=hush\"",
    )
    .unwrap();
    let shown = settings.shown.to_string();
    assert!(shown.contains("https://a/ingest?[redacted]"), "{shown}");
    assert!(shown.contains("https://a/token?[redacted]"), "{shown}");
    assert!(!format!("{shown} {settings:?}").contains("hush"), "{shown} {settings:?}");
    let sink = Otlp::new(settings).unwrap();
    let request = sink.endpoint.request(&Delivery::default(), Bytes::new());
    assert_eq!(request.uri.query(), Some("key=hush"));
}

#[test]
fn every_mistake_is_said_and_no_value_is_quoted() {
    assert_eq!(problems(""), ["missing key `endpoint`"]);
    assert_eq!(
        problems("endpoint = \"localhost:4318\""),
        ["`endpoint` is not an address that begins with http:// or https://"]
    );
    assert_eq!(
        problems("endpoint = \"https://me:hunter2@example.com\""),
        ["`endpoint` holds credentials"]
    );
    assert_eq!(
        problems(
            "endpoint = \"http://localhost\"\ntimeout = \"0s\"\nrequest_bytes_max = \"1B\"\n\
             headers = { \"content-type\" = \"x\", \"b ad\" = \"x\", good = \"hunter2\\n\" }\n\
             tls.cert_file = \"us.pem\""
        ),
        [
            "`b ad` cannot be set as a header",
            "`content-type` cannot be set as a header",
            "the value of `good` is not a valid header value",
            "`request_bytes_max` is less than 1KiB",
            "`timeout` must be more than zero",
            "`tls.cert_file` and `tls.key_file` go together",
        ]
    );
    let binary = "endpoint = \"http://localhost\"\nprotocol = \"grpc\"\n\
                  headers = { a-bin = \"AQID\", b-Bin = \"AQ==,AQ\", c-bin = \"no base64\" }";
    assert_eq!(
        problems(binary),
        ["gRPC sends binary data in `c-bin`, and its value is not base64"]
    );
    assert!(parse(&binary.replace("grpc", "http/json")).is_ok());
    let unknown = &parse("preset = \"fenix\"").unwrap_err()[0];
    assert_eq!(unknown.what, "no preset is called `fenix`");
    assert_eq!(unknown.at, Some(9..16));
}

#[test]
fn what_is_for_presets_is_not_left_out_in_silence() {
    let alone = "endpoint = \"http://a\"\napi_key = \"hunter2\"\nproject = \"p\"\naccount = \"\"";
    assert_eq!(
        problems(alone),
        [
            "without a preset nothing is done with `api_key`",
            "without a preset nothing is done with `project`"
        ]
    );
    let unset = problems("preset = \"honeycomb\"\napi_key = \"\"");
    assert_eq!(unset, ["the preset `honeycomb` needs `api_key`: the backend's API key"]);
    let unset = problems("endpoint = \"http://a\"\nauth_endpoint = \"http://a\"\napi_key = \" \"");
    assert_eq!(unset, ["there is no key to exchange for a token"]);
    // Phoenix on one's own machine asks for none.
    let unset = parse("preset = \"phoenix\"\napi_key = \"\"").unwrap();
    assert_eq!(unset.headers.get("authorization"), None);
}

// === Presets ===

/// All options that any preset needs.
const GIVEN: &str = "api_key = \"sk-hunter2\"\nproject = \"shop\"\naccount = \"4711\"\n";

#[test]
fn every_preset_works_with_what_it_asks_for_and_says_what_it_lacks() {
    assert_eq!(PRESETS.len(), 13, "the file can be read");
    for preset in PRESETS.iter() {
        let mut text = format!("preset = {:?}\n{GIVEN}", preset.name);
        if preset.options.endpoint.is_none() && preset.options.traces_endpoint.is_none() {
            text.push_str("endpoint = \"https://here.example.com\"\n");
        }
        let settings = parse(&text).unwrap_or_else(|error| panic!("{}: {error:?}", preset.name));
        assert_eq!(settings.wire, preset.options.protocol.unwrap_or_default(), "{}", preset.name);
        assert_eq!(settings.dialect, preset.options.dialect.unwrap_or_default(), "{}", preset.name);
        assert_eq!(settings.headers.len(), preset.headers.len(), "{}", preset.name);
        let attributes = &preset.options.resource_attributes;
        assert_eq!(settings.resource_attributes.len(), attributes.len(), "{}", preset.name);
        assert!(settings.headers.values().all(HeaderValue::is_sensitive), "{}", preset.name);
        let bare = parse(&format!("preset = {:?}", preset.name));
        let lacking = bare.err().unwrap_or_default();
        assert_eq!(lacking.len(), preset.needs.len(), "{}: {lacking:?}", preset.name);
    }
}

#[test]
fn a_preset_fills_in_what_the_user_does_not_say() {
    let langsmith = parse(&format!("preset = \"langsmith\"\n{GIVEN}")).unwrap();
    assert_eq!(langsmith.uri.reveal(), "https://api.smith.langchain.com/otel/v1/traces");
    assert_eq!(langsmith.headers["x-api-key"], "sk-hunter2");
    assert_eq!(langsmith.headers["langsmith-project"], "shop");
    let grafana = "preset = \"grafana\"\nendpoint = \"https://otlp-gateway-x.grafana.net/otlp\"\n";
    let grafana = parse(&format!("{grafana}{GIVEN}")).unwrap();
    assert_eq!(grafana.headers["authorization"], "Basic NDcxMTpzay1odW50ZXIy");
    let own = "endpoint = \"https://self.example.com\"\ndialect = \"both\"\n\
               headers = { authorization = \"mine\" }\n\
               resource_attributes = { \"openinference.project.name\" = \"mine\" }\n";
    let own = parse(&format!("preset = \"phoenix\"\n{GIVEN}{own}")).unwrap();
    assert_eq!(own.uri.reveal(), "https://self.example.com/v1/traces");
    assert_eq!(own.dialect, Dialect::Both);
    assert_eq!(own.headers["authorization"], "mine");
    assert_eq!(own.resource_attributes.len(), 1);
    assert_eq!(own.resource_attributes[0].value, Value::Text(Text::from_static("mine")));
}

#[test]
fn a_preset_without_a_key_sends_no_empty_header() {
    let phoenix = parse("preset = \"phoenix\"").unwrap();
    assert_eq!(phoenix.uri.reveal(), "http://localhost:6006/v1/traces");
    assert!(phoenix.headers.is_empty() && phoenix.resource_attributes.is_empty());
    assert_eq!(
        problems("preset = \"phoenix\"\nprotocol = \"grpc\""),
        ["the preset `phoenix` has no address for gRPC"]
    );
}

#[test]
fn what_a_preset_comes_to_is_shown_without_its_key() {
    let shown = parse(&format!("preset = \"arize\"\n{GIVEN}")).unwrap().shown.to_string();
    for expected in [
        "preset = \"arize\"",
        "traces_endpoint = \"https://otlp.arize.com/v1/traces\"",
        "protocol = \"http/protobuf\"",
        "dialect = \"openinference\"",
        "compression = \"gzip\"",
        "timeout = \"10s\"",
        "arize-api-key = \"[redacted]\"",
        "\"openinference.project.name\" = \"shop\"",
    ] {
        assert!(shown.contains(expected), "{expected} is not in\n{shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn every_preset_is_in_the_golden_of_what_is_shown() {
    let shown = String::from_utf8(golden::read("config-show/presets.toml")).unwrap();
    for preset in PRESETS.iter() {
        assert!(shown.contains(&format!("preset = \"{}\"\n", preset.name)), "{}", preset.name);
    }
}

// === Bodies ===

fn attribute(key: &'static str, value: &'static str) -> Attribute {
    Attribute { key: Text::from_static(key), value: Value::Text(Text::from_static(value)) }
}

fn generation(number: u64) -> Span {
    let attributes = vec![
        attribute(keys::GEN_AI_OPERATION_NAME, "chat"),
        attribute(keys::OPENINFERENCE_SPAN_KIND, "LLM"),
        attribute(keys::GEN_AI_REQUEST_MODEL, "gpt-5"),
        attribute(keys::LLM_MODEL_NAME, "gpt-5"),
        attribute(keys::GEN_AI_INPUT_MESSAGES, "[...]"),
        attribute(keys::GEN_AI_HANDOFF_TO_AGENT, "no twin"),
        attribute(keys::OPENAI_AGENTS_SPAN_ID, "span_1"),
    ];
    let detail = Detail { name: Text::from_static("chat gpt-5"), attributes, ..Detail::default() };
    let facts = Facts {
        input: Some(Payload::Json(Text::from_static("[{}]"))),
        output: Some(Payload::Text(Text::from_static("hello"))),
        ..Facts::default()
    };
    samples::sdk_span(number, "{}", detail, facts)
}

fn keys_of(detail: &Detail) -> Vec<&str> {
    detail.attributes.iter().map(|attribute| &*attribute.key).collect()
}

#[test]
fn a_dialect_leaves_out_only_what_the_other_says_as_well() {
    let span = generation(1);
    let genai = in_dialect(&span, None, Dialect::GenAi);
    assert_eq!(
        keys_of(&genai),
        [
            "gen_ai.operation.name",
            "gen_ai.request.model",
            "gen_ai.input.messages",
            "gen_ai.handoff.to_agent",
            "openai.agents.span_id"
        ]
    );
    let openinference = in_dialect(&span, None, Dialect::OpenInference);
    assert_eq!(
        keys_of(&openinference),
        [
            "openinference.span.kind",
            "llm.model_name",
            "gen_ai.handoff.to_agent",
            "openai.agents.span_id",
            "input.value",
            "input.mime_type",
            "output.value",
            "output.mime_type"
        ]
    );
    let both = in_dialect(&span, None, Dialect::Both);
    assert_eq!(both.attributes.len(), 11);
}

#[test]
fn tokens_that_repeat_others_get_names_that_nobody_adds_up() {
    let tokens = Usage { input: Some(7), ..Usage::default() };
    let facts = Facts { kind: Work::Agent, aggregate_usage: tokens, ..Facts::default() };
    let said = |key| Attribute { key: Text::from_static(key), value: Value::Int(7) };
    let detail = Detail {
        attributes: vec![said("gen_ai.usage.input_tokens"), said("k"), said("operation.cost")],
        ..Detail::default()
    };
    let mut span = samples::otlp_span(1, &Arc::default(), detail.clone(), facts.clone());
    let mut wire = Vec::new();
    let times = (span.start_ns, span.end_ns);
    crate::span::otlp::protobuf::write_span(&mut wire, &span, times, span.parent_id, &detail);
    span.wire = wire.into();
    let context = TraceContext { exceptions: [span.span_id].into(), ..TraceContext::default() };
    let (trace, delivery) = (span.trace_id, delivery_of(vec![Item::Span(span)]));
    let speaking = delivery.clone().with_contexts(Arc::new([(trace, context.clone())].into()));
    let all = ["gen_ai.usage.input_tokens", "k", "operation.cost"];
    let renamed = [
        "spanferry.aggregate.gen_ai.usage.input_tokens",
        "k",
        "spanferry.aggregate.operation.cost",
    ];
    for (delivery, expected) in [(delivery, renamed), (speaking, all)] {
        let body = encode(&delivery, &settings("")).remove(0).message;
        let request = ExportTraceServiceRequest::decode(&*body).unwrap();
        let sent = &request.resource_spans[0].scope_spans[0].spans[0].attributes;
        assert_eq!(sent.iter().map(|it| &*it.key).collect::<Vec<_>>(), expected);
    }
    // A task whose tokens count for its run, and an Agents SDK call around another.
    let aggregate = vec![said("openai.agents.aggregate_usage.input_tokens"), said("k")];
    let own = vec![said("gen_ai.usage.input_tokens"), said("llm.token_count.prompt"), said("k")];
    let call = Facts { kind: Work::Generation, usage: tokens, ..Facts::default() };
    for (attributes, facts, expected) in [
        (
            aggregate,
            Facts { kind: Work::Chain, ..facts },
            ["k", "gen_ai.usage.input_tokens", "llm.token_count.prompt"].as_slice(),
        ),
        (own, call, ["openai.agents.aggregate_usage.input_tokens", "k"].as_slice()),
    ] {
        let detail = Detail { attributes, ..Detail::default() };
        let span = samples::sdk_span(1, "{}", detail, facts);
        assert_eq!(keys_of(&in_dialect(&span, Some(&context), Dialect::Both)), expected);
    }
}

fn settings(text: &str) -> Settings {
    parse(&format!("endpoint = \"http://localhost:4318\"\n{text}")).unwrap()
}

fn delivery_of(items: Vec<Item>) -> Delivery {
    samples::delivery(0, items)
}

fn trace_object() -> Item {
    Item::Trace(Arc::new(TraceObject {
        trace_id: generation(1).trace_id,
        sdk_id: Text::new(),
        workflow: None,
        group: None,
        metadata: None,
        wire: Bytes::from_static(b"{}"),
    }))
}

fn decoded(message: &[u8]) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(message).unwrap()
}

fn span_count(request: &ExportTraceServiceRequest) -> usize {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.map(|scope| scope.spans.len()).sum()
}

#[test]
fn a_delivery_is_cut_into_requests_below_the_limit_and_trace_objects_go_along() {
    let mut items: Vec<_> = (0..100).map(|number| Item::Span(generation(number))).collect();
    items.insert(40, trace_object());
    items.insert(0, trace_object());
    let delivery = delivery_of(items);
    let settings = settings("request_bytes_max = \"4KiB\"");
    let bodies = encode(&delivery, &settings);
    assert!(bodies.len() > 5, "{}", bodies.len());
    let (mut next, mut spans) = (0, 0);
    for body in &bodies {
        assert_eq!(body.items.start, next, "the requests follow each other");
        next = body.items.end;
        assert!(body.message.len() <= 4096, "{}", body.message.len());
        spans += span_count(&decoded(&body.message));
    }
    assert_eq!(next, 102);
    assert_eq!(spans, 100);
    assert_eq!(encode(&delivery, &settings), bodies, "the same each time");
}

#[test]
fn a_span_that_is_too_large_alone_goes_alone() {
    let detail = Detail { name: Text::from("x".repeat(5000)), ..Detail::default() };
    let large = samples::sdk_span(1, "{}", detail, Facts::default());
    let items = vec![Item::Span(generation(0)), Item::Span(large), Item::Span(generation(2))];
    let bodies = encode(&delivery_of(items), &settings("request_bytes_max = \"1KiB\""));
    let sizes: Vec<_> =
        bodies.iter().map(|body| (body.items.clone(), body.message.len())).collect();
    assert_eq!(bodies.len(), 3, "{sizes:?}");
    assert!(5000 < sizes[1].1);
}

#[test]
fn a_delivery_of_trace_objects_alone_needs_no_request() {
    let bodies = encode(&delivery_of(vec![trace_object()]), &settings(""));
    assert_eq!(bodies.len(), 1);
    assert_eq!(bodies[0].message.len(), 0);
}

#[test]
fn resources_get_the_attributes_that_they_lack() {
    let known = attribute("openinference.project.name", "theirs");
    let resource = crate::span::Resource { attributes: vec![known], ..Default::default() };
    let scope = Arc::new(Scope { resource: Arc::new(resource), ..Scope::default() });
    let bare = generation(1);
    let known = samples::otlp_span(2, &scope, Detail::default(), Facts::default());
    let delivery = delivery_of(vec![Item::Span(bare), Item::Span(known)]);
    for protocol in ["http/protobuf", "http/json"] {
        let text = format!(
            "protocol = {protocol:?}\n\
             resource_attributes = {{ \"openinference.project.name\" = \"ours\" }}"
        );
        let message = encode(&delivery, &settings(&text)).remove(0).message;
        let text = String::from_utf8_lossy(&message);
        assert_eq!(text.matches("ours").count(), 1, "{text}");
        assert_eq!(text.matches("theirs").count(), 1, "{text}");
        assert_eq!(text.matches("openinference.project.name").count(), 2, "{text}");
    }
}

#[test]
fn spans_of_the_agents_sdk_belong_to_a_service_and_others_are_left_alone() {
    let theirs = samples::otlp_span(2, &Arc::default(), Detail::default(), Facts::default());
    let delivery = delivery_of(vec![Item::Span(generation(1)), Item::Span(theirs)]);
    for (more, expected) in [
        ("", vec![vec!["openai-agents"], vec![]]),
        ("resource_attributes = { a = \"b\" }", vec![vec!["openai-agents"], vec![]]),
        ("resource_attributes = { \"service.name\" = \"shop\" }", vec![vec!["shop"], vec!["shop"]]),
    ] {
        let message = encode(&delivery, &settings(&format!("protocol = \"http/json\"\n{more}")));
        let request: serde_json::Value = serde_json::from_slice(&message[0].message).unwrap();
        let services = |group: &serde_json::Value| {
            let attributes = group["resource"]["attributes"].as_array().cloned();
            let mut attributes = attributes.unwrap_or_default();
            attributes.retain(|attribute| attribute["key"] == "service.name");
            let value = |attribute: &serde_json::Value| attribute["value"]["stringValue"].clone();
            attributes.iter().map(value).collect::<Vec<_>>()
        };
        let groups = request["resourceSpans"].as_array().unwrap();
        assert_eq!(groups.iter().map(services).collect::<Vec<_>>(), expected, "{more}");
        let binary = encode(&delivery, &settings(more)).remove(0).message;
        let named = String::from_utf8_lossy(&binary).matches("service.name").count();
        assert_eq!(named, expected.concat().len(), "{more}");
    }
}

// === Answers ===

fn header_map(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Response {
    Response {
        status: StatusCode::from_u16(status).unwrap(),
        headers: header_map(headers),
        body: Bytes::copy_from_slice(body),
        is_cut: false,
        trailers: HeaderMap::new(),
    }
}

/// The number of spans in the request.
const SPANS: usize = 3;

fn http(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Report {
    read(Wire::HttpProtobuf, &answer(status, headers, body), SPANS)
}

fn class(report: &Report) -> Option<RejectClass> {
    report.refusal().map(|refusal| refusal.class)
}

#[test]
fn every_http_status_has_its_report() {
    let word = |report: &Report| match (&report.pace, class(report)) {
        (Pace::Go, None) => "delivered",
        (Pace::Go, Some(RejectClass::TooLarge)) => "too large",
        (Pace::Go, Some(RejectClass::Malformed)) => "malformed",
        (Pace::Down { .. }, None) => "down",
        (Pace::Down { .. }, Some(RejectClass::Fault)) => "fault",
        (Pace::Slow { .. }, None) => "slow",
        (Pace::Hold { .. }, None) => "hold",
        other => panic!("{other:?}"),
    };
    for (statuses, expected) in [
        (&[200, 202, 204][..], "delivered"),
        (&[408, 502, 504], "down"),
        (&[429, 503], "slow"),
        (&[500, 501], "fault"),
        (&[413], "too large"),
        (&[400, 422], "malformed"),
        (&[302, 307, 401, 403, 404, 405, 415], "hold"),
    ] {
        for status in statuses {
            assert_eq!(word(&http(*status, &[], b"")), expected, "{status}");
        }
    }
    let asked = Report::slow(Some(Duration::from_secs(7)), "HTTP 503 Service Unavailable");
    assert_eq!(http(503, &[("retry-after", "7")], b""), asked);
}

#[test]
fn a_400_of_the_collector_can_mean_too_large_or_an_unknown_coding() {
    let too_large = http(400, &[("content-type", "text/plain")], b"http: request body too large\n");
    assert!(too_large.is_refused(RejectClass::TooLarge), "{too_large:?}");
    // A google.rpc.Status with code 3 and a message.
    let status = b"\x08\x03\x12\x1chttp: request body too large";
    let too_large = http(400, &[("content-type", "application/x-protobuf")], status);
    assert!(
        too_large.refusal().is_some_and(|found| found.class == RejectClass::TooLarge
            && found.answer == "http: request body too large"),
        "{too_large:?}"
    );
    let coding = http(400, &[], b"unsupported Content-Encoding: zstd");
    assert!(matches!(coding.pace, Pace::Hold { .. }), "{coding:?}");
    let payload = http(400, &[], b"bad span: my secret prompt");
    let Some(Refusal { reason, answer, .. }) = payload.refusal() else { panic!("{payload:?}") };
    assert!(!reason.contains("secret") && answer.contains("secret"), "{reason} {answer}");
}

#[test]
fn a_web_page_is_no_success() {
    let page = http(200, &[("content-type", "text/html; charset=utf-8")], b"<html>");
    assert!(matches!(page.pace, Pace::Hold { .. }), "{page:?}");
}

#[test]
fn a_partial_success_is_counted_and_named_where_it_can_only_be_all() {
    let protobuf = [("content-type", "application/x-protobuf")];
    let json = [("content-type", "application/json")];
    // The Collector's answer: an empty partial success.
    assert_eq!(http(200, &protobuf, b"\x0a\x00"), Report::delivered());
    assert_eq!(http(200, &json, br#"{"partialSuccess":{}}"#), Report::delivered());
    assert_eq!(http(200, &json, br#"{"partialSuccess":null}"#), Report::delivered());
    assert_eq!(http(200, &[], b"\xff\xff not what it should be"), Report::delivered());
    let warning = br#"{"partialSuccess":{"rejectedSpans":"0","errorMessage":"mind the gap"}}"#;
    assert_eq!(http(200, &json, warning), Report::delivered());
    for some in [
        http(200, &protobuf, b"\x0a\x05\x08\x02\x12\x01x"),
        http(200, &json, br#"{"partialSuccess":{"rejectedSpans":"2"}}"#),
    ] {
        assert_eq!(some.omitted.unwrap().items, 2);
    }
    let all = http(200, &json, br#"{"partialSuccess":{"rejectedSpans":3,"errorMessage":"no"}}"#);
    let Verdicts::All(Verdict::Reject(refusal)) = all.verdicts else { panic!("{all:?}") };
    assert_eq!(refusal.answer, "no");
}

fn grpc(trailers: &[(&'static str, &str)]) -> Report {
    let head = [(CONTENT_TYPE.as_str(), "application/grpc")];
    let mut response = answer(200, &[], b"");
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static(head[0].1));
    let in_trailers = Response { trailers: header_map(trailers), ..response };
    let outcome = read(Wire::Grpc, &in_trailers, SPANS);
    let Response { status, mut headers, body, is_cut, trailers } = in_trailers;
    headers.extend(trailers);
    let trailers_only = Response { status, headers, body, is_cut, trailers: HeaderMap::new() };
    assert_eq!(
        read(Wire::Grpc, &trailers_only, SPANS),
        outcome,
        "the same where there are only headers"
    );
    outcome
}

#[test]
fn every_grpc_status_has_its_outcome() {
    for code in 0..20_u32 {
        let outcome = grpc(&[("grpc-status", &code.to_string())]);
        let is_right = match code {
            0 => outcome == Report::delivered(),
            1 | 4 | 10 | 11 | 15 => matches!(outcome.pace, Pace::Down { .. }),
            8 | 14 => matches!(outcome.pace, Pace::Slow { after: None, .. }),
            3 | 6 | 9 => outcome.is_refused(RejectClass::Malformed),
            5 | 7 | 12 | 16 => matches!(outcome.pace, Pace::Hold { .. }),
            _ => outcome.is_refused(RejectClass::Fault),
        };
        assert!(is_right, "{code}: {outcome:?}");
    }
}

#[test]
fn grpc_says_too_large_in_several_words() {
    for (code, message) in [
        ("8", "grpc: received message larger than max (5242880 vs. 4194304)"),
        ("8", "gRPC message exceeds maximum size 4194304: 5242880"),
        ("8", "grpc: message after decompression larger than max (5242880 vs. 4194304)"),
        ("8", "Error decompressing: size limit, of 4 bytes, exceeded while decompressing message"),
        ("11", "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes"),
    ] {
        let outcome = grpc(&[("grpc-status", code), ("grpc-message", message)]);
        assert!(outcome.is_refused(RejectClass::TooLarge), "{outcome:?}");
    }
}

#[test]
fn grpc_retry_info_is_honoured_and_messages_are_decoded() {
    // google.rpc.Status { code: 8, details: [Any { RetryInfo { retry_delay: 2.5 s } }] }
    let retry_info = b"\x0a\x08\x08\x02\x10\x80\xca\xb5\xee\x01";
    let mut any = b"\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12".to_vec();
    any.push(u8::try_from(retry_info.len()).unwrap());
    any.extend_from_slice(retry_info);
    let mut status = b"\x08\x08\x1a".to_vec();
    status.push(u8::try_from(any.len()).unwrap());
    status.extend_from_slice(&any);
    let mut text = Vec::new();
    write_base64(&mut text, &status);
    let details = String::from_utf8(text).unwrap();
    for details in [&*details, details.trim_end_matches('=')] {
        let outcome = grpc(&[("grpc-status", "8"), ("grpc-status-details-bin", details)]);
        let after = Some(Duration::from_millis(2500));
        assert!(matches!(outcome.pace, Pace::Slow { after: wait, .. } if wait == after));
    }
    let bad = grpc(&[("grpc-status", "3"), ("grpc-message", "100%25 na%C3%AFve 5% %zz")]);
    let Some(Refusal { answer, .. }) = bad.refusal() else { panic!("{bad:?}") };
    assert_eq!(answer, "100% na\u{ef}ve 5% %zz");
}

#[test]
fn an_answer_that_is_no_grpc_is_understood_too() {
    let proxy = read(Wire::Grpc, &answer(503, &[("retry-after", "3")], b"busy"), SPANS);
    let after = Some(Duration::from_secs(3));
    assert!(matches!(proxy.pace, Pace::Slow { after: wait, .. } if wait == after));
    let page = read(Wire::Grpc, &answer(200, &[("content-type", "text/html")], b"<html>"), SPANS);
    assert!(matches!(page.pace, Pace::Hold { .. }), "{page:?}");
    let cut = read(Wire::Grpc, &answer(200, &[("content-type", "application/grpc")], b""), SPANS);
    assert!(matches!(cut.pace, Pace::Down { .. }), "{cut:?}");
}

#[test]
fn no_parent_is_told_that_rules_dropped_in_another_request() {
    each_cut(|cut| {
        for body in encode(&cut.delivery(), &settings("")) {
            let request = ExportTraceServiceRequest::decode(&*body.message).unwrap();
            for scope in request.resource_spans.iter().flat_map(|each| &each.scope_spans) {
                scope.spans.iter().for_each(|span| cut.check_parent_id(&span.parent_span_id));
            }
        }
    });
}
