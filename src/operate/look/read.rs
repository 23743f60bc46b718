//! Reads a trace from the journal. Blocks on the disk.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::feed::{Attachment, Records};
use crate::index::Places;
use crate::journal::{Journal, Mark, Record};
use crate::normalize::decode_record;
use crate::prices::Prices;
use crate::span::{Batch, Item, Span, SpanId, TraceContexts, TraceId};

/// Maximum size of one trace, in bytes of its records.
const BYTES_MAX: usize = 256 << 20;
/// If the next record starts within this distance, reading continues up to it; the disk is read in pieces of this size.
const NEAR_BYTES: u64 = 512 << 10;

/// What the journal keeps of a trace.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Its items by record, in order.
    pub(super) records: Vec<TraceRecord>,
    /// Items that are gone or damaged, in records that certainly belong to it.
    pub(super) unreadable: u64,
    bytes: usize,
}

/// A trace's items in one record.
#[derive(Debug)]
pub(super) struct TraceRecord {
    pub(super) start: Mark,
    pub(super) end: Mark,
    pub(super) batch: Arc<Batch>,
}

/// What is known in addition to the spans of a trace.
pub(super) struct TraceState {
    pub(super) contexts: TraceContexts,
    pub(super) prices: Arc<Prices>,
}

impl Read {
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.records.iter().flat_map(|found| &found.batch.items)
    }

    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.items().filter_map(Item::as_span)
    }

    /// Keeps the last of the spans with the same id, which counts in sums too.
    pub(super) fn keep_last(&mut self) {
        let mut seen = HashSet::new();
        for found in self.records.iter_mut().rev() {
            let items = &mut Arc::make_mut(&mut found.batch).items;
            items.reverse();
            items.retain(|item| item.as_span().is_none_or(|span| seen.insert(span.span_id)));
            items.reverse();
        }
    }

    /// Removes everything but one span.
    pub(super) fn keep_only(&mut self, span: SpanId) {
        for found in &mut self.records {
            let is_it = |item: &Item| item.as_span().is_some_and(|it| it.span_id == span);
            Arc::make_mut(&mut found.batch).items.retain(is_it);
        }
    }

    fn add(&mut self, record: &Record, trace: TraceId) -> io::Result<()> {
        let Some(payload) = &record.payload else {
            self.unreadable += record.items();
            return Ok(());
        };
        // A slice keeps the whole buffer that it was read into alive, so small payloads are copied.
        let payload = match payload {
            small if (small.len() as u64) < NEAR_BYTES => Bytes::copy_from_slice(small),
            large => large.clone(),
        };
        let Ok((_, decoded)) = decode_record(&payload) else { return Ok(()) };
        let Batch { source, mut items, bytes } = decoded.batch;
        items.retain(|item| item.trace_id() == trace);
        if items.is_empty() {
            return Ok(());
        }
        self.bytes += payload.len();
        if BYTES_MAX < self.bytes {
            let what = "the trace is too large to be shown: its records have more than 256 MiB";
            return Err(io::Error::other(what));
        }
        let batch = Arc::new(Batch { source, items, bytes });
        self.records.push(TraceRecord { start: record.start, end: record.end, batch });
        Ok(())
    }
}

/// Reads a trace from these places. Damaged records count only where they certainly belonged to the trace.
pub(super) fn trace(
    journal: &Journal<Attachment>,
    trace: TraceId,
    places: &Places,
) -> io::Result<Read> {
    let (mut read, kept_from) = (Read::default(), journal.start().position);
    let (mut at, mut records) = (kept_from, Records::from(journal, Mark::default()));
    for part in places.0.iter().filter(|part| kept_from <= part.until) {
        let from = part.from.max(kept_from);
        if NEAR_BYTES < from.0.saturating_sub(at.0) || at == kept_from {
            at = from;
            records = Records::from(journal, Mark { position: from, items: 0 });
        }
        while at <= part.until
            && let Some(record) = records.next().transpose()?
        {
            at = record.end.position;
            if from <= record.start.position && (part.is_its_own || record.payload.is_some()) {
                read.add(&record, trace)?;
            }
        }
    }
    Ok(read)
}
