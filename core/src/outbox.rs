//! What waits for the bridge: queued, in flight and to be sent again, until each record has its
//! outcome.
//!
//! `push` puts a record in, `poll_callout` takes a callout out, `on_*` say how it ended. The outbox
//! reads no clock: `now` is the time since some fixed moment. What the delivery modes do
//! differently is in `outbox/policy.rs`.

mod batch;
mod health;
mod lanes;
mod policy;
mod registration;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use self::batch::{Batch, QueuedRecord};
pub use self::batch::{Callout, Purpose, Settled, StreamId};
pub use self::lanes::Depth;
use self::lanes::{Lane, Lanes, SHARED};
use self::policy::Policy;
use self::registration::Registration;
use crate::callout::{self, Classified, Ended};
use crate::capture::Captured;
use crate::config::{BatchLimits, Settings};
use crate::limits;
use crate::outcome::{Code, Outcome, Reason};
use crate::profile;
use crate::wire;

/// The outbox of a root, or of one request where each makes its own callouts.
#[derive(Debug)]
pub struct Outbox {
    settings: Rc<OutboxSettings>,
    policy: Policy,
    registration: Registration,
    lanes: Lanes,
    in_flight: BTreeMap<u64, Batch>,
}

/// What all outboxes of a root's settings have in common.
#[derive(Debug)]
struct OutboxSettings {
    vm: [u8; 16],
    limits: BatchLimits,
    timeout: Duration,
    profile: Vec<u8>,
    profile_id: [u8; 32],
}

impl Outbox {
    /// An empty outbox. `vm` is a random id of 16 bytes.
    ///
    /// # Errors
    /// When the profile cannot be encoded.
    pub fn new(settings: &Settings, vm: [u8; 16]) -> Result<Self, serde_json::Error> {
        let profile = settings.profile.to_json()?;
        let policy = Policy::new(settings);
        let early = policy.registers_early();
        Ok(Self {
            settings: Rc::new(OutboxSettings {
                vm,
                limits: settings.batch,
                timeout: settings.delivery_timeout,
                profile_id: profile::id(&profile),
                profile,
            }),
            registration: match early {
                true => Registration::Needed { refused: None },
                false => Registration::Held,
            },
            lanes: Lanes::new(settings.queue, settings.gating.filter(|_| early)),
            policy,
            in_flight: BTreeMap::new(),
        })
    }

    /// An empty outbox for one request of this one's settings.
    #[must_use]
    pub(crate) fn for_one_request(&self) -> Self {
        Self {
            settings: Rc::clone(&self.settings),
            policy: self.policy.for_one_request(),
            registration: Registration::Held,
            lanes: Lanes::new(self.lanes.limits(), None),
            in_flight: BTreeMap::new(),
        }
    }

    /// Queues the records of a request, all or none. `stream` waits for their outcomes, if one
    /// does.
    ///
    /// # Errors
    /// Why they were not queued: one is too large for a frame, the queue is full, or, in memory
    /// mode, what is queued would not be delivered.
    pub fn push(
        &mut self,
        records: impl Into<Captured>,
        stream: Option<StreamId>,
        now: Duration,
    ) -> Result<(), Code> {
        let Captured { first, more } = records.into();
        let all = || std::iter::once(&first).chain(&more);
        if all().any(|record| record.len() > limits::RECORD_BYTES_MAX) {
            return Err(Code::RecordTooLarge);
        }
        if let Some(code) = self.registration.refused() {
            return Err(code);
        }
        let (count, bytes) = (1 + more.len(), all().map(Vec::len).sum::<usize>());
        self.lanes.check_room(count, bytes)?;
        for record in all() {
            let topic = self.policy.lane(record);
            if topic != SHARED {
                self.lanes.check_share(topic, count, bytes)?;
            }
            let lane = self.lanes.get_mut(topic);
            if lane.is_some_and(|lane| !lane.admits(now)) {
                return Err(Code::DeliveryFailing);
            }
        }
        for encoded in std::iter::once(first).chain(more) {
            let lane = self.policy.lane(&encoded).to_owned();
            self.lanes.push(&lane, QueuedRecord { encoded, stream, since: now });
        }
        Ok(())
    }

    /// Whether `poll_callout` would give a callout now.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.registration.is_due(now)
            || (!self.registration.is_in_flight() && self.next_lane(now).is_some())
    }

    /// The next callout that may be sent now. `sequence` counts the batches of the VM.
    pub fn poll_callout(&mut self, now: Duration, sequence: &mut u64) -> Option<Callout> {
        if self.registration.is_due(now) {
            self.registration.send();
            let OutboxSettings { profile_id, profile, .. } = &*self.settings;
            return Some(Callout::register(profile_id, profile.clone()));
        }
        // A batch that arrived before the profile would only be refused once more.
        if self.registration.is_in_flight() {
            return None;
        }
        let topic = self.next_lane(now)?;
        let (limits, age) = (self.settings.limits, self.policy.batch_age_max());
        let lane = self.lanes.get_mut(&topic)?;
        let mut batch = match lane.resend_since(now) {
            Some(_) => lane.resend.pop_front()?,
            None => Batch::new(topic, lane.take_batch(limits, age)),
        };
        lane.in_flight += 1;
        let number = *batch.sequence.get_or_insert_with(|| {
            *sequence += 1;
            *sequence
        });
        let callout = Callout::produce(number, &batch, self.frame(number, &batch, now));
        self.in_flight.insert(number, batch);
        Some(callout)
    }

    /// The host refused to dispatch a callout: it was not sent.
    pub fn on_refused(&mut self, purpose: Purpose, why: &str, now: Duration) -> Vec<Settled> {
        let reason = Reason::new(Code::BridgeUnreachable, why);
        match purpose {
            Purpose::Probe => Vec::new(),
            Purpose::Register => self.registration_failed(&reason, now),
            Purpose::Produce(sequence) => match self.take_in_flight(sequence) {
                Some(batch) => self.not_written(batch, &reason, now),
                None => Vec::new(),
            },
        }
    }

    /// A callout ended.
    pub fn on_ended(&mut self, purpose: Purpose, ended: &Ended<'_>, now: Duration) -> Vec<Settled> {
        let sequence = match purpose {
            Purpose::Probe => return Vec::new(),
            Purpose::Register => return self.registered(ended, now),
            Purpose::Produce(sequence) => sequence,
        };
        let Some(batch) = self.take_in_flight(sequence) else { return Vec::new() };
        match callout::classify(ended, batch.records.len()) {
            Classified::Outcomes(outcomes) => {
                // Another VM may have registered the same profile after ours was refused.
                self.registration = Registration::Held;
                self.settle(batch, outcomes, now)
            }
            Classified::UnknownProfile => self.register_for(batch, now),
            Classified::TooLarge => self.split(batch, now),
            Classified::NotWritten(reason) => self.not_written(batch, &reason, now),
            Classified::Unknown(reason) => self.unknown(batch, reason, now),
        }
    }

    /// Settles what can no longer be answered in time; called on every tick.
    pub fn expire(&mut self, now: Duration) -> Vec<Settled> {
        let Some(timeout) = self.policy.deadline(self.settings.timeout) else { return Vec::new() };
        let (mut in_doubt, mut unsent) = (Vec::new(), Vec::new());
        for (topic, lane) in self.lanes.iter_mut() {
            let (late, remaining) = std::mem::take(&mut lane.resend)
                .into_iter()
                .partition::<VecDeque<_>, _>(|batch| batch.remaining(timeout, now).is_zero());
            lane.resend = remaining;
            in_doubt.extend(late);
            let late = lane.take_before(now.saturating_sub(timeout));
            unsent.push(Batch::new(Rc::clone(topic), late));
        }
        let late = |detail: &str| Reason::new(Code::DeadlineExceeded, detail);
        let mut settled = self.give_up_all(in_doubt, &late("no reply within delivery_timeout"));
        settled.extend(
            self.give_up_all(unsent, &late("not sent to the bridge within delivery_timeout")),
        );
        settled
    }

    /// Whether a batch may have been written and waits to be sent again.
    pub(crate) fn is_in_doubt(&self) -> bool {
        let mut batches = self.lanes.iter().flat_map(|(_, lane)| &lane.resend);
        batches.any(|batch| batch.doubt.is_some() && batch.attempts > 0)
    }

    /// Settles everything that is not in flight: it will not be sent, for `reason`.
    pub(crate) fn abandon(&mut self, reason: &Reason) -> Vec<Settled> {
        let mut batches = Vec::new();
        for (topic, lane) in self.lanes.iter_mut() {
            batches.extend(std::mem::take(&mut lane.resend));
            batches.push(Batch::new(Rc::clone(topic), lane.take_all()));
        }
        self.give_up_all(batches, reason)
    }

    /// From now on no batch waits to be full: the root is about to end.
    pub fn drain(&mut self) {
        self.policy.drain();
    }

    /// How long a record may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// What is in the outbox.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let (records, bytes) = self.lanes.held();
        let failing = self.failing().count();
        Depth { records, bytes, in_flight: self.in_flight.len(), failing }
    }

    /// The topics with records whose last batch was not written, and why. The empty name stands for
    /// all topics that share their batches.
    pub fn failing(&self) -> impl Iterator<Item = (&str, &Reason)> {
        let with_records = self.lanes.iter().filter(|(_, lane)| lane.has_records());
        with_records.filter_map(|(topic, lane)| Some((&**topic, lane.failing.as_ref()?)))
    }

    /// The lane whose batch is due, the one that has waited for longest first.
    fn next_lane(&self, now: Duration) -> Option<Rc<str>> {
        let (mut in_flight, mut failing_in_flight) = (0, 0);
        for (_, lane) in self.lanes.iter().filter(|(topic, _)| &***topic != SHARED) {
            in_flight += lane.in_flight;
            failing_in_flight += lane.failing.as_ref().map_or(0, |_| lane.in_flight);
        }
        let (all, failing) = limits::LANES_IN_FLIGHT_MAX;
        let may_send = |topic: &str, lane: &Lane| match topic {
            SHARED => lane.in_flight < self.policy.shared_in_flight_max(),
            _ => {
                lane.in_flight < limits::BATCHES_IN_FLIGHT_LANE
                    && in_flight < all
                    && (lane.failing.is_none() || failing_in_flight < failing)
            }
        };
        let limits = self.settings.limits;
        let due = self.lanes.iter().filter(|(topic, lane)| may_send(topic, lane));
        let due = due
            .filter_map(|(topic, lane)| Some((self.policy.due_since(lane, limits, now)?, topic)));
        due.min_by_key(|(since, _)| *since).map(|(_, topic)| Rc::clone(topic))
    }

    fn take_in_flight(&mut self, sequence: u64) -> Option<Batch> {
        let batch = self.in_flight.remove(&sequence)?;
        if let Some(lane) = self.lanes.get_mut(&batch.lane) {
            lane.in_flight -= 1;
        }
        Some(batch)
    }

    fn frame(&self, sequence: u64, batch: &Batch, now: Duration) -> (Vec<u8>, Duration) {
        let OutboxSettings { vm, profile_id, timeout, .. } = *self.settings;
        let deadline = self.policy.deadline(timeout);
        let budget = deadline.map_or(timeout, |timeout| batch.remaining(timeout, now));
        let resend = self.lanes.iter().flat_map(|(_, lane)| &lane.resend);
        let unsettled = resend.filter_map(|batch| batch.sequence);
        let unsettled = unsettled.chain(self.in_flight.keys().copied());
        let head = wire::Head {
            profile: profile_id,
            vm,
            sequence,
            delivery: self.policy.delivery(),
            budget_ms: u32::try_from(budget.as_millis()).unwrap_or(u32::MAX),
            settled_below: self.policy.settled_below(sequence, unsettled),
        };
        let records = batch.records.iter().map(|record| record.encoded.as_slice());
        // Encoding a head cannot fail; if it did, the bridge would refuse the empty frame.
        (wire::encode_frame(&head, records).unwrap_or_default(), budget)
    }

    fn register_for(&mut self, mut batch: Batch, now: Duration) -> Vec<Settled> {
        // A bridge that never remembers the profile would be sent the registration for ever.
        if batch.registered {
            let reason = Reason::new(
                Code::BridgeRefused,
                "the bridge does not know the profile right after its registration",
            );
            return self.not_written(batch, &reason, now);
        }
        batch.registered = true;
        self.put_back(batch);
        self.registration.on_unknown();
        Vec::new()
    }

    /// A registration ended.
    fn registered(&mut self, ended: &Ended<'_>, now: Duration) -> Vec<Settled> {
        match callout::classify_registration(ended) {
            None => {
                self.registration = Registration::Held;
                Vec::new()
            }
            Some(reason) => self.registration_failed(&reason, now),
        }
    }

    /// A registration that failed fails what waits for it.
    fn registration_failed(&mut self, reason: &Reason, now: Duration) -> Vec<Settled> {
        self.registration.on_failed(reason, self.policy.registers_early(), now);
        let waiting: Vec<_> =
            self.lanes.iter_mut().flat_map(|(_, lane)| std::mem::take(&mut lane.resend)).collect();
        // The first of a lane is put back last, and so stays the first.
        waiting.into_iter().rev().flat_map(|batch| self.not_written(batch, reason, now)).collect()
    }

    /// This attempt wrote nothing. An earlier one may have: then the batch stays in doubt, because
    /// a refusal now says nothing of what was answered to a reply that was lost.
    fn not_written(&mut self, batch: Batch, reason: &Reason, now: Duration) -> Vec<Settled> {
        if self.policy.keeps_batch(&batch) {
            return self.send_again_or_give_up(batch, reason, now);
        }
        let outcomes = vec![Outcome::NotWritten(reason.clone()); batch.records.len()];
        self.settle(batch, outcomes, now)
    }

    /// This attempt may have been written. The batch is sent again under its sequence number: the
    /// bridge answers one that it knows from memory, where another number would write it twice.
    fn unknown(&mut self, mut batch: Batch, reason: Reason, now: Duration) -> Vec<Settled> {
        batch.doubt.get_or_insert_with(|| reason.clone());
        self.send_again_or_give_up(batch, &reason, now)
    }

    fn send_again_or_give_up(
        &mut self,
        batch: Batch,
        reason: &Reason,
        now: Duration,
    ) -> Vec<Settled> {
        if let Some(lane) = self.lanes.get_mut(&batch.lane) {
            lane.health.on_failed(now);
            lane.failing = Some(reason.clone());
        }
        let deadline = self.policy.deadline(self.settings.timeout);
        let in_time = |backoff: &Duration| {
            deadline.is_none_or(|timeout| !batch.remaining(timeout, now + *backoff).is_zero())
        };
        match self.policy.backoff(&batch).filter(in_time) {
            Some(backoff) => {
                self.send_again(batch, backoff, now);
                Vec::new()
            }
            None => self.give_up(batch, reason),
        }
    }

    fn send_again(&mut self, mut batch: Batch, backoff: Duration, now: Duration) {
        let pause = self.lanes.get(&batch.lane).and_then(|lane| lane.health.pause());
        batch.not_before = now + pause.unwrap_or(backoff);
        batch.attempts += 1;
        batch.registered = false;
        self.put_back(batch);
    }

    /// A batch goes before all that waits in its lane, which is there as long as its records are.
    fn put_back(&mut self, batch: Batch) {
        if let Some(lane) = self.lanes.get_mut(&batch.lane) {
            lane.resend.push_front(batch);
        }
    }

    /// There is no other attempt.
    fn give_up(&mut self, batch: Batch, reason: &Reason) -> Vec<Settled> {
        let outcome = batch.outcome(reason);
        let settle = |record: QueuedRecord| record.settle(outcome.clone());
        self.release(&batch.lane, batch.records.into_iter().map(settle).collect())
    }

    fn give_up_all(&mut self, batches: Vec<Batch>, reason: &Reason) -> Vec<Settled> {
        batches.into_iter().flat_map(|batch| self.give_up(batch, reason)).collect()
    }

    /// The frame is above the bridge's limit: its halves are new batches. They inherit its doubt: a
    /// 413 says nothing of an earlier attempt, which another bridge may have taken.
    fn split(&mut self, mut batch: Batch, now: Duration) -> Vec<Settled> {
        if batch.records.len() == 1 {
            let reason = Reason::new(Code::RecordTooLarge, "a frame above the bridge's limit");
            return self.settle(batch, vec![Outcome::NotWritten(reason)], now);
        }
        let half = batch.records.split_off(batch.records.len() / 2);
        for records in [half, batch.records] {
            let doubt = batch.doubt.clone();
            self.put_back(Batch { doubt, ..Batch::new(Rc::clone(&batch.lane), records) });
        }
        Vec::new()
    }

    /// Gives each record its outcome. What the policy keeps goes out again as a new batch, before
    /// everything younger: under the old sequence number the bridge would repeat its answer.
    fn settle(&mut self, batch: Batch, outcomes: Vec<Outcome>, now: Duration) -> Vec<Settled> {
        let (mut settled, mut again, mut why) = (Vec::new(), Vec::new(), None);
        self.policy.learn(&batch.records, &outcomes);
        for (record, outcome) in batch.records.into_iter().zip(outcomes) {
            if self.policy.keeps(&outcome) {
                why = why.or_else(|| outcome.reason().cloned());
                again.push(record);
                continue;
            }
            settled.push(record.settle(match outcome {
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
            let again = Batch { attempts: batch.attempts, ..Batch::new(batch.lane, again) };
            let backoff = self.policy.backoff(&again).unwrap_or_default();
            self.send_again(again, backoff, now);
        }
        settled
    }

    /// Their room in the queue is free.
    fn release(&mut self, lane: &str, settled: Vec<Settled>) -> Vec<Settled> {
        let bytes = settled.iter().map(|one| one.record.len()).sum();
        self.lanes.release(lane, settled.len(), bytes);
        settled
    }
}

#[cfg(test)]
mod tests;
