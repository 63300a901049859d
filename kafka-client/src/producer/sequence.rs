//! One partition's idempotence: what may be sent under which stamp, and what an ending means (pure).
//!
//! A range of sequences that was given out is spent, whatever became of its batch. If it were used
//! again: A is appended as 0 to 9, its answer is lost, A expires, B is sent as 0 to 9, and the broker
//! takes B for A (KIP-98) and acknowledges it without writing it.
//!
//! Whatever leaves a hole in the sequences leads to a new epoch, which starts at 0. The epoch is
//! raised here, without a question (KIP-360): without a transactional id a broker always gives a new
//! producer id. Before that each batch that may be in the log is sent once more under its old stamp,
//! because a broker recognises duplicates within an epoch only: under a new stamp it would be written
//! twice.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::calls::init_producer_id::ProducerIdentity;
use crate::limits::LATE_APPEND;
use crate::record_batch::{Stamp, sequence_after};

/// The state of one partition. Batches are known by the ids that their queue gives them.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Batches that may be unsettled at a time. A broker remembers five of each producer and
    /// partition (KAFKA-5494): a duplicate of an older one is refused as out of order, and nobody
    /// could tell any more that it had been written.
    window: u64,
    identity: Option<ProducerIdentity>,
    /// The sequence of the next record.
    next: i32,
    phase: SequencePhase,
    /// Stamped and unsettled, in the order of their sequences.
    stamped: VecDeque<StampedBatch>,
    /// Batches stamped so far.
    serial: u64,
    /// The last batch that left the queue and may be in the log. What is stamped before it cannot be
    /// proven absent: the broker may have forgotten it since.
    last_logged: u64,
    /// The batch before which the broker, unexpectedly, misses others.
    gap: Option<u64>,
    /// What the requests in flight are on. Two connections have no order between them: a later batch
    /// could overtake an earlier one, which would then be out of order for good.
    connection: Option<u64>,
    /// Another connection is wanted: nothing is sent until the requests on the old one have ended.
    rebinding: bool,
    findings: VecDeque<Finding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SequencePhase {
    /// Nothing of this epoch is acknowledged: one batch at a time. A broker takes *any* first
    /// sequence of a producer it does not know (KAFKA-14359, KAFKA-15591); with two in flight and the
    /// first refused, the second would be appended, and the first be out of order for good.
    Fresh,
    /// As many as the window allows.
    Open,
    /// After a refusal, a lost answer or with a new leader: one at a time until one is
    /// acknowledged. The batches behind a refused one are refused as out of order; sent again all at
    /// once they would be refused again, each time one of them moves. A new leader may also have none
    /// of our state, and then takes any first sequence.
    Recovering,
    /// A range is void: probes only, then a new identity.
    Resetting(Renewal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Renewal {
    Epoch,
    ProducerId,
}

#[derive(Debug)]
struct StampedBatch {
    id: u64,
    serial: u64,
    stamp: Stamp,
    state: SendState,
    /// An attempt may have been appended.
    doubtful: bool,
    /// When the last connection that carried it without an answer was closed.
    cut_off: Option<Instant>,
    /// Settled at its deadline; only its answer is still of interest.
    abandoned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendState {
    Waiting,
    InFlight,
    /// In flight under an identity that is about to be given up.
    Probing,
    /// The probe found a gap before it.
    ProbeRefused,
}

/// What may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextAction {
    /// Nothing, until an answer comes.
    Wait,
    /// This batch again, byte for byte, not before a time.
    Again { id: u64, not_before: Option<Instant> },
    /// A batch that has no stamp yet.
    New,
    /// Nothing, until there is a producer id.
    Identify,
}

/// A refusal that only the state can explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SequenceError {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    OutOfOrder,
    /// UNKNOWN_PRODUCER_ID.
    Forgotten,
    /// INVALID_PRODUCER_EPOCH and its relatives.
    WrongIdentity,
}

/// What the state machine found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The batch was in doubt, and provably is not in the log.
    Absent(u64),
    /// Nobody can find out any more whether the batch is in the log. It left the queue.
    Unprovable(u64),
    /// Acknowledged records are gone from the log.
    Loss,
    /// A new identity begins; batches without an answer are stamped anew.
    Reset,
}

impl Sequence {
    pub(crate) fn new(window: usize) -> Self {
        Self {
            window: window as u64,
            identity: None,
            next: 0,
            phase: SequencePhase::Fresh,
            stamped: VecDeque::new(),
            serial: 0,
            last_logged: 0,
            gap: None,
            connection: None,
            rebinding: false,
            findings: VecDeque::new(),
        }
    }

    pub(crate) fn next_action(&self) -> NextAction {
        if self.rebinding {
            return NextAction::Wait;
        }
        let waiting = self.stamped.iter().find(|entry| entry.state == SendState::Waiting);
        let again = |entry: &StampedBatch| NextAction::Again { id: entry.id, not_before: None };
        match self.phase {
            // The oldest first: a broker refuses whatever comes before its predecessor.
            SequencePhase::Open => match (waiting, self.stamped.front()) {
                (Some(entry), _) => again(entry),
                // Counted from the oldest, so that the broker still remembers it.
                (None, Some(head)) if self.serial + 1 - head.serial >= self.window => {
                    NextAction::Wait
                }
                (None, _) => NextAction::New,
            },
            // An answer under way may still change what has to be probed, and a new epoch must not
            // overtake a batch of the old one, which would be refused then (INVALID_PRODUCER_EPOCH).
            _ if self.is_in_flight() => NextAction::Wait,
            SequencePhase::Resetting(_) => self.probe().unwrap_or(NextAction::Identify),
            SequencePhase::Fresh | SequencePhase::Recovering if self.identity.is_none() => {
                NextAction::Identify
            }
            SequencePhase::Fresh | SequencePhase::Recovering => {
                waiting.map_or(NextAction::New, again)
            }
        }
    }

    /// Requests go over one connection at a time: says whether this one may be used now.
    pub(crate) fn bind(&mut self, connection: u64) -> bool {
        if self.connection == Some(connection) {
            return true;
        }
        if self.is_in_flight() {
            self.rebinding = true;
            return false;
        }
        self.connection = Some(connection);
        // The other end may be another broker, which has what it replicated of our state.
        self.recover();
        true
    }

    /// Takes an identity if one is needed. Says whether the partition has one.
    pub(crate) fn identify(&mut self, offered: Option<ProducerIdentity>) -> bool {
        if self.next_action() != NextAction::Identify {
            return true;
        }
        // An id whose epochs are used up, or that a broker denies, must not be begun again at epoch 0:
        // brokers would take its first sequences for duplicates.
        match offered.filter(|offered| self.spent_id() != Some(offered.producer_id)) {
            Some(offered) => {
                self.begin(offered);
                true
            }
            None => false,
        }
    }

    /// The producer id that must be replaced before anything can be sent.
    pub(crate) fn spent_id(&self) -> Option<i64> {
        let held = self.identity.map(|identity| identity.producer_id);
        held.filter(|_| self.phase == SequencePhase::Resetting(Renewal::ProducerId))
    }

    /// The next range, when that is [`NextAction::New`]; `None` at any other time.
    pub(crate) fn stamp(&mut self, id: u64, records: usize) -> Option<Stamp> {
        let identity = self.identity.filter(|_| self.next_action() == NextAction::New)?;
        let stamp = Stamp {
            producer_id: identity.producer_id,
            producer_epoch: identity.epoch,
            base_sequence: self.next,
        };
        self.next = sequence_after(self.next, records);
        self.serial += 1;
        self.stamped.push_back(StampedBatch {
            id,
            serial: self.serial,
            stamp,
            state: SendState::InFlight,
            doubtful: false,
            cut_off: None,
            abandoned: false,
        });
        Some(stamp)
    }

    /// The stamp of a batch that is sent again.
    pub(crate) fn again(&mut self, id: u64) -> Option<Stamp> {
        let is_probe = matches!(self.phase, SequencePhase::Resetting(_));
        let entry = self.stamped.iter_mut().find(|entry| entry.id == id)?;
        // What is refused as out of order means something else to a probe: that there is a gap before
        // it is expected then, and proves that it is not there.
        entry.state = if is_probe { SendState::Probing } else { SendState::InFlight };
        Some(entry.stamp)
    }

    /// Whether the batch has a stamp.
    pub(crate) fn holds(&self, id: u64) -> bool {
        self.stamped.iter().any(|entry| entry.id == id)
    }

    /// Proven to be in the log.
    pub(crate) fn on_written(&mut self, id: u64) {
        if self.leave(id, true)
            && matches!(self.phase, SequencePhase::Fresh | SequencePhase::Recovering)
        {
            self.phase = SequencePhase::Open;
        }
        self.advance();
    }

    /// To be sent again unchanged. `cut_off` is when its connection was closed without an answer.
    pub(crate) fn on_retry(&mut self, id: u64, doubtful: bool, cut_off: Option<Instant>) {
        let Some(entry) = self.stamped.iter_mut().find(|entry| entry.id == id) else { return };
        entry.doubtful |= doubtful;
        entry.cut_off = cut_off.or(entry.cut_off);
        entry.state = SendState::Waiting;
        if entry.abandoned {
            // Its records were settled at their deadline: nobody would hear of another attempt, so
            // its range is a hole now.
            return self.on_void(id, doubtful);
        }
        self.recover();
        self.advance();
    }

    /// The batch will not be sent again under this stamp: refused for good, expired or regrouped.
    pub(crate) fn on_void(&mut self, id: u64, doubtful: bool) {
        if self.leave(id, doubtful) {
            self.reset(Renewal::Epoch);
        }
        self.advance();
    }

    /// Settled at its deadline while it was in flight.
    pub(crate) fn abandon(&mut self, id: u64) {
        self.stamped.iter_mut().filter(|entry| entry.id == id).for_each(|e| e.abandoned = true);
    }

    /// The topic was created again (KIP-516): its log knows nothing of our sequences, and would take
    /// any first one. With two in flight that it may take in either order, one would be lost.
    pub(crate) fn on_recreated(&mut self) {
        if self.identity.is_some()
            && (self.phase != SequencePhase::Fresh || !self.stamped.is_empty())
        {
            self.reset(Renewal::Epoch);
            self.advance();
        }
    }

    pub(crate) fn poll_finding(&mut self) -> Option<Finding> {
        self.findings.pop_front()
    }

    fn recover(&mut self) {
        if self.phase == SequencePhase::Open {
            self.phase = SequencePhase::Recovering;
        }
    }

    fn leave(&mut self, id: u64, may_be_logged: bool) -> bool {
        let place = self.stamped.iter().position(|entry| entry.id == id);
        let Some(entry) = place.and_then(|place| self.stamped.remove(place)) else { return false };
        if may_be_logged || entry.doubtful {
            self.last_logged = self.last_logged.max(entry.serial);
        }
        true
    }

    /// Refused for a reason of sequences or identity.
    pub(crate) fn on_sequence_error(&mut self, id: u64, error: SequenceError, doubtful: bool) {
        let Some(place) = self.stamped.iter().position(|entry| entry.id == id) else { return };
        let Some(entry) = self.stamped.get_mut(place) else { return };
        entry.doubtful |= doubtful;
        let (state, abandoned, serial) = (entry.state, entry.abandoned, entry.serial);
        entry.state = SendState::Waiting;
        if abandoned {
            return self.on_void(id, doubtful);
        }
        match (error, self.phase, state) {
            // A broker looks for a duplicate before it looks at the order, so this one is not among
            // the batches that it remembers: it never had it, or has forgotten it. `advance` tells
            // the two apart.
            (SequenceError::OutOfOrder, _, SendState::Probing) => self.probe_refused(id),
            // UNKNOWN_PRODUCER_ID or a wrong epoch: the state that would have known the batch is gone,
            // by age or with a truncated log, and with it every proof.
            (_, _, SendState::Probing) => {
                self.leave(id, true);
                self.findings.push_back(Finding::Unprovable(id));
                self.reset(renewal(error));
            }
            // Another epoch of this id is known there (KIP-360), or the id is not: raising our own
            // epoch by one might be refused again and again.
            (SequenceError::WrongIdentity, ..) => self.reset(Renewal::ProducerId),
            (_, SequencePhase::Resetting(_), _) => {}
            // Its predecessor is missing because it is still on its way.
            _ if place > 0 => self.recover(),
            // Its predecessors were acknowledged, and the broker misses them: they are gone from its
            // log (an unclean election, or acks=1 without its followers), or only their state is.
            (SequenceError::OutOfOrder, SequencePhase::Open | SequencePhase::Recovering, _) => {
                self.gap = Some(serial);
                self.reset(Renewal::Epoch);
            }
            _ => self.reset(Renewal::Epoch),
        }
        self.advance();
    }

    /// A refusal proves something only when no earlier copy can be appended any more: a broker may
    /// still execute what it had read from a connection that is closed. The copy would then be in the
    /// log beside the batch that was stamped anew after the "proof". Once a batch of the new epoch is
    /// in, copies of the old one are refused.
    fn probe(&self) -> Option<NextAction> {
        let entry = self.stamped.iter().find(|entry| entry.is_unresolved())?;
        Some(NextAction::Again {
            id: entry.id,
            not_before: entry.cut_off.map(|at| at + LATE_APPEND),
        })
    }

    fn probe_refused(&mut self, id: u64) {
        let entry = self.stamped.iter_mut().find(|entry| entry.id == id);
        entry.into_iter().for_each(|entry| entry.state = SendState::ProbeRefused);
    }

    fn reset(&mut self, renewal: Renewal) {
        self.phase = match self.phase {
            SequencePhase::Resetting(before) => SequencePhase::Resetting(renewal.max(before)),
            _ => SequencePhase::Resetting(renewal),
        };
    }

    /// Does what had to wait until nothing is in flight.
    fn advance(&mut self) {
        if self.is_in_flight() {
            return;
        }
        self.rebinding = false;
        let SequencePhase::Resetting(renewal) = self.phase else { return };
        if self.stamped.iter().any(StampedBatch::is_unresolved) {
            return;
        }
        for entry in self.stamped.drain(..).filter(|entry| entry.doubtful) {
            // A broker may forget batches before the last of an epoch: a gap before a batch proves its
            // absence if nothing behind it can be in the log. A broker that misses what it has
            // acknowledged has forgotten all, and its gap proves nothing. Without the proof the batch
            // must not be stamped anew, where it might be written twice: its outcome is unknown.
            let has_forgotten = self.gap.is_some_and(|gap| gap <= entry.serial);
            self.findings.push_back(if entry.serial > self.last_logged && !has_forgotten {
                Finding::Absent(entry.id)
            } else {
                Finding::Unprovable(entry.id)
            });
        }
        // If anything from the gap on is in the log, the broker had only forgotten it.
        if self.gap.take().is_some_and(|serial| serial > self.last_logged) {
            self.findings.push_back(Finding::Loss);
        }
        // Epochs are 16 bits; after the last one a new producer id begins at 0.
        let next = self.identity.and_then(|old| Some((old, old.epoch.checked_add(1)?)));
        match next {
            Some((old, epoch)) if renewal == Renewal::Epoch => {
                self.begin(ProducerIdentity { epoch, ..old });
            }
            _ => self.phase = SequencePhase::Resetting(Renewal::ProducerId),
        }
    }

    fn begin(&mut self, identity: ProducerIdentity) {
        if self.identity.is_some() {
            self.findings.push_back(Finding::Reset);
        }
        (self.identity, self.next, self.phase) = (Some(identity), 0, SequencePhase::Fresh);
    }

    fn is_in_flight(&self) -> bool {
        self.stamped.iter().any(StampedBatch::is_in_flight)
    }
}

impl StampedBatch {
    fn is_in_flight(&self) -> bool {
        matches!(self.state, SendState::InFlight | SendState::Probing)
    }

    fn is_unresolved(&self) -> bool {
        self.doubtful && self.state == SendState::Waiting
    }
}

fn renewal(error: SequenceError) -> Renewal {
    match error {
        SequenceError::WrongIdentity => Renewal::ProducerId,
        SequenceError::OutOfOrder | SequenceError::Forgotten => Renewal::Epoch,
    }
}

#[cfg(test)]
mod tests;
