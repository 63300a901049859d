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
use std::time::Duration;

use self::batch::{Batch, Entry};
pub use self::batch::{Callout, Settled, StreamId};
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
    profile: Vec<u8>,
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
}

impl Outbox {
    /// An empty outbox. `vm` is a random id of 16 bytes.
    ///
    /// # Errors
    /// When the profile cannot be encoded.
    pub fn new(settings: &Settings, vm: [u8; 16]) -> Result<Self, serde_json::Error> {
        let profile = settings.profile.to_json()?;
        Ok(Self {
            vm,
            delivery: settings.delivery,
            limits: settings.batch,
            timeout: settings.delivery_timeout,
            profile_id: profile::id(&profile),
            profile,
            registration: Registration::Held,
            queue: Queue::new(settings.queue),
            resend: VecDeque::new(),
            in_flight: BTreeMap::new(),
            draining: false,
            health: Health::new(settings.gating.filter(|_| settings.delivery == Delivery::Memory)),
            profile_refused: false,
        })
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
            Registration::Held => {
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
        if self.registration == Registration::Needed {
            self.registration = Registration::InFlight;
            return Some(Callout::register(&self.profile_id, self.profile.clone()));
        }
        let mut batch = match self.resend_is_due(now) {
            true => self.resend.pop_front()?,
            false => Batch::new(self.queue.take_batch(self.limits)),
        };
        let number = *batch.sequence.get_or_insert_with(|| {
            *sequence += 1;
            *sequence
        });
        let callout = Callout::produce(&batch, self.frame(number, &batch, now));
        self.in_flight.insert(number, batch);
        Some(callout)
    }

    /// The host refused to dispatch a callout: it was not sent.
    pub fn on_refused(&mut self, sequence: Option<u64>, why: &str, now: Duration) -> Vec<Settled> {
        let reason = Reason::new(Code::BridgeUnreachable, why);
        match sequence {
            None => self.registration_failed(&reason, now),
            Some(sequence) => match self.in_flight.remove(&sequence) {
                Some(batch) => self.not_written(batch, &reason, now),
                None => Vec::new(),
            },
        }
    }

    /// A callout ended. `sequence` is the callout's.
    pub fn on_ended(
        &mut self,
        sequence: Option<u64>,
        ended: &Ended<'_>,
        now: Duration,
    ) -> Vec<Settled> {
        let Some(sequence) = sequence else {
            self.registration = Registration::Held;
            return match callout::classify_registration(ended) {
                None => {
                    self.profile_refused = false;
                    Vec::new()
                }
                Some(reason) => self.registration_failed(&reason, now),
            };
        };
        let Some(batch) = self.in_flight.remove(&sequence) else { return Vec::new() };
        match callout::classify(ended, batch.entries.len()) {
            Verdict::Outcomes(outcomes) => {
                // Another VM may have registered the same profile since.
                self.profile_refused = false;
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
        settled.extend(expired.into_iter().flat_map(|batch| self.give_up(batch)));
        for entry in self.queue.take_before(now.saturating_sub(timeout)) {
            let reason = Reason::new(Code::DeadlineExceeded, "the bridge took nothing in time");
            settled.extend(self.release(vec![entry.settle(Outcome::NotWritten(reason))]));
        }
        settled
    }

    /// From now on no batch waits to be full: the root is about to end.
    pub fn drain(&mut self) {
        self.draining = true;
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
            Delivery::Acked => limits::BATCHES_IN_FLIGHT_ACKED,
        }
    }

    fn resend_is_due(&self, now: Duration) -> bool {
        self.resend.front().is_some_and(|batch| batch.not_before <= now)
    }

    fn queue_is_due(&self, now: Duration) -> bool {
        let Some(oldest) = self.queue.oldest() else { return false };
        match self.delivery {
            Delivery::Acked => true,
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
            Delivery::Acked => batch.remaining(self.timeout, now),
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
