//! Repairs almost valid JSON, and removes credentials. Both remove or replace small ranges; every other byte stays as sent.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use crate::normalize::raw::unescape;
use crate::support::json::scan::{Broken, NON_FINITE, Quoted, Scanner, escaped_unit};

/// Members with an OpenAI key or its hash. The SDKs write them into snapshots and not on the wire. They are never stored or forwarded, even
/// if a client sends them.
const CREDENTIALS: [&str; 2] = ["tracing_api_key", "tracing_api_key_hash"];

/// The deepest nesting that is accepted. Python encodes up to about 960 levels; the rest is reserve for later versions.
pub(super) const NESTING_MAX: usize = 2_000;

/// Removes members with credentials from a body of the ingest format, at any depth. A body without such members, or that is not JSON, is
/// returned without a copy.
///
/// The journal keeps bodies as sent, so a receiver calls this before anything else reads the body.
pub fn scrub_credentials(body: Bytes) -> Bytes {
    let shortest_name = CREDENTIALS.map(str::as_bytes)[0];
    if memmem::find(&body, shortest_name).is_none() {
        return body;
    }
    match edits(&body, Purpose::Scrub) {
        Ok(edits) if !edits.is_empty() => Bytes::from(apply(&body, &edits)),
        _ => body,
    }
}

/// Makes an item that a [`Scanner`] has accepted valid JSON. It removes members and elements that are not finite numbers, replaces halves
/// of surrogate pairs with `?` (both as the SDK itself does since 0.23), and escapes raw control characters.
pub(super) fn repair(item: &str) -> Option<String> {
    let edits = edits(item.as_bytes(), Purpose::Mend).ok()?;
    String::from_utf8(apply(item.as_bytes(), &edits)).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Scrub,
    Mend,
}

/// A range of the bytes and its replacement. Edits are sorted and do not overlap.
type Edit = (Range<usize>, Cow<'static, str>);

fn apply(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut edited = Vec::with_capacity(bytes.len() + 8 * edits.len());
    let mut done = 0;
    for (range, replacement) in edits {
        edited.extend_from_slice(bytes.get(done..range.start).unwrap_or_default());
        edited.extend_from_slice(replacement.as_bytes());
        done = range.end;
    }
    edited.extend_from_slice(bytes.get(done..).unwrap_or_default());
    edited
}

fn edits(bytes: &[u8], purpose: Purpose) -> Result<Vec<Edit>, Broken> {
    let mut walk =
        Walk { bytes, purpose, scanner: Scanner::new(bytes), open: Vec::new(), edits: Vec::new() };
    walk.run()?;
    Ok(walk.edits)
}

/// An open container, and the position of the walk in it.
#[derive(Debug, Default)]
struct Open {
    closing: u8,
    /// The start of the current member or element.
    start: usize,
    /// The number of edits before it.
    edits_before: usize,
    /// Whether it will be removed.
    cut: bool,
    /// The position of the comma before it.
    comma: usize,
    /// Whether an earlier one is kept.
    kept: bool,
}

struct Walk<'a> {
    bytes: &'a [u8],
    purpose: Purpose,
    scanner: Scanner<'a>,
    open: Vec<Open>,
    edits: Vec<Edit>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), Broken> {
        loop {
            let entered = self.value()?;
            if !entered && self.leave()? {
                return Ok(());
            }
        }
    }

    /// Skips a value, or enters a container, so that its first member or element comes next. Returns whether it entered one.
    fn value(&mut self) -> Result<bool, Broken> {
        let cut = self.open.last().is_some_and(|open| open.cut);
        let closing = match self.scanner.peek() {
            Some(b'{') if !cut && self.open.len() < NESTING_MAX => b'}',
            Some(b'[') if !cut && self.open.len() < NESTING_MAX => b']',
            Some(b'"') => {
                self.string()?;
                return Ok(false);
            }
            _ => {
                let rest = self.bytes.get(self.scanner.at..).unwrap_or_default();
                if self.purpose == Purpose::Mend
                    && NON_FINITE.iter().any(|word| rest.starts_with(word))
                {
                    self.cut_current();
                }
                self.scanner.skip_value()?;
                return Ok(false);
            }
        };
        self.scanner.at += 1;
        if self.scanner.eat(closing) {
            return Ok(false);
        }
        self.open.push(Open { closing, ..Open::default() });
        self.begin()?;
        Ok(true)
    }

    /// Starts a member or element, and reads a member's name.
    fn begin(&mut self) -> Result<(), Broken> {
        self.scanner.peek();
        let edits_before = self.edits.len();
        let start = self.scanner.at;
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        (open.start, open.edits_before, open.cut) = (start, edits_before, false);
        if open.closing == b'}' {
            if self.scanner.peek() != Some(b'"') {
                return Err(self.scanner.broken("a member name"));
            }
            let name = self.string()?;
            let name = self.bytes.get(name.start..name.end).unwrap_or_default();
            if CREDENTIALS.contains(&&*unescape(str::from_utf8(name).unwrap_or_default())) {
                self.cut_current();
            }
            self.scanner.expect(b':', "a colon")?;
        }
        Ok(())
    }

    /// Continues after a value. Returns whether it was the last one.
    fn leave(&mut self) -> Result<bool, Broken> {
        while let Some(open) = self.open.last_mut() {
            let end = self.scanner.at;
            let more = self.scanner.eat(b',');
            let comma = self.scanner.at.saturating_sub(1);
            // Until one is kept, a comma is removed with the member before it, afterwards with the member after it.
            let range = match (open.kept, more) {
                (true, _) => open.comma..end,
                (false, true) => open.start..self.scanner.at,
                (false, false) => open.start..end,
            };
            if open.cut {
                self.edits.push((range, "".into()));
            }
            open.kept |= !open.cut;
            if more {
                open.comma = comma;
                self.begin()?;
                return Ok(false);
            }
            let closing = open.closing;
            self.scanner.expect(closing, "a comma or the end of the container")?;
            self.open.pop();
        }
        Ok(true)
    }

    fn cut_current(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.cut = true;
            self.edits.truncate(open.edits_before);
        }
    }

    fn string(&mut self) -> Result<Quoted, Broken> {
        self.scanner.flawed = false;
        let quoted = self.scanner.string()?;
        let cut = self.open.last().is_some_and(|open| open.cut);
        if self.scanner.flawed && self.purpose == Purpose::Mend && !cut {
            self.mend_string(quoted);
        }
        Ok(quoted)
    }

    fn mend_string(&mut self, quoted: Quoted) {
        let mut at = quoted.start;
        while at < quoted.end {
            let byte = self.bytes.get(at).copied().unwrap_or_default();
            let (length, replacement) = match (byte, escaped_unit(self.bytes, at)) {
                (b'\\', Some(0xD800..=0xDBFF))
                    if matches!(escaped_unit(self.bytes, at + 6), Some(0xDC00..=0xDFFF)) =>
                {
                    (12, None)
                }
                (b'\\', Some(0xD800..=0xDFFF)) => (6, Some("?".into())),
                (b'\\', _) => (2, None),
                (0..0x20, _) => (1, Some(format!("\\u{byte:04x}").into())),
                _ => (1, None),
            };
            if let Some(replacement) = replacement {
                self.edits.push((at..at + length, replacement));
            }
            at += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn numbers_that_are_none_leave_with_their_comma() {
        for (sent, repaired) in [
            (r#"{"a":NaN}"#, r"{}"),
            (r#"{"a":NaN,"b":1}"#, r#"{"b":1}"#),
            (r#"{"b":1, "a": -Infinity}"#, r#"{"b":1}"#),
            (r#"{"b":1, "a": NaN, "c": 2}"#, r#"{"b":1, "c": 2}"#),
            (r#"{"a": NaN, "b": Infinity , "c": NaN}"#, r"{ }"),
            ("[NaN,1,NaN,[Infinity, -Infinity],NaN]", "[1,[]]"),
            ("[NaN, NaN, 2, NaN]", "[2]"),
            (r#"{"\ud800": NaN, "k": "\ud800"}"#, r#"{"k": "?"}"#),
        ] {
            let found = repair(sent).unwrap();
            assert_eq!(found.replace(' ', ""), repaired.replace(' ', ""), "{sent}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_becomes_a_question_mark_and_a_whole_one_stays() {
        for (sent, repaired) in [
            (r#"["a\ud83db"]"#, r#"["a?b"]"#),
            (r#"["\udf1e\ud83c\udf1e\ud83c"]"#, r#"["?\ud83c\udf1e?"]"#),
            (r#"["\\ud83d\"\ud83d"]"#, r#"["\\ud83d\"?"]"#),
            (r#"{"\udc00":"x"}"#, r#"{"?":"x"}"#),
            ("[\"a\nb\"]", r#"["a\u000ab"]"#),
        ] {
            assert_eq!(repair(sent).unwrap(), repaired);
        }
    }

    #[test]
    fn credentials_leave_and_everything_else_stays_byte_for_byte() {
        for (sent, scrubbed) in [
            (
                r#"{"data":[{"id":"t", "tracing_api_key": "sk-1" ,"x":NaN}]}"#,
                r#"{"data":[{"id":"t" ,"x":NaN}]}"#,
            ),
            (r#"{"tracing_api_key_hash":{"deep":[1]},"id":1}"#, r#"{"id":1}"#),
            (r#"{"tracing_api_key":"a","tracing_api_key_hash":"b"}"#, "{}"),
            (r#"[{"a":{"tracing_api_key":"a"}}]"#, r#"[{"a":{}}]"#),
        ] {
            assert_eq!(scrub_credentials(Bytes::from(sent)), Bytes::from(scrubbed));
        }
    }

    #[test]
    fn a_body_that_only_speaks_of_credentials_is_not_even_copied() {
        for sent in [r#"{"a":"tracing_api_key"}"#, "{}", r#"{"tracing_api_key": broken"#] {
            let body = Bytes::from(sent);
            assert_eq!(scrub_credentials(body.clone()).as_ptr(), body.as_ptr(), "{sent}");
        }
    }

    #[test]
    fn the_deepest_nesting_is_mended_without_recursion() {
        let sent = format!("{}NaN,1{}", "[".repeat(NESTING_MAX), "]".repeat(NESTING_MAX));
        assert_eq!(repair(&sent).unwrap(), sent.replace("NaN,", ""));
    }

    fn almost_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("NaN".to_owned()),
            Just("-Infinity".to_owned()),
            Just(r#""\ud83d""#.to_owned()),
            Just("\"\u{1}\"".to_owned()),
            Just("12".to_owned()),
            Just(r#""tracing_api_key""#.to_owned()),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            let name = prop_oneof![Just("a"), Just("tracing_api_key"), Just(r"\udc00")];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|values| format!("[{}]", values.join(", "))),
                proptest::collection::vec((name, inner), 0..4).prop_map(|members| {
                    let members: Vec<_> = members
                        .iter()
                        .map(|(name, value)| format!("\"{name}\" :{value}"))
                        .collect();
                    format!("{{{}}}", members.join(" ,"))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_mended_is_json_and_stays_so(text in almost_json()) {
            let item = format!("{{\"x\":{text}}}");
            let repaired = repair(&item).unwrap();
            prop_assert!(serde_json::from_str::<Value>(&repaired).is_ok(), "{} -> {}", item, repaired);
            prop_assert!(!repaired.contains("\"tracing_api_key\" :"));
            prop_assert_eq!(repair(&repaired).unwrap(), repaired.clone());
            let scrubbed = scrub_credentials(Bytes::from(item));
            let both = repair(std::str::from_utf8(&scrubbed).unwrap()).unwrap();
            let parse = |json: &str| serde_json::from_str::<Value>(json).unwrap();
            prop_assert_eq!(parse(&both), parse(&repaired));
        }
    }
}
