//! Large buffers that are reused. The kernel provides a fresh buffer page by page, zeroing each at the first access, and takes it back as
//! soon as it is free: for agent spans that costs more than filling it. Buffers are aligned for direct reads and writes.

use std::sync::{Arc, Mutex};

use crate::support::lock::lock;
use bytes::Bytes;

/// Alignment of large buffers, in bytes. All disks and file systems in use accept it as an address for direct reads and writes.
pub const ALIGNMENT: usize = 4096;

/// Smaller buffers stay with the allocator, which reuses them itself.
const PIECE_BYTES_MIN: usize = 32 << 10;
/// Larger buffers are rare, and too large to keep.
const PIECE_BYTES_MAX: usize = 2 << 20;
/// Memory of all idle buffers: what a lane frees after it has read the records received during its pause, at 100,000 agent spans a second.
const BYTES_MAX: usize = 8 << 20;
/// Buffer sizes are rounded up to this, so that a buffer fits other contents of about the same length.
const STEP_BYTES: usize = 16 << 10;

/// Idle buffers. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pool(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// Most recently returned last, because it is likely still in the processor's cache.
    memory: Vec<Vec<u8>>,
    bytes: usize,
}

/// A buffer that is being filled.
#[derive(Debug, Default)]
pub struct PoolBuffer {
    memory: Vec<u8>,
    /// Offset of its first byte in the memory.
    start: usize,
    /// Number of bytes filled.
    filled: usize,
    /// Capacity in bytes.
    room: usize,
}

impl PoolBuffer {
    /// Returns the capacity in bytes.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Returns the contents.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.filled).unwrap_or_default()
    }

    /// Appends bytes, truncated to the capacity.
    pub fn extend(&mut self, bytes: &[u8]) {
        let from = self.start + self.filled;
        let bytes = bytes.get(..self.room - self.filled).unwrap_or(bytes);
        if let Some(free) = self.memory.get_mut(from..from + bytes.len()) {
            free.copy_from_slice(bytes);
            self.filled += bytes.len();
        }
    }

    /// Returns all of its memory, to be filled from the start. The contents are arbitrary.
    pub fn memory(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.room).unwrap_or_default()
    }

    /// Sets how many bytes were filled.
    pub fn set_filled(&mut self, bytes: usize) {
        self.filled = bytes.min(self.room);
    }
}

impl Pool {
    /// Returns an empty buffer for so many bytes, of at most about twice the size. In a large one, the memory after the first `lead` bytes
    /// is aligned.
    pub fn take(&self, room: usize, lead: usize) -> PoolBuffer {
        if room < PIECE_BYTES_MIN {
            return PoolBuffer { memory: vec![0; room], start: 0, filled: 0, room };
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
        PoolBuffer { memory, start, filled: 0, room }
    }

    /// Converts a buffer to shared bytes. It returns to the pool with the last clone, or immediately if it is much too large.
    pub fn share(&self, piece: PoolBuffer) -> Bytes {
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

    /// Returns a buffer to the pool.
    pub fn give_back(&self, piece: PoolBuffer) {
        let memory = piece.memory;
        if !is_kept(&memory) {
            return;
        }
        let mut waiting = lock(&self.0);
        while BYTES_MAX < waiting.bytes + memory.len() {
            // The oldest buffer goes first, because its size is no longer in demand.
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

/// A buffer behind shared bytes.
struct Shared {
    piece: PoolBuffer,
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
