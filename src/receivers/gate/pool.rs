//! Memory of large bodies, used again. A fresh piece of that size comes from the kernel page by page, each zeroed when it is first
//! touched, and goes back as soon as it is free: for agent spans that cost more than filling it did.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Smaller pieces stay with the allocator, which hands them out again by itself.
const PIECE_BYTES_MIN: usize = 32 << 10;
/// Larger ones are rare, and too much to keep for the next.
const PIECE_BYTES_MAX: usize = 2 << 20;
/// All pieces that wait: what a lane leaves behind when it has read what came in during its rest, at 100,000 agent spans a second.
const BYTES_MAX: usize = 8 << 20;
/// Pieces are as long as they must be, rounded up to this, so that one fits bodies of about the same length.
const STEP_BYTES: usize = 16 << 10;

/// Pieces that wait to be used again. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// The one that was given back last is the last, and likely still in the processor's cache.
    pieces: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// An empty piece with room for so many bytes, and for no more than twice as many.
    pub(super) fn take(&self, bytes: usize) -> Vec<u8> {
        if bytes < PIECE_BYTES_MIN {
            return Vec::with_capacity(bytes);
        }
        let mut waiting = self.lock();
        let fits = |piece: &Vec<u8>| (bytes..=2 * bytes).contains(&piece.capacity());
        match waiting.pieces.iter().rposition(fits) {
            Some(place) => waiting.remove(place),
            None => Vec::with_capacity(bytes.next_multiple_of(STEP_BYTES)),
        }
    }

    /// The bytes of a piece. It is given back when nobody holds any of them; at once where it turned out to be much too large.
    pub(super) fn share(&self, piece: Vec<u8>) -> Bytes {
        if piece.len() < piece.capacity() / 2 {
            let bytes = Bytes::copy_from_slice(&piece);
            self.give_back(piece);
            return bytes;
        }
        if !is_kept(&piece) {
            return Bytes::from(piece);
        }
        Bytes::from_owner(Shared { piece, pool: self.clone() })
    }

    fn give_back(&self, mut piece: Vec<u8>) {
        if !is_kept(&piece) {
            return;
        }
        piece.clear();
        let mut waiting = self.lock();
        while BYTES_MAX < waiting.bytes + piece.capacity() {
            // Sizes that nobody asks for any more give way to those in use.
            waiting.remove(0);
        }
        waiting.bytes += piece.capacity();
        waiting.pieces.push(piece);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn remove(&mut self, place: usize) -> Vec<u8> {
        let piece = self.pieces.remove(place);
        self.bytes -= piece.capacity();
        piece
    }
}

fn is_kept(piece: &Vec<u8>) -> bool {
    (PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&piece.capacity())
}

/// A piece in use.
struct Shared {
    piece: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pool: &Pool, bytes: usize) -> Bytes {
        let mut piece = pool.take(bytes);
        piece.resize(bytes, 7);
        pool.share(piece)
    }

    #[test]
    fn a_piece_is_used_again_once_nobody_holds_it() {
        let pool = Pool::default();
        let body = filled(&pool, 100_000);
        let (place, slice) = (body.as_ptr(), body.slice(10..20));
        drop(body);
        let other = filled(&pool, 100_000);
        assert_ne!(other.as_ptr(), place);
        assert_eq!(slice, [7; 10].as_slice());
        drop(slice);
        let again = pool.take(90_000);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn a_piece_is_never_much_larger_than_what_is_asked_for() {
        let pool = Pool::default();
        drop(filled(&pool, 1 << 20));
        assert!(pool.take(100_000).capacity() <= 2 * 100_000);
        assert_eq!(pool.lock().pieces.len(), 1);
    }

    #[test]
    fn a_piece_that_is_much_too_large_does_not_wait_for_its_few_bytes() {
        let pool = Pool::default();
        let mut piece = pool.take(64 << 10);
        piece.push(7);
        let place = piece.as_ptr();
        let body = pool.share(piece);
        assert_eq!(body, [7].as_slice());
        let again = pool.take(64 << 10);
        assert_eq!(again.as_ptr(), place);
    }

    #[test]
    fn what_waits_is_bounded() {
        let pool = Pool::default();
        let bodies: Vec<_> = (0..40).map(|_| filled(&pool, 1 << 20)).collect();
        drop(bodies);
        drop(filled(&pool, PIECE_BYTES_MAX + 1));
        drop(filled(&pool, 100));
        assert_eq!(pool.lock().bytes, BYTES_MAX);
        assert_eq!(pool.lock().pieces.len(), 8);
    }
}
