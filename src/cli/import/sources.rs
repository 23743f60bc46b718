//! What is imported, as byte streams with names: files, folders, patterns and the standard input; decompressed, and known again later.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use glob::{MatchOptions, Pattern, glob_with};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::pieces::{PIECE_BYTES_MAX, Pieces, ZSTD_MAGIC};

/// So many of the first bytes tell whether a stream is the one of an earlier run.
const HEAD_BYTES: u64 = 4096;
/// RFC 1952, section 2.3.1.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// A byte stream as it is stored.
type Stored = Box<dyn Read + Send>;

/// A byte stream that can be opened. Whatever can name such streams can be imported from.
pub(super) struct Source {
    /// What messages and the file of `--resume` call it.
    pub(super) name: String,
    open: Box<dyn FnOnce() -> io::Result<Stored> + Send>,
}

/// How a stream began. Files that grew are the same; files that were rotated or written anew are not.
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

/// A stream that is being read.
pub(super) struct Opened {
    pub(super) pieces: Pieces,
    pub(super) mark: Mark,
    /// Whether it began as it did in an earlier run.
    pub(super) is_known: bool,
}

impl Source {
    /// Opens it, sees from its content how it is compressed, and compares its beginning with how it once began.
    pub(super) fn open(self, earlier: &Mark) -> io::Result<Opened> {
        let mut stored = (self.open)()?;
        let mut head = Vec::new();
        stored.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
        let mark = Mark::of(&head);
        let is_known = head.get(..earlier.bytes).is_some_and(|head| Mark::of(head) == *earlier);
        let (is_gzip, is_zstd) = (head.starts_with(GZIP_MAGIC), head.starts_with(ZSTD_MAGIC));
        let stored = BufReader::new(Cursor::new(head).chain(stored));
        let content: Box<dyn BufRead> = if is_gzip {
            Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(stored)))
        } else if is_zstd {
            Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(stored)?))
        } else {
            Box::new(stored)
        };
        Ok(Opened { pieces: Pieces::of(content, PIECE_BYTES_MAX)?, mark, is_known })
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
    let paths = glob_with(&pattern, options).map_err(|error| format!("{given}: {error}"))?;
    let mut found = Vec::new();
    for path in paths {
        let path = path.map_err(|error| format!("{given}: {error}"))?;
        if !path.is_dir() {
            let name = path.display().to_string();
            let open = move || Ok(Box::new(File::open(path)?) as Stored);
            found.push(Source { name, open: Box::new(open) });
        }
    }
    if found.is_empty() { Err(format!("{given}: there is no such file")) } else { Ok(found) }
}
