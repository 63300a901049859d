//! A membership in the classic protocol: join, share, stay, give back (sans IO).
//!
//! A member joins (JoinGroup, twice if the broker wants it to have an id first, KIP-394), the leader
//! assigns and all are told their parts (SyncGroup), and heartbeats say when it begins again. Eager
//! members give everything back before they join again; cooperative ones keep what they have, are
//! told what to give back, and join again once they have (KIP-429).

use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::Instant;

use super::assignor::{Candidate, Counts, assign};
use super::coordinator::Coordination;
use super::error::GroupError;
use super::protocol::{Action, Answer, Known, Pulse, Question, Reply, Unanswered};
use super::subscription::{Partitions, Subscription, read_assignment, write_assignment};
use crate::backoff::{Backoff, random};
use crate::calls::Identity;
use crate::calls::heartbeat::Heartbeat;
use crate::calls::join_group::{JoinGroup, Joined, MemberJoined};
use crate::calls::sync_group::SyncGroup;
use crate::config::{Assignor, GroupConfig};
use crate::error::Reason;

/// One membership.
#[derive(Debug)]
pub(super) struct Classic {
    group: Arc<str>,
    topics: Vec<Arc<str>>,
    config: GroupConfig,
    retry: Backoff,
    pub(super) identity: Identity,
    /// What the reader has, including what it is about to give back.
    pub(super) owned: Partitions,
    phase: Phase,
    pulse: Pulse,
    /// Joins in a row that came to nothing.
    failures: u32,
    /// Of the last action that has an answer; those of earlier ones are out of date.
    number: u64,
    /// Of the last heartbeat.
    beat: u64,
    /// The partitions that this member, as the leader, has assigned.
    assigned: Option<Counts>,
    /// Topics of all members, for their leader.
    watched: Vec<Arc<str>>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum Phase {
    /// To join, no earlier than this.
    Joining {
        not_before: Instant,
        reason: &'static str,
    },
    /// Asked to join.
    Joined,
    /// The leader needs to know how many partitions there are.
    Counting {
        protocol: String,
        members: Vec<MemberJoined>,
    },
    /// Asked for its part.
    Syncing,
    Stable,
    /// The reader gives these back, and the member joins again then or at this time.
    Revoking {
        partitions: Partitions,
        until: Instant,
    },
    Over,
}

const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED_INSTANCE_ID: i16 = 82;

impl Classic {
    pub(super) fn new(
        group: Arc<str>,
        topics: Vec<Arc<str>>,
        config: GroupConfig,
        retry: Backoff,
        now: Instant,
    ) -> Self {
        let instance = config.instance.as_deref().map(Arc::from);
        Self {
            group,
            topics,
            retry,
            identity: Identity { instance, ..Identity::default() },
            owned: Partitions::new(),
            phase: Phase::Joining { not_before: now, reason: "it is new" },
            pulse: Pulse::new(config.session_timeout),
            config,
            failures: 0,
            number: 0,
            beat: 0,
            assigned: None,
            watched: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// What to do next, if there is anything to do now.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Action> {
        if self.actions.is_empty() {
            self.on_time(now);
        }
        self.actions.pop_front()
    }

    /// When to come back at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let of_phase = match &self.phase {
            Phase::Joining { not_before, .. } => Some(*not_before),
            Phase::Revoking { until, .. } => Some(*until),
            _ => None,
        };
        let of_pulse = self.pulse.poll_timeout(!self.owned.is_empty());
        [of_phase, of_pulse].into_iter().flatten().min()
    }

    fn on_time(&mut self, now: Instant) {
        if self.pulse.is_over(now) && !self.owned.is_empty() {
            tracing::warn!(group = %self.group, effect = "partitions_are_lost", "session_is_over");
            self.lose();
            if matches!(self.phase, Phase::Stable | Phase::Revoking { .. }) {
                self.join(now, "its session was over");
            }
        }
        match &mut self.phase {
            Phase::Revoking { until, .. } if *until <= now => self.on_given_back(now),
            Phase::Joining { not_before, .. } if *not_before <= now => self.ask_to_join(),
            _ => {}
        }
        if self.pulse.take_due(now) {
            self.beat += 1;
            let (group, identity) = (self.group.clone(), self.identity.clone());
            let question = Question::Beat(Heartbeat { group, identity });
            self.actions.push_back(Action::Ask(self.beat_number(), question));
        }
    }

    /// Heartbeats have numbers of their own: they go on beside whatever else is asked.
    fn beat_number(&self) -> u64 {
        self.beat | BEATS
    }

    fn ask_to_join(&mut self) {
        let Phase::Joining { reason, .. } = self.phase else { return };
        let subscription = Subscription {
            topics: self.topics.iter().cloned().collect(),
            owned: self.owned.clone(),
            generation: self.identity.generation,
        };
        let assignors = self.config.assignors.iter();
        let protocols = assignors.filter_map(|assignor| {
            let is_sticky = *assignor == Assignor::CooperativeSticky;
            Some((assignor.name(), subscription.write(is_sticky).ok()?))
        });
        let join = JoinGroup {
            group: self.group.clone(),
            identity: self.identity.clone(),
            session_timeout: self.config.session_timeout,
            rebalance_timeout: self.config.rebalance_timeout,
            protocols: protocols.collect(),
            reason,
        };
        self.phase = Phase::Joined;
        self.ask(Question::Join(join));
    }

    fn ask(&mut self, question: Question) {
        self.number += 1;
        self.actions.push_back(Action::Ask(self.number, question));
    }

    /// To join again: cooperative members with what they have, eager ones without, which they give
    /// back first.
    fn join(&mut self, now: Instant, reason: &'static str) {
        if self.config.is_cooperative() || self.owned.is_empty() {
            self.phase = Phase::Joining { not_before: now, reason };
        } else {
            self.revoke(self.owned.clone(), now);
        }
    }

    fn join_after_failure(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let not_before = now + self.retry.after(self.failures, random());
        self.phase = Phase::Joining { not_before, reason: "its last attempt failed" };
    }

    fn revoke(&mut self, partitions: Partitions, now: Instant) {
        let within = self.pulse.within(self.config.give_back_within(), now);
        self.actions.push_back(Action::Revoke { partitions: partitions.clone(), within });
        self.phase = Phase::Revoking { partitions, until: now + within };
    }

    /// The reader has given back what it was to, or its time for that is over.
    pub(super) fn on_given_back(&mut self, now: Instant) {
        if let Phase::Revoking { partitions, .. } = &self.phase {
            self.owned.retain(|partition| !partitions.contains(partition));
            self.phase = Phase::Joining { not_before: now, reason: "it has given back its part" };
        }
    }

    /// Others may have them now.
    fn lose(&mut self) {
        self.pulse.stop();
        if !self.owned.is_empty() {
            self.actions.push_back(Action::Lose(std::mem::take(&mut self.owned)));
        }
    }

    fn fail(&mut self, error: GroupError) {
        self.lose();
        self.phase = Phase::Over;
        self.actions.push_back(Action::Fail(error));
    }

    pub(super) fn on_answer(&mut self, answer: Answer, now: Instant) {
        let Answer { number, asked, reply } = answer;
        if matches!(self.phase, Phase::Over) {
            return;
        }
        if number & BEATS != 0 {
            if number == self.beat_number() {
                self.on_beaten(reply, asked, now);
            }
            return;
        }
        match (reply, &self.phase) {
            _ if number != self.number => {}
            (Ok(Reply::Joined(joined)), Phase::Joined) => self.on_joined(joined, now),
            (Ok(Reply::Counted(counts)), Phase::Counting { .. }) => self.on_counted(counts),
            (Ok(Reply::Synced(Ok(part))), Phase::Syncing) => match read_assignment(&part) {
                Ok(part) => self.on_synced(part, asked, now),
                Err(error) => {
                    tracing::warn!(group = %self.group, %error, "no_assignment");
                    self.join_after_failure(now);
                }
            },
            (Ok(Reply::Synced(Err(code))), Phase::Syncing) => self.on_refused(code, now),
            (Err(Unanswered::Final(reason)), _) => self.fail(reason.into()),
            (Err(Unanswered::Passing), _) => self.join_after_failure(now),
            _ => {}
        }
    }

    fn on_joined(&mut self, joined: Joined, now: Instant) {
        match joined.code {
            0 => {}
            MEMBER_ID_REQUIRED => {
                self.identity.member = joined.member.into();
                return self.join(now, "it has an id now");
            }
            code => return self.on_refused(code, now),
        }
        self.identity.generation = joined.generation;
        self.identity.member = joined.member.as_str().into();
        self.assigned = None;
        // What is said of heartbeats of the former generation is of no matter: one that a broker sees
        // behind this answer is refused.
        self.beat += 1;
        // The leader may take its time, and the broker wants to hear of its members meanwhile.
        self.pulse.beat_at(now + self.config.beat_every());
        if joined.leader != joined.member || joined.skips_assignment {
            return self.sync(joined.protocol, Vec::new());
        }
        let (protocol, members) = (joined.protocol, joined.members);
        let topics = members.iter().filter_map(|it| Subscription::read(&it.metadata).ok());
        let mut topics: Vec<_> = topics.flat_map(|it| it.topics).collect();
        topics.sort_unstable();
        topics.dedup();
        self.phase = Phase::Counting { protocol, members };
        self.watched.clone_from(&topics);
        self.number += 1;
        self.actions.push_back(Action::Count(self.number, topics));
    }

    /// The leader assigns.
    fn on_counted(&mut self, counts: Counts) {
        let Phase::Counting { protocol, members } = &mut self.phase else { return };
        let (protocol, members) = (std::mem::take(protocol), std::mem::take(members));
        let read = members.into_iter().map(|it| {
            let subscription = Subscription::read(&it.metadata).unwrap_or_else(|error| {
                tracing::warn!(group = %self.group, member = it.member, error, "no_subscription");
                Subscription::default()
            });
            Candidate { member: it.member, instance: it.instance, subscription }
        });
        let members: Vec<_> = read.collect();
        let assignor = self.config.assignors.iter().find(|it| it.name() == protocol);
        let Some(assignor) = assignor.copied() else {
            let what = format!("the group's assignor is {protocol:?}").into();
            return self.fail(Reason::Unsupported(what).into());
        };
        let parts = assign(assignor, &members, &counts).into_iter();
        let parts = parts.filter_map(|(member, it)| Some((member, write_assignment(&it).ok()?)));
        let parts = parts.collect();
        self.assigned = Some(counts);
        self.sync(protocol, parts);
    }

    fn sync(&mut self, protocol: String, assignments: Vec<(String, bytes::Bytes)>) {
        let (group, identity) = (self.group.clone(), self.identity.clone());
        self.phase = Phase::Syncing;
        self.ask(Question::Sync(SyncGroup { group, identity, protocol, assignments }));
    }

    fn on_synced(&mut self, part: Partitions, asked: Instant, now: Instant) {
        self.failures = 0;
        self.phase = Phase::Stable;
        self.pulse.acknowledged(asked);
        self.pulse.limit(Some(asked + self.config.rebalance_timeout));
        self.pulse.beat_at(now + self.config.beat_every());
        let revoked: Partitions = self.owned.difference(&part).cloned().collect();
        let added: Partitions = part.difference(&self.owned).cloned().collect();
        if !revoked.is_empty() {
            self.revoke(revoked, now);
        }
        if !added.is_empty() {
            self.owned.extend(added.iter().cloned());
            self.actions.push_back(Action::Assign(added));
        }
    }

    /// A code other than 0, to JoinGroup or SyncGroup.
    fn on_refused(&mut self, code: i16, now: Instant) {
        match code {
            ILLEGAL_GENERATION => {
                self.lose();
                self.identity.generation = -1;
                self.join_after_failure(now);
            }
            UNKNOWN_MEMBER_ID => {
                self.lose();
                let instance = self.identity.instance.take();
                self.identity = Identity { instance, ..Identity::default() };
                self.join_after_failure(now);
            }
            FENCED_INSTANCE_ID => self.fail(GroupError::Fenced),
            REBALANCE_IN_PROGRESS => self.join(now, "the group rebalances"),
            code if Coordination::of(code) != Coordination::Settled => self.join_after_failure(now),
            code => self.fail(Reason::of_code(code).into()),
        }
    }

    fn on_beaten(&mut self, reply: Result<Reply, Unanswered>, asked: Instant, now: Instant) {
        let code = match reply {
            Ok(Reply::Beaten(code)) => code,
            Err(Unanswered::Final(reason)) => return self.fail(reason.into()),
            _ => return self.beat_soon(now),
        };
        match code {
            0 | REBALANCE_IN_PROGRESS => {
                self.pulse.acknowledged(asked);
                if code == 0 {
                    self.pulse.limit(Some(asked + self.config.rebalance_timeout));
                }
                self.pulse.beat_at(now + self.config.beat_every());
                if code != 0 && matches!(self.phase, Phase::Stable) {
                    self.join(now, "the group rebalances");
                }
            }
            // The answer to the join, or that there is none, says what has become of the member.
            ILLEGAL_GENERATION if self.is_joining() => self.beat_soon(now),
            ILLEGAL_GENERATION | UNKNOWN_MEMBER_ID => {
                // What is still asked is of a membership that has ended.
                self.number += 1;
                self.on_refused(code, now);
            }
            FENCED_INSTANCE_ID => self.fail(GroupError::Fenced),
            code if Coordination::of(code) != Coordination::Settled => self.beat_soon(now),
            code => self.fail(Reason::of_code(code).into()),
        }
    }

    fn is_joining(&self) -> bool {
        matches!(self.phase, Phase::Joining { .. } | Phase::Joined)
    }

    fn beat_soon(&mut self, now: Instant) {
        self.pulse.failures = self.pulse.failures.saturating_add(1);
        let pause = self.retry.after(self.pulse.failures, random());
        self.pulse.beat_at(now + pause.min(self.config.beat_every()));
    }

    /// The leader looks whether topics have more partitions than it has assigned, or are there now.
    pub(super) fn on_known(&mut self, known: &Known, now: Instant) {
        let Some(assigned) = &self.assigned else { return };
        let is_new = |(topic, (_, count)): (&Arc<str>, &(u128, usize))| {
            assigned.get(topic).is_none_or(|before| before != count)
        };
        if matches!(self.phase, Phase::Stable) && known.iter().any(is_new) {
            self.join(now, "its topics have other partitions");
        }
    }

    /// The topics whose partitions matter: as the leader, those of all members.
    pub(super) fn watched(&self) -> &[Arc<str>] {
        if self.assigned.is_some() { &self.watched } else { &self.topics }
    }

    /// Who commits, while it may.
    pub(super) fn committer(&self) -> Option<Identity> {
        Some(self.identity.clone()).filter(|_| !self.owned.is_empty())
    }
}

/// Marks the numbers of heartbeats.
const BEATS: u64 = 1 << 63;
