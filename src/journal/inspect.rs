//! Inspection of a log without opening it for writing: its contents, and whether everything is readable. Used by the command line.
//!
//! Inspection changes nothing and needs no lock, so a daemon may be writing. Its unfinished writes look like a torn tail.

use std::io;

use super::cursor::{self, CLOSED_NAME, START_NAME, read_mark};
use super::damage::{self, Damage};
use super::recovery::{OWN_NAMES, SegmentView, look_at, scan};
use super::segment::{BadHeader, Records, base_of};
use super::storage::{Lock, Storage, read_small};
use super::{Cursor, Mark, OpenError};

/// The contents of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Segments, oldest first.
    pub segments: Vec<SegmentView>,
    /// The end of the last intact record.
    pub end: Mark,
    /// Cursors by consumer; `None` if the file is damaged.
    pub cursors: Vec<(String, Option<Cursor>)>,
    /// Damage that no operator has settled.
    pub damages: Vec<Damage>,
}

/// The result of reading the entire log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Segments, oldest first.
    pub segments: Vec<SegmentCheck>,
    /// Bytes after the last intact record: a torn tail, or a write in progress.
    pub torn_bytes: u64,
}

impl Verification {
    /// Returns whether every record that was ever durable is readable, apart from settled damage.
    pub fn is_whole(&self) -> bool {
        let is_whole = |SegmentCheck { segment, damages, .. }: &SegmentCheck| {
            !matches!(segment.bad, Some(BadHeader::Version(_))) && damages.is_empty()
        };
        self.segments.iter().all(is_whole)
    }
}

/// The result of reading one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentCheck {
    /// The segment.
    pub segment: SegmentView,
    /// Number of intact records.
    pub records: u64,
    /// End of the last intact record.
    pub end: Mark,
    /// Unreadable ranges that no operator has settled.
    pub damages: Vec<Damage>,
    /// Unreadable ranges that are settled.
    pub settled: Vec<Damage>,
}

/// Returns whether a file of this name belongs to a log.
pub fn is_of_log(name: &str) -> bool {
    base_of(name).is_some() || OWN_NAMES.contains(&name)
}

/// Checks names, headers, lengths, cursors and notes, and reads the last segment to find the end.
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
            cursors.push((consumer, Cursor::from_bytes(&read_small(storage, name)?)));
        }
    }
    cursors.sort_by(|(one, _), (other, _)| one.cmp(other));
    let damages = damage::read_notes(storage, &names).open;
    Ok(Inspection { segments, end, cursors, damages })
}

/// Reads everything and checks every checksum.
pub fn verify(storage: &dyn Storage) -> io::Result<Verification> {
    // This must come before listing the segments: a running daemon may meanwhile begin one and save a cursor in it.
    let reached = reached(storage)?;
    let names = storage.list()?;
    let mut segments = look_at_segments(storage, &names)?.into_iter().peekable();
    let first = segments.peek().map_or(reached, |first| first.base);
    let kept_from = read_mark(storage, START_NAME).unwrap_or(first);
    let mut checks = Vec::new();
    if kept_from.position < first.position {
        checks.push(missing(kept_from, first));
    }
    let mut torn_bytes = 0;
    while let Some(segment) = segments.next() {
        let (check, torn) = check(storage, segment, segments.peek_mut(), reached)?;
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

/// Returns the furthest position known to be durable: from the last close, or from a saved cursor.
fn reached(storage: &dyn Storage) -> io::Result<Mark> {
    let names = storage.list()?;
    let cursors = names.iter().filter(|name| cursor::consumer_of(name).is_some());
    // Unreadable cursors are ignored.
    let saved = cursors.filter_map(|name| Cursor::from_bytes(&storage.read(name).ok()?));
    let marks = saved.map(|cursor| cursor.mark).chain(read_mark(storage, CLOSED_NAME));
    Ok(marks.max_by_key(|mark| mark.position).unwrap_or_default())
}

/// Describes the missing range before the first existing segment.
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

/// Reads one segment; also returns the number of bytes after the last intact record of the log.
fn check(
    storage: &dyn Storage,
    segment: SegmentView,
    mut next: Option<&mut SegmentView>,
    reached: Mark,
) -> io::Result<(SegmentCheck, u64)> {
    let base = segment.base;
    let mut records = Records::open(storage, base.position)?;
    let file_end = records.file_end()?;
    let limit = next.as_ref().map_or(file_end, |next| next.base.position.min(file_end));
    let found = scan(&mut records, base, limit)?;
    if let Some(next) = next.as_mut().filter(|next| !next.tells_items()) {
        next.base.items = found.end.items;
    }
    let next = next.map(|next| next.base);
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
        segment,
        records: found.records,
        end: found.end,
        damages,
        settled: Vec::new(),
    };
    Ok((check, torn_bytes))
}

/// Settles all damage, including damage that no reader has met yet, so that health stops reporting it. Copies stay under `damaged/`.
/// Refuses while a daemon runs.
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
