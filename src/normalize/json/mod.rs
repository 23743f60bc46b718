//! JSON read token by token from a text, without building a tree and without recursion.
//!
//! Stricter readers refuse what real clients send, so this one takes what a [`Lenient`] walk takes: the words `NaN`, `Infinity` and
//! `-Infinity` for numbers, control characters in strings, escapes that stand for nothing (see [`append_unescaped`]), and leading
//! zeros. What is between the values, braces, commas and colons, has to be right.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::support::json::raw::{append_unescaped, unescape};
use crate::support::json::scan::{self, Broken, Lenient};

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    walk: Lenient<'a>,
}

/// The beginning of a value; all of it where it is no object and no array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An object opens; its members are read with [`Scanner::next_member`].
    Object,
    /// An array opens; its elements are read with [`Scanner::next_element`].
    Array,
    /// A string.
    Text(Quoted<'a>),
    /// A number as it is written, or `NaN`, `Infinity`, `-Infinity`. Rust's own parser takes all of them.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// What a value is, by its first byte.
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

/// A string as it stands between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Quoted<'a> {
    raw: &'a str,
    is_escaped: bool,
}

impl<'a> Scanner<'a> {
    /// The beginning of this text; a byte order mark is passed over.
    pub(super) fn new(text: &'a str) -> Self {
        let mut walk = Lenient::lenient(text.as_bytes());
        walk.at = text.len() - text.trim_start_matches('\u{feff}').len();
        Self { text, walk }
    }

    /// Goes to where the next value begins and shows its first byte.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.walk.peek()
    }

    /// Goes to where the next value begins and says where that is.
    #[inline]
    pub(super) fn value_position(&mut self) -> usize {
        self.walk.peek();
        self.walk.at
    }

    /// Goes back to a place where a value begins.
    pub(super) fn go_back(&mut self, position: usize) {
        self.walk.at = position.min(self.walk.at);
    }

    /// Reads a value, of an object or an array only the beginning.
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

    /// Passes this text, if it comes next as it stands.
    #[inline]
    pub(super) fn eat(&mut self, text: &str) -> bool {
        let rest = self.text.as_bytes().get(self.walk.at..).unwrap_or_default();
        let is_next = rest.starts_with(text.as_bytes());
        self.walk.at += if is_next { text.len() } else { 0 };
        is_next
    }

    /// Reads the string that follows this text, if both come next. Without a string behind it the text stays read.
    #[inline]
    pub(super) fn string_after(&mut self, text: &str) -> Option<Quoted<'a>> {
        let is_next = self.eat(text) && self.text.as_bytes().get(self.walk.at) == Some(&b'"');
        let string = is_next.then(|| self.walk.string())?.ok()?;
        Some(self.quoted(string))
    }

    /// Reads a whole value and gives its text.
    pub(super) fn skip(&mut self) -> Result<&'a str, Broken> {
        let start = self.value_position();
        self.walk.skip_value()?;
        Ok(self.since(start))
    }

    /// Reads the rest of a value of which this is the beginning, however deeply it is nested.
    pub(super) fn finish(&mut self, token: Token<'a>) -> Result<(), Broken> {
        if let Token::Object | Token::Array = token {
            self.walk.at -= 1;
            self.walk.skip_value()?;
        }
        Ok(())
    }

    /// Checks that nothing but space follows.
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

    /// The name of an object's next member, or `None` at its end. Between two calls the value must have been read.
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

    /// Whether another element follows. Between two calls the element must have been read.
    pub(super) fn next_element(&mut self, is_begun: &mut bool) -> Result<bool, Broken> {
        self.goes_on(b']', "a comma or ]", is_begun)
    }

    /// Reads what stands before a member or an element: nothing before the first, a comma before others, the closing mark at the end.
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
    /// The string as it stands, if it has no escapes.
    pub(super) fn plain(self) -> Option<&'a str> {
        (!self.is_escaped).then_some(self.raw)
    }

    /// The string as it stands, escapes and all.
    pub(super) fn raw(self) -> &'a str {
        self.raw
    }

    /// The string with its escapes undone; a copy only if there are any.
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

    /// Appends the string with its escapes undone, as [`append_unescaped`] does, and says whether something had to be mended.
    pub(super) fn append_to(self, out: &mut Vec<u8>) -> bool {
        if self.is_escaped {
            return append_unescaped(out, self.raw);
        }
        out.extend_from_slice(self.raw.as_bytes());
        false
    }
}
