//! What is read becomes batches, in the order in which it stands in the sources.
//!
//! What is read is a function of the source and the place alone, so what is sent again after a kill are the same items, byte for byte, which
//! the daemon recognises.

use std::fmt;

use bytes::Bytes;

use super::formats;
use super::lines::Headers;
use super::pieces::Piece;
use super::rejects::SetAside;
use super::sources::{Mark, Opened, Source};
use super::state::{Progress, State};
use crate::span::{Item, Span};
use crate::support::rfc3339;

/// A batch ends with the piece that makes it so heavy: much for one fsync, little for a receiver that takes 64 MiB.
const WEIGHT: usize = 1 << 20;
/// An item weighs its bytes and this, because a request may have 200,000 items at most.
const ITEM_WEIGHT: usize = 100;
/// What is read weighs a part of its bytes: a resume has to know of it, also where nothing of it is sent.
const READ_SHARE: usize = 64;

/// When a span has to have started, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Not before.
    pub(super) from_ns: u64,
    /// Before.
    pub(super) to_ns: u64,
}

impl fmt::Display for Window {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "from {} to {}", rfc3339::text(self.from_ns), rfc3339::text(self.to_ns))
    }
}

/// Items for one door, with the headers that their clients sent. A piece may hold many times a batch, and a request then a part of it.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) is_otlp: bool,
    pub(super) headers: Headers,
    pub(super) items: Vec<Item>,
    pub(super) weight: usize,
}

/// A part of a source, and what becomes of it.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The source's name, and how it begins.
    pub(super) source: String,
    pub(super) mark: Mark,
    /// Lines or messages of the source that are done with when this is; 0 where its beginning has changed.
    pub(super) done: u64,
    /// Whether the source was read to its end.
    pub(super) is_end: bool,
    pub(super) posts: Vec<Post>,
    /// Spans that started outside of the window.
    pub(super) outside: u64,
    pub(super) set_aside: Vec<SetAside>,
    /// Items that the daemon acknowledged, once it has.
    pub(super) accepted: u64,
    /// Items of requests that it took, which it has in its quarantine.
    pub(super) quarantined: u64,
    /// What decides when it ends.
    pub(super) weight: usize,
}

/// Reads all sources from where an earlier run ended, and gives out their batches until somebody says false.
pub(super) fn read(
    sources: Vec<Source>,
    earlier: &State,
    window: Window,
    mut give: impl FnMut(Batch) -> bool,
) {
    for source in sources {
        let name = source.name.clone();
        let before = earlier.sources.get(&name).cloned().unwrap_or_default();
        let is_wanted = match source.open(&before.mark) {
            Ok(opened) if opened.is_known => read_one(&name, opened, &before, window, &mut give),
            Ok(opened) => {
                give(Batch::of(&name, &opened.mark))
                    && read_one(&name, opened, &Progress::default(), window, &mut give)
            }
            Err(error) => {
                let mut batch = Batch { done: before.done, ..Batch::of(&name, &before.mark) };
                batch.set_aside(name, format!("it cannot be opened: {error}"), Bytes::new());
                give(batch)
            }
        };
        if !is_wanted {
            return;
        }
    }
}

/// Reads what stands behind what is done. Whether more is wanted.
fn read_one(
    name: &str,
    Opened { mut pieces, mark, .. }: Opened,
    before: &Progress,
    window: Window,
    give: &mut impl FnMut(Batch) -> bool,
) -> bool {
    let mut batch = Batch::of(name, &mark);
    loop {
        let next = pieces.next();
        let place = |number| format!("{name}, {} {number}", pieces.unit());
        let goes_on = matches!(next, Ok(Some(_)));
        match next {
            Ok(Some(piece)) if piece.place <= before.done => {}
            Ok(Some(piece)) => {
                let place = place(piece.place);
                batch.add(piece, &place, window);
            }
            Ok(None) => batch.is_end = true,
            Err(error) => {
                let reason = format!("it cannot be read any further: {error}");
                batch.set_aside(place(pieces.done() + 1), reason, Bytes::new());
            }
        }
        if !goes_on || WEIGHT <= batch.weight {
            batch.done = pieces.done();
            let is_wanted = give(std::mem::replace(&mut batch, Batch::of(name, &mark)));
            if !goes_on || !is_wanted {
                return is_wanted;
            }
        }
    }
}

impl Batch {
    fn of(name: &str, mark: &Mark) -> Self {
        Self { source: name.to_owned(), mark: mark.clone(), ..Self::default() }
    }

    pub(super) fn set_aside(&mut self, place: String, reason: String, bytes: Bytes) {
        self.weight += bytes.len() / READ_SHARE;
        self.set_aside.push(SetAside { place, reason, bytes });
    }

    fn add(&mut self, piece: Piece, place: &str, window: Window) {
        let bytes = Bytes::from(piece.bytes);
        let read = match piece.flaw {
            None => formats::read(&bytes),
            Some(flaw) => Err(flaw),
        };
        let (decoded, headers) = match read {
            Ok(read) => read,
            Err(reason) => return self.set_aside(place.to_owned(), reason, bytes),
        };
        self.weight += bytes.len() / READ_SHARE;
        for refused in decoded.refused {
            let place = format!("{place}, item {}", refused.index + 1);
            self.set_aside(place, refused.reason.to_owned(), refused.request());
        }
        for item in decoded.batch.items {
            let is_inside = |span: &Span| (window.from_ns..window.to_ns).contains(&span.start_ns);
            if item.as_span().is_none_or(is_inside) {
                self.push(item, &headers);
            } else {
                self.outside += 1;
            }
        }
    }

    fn push(&mut self, item: Item, headers: &Headers) {
        let is_otlp = item.as_span().is_some_and(Span::is_otlp);
        let weight = item.wire().len() + ITEM_WEIGHT;
        self.weight += weight;
        let takes = |post: &&mut Post| {
            post.is_otlp == is_otlp && post.headers == *headers && post.weight < WEIGHT
        };
        if let Some(post) = self.posts.iter_mut().rfind(takes) {
            post.weight += weight;
            post.items.push(item);
        } else {
            let headers = headers.clone();
            self.posts.push(Post { is_otlp, headers, items: vec![item], weight });
        }
    }
}
