//! JSON text without trees: written directly into an output ([`write_str`] ...), scanned ([`scan`]) and viewed ([`raw`]).

pub mod object;
pub mod scan;
pub mod raw;
mod plain;

use std::io::Write as _;

/// Appends a string in quotes. Only the escapes that JSON requires are written.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_inside(out, text.as_bytes());
    out.push(b'"');
}

/// Appends the inside of a string, which is UTF-8. The output for a piece does not depend on its surroundings, so a string may be written
/// piece by piece.
pub fn write_inside(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain::length(rest));
        out.extend_from_slice(plain);
        let Some((&escaped, after)) = special.split_first() else { return };
        write_escaped(out, escaped);
        rest = after;
    }
}

/// Appends a list, whose elements `write` appends.
pub fn write_list<T>(
    out: &mut Vec<u8>,
    elements: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (index, element) in elements.into_iter().enumerate() {
        if index != 0 {
            out.push(b',');
        }
        write(out, element);
    }
    out.push(b']');
}

/// Appends a number, or `null` for NaN and the infinities, which JSON cannot express.
pub fn write_f64(out: &mut Vec<u8>, number: f64) {
    if number.is_finite() {
        // Debug prints the shortest digits that read back as the same number, and exponents instead of many zeros. Writing to memory cannot
        // fail.
        write!(out, "{number:?}").ok();
    } else {
        out.extend_from_slice(b"null");
    }
}

/// Appends a whole number.
pub fn write_integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends JSON text on one line: white space between tokens is removed, raw control characters in strings are escaped, and `NaN`,
/// `Infinity` and `-Infinity`, which some writers emit, become `null`. Everything else is copied unchanged.
pub fn write_compact(out: &mut Vec<u8>, json: &[u8]) {
    out.reserve(json.len());
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => after,
            b'"' => {
                let mut scanner = scan::Scanner::lenient(rest);
                // An unterminated string is copied unchanged.
                let end = scanner.string().map_or(rest.len(), |string| string.end + 1);
                let (string, after) = rest.split_at(end.min(rest.len()));
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

/// Appends valid JSON text in its shortest form, as current SDKs write it: on one line, with only the escapes that JSON requires. Numbers
/// keep their text.
pub fn write_shortest(out: &mut Vec<u8>, json: &str) {
    out.reserve(json.len());
    let mut scanner = scan::Scanner::new(json.as_bytes());
    while let Some(byte) = scanner.peek() {
        let start = scanner.at;
        scanner.loose = false;
        if byte != b'"' {
            out.push(byte);
            scanner.at += 1;
            continue;
        }
        // Strings in valid JSON are terminated.
        let Ok(quoted) = scanner.string() else { return };
        if scanner.loose {
            write_str(out, &raw::unescape(json.get(quoted.start..quoted.end).unwrap_or_default()));
        } else {
            out.extend_from_slice(json.as_bytes().get(start..scanner.at).unwrap_or_default());
        }
    }
}

fn write_string_token(out: &mut Vec<u8>, token: &[u8]) {
    if token.iter().any(|&byte| byte < b' ') {
        for &byte in token {
            match byte {
                control if control < b' ' => write_escaped(out, control),
                plain => out.push(plain),
            }
        }
    } else {
        out.extend_from_slice(token);
    }
}

#[inline]
fn write_escaped(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        rare => write_rare(out, rare),
    }
}

#[inline(never)]
fn write_rare(out: &mut Vec<u8>, byte: u8) {
    let letter = match byte {
        b'\r' => b'r',
        b'\t' => b't',
        8 => b'b',
        12 => b'f',
        // Writing to memory cannot fail.
        control if control < b' ' => return drop(write!(out, "\\u{control:04x}")),
        plain => return out.push(plain),
    };
    out.extend_from_slice(&[b'\\', letter]);
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
    fn the_shortest_text_has_no_needless_escape() {
        let text = r#" { "a\/b" : [ "caf\u00e9 \ud83c\udf1e \u000a \u001F \u0000 \" \\ x", 1.50 , {} ] } "#;
        let shortest = written(|out| write_shortest(out, text));
        assert_eq!(
            shortest,
            "{\"a/b\":[\"caf\u{e9} \u{1f31e} \\n \\u001f \\u0000 \\\" \\\\ x\",1.50,{}]}"
        );
        assert_eq!(written(|out| write_shortest(out, &shortest)), shortest);
    }

    #[test]
    fn numbers_are_written_in_full_range() {
        for number in [0, 1, 9, 10, 99, 100, 1_795_238_969_114_407_720, u64::MAX] {
            assert_eq!(written(|out| write_integer(out, number)), number.to_string());
        }
        for number in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(written(|out| write_integer(out, number)), number.to_string());
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
        fn any_string_reads_back(text in "[ -~\\x00-\\x1f\"\\\\\u{7f}-\u{2030}\u{1f31e}]{0,60}") {
            let json = written(|out| write_str(out, &text));
            prop_assert_eq!(&json, &serde_json::to_string(&text).unwrap());
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
