//! Who consumes, beside the cursors: a cursor file that is lost or damaged must not make its consumer look new, since a new one begins
//! at the end of the log.
//!
//! ```text
//! consumers.list
//!      0      8  magic            "sfrstr\r\n"
//!      8      4  checksum         CRC-32 of the rest
//!     12      -  names, each with a line break
//! ```

use std::collections::BTreeSet;
use std::io;

use bytes::{Buf as _, BufMut as _};

use super::storage::Storage;

pub(super) const NAME: &str = "consumers.list";
const MAGIC: [u8; 8] = *b"sfrstr\r\n";

/// The names of all who have a cursor; `None` where the file is missing or damaged.
pub(super) fn read(
    storage: &dyn Storage,
    files: &[String],
) -> io::Result<Option<BTreeSet<String>>> {
    if !files.iter().any(|file| file == NAME) {
        return Ok(None);
    }
    let bytes = storage.read(NAME)?;
    let names = bytes.strip_prefix(&MAGIC).and_then(|mut rest| {
        let is_whole = rest.try_get_u32_le().ok()? == crc32fast::hash(rest);
        is_whole.then(|| std::str::from_utf8(rest).ok()).flatten()
    });
    Ok(names.map(|names| names.lines().map(str::to_owned).collect()))
}

/// Replaces the file.
pub(super) fn write<'a>(
    storage: &dyn Storage,
    names: impl IntoIterator<Item = &'a String>,
) -> io::Result<()> {
    let lines: String = names.into_iter().flat_map(|name| [name, "\n"]).collect();
    let mut bytes = MAGIC.to_vec();
    bytes.put_u32_le(crc32fast::hash(lines.as_bytes()));
    bytes.extend_from_slice(lines.as_bytes());
    storage.replace(NAME, &bytes)
}
