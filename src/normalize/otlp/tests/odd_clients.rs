//! Requests of encoders that ignore the JSON mapping, and of clients that use the wrong unit for times.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

use super::{json, oracle_spans, passed_on, protobuf};
use crate::normalize::Decoded;
use crate::span::otlp;
use crate::support::golden;

/// Builds a request with one span, which has these members in addition to its ids.
fn request(members: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"5b8efff798038103d269b633813fc60c",
        "spanId":"eee19b7ec3c1b174",{members}}}]}}]}}]}}"#
    ))
}

/// Returns a request's warnings, and the value that is passed on for its span's only attribute.
fn of_value(value: &str) -> (Vec<&'static str>, String) {
    let body = request(&format!(r#""attributes":[{{"key":"k","value":{value}}}]"#));
    let decoded = json(&body).unwrap();
    assert_eq!((decoded.batch.items.len(), decoded.refused.len()), (1, 0), "{value}");
    let mut attributes = decoded.batch.spans().next().unwrap().detail().attributes.clone();
    (said(&decoded), format!("{:?}", attributes.remove(0).value))
}

fn said(decoded: &Decoded) -> Vec<&'static str> {
    decoded.warnings.iter().map(|warning| warning.what).collect()
}

#[test]
fn what_go_marshals_of_the_protobuf_structs_is_the_same_as_protobuf() {
    let decoded = json(&Bytes::from(golden::read("otlp/json-mapping/go.json"))).unwrap();
    assert_eq!((said(&decoded), decoded.refused.len()), (vec![], 0));
    let sent = ExportTraceServiceRequest::decode(&*golden::read("otlp/json-mapping/go.pb"));
    assert_eq!(oracle_spans(&passed_on(&decoded)), oracle_spans(&sent.unwrap()));
}

#[test]
fn what_go_marshals_says_its_service() {
    let body = br#"{"resource_spans":[{"resource":{"attributes":[{"key":"service.name","value":{"Value":{"StringValue":"goapp"}}}]},
        "scope_spans":[{"spans":[{"trace_id":"CP8Q+04k60ObZC1DsTX5xQ==","span_id":"p2PFHDgiI6Y=","name":"Simple",
        "start_time_unix_nano":1795880000000000000,"end_time_unix_nano":1795880000000000005,
        "attributes":[{"key":"gen_ai.request.model","value":{"Value":{"StringValue":"m"}}}]}]}]}]}"#;
    let decoded = json(&Bytes::from_static(body)).unwrap();
    let span = decoded.batch.spans().next().unwrap();
    let text =
        |attribute: &crate::span::Attribute| format!("{} {:?}", attribute.key, attribute.value);
    assert_eq!(text(&span.scope.resource.attributes[0]), r#"service.name Text("goapp")"#);
    assert_eq!(text(&span.detail().attributes[0]), r#"gen_ai.request.model Text("m")"#);
    assert_eq!((span.end_ns - span.start_ns, said(&decoded)), (5, vec![]));
}

#[test]
fn a_value_in_a_wrapper_is_the_same_as_one_without_in_every_spelling() {
    let long = "\"x\\ny\"";
    for (wrapped, bare) in [
        (
            format!(r#"{{"Value":{{"StringValue":{long}}}}}"#),
            format!(r#"{{"stringValue":{long}}}"#),
        ),
        // gogo's structs of the same messages have JSON names.
        (r#"{"Value":{"string_value":"a"}}"#.to_owned(), r#"{"stringValue":"a"}"#.to_owned()),
        (
            r#"{"Value":{"ArrayValue":{"Values":[{"Value":{"BoolValue":false}}]}}}"#.to_owned(),
            r#"{"arrayValue":{"values":[{"boolValue":false}]}}"#.to_owned(),
        ),
        (
            r#"{"stringValue":"old","Value":{"IntValue":-5}}"#.to_owned(),
            r#"{"intValue":-5}"#.to_owned(),
        ),
        (r#"{"Value":null}"#.to_owned(), "{}".to_owned()),
        (r#"{"Value":{}}"#.to_owned(), "{}".to_owned()),
    ] {
        assert_eq!(of_value(&wrapped), of_value(&bare), "{wrapped}");
        assert_eq!(of_value(&wrapped).0, Vec::<&str>::new(), "{wrapped}");
    }
}

#[test]
fn a_list_without_its_member_for_the_values_is_the_same_as_one_with_it() {
    let entry = |key: &str| format!(r#"{{"key":"{key}","value":{{"intValue":"5"}}}}"#);
    let nested =
        format!(r#"{{"key":"b","value":{{"kvlistValue":{{"values":[{}]}}}}}}"#, entry("c"));
    let list = format!(r#"{{"kvlistValue":{{"values":[{},{nested}]}}}}"#, entry("a"));
    let words = r#"{"arrayValue":{"values":[{"stringValue":"x"},{"arrayValue":{"values":[]}}]}}"#;
    for (bare, usual) in [
        (
            r#"{"kvlistValue":{"a":{"intValue":"5"},"b":{"kvlistValue":{"c":{"intValue":5}}}}}"#,
            &*list,
        ),
        (&*format!(r#"{{"kvlistValue":[{},{nested}]}}"#, entry("a")), &*list),
        (r#"{"arrayValue":[{"stringValue":"x"},{"arrayValue":[]}]}"#, words),
        // An unknown member of the message itself.
        (r#"{"arrayValue":{"count":2,"values":[{"stringValue":"x"},{"arrayValue":[]}]}}"#, words),
        (
            r#"{"kvlistValue":{"values":{"intValue":"5"}}}"#,
            &*format!(r#"{{"kvlistValue":{{"values":[{}]}}}}"#, entry("values")),
        ),
    ] {
        assert_eq!(of_value(bare), of_value(usual), "{bare}");
        assert_eq!(of_value(bare).0, Vec::<&str>::new(), "{bare}");
    }
}

#[test]
fn a_value_of_an_unknown_kind_is_kept_empty_and_that_is_said() {
    let (_, empty) = of_value("{}");
    let deep = format!("{}1{}", r#"{"Value":"#.repeat(5000), "}".repeat(5000));
    for value in [
        r#"{"text":"a"}"#,
        r#"{"Value":"a"}"#,
        r#"{"Value":["a"]}"#,
        r#"{"Value":{"Text":{"a":[1]}}}"#,
        // A wrapper inside a wrapper is not a wrapper, at any depth.
        r#"{"Value":{"Value":{"StringValue":"a"}}}"#,
        &deep,
    ] {
        let (said, value_read) = of_value(value);
        assert_eq!(value_read, empty, "{}", value.get(..80).unwrap_or(value));
        assert!(said.concat().contains("is of an unknown type"), "{said:?}");
    }
}

#[test]
fn times_in_another_unit_are_kept_as_sent_and_said_to_be_odd_in_both_encodings() {
    let unit = |unit: &str| {
        format!("a span's time looks like {unit}, not nanoseconds: it is kept as sent")
    };
    let outside = "a span's time is before 2000 or after 2100: it is kept as sent".to_owned();
    for (start, end, expected) in [
        (1_795_880_000, 1_795_880_002, Some(unit("seconds"))),
        (1_795_880_000_000, 1_795_880_002_000, Some(unit("milliseconds"))),
        (1_795_880_000_000_000, 1_795_880_002_000_000, Some(unit("microseconds"))),
        (946_684_800, 0, Some(unit("seconds"))),
        (946_684_799, 0, Some(outside.clone())),
        (4_102_444_799, 0, Some(unit("seconds"))),
        (4_102_444_800, 0, Some(outside.clone())),
        (946_684_800_000_000_000, 946_684_800_000_000_001, None),
        (4_102_444_799_999_999_999, 0, None),
        (4_102_444_800_000_000_000, 0, Some(outside.clone())),
        (5, 7, Some(outside.clone())),
        (u64::MAX, u64::MAX, Some(outside)),
        // Unknown, or not known yet.
        (0, 0, None),
        (1_795_880_000_000_000_000, 0, None),
        (1_795_880_000_000_000_000, 1_795_880_000_000_000_001, None),
        (0, 1_795_880_002, Some(unit("seconds"))),
    ] {
        let body = request(&format!(r#""startTimeUnixNano":"{start}","endTimeUnixNano":{end}"#));
        let from_json = json(&body).unwrap();
        let mut message = Vec::new();
        otlp::protobuf::write_request(&mut message, from_json.batch.spans());
        let from_protobuf = protobuf(&Bytes::from(message)).unwrap();
        for decoded in [from_json, from_protobuf] {
            let span = decoded.batch.spans().next().unwrap();
            assert_eq!((span.start_ns, span.end_ns), (start, end));
            assert_eq!(
                said(&decoded),
                expected.as_deref().into_iter().collect::<Vec<_>>(),
                "{start}"
            );
            assert_eq!(decoded.odd_times, u64::from(expected.is_some()), "{start}");
        }
    }
}

#[test]
fn ids_in_base64_are_ids() {
    let of = |trace: &str, span: &str| {
        let body = format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{trace}","spanId":"{span}"}}]}}]}}]}}"#
        );
        let decoded = json(&Bytes::from(body)).unwrap();
        decoded.batch.spans().next().map(|span| format!("{} {}", span.trace_id, span.span_id))
    };
    let digits = "9e2a3dc06074b17540d54de4e51e735f eee19b7ec3c1b174";
    assert_eq!(
        of("OWUyYTNkYzA2MDc0YjE3NTQwZDU0ZGU0ZTUxZTczNWY=", "ZWVlMTliN2VjM2MxYjE3NA==").as_deref(),
        Some(digits)
    );
    for (trace, span) in [
        ("nio9wGB0sXVA1U3k5R5zXw==", "7uGbfsPBsXQ="),
        ("nio9wGB0sXVA1U3k5R5zXw", "7uGbfsPBsXQ"),
        ("OWUyYTNkYzA2MDc0YjE3NTQwZDU0ZGU0ZTUxZTczNWY", "ZWVlMTliN2VjM2MxYjE3NA"),
    ] {
        assert_eq!(of(trace, span).as_deref(), Some(digits), "padding is optional");
    }
    for trace in ["nio9wGB0sXVA1U3k5R5zXw=", "nio9wGB0sXVA1U3k5R5z", "nio9wGB0sXVA1U3k5R5zX"] {
        assert_eq!(of(trace, "7uGbfsPBsXQ"), None, "{trace}");
    }
    assert_eq!(
        of("OWUyYTNkYzA2MDc0YjE3NTQwZDU0ZGU0ZTUxZTczNWY=", "eGVlMTliN2VjM2MxYjE3NA=="),
        None
    );
    assert_eq!(
        of("LWUyYTNkYzA2MDc0YjE3NTQwZDU0ZGU0ZTUxZTczNWY=", "ZWVlMTliN2VjM2MxYjE3NA=="),
        None
    );
}

#[test]
fn times_in_two_halves_are_times() {
    let of = |time: &str| {
        let decoded = json(&request(&format!(r#""startTimeUnixNano":{time}"#))).unwrap();
        decoded.batch.spans().next().map(|span| span.start_ns)
    };
    assert_eq!(of(r#"{"low":-1013133952,"high":395276536}"#), Some(1_697_699_798_278_000_000));
    assert_eq!(of(r#"{"high":1,"low":2,"unsigned":true}"#), Some((1 << 32) + 2));
    assert_eq!(of(r#"{"low":-1,"high":-1}"#), Some(u64::MAX));
    for other in
        ["{}", r#"{"low":1}"#, r#"{"low":{},"high":1}"#, r#"{"low":0.5,"high":1}"#, "[1,2]"]
    {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn enums_without_their_prefix_are_known_in_any_case() {
    let of = |kind: &str, code: &str| {
        let body = format!(r#""kind":"{kind}","status":{{"code":"{code}"}}"#);
        let decoded = json(&request(&body)).unwrap();
        let span = decoded.batch.spans().next();
        span.map(|span| (span.detail().kind, span.detail().status_code))
    };
    assert_eq!(of("SERVER", "ERROR"), of("SPAN_KIND_SERVER", "STATUS_CODE_ERROR"));
    assert_eq!(of("Client", "Ok"), of("SPAN_KIND_CLIENT", "STATUS_CODE_OK"));
    assert_ne!(of("Client", "Ok"), None);
    for [kind, code] in [["SERVERS", "OK"], ["", "OK"], ["*", "OK"], ["SERVER", "FAILED"]] {
        assert_eq!(of(kind, code), None, "{kind} {code}");
    }
}

#[test]
fn an_attribute_without_space_is_the_same_as_one_with_space_or_with_its_members_in_another_order() {
    let texts = ["", "a", "\u{e9}", "\\\"q\\\"", "\\ud83d", "\\u00e9\\n", "}}", "\\\\"];
    let lengths = [100, 110, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 300];
    let texts = texts.into_iter().map(str::to_owned);
    let texts: Vec<String> = texts.chain(lengths.map(|length| "x".repeat(length))).collect();
    let scalars = ["7", "-7", "1e3", "1.5", "true", "null", "\"7\"", "\"x\"", "{}", "[]"];
    let mut values: Vec<String> =
        texts.iter().map(|text| format!("\"stringValue\":\"{text}\"")).collect();
    for name in ["stringValue", "int_value", "doubleValue", "boolValue", "bytesValue", "other"] {
        values.extend(scalars.map(|scalar| format!("\"{name}\":{scalar}")));
    }
    values.push("\"stringValue\":\"a\",\"stringValue\":\"b\"".to_owned());
    for key in &texts {
        for value in &values {
            let of = |attribute: String| {
                let read = json(&request(&format!("\"attributes\":[{attribute}]"))).unwrap();
                let spans = read.batch.spans();
                let kept: Vec<_> = spans.map(|span| span.detail().attributes.clone()).collect();
                (format!("{kept:?}"), said(&read), read.refused.len())
            };
            let compact = of(format!("{{\"key\":\"{key}\",\"value\":{{{value}}}}}"));
            assert_eq!(compact, of(format!("{{ \"key\": \"{key}\", \"value\": {{ {value} }} }}")));
            if !key.contains("\\u") && !value.contains("\\u") {
                assert_eq!(compact, of(format!("{{\"value\":{{{value}}},\"key\":\"{key}\"}}")));
            }
        }
    }
}
