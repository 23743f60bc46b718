//! Payloads that are larger than a backend takes, cut as the Agents SDK cuts them: the largest parts first, until the whole fits. Pure.
//!
//! [`otlp`] does it to the texts of a whole span. The steps are the exporter's of Python 0.24, so that what arrives is the same to the byte: sizes are those of the shortest JSON
//! text in UTF-8, and divisions are those of doubles.

pub(super) mod otlp;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::de::IgnoredAny;

use crate::support::json::raw::unescape;
use crate::support::json::scan::Scanner;
use crate::support::json::write_str;

/// What stands at the end of a string that was cut.
const SUFFIX: &str = "... [truncated]";
/// The suffix with its quotes.
const SUFFIX_BYTES: usize = SUFFIX.len() + 2;
/// Levels that are looked into; what lies deeper is kept or left out as a whole. Python itself ends near 960.
const DEPTH_MAX: usize = 512;

/// Appends a JSON value cut to so many bytes, if it is valid.
pub(super) fn write_shrunk(out: &mut Vec<u8>, json: &str, bytes_max: usize) {
    let Some(mut tree) = Tree::read(json) else { return };
    tree.shrink(bytes_max);
    tree.write(out);
}

/// A text cut to so many bytes. A JSON object or list stays one, so that backends still show it as such.
fn shortened(text: &str, bytes_max: usize) -> String {
    if text.starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        let mut out = Vec::new();
        write_shrunk(&mut out, text, bytes_max);
        if let Ok(json) = String::from_utf8(out) {
            return json;
        }
    }
    let end = text.floor_char_boundary(bytes_max.saturating_sub(SUFFIX.len()));
    [text.get(..end).unwrap_or_default(), SUFFIX].concat()
}

/// A value with its size.
struct Tree<'a> {
    node: Node<'a>,
    /// Bytes of its shortest text.
    size: usize,
}

enum Node<'a> {
    Text(Cow<'a, str>),
    /// A number, `true`, `false` or `null`.
    Scalar(Cow<'a, str>),
    /// A container too deep to be looked into, in its shortest text.
    Deep(String),
    Array(Vec<Option<Tree<'a>>>),
    Object(Vec<Option<(Cow<'a, str>, Tree<'a>)>>),
}

impl<'a> Tree<'a> {
    fn read(json: &'a str) -> Option<Self> {
        let mut scanner = Scanner::new(json.as_bytes());
        Self::read_next(&mut scanner, json, 0)
    }

    fn read_next(scanner: &mut Scanner<'_>, json: &'a str, depth: usize) -> Option<Self> {
        let first = scanner.peek()?;
        let start = scanner.at;
        let (node, size) = match first {
            b'"' => {
                let quoted = scanner.string().ok()?;
                let text = unescape(json.get(quoted.start..quoted.end)?);
                let size = text_size(&text);
                (Node::Text(text), size)
            }
            b'{' | b'[' if DEPTH_MAX <= depth => {
                scanner.skip_value().ok()?;
                let mut text = Vec::new();
                crate::support::json::write_shortest(&mut text, json.get(start..scanner.at)?);
                let size = text.len();
                (Node::Deep(String::from_utf8(text).ok()?), size)
            }
            b'{' => Self::read_object(scanner, json, depth)?,
            b'[' => Self::read_array(scanner, json, depth)?,
            _ => {
                scanner.scalar().ok()?;
                let text = json.get(start..scanner.at)?;
                (Node::Scalar(Cow::Borrowed(text)), text.len())
            }
        };
        Some(Self { node, size })
    }

    fn read_object(
        scanner: &mut Scanner<'_>,
        json: &'a str,
        depth: usize,
    ) -> Option<(Node<'a>, usize)> {
        let (mut members, mut size) = (Vec::new(), 1);
        scanner.at += 1;
        if scanner.eat(b'}') {
            return Some((Node::Object(members), 2));
        }
        loop {
            let name = scanner.key().ok()?;
            let name = unescape(json.get(name.start..name.end)?);
            let value = Self::read_next(scanner, json, depth + 1)?;
            size += member_size(&name, value.size) + 1;
            members.push(Some((name, value)));
            if !scanner.eat(b',') {
                scanner.expect(b'}', "a comma or }").ok()?;
                return Some((Node::Object(members), size));
            }
        }
    }

    fn read_array(
        scanner: &mut Scanner<'_>,
        json: &'a str,
        depth: usize,
    ) -> Option<(Node<'a>, usize)> {
        let (mut elements, mut size) = (Vec::new(), 1);
        scanner.at += 1;
        if scanner.eat(b']') {
            return Some((Node::Array(elements), 2));
        }
        loop {
            let value = Self::read_next(scanner, json, depth + 1)?;
            size += value.size + 1;
            elements.push(Some(value));
            if !scanner.eat(b',') {
                scanner.expect(b']', "a comma or ]").ok()?;
                return Some((Node::Array(elements), size));
            }
        }
    }

    /// Cuts the value to so many bytes, as far as it can be; says whether anything became of that.
    fn shrink(&mut self, bytes_max: usize) -> bool {
        if self.size <= bytes_max {
            return false;
        }
        match &mut self.node {
            Node::Text(text) => {
                let cut = cut_text(text, self.size, bytes_max);
                let has_changed = *cut != **text;
                (self.size, self.node) = (text_size(&cut), Node::Text(Cow::Owned(cut)));
                has_changed
            }
            Node::Scalar(text) => {
                let kind = scalar_kind(text);
                self.replace_by_preview(kind, bytes_max)
            }
            Node::Deep(text) => {
                let kind = if text.starts_with('{') { "dict" } else { "list" };
                self.replace_by_preview(kind, bytes_max)
            }
            Node::Array(elements) => {
                let (size, has_changed) = shrink_children(elements, self.size, bytes_max);
                self.size = size;
                has_changed
            }
            Node::Object(members) => {
                let (size, has_changed) = shrink_children(members, self.size, bytes_max);
                self.size = size;
                has_changed
            }
        }
    }

    /// Puts a note in a value's place, if the note is small enough.
    fn replace_by_preview(&mut self, kind: &str, bytes_max: usize) -> bool {
        let text = format!(
            "{{\"truncated\":true,\"original_type\":\"{kind}\",\"preview\":\"<{kind} truncated>\"}}"
        );
        let fits = text.len() <= bytes_max;
        if fits {
            (self.size, self.node) = (text.len(), Node::Scalar(Cow::Owned(text)));
        }
        fits
    }

    fn write(&self, out: &mut Vec<u8>) {
        match &self.node {
            Node::Text(text) => write_str(out, text),
            Node::Scalar(text) => out.extend_from_slice(text.as_bytes()),
            Node::Deep(text) => out.extend_from_slice(text.as_bytes()),
            Node::Array(elements) => {
                out.push(b'[');
                for (at, element) in elements.iter().flatten().enumerate() {
                    if at != 0 {
                        out.push(b',');
                    }
                    element.write(out);
                }
                out.push(b']');
            }
            Node::Object(members) => {
                out.push(b'{');
                for (at, (name, value)) in members.iter().flatten().enumerate() {
                    if at != 0 {
                        out.push(b',');
                    }
                    write_str(out, name);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// What a container holds: an element, or a member with its name.
trait Child<'a> {
    fn value(&self) -> &Tree<'a>;
    fn value_mut(&mut self) -> &mut Tree<'a>;
    /// Bytes of the child in its container, without a comma.
    fn size(&self) -> usize;
}

impl<'a> Child<'a> for Tree<'a> {
    fn value(&self) -> &Tree<'a> {
        self
    }

    fn value_mut(&mut self) -> &mut Tree<'a> {
        self
    }

    fn size(&self) -> usize {
        self.size
    }
}

impl<'a> Child<'a> for (Cow<'a, str>, Tree<'a>) {
    fn value(&self) -> &Tree<'a> {
        &self.1
    }

    fn value_mut(&mut self) -> &mut Tree<'a> {
        &mut self.1
    }

    fn size(&self) -> usize {
        member_size(&self.0, self.1.size)
    }
}

/// Cuts the largest child again and again, the first of equals first; one that cannot get smaller is left out. Returns the
/// container's size and whether it is another now.
fn shrink_children<'a, C: Child<'a>>(
    children: &mut [Option<C>],
    mut size: usize,
    bytes_max: usize,
) -> (usize, bool) {
    let sized = children.iter().enumerate();
    let mut largest: BinaryHeap<(usize, Reverse<usize>)> =
        sized.filter_map(|(at, child)| Some((child.as_ref()?.value().size, Reverse(at)))).collect();
    let mut has_changed = false;
    while bytes_max < size {
        let Some((child_size, Reverse(at))) = largest.pop() else { break };
        let Some(slot) = children.get_mut(at) else { break };
        let Some(child) = slot else { break };
        has_changed = true;
        let rest = size - child_size;
        if child.value_mut().shrink(bytes_max.saturating_sub(rest)) {
            size = rest + child.value().size;
            largest.push((child.value().size, Reverse(at)));
        } else {
            let comma = usize::from(!largest.is_empty());
            size -= child.size() + comma;
            *slot = None;
        }
    }
    (size, has_changed)
}

/// Bytes of a member, its name and colon included.
fn member_size(name: &str, value_size: usize) -> usize {
    text_size(name) + 1 + value_size
}

/// Bytes of a string's shortest text, quotes included.
fn text_size(text: &str) -> usize {
    2 + text.bytes().map(byte_size).sum::<usize>()
}

/// Bytes that one byte of a string takes in JSON.
fn byte_size(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | 8 | 9 | 10 | 12 | 13 => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// Python's name for a value's type.
fn scalar_kind(text: &str) -> &'static str {
    match text {
        "true" | "false" => "bool",
        "null" => "NoneType",
        number if number.contains(['.', 'e', 'E']) => "float",
        _ => "int",
    }
}

/// As many characters from the beginning as fit together with the suffix, or a few less: the SDK guesses and then steps down.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the SDK computes in doubles, and the same result is wanted; bodies are far below 2^53 bytes"
)]
fn cut_text(text: &str, size: usize, bytes_max: usize) -> String {
    if bytes_max < SUFFIX_BYTES {
        return String::new();
    }
    if bytes_max == SUFFIX_BYTES {
        return SUFFIX.to_owned();
    }
    let characters = text.chars().count();
    let guess = (characters * (bytes_max - SUFFIX_BYTES)) as f64 / size as f64;
    let mut kept = (guess as usize).min(characters);
    loop {
        let end = text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at);
        let head = text.get(..end).unwrap_or_default();
        let size = text_size(head) + SUFFIX.len();
        if size <= bytes_max || kept == 0 {
            return [head, SUFFIX].concat();
        }
        let excess = (size - bytes_max) as f64 / size as f64;
        let step = ((kept as f64 * excess) as usize + 1).max(1);
        kept = kept.saturating_sub(step);
    }
}
