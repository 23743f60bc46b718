//! Tells matches from lookalikes: shapes, check digits, and patterns that regular expressions express badly.

use core::net::Ipv6Addr;
use std::ops::Range;

use memchr::memmem;

/// A run of digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) text: &'a [u8],
    pub(super) start: usize,
    /// The index after the last digit.
    pub(super) end: usize,
}

impl Run<'_> {
    /// Returns whether the digits are worth a closer look; most runs are short and isolated.
    pub(super) fn is_telling(&self) -> bool {
        self.len() >= 13
            || self.is_before(b" .-)")
            || self.before(1).is_some_and(|before| b"+(".contains(&before))
            || self.before(1).is_some_and(|before| before.is_ascii_uppercase())
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    fn before(&self, distance: usize) -> Option<u8> {
        byte(self.text, self.start.checked_sub(distance)?)
    }

    fn is_before(&self, bytes: &[u8]) -> bool {
        byte(self.text, self.end).is_some_and(|next| bytes.contains(&next))
    }

    fn goes_on(&self, separators: &[u8]) -> bool {
        self.is_before(separators) && is_digit(byte(self.text, self.end + 1))
    }
}

fn byte(text: &[u8], at: usize) -> Option<u8> {
    text.get(at).copied()
}

fn is_digit(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_digit())
}

pub(super) fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// Returns whether a word character follows this index.
pub(super) fn is_before_word(text: &[u8], at: usize) -> bool {
    is_word(byte(text, at + 1))
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

pub(super) fn card_start(run: &Run<'_>) -> Option<usize> {
    let fits = (13..=19).contains(&run.len()) || (run.len() == 4 && run.goes_on(b" -"));
    // Digits after a decimal point are a fraction.
    (fits && run.before(1) != Some(b'.')).then_some(run.start)
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
    longest(text, start, 10, |byte, _| b" -".contains(&byte), 13..20, is_card)
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

/// Returns where an IBAN may start: at the two letters before two check digits.
pub(super) fn iban_start(run: &Run<'_>) -> Option<usize> {
    let has_country =
        (1..=2).all(|back| run.before(back).is_some_and(|byte| byte.is_ascii_uppercase()));
    (run.len() >= 2 && has_country).then(|| run.start - 2)
}

/// Returns the longest IBAN that starts at the two letters; the shortest are Norway's, with 15 characters. Spaces may separate groups of
/// four.
pub(super) fn iban(text: &[u8], start: usize) -> Option<Range<usize>> {
    let may_separate = |byte, count| byte == b' ' && count % 4 == 0;
    longest(text, start, 36, may_separate, 15..35, is_one_modulo_97)
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
    let fits = run.len() == 3 && run.goes_on(b"-") && run.before(1) != Some(b'-');
    fits.then_some(run.start)
}

/// Returns whether a social security number may have been issued.
pub(super) fn is_ssn(text: &[u8]) -> bool {
    let (area, group, serial) = (text.get(..3), text.get(4..6), text.get(7..11));
    !matches!(area, Some(b"000" | b"666" | [b'9', ..]))
        && group != Some(b"00")
        && serial != Some(b"0000")
}

pub(super) fn phone_start(run: &Run<'_>) -> Option<usize> {
    match run.before(1) {
        // Excludes offsets of times.
        Some(b'+') if run.len() >= 8 || run.is_before(b" ./()-") => Some(run.start - 1),
        Some(b'(') if run.len() == 3 && run.is_before(b")") => Some(run.start - 1),
        Some(b'-' | b'.' | b'/') => None,
        _ if run.len() == 3 && run.goes_on(b".-") => Some(run.start),
        _ if run.len() == 1 && byte(run.text, run.start) == Some(b'1') && run.goes_on(b" .-") => {
            Some(run.start)
        }
        _ => None,
    }
}

// === Addresses ===

pub(super) fn ipv4_start(run: &Run<'_>) -> Option<usize> {
    if run.len() > 3 || !run.goes_on(b".") || run.before(1) == Some(b'.') {
        return None;
    }
    // Most are decimal numbers.
    let second = run.text.get(run.end + 1..).unwrap_or_default();
    let length = second.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (length <= 3 && second.get(length) == Some(&b'.')).then_some(run.start)
}

pub(super) fn is_ipv4(text: &[u8]) -> bool {
    let is_octet = |octet: &str| octet.parse::<u8>().is_ok();
    str::from_utf8(text).is_ok_and(|text| text.split('.').all(is_octet))
}

/// Returns whether a colon may be part of an IPv6 address, which has two in a row, or six.
pub(super) fn may_be_ipv6(text: &[u8], colon: usize) -> bool {
    let next = byte(text, colon + 1);
    if next == Some(b':') {
        return true;
    }
    let before = colon.checked_sub(1).and_then(|before| byte(text, before));
    let is_hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
    if !is_hex(before) || !is_hex(next) {
        return false;
    }
    let rest = text.get(colon..).unwrap_or_default().iter().take(40);
    let part = rest.take_while(|byte| byte.is_ascii_hexdigit() || **byte == b':');
    part.filter(|byte| **byte == b':').count() >= 6
}

/// Maximum length of an IPv6 address as text.
const IPV6_BYTES_MAX: usize = 45;

/// Returns the IPv6 address around a colon. Without a digit, or with a single group, it is a path in a program or not a real address.
pub(super) fn ipv6(text: &[u8], colon: usize) -> Option<Range<usize>> {
    let is_part = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    let start = colon - count_before(text, colon, IPV6_BYTES_MAX, is_part);
    let mut end = colon + count_from(text, colon, IPV6_BYTES_MAX, is_part);
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

/// Maximum length of user and password together, before the `@`.
const USER_BYTES_MAX: usize = 256;

/// Returns the password before the `@` of a URL.
pub(super) fn password(text: &[u8], at: usize) -> Option<Range<usize>> {
    let is_part = |byte: u8| byte > b' ' && !b"\"'<>/@".contains(&byte);
    let start = at - count_before(text, at, USER_BYTES_MAX, is_part);
    let before = text.get(..start).unwrap_or_default();
    if !before.ends_with(b"://") && !before.ends_with(br":\/\/") {
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
