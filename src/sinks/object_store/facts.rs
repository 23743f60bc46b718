//! What an object's name and what is noted with it say. Pure.

use std::collections::BTreeMap;

use ::object_store::path::Path;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::support::base64;

/// The objects of a writer, by their numbers.
pub(super) type Numbered = BTreeMap<u64, Path>;

/// The number in a name that begins like this.
pub(super) fn number_of(name: &str, stem: &str) -> Option<u64> {
    name.strip_prefix(stem)?.split_once('.')?.0.parse().ok()
}

/// What is noted with an object: one text, because Azure takes no name with a hyphen and a file has one attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ObjectNote {
    /// Where the lane goes on behind it, in base64.
    pub(super) place: String,
    pub(super) sha256: String,
    pub(super) rows: u64,
    pub(super) format: String,
}

impl ObjectNote {
    /// What the text is called, in an object's metadata and behind `user.` as an attribute of a file.
    pub(super) const NAME: &str = "spanferry";

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Those of an object that a sink wrote; none for any other.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|facts: &Self| base64::read(&facts.place).is_some())
    }

    /// Where the lane goes on behind the object.
    pub(super) fn place(&self) -> Bytes {
        base64::read(&self.place).unwrap_or_default().into()
    }
}
