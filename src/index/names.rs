//! Interned names: most traces share the same few. Pure.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// Maximum length of a name or id; longer ones are truncated.
const NAME_BYTES_MAX: usize = 256;
/// Memory of a name besides its text: slots in a map and a list that may be half empty, and the text's header.
const ENTRY_BYTES: usize =
    2 * size_of::<(Arc<str>, Name)>() + 2 * size_of::<NameEntry>() + 2 * size_of::<usize>();

/// The number of a name, one more than its index. Each owner holds a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name(NonZeroU32);

/// All names.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Arc<str>, Name, RandomState>,
    held: Vec<NameEntry>,
    free: Vec<Name>,
    bytes: usize,
}

#[derive(Debug)]
struct NameEntry {
    text: Arc<str>,
    /// Number of references.
    count: u32,
}

impl Name {
    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Names {
    /// Finds the number of a name that is held already.
    pub(super) fn find(&self, text: &str) -> Option<Name> {
        self.known.get(cut(text)).copied()
    }

    /// Adds a reference to a name; `None` beyond four billion names.
    pub(super) fn hold(&mut self, text: &str) -> Option<Name> {
        let text = cut(text);
        if let Some(name) = self.known.get(text).copied() {
            self.held.get_mut(name.place())?.count += 1;
            return Some(name);
        }
        // A copy, because a slice would keep the whole request in memory.
        let text: Arc<str> = text.into();
        self.bytes += ENTRY_BYTES + text.len();
        let held = NameEntry { text: Arc::clone(&text), count: 1 };
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

    /// Drops a reference to a name.
    pub(super) fn let_go(&mut self, name: Name) {
        let Some(held) = self.held.get_mut(name.place()) else { return };
        held.count -= 1;
        if held.count == 0 {
            self.bytes -= ENTRY_BYTES + held.text.len();
            self.known.remove(&std::mem::take(&mut held.text));
            self.free.push(name);
        }
    }

    /// Returns the text of a held name.
    pub(super) fn text(&self, name: Name) -> &str {
        self.held.get(name.place()).map_or("", |held| &held.text)
    }

    /// Returns the estimated memory of all names, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or(text)
}
