//! `type = "file"`: spans as lines of JSON.
#![expect(clippy::disallowed_types, reason = "this sink writes files")]

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::{Delivery, Outcome, Pending, Sink};
use crate::span::Item;

/// Appends one line for each item.
#[derive(Debug)]
pub struct FileSink {
    file: Mutex<File>,
}

impl FileSink {
    /// Opens the file; what lies beyond the length of the last checkpoint is cut, because it will be delivered again.
    pub fn open(path: PathBuf, state: &[u8]) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let length = state.try_into().map_or(0, u64::from_le_bytes);
        file.set_len(length)?;
        Ok(Self { file: Mutex::new(file) })
    }
}

impl Sink for FileSink {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Outcome> {
        Box::pin(async {
            let mut lines = Vec::new();
            for (_, item) in delivery.items() {
                let Item::Span(span) = item else { continue };
                writeln!(
                    lines,
                    "{{\"trace_id\":\"{}\",\"span_id\":\"{}\"}}",
                    span.trace_id, span.span_id
                )
                .ok();
            }
            match self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&lines) {
                Ok(()) => Outcome::Delivered,
                Err(error) => Outcome::Retry { after: None, reason: error.to_string() },
            }
        })
    }

    fn checkpoint(&self) -> Pending<'_, Result<Bytes, String>> {
        Box::pin(async {
            let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.sync_data().map_err(|error| error.to_string())?;
            let length = file.metadata().map_err(|error| error.to_string())?.len();
            Ok(Bytes::copy_from_slice(&length.to_le_bytes()))
        })
    }
}
