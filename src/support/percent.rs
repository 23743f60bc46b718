//! Percent-encoding (RFC 3986, section 2.1), read: in `grpc-message`, and in the headers that environment variables hold.

/// The text that is meant. What is no encoding stays as it is.
pub fn decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>().filter(|_| byte == b'%');
        let digit =
            |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let decoded = digits.and_then(|[high, low]| Some((digit(*high)? << 4) | digit(*low)?));
        out.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digits_after_a_percent_sign_are_a_byte_and_everything_else_is_itself() {
        for (text, expected) in [
            ("", ""),
            ("a+b", "a+b"),
            ("Basic%20abc%3d%3D", "Basic abc=="),
            ("caf%C3%A9", "caf\u{e9}"),
            ("100%", "100%"),
            ("%zz%2", "%zz%2"),
            ("%FF", "\u{fffd}"),
        ] {
            assert_eq!(decode(text.as_bytes()), expected, "{text}");
        }
    }
}
