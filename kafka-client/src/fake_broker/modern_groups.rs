//! The members of a group in the protocol of KIP-848, as Kafka's coordinator keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use tokio::time::Instant;
use uuid::Uuid;

/// Partitions by topic id.
type Partitions = BTreeSet<(u128, i32)>;

/// Topics: name, id and number of partitions.
pub(super) type Topics = BTreeMap<String, (u128, i32)>;

/// Members and their epoch.
#[derive(Debug, Default)]
pub(super) struct ModernGroup {
    members: BTreeMap<String, ModernMember>,
    epoch: i32,
    target: BTreeMap<String, Partitions>,
}

#[derive(Debug)]
struct ModernMember {
    epoch: i32,
    /// Of a member whose last answer may be lost.
    previous: i32,
    topics: BTreeSet<String>,
    /// What it may have, until it has given it back.
    assigned: Partitions,
    heard: Instant,
}

const UNKNOWN_MEMBER_ID: i16 = 25;
const FENCED_MEMBER_EPOCH: i16 = 110;
const STALE_MEMBER_EPOCH: i16 = 113;
/// `group.consumer.session.timeout.ms` and `group.consumer.heartbeat.interval.ms`.
const SESSION: Duration = Duration::from_secs(45);
const INTERVAL_MS: i32 = 5000;

impl ModernGroup {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn members(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// Members that were not heard of are removed.
    pub(super) fn tick(&mut self, topics: &Topics, now: Instant) {
        let before = self.members.len();
        self.members.retain(|_, it| it.heard + SESSION > now);
        if self.members.len() != before {
            self.assign(topics);
        }
    }

    /// A new epoch, in which each member is to have its share: whatever it has now.
    fn assign(&mut self, topics: &Topics) {
        self.epoch += 1;
        self.target = self.members.keys().map(|id| (id.clone(), Partitions::new())).collect();
        for (name, (id, count)) in topics {
            let wanting = self.members.iter().filter(|(_, it)| it.topics.contains(name));
            let wanting: Vec<_> = wanting.map(|(member, _)| member.clone()).collect();
            for partition in 0..*count {
                let place = usize::try_from(partition).unwrap_or(0) % wanting.len().max(1);
                let part = wanting.get(place).and_then(|member| self.target.get_mut(member));
                part.map(|part| part.insert((*id, partition)));
            }
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        asked: &ConsumerGroupHeartbeatRequest,
        topics: &Topics,
        now: Instant,
    ) -> ConsumerGroupHeartbeatResponse {
        let id = asked.member_id.to_string();
        let response = ConsumerGroupHeartbeatResponse::default();
        let owned = asked.topic_partitions.iter().flatten();
        let owned: Partitions = owned
            .flat_map(|it| it.partitions.iter().map(|index| (it.topic_id.as_u128(), *index)))
            .collect();
        match asked.member_epoch {
            ..0 => {
                self.members.remove(&id);
                self.assign(topics);
                let member = Some(asked.member_id.clone());
                return response.with_member_id(member).with_member_epoch(asked.member_epoch);
            }
            0 => {
                let member = ModernMember {
                    epoch: 0,
                    previous: 0,
                    topics: BTreeSet::new(),
                    assigned: Partitions::new(),
                    heard: now,
                };
                self.members.insert(id.clone(), member);
            }
            epoch => match self.members.get(&id) {
                None => return response.with_error_code(UNKNOWN_MEMBER_ID),
                Some(it) if it.epoch == epoch => {}
                Some(it) if it.previous == epoch && owned.is_subset(&it.assigned) => {}
                Some(_) => return response.with_error_code(FENCED_MEMBER_EPOCH),
            },
        }
        let wanted = asked.subscribed_topic_names.iter().flatten();
        let wanted: BTreeSet<_> = wanted.map(|name| name.to_string()).collect();
        let all: Partitions = self.target.values().flatten().copied().collect();
        let wants_more = |name: &String| {
            let topic = topics.get(name);
            topic.is_some_and(|(id, count)| (0..*count).any(|at| !all.contains(&(*id, at))))
        };
        let is_gone = |of: &u128| topics.values().all(|(id, _)| id != of);
        let is_new = wanted.iter().any(wants_more) || all.iter().any(|(of, _)| is_gone(of));
        if let Some(member) = self.members.get_mut(&id) {
            member.heard = now;
            let has_changed = asked.subscribed_topic_names.is_some() && member.topics != wanted;
            if has_changed {
                member.topics = wanted;
            }
            if has_changed || is_new || asked.member_epoch == 0 {
                self.assign(topics);
            }
        }
        self.reconcile(&id, &owned)
    }

    /// A member gives back what is for others, and then has what others have given back.
    fn reconcile(&mut self, id: &str, owned: &Partitions) -> ConsumerGroupHeartbeatResponse {
        let target = self.target.get(id).cloned().unwrap_or_default();
        let others = self.members.iter().filter(|(other, _)| *other != id);
        let taken: Partitions = others.flat_map(|(_, it)| it.assigned.clone()).collect();
        let Some(member) = self.members.get_mut(id) else {
            return ConsumerGroupHeartbeatResponse::default().with_error_code(UNKNOWN_MEMBER_ID);
        };
        let kept: Partitions = member.assigned.intersection(&target).copied().collect();
        let told = if member.assigned.difference(&target).any(|it| owned.contains(it)) {
            kept
        } else {
            if member.epoch != self.epoch {
                (member.previous, member.epoch) = (member.epoch, self.epoch);
            }
            member.assigned = target.iter().filter(|it| !taken.contains(it)).copied().collect();
            member.assigned.clone()
        };
        let mut by_topic = BTreeMap::<u128, Vec<i32>>::new();
        for (topic, partition) in told {
            by_topic.entry(topic).or_default().push(partition);
        }
        let by_topic = by_topic.into_iter().map(|(topic, partitions)| {
            let topic = TopicPartitions::default().with_topic_id(Uuid::from_u128(topic));
            topic.with_partitions(partitions)
        });
        let assignment = Assignment::default().with_topic_partitions(by_topic.collect());
        ConsumerGroupHeartbeatResponse::default()
            .with_member_epoch(member.epoch)
            .with_heartbeat_interval_ms(INTERVAL_MS)
            .with_assignment(Some(assignment))
    }

    /// Whether who says this may commit.
    pub(super) fn admits(&self, member: &str, epoch: i32) -> Result<(), i16> {
        match self.members.get(member) {
            None if epoch < 0 && self.is_empty() => Ok(()),
            None => Err(UNKNOWN_MEMBER_ID),
            Some(it) if it.epoch == epoch => Ok(()),
            Some(_) => Err(STALE_MEMBER_EPOCH),
        }
    }
}
