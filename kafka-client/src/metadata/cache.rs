//! What we believe about topics, and when to ask again (pure).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, random};
use crate::calls::metadata::{MetadataAnswer, PartitionAnswer, TopicAnswer};
use crate::error::Reason;
use crate::error::policy::{Class, class};
use crate::limits::{NEGATIVE_ENTRY, TOPIC_IDLE, TOPICS, UNKNOWN_TOPIC};

/// Topics in use, and the state of refreshing.
#[derive(Debug)]
pub(super) struct Cache {
    topics: BTreeMap<Arc<str>, CachedTopic>,
    /// Rounds that were applied. Complaints about an older one are out of date.
    generation: u64,
    started: u64,
    /// Rounds in a row that left something open; they grow the pause.
    streak: u32,
    last_end: Option<Instant>,
    next: Option<Instant>,
    retry: Backoff,
    max_age: Duration,
}

#[derive(Debug)]
struct CachedTopic {
    last_used: Instant,
    /// The last round that a broker answered for this topic.
    heard: u64,
    status: TopicStatus,
}

/// Whether what is known is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    Believed,
    /// It would lead to a refusal: a broker must say so now.
    Doubted,
}

/// Who leads a partition of which topic, for readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadRoute {
    /// Zero if the brokers have none for it.
    pub(crate) topic_id: u128,
    pub(crate) leader: Option<i32>,
    /// −1 if none is known.
    pub(crate) epoch: i32,
}

/// What a caller waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    since: Instant,
    /// Rounds that had started by then: only later ones are asked for this caller.
    round: u64,
    trust: Trust,
}

/// What the cache says about a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// It has so many partitions.
    Known(usize),
    Refused(Reason),
    /// Nothing yet: a round is due.
    Wanted,
}

impl Cache {
    pub(super) fn new(retry: Backoff, max_age: Duration) -> Self {
        Self {
            topics: BTreeMap::new(),
            generation: 0,
            started: 0,
            streak: 0,
            last_end: None,
            next: None,
            retry,
            max_age,
        }
    }

    /// What a caller begins to wait for now.
    pub(super) fn wish(&self, trust: Trust, now: Instant) -> Wish {
        Wish { since: now, round: self.started, trust }
    }

    /// A caller wants to know the topic. A refusal is believed if it was heard for this caller; that
    /// a topic is unknown is believed for a second in any case, because names can come from anyone.
    pub(super) fn lookup(&mut self, topic: &str, wish: Wish, now: Instant) -> Lookup {
        let Some(entry) = self.topics.get_mut(topic) else { return self.admit(topic, now) };
        if wish.since >= entry.last_used + UNKNOWN_TOPIC {
            entry.status.wanted_again(now);
        }
        entry.last_used = now;
        let is_heard = entry.heard > wish.round;
        match &entry.status {
            TopicStatus::Known { partitions, .. } if is_heard || wish.trust == Trust::Believed => {
                return Lookup::Known(partitions.len());
            }
            TopicStatus::Refused { reason, .. } if is_heard => {
                return Lookup::Refused(reason.clone());
            }
            TopicStatus::Refused { until, reason: Reason::UnknownTopic } if now < *until => {
                return Lookup::Refused(Reason::UnknownTopic);
            }
            TopicStatus::Open { since } if is_heard && now >= *since + UNKNOWN_TOPIC => {
                let (until, reason) = (now + NEGATIVE_ENTRY, Reason::UnknownTopic);
                tracing::warn!(topic, "unknown_topic");
                entry.status = TopicStatus::Refused { until, reason: reason.clone() };
                return Lookup::Refused(reason);
            }
            TopicStatus::Known { .. } | TopicStatus::Refused { .. } | TopicStatus::Open { .. } => {}
        }
        self.ask_again(now);
        Lookup::Wanted
    }

    fn admit(&mut self, topic: &str, now: Instant) -> Lookup {
        if self.topics.len() >= TOPICS {
            self.forget_idle(now);
            self.forget_doubtful(now);
        }
        if self.topics.len() >= TOPICS {
            return Lookup::Refused(Reason::TooManyTopics);
        }
        let entry =
            CachedTopic { last_used: now, heard: 0, status: TopicStatus::Open { since: now } };
        self.topics.insert(topic.into(), entry);
        self.ask_within(self.retry.after(self.streak.min(1), random()), now);
        Lookup::Wanted
    }

    /// The leader of a partition; puts a forgotten topic back into use.
    pub(super) fn leader(&mut self, topic: &str, partition: i32, now: Instant) -> Option<i32> {
        let Some(entry) = self.topics.get_mut(topic) else {
            self.admit(topic, now);
            return None;
        };
        entry.last_used = now;
        let TopicStatus::Known { partitions, .. } = &entry.status else { return None };
        partitions.get(usize::try_from(partition).ok()?)?.leader
    }

    /// Who is to be asked for a partition's records; `None` if the topic or partition is not known.
    /// Keeps the topic in use.
    pub(super) fn read_route(
        &mut self,
        topic: &str,
        partition: i32,
        now: Instant,
    ) -> Option<ReadRoute> {
        let entry = self.topics.get_mut(topic)?;
        entry.last_used = now;
        let TopicStatus::Known { id, partitions } = &entry.status else { return None };
        let CachedPartition { leader, epoch } =
            *partitions.get(usize::try_from(partition).ok()?)?;
        Some(ReadRoute { topic_id: *id, leader, epoch: epoch.unwrap_or(-1) })
    }

    /// Rounds that were applied so far.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// A topic's id and its number of partitions.
    pub(super) fn known(&self, topic: &str) -> Option<(u128, usize)> {
        match &self.topics.get(topic)?.status {
            TopicStatus::Known { id, partitions } => Some((*id, partitions.len())),
            _ => None,
        }
    }

    /// Whether a refresh is due because of it.
    pub(super) fn complain(&mut self, generation: u64, now: Instant) -> bool {
        let fresh = generation >= self.generation;
        if fresh {
            self.ask_again(now);
        }
        fresh
    }

    /// Asks at once; gives the number of the first round that counts. One that has started by now
    /// is joined.
    pub(super) fn ask_now(&mut self, now: Instant) -> u64 {
        self.next = Some(now);
        self.started.max(1)
    }

    /// A new leader of a newer epoch counts at once; says whether it did.
    pub(super) fn apply_hint(
        &mut self,
        topic: &str,
        partition: i32,
        leader: i32,
        epoch: i32,
    ) -> bool {
        let entry = self.topics.get_mut(topic);
        let Some(TopicStatus::Known { partitions, .. }) = entry.map(|entry| &mut entry.status)
        else {
            return false;
        };
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        match partitions.get_mut(index) {
            Some(known) if known.epoch.is_none_or(|seen| epoch > seen) => {
                *known = CachedPartition { leader: Some(leader), epoch: Some(epoch) };
                true
            }
            _ => false,
        }
    }

    /// When the next round is due.
    pub(super) fn poll_due(&mut self, now: Instant) -> Option<Instant> {
        let aged = self.last_end.map(|end| end + self.max_age);
        let next = [self.next, aged].into_iter().flatten().min()?;
        Some(next.max(now))
    }

    /// A round begins: its number, and the topics to ask for.
    pub(super) fn start(&mut self, now: Instant) -> (u64, Vec<Arc<str>>) {
        self.forget_idle(now);
        self.next = None;
        self.started += 1;
        (self.started, self.topics.keys().cloned().collect())
    }

    /// A round ended without an answer.
    pub(super) fn fail(&mut self, now: Instant, random: u64) {
        self.last_end = Some(now);
        self.streak = self.streak.saturating_add(1);
        let pause = self.retry.after(self.streak, random);
        self.next = Some(now + pause);
    }

    /// Another cluster has taken the place of ours: nothing that is known is true any more.
    pub(super) fn forget_cluster(&mut self, now: Instant) {
        self.topics.values_mut().for_each(|entry| entry.status = TopicStatus::Open { since: now });
    }

    /// A round ended with an answer.
    pub(super) fn apply(&mut self, answer: MetadataAnswer, now: Instant) {
        self.last_end = Some(now);
        self.generation += 1;
        for topic in answer.topics {
            if let Some(entry) = self.topics.get_mut(topic.name.as_str()) {
                entry.status.apply(topic, now);
                entry.heard = self.started;
            }
        }
        let settled = self.topics.values().all(|entry| entry.status.is_settled());
        self.streak = if settled { 0 } else { self.streak.saturating_add(1) };
        if settled {
            // Whatever was wanted meanwhile has been answered with it.
            self.next = None;
        }
    }

    /// Asks again after a pause that grows while answers leave something open.
    fn ask_again(&mut self, now: Instant) {
        self.ask_within(self.retry.after(self.streak.max(1), random()), now);
    }

    /// Asks `pause` after the last round at the earliest, however many want to know.
    fn ask_within(&mut self, pause: Duration, now: Instant) {
        let earliest = self.last_end.map_or(now, |end| (end + pause).max(now));
        self.next = Some(self.next.map_or(earliest, |next| next.min(earliest)));
    }

    /// Names that nobody is known to have: they must not keep a real topic out. Who still waits for
    /// one asks again.
    fn forget_doubtful(&mut self, now: Instant) {
        self.topics.retain(|_, entry| match entry.status {
            TopicStatus::Known { .. } => true,
            TopicStatus::Open { .. } => now < entry.last_used + UNKNOWN_TOPIC,
            TopicStatus::Refused { .. } => false,
        });
    }

    fn forget_idle(&mut self, now: Instant) {
        self.topics.retain(|_, entry| now < entry.last_used + TOPIC_IDLE);
    }
}

#[derive(Debug)]
enum TopicStatus {
    /// Asked for, and not answered yet or not known by the broker that answered.
    Open {
        since: Instant,
    },
    Refused {
        /// An unknown topic is refused until then without a question.
        until: Instant,
        reason: Reason,
    },
    Known {
        id: u128,
        partitions: Vec<CachedPartition>,
    },
}

#[derive(Debug, Clone, Copy, Default)]
struct CachedPartition {
    leader: Option<i32>,
    epoch: Option<i32>,
}

impl TopicStatus {
    fn apply(&mut self, answer: TopicAnswer, now: Instant) {
        match (answer.code, class(answer.code)) {
            // A topic that is being created has no partitions yet.
            (0, _) if answer.partitions.is_empty() => {
                if let Self::Refused { .. } = self {
                    *self = Self::Open { since: now };
                }
            }
            (0, _) => self.update(answer),
            (code, Class::TopicRefused) => {
                let reason = Reason::of_code(code);
                *self = Self::Refused { until: now + NEGATIVE_ENTRY, reason };
            }
            (_, Class::UnknownTopic) => match self {
                Self::Refused { until, reason: Reason::UnknownTopic } => {
                    *until = now + NEGATIVE_ENTRY;
                }
                Self::Refused { .. } => *self = Self::Open { since: now },
                // The broker may be behind: what we know stays, and the leader decides when we
                // write to it.
                Self::Open { .. } | Self::Known { .. } => {}
            },
            _ => {}
        }
    }

    /// Nobody has wanted it for long: whoever does now has all the time that a topic may be unknown.
    fn wanted_again(&mut self, now: Instant) {
        if matches!(self, Self::Open { .. } | Self::Refused { .. }) {
            *self = Self::Open { since: now };
        }
    }

    fn update(&mut self, answer: TopicAnswer) {
        match self {
            Self::Known { id, partitions } if *id == answer.id => {
                merge(partitions, &answer.partitions);
            }
            // New, or created again under its old name: nothing of the old one is valid.
            _ => {
                let mut partitions = Vec::new();
                merge(&mut partitions, &answer.partitions);
                *self = Self::Known { id: answer.id, partitions };
            }
        }
    }

    fn is_settled(&self) -> bool {
        match self {
            Self::Open { .. } => false,
            Self::Refused { .. } => true,
            Self::Known { partitions, .. } => partitions.iter().all(|p| p.leader.is_some()),
        }
    }
}

/// A partition that is missing in one answer stays; an answer of an older leader epoch is ignored
/// (KIP-320). `calls::metadata` has bounded the indexes.
fn merge(partitions: &mut Vec<CachedPartition>, answers: &[PartitionAnswer]) {
    let width = answers.iter().map(|answer| answer.index + 1).max().unwrap_or(0);
    if partitions.len() < width {
        partitions.resize_with(width, CachedPartition::default);
    }
    for answer in answers {
        let epoch = Some(answer.epoch).filter(|epoch| *epoch >= 0);
        match partitions.get_mut(answer.index) {
            Some(known) if epoch.is_none() || epoch >= known.epoch => {
                *known = CachedPartition { leader: answer.leader, epoch: epoch.or(known.epoch) };
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
