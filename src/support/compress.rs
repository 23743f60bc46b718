//! Compression of complete bodies.

use std::io::{self, Write as _};

/// Returns one gzip member. `level` is 0 (stored) to 9 (smallest).
pub fn gzip(body: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let out = Vec::with_capacity(body.len() / USUAL_RATIO + SMALL_BODY_BYTES);
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(level.min(9)));
    encoder.write_all(body)?;
    encoder.finish()
}

/// Returns one zstd frame with its content size. `level` is 1 to 22; 3 is zstd's own default.
pub fn zstd(body: &[u8], level: i32) -> io::Result<Vec<u8>> {
    ::zstd::bulk::compress(body, level)
}

/// Spans and their text shrink to a third or less. Assuming a half avoids most reallocations, which copy the output; untouched memory costs
/// nothing.
const USUAL_RATIO: usize = 2;

/// Header, trailer and first block of a body that hardly shrinks.
const SMALL_BODY_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn both_read_back_and_are_smaller() {
        let body = b"a span is like another span ".repeat(100);
        for level in [0, 1, 6, 9, 100] {
            let small = gzip(&body, level).unwrap();
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(small.as_slice()).read_to_end(&mut back).unwrap();
            assert_eq!(back, body);
            assert_eq!(small.len() < body.len(), level != 0);
        }
        let small = zstd(&body, 3).unwrap();
        assert!(small.len() < body.len());
        assert_eq!(::zstd::decode_all(small.as_slice()).unwrap(), body);
    }
}
