//! Credentials of callers, in memory only, for the sink that acts on their behalf.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::secret::Secret;
use crate::support::lock::lock;

/// Maximum number of keys. A fleet of agents has a few; the bound protects against callers that invent keys.
const KEYS_MAX: usize = 1024;

/// Keys by fingerprint, the most recent last.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: Mutex<VecDeque<(String, Secret)>>,
}

impl Keyring {
    /// Stores a key; if there are too many, the least recently seen one is evicted.
    pub fn remember(&self, fingerprint: &str, key: &str) {
        let mut keys = lock(&self.keys);
        if keys.back().is_some_and(|(newest, _)| newest == fingerprint) {
            return;
        }
        keys.retain(|(known, _)| known != fingerprint);
        if KEYS_MAX <= keys.len() {
            keys.pop_front();
        }
        keys.push_back((fingerprint.to_owned(), Secret::from(key.to_owned())));
    }

    /// Returns the key with this fingerprint, if it was seen since the start.
    pub fn get(&self, fingerprint: &str) -> Option<Secret> {
        let keys = lock(&self.keys);
        keys.iter().rev().find(|(known, _)| known == fingerprint).map(|(_, key)| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_not_seen_for_longest_gives_way() {
        let keyring = Keyring::default();
        for number in 0..=KEYS_MAX {
            keyring.remember(&number.to_string(), &format!("key {number}"));
            keyring.remember("1", "key 1");
        }
        assert_eq!(keyring.get("0"), None);
        assert!(keyring.get("1").is_some_and(|key| key.reveal() == "key 1"));
        assert!(keyring.get(&KEYS_MAX.to_string()).is_some());
    }
}
