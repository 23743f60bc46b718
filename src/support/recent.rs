//! A map with a maximum size that evicts its oldest entries. Pure.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A map with a maximum number of entries.
#[derive(Debug)]
pub struct Recent<const MAX: usize, K, V = ()> {
    known: HashMap<K, V>,
    /// In the order of eviction.
    order: VecDeque<K>,
}

impl<const MAX: usize, K, V> Default for Recent<MAX, K, V> {
    fn default() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new() }
    }
}

impl<const MAX: usize, K: Clone + Eq + Hash, V> Recent<MAX, K, V> {
    /// Returns the value of a key.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.known.get(key)
    }

    /// Adds an entry with a new key. Returns the evicted value.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.known.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        if MAX < self.order.len() { self.forget() } else { None }
    }

    /// Evicts the oldest entry.
    pub fn forget(&mut self) -> Option<V> {
        self.order.pop_front().and_then(|oldest| self.known.remove(&oldest))
    }
}
