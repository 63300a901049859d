//! One partition's closed batches, waiting or in flight, in the order of their records (pure).

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::batch::{Batch, Content, Ending, InFlightBatch, NextBatch, ResendReason};
use super::sequence::{Finding, NextAction, Sequence};
use super::settle::{Claim, OutcomeCell};
use crate::calls::init_producer_id::ProducerIdentity;
use crate::error::Reason;
use crate::record_batch::Stamp;
use crate::stats::Counters;

#[derive(Debug)]
pub(crate) struct BatchQueue {
    batches: VecDeque<Batch>,
    in_flight: usize,
    /// Without it one batch is in flight, and duplicates are possible.
    sequence: Option<Sequence>,
    last_id: u64,
    stats: Arc<Counters>,
}

/// What may be sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextSend {
    Nothing,
    /// This batch, not before a time.
    Batch {
        id: u64,
        at: Instant,
    },
    /// What is still open: nothing that is closed comes before it.
    Open,
}

impl BatchQueue {
    pub(crate) fn new(sequence: Option<Sequence>, stats: Arc<Counters>) -> Self {
        Self { batches: VecDeque::new(), in_flight: 0, sequence, last_id: 0, stats }
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn push(&mut self, batch: Batch) {
        self.batches.push_back(batch);
    }

    pub(crate) fn next(&self) -> NextSend {
        let of = |batch: &Batch| NextSend::Batch { id: batch.id, at: batch.not_before };
        let Some(sequence) = &self.sequence else {
            let front = self.batches.front().map_or(NextSend::Open, of);
            return if self.in_flight > 0 { NextSend::Nothing } else { front };
        };
        // Batches that have a stamp go in its order. Those without one go behind them all, in the order
        // of their records, also when the halves of an older batch are among them.
        match sequence.next_action() {
            NextAction::Wait => NextSend::Nothing,
            NextAction::Again { id, not_before } => {
                self.get(id).map_or(NextSend::Nothing, |batch| {
                    let at = not_before.map_or(batch.not_before, |at| at.max(batch.not_before));
                    NextSend::Batch { id, at }
                })
            }
            NextAction::New | NextAction::Identify => {
                let unstamped = self.batches.iter().find(|batch| !sequence.holds(batch.id));
                unstamped.map_or(NextSend::Open, of)
            }
        }
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Batch> {
        self.batches.iter().find(|batch| batch.id == id)
    }

    /// Whether requests of this partition may go over the connection now.
    pub(crate) fn bind(&mut self, connection: u64) -> bool {
        self.sequence.as_mut().is_none_or(|sequence| sequence.bind(connection))
    }

    /// Takes a producer id if one is needed; says whether there is one.
    pub(crate) fn identify(&mut self, offered: Option<ProducerIdentity>) -> bool {
        let ready = self.sequence.as_mut().is_none_or(|sequence| sequence.identify(offered));
        self.follow_findings();
        ready
    }

    /// The producer id that must be replaced before anything can be sent.
    pub(crate) fn spent_id(&self) -> Option<i64> {
        self.sequence.as_ref()?.spent_id()
    }

    /// Sends a batch off, under the stamp that its place in the request gives it.
    pub(crate) fn depart(&mut self, id: u64) -> NextBatch {
        let Some(batch) = self.batches.iter_mut().find(|batch| batch.id == id) else {
            return NextBatch::Nothing;
        };
        let Some(claim) = &mut batch.claim else { return NextBatch::Nothing };
        let records = claim.records;
        let stamp = match &mut self.sequence {
            None => Some(Stamp::NONE),
            Some(sequence) => sequence.again(id).or_else(|| sequence.stamp(id, records)),
        };
        // Without a stamp, nothing leaves: a batch with id −1 is written again at each retry.
        let Some(stamp) = stamp else { return NextBatch::Nothing };
        claim.in_doubt = true;
        self.in_flight += 1;
        let content = std::mem::replace(&mut batch.content, Content::InFlight);
        NextBatch::Batch { id, content, records, attempts: batch.attempts.clone(), stamp }
    }

    /// The request of a shipment is over. Gives the bytes that are free now.
    pub(crate) fn finish(&mut self, shipment: InFlightBatch, ending: Ending) -> usize {
        let Some(place) = self.batches.iter().position(|batch| batch.id == shipment.id) else {
            return 0;
        };
        self.in_flight -= 1;
        let InFlightBatch { id, bytes, attempts, .. } = shipment;
        let doubtful = attempts.maybe_written;
        let is_written = matches!(ending, Ending::Written { .. });
        let mut freed = 0;
        match ending {
            Ending::Resend { at, why, .. } => {
                if let Some(batch) = self.batches.get_mut(place) {
                    (batch.content, batch.attempts) = (Content::Sealed(bytes), attempts);
                    batch.not_before = at;
                    batch.claim.iter_mut().for_each(|claim| claim.in_doubt = doubtful);
                    if batch.claim.is_none() {
                        self.batches.remove(place);
                    }
                }
                self.tell_again(id, doubtful, why);
            }
            // Settled at its deadline already: a late answer only counts for the sequences. It does
            // count: an acknowledged range is no hole, and needs no new epoch.
            settled => {
                freed += self.settle(place, doubtful, settled);
                match &mut self.sequence {
                    Some(sequence) if is_written => sequence.on_written(id),
                    Some(sequence) => sequence.on_void(id, doubtful),
                    None => {}
                }
            }
        }
        freed + self.follow_findings()
    }

    fn tell_again(&mut self, id: u64, doubtful: bool, why: ResendReason) {
        let Some(sequence) = &mut self.sequence else { return };
        match why {
            ResendReason::Refused => sequence.on_retry(id, doubtful, None),
            ResendReason::CutOff(at) => sequence.on_retry(id, doubtful, Some(at)),
            ResendReason::Sequence(error) => sequence.on_sequence_error(id, error, doubtful),
        }
    }

    fn settle(&mut self, place: usize, doubtful: bool, ending: Ending) -> usize {
        let Some(batch) = self.batches.remove(place) else { return 0 };
        let Some(mut claim) = batch.claim else { return 0 };
        claim.in_doubt = doubtful;
        let mut freed = claim.reserved;
        match ending {
            Ending::Written { base_offset, log_append_ms } => {
                claim.written(base_offset, log_append_ms);
            }
            Ending::GaveUp(reason) => claim.give_up(reason),
            Ending::Regroup(regrouped) => {
                let times = (batch.deadline, batch.not_before);
                let batches = regrouped.into_batches(claim, times, &mut self.last_id);
                for batch in batches.into_iter().rev() {
                    freed -= batch.claim.as_ref().map_or(0, |claim| claim.reserved);
                    self.batches.insert(place, batch);
                }
            }
            Ending::Resend { .. } => {}
        }
        freed
    }

    /// Settles what is past its deadline. Gives the bytes that are free now.
    pub(crate) fn expire(&mut self, now: Instant, reason: &Reason) -> usize {
        let mut freed = 0;
        let sequence = &mut self.sequence;
        self.batches.retain_mut(|batch| {
            let Some(claim) = batch.claim.take_if(|_| batch.deadline <= now) else { return true };
            freed += claim.reserved;
            claim.give_up(reason.clone());
            // A batch in flight keeps its place until its answer comes: the next epoch must not begin
            // before it is known whether this one has to be probed.
            let is_in_flight = matches!(batch.content, Content::InFlight);
            match sequence {
                Some(sequence) if is_in_flight => sequence.abandon(batch.id),
                Some(sequence) => sequence.on_void(batch.id, batch.attempts.maybe_written),
                None => {}
            }
            is_in_flight
        });
        freed + self.follow_findings()
    }

    /// The topic was created again under its old name.
    pub(crate) fn on_recreated(&mut self) -> usize {
        self.sequence.iter_mut().for_each(Sequence::on_recreated);
        self.follow_findings()
    }

    /// Another cluster has taken the place of ours: settles what that may have, also what is in
    /// flight, and forgets its stamps. Gives the bytes that are free now.
    pub(crate) fn start_over(&mut self, sequence: Option<Sequence>, reason: &Reason) -> usize {
        (self.sequence, self.in_flight) = (sequence, 0);
        let mut freed = 0;
        self.batches.retain_mut(|batch| {
            let is_in_flight = matches!(batch.content, Content::InFlight);
            // What the former cluster provably has not is sent to the new one; the rest would be
            // written twice if the two hold the same records, such as a mirror and its source.
            if !is_in_flight && !batch.attempts.maybe_written {
                return true;
            }
            if let Some(claim) = batch.claim.take() {
                freed += claim.reserved;
                claim.give_up(reason.clone());
            }
            false
        });
        freed
    }

    fn follow_findings(&mut self) -> usize {
        let mut freed = 0;
        while let Some(finding) = self.sequence.as_mut().and_then(Sequence::poll_finding) {
            match finding {
                Finding::Absent(id) => {
                    if let Some(batch) = self.batches.iter_mut().find(|batch| batch.id == id) {
                        batch.attempts.maybe_written = false;
                        batch.claim.iter_mut().for_each(|claim| claim.in_doubt = false);
                    }
                }
                Finding::Unprovable(id) => {
                    let place = self.batches.iter().position(|batch| batch.id == id);
                    let lost = Reason::NoAnswer("the broker cannot tell any more".into());
                    let settle = |place| self.settle(place, true, Ending::GaveUp(lost));
                    freed += place.map_or(0, settle);
                }
                Finding::Loss => {
                    tracing::warn!("acknowledged_records_are_gone_from_a_brokers_log");
                    self.stats.sequence_losses.add(1);
                }
                Finding::Reset => self.stats.producer_resets.add(1),
            }
        }
        freed
    }

    /// Forgets all batches; gives their claims.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Claim> {
        self.in_flight = 0;
        self.batches.drain(..).filter_map(|batch| batch.claim)
    }

    /// Where the outcomes of what is not settled will be.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Arc<OutcomeCell>> {
        self.batches.iter().filter_map(|batch| Some(batch.claim.as_ref()?.cell.clone()))
    }

    /// Deadlines of what is not settled.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        self.batches.iter().filter(|batch| batch.claim.is_some()).map(|batch| batch.deadline)
    }

    /// Bytes that the batches take in memory.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.batches.iter().map(|batch| batch.content.capacity()).sum()
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether a batch waits to be sent.
    pub(crate) fn is_waiting(&self) -> bool {
        self.batches.len() > self.in_flight
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}
