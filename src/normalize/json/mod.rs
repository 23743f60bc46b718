//! JSON read token by token from a text, without building a tree and without recursion.
//!
//! Stricter readers refuse what real clients send, so this one takes: the words `NaN`, `Infinity` and `-Infinity` for numbers,
//! control characters in strings, escapes that stand for nothing (see [`Quoted::append_to`]), and leading zeros. What is between
//! the values, braces, commas and colons, has to be right.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::support::find;

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// The beginning of a value; all of it where it is no object and no array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An object opens; its members are read with [`Members`].
    Object,
    /// An array opens; its elements are read with [`Elements`].
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

impl Token<'_> {
    /// What the value is, for messages.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::Text(_) => "a string",
            Self::Number(_) => "a number",
            Self::Bool(_) => "a boolean",
            Self::Null => "null",
        }
    }
}

/// A string as it stands between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Quoted<'a> {
    raw: &'a str,
    is_escaped: bool,
}

/// Where and why the text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(super) struct Problem {
    /// What is wrong.
    pub(super) what: &'static str,
    /// Bytes before the place.
    pub(super) at: usize,
}

/// Values that are passed over are followed this deep, for two bytes a level. The deepest real ones are near a thousand.
const NESTING_MAX: usize = 1 << 20;

/// Reads an object's members. Between two calls the value must have been read.
#[derive(Debug, Default)]
pub(super) struct Members {
    is_begun: bool,
}

/// Reads an array's elements. Between two calls the element must have been read.
#[derive(Debug, Default)]
pub(super) struct Elements {
    is_begun: bool,
}

impl Members {
    /// The next member's name, or `None` at the object's end.
    pub(super) fn next<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
    ) -> Result<Option<Quoted<'a>>, Problem> {
        if !scanner.goes_on(b'}', &mut self.is_begun)? {
            return Ok(None);
        }
        scanner.skip_space();
        let name = scanner.quoted("a member's name should stand")?;
        scanner.skip_space();
        if scanner.peek() != Some(b':') {
            return Err(scanner.problem("a colon should stand"));
        }
        scanner.at += 1;
        Ok(Some(name))
    }
}

impl Elements {
    /// Whether another element follows.
    pub(super) fn next(&mut self, scanner: &mut Scanner<'_>) -> Result<bool, Problem> {
        scanner.goes_on(b']', &mut self.is_begun)
    }
}

impl<'a> Scanner<'a> {
    /// The beginning of this text; a byte order mark is passed over.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: text.len() - text.trim_start_matches('\u{feff}').len() }
    }

    /// Goes to where the next value begins and says where that is.
    pub(super) fn value_position(&mut self) -> usize {
        self.skip_space();
        self.at
    }

    /// Goes back to a place where a value begins.
    pub(super) fn go_back(&mut self, position: usize) {
        self.at = position.min(self.at);
    }

    /// Reads a value, of an object or an array only the beginning.
    pub(super) fn token(&mut self) -> Result<Token<'a>, Problem> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => Ok(Token::Text(self.quoted("a string should stand")?)),
            Some(b'{') => Ok(self.opened(Token::Object)),
            Some(b'[') => Ok(self.opened(Token::Array)),
            Some(b'-' | b'0'..=b'9') => Ok(Token::Number(self.number()?)),
            Some(b't') => self.word("true", Token::Bool(true)),
            Some(b'f') => self.word("false", Token::Bool(false)),
            Some(b'n') => self.word("null", Token::Null),
            Some(b'N') => self.word("NaN", Token::Number("NaN")),
            Some(b'I') => self.word("Infinity", Token::Number("Infinity")),
            Some(_) => Err(self.problem("a value should stand")),
            None => Err(self.problem("the text ends where a value should stand")),
        }
    }

    /// Reads a whole value and gives its text.
    pub(super) fn skip(&mut self) -> Result<&'a str, Problem> {
        let start = self.value_position();
        let token = self.token()?;
        self.finish(token)?;
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    /// Reads the rest of a value of which this is the beginning, however deeply it is nested.
    pub(super) fn finish(&mut self, token: Token<'a>) -> Result<(), Problem> {
        let mut open = Vec::new();
        let mut token = token;
        loop {
            match token {
                Token::Object => open.push(Container::Object(Members::default())),
                Token::Array => open.push(Container::Array(Elements::default())),
                _ => {}
            }
            if NESTING_MAX < open.len() {
                return Err(self.problem("values are nested too deeply"));
            }
            loop {
                let goes_on = match open.last_mut() {
                    None => return Ok(()),
                    Some(Container::Object(members)) => members.next(self)?.is_some(),
                    Some(Container::Array(elements)) => elements.next(self)?,
                };
                if goes_on {
                    break;
                }
                open.pop();
            }
            token = self.token()?;
        }
    }

    /// Checks that nothing but space follows.
    pub(super) fn end(&mut self) -> Result<(), Problem> {
        self.skip_space();
        if self.at < self.text.len() { Err(self.problem("the text should end")) } else { Ok(()) }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    #[cold]
    fn problem(&self, what: &'static str) -> Problem {
        Problem { what, at: self.at }
    }

    fn opened(&mut self, token: Token<'a>) -> Token<'a> {
        self.at += 1;
        token
    }

    /// Reads what stands before a member or an element: nothing before the first, a comma before others, the closing mark at the end.
    #[inline]
    fn goes_on(&mut self, closing: u8, is_begun: &mut bool) -> Result<bool, Problem> {
        self.skip_space();
        let next = self.peek();
        if next == Some(closing) {
            self.at += 1;
            return Ok(false);
        }
        if *is_begun {
            if next != Some(b',') {
                return Err(self.problem("a comma or the closing mark should stand"));
            }
            self.at += 1;
            self.skip_space();
            if self.peek() == Some(closing) {
                return Err(self.problem("a comma stands before the closing mark"));
            }
        }
        *is_begun = true;
        Ok(true)
    }

    fn word(&mut self, word: &'static str, token: Token<'a>) -> Result<Token<'a>, Problem> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            Ok(token)
        } else {
            Err(self.problem("a value should stand"))
        }
    }

    fn quoted(&mut self, what: &'static str) -> Result<Quoted<'a>, Problem> {
        if self.peek() != Some(b'"') {
            return Err(self.problem(what));
        }
        let start = self.at + 1;
        let mut end = start;
        let mut is_escaped = false;
        loop {
            let rest = self.text.as_bytes().get(end..).unwrap_or_default();
            let Some(found) = find::either(rest, b'"', b'\\') else {
                return Err(self.problem("a string has no end"));
            };
            end += found;
            if rest.get(found) == Some(&b'"') {
                break;
            }
            // What follows a backslash belongs to it, be it a quote.
            is_escaped = true;
            end += 2;
        }
        self.at = end + 1;
        Ok(Quoted { raw: self.text.get(start..end).unwrap_or_default(), is_escaped })
    }

    fn number(&mut self) -> Result<&'a str, Problem> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'I') {
            self.word("Infinity", Token::Null)?;
            return Ok("-Infinity");
        }
        self.digits()?;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    fn digits(&mut self) -> Result<(), Problem> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.problem("a digit should stand")) } else { Ok(()) }
    }
}

enum Container {
    Object(Members),
    Array(Elements),
}

impl<'a> Quoted<'a> {
    /// The string as it stands, escapes and all.
    pub(super) fn raw(self) -> &'a str {
        self.raw
    }

    /// The string with its escapes undone; a copy only if there are any.
    pub(super) fn text(self) -> Cow<'a, str> {
        if !self.is_escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut text = Vec::with_capacity(self.raw.len());
        self.append_to(&mut text);
        Cow::Owned(String::from_utf8_lossy(&text).into_owned())
    }

    /// Appends the string with its escapes undone, as UTF-8, and says whether something had to be mended: half a surrogate pair and
    /// a `\u` without four digits become U+FFFD, an escape that JSON does not know stays as it stands.
    pub(super) fn append_to(self, out: &mut Vec<u8>) -> bool {
        if !self.is_escaped {
            out.extend_from_slice(self.raw.as_bytes());
            return false;
        }
        let mut is_mended = false;
        let mut rest = self.raw.as_bytes();
        while let Some(backslash) = find::byte(rest, b'\\') {
            let (plain, escape) = rest.split_at(backslash);
            out.extend_from_slice(plain);
            let Some((&letter, after)) = escape.get(1..).and_then(|escape| escape.split_first())
            else {
                break;
            };
            rest = after;
            match letter {
                b'"' | b'\\' | b'/' => out.push(letter),
                b'b' => out.push(8),
                b'f' => out.push(12),
                b'n' => out.push(b'\n'),
                b'r' => out.push(b'\r'),
                b't' => out.push(b'\t'),
                b'u' => {
                    let (character, after) = unicode_escape(rest);
                    rest = after;
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
}

/// The character of an escape whose `\u` has been read, and what follows it. A pair of surrogates is one character.
fn unicode_escape(escape: &[u8]) -> (Option<char>, &[u8]) {
    let Some((unit, after)) = hex_unit(escape) else { return (None, escape) };
    if let Some(character) = char::from_u32(unit) {
        return (Some(character), after);
    }
    let low = after.strip_prefix(b"\\u").and_then(hex_unit);
    match (unit, low) {
        (0xd800..=0xdbff, Some((low @ 0xdc00..=0xdfff, after))) => {
            (char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)), after)
        }
        _ => (None, after),
    }
}

fn hex_unit(digits: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, after) = digits.split_first_chunk::<4>()?;
    let mut unit = 0;
    for &digit in digits {
        unit = (unit << 4) | char::from(digit).to_digit(16)?;
    }
    Some((unit, after))
}
