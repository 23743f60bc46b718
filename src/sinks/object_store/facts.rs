//! What is noted with an object about it. Pure.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What is noted with an object: one text, because Azure takes no name with a hyphen and a file has one attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Where the lane goes on behind it.
    #[serde(with = "in_base64")]
    pub(super) place: Bytes,
    pub(super) sha256: String,
    pub(super) rows: u64,
    pub(super) format: String,
}

impl Facts {
    /// What the text is called, in an object's metadata and behind `user.` as an attribute of a file.
    pub(super) const NAME: &str = "spanferry";

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Those of an object that a sink wrote; none for any other.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

mod in_base64 {
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::support::base64;

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&base64::text(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let bytes = base64::read(&String::deserialize(from)?);
        bytes.map(Bytes::from).ok_or_else(|| de::Error::custom("not base64"))
    }
}
