//! Reads and writes an object's number and metadata. Pure.

use std::collections::BTreeMap;

use ::object_store::path::Path;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::support::base64;

/// A writer's objects by number.
pub(super) type Numbered = BTreeMap<u64, Path>;

/// Returns the number in a name with this prefix.
pub(super) fn number_of(name: &str, stem: &str) -> Option<u64> {
    name.strip_prefix(stem)?.split_once('.')?.0.parse().ok()
}

/// An object's metadata. It is a single text, because Azure accepts no hyphens in names and a file has one attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ObjectNote {
    /// The place after the object from which the lane continues, in base64.
    pub(super) place: String,
    pub(super) sha256: String,
    pub(super) rows: u64,
    pub(super) format: String,
}

impl ObjectNote {
    /// The metadata's name, for a file's attribute with the prefix `user.`.
    pub(super) const NAME: &str = "spanferry";

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses the metadata of an object that a sink wrote; `None` for any other.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|facts: &Self| base64::read(&facts.place).is_some())
    }

    /// Returns the place from which the lane continues after the object.
    pub(super) fn place(&self) -> Bytes {
        base64::read(&self.place).unwrap_or_default().into()
    }
}
