//! The names that traces hold, each once: most traces have the same few. Pure.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// A longer name or id is cut there.
const NAME_BYTES_MAX: usize = 256;
/// Memory of a name beside its text: its places in a map and a list that may be half empty, and what its text stands behind.
const ENTRY_BYTES: usize =
    2 * size_of::<(Arc<str>, Name)>() + 2 * size_of::<Held>() + 2 * size_of::<usize>();

/// A name by its number, one more than its place. Whoever keeps it holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name(NonZeroU32);

/// All names.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Arc<str>, Name, RandomState>,
    held: Vec<Held>,
    free: Vec<Name>,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    text: Arc<str>,
    /// How often it is held.
    count: u32,
}

impl Name {
    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Names {
    /// The number of a name that is held already.
    pub(super) fn find(&self, text: &str) -> Option<Name> {
        self.known.get(cut(text)).copied()
    }

    /// Holds a name once more; `None` beyond four billion.
    pub(super) fn hold(&mut self, text: &str) -> Option<Name> {
        let text = cut(text);
        if let Some(name) = self.known.get(text).copied() {
            self.held.get_mut(name.place())?.count += 1;
            return Some(name);
        }
        // A copy: a slice would keep the whole request in memory.
        let text: Arc<str> = text.into();
        self.bytes += ENTRY_BYTES + text.len();
        let held = Held { text: Arc::clone(&text), count: 1 };
        let name = if let Some(name) = self.free.pop() {
            *self.held.get_mut(name.place())? = held;
            name
        } else {
            self.held.push(held);
            Name(u32::try_from(self.held.len()).ok().and_then(NonZeroU32::new)?)
        };
        self.known.insert(text, name);
        Some(name)
    }

    /// Lets go of a name that was held.
    pub(super) fn let_go(&mut self, name: Name) {
        let Some(held) = self.held.get_mut(name.place()) else { return };
        held.count -= 1;
        if held.count == 0 {
            self.bytes -= ENTRY_BYTES + held.text.len();
            self.known.remove(&std::mem::take(&mut held.text));
            self.free.push(name);
        }
    }

    /// The text of a name that is held.
    pub(super) fn text(&self, name: Name) -> &str {
        self.held.get(name.place()).map_or("", |held| &held.text)
    }

    /// Memory that they take, in bytes, estimated.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or(text)
}
