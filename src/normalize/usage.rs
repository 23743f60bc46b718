//! Token counts: every spelling of a usage object.

use super::raw::Raw;
use crate::span::{Cost, Usage};

/// A counter of [`Usage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counter {
    Input,
    Output,
    Total,
    CachedRead,
    CacheWrite,
    Reasoning,
    InputAudio,
    OutputAudio,
}

impl Counter {
    /// The counter's place in a usage.
    pub(super) fn of(self, usage: &mut Usage) -> &mut Option<u64> {
        match self {
            Self::Input => &mut usage.input,
            Self::Output => &mut usage.output,
            Self::Total => &mut usage.total,
            Self::CachedRead => &mut usage.cached_read,
            Self::CacheWrite => &mut usage.cache_write,
            Self::Reasoning => &mut usage.reasoning,
            Self::InputAudio => &mut usage.input_audio,
            Self::OutputAudio => &mut usage.output_audio,
        }
    }

    const ALL: [Self; 8] = [
        Self::Input,
        Self::Output,
        Self::Total,
        Self::CachedRead,
        Self::CacheWrite,
        Self::Reasoning,
        Self::InputAudio,
        Self::OutputAudio,
    ];
}

/// Members of a usage object, in OpenAI's spellings (Responses, Chat Completions, Agents SDK), Anthropic's and MLflow's.
fn counter(name: &str) -> Option<Counter> {
    Some(match name {
        "input_tokens" | "prompt_tokens" | "inputTokens" | "promptTokens" => Counter::Input,
        "output_tokens" | "completion_tokens" | "outputTokens" | "completionTokens" => {
            Counter::Output
        }
        "total_tokens" | "totalTokens" => Counter::Total,
        "cached_input_tokens"
        | "cache_read_input_tokens"
        | "cache_read_tokens"
        | "cachedInputTokens" => Counter::CachedRead,
        "cache_write_input_tokens" | "cache_creation_input_tokens" | "cache_write_tokens" => {
            Counter::CacheWrite
        }
        "reasoning_tokens" | "reasoningTokens" => Counter::Reasoning,
        "input_audio_tokens" => Counter::InputAudio,
        "output_audio_tokens" => Counter::OutputAudio,
        _ => return None,
    })
}

/// Members of an object that details the input.
fn input_detail(name: &str) -> Option<Counter> {
    Some(match name {
        "cached_tokens" | "cache_read" | "cache_read_tokens" => Counter::CachedRead,
        "cache_write_tokens" | "cache_creation" | "cache_creation_tokens" => Counter::CacheWrite,
        "audio_tokens" | "audio" => Counter::InputAudio,
        _ => return None,
    })
}

/// Members of an object that details the output.
fn output_detail(name: &str) -> Option<Counter> {
    Some(match name {
        "reasoning_tokens" | "reasoning" => Counter::Reasoning,
        "audio_tokens" | "audio" => Counter::OutputAudio,
        _ => return None,
    })
}

/// The counts of a usage object in which input contains the cached tokens and output the reasoning tokens.
pub(super) fn from_json(usage: Raw<'_>) -> Usage {
    let mut counts = Usage::default();
    for (name, value) in usage.members() {
        match &*name {
            "input_tokens_details" | "prompt_tokens_details" | "input_token_details" => {
                details(value, input_detail, &mut counts);
            }
            "output_tokens_details" | "completion_tokens_details" | "output_token_details" => {
                details(value, output_detail, &mut counts);
            }
            // What JavaScript makes of counts it has no name for.
            "details" => {
                details(value, |name| counter(name).or_else(|| output_detail(name)), &mut counts);
            }
            name => {
                if let Some(counter) = counter(name) {
                    set(&mut counts, counter, value);
                }
            }
        }
    }
    counts
}

/// Langfuse's bag of buckets, which exclude each other, unless it has one of OpenAI's shapes.
pub(super) fn from_langfuse(buckets: Raw<'_>) -> Usage {
    let is_bag = buckets.members().any(|(name, _)| matches!(&*name, "input" | "output"));
    if !is_bag {
        return from_json(buckets);
    }
    let mut usage = Usage::default();
    let (mut more_input, mut more_output) = (0_u64, 0_u64);
    for (name, value) in buckets.members() {
        let Some(count) = value.count() else { continue };
        match &*name {
            "input" => usage.input = Some(count),
            "output" => usage.output = Some(count),
            "total" => usage.total = Some(count),
            name if name.contains("input") => {
                more_input = more_input.saturating_add(count);
                match name {
                    name if name.contains("audio") => usage.input_audio = Some(count),
                    name if name.contains("creation") || name.contains("write") => {
                        usage.cache_write = Some(count);
                    }
                    name if name.contains("cache") => usage.cached_read = Some(count),
                    _ => (),
                }
            }
            name if name.contains("output") => {
                more_output = more_output.saturating_add(count);
                match name {
                    name if name.contains("audio") => usage.output_audio = Some(count),
                    name if name.contains("reasoning") => usage.reasoning = Some(count),
                    _ => (),
                }
            }
            _ => (),
        }
    }
    // Callers that count inclusively give themselves away by a total that is already complete.
    let plain = usage.input.unwrap_or_default().saturating_add(usage.output.unwrap_or_default());
    if usage.total != Some(plain) {
        usage.input = usage.input.map(|input| input.saturating_add(more_input));
        usage.output = usage.output.map(|output| output.saturating_add(more_output));
    }
    usage
}

/// Takes from another usage what is not known yet.
pub(super) fn fill(usage: &mut Usage, more: &Usage) {
    let mut more = *more;
    for counter in Counter::ALL {
        let count = counter.of(usage);
        *count = count.or(*counter.of(&mut more));
    }
}

/// Costs in dollars: `{"input": .., "output": .., "total": ..}`.
pub(super) fn cost_from_json(cost: Raw<'_>) -> Cost {
    let member =
        |names: &[&str]| names.iter().find_map(|name| cost.get(name)).and_then(Raw::number);
    Cost {
        input: member(&["input", "input_cost"]),
        output: member(&["output", "output_cost"]),
        total: member(&["total", "total_cost"]),
    }
}

fn details(value: Raw<'_>, counter: impl Fn(&str) -> Option<Counter>, counts: &mut Usage) {
    for (name, value) in value.members() {
        if let Some(counter) = counter(&name) {
            set(counts, counter, value);
        }
    }
}

fn set(counts: &mut Usage, counter: Counter, value: Raw<'_>) {
    if let Some(count) = value.count() {
        *counter.of(counts) = Some(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Usage = Usage {
        input: Some(120),
        output: Some(30),
        total: Some(150),
        cached_read: Some(64),
        cache_write: None,
        reasoning: Some(12),
        input_audio: None,
        output_audio: None,
    };

    #[test]
    fn every_spelling_of_the_same_usage_is_the_same() {
        for text in [
            r#"{"requests":1,"input_tokens":120,"output_tokens":30,"total_tokens":150,
                "input_tokens_details":{"cached_tokens":64},"output_tokens_details":{"reasoning_tokens":12}}"#,
            r#"{"prompt_tokens":120,"completion_tokens":30.0,"total_tokens":"150",
                "prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":12}}"#,
            r#"{"input_tokens":120,"output_tokens":30,"total_tokens":150,
                "input_token_details":{"cache_read":64},"output_token_details":{"reasoning":12}}"#,
            r#"{"input_tokens":120,"output_tokens":30,
                "details":{"total_tokens":150,"reasoning":12,"cached_input_tokens":64,"cost":0.01}}"#,
        ] {
            assert_eq!(from_json(Raw::parse(text).unwrap()), FULL, "{text}");
        }
    }

    #[test]
    fn langfuse_buckets_are_added_up_unless_they_were_inclusive() {
        for text in [
            r#"{"input":56,"input_cached_tokens":64,"output":18,"output_reasoning_tokens":12,"total":150}"#,
            r#"{"input":120,"input_cached_tokens":64,"output":30,"output_reasoning_tokens":12,"total":150}"#,
            r#"{"prompt_tokens":120,"completion_tokens":30,"total_tokens":150,
                "prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":12}}"#,
        ] {
            assert_eq!(from_langfuse(Raw::parse(text).unwrap()), FULL, "{text}");
        }
    }

    #[test]
    fn what_is_no_count_is_left_out() {
        let usage = from_json(
            Raw::parse(r#"{"input_tokens":"NaN","output_tokens":-1,"total_tokens":null}"#).unwrap(),
        );
        assert!(usage.is_empty());
        assert!(from_json(Raw::parse("[1]").unwrap()).is_empty());
    }
}
