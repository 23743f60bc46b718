//! What the tests of this folder share: items of the Agents SDK, and a way in.

use bytes::Bytes;

use super::{Accepted, Arrival, Feed};
use crate::normalize::{Coding, Encoding, Envelope, Limits, decode};
use crate::span::{Receiver, Source};

/// A span with this id.
pub(crate) fn item(id: &str) -> String {
    format!(
        r#"{{"object":"trace.span","id":"{id}","trace_id":"trace_1","span_data":{{"type":"custom"}}}}"#
    )
}

/// A request with these items.
pub(crate) fn arrival(items: &[String]) -> Arrival {
    let body = Bytes::from(format!(r#"{{"data":[{}]}}"#, items.join(",")));
    let envelope = Envelope {
        source: Source { receiver: Receiver::OpenAi, ..Source::unknown() },
        encoding: Encoding::Json,
        coding: Coding::Identity,
        items: 0,
        body_bytes: body.len() as u64,
        resent: Vec::new(),
        aside: None,
    };
    let decoded = decode(&envelope, &body, &Limits::default()).unwrap();
    Arrival { envelope, sent: body, decoded }
}

/// Takes a request with these items.
pub(super) async fn accept(feed: &Feed, items: &[String]) -> Accepted {
    feed.intake().accept(arrival(items)).await.unwrap()
}
