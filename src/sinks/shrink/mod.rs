//! Cuts payloads that exceed a backend's limit as the Agents SDK does: the largest parts first, until the payload fits. Pure.
//!
//! [`otlp`] cuts the texts of a complete span. The steps are those of the exporter of Python 0.24, so the result is the same to the byte:
//! sizes are those of the shortest JSON text in UTF-8, and divisions are those of doubles.

pub(super) mod otlp;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::de::IgnoredAny;

use crate::support::json::raw::inside;
use crate::support::json::scan::{Broken, Scanner};
use crate::support::json::{write_shortest, write_str};

/// The end of a string that was cut.
const SUFFIX: &str = "... [truncated]";
/// The suffix with its quotes.
const SUFFIX_BYTES: usize = SUFFIX.len() + 2;
/// The deepest level that is cut. Deeper values are kept or removed as a unit. Python itself ends near 960 levels.
const DEPTH_MAX: usize = 512;

/// Appends a JSON value cut to this many bytes, if it is valid.
pub(super) fn write_shrunk(out: &mut Vec<u8>, json: &str, bytes_max: usize) {
    let Some(mut tree) = Tree::read(json) else { return };
    tree.shrink(bytes_max);
    tree.write(out);
}

/// Cuts a text to this many bytes. A JSON object or list stays valid JSON, so that backends still show it as such.
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
    /// The length of its shortest JSON text, in bytes.
    size: usize,
}

enum Node<'a> {
    Text(Cow<'a, str>),
    /// The shortest text of a value that is not cut inside: a number, `true`, `false`, `null`, or a container at too deep a level.
    Whole(Cow<'a, str>),
    /// An array, or an object whose children have names.
    Container {
        is_object: bool,
        children: Vec<Child<'a>>,
    },
}

/// An element of a container; its value is `None` if it was removed.
struct Child<'a> {
    /// In an object.
    name: Option<Cow<'a, str>>,
    value: Option<Tree<'a>>,
}

impl<'a> Tree<'a> {
    fn read(json: &'a str) -> Option<Self> {
        let mut scanner = Scanner::new(json.as_bytes());
        Self::read_next(&mut scanner, json, 0).ok()
    }

    fn read_next(scanner: &mut Scanner<'_>, json: &'a str, depth: usize) -> Result<Self, Broken> {
        let first = scanner.peek();
        let start = scanner.at;
        let (node, size) = match first {
            Some(b'"') => {
                let text = inside(json, scanner.string()?);
                let size = text_size(&text);
                (Node::Text(text), size)
            }
            Some(b'{' | b'[') if depth < DEPTH_MAX => {
                return Self::read_container(scanner, json, depth);
            }
            _ => {
                scanner.skip_value()?;
                let mut text = Cow::Borrowed(json.get(start..scanner.at).unwrap_or_default());
                if text.starts_with(['{', '[']) {
                    let mut shortest = Vec::new();
                    write_shortest(&mut shortest, &text);
                    text = Cow::Owned(String::from_utf8(shortest).unwrap_or_default());
                }
                let size = text.len();
                (Node::Whole(text), size)
            }
        };
        Ok(Self { node, size })
    }

    fn read_container(
        scanner: &mut Scanner<'_>,
        json: &'a str,
        depth: usize,
    ) -> Result<Self, Broken> {
        let mut children = Vec::new();
        let mut add = |scanner: &mut Scanner<'_>, name| {
            let value = Some(Self::read_next(scanner, json, depth + 1)?);
            children.push(Child { name, value });
            Ok(())
        };
        let is_object = scanner.peek() == Some(b'{');
        if is_object {
            scanner.each_member(|scanner, name| add(scanner, Some(inside(json, name))))?;
        } else {
            scanner.each_element(|scanner| add(scanner, None))?;
        }
        let commas = children.len().saturating_sub(1);
        let size = 2 + commas + children.iter().map(Child::size).sum::<usize>();
        Ok(Self { node: Node::Container { is_object, children }, size })
    }

    /// Cuts the value to this many bytes, as far as possible. Returns whether it changed.
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
            Node::Whole(text) => {
                // A note replaces the value, if the note is small enough.
                let kind = kind_of(text);
                let note = format!(
                    "{{\"truncated\":true,\"original_type\":\"{kind}\",\"preview\":\"<{kind} truncated>\"}}"
                );
                let fits = note.len() <= bytes_max;
                if fits {
                    (self.size, self.node) = (note.len(), Node::Whole(Cow::Owned(note)));
                }
                fits
            }
            Node::Container { children, .. } => {
                let before = self.size;
                self.size = shrink_children(children, before, bytes_max);
                self.size != before
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (is_object, children) = match &self.node {
            Node::Text(text) => return write_str(out, text),
            Node::Whole(text) => return out.extend_from_slice(text.as_bytes()),
            Node::Container { is_object, children } => (*is_object, children),
        };
        out.push(if is_object { b'{' } else { b'[' });
        let mut separator: &[u8] = b"";
        for Child { name, value } in children {
            let Some(value) = value else { continue };
            out.extend_from_slice(separator);
            separator = b",";
            if let Some(name) = name {
                write_str(out, name);
                out.push(b':');
            }
            value.write(out);
        }
        out.push(if is_object { b'}' } else { b']' });
    }
}

impl Child<'_> {
    /// Returns the bytes of the child in its container, without a comma.
    fn size(&self) -> usize {
        let name = self.name.as_ref().map_or(0, |name| text_size(name) + 1);
        name + self.value.as_ref().map_or(0, |value| value.size)
    }
}

/// Cuts the largest child repeatedly, the first among equals. A child that cannot get smaller is removed. Returns the container's size.
fn shrink_children(children: &mut [Child<'_>], mut size: usize, bytes_max: usize) -> usize {
    let sized = children.iter().enumerate();
    let mut largest: BinaryHeap<(usize, Reverse<usize>)> =
        sized.filter_map(|(at, child)| Some((child.value.as_ref()?.size, Reverse(at)))).collect();
    while bytes_max < size {
        let Some((child_size, Reverse(at))) = largest.pop() else { break };
        let Some(child) = children.get_mut(at) else { break };
        let Some(value) = &mut child.value else { break };
        let rest = size - child_size;
        if value.shrink(bytes_max.saturating_sub(rest)) {
            size = rest + value.size;
            largest.push((value.size, Reverse(at)));
        } else {
            let comma = usize::from(!largest.is_empty());
            size -= child.size() + comma;
            child.value = None;
        }
    }
    size
}

/// Returns the bytes of a string's shortest text, including quotes.
fn text_size(text: &str) -> usize {
    2 + text.bytes().map(byte_size).sum::<usize>()
}

/// Returns the bytes that one byte of a string takes in JSON.
fn byte_size(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | 8 | 9 | 10 | 12 | 13 => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// Returns Python's name for a value's type.
fn kind_of(text: &str) -> &'static str {
    match text {
        "true" | "false" => "bool",
        "null" => "NoneType",
        object if object.starts_with('{') => "dict",
        array if array.starts_with('[') => "list",
        number if number.contains(['.', 'e', 'E']) => "float",
        _ => "int",
    }
}

/// Keeps as many characters as fit together with the suffix, or a few less, because the SDK guesses and then steps down.
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
