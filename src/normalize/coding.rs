//! Content codings: identity, gzip (several members too), deflate (zlib) and zstd, undone into a capped buffer.

use std::io::{self, Read};

use bytes::Bytes;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Coding {
    /// Not at all.
    #[default]
    Identity,
    /// RFC 1952, one or more members.
    Gzip,
    /// RFC 9110's `deflate`, which is the zlib format of RFC 1950.
    Deflate,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// The coding of a `Content-Encoding` or `grpc-encoding` header, in either case; `None` for one that is not known.
    pub fn from_header(name: &str) -> Option<Self> {
        let is = |known: &str| name.trim().eq_ignore_ascii_case(known);
        match () {
            () if is("") || is("identity") => Some(Self::Identity),
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("deflate") => Some(Self::Deflate),
            () if is("zstd") => Some(Self::Zstd),
            () => None,
        }
    }
}

/// Why a body could not be inflated.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// It is larger than allowed once inflated; nothing beyond the limit was produced.
    #[error("the body is larger than {max} bytes once decompressed")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// It does not follow its coding.
    #[error("the body is not valid {coding:?}: {problem}")]
    Broken {
        /// The coding.
        coding: Coding,
        /// What the decompressor said.
        problem: io::Error,
    },
}

/// A zstd frame may ask for a window this large (2^27 bytes is what the format recommends decoders to support at most).
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Undoes a coding. Identity bodies are passed through without a copy.
pub fn inflate(coding: Coding, body: Bytes, bytes_max: usize) -> Result<Bytes, InflateError> {
    let broken = |problem| InflateError::Broken { coding, problem };
    let input = body.as_ref();
    match coding {
        Coding::Identity if body.len() > bytes_max => {
            Err(InflateError::TooLarge { max: bytes_max })
        }
        Coding::Identity => Ok(body),
        Coding::Gzip => drain(flate2::bufread::MultiGzDecoder::new(input), coding, bytes_max),
        Coding::Deflate => drain(flate2::bufread::ZlibDecoder::new(input), coding, bytes_max),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
            drain(decoder, coding, bytes_max)
        }
    }
}

fn drain(decoder: impl Read, coding: Coding, bytes_max: usize) -> Result<Bytes, InflateError> {
    let mut inflated = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    decoder
        .take(limit)
        .read_to_end(&mut inflated)
        .map_err(|problem| InflateError::Broken { coding, problem })?;
    if inflated.len() > bytes_max {
        return Err(InflateError::TooLarge { max: bytes_max });
    }
    Ok(Bytes::from(inflated))
}
