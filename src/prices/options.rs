//! `[prices]` of the configuration.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::money::{DOLLARS_MAX, Rate, Rates, price};

/// What a model call costs where its client does not say it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PriceOptions {
    /// Whether calls get a cost from a table of prices. Without it there is none but what clients say.
    pub enabled: bool,
    /// A table in the place of the one that is built in: the data of genai-prices (version 2), what `spanferry prices update` makes,
    /// or LiteLLM's list of models. It is read at the start and with a reload.
    #[schemars(example = "/etc/spanferry/prices.json")]
    pub file: Option<String>,
    /// Prices of your own, by the model's name, whoever serves it; they go before the table. Dollars a million tokens.
    #[schemars(example = serde_json::json!({ "my-model": { "input": 1.5, "output": 6.0, "cached": 0.15 } }))]
    pub overrides: BTreeMap<String, Override>,
}

/// What the tokens of a model cost, in dollars a million. What is not said costs as much as what it is part of.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Tokens that go in.
    pub input: f64,
    /// Tokens that come out.
    pub output: f64,
    /// Tokens that are read from a cache.
    pub cached: Option<f64>,
    /// Tokens that are written to a cache.
    pub cache_write: Option<f64>,
    /// Tokens that are written to a cache for an hour.
    pub cache_write_1h: Option<f64>,
    /// Tokens of audio that go in.
    pub input_audio: Option<f64>,
    /// Tokens of audio that come out.
    pub output_audio: Option<f64>,
    /// Tokens that come out as reasoning.
    pub reasoning: Option<f64>,
}

impl Default for PriceOptions {
    fn default() -> Self {
        Self { enabled: true, file: None, overrides: BTreeMap::new() }
    }
}

impl Override {
    /// Its prices by their keys here, and by the names that tables have for them.
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
}

impl PriceOptions {
    /// What cannot be a price: the model, the key, what is wrong and what to do.
    pub fn mistakes(&self) -> Vec<(String, &'static str, String)> {
        let all = self.overrides.iter().flat_map(|(model, prices)| {
            prices.prices().into_iter().map(move |(key, _, dollars)| (model, key, dollars))
        });
        let is_wrong = |dollars: f64| price(&dollars.to_string()).is_none();
        let wrong = all.filter(|(_, _, dollars)| dollars.is_some_and(is_wrong));
        let what = format!("no price: a million tokens cost from 0 to {DOLLARS_MAX} dollars");
        wrong.map(|(model, key, _)| (model.clone(), key, what.clone())).collect()
    }

    /// The overrides, by the models' names in lowercase.
    pub(super) fn rates(&self) -> BTreeMap<String, Rates> {
        let rates_of = |prices: &Override| {
            let mut rates = Rates::default();
            for (_, name, dollars) in prices.prices() {
                if let Some(base) = dollars.and_then(|dollars| price(&dollars.to_string())) {
                    rates.set(name, Rate { base, tiers: Vec::new() });
                }
            }
            rates
        };
        let overrides = self.overrides.iter();
        overrides.map(|(model, prices)| (model.to_ascii_lowercase(), rates_of(prices))).collect()
    }
}
