//! Converts the Agents SDK's ids to OpenTelemetry's.
//!
//! The rules hold no state, so retries, restarts and replicas agree, and a parent that arrives later still matches:
//! * `trace_` and 32 hexadecimal digits that are not all zero are the 16 bytes; any other trace id is hashed.
//! * A span id is hashed together with its trace id, because its 12 random bytes do not fit into 8, and its prefix has fixed version bits.
//!   The exception is an id of 8 bytes in the Agents SDK's form, which is converted back unchanged.
//! * The original ids stay with the span, so nothing is lost.

use sha2::{Digest, Sha256};

use crate::span::{SpanId, TraceId};

/// Converts the client's trace id.
pub fn trace_id(agents_sdk: &str) -> TraceId {
    let own = agents_sdk.strip_prefix("trace_").and_then(TraceId::from_hex);
    own.unwrap_or_else(|| hashed(TraceId::new, &["trace\0", agents_sdk]))
}

/// Converts the client's span id. Both ids are taken as the client wrote them.
pub fn span_id(sdk_trace: &str, agents_sdk: &str) -> SpanId {
    restored(agents_sdk)
        .unwrap_or_else(|| hashed(SpanId::new, &["span\0", sdk_trace, "\0", agents_sdk]))
}

/// Returns the id of the synthetic root of a trace whose spans have no common root.
pub fn root_span_id(sdk_trace: &str) -> SpanId {
    hashed(SpanId::new, &["root\0", sdk_trace])
}

/// Pads an 8-byte id to the 12 bytes of the Agents SDK.
const PADDING: &str = "00000000";

/// Recovers a span id that was padded to the form of the Agents SDK.
fn restored(agents_sdk: &str) -> Option<SpanId> {
    agents_sdk.strip_prefix("span_")?.strip_suffix(PADDING).and_then(SpanId::from_hex)
}

fn hashed<Id, const SIZE: usize>(new: fn([u8; SIZE]) -> Option<Id>, parts: &[&str]) -> Id {
    let digest = parts.iter().fold(Sha256::new(), Digest::chain_update).finalize();
    let mut bytes = [0; SIZE];
    for (byte, hashed) in bytes.iter_mut().zip(digest) {
        *byte = hashed;
    }
    new(bytes).unwrap_or_else(|| never_zero(new))
}

/// Returns an id for the one hash among 2^64 that is all zero, which OpenTelemetry does not allow: its last byte is set.
#[expect(clippy::expect_used, reason = "the last byte is not zero, so the id exists")]
fn never_zero<Id, const SIZE: usize>(new: impl Fn([u8; SIZE]) -> Option<Id>) -> Id {
    let mut bytes = [0; SIZE];
    if let Some(last) = bytes.last_mut() {
        *last = 1;
    }
    new(bytes).expect("an id whose last byte is 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDK: &str = "trace_5b8efff798038103d269b633813fc60c";

    #[test]
    fn a_default_trace_id_is_its_own_digits_in_either_case() {
        let id = TraceId::from_hex("5b8efff798038103d269b633813fc60c").unwrap();
        assert_eq!(trace_id(SDK), id);
        assert_eq!(trace_id("trace_5B8EFFF798038103D269B633813FC60C"), id);
        assert_eq!(format!("trace_{id}"), SDK);
    }

    #[test]
    fn any_other_trace_id_is_hashed() {
        // printf 'trace\0my-trace' | sha256sum
        assert_eq!(trace_id("my-trace").to_string(), MY_TRACE);
        for odd in [
            "",
            "trace_",
            "trace_00000000000000000000000000000000",
            "5b8efff798038103d269b633813fc60c",
        ] {
            assert_ne!(trace_id(odd), trace_id(SDK), "{odd}");
        }
    }

    #[test]
    fn a_span_id_is_hashed_with_its_trace() {
        // printf 'span\0trace_5b8efff798038103d269b633813fc60c\0span_7d015efb82524c3c947945ef' | sha256sum
        assert_eq!(span_id(SDK, "span_7d015efb82524c3c947945ef").to_string(), SPAN);
        assert_ne!(span_id("trace_x", "span_7d015efb82524c3c947945ef").to_string(), SPAN);
        // printf 'root\0trace_5b8efff798038103d269b633813fc60c' | sha256sum
        assert_eq!(root_span_id(SDK).to_string(), ROOT);
    }

    #[test]
    fn eight_bytes_survive_the_way_there_and_back() {
        let id = SpanId::from_hex("eee19b7ec3c1b174").unwrap();
        assert_eq!(span_id("any", "span_eee19b7ec3c1b17400000000"), id);
        // Twelve zero bytes are not a valid id, so they are hashed.
        assert_ne!(span_id("any", "span_000000000000000000000000").to_string(), "0000000000000000");
    }

    #[test]
    fn an_id_is_never_all_zero() {
        assert_eq!(never_zero(SpanId::new).to_string(), "0000000000000001");
    }

    const MY_TRACE: &str = "a0cfe28172cdadab09ef13b74a8e712f";
    const SPAN: &str = "26dd17b69813b921";
    const ROOT: &str = "c2a31e5f7a35b528";
}
