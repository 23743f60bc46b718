//! Which keys may be used now. Pure: the time is given.
//!
//! A caller's key can be unknown, since keys are in memory only and the daemon was started anew; or OpenAI does not take it. Both may
//! pass, so what belongs to such a key waits, apart from other callers' items: for an unknown one until `key_wait` after the start, for a
//! refused one for `refused_key_wait` from its first refusal on. Then its items become dead letters at once, which can be replayed. How much
//! waits is bounded by the lane, which gives up the oldest.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::accounts::Key;

/// What is known of the keys.
#[derive(Debug)]
pub(super) struct Standings {
    /// When keys began to be collected.
    began: Instant,
    /// How long unknown keys are waited for since then.
    key_wait: Duration,
    /// How long a refused key is waited for.
    refused_key_wait: Duration,
    troubled: HashMap<Key, RefusedKey>,
}

/// Whether a key may be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyStatus {
    /// It may.
    Open,
    /// Not yet, for this reason.
    Wait(String),
    /// Not any more, for this reason.
    Closed(String),
}

/// A key that OpenAI did not take.
#[derive(Debug)]
struct RefusedKey {
    /// When it was refused first.
    since: Instant,
    /// When it may be tried again; never where OpenAI said that it is for good.
    next_try: Option<Instant>,
    reason: String,
}

/// The wait between tries of a key that was refused just now: OpenAI's own trouble passes in seconds.
const TRY_EVERY: Duration = Duration::from_secs(5);
/// For how long it is tried that often.
const TRY_OFTEN_FOR: Duration = Duration::from_mins(1);
/// The wait between tries after that: somebody has to mend the key, and then expects to see traces.
const TRY_SELDOM_EVERY: Duration = Duration::from_mins(5);
/// Keys in trouble that are remembered; as many as keys are kept. One that is forgotten is only tried again.
const TROUBLED_MAX: usize = 1024;

/// Why what came before a restart cannot go.
const NOT_KNOWN: &str = "its caller has sent nothing since the start, so its key is unknown";

impl Standings {
    /// Nothing is known yet.
    pub(super) fn new(began: Instant, key_wait: Duration, refused_key_wait: Duration) -> Self {
        Self { began, key_wait, refused_key_wait, troubled: HashMap::new() }
    }

    /// Whether a key may be used; `is_known` says whether it is there at all.
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

    /// OpenAI took it.
    pub(super) fn taken(&mut self, key: &Key) {
        self.troubled.remove(key);
    }

    /// OpenAI did not take it, or never will where that is final. Says whether that is news.
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

    /// What an operator should know; `None` when all is well.
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
