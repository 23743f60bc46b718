//! Sends a delivery, reads its answer line by line, and reports the result of each item.
//!
//! Only failed items are sent again, so everything arrives, however little of a request a busy server accepts. A document that is rejected
//! because of its contents is sent once more with all free-form data as a single text before it is finally rejected. A missing index is
//! created with the sink's mapping.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};
use tokio::time::Instant;
use tracing::warn;

use super::encode::{Bulk, Degradation, Encoded, Line};
use super::figures::{self, DEGRADED, DocumentCounts, ODD_TIMES, RETRIED};
use super::names::{self, NS_PER_MS};
use super::response::{self, Action, Answer, Class, explain, judge, kept};
use super::{Backend, document, lock};
use crate::sinks::http::{self, Compression, INLINE_BYTES_MAX, RequestError};
use crate::sinks::report::Reports;
use crate::sinks::{Delivery, Omitted, Pace, RejectClass, Report, Verdict};
use crate::span::Item;

/// A connection that breaks during a request larger than this, in bytes, may mean that the request is too large.
const LARGE_BYTES: usize = 1 << 20;
/// After this many consecutive breaks, it counts as too large.
const BROKEN_MAX: u32 = 2;

#[derive(Debug, Default)]
struct Progress {
    degradation: Degradation,
    reports: Reports,
    /// Items to send once more in degraded form.
    to_fold: BTreeSet<usize>,
    /// Items whose documents were stored, and whether they are new.
    stored: BTreeMap<usize, bool>,
    /// Whether a request that may have created an index got no answer.
    is_unanswered: bool,
    tally: DocumentCounts,
}

impl Backend {
    pub(super) async fn deliver(self: &Arc<Self>, delivery: &Delivery) -> Report {
        let reports = Reports::new(delivery.len());
        let mut progress = Progress { reports, ..Progress::default() };
        for degradation in [Degradation::Full, Degradation::Folded] {
            let wanted = mem::take(&mut progress.to_fold);
            if degradation == Degradation::Folded && wanted.is_empty() {
                break;
            }
            let this = Arc::clone(self);
            let work = move |delivery: &Delivery| {
                let is_wanted =
                    |at: usize| degradation == Degradation::Full || wanted.contains(&at);
                this.encoder().delivery(delivery, degradation, is_wanted)
            };
            let encoded = match http::encode(delivery, work).await {
                Ok(encoded) => encoded,
                Err(error) => return Report::down(None, format!("cannot encode: {error}")),
            };
            progress.degradation = degradation;
            self.send_all(encoded, &mut progress).await;
        }
        self.report(delivery, &progress.tally);
        self.note_changes(delivery, &progress.stored);
        // Nothing may be delivered to an index with a guessed mapping, whichever delivery created it.
        let prepared = self.prepare().await;
        if progress.is_unanswered {
            self.doubt_all();
        }
        prepared.map_or_else(|held| held, |()| progress.reports.finish())
    }

    async fn send_all(&self, encoded: Encoded, progress: &mut Progress) {
        for place in encoded.unsent {
            progress.reports.set(place, Verdict::Delivered);
        }
        let mut has_ended = false;
        for bulk in &encoded.bulks {
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

    /// Marks the summaries of the stored items' traces as stale.
    fn note_changes(&self, delivery: &Delivery, stored: &BTreeMap<usize, bool>) {
        if stored.is_empty() || !self.encoder().has_summaries() {
            return;
        }
        let (now, mut changes) = (Instant::now().into_std(), self.changes());
        for (place, (batch, item)) in delivery.items().enumerate() {
            let Some(is_new) = stored.get(&place) else { continue };
            let (trace, is_counted) = match item {
                Item::Span(span) => {
                    let context = delivery.context(span.trace_id);
                    (names::trace_of(span, context), !span.is_synthetic())
                }
                Item::Trace(object) => (names::of_object(object), false),
            };
            let received_ms = batch.source.received_at_ns / NS_PER_MS;
            changes.note(&trace, received_ms, u64::from(*is_new && is_counted), now);
        }
        drop(changes);
        self.has_changed.notify_one();
    }

    /// Sends one request and reads its answer. An error applies to all of its lines.
    async fn send_bulk(&self, bulk: &Bulk, progress: &mut Progress) -> Result<(), Report> {
        let Err(report) = self.exchange(bulk, progress).await else { return Ok(()) };
        let refusal = report.refusal().filter(|refusal| refusal.class == RejectClass::TooLarge);
        // The request is split in halves. A single document is degraded and cut to the accepted size.
        match (bulk.lines.as_slice(), refusal) {
            ([line], Some(_)) if progress.can_fold(line) => {
                progress.fold(line);
                Ok(())
            }
            ([_], Some(refusal)) => {
                Err(Report::all(Verdict::Reject(Arc::new(refusal.clone())), Pace::Go))
            }
            _ => Err(report),
        }
    }

    /// Sends one request and reads the answer for each line.
    async fn exchange(&self, bulk: &Bulk, progress: &mut Progress) -> Result<(), Report> {
        let mut answers = self.post(bulk).await?;
        let is_missing =
            |(line, answer): &(&Line, &Answer)| judge(answer, line.action) == Class::NoIndex;
        let missing = bulk.indices_of(&answers, is_missing);
        if self.make_indices(missing).await {
            // Stored documents are stored again under the same ids.
            answers = self.post(bulk).await?;
        }
        bulk.lines.iter().zip(&answers).for_each(|(line, answer)| progress.answered(line, answer));
        Ok(())
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
    pub(super) async fn post(&self, bulk: &Bulk) -> Result<Vec<Answer>, Report> {
        let bytes = bulk.body.len();
        let number = |number: usize| HeaderValue::from(u64::try_from(number).unwrap_or(u64::MAX));
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
            (EVENT_COUNT, number(bulk.lines.len())),
            (UNCOMPRESSED_LENGTH, number(bytes)),
        ]);
        if let Some(coding) = self.settings.compression.header() {
            headers.insert(CONTENT_ENCODING, coding);
        }
        let body = self.compress(bulk.body.clone()).await;
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
            Ok(answers) => self.doubt(bulk.indices_of(answers, |(_, answer)| answer.is_first)),
            Err(report) if report.is_refused(RejectClass::TooLarge) => {
                lock(&self.size_limit).refused(bytes, Instant::now().into_std());
            }
            Err(_) => {}
        }
        answers
    }

    async fn compress(&self, body: Bytes) -> io::Result<Bytes> {
        match self.settings.compression {
            Compression::None => Ok(body),
            compression if body.len() <= INLINE_BYTES_MAX => compression.of(&body),
            compression => http::in_turn(move || compression.of(&body)).await?,
        }
    }

    /// Counts the results, and logs those that are reported nowhere else.
    fn report(&self, delivery: &Delivery, tally: &DocumentCounts) {
        figures::count(&self.figures, tally);
        let odd_times = delivery.spans().filter(|span| document::has_odd_time(span)).count();
        self.figures.add(&ODD_TIMES, odd_times as u64);
        let sink = &self.name;
        if let Some(count) = tally.get(DEGRADED) {
            warn!(sink, count, "spans were refused and sent again with their attributes folded");
        }
        if 0 < odd_times {
            warn!(sink, count = odd_times, "{}", ODD_TIMES.help);
        }
    }
}

/// The number of documents in a request, for proxies that meter by it.
const EVENT_COUNT: HeaderName = HeaderName::from_static("x-elastic-event-count");
/// The length of a request before compression, for the same purpose.
const UNCOMPRESSED_LENGTH: HeaderName =
    HeaderName::from_static("x-elastic-uncompressed-request-length");

impl Progress {
    fn can_fold(&self, line: &Line) -> bool {
        self.degradation == Degradation::Full && line.action != Action::Update
    }

    fn fold(&mut self, line: &Line) {
        *self.tally.entry(DEGRADED).or_default() += 1;
        self.to_fold.insert(line.place);
    }

    fn answered(&mut self, line: &Line, answer: &Answer) {
        let class = judge(answer, line.action);
        if let Some(outcome) = figures::outcome(answer.status, class) {
            *self.tally.entry(outcome).or_default() += 1;
        }
        let reason = || explain(answer, class);
        let report = match class {
            // An existing document is one that was sent before.
            Class::Stored | Class::Conflict => {
                self.stored.insert(line.place, answer.status == 201);
                Report::delivered()
            }
            Class::SetAside => {
                let reason =
                    "stored in the failure store, where searches do not find it".to_owned();
                Report { omitted: Some(Omitted { items: 1, reason }), ..Report::delivered() }
            }
            Class::Refused if self.can_fold(line) => return self.fold(line),
            Class::Refused | Class::Missing => {
                Report::reject(format!("rejected: {}", reason()), kept(answer))
            }
            Class::Stop | Class::NoIndex => Report::hold(reason()),
            Class::Throttled => Report::slow(None, reason()),
            Class::Retry => Report::down(None, reason()),
            Class::Fault => Report::fault(reason(), kept(answer)),
        };
        self.reports.add([line.place], report);
    }
}
