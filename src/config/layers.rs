//! Makes one table of all sources: files in order, then environment variables, then flags; what is said later wins.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::environment::{Environment, read_file};
use super::expand::{self, Otherwise, Piece, Target};
use super::sources::{Source, SourceKind, Sources};
use crate::normalize::Fact;
use crate::support::options::{REFERENCED, position};
use crate::support::problem::Problem;

/// `SPANFERRY__JOURNAL__DIR` sets `journal.dir`.
pub(super) const VARIABLE_PREFIX: &str = "SPANFERRY__";
/// Short names for what is set most often, weakest first, with what they set.
pub(super) const SHORT_VARIABLES: &[(&str, &[&str])] =
    &[("RUST_LOG", &["log", "level"]), ("SPANFERRY_LOG", &["log", "level"])];
/// A word in a key that says its value is a credential.
const SECRET_WORDS: &[&str] =
    &["key", "secret", "token", "password", "passwd", "credential", "authorization"];

const FILE_HINT: &str = "is it mounted, and may this user read it?";

/// A value from outside the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) kind: SourceKind,
    /// The variable or the flag.
    pub(super) name: String,
    /// The keys that lead to the value.
    pub(super) path: Vec<String>,
    pub(super) value: String,
}

/// One table of all sources, positions counted over all of them.
#[derive(Debug)]
pub(super) struct Layers<'s> {
    pub(super) root: Spanned<DeTable<'s>>,
    pub(super) problems: Vec<Problem>,
    /// What is probably not meant so.
    pub(super) warnings: Vec<Problem>,
    /// Lines with a mistake of syntax: what follows from it is not worth a word.
    pub(super) broken: Vec<Range<usize>>,
    /// What references stood for, and how they are written: so that no message ever says the former.
    pub(super) referenced: Vec<(String, String)>,
}

/// Whether the value of a key with this name should not be shown. Tokens that are counted are no credentials.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    name == "headers"
        || Fact::named(&name).is_none() && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// What the environment says: the short names first, because they are the weaker ones.
pub(super) fn variable_settings(environment: &Environment) -> Vec<Setting> {
    let setting = |name: &str, path: Vec<String>, value: &str| Setting {
        kind: SourceKind::Variable,
        name: name.to_owned(),
        path,
        value: value.to_owned(),
    };
    let short = SHORT_VARIABLES.iter().filter_map(|(name, path)| {
        let value = environment.variable(name)?;
        Some(setting(name, path.iter().map(|&key| key.to_owned()).collect(), value))
    });
    let long = environment.beginning_with(VARIABLE_PREFIX).map(|(name, value)| {
        let keys = name.strip_prefix(VARIABLE_PREFIX).unwrap_or_default();
        setting(name, keys.split("__").map(str::to_ascii_lowercase).collect(), value)
    });
    short.chain(long).collect()
}

impl<'s> Layers<'s> {
    /// Reads the sources; `settings` are those that are no files, in the order in which they were added.
    pub(super) fn read(sources: &'s Sources, settings: &[Setting]) -> Self {
        let root = Spanned::new(0..0, DeTable::new());
        let (problems, warnings) = (Vec::new(), Vec::new());
        let (broken, referenced) = (Vec::new(), Vec::new());
        let mut this = Self { root, problems, warnings, broken, referenced };
        let mut settings = settings.iter();
        for source in sources.iter() {
            match source.kind {
                SourceKind::File => this.add_file(source),
                SourceKind::Variable | SourceKind::Flag => {
                    let Some(setting) = settings.next() else { continue };
                    this.add_setting(source, setting);
                }
                SourceKind::Default => {}
            }
        }
        this
    }

    fn add_file(&mut self, source: &'s Source) {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        for error in errors {
            let local = error.span().unwrap_or_default();
            self.broken.push(whole_line(source, &local));
            self.problems.push(Problem {
                at: Some(shift(&local, source.base)),
                what: error.message().to_owned(),
                hint: error
                    .message()
                    .contains("must be quoted")
                    .then(|| "put it in quotes".to_owned()),
            });
        }
        merge(self.root.get_mut(), shift_table(table.into_inner(), source.base));
    }

    fn add_setting(&mut self, source: &Source, setting: &Setting) {
        self.referenced.push((setting.value.clone(), "the value".to_owned()));
        let at = source.base..source.base + source.text.len();
        let Some((last, tables)) = setting.path.split_last() else { return };
        if setting.path.iter().any(String::is_empty) {
            self.problems.push(Problem {
                at: Some(at),
                what: "this is no option's name".to_owned(),
                hint: Some(format!("{VARIABLE_PREFIX}JOURNAL__DIR sets `dir` of `[journal]`")),
            });
            return;
        }
        let mut table = self.root.get_mut();
        for key in tables {
            let key = existing_key(table, key);
            let here = Spanned::new(at.clone(), DeValue::Table(DeTable::new()));
            if !table.get(key.as_str()).is_some_and(|value| value.get_ref().is_table()) {
                table.remove(key.as_str());
                table.insert(Spanned::new(at.clone(), key.clone().into()), here);
            }
            match table.get_mut(key.as_str()).map(Spanned::get_mut) {
                Some(DeValue::Table(inner)) => table = inner,
                _ => return,
            }
        }
        let key = existing_key(table, last);
        let value = DeValue::String(setting.value.clone().into());
        table.remove(key.as_str());
        table.insert(Spanned::new(at.clone(), key.into()), Spanned::new(flag(&at), value));
    }

    /// Puts what references stand for into the strings.
    pub(super) fn expand(&mut self, sources: &Sources, environment: &Environment) {
        let mut root = std::mem::replace(&mut self.root, Spanned::new(0..0, DeTable::new()));
        for (_, value) in root.get_mut().iter_mut() {
            self.expand_value(value, sources, environment);
        }
        self.root = root;
    }

    fn expand_value(
        &mut self,
        value: &mut Spanned<DeValue<'_>>,
        sources: &Sources,
        environment: &Environment,
    ) {
        let at = value.span();
        match value.get_mut() {
            DeValue::Table(table) => {
                table
                    .iter_mut()
                    .for_each(|(_, inner)| self.expand_value(inner, sources, environment));
            }
            DeValue::Array(elements) => {
                elements
                    .iter_mut()
                    .for_each(|inner| self.expand_value(inner, sources, environment));
            }
            DeValue::String(text) if text.contains('$') && at.start & REFERENCED == 0 => {
                match self.expand_text(text, environment) {
                    Ok((expanded, is_whole)) => {
                        let at = if is_whole { flag(&at) } else { at };
                        *value = Spanned::new(at, DeValue::String(expanded.into()));
                    }
                    Err((inside, what, hint)) => {
                        let at = find_in_source(sources, &at, &inside);
                        self.broken.push(at.clone());
                        self.problems.push(Problem { at: Some(at), what, hint });
                    }
                }
            }
            _ => {}
        }
    }

    /// The string with its references replaced, and whether it is one reference and nothing else. Or the text of the reference that
    /// is wrong, what is wrong, and a hint.
    fn expand_text(
        &mut self,
        text: &str,
        environment: &Environment,
    ) -> Result<(String, bool), (String, String, Option<String>)> {
        let pieces = expand::pieces(text).map_err(|malformed| {
            let written = text.get(malformed.at).unwrap_or_default().to_owned();
            let hint = "write $$ for a dollar sign that begins no reference".to_owned();
            (written, malformed.what.to_owned(), Some(hint))
        })?;
        let mut expanded = String::new();
        for piece in &pieces {
            match piece {
                Piece::Text(text) => expanded.push_str(text),
                Piece::Reference { written, target } => {
                    let value = resolve(target, environment)
                        .map_err(|(what, hint)| ((*written).to_owned(), what, hint))?;
                    expanded.push_str(&value);
                    self.referenced.push((value, (*written).to_owned()));
                }
            }
        }
        Ok((expanded, matches!(pieces.as_slice(), [Piece::Reference { .. }])))
    }

    /// The value that these keys lead to.
    pub(super) fn value(&self, path: &[&str]) -> Option<&Spanned<DeValue<'s>>> {
        let (first, rest) = path.split_first()?;
        let mut value = self.root.get_ref().get(*first)?;
        for key in rest {
            value = value.get_ref().as_table()?.get(*key)?;
        }
        Some(value)
    }

    /// Where the value stands that these keys lead to.
    pub(super) fn place(&self, path: &[&str]) -> Option<Range<usize>> {
        self.value(path).map(|value| position(&value.span()))
    }

    /// Sets what holds when nobody says anything.
    pub(super) fn set_default(&mut self, base: usize, path: &[&str], value: DeValue<'s>) {
        let at = base..base;
        let Some((last, tables)) = path.split_last() else { return };
        let mut table = self.root.get_mut();
        for key in tables {
            if !table.contains_key(*key) {
                let empty = Spanned::new(at.clone(), DeValue::Table(DeTable::new()));
                table.insert(Spanned::new(at.clone(), (*key).to_owned().into()), empty);
            }
            match table.get_mut(*key).map(Spanned::get_mut) {
                Some(DeValue::Table(inner)) => table = inner,
                _ => return,
            }
        }
        if !table.contains_key(*last) {
            let key = Spanned::new(at.clone(), (*last).to_owned().into());
            table.insert(key, Spanned::new(at, value));
        }
    }

    /// Whether a reference brings a variable in.
    pub(super) fn refers_to(&self, variable: &str) -> bool {
        self.referenced.iter().any(|(_, written)| written.contains(variable))
    }

    /// Whether a sink is named: by a table in a file, or by a `type` from anywhere.
    pub(super) fn name_a_sink(&self, sources: &Sources) -> bool {
        let sinks = match self.value(&["sinks"]).map(Spanned::get_ref) {
            Some(DeValue::Table(sinks)) => sinks,
            Some(_) => return true,
            None => return false,
        };
        let is_in_file = |at: &Range<usize>| {
            sources.find(position(at).start).is_some_and(|source| source.kind == SourceKind::File)
        };
        sinks
            .iter()
            .any(|(name, sink)| is_in_file(&name.span()) || sink.get_ref().get("type").is_some())
    }

    /// Where the strings stand whose keys say that they are credentials.
    pub(super) fn secrets(&self) -> BTreeSet<(usize, usize)> {
        let mut found = BTreeSet::new();
        for (key, value) in self.root.get_ref() {
            match value.get_ref() {
                // What a sink is called says nothing of what is in it.
                DeValue::Table(sinks) if key.get_ref() == "sinks" => {
                    sinks.iter().for_each(|(_, sink)| secrets_in(sink, false, &mut found));
                }
                _ => secrets_in(value, is_secret_name(key.get_ref()), &mut found),
            }
        }
        found
    }
}

fn secrets_in(value: &Spanned<DeValue<'_>>, is_secret: bool, found: &mut BTreeSet<(usize, usize)>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, inner) in table {
                secrets_in(inner, is_secret || is_secret_name(key.get_ref()), found);
            }
        }
        DeValue::Array(elements) => {
            elements.iter().for_each(|inner| secrets_in(inner, is_secret, found));
        }
        DeValue::String(_) if is_secret && value.span().start & REFERENCED == 0 => {
            found.insert((value.span().start, value.span().end));
        }
        _ => {}
    }
}

/// What a reference stands for; or what is wrong, and a hint.
fn resolve(
    target: &Target<'_>,
    environment: &Environment,
) -> Result<String, (String, Option<String>)> {
    let (name, otherwise) = match target {
        Target::File(path) => {
            let text = read_file(Path::new(path)).map_err(|error| {
                (format!("cannot read the file: {error}"), Some(FILE_HINT.to_owned()))
            })?;
            return Ok(text.trim_end_matches(['\n', '\r']).to_owned());
        }
        Target::Variable { name, otherwise } => (name, otherwise),
    };
    let value = environment
        .text(name)
        .map_err(|why| (format!("the environment variable {name} {why}"), None))?;
    match (otherwise, value) {
        (Otherwise::Mistake, Some(value)) => Ok(value.to_owned()),
        (Otherwise::Explained(_) | Otherwise::Text(_), Some(value)) if !value.is_empty() => {
            Ok(value.to_owned())
        }
        (Otherwise::Text(text), _) => Ok((*text).to_owned()),
        (Otherwise::Explained(why), _) => {
            let why = (!why.is_empty()).then(|| (*why).to_owned());
            Err((format!("the environment variable {name} is not set"), why))
        }
        (Otherwise::Mistake, None) => {
            let hint = format!("set it, or give a default: ${{{name}:-...}}");
            Err((format!("the environment variable {name} is not set"), Some(hint)))
        }
    }
}

/// `over` wins; where both have a table, the tables are merged in the same way.
fn merge<'s>(under: &mut DeTable<'s>, over: DeTable<'s>) {
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

/// The key of a table that a variable's name means: `_` may stand for `-`, which no variable's name can have.
fn existing_key(table: &DeTable<'_>, key: &str) -> String {
    let found = table.keys().find(|existing| existing.get_ref().replace('-', "_") == key);
    found.map_or_else(|| key.to_owned(), |existing| existing.get_ref().clone().into_owned())
}

fn shift_table(table: DeTable<'_>, base: usize) -> DeTable<'_> {
    let shift_key = |key: Spanned<_>| Spanned::new(shift(&key.span(), base), key.into_inner());
    table.into_iter().map(|(key, value)| (shift_key(key), shift_value(value, base))).collect()
}

fn shift_value(value: Spanned<DeValue<'_>>, base: usize) -> Spanned<DeValue<'_>> {
    let at = shift(&value.span(), base);
    let shifted = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(shift_table(table, base)),
        DeValue::Array(elements) => {
            let shifted: DeArray<'_> =
                elements.into_iter().map(|element| shift_value(element, base)).collect();
            DeValue::Array(shifted)
        }
        other => other,
    };
    Spanned::new(at, shifted)
}

fn shift(at: &Range<usize>, base: usize) -> Range<usize> {
    at.start + base..at.end + base
}

fn flag(at: &Range<usize>) -> Range<usize> {
    at.start | REFERENCED..at.end | REFERENCED
}

/// The whole line around a position, counted over all sources.
fn whole_line(source: &Source, local: &Range<usize>) -> Range<usize> {
    let before = source.text.get(..local.start).unwrap_or(&source.text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let after = source.text.get(local.end..).unwrap_or_default();
    let end = after.find('\n').map_or(source.text.len(), |newline| local.end + newline);
    shift(&(start..end), source.base)
}

/// Where `inside` stands within the value at `at`; the whole value where it cannot be told (an escape in the string).
fn find_in_source(sources: &Sources, at: &Range<usize>, inside: &str) -> Range<usize> {
    let found = sources.find(at.start).and_then(|source| {
        let local = source.local(at);
        let offset = source.text.get(local)?.find(inside)?;
        Some(at.start + offset..at.start + offset + inside.len())
    });
    found.unwrap_or_else(|| at.clone())
}
