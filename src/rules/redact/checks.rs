//! Tells matches from lookalikes: shapes, check digits, and patterns that regular expressions express badly.

use core::net::Ipv6Addr;
use std::ops::Range;

use memchr::{memchr_iter, memmem};

/// Returns whether a text has a shape from an index on: `0` stands for a digit, `?` for a separator.
#[inline]
fn fits<const LENGTH: usize>(text: &[u8], start: usize, shape: &[u8; LENGTH]) -> bool {
    let part = text.get(start..).and_then(<[u8]>::first_chunk::<LENGTH>);
    part.is_some_and(|part| {
        part.iter().zip(shape).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            b'?' => b" .-".contains(byte),
            other => byte == other,
        })
    })
}

fn byte(text: &[u8], at: usize) -> Option<u8> {
    text.get(at).copied()
}

pub(super) fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// Counts the bytes of a kind before this index, up to `most`.
fn count_before(text: &[u8], at: usize, most: usize, is_of_kind: impl Fn(u8) -> bool) -> usize {
    let before = text.get(..at).unwrap_or_default().iter().rev();
    before.take(most).take_while(|byte| is_of_kind(**byte)).count()
}

fn count_from(text: &[u8], at: usize, most: usize, is_of_kind: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(at..).unwrap_or_default().iter();
    rest.take(most).take_while(|byte| is_of_kind(**byte)).count()
}

/// A longer run without a break is an image or the like, not a key; the longest keys have about 200 bytes.
const PAYLOAD_BYTES_MIN: usize = 512;

/// Returns whether an index lies in base64 of a payload. Such text is left alone, because a key in it is a coincidence, and redaction would
/// break the payload.
pub(super) fn is_in_base64(text: &[u8], at: usize) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte);
    let before = count_before(text, at, PAYLOAD_BYTES_MIN, is_base64);
    let data_url = text.get(..at - before).unwrap_or_default().ends_with(b";base64,");
    data_url || before + count_from(text, at, PAYLOAD_BYTES_MIN, is_base64) >= PAYLOAD_BYTES_MIN
}

pub(super) fn has_digit(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_digit)
}

// === Numbers ===

pub(super) const CARD_DIGITS_MIN: usize = 13;

/// Counts digits from an index on, with up to `gap` separators before each. Slashes may be escaped.
fn count_digits(text: &[u8], start: usize, separators: &[u8], gap: usize) -> usize {
    let (mut count, mut since) = (0, 0);
    for byte in text.get(start..).unwrap_or_default() {
        match byte {
            b'0'..=b'9' => (count, since) = (count + 1, 0),
            b'\\' => {}
            byte if since < gap && separators.contains(byte) => since += 1,
            _ => break,
        }
        if count == CARD_DIGITS_MIN {
            break;
        }
    }
    count
}

/// Returns where a card number may start: at a long run of digits, or at four digits that others follow.
pub(super) fn card_start(text: &[u8], at: usize) -> Option<usize> {
    let is_long = byte(text, at + 3).is_some_and(|byte| byte.is_ascii_digit());
    let start = if is_long { at } else { at.checked_sub(1)? };
    // The beginnings of `is_card`.
    let is_card = matches!(text.get(start..)?, [b'2', b'2'..=b'7', ..] | [b'3'..=b'6', ..]);
    (is_card && count_digits(text, start, b" -", 1) == CARD_DIGITS_MIN).then_some(start)
}

/// Returns the longest valid run of characters below the radix that starts here, with single separators where `may_separate` allows them.
fn longest(
    text: &[u8],
    start: usize,
    radix: u32,
    may_separate: impl Fn(u8, usize) -> bool,
    lengths: Range<usize>,
    is_one: impl Fn(&[u32]) -> bool,
) -> Option<Range<usize>> {
    let mut characters = Vec::with_capacity(lengths.end);
    let mut found = None;
    for (at, byte) in text.iter().copied().enumerate().skip(start) {
        let goes_on = is_word(self::byte(text, at + 1));
        match char::from(byte).to_digit(radix).filter(|_| !byte.is_ascii_lowercase()) {
            Some(value) => characters.push(value),
            None if goes_on && may_separate(byte, characters.len()) => continue,
            None => break,
        }
        if !goes_on && lengths.contains(&characters.len()) && is_one(&characters) {
            found = Some(start..at + 1);
        }
        if characters.len() + 1 == lengths.end {
            break;
        }
    }
    found
}

/// Returns the longest card number that starts here. Single spaces or hyphens may separate its digits.
pub(super) fn card(text: &[u8], start: usize) -> Option<Range<usize>> {
    longest(text, start, 10, |byte, _| b" -".contains(&byte), CARD_DIGITS_MIN..20, is_card)
}

/// Returns whether digits are a card number: the lengths and prefixes of issuers (ISO/IEC 7812), and Luhn's check digit.
fn is_card(digits: &[u32]) -> bool {
    let beginning = digits.iter().take(4).fold(0, |number, digit| number * 10 + digit);
    let lengths: &[usize] = match beginning {
        3400..=3499 | 3700..=3799 => &[15],
        3000..=3059 | 3600..=3699 | 3800..=3999 => &[14],
        4000..=4999 => &[13, 16, 19],
        2221..=2720 | 3528..=3589 | 5100..=5599 => &[16],
        5000..=5099 | 5600..=5899 | 6000..=6999 => &[13, 14, 15, 16, 17, 18, 19],
        _ => return false,
    };
    let luhn = digits.iter().rev().enumerate().map(|(place, digit)| match place % 2 {
        0 => *digit,
        _ => digit * 2 / 10 + digit * 2 % 10,
    });
    lengths.contains(&digits.len()) && luhn.sum::<u32>().is_multiple_of(10)
}

const IBAN_CHARS_MIN: usize = 15;

/// Returns where an IBAN may start: at the two letters before two check digits.
pub(super) fn iban_start(text: &[u8], at: usize) -> Option<usize> {
    let is_part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
    (count_from(text, at, IBAN_CHARS_MIN, is_part) == IBAN_CHARS_MIN).then_some(at)
}

/// Returns the longest IBAN that starts at the two letters; the shortest are Norway's, with 15 characters. Spaces may separate groups of
/// four.
pub(super) fn iban(text: &[u8], start: usize) -> Option<Range<usize>> {
    let may_separate = |byte, count| byte == b' ' && count % 4 == 0;
    longest(text, start, 36, may_separate, IBAN_CHARS_MIN..35, is_one_modulo_97)
}

/// Verifies the check digits (ISO 13616: 1 modulo 97, with the first four characters moved to the end).
fn is_one_modulo_97(characters: &[u32]) -> bool {
    let (first, rest) = characters.split_at(4.min(characters.len()));
    let number = rest.iter().chain(first).fold(0, |rest, &value| {
        let shifted = if value < 10 { rest * 10 } else { rest * 100 };
        (shifted + value) % 97
    });
    number == 1
}

/// Returns the social security number at the first of its digits, if it may have been issued.
pub(super) fn ssn(text: &[u8], at: usize) -> Option<Range<usize>> {
    const SHAPE: &[u8; 11] = b"000-00-0000";
    let number = text.get(at..at + SHAPE.len()).filter(|_| fits(text, at, SHAPE))?;
    let is_issued = !matches!(
        number,
        [b'0', b'0', b'0', ..] | [b'6', b'6', b'6', ..] | [b'9', ..] | [.., b'0', b'0', b'0', b'0']
    ) && number.get(4..6) != Some(b"00");
    is_issued.then_some(at..at + SHAPE.len())
}

pub(super) fn phone_start(text: &[u8], at: usize) -> Option<usize> {
    if byte(text, at) == Some(b'+') {
        return (count_digits(text, at + 1, b" ./()-", 2) >= PHONE_DIGITS_MIN).then_some(at);
    }
    let before = |count: usize| at.checked_sub(count);
    if fits(text, at, b"000?000?0000") {
        let is_country = |start: &usize| {
            let before = start.checked_sub(1).and_then(|before| byte(text, before));
            let goes_on =
                is_word(before) || before.is_some_and(|before| PHONE_JOINTS.contains(&before));
            fits(text, *start, b"1?") && !goes_on
        };
        return before(2).filter(is_country).or(Some(at));
    }
    let of_area = |start: &usize| fits(text, *start, b"(000)");
    let area = || before(5).filter(of_area).or_else(|| before(6).filter(of_area));
    fits(text, at, b"000?0000").then(area).flatten()
}

/// Bytes before a digit of which a phone number is not the beginning.
pub(super) const PHONE_JOINTS: &[u8] = b"-./";
/// Digits of the shortest international number.
const PHONE_DIGITS_MIN: usize = 8;

// === Addresses ===

pub(super) fn ipv4_start(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1;
    for _ in 0..3 {
        if byte(text, end) != Some(b'.') {
            return None;
        }
        end += 1 + count_from(text, end + 1, 4, |byte| byte.is_ascii_digit());
    }
    Some(at + 1 - count_before(text, at + 1, 3, |byte| byte.is_ascii_digit()))
}

/// Returns the IPv4 address that starts here. No fifth number follows.
pub(super) fn ipv4(text: &[u8], start: usize) -> Option<Range<usize>> {
    let mut end = start;
    for point in [false, true, true, true] {
        if point && byte(text, end) != Some(b'.') {
            return None;
        }
        end += usize::from(point);
        let octet = end..end + count_from(text, end, 4, |byte| byte.is_ascii_digit());
        str::from_utf8(text.get(octet.clone())?).ok()?.parse::<u8>().ok()?;
        end = octet.end;
    }
    let goes_on = matches!(text.get(end..), Some([b'.', b'0'..=b'9', ..]));
    (!goes_on).then_some(start..end)
}

/// Maximum length of an IPv6 address as text.
const IPV6_BYTES_MAX: usize = 45;

/// Returns the text around a place that consists of what IPv6 addresses consist of.
fn ipv6_around(text: &[u8], at: usize) -> Range<usize> {
    let is_part = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    at - count_before(text, at, IPV6_BYTES_MAX, is_part)
        ..at + count_from(text, at, IPV6_BYTES_MAX, is_part)
}

/// Returns whether a colon may be the first in an IPv6 address, which has digits, and two colons in a row or six.
pub(super) fn ipv6_start(text: &[u8], at: usize) -> Option<usize> {
    let (mut colons, mut length) = (1, 0);
    for byte in text.get(at + 1..)? {
        match byte {
            b':' if length == 0 || colons == 5 => {
                let around = text.get(ipv6_around(text, at))?;
                return has_digit(around).then_some(at);
            }
            b':' => (colons, length) = (colons + 1, 0),
            byte if byte.is_ascii_hexdigit() && length < 4 => length += 1,
            _ => break,
        }
    }
    None
}

/// Returns the IPv6 address around a place. Without a digit, or with a single group, it is a path in a program or not a real address.
pub(super) fn ipv6(text: &[u8], at: usize) -> Option<Range<usize>> {
    let Range { start, mut end } = ipv6_around(text, at);
    if is_word(start.checked_sub(1).and_then(|before| byte(text, before))) {
        return None;
    }
    // A final full stop or colon is not part of it.
    while let Some(b'.') = byte(text, end - 1) {
        end -= 1;
    }
    if text.get(..end)?.ends_with(b":") && !text.get(..end)?.ends_with(b"::") {
        end -= 1;
    }
    let address = text.get(start..end).filter(|_| !is_word(byte(text, end)))?;
    let groups = address.split(|byte| *byte == b':').filter(|group| !group.is_empty()).count();
    let is_address = str::from_utf8(address).ok()?.parse::<Ipv6Addr>().is_ok();
    (is_address && groups >= 2 && has_digit(address)).then_some(start..end)
}

/// Maximum length of the local part (RFC 5321).
const LOCAL_PART_BYTES_MAX: usize = 64;
/// Maximum length of a host name (RFC 1035).
const DOMAIN_BYTES_MAX: usize = 253;

pub(super) fn email(text: &[u8], at: usize) -> Option<Range<usize>> {
    let is_local = |byte: u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte);
    let is_domain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    let start = at - count_before(text, at, LOCAL_PART_BYTES_MAX, is_local);
    if start == at {
        return None;
    }
    let length = count_from(text, at + 1, DOMAIN_BYTES_MAX, is_domain);
    let domain = text.get(at + 1..at + 1 + length)?;
    // It ends after the last dot that two letters follow.
    let top_of =
        |point: usize| count_from(domain, point + 1, length, |byte| byte.is_ascii_alphabetic());
    let points = (1..length).rev().filter(|point| domain.get(*point) == Some(&b'.'));
    let end = points.map(|point| (point, top_of(point))).find(|(_, letters)| *letters >= 2);
    let end = end.map(|(point, letters)| at + 2 + point + letters)?;
    is_word(domain.first().copied()).then_some(start..end)
}

/// Returns the password before the `@` of a URL, whose slashes may be escaped.
pub(super) fn password(text: &[u8], at: usize) -> Option<Range<usize>> {
    let is_part = |byte: u8| byte > b' ' && !b"\"'<>/@".contains(&byte);
    let start = at - count_before(text, at, usize::MAX, is_part);
    let before = text.get(..start)?;
    let (scheme, slashes) = before
        .split_at(before.len() - count_before(before, start, 16, |byte| b"/\\".contains(&byte)));
    if !scheme.ends_with(b":") || memchr_iter(b'/', slashes).count() != 2 {
        return None;
    }
    let colon = text.get(start..at)?.iter().position(|byte| *byte == b':')?;
    let password = start + colon + 1..at;
    let is_masked =
        text.get(password.clone())?.starts_with(b"[") && byte(text, at - 1) == Some(b']');
    (!password.is_empty() && !is_masked && is_word(byte(text, at + 1))).then_some(password)
}

/// Maximum length of a PEM key that is searched for its end.
const PEM_BYTES_MAX: usize = 16 << 10;

/// Returns a PEM private key from its first line to the end of its last, or as far as it goes.
pub(super) fn private_key(text: &[u8], start: usize) -> Option<Range<usize>> {
    const FIRST: &[u8] = b"PRIVATE KEY-----";
    const LAST: &[u8] = b"-----END ";
    let rest = text.get(start..)?;
    let window = rest.get(..PEM_BYTES_MAX.min(rest.len()))?;
    let label = window.get(..64.min(window.len()))?;
    let body = memmem::find(label, FIRST)? + FIRST.len();
    let is_body = |byte: u8| {
        byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b"+/=\\".contains(&byte)
    };
    let length = match memmem::find(window, LAST) {
        Some(last) => {
            let after = window.get(last..)?;
            memmem::find(after, FIRST).map_or(last + LAST.len(), |end| last + end + FIRST.len())
        }
        None => body + count_from(window, body, PEM_BYTES_MAX, is_body),
    };
    Some(start..start + length)
}
