//! One cell per batch: settled once, read by the ticket of each of its records.
//!
//! A batch is settled as a whole, so one cell and one wake serve all its records: a channel for each
//! of them would cost more than writing it. Where a batch is taken apart, its cell says where
//! each record went on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use super::memory::Memory;
use crate::error::Reason;
use crate::stats::Counters;

/// Each record ends as exactly one of these, no later than its deadline plus 100 ms.
///
/// `NotWritten` is a promise: every attempt was provably refused or never left this process.
/// Whatever cannot be proven is `Unknown`, and resending such a record may duplicate it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has it, as far as `acks` goes. With `acks=0` nobody answers: it means that the
    /// operating system took the bytes.
    Written {
        /// The partition it is in.
        partition: i32,
        /// Its offset; `None` with `acks=0`, and for a duplicate whose offset the broker forgot.
        offset: Option<i64>,
        /// Its time, ms since the Unix epoch: the broker's if the topic uses `LogAppendTime`.
        timestamp_ms: i64,
    },
    /// It is not in the log and will not be.
    NotWritten(Reason),
    /// It may be in the log, once or (without idempotence) more often, or not at all.
    Unknown(Reason),
}

/// What became of a batch.
#[derive(Debug, Clone)]
pub(crate) enum Settlement {
    Written {
        base_offset: Option<i64>,
        log_append_ms: Option<i64>,
    },
    NotWritten(Reason),
    Unknown(Reason),
    /// Its records went on in other batches, one slot each.
    Moved(Arc<[Slot]>),
}

/// Where one record of a regrouped batch is.
#[derive(Debug, Clone)]
pub(crate) enum Slot {
    Refused(Reason),
    In { cell: Arc<OutcomeCell>, index: u32 },
}

/// The place where the outcome of a batch appears; one wake for each task that waits.
#[derive(Debug)]
pub(crate) struct OutcomeCell {
    partition: i32,
    settled: OnceLock<Settlement>,
    wake: Notify,
}

impl OutcomeCell {
    pub(crate) fn new(partition: i32) -> Arc<Self> {
        Arc::new(Self { partition, settled: OnceLock::new(), wake: Notify::new() })
    }

    pub(crate) fn partition(&self) -> i32 {
        self.partition
    }

    fn settle(&self, settlement: Settlement) {
        if self.settled.set(settlement).is_ok() {
            self.wake.notify_waiters();
        }
    }

    async fn wait(&self) -> &Settlement {
        // Registered before the second look: a settlement in between would wake nobody else.
        loop {
            if let Some(settlement) = self.settled.get() {
                return settlement;
            }
            let mut woken = std::pin::pin!(self.wake.notified());
            woken.as_mut().enable();
            if self.settled.get().is_none() {
                woken.await;
            }
        }
    }
}

/// Waits for batches, and for those in which their records went on.
pub(crate) async fn all_settled(mut cells: Vec<Arc<OutcomeCell>>) {
    while let Some(cell) = cells.pop() {
        if let Settlement::Moved(slots) = cell.wait().await {
            for slot in slots.iter() {
                let Slot::In { cell, .. } = slot else { continue };
                // Records of one batch are neighbours.
                if !cells.last().is_some_and(|last| Arc::ptr_eq(last, cell)) {
                    cells.push(cell.clone());
                }
            }
        }
    }
}

/// The right to hear what became of one enqueued record. Dropping it changes nothing: the record
/// belongs to the producer.
#[derive(Debug)]
pub struct Ticket {
    pub(crate) cell: Arc<OutcomeCell>,
    pub(crate) index: u32,
    pub(crate) timestamp_ms: i64,
}

impl Ticket {
    /// Waits for the outcome, which comes no later than the record's deadline plus 100 ms.
    /// Cancel-safe: a dropped call loses only the answer.
    pub async fn outcome(self) -> Outcome {
        let (mut cell, mut index) = (self.cell, self.index);
        loop {
            let next = match cell.wait().await {
                Settlement::Written { base_offset, log_append_ms } => {
                    return Outcome::Written {
                        partition: cell.partition,
                        offset: base_offset.and_then(|base| base.checked_add(index.into())),
                        timestamp_ms: log_append_ms.unwrap_or(self.timestamp_ms),
                    };
                }
                Settlement::NotWritten(reason) => return Outcome::NotWritten(reason.clone()),
                Settlement::Unknown(reason) => return Outcome::Unknown(reason.clone()),
                Settlement::Moved(slots) => slots.get(index as usize).cloned(),
            };
            match next {
                Some(Slot::In { cell: next, index: place }) => (cell, index) = (next, place),
                Some(Slot::Refused(reason)) => return Outcome::NotWritten(reason),
                None => return Outcome::Unknown(Reason::Closed),
            }
        }
    }
}

/// What all batches of a producer are settled against.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) memory: Memory,
    pub(crate) stats: Arc<Counters>,
    unsettled: AtomicUsize,
    quiet: Notify,
}

impl Ledger {
    pub(crate) fn new(memory: Memory, stats: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { memory, stats, unsettled: AtomicUsize::new(0), quiet: Notify::new() })
    }

    /// Waits until every batch is settled.
    pub(crate) async fn drained(&self) {
        loop {
            let mut quiet = std::pin::pin!(self.quiet.notified());
            quiet.as_mut().enable();
            if self.unsettled.load(Ordering::Acquire) == 0 {
                return;
            }
            quiet.await;
        }
    }
}

/// The duty to settle one batch. When it is dropped the batch is settled as given up, so that no return
/// and no panic leaves a record without an outcome or its memory reserved.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) cell: Arc<OutcomeCell>,
    ledger: Arc<Ledger>,
    pub(crate) reserved: usize,
    pub(crate) records: usize,
    /// Whether an attempt is under way, or ended without a proof: then "not written" would be a lie.
    /// It is set before a request leaves, not when it is lost, because the deadline may settle the
    /// batch while its answer is still on the way.
    pub(crate) in_doubt: bool,
    open: bool,
}

impl Claim {
    pub(crate) fn new(cell: Arc<OutcomeCell>, ledger: Arc<Ledger>) -> Self {
        ledger.unsettled.fetch_add(1, Ordering::Relaxed);
        Self { cell, ledger, reserved: 0, records: 0, in_doubt: false, open: true }
    }

    pub(crate) fn written(self, base_offset: Option<i64>, log_append_ms: Option<i64>) {
        self.settle(Settlement::Written { base_offset, log_append_ms });
    }

    /// Settles without a success, by what is known of its attempts.
    pub(crate) fn give_up(self, reason: Reason) {
        let settlement = self.failure(reason);
        self.settle(settlement);
    }

    /// Hands its records over to other batches, which have claims of their own for the memory.
    pub(crate) fn moved(mut self, slots: Vec<Slot>, reserved_elsewhere: usize) {
        let refused = slots.iter().filter(|slot| matches!(slot, Slot::Refused(_))).count();
        self.reserved = self.reserved.saturating_sub(reserved_elsewhere);
        self.records = refused;
        self.settle(Settlement::Moved(slots.into()));
    }

    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        self.ledger.clone()
    }

    fn failure(&self, reason: Reason) -> Settlement {
        if self.in_doubt { Settlement::Unknown(reason) } else { Settlement::NotWritten(reason) }
    }

    fn settle(mut self, settlement: Settlement) {
        self.close(settlement);
    }

    fn close(&mut self, settlement: Settlement) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let stats = &self.ledger.stats;
        match &settlement {
            Settlement::Written { .. } => stats.records_written.add(self.records),
            Settlement::NotWritten(_) | Settlement::Moved(_) => {
                stats.records_not_written.add(self.records);
            }
            Settlement::Unknown(_) => stats.records_unknown.add(self.records),
        }
        // Memory first: who is woken by the outcome may want to reserve. It goes back when the batch is
        // settled, not when a ticket is dropped: the batch itself is still there until then.
        self.ledger.memory.release(self.reserved);
        self.cell.settle(settlement);
        if self.ledger.unsettled.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ledger.quiet.notify_waiters();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let settlement = self.failure(Reason::Closed);
        self.close(settlement);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Arc<Ledger> {
        let stats = Arc::<Counters>::default();
        Ledger::new(Memory::new(1000, stats.clone()), stats)
    }

    fn claim(ledger: &Arc<Ledger>, records: usize) -> Claim {
        let mut claim = Claim::new(OutcomeCell::new(3), ledger.clone());
        let mut permit = ledger.memory.try_reserve(100).unwrap();
        permit.spend(100).unwrap();
        (claim.reserved, claim.records) = (100, records);
        claim
    }

    fn ticket(claim: &Claim, index: u32) -> Ticket {
        Ticket { cell: claim.cell.clone(), index, timestamp_ms: 5 }
    }

    #[tokio::test]
    async fn each_record_hears_its_own_offset() {
        let ledger = ledger();
        let claim = claim(&ledger, 2);
        let (first, second) = (ticket(&claim, 0), ticket(&claim, 1));
        let waiting = tokio::spawn(second.outcome());
        tokio::task::yield_now().await;
        claim.written(Some(40), None);
        let written = |offset| Outcome::Written { partition: 3, offset, timestamp_ms: 5 };
        assert_eq!(first.outcome().await, written(Some(40)));
        assert_eq!(waiting.await.unwrap(), written(Some(41)));
        assert_eq!(ledger.stats.records_written.get(), 2);
        assert_eq!(ledger.stats.buffered_bytes.get(), 0);
    }

    #[tokio::test]
    async fn a_dropped_claim_is_settled_by_its_attempts() {
        let ledger = ledger();
        let untouched = claim(&ledger, 1);
        let mut doubtful = claim(&ledger, 1);
        doubtful.in_doubt = true;
        let tickets = (ticket(&untouched, 0), ticket(&doubtful, 0));
        drop((untouched, doubtful));
        assert_eq!(tickets.0.outcome().await, Outcome::NotWritten(Reason::Closed));
        assert_eq!(tickets.1.outcome().await, Outcome::Unknown(Reason::Closed));
        ledger.drained().await;
    }

    #[tokio::test]
    async fn records_are_followed_into_other_batches() {
        let ledger = ledger();
        let (old, mut new) = (claim(&ledger, 2), Claim::new(OutcomeCell::new(3), ledger.clone()));
        (new.reserved, new.records) = (60, 1);
        let tickets = (ticket(&old, 0), ticket(&old, 1));
        let slots =
            vec![Slot::Refused(Reason::TooLarge), Slot::In { cell: new.cell.clone(), index: 0 }];
        old.moved(slots, 60);
        assert_eq!(ledger.stats.buffered_bytes.get(), 60);
        new.written(Some(9), Some(77));
        assert_eq!(tickets.0.outcome().await, Outcome::NotWritten(Reason::TooLarge));
        let written = Outcome::Written { partition: 3, offset: Some(9), timestamp_ms: 77 };
        assert_eq!(tickets.1.outcome().await, written);
        assert_eq!(ledger.stats.buffered_bytes.get(), 0);
    }
}
