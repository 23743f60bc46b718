//! Limits of what is remembered of one trace, and copies within them. Pure.
//!
//! Everything is copied: a slice would keep the entire request in memory.

use crate::span::{Payload, Text};

/// Maximum number of spans of a trace. A run of the SDK has some dozens; a day-long trace with more loses only what
/// [`crate::span::Tree::counts`] describes.
pub(super) const SPANS_MAX: usize = 4_096;
/// Maximum number of agents of a trace whose names are remembered. Spans below further agents get none.
pub(super) const AGENTS_MAX: usize = 256;
/// Maximum number of labels of a trace. Further ones are dropped.
pub(super) const TAGS_MAX: usize = 64;
/// Maximum number of top spans of a trace with separate contents. Several runs in one `trace()` have several; the contents of further ones
/// only count for the entire trace.
pub(super) const TOPS_MAX: usize = 64;
/// Maximum size of a name, id or label. A longer one is dropped, because half an id is a different id.
const TEXT_BYTES_MAX: usize = 1 << 10;
/// Maximum size of a trace object's metadata. Entries are dropped from the first one that does not fit.
pub(super) const METADATA_BYTES_MAX: usize = 8 << 10;
/// Maximum size of the first input and the last output. A longer one is truncated and becomes plain text.
pub(super) const PAYLOAD_BYTES_MAX: usize = 4 << 10;

/// Copies a name, id or label; `None` if it is too long.
pub(super) fn copied(text: &Text) -> Option<Text> {
    (text.len() <= TEXT_BYTES_MAX).then(|| Text::from(&**text))
}

/// Copies a payload up to a length.
pub(super) fn cut(payload: &Payload, bytes_max: usize) -> Payload {
    let text = payload.as_str();
    match payload {
        Payload::Json(_) if text.len() <= bytes_max => Payload::Json(Text::from(text)),
        _ => {
            let end = text.floor_char_boundary(bytes_max);
            Payload::Text(Text::from(text.get(..end).unwrap_or_default()))
        }
    }
}
