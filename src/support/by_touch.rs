//! A map that tracks the order in which its entries were last touched, and their memory. Pure.
//!
//! Marks advance over the entries from the least recently touched one, each at its own pace; a touch moves an entry before all marks again.
//! So entries that are due some time after their last touch are found without a scan.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::fmt;
use std::hash::Hash;

use foldhash::fast::RandomState;

/// A value that knows its memory, in addition to its own size, in bytes.
pub trait Weighed {
    /// Returns all of it.
    fn bytes(&self) -> usize;
    /// Returns the part of it that is held only temporarily.
    fn passing_bytes(&self) -> usize {
        0
    }
}

/// A map of entries in the order of their last touch.
pub struct ByTouch<K, V, const MARKS: usize> {
    entries: HashMap<K, Entry<V>, RandomState>,
    order: Order<K, MARKS>,
    bytes: usize,
    passing_bytes: usize,
}

struct Entry<V> {
    /// Its index in the links.
    at: u32,
    value: Box<V>,
}

/// No index.
const NONE: u32 = u32::MAX;

/// The order of the entries, as a doubly linked list.
struct Order<K, const MARKS: usize> {
    links: Vec<Link<K>>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    /// The next entry of each mark.
    marks: [u32; MARKS],
}

struct Link<K> {
    key: K,
    older: u32,
    newer: u32,
}

impl<K: Copy + Eq + Hash, V: Weighed, const MARKS: usize> ByTouch<K, V, MARKS> {
    /// Memory of an entry besides its contents: the value, and slots in a map and a list that may be half empty.
    const ENTRY_BYTES: usize =
        size_of::<V>() + 2 * size_of::<(K, Entry<V>)>() + 2 * size_of::<Link<K>>();

    /// Changes an entry and touches it; a missing entry is created with its default value.
    pub fn touch<R>(&mut self, key: K, change: impl FnOnce(&mut V) -> R) -> R
    where
        V: Default,
    {
        let entry = match self.entries.entry(key) {
            Place::Occupied(known) => {
                self.order.unlink(known.get().at);
                known.into_mut()
            }
            Place::Vacant(place) => {
                let value = Box::<V>::default();
                self.bytes += Self::ENTRY_BYTES + value.bytes();
                self.passing_bytes += value.passing_bytes();
                place.insert(Entry { at: self.order.place_for(key), value })
            }
        };
        self.order.append(entry.at);
        let value = &mut *entry.value;
        weighed(value, (&mut self.bytes, &mut self.passing_bytes), change)
    }

    /// Changes an existing entry without touching it.
    pub fn change<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let value = &mut *self.entries.get_mut(key)?.value;
        Some(weighed(value, (&mut self.bytes, &mut self.passing_bytes), change))
    }

    /// Changes all entries.
    pub fn change_all(&mut self, mut change: impl FnMut(&mut V)) {
        for Entry { value, .. } in self.entries.values_mut() {
            weighed(&mut **value, (&mut self.bytes, &mut self.passing_bytes), &mut change);
        }
    }

    /// Returns an entry.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &*entry.value)
    }

    /// Returns the least recently touched entry.
    pub fn oldest(&self) -> Option<(K, &V)> {
        self.at(self.order.oldest)
    }

    /// Removes the least recently touched entry.
    pub fn pop_oldest(&mut self) -> Option<(K, Box<V>)> {
        let at = self.order.oldest;
        let key = self.order.key(at)?;
        self.order.unlink(at);
        self.order.free.push(at);
        let Entry { value, .. } = self.entries.remove(&key)?;
        self.bytes -= Self::ENTRY_BYTES + value.bytes();
        self.passing_bytes -= value.passing_bytes();
        Some((key, value))
    }

    /// Returns the first entry that a mark has not passed.
    pub fn at_mark(&self, mark: usize) -> Option<(K, &V)> {
        self.at(*self.order.marks.get(mark)?)
    }

    /// Advances a mark by one entry.
    pub fn pass(&mut self, mark: usize) {
        let order = &mut self.order;
        if let Some(mark) = order.marks.get_mut(mark)
            && let Some(link) = order.links.get(*mark as usize)
        {
            *mark = link.newer;
        }
    }

    /// Iterates over all entries, the most recently touched one first.
    pub fn newest_first(&self) -> impl Iterator<Item = (K, &V)> {
        let older = |at: &u32| self.order.links.get(*at as usize).map(|link| link.older);
        std::iter::successors(Some(self.order.newest), older).map_while(|at| self.at(at))
    }

    fn at(&self, at: u32) -> Option<(K, &V)> {
        let key = self.order.key(at)?;
        Some((key, self.get(&key)?))
    }

    /// Returns the number of entries.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Returns the estimated memory of all entries, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the part of it that is held only temporarily.
    pub fn passing_bytes(&self) -> usize {
        self.passing_bytes
    }
}

/// Changes a value and updates the memory counts.
fn weighed<V: Weighed, R>(
    value: &mut V,
    (bytes, passing_bytes): (&mut usize, &mut usize),
    change: impl FnOnce(&mut V) -> R,
) -> R {
    let before = (value.bytes(), value.passing_bytes());
    let result = change(value);
    *bytes = *bytes + value.bytes() - before.0;
    *passing_bytes = *passing_bytes + value.passing_bytes() - before.1;
    result
}

impl<K: Copy, const MARKS: usize> Order<K, MARKS> {
    fn key(&self, at: u32) -> Option<K> {
        self.links.get(at as usize).map(|link| link.key)
    }

    /// Returns the index of a new link that is not in the order yet. More links than the numbers allow would not fit into memory.
    fn place_for(&mut self, key: K) -> u32 {
        let link = Link { key, older: NONE, newer: NONE };
        let free = self.free.pop();
        if let Some(at) = free
            && let Some(place) = self.links.get_mut(at as usize)
        {
            *place = link;
            return at;
        }
        self.links.push(link);
        u32::try_from(self.links.len() - 1).unwrap_or(NONE)
    }

    fn append(&mut self, at: u32) {
        let older = std::mem::replace(&mut self.newest, at);
        if let Some(link) = self.links.get_mut(at as usize) {
            (link.older, link.newer) = (older, NONE);
        }
        match self.links.get_mut(older as usize) {
            Some(link) => link.newer = at,
            None => self.oldest = at,
        }
        for mark in self.marks.iter_mut().filter(|mark| **mark == NONE) {
            *mark = at;
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some(&Link { older, newer, .. }) = self.links.get(at as usize) else { return };
        match self.links.get_mut(older as usize) {
            Some(link) => link.newer = newer,
            None => self.oldest = newer,
        }
        match self.links.get_mut(newer as usize) {
            Some(link) => link.older = older,
            None => self.newest = older,
        }
        for mark in self.marks.iter_mut().filter(|mark| **mark == at) {
            *mark = newer;
        }
    }
}

impl<K, V, const MARKS: usize> Default for ByTouch<K, V, MARKS> {
    fn default() -> Self {
        let (links, free) = (Vec::new(), Vec::new());
        Self {
            entries: HashMap::default(),
            order: Order { links, free, oldest: NONE, newest: NONE, marks: [NONE; MARKS] },
            bytes: 0,
            passing_bytes: 0,
        }
    }
}

impl<K, V, const MARKS: usize> fmt::Debug for ByTouch<K, V, MARKS> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} entries, {} bytes", self.entries.len(), self.bytes)
    }
}

/// Returns the memory of a hash table with this capacity, in bytes: one slot in eight stays empty, and the table needs one byte more per
/// slot.
pub fn table_bytes<E>(capacity: usize) -> usize {
    const OWN_BYTES: usize = 32;
    match capacity {
        0 => 0,
        _ => (capacity * 8 / 7).next_power_of_two() * (size_of::<E>() + 1) + OWN_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default)]
    struct Sized(usize);

    impl Weighed for Sized {
        fn bytes(&self) -> usize {
            self.0
        }

        fn passing_bytes(&self) -> usize {
            self.0 / 2
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Touch(u8, u8),
        Change(u8, u8),
        Pop,
        Pass(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..12, 0_u8..9).prop_map(|(key, size)| Step::Touch(key, size)),
            1 => (0_u8..12, 0_u8..9).prop_map(|(key, size)| Step::Change(key, size)),
            2 => Just(Step::Pop),
            2 => (0_usize..2).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Compares with an ordered list of entries, each with the marks that have passed it.
        #[test]
        fn order_marks_and_bytes_are_those_of_a_plain_list(
            steps in proptest::collection::vec(step(), 0..200)
        ) {
            let mut map = ByTouch::<u8, Sized, 2>::default();
            let mut list: Vec<(u8, usize, [bool; 2])> = Vec::new();
            for step in steps {
                match step {
                    Step::Touch(key, size) => {
                        list.retain(|entry| entry.0 != key);
                        list.push((key, size.into(), [false; 2]));
                        map.touch(key, |value| value.0 = size.into());
                    }
                    Step::Change(key, size) => {
                        let known = list.iter_mut().find(|entry| entry.0 == key);
                        let known = known.map(|entry| entry.1 = size.into());
                        prop_assert_eq!(map.change(&key, |value| value.0 = size.into()), known);
                    }
                    Step::Pop => {
                        let oldest = (!list.is_empty()).then(|| list.remove(0));
                        prop_assert_eq!(map.pop_oldest().map(|it| it.0), oldest.map(|it| it.0));
                    }
                    Step::Pass(mark) => {
                        if let Some(next) = list.iter_mut().find(|entry| !entry.2[mark]) {
                            next.2[mark] = true;
                        }
                        map.pass(mark);
                    }
                }
                for mark in 0..2 {
                    let next = list.iter().find(|entry| !entry.2[mark]);
                    prop_assert_eq!(map.at_mark(mark).map(|it| it.0), next.map(|it| it.0));
                }
                prop_assert_eq!(map.oldest().map(|it| it.0), list.first().map(|it| it.0));
                let keys: Vec<_> = map.newest_first().map(|(key, _)| key).collect();
                prop_assert!(keys.iter().eq(list.iter().rev().map(|(key, ..)| key)));
                let held: usize = list.iter().map(|entry| entry.1).sum();
                let own = map.count() * ByTouch::<u8, Sized, 2>::ENTRY_BYTES;
                prop_assert_eq!(map.bytes(), own + held);
                let passing: usize = list.iter().map(|entry| entry.1 / 2).sum();
                prop_assert_eq!(map.passing_bytes(), passing);
            }
        }
    }
}
