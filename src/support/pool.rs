//! Large pieces of memory, used again. A fresh piece comes from the kernel page by page, each zeroed when it is first touched, and
//! goes back as soon as it is free: for agent spans that cost more than filling it did. Pieces are aligned, so that disks can read
//! and write them directly.

use std::sync::{Arc, Mutex};

use crate::support::lock::lock;
use bytes::Bytes;

/// What a large piece is aligned to, in bytes: what every disk and file system in use takes for an address of direct reads and
/// writes.
pub const ALIGNMENT: usize = 4096;

/// Smaller pieces stay with the allocator, which hands them out again by itself.
const PIECE_BYTES_MIN: usize = 32 << 10;
/// Larger ones are rare, and too much to keep for the next.
const PIECE_BYTES_MAX: usize = 2 << 20;
/// All pieces that wait: what a lane leaves behind when it has read what came in during its rest, at 100,000 agent spans a second.
const BYTES_MAX: usize = 8 << 20;
/// Pieces are as long as they must be, rounded up to this, so that one fits contents of about the same length.
const STEP_BYTES: usize = 16 << 10;

/// Pieces that wait to be used again. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pool(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// The one that was given back last is the last, and likely still in the processor's cache.
    memory: Vec<Vec<u8>>,
    bytes: usize,
}

/// Memory that is being filled.
#[derive(Debug, Default)]
pub struct Piece {
    memory: Vec<u8>,
    /// Where in the memory it begins.
    start: usize,
    /// How much it holds.
    filled: usize,
    /// How much it may hold.
    room: usize,
}

impl Piece {
    /// How much it may hold, in bytes.
    pub fn room(&self) -> usize {
        self.room
    }

    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.filled).unwrap_or_default()
    }

    /// Appends bytes; what there is no room for is left out.
    pub fn extend(&mut self, bytes: &[u8]) {
        let from = self.start + self.filled;
        let bytes = bytes.get(..self.room - self.filled).unwrap_or(bytes);
        if let Some(free) = self.memory.get_mut(from..from + bytes.len()) {
            free.copy_from_slice(bytes);
            self.filled += bytes.len();
        }
    }

    /// All of its memory, to be filled from the start. What is there is of no meaning.
    pub fn memory(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.room).unwrap_or_default()
    }

    /// Says how much of its memory was filled.
    pub fn set_filled(&mut self, bytes: usize) {
        self.filled = bytes.min(self.room);
    }
}

impl Pool {
    /// An empty piece with room for so many bytes, and for no more than about twice as many. What is behind the first `lead` bytes
    /// of a large one is aligned.
    pub fn take(&self, room: usize, lead: usize) -> Piece {
        if room < PIECE_BYTES_MIN {
            return Piece { memory: vec![0; room], start: 0, filled: 0, room };
        }
        let bytes = room + 2 * ALIGNMENT;
        let mut waiting = lock(&self.0);
        let fits = |memory: &Vec<u8>| (bytes..=2 * bytes).contains(&memory.len());
        let memory = match waiting.memory.iter().rposition(fits) {
            Some(place) => waiting.remove(place),
            None => vec![0; bytes.next_multiple_of(STEP_BYTES)],
        };
        drop(waiting);
        let start = memory.as_ptr().wrapping_add(lead).align_offset(ALIGNMENT);
        Piece { memory, start, filled: 0, room }
    }

    /// The bytes of a piece. It is given back when nobody holds any of them; at once where it turned out to be much too large.
    pub fn share(&self, piece: Piece) -> Bytes {
        if piece.filled < piece.memory.len() / 2 {
            let bytes = Bytes::copy_from_slice(piece.bytes());
            self.give_back(piece);
            return bytes;
        }
        if !is_kept(&piece.memory) {
            return Bytes::from(piece.memory).slice(piece.start..piece.start + piece.filled);
        }
        Bytes::from_owner(Shared { piece, pool: self.clone() })
    }

    /// Takes a piece back.
    pub fn give_back(&self, piece: Piece) {
        let memory = piece.memory;
        if !is_kept(&memory) {
            return;
        }
        let mut waiting = lock(&self.0);
        while BYTES_MAX < waiting.bytes + memory.len() {
            // Sizes that nobody asks for any more give way to those in use.
            waiting.remove(0);
        }
        waiting.bytes += memory.len();
        waiting.memory.push(memory);
    }
}

impl Waiting {
    fn remove(&mut self, place: usize) -> Vec<u8> {
        let memory = self.memory.remove(place);
        self.bytes -= memory.len();
        memory
    }
}

fn is_kept(memory: &[u8]) -> bool {
    (PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&memory.len())
}

/// A piece in use.
struct Shared {
    piece: Piece,
    pool: Pool,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.piece.bytes()
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
        let mut piece = pool.take(bytes, 0);
        piece.extend(&vec![7; bytes]);
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
        let again = pool.take(90_000, 0);
        assert_eq!((again.bytes().as_ptr(), again.bytes().len()), (place, 0));
    }

    #[test]
    fn what_is_behind_the_lead_of_a_large_piece_is_aligned() {
        let pool = Pool::default();
        for lead in [0, 5] {
            let mut piece = pool.take(100_000, lead);
            piece.extend(&vec![7; 100_000]);
            let body = pool.share(piece);
            assert_eq!(body.slice(lead..).as_ptr().addr() % ALIGNMENT, 0);
            assert_eq!(body, vec![7; 100_000]);
        }
    }

    #[test]
    fn a_piece_is_never_much_larger_than_what_is_asked_for() {
        let pool = Pool::default();
        drop(filled(&pool, 1 << 20));
        let piece = pool.take(100_000, 0);
        assert!(piece.memory.len() <= 2 * (100_000 + 2 * ALIGNMENT));
        assert_eq!(lock(&pool.0).memory.len(), 1);
    }

    #[test]
    fn a_piece_that_is_much_too_large_does_not_wait_for_its_few_bytes() {
        let pool = Pool::default();
        let mut piece = pool.take(64 << 10, 0);
        piece.extend(&[7]);
        let place = piece.memory.as_ptr();
        let body = pool.share(piece);
        assert_eq!(body, [7].as_slice());
        let again = pool.take(64 << 10, 0);
        assert_eq!(again.memory.as_ptr(), place);
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out() {
        let pool = Pool::default();
        let mut piece = pool.take(10, 0);
        piece.extend(&[1; 8]);
        piece.extend(&[2; 8]);
        assert_eq!(pool.share(piece), [1, 1, 1, 1, 1, 1, 1, 1, 2, 2].as_slice());
    }

    #[test]
    fn what_waits_is_bounded() {
        let pool = Pool::default();
        let bodies: Vec<_> = (0..40).map(|_| filled(&pool, 1_000_000)).collect();
        drop(bodies);
        drop(filled(&pool, PIECE_BYTES_MAX + 1));
        drop(filled(&pool, 100));
        let waiting = lock(&pool.0);
        assert!(waiting.bytes <= BYTES_MAX, "{}", waiting.bytes);
        assert_eq!(waiting.memory.len(), 8);
    }
}
