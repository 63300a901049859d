//! A group's offsets are read and committed: asked again for what was in the way, partition by
//! partition, until the deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::coordinator::{Coordination, Coordinator, Failure};
use super::error::GroupError;
use super::offset::{Committed, GroupOffset};
use super::standing::Standing;
use crate::calls::Identity;
use crate::calls::offset_commit::{CommitOffsets, OffsetGiven};
use crate::calls::offset_fetch::{FetchOffsets, OffsetStored};
use crate::error::Reason;
use crate::limits::UNKNOWN_TOPIC;

/// One partition, and what has come of it.
struct Sought<T> {
    topic: Arc<str>,
    partition: i32,
    outcome: Option<Result<T, GroupError>>,
    last: Option<Reason>,
    unknown_since: Option<Instant>,
}

impl<T> Sought<T> {
    fn new(topic: &str, partition: i32) -> Self {
        let topic = topic.into();
        Self { topic, partition, outcome: None, last: None, unknown_since: None }
    }

    /// A code that is no success; final unless it passes by itself.
    fn refuse(&mut self, coordinator: &Coordinator, code: i16) {
        let reason = match code {
            UNKNOWN_TOPIC_OR_PARTITION => Reason::UnknownTopic,
            code => Reason::of_code(code),
        };
        let now = Instant::now();
        let is_final = match (code, coordinator.on_code(code)) {
            // Brokers learn of new topics at different times.
            (UNKNOWN_TOPIC_OR_PARTITION, _) => {
                now >= *self.unknown_since.get_or_insert(now) + UNKNOWN_TOPIC
            }
            (_, coordination) => coordination == Coordination::Settled,
        };
        if is_final {
            self.outcome = Some(Err(reason.into()));
        } else {
            self.last = Some(reason);
        }
    }

    fn into_outcome(self) -> Result<T, GroupError> {
        self.outcome.unwrap_or_else(|| {
            let last = self.last.map(Arc::new);
            Err(Reason::DeadlineExceeded { last }.into())
        })
    }
}

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// All partitions of one call.
struct Round<T>(Vec<Sought<T>>);

impl<T> Round<T> {
    fn is_over(&self) -> bool {
        self.0.iter().all(|sought| sought.outcome.is_some())
    }

    fn open(&self) -> impl Iterator<Item = (usize, &Sought<T>)> {
        self.0.iter().enumerate().filter(|(_, sought)| sought.outcome.is_none())
    }

    fn open_mut(&mut self) -> impl Iterator<Item = &mut Sought<T>> {
        self.0.iter_mut().filter(|sought| sought.outcome.is_none())
    }

    /// No answer at all.
    fn fail(&mut self, failure: &Failure) {
        for sought in self.open_mut() {
            match failure {
                Failure::Passing(reason) => sought.last = Some(reason.clone()),
                Failure::Final(reason) => sought.outcome = Some(Err(reason.clone().into())),
            }
        }
    }

    fn into_outcomes(self) -> Vec<Result<T, GroupError>> {
        self.0.into_iter().map(Sought::into_outcome).collect()
    }
}

/// One call of [`Group::committed`](super::Group::committed).
pub(super) struct Fetch(Round<Option<Committed>>);

impl Fetch {
    pub(super) fn new(partitions: &[(&str, i32)]) -> Self {
        let partitions = partitions.iter();
        Self(Round(partitions.map(|(topic, index)| Sought::new(topic, *index)).collect()))
    }

    pub(super) async fn run(
        mut self,
        coordinator: &Coordinator,
        deadline: Instant,
    ) -> Vec<Result<Option<Committed>, GroupError>> {
        let mut failures = 0;
        while !self.0.is_over() {
            let asked = self.0.open().map(|(_, it)| (it.topic.clone(), it.partition));
            let call =
                FetchOffsets { group: coordinator.group.clone(), partitions: asked.collect() };
            match coordinator.call(call, Duration::ZERO, deadline).await {
                Ok(Ok(stored)) => self.take(coordinator, stored),
                Ok(Err(code)) => {
                    self.0.open_mut().for_each(|sought| sought.refuse(coordinator, code));
                }
                Err(failure) => self.0.fail(&failure),
            }
            failures += 1;
            if self.0.is_over() || !coordinator.pause(failures, deadline).await {
                break;
            }
        }
        self.0.into_outcomes()
    }

    fn take(&mut self, coordinator: &Coordinator, stored: Vec<OffsetStored>) {
        let stored: HashMap<_, _> =
            stored.iter().map(|it| ((it.topic.as_str(), it.partition), it)).collect();
        for sought in self.0.open_mut() {
            match stored.get(&(&*sought.topic, sought.partition)) {
                Some(found) if found.code == 0 => {
                    let committed = Committed {
                        offset: found.offset,
                        epoch: Some(found.epoch).filter(|epoch| *epoch >= 0),
                        metadata: found.metadata.clone(),
                    };
                    sought.outcome = Some(Ok(Some(committed).filter(|it| it.offset >= 0)));
                }
                Some(found) => sought.refuse(coordinator, found.code),
                None => sought.last = Some(lacking()),
            }
        }
    }
}

/// One call of [`Group::commit`](super::Group::commit) or [`Member::commit`](super::Member::commit).
pub(super) struct Commit<'a> {
    round: Round<()>,
    given: Vec<OffsetGiven>,
    /// A member's, with the assignment that each partition was in when this began.
    standing: Option<(&'a Standing, Vec<Option<u64>>)>,
}

impl<'a> Commit<'a> {
    pub(super) fn new(offsets: &[GroupOffset<'_>]) -> Self {
        let sought: Vec<_> = offsets.iter().map(|it| Sought::new(it.topic, it.partition)).collect();
        let given = sought.iter().zip(offsets).map(|(sought, it)| OffsetGiven {
            topic: sought.topic.clone(),
            partition: it.partition,
            offset: it.offset,
            epoch: it.epoch.unwrap_or(-1),
            metadata: it.metadata.clone().into_owned(),
        });
        Self { given: given.collect(), round: Round(sought), standing: None }
    }

    /// As a member.
    pub(super) fn by(mut self, standing: &'a Standing) -> Self {
        let sought = self.round.0.iter();
        let assignments = sought.map(|it| standing.assignment_of(&it.topic, it.partition));
        self.standing = Some((standing, assignments.collect()));
        self
    }

    /// Who commits; partitions that it no longer has are done with.
    fn identity(&mut self) -> Identity {
        let Some((standing, assignments)) = &self.standing else { return Identity::default() };
        for (sought, assignment) in self.round.0.iter_mut().zip(assignments) {
            let now = standing.assignment_of(&sought.topic, sought.partition);
            if sought.outcome.is_none() && (now.is_none() || now != *assignment) {
                sought.outcome = Some(Err(GroupError::NotAssigned));
            }
        }
        standing.identity().unwrap_or_default()
    }

    pub(super) async fn run(
        mut self,
        coordinator: &Coordinator,
        deadline: Instant,
    ) -> Vec<Result<(), GroupError>> {
        let mut failures = 0;
        while !self.round.is_over() {
            let identity = self.identity();
            if self.round.is_over() {
                break;
            }
            let open = self.round.open();
            let offsets = open.filter_map(|(place, _)| self.given.get(place).cloned()).collect();
            let group = coordinator.group.clone();
            let call = CommitOffsets { group, identity, offsets };
            match coordinator.call(call, Duration::ZERO, deadline).await {
                Ok(kept) => self.take(coordinator, &kept),
                Err(failure) => self.round.fail(&failure),
            }
            failures += 1;
            if self.round.is_over() || !coordinator.pause(failures, deadline).await {
                break;
            }
        }
        self.round.into_outcomes()
    }

    fn take(&mut self, coordinator: &Coordinator, kept: &[(String, i32, i16)]) {
        let codes: HashMap<_, _> =
            kept.iter().map(|(topic, index, code)| ((topic.as_str(), *index), *code)).collect();
        for sought in self.round.open_mut() {
            match codes.get(&(&*sought.topic, sought.partition)) {
                Some(0) => sought.outcome = Some(Ok(())),
                // So a group with members refuses who is none.
                Some(22 | 25 | 27 | 110 | 113) if self.standing.is_none() => {
                    sought.outcome = Some(Err(GroupError::InUse));
                }
                // The group rebalances, or the member is about to hear that it is none.
                Some(code @ (22 | 25 | 27 | 110 | 113)) => {
                    sought.last = Some(Reason::of_code(*code));
                }
                Some(82) => sought.outcome = Some(Err(GroupError::Fenced)),
                Some(code) => sought.refuse(coordinator, *code),
                None => sought.last = Some(lacking()),
            }
        }
    }
}

fn lacking() -> Reason {
    Reason::NoAnswer("it lacks the partition".into())
}
