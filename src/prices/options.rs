//! `[prices]` of the configuration.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::money::{DOLLARS_MAX, Rates, price};

/// The cost of model calls whose clients do not send it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PriceOptions {
    /// Whether calls get a cost from a price table. Otherwise only the costs that clients send are known.
    pub enabled: bool,
    /// A table to use instead of the built-in one: the data of genai-prices (version 2), as written by `spanferry prices update`. It is
    /// read at start and on reload.
    #[schemars(example = "/etc/spanferry/prices.json")]
    pub file: Option<String>,
    /// Your own prices, by model name, for any provider; they take precedence over the table. In dollars per million tokens.
    #[schemars(example = serde_json::json!({ "my-model": { "input": 1.5, "output": 6.0, "cached": 0.15 } }))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, Override>,
}

/// A model's prices in dollars per million tokens. A price that is left out is that of the tokens it is part of.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Tokens that go in.
    pub input: f64,
    /// Output tokens.
    pub output: f64,
    /// Tokens that are read from a cache.
    pub cached: Option<f64>,
    /// Tokens that are written to a cache.
    pub cache_write: Option<f64>,
    /// Tokens that are written to a cache for an hour.
    pub cache_write_1h: Option<f64>,
    /// Tokens of audio that go in.
    pub input_audio: Option<f64>,
    /// Audio output tokens.
    pub output_audio: Option<f64>,
    /// Reasoning output tokens.
    pub reasoning: Option<f64>,
}

impl Default for PriceOptions {
    fn default() -> Self {
        Self { enabled: true, file: None, overrides: BTreeMap::new() }
    }
}

impl Override {
    /// Returns its prices by their keys here, and by their names in tables.
    fn prices(&self) -> [(&'static str, &'static str, Option<f64>); 8] {
        [
            ("input", "input_mtok", Some(self.input)),
            ("output", "output_mtok", Some(self.output)),
            ("cached", "cache_read_mtok", self.cached),
            ("cache_write", "cache_write_mtok", self.cache_write),
            ("cache_write_1h", "cache_write_1h_mtok", self.cache_write_1h),
            ("input_audio", "input_audio_mtok", self.input_audio),
            ("output_audio", "output_audio_mtok", self.output_audio),
            ("reasoning", "output_reasoning_mtok", self.reasoning),
        ]
    }

    /// Returns the prices; `None` if one is invalid.
    pub(super) fn rates(&self) -> Option<Rates> {
        let prices = self.prices().into_iter();
        let prices =
            prices.filter_map(|(_, name, dollars)| Some((name.to_owned(), dollars?.into())));
        Rates::try_from(prices.collect::<Map<_, _>>()).ok()
    }
}

impl PriceOptions {
    /// Returns the invalid prices: the model, the key and what is wrong.
    pub fn mistakes(&self) -> Vec<(&str, &'static str, String)> {
        let all = self.overrides.iter().flat_map(|(model, prices)| {
            prices.prices().into_iter().map(move |(key, _, dollars)| (model, key, dollars))
        });
        let is_wrong = |dollars: f64| price(dollars).is_none();
        let wrong = all.filter(|(_, _, dollars)| dollars.is_some_and(is_wrong));
        let what = format!("not a price: a million tokens cost from 0 to {DOLLARS_MAX} dollars");
        wrong.map(|(model, key, _)| (model.as_str(), key, what.clone())).collect()
    }
}
