//! Replays of what was set aside: dead letters once more to a sink, and the quarantine once more into the journal.
//!
//! Every replay reads off the runtime's threads, a delivery at a time, and hands it to the sink's lane as an errand. It is at least
//! once: what a sink has taken when a replay is broken off, or a daemon dies, and that is not settled yet, is sent again by the
//! next one.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::shelf::{Letter, Letters, Selection, Shelf, Turn};
use super::{BatchLimits, LaneGone, Way};
use crate::feed::{Arrival, Intake, Refusal};
use crate::journal::AppendError;
use crate::normalize::{Fate, ids};
use crate::sinks::Delivery;
use crate::span::TraceId;

/// How far a replay is. Items are spans and trace objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Items that were read and are meant.
    pub items: u64,
    /// Of these, how many the sink has.
    pub delivered: u64,
    /// How many it will not take; they stay where they are.
    pub rejected: u64,
    /// How many this version does not understand; they stay where they are.
    pub not_understood: u64,
    /// How many cannot be read, because they were removed meanwhile or are damaged.
    pub unreadable: u64,
    /// Why items were rejected, with how many.
    pub reasons: BTreeMap<String, u64>,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The lane has ended.
    #[error(transparent)]
    Lane(#[from] LaneGone),
    /// What is to be replayed cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// What was in the quarantine cannot be received again.
    #[error("it cannot be received again: {0}")]
    Receive(#[from] Refusal),
    /// What arrived cannot be settled; it is sent again by the next replay.
    #[error("it cannot be noted as delivered: {0}")]
    Settle(#[from] AppendError),
}

/// Distinct reasons that are told apart; a backend that quotes the item in each would make as many as there are items.
const REASONS_MAX: usize = 20;
/// Where the others are counted.
const OTHER_REASONS: &str = "other reasons";

impl Progress {
    pub(super) fn reject(&mut self, reason: String, items: u64) {
        self.rejected += items;
        let is_known = self.reasons.contains_key(&reason);
        let reason = if is_known || self.reasons.len() < REASONS_MAX {
            reason
        } else {
            OTHER_REASONS.to_owned()
        };
        *self.reasons.entry(reason).or_default() += items;
    }
}

/// The trace that an operator means: by its 32 digits, or by its id in the Agents SDK.
pub fn trace_named(text: &str) -> TraceId {
    TraceId::from_hex(text).unwrap_or_else(|| ids::trace_id(text))
}

/// What becomes of the books when a letter arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// It goes to the sink that had rejected it: it counts as delivered.
    Own,
    /// It goes to another sink instead: for its own it counts as given up.
    Other,
}

// === Letters ===

/// Gives the selected letters of one sink to a lane; those that arrive are settled. `progress` follows.
pub async fn replay_letters(
    shelf: &Shelf,
    turn: &Turn,
    selection: &Selection,
    (way, target): (&Way, Target),
    progress: &watch::Sender<Progress>,
) -> Result<(), ReplayError> {
    let fate = match target {
        Target::Own => Fate::Delivered,
        Target::Other => Fate::Dropped,
    };
    let sink = selection.sink.clone().unwrap_or_default();
    let mut letters = off_thread({
        let shelf = shelf.clone();
        move || shelf.letters()
    })
    .await?;
    loop {
        let (selection, limits) = (selection.clone(), way.limits());
        let gathered;
        (letters, gathered) = off_thread(move || {
            let gathered = gather_letters(&mut letters, &selection, limits)?;
            Ok((letters, gathered))
        })
        .await?;
        if gathered.letters.is_empty() && gathered.not_understood == 0 {
            return Ok(());
        }
        let items = |letters: &[Letter]| letters.iter().map(|letter| letter.items).sum::<u64>();
        progress.send_modify(|progress| {
            progress.items += items(&gathered.letters) + gathered.not_understood;
            progress.not_understood += gathered.not_understood;
        });
        let reported = way.deliver(gathered.delivery).await?;
        let rejected: BTreeMap<usize, String> =
            reported.into_iter().map(|item| (item.batch, item.reason)).collect();
        let arrived = gathered.letters.iter().enumerate();
        let arrived = arrived.filter(|(place, _)| !rejected.contains_key(place));
        let arrived: Vec<_> = arrived.map(|(_, letter)| (letter.id, letter.items)).collect();
        let settled = shelf.settle(turn, &sink, fate, arrived).await?;
        progress.send_modify(|progress| {
            progress.delivered += settled;
            for (place, reason) in rejected {
                let items = gathered.letters.get(place).map_or(0, |letter| letter.items);
                progress.reject(reason, items);
            }
        });
    }
}

/// Letters that make one delivery; the place of each is the place of its batch.
struct GatheredLetters {
    letters: Vec<Letter>,
    delivery: Delivery,
    not_understood: u64,
}

fn gather_letters(
    letters: &mut Letters,
    selection: &Selection,
    limits: BatchLimits,
) -> io::Result<GatheredLetters> {
    let mut gathered =
        GatheredLetters { letters: Vec::new(), delivery: Delivery::default(), not_understood: 0 };
    for letter in letters {
        let letter = letter?;
        if !selection.takes(&letter) {
            continue;
        }
        match letter.decode() {
            Ok(decoded) if decoded.refused.is_empty() && !decoded.batch.items.is_empty() => {
                let items = decoded.batch.items.len();
                gathered.delivery.add(&Arc::new(decoded.batch), 0..items);
                gathered.letters.push(letter);
            }
            Ok(_) | Err(_) => gathered.not_understood += letter.items,
        }
        if limits.is_met_by(&gathered.delivery) {
            break;
        }
    }
    Ok(gathered)
}

/// Gives up the selected letters, and counts them. Returns how many items that is.
pub async fn drop_letters(
    shelf: &Shelf,
    turn: &Turn,
    selection: &Selection,
) -> Result<u64, ReplayError> {
    let (shelf_to_read, selection) = (shelf.clone(), selection.clone());
    let by_sink = off_thread(move || {
        let mut by_sink: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for letter in shelf_to_read.letters()? {
            let letter = letter?;
            if selection.takes(&letter) {
                by_sink.entry(letter.aside.sink).or_default().push((letter.id, letter.items));
            }
        }
        Ok(by_sink)
    })
    .await?;
    let mut dropped = 0;
    for (sink, letters) in by_sink {
        dropped += shelf.settle(turn, &sink, Fate::Dropped, letters).await?;
    }
    Ok(dropped)
}

/// The sinks that the selected letters belong to.
pub async fn sinks_of(shelf: &Shelf, selection: &Selection) -> Result<Vec<String>, ReplayError> {
    let (shelf, selection) = (shelf.clone(), selection.clone());
    let sinks = off_thread(move || {
        let mut sinks = HashSet::new();
        for letter in shelf.letters()? {
            let letter = letter?;
            if !sinks.contains(&letter.aside.sink) && selection.takes(&letter) {
                sinks.insert(letter.aside.sink);
            }
        }
        Ok(sinks)
    })
    .await?;
    let mut sinks: Vec<_> = sinks.into_iter().collect();
    sinks.sort_unstable();
    Ok(sinks)
}

/// Receives the selected letters of the quarantine once more, with what this version understands. What it does understand goes to
/// every sink like any request, and is settled. `progress` follows.
pub async fn receive_letters(
    shelf: &Shelf,
    turn: &Turn,
    selection: &Selection,
    intake: &Intake,
    progress: &watch::Sender<Progress>,
) -> Result<(), ReplayError> {
    let mut letters = off_thread({
        let shelf = shelf.clone();
        move || shelf.letters()
    })
    .await?;
    loop {
        let next;
        let selection = selection.clone();
        (letters, next) = off_thread(move || {
            let next = letters
                .find(|letter| letter.as_ref().map_or(true, |letter| selection.takes(letter)));
            Ok((letters, next.transpose()?))
        })
        .await?;
        let Some(letter) = next else { return Ok(()) };
        let decoded = letter.decode().ok();
        let understood =
            decoded.filter(|decoded| decoded.refused.is_empty() && !decoded.batch.items.is_empty());
        let Some(decoded) = understood else {
            progress.send_modify(|progress| {
                progress.items += letter.items;
                progress.not_understood += letter.items;
            });
            continue;
        };
        let arrival = Arrival { envelope: letter.envelope, sent: letter.body, decoded };
        intake.accept(arrival).await?;
        let settled =
            shelf.settle(turn, &letter.aside.sink, Fate::Delivered, [(letter.id, letter.items)]);
        let settled = settled.await?;
        progress.send_modify(|progress| {
            progress.items += settled;
            progress.delivered += settled;
        });
    }
}

/// Runs what blocks on the disk where that costs nobody else.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ReplayError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(io::Error::other)??)
}
