//! Who consumes, beside the cursors: a cursor file that is lost or damaged must not make its consumer look new, since a new one begins
//! at the end of the log.
//!
//! ```text
//! consumers.list
//!      0      8  magic            "sfrstr\r\n"
//!      8      4  checksum         CRC-32 of the rest
//!     12      -  names, each with a line break
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::{Buf as _, BufMut as _};

use super::recovery::RecoveryScan;
use super::segment::{Records, name_of};
use super::storage::{ASIDE, Storage};
use super::{ClampedCursor, Cursor, Mark, cursor};

pub(super) const NAME: &str = "consumers.list";
const MAGIC: [u8; 8] = *b"sfrstr\r\n";

/// The names of all who have a cursor; `None` where the file is missing or damaged.
pub(super) fn read(
    storage: &dyn Storage,
    files: &[String],
) -> io::Result<Option<BTreeSet<String>>> {
    if !files.iter().any(|file| file == NAME) {
        return Ok(None);
    }
    let bytes = storage.read(NAME)?;
    let names = bytes.strip_prefix(&MAGIC).and_then(|mut rest| {
        let is_whole = rest.try_get_u32_le().ok()? == crc32fast::hash(rest);
        is_whole.then(|| std::str::from_utf8(rest).ok()).flatten()
    });
    Ok(names.map(|names| names.lines().map(str::to_owned).collect()))
}

/// Replaces the file.
pub(super) fn write<'a>(
    storage: &dyn Storage,
    names: impl IntoIterator<Item = &'a String>,
) -> io::Result<()> {
    let lines: String = names.into_iter().flat_map(|name| [name, "\n"]).collect();
    let mut bytes = MAGIC.to_vec();
    bytes.put_u32_le(crc32fast::hash(lines.as_bytes()));
    bytes.extend_from_slice(lines.as_bytes());
    storage.replace(NAME, &bytes)
}

/// What consumers had saved.
pub(super) type Cursors = BTreeMap<String, Option<Cursor>>;

impl RecoveryScan<'_> {
    /// The cursors of all who consume; `None` for one that is known to, and has none that can be read.
    pub(super) fn read_cursors(&mut self, names: &[String]) -> io::Result<Cursors> {
        let known = read(self.storage, names)?;
        let mut consumers = known.clone().unwrap_or_default();
        consumers.extend(names.iter().filter_map(|name| cursor::consumer_of(name)));
        let mut saved = BTreeMap::new();
        for consumer in consumers {
            let cursor = self.read_cursor(&consumer, names)?;
            let mark = cursor.as_ref().map(|cursor| cursor.mark).unwrap_or_default();
            if mark.position > self.stable_to.position {
                self.stable_to = mark;
            }
            saved.insert(consumer, cursor);
        }
        let is_listed = known.as_ref().is_some_and(|known| known.iter().eq(saved.keys()));
        if !is_listed && !saved.is_empty() {
            write(self.storage, saved.keys())?;
        }
        self.recovery.consumers_unknown = known.is_none();
        Ok(saved)
    }

    /// A consumer's cursor; one that cannot be read is set aside.
    fn read_cursor(&self, consumer: &str, names: &[String]) -> io::Result<Option<Cursor>> {
        let Some(name) = cursor::file_name(consumer).filter(|name| names.contains(name)) else {
            return Ok(None);
        };
        let saved = cursor::decode(&self.storage.read(&name)?);
        if saved.is_none() {
            self.storage.keep_also_as(&name, &format!("{ASIDE}{name}-{}", self.now_ns))?;
            self.storage.remove(&name)?;
        }
        Ok(saved)
    }

    /// Puts each cursor at a record that is there. A consumer without one begins at the oldest record: it may get again what it had,
    /// and misses nothing.
    pub(super) fn place_all(
        &mut self,
        saved: Cursors,
        end: Mark,
    ) -> io::Result<BTreeMap<String, Cursor>> {
        self.recovery.consumers_unknown &= end.items != 0;
        let oldest = self.segments.first().map_or(end, |oldest| oldest.base);
        let mut cursors = BTreeMap::new();
        for (consumer, saved) in saved {
            let cursor = if let Some(saved) = saved {
                self.place(&consumer, saved, oldest, end)?
            } else {
                self.recovery.cursors_lost.push(consumer.clone());
                Cursor { mark: oldest, joined: oldest.items, ..Cursor::default() }
            };
            cursors.insert(consumer, cursor);
        }
        Ok(cursors)
    }

    /// A cursor at a record that is there. What it passes on the way to the oldest record is gone, and counts as dropped.
    fn place(
        &mut self,
        consumer: &str,
        saved: Cursor,
        oldest: Mark,
        end: Mark,
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

    /// The boundary between records that a cursor means: its own, or the last one before it.
    fn clamp(&self, mark: Mark, end: Mark) -> io::Result<Mark> {
        if end.position <= mark.position {
            return Ok(end);
        }
        let next = self.segments.partition_point(|segment| segment.base.position <= mark.position);
        let Some(segment) = next.checked_sub(1).and_then(|index| self.segments.get(index)) else {
            return Ok(mark);
        };
        let base = segment.base;
        let mut records =
            Records::new(self.storage.open_to_read(&name_of(base.position))?, base.position);
        if mark.position == base.position || records.starts_at(mark.position)? {
            return Ok(mark);
        }
        let limit = self.segments.get(next).map_or(end, |next| next.base).position;
        records.boundary_before(base, mark.position, limit)
    }
}
