//! Reads JSON token by token from a text, without building a tree and without recursion.
//!
//! Real clients send JSON that stricter readers refuse, so this reader accepts what a [`Lenient`] walk accepts: the words `NaN`, `Infinity`
//! and `-Infinity` as numbers, control characters in strings, invalid escapes (see [`append_unescaped`]), and leading zeros. The braces,
//! commas and colons between the values must be correct.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::support::json::raw::{append_unescaped, unescape};
use crate::support::json::scan::{self, Broken, Lenient};

/// A position in a JSON text.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    walk: Lenient<'a>,
}

/// The first token of a value. A value that is neither an object nor an array is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An object opens; its members are read with [`Scanner::next_member`].
    Object,
    /// An array opens; its elements are read with [`Scanner::next_element`].
    Array,
    /// A string.
    Text(Quoted<'a>),
    /// A number as written, or `NaN`, `Infinity`, `-Infinity`. Rust's parser accepts all of them.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// Names the type of a value by its first byte.
pub(super) fn kind_of(first: Option<u8>) -> &'static str {
    match first {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// A string as written between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Quoted<'a> {
    raw: &'a str,
    is_escaped: bool,
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning of the text, after a byte order mark.
    pub(super) fn new(text: &'a str) -> Self {
        let mut walk = Lenient::lenient(text.as_bytes());
        walk.at = text.len() - text.trim_start_matches('\u{feff}').len();
        Self { text, walk }
    }

    /// Advances to the next value and returns its first byte.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.walk.peek()
    }

    /// Advances to the next value and returns its position.
    #[inline]
    pub(super) fn value_position(&mut self) -> usize {
        self.walk.peek();
        self.walk.at
    }

    /// Goes back to the position of an earlier value.
    pub(super) fn go_back(&mut self, position: usize) {
        self.walk.at = position.min(self.walk.at);
    }

    /// Reads a value, or only the beginning of an object or array.
    pub(super) fn token(&mut self) -> Result<Token<'a>, Broken> {
        let next = self.walk.peek();
        let start = self.walk.at;
        match next {
            Some(b'"') => {
                let string = self.walk.string()?;
                return Ok(Token::Text(self.quoted(string)));
            }
            Some(b'{' | b'[') => {
                self.walk.at += 1;
                return Ok(if next == Some(b'{') { Token::Object } else { Token::Array });
            }
            _ => self.walk.scalar()?,
        }
        Ok(match next {
            Some(b't' | b'f') => Token::Bool(next == Some(b't')),
            Some(b'n') => Token::Null,
            _ => Token::Number(self.since(start)),
        })
    }

    /// Consumes this exact text if it comes next. Returns whether it did.
    #[inline]
    pub(super) fn eat(&mut self, text: &str) -> bool {
        let rest = self.text.as_bytes().get(self.walk.at..).unwrap_or_default();
        let is_next = rest.starts_with(text.as_bytes());
        self.walk.at += if is_next { text.len() } else { 0 };
        is_next
    }

    /// Reads the string that directly follows this text. If the text is not followed by a string, the text is consumed nevertheless.
    #[inline]
    pub(super) fn string_after(&mut self, text: &str) -> Option<Quoted<'a>> {
        let is_next = self.eat(text) && self.text.as_bytes().get(self.walk.at) == Some(&b'"');
        let string = is_next.then(|| self.walk.string())?.ok()?;
        Some(self.quoted(string))
    }

    /// Skips a value and returns its text.
    pub(super) fn skip(&mut self) -> Result<&'a str, Broken> {
        let start = self.value_position();
        self.walk.skip_value()?;
        Ok(self.since(start))
    }

    /// Reads the rest of the value that this token begins, however deeply it is nested.
    pub(super) fn finish(&mut self, token: Token<'a>) -> Result<(), Broken> {
        if let Token::Object | Token::Array = token {
            self.walk.at -= 1;
            self.walk.skip_value()?;
        }
        Ok(())
    }

    /// Checks that only whitespace follows.
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        match self.walk.peek() {
            None => Ok(()),
            Some(_) => Err(self.walk.broken("the end of the text")),
        }
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.walk.at).unwrap_or_default()
    }

    fn quoted(&self, string: scan::Quoted) -> Quoted<'a> {
        let raw = self.text.get(string.start..string.end).unwrap_or_default();
        Quoted { raw, is_escaped: string.escaped }
    }

    /// Returns the name of an object's next member, or `None` at its end. The caller must read the value before the next call.
    #[expect(
        clippy::inline_always,
        reason = "a call costs a fifth of the time to decode small spans"
    )]
    #[inline(always)]
    pub(super) fn next_member(
        &mut self,
        is_begun: &mut bool,
    ) -> Result<Option<Quoted<'a>>, Broken> {
        if !self.goes_on(b'}', "a comma or }", is_begun)? {
            return Ok(None);
        }
        let name = self.walk.key()?;
        Ok(Some(self.quoted(name)))
    }

    /// Returns whether another element follows. The caller must read the element before the next call.
    pub(super) fn next_element(&mut self, is_begun: &mut bool) -> Result<bool, Broken> {
        self.goes_on(b']', "a comma or ]", is_begun)
    }

    /// Reads what precedes a member or an element: nothing before the first, a comma before the others, the closing mark at the end.
    #[inline]
    fn goes_on(
        &mut self,
        closing: u8,
        expected: &'static str,
        is_begun: &mut bool,
    ) -> Result<bool, Broken> {
        let next = self.walk.peek();
        if next == Some(closing) {
            self.walk.at += 1;
            return Ok(false);
        }
        if *is_begun {
            if next != Some(b',') {
                return Err(self.walk.broken(expected));
            }
            self.walk.at += 1;
            if self.walk.peek() == Some(closing) {
                return Err(self.walk.broken("a value"));
            }
        }
        *is_begun = true;
        Ok(true)
    }
}

impl<'a> Quoted<'a> {
    /// Returns the string as written if it has no escapes.
    pub(super) fn plain(self) -> Option<&'a str> {
        (!self.is_escaped).then_some(self.raw)
    }

    /// Returns the string as written, including escapes.
    pub(super) fn raw(self) -> &'a str {
        self.raw
    }

    /// Returns the string without its escapes. It is copied only if it has any.
    #[expect(
        clippy::inline_always,
        reason = "a call costs a fifth of the time to decode small spans"
    )]
    #[inline(always)]
    pub(super) fn text(self) -> Cow<'a, str> {
        if self.is_escaped { Cow::Owned(self.unescaped()) } else { Cow::Borrowed(self.raw) }
    }

    #[inline(never)]
    fn unescaped(self) -> String {
        unescape(self.raw).into_owned()
    }

    /// Appends the string without its escapes, as [`append_unescaped`] does. Returns whether invalid escapes were repaired.
    pub(super) fn append_to(self, out: &mut Vec<u8>) -> bool {
        if self.is_escaped {
            return append_unescaped(out, self.raw);
        }
        out.extend_from_slice(self.raw.as_bytes());
        false
    }
}
