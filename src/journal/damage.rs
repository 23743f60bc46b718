//! Damage: ranges that cannot be read, the preserved copy, and the note on it.
//!
//! For each damaged segment, `damaged/` contains the segment under its name (a second link to the file, which retention does not remove)
//! and one note for each damaged range:
//!
//! ```text
//! damaged/<segment>-<position>.note       until an operator settles it
//! damaged/<segment>-<position>.settled    afterwards
//! ```
//!
//! A note is text in lines: `spanferry damage 1`, then `segment`, `from`, `to`, `items from`, `items to`, each with its value.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use super::segment::name_of;
use super::storage::{ASIDE, Storage};
use super::{Mark, Position};

const FIRST_LINE: &str = "spanferry damage 1";
const OPEN_SUFFIX: &str = ".note";
const SETTLED_SUFFIX: &str = ".settled";

/// A range of the log that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The segment's base.
    pub segment: Position,
    /// Start of the range.
    pub from: Mark,
    /// Start of the next intact record.
    pub to: Mark,
}

impl Damage {
    /// Returns the number of bytes that cannot be read.
    pub fn bytes(&self) -> u64 {
        self.to.position.0.saturating_sub(self.from.position.0)
    }

    /// Returns the number of items that cannot be read.
    pub fn items(&self) -> u64 {
        self.to.items.saturating_sub(self.from.items)
    }

    /// Returns the name of the segment's file.
    pub fn segment_name(&self) -> String {
        name_of(self.segment)
    }

    fn note_name(&self, suffix: &str) -> String {
        format!("{ASIDE}{:020}-{:020}{suffix}", self.segment.0, self.from.position.0)
    }

    fn note(&self) -> String {
        let Self { segment, from, to } = self;
        format!(
            "{FIRST_LINE}\nsegment {}\nfrom {}\nto {}\nitems from {}\nitems to {}\n",
            segment.0, from.position.0, to.position.0, from.items, to.items
        )
    }

    fn of_note(note: &str) -> Option<Self> {
        let mut lines = note.strip_prefix(FIRST_LINE)?.trim_start().lines();
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.trim().parse().ok();
        let [segment, from, to] =
            [value("segment ")?, value("from ")?, value("to ")?].map(Position);
        Some(Self {
            segment,
            from: Mark { position: from, items: value("items from ")? },
            to: Mark { position: to, items: value("items to ")? },
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} bytes with {} items from position {} on cannot be read, in segment {}",
            self.bytes(),
            self.items(),
            self.from.position.0,
            self.segment_name(),
        )
    }
}

/// The notes under `damaged/`.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Damage that no operator has settled.
    pub(super) open: Vec<Damage>,
    /// Start of all damage, settled or not.
    pub(super) known: BTreeSet<Position>,
}

/// Reads the notes. The name of a note that is itself damaged still tells the position.
pub(super) fn read_notes(storage: &dyn Storage, names: &[String]) -> Notes {
    let mut notes = Notes::default();
    for name in names.iter().filter_map(|name| name.strip_prefix(ASIDE)) {
        let (stem, is_open) =
            match (name.strip_suffix(OPEN_SUFFIX), name.strip_suffix(SETTLED_SUFFIX)) {
                (Some(stem), _) => (stem, true),
                (_, Some(stem)) => (stem, false),
                _ => continue,
            };
        let parsed = stem.split_once('-').and_then(|(segment, from)| {
            Some((Position(segment.parse().ok()?), Position(from.parse().ok()?)))
        });
        let Some((segment, position)) = parsed else { continue };
        notes.known.insert(position);
        if is_open {
            let text = storage.read(&format!("{ASIDE}{name}")).unwrap_or_default();
            let mark = Mark { position, items: 0 };
            let damage = Damage::of_note(&String::from_utf8_lossy(&text));
            notes.open.push(damage.unwrap_or(Damage { segment, from: mark, to: mark }));
        }
    }
    notes.open.sort_by_key(|damage| damage.from.position);
    notes
}

/// Preserves the damaged segment and writes a note.
pub(super) fn set_aside(storage: &dyn Storage, damage: &Damage) -> io::Result<()> {
    let name = damage.segment_name();
    match storage.keep_also_as(&name, &format!("{ASIDE}{name}")) {
        // A missing segment leaves only the note.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        kept => kept?,
    }
    storage.replace(&damage.note_name(OPEN_SUFFIX), damage.note().as_bytes())
}

/// Marks all damage as settled, because an operator knows about it. Preserved copies stay.
pub(super) fn settle(storage: &dyn Storage) -> io::Result<Vec<Damage>> {
    let notes = read_notes(storage, &storage.list()?);
    for damage in &notes.open {
        storage.replace(&damage.note_name(SETTLED_SUFFIX), damage.note().as_bytes())?;
        storage.remove(&damage.note_name(OPEN_SUFFIX))?;
    }
    Ok(notes.open)
}

/// Preserves damage and logs it.
pub(super) fn report(storage: &dyn Storage, damage: &Damage) {
    let aside = set_aside(storage, damage).err().map(|error| error.to_string());
    tracing::error!(
        journal = storage.place(),
        segment = damage.segment_name(),
        from = damage.from.position.0,
        to = damage.to.position.0,
        bytes = damage.bytes(),
        items = damage.items(),
        not_set_aside_because = aside,
        "a part of the journal cannot be read; nothing before or after it is lost"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_as_written() {
        let damage = Damage {
            segment: Position(100),
            from: Mark { position: Position(150), items: 7 },
            to: Mark { position: Position(u64::MAX), items: 9 },
        };
        assert_eq!(Damage::of_note(&damage.note()), Some(damage));
        assert_eq!(Damage::of_note("spanferry damage 1\nsegment x"), None);
        assert_eq!(Damage::of_note(""), None);
    }
}
