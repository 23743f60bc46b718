//! A delivery is sent, its answer read line by line, and what became of each item told.
//!
//! Only what failed is sent again, so everything arrives however little of a request a busy server takes. A document that is refused
//! for what is in it is sent once more with everything free-form folded into one text, and only then rejected. An index that is
//! missing is made with our mapping.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};
use tokio::time::Instant;
use tracing::warn;

use super::encode::{Bulk, Encoded, Line, Rung};
use super::figures::{self, Tally};
use super::response::{self, Action, Answer, Class, explain, judge, kept};
use super::{Backend, document};
use crate::sinks::http::{self, Failure, INLINE_BYTES_MAX, Response};
use crate::sinks::report::Reports;
use crate::sinks::{Delivery, Omitted, Pace, RejectClass, Report, Verdict};

/// A connection that breaks during a request larger than this may be the answer to its size.
const LARGE_BYTES: usize = 1 << 20;
/// That many times in a row it is.
const BROKEN_MAX: u32 = 2;

#[derive(Debug)]
struct Progress {
    reports: Reports,
    /// Items to send once more in their plainest form.
    to_fold: BTreeSet<usize>,
    /// Items whose documents were stored, and whether these are new.
    stored: Vec<(usize, bool)>,
    /// Indices that were made just now, by the first document that they got.
    new_indices: BTreeSet<String>,
    /// Whether there was no answer to a request that may have made an index.
    is_unanswered: bool,
    tally: Tally,
}

impl Backend {
    pub(super) async fn deliver(self: &Arc<Self>, delivery: &Delivery) -> Report {
        let mut progress = Progress {
            reports: Reports::new(delivery.len()),
            to_fold: BTreeSet::new(),
            stored: Vec::new(),
            new_indices: BTreeSet::new(),
            is_unanswered: false,
            tally: Tally::default(),
        };
        for rung in [Rung::Full, Rung::Folded] {
            let wanted = std::mem::take(&mut progress.to_fold);
            if rung == Rung::Folded && wanted.is_empty() {
                break;
            }
            let this = Arc::clone(self);
            let work = move |delivery: &Delivery| {
                let is_wanted = |at: usize| rung == Rung::Full || wanted.contains(&at);
                this.encoder().delivery(delivery, rung, is_wanted)
            };
            let encoded = match http::encode(delivery, work).await {
                Ok(encoded) => encoded,
                Err(error) => return Report::down(None, format!("cannot encode: {error}")),
            };
            if rung == Rung::Full {
                let lines = encoded.bulks.iter().flat_map(|bulk| &bulk.lines);
                let sent: HashSet<usize> = lines.map(|line| line.place).collect();
                // For the others there is nothing to send.
                let others = (0..delivery.len()).filter(|place| !sent.contains(place));
                others.for_each(|place| progress.reports.set(place, Verdict::Delivered));
            }
            self.send_all(encoded, delivery, rung, &mut progress).await;
        }
        self.report(delivery, progress.tally);
        // Nothing is delivered to an index with a mapping that was guessed, whichever delivery made it.
        self.doubt(progress.new_indices);
        let prepared = self.prepare().await;
        if progress.is_unanswered {
            self.doubt_all();
        }
        prepared.map_or_else(|held| held, |()| progress.reports.finish())
    }

    async fn send_all(
        &self,
        encoded: Encoded,
        delivery: &Delivery,
        rung: Rung,
        progress: &mut Progress,
    ) {
        let Encoded { bulks, traces } = encoded;
        let mut has_ended = false;
        for mut bulk in bulks {
            let report = if has_ended {
                // It would go no better; what no request is said to have had in it comes again.
                Some(Report::all(Verdict::Retry, Pace::Go))
            } else {
                self.send_bulk(&mut bulk, rung, progress).await
            };
            let Some(report) = report else { continue };
            progress.tally.retried += bulk.lines.len() as u64;
            progress.is_unanswered |= matches!(report.pace, Pace::Down { .. });
            has_ended |= report.ends_attempt();
            progress.reports.add(bulk.lines.iter().map(|line| line.place), report);
        }
        self.note(std::mem::take(&mut progress.stored), delivery, &traces);
    }

    fn note(&self, stored: Vec<(usize, bool)>, delivery: &Delivery, traces: &[Arc<str>]) {
        if stored.is_empty() || !self.encoder().has_summaries() {
            return;
        }
        let items: Vec<_> = delivery
            .items()
            .map(|(batch, item)| {
                let is_counted = item.as_span().is_some_and(|span| !span.is_synthetic());
                (batch.source.received_at_ns / super::names::NS_PER_MS, is_counted)
            })
            .collect();
        let now = Instant::now().into_std();
        let mut changes = self.changes();
        for (place, is_new) in stored {
            let told = traces.get(place).zip(items.get(place));
            let Some((name, &(received_ms, is_counted))) = told else { continue };
            changes.note(name, received_ms, u64::from(is_new && is_counted), now);
        }
        drop(changes);
        self.has_changed.notify_one();
    }

    /// Sends one request and reads its answer. Returns what all of its lines share, where they do.
    async fn send_bulk(
        &self,
        bulk: &mut Bulk,
        rung: Rung,
        progress: &mut Progress,
    ) -> Option<Report> {
        let report = self.exchange(bulk, rung, progress).await?;
        if !report.is_refused(RejectClass::TooLarge) {
            return Some(report);
        }
        self.learn(&report, bulk.body.len());
        // In halves; and a document alone in its plainest form, cut to what is taken.
        match (bulk.lines.as_slice(), report.refusal()) {
            ([line], _) if rung == Rung::Full && line.action != Action::Update => {
                progress.fold(line.place);
                None
            }
            ([_], Some(refusal)) => {
                Some(Report::all(Verdict::Reject(Arc::new(refusal.clone())), Pace::Go))
            }
            _ => Some(report),
        }
    }

    /// One request and its answers: nothing where each line had its own, else what all share.
    async fn exchange(
        &self,
        bulk: &mut Bulk,
        rung: Rung,
        progress: &mut Progress,
    ) -> Option<Report> {
        let mut may_make_indices = true;
        loop {
            let response = match self.post(bulk).await {
                Ok(response) => response,
                Err(report) => return Some(report),
            };
            let answers = match response::read(&response, bulk.lines.len()) {
                Ok(answers) => answers,
                Err(report) => return Some(report),
            };
            let both = || bulk.lines.iter().zip(&answers);
            let indices = |of: &dyn Fn(&Line, &Answer<'_>) -> bool| {
                let lines = both().filter(|(line, answer)| of(line, answer));
                lines.filter_map(|(line, _)| bulk.index_of(line)).collect::<BTreeSet<_>>()
            };
            progress.new_indices.extend(indices(&|_, answer| answer.is_first));
            let missing = indices(&|line, answer| judge(answer, line.action) == Class::NoIndex);
            // What was stored is stored again under the same ids.
            if may_make_indices && !missing.is_empty() {
                may_make_indices = false;
                if self.make_indices(missing).await {
                    continue;
                }
            }
            for (line, answer) in both() {
                progress.answered(line.place, line.action, rung, answer);
            }
            return None;
        }
    }

    /// Makes indices that are missing, where the first document was to make them and may not. Returns whether any is there now.
    async fn make_indices(&self, indices: BTreeSet<String>) -> bool {
        let (spans, mut has_made) = (self.settings.spans_index(), false);
        for index in indices {
            let is_spans = index.starts_with(&spans);
            if !self.setup.server().has_indices() || (is_spans && self.settings.is_stream()) {
                continue;
            }
            match self.make_index(&index, is_spans).await {
                Ok(()) => has_made = true,
                Err(obstacle) => {
                    let (sink, reason) = (&self.name, obstacle.to_string());
                    warn!(sink, index, reason, "the index is missing and cannot be made");
                }
            }
        }
        has_made
    }

    pub(super) async fn post(&self, bulk: &mut Bulk) -> Result<Response, Report> {
        let bytes = bulk.body.len();
        let number = |number: usize| HeaderValue::from(u64::try_from(number).unwrap_or(u64::MAX));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        headers.insert(EVENT_COUNT, number(bulk.lines.len()));
        headers.insert(UNCOMPRESSED_LENGTH, number(bytes));
        if let Some(coding) = self.settings.compression.header() {
            headers.insert(CONTENT_ENCODING, coding);
        }
        let body = self.compress(bulk).await;
        let body = body.map_err(|error| Report::down(None, format!("cannot compress: {error}")))?;
        let path = format!("/_bulk?filter_path={}", response::FILTER_PATH);
        match self.cluster.send(&Method::POST, &path, &headers, body).await {
            Ok(response) => {
                self.broken.store(0, Ordering::Relaxed);
                Ok(response)
            }
            // Some servers say that a request is too large by closing the connection while it is sent.
            Err(Failure::Broken(reason)) if LARGE_BYTES < bytes => {
                if self.broken.fetch_add(1, Ordering::Relaxed) + 1 < BROKEN_MAX {
                    return Err(Failure::Broken(reason).report());
                }
                self.broken.store(0, Ordering::Relaxed);
                let reason = format!("the connection broke again: {reason}");
                Err(Report::split(RejectClass::TooLarge, reason, String::new()))
            }
            Err(failure) => Err(failure.report()),
        }
    }

    /// The body as it is sent. It is lent to the thread that compresses it, and not copied.
    async fn compress(&self, bulk: &mut Bulk) -> io::Result<Bytes> {
        let compression = self.settings.compression;
        if bulk.body.len() <= INLINE_BYTES_MAX {
            return compression.of(&bulk.body);
        }
        let body = std::mem::take(&mut bulk.body);
        let compress = move || (compression.of(&body), body);
        let (compressed, body) = http::in_turn(compress).await?;
        bulk.body = body;
        compressed
    }

    /// Counts what happened, and says in the log what nobody else says.
    fn report(&self, delivery: &Delivery, mut tally: Tally) {
        tally.odd_times =
            delivery.spans().filter(|span| document::has_odd_time(span)).count() as u64;
        figures::count(&self.figures, &tally);
        let sink = &self.name;
        if 0 < tally.folded {
            warn!(sink, count = tally.folded, "spans were refused as they were and sent folded");
        }
        if 0 < tally.odd_times {
            warn!(
                sink,
                count = tally.odd_times,
                "spans say times outside of 2000 to 2100, which no duration or trace document counts"
            );
        }
    }
}

/// How many documents a request has, for those who meter by them.
const EVENT_COUNT: HeaderName = HeaderName::from_static("x-elastic-event-count");
/// How long a request is before compression, likewise.
const UNCOMPRESSED_LENGTH: HeaderName =
    HeaderName::from_static("x-elastic-uncompressed-request-length");

impl Progress {
    fn fold(&mut self, place: usize) {
        self.tally.folded += 1;
        self.to_fold.insert(place);
    }

    fn answered(&mut self, place: usize, action: Action, rung: Rung, answer: &Answer<'_>) {
        let class = judge(answer, action);
        self.tally.add(answer.status, &class);
        let reason = || explain(answer, &class);
        let report = match class {
            // A document that is there already is one that we have sent before.
            Class::Stored | Class::Conflict => {
                self.stored.push((place, answer.status == 201));
                Report::delivered()
            }
            Class::SetAside => {
                self.tally.set_aside += 1;
                let reason = "put into the failure store, where no search finds it".to_owned();
                Report { omitted: Some(Omitted { items: 1, reason }), ..Report::delivered() }
            }
            Class::Refused if rung == Rung::Full && action != Action::Update => {
                return self.fold(place);
            }
            Class::Refused | Class::Missing => {
                Report::reject(format!("rejected: {}", reason()), kept(answer))
            }
            Class::Stop | Class::NoIndex => Report::hold(reason()),
            Class::Throttled => Report::slow(None, reason()),
            Class::Retry => Report::down(None, reason()),
        };
        self.reports.add([place], report);
    }
}
