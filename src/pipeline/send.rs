//! Starts a lane's deliveries, and handles their reports.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tracing::{info, warn};

use super::attempt::{Ended, Remaining, in_parts, is_root};
use super::job::Rejected;
use super::lane::{Lane, UnderWay};
use super::status::{LaneState, LaneStatus};
use super::window::{Admission, Purpose, Task, Wait, Work};
use crate::sinks::{Delivery, Pace, Refusal, RejectClass, Report, Verdict};
use crate::support::clock;

impl Lane {
    /// Returns whether deliveries wait for a checkpoint: one is owed, or is being made for a sink that takes one delivery at a time.
    pub(super) fn waits_for_checkpoint(&self) -> bool {
        self.owes_checkpoint || self.saving.is_some() && self.window.is_single()
    }

    /// Starts the deliveries that may begin now. Their trace contexts are fixed here, for all attempts.
    pub(super) fn start(&mut self, under_way: &mut UnderWay, draining: bool, now: Instant) {
        if !draining {
            self.give_up_deferred(under_way);
        }
        let now = now.into_std();
        while under_way.len() < self.breaker.allowed()
            && !self.waits_for_checkpoint()
            && self.breaker.not_before().is_none_or(|at| at <= now)
        {
            let mut admission = Admission {
                now,
                now_ns: clock::unix_now_ns(),
                is_draining: draining,
                arrivals: self.arrivals,
                has_others: !under_way.is_empty(),
                is_open: self.breaker.is_open(),
                traces: &mut self.traces,
                sink: self.sink.as_ref(),
            };
            let Some(mut work) = self.window.next(&mut admission) else { return };
            if matches!(&work.purpose, Purpose::Replay(job) if job.is_given_up()) {
                work.tasks.clear();
                self.window.finish(work, Vec::new(), 0);
                continue;
            }
            let Some(task) = self.next_task(&mut work) else { continue };
            let attempt = self.attempts.clone().attempt(work, task, self.arrivals, None);
            under_way.push(Box::pin(attempt));
        }
    }

    /// Gives up items that wait for a key when they block everything else: there is no space to defer more, the cursor is too far behind,
    /// or they keep the journal full. It gives up one work per turn, oldest first, so that no more is lost than necessary.
    fn give_up_deferred(&mut self, under_way: &mut UnderWay) {
        if self.window.items_deferred() == 0 {
            return;
        }
        let at = self.status.cursor().mark.position;
        let fills_journal =
            || !self.journal.has_room() && self.journal.is_oldest(&self.status.sink, at);
        let is_due = !self.window.has_room_to_defer() || self.tracker.is_full() || fills_journal();
        if is_due
            && let Some((mut work, deferral)) = self.window.take_deferred()
            && let Some(task) = work.tasks.pop_front()
        {
            let reason = format!("no room to wait any longer: {}", deferral.reason);
            let refusal = Refusal { class: RejectClass::Deferred, reason, answer: String::new() };
            let report = Report::all(Verdict::Reject(Arc::new(refusal)), Pace::Go);
            let attempts = self.attempts.clone();
            under_way.push(Box::pin(attempts.attempt(work, task, self.arrivals, Some(report))));
        }
    }

    /// Returns the first task of a work, split to fit the learned size limit.
    fn next_task(&mut self, work: &mut Work) -> Option<Task> {
        let mut task = work.tasks.pop_front()?;
        if work.tried == 0 {
            LaneStatus::count(&self.status.deliveries);
        }
        let bytes_max = self.size.bytes_max(Instant::now().into_std());
        if let Some(bytes_max) = bytes_max.filter(|bytes_max| *bytes_max < task.delivery.bytes()) {
            for delivery in in_parts(&task.delivery, bytes_max).into_iter().rev() {
                work.tasks.push_front(Task { delivery, ..task.clone() });
            }
            task = work.tasks.pop_front()?;
        }
        Some(Task { delivery: self.traces.with_contexts(task.delivery), ..task })
    }

    pub(super) fn ended(&mut self, ended: Ended) {
        let Ended { mut work, task, mut rest, mut pace, began, was_asked } = ended;
        // What the sink would accept again at once comes again like what failed.
        let is_over = |part: &mut (Task, Wait)| matches!(&part.1, Wait::Key(deferral) if !self.sink.is_deferred(&deferral.key));
        rest.tasks.extend(rest.deferred.extract_if(.., is_over).map(|(task, _)| task));
        // Without a wait this would be an endless loop.
        let repeats = rest.tasks.iter().any(|again| again.delivery.len() == task.delivery.len());
        if pace == Pace::Go && repeats {
            pace = Pace::down("the sink asks for everything again without a reason");
        }
        let settled = rest.arrived.len() + rest.refused.len();
        if settled == task.delivery.len() && matches!(pace, Pace::Down { .. }) {
            // The items on which the backend fails are given up because others are delivered, so the backend works.
            pace = Pace::Go;
        }
        let now = Instant::now().into_std();
        self.arrivals += u64::from(!rest.arrived.is_empty());
        if let Some(bytes) = rest.too_large {
            self.size.refused(bytes, now);
        }
        let learned = self.size.bytes_max(now).unwrap_or_default();
        self.status.learned_bytes_max.store(learned, Ordering::Relaxed);
        self.items_done(&work, &task.delivery, &rest);
        let is_deferred = rest.deferral_reason.is_some() && settled == 0 && rest.tasks.is_empty();
        if pace == Pace::Go && (is_deferred || !was_asked) {
            // The sink's notice is shown, unless there is a more serious problem.
            if self.status.state().0 == LaneState::Running {
                let notice = self.status.notice(self.sink.notice());
                self.status.set_state(LaneState::Running, notice);
            }
        } else {
            self.note(&pace, !rest.arrived.is_empty(), began);
        }
        if let Some(reason) = rest.deferral_reason.filter(|_| self.window.items_deferred() == 0) {
            warn!(sink = self.status.sink, reason, "items are deferred, others go on");
        }
        // The first task is attempted first: split tasks stay in order.
        rest.tasks.into_iter().rev().for_each(|task| work.tasks.push_front(task));
        self.window.finish(work, rest.deferred, self.tracker.first);
        self.show_deferred();
    }

    pub(super) fn show_deferred(&self) {
        self.status.deferred.store(self.window.items_deferred() as u64, Ordering::Relaxed);
    }

    fn items_done(&mut self, work: &Work, delivery: &Delivery, rest: &Remaining) {
        let arrived = rest.arrived.iter().filter(|place| !is_root(delivery, **place)).count();
        if let Purpose::Replay(job) = &work.purpose {
            let rejected = rest.refused.iter().filter_map(|(place, refusal)| {
                let batch = delivery.batch_of(*place)?;
                Some(Rejected { batch, reason: refusal.reason.clone() })
            });
            self.status.replayed.fetch_add(arrived as u64, Ordering::Relaxed);
            if job.done(rest.arrived.len() + rest.refused.len(), rejected) {
                self.jobs_done.push(Arc::clone(job));
            }
            return;
        }
        let is_kept = matches!(work.purpose, Purpose::Journal);
        if is_kept {
            self.status.delivered_now(&delivery.only(&rest.arrived));
        } else {
            self.status.amended.fetch_add(arrived as u64, Ordering::Relaxed);
        }
        let arrived = rest.arrived.iter().map(|place| (*place, false));
        let refused = rest.refused.iter().map(|(place, _)| (*place, is_kept));
        for (place, is_refused) in arrived.chain(refused) {
            let batch = delivery.batch_of(place);
            if let Some(entry) = batch.and_then(|batch| work.entries.get(batch)) {
                self.tracker.done(*entry, is_refused && !is_root(delivery, place));
            }
        }
    }

    /// Applies the pace that the sink asks for.
    pub(super) fn note(&mut self, pace: &Pace, has_arrived: bool, began: Instant) {
        let (began, now) = (began.into_std(), Instant::now().into_std());
        if has_arrived {
            self.breaker.progressed();
        }
        match pace {
            Pace::Go => self.breaker.succeeded(),
            Pace::Slow { after, .. } => self.breaker.throttled(began, now, *after),
            Pace::Down { after, .. } => self.breaker.failed(began, now, *after),
            Pace::Hold { .. } => self.breaker.held(began, now, self.options.retry.hold),
            Pace::Checkpoint => {
                self.owes_checkpoint = true;
                return;
            }
        }
        self.is_held = matches!(pace, Pace::Hold { .. });
        self.status.concurrency.store(self.breaker.allowed(), Ordering::Relaxed);
        self.status.is_breaker_open.store(self.breaker.is_open(), Ordering::Relaxed);
        let Some(reason) = pace.reason() else {
            let notice = self.status.notice(self.sink.notice());
            if self.status.set_state(LaneState::Running, notice) {
                info!(sink = self.status.sink, "the sink works again");
            }
            return;
        };
        LaneStatus::count(&self.status.retries);
        let (state, counter) = match pace {
            Pace::Hold { .. } => (LaneState::Holding, Some(&self.status.holds)),
            Pace::Slow { .. } => (LaneState::Retrying, Some(&self.status.throttles)),
            _ => (LaneState::Retrying, None),
        };
        counter.into_iter().for_each(LaneStatus::count);
        self.status.troubled(state, reason);
    }
}
