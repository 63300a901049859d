//! Records in order of arrival, bounded in number and bytes until each is settled.

use std::collections::VecDeque;
use std::time::Duration;

use super::batch::Entry;
use crate::config::{BatchLimits, QueueLimits};
use crate::outcome::Code;

/// Gauges of an outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Records queued, in flight or to be sent again.
    pub records: usize,
    /// Their encoded bytes.
    pub bytes: usize,
    /// Batches in flight.
    pub in_flight: usize,
}

#[derive(Debug)]
pub(super) struct Queue {
    limits: QueueLimits,
    waiting: VecDeque<Entry>,
    waiting_bytes: usize,
    held_records: usize,
    held_bytes: usize,
}

impl Queue {
    pub(super) fn new(limits: QueueLimits) -> Self {
        let waiting = VecDeque::new();
        Self { limits, waiting, waiting_bytes: 0, held_records: 0, held_bytes: 0 }
    }

    /// Whether so many records of so many bytes have room. An empty queue has it for every request.
    pub(super) fn check_room(&self, records: usize, bytes: usize) -> Result<(), Code> {
        let full = self.held_records + records > self.limits.records
            || self.held_bytes + bytes > self.limits.bytes;
        if full && self.held_records > 0 { Err(Code::QueueFull) } else { Ok(()) }
    }

    /// Takes a record in.
    pub(super) fn push(&mut self, entry: Entry) {
        self.held_records += 1;
        self.held_bytes += entry.record.len();
        self.waiting_bytes += entry.record.len();
        self.waiting.push_back(entry);
    }

    /// When the oldest waiting record was pushed.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.waiting.front().map(|entry| entry.since)
    }

    pub(super) fn holds_a_full_batch(&self, limits: BatchLimits) -> bool {
        self.waiting.len() >= limits.records || self.waiting_bytes >= limits.bytes
    }

    /// The oldest records, up to a batch's limits, and always one.
    pub(super) fn take_batch(&mut self, limits: BatchLimits) -> Vec<Entry> {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.record.len();
            bytes <= limits.bytes
        };
        let count = self.waiting.iter().take(limits.records).take_while(fits).count().max(1);
        self.take(count)
    }

    /// The records that were pushed before `moment`.
    pub(super) fn take_before(&mut self, moment: Duration) -> Vec<Entry> {
        let count = self.waiting.iter().take_while(|entry| entry.since < moment).count();
        self.take(count)
    }

    /// All of them.
    pub(super) fn take_all(&mut self) -> Vec<Entry> {
        self.take(self.waiting.len())
    }

    pub(super) fn limits(&self) -> QueueLimits {
        self.limits
    }

    /// A record of `bytes` was settled: its room is free.
    pub(super) fn release(&mut self, bytes: usize) {
        self.held_records = self.held_records.saturating_sub(1);
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    /// Records and bytes that are not settled yet.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.held_records, self.held_bytes)
    }

    fn take(&mut self, count: usize) -> Vec<Entry> {
        let count = count.min(self.waiting.len());
        let taken: Vec<_> = self.waiting.drain(..count).collect();
        self.waiting_bytes -= taken.iter().map(|entry| entry.record.len()).sum::<usize>();
        taken
    }
}
