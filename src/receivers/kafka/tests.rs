//! How a message is read: what its headers and its first byte say, and what is remembered of it.

use super::consumer::{Message, form_of, source_of};
use super::offsets::Offsets;
use super::*;
use crate::normalize::{Coding, Encoding};

fn message(headers: &[(&str, &str)], body: &'static [u8]) -> Message {
    let headers = headers.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Message {
        place: Offsets::default().begin((0, 0), 7, body.len()),
        name: "otlp_spans/0/7".to_owned(),
        headers: headers.collect(),
        body: body.into(),
    }
}

#[test]
fn a_message_is_what_its_headers_say_else_what_its_first_byte_says() {
    let protobuf = Some((Encoding::Protobuf, Coding::Identity));
    let json = Some((Encoding::Json, Coding::Identity));
    for (headers, body, expected) in [
        (&[][..], &b"\x0a\x00"[..], protobuf),
        (&[], b" {\"resourceSpans\":[]}", json),
        (&[], b"Obj\x01avro", None),
        (&[("content-type", "application/json; charset=utf-8")], b"\x0a", json),
        (&[("content-type", "application/x-protobuf")], b"{", protobuf),
        (&[("content-type", "text/plain")], b"\x0a", None),
        (&[("content-encoding", "zstd")], b"\x28\xb5", Some((Encoding::Protobuf, Coding::Zstd))),
        (&[("content-encoding", "br")], b"\x0a", None),
    ] {
        let form = form_of(&message(headers, body)).ok();
        assert_eq!(form.map(|form| (form.encoding, form.coding)), expected, "{headers:?} {body:?}");
    }
}

#[test]
fn a_tenant_is_believed_only_where_that_is_wanted_and_the_place_is_kept() {
    let headers = [("spanferry-tenant", "shop"), ("spanferry-sender", "hops=1"), ("x", "y")];
    let message = message(&headers, b"\x0a");
    for (trust_tenants, expected) in [(false, "topic"), (true, "shop")] {
        let options = KafkaOptions {
            brokers: Vec::new(),
            topics: default_topics(),
            group: default_group(),
            instance: None,
            session_timeout: default_session_timeout(),
            tenant: "topic".to_owned(),
            trust_tenants,
            tls: None,
            sasl: None,
        };
        let source = source_of(&options, &message);
        assert_eq!(source.tenant, expected);
        assert_eq!(source.header("kafka-offset"), Some("otlp_spans/0/7"));
        assert_eq!((source.header("spanferry-sender"), source.header("x")), (Some("hops=1"), None));
    }
}
