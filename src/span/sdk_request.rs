//! Items of the Agents SDK as the body of a request, which its ingest takes.

use bytes::Bytes;

/// An Agents SDK request with this item alone.
pub fn sdk_request(item: &[u8]) -> Bytes {
    sdk_requests([item])
}

/// An Agents SDK request with these items.
pub fn sdk_requests<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut body = b"{\"data\":[".to_vec();
    for (place, item) in items.into_iter().enumerate() {
        body.extend_from_slice(if place == 0 { b"" } else { b"," });
        body.extend_from_slice(item);
    }
    body.extend_from_slice(b"]}");
    Bytes::from(body)
}
