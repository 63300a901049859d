//! What each delivery mode does with the records of an outbox; every difference is decided here.
//!
//! | | acked | memory | per request |
//! | --- | --- | --- | --- |
//! | a 200 means | Kafka has the record, or the bridge | the root has it | Kafka has it, or the bridge |
//! | lanes | one for topics known to work, one each for others | one per topic | one |
//! | a batch is due | at once; beside many records in flight, when as many wait or it is full, or after 3 ms | full, old, or draining | at once |
//! | order | younger batches may overtake a resend | none overtakes | one batch at a time |
//! | record ages in a batch | within 1 s | any | within 1 s |
//! | deadline | `delivery_timeout` | none | `delivery_timeout` |
//! | not written | settled | sent again, unless permanent | settled |
//! | in doubt | sent again after a backoff | sent again after a backoff | 3 times, after a probe |
//! | failed registration | fails the batches that wait | repeated every 5 s | fails the batches |
//! | refused profile | fails the batches that wait | new records are refused | fails the batches |
//! | drain | no difference | a batch is due at once | no difference |

use std::collections::HashSet;
use std::time::Duration;

use super::batch::{Batch, QueuedRecord};
use super::lanes::{Lane, SHARED};
use crate::config::{BatchLimits, Settings};
use crate::limits;
use crate::outcome::{Outcome, Scope};
use crate::wire::{self, Delivery};

/// Group commit: records in flight from which on others wait until they are as many, or fill a batch.
/// Fewer, larger batches cost less; where few requests come each is sent at once.
const GROUP_COMMIT_FROM: usize = 8;
/// Group commit: how long a record waits for others while many are in flight. Mostly a reply ends the
/// wait; where replies take long it would be a delay that saves little.
const GROUP_COMMIT_WAIT_MAX: Duration = Duration::from_millis(3);
/// Group commit: the shortest `delivery_timeout` that has time for such a wait, which may last until the
/// next tick.
const GROUP_COMMIT_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// A delivery mode, with what it remembers.
#[derive(Debug)]
pub(super) enum Policy {
    /// The client waits until Kafka has its record, or with `Delivery::Queued` until the bridge has
    /// checked it and queues it in its memory.
    Acked {
        delivery: Delivery,
        /// Topics that have been written to; none where the settings have one topic.
        written: Option<HashSet<String>>,
        /// Whether records wait for each other beside many in flight.
        gathers: bool,
    },
    /// The client has its 200 when its record is queued.
    Memory { has_one_topic: bool, flush_timeout: Duration },
    /// The request waits, and nothing queues but its own records. With `Delivery::Queued` the
    /// bridge queues them in its memory.
    PerRequest(Delivery),
}

impl Policy {
    pub(super) fn new(settings: &Settings) -> Self {
        let has_one_topic = settings.has_one_topic();
        match settings.delivery {
            delivery @ (Delivery::Acked | Delivery::Queued) => {
                let written = (!has_one_topic).then(HashSet::new);
                let gathers = settings.delivery_timeout >= GROUP_COMMIT_TIMEOUT_MIN;
                Self::Acked { delivery, written, gathers }
            }
            Delivery::Memory => {
                Self::Memory { has_one_topic, flush_timeout: settings.batch.flush_timeout }
            }
        }
    }

    /// The same for a request that makes its own callouts.
    pub(super) fn for_one_request(&self) -> Self {
        Self::PerRequest(match self {
            Self::Memory { .. } => Delivery::Queued,
            Self::Acked { delivery, .. } | Self::PerRequest(delivery) => *delivery,
        })
    }

    /// What the bridge is asked for.
    pub(super) const fn delivery(&self) -> Delivery {
        match self {
            Self::Memory { .. } => Delivery::Memory,
            Self::Acked { delivery, .. } | Self::PerRequest(delivery) => *delivery,
        }
    }

    /// The lane of a record. In acked mode a topic has its own until it has been written to: the
    /// bridge answers a batch when its last record is settled, so one record for a topic that does
    /// not exist would delay the replies to all others by a `delivery_timeout`.
    pub(super) fn lane<'a>(&self, record: &'a [u8]) -> &'a str {
        match self {
            Self::Acked { written: Some(written), .. } => match wire::topic(record) {
                topic if written.contains(topic) => SHARED,
                topic => topic,
            },
            Self::Memory { has_one_topic: false, .. } => wire::topic(record),
            Self::Acked { written: None, .. } | Self::Memory { .. } | Self::PerRequest(_) => SHARED,
        }
    }

    /// Acked mode: topics that are written share their batches from now on, those that fail do not.
    pub(super) fn learn(&mut self, records: &[QueuedRecord], outcomes: &[Outcome]) {
        let Self::Acked { written: Some(written), .. } = self else { return };
        for (record, outcome) in records.iter().zip(outcomes) {
            let topic = wire::topic(&record.encoded);
            match outcome {
                outcome if outcome.is_kept() && written.contains(topic) => {}
                Outcome::Written { .. } | Outcome::Queued => {
                    if written.len() >= limits::LANES_MAX {
                        written.clear();
                    }
                    written.insert(topic.to_owned());
                }
                Outcome::NotWritten(reason) | Outcome::Unknown(reason) => {
                    if reason.code.scope() == Scope::Topic {
                        written.remove(topic);
                    }
                }
            }
        }
    }

    /// Since when a lane has had a batch to send; none while it has none.
    pub(super) fn due_since(
        &self,
        lane: &Lane,
        limits: BatchLimits,
        now: Duration,
    ) -> Option<Duration> {
        if let Some(at) = lane.resend_since(now) {
            return Some(at);
        }
        let oldest = lane.oldest()?;
        let is_due = match self {
            Self::Acked { gathers, .. } => {
                let in_flight = lane.records_in_flight();
                !gathers
                    || in_flight < GROUP_COMMIT_FROM
                    || lane.waiting() >= in_flight
                    || lane.holds_a_full_batch(limits)
                    || now.saturating_sub(oldest) >= GROUP_COMMIT_WAIT_MAX
            }
            Self::PerRequest(_) => true,
            // If a younger batch went before one that is sent again, the records of a key would
            // change their order in the partition.
            Self::Memory { flush_timeout, .. } => {
                lane.resend.is_empty()
                    && (lane.holds_a_full_batch(limits)
                        || now.saturating_sub(oldest) >= *flush_timeout)
            }
        };
        is_due.then_some(oldest)
    }

    /// Batches in flight of the lane that topics share. Memory mode has one, for the order of a
    /// key's records; in acked mode a client that needs an order waits for each reply.
    pub(super) const fn shared_in_flight_max(&self) -> usize {
        match self {
            Self::Memory { .. } => limits::BATCHES_IN_FLIGHT_LANE,
            Self::Acked { .. } | Self::PerRequest(_) => limits::BATCHES_IN_FLIGHT_SHARED,
        }
    }

    /// How much younger than its oldest a batch's record may be. A batch has the deadline of its
    /// oldest record: a young one beside it would fail long before its own.
    pub(super) const fn batch_age_max(&self) -> Duration {
        match self {
            Self::Memory { .. } => Duration::MAX,
            Self::Acked { .. } | Self::PerRequest(_) => {
                Duration::from_millis(limits::BATCH_AGE_MAX_MS)
            }
        }
    }

    /// How long after its push a record is given up; none where it never is, since its client has a
    /// 200 for it.
    pub(super) fn deadline(&self, delivery_timeout: Duration) -> Option<Duration> {
        match self {
            Self::Memory { .. } => None,
            Self::Acked { .. } | Self::PerRequest(_) => Some(delivery_timeout),
        }
    }

    /// Whether a record that ended so is kept and sent again, instead of settled.
    pub(super) fn keeps(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Memory { .. }, Outcome::NotWritten(reason) | Outcome::Unknown(reason)) => {
                !reason.code.is_permanent()
            }
            _ => false,
        }
    }

    /// Whether a batch is sent again whose callout did not write it. In memory mode any is. In the
    /// others only one with an earlier attempt that may be written, because only the bridge, which
    /// remembers what it answered, can tell what became of that.
    pub(super) const fn keeps_batch(&self, batch: &Batch) -> bool {
        matches!(self, Self::Memory { .. }) || batch.doubt.is_some()
    }

    /// The wait before a batch is sent again; none where there is no further attempt. The next one
    /// of a single request follows a probe, which takes the backoff's place.
    pub(super) fn backoff(&self, batch: &Batch) -> Option<Duration> {
        match self {
            Self::Acked { .. } | Self::Memory { .. } => Some(backoff(batch.attempts)),
            Self::PerRequest(_) => {
                (batch.attempts < limits::PER_REQUEST_RESENDS_MAX).then_some(Duration::ZERO)
            }
        }
    }

    /// Whether the profile is registered before the first batch, and again while the bridge refuses
    /// it: in memory mode a refusal must be known before a client has a 200 for its record.
    pub(super) const fn registers_early(&self) -> bool {
        matches!(self, Self::Memory { .. })
    }

    /// The lowest sequence number that may be sent again, of those in `unsettled`. An outbox of one
    /// request does not know those of the others, and says nothing: 0.
    pub(super) fn settled_below(&self, next: u64, unsettled: impl Iterator<Item = u64>) -> u64 {
        match self {
            Self::PerRequest(_) => 0,
            Self::Acked { .. } | Self::Memory { .. } => unsettled.fold(next, u64::min),
        }
    }

    /// From now on no batch waits to be full: the root is about to end.
    pub(super) const fn drain(&mut self) {
        if let Self::Memory { flush_timeout, .. } = self {
            *flush_timeout = Duration::ZERO;
        }
    }
}

/// Doubling from 50 ms to 1 s. One worker has one batch to send again at a time, so there is no
/// crowd for jitter to spread.
fn backoff(attempts: u32) -> Duration {
    Duration::from_millis(50 << attempts.min(5)).min(Duration::from_secs(1))
}
