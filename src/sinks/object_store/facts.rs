//! What an object's metadata says. Pure.

use ::object_store::{Attribute, Attributes};
use bytes::Bytes;

use crate::support::base64;

/// What an object's metadata says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Where the lane goes on behind it.
    pub(super) place: Bytes,
    pub(super) sha256: String,
    pub(super) rows: u64,
    pub(super) format: String,
}

const PLACE_KEY: &str = "spanferry-place";
const SHA256_KEY: &str = "spanferry-sha256";
const ROWS_KEY: &str = "spanferry-rows";
const FORMAT_KEY: &str = "spanferry-format";

impl Facts {
    pub(super) fn attributes(&self) -> Attributes {
        let values = [
            (PLACE_KEY, base64::text(&self.place)),
            (SHA256_KEY, self.sha256.clone()),
            (ROWS_KEY, self.rows.to_string()),
            (FORMAT_KEY, self.format.clone()),
        ];
        let name = |key: &'static str| Attribute::Metadata(key.into());
        values.into_iter().map(|(key, value)| (name(key), value)).collect()
    }

    /// Those of an object that a sink wrote; none for any other.
    pub(super) fn of(attributes: &Attributes) -> Option<Self> {
        let text = |key: &'static str| {
            attributes.get(&Attribute::Metadata(key.into())).map(|value| value.as_ref().to_owned())
        };
        Some(Self {
            place: base64::read(&text(PLACE_KEY)?)?.into(),
            sha256: text(SHA256_KEY)?,
            rows: text(ROWS_KEY)?.parse().ok()?,
            format: text(FORMAT_KEY)?,
        })
    }
}
