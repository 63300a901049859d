//! What we believe about topics, and when to ask again (pure).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::topic::{Partition, State};
use crate::backoff::{Backoff, random};
use crate::calls::metadata::MetadataAnswer;
use crate::error::Reason;
use crate::limits::{NEGATIVE_ENTRY, TOPIC_IDLE, TOPICS, UNKNOWN_TOPIC};

/// Topics in use, and the state of refreshing.
#[derive(Debug)]
pub(super) struct Cache {
    topics: BTreeMap<Arc<str>, Entry>,
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
struct Entry {
    last_used: Instant,
    /// The last round that a broker answered for this topic.
    heard: u64,
    state: State,
}

/// Whether what is known is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    Believed,
    /// It would lead to a refusal: a broker must say so now.
    Doubted,
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
            entry.state.wanted_again(now);
        }
        entry.last_used = now;
        let is_heard = entry.heard > wish.round;
        match &entry.state {
            State::Known { partitions, .. } if is_heard || wish.trust == Trust::Believed => {
                return Lookup::Known(partitions.len());
            }
            State::Refused { reason, .. } if is_heard => return Lookup::Refused(reason.clone()),
            State::Refused { until, reason: Reason::UnknownTopic } if now < *until => {
                return Lookup::Refused(Reason::UnknownTopic);
            }
            State::Open { since } if is_heard && now >= *since + UNKNOWN_TOPIC => {
                let (until, reason) = (now + NEGATIVE_ENTRY, Reason::UnknownTopic);
                tracing::warn!(topic, "unknown_topic");
                entry.state = State::Refused { until, reason: reason.clone() };
                return Lookup::Refused(reason);
            }
            State::Known { .. } | State::Refused { .. } | State::Open { .. } => {}
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
        let entry = Entry { last_used: now, heard: 0, state: State::Open { since: now } };
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
        let State::Known { partitions, .. } = &entry.state else { return None };
        partitions.get(usize::try_from(partition).ok()?)?.leader
    }

    /// Rounds that were applied so far.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// A topic's id and its number of partitions.
    pub(super) fn known(&self, topic: &str) -> Option<(u128, usize)> {
        match &self.topics.get(topic)?.state {
            State::Known { id, partitions } => Some((*id, partitions.len())),
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
        let Some(State::Known { partitions, .. }) = entry.map(|entry| &mut entry.state) else {
            return false;
        };
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        match partitions.get_mut(index) {
            Some(known) if known.epoch.is_none_or(|seen| epoch > seen) => {
                *known = Partition { leader: Some(leader), epoch: Some(epoch) };
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
        self.topics.values_mut().for_each(|entry| entry.state = State::Open { since: now });
    }

    /// A round ended with an answer.
    pub(super) fn apply(&mut self, answer: MetadataAnswer, now: Instant) {
        self.last_end = Some(now);
        self.generation += 1;
        for topic in answer.topics {
            if let Some(entry) = self.topics.get_mut(topic.name.as_str()) {
                entry.state.apply(topic, now);
                entry.heard = self.started;
            }
        }
        let settled = self.topics.values().all(|entry| entry.state.is_settled());
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
        self.topics.retain(|_, entry| match entry.state {
            State::Known { .. } => true,
            State::Open { .. } => now < entry.last_used + UNKNOWN_TOPIC,
            State::Refused { .. } => false,
        });
    }

    fn forget_idle(&mut self, now: Instant) {
        self.topics.retain(|_, entry| now < entry.last_used + TOPIC_IDLE);
    }
}

#[cfg(test)]
mod tests;
