//! What the two protocols of groups have in common: what they want done, and what they are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::assignor::Counts;
use super::error::GroupError;
use super::subscription::Partitions;
use crate::calls::consumer_group_heartbeat::{ConsumerGroupHeartbeat, HeartbeatAnswer};
use crate::calls::heartbeat::Heartbeat;
use crate::calls::join_group::{JoinGroup, Joined};
use crate::calls::sync_group::SyncGroup;
use crate::error::Reason;

/// What is to be done now.
#[derive(Debug)]
pub(super) enum Action {
    /// Asked of the coordinator; the answer comes with this number.
    Ask(u64, Question),
    /// How many partitions these topics have, for who is to assign them.
    Count(u64, Vec<Arc<str>>),
    /// The reader has these from now on.
    Assign(Partitions),
    /// The reader is to give these back.
    Revoke { partitions: Partitions, within: Duration },
    /// The reader has no longer had these, and others may have them.
    Lose(Partitions),
    /// The topics are to be looked up again.
    Refresh,
    /// This protocol is not spoken here.
    UseClassic,
    /// The membership is over.
    Fail(GroupError),
}

/// What a coordinator is asked.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Join(JoinGroup),
    Sync(SyncGroup),
    Beat(Heartbeat),
    Consume(ConsumerGroupHeartbeat),
}

/// What it says.
#[derive(Debug)]
pub(super) enum Reply {
    Joined(Joined),
    Synced(Result<Bytes, i16>),
    Beaten(i16),
    Consumed(HeartbeatAnswer),
    Counted(Counts),
}

/// The answer to an action, or why there is none.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) number: u64,
    /// When it was asked: of what a coordinator acknowledges, it has heard no earlier.
    pub(super) asked: Instant,
    pub(super) reply: Result<Reply, Unanswered>,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(super) enum Unanswered {
    /// Asking again may help.
    Passing,
    /// It cannot.
    Final(Reason),
}

/// The topics of a subscription as they are known now: id and number of partitions.
pub(super) type Known = BTreeMap<Arc<str>, (u128, usize)>;

/// For how long a member is safe from being given up, and when it is heard of next.
#[derive(Debug)]
pub(super) struct Pulse {
    session: Duration,
    /// Until then the coordinator keeps the member, as far as is known.
    safe_until: Option<Instant>,
    /// It gives the member up then if that has not done by then what it may not have heard of: a
    /// rebalance can have begun as soon as a heartbeat was answered, and has a time of its own.
    limit: Option<Instant>,
    next: Option<Instant>,
    /// Heartbeats in a row that were not answered.
    pub(super) failures: u32,
}

impl Pulse {
    pub(super) fn new(session: Duration) -> Self {
        Self { session, safe_until: None, limit: None, next: None, failures: 0 }
    }

    /// The coordinator has acknowledged what was asked at this time.
    pub(super) fn acknowledged(&mut self, asked: Instant) {
        self.safe_until = self.safe_until.max(Some(asked + self.session));
        self.failures = 0;
    }

    /// The member is given up then, whatever is acknowledged.
    pub(super) fn limit(&mut self, limit: Option<Instant>) {
        self.limit = limit;
    }

    /// The member is no longer one.
    pub(super) fn stop(&mut self) {
        (self.safe_until, self.limit, self.next, self.failures) = (None, None, None, 0);
    }

    fn end(&self) -> Option<Instant> {
        self.safe_until.map(|until| self.limit.map_or(until, |limit| limit.min(until)))
    }

    /// So much of `longest` as is left before the limit.
    pub(super) fn within(&self, longest: Duration, now: Instant) -> Duration {
        self.limit.map_or(longest, |limit| longest.min(limit.saturating_duration_since(now)))
    }

    pub(super) fn beat_at(&mut self, at: Instant) {
        self.next = Some(at);
    }

    /// A heartbeat is due: it is asked for once.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        self.next.take_if(|at| *at <= now).is_some()
    }

    /// The member must count as given up.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.end().is_some_and(|end| end <= now)
    }

    pub(super) fn poll_timeout(&self, is_held: bool) -> Option<Instant> {
        let end = self.end().filter(|_| is_held);
        [self.next, end].into_iter().flatten().min()
    }
}
