//! Text for a terminal: colours, and text from other sources made harmless.

/// The style of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Plain text.
    Plain,
    /// Terminal colours.
    Colours,
}

impl Paint {
    /// Returns the text in the style of these escape codes if colours are used.
    pub fn with(self, codes: &str, text: &str) -> String {
        match self {
            Self::Colours if !text.is_empty() => format!("\x1b[{codes}m{text}\x1b[0m"),
            Self::Plain | Self::Colours => text.to_owned(),
        }
    }
}

/// Returns text from other sources in a form that is safe for a terminal: characters that would move its cursor, colour it or reverse text
/// are written as `\u{1b}`. Line breaks and tabs stay.
pub fn harmless(text: &str) -> String {
    written_out(text, "\n\t", |letter| letter.escape_unicode().to_string())
}

/// Returns equivalent JSON that is equally harmless: these characters all have four digits, and occur only in strings.
pub fn harmless_json(json: &str) -> String {
    written_out(json, "\n", |letter| format!("\\u{:04x}", u32::from(letter)))
}

/// Returns the same in one line: line breaks and tabs are escaped, too.
pub fn harmless_line(text: &str) -> String {
    written_out(text, "", |letter| letter.escape_default().to_string())
}

fn written_out(text: &str, kept: &str, write: fn(char) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_harmful(letter) && !kept.contains(letter) {
            out.push_str(&write(letter));
        } else {
            out.push(letter);
        }
    }
    out
}

/// Returns whether a character is a control character, changes the direction of text or breaks lines.
fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_moves_no_cursor_and_turns_no_line_around() {
        let hostile = "a\u{1b}[31m\u{7}\u{9b}2J\u{202e}b\r\n\t\u{5d0}";
        let shown = harmless(hostile);
        assert_eq!(shown, "a\\u{1b}[31m\\u{7}\\u{9b}2J\\u{202e}b\\u{d}\n\t\u{5d0}");
        let json = serde_json::to_string(&[hostile]).unwrap();
        let shown = harmless_json(&json);
        assert!(!shown.chars().any(is_harmful), "{shown}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [hostile]);
    }
}
