//! Transcodes attributes and their values.

use super::scalar;
use super::{ReadError, Transcoder};
use crate::normalize::json::{Quoted, Token};
use crate::normalize::otlp::TOO_DEEP_MARKER;
use crate::normalize::otlp::tally::repaired;
use crate::span::otlp::protobuf::{
    Open, SMALL_BYTES, close_message, open_message, write_bytes, write_fixed64_bits, write_text,
    write_text_attribute, write_varint_field,
};

/// For values that are not of the type that their member names.
const MISFIT: &str = "an attribute's value does not fit its type: it is kept as text";
/// Exporters send null for a NaN.
const NULL_VALUE: &str = "an attribute's value is null: it is kept without a value";
/// For types of a later version of OTLP, or of an unknown encoder.
const FOREIGN: &str = "an attribute's value is of an unknown type: it is kept without a value";
const ESCAPE: &str = "a string has an escape of no character: it became U+FFFD";
const NO_ATTRIBUTE: &str = "an attribute is not an object";
const NO_KEY: &str = "an attribute's key is not a string";
const NO_LIST: &str = "an attribute's list of values is not an array";
const NO_SCALAR: &str = "an attribute's value does not fit its type";

/// The deepest nesting at which a message's length is guessed to be small. Too low a guess moves the content, and many of them, nested,
/// would move a large text many times. Deeper messages get room for any length.
const GUESS_DEPTH_MAX: usize = 4;

impl<'a> Transcoder<'a> {
    /// Reads a list of attributes into this repeated field. `depth` is their values' nesting; an attribute's own value has 1.
    pub(super) fn attributes(
        &mut self,
        number: u32,
        depth: usize,
        misfit: &'static str,
    ) -> Result<(), ReadError> {
        self.each(misfit, |this| this.attribute(number, depth))
    }

    fn attribute(&mut self, number: u32, depth: usize) -> Result<(), ReadError> {
        self.count_value()?;
        let begun_at = self.scanner.value_position();
        if !self.tally.is_too_deep(depth)
            && let Some(written) = self.usual_attribute(number, depth)
        {
            return written;
        }
        self.scanner.go_back(begun_at);
        let message = self.open(number, depth);
        let start = self.out.len();
        let mut key = Quoted::default();
        let mut written_key = Quoted::default();
        self.members(NO_ATTRIBUTE, |this, name| match name {
            "key" => this.text(NO_KEY).map(|text| key = text),
            "value" => {
                // This value replaces an earlier one.
                this.out.truncate(start);
                this.write_quoted(1, key);
                written_key = key;
                this.value(2, depth)
            }
            _ => this.skip(),
        })?;
        if key != written_key {
            self.write_quoted(1, key);
        }
        close_message(&mut self.out, message);
        Ok(())
    }

    /// Reads an attribute with a scalar in the form that nearly every client sends: key first, without spaces. Writes nothing if it has
    /// another form.
    fn usual_attribute(&mut self, number: u32, depth: usize) -> Option<Result<(), ReadError>> {
        let key = self.scanner.string_after("{\"key\":")?;
        let name = self.scanner.string_after(",\"value\":{")?;
        let token = if self.scanner.eat(":") { self.scanner.token().ok()? } else { return None };
        let member = member(name.raw())?;
        let is_scalar = matches!(token, Token::Text(_) | Token::Number(_) | Token::Bool(_));
        if !is_scalar || !self.scanner.eat("}}") {
            return None;
        }
        let text = if let Token::Text(text) = token { text } else { Quoted::default() };
        if let (STRING, Token::Text(_), Some(key), Some(text)) =
            (member, token, key.plain(), text.plain())
        {
            write_text_attribute(&mut self.out, number, key, text);
            return Some(Ok(()));
        }
        // A number usually has at most ten bytes.
        let guess = text.raw().len() + 12;
        let message = open_message(&mut self.out, number, key.raw().len() + guess + 4);
        self.write_quoted(1, key);
        let value = open_message(&mut self.out, 2, guess);
        let written = self.value_member(member, token, depth);
        close_message(&mut self.out, value);
        close_message(&mut self.out, message);
        Some(written)
    }

    /// Reads an `AnyValue` into this field.
    fn value(&mut self, number: u32, depth: usize) -> Result<(), ReadError> {
        let message = self.open(number, depth);
        if self.tally.is_too_deep(depth) {
            self.skip()?;
            self.tally.warn(repaired::TOO_DEEP);
            write_text(&mut self.out, 1, TOO_DEEP_MARKER);
        } else {
            match self.scanner.token()? {
                Token::Object => self.value_members(depth, OneOf::Bare)?,
                Token::Null => {}
                token => self.keep_as_text(token)?,
            }
        }
        close_message(&mut self.out, message);
        Ok(())
    }

    fn value_members(&mut self, depth: usize, one_of: OneOf) -> Result<(), ReadError> {
        let start = self.out.len();
        let mut has_unknown = false;
        let mut is_begun = false;
        while let Some(name) = self.scanner.next_member(&mut is_begun)? {
            let name = name.text();
            let is_wrapper = || one_of == OneOf::Bare && &*name == GO_WRAPPER;
            let token = self.scanner.token()?;
            match (member(&name), token) {
                (Some(_), Token::Null) => self.tally.warn(NULL_VALUE),
                (Some(member), _) => {
                    // If there are several members, the last one wins.
                    self.out.truncate(start);
                    self.value_member(member, token, depth)?;
                }
                (None, Token::Object) if is_wrapper() => {
                    self.out.truncate(start);
                    self.value_members(depth, OneOf::Wrapped)?;
                }
                // Go writes a missing value this way, which OTLP allows.
                (None, Token::Null) if is_wrapper() => {}
                (None, _) => {
                    has_unknown = true;
                    self.scanner.finish(token)?;
                }
            }
        }
        if has_unknown && self.out.len() == start {
            self.tally.warn(FOREIGN);
        }
        Ok(())
    }

    /// Reads the member of a value with this field number. `token` is the beginning of its content.
    fn value_member(
        &mut self,
        member: u32,
        token: Token<'a>,
        depth: usize,
    ) -> Result<(), ReadError> {
        let out = &mut self.out;
        let written = match (member, token) {
            (STRING, Token::Text(text)) => {
                self.write_quoted_always(STRING, text);
                return Ok(());
            }
            (ARRAY | MAP, Token::Object | Token::Array) => return self.list(member, token, depth),
            (BOOL, _) => {
                scalar::boolean(token).map(|value| write_varint_field(out, BOOL, u64::from(value)))
            }
            (INT, _) => scalar::integer(token)
                .and_then(|number| i64::try_from(number).ok())
                .map(|number| write_varint_field(out, INT, number.cast_unsigned())),
            (DOUBLE, _) => scalar::double(token)
                .map(|number| write_fixed64_bits(out, DOUBLE, number.to_bits())),
            (BYTES, _) => scalar::bytes(token).map(|bytes| write_bytes(out, BYTES, &bytes)),
            _ => None,
        };
        if written.is_some() { Ok(()) } else { self.keep_as_text(token) }
    }

    /// Reads an `ArrayValue` or `KeyValueList` after its first mark: an object with one member, `values`. Some encoders leave that out, and
    /// write the array itself, or an object with the keys of a `KeyValueList`.
    fn list(&mut self, member: u32, first: Token<'a>, depth: usize) -> Result<(), ReadError> {
        let message = self.open(member, depth);
        let mut is_begun = false;
        if matches!(first, Token::Array) {
            self.elements(member, depth)?;
            close_message(&mut self.out, message);
            return Ok(());
        }
        while let Some(name) = self.scanner.next_member(&mut is_begun)? {
            let is_object = self.scanner.peek() == Some(b'{');
            match &*name.text() {
                _ if is_object && member == MAP => {
                    self.count_value()?;
                    let entry = self.open(1, depth + 1);
                    self.write_quoted(1, name);
                    self.value(2, depth + 1)?;
                    close_message(&mut self.out, entry);
                }
                "values" | "Values" => match self.scanner.token()? {
                    Token::Array => self.elements(member, depth)?,
                    Token::Null => {}
                    _ => return Err(ReadError::Misfit(NO_LIST)),
                },
                _ => self.skip()?,
            }
        }
        close_message(&mut self.out, message);
        Ok(())
    }

    /// Reads the elements of a list after its bracket.
    fn elements(&mut self, member: u32, depth: usize) -> Result<(), ReadError> {
        let mut is_begun = false;
        while self.scanner.next_element(&mut is_begun)? {
            if member == MAP {
                self.attribute(1, depth + 1)?;
            } else {
                self.count_value()?;
                self.value(1, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Keeps a scalar of the wrong type as text.
    fn keep_as_text(&mut self, token: Token<'a>) -> Result<(), ReadError> {
        match token {
            Token::Text(text) => self.write_quoted_always(1, text),
            Token::Number(digits) => write_bytes(&mut self.out, 1, digits.as_bytes()),
            Token::Bool(value) => {
                write_bytes(&mut self.out, 1, if value { b"true" } else { b"false" });
            }
            Token::Object | Token::Array | Token::Null => return Err(ReadError::Misfit(NO_SCALAR)),
        }
        self.tally.warn(MISFIT);
        Ok(())
    }

    /// Appends a string field, unless the string is empty.
    pub(super) fn write_quoted(&mut self, number: u32, text: Quoted<'a>) {
        if !text.raw().is_empty() {
            self.write_quoted_always(number, text);
        }
    }

    fn write_quoted_always(&mut self, number: u32, text: Quoted<'a>) {
        let message = open_message(&mut self.out, number, text.raw().len());
        if text.append_to(&mut self.out) {
            self.tally.warn(ESCAPE);
        }
        close_message(&mut self.out, message);
    }

    fn open(&mut self, number: u32, depth: usize) -> Open {
        let guess = if depth <= GUESS_DEPTH_MAX { SMALL_BYTES } else { u32::MAX as usize };
        open_message(&mut self.out, number, guess)
    }
}

/// The member in which Go's `encoding/json` writes the oneof of an `AnyValue`. The structs of `protoc-gen-go` have JSON names only for
/// plain fields. Therefore the oneof's field, and the struct around each of its members, are written under their Go names
/// (`{"Value":{"StringValue":"a"}}`). gogo's structs have JSON names for the inner ones (`{"Value":{"string_value":"a"}}`).
/// <https://github.com/open-telemetry/opentelemetry-proto-go/blob/main/otlp/common/v1/common.pb.go>
const GO_WRAPPER: &str = "Value";

/// The place of a value's members: directly in it, or in Go's wrapper, which cannot contain another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OneOf {
    Bare,
    Wrapped,
}

/// Field numbers of an `AnyValue`.
const STRING: u32 = 1;
const BOOL: u32 = 2;
const INT: u32 = 3;
const DOUBLE: u32 = 4;
const ARRAY: u32 = 5;
const MAP: u32 = 6;
const BYTES: u32 = 7;

/// Returns the field number of a member of an `AnyValue`.
fn member(name: &str) -> Option<u32> {
    match name {
        "stringValue" | "string_value" | "StringValue" => Some(STRING),
        "intValue" | "int_value" | "IntValue" => Some(INT),
        "boolValue" | "bool_value" | "BoolValue" => Some(BOOL),
        "doubleValue" | "double_value" | "DoubleValue" => Some(DOUBLE),
        "arrayValue" | "array_value" | "ArrayValue" => Some(ARRAY),
        "kvlistValue" | "kvlist_value" | "KvlistValue" => Some(MAP),
        "bytesValue" | "bytes_value" | "BytesValue" => Some(BYTES),
        // Unknown, or an index into a table that only profiles have.
        _ => None,
    }
}
