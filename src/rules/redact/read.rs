//! Reads `redact` and `set` from the configuration and reports all mistakes in them.

use std::ops::Range;

use regex::bytes::Regex;
use ring::hmac;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fields::Fields;
use super::patterns::{PATTERNS, Pattern};
use super::search::Search;
use super::set::Setting;
use super::text::Action;
use super::{FIELDS, Redaction, Rewrite};
use crate::rules::reading::{Reading, reason, texts};
use crate::support::options::did_you_mean;
use crate::support::problem::Problem;

/// A shorter key for hashes can be guessed.
const KEY_BYTES_MIN: usize = 16;
/// User-defined names appear in texts, in place of what was there.
const NAME_CHARS_MAX: usize = 32;
/// Texts that have nothing in common: a pattern that matches each of them whole matches everything.
const UNLIKE: [&str; 4] = ["a", "4711 0815", "Zwei W\u{f6}rter, ein Satz.", "{\"k\":[true]}\n"];

const ACTIONS: [&str; 3] = ["mask", "hash", "drop"];

impl Rewrite {
    /// Reads the value of `redact` or `set`; returns `None` after reporting a mistake.
    pub(in crate::rules) fn read(
        action: &str,
        value: &Spanned<DeValue<'_>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let table = value.get_ref().as_table()?;
        let at = value.span();
        match action {
            "redact" => Reading { problems }.redact(table, &at).map(Box::new).map(Self::Redact),
            _ => Setting::read(table, &at, problems).map(Self::Set),
        }
    }

    pub(in crate::rules) fn schema(action: &str) -> Value {
        if action != "redact" {
            return Setting::schema();
        }
        let names: Vec<&str> = PATTERNS.iter().map(|pattern| pattern.name).collect();
        let list = |description: &str, items: Value| json!({ "description": description, "type": "array", "items": items });
        json!({
            "description": "Removes texts from what matches.",
            "type": "object",
            "properties": {
                "fields": list("The fields to search; without it, every text.", json!({ "type": "string" })),
                "patterns": list("The patterns to search for, by name.", json!({ "enum": names })),
                "regex": {
                    "description": "Your own regular expressions to search for, each with a name.",
                    "type": "object",
                    "additionalProperties": { "type": "string" },
                },
                "action": {
                    "description": "`mask`, `hash`, `drop`, or `{ cut = N }` for at most N bytes of each value.",
                    "type": ["string", "object"],
                },
                "key": {
                    "description": "The key for hashes.",
                    "type": "string",
                    "format": "password",
                    "writeOnly": true,
                },
            },
            "additionalProperties": false,
        })
    }
}

impl Reading<'_> {
    fn redact(&mut self, table: &DeTable<'_>, at: &Range<usize>) -> Option<Redaction> {
        let known = self.problems.len();
        let fields = self.fields(table.get("fields"));
        let patterns = patterns(table.get("patterns"));
        let own = self.own(table.get("regex"));
        let action = self.replacement(table);
        let has_patterns = !patterns.is_empty() || !own.is_empty();
        let is_asked = table.contains_key("patterns") || table.contains_key("regex");
        if is_asked && !has_patterns && known == self.problems.len() {
            let hint = "name a pattern, or remove `patterns`";
            self.report(at, "the rule searches for nothing", hint);
        }
        if has_patterns && matches!(action, Some(Action::Cut(_))) {
            let hint = "remove `patterns` and `regex`, and name `fields`";
            self.report(at, "`cut` goes by length, not by matches", hint);
        }
        if !is_asked && fields.are_all {
            let hint = "name `patterns` to search for, or the `fields` to replace whole";
            self.report(at, "the rule would replace every text", hint);
        }
        let search = match Search::new(&patterns, own) {
            _ if !has_patterns => Search::all(),
            Ok(search) => search,
            Err(error) => {
                let what = format!("the patterns are too large in total: {error}");
                return self.wrong(at, what, "");
            }
        };
        let action = action.filter(|_| known == self.problems.len())?;
        Some(Redaction { fields, search, action })
    }

    fn fields(&mut self, value: Option<&Spanned<DeValue<'_>>>) -> Fields {
        let Some(value) = value else { return Fields::all() };
        let words = texts(value);
        let mut fields = Fields::default();
        if words.is_empty() {
            let all = FIELDS.map(|(name, _)| name).join(", ");
            let hint = format!("the fields are {all}, `attribute.KEY` and `resource.KEY`");
            self.report(&value.span(), "no field", &hint);
        }
        for (at, word) in words {
            if let Err(hint) = fields.add(word) {
                self.report(&at, "unknown field", &hint);
            }
        }
        fields
    }

    fn own(&mut self, value: Option<&Spanned<DeValue<'_>>>) -> Vec<(String, Regex)> {
        let table = value.and_then(|value| value.get_ref().as_table());
        let mut own = Vec::new();
        for (name, value) in table.into_iter().flatten() {
            let (text, key) = (value.get_ref().as_str().unwrap_or_default(), name.get_ref());
            let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            if key.is_empty() || key.len() > NAME_CHARS_MAX || !key.bytes().all(is_good) {
                let hint = format!("use 1 to {NAME_CHARS_MAX} of the letters a-z A-Z 0-9 _ -");
                self.report(&name.span(), "not a valid pattern name", &hint);
            } else if PATTERNS.iter().any(|pattern| pattern.name == key) {
                let hint = "rename yours";
                self.report(&name.span(), "there is a built-in pattern with this name", hint);
            }
            let error;
            let (what, hint) = match Regex::new(text) {
                Ok(regex) if regex.is_match(b"") => (
                    "the expression matches the empty string",
                    "require at least one character: `+` instead of `*`, for example",
                ),
                Ok(regex) if UNLIKE.iter().all(|text| is_whole(&regex, text.as_bytes())) => (
                    "the expression matches everything",
                    "use `fields` and `action = \"drop\"` to drop whole values",
                ),
                Ok(regex) => {
                    own.push((key.clone().into_owned(), regex));
                    continue;
                }
                Err(wrong) => {
                    error = reason(&wrong);
                    ("not a regular expression", error.as_str())
                }
            };
            self.report(&value.span(), what, hint);
        }
        own
    }

    fn replacement(&mut self, table: &DeTable<'_>) -> Option<Action> {
        let (key, value) = (table.get("key"), table.get("action"));
        let at = value.map(Spanned::span).unwrap_or_default();
        let action = match value.map(Spanned::get_ref) {
            None => Some(Action::Mask),
            Some(DeValue::String(word)) => match word.as_ref() {
                "hash" => return self.hash(key, &at),
                "mask" => Some(Action::Mask),
                "drop" => Some(Action::Drop),
                word => {
                    let hint = did_you_mean(word, &ACTIONS).unwrap_or_default();
                    let hint = format!("{hint} Or write `{{ cut = 1000 }}`");
                    self.wrong(&at, "unknown action", &hint)
                }
            },
            Some(DeValue::Table(cut)) => {
                let bytes = cut.get("cut").and_then(|bytes| bytes.get_ref().as_integer());
                let bytes = bytes.and_then(|bytes| bytes.as_str().parse().ok());
                let bytes = bytes.filter(|_| cut.len() == 1);
                let hint = "write `{ cut = 1000 }` for at most 1000 bytes";
                bytes.map(Action::Cut).or_else(|| self.wrong(&at, "unknown action", hint))
            }
            Some(_) => None,
        };
        if let Some(key) = key {
            self.report(&key.span(), "a key without `action = \"hash\"`", "leave it out");
        }
        action
    }

    fn hash(&mut self, key: Option<&Spanned<DeValue<'_>>>, at: &Range<usize>) -> Option<Action> {
        let Some(key) = key else {
            let hint = "add `key = \"${NAME_OF_A_VARIABLE}\"`: without a key, hashes of guessable values can be reversed by trying them";
            return self.wrong(at, "a hash needs a key", hint);
        };
        let secret = key.get_ref().as_str().unwrap_or_default();
        if secret.len() < KEY_BYTES_MIN {
            let hint = format!("use at least {KEY_BYTES_MIN} random bytes");
            self.report(&key.span(), "the key is too short", &hint);
        }
        Some(Action::Hash(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))))
    }
}

/// Returns the patterns with these names in the order of the table, which decides between two that start at the same place. The schema
/// check reports unknown names.
fn patterns(value: Option<&Spanned<DeValue<'_>>>) -> Vec<&'static Pattern> {
    let wanted: Vec<&str> = value.map(texts).into_iter().flatten().map(|(_, name)| name).collect();
    PATTERNS.iter().filter(|pattern| wanted.contains(&pattern.name)).collect()
}

fn is_whole(regex: &Regex, text: &[u8]) -> bool {
    regex.find(text).is_some_and(|found| found.len() == text.len())
}
