//! Money without rounding: prices of a token are whole numbers of 10^-24 dollars, and what a span cost is rounded once, to a billionth of
//! a dollar. Pure.
//!
//! Counts are inclusive, and prices are of what is nested: a cached token is an input token, and is paid for as the innermost of the
//! units that has a price. What a part has no price for is paid for as its whole.

use crate::span::{Cost, Usage};

/// 10^-24 dollars a token: eighteen digits of a dollar a million tokens.
pub(super) type Price = u128;

/// Digits of a dollar a million tokens that are kept.
const DIGITS: i32 = 18;
/// A dollar a million tokens.
const DOLLAR: Price = 1_000_000_000_000_000_000;
/// The most that a million tokens, or a thousand requests, may cost in dollars. More is a mistake, and sums stay far from their bounds.
pub(super) const DOLLARS_MAX: u64 = 1_000_000;
/// A billionth of a dollar.
const NANO: u128 = 1_000_000_000_000_000;
/// A price of a thousand requests is read like that of a million tokens: one request is so many of these.
const TOKENS_PER_REQUEST: u64 = 1000;

/// What has a price: its name in a table, and the units inside it, innermost first.
struct Unit {
    key: &'static str,
    inside: &'static [usize],
}

const INPUT: usize = 6;
const OUTPUT: usize = 7;
const REQUESTS: usize = 9;

/// Units inside others stand before these.
const UNITS: [Unit; 10] = [
    Unit { key: "cache_write_1h_mtok", inside: &[] },
    Unit { key: "cache_audio_read_mtok", inside: &[] },
    Unit { key: "cache_read_mtok", inside: &[1] },
    Unit { key: "cache_write_mtok", inside: &[0] },
    Unit { key: "input_audio_mtok", inside: &[1] },
    Unit { key: "output_audio_mtok", inside: &[] },
    Unit { key: "input_mtok", inside: &[0, 1, 2, 3, 4] },
    Unit { key: "output_mtok", inside: &[5, 8] },
    Unit { key: "output_reasoning_mtok", inside: &[] },
    Unit { key: "requests_kcount", inside: &[] },
];

/// In which order what is inside comes first.
const INNERMOST_FIRST: [usize; 10] = [0, 1, 2, 3, 4, 5, 8, 6, 7, 9];

/// What the tokens of a model cost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rates(Vec<(usize, Rate)>);

/// The price of a unit, and those that hold for all its tokens once the input has more than so many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) base: Price,
    /// In the order of their starts.
    pub(super) tiers: Vec<(u64, Price)>,
}

/// Billionths of a dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nanos {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) total: u64,
}

impl Rate {
    fn at(&self, input_tokens: u64) -> Price {
        let reached = self.tiers.iter().rfind(|(start, _)| *start < input_tokens);
        reached.map_or(self.base, |(_, price)| *price)
    }
}

impl Rates {
    /// Sets the price of a unit. A name that is none of a unit's that spans count is left out.
    pub(super) fn set(&mut self, key: &str, rate: Rate) {
        if let Some(unit) = UNITS.iter().position(|unit| unit.key == key) {
            self.0.push((unit, rate));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&self, unit: usize) -> Option<&Rate> {
        self.0.iter().find(|(known, _)| *known == unit).map(|(_, rate)| rate)
    }

    /// What these tokens cost; `None` where nothing has a price or the counts contradict each other.
    pub(super) fn cost_of(&self, usage: &Usage) -> Option<Nanos> {
        if self.is_empty() {
            return None;
        }
        let counts = counts_of(usage);
        let input_tokens = usage.input.unwrap_or_default();
        let (mut left, mut money) = ([0_u64; UNITS.len()], [0_u128; UNITS.len()]);
        for unit in INNERMOST_FIRST {
            let Some(rate) = self.of(unit) else { continue };
            let inside = UNITS.get(unit)?.inside.iter();
            let inside = inside
                .filter_map(|inner| left.get(*inner))
                .try_fold(0_u64, |sum, count| sum.checked_add(*count))?;
            // More in it than there is.
            let count = counts.get(unit).copied()??.checked_sub(inside)?;
            *left.get_mut(unit)? = count;
            *money.get_mut(unit)? = rate.at(input_tokens).checked_mul(count.into())?;
        }
        // Of a unit with all that is inside it.
        let sum = |unit: usize| {
            let units = UNITS.get(unit)?.inside.iter().chain([&unit]);
            let mut amounts = units.filter_map(|unit| money.get(*unit));
            amounts.try_fold(0_u128, |sum, amount| sum.checked_add(*amount))
        };
        let (input, output, requests) = (sum(INPUT)?, sum(OUTPUT)?, sum(REQUESTS)?);
        let total = nanos(input.checked_add(output)?.checked_add(requests)?)?;
        // The parts add up to the whole, so the rounding of one falls to the other.
        let input = nanos(input)?;
        let output = if requests == 0 { total.checked_sub(input)? } else { nanos(output)? };
        Some(Nanos { input, output, total })
    }

    /// Each price with its name in tables.
    pub(super) fn by_key(&self) -> impl Iterator<Item = (&'static str, &Rate)> {
        // A million tokens first that go in, then those that come out.
        let order = [INPUT, 2, 3, 0, 4, 1, OUTPUT, 8, 5, REQUESTS];
        order.into_iter().filter_map(|unit| Some((UNITS.get(unit)?.key, self.of(unit)?)))
    }

    /// The same for people.
    pub(super) fn in_words(&self) -> Vec<(&'static str, String)> {
        let words = |rate: &Rate| {
            let tiers = rate
                .tiers
                .iter()
                .map(|(start, price)| format!(", {} above {start} input tokens", dollars(*price)));
            std::iter::once(dollars(rate.base)).chain(tiers).collect::<String>()
        };
        self.by_key().map(|(key, rate)| (key, words(rate))).collect()
    }
}

/// How many there are of each unit; `None` where that is not known.
fn counts_of(usage: &Usage) -> [Option<u64>; UNITS.len()] {
    let all = |count: Option<u64>| Some(count.unwrap_or_default());
    let is_some = |count: Option<u64>| count.unwrap_or_default() != 0;
    // How much of what was cached is audio is not said.
    let cached_audio = !(is_some(usage.cached_read) && is_some(usage.input_audio));
    [
        all(usage.cache_write_1h),
        cached_audio.then_some(0),
        all(usage.cached_read),
        all(usage.cache_write),
        all(usage.input_audio),
        all(usage.output_audio),
        all(usage.input),
        all(usage.output),
        all(usage.reasoning),
        Some(TOKENS_PER_REQUEST),
    ]
}

fn nanos(money: u128) -> Option<u64> {
    u64::try_from((money + NANO / 2) / NANO).ok()
}

/// As the span model has it. Up to nine million dollars the number reads back as the same billionths.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 billionths")]
pub(super) fn cost(input: u64, output: u64, total: u64) -> Cost {
    let dollars = |nanos: u64| Some(nanos as f64 / 1e9);
    Cost { input: dollars(input), output: dollars(output), total: dollars(total) }
}

/// The price of a token from dollars a million tokens, as they are written: `2.5`, `1e-7`. `None` for what is no price.
pub(super) fn price(written: &str) -> Option<Price> {
    price_of(written, 0)
}

/// The price of a token from dollars a token.
pub(super) fn price_of_one(written: &str) -> Option<Price> {
    price_of(written, 6)
}

fn price_of(written: &str, shift: i32) -> Option<Price> {
    let (mantissa, exponent) = match written.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (written, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: u128 = digits.parse().ok()?;
    let fraction = i32::try_from(fraction.len()).ok()?;
    let power = DIGITS.checked_add(exponent)?.checked_add(shift)?;
    let power = power.checked_sub(fraction)?;
    let scale = 10_u128.checked_pow(power.unsigned_abs());
    let price = match (power < 0, scale) {
        // Digits beyond those that are kept.
        (true, scale) => scale.map_or(0, |scale| (digits + scale / 2) / scale),
        (false, scale) => digits.checked_mul(scale?)?,
    };
    (price <= u128::from(DOLLARS_MAX) * DOLLAR).then_some(price)
}

/// Dollars a million tokens, as people write them.
pub(super) fn dollars(price: Price) -> String {
    let text = format!("{}.{:018}", price / DOLLAR, price % DOLLAR);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
