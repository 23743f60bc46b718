//! Collects what is read from the sources into batches, in order.
//!
//! Batches depend only on the source and the position. After a kill, the same items are therefore sent again, byte for byte, and the daemon
//! recognises them.

use std::ops::Range;

use bytes::Bytes;

use super::formats::{self, SetAside};
use super::pieces::Chunk;
use super::sources::{Progress, Source};
use crate::span::{Item, Source as Client, Span};

/// The weight at which a batch ends: large for one fsync, small for a receiver that accepts 64 MiB.
const WEIGHT: usize = 1 << 20;
/// An item weighs this in addition to its bytes, because a request may have at most 200,000 items.
const ITEM_WEIGHT: usize = 100;
/// Bytes that are read count partly towards the weight, because a resume has to know the progress even if nothing of them is sent.
const READ_SHARE: usize = 64;

/// Items of one client for one receiver. A piece may exceed a batch many times, and a request then has a part of it.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) client: Client,
    pub(super) items: Vec<Item>,
    pub(super) weight: usize,
}

/// A part of a source, with its items and its rejects.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The source's name, and its progress after this batch.
    pub(super) source: String,
    pub(super) progress: Progress,
    /// Whether the source was read to its end.
    pub(super) is_end: bool,
    pub(super) posts: Vec<Post>,
    /// Spans that started outside of the window.
    pub(super) outside: u64,
    pub(super) set_aside: Vec<SetAside>,
    /// The measure by which a batch ends.
    pub(super) weight: usize,
}

/// Reads a source from its progress on, and passes on batches until they are no longer accepted. Only spans that started in the window (in
/// nanoseconds since 1970) are included.
pub(super) fn read(
    source: Source,
    before: Progress,
    window: &Range<u64>,
    give: impl Fn(Batch) -> Option<()>,
) -> Option<()> {
    let (name, e_tag) = (source.name.clone(), source.e_tag.clone());
    let empty = || Batch { source: name.clone(), ..Batch::default() };
    // Objects of a store that an earlier run completed. A file may have grown.
    if e_tag.is_some() && e_tag == before.whole {
        return give(Batch { progress: before, is_end: true, ..empty() });
    }
    let (mut pieces, mut progress) = match source.open(&before) {
        Ok(opened) => opened,
        Err(error) => {
            let mut batch = Batch { progress: before, ..empty() };
            batch.set_aside(name.clone(), format!("it cannot be opened: {error}"), Bytes::new());
            return give(batch);
        }
    };
    let (passed, mut is_over) = (progress.done, false);
    while !is_over {
        let mut batch = empty();
        while !is_over && batch.weight < WEIGHT {
            let next = pieces.next();
            let place = |number| format!("{name}, {} {number}", pieces.unit);
            is_over = !matches!(next, Ok(Some(_)));
            match next {
                Ok(Some(piece)) if piece.place <= passed => {}
                Ok(Some(piece)) => batch.add(&place(piece.place), piece, window),
                Ok(None) => batch.is_end = true,
                Err(error) => {
                    let reason = format!("the rest cannot be read: {error}");
                    batch.set_aside(place(pieces.done + 1), reason, Bytes::new());
                }
            }
        }
        progress.done = pieces.done;
        progress.whole = e_tag.clone().filter(|_| batch.is_end);
        batch.progress = progress.clone();
        give(batch)?;
    }
    Some(())
}

impl Batch {
    pub(super) fn set_aside(&mut self, place: String, reason: String, bytes: Bytes) {
        self.weight += bytes.len() / READ_SHARE;
        self.set_aside.push(SetAside { place, reason, bytes });
    }

    fn add(&mut self, place: &str, piece: Chunk, window: &Range<u64>) {
        let decoded = match formats::of_piece(&piece) {
            Ok(decoded) => decoded,
            Err(reason) => return self.set_aside(place.to_owned(), reason, piece.bytes),
        };
        self.weight += piece.bytes.len() / READ_SHARE;
        for refused in decoded.refused {
            let place = format!("{place}, item {}", refused.index + 1);
            self.set_aside(place, refused.reason.to_owned(), refused.request());
        }
        for item in decoded.batch.items {
            // A window without an end includes the last time of all, too.
            let is_inside = |span: &Span| window.contains(&span.start_ns.min(u64::MAX - 1));
            if item.as_span().is_none_or(is_inside) {
                self.push(item, &decoded.batch.source);
            } else {
                self.outside += 1;
            }
        }
    }

    fn push(&mut self, item: Item, client: &Client) {
        let weight = item.wire().len() + ITEM_WEIGHT;
        self.weight += weight;
        let takes = |post: &&mut Post| post.client == *client && post.weight < WEIGHT;
        if let Some(post) = self.posts.iter_mut().rfind(takes) {
            post.weight += weight;
            post.items.push(item);
        } else {
            self.posts.push(Post { client: client.clone(), items: vec![item], weight });
        }
    }
}
