//! Encodes Agents SDK items as the body of a request for its ingest.

use bytes::Bytes;

/// Encodes a request with this item only.
pub fn sdk_request(item: &[u8]) -> Bytes {
    sdk_requests([item])
}

/// Encodes a request with these items.
pub fn sdk_requests<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut body = b"{\"data\":[".to_vec();
    for (place, item) in items.into_iter().enumerate() {
        body.extend_from_slice(if place == 0 { b"" } else { b"," });
        body.extend_from_slice(item);
    }
    body.extend_from_slice(b"]}");
    Bytes::from(body)
}
