//! Reads one table of options, and reports every mistake in it instead of the first.
//!
//! Serde stops at the first mistake. So the table is mended and read again until nothing is wrong any more: a wrong value is taken
//! out, an unknown key too, and a key that is missing, or was probably meant, gets a value that only serves to look further.

mod fault;
mod nearest;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use crate::support::problem::Problem;
use fault::Fault;
pub use nearest::{did_you_mean, nearest};

/// Set in the positions of a string that came by reference (`${NAME}`, an environment variable) and not from the file itself.
/// Such a string may be read as a number or a boolean where that is wanted, because a variable has no other way to say so.
pub const REFERENCED: usize = 1 << (usize::BITS - 1);
/// Positions from here on belong to values that were put in for missing ones, and to nothing in the file.
const PLACEHOLDER: usize = REFERENCED | (REFERENCED >> 1);
/// Positions from here on belong to those that [`Patient::fill_in`] put in, which are counted. The others stand for a key's.
const COUNTED: usize = PLACEHOLDER | (PLACEHOLDER >> 2);
/// Tried in turn for a missing key, until one is of a type that fits.
const PLACEHOLDERS: &[&str] =
    &[r#""1s""#, r#""1B""#, r#""127.0.0.1:1""#, "1", "1.5", "true", "{}", "[]", r#"["1s"]"#];
/// Mistakes reported for one table. Nobody reads more at once, and a hostile file cannot keep this busy.
const PROBLEMS_MAX: usize = 100;
/// Readings of one table: each mistake takes a few.
const READINGS_MAX: usize = 8 * PROBLEMS_MAX;

/// Reads a table, or says everything that is wrong with it, in the order of the file.
pub fn read<T: DeserializeOwned>(table: Spanned<DeTable<'_>>) -> Result<T, Vec<Problem>> {
    match read_on(table) {
        (Some(value), problems) if problems.is_empty() => Ok(value),
        (_, problems) => Err(problems),
    }
}

/// Reads a table and says everything that is wrong with it. What was read in spite of mistakes holds stand-ins for what was wrong;
/// there is nothing when it could not be mended.
pub fn read_on<T: DeserializeOwned>(table: Spanned<DeTable<'_>>) -> (Option<T>, Vec<Problem>) {
    let root = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
    let mut texts = BTreeMap::new();
    referenced_texts(&root, &mut texts);
    let mut patient = Patient {
        root,
        texts: &texts,
        problems: Vec::new(),
        explained: Vec::new(),
        tried: BTreeMap::new(),
    };
    let mut value = None;
    for _ in 0..READINGS_MAX {
        match T::deserialize(ValueDeserializer::from(patient.root.clone())) {
            Ok(read) => {
                value = Some(read);
                break;
            }
            Err(error) => {
                let mended = patient.mend(error.message(), error.span());
                if !mended || patient.problems.len() >= PROBLEMS_MAX {
                    break;
                }
            }
        }
    }
    patient.problems.sort_by_key(|problem| problem.at.as_ref().map(|at| at.start));
    (value, patient.problems)
}

/// Takes out a key that does not exist, and puts a stand-in where it was probably meant to be, so that nobody calls that missing.
pub fn replace_key(table: &mut DeTable<'_>, name: &str, meant: Option<&str>) {
    let Some((key, _)) = table.remove_entry(name) else { return };
    let Some(meant) = meant.filter(|meant| !table.contains_key(*meant)) else { return };
    let at = PLACEHOLDER + position(&key.span()).start;
    if let Some(value) = placeholder(0) {
        table.insert(Spanned::new(at..at, meant.to_owned().into()), Spanned::new(at..at, value));
    }
}

/// Where something stands in the file, whether it came by reference or not.
pub fn position(span: &Range<usize>) -> Range<usize> {
    span.start & !REFERENCED..span.end & !REFERENCED
}

/// A table that is being mended.
struct Patient<'t> {
    root: Spanned<DeValue<'t>>,
    /// Strings that came by reference, by where they start.
    texts: &'t BTreeMap<usize, String>,
    problems: Vec<Problem>,
    /// Keys that are not there because of a mistake that was reported: the place of their table, and their name.
    explained: Vec<(Range<usize>, String)>,
    /// How many of [`PLACEHOLDERS`] were tried at each place.
    tried: BTreeMap<usize, usize>,
}

impl Patient<'_> {
    /// Notes what is wrong and mends it. False when it does not know how: then whatever else is wrong stays unseen.
    fn mend(&mut self, message: &str, at: Option<Range<usize>>) -> bool {
        let Some(at) = at else {
            self.report(None, &Fault::read(message));
            return false;
        };
        let fault = Fault::read(message);
        match &fault {
            Fault::UnknownKey { name, known } => {
                self.report(Some(&at), &fault);
                let meant = nearest(name, known.iter().copied());
                mend_key(&mut self.root, &at, meant)
            }
            Fault::MissingKey { name } => self.fill_in(&at, name, &fault),
            Fault::Value { .. } if at.start >= PLACEHOLDER => self.fill_in_another(&at, &fault),
            Fault::Value { .. } => {
                if self.read_otherwise(&at) {
                    return true;
                }
                self.report(Some(&at), &fault);
                let Some(key) = remove_value(&mut self.root, &at) else { return false };
                self.explained.push(key);
                true
            }
        }
    }

    fn report(&mut self, at: Option<&Range<usize>>, fault: &Fault<'_>) {
        let (what, hint) = fault.describe();
        self.problems.push(Problem { at: at.map(position), what, hint });
    }

    /// A string that came by reference may be a number or a boolean. It is tried once.
    fn read_otherwise(&mut self, at: &Range<usize>) -> bool {
        let Some(text) = self.texts.get(&at.start) else { return false };
        let Some(value) = find_value(&mut self.root, at) else { return false };
        if !value.get_ref().is_str() {
            return false;
        }
        let Ok(parsed) = DeValue::parse(text) else { return false };
        let parsed = parsed.into_inner();
        if !(parsed.is_integer() || parsed.is_float() || parsed.is_bool()) {
            return false;
        }
        *value = Spanned::new(position(at), parsed);
        true
    }

    fn fill_in(&mut self, table: &Range<usize>, name: &str, fault: &Fault<'_>) -> bool {
        let known = self.explained.iter().any(|(at, key)| at == table && key == name);
        if !known && table.start < PLACEHOLDER {
            self.report(Some(table), fault);
        }
        let Some(value) = placeholder(0) else { return false };
        let at = COUNTED + self.tried.len();
        self.tried.insert(at, 1);
        insert(&mut self.root, table, name, &Spanned::new(at..at, value))
    }

    fn fill_in_another(&mut self, at: &Range<usize>, fault: &Fault<'_>) -> bool {
        let Some(value) = find_value(&mut self.root, at) else { return false };
        let tried = self.tried.entry(at.start).or_insert(1);
        let replacement = match fault {
            Fault::Value { choices, .. } if !choices.is_empty() => {
                choices.first().map(|choice| DeValue::String((*choice).to_owned().into()))
            }
            _ => placeholder(*tried),
        };
        *tried += 1;
        let Some(replacement) = replacement else { return false };
        *value.get_mut() = replacement;
        true
    }
}

fn placeholder(number: usize) -> Option<DeValue<'static>> {
    let text = PLACEHOLDERS.get(number)?;
    DeValue::parse(text).ok().map(Spanned::into_inner)
}

fn referenced_texts(value: &Spanned<DeValue<'_>>, texts: &mut BTreeMap<usize, String>) {
    match value.get_ref() {
        DeValue::String(text) if value.span().start & REFERENCED > 0 => {
            texts.insert(value.span().start, text.clone().into_owned());
        }
        DeValue::Array(elements) => {
            elements.iter().for_each(|element| referenced_texts(element, texts));
        }
        DeValue::Table(table) => {
            table.values().for_each(|element| referenced_texts(element, texts));
        }
        _ => {}
    }
}

/// The values directly inside a value.
fn children<'a, 't>(
    value: &'a mut Spanned<DeValue<'t>>,
) -> Box<dyn Iterator<Item = &'a mut Spanned<DeValue<'t>>> + 'a> {
    match value.get_mut() {
        DeValue::Table(table) => Box::new(table.iter_mut().map(|(_, element)| element)),
        DeValue::Array(elements) => Box::new(elements.iter_mut()),
        _ => Box::new(std::iter::empty()),
    }
}

/// The innermost value that stands at `at`.
fn find_value<'a, 't>(
    value: &'a mut Spanned<DeValue<'t>>,
    at: &Range<usize>,
) -> Option<&'a mut Spanned<DeValue<'t>>> {
    if holds_value(value, at) {
        return children(value).find_map(|child| find_value(child, at));
    }
    (value.span() == *at).then_some(value)
}

/// Whether a value that stands at `at` is somewhere inside.
fn holds_value(value: &Spanned<DeValue<'_>>, at: &Range<usize>) -> bool {
    let is_or_holds = |child: &Spanned<DeValue<'_>>| child.span() == *at || holds_value(child, at);
    match value.get_ref() {
        DeValue::Table(table) => table.values().any(is_or_holds),
        DeValue::Array(elements) => elements.iter().any(is_or_holds),
        _ => false,
    }
}

/// Replaces the key that stands at `at` by the one that was probably meant. False when it is not there.
fn mend_key(value: &mut Spanned<DeValue<'_>>, at: &Range<usize>, meant: Option<&str>) -> bool {
    if let DeValue::Table(table) = value.get_mut()
        && let Some(key) = table.keys().find(|key| key.span() == *at)
    {
        let name = key.get_ref().clone().into_owned();
        replace_key(table, &name, meant);
        return true;
    }
    children(value).any(|child| mend_key(child, at, meant))
}

/// Takes out the innermost value that stands at `at`. Returns the place of what held it, and its key (empty in an array).
fn remove_value(
    value: &mut Spanned<DeValue<'_>>,
    at: &Range<usize>,
) -> Option<(Range<usize>, String)> {
    if let Some(removed) = children(value).find_map(|child| remove_value(child, at)) {
        return Some(removed);
    }
    let span = value.span();
    match value.get_mut() {
        DeValue::Table(table) => {
            let (key, _) = table.iter().find(|(_, element)| element.span() == *at)?;
            let name = key.get_ref().clone().into_owned();
            table.remove(name.as_str());
            Some((span, name))
        }
        DeValue::Array(elements) if elements.iter().any(|element| element.span() == *at) => {
            let all = std::mem::replace(elements, DeArray::new());
            *elements = all.into_iter().filter(|element| element.span() != *at).collect();
            Some((span, String::new()))
        }
        _ => None,
    }
}

/// Puts a value into the table that stands at `at` and does not have `name`.
fn insert<'t>(
    value: &mut Spanned<DeValue<'t>>,
    at: &Range<usize>,
    name: &str,
    new: &Spanned<DeValue<'t>>,
) -> bool {
    let here = value.span() == *at;
    if let DeValue::Table(table) = value.get_mut()
        && here
        && !table.contains_key(name)
    {
        table.insert(Spanned::new(new.span(), name.to_owned().into()), new.clone());
        return true;
    }
    children(value).any(|child| insert(child, at, name, new))
}

#[cfg(test)]
mod tests;
