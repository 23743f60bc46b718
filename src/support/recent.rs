//! A map with a maximum size that evicts its oldest entries. Pure.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A map with a maximum number of entries.
#[derive(Debug)]
pub struct Recent<K, V = ()> {
    known: HashMap<K, V>,
    /// In the order of eviction.
    order: VecDeque<K>,
    max: usize,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// Creates an empty map for at most so many entries.
    pub fn new(max: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), max }
    }

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
        if self.max < self.order.len() { self.forget() } else { None }
    }

    /// Evicts the oldest entry.
    pub fn forget(&mut self) -> Option<V> {
        self.order.pop_front().and_then(|oldest| self.known.remove(&oldest))
    }
}
