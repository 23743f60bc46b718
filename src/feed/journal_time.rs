//! The time of what is read: when requests were received, in the order of the journal. Pure.

use std::time::Duration;

use crate::support::clock::nanos;

/// A clock that says less than this before what it said last was set back; else it only told of a request that took long to arrive.
const SET_BACK: Duration = Duration::from_mins(1);

/// It goes on from where it was when what tells it was set back.
#[derive(Debug, Clone, Copy, Default)]
pub struct JournalTime {
    /// The latest time that was told since then.
    told_ns: u64,
    /// What is added to it.
    ahead_ns: u64,
}

impl JournalTime {
    /// Takes note of a time, in nanoseconds since 1970. A record that could not be read tells none.
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

    /// All that was received before this time was told. A clock that was set back says nothing here: what comes next tells of it.
    pub fn pass(&mut self, now_ns: u64) {
        self.told_ns = self.told_ns.max(now_ns);
    }

    /// The time now.
    pub fn now_ns(self) -> u64 {
        self.told_ns.saturating_add(self.ahead_ns)
    }

    /// What has to be told for this time to come.
    pub fn told_for(self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.ahead_ns)
    }
}
