//! Money without rounding: the price of a token is a whole number of 10^-18 dollars, and the cost of a span is rounded once, to a billionth
//! of a dollar. Pure.
//!
//! Counts are inclusive, and prices apply to nested units: a cached token is an input token, and is charged as the innermost unit with a
//! price. A part without a price is charged as its whole.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::span::{Cost, Usage};
use crate::support::number::as_f64;

/// In 10^-18 dollars per token, which is 10^-12 dollars per million tokens.
type Price = u64;

/// One dollar per million tokens.
const DOLLAR: f64 = 1e12;
/// The maximum price in dollars of a million tokens, or of a thousand requests. More is a mistake, and the limit prevents overflows of
/// sums.
pub(super) const DOLLARS_MAX: f64 = 1e6;
/// A billionth of a dollar.
const NANO: u128 = 1_000_000_000;
/// The price of a thousand requests is read like that of a million tokens: one request counts as so many tokens.
const TOKENS_PER_REQUEST: u64 = 1000;

/// A unit with a price.
struct Unit {
    /// Its name in a table.
    key: &'static str,
    /// The unit that it is a part of.
    whole: Option<usize>,
    /// The index of the sum that includes its price.
    sum: usize,
    /// Returns its count, including its parts.
    count: fn(&Usage) -> Option<u64>,
}

const fn unit(
    key: &'static str,
    whole: Option<usize>,
    sum: usize,
    count: fn(&Usage) -> Option<u64>,
) -> Unit {
    Unit { key, whole, sum, count }
}

const CACHED_AUDIO: usize = 2;
const CACHE_WRITE: usize = 3;
const INPUT: usize = 5;
const OUTPUT: usize = 8;

/// Parts precede the units that they belong to.
const UNITS: [Unit; 10] = [
    unit("cache_write_1h_mtok", Some(CACHE_WRITE), 0, |usage| usage.cache_write_1h),
    unit("cache_read_mtok", Some(INPUT), 0, |usage| usage.cached_read),
    unit("cache_audio_read_mtok", None, 0, |_| None),
    unit("cache_write_mtok", Some(INPUT), 0, |usage| usage.cache_write),
    unit("input_audio_mtok", Some(INPUT), 0, |usage| usage.input_audio),
    unit("input_mtok", None, 0, |usage| usage.input),
    unit("output_audio_mtok", Some(OUTPUT), 1, |usage| usage.output_audio),
    unit("output_reasoning_mtok", Some(OUTPUT), 1, |usage| usage.reasoning),
    unit("output_mtok", None, 1, |usage| usage.output),
    unit("requests_kcount", None, 2, |_| Some(TOKENS_PER_REQUEST)),
];

/// The prices of a model's tokens: units with their prices, in the order of [`UNITS`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub(super) struct Rates(Vec<(usize, Rate)>);

/// The price of a unit, and the prices of all its tokens once the input exceeds certain counts, in ascending order of these.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rate {
    base: Price,
    tiers: Vec<(u64, Price)>,
}

impl TryFrom<Map<String, Value>> for Rates {
    type Error = String;

    /// Skips units that spans do not count.
    fn try_from(prices: Map<String, Value>) -> Result<Self, String> {
        let known = UNITS.iter().enumerate();
        let known =
            known.filter_map(|(unit, Unit { key, .. })| Some((unit, key, prices.get(*key)?)));
        let rates = known.filter(|(.., value)| !value.is_null()).map(|(unit, key, value)| {
            let rate =
                Rate::read(value).ok_or_else(|| format!("`{key}` is not a price: {value}"))?;
            Ok((unit, rate))
        });
        rates.collect::<Result<_, _>>().map(Self)
    }
}

impl Rate {
    fn read(value: &Value) -> Option<Self> {
        let number = |value: &Value| price(value.as_f64()?);
        let Value::Object(tiered) = value else {
            return Some(Self { base: number(value)?, tiers: Vec::new() });
        };
        let tier = |tier: &Value| Some((tier.get("start")?.as_u64()?, number(tier.get("price")?)?));
        let tiers = tiered.get("tiers")?.as_array()?.iter().map(tier);
        let mut tiers = tiers.collect::<Option<Vec<_>>>()?;
        tiers.sort_unstable();
        Some(Self { base: number(tiered.get("base")?)?, tiers })
    }

    fn at(&self, input_tokens: u64) -> Price {
        let reached = self.tiers.iter().rfind(|(start, _)| *start < input_tokens);
        reached.map_or(self.base, |(_, price)| *price)
    }
}

impl Rates {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, unit: usize) -> bool {
        self.0.iter().any(|(known, _)| *known == unit)
    }

    /// Returns the cost of these tokens; `None` if the counts contradict each other or are insufficient.
    pub(super) fn cost_of(&self, usage: &Usage) -> Option<Cost> {
        let is_some = |count: Option<u64>| count.is_some_and(|count| count != 0);
        // How many of the cached tokens are audio is unknown.
        if self.has(CACHED_AUDIO) && is_some(usage.cached_read) && is_some(usage.input_audio) {
            return None;
        }
        let counts = UNITS.map(|unit| (unit.count)(usage).unwrap_or_default());
        // Without the parts that have their own prices.
        let mut rest = counts;
        let mut sums = [0_u128; 3];
        for (place, rate) in &self.0 {
            let unit = UNITS.get(*place)?;
            let price = rate.at(usage.input.unwrap_or_default());
            *sums.get_mut(unit.sum)? += u128::from(price) * u128::from(*rest.get(*place)?);
            let mut whole = unit.whole;
            while let Some(unpriced) = whole.filter(|whole| !self.has(*whole)) {
                whole = UNITS.get(unpriced)?.whole;
            }
            if let Some(whole) = whole {
                let left = rest.get_mut(whole)?;
                // Fails if the parts exceed the whole.
                *left = left.checked_sub(*counts.get(*place)?)?;
            }
        }
        let [input, output, requests] = sums;
        let total = nanos(input + output + requests)?;
        // The parts add up to the total, so one absorbs the rounding of the other.
        let input = nanos(input)?;
        let output = if requests == 0 { total.checked_sub(input)? } else { nanos(output)? };
        Some(cost(input, output, total))
    }

    /// Returns each price by its name in tables, formatted for people.
    pub(super) fn in_words(&self) -> Vec<(&'static str, String)> {
        let words = |rate: &Rate| {
            let tiers = rate.tiers.iter();
            let tiers = tiers
                .map(|(start, price)| format!(", {} above {start} input tokens", dollars(*price)));
            std::iter::once(dollars(rate.base).to_string()).chain(tiers).collect::<String>()
        };
        let rates = self.0.iter();
        rates.filter_map(|(unit, rate)| Some((UNITS.get(*unit)?.key, words(rate)))).collect()
    }
}

fn nanos(money: u128) -> Option<u64> {
    u64::try_from((money + NANO / 2) / NANO).ok()
}

/// Converts sums to the span model. Up to nine million dollars, the number reads back as the same billionths.
fn cost(input: u64, output: u64, total: u64) -> Cost {
    let dollars = |nanos: u64| Some(as_f64(nanos) / 1e9);
    Cost { input: dollars(input), output: dollars(output), total: dollars(total) }
}

/// Returns the price of a token from dollars per million tokens; `None` if it is not a valid price.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "in the bounds of a price"
)]
pub(super) fn price(dollars: f64) -> Option<Price> {
    (0.0..=DOLLARS_MAX).contains(&dollars).then(|| (dollars * DOLLAR).round() as Price)
}

/// Returns dollars per million tokens.
fn dollars(price: Price) -> f64 {
    as_f64(price) / DOLLAR
}
