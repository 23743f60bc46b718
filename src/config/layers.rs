//! Merges all sources into one table: files in order, then environment variables, then flags. Later ones take precedence.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::environment::Environment;
use super::expand::expand;
use super::sources::{SourceKind, Sources};
use crate::normalize::Fact;
use crate::support::address::Address;
use crate::support::options::{REFERENCED, Value, each_text_in, position};
use crate::support::problem::Problem;

/// `SPANFERRY__JOURNAL__DIR` sets `journal.dir`.
const VARIABLE_PREFIX: &str = "SPANFERRY__";
/// Short variables for the log level, in increasing precedence.
const LEVEL_VARIABLES: [&str; 2] = ["RUST_LOG", "SPANFERRY_LOG"];
/// Words in a key that mark its value as a credential.
const SECRET_WORDS: &[&str] =
    &["key", "secret", "token", "password", "passwd", "credential", "authorization", "bearer"];

#[derive(Debug, Default)]
pub(super) struct Layers<'s> {
    pub(super) sources: Sources<'s>,
    pub(super) root: DeTable<'s>,
    pub(super) problems: Vec<Problem>,
    /// Probable mistakes.
    pub(super) warnings: Vec<Problem>,
    /// Lines with syntax errors; mistakes that follow from them are not reported.
    pub(super) broken: Vec<Range<usize>>,
    /// The values of references and their notation, so that no message shows a value.
    pub(super) referenced: Vec<(String, String)>,
    /// Positions of strings whose keys mark them as credentials.
    pub(super) secrets: BTreeSet<(usize, usize)>,
    /// Sinks that were replaced by their parts.
    pub(super) wholes: Vec<Whole>,
}

/// A sink that was divided into parts.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) name: String,
    /// The tenants that the parts list; `None` if the sink is not divided by tenant, or if one part gets the rest.
    pub(super) tenants: Option<BTreeSet<String>>,
    /// The names of the sinks that it was divided into.
    pub(super) parts: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wins {
    Old,
    New,
}

/// Returns whether the value of a key with this name must be hidden. Token counts are not credentials.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    name == "headers"
        || Fact::named(&name).is_none() && SECRET_WORDS.iter().any(|word| name.contains(word))
}

impl<'s> Layers<'s> {
    /// Adds a file. Its text is padded with as many blanks as there are positions before it, so that positions in it are unique across all
    /// sources.
    pub(super) fn add_file(&mut self, name: &str, padded: &'s str) {
        let base = self.sources.end();
        let text = padded.get(base..).unwrap_or_default();
        self.sources.add(SourceKind::File, name, text.into());
        let (table, errors) = DeTable::parse_recoverable(padded);
        for error in errors {
            let at = error.span().unwrap_or_default();
            let line = self.sources.find(at.start).map(|source| source.line_around(at.start));
            self.broken.extend(line);
            let needs_quotes = error.message().contains("must be quoted");
            let hint = if needs_quotes { "put it in quotes" } else { "" };
            self.problems.push(Problem::new(Some(at), error.message(), hint));
        }
        merge(&mut self.root, table.into_inner());
    }

    /// Adds the values that environment variables set; short names come first because the full names take precedence.
    pub(super) fn add_variables(&mut self, environment: &Environment) {
        for name in LEVEL_VARIABLES {
            if let Some(value) = environment.variable(name) {
                self.add_setting(SourceKind::Variable, name, &["log", "level"], value);
            }
        }
        for (name, value) in environment.beginning_with(VARIABLE_PREFIX) {
            let keys = name.strip_prefix(VARIABLE_PREFIX).unwrap_or_default().to_ascii_lowercase();
            let path: Vec<_> = keys.split("__").collect();
            self.add_setting(SourceKind::Variable, name, &path, value);
        }
    }

    /// Adds the value of one variable or flag at this path of keys.
    pub(super) fn add_setting(&mut self, kind: SourceKind, name: &str, path: &[&str], value: &str) {
        self.referenced.push((value.to_owned(), "the value".to_owned()));
        let at = self.sources.add(kind, name, name.to_owned().into());
        if path.iter().any(|key| key.is_empty()) {
            let hint = format!("{VARIABLE_PREFIX}JOURNAL__DIR sets `dir` of `[journal]`");
            return self.problems.push(Problem::new(Some(at), "not an option's name", hint));
        }
        self.set(Wins::New, path, &at, DeValue::String(value.to_owned().into()));
    }

    /// Sets a value that comes from no file.
    pub(super) fn set(&mut self, wins: Wins, path: &[&str], at: &Range<usize>, value: DeValue<'s>) {
        let Some((last, tables)) = path.split_last() else { return };
        let mut table = &mut self.root;
        for key in tables {
            let key = existing_key(table, key);
            let old = table.get(key.as_str());
            if old.is_none_or(|old| wins == Wins::New && !old.get_ref().is_table()) {
                put(table, &key, at, Spanned::new(at.clone(), DeValue::Table(DeTable::new())));
            }
            match table.get_mut(key.as_str()).map(Spanned::get_mut) {
                Some(DeValue::Table(inner)) => table = inner,
                _ => return,
            }
        }
        let key = existing_key(table, last);
        if wins == Wins::New || !table.contains_key(key.as_str()) {
            put(table, &key, at, Spanned::new(referenced(at), value));
        }
    }

    /// Replaces the references inside strings with their values.
    pub(super) fn expand(&mut self, environment: &Environment) {
        let mut root = std::mem::take(&mut self.root);
        each_text_in(&mut root, &mut |value| self.expand_text(value, environment));
        self.root = root;
    }

    fn expand_text(&mut self, value: &mut Value<'s>, environment: &Environment) {
        let at = value.span();
        let text = value.get_ref().as_str();
        let text = text.filter(|text| text.contains('$') && at.start & REFERENCED == 0);
        match text.map(|text| expand(text, environment)) {
            Some(Ok(expanded)) => {
                let at = if expanded.is_reference { referenced(&at) } else { at };
                self.referenced.extend(expanded.references);
                *value = Spanned::new(at, DeValue::String(expanded.text.into()));
            }
            Some(Err(mistake)) => {
                let at = self.find_inside(&at, mistake.written);
                self.broken.push(at.clone());
                let (what, hint) = mistake.reason;
                self.problems.push(Problem { at: Some(at), what, hint });
            }
            None => {}
        }
    }

    /// Finds a text within the value at `at`. Returns the range of the whole value if the position is ambiguous (an escape in the string).
    pub(super) fn find_inside(&self, at: &Range<usize>, inside: &str) -> Range<usize> {
        let found = self.sources.find(at.start).and_then(|source| {
            let value = source.text.get(source.local(at.start)..source.local(at.end))?;
            let start = at.start + value.find(inside)?;
            Some(start..start + inside.len())
        });
        found.unwrap_or_else(|| at.clone())
    }

    /// Returns the value at this path of keys.
    pub(super) fn value(&self, path: &[&str]) -> Option<&Value<'s>> {
        let (first, rest) = path.split_first()?;
        let mut value = self.root.get(*first)?;
        for key in rest {
            value = value.get_ref().as_table()?.get(*key)?;
        }
        Some(value)
    }

    /// Returns the address to listen on at this path. Returns `None` if it is invalid, which is reported separately.
    pub(super) fn address(&self, path: &[&str], default: Address) -> Option<Address> {
        match self.value(path) {
            Some(said) => said.get_ref().as_str()?.parse().ok(),
            None => Some(default),
        }
    }

    /// Returns the position of the value at this path.
    pub(super) fn place(&self, path: &[&str]) -> Option<Range<usize>> {
        self.value(path).map(|value| position(&value.span()))
    }

    /// Returns the entries of the table at this path; none if it does not exist.
    pub(super) fn entries<'l>(
        &'l self,
        path: &[&str],
    ) -> impl Iterator<Item = (&'l Spanned<DeString<'s>>, &'l Value<'s>)> + use<'l, 's> {
        self.value(path).and_then(|value| value.get_ref().as_table()).into_iter().flatten()
    }

    /// Describes where a value comes from.
    pub(super) fn origin(&self, at: &Range<usize>) -> String {
        self.sources.origin(position(at).start)
    }

    /// Returns whether a sink is configured: by a table in a file, or by a `type` from any source.
    pub(super) fn name_a_sink(&self) -> bool {
        let is_in_file = |at: Range<usize>| {
            let source = self.sources.find(position(&at).start);
            source.is_some_and(|source| source.kind == SourceKind::File)
        };
        self.value(&["sinks"]).is_some_and(|sinks| !sinks.get_ref().is_table())
            || self
                .entries(&["sinks"])
                .any(|(name, sink)| is_in_file(name.span()) || sink.get_ref().get("type").is_some())
    }

    /// Records the positions of credentials, before mistakes remove the values that contain them.
    pub(super) fn find_secrets(&mut self) {
        let mut found = BTreeSet::new();
        for (key, value) in &self.root {
            match value.get_ref() {
                // A sink's name does not mark its values as credentials.
                DeValue::Table(sinks) if key.get_ref() == "sinks" => {
                    sinks.iter().for_each(|(_, sink)| secrets_in(sink, false, &mut found));
                }
                _ => secrets_in(value, is_secret_name(key.get_ref()), &mut found),
            }
        }
        self.secrets = found;
    }
}

fn secrets_in(value: &Value<'_>, is_secret: bool, found: &mut BTreeSet<(usize, usize)>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, inner) in table {
                secrets_in(inner, is_secret || is_secret_name(key.get_ref()), found);
            }
        }
        DeValue::Array(elements) => {
            elements.iter().for_each(|inner| secrets_in(inner, is_secret, found));
        }
        DeValue::String(_) if is_secret => {
            let at = position(&value.span());
            found.insert((at.start, at.end));
        }
        _ => {}
    }
}

/// Merges `over` into `under`. `over` takes precedence; tables in both are merged recursively.
pub(super) fn merge<'s>(under: &mut DeTable<'s>, over: DeTable<'s>) {
    for (key, new) in over {
        let name = key.get_ref().clone().into_owned();
        let is_table = new.get_ref().is_table();
        if let Some(DeValue::Table(old)) = under.get_mut(name.as_str()).map(Spanned::get_mut)
            && is_table
        {
            if let DeValue::Table(new) = new.into_inner() {
                merge(old, new);
            }
            continue;
        }
        under.remove(name.as_str());
        under.insert(key, new);
    }
}

/// Sets a key of a table, and gives it its value's position.
fn put<'s>(table: &mut DeTable<'s>, key: &str, at: &Range<usize>, value: Value<'s>) {
    table.remove(key);
    table.insert(Spanned::new(at.clone(), key.to_owned().into()), value);
}

/// Finds the key that a variable's name refers to: `_` may stand for `-`, which variable names cannot contain.
fn existing_key(table: &DeTable<'_>, key: &str) -> String {
    let found = table.keys().find(|existing| existing.get_ref().replace('-', "_") == key);
    found.map_or_else(|| key.to_owned(), |existing| existing.get_ref().clone().into_owned())
}

fn referenced(at: &Range<usize>) -> Range<usize> {
    at.start | REFERENCED..at.end | REFERENCED
}
