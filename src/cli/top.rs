//! `top`: what agents do right now, from the traces that began recently: rates, slow, expensive and failed traces, and sums by agent and
//! model.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time;

use clap::Args;
use serde::Serialize;

use super::look::for_each_page;
use super::operate::Asked;
use super::operator::{Place, operate};
use super::output::{harmless, say, say_json};
use super::{Ended, Shell};
use crate::index::{By, StatsRow, TraceSummary};
use crate::operate::{StatsRequest, TracesRequest, WhichTraces, dollars, rows_table, traces_table};
use crate::support::duration::Duration;
use crate::support::number::as_f64;

/// Rows per list.
const ROWS: usize = 5;
/// Refresh interval of a terminal.
const AGAIN_EVERY: time::Duration = time::Duration::from_secs(2);
/// Moves to the top left and clears the rest of the terminal.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// The traces to show, and how often.
#[derive(Debug, Clone, Args)]
pub(super) struct Watched {
    /// Terms that must all match, as for `traces`
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Only traces that started within this time
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    window: Duration,
    /// Print it once, the default without a terminal
    #[arg(long)]
    once: bool,
}

/// The contents of the display.
#[derive(Debug, Serialize)]
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
    /// The most recent traces that failed.
    failed: Vec<TraceSummary>,
    agents: Vec<StatsRow>,
    models: Vec<StatsRow>,
}

/// Shows the display until stopped, or once.
#[expect(clippy::disallowed_methods, reason = "a terminal is written anew now and then")]
pub(super) fn top(asked: Asked<Watched>, shell: Shell<'_>) -> Ended {
    let Asked { place, json, request: watched } = asked;
    let place = Place { is_live: true, ..place };
    let is_once = watched.once || json || !io::stdout().is_terminal();
    loop {
        let top = look(&place, &watched, shell)?;
        if json {
            say_json(&serde_json::to_value(&top).unwrap_or_default());
        } else {
            let text = harmless(&top.text());
            say(&if is_once { text } else { format!("{CLEAR}{text}") });
        }
        if is_once {
            return Ok(());
        }
        std::thread::sleep(AGAIN_EVERY);
    }
}

fn look(place: &Place, watched: &Watched, shell: Shell<'_>) -> Result<Top, ExitCode> {
    let Watched { filter, window, .. } = watched;
    let which = WhichTraces { filter: filter.clone(), from: Some(window.to_string()), to: None };
    let asked = TracesRequest { which: which.clone(), ..TracesRequest::default() };
    let mut all = Vec::new();
    for_each_page(place, (asked, usize::MAX), shell, |page| {
        all.extend(page.traces);
        Ok(())
    })?;
    let sum = |of: fn(&TraceSummary) -> u64| all.iter().map(of).sum::<u64>();
    let (traces, spans) = (all.len() as u64, sum(|trace| trace.spans));
    let total_tokens = sum(|trace| trace.total_tokens);
    // An empty sum is -0.
    let cost_usd = all.iter().filter_map(|trace| trace.cost_usd).sum::<f64>() + 0.0;
    let window_seconds = window.0.as_secs_f64();
    let rate = |sum: f64, seconds: f64| sum * seconds / window_seconds.max(1e-9);
    let stats = |by| {
        let stats = operate(place, StatsRequest { by, which: which.clone() }, shell)?;
        Ok::<_, ExitCode>(stats.rows.into_iter().take(ROWS).collect())
    };
    Ok(Top {
        window_seconds,
        traces,
        spans,
        errors: sum(|trace| trace.errors),
        total_tokens,
        cost_usd,
        traces_per_minute: rate(as_f64(traces), 60.0),
        spans_per_second: rate(as_f64(spans), 1.0),
        tokens_per_minute: rate(as_f64(total_tokens), 60.0),
        usd_per_hour: rate(cost_usd, 3600.0),
        slowest: most(&all, |trace| as_f64(trace.duration_ns)),
        dearest: most(&all, |trace| trace.cost_usd.unwrap_or(0.0)),
        failed: all.iter().filter(|trace| trace.errors > 0).take(ROWS).cloned().collect(),
        agents: stats(By::Agent)?,
        models: stats(By::Model)?,
    })
}

/// Returns the traces with the largest positive values.
fn most(traces: &[TraceSummary], of: fn(&TraceSummary) -> f64) -> Vec<TraceSummary> {
    let mut order: Vec<_> = traces.iter().filter(|trace| of(trace) > 0.0).collect();
    order.sort_by(|one, other| of(other).total_cmp(&of(one)));
    order.into_iter().take(ROWS).cloned().collect()
}

impl Top {
    fn text(&self) -> String {
        let Self { traces, errors, traces_per_minute, spans_per_second, tokens_per_minute, .. } =
            self;
        let window = Duration(time::Duration::from_secs_f64(self.window_seconds));
        let dollars = dollars(Some(self.usd_per_hour));
        let mut text = format!(
            "{traces} traces in {window}: {traces_per_minute:.1} traces/min, {spans_per_second:.1} spans/s, {tokens_per_minute:.0} tokens/min, {dollars}/h, {errors} spans failed\n"
        );
        let tables = [
            ("slowest", traces_table(&self.slowest)),
            ("dearest", traces_table(&self.dearest)),
            ("failed last", traces_table(&self.failed)),
            ("agents", rows_table(&self.agents)),
            ("models", rows_table(&self.models)),
        ];
        // A single line contains only the headings.
        for (what, table) in tables.into_iter().filter(|(_, table)| table.lines().count() > 1) {
            write!(text, "\n{what}\n{table}").ok();
        }
        text
    }
}
