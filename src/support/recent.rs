//! A map that forgets what it learned first when it holds too much. Pure.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// At most so many entries.
#[derive(Debug)]
pub struct Recent<K, V = ()> {
    known: HashMap<K, V>,
    /// In the order in which they are forgotten.
    order: VecDeque<K>,
    max: usize,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// An empty one, for at most so many entries.
    pub fn new(max: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), max }
    }

    /// What is known under a key.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.known.get(key)
    }

    /// Adds an entry under a key that is not known yet. Returns the value that was forgotten for it.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.known.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        if self.max < self.order.len() { self.forget() } else { None }
    }

    /// Forgets the oldest entry.
    pub fn forget(&mut self) -> Option<V> {
        self.order.pop_front().and_then(|oldest| self.known.remove(&oldest))
    }
}
