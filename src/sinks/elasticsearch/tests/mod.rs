//! Documents, options, answers, templates; then everything against a far side of this process.

mod documents;

use toml::de::DeTable;

use super::*;
use crate::support::problem::Problem;

/// Settings for a cluster that nobody asks.
fn settings(more: &str) -> Settings {
    parse(&format!("endpoints = [\"http://127.0.0.1:9200\"]\n{more}")).unwrap()
}

fn parse(text: &str) -> Result<Settings, Vec<Problem>> {
    options::parse(DeTable::parse(text).unwrap())
}
