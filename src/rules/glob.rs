//! Globs with `*` and `?`, as regular expressions.

use regex::{Regex, escape};

/// Returns a pattern for a glob: `*` stands for any text, `?` for one character. Returns `None` if the pattern is too long.
pub fn glob(form: &str) -> Option<Regex> {
    let pattern = escape(form).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("(?s)^{pattern}$")).ok()
}
