//! Selects the texts of an item that a rule applies to.

use regex::Regex;

use crate::normalize::Parts;
use crate::rules::field::Field;
use crate::rules::glob;
use crate::support::options::did_you_mean;

/// Words of `fields`, and their parts.
pub const FIELDS: [(&str, Parts); 8] = [
    ("input", Parts::INPUT),
    ("output", Parts::OUTPUT),
    ("name", Parts::NAME),
    ("error", Parts::ERROR),
    ("metadata", Parts::METADATA),
    ("events", Parts::EVENTS),
    ("attributes", Parts::ATTRIBUTES),
    ("resource", Parts::RESOURCE),
];

/// The texts of an item that a rule applies to.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) are_all: bool,
    parts: Parts,
    keys: Vec<(Parts, Regex)>,
}

impl Fields {
    pub(super) fn all() -> Self {
        Self { are_all: true, ..Self::default() }
    }

    /// Adds a word of the configuration; an error is a hint.
    pub(super) fn add(&mut self, word: &str) -> Result<(), String> {
        if let Some((_, part)) = FIELDS.iter().find(|(name, _)| *name == word) {
            self.parts = self.parts.and(*part);
            return Ok(());
        }
        let (part, key) = match Field::keyed(word) {
            Some(Field::Attribute(key)) => (Parts::ATTRIBUTES, key),
            Some(Field::Resource(key)) => (Parts::RESOURCE, key),
            _ => (Parts::NONE, String::new()),
        };
        if let Some(key) = Some(key).filter(|key| !key.is_empty()).and_then(|key| glob(&key)) {
            self.keys.push((part, key));
            return Ok(());
        }
        let names: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
        let near = did_you_mean(word, &names).unwrap_or_default();
        Err(format!("{near}; an attribute is written `attribute.KEY` or `resource.KEY`"))
    }

    /// Returns whether a text in these parts, under this key, is selected.
    pub(super) fn select(&self, parts: Parts, key: &str) -> bool {
        let has_key = |(part, glob): &(Parts, Regex)| part.touch(parts) && glob.is_match(key);
        self.are_all || self.parts.touch(parts) || self.keys.iter().any(has_key)
    }
}
