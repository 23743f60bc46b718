//! JSON text written straight into an output: strings, numbers, nothing else.

use std::io::Write as _;

/// Appends a string with its quotes. Only what JSON demands is escaped; other characters stay as they are.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let (blocks, tail) = text.as_bytes().as_chunks::<BLOCK>();
    for block in blocks {
        // Without an early exit the compiler looks at the whole block at once; most blocks need no escape.
        if block.iter().fold(false, |any, &byte| any | needs_escape(byte)) {
            write_escaped(out, block);
        } else {
            out.extend_from_slice(block);
        }
    }
    write_escaped(out, tail);
    out.push(b'"');
}

/// Appends a number, or `null` for what JSON has no number for: NaN and the infinities.
pub fn write_f64(out: &mut Vec<u8>, number: f64) {
    if number.is_finite() {
        // Debug has the shortest digits that read back as the same number, and exponents where the zeros would be many.
        // Writing to memory does not fail.
        write!(out, "{number:?}").ok();
    } else {
        out.extend_from_slice(b"null");
    }
}

/// Appends a number.
pub fn write_u64(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; U64_DIGITS_MAX];
    let mut rest = number;
    let mut length = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (rest % 10) as u8;
        rest /= 10;
        length += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.split_at(U64_DIGITS_MAX - length).1);
}

/// Appends a number.
pub fn write_i64(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    write_u64(out, number.unsigned_abs());
}

/// Appends JSON text on one line: what stands between tokens is left out, raw control characters in strings are escaped, and
/// `NaN`, `Infinity` and `-Infinity`, which some writers let through, become `null`. Everything else is copied as it is.
pub fn write_compact(out: &mut Vec<u8>, json: &[u8]) {
    out.reserve(json.len());
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => after,
            b'"' => {
                let (string, after) = rest.split_at(string_length(rest));
                write_string_token(out, string);
                after
            }
            b'-' if after.first() == Some(&b'I') => after,
            b'N' | b'I' => {
                out.extend_from_slice(b"null");
                let word = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
                rest.split_at(word).1
            }
            token => {
                out.push(token);
                after
            }
        };
    }
}

/// Bytes of the string at the beginning, quotes included; all of them where it has no end.
fn string_length(json: &[u8]) -> usize {
    let mut escaped = false;
    let end = json.iter().skip(1).position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(json.len(), |end| end + 2)
}

fn write_string_token(out: &mut Vec<u8>, token: &[u8]) {
    if token.iter().any(|&byte| byte < b' ') {
        for &byte in token {
            match byte {
                control if control < b' ' => write_escaped(out, &[control]),
                plain => out.push(plain),
            }
        }
    } else {
        out.extend_from_slice(token);
    }
}

/// Bytes looked at together. 16 is a vector register of every processor we build for.
const BLOCK: usize = 16;

/// Decimal digits of the largest `u64`.
const U64_DIGITS_MAX: usize = 20;

fn needs_escape(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// For each byte: 0 where it stands for itself, the letter behind the backslash where there is one, `u` where there is none.
#[expect(clippy::indexing_slicing, reason = "bytes index 256 entries, at compile time")]
const ESCAPES: [u8; 256] = {
    let mut letters = [0; 256];
    let mut control = 0;
    while control < b' ' {
        letters[control as usize] = b'u';
        control += 1;
    }
    letters[b'"' as usize] = b'"';
    letters[b'\\' as usize] = b'\\';
    letters[b'\n' as usize] = b'n';
    letters[b'\r' as usize] = b'r';
    letters[b'\t' as usize] = b't';
    letters[8] = b'b';
    letters[12] = b'f';
    letters
};

/// Appends at most [`BLOCK`] bytes. JSON inside of strings has a quote every few bytes, which no processor predicts: so both
/// forms of a byte are written, and the place of the next one decides which of them stays.
#[expect(clippy::indexing_slicing, reason = "each byte takes two places at most")]
fn write_escaped(out: &mut Vec<u8>, block: &[u8]) {
    let mut piece = [0; 2 * BLOCK];
    let mut length = 0;
    let mut is_rare = false;
    for &byte in block {
        let letter = ESCAPES[usize::from(byte)];
        is_rare |= letter == b'u';
        piece[length] = b'\\';
        length += usize::from(letter != 0);
        piece[length] = if letter == 0 { byte } else { letter };
        length += 1;
    }
    if is_rare {
        write_rare(out, block);
    } else {
        out.extend_from_slice(&piece[..length]);
    }
}

/// Appends bytes of which some have no escape of their own.
fn write_rare(out: &mut Vec<u8>, block: &[u8]) {
    for &byte in block {
        match ESCAPES.get(usize::from(byte)) {
            // Writing to memory does not fail.
            Some(b'u') => drop(write!(out, "\\u{byte:04x}")),
            Some(0) | None => out.push(byte),
            Some(&letter) => out.extend_from_slice(&[b'\\', letter]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_json_demands_is_escaped_and_nothing_else() {
        let text = "quote \" backslash \\ newline \n bell \u{7} nul \0 \u{8}\u{c}\r\t delete \u{7f} paris \u{e9} sun \u{1f31e}";
        assert_eq!(
            written(|out| write_str(out, text)),
            "\"quote \\\" backslash \\\\ newline \\n bell \\u0007 nul \\u0000 \\b\\f\\r\\t delete \u{7f} paris \u{e9} sun \u{1f31e}\""
        );
    }

    #[test]
    fn compact_text_is_one_line_and_what_is_no_json_is_mended() {
        let text = "{ \"a\\\" b\" : [ NaN , -Infinity,Infinity,\r\n -1.5e3, true ],\t\"N\ta\nN\": \"\\\\\" }\n";
        assert_eq!(
            written(|out| write_compact(out, text.as_bytes())),
            r#"{"a\" b":[null,null,null,-1.5e3,true],"N\ta\nN":"\\"}"#
        );
        assert_eq!(written(|out| write_compact(out, b"\"no end")), "\"no end");
    }

    #[test]
    fn numbers_are_written_in_full_range() {
        for number in [0, 1, 9, 10, 99, 100, 1_795_238_969_114_407_720, u64::MAX] {
            assert_eq!(written(|out| write_u64(out, number)), number.to_string());
        }
        for number in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(written(|out| write_i64(out, number)), number.to_string());
        }
    }

    #[test]
    fn what_json_has_no_number_for_is_null() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(written(|out| write_f64(out, number)), "null");
        }
    }

    proptest! {
        #[test]
        fn any_string_reads_back(text: String) {
            let json = written(|out| write_str(out, &text));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn any_finite_number_reads_back(number in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO) {
            let json = written(|out| write_f64(out, number));
            prop_assert_eq!(json.parse::<f64>().unwrap().to_bits(), number.to_bits());
            prop_assert!(serde_json::from_str::<serde_json::Number>(&json).is_ok());
        }
    }
}
