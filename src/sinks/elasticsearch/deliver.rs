//! Sends a delivery, reads its answer line by line, and reports the result of each item.
//!
//! Only failed items are sent again, so everything arrives, however little of a request a busy server accepts. A document that is rejected
//! because of its contents is sent once more with all free-form data as a single text before it is finally rejected. A missing index is
//! created with the sink's mapping.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};
use tokio::time::Instant;
use tracing::warn;

use super::encode::{Bulk, Degradation, Encoder, Line};
use super::figures::{self, DEGRADED, DUPLICATE, DocumentCounts, ODD_TIMES, RETRIED};
use super::response::{self, Action, Answer, Class, explain, judge, kept};
use super::{Backend, document, lock};
use crate::sinks::http::{self, RequestError};
use crate::sinks::report::Reports;
use crate::sinks::{Delivery, Omitted, Pace, RejectClass, Report, Verdict};
use crate::span::Item;

/// A connection that breaks during a request larger than this, in bytes, may mean that the request is too large.
const LARGE_BYTES: usize = 1 << 20;
/// After this many consecutive breaks, it counts as too large.
const BROKEN_MAX: u32 = 2;

/// The results of a delivery, or of a round of summaries.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How documents are written; `None` in a round, whose documents have nothing to fold and depend on what other writers wrote.
    degradation: Option<Degradation>,
    reports: Reports,
    /// Items to send once more in degraded form.
    to_fold: BTreeSet<usize>,
    /// Whether a request that may have created an index got no answer.
    is_unanswered: bool,
    pub(super) tally: DocumentCounts,
}

impl Backend {
    pub(super) async fn deliver(self: &Arc<Self>, delivery: &Delivery) -> Report {
        let mut progress = Progress::new(delivery.len());
        let has_summaries = self.encoder().has_summaries();
        // Without them, nothing is sent for a trace object.
        let is_sent = |item: &Item| has_summaries || item.as_span().is_some();
        let items = delivery.items().enumerate();
        let unsent = items.filter(|(_, (_, item))| !is_sent(item)).map(|(place, _)| place);
        progress.reports.add(unsent, Report::delivered());
        // Everything at first, then what has to be folded.
        let mut wanted: Option<BTreeSet<usize>> = None;
        while wanted.as_ref().is_none_or(|wanted| !wanted.is_empty()) {
            let this = Arc::clone(self);
            let degradation =
                if wanted.is_none() { Degradation::Full } else { Degradation::Folded };
            let work = move |delivery: &Delivery| {
                let is_wanted = |at: usize| wanted.as_ref().is_none_or(|them| them.contains(&at));
                Encoder { degradation, ..this.encoder() }.delivery(delivery, is_wanted)
            };
            let bulks = match http::encode(delivery, work).await {
                Ok(bulks) => bulks,
                Err(error) => return Report::down(None, format!("cannot encode: {error}")),
            };
            progress.degradation = Some(degradation);
            self.send_all(&bulks, &mut progress).await;
            wanted = Some(mem::take(&mut progress.to_fold));
        }
        figures::count(&self.figures, &progress.tally);
        // Receivers log these, at most once an hour.
        let odd_times = delivery.spans().filter(|span| document::has_odd_time(span)).count();
        self.figures.add(&ODD_TIMES, odd_times as u64);
        if let Some(count) = progress.tally.get(DEGRADED) {
            let sink = &self.name;
            warn!(sink, count, "spans were refused and sent again with their attributes folded");
        }
        self.has_changed.notify_one();
        self.finish(progress).await.unwrap_or_else(|held| held)
    }

    /// Returns the report, or why nothing counts as delivered: a document may have created its index with a guessed mapping.
    pub(super) async fn finish(&self, progress: Progress) -> Result<Report, Report> {
        let prepared = self.prepare().await;
        if progress.is_unanswered {
            self.doubt_all();
        }
        prepared.map(|()| progress.reports.finish())
    }

    /// Sends requests, as long as the next one may succeed.
    pub(super) async fn send_all(&self, bulks: &[Bulk], progress: &mut Progress) {
        let mut has_ended = false;
        for bulk in bulks {
            let sent = if has_ended {
                // The next request would fail, too. Items that are in no reported request are retried.
                Err(Report::all(Verdict::Retry, Pace::Go))
            } else {
                self.send_bulk(bulk, progress).await
            };
            let Err(report) = sent else { continue };
            *progress.tally.entry(RETRIED).or_default() += bulk.lines.len() as u64;
            progress.is_unanswered |= matches!(report.pace, Pace::Down { .. });
            has_ended |= report.ends_attempt();
            progress.reports.add(bulk.lines.iter().map(|line| line.place), report);
        }
    }

    /// Sends one request and reads the answer for each line. An error applies to all of them.
    async fn send_bulk(&self, bulk: &Bulk, progress: &mut Progress) -> Result<(), Report> {
        let mut answers = self.post(bulk).await;
        if let Ok(first) = &answers {
            let lines = bulk.lines.iter().zip(first);
            let missing = lines.filter(|(line, it)| judge(it, line.action) == Class::NoIndex);
            let missing = missing.map(|(line, _)| line.index.clone()).collect();
            if self.make_indices(missing).await {
                // Stored documents are stored again under the same ids.
                answers = self.post(bulk).await;
            }
        }
        match (answers, &*bulk.lines) {
            (Ok(answers), lines) => {
                for (line, answer) in lines.iter().zip(&answers) {
                    if progress.answered(line, answer)
                        && let Some((trace, received_ms, counts)) = &line.stale
                    {
                        let created = u64::from(answer.status == 201 && *counts);
                        let now = Instant::now().into_std();
                        self.changes().note(trace, *received_ms, created, now);
                    }
                }
                Ok(())
            }
            // A single document is degraded and cut to the accepted size. More are split in halves.
            (Err(report), [line]) if report.is_refused(RejectClass::TooLarge) => {
                if progress.can_fold(line) {
                    progress.fold(line);
                    return Ok(());
                }
                let refusal = report.refusal().cloned().map(Arc::new);
                Err(refusal.map_or(report, |it| Report::all(Verdict::Reject(it), Pace::Go)))
            }
            (Err(report), _) => Err(report),
        }
    }

    /// Creates missing indices that the first document could not create. Returns whether any exists now.
    async fn make_indices(&self, indices: BTreeSet<String>) -> bool {
        let mut has_made = false;
        for index in indices {
            if !self.server().has_indices() || self.settings.is_streamed(&index) {
                continue;
            }
            match self.make_index(&index).await {
                Ok(()) => has_made = true,
                Err(obstacle) => {
                    let (sink, reason) = (&self.name, obstacle.to_string());
                    warn!(sink, index, reason, "the index is missing and cannot be created");
                }
            }
        }
        has_made
    }

    /// Sends a request and reads the answer for each of its lines.
    async fn post(&self, bulk: &Bulk) -> Result<Vec<Answer>, Report> {
        let bytes = bulk.body.len();
        let number = |number: usize| HeaderValue::from(u64::try_from(number).unwrap_or(u64::MAX));
        let mut headers = HeaderMap::from_iter([
            // For proxies that meter by them.
            (HeaderName::from_static("x-elastic-event-count"), number(bulk.lines.len())),
            (HeaderName::from_static("x-elastic-uncompressed-request-length"), number(bytes)),
        ]);
        if let Some(coding) = self.settings.compression.header() {
            headers.insert(CONTENT_ENCODING, coding);
        }
        let (compression, body) = (self.settings.compression, bulk.body.clone());
        let body = http::in_turn(bytes, move || compression.apply(body)).await.flatten();
        let body = body.map_err(|error| Report::down(None, format!("cannot compress: {error}")))?;
        let path = format!("/_bulk?filter_path={}", response::FILTER_PATH);
        let answers = match self.cluster.send(Method::POST, &path, headers, body).await {
            Ok(response) => {
                self.broken.store(0, Ordering::Relaxed);
                response::read(&response, bulk.lines.len())
            }
            // Some servers close the connection while a request that is too large is sent.
            Err(RequestError::Broken(reason))
                if LARGE_BYTES < bytes
                    && BROKEN_MAX <= self.broken.fetch_add(1, Ordering::Relaxed) + 1 =>
            {
                self.broken.store(0, Ordering::Relaxed);
                let reason = format!("the connection broke again: {reason}");
                Err(Report::split(RejectClass::TooLarge, reason, String::new()))
            }
            Err(failure) => Err(failure.report()),
        };
        match &answers {
            // Indices that their first document has just created.
            Ok(answers) => {
                let made = bulk.lines.iter().zip(answers).filter(|(_, answer)| answer.is_first);
                self.doubt(made.map(|(line, _)| line.index.clone()));
            }
            Err(report) if report.is_refused(RejectClass::TooLarge) => {
                lock(&self.size_limit).refused(bytes, Instant::now().into_std());
            }
            Err(_) => {}
        }
        answers
    }
}

impl Progress {
    /// Begins a delivery of this many items, or a round of this many lines.
    pub(super) fn new(items: usize) -> Self {
        Self { reports: Reports::new(items), ..Self::default() }
    }

    fn can_fold(&self, line: &Line) -> bool {
        self.degradation == Some(Degradation::Full) && line.action != Action::Update
    }

    fn fold(&mut self, line: &Line) {
        *self.tally.entry(DEGRADED).or_default() += 1;
        self.to_fold.insert(line.place);
    }

    /// Notes the answer for a line. Returns whether its document is stored.
    fn answered(&mut self, line: &Line, answer: &Answer) -> bool {
        let class = judge(answer, line.action);
        let reason = || explain(answer, class);
        let (outcome, report) = match (class, answer.status) {
            (Class::Stored, 201) => (Some("created"), Report::delivered()),
            // What another writer has changed or deleted must be made again.
            (Class::Conflict | Class::Missing, _) if self.degradation.is_none() => {
                let conflict = (class == Class::Conflict).then_some(DUPLICATE);
                (conflict, Report::all(Verdict::Retry, Pace::Go))
            }
            // An existing document is one that was sent before.
            (Class::Stored, 409) | (Class::Conflict, _) => (Some(DUPLICATE), Report::delivered()),
            (Class::Stored, _) => (Some("updated"), Report::delivered()),
            (Class::SetAside, _) => {
                let reason =
                    "stored in the failure store, where searches do not find it".to_owned();
                let omitted = Some(Omitted { items: 1, reason });
                (Some("failure_store"), Report { omitted, ..Report::delivered() })
            }
            (Class::Refused, _) if self.can_fold(line) => {
                self.fold(line);
                return false;
            }
            (Class::Refused | Class::Missing, _) => {
                (None, Report::reject(format!("rejected: {}", reason()), kept(answer)))
            }
            (Class::Stop | Class::NoIndex, _) => (Some(RETRIED), Report::hold(reason())),
            (Class::Throttled, _) => (Some(RETRIED), Report::slow(None, reason())),
            (Class::Retry, _) => (Some(RETRIED), Report::down(None, reason())),
            (Class::Fault, _) => (Some(RETRIED), Report::fault(reason(), kept(answer))),
        };
        if let Some(outcome) = outcome {
            *self.tally.entry(outcome).or_default() += 1;
        }
        self.reports.add([line.place], report);
        matches!(class, Class::Stored | Class::Conflict)
    }
}
