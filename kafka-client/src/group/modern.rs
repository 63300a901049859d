//! A membership in the protocol of KIP-848: one heartbeat says what is had and what is to be (sans IO).
//!
//! The coordinator assigns. Each heartbeat carries the whole state, so that a lost answer leaves
//! nothing unsaid; what is to be given back is owned until the reader has given it back, and the
//! heartbeat without it is what lets others have it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::coordinator::Coordination;
use super::error::GroupError;
use super::protocol::{Action, Answer, Known, Pulse, Question, Reply, Unanswered};
use super::subscription::Partitions;
use crate::backoff::{Backoff, random};
use crate::calls::Identity;
use crate::calls::consumer_group_heartbeat::{ConsumerGroupHeartbeat, HeartbeatAnswer};
use crate::config::GroupConfig;
use crate::error::{Reason, codes};

/// One membership.
#[derive(Debug)]
pub(super) struct Modern {
    group: Arc<str>,
    topics: Vec<Arc<str>>,
    config: GroupConfig,
    retry: Backoff,
    /// With the member epoch; 0 is to join.
    pub(super) identity: Identity,
    /// What the reader has, including what it is about to give back.
    pub(super) owned: Partitions,
    /// Of which topics that is: one that is created again has the name, and another id.
    ids: BTreeMap<Arc<str>, u128>,
    /// What it is to have, by topic id.
    target: Vec<(u128, Vec<i32>)>,
    names: BTreeMap<u128, Arc<str>>,
    /// The reader gives these back, or has no more time to after that.
    revoking: Option<(Partitions, Instant)>,
    /// Since when the coordinator has not heard that something was given back.
    unheard: Option<Instant>,
    interval: Duration,
    pulse: Pulse,
    /// Of the last heartbeat.
    number: u64,
    has_joined: bool,
    is_over: bool,
    actions: VecDeque<Action>,
}

const UNKNOWN_MEMBER_ID: i16 = 25;
const UNSUPPORTED_VERSION: i16 = 35;
const GROUP_ID_NOT_FOUND: i16 = 69;
const FENCED_MEMBER_EPOCH: i16 = 110;
const UNRELEASED_INSTANCE_ID: i16 = 111;
const STALE_MEMBER_EPOCH: i16 = 113;

impl Modern {
    /// `member` is made by the client (KIP-1082).
    pub(super) fn new(
        group: Arc<str>,
        topics: Vec<Arc<str>>,
        config: GroupConfig,
        retry: Backoff,
        member: Arc<str>,
        now: Instant,
    ) -> Self {
        let mut pulse = Pulse::new(config.session_timeout);
        pulse.beat_at(now);
        Self {
            group,
            topics,
            retry,
            identity: Identity { member, generation: 0, instance: None },
            owned: Partitions::new(),
            ids: BTreeMap::new(),
            target: Vec::new(),
            names: BTreeMap::new(),
            revoking: None,
            unheard: None,
            interval: config.beat_every(),
            pulse,
            config,
            number: 0,
            has_joined: false,
            is_over: false,
            actions: VecDeque::new(),
        }
    }

    /// What to do next, if there is anything to do now.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Action> {
        if self.actions.is_empty() && !self.is_over {
            self.on_time(now);
        }
        self.actions.pop_front()
    }

    /// When to come back at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let revoked = self.revoking.as_ref().map(|(_, until)| *until);
        let pulse = self.pulse.poll_timeout(!self.owned.is_empty());
        [revoked, pulse].into_iter().flatten().min()
    }

    fn on_time(&mut self, now: Instant) {
        if self.pulse.is_over(now) && !self.owned.is_empty() {
            tracing::warn!(group = %self.group, effect = "partitions_are_lost", "session_is_over");
            self.join_anew(now);
        }
        if self.revoking.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.on_given_back(now);
        }
        if self.pulse.take_due(now) {
            self.number += 1;
            let beat = self.heartbeat();
            self.actions.push_back(Action::Ask(self.number, Question::Consume(beat)));
        }
    }

    fn heartbeat(&self) -> ConsumerGroupHeartbeat {
        let mut owned = BTreeMap::<u128, Vec<i32>>::new();
        for (topic, partition) in &self.owned {
            if let Some(id) = self.ids.get(topic) {
                owned.entry(*id).or_default().push(*partition);
            }
        }
        ConsumerGroupHeartbeat {
            group: self.group.clone(),
            identity: self.identity.clone(),
            rebalance_timeout: self.config.rebalance_timeout,
            topics: self.topics.clone(),
            owned: owned.into_iter().collect(),
        }
    }

    /// The last word to the coordinator.
    pub(super) fn leaving(&self) -> ConsumerGroupHeartbeat {
        let identity = Identity { generation: -1, ..self.identity.clone() };
        ConsumerGroupHeartbeat { identity, owned: Vec::new(), ..self.heartbeat() }
    }

    pub(super) fn on_answer(&mut self, answer: Answer, now: Instant) {
        let Answer { number, asked, reply } = answer;
        if number != self.number || self.is_over {
            return;
        }
        match reply {
            Ok(Reply::Consumed(told)) if told.code == 0 => self.on_acknowledged(told, asked, now),
            Ok(Reply::Consumed(told)) => self.on_refused(&told, now),
            Err(Unanswered::Final(Reason::Unsupported(_))) if !self.has_joined => {
                self.actions.push_back(Action::UseClassic);
                self.is_over = true;
            }
            Err(Unanswered::Final(reason)) => self.fail(reason.into()),
            _ => self.beat_soon(now),
        }
    }

    fn on_acknowledged(&mut self, told: HeartbeatAnswer, asked: Instant, now: Instant) {
        self.has_joined = true;
        self.identity.generation = told.epoch;
        if let Some(member) = told.member.filter(|member| !member.is_empty()) {
            self.identity.member = member.into();
        }
        self.pulse.acknowledged(asked);
        self.interval = told.interval.clamp(LEAST_INTERVAL, self.config.session_timeout / 3);
        self.pulse.beat_at(now + self.interval);
        if self.unheard.is_some_and(|since| since <= asked) {
            self.unheard = None;
            self.pulse.limit(None);
        }
        if let Some(assignment) = told.assignment {
            self.target = assignment;
        }
        self.reconcile(asked, now);
    }

    /// What is to go is given back first, then what is new is taken, and the coordinator told at once.
    /// It has waited since `asked`, or later.
    fn reconcile(&mut self, asked: Instant, now: Instant) {
        if self.revoking.is_some() {
            return;
        }
        let (mut target, mut ids) = (Partitions::new(), BTreeMap::new());
        let mut is_known = true;
        for (id, partitions) in &self.target {
            let Some(name) = self.names.get(id) else {
                is_known = false;
                continue;
            };
            ids.insert(name.clone(), *id);
            target.extend(partitions.iter().map(|it| (name.clone(), *it)));
        }
        if !is_known {
            self.actions.push_back(Action::Refresh);
        }
        let is_kept =
            |it: &&(Arc<str>, i32)| target.contains(*it) && self.ids.get(&it.0) == ids.get(&it.0);
        let revoked: Partitions = self.owned.iter().filter(|it| !is_kept(it)).cloned().collect();
        if !revoked.is_empty() {
            self.pulse.limit(Some(asked + self.config.rebalance_timeout));
            let within = self.pulse.within(self.config.give_back_within(), now);
            self.actions.push_back(Action::Revoke { partitions: revoked.clone(), within });
            self.revoking = Some((revoked, now + within));
            return;
        }
        self.ids = ids;
        let added: Partitions = target.difference(&self.owned).cloned().collect();
        if !added.is_empty() {
            self.owned.extend(added.iter().cloned());
            self.actions.push_back(Action::Assign(added));
            self.pulse.beat_at(now);
        }
    }

    /// The reader has given back what it was to, or its time for that is over.
    pub(super) fn on_given_back(&mut self, now: Instant) {
        if let Some((partitions, _)) = self.revoking.take() {
            self.owned.retain(|partition| !partitions.contains(partition));
            self.unheard = Some(now);
            self.pulse.beat_at(now);
            self.reconcile(now, now);
        }
    }

    fn on_refused(&mut self, told: &HeartbeatAnswer, now: Instant) {
        match told.code {
            // A group of the classic protocol, where brokers do not convert it, is not found.
            UNSUPPORTED_VERSION | GROUP_ID_NOT_FOUND if !self.has_joined => {
                self.actions.push_back(Action::UseClassic);
                self.is_over = true;
            }
            FENCED_MEMBER_EPOCH | UNKNOWN_MEMBER_ID => self.join_anew(now),
            STALE_MEMBER_EPOCH | UNRELEASED_INSTANCE_ID => self.beat_soon(now),
            code if Coordination::of(code) != Coordination::Settled => self.beat_soon(now),
            code => {
                let what = format!("{} ({code}): {}", codes::name(code), told.message);
                let reason = match Reason::of_code(code) {
                    Reason::Refused { .. } => Reason::Unsupported(what.into()),
                    known => known,
                };
                self.fail(reason.into());
            }
        }
    }

    /// From epoch 0, without partitions.
    fn join_anew(&mut self, now: Instant) {
        let failures = self.pulse.failures;
        self.lose();
        self.identity.generation = 0;
        self.pulse.failures = failures;
        self.beat_soon(now);
    }

    fn lose(&mut self) {
        self.pulse.stop();
        (self.revoking, self.unheard) = (None, None);
        self.target.clear();
        if !self.owned.is_empty() {
            self.actions.push_back(Action::Lose(std::mem::take(&mut self.owned)));
        }
    }

    fn fail(&mut self, error: GroupError) {
        self.lose();
        self.is_over = true;
        self.actions.push_back(Action::Fail(error));
    }

    fn beat_soon(&mut self, now: Instant) {
        self.pulse.failures = self.pulse.failures.saturating_add(1);
        let pause = self.retry.after(self.pulse.failures, random());
        self.pulse.beat_at(now + pause.min(self.interval));
    }

    /// Topics by id, as they are known now.
    pub(super) fn on_known(&mut self, known: &Known, now: Instant) {
        let ids = known.iter().filter(|(_, (id, _))| *id != 0);
        let mut names: BTreeMap<_, _> = ids.map(|(name, (id, _))| (*id, name.clone())).collect();
        let has_news = names.keys().any(|id| !self.names.contains_key(id));
        // Of those that are deleted, what is still to be had of them.
        self.names.retain(|id, _| self.target.iter().any(|(of, _)| of == id));
        self.names.append(&mut names);
        if has_news && self.has_joined && !self.is_over {
            self.reconcile(now, now);
        }
    }

    /// The topics whose ids matter.
    pub(super) fn watched(&self) -> &[Arc<str>] {
        &self.topics
    }

    /// Who commits, while it may.
    pub(super) fn committer(&self) -> Option<Identity> {
        Some(self.identity.clone()).filter(|_| !self.owned.is_empty())
    }
}

/// A broker that wants to hear of a member more often than this is not obeyed.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);
