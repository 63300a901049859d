//! Records in lanes by topic, so that what stops one topic stops no other; bounded in number and
//! bytes until each is settled.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::batch::{Batch, QueuedRecord};
use super::health::Health;
use crate::config::{BatchLimits, Gating, QueueLimits};
use crate::limits::LANES_MAX;
use crate::outcome::{Code, Reason};

/// Gauges of an outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Records queued, in flight or to be sent again.
    pub records: usize,
    /// Their encoded bytes.
    pub bytes: usize,
    /// Batches in flight.
    pub in_flight: usize,
    /// Topics with records whose last batch was not written.
    pub failing: usize,
}

impl std::ops::Add for Depth {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            bytes: self.bytes + other.bytes,
            in_flight: self.in_flight + other.in_flight,
            failing: self.failing + other.failing,
        }
    }
}

/// The lane of records whose topics share their batches.
pub(super) const SHARED: &str = "";

/// All lanes. A lane is here as long as it has records or failures to remember.
#[derive(Debug)]
pub(super) struct Lanes {
    limits: QueueLimits,
    gating: Option<Gating>,
    by_topic: BTreeMap<Rc<str>, Lane>,
    held_records: usize,
    held_bytes: usize,
}

/// The records of a topic, or of all topics that share their batches.
#[derive(Debug)]
pub(super) struct Lane {
    waiting: VecDeque<QueuedRecord>,
    waiting_bytes: usize,
    /// What is to be sent again, before everything that waits.
    pub(super) resend: VecDeque<Batch>,
    held_records: usize,
    held_bytes: usize,
    pub(super) in_flight: usize,
    pub(super) health: Health,
    /// Why the last batch was not written; none where it was.
    pub(super) failing: Option<Reason>,
}

impl Lanes {
    pub(super) fn new(limits: QueueLimits, gating: Option<Gating>) -> Self {
        Self { limits, gating, by_topic: BTreeMap::new(), held_records: 0, held_bytes: 0 }
    }

    /// Whether so many records of so many bytes have room. An empty queue has it for every request.
    pub(super) fn check_room(&self, records: usize, bytes: usize) -> Result<(), Code> {
        let full = self.held_records + records > self.limits.records
            || self.held_bytes + bytes > self.limits.bytes;
        if full && self.held_records > 0 { Err(Code::QueueFull) } else { Ok(()) }
    }

    /// Whether a topic's lane may hold so much more: as much as it leaves free to all others, so
    /// that a topic that cannot be written to never fills the queue.
    pub(super) fn check_share(
        &mut self,
        topic: &str,
        records: usize,
        bytes: usize,
    ) -> Result<(), Code> {
        let (lane_records, lane_bytes) = match self.by_topic.get(topic) {
            Some(lane) => (lane.held_records, lane.held_bytes),
            None => {
                if self.by_topic.len() >= LANES_MAX {
                    self.by_topic.retain(|_, lane| lane.held_records > 0);
                }
                if self.by_topic.len() >= LANES_MAX {
                    return Err(Code::QueueFull);
                }
                (0, 0)
            }
        };
        let free_records = self.limits.records.saturating_sub(self.held_records);
        let free_bytes = self.limits.bytes.saturating_sub(self.held_bytes);
        let full = lane_records + records > free_records || lane_bytes + bytes > free_bytes;
        if full && lane_records > 0 { Err(Code::QueueFull) } else { Ok(()) }
    }

    /// Takes a record in.
    pub(super) fn push(&mut self, topic: &str, record: QueuedRecord) {
        self.held_records += 1;
        self.held_bytes += record.encoded.len();
        let lane = match self.by_topic.get_mut(topic) {
            Some(lane) => lane,
            None => {
                let lane = Lane::new(self.gating);
                self.by_topic.entry(topic.into()).or_insert(lane)
            }
        };
        lane.held_records += 1;
        lane.held_bytes += record.encoded.len();
        lane.waiting_bytes += record.encoded.len();
        lane.waiting.push_back(record);
    }

    pub(super) fn get(&self, topic: &str) -> Option<&Lane> {
        self.by_topic.get(topic)
    }

    pub(super) fn get_mut(&mut self, topic: &str) -> Option<&mut Lane> {
        self.by_topic.get_mut(topic)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Rc<str>, &Lane)> {
        self.by_topic.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Rc<str>, &mut Lane)> {
        self.by_topic.iter_mut()
    }

    pub(super) fn limits(&self) -> QueueLimits {
        self.limits
    }

    /// Records of so many bytes were settled: their room is free, and a lane without records and
    /// failures is gone.
    pub(super) fn release(&mut self, topic: &str, records: usize, bytes: usize) {
        self.held_records = self.held_records.saturating_sub(records);
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
        let Some(lane) = self.by_topic.get_mut(topic) else { return };
        lane.held_records = lane.held_records.saturating_sub(records);
        lane.held_bytes = lane.held_bytes.saturating_sub(bytes);
        if topic != SHARED && lane.held_records == 0 && lane.health.is_well() {
            self.by_topic.remove(topic);
        }
    }

    /// Records and bytes that are not settled yet.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.held_records, self.held_bytes)
    }
}

impl Lane {
    fn new(gating: Option<Gating>) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            resend: VecDeque::new(),
            held_records: 0,
            held_bytes: 0,
            in_flight: 0,
            health: Health::new(gating),
            failing: None,
        }
    }

    pub(super) fn has_records(&self) -> bool {
        self.held_records > 0
    }

    /// Whether a request's record may be queued here.
    pub(super) fn admits(&mut self, now: Duration) -> bool {
        self.health.admits(self.held_records, now)
    }

    /// When the oldest waiting record was pushed.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.waiting.front().map(|record| record.since)
    }

    /// Since when a batch could have been sent again; none while none may be.
    pub(super) fn resend_since(&self, now: Duration) -> Option<Duration> {
        self.resend.front().map(|batch| batch.not_before).filter(|at| *at <= now)
    }

    pub(super) fn holds_a_full_batch(&self, limits: BatchLimits) -> bool {
        self.waiting.len() >= limits.records || self.waiting_bytes >= limits.bytes
    }

    /// Records that are queued and were not sent yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn records_in_flight(&self) -> usize {
        let again: usize = self.resend.iter().map(|batch| batch.records.len()).sum();
        self.held_records - self.waiting.len() - again
    }

    /// The oldest records, up to a batch's limits, none younger than `age` beyond the oldest, and
    /// always one.
    pub(super) fn take_batch(&mut self, limits: BatchLimits, age: Duration) -> Vec<QueuedRecord> {
        let mut bytes = 0;
        let youngest = self.oldest().unwrap_or_default().saturating_add(age);
        let fits = |record: &&QueuedRecord| {
            bytes += record.encoded.len();
            bytes <= limits.bytes && record.since <= youngest
        };
        let count = self.waiting.iter().take(limits.records).take_while(fits).count().max(1);
        self.take(count)
    }

    /// The records that were pushed before `moment`.
    pub(super) fn take_before(&mut self, moment: Duration) -> Vec<QueuedRecord> {
        let count = self.waiting.iter().take_while(|record| record.since < moment).count();
        self.take(count)
    }

    /// All of them.
    pub(super) fn take_all(&mut self) -> Vec<QueuedRecord> {
        self.take(self.waiting.len())
    }

    fn take(&mut self, count: usize) -> Vec<QueuedRecord> {
        let count = count.min(self.waiting.len());
        let taken: Vec<_> = self.waiting.drain(..count).collect();
        self.waiting_bytes -= taken.iter().map(|record| record.encoded.len()).sum::<usize>();
        taken
    }
}
