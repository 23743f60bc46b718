//! What is read becomes batches, in the order in which it stands in the sources.
//!
//! What is read is a function of the source and the place alone, so what is sent again after a kill are the same items, byte for byte, which
//! the daemon recognises.

use std::{fmt, io};

use bytes::Bytes;

use super::formats;
use super::pieces::{PIECE_BYTES_MAX, Piece, Pieces};
use super::sources::{Mark, Opened, Source};
use super::state::{Progress, State};
use crate::normalize::sdk_requests;
use crate::span::otlp::protobuf::write_request;
use crate::span::{Item, Span};
use crate::support::rfc3339;

/// A batch is sent once it has so many bytes: much for one fsync, little for a receiver that takes 64 MiB.
const BATCH_BYTES: usize = 1 << 20;
/// Or so many items, which is little of the 200,000 that a request may have.
const BATCH_ITEMS: usize = 10_000;
/// Or when so much was read of which nothing is to be sent, so that a resume knows of it.
const BATCH_READ_BYTES: usize = 64 << 20;

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

/// A request.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) is_otlp: bool,
    pub(super) headers: Vec<(String, String)>,
    pub(super) items: u64,
    pub(super) body: Bytes,
}

/// What is not sent, or was not taken.
#[derive(Debug)]
pub(super) struct SetAside {
    /// Where it stands, in words.
    pub(super) place: String,
    pub(super) reason: String,
    pub(super) bytes: Bytes,
}

/// A part of a source.
#[derive(Debug)]
pub(super) struct Batch {
    /// The source's name, and how it begins.
    pub(super) source: String,
    pub(super) mark: Mark,
    /// Lines or messages of the source that are done with when this is.
    pub(super) done: u64,
    /// Whether the source was read to its end.
    pub(super) is_end: bool,
    pub(super) posts: Vec<Post>,
    /// Spans that started outside of the window.
    pub(super) outside: u64,
    pub(super) set_aside: Vec<SetAside>,
}

/// Items for one door, with the headers that their clients sent. A piece may hold many times a batch, and a request then only a part of it.
struct Group {
    is_otlp: bool,
    headers: Vec<(String, String)>,
    bytes: usize,
    items: Vec<Item>,
}

/// A source that is being read.
struct Reading {
    pieces: Pieces,
    mark: Mark,
    /// Whether an earlier run has read it.
    is_known: bool,
}

/// A batch that is being made.
#[derive(Default)]
struct Making {
    groups: Vec<Group>,
    bytes: usize,
    items: usize,
    read_bytes: usize,
    outside: u64,
    set_aside: Vec<SetAside>,
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
        let before = earlier.sources.get(&name);
        let earlier_mark = before.map(|before| &before.mark);
        let is_wanted = match source.open(earlier_mark).and_then(Reading::of) {
            Ok(reading) => {
                let done_before =
                    before.filter(|_| reading.is_known).map_or(0, |before| before.done);
                // An empty batch: how far it was counts no more.
                let is_new = done_before == 0 && before.is_some();
                (!is_new || give(Making::default().batch(&name, &reading.mark, (0, false))))
                    && reading.read(&name, done_before, window, &mut give)
            }
            Err(error) => {
                let mut making = Making::default();
                let reason = format!("it cannot be opened: {error}");
                making.set_aside(name.clone(), reason, Bytes::new());
                let Progress { mark, done, .. } = before.cloned().unwrap_or_default();
                give(making.batch(&name, &mark, (done, false)))
            }
        };
        if !is_wanted {
            return;
        }
    }
}

impl Reading {
    fn of(Opened { content, mark, is_known }: Opened) -> io::Result<Self> {
        Ok(Self { pieces: Pieces::of(content, PIECE_BYTES_MAX)?, mark, is_known })
    }

    /// Reads all behind these lines or messages. Whether more is wanted.
    fn read(
        mut self,
        name: &str,
        done_before: u64,
        window: Window,
        give: &mut impl FnMut(Batch) -> bool,
    ) -> bool {
        let mut making = Making::default();
        loop {
            let next = self.pieces.next();
            let place = |number| format!("{name}, {} {number}", self.pieces.unit());
            let (is_end, has_ended) = (!matches!(next, Ok(Some(_))), matches!(next, Ok(None)));
            match next {
                Ok(Some(piece)) if piece.place <= done_before => {}
                Ok(Some(piece)) => {
                    let place = place(piece.place);
                    making.add(piece, place, window);
                }
                Ok(None) => {}
                Err(error) => {
                    let reason = format!("it cannot be read any further: {error}");
                    making.set_aside(place(self.pieces.done() + 1), reason, Bytes::new());
                }
            }
            if is_end || making.is_full() {
                let at = (self.pieces.done(), has_ended);
                let is_wanted = give(std::mem::take(&mut making).batch(name, &self.mark, at));
                if is_end || !is_wanted {
                    return is_wanted;
                }
            }
        }
    }
}

impl Making {
    fn is_full(&self) -> bool {
        BATCH_BYTES <= self.bytes
            || BATCH_ITEMS <= self.items
            || BATCH_READ_BYTES <= self.read_bytes
    }

    fn set_aside(&mut self, place: String, reason: String, bytes: Bytes) {
        self.read_bytes += bytes.len();
        self.set_aside.push(SetAside { place, reason, bytes });
    }

    fn add(&mut self, piece: Piece, place: String, window: Window) {
        let bytes = Bytes::from(piece.bytes);
        let read = match piece.flaw {
            None => formats::read(&bytes),
            Some(flaw) => Err(flaw.into_owned()),
        };
        let (decoded, headers) = match read {
            Ok(read) => read,
            Err(reason) => return self.set_aside(place, reason, bytes),
        };
        self.read_bytes += bytes.len();
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

    fn push(&mut self, item: Item, headers: &[(String, String)]) {
        let (is_otlp, bytes) = (item.as_span().is_some_and(Span::is_otlp), item.wire().len());
        self.bytes += bytes;
        self.items += 1;
        let takes = |group: &&mut Group| {
            group.is_otlp == is_otlp && group.headers == headers && group.bytes < BATCH_BYTES
        };
        match self.groups.iter_mut().rfind(takes) {
            Some(group) => {
                group.bytes += bytes;
                group.items.push(item);
            }
            None => {
                let headers = headers.to_vec();
                self.groups.push(Group { is_otlp, headers, bytes, items: vec![item] });
            }
        }
    }

    fn batch(self, name: &str, mark: &Mark, (done, is_end): (u64, bool)) -> Batch {
        Batch {
            source: name.to_owned(),
            mark: mark.clone(),
            done,
            is_end,
            posts: self.groups.into_iter().map(Group::post).collect(),
            outside: self.outside,
            set_aside: self.set_aside,
        }
    }
}

impl Group {
    fn post(self) -> Post {
        let Self { is_otlp, headers, items, .. } = self;
        let body = if is_otlp {
            let mut body = Vec::new();
            write_request(&mut body, items.iter().filter_map(Item::as_span));
            Bytes::from(body)
        } else {
            sdk_requests(items.iter().map(|item| item.wire().as_ref()))
        };
        Post { is_otlp, headers, items: items.len() as u64, body }
    }
}
