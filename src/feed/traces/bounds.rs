//! How much is remembered of one trace, and copies within that. Pure.
//!
//! All of it is copied: a slice would keep the whole request in memory.

use crate::span::{Payload, Text};

/// Spans of a trace that are remembered. A run of the SDK has some dozens; a day-long trace with more loses only what is said at
/// [`crate::span::Tree::counts`].
pub(super) const SPANS_MAX: usize = 4_096;
/// Agents of a trace whose names are remembered. Spans below further ones have none.
pub(super) const AGENTS_MAX: usize = 256;
/// Labels of a trace that are remembered. Further ones are left out.
pub(super) const TAGS_MAX: usize = 64;
/// Spans at the top of a trace whose contents are told apart. Several runs in one `trace()` are some; of further ones only the trace
/// as a whole knows.
pub(super) const TOPS_MAX: usize = 64;
/// The longest name, id or label that is remembered. A longer one is left out, since half an id is another one.
const TEXT_BYTES_MAX: usize = 1 << 10;
/// The most metadata of a trace object that is remembered. A larger one is left out from the entry that does not fit.
pub(super) const METADATA_BYTES_MAX: usize = 8 << 10;
/// How much of the first input and the last output is remembered. What is longer is cut off there and is plain text then.
pub(super) const PAYLOAD_BYTES_MAX: usize = 4 << 10;

/// A copy of a name, id or label; `None` for one that is too long to be one.
pub(super) fn copied(text: &Text) -> Option<Text> {
    (text.len() <= TEXT_BYTES_MAX).then(|| Text::from(&**text))
}

/// A copy of a payload up to a length.
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
