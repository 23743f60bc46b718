//! The tail: the newest batches in memory, in journal order, bounded by bytes. Beside them it keeps what the foremost reader behind them
//! last read from the journal, so that readers at about the same place decode it once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use super::FeedEntry;
use crate::journal::{Mark, Position};
use crate::span::Batch;
use crate::support::lock::lock;

/// The batches that all lanes share.
#[derive(Debug)]
pub(super) struct Tail {
    bytes_max: usize,
    state: Mutex<State>,
    /// Everything before this was taken by some lane.
    lead: watch::Sender<Position>,
}

#[derive(Debug, Default)]
struct State {
    newest: Ring,
    /// What was read from the journal again.
    reread: Ring,
    /// Positions of the readers; a batch that all have passed is removed.
    readers: Vec<(ReaderId, Position)>,
    last_reader: ReaderId,
}

/// Consecutive batches.
#[derive(Debug, Default)]
struct Ring {
    /// Everything before this is not, or no longer, here.
    from: Position,
    batches: VecDeque<FeedEntry>,
    bytes: usize,
}

pub(super) type ReaderId = u64;

/// Readers up to this far behind what was read again will need it; others read the journal themselves for long.
const NEAR_BYTES: u64 = 4 << 20;

/// What the tail has for a reader.
pub(super) enum Look {
    /// Batches from the reader's position, up to the requested number.
    Here(Vec<FeedEntry>),
    /// No new batch yet.
    AtEnd,
    /// The reader is behind the tail and must read the journal up to this position.
    Behind(Position),
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default(), lead: watch::Sender::default() }
    }

    /// Adds the newest batch, and removes the oldest ones while there are too many bytes, even if they are unread.
    pub(super) fn publish(&self, start: Mark, end: Mark, batch: Arc<Batch>) {
        let mut state = self.lock();
        if state.newest.batches.is_empty() {
            state.newest.from = state.newest.from.max(start.position);
        }
        state.newest.push(FeedEntry { start, end, batch, not_understood: None, filtered: 0 });
        state.shrink(self.bytes_max);
    }

    /// Adds batches that a reader read from the journal at this position, if no lane was there before.
    pub(super) fn publish_again(&self, from: Position, batches: &VecDeque<FeedEntry>) {
        let mut state = self.lock();
        if from < *self.lead.borrow() {
            return;
        }
        if state.reread.end() != from {
            state.reread = Ring { from, ..Ring::default() };
        }
        batches.iter().cloned().for_each(|batch| state.reread.push(batch));
        while state.reread.bytes > self.bytes_max / 2 {
            state.reread.let_oldest_go();
        }
        state.shrink(self.bytes_max);
    }

    /// Registers a reader.
    pub(super) fn join(&self, position: Position) -> ReaderId {
        let mut state = self.lock();
        state.last_reader += 1;
        let id = state.last_reader;
        state.readers.push((id, position));
        id
    }

    /// Removes a reader.
    pub(super) fn leave(&self, id: ReaderId) {
        let mut state = self.lock();
        state.readers.retain(|(reader, _)| *reader != id);
        state.let_read_go();
    }

    /// Returns up to `count_max` batches from `position`.
    pub(super) fn look(&self, position: Position, count_max: usize) -> Look {
        let state = self.lock();
        let is_behind = position < state.newest.from;
        let is_again = is_behind && state.reread.from <= position;
        let ring = if is_again { &state.reread } else { &state.newest };
        match ring.from(position, count_max) {
            found if is_again == is_behind && !found.is_empty() => Look::Here(found),
            _ if is_behind => Look::Behind(state.newest.from),
            _ => Look::AtEnd,
        }
    }

    /// Notes that a reader has taken everything before `position`. Followers may follow one that leads.
    pub(super) fn advance(&self, id: ReaderId, position: Position, leads: bool) {
        let mut state = self.lock();
        if let Some((_, at)) = state.readers.iter_mut().find(|(reader, _)| *reader == id) {
            *at = position;
        }
        state.let_read_go();
        self.lead.send_if_modified(|lead| {
            let moves = leads && *lead < position;
            *lead = if moves { position } else { *lead };
            moves
        });
    }

    /// Returns the position before which some lane has taken everything, whenever it moves.
    pub(super) fn watch_lead(&self) -> watch::Receiver<Position> {
        self.lead.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn let_read_go(&mut self) {
        let positions = || self.readers.iter().map(|(_, at)| *at);
        let Some(slowest) = positions().min() else { return };
        let is_near = |at: &Position| self.reread.from.0 <= at.0 + NEAR_BYTES;
        let slowest_again = positions().filter(is_near).min();
        self.reread.let_go_before(slowest_again.unwrap_or(Position(u64::MAX)));
        self.newest.let_go_before(slowest);
    }

    fn shrink(&mut self, bytes_max: usize) {
        while self.newest.bytes + self.reread.bytes > bytes_max && self.newest.let_oldest_go() {}
    }
}

impl Ring {
    fn push(&mut self, batch: FeedEntry) {
        self.bytes += batch.batch.bytes_when_read();
        self.batches.push_back(batch);
    }

    /// Removes the oldest batch. Returns false if there is none.
    fn let_oldest_go(&mut self) -> bool {
        let Some(oldest) = self.batches.pop_front() else { return false };
        self.bytes -= oldest.batch.bytes_when_read();
        self.from = oldest.end.position;
        true
    }

    /// Removes the batches that end at a position or before it.
    fn let_go_before(&mut self, position: Position) {
        while self.batches.front().is_some_and(|oldest| oldest.end.position <= position) {
            self.let_oldest_go();
        }
    }

    fn end(&self) -> Position {
        self.batches.back().map_or(self.from, |newest| newest.end.position)
    }

    /// Returns batches after a position that is here, which need not begin exactly there.
    fn from(&self, position: Position, count_max: usize) -> Vec<FeedEntry> {
        let first = self.batches.partition_point(|fed| fed.end.position <= position);
        self.batches.iter().skip(first).take(count_max).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::DecodedRequest;
    use crate::feed::tests::{arrival, otlp_arrival};
    use crate::span::Source;
    use crate::support::memory::{alone, assert_within, resident_bytes};

    fn batch(bytes: usize) -> Arc<Batch> {
        Arc::new(Batch { source: Source::unknown(), items: Vec::new(), bytes })
    }

    fn mark(position: u64) -> Mark {
        Mark { position: Position(position), items: position }
    }

    fn positions(tail: &Tail, from: u64) -> Vec<u64> {
        match tail.look(Position(from), 10) {
            Look::Here(found) => found.iter().map(|fed| fed.start.position.0).collect(),
            Look::AtEnd => Vec::new(),
            Look::Behind(_) => vec![u64::MAX],
        }
    }

    #[test]
    fn readers_find_batches_from_their_position_on() {
        let tail = Tail::new(100);
        tail.publish(mark(10), mark(20), batch(10));
        tail.publish(mark(20), mark(30), batch(10));
        assert_eq!(positions(&tail, 10), [10, 20]);
        assert_eq!(positions(&tail, 20), [20]);
        assert!(positions(&tail, 30).is_empty());
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_journal() {
        let tail = Tail::new(25);
        for start in [0, 10, 20] {
            tail.publish(mark(start), mark(start + 10), batch(10));
        }
        assert!(matches!(tail.look(Position(0), 10), Look::Behind(Position(10))));
        assert_eq!(positions(&tail, 10), [10, 20]);
    }

    #[test]
    fn a_reader_that_starts_before_the_first_batch_is_behind() {
        let tail = Tail::new(25);
        tail.publish(mark(50), mark(60), batch(10));
        assert!(matches!(tail.look(Position(40), 10), Look::Behind(Position(50))));
    }

    #[test]
    fn what_every_reader_has_taken_is_let_go() {
        let tail = Tail::new(100);
        let (fast, slow) = (tail.join(Position(0)), tail.join(Position(0)));
        tail.publish(mark(0), mark(10), batch(10));
        tail.advance(fast, Position(10), true);
        assert_eq!(tail.lock().newest.batches.len(), 1);
        tail.leave(slow);
        assert_eq!(tail.lock().newest.batches.len(), 0);
        assert_eq!(tail.lock().newest.bytes, 0);
    }

    /// Far from a reader at the beginning.
    const FAR: u64 = 2 * NEAR_BYTES;

    #[test]
    fn what_was_read_again_is_let_go_once_its_readers_have_passed_it_even_if_another_is_far_behind()
    {
        let tail = Tail::new(100);
        let again = |from: u64, end: u64| {
            let (not_understood, filtered) = (None, 0);
            // Records are aligned on disk: one may begin behind the end of the one before.
            let (start, end, batch) = (mark(from + 1), mark(end), batch(10));
            let entry = FeedEntry { start, end, batch, not_understood, filtered };
            tail.publish_again(Position(from), &VecDeque::from([entry]));
        };
        let bytes = || {
            let state = tail.lock();
            (state.reread.bytes, state.newest.bytes)
        };
        let [_dead, lane, follower] = [0, FAR, FAR].map(|at| tail.join(Position(at)));
        for start in (FAR..FAR + 200).step_by(10) {
            tail.publish(mark(start), mark(start + 10), batch(10));
        }
        tail.advance(lane, Position(FAR), true);
        again(FAR, FAR + 10);
        again(FAR + 10, FAR + 20);
        tail.advance(lane, Position(FAR + 20), true);
        assert_eq!(positions(&tail, FAR), [FAR + 1, FAR + 11]);
        // A lane behind the one in the lead reads for itself.
        again(0, 10);
        assert_eq!(positions(&tail, 0), [u64::MAX]);
        tail.advance(follower, Position(FAR + 10), false);
        assert_eq!(positions(&tail, FAR + 10), [FAR + 11]);
        assert_eq!(bytes(), (10, 80));
        tail.advance(follower, Position(FAR + 20), false);
        assert_eq!(bytes().0, 0);
    }

    const BOUND_BYTES: usize = 32 << 20;
    /// Fills a tail with such requests, reads everything in their spans, and returns the memory that this took.
    fn taken_by(arrival: impl Fn(usize) -> DecodedRequest) -> usize {
        let read = |at: u64| {
            let batch = Arc::new(arrival(usize::try_from(at).unwrap()).decoded.batch);
            for span in batch.spans() {
                span.facts();
                span.detail();
            }
            batch
        };
        // This excludes tables that are created once.
        read(0);
        let before = resident_bytes();
        let tail = Tail::new(BOUND_BYTES);
        let mut at = 0;
        while tail.lock().newest.from == Position(0) {
            let batch = read(at);
            tail.publish(mark(at), mark(at + 1), batch);
            at += 1;
        }
        resident_bytes() - before
    }

    #[test]
    fn what_spans_hold_once_they_are_read_stays_within_the_bound_also_by_the_systems_own_count() {
        alone(&["bare", "chat", "agents_sdk"], fill);
    }

    fn fill(case: &str) {
        let otlp = |number: usize, more: &str| {
            format!(
                r#"{{"traceId":"{number:032x}","spanId":"{number:016x}","name":"n"{more}}}"#,
                number = number + 1
            )
        };
        let chat = r#","attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},{"key":"gen_ai.request.model","value":{"stringValue":"m"}},{"key":"gen_ai.input.messages","value":{"stringValue":"[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"hello\"}]}]"}},{"key":"a.b","value":{"arrayValue":{"values":[{"intValue":1},{"intValue":2}]}}}]"#;
        let agents_sdk = |number: usize| {
            format!(
                r#"{{"object":"trace.span","id":"span_{number}","trace_id":"trace_1","span_data":{{"type":"generation","model":"m","input":[{{"role":"user","content":"{0}"}}],"output":[{{"role":"assistant","content":"{0}"}}]}}}}"#,
                "hello ".repeat(50)
            )
        };
        let spans = |at: usize, more: &str| -> Vec<String> {
            (at * 100..(at + 1) * 100).map(|number| otlp(number, more)).collect()
        };
        let bytes = match case {
            "bare" => taken_by(|at| otlp_arrival(&spans(at, ""))),
            "chat" => taken_by(|at| otlp_arrival(&spans(at, chat))),
            _ => taken_by(|at| {
                arrival(&(at * 100..(at + 1) * 100).map(agents_sdk).collect::<Vec<_>>())
            }),
        };
        assert_within(case, bytes, BOUND_BYTES);
    }
}
