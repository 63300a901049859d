//! Sound answers about groups, of any size.

use bytes::{Bytes, BytesMut};
use kafka_client::decoders::{Answers, GROUP};
use kafka_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, TopicPartitions as Assigned,
};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    BrokerId, ConsumerGroupHeartbeatResponse, FindCoordinatorResponse, GroupId, HeartbeatResponse,
    JoinGroupResponse, LeaveGroupResponse, OffsetCommitResponse, OffsetFetchResponse,
    SyncGroupResponse, TopicName,
};
use kafka_protocol::protocol::Encodable;

use crate::answers::{Counts, tags, text};

const OFFSET_COMMIT: i16 = 8;
const OFFSET_FETCH: i16 = 9;
const FIND_COORDINATOR: i16 = 10;
const JOIN_GROUP: i16 = 11;
const HEARTBEAT: i16 = 12;
const LEAVE_GROUP: i16 = 13;
const SYNC_GROUP: i16 = 14;
const CONSUMER_GROUP_HEARTBEAT: i16 = 68;

/// All of them.
pub(crate) const APIS: [i16; 8] = [
    OFFSET_COMMIT,
    OFFSET_FETCH,
    FIND_COORDINATOR,
    JOIN_GROUP,
    HEARTBEAT,
    LEAVE_GROUP,
    SYNC_GROUP,
    CONSUMER_GROUP_HEARTBEAT,
];

/// The body of an answer.
pub(crate) fn body(answers: &Answers, counts: Counts) -> Bytes {
    let (version, mut bytes) = (answers.version, BytesMut::new());
    match answers.key() {
        OFFSET_COMMIT => offset_commit(counts).encode(&mut bytes, version),
        OFFSET_FETCH => offset_fetch(version, counts).encode(&mut bytes, version),
        FIND_COORDINATOR => find_coordinator(version, counts).encode(&mut bytes, version),
        JOIN_GROUP => join_group(version, counts).encode(&mut bytes, version),
        LEAVE_GROUP => leave_group(version, counts).encode(&mut bytes, version),
        SYNC_GROUP => {
            let assignment = Bytes::from(vec![7; counts.details]);
            let answer = SyncGroupResponse::default().with_assignment(assignment);
            answer.with_unknown_tagged_fields(tags(counts)).encode(&mut bytes, version)
        }
        HEARTBEAT => HeartbeatResponse::default()
            .with_unknown_tagged_fields(tags(counts))
            .encode(&mut bytes, version),
        _ => consumer_group_heartbeat(counts).encode(&mut bytes, version),
    }
    .unwrap();
    bytes.freeze()
}

fn offset_commit(counts: Counts) -> OffsetCommitResponse {
    let partition =
        OffsetCommitResponsePartition::default().with_unknown_tagged_fields(tags(counts));
    let topic = OffsetCommitResponseTopic::default()
        .with_name(TopicName(text(counts.host_bytes.min(249))))
        .with_partitions(vec![partition; counts.partitions]);
    OffsetCommitResponse::default().with_topics(vec![topic; counts.topics])
}

fn offset_fetch(version: i16, counts: Counts) -> OffsetFetchResponse {
    let name = TopicName(text(counts.host_bytes.min(249)));
    let metadata = Some(text(counts.brokers.min(9)));
    if version < 8 {
        let partition = OffsetFetchResponsePartition::default()
            .with_metadata(metadata)
            .with_unknown_tagged_fields(tags(counts));
        let topic = OffsetFetchResponseTopic::default()
            .with_name(name)
            .with_partitions(vec![partition; counts.partitions]);
        return OffsetFetchResponse::default().with_topics(vec![topic; counts.topics]);
    }
    let partition = OffsetFetchResponsePartitions::default()
        .with_metadata(metadata)
        .with_unknown_tagged_fields(tags(counts));
    let topic = OffsetFetchResponseTopics::default()
        .with_name(name)
        .with_partitions(vec![partition; counts.partitions]);
    let group = OffsetFetchResponseGroup::default()
        .with_group_id(GroupId(GROUP.into()))
        .with_topics(vec![topic; counts.topics]);
    OffsetFetchResponse::default().with_groups(vec![group; counts.brokers.max(1)])
}

fn find_coordinator(version: i16, counts: Counts) -> FindCoordinatorResponse {
    let answer = FindCoordinatorResponse::default();
    if version < 4 {
        return answer.with_node_id(BrokerId(1)).with_host(text(counts.host_bytes));
    }
    let found = Coordinator::default()
        .with_key(GROUP.into())
        .with_node_id(BrokerId(1))
        .with_host(text(counts.host_bytes))
        .with_unknown_tagged_fields(tags(counts));
    answer.with_coordinators(vec![found; counts.brokers.max(1)])
}

fn join_group(version: i16, counts: Counts) -> JoinGroupResponse {
    let member = JoinGroupResponseMember::default()
        .with_member_id(text(1))
        .with_metadata(Bytes::from(vec![7; counts.details.min(9)]))
        .with_unknown_tagged_fields(tags(counts));
    let instance = Some(text(1)).filter(|_| version >= 5 && counts.details > 0);
    let member = member.with_group_instance_id(instance);
    JoinGroupResponse::default()
        .with_generation_id(1)
        .with_protocol_name(Some(text(1)))
        .with_members(vec![member; counts.topics.max(counts.brokers)])
}

fn leave_group(version: i16, counts: Counts) -> LeaveGroupResponse {
    let answer = LeaveGroupResponse::default();
    if version < 3 {
        return answer;
    }
    let member =
        MemberResponse::default().with_member_id(text(1)).with_unknown_tagged_fields(tags(counts));
    answer.with_members(vec![member; counts.topics.max(counts.brokers)])
}

fn consumer_group_heartbeat(counts: Counts) -> ConsumerGroupHeartbeatResponse {
    let topic = Assigned::default()
        .with_partitions(vec![7; counts.partitions])
        .with_unknown_tagged_fields(tags(counts));
    let assignment =
        Assignment::default().with_topic_partitions(vec![topic; counts.topics.max(counts.brokers)]);
    ConsumerGroupHeartbeatResponse::default()
        .with_error_message(Some(text(counts.details.min(99))))
        .with_member_id(Some(text(1)))
        .with_member_epoch(1)
        .with_assignment(Some(assignment))
}
