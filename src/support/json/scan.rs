//! A scanner of JSON bytes: one pass, iterative, without allocation up to 64 levels of nesting.
//!
//! It is strict about structure, but accepts what real clients send although JSON does not allow it: `NaN`, `Infinity` and `-Infinity`,
//! halves of surrogate pairs in escapes, and raw control characters in strings. It skips these and sets [`Scanner::flawed`], so that code
//! that needs valid JSON knows that it must be repaired first. A [`Lenient`] scanner also accepts unknown escapes and leading zeros, and
//! does not check strings for anything to repair.

use super::plain;
use crate::support::find;

/// Where and why bytes are not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {at}")]
pub struct Broken {
    /// The offset of the unexpected byte.
    pub at: usize,
    /// What was expected instead.
    pub expected: &'static str,
}

/// The inside of a string, as offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// The first byte after the opening quote.
    pub start: usize,
    /// The closing quote.
    pub end: usize,
    /// Whether it contains a backslash.
    pub escaped: bool,
}

/// The scanner.
#[derive(Debug, Clone)]
pub struct Scanner<'a, const LENIENT: bool = false> {
    bytes: &'a [u8],
    /// The offset of the next byte.
    pub at: usize,
    /// Whether it skipped something that is not JSON but can be repaired. The caller resets it.
    pub flawed: bool,
    /// Whether it skipped something that [`super::write_shortest`] would write differently: white space between tokens, or an escape that
    /// JSON does not require. The caller resets it.
    pub loose: bool,
    /// The deepest nesting that [`Scanner::skip_value`] skipped, relative to its starting value. The caller resets it.
    pub deepest: usize,
}

/// A scanner that accepts more.
pub type Lenient<'a> = Scanner<'a, true>;

impl<'a> Scanner<'a> {
    /// Creates a scanner at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::of(bytes)
    }
}

impl<'a> Lenient<'a> {
    /// Creates a lenient scanner at the first byte.
    pub fn lenient(bytes: &'a [u8]) -> Self {
        Self::of(bytes)
    }
}

impl<'a, const LENIENT: bool> Scanner<'a, LENIENT> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, flawed: false, loose: false, deepest: 0 }
    }

    /// Skips white space and returns the byte after it.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => {
                    self.at += 1;
                    self.loose = true;
                }
                next => return next.copied(),
            }
        }
    }

    /// Skips white space and this byte, if it comes next.
    #[inline]
    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Skips white space and this byte, which must come next.
    #[inline]
    pub fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Broken> {
        if self.eat(byte) { Ok(()) } else { Err(self.broken(expected)) }
    }

    /// Skips a member's name and the colon after it.
    #[expect(
        clippy::inline_always,
        reason = "a call costs a fifth of the time to decode small spans"
    )]
    #[inline(always)]
    pub fn key(&mut self) -> Result<Quoted, Broken> {
        if self.peek() != Some(b'"') {
            return Err(self.broken("a member name"));
        }
        let name = self.string()?;
        self.expect(b':', "a colon")?;
        Ok(name)
    }

    /// Skips an object that begins here; `visit` skips each member's value, given its name.
    pub fn each_member<E: From<Broken>>(
        &mut self,
        mut visit: impl FnMut(&mut Self, Quoted) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'{', "an object")?;
        self.each(b'}', "a comma or }", |scanner| {
            let name = scanner.key()?;
            visit(scanner, name)
        })
    }

    /// Skips an array that begins here; `visit` skips each element.
    pub fn each_element<E: From<Broken>>(
        &mut self,
        visit: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'[', "an array")?;
        self.each(b']', "a comma or ]", visit)
    }

    fn each<E: From<Broken>>(
        &mut self,
        closing: u8,
        expected: &'static str,
        mut visit: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.eat(closing) {
            return Ok(());
        }
        loop {
            visit(self)?;
            if !self.eat(b',') {
                return Ok(self.expect(closing, expected)?);
            }
        }
    }

    /// Skips one value of any kind.
    pub fn skip_value(&mut self) -> Result<(), Broken> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{' | b'[') => self.skip_container(),
            _ => self.scalar(),
        }
    }

    fn skip_container(&mut self) -> Result<(), Broken> {
        let mut open = Nesting::default();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{') => {
                    self.at += 1;
                    self.deepest = self.deepest.max(open.depth + 1);
                    if !self.eat(b'}') {
                        open.push(Container::Object);
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    self.deepest = self.deepest.max(open.depth + 1);
                    if !self.eat(b']') {
                        open.push(Container::Array);
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            if self.close(&mut open)? {
                return Ok(());
            }
        }
    }

    /// Skips a string that begins here.
    #[inline]
    pub fn string(&mut self) -> Result<Quoted, Broken> {
        if LENIENT {
            return self.hop();
        }
        let opening = self.at;
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain::length(self.bytes.get(self.at..).unwrap_or_default());
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(Quoted { start, end, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => {
                    self.flawed = true;
                    self.at += 1;
                }
                None => return Err(Broken { at: opening, expected: "a string with an end" }),
            }
        }
    }

    /// Skips a string without checking its contents.
    #[inline]
    fn hop(&mut self) -> Result<Quoted, Broken> {
        let start = self.at + 1;
        let rest = self.bytes.get(start..).unwrap_or_default();
        // Most strings are short and have no escapes, so only this much is inlined.
        match find::either(rest, b'"', b'\\') {
            Some(found) if rest.get(found) == Some(&b'"') => {
                self.at = start + found + 1;
                Ok(Quoted { start, end: start + found, escaped: false })
            }
            Some(found) => self.hop_escapes(start, start + found),
            None => Err(self.broken("a string with an end")),
        }
    }

    /// Skips the rest of a string from its first escape on.
    #[inline(never)]
    fn hop_escapes(&mut self, start: usize, escape: usize) -> Result<Quoted, Broken> {
        let mut end = escape;
        while self.bytes.get(end) != Some(&b'"') {
            // The byte after a backslash belongs to the escape, even a quote.
            end += 2;
            let rest = self.bytes.get(end..).unwrap_or_default();
            let found = find::either(rest, b'"', b'\\');
            end += found.ok_or_else(|| self.broken("a string with an end"))?;
        }
        self.at = end + 1;
        Ok(Quoted { start, end, escaped: true })
    }

    /// Skips a number or a word.
    pub fn scalar(&mut self) -> Result<(), Broken> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.first().is_some_and(u8::is_ascii_digit) {
            return self.number();
        }
        for word in [&b"null"[..], b"true", b"false"] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(());
            }
        }
        for word in NON_FINITE {
            if rest.starts_with(word) {
                self.at += word.len();
                self.flawed = true;
                return Ok(());
            }
        }
        self.number()
    }

    /// Returns an error at the current offset.
    #[cold]
    pub fn broken(&self, expected: &'static str) -> Broken {
        Broken { at: self.at, expected }
    }

    /// Continues after a value: to the next one, or out of the containers that end here. Returns whether all containers have ended.
    #[inline]
    fn close(&mut self, open: &mut Nesting) -> Result<bool, Broken> {
        loop {
            let Some(container) = open.innermost() else { return Ok(true) };
            match (container, self.peek()) {
                (Container::Object, Some(b',')) => {
                    self.at += 1;
                    self.key()?;
                    return Ok(false);
                }
                (Container::Array, Some(b',')) => {
                    self.at += 1;
                    return Ok(false);
                }
                (Container::Object, Some(b'}')) | (Container::Array, Some(b']')) => {
                    self.at += 1;
                    open.pop();
                }
                (Container::Object, _) => return Err(self.broken("a comma or }")),
                (Container::Array, _) => return Err(self.broken("a comma or ]")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Broken> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'/') => {
                self.loose = true;
                self.at += 2;
            }
            Some(b'u') => {
                let unit = escaped_unit(self.bytes, self.at);
                self.loose |= unit.is_some_and(|unit| !self.is_demanded(unit));
                match unit {
                    Some(0xD800..=0xDBFF)
                        if matches!(
                            escaped_unit(self.bytes, self.at + 6),
                            Some(0xDC00..=0xDFFF)
                        ) =>
                    {
                        self.at += 12;
                    }
                    Some(0xD800..=0xDFFF) => {
                        self.flawed = true;
                        self.at += 6;
                    }
                    Some(_) => self.at += 6,
                    None => return Err(self.broken("\\u and four hexadecimal digits")),
                }
            }
            _ => return Err(self.broken("an escape that JSON knows")),
        }
        Ok(())
    }

    /// Returns whether JSON requires the escape `\uXXXX` that comes next, in this notation.
    fn is_demanded(&self, unit: u16) -> bool {
        let has_letter = [8, 9, 10, 12, 13].contains(&unit);
        let last_digit = self.bytes.get(self.at + 5);
        unit < 0x20 && !has_letter && !last_digit.is_some_and(u8::is_ascii_uppercase)
    }

    fn number(&mut self) -> Result<(), Broken> {
        let start = self.at;
        self.at += usize::from(self.bytes.get(self.at) == Some(&b'-'));
        let leading_zero = self.bytes.get(self.at) == Some(&b'0');
        let whole = self.digits();
        if whole == 0 || (leading_zero && 1 < whole && !LENIENT) {
            return Err(Broken { at: start, expected: "a value" });
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.broken("a digit"));
            }
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return Err(self.broken("a digit"));
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }
}

/// Numbers that Python's `json` writes although JSON does not have them.
pub const NON_FINITE: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// Returns the UTF-16 unit of the escape `\uXXXX` at an offset.
pub fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..)?.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    let unit = digits
        .iter()
        .try_fold(0, |unit: u32, digit| Some((unit << 4) | char::from(*digit).to_digit(16)?));
    u16::try_from(unit?).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

/// The open containers: one bit each, the first 64 of them without allocation.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    /// The innermost containers, up to 64, the last one in the lowest bit; a set bit is an object.
    bits: u64,
    outer: Vec<u64>,
}

impl Nesting {
    #[inline]
    fn push(&mut self, container: Container) {
        if self.depth != 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
            self.bits = 0;
        }
        self.bits = (self.bits << 1) | u64::from(container == Container::Object);
        self.depth += 1;
    }

    #[inline]
    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.bits >>= 1;
        if self.depth != 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or_default();
        }
    }

    #[inline]
    fn innermost(&self) -> Option<Container> {
        let container = if self.bits & 1 == 1 { Container::Object } else { Container::Array };
        (self.depth != 0).then_some(container)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &str) -> Result<(bool, usize), usize> {
        let mut scanner = Scanner::new(text.as_bytes());
        match scanner.skip_value() {
            Ok(()) if scanner.peek().is_none() => Ok((scanner.flawed, scanner.deepest)),
            Ok(()) => Err(scanner.at),
            Err(broken) => Err(broken.at),
        }
    }

    #[test]
    fn what_clients_send_although_json_forbids_it_is_passed_and_noted() {
        for text in [
            "NaN",
            "[Infinity,-Infinity]",
            r#""\ud83d""#,
            r#""\udc00\ud83d""#,
            "\"a\nb\"",
            r#"{"\ud83d":1}"#,
        ] {
            assert_eq!(scan(text).map(|(flawed, _)| flawed), Ok(true), "{text}");
        }
        for text in [r#""\ud83c\udf1e""#, "\"\u{7f}\u{2028}\"", "1e999", "-0.0E+1", "{}"] {
            assert_eq!(scan(text).map(|(flawed, _)| flawed), Ok(false), "{text}");
        }
    }

    #[test]
    fn broken_json_is_found_where_it_breaks() {
        for (text, at) in [
            ("", 0),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("{\"a\" 1}", 5),
            ("01", 0),
            ("1.", 2),
            ("1e", 2),
            ("-", 0),
            ("+1", 0),
            ("nul", 0),
            ("\"a", 0),
            (r#""\x""#, 1),
            (r#""\u12""#, 1),
            ("[1}", 2),
            ("[1 2]", 3),
            ("1 1", 2),
        ] {
            assert_eq!(scan(text), Err(at), "{text}");
        }
    }

    #[test]
    fn nesting_is_counted_far_beyond_any_stack() {
        let text = format!("{}1{}", r#"{"a":["#.repeat(100_000), "]}".repeat(100_000));
        assert_eq!(scan(&text), Ok((false, 200_000)));
        assert_eq!(scan("[[],{}]"), Ok((false, 2)));
    }

    #[test]
    fn text_that_could_be_shorter_is_noted() {
        for (text, loose) in [
            (r#"{"a":[1,"b c",{}],"d":-0.0}"#, false),
            (r#""\u00e9 \n \u0000 \u001f \" \\""#, true),
            (r#""\n\t\u0000\u001f\"\\""#, false),
            (r#""\u001F""#, true),
            (r#""\u000a""#, true),
            (r#""\/""#, true),
            (r#""\ud83c\udf1e""#, true),
            ("[1, 2]", true),
            ("[1\n]", true),
        ] {
            let mut scanner = Scanner::new(text.as_bytes());
            scanner.skip_value().unwrap();
            assert_eq!(scanner.loose, loose, "{text}");
        }
    }

    proptest! {
        #[test]
        fn strict_json_is_what_serde_json_takes(text in r#"[\[\]{}":,0-9a-z\\.\-+eE tnufls]{0,24}"#) {
            let ours = scan(&text).is_ok_and(|(flawed, _)| !flawed);
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok()
                && serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(ours, theirs, "{}", text);
        }
    }
}
