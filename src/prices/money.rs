//! Money without rounding: the price of a token is a whole number of 10^-18 dollars, and what a span cost is rounded once, to a billionth
//! of a dollar. Pure.
//!
//! Counts are inclusive, and prices are of what is nested: a cached token is an input token, and is paid for as the innermost of the
//! units that has a price. What a part has no price for is paid for as its whole.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::span::{Cost, Usage};
use crate::support::number::as_f64;

/// 10^-18 dollars a token, which is 10^-12 dollars a million tokens.
type Price = u64;

/// A dollar a million tokens.
const DOLLAR: f64 = 1e12;
/// The most that a million tokens, or a thousand requests, may cost in dollars. More is a mistake, and no sum of prices gets to the end of
/// its type.
pub(super) const DOLLARS_MAX: f64 = 1e6;
/// A billionth of a dollar.
const NANO: u128 = 1_000_000_000;
/// A price of a thousand requests is read like that of a million tokens: one request is so many of these.
const TOKENS_PER_REQUEST: u64 = 1000;

/// What has a price.
struct Unit {
    /// Its name in a table.
    key: &'static str,
    /// What it is a part of.
    whole: Option<usize>,
    /// Which of the sums its price is in.
    sum: usize,
    /// How many there are of it, its parts among them.
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

/// Parts stand before what they are a part of.
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

/// What the tokens of a model cost: units with their prices, in the order of [`UNITS`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub(super) struct Rates(Vec<(usize, Rate)>);

/// The price of a unit, and those that hold for all its tokens once the input has more than so many, in the order of these counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rate {
    base: Price,
    tiers: Vec<(u64, Price)>,
}

impl TryFrom<Map<String, Value>> for Rates {
    type Error = String;

    /// What spans do not count is left out.
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

    /// What these tokens cost; `None` where the counts contradict each other, or say too little.
    pub(super) fn cost_of(&self, usage: &Usage) -> Option<Cost> {
        let is_some = |count: Option<u64>| count.is_some_and(|count| count != 0);
        // How much of what was cached is audio is not said.
        if self.has(CACHED_AUDIO) && is_some(usage.cached_read) && is_some(usage.input_audio) {
            return None;
        }
        let counts = UNITS.map(|unit| (unit.count)(usage).unwrap_or_default());
        // Without the parts that have prices of their own.
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
                // More in it than there is.
                *left = left.checked_sub(*counts.get(*place)?)?;
            }
        }
        let [input, output, requests] = sums;
        let total = nanos(input + output + requests)?;
        // The parts add up to the whole, so the rounding of one falls to the other.
        let input = nanos(input)?;
        let output = if requests == 0 { total.checked_sub(input)? } else { nanos(output)? };
        Some(cost(input, output, total))
    }

    /// Each price by its name in tables, in words.
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

/// As the span model has it. Up to nine million dollars the number reads back as the same billionths.
fn cost(input: u64, output: u64, total: u64) -> Cost {
    let dollars = |nanos: u64| Some(as_f64(nanos) / 1e9);
    Cost { input: dollars(input), output: dollars(output), total: dollars(total) }
}

/// The price of a token from dollars a million tokens; `None` for what is no price.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "in the bounds of a price"
)]
pub(super) fn price(dollars: f64) -> Option<Price> {
    (0.0..=DOLLARS_MAX).contains(&dollars).then(|| (dollars * DOLLAR).round() as Price)
}

/// Dollars a million tokens.
fn dollars(price: Price) -> f64 {
    as_f64(price) / DOLLAR
}
