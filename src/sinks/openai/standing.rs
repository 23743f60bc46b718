//! Which keys may be used now. Pure: the time is given.
//!
//! A caller's key can be unknown, since keys are in memory only and the daemon was started anew; or OpenAI does not take it. Both may
//! pass, so what belongs to such a key waits, but not for ever: one caller must not hold up the others. When the wait is over its
//! items become dead letters, which can be replayed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::encode::Key;

/// What is known of the keys.
#[derive(Debug)]
pub(super) struct Standings {
    /// When keys began to be collected.
    began: Instant,
    /// How long items wait for their key.
    key_wait: Duration,
    troubled: HashMap<Key, Trouble>,
}

/// Whether a key may be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may.
    Open,
    /// Not before this moment.
    Wait(Instant),
    /// Not any more, for this reason.
    Closed(String),
}

#[derive(Debug)]
enum Trouble {
    /// OpenAI did not take it, and may later.
    Refused { since: Instant, next_try: Instant, reason: String },
    /// OpenAI never will.
    Forbidden { reason: String },
}

/// The wait between tries of a refused key while its items wait: OpenAI's own trouble passes in seconds.
const TRY_EVERY: Duration = Duration::from_secs(5);
/// The wait between tries of a refused key when its items wait no more: somebody has to mend the key, and then expects to see traces.
const TRY_SELDOM_EVERY: Duration = Duration::from_mins(5);
/// Keys in trouble that are remembered; as many as keys are kept. One that is forgotten is only tried again.
const TROUBLED_MAX: usize = 1024;

impl Standings {
    /// Nothing is known yet.
    pub(super) fn new(began: Instant, key_wait: Duration) -> Self {
        Self { began, key_wait, troubled: HashMap::new() }
    }

    /// Whether a key may be used; `is_known` says whether it is there at all.
    pub(super) fn of(&self, key: &Key, is_known: bool, now: Instant) -> Standing {
        if *key == Key::None {
            let reason = "no key came with it, and no `api_key` is configured";
            return Standing::Closed(reason.to_owned());
        }
        match self.troubled.get(key) {
            Some(Trouble::Forbidden { reason }) => Standing::Closed(reason.clone()),
            Some(Trouble::Refused { next_try, .. }) if *next_try <= now => Standing::Open,
            Some(Trouble::Refused { since, next_try, reason }) => {
                if now < *since + self.key_wait {
                    Standing::Wait(*next_try)
                } else {
                    Standing::Closed(reason.clone())
                }
            }
            None if is_known => Standing::Open,
            None if now < self.began + self.key_wait => Standing::Wait(self.began + self.key_wait),
            None => Standing::Closed(
                "its caller has not been heard of since the start, so its key is not known"
                    .to_owned(),
            ),
        }
    }

    /// OpenAI took it.
    pub(super) fn taken(&mut self, key: &Key) {
        self.troubled.remove(key);
    }

    /// OpenAI did not take it. Says whether that is news.
    pub(super) fn refused(&mut self, key: &Key, reason: String, now: Instant) -> bool {
        let since = match self.troubled.get(key) {
            Some(Trouble::Refused { since, .. }) => Some(*since),
            _ => None,
        };
        let first = since.unwrap_or(now);
        let wait = if now < first + self.key_wait { TRY_EVERY } else { TRY_SELDOM_EVERY };
        self.put(key, Trouble::Refused { since: first, next_try: now + wait, reason });
        since.is_none()
    }

    /// OpenAI will never take it.
    pub(super) fn forbidden(&mut self, key: &Key, reason: String) {
        self.put(key, Trouble::Forbidden { reason });
    }

    /// What an operator should know; `None` when all is well.
    pub(super) fn notice(&self) -> Option<String> {
        let reason = |trouble: &Trouble| match trouble {
            Trouble::Refused { reason, .. } | Trouble::Forbidden { reason } => reason.clone(),
        };
        let mut reasons: Vec<_> = self.troubled.values().map(reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        let keys = match self.troubled.len() {
            0 => return None,
            1 => "one key is".to_owned(),
            count => format!("{count} keys are"),
        };
        Some(format!("{keys} not taken: {}", reasons.join("; ")))
    }

    fn put(&mut self, key: &Key, trouble: Trouble) {
        if TROUBLED_MAX <= self.troubled.len()
            && !self.troubled.contains_key(key)
            && let Some(any) = self.troubled.keys().next().cloned()
        {
            self.troubled.remove(&any);
        }
        self.troubled.insert(key.clone(), trouble);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_mins(1);

    fn begun() -> (Standings, Instant) {
        let began = tokio::time::Instant::now().into_std();
        (Standings::new(began, WAIT), began)
    }

    fn caller(fingerprint: &str) -> Key {
        Key::Caller(fingerprint.to_owned())
    }

    #[test]
    fn an_unknown_key_is_waited_for_once_after_the_start() {
        let (standings, began) = begun();
        assert_eq!(standings.of(&caller("a"), false, began), Standing::Wait(began + WAIT));
        assert_eq!(standings.of(&caller("a"), true, began), Standing::Open);
        let late = began + WAIT;
        assert!(matches!(standings.of(&caller("b"), false, late), Standing::Closed(_)));
        assert_eq!(standings.of(&caller("b"), true, late), Standing::Open);
        assert!(matches!(standings.of(&Key::None, false, began), Standing::Closed(_)));
    }

    #[test]
    fn a_refused_key_is_tried_often_for_a_while_then_seldom_and_may_recover() {
        let (mut standings, began) = begun();
        let key = caller("a");
        let mut now = began + Duration::from_hours(1);
        assert!(standings.refused(&key, "HTTP 401".to_owned(), now));
        let since = now;
        let mut tries = 0;
        while let Standing::Wait(until) = standings.of(&key, true, now) {
            now = until;
            assert_eq!(standings.of(&key, true, now), Standing::Open);
            assert!(!standings.refused(&key, "HTTP 401".to_owned(), now));
            tries += 1;
        }
        assert!(10 < tries && now <= since + WAIT + TRY_EVERY, "{tries}");
        assert_eq!(standings.of(&key, true, now), Standing::Closed("HTTP 401".to_owned()));
        assert_eq!(standings.of(&key, true, now + TRY_SELDOM_EVERY), Standing::Open);
        assert_eq!(standings.of(&caller("b"), true, now), Standing::Open);
        assert_eq!(standings.notice().unwrap(), "one key is not taken: HTTP 401");
        standings.taken(&key);
        assert_eq!(standings.of(&key, true, now), Standing::Open);
        assert_eq!(standings.notice(), None);
    }

    #[test]
    fn a_forbidden_key_is_never_tried_again() {
        let (mut standings, began) = begun();
        standings.forbidden(&caller("a"), "zdr".to_owned());
        let late = began + Duration::from_hours(24);
        assert_eq!(standings.of(&caller("a"), true, late), Standing::Closed("zdr".to_owned()));
    }
}
