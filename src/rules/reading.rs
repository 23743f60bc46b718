//! Shared code to read rules from the configuration and to collect their mistakes. Pure.

use std::ops::Range;
use std::slice;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::support::options::position;
use crate::support::problem::Problem;

/// Reads a part of the configuration and collects mistakes.
pub(super) struct Reading<'p> {
    pub(super) problems: &'p mut Vec<Problem>,
}

impl Reading<'_> {
    pub(super) fn report(&mut self, at: &Range<usize>, what: impl Into<String>, hint: &str) {
        self.problems.push(Problem::new(Some(position(at)), what, hint));
    }

    /// Reports a mistake and returns `None`.
    pub(super) fn wrong<T>(
        &mut self,
        at: &Range<usize>,
        what: impl Into<String>,
        hint: &str,
    ) -> Option<T> {
        self.report(at, what, hint);
        None
    }

    /// Returns the tables of a list.
    pub(super) fn tables<'v>(
        &mut self,
        section: &Spanned<DeValue<'v>>,
        one: &str,
        hint: &str,
    ) -> Vec<Spanned<DeTable<'v>>> {
        let Some(tables) = section.get_ref().as_array() else {
            self.report(&section.span(), format!("`{one}s` is a list of tables"), hint);
            return Vec::new();
        };
        let table = |table: &Spanned<DeValue<'v>>| match table.get_ref() {
            DeValue::Table(inner) => Some(Spanned::new(table.span(), inner.clone())),
            _ => self.wrong(&table.span(), format!("a {one} is a table"), hint),
        };
        tables.iter().filter_map(table).collect()
    }
}

/// Returns the last line of an error in a regular expression; the lines before it only draw the expression.
pub(super) fn reason(error: &regex::Error) -> String {
    let said = error.to_string();
    said.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Returns the texts of a list, or the single text, each with its position.
pub(super) fn texts<'v>(value: &'v Spanned<DeValue<'_>>) -> Vec<(Range<usize>, &'v str)> {
    let several = value.get_ref().as_array().map_or(slice::from_ref(value), |several| several);
    several.iter().filter_map(|one| Some((one.span(), one.get_ref().as_str()?))).collect()
}
