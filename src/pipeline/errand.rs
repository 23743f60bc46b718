//! Errands: deliveries that a lane makes beside the journal, because an operator asked for them.
//!
//! An errand goes through the lane's own window, so the sink sees one policy and one order: retries, breaker and bisecting are
//! those of any delivery, what belongs to one trace does not overtake, and a sink with a checkpoint still takes one delivery at a
//! time. It moves no cursor. What the sink will never take is reported and not kept: whoever sends errands has the items still.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};

use super::BatchLimits;
use super::attempt::Reported;
use crate::sinks::Delivery;
use crate::span::TraceNeeds;
use crate::support::stop::Stop;

/// Errands at a lane that are not done. Two keep it busy; more would only take memory and room from what arrives meanwhile.
pub(super) const ERRANDS_MAX: usize = 2;

/// The way into a lane. Clones share it.
#[derive(Debug, Clone)]
pub struct Way {
    errands: mpsc::Sender<Errand>,
    limits: BatchLimits,
    trace_needs: Option<TraceNeeds>,
}

/// The lane has ended, or gave the errand up because the daemon stops. What was under way may have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sink's lane has ended")]
pub struct LaneGone;

/// One delivery, and where the answer goes.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) delivery: Delivery,
    pub(super) answer: Answer,
}

/// Where an errand's answer goes.
#[derive(Debug)]
pub(super) struct Answer {
    reported: oneshot::Sender<Vec<Reported>>,
    /// Turned when nobody waits for it any more.
    given_up: Stop,
}

/// Turns the switch when it is dropped.
struct GivesUp(Stop);

impl Drop for GivesUp {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Way {
    /// Has this delivered; returns the items that the sink will never take. When this returns, what arrived is safe with the sink:
    /// its checkpoint has been saved. It waits for as long as it takes; dropped, it gives up what has not begun.
    pub async fn deliver(&self, delivery: Delivery) -> Result<Vec<Reported>, LaneGone> {
        let (reported, answered) = oneshot::channel();
        let waits = GivesUp(Stop::default());
        let answer = Answer { reported, given_up: waits.0.clone() };
        self.errands.send(Errand { delivery, answer }).await.map_err(|_| LaneGone)?;
        answered.await.map_err(|_| LaneGone)
    }

    /// What the sink wants to know of traces. A delivery that has contexts keeps them; any other gets what the lane knows.
    pub fn trace_needs(&self) -> Option<TraceNeeds> {
        self.trace_needs
    }

    /// How large a delivery should be.
    pub fn limits(&self) -> BatchLimits {
        self.limits
    }
}

/// A lane's errands.
#[derive(Debug)]
pub(super) struct Errands {
    incoming: mpsc::Receiver<Errand>,
    /// Those that are at the sink or wait for their turn, by number.
    open: HashMap<u64, Open>,
    last: u64,
    /// Those that wait for the next checkpoint to be saved.
    done: Vec<Open>,
    /// Those that the checkpoint has that is being saved.
    saving: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    items_left: usize,
    reported: Vec<Reported>,
    answer: Answer,
}

impl Errands {
    /// The two ends of the way into a lane.
    pub(super) fn new(limits: BatchLimits, trace_needs: Option<TraceNeeds>) -> (Way, Self) {
        let (errands, incoming) = mpsc::channel(1);
        let way = Way { errands, limits, trace_needs };
        (
            way,
            Self { incoming, open: HashMap::new(), last: 0, done: Vec::new(), saving: Vec::new() },
        )
    }

    /// Whether another one may begin.
    pub(super) fn has_place(&self) -> bool {
        self.open.len() < ERRANDS_MAX
    }

    /// The next one; `None` when there will be none. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Errand> {
        self.incoming.recv().await
    }

    /// Notes that an errand with so many items begins; returns its number.
    pub(super) fn begin(&mut self, items: usize, answer: Answer) -> u64 {
        self.last += 1;
        let errand = Open { items_left: items, reported: Vec::new(), answer };
        if items == 0 {
            self.done.push(errand);
        } else {
            self.open.insert(self.last, errand);
        }
        self.last
    }

    /// Is turned when whoever sent it no longer waits; `None` for an errand that is not open.
    pub(super) fn given_up(&self, number: u64) -> Option<Stop> {
        self.open.get(&number).map(|errand| errand.answer.given_up.clone())
    }

    /// Notes that so many items of an errand are done, these among them as never taken.
    pub(super) fn done(&mut self, number: u64, items: usize, reported: Vec<Reported>) {
        let Some(errand) = self.open.get_mut(&number) else { return };
        errand.items_left = errand.items_left.saturating_sub(items);
        errand.reported.extend(reported);
        if errand.items_left == 0 {
            self.done.extend(self.open.remove(&number));
        }
    }

    /// Whether an answer waits for the checkpoint.
    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// A checkpoint begins that has what is done by now.
    pub(super) fn begin_save(&mut self) {
        self.saving.append(&mut self.done);
    }

    /// That checkpoint was saved, or not. Answers those that it has: what they delivered is safe now.
    pub(super) fn end_save(&mut self, is_saved: bool) {
        if !is_saved {
            self.done.append(&mut self.saving);
        }
        for errand in self.saving.drain(..) {
            // Nobody waits any more: then nothing is settled, and the next replay sends it again.
            errand.answer.reported.send(errand.reported).ok();
        }
    }

    /// Takes no more, and gives up those that have not begun.
    pub(super) fn close(&mut self) {
        self.incoming.close();
        while self.incoming.try_recv().is_ok() {}
    }

    /// Gives up all that are not done: their deliveries were dropped.
    pub(super) fn give_up(&mut self) {
        self.open.clear();
    }
}
