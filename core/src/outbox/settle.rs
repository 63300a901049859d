//! What becomes of a batch whose callout has ended: settled, or kept to be sent again.

use std::rc::Rc;
use std::time::Duration;

use super::batch::{Batch, Entry, Settled, backoff};
use super::{Outbox, Registration, Topics};
use crate::callout::{self, Ended};
use crate::limits::LANES_MAX;
use crate::outcome::{Code, Outcome, Reason, Scope};
use crate::wire::{self, Delivery};

impl Outbox {
    pub(super) fn register_for(&mut self, mut batch: Batch, now: Duration) -> Vec<Settled> {
        if batch.registered {
            let reason = Reason::new(Code::BridgeRefused, "it forgot the profile at once");
            return self.not_written(batch, &reason, now);
        }
        batch.registered = true;
        self.put_back(batch);
        if self.registration != Registration::InFlight {
            self.registration = Registration::Needed;
        }
        Vec::new()
    }

    /// A registration ended.
    pub(super) fn registered(&mut self, ended: &Ended<'_>, now: Duration) -> Vec<Settled> {
        self.registration = Registration::Held;
        match callout::classify_registration(ended) {
            None => {
                self.refused = None;
                Vec::new()
            }
            Some(reason) => self.registration_failed(&reason, now),
        }
    }

    /// A registration that failed fails what waits for it; the next batch tries again.
    pub(super) fn registration_failed(&mut self, reason: &Reason, now: Duration) -> Vec<Settled> {
        self.registration = match self.delivery {
            Delivery::Memory => Registration::Failed(now + REGISTER_AGAIN),
            Delivery::Acked | Delivery::Queued => Registration::Held,
        };
        if matches!(reason.code, Code::ProfileRefused | Code::BridgeUnauthorized) {
            self.refused = Some(reason.code);
        }
        let waiting: Vec<_> =
            self.lanes.iter_mut().flat_map(|(_, lane)| std::mem::take(&mut lane.resend)).collect();
        waiting.into_iter().rev().flat_map(|batch| self.not_written(batch, reason, now)).collect()
    }

    pub(super) fn not_written(
        &mut self,
        batch: Batch,
        reason: &Reason,
        now: Duration,
    ) -> Vec<Settled> {
        match (self.delivery, &batch.doubt) {
            (Delivery::Memory, _) => {
                self.failed(&batch, reason, now);
                self.send_again(batch, now)
            }
            // An earlier attempt is in doubt: only the bridge's word on it can end that.
            (Delivery::Acked | Delivery::Queued, Some(_)) => {
                self.unknown(batch, reason.clone(), now)
            }
            (Delivery::Acked | Delivery::Queued, None) => {
                let outcomes = vec![Outcome::NotWritten(reason.clone()); batch.entries.len()];
                self.settle(batch, outcomes, now)
            }
        }
    }

    /// A doubtful batch is sent again under its sequence: the bridge remembers what it answered.
    pub(super) fn unknown(
        &mut self,
        mut batch: Batch,
        reason: Reason,
        now: Duration,
    ) -> Vec<Settled> {
        self.failed(&batch, &reason, now);
        batch.doubt.get_or_insert(reason);
        let retry_at = now + backoff(batch.attempts);
        if self.delivery != Delivery::Memory && batch.remaining(self.timeout, retry_at).is_zero() {
            return self.give_up(batch, Reason::new(Code::DeadlineExceeded, "no reply in time"));
        }
        self.send_again(batch, now)
    }

    /// There is no other attempt.
    pub(super) fn give_up(&mut self, batch: Batch, reason: Reason) -> Vec<Settled> {
        let outcome = batch.outcome(reason);
        let settle = |entry: Entry| entry.settle(outcome.clone());
        self.release(&batch.lane, batch.entries.into_iter().map(settle).collect())
    }

    fn send_again(&mut self, mut batch: Batch, now: Duration) -> Vec<Settled> {
        let pause = self.lanes.get(&batch.lane).and_then(|lane| lane.health.pause());
        batch.not_before = now + pause.unwrap_or(backoff(batch.attempts));
        batch.attempts += 1;
        batch.registered = false;
        self.put_back(batch);
        Vec::new()
    }

    /// A batch goes before all that waits in its lane, which is there as long as its records are.
    fn put_back(&mut self, batch: Batch) {
        if let Some(lane) = self.lanes.get_mut(&batch.lane) {
            lane.resend.push_front(batch);
        }
    }

    fn failed(&mut self, batch: &Batch, reason: &Reason, now: Duration) {
        if let Some(lane) = self.lanes.get_mut(&batch.lane) {
            lane.health.on_failed(now);
            lane.failing = Some(reason.clone());
        }
    }

    pub(super) fn split(&mut self, mut batch: Batch, now: Duration) -> Vec<Settled> {
        if batch.entries.len() == 1 {
            let reason = Reason::new(Code::RecordTooLarge, "a frame above the bridge's limit");
            return self.settle(batch, vec![Outcome::NotWritten(reason)], now);
        }
        let half = batch.entries.split_off(batch.entries.len() / 2);
        for entries in [half, batch.entries] {
            let doubt = batch.doubt.clone();
            self.put_back(Batch { doubt, ..Batch::new(Rc::clone(&batch.lane), entries) });
        }
        Vec::new()
    }

    /// Gives each record its outcome. In memory mode the client has its 200 already: what was not
    /// written, but may yet be, goes out again as a new batch, before everything younger.
    pub(super) fn settle(
        &mut self,
        batch: Batch,
        outcomes: Vec<Outcome>,
        now: Duration,
    ) -> Vec<Settled> {
        let (mut settled, mut again, mut why) = (Vec::new(), Vec::new(), None);
        self.learn(&batch, &outcomes);
        for (entry, outcome) in batch.entries.into_iter().zip(outcomes) {
            let reason = match &outcome {
                Outcome::Written { .. } | Outcome::Queued => None,
                Outcome::NotWritten(reason) | Outcome::Unknown(reason) => Some(reason),
            };
            let lasting = reason.is_none_or(|reason| reason.code.is_permanent());
            if self.delivery == Delivery::Memory && !lasting {
                why = why.or_else(|| reason.cloned());
                again.push(entry);
                continue;
            }
            settled.push(entry.settle(match outcome {
                // An earlier attempt may have been written, whatever became of this one.
                Outcome::NotWritten(reason) if batch.doubt.is_some() => Outcome::Unknown(reason),
                other => other,
            }));
        }
        if let Some(lane) = self.lanes.get_mut(&batch.lane) {
            match again.is_empty() || settled.iter().any(|one| one.outcome.is_kept()) {
                true => lane.health.on_delivered(),
                false => lane.health.on_failed(now),
            }
            lane.failing = why;
        }
        let settled = self.release(&batch.lane, settled);
        if !again.is_empty() {
            let attempts = batch.attempts;
            self.send_again(Batch { attempts, ..Batch::new(batch.lane, again) }, now);
        }
        settled
    }

    /// Acked mode: topics that are written share their batches from now on, those that fail do not.
    fn learn(&mut self, batch: &Batch, outcomes: &[Outcome]) {
        let Topics::Several { written } = &mut self.topics else { return };
        for (entry, outcome) in batch.entries.iter().zip(outcomes) {
            let topic = wire::topic(&entry.record);
            match outcome {
                Outcome::Written { .. } if written.contains(topic) => {}
                Outcome::Written { .. } => {
                    if written.len() >= LANES_MAX {
                        written.clear();
                    }
                    written.insert(topic.to_owned());
                }
                Outcome::NotWritten(reason) | Outcome::Unknown(reason) => {
                    if reason.code.scope() == Scope::Topic {
                        written.remove(topic);
                    }
                }
                Outcome::Queued => {}
            }
        }
    }

    pub(super) fn release(&mut self, lane: &str, settled: Vec<Settled>) -> Vec<Settled> {
        let bytes = settled.iter().map(|one| one.record.len()).sum();
        self.lanes.release(lane, settled.len(), bytes);
        settled
    }
}

/// Until a failed registration is tried again.
const REGISTER_AGAIN: Duration = Duration::from_secs(5);
