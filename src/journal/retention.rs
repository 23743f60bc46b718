//! Which segments may go, and whether there is room.
//!
//! A closed segment is *passed* when every live consumer's saved cursor is behind its end. What is passed is kept for replay until it
//! is as old as `retain`; when room is needed, it goes before that, the oldest first. What is not passed stays, unless the log is one
//! that drops its oldest. The segment that is written to never goes.

use super::cursor::{START_NAME, write_mark};
use super::direct::{PADDING_BYTES_MAX, ZERO_COPY_BYTES_MIN};
use super::log::{Log, Segment, State};
use super::options::{Limits, WhenFull};
use super::record::FRAME_BYTES;
use super::segment::{HEADER_BYTES, name_of};
use super::{AppendError, Mark};
use crate::support::lock::lock;

/// Bytes that were promised to a record. Dropped before the record is written, they are free again.
#[derive(Debug)]
pub(super) struct Admission {
    log: std::sync::Arc<Log>,
    /// How much the record takes at most.
    pub(super) bytes: u64,
}

impl Admission {
    /// The bytes, which whoever takes them gives back with [`Log::settle`].
    pub(super) fn take(mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.bytes != 0 {
            self.log.settle(self.bytes);
        }
    }
}

impl Log {
    /// Promises room for a record of so many bytes, or says why there is none.
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
            return Err(AppendError::Full { used: state.bytes, max: self.limits.budget() });
        }
        state.admitted += bytes;
        drop(state);
        Ok(Admission { log: std::sync::Arc::clone(self), bytes })
    }

    /// Admitted bytes are in a segment now, or will never be.
    pub(super) fn settle(&self, bytes: u64) {
        let mut state = self.state();
        state.admitted = state.admitted.saturating_sub(bytes);
    }

    /// Removes what must go before the admitted records are written.
    pub(super) fn make_room(&self) {
        let limits = &self.limits;
        let (from, until) = {
            let state = self.state();
            let until = state.goes_until(state.missing_room(0, limits), limits);
            (state.segments.front().map(|oldest| oldest.base).unwrap_or_default(), until)
        };
        let Some(until) = until else { return };
        // With no lock held: who is told may read the log and save a cursor.
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

    /// Says how much goes that a consumer still needed.
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

    /// Removes what nobody needs and is as old as `retain`.
    pub(super) fn remove_old(&self) {
        let now = (self.now)();
        let retain_ns = self.limits.retain_ns;
        self.remove_while(|state, _, end| {
            let newest_ns = state.segments.get(1).map_or(u64::MAX, |next| next.created_ns);
            state.is_passed(end) && retain_ns <= now.saturating_sub(newest_ns)
        });
    }

    /// Removes the oldest closed segment while `goes` says so.
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
            // One by one and in order: a crash must not leave a gap between segments. That it may go is noted first, so that it is not
            // taken for lost. A disk that is too full for the note has room again afterwards.
            let storage = &*self.storage;
            let note = || write_mark(storage, START_NAME, end);
            let noted = note();
            let name = name_of(oldest.base.position);
            let removed = storage.remove(&name).and_then(|()| storage.sync_dir());
            if let Err(error) = removed.and_then(|()| noted.or_else(|_| note())) {
                // The file is found again at the next start, and goes then.
                tracing::warn!(segment = name, %error, "a segment that is no longer needed could not be removed");
            }
            self.room.send_replace(());
        }
    }
}

impl State {
    /// How many bytes must go before `bytes` more can be written, beside all that is admitted.
    fn missing_room(&self, bytes: u64, limits: &Limits) -> u64 {
        // A group may open a segment of its own.
        let wanted = self.bytes + self.admitted + bytes + HEADER_BYTES as u64;
        wanted.saturating_sub(limits.bytes_max)
    }

    /// Whether `bytes` more can be written, perhaps after segments have gone.
    pub(super) fn has_room(&self, bytes: u64, limits: &Limits) -> bool {
        let missing = self.missing_room(bytes, limits);
        missing == 0 || missing <= self.that_may_go(limits).map(|(segment, _)| segment.bytes).sum()
    }

    /// Where the log begins once so many bytes went, or as many as may go; `None` where none go.
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

    /// The segments that may go, the oldest first, each with its end.
    fn that_may_go(&self, limits: &Limits) -> impl Iterator<Item = (&Segment, Mark)> {
        let ends = self.segments.iter().skip(1).map(|next| next.base);
        let drops = limits.when_full == WhenFull::DropOldest;
        self.segments.iter().zip(ends).take_while(move |(_, end)| drops || self.is_passed(*end))
    }

    fn is_passed(&self, end: Mark) -> bool {
        self.needed_from().is_none_or(|needed| end.position <= needed.position)
    }
}
