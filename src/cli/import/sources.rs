//! Opens sources as named byte streams: files, folders, patterns, objects of stores and the standard input. They are decompressed, and a
//! later run recognises them (`--resume`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor, Read, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, glob_with};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::pieces::{PIECE_BYTES_MAX, Pieces, ZSTD_MAGIC};
use crate::support::moment;
use crate::support::rfc3339::NS_PER_SECOND;

/// The number of first bytes that identify a stream of an earlier run.
const HEAD_BYTES: u64 = 4096;
/// RFC 1952, section 2.3.1.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// A byte stream that can be opened. Imports accept anything that can be opened as such streams.
pub(super) struct Source {
    /// Its name in messages and in the file of `--resume`.
    pub(super) name: String,
    /// The store's tag for its content.
    pub(super) e_tag: Option<String>,
    open: Box<dyn FnOnce() -> io::Result<Box<dyn Read + Send>> + Send>,
}

/// The progress of an import.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// The import's destination and filters. Resuming a different import would skip what that one has to send.
    asked: String,
    /// The sources' progress by name.
    pub(super) sources: BTreeMap<String, Progress>,
}

/// The progress of a source.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The mark of its beginning.
    pub(super) mark: Mark,
    /// The number of lines or messages from its beginning that are done.
    pub(super) done: u64,
    /// The tag of an object's content if all of it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) whole: Option<String>,
}

/// The mark of a stream's beginning. It stays the same for files that grew, but not for rotated or rewritten ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    bytes: usize,
    xxh3: String,
}

impl Mark {
    fn of(head: &[u8]) -> Self {
        Self { bytes: head.len(), xxh3: format!("{:016x}", xxh3_64(head)) }
    }
}

impl Source {
    pub(super) fn new(
        name: String,
        e_tag: Option<String>,
        open: impl FnOnce() -> io::Result<Box<dyn Read + Send>> + Send + 'static,
    ) -> Self {
        Self { name, e_tag, open: Box::new(open) }
    }

    pub(super) fn of_file(path: PathBuf) -> Self {
        Self::new(path.display().to_string(), None, || Ok(Box::new(File::open(path)?)))
    }

    /// Opens it, and detects its compression from its content. Progress counts only if its beginning is unchanged.
    pub(super) fn open(self, before: &Progress) -> io::Result<(Pieces, Progress)> {
        let mut stored = (self.open)()?;
        let mut head = Vec::new();
        stored.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
        let mark = Mark::of(&head);
        let is_same = head.get(..before.mark.bytes).is_some_and(|it| Mark::of(it) == before.mark);
        let done = if is_same { before.done } else { 0 };
        let (is_gzip, is_zstd) = (head.starts_with(GZIP_MAGIC), head.starts_with(ZSTD_MAGIC));
        let stored = BufReader::new(Cursor::new(head).chain(stored));
        let content: Box<dyn BufRead> = if is_gzip {
            Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(stored)))
        } else if is_zstd {
            Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(stored)?))
        } else {
            Box::new(stored)
        };
        Ok((Pieces::of(content, PIECE_BYTES_MAX)?, Progress { mark, done, whole: None }))
    }
}

const HOUR_NS: u64 = 3600 * NS_PER_SECOND;
const DAY_NS: u64 = 24 * HOUR_NS;
/// A client's clock may be ahead, so that a span arrives before it starts.
const AHEAD_NS: u64 = HOUR_NS;
/// A span arrives when it has ended, or later, when its client is able to send it.
const LATE_NS: u64 = DAY_NS;

/// Returns whether a source may have spans that started in the window, by its partition's arrival time (`dt=2026-11-21/hour=05`).
pub(super) fn may_be_of(window: &Range<u64>, name: &str) -> bool {
    let value = |key: &str| name.split('/').find_map(|part| part.strip_prefix(key));
    let (date, hour) = (value("dt=").unwrap_or_default(), value("hour="));
    let begins = moment::read(&format!("{date}T{}:00:00Z", hour.unwrap_or("00")), 0);
    let Ok(begins) = begins else { return true };
    let ends = begins + if hour.is_some() { HOUR_NS } else { DAY_NS };
    window.start < ends.saturating_add(AHEAD_NS) && begins < window.end.saturating_add(LATE_NS)
}

/// Finds a file, the files below a folder, or those that match a pattern. Hidden files are included only if they are named.
pub(super) fn files(given: &str) -> Result<Vec<Source>, String> {
    let path = Path::new(given);
    let pattern = if path.is_dir() {
        format!("{}/**/*", Pattern::escape(given.trim_end_matches('/')))
    } else if path.exists() {
        Pattern::escape(given)
    } else {
        given.to_owned()
    };
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let mut found = Vec::new();
    for path in glob_with(&pattern, options).map_err(|error| format!("{given}: {error}"))? {
        let path = path.map_err(|error| format!("{given}: {error}"))?;
        if !path.is_dir() {
            found.push(Source::of_file(path));
        }
    }
    if found.is_empty() { Err(format!("{given}: no file was found")) } else { Ok(found) }
}

impl State {
    /// Loads the state that an earlier run left in this file; if the file does not exist, that of a new import. Saves it again, so that a
    /// file that cannot be written to is noticed before anything is sent.
    pub(super) fn load(file: &Path, asked: &str) -> io::Result<Self> {
        let state = match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self { asked: asked.to_owned(), ..Self::default() }
            }
            text => serde_json::from_slice(&text?)?,
        };
        if state.asked == asked {
            let unsaved = |error| io::Error::other(format!("progress cannot be saved: {error}"));
            state.save(file).map_err(unsaved)?;
            return Ok(state);
        }
        let other = format!("it belongs to another import, {}; this one is {asked}", state.asked);
        Err(io::Error::other(other))
    }

    /// Replaces the file. After a crash, it holds either the old state or the new one.
    pub(super) fn save(&self, file: &Path) -> io::Result<()> {
        let beside = file.with_added_extension("new");
        let mut written = File::create(&beside)?;
        written.write_all(&serde_json::to_vec(self)?)?;
        written.sync_data()?;
        fs::rename(beside, file)
    }
}
