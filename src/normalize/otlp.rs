//! OTLP in protobuf and in its JSON mapping.

use bytes::Bytes;

use super::{Decoded, Envelope, Limits, Malformed};

pub(super) fn decode_protobuf(_: &Envelope, _: &Bytes, _: &Limits) -> Result<Decoded, Malformed> {
    Err(Malformed::Shape("OTLP is not read yet".to_owned()))
}

pub(super) fn decode_json(_: &Envelope, _: &Bytes, _: &Limits) -> Result<Decoded, Malformed> {
    Err(Malformed::Shape("OTLP is not read yet".to_owned()))
}
