//! Retention: which segments may be removed, and whether there is space.
//!
//! A closed segment is *passed* when the saved cursors of all live consumers are after its end. Passed segments are kept for replay until
//! they are as old as `retain`; if space is needed, they are removed earlier, oldest first. Other segments stay, unless the log drops its
//! oldest. The active segment is never removed.

use super::cursor::{START_NAME, write_mark};
use super::direct::{PADDING_BYTES_MAX, ZERO_COPY_BYTES_MIN};
use super::log::{Log, Segment, State};
use super::options::{Limits, WhenFull};
use super::record::FRAME_BYTES;
use super::segment::{HEADER_BYTES, name_of};
use super::{AppendError, Mark};
use crate::support::lock::lock;

/// Bytes reserved for a record. They are freed if this is dropped before the record is written.
#[derive(Debug)]
pub(super) struct Admission {
    log: std::sync::Arc<Log>,
    /// Maximum size of the record in the log.
    pub(super) bytes: u64,
}

impl Admission {
    /// Returns the bytes; the caller must free them.
    pub(super) fn take(mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.bytes != 0 {
            let mut state = self.log.state();
            state.admitted = state.admitted.saturating_sub(self.bytes);
            drop(state);
            self.log.room.send_replace(());
        }
    }
}

impl Log {
    /// Reserves space for a record of this size, or returns why there is none.
    pub(super) fn admit(
        self: &std::sync::Arc<Self>,
        payload_bytes: u64,
    ) -> Result<Admission, AppendError> {
        let bytes = payload_bytes.saturating_add(FRAME_BYTES as u64);
        if self.limits.record_bytes_max < bytes {
            return Err(AppendError::TooLarge {
                bytes: payload_bytes,
                max: self.limits.record_bytes_max.saturating_sub(FRAME_BYTES as u64),
            });
        }
        let padding =
            if payload_bytes < ZERO_COPY_BYTES_MIN as u64 { 0 } else { PADDING_BYTES_MAX };
        let bytes = bytes + padding;
        let mut state = self.state();
        if let Some(reason) = &state.poison {
            return Err(AppendError::Poisoned(reason.clone()));
        }
        if !state.has_room(bytes, &self.limits) {
            state.refused = Some(bytes);
            return Err(AppendError::Full { used: state.bytes, max: self.limits.budget() });
        }
        state.admitted += bytes;
        drop(state);
        Ok(Admission { log: std::sync::Arc::clone(self), bytes })
    }

    /// Removes the segments that must go before the admitted records are written.
    pub(super) fn make_room(&self) {
        let limits = &self.limits;
        let (from, until) = {
            let state = self.state();
            let until = state.goes_until(state.missing_room(0, limits), limits);
            (state.segments.front().map(|oldest| oldest.base).unwrap_or_default(), until)
        };
        let Some(until) = until else { return };
        // No lock is held here, because the listener may read the log and save a cursor.
        let listener = lock(&self.on_eviction).clone();
        if let Some(tell) = &listener {
            tell(from, until);
        }
        self.remove_while(|state, oldest, end| {
            let goes = end.position <= until.position;
            if goes && listener.is_none() {
                self.say_unread(state, oldest, end);
            }
            goes
        });
    }

    /// Logs the number of removed items that a consumer still needed.
    fn say_unread(&self, state: &State, oldest: Segment, end: Mark) {
        let needed = state.needed_from().unwrap_or(end).items.max(oldest.base.items);
        let unread = end.items.saturating_sub(needed);
        if unread != 0 {
            let place = self.storage.place();
            tracing::error!(
                journal = place,
                unread,
                "the log is full: its oldest items are removed unread"
            );
        }
    }

    /// Removes segments that no consumer needs and that are as old as `retain`.
    pub(super) fn remove_old(&self) {
        let now = (self.now)();
        let retain_ns = self.limits.retain_ns;
        self.remove_while(|state, _, end| {
            let newest_ns = state.segments.get(1).map_or(u64::MAX, |next| next.created_ns);
            state.is_passed(end) && retain_ns <= now.saturating_sub(newest_ns)
        });
    }

    /// Removes the oldest closed segment as long as `goes` returns true.
    fn remove_while(&self, mut goes: impl FnMut(&mut State, Segment, Mark) -> bool) {
        let _removing = lock(&self.removing);
        loop {
            let mut state = self.state();
            let (Some(oldest), Some(next)) =
                (state.segments.front().copied(), state.segments.get(1))
            else {
                return;
            };
            let end = next.base;
            if !goes(&mut state, oldest, end) {
                return;
            }
            state.segments.pop_front();
            state.bytes = state.bytes.saturating_sub(oldest.bytes);
            drop(state);
            // Segments are removed one by one and in order: a crash must not leave a gap between them. The new start is noted first, so
            // that a removed segment is not taken for lost. If the disk is too full for the note, it has space again after the removal.
            let storage = &*self.storage;
            let note = || write_mark(storage, START_NAME, end);
            let noted = note();
            let name = name_of(oldest.base.position);
            let removed = storage.remove(&name).and_then(|()| storage.sync_dir());
            if let Err(error) = removed.and_then(|()| noted.or_else(|_| note())) {
                // The next start finds the file and removes it.
                tracing::warn!(segment = name, %error, "a segment that is no longer needed could not be removed");
            }
            self.room.send_replace(());
        }
    }
}

impl State {
    /// Returns how many bytes must be freed before `bytes` more can be written, in addition to all admitted bytes.
    fn missing_room(&self, bytes: u64, limits: &Limits) -> u64 {
        // A group may open a new segment.
        let wanted = self.bytes + self.admitted + bytes + HEADER_BYTES as u64;
        wanted.saturating_sub(limits.bytes_max)
    }

    /// Returns whether `bytes` more can be written, if necessary after removing segments.
    pub(super) fn has_room(&self, bytes: u64, limits: &Limits) -> bool {
        let missing = self.missing_room(bytes, limits);
        missing == 0 || missing <= self.that_may_go(limits).map(|(segment, _)| segment.bytes).sum()
    }

    /// Returns where the log begins after `bytes` bytes, or as many as possible, are removed; `None` if none are.
    fn goes_until(&self, bytes: u64, limits: &Limits) -> Option<Mark> {
        let (mut gone, mut until) = (0, None);
        for (segment, end) in self.that_may_go(limits) {
            if bytes <= gone {
                break;
            }
            gone += segment.bytes;
            until = Some(end);
        }
        until
    }

    /// Returns the segments that may be removed, oldest first, each with its end.
    fn that_may_go(&self, limits: &Limits) -> impl Iterator<Item = (&Segment, Mark)> {
        let ends = self.segments.iter().skip(1).map(|next| next.base);
        let drops = limits.when_full == WhenFull::DropOldest;
        self.segments.iter().zip(ends).take_while(move |(_, end)| drops || self.is_passed(*end))
    }

    fn is_passed(&self, end: Mark) -> bool {
        self.needed_from().is_none_or(|needed| end.position <= needed.position)
    }
}
