//! Texts of a form: what `*` and `?` stand for, as a pattern.

use regex::{Regex, escape};

/// The pattern of all texts of a form: `*` stands for any text and `?` for one character. It is too long where it is none.
pub fn glob(form: &str) -> Option<Regex> {
    let pattern = escape(form).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("(?s)^{pattern}$")).ok()
}
