//! What is imported, as byte streams with names: files, folders, patterns and the standard input; decompressed, and known again by a later
//! run (`--resume`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor, Read, Write as _};
use std::path::Path;

use glob::{MatchOptions, Pattern, glob_with};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::pieces::{PIECE_BYTES_MAX, Pieces, ZSTD_MAGIC};

/// So many of the first bytes tell whether a stream is the one of an earlier run.
const HEAD_BYTES: u64 = 4096;
/// RFC 1952, section 2.3.1.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// A byte stream that can be opened. Whatever can name such streams can be imported from.
pub(super) struct Source {
    /// What messages and the file of `--resume` call it.
    pub(super) name: String,
    open: Box<dyn FnOnce() -> io::Result<Box<dyn Read + Send>> + Send>,
}

/// How far an import is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Where it goes and which spans are meant: a resume of another import would leave out what that one has to send.
    asked: String,
    /// By name.
    pub(super) sources: BTreeMap<String, Progress>,
}

/// How far a source is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// How it begins.
    pub(super) mark: Mark,
    /// Lines or messages from its beginning that are done with.
    pub(super) done: u64,
}

/// How a stream begins. Files that grew are the same; files that were rotated or written anew are not.
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
    /// Opens it, and sees from its content how it is compressed. What was done of it counts where it begins as it did.
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
        Ok((Pieces::of(content, PIECE_BYTES_MAX)?, Progress { mark, done }))
    }
}

/// What the arguments name, in the order of names where one names many.
pub(super) fn find(given: &[String]) -> Result<Vec<Source>, String> {
    let mut found = Vec::new();
    for argument in given {
        match argument.strip_prefix("file://").unwrap_or(argument) {
            "-" => found.push(Source {
                name: "-".to_owned(),
                open: Box::new(|| Ok(Box::new(io::stdin()))),
            }),
            remote if remote.contains("://") => {
                return Err(format!("{remote}: only files can be read; copy it to this machine"));
            }
            path => found.extend(files(path)?),
        }
    }
    Ok(found)
}

/// A file, what is in a folder and below, or what a pattern matches. Hidden files are meant only where they are named.
fn files(given: &str) -> Result<Vec<Source>, String> {
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
            let name = path.display().to_string();
            found.push(Source { name, open: Box::new(|| Ok(Box::new(File::open(path)?))) });
        }
    }
    if found.is_empty() { Err(format!("{given}: there is no such file")) } else { Ok(found) }
}

impl State {
    /// What an earlier run left in this file; the beginning of an import where it is not there.
    pub(super) fn load(file: &Path, asked: &str) -> Result<Self, String> {
        let state = match fs::read(file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self { asked: asked.to_owned(), ..Self::default() }
            }
            Err(error) => return Err(error.to_string()),
        };
        if state.asked == asked {
            return Ok(state);
        }
        Err(format!("it is of another import, {}; this one is {asked}", state.asked))
    }

    /// Replaces the file. Either the old state or the new one is there after a crash.
    pub(super) fn save(&self, file: &Path) -> io::Result<()> {
        let beside = file.with_added_extension("new");
        let mut written = File::create(&beside)?;
        written.write_all(&serde_json::to_vec(self)?)?;
        written.sync_data()?;
        fs::rename(beside, file)
    }
}
