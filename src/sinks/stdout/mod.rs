//! `type = "stdout"`: spans on standard output, for people (`format = "pretty"`) or for pipes (`format = "json"`).
//!
//! ```toml
//! [sinks.screen]
//! type = "stdout"
//! ```
//!
//! `pretty` prints a line for each span: start time, kind, name, duration, agent, model, tokens and error. Input and output are shown only
//! with `payloads = true`. `json` prints the complete lines of [`jsonl`](super::jsonl).
//!
//! Printed lines cannot be taken back, so after a crash the lines of the last second are repeated. When the pipe's reader exits, the lane
//! holds.

mod encode;
mod options;

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex};

use super::{BuildError, Delivery, Kind, Parts, Pending, Plan, Report, Sink, read_options};
use crate::span::TraceNeeds;
use crate::support::lock::lock;
use crate::support::terminal::Paint;
pub use options::{Color, Format, Options};

/// The kind `stdout`.
pub static KIND: Kind = Kind {
    name: "stdout",
    summary: "spans on standard output, for people or as JSON lines",
    example: "",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| Ok(Box::new(read_options(table, |_: &Options| Vec::new())?)),
};

impl Plan for Options {
    fn build(&self, parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        let has_colours = match self.color {
            Color::Auto => io::stdout().is_terminal(),
            Color::Always => true,
            Color::Never => false,
        };
        let paint = if has_colours { Paint::Colours } else { Paint::Plain };
        let style = encode::Style { options: self.clone(), paint, prices: parts.prices };
        Ok(Arc::new(Stdout::new(style, Box::new(io::stdout()))))
    }
}

/// Prints spans to standard output.
pub struct Stdout {
    style: encode::Style,
    output: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl Stdout {
    fn new(style: encode::Style, output: Box<dyn Write + Send>) -> Self {
        Self { style, output: Arc::new(Mutex::new(output)) }
    }
}

impl Sink for Stdout {
    fn trace_needs(&self) -> Option<TraceNeeds> {
        Some(TraceNeeds::AS_KNOWN)
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(async {
            let (style, output, delivery) =
                (self.style.clone(), Arc::clone(&self.output), delivery.clone());
            let print = move || {
                let lines = encode::encode(&style, &delivery);
                let mut output = lock(&output);
                output.write_all(&lines).and_then(|()| output.flush())
            };
            match tokio::task::spawn_blocking(print).await.map_err(io::Error::other).flatten() {
                Ok(()) => Report::delivered(),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    Report::hold("standard output was closed by its reader")
                }
                Err(error) => Report::down(None, format!("standard output: {error}")),
            }
        })
    }
}

#[cfg(test)]
mod tests;
