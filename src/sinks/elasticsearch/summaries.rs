//! The task that builds summaries of traces, always from the documents of their spans.
//!
//! A round takes the traces that are due. It reads their documents with their versions, has the backend sum up their spans, corrects
//! documents of spans that were written before the rest of their trace arrived, and writes each summary only if no other writer has written
//! it meanwhile. Every writer waits until its spans can be found, so sums that are read after its version count them, and a writer that
//! finds a newer version reads again. Spans are stored under their ids, so the sums are exact, however often each was sent.
//!
//! A request that the backend refuses is repeated for halves of its traces, so a trace that it refuses keeps no other from its summary.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use memchr::memmem;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::changes::Change;
use super::cluster::{ClusterError, Why};
use super::deliver::Progress;
use super::encode::{Bulks, Line};
use super::fields::Field::{Json, Nothing, Number, Words};
use super::fields::{Row, write_fields};
use super::figures;
use super::names::bounded;
use super::queries::{self, Hit};
use super::response::Action;
use super::summary::Summary;
use super::tree::{self, Place};
use super::{Backend, lock};
use crate::sinks::http::Response;
use crate::sinks::{Report, Verdict};
use crate::span::{Own, Spends};
use crate::support::backoff::Backoff;
use crate::support::json::raw::Raw;

/// The most traces in one round.
const TRACES_MAX: usize = 500;
/// The shortest interval between rounds, so that many traces are handled together.
const ROUND_MIN: Duration = Duration::from_secs(1);
/// The longest wait after failed rounds.
const RETRY_LONGEST: Duration = Duration::from_mins(1);
/// With a key that may not read, the next attempt comes after this multiple of the refresh wait.
const UNREADABLE_WAITS: u32 = 10;

/// Builds summaries for as long as it is polled.
pub(super) async fn run(backend: Arc<Backend>) {
    let round_min = ROUND_MIN.min(backend.settings.options.refresh_wait.0);
    let mut backoff = Backoff::new(round_min, RETRY_LONGEST);
    let mut traces_max = TRACES_MAX;
    loop {
        let next = backend.changes().next_due();
        let Some(next) = next else {
            backend.has_changed.notified().await;
            continue;
        };
        sleep_until(Instant::from_std(next)).await;
        match backend.round(&mut traces_max).await {
            Ok(is_full) => {
                backoff.reset();
                backend.set_unreadable(None);
                if !is_full {
                    sleep(round_min).await;
                }
            }
            Err(ClusterError { why: Why::Forbidden, reason }) => {
                backend.set_unreadable(Some(&reason));
                sleep(backend.settings.options.refresh_wait.0 * UNREADABLE_WAITS).await;
            }
            Err(ClusterError { reason, .. }) => {
                let sink = &backend.name;
                warn!(sink, reason, "trace documents could not be made; retried later");
                sleep(backoff.next_wait().max(round_min)).await;
            }
        }
    }
}

impl Backend {
    /// Reports once that the key may not read, or that it may again.
    fn set_unreadable(&self, reason: Option<&str>) {
        let mut unreadable = lock(&self.unreadable);
        if let (None, Some(reason)) = (&*unreadable, reason) {
            warn!(sink = self.name, reason, "{UNREADABLE}");
        }
        *unreadable = reason.map(|reason| format!("{UNREADABLE} ({reason})"));
    }

    /// Builds the summaries that are due. Returns whether there may be more. If the backend refuses a request, or answers only a part, the
    /// traces are tried in halves. A trace that fails alone is deferred, and left out if it fails while others succeed.
    async fn round(&self, traces_max: &mut usize) -> Result<bool, ClusterError> {
        self.prepare().await?;
        self.scan().await?;
        let due = self.changes().due(*traces_max, Instant::now().into_std());
        let is_full = due.len() == *traces_max;
        let (mut parts, mut has_taken) = (vec![&*due], false);
        while let Some(part) = parts.pop() {
            match self.summarize(part).await {
                Ok(()) => has_taken = true,
                Err(error) if error.why != Why::Refused => {
                    // These may be too many for the time that a request may take.
                    *traces_max = (part.len() / 2).max(1);
                    return Err(error);
                }
                Err(error) => match part {
                    [(trace, _)] => {
                        let now = Instant::now().into_std();
                        if !self.changes().must_wait(trace, now) && has_taken {
                            self.leave_out(trace, &error.reason);
                            self.changes().settled(trace, now);
                        } else if !has_taken {
                            // The next round may succeed without it.
                            return Err(error);
                        }
                    }
                    // The newer half is first, because what is refused again and again is old.
                    _ => parts.extend(<[_; 2]>::from(part.split_at(part.len() / 2))),
                },
            }
        }
        *traces_max = (*traces_max * 2).min(TRACES_MAX);
        Ok(is_full)
    }

    fn leave_out(&self, trace: &str, reason: &str) {
        let sink = &self.name;
        warn!(sink, trace, reason, "a trace document is left out, because the backend refuses it");
        self.figures.add(&figures::LEFT_OUT, 1);
    }

    /// Builds the summaries of these traces.
    async fn summarize(&self, due: &[(Box<str>, Change)]) -> Result<(), ClusterError> {
        if due.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = due.iter().map(|(name, _)| &**name).collect();
        let ids: Vec<_> = names.iter().map(|name| bounded(name)).collect();
        let path = format!("/{}/_mget", self.settings.indices[1]);
        let documents =
            self.cluster.ask(Method::POST, &path, json!({ "ids": ids }).to_string()).await?;
        let found = queries::read_found(&documents.body);
        let mut found = found.ok_or_else(|| unclear(&documents))?;
        // Everything that exists now is counted, so this follows the versions.
        let read_at = Instant::now();
        let answer = self.search(queries::look(&names)).await?;
        let looked = queries::read_looked(&answer.body);
        let looked = looked.filter(|looked| !looked.is_cut || due.len() == 1);
        let mut looked = looked.ok_or_else(|| unclear(&answer))?;
        let now = Instant::now().into_std();
        let mut bulks = Bulks::new(self.encoder().request_bytes_max, 0);
        // Traces with their lines.
        let mut written: Vec<(&str, Range<usize>)> = Vec::with_capacity(due.len());
        for (name, change) in due {
            let found = found.remove(&*bounded(name)).unwrap_or_default();
            let sum = looked.sums.remove(&**name).unwrap_or_default();
            let counted = found.document.get("span_count").and_then(Raw::count);
            let is_behind = sum.spans() < counted.unwrap_or_default().max(change.created);
            if is_behind && self.changes().must_wait(name, now) {
                continue;
            }
            let (summary, first) = (Summary { name, sum, found, max_depth: 0 }, bulks.count);
            let hits = looked.spans.remove(&**name).unwrap_or_default();
            self.encode(&mut bulks, summary, &hits, change.received_ms);
            written.push((name, first..bulks.count));
        }
        self.write(bulks, written, read_at).await
    }

    /// Sends the lines of these traces. Those that are accepted completely, or left out, are settled.
    async fn write(
        &self,
        bulks: Bulks,
        written: Vec<(&str, Range<usize>)>,
        read_at: Instant,
    ) -> Result<(), ClusterError> {
        let (count, bulks) = (bulks.count, bulks.done());
        let mut progress = Progress::new(count);
        self.send_all(&bulks, &mut progress).await;
        let conflicts = progress.tally.get(figures::DUPLICATE).copied().unwrap_or_default();
        self.figures.add(&figures::CONFLICTS, conflicts);
        let Report { verdicts, pace, .. } = self.finish(progress).await?;
        let summaries = bulks.iter().flat_map(|bulk| &bulk.lines);
        let summaries = summaries.filter(|line| line.action != Action::Update);
        let is_taken = |line: &&Line| *verdicts.of(line.place) == Verdict::Delivered;
        self.figures.add(&figures::RESOLVED, summaries.filter(is_taken).count() as u64);
        let (mut has_taken, mut refused) = (false, None);
        for (name, lines) in written {
            let mut is_open = false;
            for line in lines {
                match verdicts.of(line) {
                    Verdict::Delivered => has_taken = true,
                    Verdict::Reject(refusal) => self.leave_out(name, &refusal.reason),
                    Verdict::Retry | Verdict::Defer(_) => is_open = true,
                    Verdict::Split(refusal) | Verdict::Fault(refusal) => {
                        (is_open, refused) = (true, Some(refusal.reason.clone()));
                    }
                }
            }
            if !is_open {
                self.changes().settled(name, read_at.into_std());
            }
        }
        match (refused, pace.reason()) {
            (Some(reason), _) => Err(ClusterError { why: Why::Refused, reason }),
            // If some were accepted, the rest follows in the next round.
            (None, Some(reason)) if !has_taken => Err(ClusterError::away(reason)),
            (None, _) => Ok(()),
        }
    }

    /// Searches for traces that are not in the table: those from before a restart, and those without room.
    async fn scan(&self) -> Result<(), ClusterError> {
        let Some(scan) = self.changes().scan_due(Instant::now().into_std()) else { return Ok(()) };
        let body = queries::page(scan.since_ms, scan.after.as_deref());
        let answer = self.search(body).await?;
        let page = queries::read_page(&answer.body);
        let (traces, has_more) = page.ok_or_else(|| unclear(&answer))?;
        self.changes().scanned(&traces, has_more, Instant::now().into_std());
        Ok(())
    }

    /// Searches all indices with spans, including rotated ones.
    async fn search(&self, body: String) -> Result<Response, ClusterError> {
        let spans = &self.settings.indices[0];
        let path = format!("/{spans},{spans}-*/_msearch");
        self.cluster.ask(Method::POST, &path, body).await
    }

    /// Encodes a trace: corrections of its spans' documents, and its summary if that differs. Without all spans, its tree is unknown.
    fn encode(
        &self,
        bulks: &mut Bulks,
        mut summary: Summary<'_>,
        hits: &[Hit<'_>],
        received_ms: u64,
    ) {
        let has_patches = self.encoder().has_patches();
        for (hit, place) in hits.iter().zip(tree::places(hits.iter().map(|hit| hit.node))) {
            summary.max_depth = summary.max_depth.max(place.depth.unwrap_or_default().into());
            let correction = correction(hit, &place);
            let mut said = correction.iter().filter(|(.., field)| field.is_said()).peekable();
            if !has_patches || said.peek().is_none() {
                continue;
            }
            // The sum counts the tokens of this document.
            let is_moved = said.any(|(_, name, _)| *name == "usage");
            let stale = is_moved.then(|| (summary.name.to_owned(), received_ms, false));
            let (action, index) = (Action::Update, hit.index.clone());
            let line = Line { place: bulks.count, action, index, stale };
            bulks.add(line, Some(&hit.id), hit.seq, |out| {
                out.extend_from_slice(b"{\"doc\":{");
                write_fields(out, correction);
                out.extend_from_slice(b"}}");
            });
        }
        let Summary { name, sum, found, .. } = &summary;
        let mut document = Vec::new();
        summary.write(&mut document, &self.settings);
        if sum.spans() == 0 || document == found.document.raw.text().as_bytes() {
            return;
        }
        let action = if found.seq.is_some() { Action::Conditional } else { Action::Create };
        let index = self.settings.indices[1].clone();
        let line = Line { place: bulks.count, action, index, stale: None };
        bulks.add(line, Some(&bounded(name)), found.seq, |out| out.extend_from_slice(&document));
    }
}

const UNREADABLE: &str = "the key may not read, so no trace documents are made; spans arrive as before. \
    Give it the privilege `read` on the indices, or set trace_summary = \"off\"";

/// Explains an answer that cannot be used. If the key may read other indices, only a part of the answer says that it may not read these.
fn unclear(answer: &Response) -> ClusterError {
    let is_forbidden = memmem::find(&answer.body, b"\"type\":\"security_exception\"").is_some();
    let why = if is_forbidden { Why::Forbidden } else { Why::Refused };
    let reason = "the backend's answer about traces cannot be read, or is incomplete".to_owned();
    ClusterError { why, reason }
}

/// Returns what a span's document has wrong or lacks. Tokens are included if the document is wrong about whether they count.
fn correction<'a>(hit: &'a Hit<'_>, place: &Place<'a>) -> [Row<'a>; 6] {
    let Own { agent: known, spends, .. } = hit.node.own;
    let is_news = |agent: &tree::Agent<'_>| {
        known.is_none_or(|known| known.span.is_none() && agent.span.is_some())
    };
    let agent = place.agent.filter(is_news);
    let json = |text: Option<&'a str>| text.map_or(Nothing, Json);
    let has_depth =
        |depth: &u16| hit.source.get("depth").and_then(Raw::count) == Some((*depth).into());
    let depth = place.depth.filter(|depth| !has_depth(depth));
    let usage = hit.source.get("usage");
    let tokens = usage.or_else(|| hit.source.get("aggregate_usage"));
    let is_moved = tokens.is_some() && usage.is_some() != place.counts && spends != Spends::Nothing;
    let tokens = tokens.map_or("null", Raw::text);
    let (counted, repeated) = if place.counts { (tokens, "null") } else { ("null", tokens) };
    [
        ("agent", "name", json(agent.map(|agent| agent.name))),
        ("agent", "span_id", json(agent.and_then(|agent| agent.span))),
        ("", "depth", depth.map_or(Nothing, |depth| Number(depth.into()))),
        ("", "usage", Json(counted).unless(!is_moved)),
        ("", "aggregate_usage", Json(repeated).unless(!is_moved)),
        ("counting", "spends", Words(tree::MODEL).unless(!is_moved || spends != Spends::Model)),
    ]
}
