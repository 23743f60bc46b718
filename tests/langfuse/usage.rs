//! A span's tokens and costs, as Langfuse reads them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Attributes, plain};

/// A bucket of Langfuse and the names that fill it; the first one present counts.
type Names = (&'static str, &'static [&'static str]);

/// Names after `gen_ai.usage.` and `llm.token_count.`. Any other name there is a separate bucket.
const NAMES: [Names; 7] = [
    ("input", &["prompt_tokens", "input_tokens", "prompt"]),
    ("output", &["completion_tokens", "output_tokens", "completion"]),
    ("total", &["total_tokens", "total"]),
    (
        "input_cached_tokens",
        &[
            "cache_read.input_tokens",
            "cache_read_input_tokens",
            "cache_read_tokens",
            "details.cache_read_tokens",
            "details.cache_read_input_tokens",
            "prompt_details.cache_read",
            "input_cached_tokens",
        ],
    ),
    (
        "input_cache_creation",
        &[
            "cache_creation.input_tokens",
            "cache_creation_input_tokens",
            "cache_write_tokens",
            "details.cache_write_tokens",
            "details.cache_creation_input_tokens",
            "prompt_details.cache_write",
            "input_cache_creation",
        ],
    ),
    ("output_reasoning_tokens", &["reasoning.output_tokens", "completion_details.reasoning"]),
    ("output_audio_tokens", &["completion_details.audio"]),
];

type Counts = BTreeMap<String, f64>;

/// Returns the buckets.
pub(super) fn of(own: &Attributes, scope: &str) -> BTreeMap<String, u64> {
    if let Some(details) = own.get("langfuse.observation.usage_details") {
        // Anything but a string disables it.
        let parsed = details.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        return parsed.as_ref().and_then(Value::as_object).map(buckets).unwrap_or_default();
    }
    let found = match scope {
        "genkit-tracer" => of_genkit(own),
        "ai" => Some(of_vercel(own)),
        "gcp.vertex.agent" => Some(of_adk(own)),
        _ => None,
    };
    let whole = |count: f64| (0.0 <= count && count.fract() == 0.0).then_some(count);
    let counts = found.unwrap_or_else(|| generic(own)).into_iter();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count that is whole and not negative"
    )]
    counts.filter_map(|(bucket, count)| Some((bucket, whole(count)? as u64))).collect()
}

/// Converts values to numbers as JavaScript does.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// Returns the remainder of a count after subtracting its parts.
fn rest(counts: &Counts, whole: &str, parts: &[&str]) -> f64 {
    let count = |bucket: &str| counts.get(bucket).copied().unwrap_or_default();
    (count(whole) - parts.iter().map(|part| count(part)).sum::<f64>()).max(0.0)
}

fn generic(own: &Attributes) -> Counts {
    let name = |key: &str| {
        let rest = key.strip_prefix("gen_ai.usage.").or(key.strip_prefix("llm.token_count."))?;
        (key != "gen_ai.usage.cost").then(|| rest.to_owned())
    };
    let said: Counts =
        own.iter().filter_map(|(key, value)| Some((name(key)?, number(value)?))).collect();
    let is_known = |name: &str| NAMES.iter().any(|(_, names)| names.contains(&name));
    let others = said.iter().filter(|(name, _)| !is_known(name));
    let bucket = |name: &str| name.strip_prefix("details.").unwrap_or(name).to_owned();
    let mut counts: Counts = others.map(|(name, count)| (bucket(name), *count)).collect();
    for (bucket, names) in NAMES {
        if let Some(count) = names.iter().find_map(|name| said.get(*name)) {
            counts.insert(bucket.to_owned(), *count);
        }
    }
    for (whole, parts) in [
        ("input", ["input_cached_tokens", "input_cache_creation"]),
        ("output", ["output_reasoning_tokens", "output_audio_tokens"]),
    ] {
        let rest = rest(&counts, whole, &parts);
        counts.entry(whole.to_owned()).and_modify(|count| *count = rest);
    }
    counts
}

/// ADK's prompt tokens include the cached ones, which may be reported only in the answer itself.
fn of_adk(own: &Attributes) -> Counts {
    let mut counts = generic(own);
    let answer = own.get("gcp.vertex.agent.llm_response").map(plain).unwrap_or_default();
    let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
    let cached = answer["usage_metadata"]["cached_content_token_count"].as_f64();
    if let Some(cached) = cached.filter(|_| !counts.contains_key("input_cached_tokens")) {
        counts.insert("input_cached_tokens".to_owned(), cached);
        counts.entry("input".to_owned()).and_modify(|input| *input = (*input - cached).max(0.0));
    }
    counts
}

fn of_genkit(own: &Attributes) -> Option<Counts> {
    let output: Value = serde_json::from_str(&plain(own.get("genkit:output")?)).ok()?;
    let usage = output["usage"].as_object()?;
    let mut counts = Counts::new();
    for (bucket, name) in [
        ("input", "inputTokens"),
        ("output", "outputTokens"),
        ("total", "totalTokens"),
        ("output_reasoning", "thoughtsTokens"),
    ] {
        if let Some(count) = usage.get(name).and_then(Value::as_f64).filter(|count| *count != 0.0) {
            counts.insert(bucket.to_owned(), count);
        }
    }
    let rest = rest(&counts, "output", &["output_reasoning"]);
    counts.entry("output".to_owned()).and_modify(|count| *count = rest);
    Some(counts)
}

/// Vercel's SDK has its own names, and those of the provider in addition. Input and output are always there.
fn of_vercel(own: &Attributes) -> Counts {
    let metadata = own.get("ai.response.providerMetadata").map(plain).unwrap_or_default();
    let metadata: Value = serde_json::from_str(&metadata).unwrap_or_default();
    let mut counts = Counts::new();
    for (bucket, names) in [
        ("input", ["gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens"]),
        ("output", ["gen_ai.usage.completion_tokens", "gen_ai.usage.output_tokens"]),
        ("total", ["ai.usage.tokens", ""]),
        ("input_cached_tokens", ["ai.usage.cachedInputTokens", ""]),
        ("output_reasoning_tokens", ["ai.usage.reasoningTokens", ""]),
    ] {
        if let Some(count) = names.iter().find_map(|name| number(own.get(*name)?)) {
            counts.insert(bucket.to_owned(), count);
        }
    }
    for (bucket, place) in [
        ("input_cached_tokens", "/openai/cachedPromptTokens"),
        ("accepted_prediction_tokens", "/openai/acceptedPredictionTokens"),
        ("rejected_prediction_tokens", "/openai/rejectedPredictionTokens"),
        ("output_reasoning_tokens", "/openai/reasoningTokens"),
        ("input_cache_creation", "/anthropic/usage/cache_creation_input_tokens"),
        ("input_cached_tokens", "/anthropic/usage/cache_read_input_tokens"),
        ("input_cache_read", "/bedrock/usage/cacheReadInputTokens"),
        ("input_cache_write", "/bedrock/usage/cacheWriteInputTokens"),
        ("input_cache_creation", "/bedrock/usage/cacheCreationInputTokens"),
    ] {
        if let Some(count) = metadata.pointer(place).and_then(Value::as_f64) {
            counts.entry(bucket.to_owned()).or_insert(count);
        }
    }
    let cached = ["input_cached_tokens", "input_cache_creation", "input_cache_read"];
    let input = rest(&counts, "input", &cached);
    let output = rest(&counts, "output", &["output_reasoning_tokens"]);
    counts.extend([("input".to_owned(), input), ("output".to_owned(), output)]);
    counts
}

/// Reads a flat object of counts. Only an object of exactly OpenAI's shape is split; with any additional key, all its numbers are buckets.
fn buckets(details: &serde_json::Map<String, Value>) -> BTreeMap<String, u64> {
    const SHAPES: [[&str; 5]; 2] = [
        [
            "input_tokens",
            "output_tokens",
            "total_tokens",
            "input_tokens_details",
            "output_tokens_details",
        ],
        [
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "prompt_tokens_details",
            "completion_tokens_details",
        ],
    ];
    for [input, output, total, input_details, output_details] in SHAPES {
        let known = [input, output, total, input_details, output_details];
        if details.contains_key(input) && details.keys().all(|key| known.contains(&key.as_str())) {
            let of =
                |object: &str, key: &str| details.get(object).and_then(|inner| inner[key].as_u64());
            let cached = of(input_details, "cached_tokens").unwrap_or_default();
            let reasoning = of(output_details, "reasoning_tokens").unwrap_or_default();
            let count = |key: &str| details.get(key).and_then(Value::as_u64).unwrap_or_default();
            return BTreeMap::from([
                ("input".to_owned(), count(input) - cached),
                ("input_cached_tokens".to_owned(), cached),
                ("output".to_owned(), count(output) - reasoning),
                ("output_reasoning_tokens".to_owned(), reasoning),
                ("total".to_owned(), count(total)),
            ]);
        }
    }
    let counts = details.iter().filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)));
    counts.collect()
}

/// Returns the span's own costs in dollars.
pub(super) fn cost(own: &Attributes) -> BTreeMap<String, f64> {
    let amount = |value: &Value| if value.is_string() { Some(0.0) } else { value.as_f64() };
    if let Some(details) = own.get("langfuse.observation.cost_details") {
        let parsed = details.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let members = parsed.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
        let mut costs: BTreeMap<String, f64> = members
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), amount(value)?)))
            .collect();
        let is_plain = costs.keys().all(|name| name == "input" || name == "output");
        if !costs.is_empty() && !costs.contains_key("total") {
            let total = if is_plain { costs.values().sum() } else { 0.0 };
            costs.insert("total".to_owned(), total);
        }
        return costs;
    }
    let total = ["gen_ai.usage.cost", "llm.cost.total"]
        .iter()
        .find_map(|key| own.get(*key).and_then(Value::as_f64));
    total.map(|total| BTreeMap::from([("total".to_owned(), total)])).unwrap_or_default()
}
