//! Reads a trace from the journal. It blocks on the disk.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::feed::Arrived;
use crate::index::Places;
use crate::journal::{Journal, Mark};
use crate::normalize::decode_record;
use crate::pipeline::{Record, Records};
use crate::span::{Batch, Item, Span, TraceId};

/// The most that is read of one trace, in bytes of the records that it is in.
const BYTES_MAX: usize = 256 << 20;
/// A record that starts so near behind the last one is read on to: the disk is read in pieces of this size.
const NEAR_BYTES: u64 = 512 << 10;

/// What the journal keeps of a trace.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Its items by the record they came in, in order.
    pub(super) records: Vec<Found>,
    /// Items of records that should be its own and are gone or damaged.
    pub(super) unreadable: u64,
    bytes: usize,
}

/// What a record holds of a trace.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) start: Mark,
    pub(super) end: Mark,
    pub(super) batch: Arc<Batch>,
}

impl Read {
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.records.iter().flat_map(|found| &found.batch.items)
    }

    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.items().filter_map(Item::as_span)
    }

    fn add(&mut self, record: &Record, trace: TraceId) -> io::Result<()> {
        let Some(payload) = &record.payload else {
            self.unreadable += record.items();
            return Ok(());
        };
        // A copy: what is kept would keep the memory that it was read into with others.
        let Ok((_, decoded)) = decode_record(&Bytes::copy_from_slice(payload)) else {
            return Ok(());
        };
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
        self.records.push(Found { start: record.start, end: record.end, batch });
        Ok(())
    }
}

/// Reads a trace from these places, or from wherever it is.
pub(super) fn trace(
    journal: &Journal<Arrived>,
    trace: TraceId,
    places: Option<&Places>,
) -> io::Result<Read> {
    let mut read = Read::default();
    let Some(places) = places else {
        for record in Records::all(journal) {
            let record = record?;
            // Nobody knows whose what is damaged was.
            if record.payload.is_some() {
                read.add(&record, trace)?;
            }
        }
        return Ok(read);
    };
    let kept_from = journal.start().position;
    let mut reading: Option<(u64, Records)> = None;
    for place in places.records.iter().filter(|place| kept_from <= **place) {
        let near = reading.take().filter(|(at, _)| place.0.saturating_sub(*at) < NEAR_BYTES);
        let mut records = match near {
            Some((_, records)) => records,
            None => Records::from(journal, Mark { position: *place, items: 0 }),
        };
        let mut at = place.0;
        while let Some(record) = records.next().transpose()? {
            at = record.end.position.0;
            if *place <= record.start.position {
                read.add(&record, trace)?;
            }
            if place.0 < at {
                break;
            }
        }
        reading = Some((at, records));
    }
    // What was received since the index has looked.
    for record in Records::from(journal, Mark { position: places.looked_at, items: 0 }) {
        let record = record?;
        if places.looked_at < record.start.position && record.payload.is_some() {
            read.add(&record, trace)?;
        }
    }
    Ok(read)
}
