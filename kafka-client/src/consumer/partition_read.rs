//! What is known of one partition while it is fetched, and what each answer makes of it (pure).

use tokio::time::Instant;

use super::answers::{Reaction, Refusals, reaction};
use super::cursor::Yield;
use super::fetched::{Fetched, ReadError};
use super::position::Position;
use super::routing::Wanted;
use crate::calls::epoch_ends::EpochEnd;
use crate::calls::fetch::FetchFound;
use crate::config::IsolationLevel;
use crate::error::Reason;

/// What is known of one partition's part.
pub(super) struct PartitionRead {
    pub(super) wanted: Wanted,
    /// Where the caller is.
    asked: i64,
    /// The next offset: it moves over what is not for readers.
    pub(super) offset: i64,
    /// The leader epoch of what is before the offset.
    pub(super) epoch: Option<i32>,
    /// Up to which leader epoch nothing that was before the offset is lost.
    sound_in: Option<i32>,
    /// The one that is asked in; −1 if none is known.
    pub(super) leader_epoch: i32,
    /// Of the topic that the offset is of; zero until it is known, or if it has none.
    pub(super) topic_id: u128,
    /// Where the leader has sent us (KIP-392).
    pub(super) replica: Option<i32>,
    pub(super) refusals: Refusals,
    /// Why the position may not be in the log.
    pub(super) doubt: Option<Doubt>,
    /// Nothing until a broker has answered for it.
    pub(super) outcome: Option<Result<Fetched, ReadError>>,
}

/// Why a position may not be in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// A newer leader epoch may have begun with a truncation.
    Epoch,
    /// The leader says that the offset is out of range.
    Range,
    /// The leader does not know the position's epoch.
    UnknownEpoch,
}

/// What a round of requests came to.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Round {
    /// Some broker could not answer: pause, refresh.
    pub(super) has_failed: bool,
    /// A position moved, or a replica was named: go on at once.
    pub(super) has_moved: bool,
}

impl PartitionRead {
    pub(super) fn new(wanted: Wanted, position: &Position<'_>) -> Self {
        Self {
            wanted,
            asked: position.offset,
            offset: position.offset,
            epoch: position.epoch,
            sound_in: position.epoch,
            leader_epoch: -1,
            topic_id: position.topic_id.unwrap_or(0),
            replica: None,
            refusals: Refusals::default(),
            doubt: None,
            outcome: None,
        }
    }

    /// Whether nothing can change what is known.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.outcome, Some(Err(_)))
    }

    pub(super) fn on_code(&mut self, code: i16, round: &mut Round) {
        if self.replica.is_some() {
            // Its log may be behind. The leader decides.
            self.fail(Reason::of_code(code), round);
        } else if reaction(code) == Reaction::OutOfRange {
            self.doubt = Some(Doubt::Range);
        } else if let Some(reason) = self.refusals.on_code(code, Instant::now()) {
            self.outcome = Some(Err(failed(reason)));
        } else {
            round.has_failed = true;
        }
    }

    pub(super) fn fail(&mut self, reason: Reason, round: &mut Round) {
        (self.replica, self.doubt) = (None, None);
        self.refusals.on_failure(reason);
        round.has_failed = true;
    }

    /// Whether the log may have been truncated since the record before the offset was written.
    pub(super) fn may_be_truncated(&self) -> bool {
        self.sound_in.is_some_and(|epoch| self.leader_epoch > epoch)
    }

    /// Where the log has the last records of the position's epoch, or of one before it.
    pub(super) fn on_epoch_end(&mut self, end: EpochEnd, round: &mut Round) {
        if (self.asked..self.offset).contains(&end.offset) {
            // What is lost was behind the caller's position, and is no news.
            (self.offset, self.epoch, self.outcome) = (end.offset, Some(end.epoch), None);
        }
        let is_other = self.epoch.is_some_and(|epoch| end.epoch < epoch);
        if end.offset < self.offset || (is_other && end.offset > self.offset) {
            let (to, epoch) = (end.offset.min(self.offset), Some(end.epoch));
            self.outcome = Some(Err(ReadError::Truncated { to, epoch }));
            self.doubt = None;
            return;
        }
        // An epoch without records, which a log end may have come with, is known to its leader alone.
        self.epoch = Some(end.epoch);
        self.sound_in = Some(self.leader_epoch);
        if self.doubt != Some(Doubt::Range) {
            self.doubt = None;
            round.has_moved = true;
        }
    }

    /// What the leader says when it is asked for that.
    pub(super) fn on_epoch_answer(
        &mut self,
        answer: Result<(i16, EpochEnd), Reason>,
        round: &mut Round,
    ) {
        match answer {
            Ok((0, end)) if end.offset >= 0 && end.epoch >= 0 => self.on_epoch_end(end, round),
            Ok((0, _)) => self.doubt = Some(Doubt::UnknownEpoch),
            Ok((code, _)) => self.fail(Reason::of_code(code), round),
            // Before Kafka 2.3 nobody can tell.
            Err(Reason::Unsupported(_)) => {
                self.sound_in = Some(self.leader_epoch);
                self.doubt = self.doubt.filter(|doubt| *doubt == Doubt::Range);
                round.has_moved = true;
            }
            Err(reason) => self.fail(reason, round),
        }
    }

    /// Where the log of a position in doubt begins and ends.
    pub(super) fn on_ends(&mut self, log_start: i64, log_end: i64, round: &mut Round) {
        if !(log_start..=log_end).contains(&self.offset) {
            self.outcome = Some(Err(ReadError::OutOfRange { log_start, log_end }));
        } else if self.doubt == Some(Doubt::UnknownEpoch) {
            // The epoch is above all that the log has seen: no record of it is known to be the same.
            self.outcome = Some(Err(ReadError::Truncated { to: log_start, epoch: None }));
        } else {
            // A replica that has just become leader may have had less to tell.
            self.fail(Reason::of_code(OFFSET_OUT_OF_RANGE), round);
        }
        self.doubt = None;
    }

    pub(super) fn settle(
        &mut self,
        given: Yield,
        found: &FetchFound,
        level: IsolationLevel,
        round: &mut Round,
    ) {
        let Yield { records, next_offset, epoch, error } = given;
        if let (Some(error), true) = (error, records.is_empty()) {
            self.outcome = Some(Err(error));
            return;
        }
        // A fault behind records is met again at its offset, when they have been taken.
        if next_offset > self.offset {
            round.has_moved = true;
            (self.offset, self.epoch, self.sound_in) = (next_offset, epoch, epoch);
        } else {
            // A broker that gives bytes and no whole batch would do so again at once.
            round.has_failed |= !found.records.is_empty();
        }
        let log_end = match level {
            IsolationLevel::ReadUncommitted => found.high_watermark,
            IsolationLevel::ReadCommitted => found.last_stable,
        };
        self.outcome = Some(Ok(Fetched {
            records,
            next_offset,
            epoch: self.epoch,
            log_start: Some(found.log_start).filter(|offset| *offset >= 0),
            log_end,
            topic_id: Some(self.topic_id).filter(|id| *id != 0),
        }));
    }
}

/// What a reader is to do about it.
pub(super) fn failed(reason: Reason) -> ReadError {
    match reason {
        Reason::DeadlineExceeded { .. }
        | Reason::NoLeader
        | Reason::Unreachable(_)
        | Reason::NoAnswer(_)
        | Reason::Closed => ReadError::Unavailable(reason),
        _ => ReadError::Refused(reason),
    }
}

const OFFSET_OUT_OF_RANGE: i16 = 1;
