//! `traces`, `trace` and `stats` show what agents did, from a running daemon or the files of a stopped one. `tail` and `export` do the same
//! for the traces that a running daemon receives, and for many traces.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::operate::{Asked, run};
use super::operator::{Place, operate};
use super::output::{explain, harmless, harmless_json, say};
use super::{Ended, Shell};
use crate::index::{List, Stats};
use crate::operate::{
    Form, StatsRequest, TRACE, TraceRequest, TraceView, TracesRequest, Verified, VerifyRequest,
    counts, gaps, one_line, rows_table, traces_table, tree_text, verified_text,
};

/// Maximum number of characters of a speaker's name.
const NAME_MAX: usize = 40;
/// Number of traces per request.
const PAGE: usize = 1_000;
/// How often `tail` polls.
const TAIL_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum TraceVerb {
    /// Show the span tree with times, tokens and cost, and the conversation; --as prints a document
    Show(Asked<TraceRequest>),
    /// Show what was received, what is missing, and what happened at each sink
    Verify(Asked<VerifyRequest>),
}

/// The selection and format of exported traces.
#[derive(Debug, Args)]
pub(super) struct Exported {
    #[command(flatten)]
    traces: TracesRequest,
    /// JSON lines, one document per line for each trace, or text
    #[arg(long = "as", value_enum, value_name = "FORM", default_value = "json")]
    form: Form,
}

pub(super) fn traces(asked: Asked<TracesRequest>, shell: Shell<'_>) -> Ended {
    run(asked, shell, |list: &List| {
        explain(&gaps(&list.index));
        let mut text = traces_table(&list.traces);
        let (shown, count) = (list.traces.len() as u64, list.count);
        if shown < count {
            writeln!(text, "\n{shown} of {count} traces; --limit shows more").ok();
        }
        (text, Ok(()))
    })
}

/// Prints a line each time that a trace on a running daemon grows, until it is stopped.
#[expect(clippy::disallowed_methods, reason = "it is asked anew each second")]
pub(super) fn tail(asked: Asked<TracesRequest>, shell: Shell<'_>) -> Ended {
    let Asked { place, json, mut request } = asked;
    let place = Place { is_live: true, ..place };
    // Existing traces are not printed.
    let limit = request.limit.replace(0).unwrap_or(PAGE);
    loop {
        let list = operate(&place, request.clone(), shell)?;
        let left_out = list.count.saturating_sub(list.traces.len() as u64);
        if request.since.is_some() {
            explain(&counts([(left_out, "more traces grew; --limit shows more")]));
        }
        for trace in list.traces.iter().rev() {
            say(&match serde_json::to_string(trace) {
                Ok(line) if json => harmless_json(&line) + "\n",
                _ => harmless(&(TRACE.map(|(_, cell)| cell(trace)).join("  ") + "\n")),
            });
        }
        shell.output.heard()?;
        (request.since, request.limit) = (Some(list.position), Some(limit));
        std::thread::sleep(TAIL_EVERY);
    }
}

/// Prints the documents of the selected traces, the newest first.
pub(super) fn export(asked: Asked<Exported>, shell: Shell<'_>) -> Ended {
    let Asked { place, request: Exported { traces, form }, .. } = asked;
    let place = Place { is_live: true, ..place };
    let (all, mut is_told) = (traces.limit.unwrap_or(usize::MAX), false);
    for_each_page(&place, (traces, all), shell, |page| {
        if !std::mem::replace(&mut is_told, true) {
            explain(&gaps(&page.index));
        }
        for trace in page.traces {
            let one = TraceRequest { id: trace.trace_id, span: None, form: Some(form) };
            say(&harmless(&shown(&operate(&place, one, shell)?)));
            shell.output.heard()?;
        }
        Ok(())
    })
}

/// Fetches at most so many traces, the newest first, in pages.
pub(super) fn for_each_page(
    place: &Place,
    (mut asked, mut left): (TracesRequest, usize),
    shell: Shell<'_>,
    mut take: impl FnMut(List) -> Ended,
) -> Ended {
    while left > 0 {
        let limit = left.min(PAGE);
        asked.limit = Some(limit);
        let page = operate(place, asked.clone(), shell)?;
        let last = page.traces.last();
        asked.before = last.map(|it| format!("{}@{}", it.trace_id, it.start_unix_nano));
        left = if page.traces.len() < limit { 0 } else { left - limit };
        take(page)?;
    }
    Ok(())
}

pub(super) fn stats(asked: Asked<StatsRequest>, shell: Shell<'_>) -> Ended {
    run(asked, shell, |stats: &Stats| {
        explain(&gaps(&stats.index));
        let text = rows_table(&stats.rows);
        (format!("{text}\nover {} traces\n", stats.traces), Ok(()))
    })
}

/// Runs a verb. `verify` fails if spans are missing, or if a sink did not accept some.
pub(super) fn trace(verb: TraceVerb, shell: Shell<'_>) -> Ended {
    match verb {
        TraceVerb::Show(asked) => run(asked, shell, |view: &TraceView| (shown(view), Ok(()))),
        TraceVerb::Verify(asked) => run(asked, shell, verified),
    }
}

fn shown(view: &TraceView) -> String {
    let unreadable = "items cannot be read: damaged, or removed in the meantime";
    explain(&counts([(view.unreadable, unreadable)]));
    if let Some(document) = &view.document {
        let document = document.trim_end();
        let is_json = document.starts_with('{');
        return if is_json { harmless_json(document) } else { document.to_owned() } + "\n";
    }
    let mut text = String::new();
    for (name, value) in view.head() {
        writeln!(text, "{name:<8} {value}").ok();
    }
    write!(text, "\n{}", tree_text(view)).ok();
    for turn in &view.conversation {
        let said = turn.text.replace('\n', "\n  ");
        write!(text, "\n{}\n  {said}\n", one_line(&turn.role, NAME_MAX)).ok();
    }
    if let Some(line) = &view.line {
        write!(text, "\n{line:#}\n").ok();
    }
    text
}

fn verified(verified: &Verified) -> (String, Ended) {
    let is_missing = verified
        .sinks
        .iter()
        .any(|sink| sink.pending + sink.dead_lettered + sink.dropped + sink.before_it_joined > 0);
    let is_torn = verified.orphans + verified.in_circles + verified.unreadable > 0;
    let ended = if is_torn || is_missing { Err(ExitCode::FAILURE) } else { Ok(()) };
    (verified_text(verified), ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_of_which_something_cannot_be_read_is_not_whole() {
        let (text, ended) = verified(&Verified { unreadable: 2, ..Verified::default() });
        assert!(text.contains("\n2 items cannot be read"), "{text}");
        assert!(ended.is_err());
        let (text, ended) = verified(&Verified::default());
        assert!(!text.contains("cannot be read") && ended.is_ok(), "{text}");
    }
}
