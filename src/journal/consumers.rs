//! Who consumes, and how far each has come.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::log::Segment;
use super::segment::Records;
use super::storage::{ASIDE, Storage};
use super::{ClampedCursor, Consumer, Cursor, Journal, Mark, Position, Recovery, cursor};
use crate::support::lock::lock;

impl<P> Journal<P> {
    /// The saved cursor of a consumer.
    pub fn cursor(&self, consumer: &str) -> Option<Cursor> {
        self.shared.log.state().cursors.get(consumer).cloned()
    }

    /// Saves a consumer's cursor: when this returns it is on stable storage, whole, and what lies below all cursors may go. The
    /// consumer is live from now on. It blocks on the disk.
    pub fn save_cursor(&self, consumer: &str, saved: &Cursor) -> io::Result<()> {
        let unusable = "a consumer's name is empty or too long";
        let unusable = || io::Error::new(io::ErrorKind::InvalidInput, unusable);
        let name = cursor::file_name(consumer).ok_or_else(unusable)?;
        let log = &*self.shared.log;
        let _saving = lock(&log.saving);
        log.storage.replace(&name, &saved.to_bytes())?;
        let mut state = log.state();
        let is_new = state.cursors.insert(consumer.to_owned(), saved.clone()).is_none();
        state.live.get_or_insert_default().insert(consumer.to_owned());
        let names: Vec<String> = state.cursors.keys().cloned().collect();
        drop(state);
        if is_new {
            cursor::write_consumers(&*log.storage, &names)?;
        }
        self.remove_old();
        Ok(())
    }

    /// Says who consumes. The others no longer hold anything back, but their cursors stay, in case they are configured again. One
    /// without a cursor holds everything back until it has saved one. Until this is called, everyone with a cursor is live; and until
    /// somebody is, everything is needed.
    pub fn retain_consumers(&self, consumers: &[&str]) {
        let live = consumers.iter().map(|&consumer| consumer.to_owned()).collect();
        self.shared.log.state().live = Some(live);
        self.remove_old();
    }

    /// Everyone who has a cursor or is live, by name.
    pub fn consumers(&self) -> Vec<Consumer> {
        let state = self.shared.log.state();
        let names: BTreeSet<_> = state.cursors.keys().chain(state.live.iter().flatten()).collect();
        let consumer = |name: &String| Consumer {
            name: name.clone(),
            cursor: state.cursors.get(name).cloned(),
            is_live: state.live.as_ref().is_some_and(|live| live.contains(name)),
        };
        names.into_iter().map(consumer).collect()
    }

    /// Whether no other live consumer still needs a record before this position: then room can only come from this consumer.
    pub fn is_oldest(&self, consumer: &str, position: Position) -> bool {
        self.shared.log.state().others_need_from(consumer).is_none_or(|needed| position <= needed)
    }

    /// Removes what nobody needs and is as old as [`super::Options::retain`]. It happens by itself when cursors and segments move; an
    /// idle log needs to be told.
    pub fn remove_old(&self) {
        self.shared.log.remove_old();
        self.shared.log.room.send_replace(());
    }
}

/// What consumers had saved; `None` for one that is known to, and has none that can be read.
pub(super) type Saved = BTreeMap<String, Option<Cursor>>;

/// Reads the cursors of all who consume; also returns whether nobody knows who they are. A cursor that is damaged is set aside.
pub(super) fn read_saved(
    storage: &dyn Storage,
    names: &[String],
    now_ns: u64,
) -> io::Result<(Saved, bool)> {
    let known = cursor::read_consumers(storage, names)?;
    let mut consumers = known.clone().unwrap_or_default();
    consumers.extend(names.iter().filter_map(|name| cursor::consumer_of(name)));
    if known.as_ref() != Some(&consumers) && !consumers.is_empty() {
        cursor::write_consumers(storage, &consumers)?;
    }
    let mut saved = Saved::new();
    for consumer in consumers {
        let file = cursor::file_name(&consumer).filter(|name| names.contains(name));
        let cursor = match &file {
            Some(name) => Cursor::from_bytes(&storage.read(name)?),
            None => None,
        };
        if let (Some(name), None) = (file, &cursor) {
            storage.keep_also_as(&name, &format!("{ASIDE}{name}-{now_ns}"))?;
            storage.remove(&name)?;
        }
        saved.insert(consumer, cursor);
    }
    Ok((saved, known.is_none()))
}

/// What the log holds when cursors are placed in it.
pub(super) struct Kept<'a> {
    pub(super) storage: &'a dyn Storage,
    pub(super) segments: &'a [Segment],
    /// Where retention left the beginning of the log, if that is known.
    pub(super) from: Option<Mark>,
    pub(super) end: Mark,
}

impl Kept<'_> {
    /// Puts each cursor at a record that is there. A consumer without one begins at the oldest record: it may get again what it had,
    /// and misses nothing.
    pub(super) fn place_all(
        &self,
        saved: Saved,
        recovery: &mut Recovery,
    ) -> io::Result<BTreeMap<String, Cursor>> {
        let oldest = self.segments.first().map_or(self.end, |oldest| oldest.base);
        let mut cursors = BTreeMap::new();
        for (consumer, saved) in saved {
            let cursor = if let Some(saved) = saved {
                self.place(&consumer, saved, oldest, recovery)?
            } else {
                recovery.cursors_lost.push(consumer.clone());
                Cursor { mark: oldest, joined: oldest.items, ..Cursor::default() }
            };
            cursors.insert(consumer, cursor);
        }
        Ok(cursors)
    }

    /// A cursor at a record that is there. What it passes on the way to the oldest record is gone, and counts as dropped.
    fn place(
        &self,
        consumer: &str,
        saved: Cursor,
        oldest: Mark,
        recovery: &mut Recovery,
    ) -> io::Result<Cursor> {
        let from = saved.mark;
        let (to, gone) = if from.position < oldest.position {
            (oldest, oldest.items.saturating_sub(from.items))
        } else {
            (self.clamp(from)?, 0)
        };
        if from != to {
            let consumer = consumer.to_owned();
            let let_go = self.from.is_some_and(|kept| oldest.position <= kept.position);
            recovery.cursors_clamped.push(ClampedCursor { consumer, from, to, let_go });
        }
        Ok(Cursor { mark: to, dropped: saved.dropped + gone, ..saved })
    }

    /// The boundary between records that a cursor means: its own, or the last one before it.
    fn clamp(&self, mark: Mark) -> io::Result<Mark> {
        if self.end.position <= mark.position {
            return Ok(self.end);
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
        let limit = self.segments.get(next).map_or(self.end, |next| next.base).position;
        records.boundary_before(base, mark.position, limit)
    }
}
