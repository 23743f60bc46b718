//! Costs are those that the package genai-prices computes, and reported costs take precedence.

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::span::{Cost, Detail, Kind, Scope, SpanHeader, SpanId, TraceId};
use crate::support::golden;

/// 2026-11-01T12:00:00Z.
const START_NS: u64 = 1_793_534_400_000_000_000;

fn built_in() -> Prices {
    Prices::new(&PriceOptions::default(), None)
}

/// Returns the prices of a configuration.
fn prices(toml: &str) -> Prices {
    Prices::new(&toml::from_str(toml).unwrap(), None)
}

fn span(start_ns: u64, facts: Facts) -> Span {
    let outline = SpanHeader {
        trace_id: TraceId::from_hex("5b8efff798038103d269b633813fc60c").unwrap(),
        span_id: SpanId::from_hex("eee19b7ec3c1b174").unwrap(),
        parent_id: None,
        start_ns,
        end_ns: 0,
        wire: bytes::Bytes::new(),
    };
    let facts = Facts { kind: Kind::Generation, ..facts };
    Span::synthetic(outline, Arc::<Scope>::default(), Detail::default(), facts)
}

/// Returns a model call with these tokens.
fn call(model: &'static str, input: u64, output: u64) -> Facts {
    Facts {
        request_model: Some(Text::from_static(model)),
        usage: Usage { input: Some(input), output: Some(output), ..Usage::default() },
        ..Facts::default()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small amounts")]
fn nano(dollars: f64) -> u64 {
    (dollars * 1e9).round() as u64
}

/// Returns the total in billionths of a dollar, and the source of the price.
fn cost(prices: &Prices, facts: Facts) -> Option<(u64, String)> {
    let span = span(START_NS, facts);
    let tokens = prices.tokens_of(None, &span);
    Some((nano(tokens.cost.total?), tokens.cost_source?.to_owned()))
}

fn usage_of(line: &Value) -> Usage {
    let count = |name: &str| line["usage"].get(name).and_then(Value::as_u64);
    Usage {
        input: count("input_tokens"),
        output: count("output_tokens"),
        cached_read: count("cache_read_tokens"),
        cache_write: count("cache_write_tokens"),
        cache_write_1h: count("cache_write_1h_tokens"),
        reasoning: count("output_reasoning_tokens"),
        input_audio: count("input_audio_tokens"),
        output_audio: count("output_audio_tokens"),
        total: None,
    }
}

#[test]
fn every_call_costs_what_the_package_says_to_the_billionth_of_a_dollar() {
    let prices = built_in();
    let expected = String::from_utf8(golden::read("prices/expected.jsonl")).unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    for line in expected.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let at: jiff::Timestamp = line["at"].as_str().unwrap().parse().unwrap();
        let facts = Facts {
            response_model: line["model"].as_str().map(Text::from),
            provider: line["provider"].as_str().map(Text::from),
            usage: usage_of(&line),
            ..Facts::default()
        };
        let span = span(at.as_nanosecond().try_into().unwrap(), facts);
        let found = prices.of(&span).map(|priced| priced.cost);
        if found.and_then(|cost| cost.total).map(nano) != line["nano_usd"].as_u64() {
            wrong.push(format!("{line}: {found:?}"));
        }
        if let Some(Cost { input: Some(input), output: Some(output), total: Some(total) }) = found {
            count += 1;
            // With a price per request, the total exceeds the sum of both.
            assert!(nano(input) + nano(output) <= nano(total), "{line}");
        }
    }
    assert!(wrong.is_empty(), "{} calls:\n{}", wrong.len(), wrong.join("\n"));
    assert!(500 < count, "only {count} calls have a price");
}

#[test]
fn names_of_opentelemetry_are_those_of_the_table() {
    let (prices, second) = (built_in(), START_NS / NS_PER_SECOND);
    for (provider, model, id) in [
        ("azure.ai.openai", "gpt-4o", "openai"),
        ("azure.ai.inference", "gpt-4o", "openai"),
        ("aws.bedrock", "amazon.nova-pro-v1:0", "aws"),
        ("gcp.gemini", "gemini-2.5-pro", "google"),
        ("gcp.vertex_ai", "gemini-2.5-pro", "google"),
        ("x_ai", "grok-3", "x-ai"),
        ("mistral_ai", "mistral-large-latest", "mistral"),
        ("Anthropic", "claude-sonnet-4-5", "anthropic"),
        ("", "anthropic/claude-sonnet-4-5", "anthropic"),
        ("", "mistral/mistral-large-latest", "mistral"),
        ("openai", "openai/gpt-4.1-mini", "openai"),
        ("gcp.gemini", "models/gemini-2.5-flash", "google"),
        ("", "models/gemini-2.5-flash", "google"),
        (
            "gcp.vertex_ai",
            "projects/p/locations/l/publishers/google/models/gemini-2.5-flash",
            "google",
        ),
        // Some clients, such as Strands, name themselves as the provider.
        ("", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws"),
        ("", "arn:aws:bedrock:us-east-1:1:inference-profile/eu.amazon.nova-pro-v1:0", "aws"),
        ("", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0", "aws"),
        // All providers charge the same.
        ("", "text-embedding-3-small", "azure"),
        ("", "text-embedding-ada-002", "openai"),
    ] {
        let provider = Some(provider).filter(|name| !name.is_empty());
        let quote = prices.quote(provider, model, second);
        let found = quote.and_then(|quote| Some(quote.model?.0.id.clone()));
        let is_served_for =
            provider == Some("azure.ai.openai") || provider == Some("azure.ai.inference");
        let is_so =
            found.as_deref() == Some(id) || is_served_for && found.as_deref() == Some("azure");
        assert!(is_so, "{provider:?} {model}: {found:?}");
    }
}

#[test]
fn a_cost_that_the_client_sent_is_never_touched() {
    for said in [0.0, 0.25, f64::NAN] {
        let cost = Cost { total: Some(said), ..Cost::default() };
        let span = span(START_NS, Facts { cost, ..call("gpt-4o", 1000, 100) });
        let prices = prices("overrides.gpt-4o = { input = 1, output = 1 }");
        let tokens = prices.tokens_of(None, &span);
        assert_eq!(tokens.cost.total.map(f64::to_bits), Some(said.to_bits()));
        assert_eq!((tokens.cost_source, prices.of(&span)), (Some("sdk"), None));
    }
}

#[test]
fn what_repeats_others_has_no_cost() {
    let usage = call("gpt-4o", 1000, 100).usage;
    let mut agent = call("gpt-4o", 0, 0);
    (agent.usage, agent.aggregate_usage) = (Usage::default(), usage);
    let span = {
        let made = span(START_NS, Facts::default());
        let outline = SpanHeader {
            trace_id: made.trace_id,
            span_id: made.span_id,
            parent_id: None,
            start_ns: START_NS,
            end_ns: 0,
            wire: bytes::Bytes::new(),
        };
        let facts = Facts { kind: Kind::Agent, ..agent };
        Span::synthetic(outline, Arc::<Scope>::default(), Detail::default(), facts)
    };
    let prices = built_in();
    let repeats = prices.tokens_of(None, &span);
    assert_eq!((repeats.counts, repeats.cost_source), (false, None));
    // If nothing below it has tokens, its own count.
    let context = TraceContext {
        exceptions: [span.span_id].into_iter().collect(),
        ..TraceContext::default()
    };
    let speaks = prices.tokens_of(Some(&context), &span);
    assert_eq!(speaks.cost.total.map(nano), Some(3_500_000));
}

#[test]
fn the_price_is_that_of_the_day_on_which_the_span_began() {
    let prices = built_in();
    let total = |at: &str| {
        let at: jiff::Timestamp = at.parse().unwrap();
        let span = span(at.as_nanosecond().try_into().unwrap(), call("o3", 1_000_000, 0));
        prices.of(&span).and_then(|priced| priced.cost.total).unwrap()
    };
    assert!(total("2025-06-10T00:00:00Z") < total("2025-06-09T23:59:59.999999999Z"));
    let of_no_time = total("1970-01-01T00:00:00Z");
    assert_eq!(nano(of_no_time), nano(total("2026-11-01T00:00:00Z")));
}

#[test]
fn an_override_goes_before_the_table_and_what_it_does_not_say_costs_as_the_whole() {
    let own = prices(
        "overrides.\"My-Model\" = { input = 1.5, output = 6, cached = 0.15 }\n\
         overrides.gpt-4o = { input = 0.000001, output = 0 }\n",
    );
    let cached =
        Usage { cached_read: Some(400), cache_write: Some(100), ..call("", 1000, 10).usage };
    let cost_of = |facts| cost(&own, facts);
    let said = |nano| Some((nano, "override".to_owned()));
    assert_eq!(cost_of(Facts { usage: cached, ..call("my-model", 0, 0) }), said(1_020_000));
    assert_eq!(cost_of(call("GPT-4o", 1_000_000, 7)), said(1000));
    let anywhere = Facts { provider: Some(Text::from_static("ollama")), ..call("my-model", 10, 0) };
    assert_eq!(cost_of(anywhere), said(15_000));
    // The answer usually names the requested model with a date.
    let answered =
        |by| Facts { response_model: Some(Text::from_static(by)), ..call("gpt-4o", 1_000_000, 7) };
    assert_eq!(cost_of(answered("gpt-4o-2024-08-06")), said(1000));
    assert_eq!(cost_of(answered("my-model")), said(1_500_042_000));
    let table = cost_of(call("gpt-4o-mini", 1000, 0)).unwrap();
    assert_eq!(table, (150_000, format!("table:{}", BUILT_IN.date)));
    assert_eq!(cost(&prices("enabled = false"), call("gpt-4o", 10, 10)), None);
    assert_eq!(cost(&Prices::default(), call("gpt-4o", 10, 10)), None);
}

#[test]
fn a_model_without_a_price_is_named_and_not_guessed() {
    let prices = built_in();
    let lacks = |facts| {
        let span = span(START_NS, facts);
        let lacks = prices.lacks(&span).map(str::to_owned);
        (cost(&prices, span.facts().clone()).map(|(nano, _)| nano), lacks)
    };
    let acme = Some("acme-secret-9".to_owned());
    assert_eq!(lacks(call("acme-secret-9", 5, 5)), (None, acme));
    let silent = Facts { usage: Usage::default(), ..call("acme-secret-9", 0, 0) };
    assert_eq!(lacks(silent), (None, None));
    let contradicts = Usage { cached_read: Some(11), ..call("", 10, 0).usage };
    assert_eq!(lacks(Facts { usage: contradicts, ..call("gpt-4o", 0, 0) }), (None, None));
    assert_eq!(lacks(Facts { request_model: None, ..call("", 5, 5) }), (None, None));
    assert_eq!(lacks(call("gpt-4o", 5, 5)), (Some(62_500), None));
}

#[test]
fn names_without_end_are_not_kept() {
    let prices = prices("overrides.one = { input = 1, output = 1 }");
    for number in 0..=FOUND_MAX {
        assert_eq!(prices.find(None, &format!("one{number}")), None);
    }
    assert!(prices.found.read().unwrap().len() <= FOUND_MAX);
    assert_eq!(&*prices.find(None, "one").unwrap().source, OVERRIDE);
    assert_eq!(prices.find(None, &"o".repeat(NAME_BYTES_MAX + 1)), None);
}

#[test]
fn many_at_once_get_what_one_alone_gets() {
    let (prices, names) = (built_in(), ["gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro", "nobody"]);
    let alone: Vec<_> = names.map(|name| cost(&built_in(), call(name, 1000, 10))).into();
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                let found: Vec<_> = names.map(|name| cost(&prices, call(name, 1000, 10))).into();
                assert_eq!(found, alone);
            });
        }
    });
}

#[test]
fn a_sum_of_spans_is_that_of_their_billionths() {
    let prices = built_in();
    let (mut sum, mut billionths) = (0.0, 0_u64);
    for number in 0..10_000_u64 {
        let span = span(START_NS, call("gpt-4o-mini", number * 7 + 1, number));
        let total = prices.of(&span).unwrap().cost.total.unwrap();
        sum += total;
        billionths += nano(total);
    }
    assert_eq!(nano(sum), billionths);
}

#[test]
fn prices_are_what_is_written() {
    use super::money::price;
    for (dollars, expected) in [
        (2.5, Some(2_500_000_000_000)),
        (0.0, Some(0)),
        (1e-7, Some(100_000)),
        (0.1, Some(100_000_000_000)),
        (0.300_000_000_000_000_04, Some(300_000_000_000)),
        (600.123_456, Some(600_123_456_000_000)),
        (1e6, Some(1_000_000_000_000_000_000)),
        (1e6 + 0.1, None),
        (-1.0, None),
        (f64::NAN, None),
        (f64::INFINITY, None),
    ] {
        assert_eq!(price(dollars), expected, "{dollars}");
    }
}

#[test]
fn the_table_that_is_built_in_is_whole() {
    assert_eq!(BUILT_IN.date.len(), "2026-11-29".len());
    assert!(2000 < BUILT_IN.models());
}

/// Returns a table of the package with one provider, which has one model.
fn table(names: &str, prices: &str) -> String {
    format!(r#"[{{"id":"acme","models":[{{"id":"m","match":{names},"prices":{prices}}}]}}]"#)
}

#[test]
fn a_table_of_one_s_own_stands_in_the_place_of_the_one_that_is_built_in() {
    let tiers = r#"{"input_mtok":{"base":1,"tiers":[{"start":400,"price":4},{"start":200,"price":2}]},"output_mtok":null,"x":"y"}"#;
    let plain = table(r#"{"equals":"My-Model"}"#, tiers);
    let dated = format!(r#"{{"date":"2026-11-02","providers":{plain}}}"#);
    for text in [plain, dated] {
        let own = Table::read(&text, "2026-11-02").unwrap();
        let prices = Prices::new(&PriceOptions::default(), Some(own));
        let acme = |input| {
            let provider = Some(Text::from_static("acme"));
            cost(&prices, Facts { provider, ..call("my-model", input, 7) })
        };
        let said = |nano| Some((nano, "table:2026-11-02".to_owned()));
        assert_eq!(
            [200, 201, 401].map(acme),
            [said(200), said(402), said(1604)].map(|it| it.map(|(n, s)| (n * 1000, s)))
        );
        assert_eq!(cost(&prices, call("gpt-4o", 1, 1)), None);
    }
}

#[test]
fn what_is_no_table_is_refused_with_the_place_and_without_a_panic() {
    let nested = "{\"or\":[".repeat(200) + "{\"equals\":\"x\"}" + &"]}".repeat(200);
    let equals = r#"{"equals":"m"}"#;
    for (text, what) in [
        (String::new(), "EOF while parsing"),
        ("[]".to_owned(), "no model"),
        ("{}".to_owned(), "missing field `providers`"),
        ("7".to_owned(), "invalid type: integer `7`"),
        (r#"{"gpt-4o":{"input_cost_per_token":1e-6}}"#.to_owned(), "missing field `providers`"),
        (r#"[{"id":"p"}]"#.to_owned(), "missing field `models` at line 1 column 11"),
        (table(&nested, "{}"), "recursion limit"),
        (table("null", "{}"), "at line 1 column"),
        (table(r#"{"sounds_like":"m"}"#, "{}"), "unknown variant `sounds_like`"),
        (table(r#"{"regex":"("}"#, "{}"), "regex parse error"),
        (table(r#"{"regex":"(a{1000}){1000}"}"#, "{}"), "size limit"),
        (table(r#"{"regex":"^(?!a"}"#, "{}"), "regex parse error"),
        (table(equals, r#"{"input_mtok":-1}"#), "`input_mtok` is not a price: -1"),
        (table(equals, r#"{"input_mtok":"1"}"#), "is not a price"),
        (table(equals, r#"{"input_mtok":{"base":1,"tiers":[{"start":1}]}}"#), "is not a price"),
        (table(equals, r#"[{"constraint":{"start_date":"soon"},"prices":{}}]"#), "no time"),
    ] {
        let problem = Table::read(&text, "").unwrap_err();
        assert!(problem.contains(what), "{text}: {problem}");
    }
}

#[test]
fn counts_beyond_all_bounds_have_no_cost() {
    let prices = prices("overrides.dear = { input = 1000000, output = 1000000 }");
    assert_eq!(cost(&prices, call("dear", u64::MAX, u64::MAX)), None);
    assert_eq!(cost(&prices, call("dear", 1, 0)).map(|(nano, _)| nano), Some(1_000_000_000));
}
