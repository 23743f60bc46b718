//! Looking at a log without opening it for work: what is there, and whether it can all be read. For the command line.
//!
//! Nothing is changed and no lock is needed: a daemon may be writing. What it has written but not finished looks like a torn tail.

use std::io;

use super::cursor::{self, CLOSED_NAME, START_NAME, read_mark};
use super::damage::{self, Damage};
use super::recovery::{SegmentView, look_at, scan};
use super::segment::{BadHeader, Records, base_of};
use super::storage::{Lock, Storage};
use super::{Cursor, Mark, OpenError};

/// What is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The oldest first.
    pub segments: Vec<SegmentView>,
    /// The end, as far as whole records go.
    pub end: Mark,
    /// By name; `None` for a cursor whose file is damaged.
    pub cursors: Vec<(String, Option<Cursor>)>,
    /// Damage that nobody has settled.
    pub damages: Vec<Damage>,
}

/// Whether everything can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// The oldest first.
    pub segments: Vec<SegmentCheck>,
    /// Bytes behind the last whole record: a torn tail, or what is being written now.
    pub torn_bytes: u64,
}

impl Verification {
    /// Whether every record that was ever stable can be read, beside those of which an operator knows that they cannot.
    pub fn is_whole(&self) -> bool {
        let is_whole = |SegmentCheck { segment, damages, .. }: &SegmentCheck| {
            !matches!(segment.bad, Some(BadHeader::Version(_))) && damages.is_empty()
        };
        self.segments.iter().all(is_whole)
    }
}

/// What one file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentCheck {
    /// The file.
    pub segment: SegmentView,
    /// Whole records.
    pub records: u64,
    /// Where the last whole record ends.
    pub end: Mark,
    /// What cannot be read, and nobody has settled.
    pub damages: Vec<Damage>,
    /// What cannot be read, and is settled.
    pub settled: Vec<Damage>,
}

/// Looks at names, headers, lengths, cursors and notes, and reads the last segment to find the end.
pub fn inspect(storage: &dyn Storage) -> io::Result<Inspection> {
    let names = storage.list()?;
    let segments = look_at_segments(storage, &names)?;
    let mut end = Mark::default();
    if let Some(last) = segments.last() {
        let mut records = Records::open(storage, last.base.position)?;
        let limit = records.file_end()?;
        end = scan(&mut records, last.base, limit)?.end;
    }
    let mut cursors = Vec::new();
    for name in &names {
        if let Some(consumer) = cursor::consumer_of(name) {
            cursors.push((consumer, Cursor::from_bytes(&storage.read(name)?)));
        }
    }
    cursors.sort_by(|(one, _), (other, _)| one.cmp(other));
    let damages = damage::read_notes(storage, &names).open;
    Ok(Inspection { segments, end, cursors, damages })
}

/// Reads everything and checks every checksum.
pub fn verify(storage: &dyn Storage) -> io::Result<Verification> {
    // Before the segments are listed: a daemon that runs may begin one and save a cursor in it meanwhile.
    let reached = reached(storage)?;
    let names = storage.list()?;
    let segments = look_at_segments(storage, &names)?;
    let first = segments.first().map_or(reached, |first| first.base);
    let kept_from = read_mark(storage, &names, START_NAME).unwrap_or(first);
    let mut checks = Vec::new();
    if kept_from.position < first.position {
        checks.push(missing(kept_from, first));
    }
    let mut torn_bytes = 0;
    for (index, segment) in segments.iter().enumerate() {
        let next = segments.get(index + 1).map(|next| next.base);
        let (check, torn) = check(storage, segment, next, reached)?;
        checks.push(check);
        torn_bytes += torn;
    }
    let notes = damage::read_notes(storage, &names);
    let is_open = |damage: &Damage| {
        let from = damage.from.position;
        !notes.known.contains(&from) || notes.open.iter().any(|open| open.from.position == from)
    };
    for check in &mut checks {
        (check.damages, check.settled) =
            std::mem::take(&mut check.damages).into_iter().partition(is_open);
    }
    Ok(Verification { segments: checks, torn_bytes })
}

/// How far the log came at least, as was noted when it was closed, or when a cursor was saved.
fn reached(storage: &dyn Storage) -> io::Result<Mark> {
    let names = storage.list()?;
    let cursors = names.iter().filter(|name| cursor::consumer_of(name).is_some());
    // One that cannot be read says nothing.
    let saved = cursors.filter_map(|name| Cursor::from_bytes(&storage.read(name).ok()?));
    let marks = saved.map(|cursor| cursor.mark).chain(read_mark(storage, &names, CLOSED_NAME));
    Ok(marks.max_by_key(|mark| mark.position).unwrap_or_default())
}

/// What there was before the first segment that is there.
fn missing(from: Mark, to: Mark) -> SegmentCheck {
    let bad = Some(BadHeader::Missing);
    SegmentCheck {
        segment: SegmentView { base: from, created_ns: 0, file_bytes: 0, bad, first: None },
        records: 0,
        end: from,
        damages: vec![Damage { segment: from.position, from, to }],
        settled: Vec::new(),
    }
}

/// Reads one segment; also returns how many bytes are behind the last whole record of the log.
fn check(
    storage: &dyn Storage,
    segment: &SegmentView,
    next: Option<Mark>,
    reached: Mark,
) -> io::Result<(SegmentCheck, u64)> {
    let base = segment.base;
    let mut records = Records::open(storage, base.position)?;
    let file_end = records.file_end()?;
    let limit = next.map_or(file_end, |next| next.position.min(file_end));
    let found = scan(&mut records, base, limit)?;
    let damage = |(from, to): (Mark, Mark)| Damage { segment: base.position, from, to };
    let mut damages: Vec<_> = found.holes.iter().copied().map(damage).collect();
    let mut torn_bytes = 0;
    if next.is_none() {
        torn_bytes = records.bytes_beyond(found.end.position, limit)?;
        let synced = found.synced.max(reached.position);
        damages.retain(|damage| damage.from.position < synced);
    }
    let expected = next.unwrap_or(reached);
    if found.end.position < expected.position {
        damages.push(damage((found.end, expected)));
    }
    let is_told = damages.first().is_some_and(|first| first.from.position == base.position);
    if segment.bad == Some(BadHeader::Damaged) && !is_told {
        damages.insert(0, damage((base, base)));
    }
    let check = SegmentCheck {
        segment: *segment,
        records: found.records,
        end: found.end,
        damages,
        settled: Vec::new(),
    };
    Ok((check, torn_bytes))
}

/// Settles all damage, also what nobody has met yet: the operator knows, and health need not say it any more. What was set aside stays
/// under `damaged/`. Refuses while a daemon runs.
pub fn repair(storage: &dyn Storage) -> Result<Vec<Damage>, OpenError> {
    let failed = |source| OpenError::Storage { path: storage.place(), source };
    let _guard = match storage.lock().map_err(failed)? {
        Lock::Held(guard) => guard,
        Lock::Elsewhere(pid) => return Err(OpenError::Locked { dir: storage.place(), pid }),
    };
    let found = verify(storage).map_err(failed)?;
    let damages = found.segments.iter().flat_map(|segment| &segment.damages);
    damages
        .into_iter()
        .try_for_each(|damage| damage::set_aside(storage, damage))
        .map_err(failed)?;
    damage::settle(storage).map_err(failed)
}

fn look_at_segments(storage: &dyn Storage, names: &[String]) -> io::Result<Vec<SegmentView>> {
    let mut bases: Vec<_> = names.iter().filter_map(|name| base_of(name)).collect();
    bases.sort_unstable();
    bases.into_iter().map(|base| look_at(storage, base)).collect()
}
