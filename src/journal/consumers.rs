//! The consumers and their cursors.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::storage::{ASIDE, Storage, read_small};
use super::{Consumer, Cursor, Journal, Position, cursor};
use crate::support::lock::lock;

impl<P> Journal<P> {
    /// Returns the saved cursor of a consumer.
    pub fn cursor(&self, consumer: &str) -> Option<Cursor> {
        self.shared.log.state().cursors.get(consumer).cloned()
    }

    /// Saves a consumer's cursor. When this returns, the cursor is on stable storage, and records below all cursors may be removed. The
    /// consumer is live from now on. Blocks on the disk.
    pub fn save_cursor(&self, consumer: &str, saved: &Cursor) -> io::Result<()> {
        let unusable = "a consumer's name is empty or too long";
        let unusable = || io::Error::new(io::ErrorKind::InvalidInput, unusable);
        let name = cursor::file_name(consumer).ok_or_else(unusable)?;
        let log = &*self.shared.log;
        let _saving = lock(&log.saving);
        log.storage.replace(&name, &saved.to_bytes())?;
        let mut names: BTreeSet<_> = log.state().cursors.keys().cloned().collect();
        if names.insert(consumer.to_owned()) {
            cursor::write_consumers(&*log.storage, &names)?;
        }
        let mut state = log.state();
        state.cursors.insert(consumer.to_owned(), saved.clone());
        state.live.get_or_insert_default().insert(consumer.to_owned());
        drop(state);
        self.remove_old();
        Ok(())
    }

    /// Removes the cursor of a consumer, which is then unknown. Blocks on the disk.
    pub fn forget_consumer(&self, consumer: &str) -> io::Result<()> {
        let log = &*self.shared.log;
        let _saving = lock(&log.saving);
        let file = cursor::file_name(consumer);
        let Some(file) = file.filter(|_| log.state().cursors.remove(consumer).is_some()) else {
            return Ok(());
        };
        // First the list: a cursor that is missing although its consumer is listed was lost.
        let names: BTreeSet<_> = log.state().cursors.keys().cloned().collect();
        cursor::write_consumers(&*log.storage, &names)?;
        log.storage.remove(&file)
    }

    /// Sets the live consumers. All others stop holding segments back, but keep their cursors in case they are configured again. A live
    /// consumer without a cursor holds everything back until it saves one. Before the first call, every consumer with a cursor is live; if
    /// there is none, everything is needed.
    pub fn retain_consumers(&self, consumers: &[&str]) {
        let live = consumers.iter().map(|&consumer| consumer.to_owned()).collect();
        self.shared.log.state().live = Some(live);
        self.remove_old();
    }

    /// Lists all consumers that have a cursor or are live, by name.
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

    /// Returns whether no other live consumer needs a record before this position, so that only this consumer can free space.
    pub fn is_oldest(&self, consumer: &str, position: Position) -> bool {
        let state = self.shared.log.state();
        let mut others = state.live.iter().flatten().filter(|name| *name != consumer);
        others.all(|name| position <= state.mark_of(name).position)
    }

    /// Sets whether a consumer drops its oldest records when there is no room.
    pub fn set_dropping(&self, consumer: &str, drops: bool) {
        let mut state = self.shared.log.state();
        state.dropping.retain(|name| name != consumer);
        state.dropping.extend(drops.then(|| consumer.to_owned()));
    }

    /// Returns a live consumer that needs a record before this position and does not drop it for room.
    pub fn held_by(&self, position: Position) -> Option<String> {
        let state = self.shared.log.state();
        let is_holder = |name: &&String| {
            !state.dropping.contains(*name) && state.mark_of(name).position < position
        };
        state.live.iter().flatten().find(is_holder).cloned()
    }

    /// Removes segments that no consumer needs and that are as old as [`super::Options::retain`]. Moving cursors and new segments trigger
    /// this; an idle log needs an explicit call.
    pub fn remove_old(&self) {
        self.shared.log.remove_old();
        self.shared.log.room.send_replace(());
    }
}

/// Saved cursors by consumer; `None` for a known consumer without a readable cursor.
pub(super) type Saved = BTreeMap<String, Option<Cursor>>;

/// Reads the cursors of all consumers; also returns whether the list of consumers is unknown. Damaged cursors move to `damaged/`.
pub(super) fn read_saved(
    storage: &dyn Storage,
    names: &[String],
    now_ns: u64,
) -> io::Result<(Saved, bool)> {
    let known = cursor::read_consumers(storage)?;
    let mut consumers = known.clone().unwrap_or_default();
    consumers.extend(names.iter().filter_map(|name| cursor::consumer_of(name)));
    if known.as_ref() != Some(&consumers) && !consumers.is_empty() {
        cursor::write_consumers(storage, &consumers)?;
    }
    let mut saved = Saved::new();
    for consumer in consumers {
        let file = cursor::file_name(&consumer).filter(|name| names.contains(name));
        let cursor = match &file {
            Some(name) => Cursor::from_bytes(&read_small(storage, name)?),
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
