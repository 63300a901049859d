//! The members of a group in the classic protocol, as Kafka's coordinator keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

/// Members and their generation.
#[derive(Debug, Default)]
pub(super) struct ClassicGroup {
    members: BTreeMap<String, ClassicMember>,
    /// Ids that were given and have not joined yet (KIP-394).
    promised: BTreeSet<String>,
    generation: i32,
    phase: Phase,
    protocol: String,
    leader: String,
    /// Numbers joins, so that a later one takes the place of an earlier one.
    joins: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Empty,
    /// Members join until all have, or until then.
    Preparing(Instant),
    /// The leader assigns.
    Completing,
    Stable,
}

#[derive(Debug)]
struct ClassicMember {
    instance: Option<String>,
    session: Duration,
    rebalance: Duration,
    protocols: Vec<(String, Bytes)>,
    heard: Instant,
    /// Its join waits for the others.
    join: Option<u64>,
    /// The answer to this join is there, if anybody still waits for it.
    answered: Option<u64>,
    assignment: Bytes,
}

/// A join that waits for the others.
#[derive(Debug, Clone)]
pub(super) struct JoinWaiter {
    member: String,
    join: u64,
    version: i16,
}

/// A member that waits for its leader.
#[derive(Debug, Clone)]
pub(super) struct SyncWaiter {
    member: String,
    generation: i32,
}

const ILLEGAL_GENERATION: i16 = 22;
const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED_INSTANCE_ID: i16 = 82;
/// The first version in which a member must have an id before it joins.
const ID_FIRST: i16 = 4;

impl ClassicGroup {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn members(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// Members that were not heard of are removed, and a generation begins when it is time.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        let before = self.members.len();
        // Who waits for others is not expected to say anything.
        let is_parked = |it: &ClassicMember| it.join.is_some();
        self.members.retain(|_, it| is_parked(it) || it.heard + it.session > now);
        let mut has_changed = self.members.len() != before;
        if has_changed && !matches!(self.phase, Phase::Preparing(_)) {
            self.prepare(now);
        }
        if let Phase::Preparing(until) = self.phase {
            let have_all = self.members.values().all(|it| it.join.is_some());
            if have_all || until <= now {
                self.begin(now);
                has_changed = true;
            }
        }
        has_changed
    }

    /// When something happens by itself.
    pub(super) fn due(&self) -> Option<Instant> {
        let sessions = self.members.values().filter(|it| it.join.is_none());
        let until = match self.phase {
            Phase::Preparing(until) => Some(until),
            _ => None,
        };
        sessions.map(|it| it.heard + it.session).chain(until).min()
    }

    fn prepare(&mut self, now: Instant) {
        let longest = self.members.values().map(|it| it.rebalance).max();
        self.phase = longest.map_or(Phase::Empty, |longest| Phase::Preparing(now + longest));
    }

    /// Who has not joined is out, but for static members.
    fn begin(&mut self, now: Instant) {
        self.members.retain(|_, it| it.join.is_some() || it.instance.is_some());
        let Some(first) = self.members.iter().find(|(_, it)| it.join.is_some()) else {
            self.phase = Phase::Empty;
            return;
        };
        if self.members.get(&self.leader).is_none_or(|it| it.join.is_none()) {
            self.leader = first.0.clone();
        }
        let of_leader = first.1.protocols.iter().map(|(name, _)| name);
        let has =
            |it: &ClassicMember, name: &String| it.protocols.iter().any(|(own, _)| own == name);
        let mut common = of_leader.filter(|name| self.members.values().all(|it| has(it, name)));
        self.protocol = common.next().cloned().unwrap_or_default();
        self.generation += 1;
        self.phase = Phase::Completing;
        for member in self.members.values_mut() {
            member.heard = now;
            member.answered = member.join.take();
            member.assignment = Bytes::new();
        }
    }

    /// Takes a member, or says at once why not: by a code, with the member's id.
    pub(super) fn join(
        &mut self,
        asked: &JoinGroupRequest,
        version: i16,
        fresh_id: impl FnOnce() -> String,
        now: Instant,
    ) -> Result<JoinWaiter, (i16, String)> {
        let refused = |code: i16, member: &str| Err((code, member.to_owned()));
        let protocols = asked.protocols.iter();
        let protocols: Vec<(String, Bytes)> =
            protocols.map(|it| (it.name.to_string(), it.metadata.clone())).collect();
        let has_common = |it: &ClassicMember| {
            protocols.iter().any(|(name, _)| it.protocols.iter().any(|(own, _)| own == name))
        };
        if protocols.is_empty() || !self.members.values().all(has_common) {
            return refused(INCONSISTENT_GROUP_PROTOCOL, &asked.member_id);
        }
        let id = self.identify(asked, version, fresh_id)?;
        let instance = asked.group_instance_id.as_ref().map(ToString::to_string);
        self.joins += 1;
        let member = ClassicMember {
            instance,
            session: millis(asked.session_timeout_ms),
            rebalance: millis(asked.rebalance_timeout_ms),
            protocols,
            heard: now,
            join: Some(self.joins),
            answered: None,
            assignment: Bytes::new(),
        };
        let before = self.members.insert(id.clone(), member);
        let is_same = |before: &ClassicMember| {
            self.members.get(&id).is_some_and(|it| it.protocols == before.protocols)
        };
        let waiter = JoinWaiter { member: id.clone(), join: self.joins, version };
        match (self.phase, before) {
            (Phase::Preparing(_), _) => {}
            // Its answer was lost, or it is a static member that is back.
            (Phase::Completing, Some(before)) if is_same(&before) => {
                self.members.entry(id).and_modify(|it| it.answered = it.join.take());
            }
            (Phase::Stable, Some(before)) if is_same(&before) && self.leader != id => {
                self.members.entry(id).and_modify(|it| {
                    it.answered = it.join.take();
                    it.assignment = before.assignment;
                });
            }
            _ => self.prepare(now),
        }
        Ok(waiter)
    }

    /// The member's id: a new one for who has none, or is a static member that is back.
    fn identify(
        &mut self,
        asked: &JoinGroupRequest,
        version: i16,
        fresh_id: impl FnOnce() -> String,
    ) -> Result<String, (i16, String)> {
        let refused = |code: i16, member: &str| Err((code, member.to_owned()));
        let instance = asked.group_instance_id.as_ref().map(ToString::to_string);
        let given = asked.member_id.to_string();
        let named = instance.as_ref().and_then(|name| {
            let found = self.members.iter().find(|(_, it)| it.instance.as_ref() == Some(name));
            found.map(|(id, _)| id.clone())
        });
        Ok(match (given.as_str(), &named) {
            ("", Some(former)) => {
                // A static member is back: the one before it is no more.
                let id = fresh_id();
                if let Some(member) = self.members.remove(former) {
                    self.members.insert(id.clone(), member);
                }
                if self.leader == *former {
                    self.leader.clone_from(&id);
                }
                id
            }
            ("", None) if version >= ID_FIRST && instance.is_none() => {
                let id = fresh_id();
                self.promised.insert(id.clone());
                return refused(MEMBER_ID_REQUIRED, &id);
            }
            ("", None) => fresh_id(),
            (given, Some(known)) if given != known => return refused(FENCED_INSTANCE_ID, given),
            (given, _) if self.members.contains_key(given) || self.promised.remove(given) => {
                given.to_owned()
            }
            (given, _) => return refused(UNKNOWN_MEMBER_ID, given),
        })
    }

    /// The answer to a join, once it is there.
    pub(super) fn joined(&mut self, waiter: &JoinWaiter) -> Option<Joined> {
        let Some(member) = self.members.get_mut(&waiter.member) else {
            let response = JoinGroupResponse::default().with_error_code(UNKNOWN_MEMBER_ID);
            let response = response.with_protocol_name(Some("".into()));
            return Some(Joined::Answer(Box::new(response)));
        };
        if member.answered != Some(waiter.join) {
            let waits = member.join == Some(waiter.join);
            return if waits { None } else { Some(Joined::Superseded) };
        }
        member.answered = None;
        let text = |text: &String| StrBytes::from_string(text.clone());
        let mut response = JoinGroupResponse::default()
            .with_generation_id(self.generation)
            .with_protocol_name(Some(text(&self.protocol)))
            .with_leader(text(&self.leader))
            .with_member_id(text(&waiter.member));
        if waiter.version >= 7 {
            response.protocol_type = Some(StrBytes::from_static_str("consumer"));
        }
        if self.leader == waiter.member {
            let members = self.members.iter().map(|(id, it)| {
                let metadata = it.protocols.iter().find(|(name, _)| *name == self.protocol);
                let metadata = metadata.map(|(_, metadata)| metadata.clone()).unwrap_or_default();
                let instance = it.instance.as_ref().filter(|_| waiter.version >= 5);
                JoinGroupResponseMember::default()
                    .with_member_id(text(id))
                    .with_group_instance_id(instance.map(text))
                    .with_metadata(metadata)
            });
            response.members = members.collect();
        }
        Some(Joined::Answer(Box::new(response)))
    }

    /// Takes what the leader has assigned, or says at once why not: by a code.
    pub(super) fn sync(
        &mut self,
        asked: &SyncGroupRequest,
        now: Instant,
    ) -> Result<SyncWaiter, i16> {
        let member = asked.member_id.to_string();
        let instance = asked.group_instance_id.as_deref();
        let code = self.check(&member, asked.generation_id, instance).unwrap_or_else(|code| code);
        if code != 0 {
            return Err(code);
        }
        if self.phase == Phase::Completing && member == self.leader {
            for part in &asked.assignments {
                let to = self.members.get_mut(&*part.member_id);
                to.into_iter().for_each(|it| it.assignment = part.assignment.clone());
            }
            self.phase = Phase::Stable;
            self.members.values_mut().for_each(|it| it.heard = now);
        }
        self.members.entry(member.clone()).and_modify(|it| it.heard = now);
        Ok(SyncWaiter { member, generation: asked.generation_id })
    }

    /// The answer to who waits for its leader, once it is there.
    pub(super) fn synced(&self, waiter: &SyncWaiter) -> Option<SyncGroupResponse> {
        let refused = |code| Some(SyncGroupResponse::default().with_error_code(code));
        let Some(member) = self.members.get(&waiter.member) else {
            return refused(UNKNOWN_MEMBER_ID);
        };
        match self.phase {
            _ if self.generation != waiter.generation => refused(REBALANCE_IN_PROGRESS),
            Phase::Preparing(_) | Phase::Empty => refused(REBALANCE_IN_PROGRESS),
            Phase::Completing => None,
            Phase::Stable => {
                Some(SyncGroupResponse::default().with_assignment(member.assignment.clone()))
            }
        }
    }

    /// Whether that is a member: 0 or [`REBALANCE_IN_PROGRESS`], else the code of a refusal.
    fn check(&self, member: &str, generation: i32, instance: Option<&str>) -> Result<i16, i16> {
        let named = self
            .members
            .iter()
            .find(|(_, it)| instance.is_some() && it.instance.as_deref() == instance);
        match (named, self.members.get(member)) {
            (Some((id, _)), _) if id != member => Err(FENCED_INSTANCE_ID),
            (_, None) => Err(UNKNOWN_MEMBER_ID),
            _ if self.generation != generation => Err(ILLEGAL_GENERATION),
            _ if matches!(self.phase, Phase::Preparing(_)) => Ok(REBALANCE_IN_PROGRESS),
            _ => Ok(0),
        }
    }

    /// A code.
    pub(super) fn heartbeat(&mut self, asked: &HeartbeatRequest, now: Instant) -> i16 {
        let instance = asked.group_instance_id.as_deref();
        match self.check(&asked.member_id, asked.generation_id, instance) {
            Ok(code) => {
                let member = self.members.get_mut(&*asked.member_id);
                member.into_iter().for_each(|it| it.heard = now);
                code
            }
            Err(code) => code,
        }
    }

    pub(super) fn leave(
        &mut self,
        asked: &LeaveGroupRequest,
        version: i16,
        now: Instant,
    ) -> LeaveGroupResponse {
        let response = LeaveGroupResponse::default();
        if version < 3 {
            let code = self.remove(&asked.member_id, now);
            return response.with_error_code(code);
        }
        let members = asked.members.iter().map(|it| {
            let code = self.remove(&it.member_id, now);
            MemberResponse::default()
                .with_member_id(it.member_id.clone())
                .with_group_instance_id(it.group_instance_id.clone())
                .with_error_code(code)
        });
        let members = members.collect();
        response.with_members(members)
    }

    fn remove(&mut self, member: &str, now: Instant) -> i16 {
        if self.promised.remove(member) {
            return 0;
        }
        if self.members.remove(member).is_none() {
            return UNKNOWN_MEMBER_ID;
        }
        if !matches!(self.phase, Phase::Preparing(_)) || self.members.is_empty() {
            self.prepare(now);
        }
        0
    }

    /// Whether who says this may commit.
    pub(super) fn admits(
        &mut self,
        member: &str,
        generation: i32,
        instance: Option<&str>,
        now: Instant,
    ) -> Result<(), i16> {
        if generation < 0 && member.is_empty() {
            return if self.is_empty() { Ok(()) } else { Err(UNKNOWN_MEMBER_ID) };
        }
        self.check(member, generation, instance)?;
        if self.phase == Phase::Completing {
            return Err(REBALANCE_IN_PROGRESS);
        }
        self.members.entry(member.to_owned()).and_modify(|it| it.heard = now);
        Ok(())
    }
}

/// What came of a join.
pub(super) enum Joined {
    Answer(Box<JoinGroupResponse>),
    /// The member has asked again meanwhile: nobody waits for this answer.
    Superseded,
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
