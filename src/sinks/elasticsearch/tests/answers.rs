//! Answers of real servers, and their classes.

use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::*;
use crate::sinks::elasticsearch::response::{Action, Answer, Class, judge};

/// Items of real servers' answers (Elasticsearch 7 to 9, OpenSearch 2 and 3, Quickwit), with their action and class.
const TRANSCRIPTS: &[(&str, Action, Class, &str)] = &[
    (
        "stored",
        Action::Index,
        Class::Stored,
        r#"{"index":{"_seq_no":19,"_primary_term":1,"status":201}}"#,
    ),
    (
        "stored again",
        Action::Index,
        Class::Stored,
        r#"{"index":{"_seq_no":20,"_primary_term":1,"status":200}}"#,
    ),
    (
        "create of one that is there",
        Action::Create,
        Class::Conflict,
        r#"{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"[span_1]: version conflict, document already exists (current version [1])"}}}"#,
    ),
    (
        "stale condition",
        Action::Conditional,
        Class::Conflict,
        r#"{"index":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"[t]: version conflict, required seqNo [19], primary term [1]. current document has seqNo [20] and primary term [1]"}}}"#,
    ),
    (
        "newer external version",
        Action::Index,
        Class::Stored,
        r#"{"index":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"version conflict, current version [9] is higher"}}}"#,
    ),
    (
        "update of nothing",
        Action::Update,
        Class::Missing,
        r#"{"update":{"status":404,"error":{"type":"document_missing_exception","reason":"[_doc][x]: document missing"}}}"#,
    ),
    (
        "update of what somebody else changes just now",
        Action::Update,
        Class::Retry,
        r#"{"update":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"[t]: version conflict, required seqNo [7]"}}}"#,
    ),
    (
        "document of a data stream into an index",
        Action::Create,
        Class::Stop,
        r#"{"create":{"status":400,"error":{"type":"document_parsing_exception","reason":"[1:2] Cannot write to a field alias [@timestamp]."}}}"#,
    ),
    (
        "write queue full",
        Action::Index,
        Class::Throttled,
        r#"{"index":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"rejected execution of primary operation"}}}"#,
    ),
    (
        "OpenSearch's write queue full",
        Action::Index,
        Class::Throttled,
        r#"{"index":{"status":429,"error":{"type":"rejected_execution_exception","reason":"rejected execution of primary operation"}}}"#,
    ),
    (
        "disk full, 7.0",
        Action::Index,
        Class::Stop,
        r#"{"index":{"status":403,"error":{"type":"cluster_block_exception","reason":"index [x] blocked by: [FORBIDDEN/12/index read-only / allow delete (api)];"}}}"#,
    ),
    (
        "disk full, later",
        Action::Index,
        Class::Stop,
        r#"{"index":{"status":429,"error":{"type":"cluster_block_exception","reason":"index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];"}}}"#,
    ),
    (
        "no index",
        Action::Index,
        Class::NoIndex,
        r#"{"index":{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index [x] and [action.auto_create_index] is [false]"}}}"#,
    ),
    (
        "closed index",
        Action::Index,
        Class::Stop,
        r#"{"index":{"status":400,"error":{"type":"index_closed_exception","reason":"closed"}}}"#,
    ),
    (
        "bad name",
        Action::Index,
        Class::Stop,
        r#"{"index":{"status":400,"error":{"type":"invalid_index_name_exception","reason":"Invalid index name [A]"}}}"#,
    ),
    (
        "template of a data stream is missing",
        Action::Create,
        Class::Stop,
        r#"{"create":{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index [x] and the index request requires a data stream, but no matching index template"}}}"#,
    ),
    (
        "index into a data stream",
        Action::Index,
        Class::Stop,
        r#"{"index":{"status":400,"error":{"type":"illegal_argument_exception","reason":"only write ops with an op_type of create are allowed in data streams"}}}"#,
    ),
    (
        "text for a number, 7",
        Action::Index,
        Class::Refused,
        r#"{"index":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"failed to parse field [duration_ms] of type [double]"}}}"#,
    ),
    (
        "text for a number, 8",
        Action::Index,
        Class::Refused,
        r#"{"index":{"status":400,"error":{"type":"document_parsing_exception","reason":"[1:12] failed to parse field [duration_ms] of type [double]"}}}"#,
    ),
    (
        "too many fields",
        Action::Index,
        Class::Refused,
        r#"{"index":{"status":400,"error":{"type":"illegal_argument_exception","reason":"Limit of total fields [1000] has been exceeded"}}}"#,
    ),
    (
        "immense term",
        Action::Index,
        Class::Refused,
        r#"{"index":{"status":400,"error":{"type":"illegal_argument_exception","reason":"Document contains at least one immense term"}}}"#,
    ),
    (
        "strict template",
        Action::Index,
        Class::Refused,
        r#"{"index":{"status":400,"error":{"type":"strict_dynamic_mapping_exception","reason":"mapping set to strict"}}}"#,
    ),
    (
        "no primary",
        Action::Index,
        Class::Retry,
        r#"{"index":{"status":503,"error":{"type":"unavailable_shards_exception","reason":"primary shard is not active"}}}"#,
    ),
    (
        "a fault of the server, perhaps for this document alone",
        Action::Index,
        Class::Fault,
        r#"{"index":{"status":500,"error":{"type":"null_pointer_exception","reason":"Cannot invoke"}}}"#,
    ),
    (
        "no privilege",
        Action::Index,
        Class::Stop,
        r#"{"index":{"status":403,"error":{"type":"security_exception","reason":"action [indices:data/write/bulk[s]] is unauthorized for API key id [k]"}}}"#,
    ),
    (
        "failure store",
        Action::Create,
        Class::SetAside,
        r#"{"create":{"status":201,"failure_store":"used","_seq_no":0,"_primary_term":1}}"#,
    ),
    (
        "failure store not used",
        Action::Create,
        Class::Stored,
        r#"{"create":{"status":201,"failure_store":"not_applicable_or_unknown"}}"#,
    ),
    (
        "Quickwit",
        Action::Create,
        Class::Stored,
        r#"{"index":{"_index":"x","_id":null,"status":201,"error":null}}"#,
    ),
    (
        "Quickwit, no index",
        Action::Create,
        Class::NoIndex,
        r#"{"index":{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index"}}}"#,
    ),
    ("no status", Action::Index, Class::Retry, r#"{"index":{}}"#),
    (
        "an old server's error",
        Action::Index,
        Class::Refused,
        r#"{"index":{"status":400,"error":"MapperParsingException[failed]"}}"#,
    ),
    (
        "too many shards",
        Action::Index,
        Class::Stop,
        r#"{"index":{"status":400,"error":{"type":"illegal_argument_exception","reason":"Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;"}}}"#,
    ),
];

fn response(status: u16, content_type: &'static str, body: String) -> crate::sinks::http::Response {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    crate::sinks::http::Response {
        status: hyper::StatusCode::from_u16(status).unwrap(),
        headers,
        body: Bytes::from(body),
        is_cut: false,
        trailers: HeaderMap::new(),
    }
}

#[test]
fn each_transcript_has_its_class() {
    for (name, action, class, item) in TRANSCRIPTS {
        let body = format!("{{\"errors\":true,\"items\":[{item}]}}");
        let response = response(200, "application/json", body);
        let Ok(answers) = response::read(&response, 1) else { panic!("{name}") };
        assert_eq!(judge(&answers[0], *action), *class, "{name}");
    }
}

#[test]
fn items_are_judged_alone_whatever_the_answer_says_of_errors() {
    let items: Vec<&str> = TRANSCRIPTS.iter().map(|(_, _, _, item)| *item).collect();
    let body = format!("{{\"errors\":false,\"items\":[{}]}}", items.join(","));
    let response = response(200, "application/json", body);
    let Ok(answers) = response::read(&response, items.len()) else { panic!() };
    let classes: Vec<Class> = answers
        .iter()
        .zip(TRANSCRIPTS)
        .map(|(answer, (_, action, _, _))| judge(answer, *action))
        .collect();
    let expected: Vec<Class> = TRANSCRIPTS.iter().map(|(_, _, class, _)| *class).collect();
    assert_eq!(classes, expected);
}

#[test]
fn what_may_quote_a_document_is_only_in_what_a_dead_letter_keeps() {
    let quoting = Answer {
        status: 400,
        error: "mapper_parsing_exception".into(),
        reason: "failed to parse [hunter2]".into(),
        ..Answer::default()
    };
    assert_eq!(response::explain(&quoting, Class::Refused), "status 400: mapper_parsing_exception");
    assert!(response::kept(&quoting).contains("hunter2"));
}

#[test]
fn a_web_page_is_no_answer() {
    let page = response(200, "text/html; charset=utf-8", "<html>".to_owned());
    let Err(report) = response::read(&page, 1) else { panic!() };
    let Pace::Hold { reason } = report.pace else { panic!() };
    assert!(reason.contains("web page"), "{reason}");
}

#[test]
fn an_answer_with_another_number_of_items_is_no_answer() {
    for body in [r#"{"items":[]}"#, r#"{"items":[{"index":{"status":201}}"#, "", "[]"] {
        let response = response(200, "application/json", body.to_owned());
        let whole = response::read(&response, 1);
        assert!(matches!(whole, Err(Report { pace: Pace::Down { .. }, .. })), "{body}");
    }
}

#[test]
fn why_something_is_refused_is_said_and_not_only_that_it_is() {
    for (body, said) in [
        (r#"{"error":{"type":"a","reason":"b"}}"#, ("a", "b")),
        (
            r#"{"error":{"type":"a","reason":"template [t] is invalid","caused_by":{"type":"x","reason":"y",
                "caused_by":{"type":"x_content_parse_exception","reason":"unknown field [data_stream]"}}}}"#,
            ("a", "template [t] is invalid: unknown field [data_stream]"),
        ),
        (r#"{"error":{"type":"a","reason":"b: c","caused_by":{"reason":"c"}}}"#, ("a", "b: c")),
        (r#"{"error":"only a text"}"#, ("error", "only a text")),
        ("<html>", ("", "")),
    ] {
        let (kind, reason) = response::error_of(body.as_bytes());
        assert_eq!((kind.as_str(), reason.as_str()), said, "{body}");
    }
}
