//! A few rows of Langfuse's price table: dollars per token of each bucket.

use std::collections::BTreeMap;

/// Input, cached input, written cache, output, reasoning; in dollars per million. 0 if the table has none.
const MILLIONS: &[(&str, [f64; 5])] = &[
    ("gpt-5-mini", [0.25, 0.025, 0.0, 2.0, 2.0]),
    ("gpt-5.4", [2.5, 0.25, 0.0, 15.0, 15.0]),
    ("gpt-5.4-mini", [0.75, 0.075, 0.0, 4.5, 0.0]),
    ("gpt-5.6-mini", [0.5, 0.05, 0.6, 4.0, 4.0]),
    ("gpt-4.1-mini", [0.4, 0.1, 0.0, 1.6, 0.0]),
    ("gpt-4.1-mini-2025-04-14", [0.4, 0.1, 0.0, 1.6, 0.0]),
    ("gpt-4o", [2.5, 1.25, 0.0, 10.0, 0.0]),
    ("o4-mini", [1.1, 0.275, 0.0, 4.4, 4.4]),
    ("claude-sonnet-4-5", [3.0, 0.3, 3.75, 15.0, 0.0]),
    ("us.anthropic.claude-sonnet-4-20250514-v1:0", [3.0, 0.3, 3.75, 15.0, 0.0]),
    ("gemini-2.5-flash", [0.3, 0.03, 0.0, 2.5, 2.5]),
];

const BUCKETS: [&str; 5] =
    ["input", "input_cached_tokens", "input_cache_creation", "output", "output_reasoning_tokens"];

/// Anthropic's models also have the same prices under the provider's own names.
const ALIASES: [(&str, &str); 4] = [
    ("input_tokens", "input"),
    ("output_tokens", "output"),
    ("cache_read_input_tokens", "input_cached_tokens"),
    ("cache_creation_input_tokens", "input_cache_creation"),
];
/// Embeddings have one price, for the total, in dollars per million.
const TOTALS: [(&str, f64); 1] = [("text-embedding-3-small", 0.02)];

/// Returns the price of a token of each bucket; `None` if no row matches the model's full name.
pub(crate) fn of(model: &str) -> Option<BTreeMap<&'static str, f64>> {
    let model = model.to_lowercase();
    let bare = model.strip_prefix("openai/").unwrap_or(&model);
    if let Some((_, price)) = TOTALS.iter().find(|(name, _)| *name == bare) {
        return Some(BTreeMap::from([("total", price / 1e6)]));
    }
    let (_, prices) = MILLIONS.iter().find(|(name, _)| *name == bare)?;
    let buckets = BUCKETS.into_iter().zip(prices).filter(|(_, price)| **price != 0.0);
    let mut prices: BTreeMap<_, _> = buckets.map(|(bucket, price)| (bucket, price / 1e6)).collect();
    if bare.contains("claude") {
        let aliases = ALIASES.map(|(alias, bucket)| (alias, prices[bucket]));
        prices.extend(aliases);
    }
    Some(prices)
}
