//! Output of the command line. A closed pipe is not an error.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

use serde_json::Value;

use crate::config::Environment;
use crate::support::terminal::Paint;
pub(super) use crate::support::terminal::{harmless, harmless_json};

/// The destinations of output: results to standard output, everything else to stderr.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    answers: Paint,
    explanations: Paint,
}

impl Output {
    /// Returns the output of this process: with colours on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
    pub(super) fn of_process(environment: &Environment) -> Self {
        let wanted = environment.variable("NO_COLOR").is_none();
        let paint =
            |is_terminal: bool| if wanted && is_terminal { Paint::Colours } else { Paint::Plain };
        Self {
            answers: paint(io::stdout().is_terminal()),
            explanations: paint(io::stderr().is_terminal()),
        }
    }

    /// Returns whether explanations have colours.
    pub(super) fn paint(self) -> Paint {
        self.explanations
    }

    /// Colours text of a result, if colours are on.
    pub(super) fn answer(self, codes: &str, text: &str) -> String {
        self.answers.with(codes, text)
    }

    /// Prints an error and what to do about it. Returns the exit code.
    pub(super) fn fail(self, what: &str, hint: Option<&str>) -> ExitCode {
        let error = self.explanations.with("1;31", "error");
        explain(&format!("{error}: {}\n", harmless(what)));
        if let Some(hint) = hint {
            explain(&format!("{}: {hint}\n", self.explanations.with("1;36", "hint")));
        }
        ExitCode::FAILURE
    }

    /// Returns the exit code if some output could not be written.
    pub(super) fn heard(self) -> Result<(), ExitCode> {
        match UNSAID.get() {
            None => Ok(()),
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ExitCode::SUCCESS),
            Some(error) => Err(self.fail(&format!("the output is incomplete: {error}"), None)),
        }
    }
}

/// The first error while printing results.
static UNSAID: OnceLock<io::Error> = OnceLock::new();

/// Prints a result. [`Output::heard`] reports errors.
pub(super) fn say(text: &str) {
    let mut answers = io::stdout().lock();
    if let Err(error) = answers.write_all(text.as_bytes()).and_then(|()| answers.flush()) {
        UNSAID.set(error).ok();
    }
}

/// Prints a result as JSON.
pub(super) fn say_json(value: &Value) {
    say(&harmless_json(&format!("{value:#}\n")));
}

/// Prints anything else.
pub(super) fn explain(text: &str) {
    io::stderr().lock().write_all(text.as_bytes()).ok();
}

/// A column of a table: its heading, and a function that returns a row's text.
pub(super) type Column<T> = (&'static str, fn(&T) -> String);

/// Formats rows as a table.
pub(super) fn table_of<'r, T: 'r>(
    columns: &[Column<T>],
    rows: impl IntoIterator<Item = &'r T>,
) -> String {
    let heads: Vec<_> = columns.iter().map(|(head, _)| *head).collect();
    let cells = |row| columns.iter().map(|(_, cell)| cell(row)).collect();
    table(&heads, &rows.into_iter().map(cells).collect::<Vec<_>>())
}

/// Formats a table with the narrowest possible columns and right-aligned numbers.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heads.get(column).map(|head| head.len())).max().unwrap_or_default()
    };
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.enumerate().map(|(column, cell)| {
            let is_number = cell.starts_with(|first: char| first.is_ascii_digit());
            let width = width(column);
            if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut heads.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let rows =
            [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "23".to_owned()]];
        assert_eq!(
            table(&["name", "count"], &rows),
            "name    count\na           1\nlonger     23\n"
        );
    }
}
