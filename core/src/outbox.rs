//! What waits for the bridge: queued, in flight and to be sent again, until each record has its
//! outcome.
//!
//! `push` puts a record in, `poll_callout` takes a callout out, `on_*` tell how it went. The outbox
//! reads no clock: `now` is the time since some fixed moment.

mod batch;
mod queue;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::batch::{Batch, Entry, backoff};
pub use self::batch::{Callout, Settled, StreamId};
pub use self::queue::Depth;
use self::queue::Queue;
use crate::callout::{self, Ended, Verdict};
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
        })
    }

    /// Queues an encoded record. `stream` waits for its outcome; none where nobody does.
    ///
    /// # Errors
    /// Why it was not queued: it is too large for a frame, or the queue is full.
    pub fn push(
        &mut self,
        record: Vec<u8>,
        stream: Option<StreamId>,
        now: Duration,
    ) -> Result<(), Code> {
        if record.len() > limits::RECORD_BYTES_MAX {
            return Err(Code::RecordTooLarge);
        }
        self.queue.push(Entry { record, stream, since: now })
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
        let callout = Callout::produce(number, self.frame(number, &batch, now));
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
                None => Vec::new(),
                Some(reason) => self.registration_failed(&reason, now),
            };
        };
        let Some(batch) = self.in_flight.remove(&sequence) else { return Vec::new() };
        match callout::classify(ended, batch.entries.len()) {
            Verdict::Outcomes(outcomes) => self.settle(batch, outcomes, now),
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

    fn register_for(&mut self, mut batch: Batch, now: Duration) -> Vec<Settled> {
        if batch.registered {
            let reason = Reason::new(Code::BridgeRefused, "it forgot the profile at once");
            return self.not_written(batch, &reason, now);
        }
        batch.registered = true;
        self.resend.push_front(batch);
        if self.registration == Registration::Held {
            self.registration = Registration::Needed;
        }
        Vec::new()
    }

    /// A registration that failed fails what waits for it; the next batch tries again.
    fn registration_failed(&mut self, reason: &Reason, now: Duration) -> Vec<Settled> {
        self.registration = Registration::Held;
        let waiting = std::mem::take(&mut self.resend);
        waiting.into_iter().rev().flat_map(|batch| self.not_written(batch, reason, now)).collect()
    }

    fn not_written(&mut self, batch: Batch, reason: &Reason, now: Duration) -> Vec<Settled> {
        match (self.delivery, &batch.doubt) {
            (Delivery::Memory, _) => self.send_again(batch, now),
            // An earlier attempt is in doubt: only the bridge's word on it can end that.
            (Delivery::Acked, Some(_)) => self.unknown(batch, reason.clone(), now),
            (Delivery::Acked, None) => {
                let outcomes = vec![Outcome::NotWritten(reason.clone()); batch.entries.len()];
                self.settle(batch, outcomes, now)
            }
        }
    }

    /// A doubtful batch is sent again under its sequence: the bridge remembers what it answered.
    fn unknown(&mut self, mut batch: Batch, reason: Reason, now: Duration) -> Vec<Settled> {
        batch.doubt.get_or_insert(reason);
        let retry_at = now + backoff(batch.attempts);
        if self.delivery == Delivery::Acked && batch.remaining(self.timeout, retry_at).is_zero() {
            return self.give_up(batch);
        }
        self.send_again(batch, now)
    }

    /// There is no time for another attempt.
    fn give_up(&mut self, batch: Batch) -> Vec<Settled> {
        let outcome = batch.outcome(Reason::new(Code::DeadlineExceeded, "no reply in time"));
        let settle = |entry: Entry| entry.settle(outcome.clone());
        self.release(batch.entries.into_iter().map(settle).collect())
    }

    fn send_again(&mut self, mut batch: Batch, now: Duration) -> Vec<Settled> {
        batch.not_before = now + backoff(batch.attempts);
        batch.attempts += 1;
        batch.registered = false;
        self.resend.push_front(batch);
        Vec::new()
    }

    fn split(&mut self, mut batch: Batch, now: Duration) -> Vec<Settled> {
        if batch.entries.len() == 1 {
            let reason = Reason::new(Code::RecordTooLarge, "a frame above the bridge's limit");
            return self.settle(batch, vec![Outcome::NotWritten(reason)], now);
        }
        let half = batch.entries.split_off(batch.entries.len() / 2);
        for entries in [half, batch.entries] {
            self.resend.push_front(Batch { doubt: batch.doubt.clone(), ..Batch::new(entries) });
        }
        Vec::new()
    }

    /// Gives each record its outcome. In memory mode the client has its 200 already: what was not
    /// written, but may yet be, goes out again as a new batch, before everything younger.
    fn settle(&mut self, batch: Batch, outcomes: Vec<Outcome>, now: Duration) -> Vec<Settled> {
        let (mut settled, mut again) = (Vec::new(), Vec::new());
        for (entry, outcome) in batch.entries.into_iter().zip(outcomes) {
            let reason = match &outcome {
                Outcome::Written { .. } => None,
                Outcome::NotWritten(reason) | Outcome::Unknown(reason) => Some(reason),
            };
            let lasting = reason.is_none_or(|reason| reason.code.is_permanent());
            if self.delivery == Delivery::Memory && !lasting {
                again.push(entry);
                continue;
            }
            settled.push(entry.settle(match outcome {
                // An earlier attempt may have been written, whatever became of this one.
                Outcome::NotWritten(reason) if batch.doubt.is_some() => Outcome::Unknown(reason),
                other => other,
            }));
        }
        if !again.is_empty() {
            let attempts = batch.attempts;
            self.send_again(Batch { attempts, ..Batch::new(again) }, now);
        }
        self.release(settled)
    }

    fn release(&mut self, settled: Vec<Settled>) -> Vec<Settled> {
        settled.iter().for_each(|one| self.queue.release(one.bytes));
        settled
    }
}

#[cfg(test)]
mod tests;
