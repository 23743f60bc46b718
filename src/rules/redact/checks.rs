//! Tells matches from lookalikes: shapes, check digits, and patterns that regular expressions express badly.

use core::net::Ipv6Addr;
use std::ops::Range;

use memchr::{memchr_iter, memmem};

/// A run of digits, or a colon. In a wire, digits of other texts may stand next to those of a text. So a number is recognized by its last
/// digits and what follows them, or by what precedes its first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) text: &'a [u8],
    pub(super) start: usize,
    /// The index after the last digit.
    pub(super) end: usize,
}

impl Run<'_> {
    /// Returns the index of the last `count` bytes, if the text has this shape from there.
    fn shape(&self, count: usize, shape: &[u8]) -> Option<usize> {
        self.end.checked_sub(count).filter(|start| fits(self.text, *start, shape))
    }
}

/// Returns whether a text has a shape from an index on: `0` stands for a digit, `A` for a capital, `-` for a separator.
fn fits(text: &[u8], start: usize, shape: &[u8]) -> bool {
    let part = text.get(start..).and_then(|rest| rest.get(..shape.len()));
    part.is_some_and(|part| {
        part.iter().zip(shape).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            b'A' => byte.is_ascii_uppercase(),
            b'-' => b" .-".contains(byte),
            other => byte == other,
        })
    })
}

/// Returns whether digits or a colon may be in a match, by the bytes next to them; most runs are short and isolated.
pub(super) fn may_tell(text: &[u8], Range { start, end }: Range<usize>) -> bool {
    let byte = |at: usize| text.get(at).copied().unwrap_or_default();
    let before = byte(start.wrapping_sub(1));
    let goes_on = match byte(end) {
        b' ' | b'.' | b'-' => byte(end + 1).is_ascii_digit(),
        b')' => before == b'(',
        next => next.is_ascii_digit(),
    };
    goes_on
        || before == b'+'
        || before.is_ascii_uppercase() && byte(start.wrapping_sub(2)).is_ascii_uppercase()
        || end - start >= CARD_DIGITS_MIN
        || byte(start) == b':'
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

/// Keys contain digits; text without any is words with hyphens.
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
pub(super) fn card_start(run: &Run<'_>) -> Option<usize> {
    let is_long = |start: &usize| count_digits(run.text, *start, b" -", 1) == CARD_DIGITS_MIN;
    let start = match run.end - run.start {
        CARD_DIGITS_MIN.. => run.start,
        _ => run.shape(4, b"0000-0").filter(is_long)?,
    };
    let mut firsts =
        run.text.get(start..=start.max(run.end.saturating_sub(CARD_DIGITS_MIN)))?.iter();
    firsts.any(|digit| (b'2'..=b'6').contains(digit)).then_some(start)
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
pub(super) fn iban_start(run: &Run<'_>) -> Option<usize> {
    let start = run.start.checked_sub(2).filter(|start| fits(run.text, *start, b"AA00"))?;
    let is_part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
    (count_from(run.text, start, IBAN_CHARS_MIN, is_part) == IBAN_CHARS_MIN).then_some(start)
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

pub(super) fn ssn_start(run: &Run<'_>) -> Option<usize> {
    run.shape(3, b"000-00-0000")
}

/// Returns whether a social security number may have been issued.
pub(super) fn is_ssn(text: &[u8]) -> bool {
    let (area, group, serial) = (text.get(..3), text.get(4..6), text.get(7..11));
    !matches!(area, Some(b"000" | b"666" | [b'9', ..]))
        && group != Some(b"00")
        && serial != Some(b"0000")
}

pub(super) fn phone_start(run: &Run<'_>) -> Option<usize> {
    let is_international = |start: &usize| {
        byte(run.text, *start) == Some(b'+')
            && count_digits(run.text, run.start, b" ./()-", 2) >= PHONE_DIGITS_MIN
    };
    let international = run.start.checked_sub(1).filter(is_international);
    international
        .or_else(|| run.shape(4, b"(000)000-0000"))
        .or_else(|| run.shape(4, b"(000) 000-0000"))
        .or_else(|| run.shape(3, b"000-000-0000"))
        .or_else(|| run.shape(1, b"1-000-000-0000"))
}

/// Digits of the shortest international number.
const PHONE_DIGITS_MIN: usize = 8;

// === Addresses ===

pub(super) fn ipv4_start(run: &Run<'_>) -> Option<usize> {
    if byte(run.text, run.end) != Some(b'.') {
        return None;
    }
    // Most are decimal numbers.
    let mut end = run.end;
    for _ in 0..2 {
        let digits = count_from(run.text, end + 1, 4, |byte| byte.is_ascii_digit());
        end += 1 + digits;
        if digits == 0 || byte(run.text, end) != Some(b'.') {
            return None;
        }
    }
    Some(run.start.max(run.end.saturating_sub(3)))
}

pub(super) fn is_ipv4(text: &[u8]) -> bool {
    let is_octet = |octet: &str| octet.parse::<u8>().is_ok();
    str::from_utf8(text).is_ok_and(|text| text.split('.').all(is_octet))
}

/// Maximum length of an IPv6 address as text.
const IPV6_BYTES_MAX: usize = 45;

/// Returns the text around a place that consists of what IPv6 addresses consist of.
fn ipv6_around(text: &[u8], at: usize) -> Range<usize> {
    let is_part = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    at - count_before(text, at, IPV6_BYTES_MAX, is_part)
        ..at + count_from(text, at, IPV6_BYTES_MAX, is_part)
}

/// Returns whether a colon may be part of an IPv6 address, which has digits, and two colons in a row or six.
pub(super) fn ipv6_start(run: &Run<'_>) -> Option<usize> {
    if byte(run.text, run.start) != Some(b':') {
        return None;
    }
    let around =
        run.text.get(ipv6_around(run.text, run.start)).filter(|around| has_digit(around))?;
    let colons = memchr_iter(b':', around).count();
    (colons >= 6 || memmem::find(around, b"::").is_some()).then_some(run.start)
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
    let length = count_from(text, at + 1, DOMAIN_BYTES_MAX, is_domain);
    let domain = text.get(at + 1..at + 1 + length)?;
    // It ends after the last dot that two letters follow.
    let top_of =
        |point: usize| count_from(domain, point + 1, length, |byte| byte.is_ascii_alphabetic());
    let points = (1..length).rev().filter(|point| domain.get(*point) == Some(&b'.'));
    let end = points.map(|point| (point, top_of(point))).find(|(_, letters)| *letters >= 2);
    let end = end.map(|(point, letters)| at + 2 + point + letters)?;
    (start < at && is_word(domain.first().copied())).then_some(start..end)
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
