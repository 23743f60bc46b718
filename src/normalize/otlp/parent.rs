//! Hangs a span below another: its message with another parent.

use bytes::Bytes;

use super::wire::Fields;
use crate::span::SpanId;
use crate::span::otlp::protobuf::write_bytes;

/// The field of `Span` that names the parent.
const PARENT_ID: u32 = 4;

/// The `Span` message with this parent, or without one; everything else stays as it is. `None` where it cannot be walked.
pub fn with_parent(wire: &[u8], parent: Option<SpanId>) -> Option<Bytes> {
    let mut out = Vec::with_capacity(wire.len() + 10);
    let mut fields = Fields::new(wire);
    loop {
        let before = fields.rest();
        let Some((number, _)) = fields.next().ok()? else { break };
        if number != PARENT_ID {
            let length = before.len() - fields.rest().len();
            out.extend_from_slice(before.get(..length)?);
        }
    }
    if let Some(parent) = parent {
        write_bytes(&mut out, PARENT_ID, parent.as_bytes());
    }
    Some(Bytes::from(out))
}
