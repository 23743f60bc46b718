//! `top`: what agents do right now, over the traces that began lately: rates, what is slow, dear or broken, and sums by agent and model.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time;

use clap::Args;
use serde::Serialize;

use super::Shell;
use super::look::{dollars, for_each_page, rows_table, traces_table};
use super::operate::Asked;
use super::operator::{Place, operate};
use super::output::{harmless, say, say_json};
use crate::index::{By, StatsRow, TraceSummary};
use crate::operate::{StatsRequest, TracesRequest, WhichTraces};
use crate::support::duration::Duration;

/// Rows of each list.
const ROWS: usize = 5;
/// How often a terminal is written anew.
const AGAIN_EVERY: time::Duration = time::Duration::from_secs(2);
/// To the first place of a terminal, and nothing behind it.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Over which traces, and how often.
#[derive(Debug, Clone, Args)]
pub(super) struct Watched {
    /// Words that all must hold, as those of `traces`
    #[arg(value_name = "FILTER", allow_hyphen_values = true)]
    filter: Vec<String>,
    /// Over the traces that began in so long
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    window: Duration,
    /// Print it once, as is done anyway where no terminal is
    #[arg(long)]
    once: bool,
}

/// What is shown.
#[derive(Debug, Default, Serialize)]
struct Top {
    window_seconds: f64,
    traces: u64,
    spans: u64,
    errors: u64,
    total_tokens: u64,
    cost_usd: f64,
    traces_per_minute: f64,
    spans_per_second: f64,
    tokens_per_minute: f64,
    usd_per_hour: f64,
    slowest: Vec<TraceSummary>,
    dearest: Vec<TraceSummary>,
    /// The most recent that failed.
    failed: Vec<TraceSummary>,
    agents: Vec<StatsRow>,
    models: Vec<StatsRow>,
}

/// Shows it until it is stopped, or once.
#[expect(clippy::disallowed_methods, reason = "a terminal is written anew now and then")]
pub(super) fn top(asked: Asked<Watched>, shell: Shell<'_>) -> ExitCode {
    let (place, watched, is_json) = asked.parts(None);
    let place = Place { is_live: true, ..place };
    let is_once = watched.once || is_json || !io::stdout().is_terminal();
    loop {
        let top = match look(&place, &watched, shell) {
            Ok(top) => top,
            Err(code) => return code,
        };
        if is_json {
            say_json(&serde_json::to_value(&top).unwrap_or_default());
        } else {
            let text = harmless(&top.text());
            say(&if is_once { text } else { format!("{CLEAR}{text}") });
        }
        if is_once {
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(AGAIN_EVERY);
    }
}

fn look(place: &Place, watched: &Watched, shell: Shell<'_>) -> Result<Top, ExitCode> {
    let Watched { filter, window, .. } = watched;
    let (filter, from) = (filter.clone(), Some(window.to_string()));
    let which = WhichTraces { filter, from, to: None };
    let asked = TracesRequest { which: which.clone(), ..TracesRequest::default() };
    let mut top = Top { window_seconds: window.0.as_secs_f64(), ..Top::default() };
    for_each_page(place, (asked, usize::MAX), shell, |page| {
        page.into_iter().for_each(|trace| top.add(trace));
        Ok(())
    })?;
    let stats = |by| operate(place, StatsRequest { by, which: which.clone() }, shell);
    top.agents = stats(By::Agent)?.rows.into_iter().take(ROWS).collect();
    top.models = stats(By::Model)?.rows.into_iter().take(ROWS).collect();
    Ok(top.rated())
}

impl Top {
    /// Adds a trace; they come with the newest first.
    fn add(&mut self, trace: TraceSummary) {
        self.traces += 1;
        self.spans += trace.spans;
        self.errors += trace.errors;
        self.total_tokens += trace.total_tokens;
        self.cost_usd += trace.cost_usd.unwrap_or(0.0);
        if trace.errors > 0 && self.failed.len() < ROWS {
            self.failed.push(trace.clone());
        }
        if trace.cost_usd.is_some() {
            keep_most(&mut self.dearest, trace.clone(), |trace| trace.cost_usd.unwrap_or(0.0));
        }
        keep_most(&mut self.slowest, trace, |trace| as_f64(trace.duration_ns));
    }

    fn rated(self) -> Self {
        let per_second = |sum: f64| sum / self.window_seconds.max(f64::MIN_POSITIVE);
        Self {
            traces_per_minute: per_second(as_f64(self.traces)) * 60.0,
            spans_per_second: per_second(as_f64(self.spans)),
            tokens_per_minute: per_second(as_f64(self.total_tokens)) * 60.0,
            usd_per_hour: per_second(self.cost_usd) * 3600.0,
            ..self
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} traces in {}: {:.1} traces/min, {:.1} spans/s, {:.0} tokens/min, {}/h, {} spans failed\n",
            self.traces,
            Duration(time::Duration::from_secs_f64(self.window_seconds)),
            self.traces_per_minute,
            self.spans_per_second,
            self.tokens_per_minute,
            dollars(Some(self.usd_per_hour)),
            self.errors,
        );
        let lists =
            [("slowest", &self.slowest), ("dearest", &self.dearest), ("failed last", &self.failed)];
        for (what, traces) in lists.into_iter().filter(|(_, traces)| !traces.is_empty()) {
            write!(text, "\n{what}\n{}", traces_table(traces)).ok();
        }
        let sums = [("agents", &self.agents), ("models", &self.models)];
        for (what, rows) in sums.into_iter().filter(|(_, rows)| !rows.is_empty()) {
            write!(text, "\n{what}\n{}", rows_table(rows)).ok();
        }
        text
    }
}

/// Adds a trace to those of which there is most, in order, and forgets the last beyond what is shown.
fn keep_most(kept: &mut Vec<TraceSummary>, trace: TraceSummary, of: fn(&TraceSummary) -> f64) {
    let place = kept.partition_point(|other| of(other) >= of(&trace));
    kept.insert(place, trace);
    kept.truncate(ROWS);
}

#[expect(clippy::cast_precision_loss, reason = "a rate has few digits")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
