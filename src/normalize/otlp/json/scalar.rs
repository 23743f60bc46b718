//! Reads scalars in OTLP/JSON. Numbers may be strings and the reverse, enums may be names, and ids may be base64.

use crate::normalize::json::{Quoted, Token};
use crate::normalize::otlp::tally::{NO_SPAN_ID, NO_TRACE_ID, NoId};
use crate::normalize::tables::matches;
use crate::span::{SpanId, TraceId};
use crate::support::base64;

/// Reads a number or string as an integer, if it is one: `5`, `"5"`, `5.0` and `5e0` are the same.
pub(super) fn integer(token: Token<'_>) -> Option<i128> {
    match token {
        Token::Number(digits) => exact_integer(digits),
        Token::Text(text) => exact_integer(&text.text()),
        _ => None,
    }
}

/// Reads a number or string as a double, including proto3's `NaN` and infinities.
pub(super) fn double(token: Token<'_>) -> Option<f64> {
    match token {
        Token::Number(digits) => digits.parse().ok(),
        Token::Text(text) => text.text().parse().ok(),
        _ => None,
    }
}

/// Reads a boolean, also as a string.
pub(super) fn boolean(token: Token<'_>) -> Option<bool> {
    match token {
        Token::Bool(value) => Some(value),
        Token::Text(text) => text.text().parse().ok(),
        _ => None,
    }
}

/// Reads base64 in either alphabet, with or without padding.
pub(super) fn bytes(token: Token<'_>) -> Option<Vec<u8>> {
    match token {
        Token::Text(text) => base64::read(&text.text()),
        _ => None,
    }
}

/// Reads an enum: a number, also as a string, or a name, which some programs print without its prefix (`SERVER`, `Error`).
pub(super) fn enumeration(token: Token<'_>, names: &[&str]) -> Option<i32> {
    if let Some(number) = integer(token) {
        return i32::try_from(number).ok();
    }
    let Token::Text(text) = token else { return None };
    let name = text.text();
    let ending = format!("*_{name}");
    let number = names.iter().position(|known| *known == name || matches(&ending, known))?;
    i32::try_from(number).ok()
}

/// Parses a trace id: 32 hexadecimal digits, or base64. Base64 encodes the 16 bytes, as protobuf's JSON printers write ids, or the digits
/// (open-telemetry/opentelemetry-swift issue 537).
pub(super) fn trace_id(text: Quoted<'_>) -> Result<TraceId, &'static str> {
    id(&text.text(), 16, &NO_TRACE_ID, TraceId::from_hex, TraceId::from_slice)
}

/// Parses a span id: 16 hexadecimal digits, or base64 of 8 bytes or of the digits.
pub(super) fn span_id(text: Quoted<'_>) -> Result<SpanId, &'static str> {
    id(&text.text(), 8, &NO_SPAN_ID, SpanId::from_hex, SpanId::from_slice)
}

/// Only their length distinguishes ids in base64 from those in hexadecimal.
#[inline]
fn id<Id>(
    text: &str,
    bytes: usize,
    reasons: &NoId,
    from_hex: impl Fn(&str) -> Option<Id>,
    from_slice: impl Fn(&[u8]) -> Option<Id>,
) -> Result<Id, &'static str> {
    let base64 = |length: usize| {
        let digits = text.trim_end_matches('=').len();
        if digits == (4 * length).div_ceil(3) { base64::read(text) } else { None }
    };
    from_hex(text)
        .or_else(|| from_slice(&base64(bytes)?))
        .or_else(|| from_hex(str::from_utf8(&base64(2 * bytes)?).ok()?))
        .ok_or_else(|| no_id(text, 2 * bytes, reasons))
}

fn no_id(text: &str, digits: usize, reasons: &NoId) -> &'static str {
    if text.is_empty() {
        return reasons.missing;
    }
    let is_hex_zero = text.len() == digits && text.bytes().all(|digit| digit == b'0');
    let is_base64_zero =
        text.len() < digits && text.trim_end_matches('=').bytes().all(|digit| digit == b'A');
    if is_hex_zero || is_base64_zero { reasons.zero } else { reasons.no_digits }
}

/// Parses a decimal number with an optional point and exponent, without rounding. Returns `None` if it is not an integer or has more than
/// 38 digits.
fn exact_integer(text: &str) -> Option<i128> {
    // 19 digits, as times have, fit into 64 bits.
    if let 1..=19 = text.len()
        && let Some(number) = text.bytes().try_fold(0_u64, |number, byte| {
            let digit = byte.wrapping_sub(b'0');
            (digit < 10).then(|| number.wrapping_mul(10).wrapping_add(u64::from(digit)))
        })
    {
        return Some(i128::from(number));
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (is_negative, whole) = match whole.strip_prefix('-') {
        Some(whole) => (true, whole),
        None => (false, whole),
    };
    if whole.is_empty() {
        return None;
    }
    let mut number = 0_i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = char::from(digit).to_digit(10)?;
        number = number.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    let scale = i64::from(exponent) - i64::try_from(fraction.len()).ok()?;
    let factor =
        u32::try_from(scale.unsigned_abs()).ok().and_then(|scale| 10_i128.checked_pow(scale));
    let scaled = match factor {
        _ if number == 0 => 0,
        Some(factor) if 0 <= scale => number.checked_mul(factor)?,
        Some(factor) if number % factor == 0 => number / factor,
        _ => return None,
    };
    Some(if is_negative { -scaled } else { scaled })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_exact_in_every_spelling() {
        for (text, expected) in [
            ("5", Some(5)),
            ("-5", Some(-5)),
            ("5.0", Some(5)),
            ("1e3", Some(1000)),
            ("1.5E+1", Some(15)),
            ("1500e-2", Some(15)),
            ("0e999999999", Some(0)),
            ("0.000", Some(0)),
            ("1.544712660123456789e18", Some(1_544_712_660_123_456_789)),
            ("18446744073709551616", Some(18_446_744_073_709_551_616)),
            ("1.5", None),
            ("1e-1", None),
            ("1e999999999", None),
            ("1e99999999999", None),
            ("", None),
            ("-", None),
            ("abc", None),
            ("NaN", None),
            (".5", None),
            ("1e", None),
            (" 5", None),
            ("99999999999999999999999999999999999999999", None),
        ] {
            assert_eq!(exact_integer(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_number_reads_as_itself(number: u64, zeros in 0_usize..5) {
            let spelled = format!("{number}{}e-{zeros}", "0".repeat(zeros));
            prop_assert_eq!(exact_integer(&spelled), Some(i128::from(number)));
            prop_assert_eq!(exact_integer(&format!("-{number}.{}", "0".repeat(zeros))), Some(-i128::from(number)));
        }

        #[test]
        fn no_text_goes_wrong(text: String) {
            exact_integer(&text);
        }
    }
}
