//! Makes one table of all sources: files in order, then environment variables, then flags; what is said later wins.

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
/// Short names for the log's level, weakest first.
const LEVEL_VARIABLES: [&str; 2] = ["RUST_LOG", "SPANFERRY_LOG"];
/// A word in a key that says its value is a credential.
const SECRET_WORDS: &[&str] =
    &["key", "secret", "token", "password", "passwd", "credential", "authorization", "bearer"];

#[derive(Debug, Default)]
pub(super) struct Layers<'s> {
    pub(super) sources: Sources<'s>,
    pub(super) root: DeTable<'s>,
    pub(super) problems: Vec<Problem>,
    /// What is probably not meant so.
    pub(super) warnings: Vec<Problem>,
    /// Lines with a mistake of syntax: what follows from it is not worth a word.
    pub(super) broken: Vec<Range<usize>>,
    /// What references stood for, and how they are written: so that no message ever says the former.
    pub(super) referenced: Vec<(String, String)>,
    /// Where the strings stand whose keys say that they are credentials.
    pub(super) secrets: BTreeSet<(usize, usize)>,
    /// Sinks that others stand in the place of.
    pub(super) wholes: Vec<Whole>,
}

/// A sink that was divided.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) name: String,
    /// The values that its parts are for, where they are tenants; `None` where they are not, or one part has the rest.
    pub(super) tenants: Option<BTreeSet<String>>,
    /// The names of the sinks that it became.
    pub(super) parts: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wins {
    Old,
    New,
}

/// Whether the value of a key with this name should not be shown. Tokens that are counted are no credentials.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    name == "headers"
        || Fact::named(&name).is_none() && SECRET_WORDS.iter().any(|word| name.contains(word))
}

impl<'s> Layers<'s> {
    /// Adds a file. Blanks stand before its text, as many as there are positions before it, so that what is said of places in it counts
    /// over all sources.
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

    /// Adds what environment variables set: the short names first, because they are the weaker ones.
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

    /// Adds the value of one variable or flag, at the keys that lead to it.
    pub(super) fn add_setting(&mut self, kind: SourceKind, name: &str, path: &[&str], value: &str) {
        self.referenced.push((value.to_owned(), "the value".to_owned()));
        let at = self.sources.add(kind, name, name.to_owned().into());
        if path.iter().any(|key| key.is_empty()) {
            let hint = format!("{VARIABLE_PREFIX}JOURNAL__DIR sets `dir` of `[journal]`");
            return self.problems.push(Problem::new(Some(at), "not an option's name", hint));
        }
        self.set(Wins::New, path, &at, DeValue::String(value.to_owned().into()));
    }

    /// Sets a value that stands in no file.
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

    /// Puts what references stand for into the strings.
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

    /// Where a text stands within the value at `at`; the whole value where it cannot be told (an escape in the string).
    pub(super) fn find_inside(&self, at: &Range<usize>, inside: &str) -> Range<usize> {
        let found = self.sources.find(at.start).and_then(|source| {
            let value = source.text.get(source.local(at.start)..source.local(at.end))?;
            let start = at.start + value.find(inside)?;
            Some(start..start + inside.len())
        });
        found.unwrap_or_else(|| at.clone())
    }

    /// The value that these keys lead to.
    pub(super) fn value(&self, path: &[&str]) -> Option<&Value<'s>> {
        let (first, rest) = path.split_first()?;
        let mut value = self.root.get(*first)?;
        for key in rest {
            value = value.get_ref().as_table()?.get(*key)?;
        }
        Some(value)
    }

    /// The address to listen on that these keys lead to. One that cannot be read is none: that is a mistake of its own.
    pub(super) fn address(&self, path: &[&str], default: Address) -> Option<Address> {
        match self.value(path) {
            Some(said) => said.get_ref().as_str()?.parse().ok(),
            None => Some(default),
        }
    }

    /// Where the value stands that these keys lead to.
    pub(super) fn place(&self, path: &[&str]) -> Option<Range<usize>> {
        self.value(path).map(|value| position(&value.span()))
    }

    /// The table that these keys lead to, empty where there is none.
    pub(super) fn entries<'l>(
        &'l self,
        path: &[&str],
    ) -> impl Iterator<Item = (&'l Spanned<DeString<'s>>, &'l Value<'s>)> + use<'l, 's> {
        self.value(path).and_then(|value| value.get_ref().as_table()).into_iter().flatten()
    }

    /// Where a value comes from, in words.
    pub(super) fn origin(&self, at: &Range<usize>) -> String {
        self.sources.origin(position(at).start)
    }

    /// Whether a sink is named: by a table in a file, or by a `type` from anywhere.
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

    /// Notes where credentials stand, before a mistake leaves out what they stand in.
    pub(super) fn find_secrets(&mut self) {
        let mut found = BTreeSet::new();
        for (key, value) in &self.root {
            match value.get_ref() {
                // What a sink is called says nothing of what is in it.
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

/// `over` wins; where both have a table, the tables are merged in the same way.
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

/// Sets a key of a table. The new key stands where its value does.
fn put<'s>(table: &mut DeTable<'s>, key: &str, at: &Range<usize>, value: Value<'s>) {
    table.remove(key);
    table.insert(Spanned::new(at.clone(), key.to_owned().into()), value);
}

/// The key of a table that a variable's name means: `_` may stand for `-`, which no variable's name can have.
fn existing_key(table: &DeTable<'_>, key: &str) -> String {
    let found = table.keys().find(|existing| existing.get_ref().replace('-', "_") == key);
    found.map_or_else(|| key.to_owned(), |existing| existing.get_ref().clone().into_owned())
}

fn referenced(at: &Range<usize>) -> Range<usize> {
    at.start | REFERENCED..at.end | REFERENCED
}
