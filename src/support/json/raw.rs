//! A view of valid JSON text: values are slices of it, and only strings with escapes are copied.

use std::borrow::Cow;

use super::scan::{Lenient, Quoted, Scanner, escaped_unit};
use crate::support::find;

/// One JSON value, as its source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// Returns the value, if the text is exactly one valid value.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut scanner = Scanner::new(text.as_bytes());
        scanner.skip_value().ok()?;
        let end = scanner.at;
        let whole = scanner.peek().is_none() && !scanner.flawed;
        whole.then(|| text.get(..end).map(Self::trusted))?
    }

    /// Returns the value of a text that is known to be exactly one.
    pub fn trusted(text: &'a str) -> Self {
        Self(text.trim_ascii())
    }

    /// Returns the source text.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// Returns the value, unless it is null.
    pub fn set(self) -> Option<Self> {
        (self.0 != "null").then_some(self)
    }

    /// Returns the string, unescaped.
    pub fn string(self) -> Option<Cow<'a, str>> {
        let inside = self.0.strip_prefix('"')?.strip_suffix('"')?;
        Some(unescape(inside))
    }

    /// Returns the boolean.
    pub fn boolean(self) -> Option<bool> {
        match self.0 {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Returns a count: a non-negative whole number, written as an integer, as a double, or as either inside a string.
    pub fn count(self) -> Option<u64> {
        count(self.0.trim_matches('"'))
    }

    /// Returns a finite number, written as a number or inside a string.
    pub fn number(self) -> Option<f64> {
        number(self.0.trim_matches('"'))
    }

    /// Returns whether it is an object.
    pub fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    /// Returns whether it is an array.
    pub fn is_array(self) -> bool {
        self.0.starts_with('[')
    }

    /// Iterates over the members of an object, in order; empty for other values.
    pub fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Raw<'a>)> {
        let mut walk = Walk::into(self.0, b'{');
        std::iter::from_fn(move || walk.member())
    }

    /// Returns the object with its members; without members for other values.
    pub fn object(self) -> Object<'a> {
        Object { raw: self, members: self.members().collect() }
    }

    /// Iterates over the elements of an array, in order; empty for other values.
    pub fn elements(self) -> impl Iterator<Item = Raw<'a>> {
        let mut walk = Walk::into(self.0, b'[');
        std::iter::from_fn(move || walk.element())
    }

    /// Iterates over the elements of an array as by [`Raw::object`], but scans each only once.
    pub fn objects(self) -> impl Iterator<Item = Object<'a>> {
        let mut walk = Walk::into(self.0, b'[');
        std::iter::from_fn(move || walk.object())
    }

    /// Returns a member of an object, unless it is null. If a name repeats, the last one counts. Each call scans the object; use
    /// [`Raw::object`] to look up several members.
    pub fn get(self, name: &str) -> Option<Raw<'a>> {
        self.members().filter(|(key, _)| key == name).last().and_then(|(_, value)| value.set())
    }

    /// Returns a member that is a non-empty string.
    pub fn get_string(self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).and_then(Raw::string).filter(|text| !text.is_empty())
    }
}

/// An object whose members were found once, for many lookups.
#[derive(Debug, Clone)]
pub struct Object<'a> {
    /// The source text of the object.
    pub raw: Raw<'a>,
    /// Its members, in order.
    pub members: Vec<(Cow<'a, str>, Raw<'a>)>,
}

impl Default for Object<'_> {
    fn default() -> Self {
        Self { raw: Raw("{}"), members: Vec::new() }
    }
}

impl<'a> Object<'a> {
    /// Returns a member, unless it is null. If a name repeats, the last one counts.
    pub fn get(&self, name: &str) -> Option<Raw<'a>> {
        let found = self.members.iter().rev().find(|(key, _)| key == name);
        found.and_then(|(_, value)| value.set())
    }

    /// Returns a member that is a non-empty string.
    pub fn get_string(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).and_then(Raw::string).filter(|text| !text.is_empty())
    }

    /// Returns a member that is an object.
    pub fn get_object(&self, name: &str) -> Option<Object<'a>> {
        self.get(name).filter(|value| value.is_object()).map(Raw::object)
    }
}

/// Parses a non-negative whole number.
pub fn count(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| number(text).and_then(whole))
}

/// Parses a finite number.
pub fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Converts a double to a count, if it is one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range was checked, and the fraction is zero"
)]
pub fn whole(number: f64) -> Option<u64> {
    // Above 2^53, doubles cannot represent every whole number.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    ((0.0..=EXACT_MAX).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}

/// Returns the contents of a string that was scanned in this text.
pub fn inside(text: &str, quoted: Quoted) -> Cow<'_, str> {
    let inside = text.get(quoted.start..quoted.end).unwrap_or_default();
    if quoted.escaped { unescape(inside) } else { Cow::Borrowed(inside) }
}

/// Unescapes the inside of a string.
pub fn unescape(inside: &str) -> Cow<'_, str> {
    if find::byte(inside.as_bytes(), b'\\').is_none() {
        return Cow::Borrowed(inside);
    }
    let mut text = Vec::with_capacity(inside.len());
    append_unescaped(&mut text, inside);
    Cow::Owned(String::from_utf8(text).unwrap_or_default())
}

/// Appends the unescaped inside of a string as UTF-8, and returns whether it had to be repaired: half a surrogate pair and a `\u` without
/// four digits become U+FFFD, unknown escapes stay as they are.
pub fn append_unescaped(out: &mut Vec<u8>, inside: &str) -> bool {
    let mut is_mended = false;
    let mut rest = inside.as_bytes();
    while let Some(backslash) = find::byte(rest, b'\\') {
        let (plain, escape) = rest.split_at(backslash);
        out.extend_from_slice(plain);
        let Some((&letter, after)) = escape.get(1..).and_then(<[u8]>::split_first) else { break };
        rest = after;
        match letter {
            b'"' | b'\\' | b'/' => out.push(letter),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (character, length) = unicode_escape(escape);
                rest = escape.get(length..).unwrap_or_default();
                is_mended |= character.is_none();
                let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => {
                is_mended = true;
                out.extend_from_slice(&[b'\\', letter]);
            }
        }
    }
    out.extend_from_slice(rest);
    is_mended
}

/// Returns the character of an escape that begins with `\u`, and the escape's length. A surrogate pair is one character.
#[inline(never)]
fn unicode_escape(escape: &[u8]) -> (Option<char>, usize) {
    let Some(unit) = escaped_unit(escape, 0) else { return (None, 2) };
    let low = escaped_unit(escape, 6).unwrap_or_default();
    match char::decode_utf16([unit, low]).next() {
        Some(Ok(character)) => (Some(character), 6 * character.len_utf16()),
        _ => (None, 6),
    }
}

/// An iterator over the members or elements of one container.
struct Walk<'a> {
    text: &'a str,
    scanner: Lenient<'a>,
    done: bool,
    first: bool,
}

impl<'a> Walk<'a> {
    fn into(text: &'a str, opening: u8) -> Self {
        let mut scanner = Lenient::lenient(text.as_bytes());
        let done = !scanner.eat(opening);
        Self { text, scanner, done, first: true }
    }

    fn member(&mut self) -> Option<(Cow<'a, str>, Raw<'a>)> {
        self.next(b'}')?;
        let name = self.scanner.key().ok()?;
        let name = self.text.get(name.start..name.end)?;
        let value = self.value()?;
        Some((unescape(name), value))
    }

    fn element(&mut self) -> Option<Raw<'a>> {
        self.next(b']')?;
        self.value()
    }

    /// Returns an element with its members, if it is an object.
    fn object(&mut self) -> Option<Object<'a>> {
        self.next(b']')?;
        if self.scanner.peek() != Some(b'{') {
            return Some(Object { raw: self.value()?, members: Vec::new() });
        }
        let start = self.scanner.at;
        self.scanner.at += 1;
        let mut members = Vec::new();
        self.first = true;
        while let Some(member) = self.member() {
            members.push(member);
        }
        // The members have ended; the elements continue after this one.
        (self.done, self.first) = (false, false);
        self.text.get(start..self.scanner.at).map(|text| Object { raw: Raw(text), members })
    }

    /// Skips the separator before the next value; returns `None` at the end.
    fn next(&mut self, closing: u8) -> Option<()> {
        if self.done || self.scanner.eat(closing) || (!self.first && !self.scanner.eat(b',')) {
            self.done = true;
            return None;
        }
        self.first = false;
        Some(())
    }

    fn value(&mut self) -> Option<Raw<'a>> {
        self.scanner.peek();
        let start = self.scanner.at;
        if self.scanner.skip_value().is_err() {
            self.done = true;
            return None;
        }
        self.text.get(start..self.scanner.at).map(Raw)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_are_slices_and_the_last_of_a_name_counts() {
        let value = Raw::parse(r#" {"a": 1, "b": "x\ny", "a": [true, null], "n": null} "#).unwrap();
        assert_eq!(value.get("a").map(Raw::text), Some("[true, null]"));
        assert_eq!(value.get_string("b").as_deref(), Some("x\ny"));
        assert_eq!(value.get("n"), None);
        assert_eq!(
            value.get("a").unwrap().elements().map(Raw::text).collect::<Vec<_>>(),
            ["true", "null"]
        );
        assert_eq!(value.elements().count(), 0);
        assert_eq!(value.objects().count(), 0);
        assert_eq!(Raw::parse("[1] [2]"), None);
        assert_eq!(Raw::parse("[NaN]"), None);
    }

    #[test]
    fn elements_come_with_their_members() {
        let list = Raw::parse(r#" [ {"a": 1 , "b":{"c":[]}} , 2,{ }, [{"d":3}] ,"e" ] "#).unwrap();
        let walked_once: Vec<_> =
            list.objects().map(|object| (object.raw, object.members)).collect();
        let walked_twice = list.elements().map(Raw::object);
        assert_eq!(
            walked_once,
            walked_twice.map(|object| (object.raw, object.members)).collect::<Vec<_>>()
        );
        assert_eq!(walked_once.len(), 5);
        assert_eq!(Raw::trusted("[]").objects().count(), 0);
        assert_eq!(Raw::trusted("[{").objects().count(), 1);
    }

    #[test]
    fn counts_come_as_integers_doubles_and_strings_and_never_as_nan() {
        for text in ["12", "12.0", "\"12\"", "\"12.0\"", "1.2e1"] {
            assert_eq!(Raw::trusted(text).count(), Some(12), "{text}");
        }
        for text in ["-1", "1.5", "\"NaN\"", "\"\"", "true", "null", "1e300", "[1]"] {
            assert_eq!(Raw::trusted(text).count(), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_string_reads_back_as_it_was_written(text in any::<String>()) {
            let mut json = Vec::new();
            crate::support::json::write_str(&mut json, &text);
            let json = String::from_utf8(json).unwrap();
            prop_assert_eq!(Raw::parse(&json).unwrap().string().unwrap(), text.as_str());
        }

        #[test]
        fn escapes_are_undone_as_serde_json_does(text in r#"(\\u[0-9a-f]{4}|\\[bfnrt"/\\]|[a-z]){0,12}"#) {
            let quoted = format!("\"{text}\"");
            if let Ok(expected) = serde_json::from_str::<String>(&quoted) {
                prop_assert_eq!(unescape(&text), expected.as_str());
            }
        }
    }
}
