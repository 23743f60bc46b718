//! Tracks which keys may be used now. Pure: the caller passes the time.
//!
//! A caller's key can be unknown, because keys are only in memory and the daemon restarted, or refused by OpenAI. Both may pass, so the
//! items of such a key wait, apart from other callers' items: with an unknown key until `key_wait` after the start, with a refused key for
//! `refused_key_wait` from its first refusal on. After that, they become dead letters, which can be replayed. The lane bounds how much
//! waits, and evicts the oldest items.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::accounts::Key;

/// The known states of the keys.
#[derive(Debug)]
pub(super) struct Standings {
    /// The time since which keys have been collected.
    began: Instant,
    /// How long to wait for unknown keys after that time.
    key_wait: Duration,
    /// How long to wait for a refused key.
    refused_key_wait: Duration,
    troubled: HashMap<Key, RefusedKey>,
}

/// Whether a key may be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyStatus {
    /// It may be used.
    Open,
    /// It may not be used yet, for this reason.
    Wait(String),
    /// It may no longer be used, for this reason.
    Closed(String),
}

/// A key that OpenAI refused.
#[derive(Debug)]
struct RefusedKey {
    /// The time of the first refusal.
    since: Instant,
    /// When the key may be tried again; `None` if OpenAI refused it permanently.
    next_try: Option<Instant>,
    reason: String,
}

/// The interval between tries of a recently refused key: temporary errors of OpenAI pass in seconds.
const TRY_EVERY: Duration = Duration::from_secs(5);
/// How long a key is tried at that interval.
const TRY_OFTEN_FOR: Duration = Duration::from_mins(1);
/// The interval between later tries: an operator has to fix the key, and then expects to see traces.
const TRY_SELDOM_EVERY: Duration = Duration::from_mins(5);
/// The largest number of refused keys that are remembered, which is also that of known keys. A forgotten key is merely tried again.
const TROUBLED_MAX: usize = 1024;

/// The reason why items from before a restart cannot be sent.
const NOT_KNOWN: &str = "its caller has sent nothing since the start, so its key is unknown";

impl Standings {
    /// Begins without any refused key.
    pub(super) fn new(began: Instant, key_wait: Duration, refused_key_wait: Duration) -> Self {
        Self { began, key_wait, refused_key_wait, troubled: HashMap::new() }
    }

    /// Returns whether a key may be used; `is_known` tells whether the key itself is known.
    pub(super) fn of(&self, key: &Key, is_known: bool, now: Instant) -> KeyStatus {
        if *key == Key::None {
            let reason = "it came without a key, and no `api_key` is configured";
            return KeyStatus::Closed(reason.to_owned());
        }
        match self.troubled.get(key) {
            Some(RefusedKey { next_try: Some(at), .. }) if *at <= now => KeyStatus::Open,
            Some(RefusedKey { since, next_try: Some(_), reason })
                if now < *since + self.refused_key_wait =>
            {
                KeyStatus::Wait(reason.clone())
            }
            Some(RefusedKey { reason, .. }) => KeyStatus::Closed(reason.clone()),
            None if is_known => KeyStatus::Open,
            None if now < self.began + self.key_wait => KeyStatus::Wait(NOT_KNOWN.to_owned()),
            None => KeyStatus::Closed(NOT_KNOWN.to_owned()),
        }
    }

    /// Records that OpenAI accepted the key.
    pub(super) fn taken(&mut self, key: &Key) {
        self.troubled.remove(key);
    }

    /// Records that OpenAI refused the key, permanently if `is_final`. Returns whether this is new.
    pub(super) fn refused(
        &mut self,
        key: &Key,
        reason: String,
        is_final: bool,
        now: Instant,
    ) -> bool {
        let known = self.troubled.get(key);
        let is_news = known.is_none();
        let since = known.map_or(now, |trouble| trouble.since);
        let wait = if now < since + TRY_OFTEN_FOR { TRY_EVERY } else { TRY_SELDOM_EVERY };
        let next_try = (!is_final).then(|| now + wait);
        if TROUBLED_MAX <= self.troubled.len()
            && is_news
            && let Some(any) = self.troubled.keys().next().cloned()
        {
            self.troubled.remove(&any);
        }
        self.troubled.insert(key.clone(), RefusedKey { since, next_try, reason });
        is_news
    }

    /// Returns a notice for the operator; `None` if no key is refused.
    pub(super) fn notice(&self) -> Option<String> {
        let mut reasons: Vec<_> =
            self.troubled.values().map(|trouble| trouble.reason.as_str()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        let keys = match self.troubled.len() {
            0 => return None,
            1 => "one key is".to_owned(),
            count => format!("{count} keys are"),
        };
        Some(format!("{keys} not taken: {}", reasons.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_mins(1);
    const REFUSED_WAIT: Duration = Duration::from_hours(1);

    fn begun() -> (Standings, Instant) {
        let began = tokio::time::Instant::now().into_std();
        (Standings::new(began, WAIT, REFUSED_WAIT), began)
    }

    fn caller(fingerprint: &str) -> Key {
        Key::Caller(fingerprint.to_owned())
    }

    #[test]
    fn an_unknown_key_is_waited_for_once_after_the_start() {
        let (standings, began) = begun();
        for now in [began, began + WAIT / 2] {
            assert!(matches!(standings.of(&caller("a"), false, now), KeyStatus::Wait(_)));
        }
        assert_eq!(standings.of(&caller("a"), true, began), KeyStatus::Open);
        let late = began + WAIT;
        assert!(matches!(standings.of(&caller("b"), false, late), KeyStatus::Closed(_)));
        assert_eq!(standings.of(&caller("b"), true, late), KeyStatus::Open);
        assert!(matches!(standings.of(&Key::None, false, began), KeyStatus::Closed(_)));
    }

    #[test]
    fn a_refused_key_is_tried_often_for_a_while_then_seldom_and_may_recover() {
        let (mut standings, began) = begun();
        let key = caller("a");
        let since = began + Duration::from_hours(5);
        let mut now = since;
        assert!(standings.refused(&key, "HTTP 401".to_owned(), false, now));
        let mut tries = Vec::new();
        while let KeyStatus::Wait(_) = standings.of(&key, true, now) {
            now += Duration::from_millis(500);
            if standings.of(&key, true, now) == KeyStatus::Open {
                assert!(!standings.refused(&key, "HTTP 401".to_owned(), false, now));
                tries.push(now - since);
            }
        }
        assert!(since + REFUSED_WAIT <= now && now <= since + REFUSED_WAIT + TRY_SELDOM_EVERY);
        let often = tries.iter().filter(|at| **at <= TRY_OFTEN_FOR).count();
        assert_eq!((often, tries.len() - often), (12, 11), "{tries:?}");
        assert_eq!(standings.of(&key, true, now), KeyStatus::Closed("HTTP 401".to_owned()));
        assert_eq!(standings.of(&key, true, now + TRY_SELDOM_EVERY), KeyStatus::Open);
        standings.refused(&key, "HTTP 401".to_owned(), false, now + TRY_SELDOM_EVERY);
        let later = now + TRY_SELDOM_EVERY;
        assert!(
            matches!(standings.of(&key, true, later), KeyStatus::Closed(_)),
            "its time is over"
        );
        assert_eq!(standings.of(&caller("b"), true, now), KeyStatus::Open);
        assert_eq!(standings.notice().unwrap(), "one key is not taken: HTTP 401");
        standings.taken(&key);
        assert_eq!(standings.of(&key, true, now), KeyStatus::Open);
        assert_eq!(standings.notice(), None);
        standings.refused(&key, "HTTP 403".to_owned(), false, later);
        assert!(matches!(standings.of(&key, true, later), KeyStatus::Wait(_)), "it begins anew");
    }

    #[test]
    fn each_refused_key_waits_from_its_own_first_refusal_on() {
        let (mut standings, began) = begun();
        for minute in 0..2 * u32::try_from(TROUBLED_MAX).unwrap() {
            let (key, now) = (caller(&minute.to_string()), began + WAIT * minute);
            standings.refused(&key, "HTTP 401".to_owned(), false, now);
            assert!(matches!(standings.of(&key, true, now), KeyStatus::Wait(_)), "{minute}");
        }
        assert_eq!(standings.troubled.len(), TROUBLED_MAX);
    }

    #[test]
    fn a_forbidden_key_is_never_tried_again() {
        let (mut standings, began) = begun();
        standings.refused(&caller("a"), "zdr".to_owned(), true, began);
        for hours in [0, 24] {
            let now = began + Duration::from_hours(hours);
            assert_eq!(standings.of(&caller("a"), true, now), KeyStatus::Closed("zdr".to_owned()));
        }
    }
}
