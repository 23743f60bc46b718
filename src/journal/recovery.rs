//! Recovery when the log is opened: lock it, examine its files, truncate the torn tail, report damage, and continue.
//!
//! Damaged data never prevents a start. Only the headers and lengths of closed segments are checked, so opening takes no longer for a large
//! log. Readers meet damage in them later and report it the same way. The last segment is read completely.
//!
//! An unreadable range in the last segment is either a *torn tail* or *damage*. Each frame tells where its group starts, and everything
//! before a group is synced before the group is written. A hole before the start of the newest group, or before the end noted at the last
//! close, was therefore durable once: it is damage. It is preserved, and what follows it is kept. A hole after both was being written when
//! the machine stopped and was never acknowledged: it is truncated with the rest of its group.
//!
//! After damage in the last segment, a new one is started, so that a damaged file is never written again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tracing::{error, warn};

use super::consumers::{Saved, read_saved};
use super::cursor::{CLOSED_NAME, CONSUMERS_NAME, START_NAME, read_mark, write_mark};
use super::damage::{self, Damage};
use super::log::{Log, Now, Segment, State};
use super::options::Limits;
use super::segment::{
    BadHeader, HEADER_BYTES, Header, Records, base_of, name_of, offset_in, read_around_bad_sectors,
};
use super::storage::{ASIDE, Guard, Lock, Storage, StorageFile};
use super::writer::Active;
use super::{ClampedCursor, Cursor, Mark, OpenError, Position, Recovery};
use crate::support::pool::Pool;

/// Files of the log other than segments and cursors.
pub(super) const OWN_NAMES: [&str; 3] = [CLOSED_NAME, START_NAME, CONSUMERS_NAME];
/// Suffix of a segment's file while it is renamed after its header.
const MOVED_SUFFIX: &str = ".moved";

/// A log that is ready for its writer thread, which keeps the guard.
type Opened = (Arc<Log>, Active, Box<dyn Guard>, Recovery);

/// Opens the log, or creates it.
pub(super) fn open(
    limits: Limits,
    storage: Arc<dyn Storage>,
    now: Now,
) -> Result<Opened, OpenError> {
    let place = storage.place();
    let failed = |source| OpenError::Storage { path: place.clone(), source };
    let guard = match storage.lock().map_err(failed)? {
        Lock::Held(guard) => guard,
        Lock::Elsewhere(pid) => return Err(OpenError::Locked { dir: place, pid }),
    };
    let names = restore_names(&*storage).map_err(failed)?;
    let mut scan = RecoveryScan::new(&*storage, now());
    scan.remove_leftovers(&names).map_err(failed)?;
    let (saved, are_unknown) = read_saved(&*storage, &names, scan.now_ns).map_err(failed)?;
    let marks = saved.values().flatten().map(|cursor| cursor.mark);
    scan.stable_to =
        marks.chain([scan.stable_to]).max_by_key(|mark| mark.position).unwrap_or_default();
    scan.look_at_segments(&names)?;
    scan.count_before_lost().map_err(failed)?;
    let (active, end) = scan.open_active().map_err(failed)?;
    scan.check_start().map_err(failed)?;
    let cursors = scan.place_all(saved, end).map_err(failed)?;
    let RecoveryScan { segments, mut recovery, .. } = scan;
    recovery.segments = segments.len();
    recovery.consumers_unknown = are_unknown && end.items != 0;
    let state = State {
        bytes: segments.iter().map(|segment| segment.bytes).sum(),
        segments: segments.into(),
        live: (!cursors.is_empty()).then(|| cursors.keys().cloned().collect()),
        cursors,
        damage: damage::read_notes(&*storage, &names),
        ..State::default()
    };
    let log = Arc::new(Log::new(storage, limits, now, end, state));
    recovery.damages.drain(..).for_each(|damage| log.note_damage(damage));
    recovery.damages.clone_from(&log.state().damage.open);
    recovery.tell(&place);
    Ok((log, active, guard, recovery))
}

/// What a segment's file shows without being read completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentView {
    /// Start of the segment. If its header is unreadable, its name gives the position and its first record the items before it.
    pub base: Mark,
    /// Creation time, in nanoseconds since 1970; 0 if the header is unreadable.
    pub created_ns: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// The problem with its header.
    pub bad: Option<BadHeader>,
    /// The first intact record; determined only if the header is bad.
    pub(super) first: Option<Mark>,
}

impl SegmentView {
    /// Returns the name of its file.
    pub fn name(&self) -> String {
        name_of(self.base.position)
    }

    /// Returns whether its header or its first record tells how many items are before it.
    pub(super) fn tells_items(&self) -> bool {
        self.bad.is_none() || self.first.is_some_and(|first| first.position == self.base.position)
    }
}

/// Examines a segment's header and length.
pub(super) fn look_at(storage: &dyn Storage, base: Position) -> io::Result<SegmentView> {
    let file = storage.open_to_read(&name_of(base))?;
    let file_bytes = file.length()?;
    let bad = match read_header(&*file)? {
        Ok(Header { base: found, created_ns }) if found.position == base => {
            return Ok(SegmentView { base: found, created_ns, file_bytes, bad: None, first: None });
        }
        Ok(_) => BadHeader::Damaged,
        Err(bad) => bad,
    };
    let mut records = Records::new(file, base, Pool::default());
    let limit = records.file_end()?;
    let first = records.find_from(base, limit)?.map(|first| first.start);
    let items = first.map(|first| first.items).unwrap_or_default();
    let base = Mark { position: base, items };
    Ok(SegmentView { base, created_ns: 0, file_bytes, bad: Some(bad), first })
}

fn read_header(file: &dyn StorageFile) -> io::Result<Result<Header, BadHeader>> {
    let mut bytes = [0; HEADER_BYTES];
    read_around_bad_sectors(file, 0, &mut bytes)?;
    Ok(Header::decode(&bytes))
}

/// Renames segments after their headers, because files that were copied back may have been mixed up. A name that belongs to another intact
/// segment is left alone. Returns all names.
fn restore_names(storage: &dyn Storage) -> io::Result<Vec<String>> {
    let names = storage.list()?;
    let mut misnamed = BTreeMap::new();
    for name in &names {
        let Some(base) = base_of(name) else { continue };
        if let Ok(header) = read_header(&*storage.open_to_read(name)?)?
            && header.base.position != base
        {
            misnamed.insert(name, name_of(header.base.position));
        }
    }
    for (&name, right) in &misnamed {
        if !names.contains(right) || misnamed.contains_key(right) {
            warn!(
                journal = storage.place(),
                segment = name,
                renamed_to = right,
                "a segment's header and name differ in position; the segment is renamed after its header"
            );
            storage.keep_also_as(name, &format!("{right}{MOVED_SUFFIX}"))?;
            storage.remove(name)?;
        }
    }
    let names = storage.list()?;
    let moved: Vec<_> = names.iter().filter_map(|name| name.strip_suffix(MOVED_SUFFIX)).collect();
    if moved.is_empty() {
        return Ok(names);
    }
    for right in moved {
        let from = format!("{right}{MOVED_SUFFIX}");
        storage.keep_also_as(&from, right)?;
        storage.remove(&from)?;
    }
    storage.sync_dir()?;
    storage.list()
}

/// The contents of one segment, read completely.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// End of the last intact record.
    pub(super) end: Mark,
    /// Number of intact records.
    pub(super) records: u64,
    /// Unreadable ranges between intact records.
    pub(super) holes: Vec<(Mark, Mark)>,
    /// Everything before this was synced when the last record was written.
    pub(super) synced: Position,
}

/// Reads all records from `base`.
pub(super) fn scan(records: &mut Records, base: Mark, limit: Position) -> io::Result<Scan> {
    let mut scan = Scan { end: base, synced: base.position, ..Scan::default() };
    while scan.end.position < limit {
        let Some(next) = records.find_from(scan.end.position, limit)? else { break };
        if next.start.position != scan.end.position {
            scan.holes.push((scan.end, next.start));
        }
        scan.records += 1;
        scan.synced = scan.synced.max(next.group_start);
        scan.end = next.end;
    }
    Ok(scan)
}

/// State of the recovery.
struct RecoveryScan<'a> {
    storage: &'a dyn Storage,
    now_ns: u64,
    segments: Vec<Segment>,
    /// Where the log begins after retention, if known.
    kept_from: Option<Mark>,
    /// Everything before this was durable once: the log ended here when it was last closed, or a consumer had read this far.
    stable_to: Mark,
    /// The state of the last segment's header.
    last_header: LastHeader,
    recovery: Recovery,
}

/// What the header of the last segment permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastHeader {
    /// Reading and appending.
    Good,
    /// Reading only.
    Damaged,
    /// Nothing: no record is readable either, in this many bytes.
    NothingLeft(u64),
}

impl<'a> RecoveryScan<'a> {
    fn new(storage: &'a dyn Storage, now_ns: u64) -> Self {
        Self {
            storage,
            now_ns,
            segments: Vec::new(),
            kept_from: read_mark(storage, START_NAME),
            stable_to: read_mark(storage, CLOSED_NAME).unwrap_or_default(),
            last_header: LastHeader::Good,
            recovery: Recovery::default(),
        }
    }

    /// Removes temporary files that a crash left.
    fn remove_leftovers(&self, names: &[String]) -> io::Result<()> {
        let is_leftover = |name: &&String| {
            name.strip_suffix(".tmp").is_some_and(|name| {
                name.ends_with(".cursor") || OWN_NAMES.contains(&name) || name.starts_with(ASIDE)
            })
        };
        names.iter().filter(is_leftover).try_for_each(|name| self.storage.remove(name))
    }

    // --- segments ---

    /// Examines headers and lengths, from the newest segment to the oldest.
    fn look_at_segments(&mut self, names: &[String]) -> Result<(), OpenError> {
        let mut bases: Vec<_> = names.iter().filter_map(|name| base_of(name)).collect();
        bases.sort_unstable();
        let mut next: Option<Segment> = None;
        for base in bases.into_iter().rev() {
            if let Some(segment) = self.look_at_segment(base, next)? {
                self.segments.push(segment);
                next = Some(segment);
            }
        }
        self.segments.reverse();
        Ok(())
    }

    /// Counts the items before each segment that has neither its header nor its first record: those up to the end of the one before.
    /// Damage that ends there already includes what is lost.
    fn count_before_lost(&mut self) -> io::Result<()> {
        let ends: Vec<_> = self.recovery.damages.iter().map(|damage| damage.to.position).collect();
        for damage in &mut self.recovery.damages {
            let at = damage.segment;
            let is_unknown = damage.from.position == at && damage.items() == 0;
            let index = self.segments.partition_point(|segment| segment.base.position < at);
            if is_unknown
                && damage.bytes() > 0
                && !ends.contains(&at)
                && let Some([.., previous, segment]) = self.segments.get_mut(..=index)
            {
                let mut records = Records::open(self.storage, previous.base.position)?;
                damage.from.items = scan(&mut records, previous.base, at)?.end.items;
                segment.base = damage.from;
            }
        }
        Ok(())
    }

    fn look_at_segment(
        &mut self,
        base: Position,
        next: Option<Segment>,
    ) -> Result<Option<Segment>, OpenError> {
        let name = name_of(base);
        let failed = |source| OpenError::Storage { path: name.clone(), source };
        let look = look_at(self.storage, base).map_err(failed)?;
        if let Some(BadHeader::Version(version)) = look.bad {
            let known = super::segment::VERSION;
            return Err(OpenError::Version { segment: name, version, known });
        }
        let (start, created_ns) = if look.bad.is_none() {
            (look.base, look.created_ns)
        } else if let Some(start) = self.without_header(&look, next).map_err(failed)? {
            (start, self.now_ns)
        } else {
            return Ok(None);
        };
        // A file is longer than its records if a crash prevented truncating its reserved space.
        let bytes = next.map_or(look.file_bytes, |next| offset_in(base, next.base.position));
        let kept_from = self.kept_from.unwrap_or_default().position;
        if let Some(next) = next
            && look.file_bytes < bytes
            && next.base.position > kept_from
        {
            let mut records = Records::open(self.storage, base).map_err(failed)?;
            let file_end = records.file_end().map_err(failed)?;
            let from = records.boundary_before(start, file_end, file_end).map_err(failed)?;
            self.recovery.damages.push(Damage { segment: base, from, to: next.base });
        }
        Ok(Some(Segment { base: start, created_ns, bytes }))
    }

    /// Determines the start of a segment with a damaged header from its name and records. Returns `None` if it never had a record, which
    /// happens when a crash interrupts its creation.
    fn without_header(
        &mut self,
        look: &SegmentView,
        next: Option<Segment>,
    ) -> io::Result<Option<Mark>> {
        let base = look.base.position;
        if next.is_none() {
            self.last_header = LastHeader::Damaged;
        }
        let Some(first) = look.first.or(next.map(|next| next.base)) else {
            // Records are written after the header is durable, so bytes after it mean that there were some.
            let mut records = Records::open(self.storage, base)?;
            let limit = records.file_end()?;
            let bytes = records.bytes_beyond(base, limit)?;
            if bytes == 0 && self.stable_to.position <= base {
                self.last_header = LastHeader::Good;
                self.storage.remove(&name_of(base))?;
                self.storage.sync_dir()?;
                return Ok(None);
            }
            self.last_header = LastHeader::NothingLeft(bytes);
            return Ok(Some(look.base));
        };
        let start = Mark { position: base, items: first.items };
        self.recovery.damages.push(Damage { segment: base, from: start, to: first });
        Ok(Some(start))
    }

    /// Checks whether segments before the first one are lost or were removed by retention, which notes the new start of the log before it
    /// removes a segment.
    fn check_start(&mut self) -> io::Result<()> {
        let Some(first) = self.segments.first().map(|first| first.base) else { return Ok(()) };
        match self.kept_from {
            Some(from) if from.position < first.position => {
                self.recovery.damages.push(Damage { segment: from.position, from, to: first });
                Ok(())
            }
            Some(_) => Ok(()),
            None => write_mark(self.storage, START_NAME, first),
        }
    }

    /// Reads the last segment, truncates its torn tail and prepares it for appends, or creates a new one if it must not be written to.
    fn open_active(&mut self) -> io::Result<(Active, Mark)> {
        let stable_to = self.stable_to;
        let Some(last) = self.segments.pop() else {
            return self.begin_segment(stable_to);
        };
        if let LastHeader::NothingLeft(bytes) = self.last_header {
            return self.begin_behind_lost(last, bytes);
        }
        let base = last.base.position;
        let mut records = Records::open(self.storage, base)?;
        let limit = records.file_end()?;
        let mut scan = scan(&mut records, last.base, limit)?;
        let synced = scan.synced.max(stable_to.position);
        let torn = scan.holes.iter().position(|(from, _)| synced <= from.position);
        if let Some(torn) = torn {
            scan.end = scan.holes.drain(torn..).next().map_or(scan.end, |(from, _)| from);
        }
        for &(from, to) in &scan.holes {
            self.recovery.damages.push(Damage { segment: base, from, to });
        }
        self.recovery.records_checked = scan.records;
        self.recovery.cut_bytes += records.bytes_beyond(scan.end.position, limit)?;
        let is_damaged = self.last_header != LastHeader::Good || !scan.holes.is_empty();
        let mut end = scan.end;
        if end.position < stable_to.position {
            // The former durable end is gone. Its positions are not reused.
            self.recovery.damages.push(Damage { segment: base, from: end, to: stable_to });
            end = stable_to;
        }
        let bytes = offset_in(base, scan.end.position);
        self.segments.push(Segment { bytes, ..last });
        let mut file = self.storage.open(&name_of(base))?;
        if end != scan.end {
            // The bytes after the last record may still be useful to an operator.
            return self.begin_segment(end);
        }
        if file.length()? != bytes {
            file.truncate(bytes)?;
            file.sync()?;
        }
        if is_damaged && end.position != base {
            return self.begin_segment(end);
        }
        let header = Header { base: last.base, created_ns: last.created_ns };
        Ok((Active { file, header, reserved_to: bytes }, end))
    }

    /// Handles a last segment of which nothing is readable. Its positions are not reused.
    fn begin_behind_lost(&mut self, last: Segment, bytes: u64) -> io::Result<(Active, Mark)> {
        let position = last.base.position;
        let mut from = Mark { position, items: 0 };
        if let Some(previous) = self.segments.last() {
            let base = previous.base;
            let mut records = Records::open(self.storage, base.position)?;
            from.items = scan(&mut records, base, position)?.end.items;
        }
        let behind = Mark { position: Position(position.0.saturating_add(bytes)), ..from };
        let to = if position < self.stable_to.position { self.stable_to } else { behind };
        self.recovery.damages.push(Damage { segment: position, from, to });
        self.segments.push(Segment { base: from, bytes: offset_in(position, to.position), ..last });
        self.begin_segment(to)
    }

    fn begin_segment(&mut self, base: Mark) -> io::Result<(Active, Mark)> {
        let header = Header { base, created_ns: self.now_ns };
        let active = Active::create(self.storage, header)?;
        self.segments.push(Segment { base, created_ns: self.now_ns, bytes: HEADER_BYTES as u64 });
        Ok((active, base))
    }

    // --- cursors ---

    /// Sets each cursor to an existing record boundary before the log's end. A consumer without one starts at the oldest record: it may get
    /// records again, but misses none.
    fn place_all(&mut self, saved: Saved, end: Mark) -> io::Result<BTreeMap<String, Cursor>> {
        let oldest = self.segments.first().map_or(end, |oldest| oldest.base);
        let mut cursors = BTreeMap::new();
        for (consumer, saved) in saved {
            let cursor = if let Some(saved) = saved {
                self.place(&consumer, saved, (oldest, end))?
            } else {
                self.recovery.cursors_lost.push(consumer.clone());
                Cursor { mark: oldest, joined: oldest.items, ..Cursor::default() }
            };
            cursors.insert(consumer, cursor);
        }
        Ok(cursors)
    }

    /// Sets a cursor to an existing record boundary. Records between it and the oldest record are gone and count as dropped.
    fn place(
        &mut self,
        consumer: &str,
        saved: Cursor,
        (oldest, end): (Mark, Mark),
    ) -> io::Result<Cursor> {
        let from = saved.mark;
        let (to, gone) = if from.position < oldest.position {
            (oldest, oldest.items.saturating_sub(from.items))
        } else {
            (self.clamp(from, end)?, 0)
        };
        if from != to {
            let consumer = consumer.to_owned();
            let let_go = self.kept_from.is_some_and(|kept| oldest.position <= kept.position);
            self.recovery.cursors_clamped.push(ClampedCursor { consumer, from, to, let_go });
        }
        Ok(Cursor { mark: to, dropped: saved.dropped + gone, ..saved })
    }

    /// Returns the record boundary for a cursor: its own position, or the last boundary before it.
    fn clamp(&self, mark: Mark, end: Mark) -> io::Result<Mark> {
        if end.position <= mark.position {
            return Ok(end);
        }
        let next = self.segments.partition_point(|segment| segment.base.position <= mark.position);
        let Some(segment) = next.checked_sub(1).and_then(|index| self.segments.get(index)) else {
            return Ok(mark);
        };
        let base = segment.base;
        let mut records = Records::open(self.storage, base.position)?;
        if mark.position == base.position || records.starts_at(mark.position)? {
            return Ok(mark);
        }
        let limit = self.segments.get(next).map_or(end, |next| next.base).position;
        records.boundary_before(base, mark.position, limit)
    }
}

impl Recovery {
    fn tell(&self, place: &str) {
        if self.cut_bytes != 0 {
            warn!(
                journal = place,
                bytes = self.cut_bytes,
                "the journal had a torn tail, which was cut off; none of it was acknowledged"
            );
        }
        for consumer in &self.cursors_lost {
            error!(
                journal = place,
                consumer,
                "the cursor of this sink is damaged or gone; it gets again all that the journal keeps, so nothing is lost and some of it \
                 may arrive twice"
            );
        }
        for ClampedCursor { consumer, from, to, let_go } in &self.cursors_clamped {
            let (from_position, to_position) = (from.position.0, to.position.0);
            let lost = to.items.saturating_sub(from.items);
            if !*let_go && from.position < to.position && lost != 0 {
                let what = "records that this sink had not delivered are gone from the journal; they count as dropped";
                error!(journal = place, consumer, lost, from_position, to_position, "{what}");
                continue;
            }
            let what = if *let_go {
                "records that this sink had not read were removed to keep the journal within its limits; they count as dropped"
            } else {
                "a cursor did not point to a record and was moved back"
            };
            warn!(journal = place, consumer, lost, from_position, to_position, "{what}");
        }
    }
}
