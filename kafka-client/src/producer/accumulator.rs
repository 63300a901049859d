//! One partition's open batch and queue; says when a batch is due (pure).

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::alarm::Alarm;
use super::batch::{Batch, BatchLimits, Content, Ending, Flying, Shipment, Taken};
use super::settle::{Cell, Claim, Ledger};
use super::verdict::Attempts;
use crate::error::{Cause, Reason};
use crate::limits::{
    BATCH_AGE, BATCH_BUFFER_BYTES, PARTITION_IN_FLIGHT, PARTITION_SHARE_DIVISOR,
    PRODUCE_PARTITION_BYTES,
};
use crate::record_batch::{BatchBuilder, Record};

/// Everything that waits for, or is on its way to, one partition.
#[derive(Debug)]
pub(crate) struct Accumulator {
    partition: i32,
    limits: BatchLimits,
    ledger: Arc<Ledger>,
    open: Option<Batch>,
    open_since: Option<Instant>,
    queue: VecDeque<Batch>,
    flying: Vec<Flying>,
    /// Bytes reserved by all of them.
    buffered: usize,
    next_id: u64,
    /// Bytes of the last full batch: how large the next buffer is made.
    expected: usize,
    /// The pause that the last failure demands.
    retry_at: Option<Instant>,
    alarm: Alarm,
    /// In the queue of a sender, or waiting for a leader.
    scheduled: bool,
    last_cause: Option<Cause>,
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
    pub(crate) fn new(partition: i32, limits: BatchLimits, ledger: Arc<Ledger>) -> Self {
        Self {
            partition,
            limits,
            ledger,
            open: None,
            open_since: None,
            queue: VecDeque::new(),
            flying: Vec::with_capacity(PARTITION_IN_FLIGHT),
            buffered: 0,
            next_id: 0,
            expected: BATCH_BUFFER_BYTES,
            retry_at: None,
            alarm: Alarm::default(),
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
    ) -> Result<(Arc<Cell>, u32), Reason> {
        if self.mode == Mode::Draining {
            return Err(Reason::Closed);
        }
        if self.buffered > 0 && self.buffered + reserved > self.share() {
            self.turned_away = true;
            return Err(Reason::BufferFull);
        }
        let age = BATCH_AGE.max(self.limits.linger);
        let is_young = self.open_since.is_some_and(|since| now < since + age);
        if is_young && let Some(place) = self.push_open(record, reserved, deadline) {
            return Ok(place);
        }
        let builder = BatchBuilder::with_capacity(self.expected.max(BATCH_BUFFER_BYTES));
        if builder.len_with(record) + PRODUCE_PARTITION_BYTES > self.limits.request_bytes {
            return Err(Reason::TooLarge);
        }
        self.queue.extend(self.open.take());
        let claim = Claim::new(Cell::new(self.partition), self.ledger.clone());
        let content = Content::Growing(builder);
        self.next_id += 1;
        let (id, attempts) = (self.next_id, Attempts::default());
        self.open = Some(Batch { id, content, attempts, claim, deadline });
        self.open_since = Some(now);
        self.push_open(record, reserved, deadline).ok_or(Reason::TooLarge)
    }

    fn push_open(
        &mut self,
        record: &Record<'_>,
        reserved: usize,
        deadline: Instant,
    ) -> Option<(Arc<Cell>, u32)> {
        let batch = self.open.as_mut()?;
        let Content::Growing(builder) = &mut batch.content else { return None };
        if builder.records() >= self.limits.batch_records
            || !builder.push_within(record, self.limits.batch_bytes)
        {
            return None;
        }
        let index = u32::try_from(batch.claim.records).unwrap_or(u32::MAX);
        batch.claim.records += 1;
        batch.claim.reserved += reserved;
        batch.deadline = batch.deadline.min(deadline);
        self.buffered += reserved;
        self.alarm.expect(deadline);
        Some((batch.claim.cell.clone(), index))
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
        self.alarm.poll(due)
    }

    /// Settles what is past its deadline.
    pub(crate) fn on_alarm(&mut self, now: Instant) {
        if !self.alarm.ring(now) {
            return;
        }
        let reason = Reason::DeadlineExceeded { last: self.last_cause.clone() };
        let mut freed = 0;
        let mut expire = |batch: Batch| {
            freed += batch.claim.reserved;
            batch.claim.give_up(reason.clone());
        };
        let (late, kept) = self.queue.drain(..).partition(|batch| batch.deadline <= now);
        self.queue = kept;
        let late: VecDeque<Batch> = late;
        late.into_iter().for_each(&mut expire);
        self.open.take_if(|batch| batch.deadline <= now).into_iter().for_each(&mut expire);
        for flying in self.flying.iter_mut().filter(|flying| flying.deadline <= now) {
            if let Some(claim) = flying.claim.take() {
                freed += claim.reserved;
                claim.give_up(reason.clone());
            }
        }
        self.buffered -= freed;
        if self.queue.is_empty() {
            self.retry_at = None;
        }
        let flying = self.flying.iter().filter(|f| f.claim.is_some()).map(|f| f.deadline);
        let waiting = self.queue.iter().chain(&self.open).map(|batch| batch.deadline);
        self.alarm.recount(flying.chain(waiting));
    }

    /// Takes the next batch for a request that has `room` bytes left.
    pub(crate) fn take(&mut self, now: Instant, room: usize, is_first: bool) -> Taken {
        self.on_alarm(now);
        self.scheduled = false;
        if self.due_at().is_none_or(|at| now < at) {
            return Taken::Nothing;
        }
        let Some(next) = self.queue.front().or(self.open.as_ref()) else { return Taken::Nothing };
        let crowded = next.content.len() > room || next.attempts.travels_alone();
        if !is_first && crowded {
            self.scheduled = true;
            return Taken::NoRoom;
        }
        let Some(mut batch) = self.queue.pop_front().or_else(|| self.open.take()) else {
            return Taken::Nothing;
        };
        self.expected = batch.content.len();
        self.retry_at = None;
        batch.claim.in_doubt = true;
        let Batch { id, content, attempts, claim, deadline } = batch;
        let records = claim.records;
        self.flying.push(Flying { id, claim: Some(claim), deadline });
        Taken::Batch { id, content, records, attempts }
    }

    /// The request of a shipment is over.
    pub(crate) fn finish(&mut self, shipment: Shipment, ending: Ending) {
        let Some(place) = self.flying.iter().position(|flying| flying.id == shipment.id) else {
            return;
        };
        let Flying { id, claim, deadline } = self.flying.swap_remove(place);
        // Settled at its deadline already: a late answer only frees its place.
        let Some(mut claim) = claim else { return };
        claim.in_doubt = shipment.attempts.maybe_written;
        match ending {
            Ending::Written { base_offset, log_append_ms } => {
                self.last_cause = None;
                self.buffered -= claim.reserved;
                claim.written(base_offset, log_append_ms);
            }
            Ending::GaveUp(reason) => {
                self.buffered -= claim.reserved;
                claim.give_up(reason);
            }
            Ending::Resend { at, cause } => {
                self.retry_at = Some(at);
                self.last_cause = Some(cause);
                let (content, attempts) = (Content::Sealed(shipment.bytes), shipment.attempts);
                self.queue.push_front(Batch { id, content, attempts, claim, deadline });
            }
            Ending::Regroup(regrouped) => {
                self.buffered -= claim.reserved;
                let id = &mut self.next_id;
                let batches = regrouped.into_batches(claim, self.partition, deadline, id);
                for batch in batches.into_iter().rev() {
                    self.buffered += batch.claim.reserved;
                    self.queue.push_front(batch);
                }
            }
        }
    }

    /// Nothing moves, and why: for the outcome of those whose deadline passes. Says whether
    /// anything still waits; if not, the partition is no longer scheduled.
    pub(crate) fn on_blocked(&mut self, cause: &Cause) -> bool {
        self.last_cause = Some(cause.clone());
        self.scheduled = self.open.is_some() || !self.queue.is_empty();
        self.scheduled
    }

    /// Refuses new records, and lets those that are here go without lingering.
    pub(crate) fn drain(&mut self) {
        self.mode = Mode::Draining;
    }

    /// Settles everything, by what is known of its attempts.
    pub(crate) fn give_up(&mut self, reason: &Reason) {
        self.drain();
        let flying = self.flying.drain(..).filter_map(|flying| flying.claim);
        let waiting = self.queue.drain(..).chain(self.open.take()).map(|batch| batch.claim);
        flying.chain(waiting).for_each(|claim| claim.give_up(reason.clone()));
        self.buffered = 0;
        self.alarm.recount(std::iter::empty());
    }

    /// Whether someone was turned away and there is room again. Says so once.
    pub(crate) fn poll_room(&mut self) -> bool {
        self.turned_away && self.buffered < self.share() && std::mem::take(&mut self.turned_away)
    }

    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_none() && self.queue.is_empty() && self.flying.is_empty()
    }

    /// From when on a batch may be sent; `None` while nothing waits or too much is in flight. With
    /// a linger of zero that is at once, and batches form while one is in flight.
    fn due_at(&self) -> Option<Instant> {
        if self.flying.len() >= PARTITION_IN_FLIGHT {
            return None;
        }
        if !self.queue.is_empty() {
            return self.retry_at.or(self.open_since);
        }
        let since = self.open.as_ref().and(self.open_since)?;
        match self.mode {
            Mode::Open => Some(since + self.limits.linger),
            Mode::Draining => Some(since),
        }
    }

    fn share(&self) -> usize {
        self.limits.buffer_bytes / PARTITION_SHARE_DIVISOR
    }
}

#[cfg(test)]
mod tests;
