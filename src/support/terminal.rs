//! Text on a terminal: its colours, and what others have written.

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Letters only.
    Plain,
    /// With the colours of a terminal.
    Colours,
}

impl Paint {
    /// The text in bold red, or whatever the escape codes say, where colours are wanted.
    pub fn with(self, codes: &str, text: &str) -> String {
        match self {
            Self::Colours if !text.is_empty() => format!("\x1b[{codes}m{text}\x1b[0m"),
            Self::Plain | Self::Colours => text.to_owned(),
        }
    }
}

/// Text that others have written, as a terminal may be shown it: what would move its cursor, colour it or turn lines around is written
/// out as `\u{1b}`. Line breaks and tabs stay.
pub fn harmless(text: &str) -> String {
    written_out(text, "\n\t", |letter| letter.escape_unicode().to_string())
}

/// JSON that says the same and is as harmless: these all have four digits, and stand in strings only.
pub fn harmless_json(json: &str) -> String {
    written_out(json, "\n", |letter| format!("\\u{:04x}", u32::from(letter)))
}

/// The same text in one line: line breaks and tabs are written out, too.
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

/// Control characters, and those that turn the direction of text around or break lines.
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
