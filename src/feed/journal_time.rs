//! The time of the records that are read: their arrival times, in journal order. Pure.

use std::time::Duration;

use crate::support::clock::nanos;

/// A time earlier than the latest one by more than this means that the clock was set back; by less, that a request took long to arrive.
const SET_BACK: Duration = Duration::from_mins(1);

/// A clock driven by arrival times. If the system clock was set back, this clock continues from where it was.
#[derive(Debug, Clone, Copy, Default)]
pub struct JournalTime {
    /// The latest arrival time since the clock was last set back.
    told_ns: u64,
    /// The offset added to it.
    ahead_ns: u64,
}

impl JournalTime {
    /// Advances to an arrival time, in nanoseconds since 1970; 0 stands for an unreadable record and has no effect.
    pub fn tell(&mut self, now_ns: u64) {
        if now_ns == 0 {
            return;
        }
        if now_ns.saturating_add(nanos(SET_BACK)) < self.told_ns {
            self.ahead_ns = self.ahead_ns.saturating_add(self.told_ns - now_ns);
            self.told_ns = now_ns;
        }
        self.told_ns = self.told_ns.max(now_ns);
    }

    /// Advances to a time before which everything received is known. A clock that was set back shows only with the next record.
    pub fn pass(&mut self, now_ns: u64) {
        self.told_ns = self.told_ns.max(now_ns);
    }

    /// Returns the current time.
    pub fn now_ns(self) -> u64 {
        self.told_ns.saturating_add(self.ahead_ns)
    }

    /// Returns the arrival time at which this clock reaches `at_ns`.
    pub fn told_for(self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.ahead_ns)
    }
}
