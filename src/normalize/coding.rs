//! Decompresses bodies into a capped buffer. The content codings are identity, gzip (also several members), deflate (zlib) and zstd.
//!
//! The output grows with the bytes that really come out, not with what a header claims, and never beyond the limit: a bomb of 100 MiB costs
//! no more memory than the limit.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::bufread;

/// How a body is compressed. The numbers are those of `record.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Coding {
    /// Uncompressed.
    Identity = 0,
    /// RFC 1952, one or more members.
    Gzip = 1,
    /// RFC 9110's `deflate`, which is the zlib format of RFC 1950. Raw RFC 1951 data, which some clients send instead, is accepted, too.
    Deflate = 2,
    /// RFC 8878, one or more frames.
    Zstd = 3,
}

impl Coding {
    /// Parses a `Content-Encoding` or `grpc-encoding` header, in either case. Returns `None` for an unknown coding.
    pub fn from_header(name: &str) -> Option<Self> {
        match &*name.trim().to_ascii_lowercase() {
            "" | "identity" | "none" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Why a body could not be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// It exceeds the limit when decompressed. Nothing beyond the limit was produced.
    #[error("the body is larger than {max} bytes once decompressed")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// It is invalid in its coding.
    #[error("the body is not valid {coding:?}: {problem}")]
    Broken {
        /// The coding.
        coding: Coding,
        /// The decompressor's error.
        problem: io::Error,
    },
}

/// The largest window that a zstd frame may request: 2^23 bytes, RFC 9659's limit for content codings. zstd's levels up to 19 keep to it.
/// The window is allocated in addition to the output, so it must be well below the limit of a body.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The smallest first step of the output, because the size of a small body predicts little.
const FIRST_STEP_BYTES_MIN: usize = 8 * 1024;

/// Compression usually reduces spans to a quarter or less, so a first step of this multiple of the input is seldom too large.
const USUAL_RATIO: usize = 4;

/// Decompresses a body. An identity body is passed through without a copy.
pub fn inflate(coding: Coding, body: Bytes, bytes_max: usize) -> Result<Bytes, InflateError> {
    let broken = |problem| InflateError::Broken { coding, problem };
    let input = body.as_ref();
    let decoder: Box<dyn Read + '_> = match coding {
        Coding::Identity if body.len() <= bytes_max => return Ok(body),
        Coding::Identity => return Err(InflateError::TooLarge { max: bytes_max }),
        Coding::Gzip => Box::new(bufread::MultiGzDecoder::new(input)),
        Coding::Deflate if is_zlib(input) => Box::new(bufread::ZlibDecoder::new(input)),
        Coding::Deflate => Box::new(bufread::DeflateDecoder::new(input)),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
            Box::new(decoder)
        }
    };
    let inflated = drain(decoder, input.len(), bytes_max).map_err(broken)?;
    inflated.ok_or(InflateError::TooLarge { max: bytes_max })
}

/// Returns whether the input begins with a zlib header: method 8, and two bytes that are a multiple of 31 (RFC 1950).
fn is_zlib(input: &[u8]) -> bool {
    match input {
        &[method, flags, ..] => method & 0x0f == 8 && u16::from_be_bytes([method, flags]) % 31 == 0,
        // The input is too short for any format; the zlib decoder reports that.
        _ => true,
    }
}

/// Reads the decoder to its end. Returns `None` if there are more than `bytes_max` bytes.
fn drain(mut decoder: impl Read, input_len: usize, bytes_max: usize) -> io::Result<Option<Bytes>> {
    let mut inflated = Vec::new();
    let mut step = input_len.saturating_mul(USUAL_RATIO).max(FIRST_STEP_BYTES_MIN);
    loop {
        // One byte beyond the limit distinguishes a body that is too large from one that just fits.
        let room = bytes_max.saturating_add(1) - inflated.len();
        let wanted = step.min(room);
        inflated.reserve_exact(wanted);
        let read = decoder.by_ref().take(wanted as u64).read_to_end(&mut inflated)?;
        if bytes_max < inflated.len() {
            return Ok(None);
        }
        if read < wanted {
            break;
        }
        step = inflated.len();
    }
    // The body may be kept for long, so it must not hold unused memory.
    inflated.shrink_to_fit();
    Ok(Some(Bytes::from(inflated)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::support::{compress, golden};

    const MAX: usize = 1 << 20;

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn raw_deflate(body: &[u8]) -> Vec<u8> {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn compressed(coding: Coding, body: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Identity => body.to_vec(),
            Coding::Gzip => compress::gzip(body, 6).unwrap(),
            Coding::Deflate => zlib(body),
            Coding::Zstd => compress::zstd(body, 3).unwrap(),
        }
    }

    fn undone(coding: Coding, body: Vec<u8>) -> Result<Bytes, InflateError> {
        inflate(coding, Bytes::from(body), MAX)
    }

    const ALL: [Coding; 4] = [Coding::Identity, Coding::Gzip, Coding::Deflate, Coding::Zstd];

    #[test]
    fn names_are_known_in_either_case() {
        for (name, coding) in [
            ("", Some(Coding::Identity)),
            ("Identity", Some(Coding::Identity)),
            ("none", Some(Coding::Identity)),
            (" GZIP ", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("zstd", Some(Coding::Zstd)),
            ("br", None),
            ("gzip, zstd", None),
        ] {
            assert_eq!(Coding::from_header(name), coding, "{name}");
        }
    }

    #[test]
    fn members_and_frames_in_a_row_are_one_body() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let two = [compressed(coding, b"one "), compressed(coding, b"two")].concat();
            assert_eq!(undone(coding, two).unwrap(), "one two", "{coding:?}");
        }
    }

    #[test]
    fn bare_deflate_data_is_read_too() {
        let body = b"a span, a span, a span".repeat(10);
        assert_eq!(undone(Coding::Deflate, raw_deflate(&body)).unwrap(), body);
    }

    #[test]
    fn what_is_cut_short_is_broken() {
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
            let mut body = compressed(coding, &b"some text that is long enough ".repeat(20));
            body.truncate(body.len() - 5);
            assert!(matches!(undone(coding, body), Err(InflateError::Broken { .. })), "{coding:?}");
            assert!(
                matches!(undone(coding, Vec::new()), Err(InflateError::Broken { .. }))
                    || coding == Coding::Zstd
            );
        }
    }

    #[test]
    fn what_is_something_else_is_broken() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            assert!(
                matches!(undone(coding, b"plain text".to_vec()), Err(InflateError::Broken { .. })),
                "{coding:?}"
            );
            let garbage_behind = [compressed(coding, b"text"), b"garbage".to_vec()].concat();
            assert!(
                matches!(undone(coding, garbage_behind), Err(InflateError::Broken { .. })),
                "{coding:?}"
            );
        }
        assert!(matches!(
            undone(Coding::Deflate, vec![0x78, 0x9c, 0xff]),
            Err(InflateError::Broken { .. })
        ));
    }

    #[test]
    fn the_limit_is_the_last_length_that_passes() {
        for coding in ALL {
            for (length, fits) in [(MAX - 1, true), (MAX, true), (MAX + 1, false)] {
                let body = undone(coding, compressed(coding, &vec![7; length]));
                match body {
                    Ok(body) => assert!(fits && body.len() == length, "{coding:?} {length}"),
                    Err(InflateError::TooLarge { max }) => {
                        assert!(!fits && max == MAX, "{coding:?} {length}");
                    }
                    Err(error) => panic!("{coding:?} {length}: {error}"),
                }
            }
        }
    }

    /// Counts the bytes that are read from a decoder's input.
    struct Counted<'a> {
        zeros: usize,
        read: &'a mut usize,
    }

    impl Read for Counted<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let length = into.len().min(self.zeros);
            into.split_at_mut(length).0.fill(0);
            self.zeros -= length;
            *self.read += length;
            Ok(length)
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let mut read = 0;
        assert!(drain(Counted { zeros: 1 << 40, read: &mut read }, 100, MAX).unwrap().is_none());
        assert_eq!(read, MAX + 1);
        let bomb = golden::read("otlp/hostile/014_gzip-bomb-100MiB.pb.gz");
        assert!(matches!(undone(Coding::Gzip, bomb), Err(InflateError::TooLarge { max: MAX })));
    }

    #[test]
    fn a_window_larger_than_allowed_is_not_allocated() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).unwrap();
        encoder.write_all(b"small").unwrap();
        assert!(matches!(
            undone(Coding::Zstd, encoder.finish().unwrap()),
            Err(InflateError::Broken { .. })
        ));
    }

    #[test]
    fn nothing_unused_is_kept() {
        let body = undone(Coding::Gzip, compressed(Coding::Gzip, b"short")).unwrap();
        assert_eq!(body.try_into_mut().unwrap().capacity(), 5);
    }

    proptest! {
        #[test]
        fn any_body_comes_back(body: Vec<u8>, repeats in 1_usize..200) {
            let body = body.repeat(repeats);
            for coding in ALL {
                prop_assert_eq!(undone(coding, compressed(coding, &body)).unwrap(), body.as_slice());
            }
        }

        #[test]
        fn any_bytes_are_survived(body: Vec<u8>) {
            for coding in ALL {
                if let Ok(inflated) = undone(coding, body.clone()) {
                    prop_assert!(inflated.len() <= MAX);
                }
            }
        }
    }
}
