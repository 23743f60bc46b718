//! Encodes tokens and costs for Langfuse: mutually exclusive buckets, and a total. Pure.
//!
//! Langfuse adds up all buckets and prices each by its name. A token may therefore be in only one bucket, and only in one with a price:
//! tokens in a bucket without a price cost nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span::{Cost, Usage};
use crate::support::json::object::Object;
use crate::support::json::{write_f64, write_integer};

/// The bucket of reasoning tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningTokens {
    /// Their own, for models for which Langfuse has a price for it.
    #[default]
    Split,
    /// The output's.
    InOutput,
}

/// Appends the buckets as a JSON object.
pub(super) fn write_buckets(
    out: &mut Vec<u8>,
    usage: &Usage,
    model: Option<&str>,
    reasoning: ReasoningTokens,
) {
    let model = model.unwrap_or_default();
    let splits = reasoning == ReasoningTokens::Split && prices_reasoning(model);
    let cache_write = usage.cache_write.filter(|_| prices_cache_writes(model));
    let [cached, cache_write, input_audio, input] =
        shares(usage.input, [usage.cached_read, cache_write, usage.input_audio]);
    let [reasoning, output_audio, _, output] =
        shares(usage.output, [usage.reasoning.filter(|_| splits), usage.output_audio, None]);
    let buckets = [
        ("input", usage.input.map(|_| input)),
        ("input_cached_tokens", some(cached)),
        ("input_cache_creation", some(cache_write)),
        ("input_audio_tokens", some(input_audio)),
        ("output", usage.output.map(|_| output)),
        ("output_reasoning_tokens", some(reasoning)),
        ("output_audio_tokens", some(output_audio)),
    ];
    let sum = buckets.iter().filter_map(|(_, count)| *count).fold(0, u64::saturating_add);
    // A total below the sum of its parts is a client's mistake that Langfuse complains about.
    let total = usage.total.unwrap_or_default().max(sum);
    let known = buckets.iter().filter_map(|(name, count)| Some((*name, (*count)?)));
    let mut object = Object::open(out);
    for (name, count) in known.chain([("total", total)]) {
        write_integer(object.member(name), count);
    }
    object.close();
}

/// Returns the count of an additional bucket, or `None` if it is empty.
fn some(count: u64) -> Option<u64> {
    (count != 0).then_some(count)
}

/// Subtracts the parts from a total, one after the other, as far as it reaches. Returns them and, last, the remainder. Without a total,
/// there are only the parts.
fn shares(whole: Option<u64>, parts: [Option<u64>; 3]) -> [u64; 4] {
    let mut left = whole.unwrap_or(u64::MAX);
    let [first, second, third] = parts.map(|part| {
        let share = part.unwrap_or_default().min(left);
        left -= share;
        share
    });
    [first, second, third, left]
}

/// Appends a cost in dollars as a JSON object.
pub(super) fn write_cost(out: &mut Vec<u8>, cost: &Cost) {
    let mut object = Object::open(out);
    for (name, amount) in [("input", cost.input), ("output", cost.output), ("total", cost.total)] {
        if let Some(amount) = amount.filter(|amount| amount.is_finite()) {
            write_f64(object.member(name), amount);
        }
    }
    object.close();
}

/// Returns whether Langfuse's price table, as of 4.16.0, has a price for reasoning. OpenAI's reasoning models have one, except the small
/// ones of GPT-5.4; other vendors' models have none. An unknown model cannot be priced either way.
fn prices_reasoning(model: &str) -> bool {
    model.is_empty()
        || (is_of(model, &["gpt-5", "o1", "o3", "o4"])
            && !is_of(model, &["gpt-5.4-mini", "gpt-5.4-nano"]))
}

/// Returns whether the table has a price for tokens written to a cache. Among OpenAI's models, only GPT-5.6 and later have one; for earlier
/// models, OpenAI bills them like any input.
fn prices_cache_writes(model: &str) -> bool {
    !is_of(model, &["gpt-3", "gpt-4", "gpt-5", "chatgpt-", "o1", "o3", "o4"])
        || is_of(model, &["gpt-5.6", "gpt-5.7", "gpt-5.8", "gpt-5.9"])
}

/// Returns whether a model's name begins with one of these, with or without its vendor's prefix.
fn is_of(model: &str, beginnings: &[&str]) -> bool {
    let bare = after(model, "openai/").unwrap_or(model);
    beginnings.iter().any(|beginning| after(bare, beginning).is_some())
}

fn after<'t>(text: &'t str, beginning: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(beginning.len())?;
    start.eq_ignore_ascii_case(beginning).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Usage = Usage {
        input: Some(120),
        output: Some(45),
        total: Some(165),
        cached_read: Some(40),
        cache_write: Some(16),
        reasoning: Some(12),
        input_audio: None,
        output_audio: None,
        cache_write_1h: None,
    };

    fn buckets(usage: &Usage, model: &str, reasoning: ReasoningTokens) -> String {
        let mut out = Vec::new();
        let model = Some(model).filter(|model| !model.is_empty());
        write_buckets(&mut out, usage, model, reasoning);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn buckets_exclude_each_other_and_add_up_to_the_total() {
        assert_eq!(
            buckets(&FULL, "gpt-5.6-mini", ReasoningTokens::Split),
            r#"{"input":64,"input_cached_tokens":40,"input_cache_creation":16,"output":33,"output_reasoning_tokens":12,"total":165}"#
        );
        assert_eq!(
            buckets(&FULL, "", ReasoningTokens::Split),
            buckets(&FULL, "gpt-5.6-mini", ReasoningTokens::Split),
            "what has no model has no price, and shows all there is to know"
        );
        let plain = Usage { input: Some(3), output: Some(0), ..Usage::default() };
        assert_eq!(
            buckets(&plain, "", ReasoningTokens::Split),
            r#"{"input":3,"output":0,"total":3}"#
        );
        let voice = Usage { input_audio: Some(2), output_audio: Some(5), ..FULL };
        assert_eq!(
            buckets(&voice, "", ReasoningTokens::InOutput),
            r#"{"input":62,"input_cached_tokens":40,"input_cache_creation":16,"input_audio_tokens":2,"output":40,"output_audio_tokens":5,"total":165}"#
        );
    }

    #[test]
    fn no_token_is_in_a_bucket_without_a_price() {
        for (model, reasoning, cache_writes) in [
            ("gpt-5-mini", true, false),
            ("OpenAI/gpt-5.4", true, false),
            ("gpt-5.4-mini", false, false),
            ("gpt-5.4-nano-2026-03-05", false, false),
            ("gpt-5.6-luna", true, true),
            ("o4-mini", true, false),
            ("gpt-4o", false, false),
            ("claude-sonnet-4-5", false, true),
        ] {
            let text = buckets(&FULL, model, ReasoningTokens::Split);
            assert_eq!(text.contains("output_reasoning_tokens"), reasoning, "{model}: {text}");
            assert_eq!(text.contains("input_cache_creation"), cache_writes, "{model}: {text}");
            assert!(text.ends_with("\"total\":165}"), "{model}: {text}");
        }
        assert!(!buckets(&FULL, "o3", ReasoningTokens::InOutput).contains("reasoning"));
    }

    #[test]
    fn counts_that_cannot_be_are_kept_within_their_whole() {
        let odd = Usage { cached_read: Some(900), total: Some(1), ..FULL };
        assert_eq!(
            buckets(&odd, "", ReasoningTokens::Split),
            r#"{"input":0,"input_cached_tokens":120,"output":33,"output_reasoning_tokens":12,"total":165}"#
        );
        let parts = Usage { cached_read: Some(7), total: Some(9), ..Usage::default() };
        assert_eq!(
            buckets(&parts, "", ReasoningTokens::Split),
            r#"{"input_cached_tokens":7,"total":9}"#
        );
        let most = Usage { input: Some(u64::MAX), output: Some(u64::MAX), ..Usage::default() };
        assert!(
            buckets(&most, "", ReasoningTokens::Split).ends_with("\"total\":18446744073709551615}")
        );
    }

    #[test]
    fn a_cost_is_what_is_said_in_numbers() {
        let cost = |input, output, total| {
            let mut out = Vec::new();
            write_cost(&mut out, &Cost { input, output, total });
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            cost(Some(0.25), Some(0.5), Some(0.75)),
            r#"{"input":0.25,"output":0.5,"total":0.75}"#
        );
        assert_eq!(cost(None, None, Some(0.1)), r#"{"total":0.1}"#);
        assert_eq!(cost(Some(f64::NAN), Some(1.0), Some(1.0)), r#"{"output":1.0,"total":1.0}"#);
    }
}
