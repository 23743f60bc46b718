//! Shared by the tests of this folder: Agents SDK items, and an input.

use std::sync::Arc;

use bytes::Bytes;

use super::{Accepted, DecodedRequest, Feed, FeedOptions};
use crate::journal::{Journal, MemoryStorage, Options};
use crate::normalize::{Encoding, Envelope, Limits, decode};
use crate::span::{Receiver, Source};

/// Creates a span with this id.
pub(crate) fn item(id: &str) -> String {
    format!(
        r#"{{"object":"trace.span","id":"{id}","trace_id":"trace_1","span_data":{{"type":"custom"}}}}"#
    )
}

/// Creates an OTLP request in JSON with these spans.
pub(crate) fn otlp_arrival(spans: &[String]) -> DecodedRequest {
    let body = format!(
        r#"{{"resourceSpans":[{{"resource":{{}},"scopeSpans":[{{"scope":{{}},"spans":[{}]}}]}}]}}"#,
        spans.join(",")
    );
    understood(Receiver::OtlpHttp, Bytes::from(body))
}

/// Creates a request with these items.
pub(crate) fn arrival(items: &[String]) -> DecodedRequest {
    understood(Receiver::OpenAi, Bytes::from(format!(r#"{{"data":[{}]}}"#, items.join(","))))
}

fn understood(receiver: Receiver, body: Bytes) -> DecodedRequest {
    let envelope =
        Envelope::new(Source { receiver, ..Source::unknown() }, Encoding::Json, body.len());
    let decoded = decode(&envelope, &body, &Limits::default()).unwrap();
    DecodedRequest { envelope, sent: body, decoded }
}

/// Accepts a request with these items.
pub(crate) async fn accept(feed: &Feed, items: &[String]) -> Accepted {
    feed.intake().accept(arrival(items)).await.unwrap()
}

/// Opens a feed in memory.
pub(crate) fn feed() -> Feed {
    let options = Options::default();
    let quarantine = Journal::open(&options, Arc::<MemoryStorage>::default(), drop).unwrap();
    Feed::open(&FeedOptions::default(), &options, Arc::<MemoryStorage>::default(), quarantine)
        .unwrap()
}
