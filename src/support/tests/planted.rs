//! Secrets planted in every place of both formats. Separate suites include this file by path.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde_json::{Value, json};

/// One secret of each kind, with its pattern. None of them is real.
pub(crate) const PLANTED: [(&str, &str); 32] = [
    ("anthropic_key", "sk-ant-api03-abcDEF0123456789abcDEF0123456789-AA"),
    ("langfuse_key", "sk-lf-01234567-89ab-cdef-0123-456789abcdef"),
    ("openai_key", "sk-proj-abcdefghij0123456789ABCDEFGHIJ"),
    ("openai_key", "sk-or-v1-0123456789abcdef0123456789abcdef"),
    ("groq_key", "gsk_abcdefghij0123456789ABCDEFGHIJ0123456789"),
    ("xai_key", "xai-abcdefghij0123456789ABCDEFGHIJ0123456789"),
    ("perplexity_key", "pplx-abcdefghij0123456789ABCDEFGHIJ012345"),
    ("langsmith_key", "lsv2_pt_0123456789abcdef0123456789abcdef_0123456789"),
    ("huggingface_token", "hf_abcdefghijABCDEFGHIJabcdefghijABCD"),
    ("aws_access_key", "AKIAIOSFODNN7EXAMPLE"),
    ("google_api_key", "AIzaSyA0123456789abcdefghijABCDEFGHIJ01"),
    ("google_oauth_token", "ya29.abcdefghij0123456789ABCDEFGHIJ"),
    ("github_token", "ghp_abcdefghij0123456789ABCDEFGHIJ012345"),
    ("github_token", "github_pat_abcdefghij0123456789_ABCDEFGHIJ"),
    ("gitlab_token", "glpat-abcdefghij0123456789"),
    ("slack_token", "xoxb-0123456789-abcdefghij"),
    ("stripe_key", "sk_live_abcdefghij0123456789"),
    ("sendgrid_key", "SG.abcdefghij0123456789AB.abcdefghij0123456789ABCDEFGHIJ0123456789abc"),
    ("npm_token", "npm_abcdefghij0123456789ABCDEFGHIJ012345"),
    ("pypi_token", "pypi-AgEIcHlwaS5vcmcCJGFiY2RlZmdoaWowMTIzNDU2Nzg5QUJDREVGR0hJSjAxMjM0"),
    ("jwt", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"),
    ("email", "jane.doe+test@mail.example.com"),
    ("credit_card", "4111 1111 1111 1111"),
    ("credit_card", "378282246310005"),
    ("iban", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB82WEST12345698765432"),
    ("us_ssn", "123-45-6789"),
    ("phone", "+49 (170) 123-4567"),
    ("phone", "(555) 010-4567"),
    ("ipv4", "203.0.113.77"),
    ("ipv6", "2001:db8::8a2e:370:7334"),
    ("phone", "555-010-4567"),
];

/// Secrets that only the preceding text identifies: the match, and the part of it that must not remain.
pub(crate) const IN_CONTEXT: [(&str, &str, &str); 5] = [
    (
        "azure_storage_key",
        "AccountKey=abcdefghij0123456789ABCDEFGHIJabcdefghij0123456789==",
        "abcdefghij0123456789",
    ),
    (
        "aws_secret",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "wJalrXUtnFEMI",
    ),
    ("bearer", "Authorization: Bearer abcdefghij0123456789", "abcdefghij0123456789"),
    ("password_in_url", "postgres://admin:hunter2pass@db.example/x", "hunter2pass"),
    (
        "private_key",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nabc/+=\n-----END RSA PRIVATE KEY-----",
        "MIIEpAIBAAKCAQEA7",
    ),
];

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

fn any(value: &str) -> AnyValue {
    AnyValue { value: Some(Any::StringValue(value.to_owned())) }
}

/// Returns a request with a text in every possible place.
#[expect(clippy::too_many_lines, reason = "there are many places")]
pub(crate) fn otlp_everywhere(secret: &str) -> ExportTraceServiceRequest {
    let nested = Any::KvlistValue(KeyValueList {
        values: vec![
            text("inner", secret),
            KeyValue {
                key: "list".to_owned(),
                value: Some(AnyValue {
                    value: Some(Any::ArrayValue(ArrayValue {
                        values: vec![any("x"), any(secret)],
                    })),
                }),
                ..KeyValue::default()
            },
        ],
    });
    let attributes = |name: &str| {
        vec![
            text(name, secret),
            text("plain", "nothing here"),
            KeyValue {
                key: "nested".to_owned(),
                value: Some(AnyValue { value: Some(nested.clone()) }),
                ..KeyValue::default()
            },
            KeyValue {
                key: "bytes".to_owned(),
                value: Some(AnyValue { value: Some(Any::BytesValue(secret.as_bytes().to_vec())) }),
                ..KeyValue::default()
            },
            text(
                "json",
                &json!({ "a": [{ "b": secret }], "inner": json!({ "c": secret }).to_string() })
                    .to_string(),
            ),
        ]
    };
    let span = Span {
        trace_id: vec![7; 16],
        span_id: vec![8; 8],
        name: format!("call {secret}"),
        trace_state: format!("a={secret}"),
        start_time_unix_nano: 1_795_238_969_114_407_720,
        end_time_unix_nano: 1_795_238_970_114_407_720,
        kind: 3,
        attributes: attributes("input.value"),
        events: vec![Event {
            time_unix_nano: 5,
            name: format!("event {secret}"),
            attributes: attributes("exception.message"),
            ..Event::default()
        }],
        links: vec![Link {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            attributes: attributes("link"),
            ..Link::default()
        }],
        status: Some(Status { code: 2, message: format!("failed: {secret}") }),
        ..Span::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: attributes("host.name"), ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: format!("lib {secret}"),
                    attributes: attributes("scope"),
                    ..InstrumentationScope::default()
                }),
                spans: vec![span],
                schema_url: "https://example.com/s".to_owned(),
            }],
            schema_url: String::new(),
        }],
    }
}

/// Returns an Agents SDK span.
pub(crate) fn sdk_span(data: &Value) -> Value {
    json!({
        "object": "trace.span", "id": "span_0123456789abcdef01234567", "trace_id": "trace_0123456789abcdef0123456789abcdef",
        "parent_id": null, "started_at": "2026-11-28T10:00:00.123456+00:00", "ended_at": "2026-11-28T10:00:01.123456+00:00",
        "span_data": data, "error": null,
    })
}

/// Returns Agents SDK items with a text in every possible place.
pub(crate) fn agents_sdk_everywhere(secret: &str) -> Vec<Value> {
    let arguments = json!({ "q": secret, "more": json!([secret]).to_string() }).to_string();
    let mut failed = sdk_span(
        &json!({ "type": "function", "name": "search", "input": arguments, "output": format!("got {secret}"), "mcp_data": { "server": secret } }),
    );
    failed["error"] = json!({ "message": format!("no {secret}"), "data": { "deep": [secret] } });
    failed["metadata"] = json!({ "note": secret });
    failed["later"] = json!([{ "unknown": secret }]);
    vec![
        json!({ "object": "trace", "id": "trace_0123456789abcdef0123456789abcdef", "workflow_name": secret, "group_id": secret, "metadata": { "a": secret, "user": secret } }),
        sdk_span(
            &json!({ "type": "generation", "model": "gpt-4o", "input": [{ "role": "user", "content": secret }], "output": [{ "role": "assistant", "content": [{ "text": secret }] }], "usage": { "input_tokens": 5 } }),
        ),
        sdk_span(&json!({ "type": "agent", "name": format!("agent {secret}"), "tools": [secret] })),
        sdk_span(&json!({ "type": "custom", "name": "c", "data": { "k": { "deep": secret } } })),
        failed,
    ]
}
