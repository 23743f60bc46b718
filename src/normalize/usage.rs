//! Reads token counts under all names in use, and makes them inclusive by a single rule. Pure.
//!
//! [`Usage`] is inclusive: cached tokens, read or written, are part of the input, and reasoning is part of the output. Most clients count
//! this way. Some pass on their provider's counts, and those of Anthropic and Bedrock are exclusive. [`settle`] decides by evidence.

use std::sync::LazyLock;

use super::raw::{Object, Raw};
use super::tables;
use crate::span::{Cost, Usage};

/// The names of a usage's counters in `tables/attributes.txt`, in the order of [`Usage::counters`].
pub(super) const COUNTERS: [&str; 9] = [
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_read",
    "cache_write",
    "reasoning",
    "input_audio",
    "output_audio",
    "cache_write_1h",
];

/// Members of usage objects and the indices of their counters, from the table of attributes, grouped by the length of the name.
static MEMBERS: LazyLock<Vec<Vec<(&str, usize)>>> = LazyLock::new(|| {
    let mut members = vec![Vec::new(); NAME_BYTES_MAX];
    for row in tables::rows() {
        let counter = COUNTERS.iter().position(|fact| *fact == row.fact);
        if let (Some(counter), Some(names)) = (counter, members.get_mut(row.key.len())) {
            names.push((row.key, counter));
        }
    }
    members
});

/// Members of usage objects that are objects with counts, and the group of those; `own.` for further counts of the usage itself.
static GROUPS: LazyLock<Vec<(&str, &str)>> =
    LazyLock::new(|| tables::beginnings("groups", Some).collect());

/// A member with a longer name is not a counter.
const NAME_BYTES_MAX: usize = 40;

/// The largest count. No call reads or writes more tokens; a larger count is a mistake and would ruin every sum that contains it.
pub(super) const COUNT_MAX: u64 = 1_000_000_000_000;
/// The highest cost of one call, in dollars. A single mistake must not dominate a sum, because counters never decrease.
const COST_MAX: f64 = 1e6;

/// Returns the index of a member's counter. The group is empty for the usage object itself, and otherwise names an object inside it that
/// details the input (`in.`), the output (`out.`) or the tokens written to a cache (`made.`).
fn counter(group: &str, member: &str) -> Option<usize> {
    let names = MEMBERS.get(group.len() + member.len())?;
    // Most names of the same length differ in their first byte.
    let first = member.as_bytes().first();
    let is_named = |name: &str| {
        name.as_bytes().get(group.len()) == first && name.strip_prefix(group) == Some(member)
    };
    names.iter().find(|(name, _)| is_named(name)).map(|(_, counter)| *counter)
}

/// Reads the counts of a usage object, as sent.
pub(super) fn from_json(usage: Raw<'_>) -> Usage {
    let (mut counts, mut kept) = (Usage::default(), 0_u64);
    for (name, value) in usage.members() {
        set(&mut counts, counter("", &name), value);
        let Some((_, group)) = GROUPS.iter().find(|(known, _)| *known == name) else { continue };
        let group = group.trim_start_matches("own.");
        for (name, value) in value.members() {
            set(&mut counts, counter(group, &name), value);
            if name.starts_with("ephemeral_") {
                kept = kept.saturating_add(value.count().unwrap_or_default());
            }
        }
        // Gemini lists counts by modality.
        let is_audio = |it: &Object<'_>| it.get_string("modality").as_deref() == Some("AUDIO");
        for part in value.objects().filter(is_audio) {
            if let Some(count) = part.get("tokenCount").or_else(|| part.get("token_count")) {
                set(&mut counts, counter(group, "audio_tokens"), count);
            }
        }
    }
    // If there are counts by lifetime, LangChain reports Anthropic's total cache write as 0, and LangSmith omits it.
    if counts.cache_write.unwrap_or_default() == 0 && kept != 0 && kept <= COUNT_MAX {
        counts.cache_write = Some(kept);
    }
    // Gemini counts the tokens that its own tools add to the prompt separately.
    let of_tools = ["tool_use_prompt_token_count", "toolUsePromptTokenCount"];
    let more = of_tools.iter().find_map(|name| usage.get(name)?.count()).unwrap_or_default();
    counts.input = counts.input.map(|input| input.saturating_add(more.min(COUNT_MAX)));
    counts
}

/// Reads the counts of a usage object of a client that is not known to count exclusively.
pub(super) fn settled(usage: Raw<'_>) -> Usage {
    let mut counts = from_json(usage);
    // The Agents SDK for JavaScript moves all members but two there, and so does the one for Python on the way to OpenAI.
    let mut moved = usage.get("details").map(from_json).unwrap_or_default();
    for (count, moved) in counts.counters().into_iter().zip(moved.counters()) {
        *count = count.or(*moved);
    }
    settle(&mut counts, |_| false);
    counts
}

fn set(counts: &mut Usage, counter: Option<usize>, value: Raw<'_>) {
    if let Some(counter) = counter
        && let Some(count) = value.count().filter(|count| *count <= COUNT_MAX)
        && let Some(place) = counts.counters().into_iter().nth(counter)
    {
        *place = Some(count);
    }
}

/// A part of the input or output that some clients count separately from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Tokens that were read from a cache or written to it.
    Cached,
    /// Reasoning tokens.
    Reasoning,
}

/// Makes exclusive counts inclusive. The evidence, in order:
/// * A part that exceeds its whole (cached tokens the input, reasoning the output) is not included in it. Exception: if the total is input
///   plus output, the reasoning is a gateway's estimate, which is too high.
/// * If the total is the sum of all parts, each part is exclusive (of two equal ones, the cached); if it is input plus output, inclusive.
/// * A client that is known to pass on exclusive counts does (`is_known_beside`). If it omits reasoning, that is the excess of its total.
///
/// Without evidence, the counts stay as sent. A total that is less than its parts contradicts them and is removed; returns whether there
/// was one. If no output is sent, it is what the total has above the input.
pub(super) fn settle(usage: &mut Usage, is_known_beside: impl Fn(Part) -> bool) -> bool {
    let cached =
        usage.cached_read.unwrap_or_default().saturating_add(usage.cache_write.unwrap_or_default());
    let plain = usage.input.unwrap_or_default().saturating_add(usage.output.unwrap_or_default());
    // The excess of the total over input and output; 0 without a total.
    let above = usage.total.and_then(|total| total.checked_sub(plain)).unwrap_or_default();
    let is_unsaid = usage.reasoning.is_none() && above != 0 && above != cached;
    if is_unsaid && usage.output.is_some() && is_known_beside(Part::Reasoning) {
        usage.reasoning = Some(above);
    }
    let reasoning = usage.reasoning.unwrap_or_default();
    let is_beside =
        |part: u64, other: u64| part != 0 && (above == part || above == part.saturating_add(other));
    if let Some(input) = &mut usage.input
        && cached != 0
        && (cached > *input || is_beside(cached, reasoning) || is_known_beside(Part::Cached))
    {
        *input = input.saturating_add(cached);
    }
    if let Some(output) = &mut usage.output
        && reasoning != 0
        && ((reasoning > *output && usage.total != Some(plain))
            || (is_beside(reasoning, cached) && above != cached)
            || is_known_beside(Part::Reasoning))
    {
        *output = output.saturating_add(reasoning);
    }
    let is_rest = usage.input.is_some() && cached == 0 && above != 0;
    usage.output = usage.output.or(is_rest.then_some(above));
    let (Some(input), Some(output)) = (usage.input, usage.output) else { return false };
    let sum = input.saturating_add(output);
    let total = usage.total.map(|total| if total == plain { sum } else { total });
    usage.total = total.filter(|total| *total >= sum);
    total != usage.total
}

/// A bucket of Langfuse: the side that it belongs to, a word in its name, and its counter.
type Bucket = (&'static str, &'static str, fn(&mut Usage) -> &mut Option<u64>);

/// The first match counts.
const BUCKETS: [Bucket; 7] = [
    ("ephemeral_", "ephemeral_1h", |usage| &mut usage.cache_write_1h),
    ("input", "audio", |usage| &mut usage.input_audio),
    ("input", "creation", |usage| &mut usage.cache_write),
    ("input", "write", |usage| &mut usage.cache_write),
    ("input", "cache", |usage| &mut usage.cached_read),
    ("output", "audio", |usage| &mut usage.output_audio),
    ("output", "reasoning", |usage| &mut usage.reasoning),
];

/// Reads Langfuse's buckets, which are exclusive, or a usage object in one of OpenAI's forms.
pub(super) fn from_langfuse(buckets: Raw<'_>) -> Usage {
    let is_bag = buckets.members().any(|(name, _)| matches!(&*name, "input" | "output"));
    if !is_bag {
        return from_json(buckets);
    }
    let mut usage = Usage::default();
    let mut more = [0_u64; 3];
    for (name, value) in buckets.members() {
        let Some(count) = value.count().filter(|count| *count <= COUNT_MAX) else { continue };
        match &*name {
            "input" => usage.input = Some(count),
            "output" => usage.output = Some(count),
            "total" => usage.total = Some(count),
            name => {
                let mut sides = ["ephemeral_", "input", "output"].into_iter().zip(&mut more);
                let Some((side, more)) = sides.find(|(it, _)| name.contains(it)) else { continue };
                *more = more.saturating_add(count);
                let is_part = |(of, word, _): &&Bucket| *of == side && name.contains(word);
                if let Some((_, _, place)) = BUCKETS.iter().find(is_part) {
                    *place(&mut usage) = Some(count);
                }
            }
        }
    }
    let [kept, mut more_input, more_output] = more;
    // LangChain's counts of Anthropic's cache writes by lifetime are parts of their sum, unless it is 0 or missing.
    if usage.cache_write.unwrap_or_default() == 0 && kept != 0 {
        usage.cache_write = Some(kept);
        more_input = more_input.saturating_add(kept);
    }
    // A complete total reveals callers that count inclusively.
    let plain = usage.input.unwrap_or_default().saturating_add(usage.output.unwrap_or_default());
    if usage.total != Some(plain) {
        usage.input = usage.input.map(|input| input.saturating_add(more_input));
        usage.output = usage.output.map(|output| output.saturating_add(more_output));
    }
    usage
}

/// Fills the missing counts from another usage.
pub(super) fn fill(usage: &mut Usage, more: &Usage) {
    let mut more = *more;
    for (count, more) in usage.counters().into_iter().zip(more.counters()) {
        *count = count.or(*more);
    }
}

/// Returns whether a call can cost this many dollars; negative and absurd costs are invalid.
pub(super) fn is_cost(dollars: f64) -> bool {
    (0.0..=COST_MAX).contains(&dollars)
}

/// Reads costs in dollars: `{"input": .., "output": .., "total": ..}`, or buckets that add up to the total.
pub(super) fn cost_from_json(cost: Raw<'_>) -> Cost {
    let amount = |value: Raw<'_>| value.number().filter(|dollars| is_cost(*dollars));
    let member = |names: &[&str]| names.iter().find_map(|name| cost.get(name)).and_then(amount);
    let sum = cost.members().filter_map(|(_, value)| amount(value)).reduce(|sum, part| sum + part);
    Cost {
        input: member(&["input", "input_cost"]),
        output: member(&["output", "output_cost"]),
        total: member(&["total", "total_cost"]).or(sum),
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
        cache_write_1h: None,
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
    fn what_anthropic_says_of_a_cache_is_how_long_it_keeps_what_was_written() {
        let text = r#"{"input_tokens":5,"cache_read_input_tokens":64,"cache_creation_input_tokens":30,"output_tokens":7,
            "cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":10}}"#;
        let usage = from_json(Raw::parse(text).unwrap());
        assert_eq!((usage.cache_write, usage.cache_write_1h), (Some(30), Some(10)));
        assert_eq!((usage.cached_read, usage.output), (Some(64), Some(7)));
        let beside = r#"{"input_tokens":5,"ephemeral_1h_input_tokens":10,"cache_creation":[1]}"#;
        let of_langchain = r#"{"input_tokens":1001,"output_tokens":101,"input_token_details":
            {"cache_read":64,"cache_creation":0,"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":10}}"#;
        let usage = from_json(Raw::parse(of_langchain).unwrap());
        assert_eq!(
            (usage.input, usage.cache_write, usage.cache_write_1h),
            (Some(1001), Some(30), Some(10))
        );
        assert_eq!(from_json(Raw::parse(beside).unwrap()).cache_write_1h, None);
        let of_langsmith = r#"{"input_tokens":1353,"output_tokens":201,"total_tokens":1554,
            "input_token_details":{"cache_read":301,"ephemeral_5m_input_tokens":51}}"#;
        assert_eq!(from_json(Raw::parse(of_langsmith).unwrap()).cache_write, Some(51));
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
    fn cache_writes_by_lifetime_are_parts_of_those_that_langfuse_gets_beside_them() {
        for text in [
            r#"{"input":506,"output":206,"cache_read_input_tokens":306,"cache_creation_input_tokens":30,
                "cache_creation_ephemeral_5m_input_tokens":20,"cache_creation_ephemeral_1h_input_tokens":10}"#,
            r#"{"input":506,"output":206,"input_cache_read":306,"input_cache_creation":0,
                "input_ephemeral_5m_input_tokens":20,"input_ephemeral_1h_input_tokens":10,"total":1048}"#,
        ] {
            let usage = from_langfuse(Raw::parse(text).unwrap());
            assert_eq!(
                (usage.input, usage.cached_read, usage.cache_write, usage.cache_write_1h),
                (Some(842), Some(306), Some(30), Some(10)),
                "{text}"
            );
        }
    }

    /// Input, output, total, cached read, cache write and reasoning; 0 stands for a missing count.
    fn usage([input, output, total, cached_read, cache_write, reasoning]: [u64; 6]) -> Usage {
        let said = |count: u64| (count != 0).then_some(count);
        Usage {
            input: said(input),
            output: said(output),
            total: said(total),
            cached_read: said(cached_read),
            cache_write: said(cache_write),
            reasoning: said(reasoning),
            ..Usage::default()
        }
    }

    #[test]
    fn counts_that_exclude_each_other_become_inclusive_by_evidence() {
        const KNOWN: bool = true;
        for (sent, is_known, expected) in [
            // More cached than input: Anthropic's counts.
            ([5, 50, 0, 10_000, 100, 0], !KNOWN, [10_105, 50, 0, 10_000, 100, 0]),
            // The total is the sum of all parts: Bedrock's.
            ([12, 80, 9_592, 9_000, 500, 0], !KNOWN, [9_512, 80, 9_592, 9_000, 500, 0]),
            ([9_000, 80, 9_180, 100, 0, 0], !KNOWN, [9_100, 80, 9_180, 100, 0, 0]),
            // Input and output are the total: inclusive.
            ([10_105, 50, 10_155, 10_000, 100, 0], !KNOWN, [10_105, 50, 10_155, 10_000, 100, 0]),
            // No output is sent: Ragbits. What could be cached is not.
            ([1_001, 0, 1_202, 0, 0, 0], !KNOWN, [1_001, 201, 1_202, 0, 0, 0]),
            ([10, 0, 70, 40, 0, 0], !KNOWN, [50, 0, 70, 40, 0, 0]),
            // No evidence: as sent.
            ([500, 50, 0, 100, 0, 0], !KNOWN, [500, 50, 0, 100, 0, 0]),
            // The client is known, and its total may be only input plus output.
            ([500, 50, 550, 100, 0, 0], KNOWN, [600, 50, 650, 100, 0, 0]),
            ([500, 50, 0, 0, 0, 0], KNOWN, [500, 50, 0, 0, 0, 0]),
            // Gemini counts thoughts separately from the answer.
            ([10, 20, 130, 0, 0, 100], !KNOWN, [10, 120, 130, 0, 0, 100]),
            ([10, 20, 0, 0, 0, 100], !KNOWN, [10, 120, 0, 0, 0, 100]),
            // Both parts are exclusive.
            ([10, 20, 170, 40, 0, 100], !KNOWN, [50, 120, 170, 40, 0, 100]),
            // Either part could be exclusive, but not both.
            ([80, 50, 160, 20, 10, 30], !KNOWN, [110, 50, 160, 20, 10, 30]),
            // A gateway estimates more reasoning than output (langfuse/langfuse issue 14987).
            ([1_640, 102, 1_742, 0, 0, 109], !KNOWN, [1_640, 102, 1_742, 0, 0, 109]),
        ] {
            let mut found = usage(sent);
            settle(&mut found, |part| is_known && part == Part::Cached);
            assert_eq!(found, usage(expected), "{sent:?}");
        }
    }

    #[test]
    fn thoughts_that_are_in_the_total_alone_are_counted_where_the_client_is_known_to_do_so() {
        for (sent, expected) in [
            ([1_002, 180, 1_204, 302, 0, 0], [1_002, 202, 1_204, 302, 0, 22]),
            ([1_002, 180, 1_182, 302, 0, 0], [1_002, 180, 1_182, 302, 0, 0]),
            ([1_002, 180, 0, 302, 0, 0], [1_002, 180, 0, 302, 0, 0]),
        ] {
            let mut found = usage(sent);
            settle(&mut found, |part| part == Part::Reasoning);
            assert_eq!(found, usage(expected), "{sent:?}");
        }
    }

    #[test]
    fn a_total_below_its_parts_is_left_out_and_said() {
        let mut found = usage([10, 20, 25, 0, 0, 0]);
        assert!(settle(&mut found, |_| false));
        assert_eq!(found, usage([10, 20, 0, 0, 0, 0]));
        assert!(!settle(&mut found, |_| false));
    }

    proptest::proptest! {
        #[test]
        fn settled_counts_contain_their_parts_and_stay_as_they_are(counts: [u64; 6]) {
            let mut once = usage(counts);
            settle(&mut once, |_| false);
            let cached = once.cached_read.unwrap_or_default().saturating_add(once.cache_write.unwrap_or_default());
            proptest::prop_assert!(once.input.is_none_or(|input| input >= cached));
            let is_complete = once.total.is_some() && once.total == once.input.zip(once.output).map(|(input, output)| input + output);
            proptest::prop_assert!(is_complete || once.output.is_none_or(|output| output >= once.reasoning.unwrap_or_default()));
            let sent = usage(counts);
            proptest::prop_assert_eq!((once.cached_read, once.cache_write), (sent.cached_read, sent.cache_write));
            let mut twice = once;
            settle(&mut twice, |_| false);
            proptest::prop_assert_eq!(twice, once);
        }
    }

    #[test]
    fn what_is_no_count_is_left_out() {
        let usage = from_json(
            Raw::parse(r#"{"input_tokens":"NaN","output_tokens":-1,"total_tokens":null,"cached_tokens":1e300,"reasoning_tokens":1000000000001}"#).unwrap(),
        );
        assert!(usage.is_empty());
        assert!(from_json(Raw::parse("[1]").unwrap()).is_empty());
    }
}
