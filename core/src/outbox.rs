//! What waits for the bridge: queued, in flight and to be sent again, until each record has its
//! outcome.
//!
//! `push` puts a record in, `poll_callout` takes a callout out, `on_*` tell how it went. The outbox
//! reads no clock: `now` is the time since some fixed moment.

mod batch;
mod health;
mod lanes;
mod settle;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use self::batch::{Batch, Entry};
pub use self::batch::{Callout, Purpose, Settled, StreamId};
pub use self::lanes::Depth;
use self::lanes::{Lane, Lanes, SHARED};
use crate::callout::{self, Ended, Verdict};
use crate::capture::Captured;
use crate::config::{BatchLimits, Settings};
use crate::limits;
use crate::outcome::{Code, Outcome, Reason};
use crate::profile;
use crate::wire::{self, Delivery};

/// The outbox of a root, or of one request where each makes its own callout.
#[derive(Debug)]
pub struct Outbox {
    vm: [u8; 16],
    delivery: Delivery,
    limits: BatchLimits,
    timeout: Duration,
    profile: Rc<[u8]>,
    profile_id: [u8; 32],
    registration: Registration,
    topics: Topics,
    lanes: Lanes,
    in_flight: BTreeMap<u64, Batch>,
    draining: bool,
    /// The bridge has refused the profile or the token, and not taken them since.
    refused: Option<Code>,
    /// Every batch of the VM's id passes through here.
    is_whole_vm: bool,
}

/// Which records share a lane.
#[derive(Debug)]
enum Topics {
    /// All do: there is one topic, or one request.
    One,
    /// In acked mode those whose topics have been written to, since their batches hold nobody up.
    /// All others have the lanes of their topics.
    Several { written: HashSet<String> },
}

impl Topics {
    fn lane<'a>(&self, delivery: Delivery, record: &'a [u8]) -> &'a str {
        match self {
            Self::One => SHARED,
            Self::Several { written } => match wire::topic(record) {
                topic if delivery != Delivery::Memory && written.contains(topic) => SHARED,
                topic => topic,
            },
        }
    }
}

/// Where the profile stands with the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registration {
    /// As far as we know the bridge has it.
    Held,
    /// The bridge said that it does not know it.
    Needed,
    /// It is on its way.
    InFlight,
    /// Memory mode: it failed, and is tried again at this time, also when no batch asks for it:
    /// while it is refused no request is queued.
    Failed(Duration),
}

impl Outbox {
    /// An empty outbox. `vm` is a random id of 16 bytes.
    ///
    /// # Errors
    /// When the profile cannot be encoded.
    pub fn new(settings: &Settings, vm: [u8; 16]) -> Result<Self, serde_json::Error> {
        let profile = settings.profile.to_json()?;
        let memory = settings.delivery == Delivery::Memory;
        Ok(Self {
            vm,
            delivery: settings.delivery,
            limits: settings.batch,
            timeout: settings.delivery_timeout,
            profile_id: profile::id(&profile),
            profile: profile.into(),
            // A refusal must be known before clients are told that their records are queued.
            registration: if memory { Registration::Needed } else { Registration::Held },
            topics: match settings.has_one_topic() {
                true => Topics::One,
                false => Topics::Several { written: HashSet::new() },
            },
            lanes: Lanes::new(settings.queue, settings.gating.filter(|_| memory)),
            in_flight: BTreeMap::new(),
            draining: false,
            refused: None,
            is_whole_vm: true,
        })
    }

    /// An empty outbox for one request of this one's settings. The request waits for its outcomes,
    /// so what would queue here queues in the bridge.
    #[must_use]
    pub(crate) fn for_one_request(&self) -> Self {
        Self {
            vm: self.vm,
            delivery: match self.delivery {
                Delivery::Acked => Delivery::Acked,
                Delivery::Memory | Delivery::Queued => Delivery::Queued,
            },
            limits: self.limits,
            timeout: self.timeout,
            profile: Rc::clone(&self.profile),
            profile_id: self.profile_id,
            registration: Registration::Held,
            topics: Topics::One,
            lanes: Lanes::new(self.lanes.limits(), None),
            in_flight: BTreeMap::new(),
            draining: false,
            refused: None,
            is_whole_vm: false,
        }
    }

    /// Queues the records of a request, all or none. `stream` waits for their outcomes; none where
    /// nobody does.
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
        if let (Delivery::Memory, Some(code)) = (self.delivery, self.refused) {
            return Err(code);
        }
        let (count, bytes) = (1 + more.len(), all().map(Vec::len).sum::<usize>());
        self.lanes.check_room(count, bytes)?;
        for record in all() {
            let topic = self.topics.lane(self.delivery, record);
            if topic != SHARED {
                self.lanes.check_share(topic, count, bytes)?;
            }
            let lane = self.lanes.get_mut(topic);
            if lane.is_some_and(|lane| !lane.admits(now)) {
                return Err(Code::DeliveryFailing);
            }
        }
        for record in std::iter::once(first).chain(more) {
            let lane = self.topics.lane(self.delivery, &record).to_owned();
            self.lanes.push(&lane, Entry { record, stream, since: now });
        }
        Ok(())
    }

    /// Whether `poll_callout` would give a callout now.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        match self.registration {
            Registration::Needed => true,
            Registration::InFlight => false,
            Registration::Failed(again_at) if again_at <= now => true,
            Registration::Held | Registration::Failed(_) => self.next_lane(now).is_some(),
        }
    }

    /// The next callout that may go out now. `sequence` counts the batches of the VM.
    pub fn poll_callout(&mut self, now: Duration, sequence: &mut u64) -> Option<Callout> {
        let registers = match self.registration {
            Registration::InFlight => return None,
            Registration::Failed(again_at) => again_at <= now,
            other => other == Registration::Needed,
        };
        if registers {
            self.registration = Registration::InFlight;
            return Some(Callout::register(&self.profile_id, self.profile.to_vec()));
        }
        let topic = self.next_lane(now)?;
        let (limits, age) = (self.limits, self.batch_age());
        let lane = self.lanes.get_mut(&topic)?;
        let mut batch = match lane.resend_is_due(now) {
            true => lane.resend.pop_front()?,
            false => Batch::new(topic, lane.take_batch(limits, age)),
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
        match callout::classify(ended, batch.entries.len()) {
            Verdict::Outcomes(outcomes) => {
                // Another VM may have registered the same profile since.
                self.refused = None;
                self.registration = Registration::Held;
                self.settle(batch, outcomes, now)
            }
            Verdict::UnknownProfile => self.register_for(batch, now),
            Verdict::TooLarge => self.split(batch, now),
            Verdict::NotWritten(reason) => self.not_written(batch, &reason, now),
            Verdict::Unknown(reason) => self.unknown(batch, reason, now),
        }
    }

    /// Settles what can no longer be answered in time; called on every tick. Records of memory
    /// mode have no deadline: their clients were told that they are kept.
    pub fn expire(&mut self, now: Duration) -> Vec<Settled> {
        if self.delivery == Delivery::Memory {
            return Vec::new();
        }
        let timeout = self.timeout;
        let (mut batches, mut entries) = (Vec::new(), Vec::new());
        for (topic, lane) in self.lanes.iter_mut() {
            let (late, kept) = std::mem::take(&mut lane.resend)
                .into_iter()
                .partition::<VecDeque<_>, _>(|batch| batch.remaining(timeout, now).is_zero());
            lane.resend = kept;
            batches.extend(late);
            let taken = lane.take_before(now.saturating_sub(timeout));
            if !taken.is_empty() {
                entries.push((Rc::clone(topic), taken));
            }
        }
        let late = Reason::new(Code::DeadlineExceeded, "no reply in time");
        let mut settled: Vec<_> =
            batches.into_iter().flat_map(|batch| self.give_up(batch, late.clone())).collect();
        for (topic, taken) in entries {
            let reason = Reason::new(Code::DeadlineExceeded, "the bridge took nothing in time");
            let outcome = Outcome::NotWritten(reason);
            let taken = taken.into_iter().map(|entry| entry.settle(outcome.clone())).collect();
            settled.extend(self.release(&topic, taken));
        }
        settled
    }

    /// Whether a batch may have been written and waits to be sent again.
    pub(crate) fn is_in_doubt(&self) -> bool {
        let mut batches = self.lanes.iter().flat_map(|(_, lane)| &lane.resend);
        batches.any(|batch| batch.doubt.is_some() && batch.attempts > 0)
    }

    /// Lets what is to be sent again go at once.
    pub(crate) fn send_again_now(&mut self) {
        let batches = self.lanes.iter_mut().flat_map(|(_, lane)| &mut lane.resend);
        batches.for_each(|batch| batch.not_before = Duration::ZERO);
    }

    /// Settles everything that is not in flight: it will not be sent, for `reason`.
    pub(crate) fn abandon(&mut self, reason: &Reason) -> Vec<Settled> {
        let mut batches = Vec::new();
        for (topic, lane) in self.lanes.iter_mut() {
            batches.extend(std::mem::take(&mut lane.resend));
            batches.push(Batch::new(Rc::clone(topic), lane.take_all()));
        }
        batches.into_iter().flat_map(|batch| self.give_up(batch, reason.clone())).collect()
    }

    /// From now on no batch waits to be full: the root is about to end.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// How long a record may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
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
            SHARED => lane.in_flight < self.shared_in_flight_max(),
            _ => {
                lane.in_flight < limits::BATCHES_IN_FLIGHT_LANE
                    && in_flight < all
                    && (lane.failing.is_none() || failing_in_flight < failing)
            }
        };
        let due = self.lanes.iter().filter(|(topic, lane)| may_send(topic, lane));
        let due = due.filter_map(|(topic, lane)| Some((self.due_since(lane, now)?, topic)));
        due.min_by_key(|(since, _)| *since).map(|(_, topic)| Rc::clone(topic))
    }

    fn shared_in_flight_max(&self) -> usize {
        match self.delivery {
            Delivery::Memory => limits::BATCHES_IN_FLIGHT_LANE,
            Delivery::Acked | Delivery::Queued => limits::BATCHES_IN_FLIGHT_SHARED,
        }
    }

    /// Since when a lane has had a batch to send; none while it has none.
    fn due_since(&self, lane: &Lane, now: Duration) -> Option<Duration> {
        if let Some(batch) = lane.resend.front()
            && batch.not_before <= now
        {
            return Some(batch.not_before);
        }
        let oldest = lane.oldest()?;
        let is_due = match self.delivery {
            Delivery::Acked | Delivery::Queued => true,
            // Nothing overtakes a batch that waits to be sent again: a key's records stay in order.
            Delivery::Memory => {
                lane.resend.is_empty()
                    && (self.draining
                        || lane.holds_a_full_batch(self.limits)
                        || now.saturating_sub(oldest) >= self.limits.flush_timeout)
            }
        };
        is_due.then_some(oldest)
    }

    /// How much younger than its oldest a batch's record may be.
    fn batch_age(&self) -> Duration {
        match self.delivery {
            Delivery::Memory => Duration::MAX,
            Delivery::Acked | Delivery::Queued => Duration::from_millis(limits::BATCH_AGE_MAX_MS),
        }
    }

    fn take_in_flight(&mut self, sequence: u64) -> Option<Batch> {
        let batch = self.in_flight.remove(&sequence)?;
        if let Some(lane) = self.lanes.get_mut(&batch.lane) {
            lane.in_flight -= 1;
        }
        Some(batch)
    }

    /// The lowest number that may be sent again. An outbox of one request knows of its own alone.
    fn settled_below(&self, sequence: u64) -> u64 {
        if !self.is_whole_vm {
            return 0;
        }
        let resend = self.lanes.iter().flat_map(|(_, lane)| &lane.resend);
        let numbers = resend.filter_map(|batch| batch.sequence);
        numbers.chain(self.in_flight.keys().copied()).fold(sequence, u64::min)
    }

    fn frame(&self, sequence: u64, batch: &Batch, now: Duration) -> (Vec<u8>, Duration) {
        let budget = match self.delivery {
            Delivery::Memory => self.timeout,
            Delivery::Acked | Delivery::Queued => batch.remaining(self.timeout, now),
        };
        let head = wire::Head {
            profile: self.profile_id,
            vm: self.vm,
            sequence,
            delivery: self.delivery,
            budget_ms: u32::try_from(budget.as_millis()).unwrap_or(u32::MAX),
            settled_below: self.settled_below(sequence),
        };
        let records = batch.entries.iter().map(|entry| entry.record.as_slice());
        // Encoding a head cannot fail; if it did, the bridge would refuse the empty frame.
        (wire::encode_frame(&head, records).unwrap_or_default(), budget)
    }
}

#[cfg(test)]
mod tests;
