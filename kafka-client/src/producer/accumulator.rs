//! One partition's open batch and queue; says when a batch is due (pure).
//!
//! A record is serialized into the open batch when it is enqueued, so that it is copied once and its
//! size in the request is known. With `linger.ms` 0 a batch leaves at once while nothing is in flight,
//! and grows while something is: two hundred records that are sent at the same time make three requests
//! rather than two hundred, and a single one waits for nothing.

use std::sync::Arc;

use tokio::time::Instant;

use super::batch::{Batch, BatchLimits, Content, Ending, InFlightBatch, NextBatch};
use super::batch_queue::{BatchQueue, NextSend};
use super::sequence::Sequence;
use super::settle::{Claim, Ledger, OutcomeCell};
use super::timer::PartitionTimer;
use super::verdict::Attempts;
use crate::calls::init_producer_id::ProducerIdentity;
use crate::error::Reason;
use crate::limits::{
    BATCH_AGE, BATCH_BUFFER_BYTES, PARTITION_SHARE_DIVISOR, PRODUCE_PARTITION_BYTES,
};
use crate::record_batch::{BatchBuilder, Record};

/// Everything that waits for, or is on its way to, one partition.
#[derive(Debug)]
pub(crate) struct Accumulator {
    partition: i32,
    /// Of the cluster that it is in.
    era: u64,
    limits: BatchLimits,
    ledger: Arc<Ledger>,
    open: Option<Batch>,
    queue: BatchQueue,
    /// Bytes reserved by all of them.
    buffered: usize,
    /// Bytes of the last batch that was closed: how large the next buffer is made. A batch that
    /// stays small takes no more than its predecessor then, however long it waits.
    expected: usize,
    timer: PartitionTimer,
    /// In the queue of a sender, or waiting for a leader.
    scheduled: bool,
    /// Why nothing has been written lately.
    last_cause: Option<Arc<Reason>>,
    mode: Mode,
    turned_away: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    /// Nothing new; what is here leaves without lingering.
    Draining,
}

impl Accumulator {
    pub(crate) fn new(partition: i32, era: u64, limits: BatchLimits, ledger: Arc<Ledger>) -> Self {
        let sequence = limits.idempotent_in_flight.map(Sequence::new);
        Self {
            partition,
            era,
            limits,
            queue: BatchQueue::new(sequence, ledger.stats.clone()),
            ledger,
            open: None,
            buffered: 0,
            expected: BATCH_BUFFER_BYTES,
            timer: PartitionTimer::default(),
            scheduled: false,
            last_cause: None,
            mode: Mode::Open,
            turned_away: false,
        }
    }

    /// Adds a record that has `reserved` bytes of the producer's memory; says in which cell its
    /// outcome will be, and at which index.
    pub(crate) fn push(
        &mut self,
        record: &Record<'_>,
        reserved: usize,
        deadline: Instant,
        now: Instant,
    ) -> Result<(Arc<OutcomeCell>, u32), Reason> {
        if self.mode == Mode::Draining {
            return Err(Reason::Closed);
        }
        // A partition without leader would take all of `buffer.memory`, and with it every other one.
        // One record is always accepted, however large.
        if self.buffered > 0 && self.buffered + reserved > self.share() {
            self.turned_away = true;
            return Err(Reason::BufferFull);
        }
        let age = BATCH_AGE.max(self.limits.linger);
        let is_open = self.open.as_ref().is_some_and(|batch| {
            // The batch is settled at its earliest deadline, so a record joins its equals only.
            let (earlier, later) = (batch.deadline.min(deadline), batch.deadline.max(deadline));
            now < batch.not_before + age && later - earlier <= age
        });
        if is_open && let Some(place) = self.push_open(record, reserved, deadline) {
            return Ok(place);
        }
        let expected = self.open.as_ref().map_or(self.expected, |open| open.content.len());
        let builder = BatchBuilder::with_capacity(expected);
        if builder.len_with(record) + PRODUCE_PARTITION_BYTES > self.limits.request_bytes {
            return Err(Reason::TooLarge);
        }
        self.close_open();
        let claim = Some(Claim::new(OutcomeCell::new(self.partition), self.ledger.clone()));
        let content = Content::Growing(builder);
        let (id, attempts) = (self.queue.next_id(), Attempts::default());
        self.open = Some(Batch { id, content, attempts, claim, deadline, not_before: now });
        self.push_open(record, reserved, deadline).ok_or(Reason::TooLarge)
    }

    fn push_open(
        &mut self,
        record: &Record<'_>,
        reserved: usize,
        deadline: Instant,
    ) -> Option<(Arc<OutcomeCell>, u32)> {
        let batch = self.open.as_mut()?;
        let (Content::Growing(builder), Some(claim)) = (&mut batch.content, &mut batch.claim)
        else {
            return None;
        };
        if !builder.push_within(record, self.limits.batch_bytes) {
            return None;
        }
        let place = (claim.cell.clone(), u32::try_from(claim.records).unwrap_or(u32::MAX));
        claim.records += 1;
        claim.reserved += reserved;
        batch.deadline = batch.deadline.min(deadline);
        self.buffered += reserved;
        self.timer.expect(deadline);
        if builder.records() >= self.limits.batch_records {
            self.close_open();
        }
        Some(place)
    }

    fn close_open(&mut self) {
        if let Some(batch) = self.open.take() {
            self.expected = batch.content.len();
            self.queue.push(batch);
        }
    }

    /// Whether the partition must be given to its leader's sender now. Says so once, until
    /// [`Accumulator::take`].
    pub(crate) fn poll_due(&mut self, now: Instant) -> bool {
        if self.scheduled || self.due_at().is_none_or(|at| now < at) {
            return false;
        }
        self.scheduled = true;
        true
    }

    /// When to call [`Accumulator::on_alarm`] at the latest, if that has changed.
    pub(crate) fn poll_alarm(&mut self) -> Option<Instant> {
        let due = if self.scheduled { None } else { self.due_at() };
        self.timer.poll(due)
    }

    /// Settles what is past its deadline.
    pub(crate) fn on_alarm(&mut self, now: Instant) {
        if !self.timer.ring(now) {
            return;
        }
        let no_answer = || Reason::NoAnswer("the request is still under way".into()).into();
        let silent = || self.queue.is_in_flight().then(no_answer);
        let reason = Reason::DeadlineExceeded { last: self.last_cause.clone().or_else(silent) };
        if self.open.as_ref().is_some_and(|batch| batch.deadline <= now) {
            self.close_open();
        }
        self.buffered -= self.queue.expire(now, &reason);
        self.recount();
    }

    /// Takes the next batch for a request that has `room` bytes left and goes over `connection`.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        room: usize,
        is_first: bool,
        connection: u64,
    ) -> NextBatch {
        self.on_alarm(now);
        self.scheduled = false;
        if !self.queue.bind(connection) || self.due_at().is_none_or(|at| now < at) {
            return NextBatch::Nothing;
        }
        // Closing the open batch, stamping it and taking it out is one critical section: what is
        // stamped first is queued on the connection first, and sequence order is wire order.
        let next = match self.queue.next() {
            NextSend::Nothing => None,
            NextSend::Batch { id, .. } => self.queue.get(id),
            NextSend::Open => self.open.as_ref(),
        };
        let Some(next) = next else { return NextBatch::Nothing };
        let (id, bytes) = (next.id, next.content.len());
        // The first batch of a request is taken whatever its size: a record of `max.request.size` would
        // wait for ever otherwise.
        if !is_first && (bytes > room || next.attempts.travels_alone()) {
            self.scheduled = true;
            return NextBatch::NoRoom;
        }
        if self.open.as_ref().is_some_and(|open| open.id == id) {
            self.close_open();
        }
        self.queue.depart(id)
    }

    /// The request of a shipment is over.
    pub(crate) fn finish(&mut self, shipment: InFlightBatch, ending: Ending) {
        match &ending {
            Ending::Written { .. } => self.last_cause = None,
            Ending::Resend { cause, .. } => self.last_cause = Some(cause.clone()),
            Ending::GaveUp(_) | Ending::Regroup(_) => {}
        }
        self.buffered -= self.queue.finish(shipment, ending);
    }

    /// Takes a producer id if one is needed. `false`: it needs one other than was offered.
    pub(crate) fn identify(&mut self, offered: Option<ProducerIdentity>) -> bool {
        let ready = self.queue.identify(offered);
        if ready && offered.is_some() {
            self.last_cause = None;
        }
        ready
    }

    /// The producer id that must be replaced before anything can be sent.
    pub(crate) fn spent_id(&self) -> Option<i64> {
        self.queue.spent_id()
    }

    /// The topic was created again under its old name.
    pub(crate) fn on_recreated(&mut self) {
        self.buffered -= self.queue.on_recreated();
    }

    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    /// Another cluster has taken the place of the one that it was in: what that may have is
    /// unknown, and the rest is sent as if it were new.
    pub(crate) fn start_over(&mut self, era: u64) {
        if self.era == era {
            return;
        }
        (self.era, self.scheduled) = (era, false);
        let reason = Reason::NoAnswer("another Kafka cluster has taken its place".into());
        let sequence = self.limits.idempotent_in_flight.map(Sequence::new);
        self.buffered -= self.queue.start_over(sequence, &reason);
        self.last_cause = Some(Reason::Unreachable("another Kafka cluster answers".into()).into());
        self.recount();
    }

    fn recount(&mut self) {
        let waiting = self.open.iter().map(|batch| batch.deadline);
        self.timer.recount(self.queue.deadlines().chain(waiting));
    }

    /// Nothing moves, and why: for the outcome of those whose deadline passes. Says whether
    /// anything still waits; if not, the partition is no longer scheduled.
    pub(crate) fn on_blocked(&mut self, cause: &Arc<Reason>) -> bool {
        self.last_cause = Some(cause.clone());
        self.scheduled = self.open.is_some() || self.queue.is_waiting();
        self.scheduled
    }

    /// Lets what is here go without lingering; gives the cells in which its outcomes will be.
    pub(crate) fn flush(&mut self) -> Vec<Arc<OutcomeCell>> {
        self.close_open();
        self.queue.cells().collect()
    }

    /// Refuses new records, and lets those that are here go without lingering.
    pub(crate) fn drain(&mut self) {
        self.mode = Mode::Draining;
    }

    /// Settles everything, by what is known of its attempts.
    pub(crate) fn give_up(&mut self, reason: &Reason) {
        self.drain();
        self.close_open();
        self.queue.drain().for_each(|claim| claim.give_up(reason.clone()));
        self.buffered = 0;
        self.timer.recount(std::iter::empty());
    }

    /// Whether someone was turned away and there is room again. Says so once.
    pub(crate) fn poll_room(&mut self) -> bool {
        self.turned_away && self.buffered < self.share() && std::mem::take(&mut self.turned_away)
    }

    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_none() && self.queue.is_empty()
    }

    /// From when on a batch may be sent; `None` while nothing waits or too much is in flight. With
    /// a linger of zero an open batch goes at once if nothing is in flight, else it grows.
    fn due_at(&self) -> Option<Instant> {
        match self.queue.next() {
            NextSend::Nothing => None,
            NextSend::Batch { at, .. } => Some(at),
            NextSend::Open => {
                let open = self.open.as_ref()?;
                let since = open.not_before;
                let patience = open.deadline.saturating_duration_since(since);
                match self.mode {
                    Mode::Open if self.limits.linger.is_zero() && self.queue.is_in_flight() => None,
                    // A quarter of its patience is left for the request itself.
                    Mode::Open => Some(since + self.limits.linger.min(patience - patience / 4)),
                    Mode::Draining => Some(since),
                }
            }
        }
    }

    fn share(&self) -> usize {
        self.limits.buffer_bytes / PARTITION_SHARE_DIVISOR
    }
}

#[cfg(test)]
mod tests;
