//! Output of the command line. A closed pipe is not an error.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

use serde_json::Value;

use crate::config::Environment;
pub(super) use crate::support::table::{Column, or_dash, seconds, table, table_of};
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
