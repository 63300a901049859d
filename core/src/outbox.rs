//! What waits for the bridge: queued, in flight and to be sent again, until each record has its
//! outcome.
//!
//! `push` puts a record in, `poll_callout` takes a callout out, `on_*` tell how it went. The outbox
//! reads no clock: `now` is the time since some fixed moment.

mod batch;
mod health;
mod queue;
mod settle;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use self::batch::{Batch, Entry};
pub use self::batch::{Callout, Purpose, Settled, StreamId};
use self::health::Health;
pub use self::queue::Depth;
use self::queue::Queue;
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
    queue: Queue,
    resend: VecDeque<Batch>,
    in_flight: BTreeMap<u64, Batch>,
    draining: bool,
    health: Health,
    /// The bridge has refused the profile, and not taken it since.
    profile_refused: bool,
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
            queue: Queue::new(settings.queue),
            resend: VecDeque::new(),
            in_flight: BTreeMap::new(),
            draining: false,
            health: Health::new(settings.gating.filter(|_| memory)),
            profile_refused: false,
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
            queue: Queue::new(self.queue.limits()),
            resend: VecDeque::new(),
            in_flight: BTreeMap::new(),
            draining: false,
            health: Health::new(None),
            profile_refused: false,
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
        let mut lengths = std::iter::once(&first).chain(&more).map(Vec::len);
        if lengths.any(|length| length > limits::RECORD_BYTES_MAX) {
            return Err(Code::RecordTooLarge);
        }
        if self.delivery == Delivery::Memory {
            self.check_health(now)?;
        }
        self.queue
            .check_room(1 + more.len(), first.len() + more.iter().map(Vec::len).sum::<usize>())?;
        for record in std::iter::once(first).chain(more) {
            self.queue.push(Entry { record, stream, since: now });
        }
        Ok(())
    }

    fn check_health(&mut self, now: Duration) -> Result<(), Code> {
        if self.profile_refused {
            return Err(Code::ProfileRefused);
        }
        match self.health.admits(self.queue.held().0, now) {
            true => Ok(()),
            false => Err(Code::DeliveryFailing),
        }
    }

    /// Whether `poll_callout` would give a callout now.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        match self.registration {
            Registration::Needed => true,
            Registration::InFlight => false,
            Registration::Failed(again_at) if again_at <= now => true,
            Registration::Held | Registration::Failed(_) => {
                self.in_flight.len() < self.in_flight_max()
                    && (self.resend_is_due(now) || self.queue_is_due(now))
            }
        }
    }

    /// The next callout that may go out now. `sequence` counts the batches of the VM.
    pub fn poll_callout(&mut self, now: Duration, sequence: &mut u64) -> Option<Callout> {
        if !self.is_due(now) {
            return None;
        }
        let registers = match self.registration {
            Registration::Failed(again_at) => again_at <= now,
            other => other == Registration::Needed,
        };
        if registers {
            self.registration = Registration::InFlight;
            return Some(Callout::register(&self.profile_id, self.profile.to_vec()));
        }
        let mut batch = match self.resend_is_due(now) {
            true => self.resend.pop_front()?,
            false => Batch::new(self.queue.take_batch(self.limits)),
        };
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
            Purpose::Produce(sequence) => match self.in_flight.remove(&sequence) {
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
        let Some(batch) = self.in_flight.remove(&sequence) else { return Vec::new() };
        match callout::classify(ended, batch.entries.len()) {
            Verdict::Outcomes(outcomes) => {
                // Another VM may have registered the same profile since.
                self.profile_refused = false;
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
        let mut settled = Vec::new();
        let timeout = self.timeout;
        let (expired, kept) = std::mem::take(&mut self.resend)
            .into_iter()
            .partition::<VecDeque<_>, _>(|batch| batch.remaining(timeout, now).is_zero());
        self.resend = kept;
        let late = Reason::new(Code::DeadlineExceeded, "no reply in time");
        settled.extend(expired.into_iter().flat_map(|batch| self.give_up(batch, late.clone())));
        for entry in self.queue.take_before(now.saturating_sub(timeout)) {
            let reason = Reason::new(Code::DeadlineExceeded, "the bridge took nothing in time");
            settled.extend(self.release(vec![entry.settle(Outcome::NotWritten(reason))]));
        }
        settled
    }

    /// Whether a batch may have been written and waits to be sent again.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.resend.iter().any(|batch| batch.doubt.is_some() && batch.attempts > 0)
    }

    /// Lets what is to be sent again go at once.
    pub(crate) fn send_again_now(&mut self) {
        self.resend.iter_mut().for_each(|batch| batch.not_before = Duration::ZERO);
    }

    /// Settles everything that is not in flight: it will not be sent, for `reason`.
    pub(crate) fn abandon(&mut self, reason: &Reason) -> Vec<Settled> {
        let mut batches = std::mem::take(&mut self.resend);
        batches.push_back(Batch::new(self.queue.take_all()));
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
        let (records, bytes) = self.queue.held();
        Depth { records, bytes, in_flight: self.in_flight.len() }
    }

    fn in_flight_max(&self) -> usize {
        match self.delivery {
            Delivery::Memory => limits::BATCHES_IN_FLIGHT_MEMORY,
            Delivery::Acked | Delivery::Queued => limits::BATCHES_IN_FLIGHT_ACKED,
        }
    }

    fn resend_is_due(&self, now: Duration) -> bool {
        self.resend.front().is_some_and(|batch| batch.not_before <= now)
    }

    fn queue_is_due(&self, now: Duration) -> bool {
        let Some(oldest) = self.queue.oldest() else { return false };
        match self.delivery {
            Delivery::Acked | Delivery::Queued => true,
            // Nothing overtakes a batch that waits to be sent again: a key's records stay in order.
            Delivery::Memory => {
                self.resend.is_empty()
                    && (self.draining
                        || self.queue.holds_a_full_batch(self.limits)
                        || now.saturating_sub(oldest) >= self.limits.flush_timeout)
            }
        }
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
        };
        let records = batch.entries.iter().map(|entry| entry.record.as_slice());
        // Encoding a head cannot fail; if it did, the bridge would refuse the empty frame.
        (wire::encode_frame(&head, records).unwrap_or_default(), budget)
    }
}

#[cfg(test)]
mod tests;
