//! Replaces the matches in one text.
//!
//! A text may be JSON, with texts in it that are JSON again: arguments of tools, messages. So matches are replaced token by token, and the
//! result is valid JSON: strings are unescaped, searched and written anew, a number becomes a string, member names and the structure stay.
//! If a match of the user's own pattern spans several tokens, the values that it touches are replaced. In other text, or truncated JSON,
//! escapes are decoded only for the search, up to [`VIEWS_MAX`] times, and matches are replaced in place.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr;
use ring::hmac;

use super::Redaction;
use super::search::{Marks, PatternMatch, apart};
use crate::support::json::raw::{append_unescaped, unescape};
use crate::support::json::scan::{Broken, Lenient, Scanner, escaped_unit};
use crate::support::json::write_str;

/// Maximum depth of JSON in JSON; deeper JSON is searched as plain text.
const NESTED_MAX: usize = 8;
/// How many levels of escapes are decoded in text that is not JSON.
const VIEWS_MAX: usize = 4;
/// Maximum number of adjacent matches, one of which becomes visible only after the other is replaced.
const NEIGHBOURS_MAX: usize = 8;
/// Bytes of a hash that are shown.
const HASH_BYTES: usize = 6;

/// What happens to a match, or to a value if no pattern is configured.
#[derive(Debug)]
pub(super) enum Action {
    /// It is replaced by `[email]`.
    Mask,
    /// It is replaced by `[email:1a2b3c4d5e6f]`, equal for equal texts.
    Hash(Box<hmac::Key>),
    /// The value that contains it is emptied.
    Drop,
    /// The value is truncated to so many bytes.
    Cut(usize),
}

impl Action {
    /// Returns the replacement for a text.
    fn label(&self, name: &str, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Mask => format!("[{name}]").into_bytes(),
            Self::Hash(key) => {
                let hash = hmac::sign(key, text);
                let digits = hash.as_ref().iter().take(HASH_BYTES);
                let digits: Vec<_> = digits.map(|byte| format!("{byte:02x}")).collect();
                format!("[{name}:{}]", digits.concat()).into_bytes()
            }
            Self::Drop => Vec::new(),
            Self::Cut(bytes_max) => {
                let mut end = text.len().min(*bytes_max);
                // Truncation never splits a character.
                while text.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) && end > 0 {
                    end -= 1;
                }
                text.get(..end).unwrap_or_default().to_vec()
            }
        }
    }

    /// Replaces a whole value; `None` if it is already replaced.
    pub(super) fn whole(&self, text: &[u8]) -> Option<Vec<u8>> {
        let label = self.label("redacted", text);
        let is_done = match self {
            Self::Mask | Self::Drop | Self::Cut(_) => label == text,
            // A hash is not hashed again.
            Self::Hash(_) => text.len() == label.len() && text.starts_with(b"[redacted:"),
        };
        (!is_done).then_some(label)
    }
}

/// Ranges and their replacements, ordered and disjoint.
pub(super) type Edits = Vec<(Range<usize>, Vec<u8>)>;

/// Applies edits to a text; `None` without any.
pub(super) fn edited(text: &[u8], edits: Edits) -> Option<Vec<u8>> {
    if edits.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for (range, replacement) in edits {
        out.extend_from_slice(text.get(done..range.start).unwrap_or_default());
        out.extend(replacement);
        done = range.end;
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
    Some(out)
}

impl Redaction {
    /// Redacts the text under a key; `None` if it stays.
    pub(super) fn value(&self, key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        self.marked(key, text, &self.search.marks(text))
    }

    /// Redacts a text with these marks under a key; `None` if it stays.
    pub(super) fn marked(&self, key: &[u8], text: &[u8], marks: &Marks) -> Option<Vec<u8>> {
        if self.search.is_all {
            return self.action.whole(text);
        }
        let cleaned = self.clean(text, marks, 0);
        self.by_key(key, cleaned.as_deref().unwrap_or(text)).or(cleaned)
    }

    /// Replaces the secrets in a text that are recognizable only by its key; `None` if there are none.
    fn by_key(&self, key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        if key.is_empty() || self.search.starts(key).is_empty() {
            return None;
        }
        let start = key.len() + 1;
        let edits = self.plain_edits(&[key, b"=", text].concat()).into_iter();
        let of_text = edits.filter_map(|(found, label)| {
            Some((found.start.checked_sub(start)?..found.end - start, label))
        });
        self.edited(text, of_text.collect())
    }

    /// Replaces the matches in a text; `None` if there are none.
    fn clean(&self, text: &[u8], marks: &Marks, depth: usize) -> Option<Vec<u8>> {
        if !marks.any() {
            return None;
        }
        let first = text.trim_ascii_start().first();
        if depth < NESTED_MAX
            && matches!(first, Some(b'{' | b'[' | b'"'))
            && let Ok(json) = str::from_utf8(text)
            && let Ok(edits) = self.json_edits(json, marks, depth, |_| true)
        {
            return edited(text, edits);
        }
        self.clean_plain(text)
    }

    /// Returns the edits of a JSON text's tokens, limited to the paths that `selects` accepts. Tokens without marks are not looked at.
    pub(super) fn json_edits(
        &self,
        json: &str,
        marks: &Marks,
        depth: usize,
        mut selects: impl FnMut(&Path<'_>) -> bool,
    ) -> Result<Edits, Broken> {
        let across = apart(self.search.find_text(json.as_bytes()));
        let mut edits = Edits::new();
        walk(json, |path, token, range| {
            let across = touching(&across, &range);
            if across.is_none() && !marks.touch(&range) || !selects(path) {
                return;
            }
            let said = json.get(range.clone()).unwrap_or_default();
            let name = path.last().copied().flatten().unwrap_or_default();
            let Some(cleaned) = self.token(token, (name, said), depth, across) else { return };
            let mut written = Vec::with_capacity(cleaned.len() + 2);
            if self.search.is_all && token == Token::Scalar && cleaned.is_empty() {
                written.extend_from_slice(b"null");
            } else {
                write_str(&mut written, &String::from_utf8_lossy(&cleaned));
            }
            // The quotes of a string belong to the replacement.
            let quote = usize::from(token != Token::Scalar);
            edits.push((range.start - quote..range.end + quote, written));
        })?;
        Ok(edits)
    }

    /// Returns the replacement of a token under a name; `across` is a match in the raw JSON text that overlaps the token.
    fn token(
        &self,
        token: Token,
        (name, said): (&str, &str),
        depth: usize,
        across: Option<&PatternMatch>,
    ) -> Option<Vec<u8>> {
        let whole =
            |(_, name): &PatternMatch| self.action.label(self.search.name(*name), said.as_bytes());
        match token {
            Token::Text if self.search.is_all => self.action.whole(unescape(said).as_bytes()),
            Token::Name => self.name(unescape(said).as_bytes()),
            Token::Scalar if self.search.is_all => {
                let goes = self.takes_scalars() && said != "null";
                goes.then(|| self.action.whole(said.as_bytes())).flatten()
            }
            Token::Scalar if said.parse::<f64>().is_err() => across.map(whole),
            // The beginning and the end of a text or a number are visible only in isolation.
            Token::Text | Token::Scalar => {
                let text = unescape(said);
                let marks = self.search.marks(text.as_bytes());
                let Some(cleaned) = self.clean(text.as_bytes(), &marks, depth + 1) else {
                    return across.map(whole);
                };
                self.by_key(name.as_bytes(), &cleaned).or(Some(cleaned))
            }
        }
    }

    /// Replaces matches of the table's patterns in a key or a member's name. The user's own expressions are for values. A name is never
    /// emptied.
    pub(super) fn name(&self, name: &[u8]) -> Option<Vec<u8>> {
        let found = self.search.find(name).into_iter();
        let edits =
            found.filter(|(_, found)| self.search.is_named(*found)).map(|(range, found)| {
                let action =
                    if matches!(self.action, Action::Drop) { &Action::Mask } else { &self.action };
                let matched = name.get(range.clone()).unwrap_or_default();
                (range, action.label(self.search.name(found), matched))
            });
        edited(name, edits.collect())
    }

    /// Returns whether values other than texts are also replaced, if all values are.
    pub(super) fn takes_scalars(&self) -> bool {
        !matches!(self.action, Action::Cut(_))
    }

    /// Overwrites matches in a part of a message with stars, so that no offset changes.
    pub(super) fn put_stars(&self, message: &mut [u8], part: Range<usize>) {
        let Some(text) = message.get(part.clone()) else { return };
        for (found, _) in self.plain_edits(text) {
            let found = part.start + found.start..part.start + found.end;
            message.get_mut(found).into_iter().for_each(|found| found.fill(b'*'));
        }
    }

    /// Replaces the matches in a text that is not JSON. The text next to a match may match afterwards. The user's own expressions may match
    /// the replacements, so they are not applied again.
    fn clean_plain(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut cleaned = self.edited(text, self.plain_edits(text))?;
        for _ in 0..NEIGHBOURS_MAX {
            match edited(&cleaned, self.plain_edits(&cleaned)) {
                Some(next) if !self.search.is_anywhere() => cleaned = next,
                _ => break,
            }
        }
        Some(cleaned)
    }

    /// Applies edits to a value, which is emptied if that is the action.
    fn edited(&self, text: &[u8], edits: Edits) -> Option<Vec<u8>> {
        match self.action {
            Action::Drop if !edits.is_empty() => Some(Vec::new()),
            _ => edited(text, edits),
        }
    }

    /// Returns the edits of a text that is not JSON: matches in the text as it is, and with its escapes decoded.
    fn plain_edits(&self, text: &[u8]) -> Edits {
        let mut view = View { text: Cow::Borrowed(text), origins: Vec::new() };
        let mut edits = Edits::new();
        for _ in 0..=VIEWS_MAX {
            for (range, name) in self.search.find(&view.text) {
                let matched = view.text.get(range.clone()).unwrap_or_default();
                let label = self.action.label(self.search.name(name), matched);
                edits.push((view.origin(range.start)..view.origin(range.end), label));
            }
            view = match view.unescaped() {
                Some(next) => next,
                None => break,
            };
        }
        apart(edits)
    }
}

/// Returns the first match that overlaps a token.
fn touching<'f>(found: &'f [PatternMatch], token: &Range<usize>) -> Option<&'f PatternMatch> {
    let first = found.partition_point(|(range, _)| range.end <= token.start);
    found.get(first).filter(|(range, _)| range.start < token.end)
}

/// A text with its escapes decoded.
struct View<'t> {
    text: Cow<'t, [u8]>,
    /// For each byte, and for the end, its index in the original text; empty for the original.
    origins: Vec<usize>,
}

impl View<'_> {
    /// Maps an index to the original text.
    fn origin(&self, at: usize) -> usize {
        self.origins.get(at).copied().unwrap_or(at)
    }

    /// Decodes one more level of escapes; `None` if there are none.
    fn unescaped(&self) -> Option<Self> {
        let mut next = View { text: Cow::default(), origins: Vec::new() };
        let mut at = memchr(b'\\', &self.text).map(|_| 0)?;
        while let Some(rest @ [byte, ..]) = self.text.get(at..) {
            let length = match rest {
                [b'\\', b'u', ..] if escaped_unit(rest, 0).is_some() => 6,
                [b'\\', b'n' | b't' | b'r' | b'"' | b'\\' | b'/', ..] => 2,
                _ => 1,
            };
            let text = next.text.to_mut();
            match rest.get(..length).and_then(|escape| str::from_utf8(escape).ok()) {
                Some(escape) if length > 1 => drop(append_unescaped(text, escape)),
                _ => text.push(*byte),
            }
            next.origins.resize(text.len(), self.origin(at));
            at += length;
        }
        next.origins.push(self.origin(at));
        (next.text.len() < self.text.len()).then_some(next)
    }
}

/// A token of a JSON text; of strings, the inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Text,
    Name,
    /// A number or a word.
    Scalar,
}

/// The names of the members around a token, as written, from the outermost container on; `None` for arrays. A member's own name is
/// included.
pub(super) type Path<'t> = [Option<&'t str>];

/// Visits the tokens of a JSON text in order.
fn walk<'t>(
    json: &'t str,
    mut visit: impl FnMut(&Path<'t>, Token, Range<usize>),
) -> Result<(), Broken> {
    let mut check = Scanner::new(json.as_bytes());
    check.skip_value()?;
    if check.peek().is_some() {
        return Err(check.broken("the end"));
    }
    // The text is valid JSON, so the next byte determines the token.
    let mut scanner = Lenient::lenient(json.as_bytes());
    let mut path = Vec::new();
    while let Some(next) = scanner.peek() {
        let start = scanner.at;
        match next {
            b'"' => {
                let quoted = scanner.string()?;
                let inside = quoted.start..quoted.end;
                let is_name = scanner.peek() == Some(b':');
                if is_name && let Some(last) = path.last_mut() {
                    *last = json.get(inside.clone());
                }
                visit(&path, if is_name { Token::Name } else { Token::Text }, inside);
            }
            b'{' | b'[' => path.push(None),
            b'}' | b']' => drop(path.pop()),
            b',' | b':' => {}
            _ => {
                scanner.scalar()?;
                visit(&path, Token::Scalar, start..scanner.at);
            }
        }
        scanner.at = scanner.at.max(start + 1);
    }
    Ok(())
}
