//! The groups of a fake cluster: which broker coordinates each, its offsets and its members.

use std::collections::BTreeMap;

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    BrokerId, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::classic_groups::{JoinWaiter, Joined, SyncWaiter};
use super::group_state::{FakeGroup, FakeOffset};
use super::modern_groups::Topics;
use super::state::ClusterState;

/// A request whose answer waits for other members.
#[derive(Debug)]
pub(super) enum GroupWaiter {
    Join(String, JoinWaiter),
    Sync(String, SyncWaiter),
}

/// What such a request gets, once it gets something.
pub(super) enum GroupReply {
    Joined(Box<JoinGroupResponse>),
    Synced(SyncGroupResponse),
    /// Nobody waits for it any more.
    Nothing,
}

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const NOT_COORDINATOR: i16 = 16;
const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
const UNSUPPORTED_VERSION: i16 = 35;
const GROUP_ID_NOT_FOUND: i16 = 69;
/// Groups that are kept: names come from whoever connects.
const GROUPS: usize = 10_000;
/// The kind of key that names a group.
const GROUP_KEY: i8 = 0;

impl ClusterState {
    /// The broker that coordinates a group, if one is up.
    fn coordinator(&self, group: &str) -> Option<i32> {
        let up = |id: &i32| self.brokers.get(id).is_some_and(super::state::Broker::is_up);
        let chosen = self.groups.chosen.get(group).copied();
        chosen.or_else(|| self.brokers.keys().copied().find(up)).filter(up)
    }

    /// The code of a refusal, if this broker does not answer for the group.
    pub(super) fn coordinates(&self, broker: i32, group: &str) -> Result<(), i16> {
        let is_it = self.coordinator(group) == Some(broker);
        let has_room = self.groups.by_id.len() < GROUPS || self.groups.by_id.contains_key(group);
        match (is_it, has_room) {
            (false, _) => Err(NOT_COORDINATOR),
            (true, false) => Err(COORDINATOR_NOT_AVAILABLE),
            (true, true) => Ok(()),
        }
    }
}

impl ClusterState {
    /// A group that this broker coordinates, as it is at this time.
    fn group(&mut self, broker: i32, id: &str, now: Instant) -> Result<&mut FakeGroup, i16> {
        self.coordinates(broker, id)?;
        let topics = self.group_topics();
        let changed = self.changed.clone();
        let group = self.groups.by_id.entry(id.to_owned()).or_default();
        if group.classic.tick(now) {
            changed.notify_waiters();
        }
        group.modern.tick(&topics, now);
        Ok(group)
    }

    fn group_topics(&self) -> Topics {
        let topics = self.topics.iter().map(|(name, topic)| {
            let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            (name.clone(), (topic.id, count))
        });
        topics.collect()
    }

    pub(super) fn join(
        &mut self,
        broker: i32,
        asked: &JoinGroupRequest,
        version: i16,
        now: Instant,
    ) -> Result<GroupWaiter, (i16, String)> {
        let id = asked.group_id.0.to_string();
        let refused = |code: i16| (code, asked.member_id.to_string());
        let changed = self.changed.clone();
        let group = self.group(broker, &id, now).map_err(refused)?;
        if !group.modern.is_empty() {
            return Err(refused(INCONSISTENT_GROUP_PROTOCOL));
        }
        group.members += 1;
        let fresh = format!("member-{}", group.members);
        let waiter = group.classic.join(asked, version, || fresh, now)?;
        changed.notify_waiters();
        Ok(GroupWaiter::Join(id, waiter))
    }

    pub(super) fn sync(
        &mut self,
        broker: i32,
        asked: &SyncGroupRequest,
        now: Instant,
    ) -> Result<GroupWaiter, i16> {
        let id = asked.group_id.0.to_string();
        let changed = self.changed.clone();
        let waiter = self.group(broker, &id, now)?.classic.sync(asked, now)?;
        changed.notify_waiters();
        Ok(GroupWaiter::Sync(id, waiter))
    }

    /// The answer to who waits, and when to look again if there is none yet.
    pub(super) fn look(
        &mut self,
        waiter: &GroupWaiter,
        now: Instant,
    ) -> Result<GroupReply, Option<Instant>> {
        let (GroupWaiter::Join(id, _) | GroupWaiter::Sync(id, _)) = waiter;
        let changed = self.changed.clone();
        let group = self.groups.by_id.entry(id.clone()).or_default();
        if group.classic.tick(now) {
            changed.notify_waiters();
        }
        let reply = match waiter {
            GroupWaiter::Join(_, waiter) => match group.classic.joined(waiter) {
                Some(Joined::Answer(response)) => Some(GroupReply::Joined(response)),
                Some(Joined::Superseded) => Some(GroupReply::Nothing),
                None => None,
            },
            GroupWaiter::Sync(_, waiter) => group.classic.synced(waiter).map(GroupReply::Synced),
        };
        reply.ok_or_else(|| group.classic.due())
    }

    pub(super) fn heartbeat(&mut self, broker: i32, asked: &HeartbeatRequest, now: Instant) -> i16 {
        match self.group(broker, &asked.group_id.0, now) {
            Ok(group) => group.classic.heartbeat(asked, now),
            Err(code) => code,
        }
    }

    pub(super) fn leave(
        &mut self,
        broker: i32,
        asked: &LeaveGroupRequest,
        version: i16,
        now: Instant,
    ) -> LeaveGroupResponse {
        let changed = self.changed.clone();
        match self.group(broker, &asked.group_id.0, now) {
            Ok(group) => {
                let response = group.classic.leave(asked, version, now);
                changed.notify_waiters();
                response
            }
            Err(code) => LeaveGroupResponse::default().with_error_code(code),
        }
    }

    pub(super) fn consume(
        &mut self,
        broker: i32,
        asked: &ConsumerGroupHeartbeatRequest,
        now: Instant,
    ) -> ConsumerGroupHeartbeatResponse {
        let topics = self.group_topics();
        match self.group(broker, &asked.group_id.0, now) {
            Ok(group) if !group.classic.is_empty() => {
                ConsumerGroupHeartbeatResponse::default().with_error_code(GROUP_ID_NOT_FOUND)
            }
            Ok(group) => group.modern.heartbeat(asked, &topics, now),
            Err(code) => ConsumerGroupHeartbeatResponse::default().with_error_code(code),
        }
    }
}

/// Whether the group takes what is committed.
fn admit(
    state: &mut ClusterState,
    broker: i32,
    asked: &OffsetCommitRequest,
    now: Instant,
) -> Result<(), i16> {
    let group = state.group(broker, &asked.group_id.0, now)?;
    let (member, generation) = (&*asked.member_id, asked.generation_id_or_member_epoch);
    if !group.modern.is_empty() {
        return group.modern.admits(member, generation);
    }
    group.classic.admits(member, generation, asked.group_instance_id.as_deref(), now)
}

/// There are no transactions.
pub(super) fn find_coordinator(
    state: &ClusterState,
    asked: &FindCoordinatorRequest,
    version: i16,
    code: i16,
) -> FindCoordinatorResponse {
    let find = |group: &str| match (code, state.coordinator(group)) {
        _ if asked.key_type != GROUP_KEY => (UNSUPPORTED_VERSION, -1),
        (0, Some(broker)) => (0, broker),
        (0, None) => (COORDINATOR_NOT_AVAILABLE, -1),
        (code, _) => (code, -1),
    };
    let place = |id: i32| {
        let found = state.brokers.get(&id);
        found.map_or_else(Default::default, |it| (it.host.clone(), i32::from(it.port)))
    };
    let response = FindCoordinatorResponse::default();
    if version < 4 {
        let (code, id) = find(&asked.key);
        let (host, port) = place(id);
        let host = StrBytes::from_string(host);
        let response = response.with_error_code(code).with_node_id(BrokerId(id));
        return response.with_host(host).with_port(port);
    }
    let coordinators = asked.coordinator_keys.iter().map(|key| {
        let (code, id) = find(key);
        let (host, port) = place(id);
        let found = Coordinator::default().with_key(key.clone()).with_error_code(code);
        let host = StrBytes::from_string(host);
        found.with_node_id(BrokerId(id)).with_host(host).with_port(port)
    });
    response.with_coordinators(coordinators.collect())
}

/// Keeps the offsets of a request, unless `code` or the group refuses them.
pub(super) fn commit(
    state: &mut ClusterState,
    broker: i32,
    asked: &OffsetCommitRequest,
    code: i16,
) -> OffsetCommitResponse {
    let group = asked.group_id.0.to_string();
    let admitted = match code {
        0 => admit(state, broker, asked, Instant::now()),
        code => Err(code),
    };
    let mut topics = Vec::new();
    for topic in &asked.topics {
        let name = topic.name.0.to_string();
        let mut partitions = Vec::new();
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let exists = state.partition(&name, index).is_some();
            let code = match admitted {
                Err(code) => code,
                Ok(()) if !exists => UNKNOWN_TOPIC_OR_PARTITION,
                Ok(()) => {
                    let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
                    let kept = FakeOffset {
                        offset: partition.committed_offset,
                        epoch: partition.committed_leader_epoch,
                        metadata: metadata.to_owned(),
                    };
                    let group = state.groups.by_id.entry(group.clone()).or_default();
                    group.offsets.insert((name.clone(), index), kept);
                    0
                }
            };
            let answer = OffsetCommitResponsePartition::default().with_partition_index(index);
            partitions.push(answer.with_error_code(code));
        }
        let answer = OffsetCommitResponseTopic::default().with_name(topic.name.clone());
        topics.push(answer.with_partitions(partitions));
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// What a group has committed: of what is asked for, or of everything.
pub(super) fn committed(
    state: &ClusterState,
    broker: i32,
    asked: &OffsetFetchRequest,
    version: i16,
    code: i16,
) -> OffsetFetchResponse {
    let refused = |group: &str| match code {
        0 => state.coordinates(broker, group).err().unwrap_or(0),
        code => code,
    };
    let response = OffsetFetchResponse::default();
    if version >= 8 {
        let groups = asked.groups.iter().map(|group| {
            let wanted = group.topics.as_ref().map(|topics| {
                let topics = topics.iter();
                topics.map(|it| (it.name.0.to_string(), it.partition_indexes.clone())).collect()
            });
            let code = refused(&group.group_id);
            let topics = found(state, &group.group_id, wanted, code).into_iter();
            let topics = topics.map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(|(index, kept)| {
                    let metadata = Some(StrBytes::from_string(kept.metadata));
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(index)
                        .with_committed_offset(kept.offset)
                        .with_committed_leader_epoch(kept.epoch)
                        .with_metadata(metadata)
                });
                let topic = OffsetFetchResponseTopics::default().with_name(name_of(name));
                topic.with_partitions(partitions.collect())
            });
            let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
            answer.with_error_code(code).with_topics(topics.collect())
        });
        return response.with_groups(groups.collect());
    }
    let wanted = asked.topics.as_ref().map(|topics| {
        let topics = topics.iter();
        topics.map(|it| (it.name.0.to_string(), it.partition_indexes.clone())).collect()
    });
    let code = refused(&asked.group_id);
    let topics =
        found(state, &asked.group_id, wanted, code).into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, kept)| {
                let answer = OffsetFetchResponsePartition::default()
                    .with_partition_index(index)
                    .with_committed_offset(kept.offset)
                    .with_metadata(Some(StrBytes::from_string(kept.metadata)))
                    .with_error_code(if version < 2 { code } else { 0 });
                answer.with_committed_leader_epoch(if version >= 5 { kept.epoch } else { -1 })
            });
            let topic = OffsetFetchResponseTopic::default().with_name(name_of(name));
            topic.with_partitions(partitions.collect())
        });
    let response = response.with_topics(topics.collect());
    if version >= 2 { response.with_error_code(code) } else { response }
}

fn name_of(name: String) -> kafka_protocol::messages::TopicName {
    kafka_protocol::messages::TopicName(StrBytes::from_string(name))
}

/// The offsets of partitions by topic; −1 where nothing was committed.
fn found(
    state: &ClusterState,
    group: &str,
    wanted: Option<Vec<(String, Vec<i32>)>>,
    code: i16,
) -> Vec<(String, Vec<(i32, FakeOffset)>)> {
    let none = BTreeMap::new();
    let known = state.groups.by_id.get(group).filter(|_| code == 0);
    let offsets = known.map_or(&none, |known| &known.offsets);
    let all = || {
        let mut topics = BTreeMap::<String, Vec<i32>>::new();
        for (topic, partition) in offsets.keys() {
            topics.entry(topic.clone()).or_default().push(*partition);
        }
        topics.into_iter().collect()
    };
    let topics: Vec<(String, Vec<i32>)> = wanted.unwrap_or_else(all);
    let nothing = || FakeOffset { offset: -1, epoch: -1, metadata: String::new() };
    let kept = |topic: &str, index: i32| {
        offsets.get(&(topic.to_owned(), index)).cloned().unwrap_or_else(nothing)
    };
    let found = topics.into_iter().map(|(topic, indexes)| {
        let partitions = indexes.into_iter().map(|index| (index, kept(&topic, index))).collect();
        (topic, partitions)
    });
    found.collect()
}
