//! Reads the bodies of requests, whatever a client sends.
//!
//! The decoders of `kafka-protocol` reserve memory for as many elements as a count says, so a few
//! bytes could end the process: each body is first checked against a table of its fields.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion};

use crate::shape::FieldKind::{Blob, Fixed, Ints, List, One, Text};
use crate::shape::{self, Dialect, Field, Struct, always, since};

/// The key of Produce.
pub const PRODUCE: i16 = 0;
/// The key of Fetch.
pub const FETCH: i16 = 1;
/// The key of ListOffsets.
pub const LIST_OFFSETS: i16 = 2;
/// The key of Metadata.
pub const METADATA: i16 = 3;
/// The key of OffsetCommit.
pub const OFFSET_COMMIT: i16 = 8;
/// The key of OffsetFetch.
pub const OFFSET_FETCH: i16 = 9;
/// The key of FindCoordinator.
pub const FIND_COORDINATOR: i16 = 10;
/// The key of JoinGroup.
pub const JOIN_GROUP: i16 = 11;
/// The key of Heartbeat.
pub const HEARTBEAT: i16 = 12;
/// The key of LeaveGroup.
pub const LEAVE_GROUP: i16 = 13;
/// The key of SyncGroup.
pub const SYNC_GROUP: i16 = 14;
/// The key of SaslHandshake.
pub const SASL_HANDSHAKE: i16 = 17;
/// The key of ApiVersions.
pub const API_VERSIONS: i16 = 18;
/// The key of InitProducerId.
pub const INIT_PRODUCER_ID: i16 = 22;
/// The key of OffsetForLeaderEpoch.
pub const OFFSET_FOR_LEADER_EPOCH: i16 = 23;
/// The key of SaslAuthenticate.
pub const SASL_AUTHENTICATE: i16 = 36;
/// The key of ConsumerGroupHeartbeat.
pub const CONSUMER_GROUP_HEARTBEAT: i16 = 68;

/// Bytes of API key, version and correlation id.
pub(super) const HEAD_BYTES: usize = 8;
/// The version of the request header with tagged fields; its bodies have them, too.
const FLEXIBLE_HEADER: i16 = 2;

/// A request that can be read.
pub(super) trait Asked: Decodable + HeaderVersion {
    /// Its fields.
    const TABLE: Struct;
}

/// The body of a whole request; `None` if it is not what its API and version say.
pub(super) fn body<R: Asked>(frame: &Bytes, version: i16) -> Option<R> {
    let flexible = R::header_version(version) >= FLEXIBLE_HEADER;
    let mut rest = frame.get(HEAD_BYTES..)?;
    // The client id: in flexible versions, too, its length is not compact. Null is −1.
    let length = usize::try_from(rest.try_get_i16().ok()?).unwrap_or(0);
    rest = rest.get(length..)?;
    if flexible {
        rest = shape::skip_tagged_fields(rest).ok()?;
    }
    shape::check(rest, &R::TABLE, Dialect { version, flexible }).ok()?;
    let mut body = frame.slice_ref(rest);
    let asked = R::decode(&mut body, version).ok()?;
    body.is_empty().then_some(asked)
}

/// A field that went with version `most`.
pub(super) const fn until(most: i16, kind: shape::FieldKind) -> Field {
    Field { least: 0, most, kind }
}

pub(super) const fn plain(fields: &'static [Field], memory: usize) -> Struct {
    Struct { fields, tagged: &[], memory }
}

impl Asked for ApiVersionsRequest {
    const TABLE: Struct = plain(&[since(3, Text), since(3, Text)], 0);
}

impl Asked for MetadataRequest {
    const TABLE: Struct = plain(
        &[
            always(List(&plain(
                &[since(10, Fixed(16)), always(Text)],
                size_of::<MetadataRequestTopic>(),
            ))),
            since(4, Fixed(1)),
            Field { least: 8, most: 10, kind: Fixed(1) },
            since(8, Fixed(1)),
        ],
        0,
    );
}

impl Asked for InitProducerIdRequest {
    const TABLE: Struct =
        plain(&[always(Text), always(Fixed(4)), since(3, Fixed(8)), since(3, Fixed(2))], 0);
}

impl Asked for SaslHandshakeRequest {
    const TABLE: Struct = plain(&[always(Text)], 0);
}

impl Asked for SaslAuthenticateRequest {
    const TABLE: Struct = plain(&[always(Blob)], 0);
}

impl Asked for ProduceRequest {
    const TABLE: Struct = plain(
        &[since(3, Text), always(Fixed(2)), always(Fixed(4)), always(List(&PRODUCE_TOPIC))],
        0,
    );
}

const PRODUCE_TOPIC: Struct = plain(
    &[until(12, Text), since(13, Fixed(16)), always(List(&PRODUCE_PARTITION))],
    size_of::<TopicProduceData>(),
);
const PRODUCE_PARTITION: Struct =
    plain(&[always(Fixed(4)), always(Blob)], size_of::<PartitionProduceData>());

impl Asked for ListOffsetsRequest {
    const TABLE: Struct = plain(
        &[
            always(Fixed(4)),
            since(2, Fixed(1)),
            always(List(&LIST_OFFSETS_TOPIC)),
            since(10, Fixed(4)),
        ],
        0,
    );
}

const LIST_OFFSETS_TOPIC: Struct =
    plain(&[always(Text), always(List(&LIST_OFFSETS_PARTITION))], size_of::<ListOffsetsTopic>());
const LIST_OFFSETS_PARTITION: Struct = plain(
    &[always(Fixed(4)), since(4, Fixed(4)), always(Fixed(8))],
    size_of::<ListOffsetsPartition>(),
);

impl Asked for OffsetForLeaderEpochRequest {
    const TABLE: Struct = plain(&[since(3, Fixed(4)), always(List(&EPOCH_TOPIC))], 0);
}

const EPOCH_TOPIC: Struct =
    plain(&[always(Text), always(List(&EPOCH_PARTITION))], size_of::<OffsetForLeaderTopic>());
const EPOCH_PARTITION: Struct = plain(
    &[always(Fixed(4)), always(Fixed(4)), always(Fixed(4))],
    size_of::<OffsetForLeaderPartition>(),
);

impl Asked for FetchRequest {
    const TABLE: Struct = Struct {
        fields: &[
            until(14, Fixed(4)),
            always(Fixed(4)),
            always(Fixed(4)),
            always(Fixed(4)),
            always(Fixed(1)),
            since(7, Fixed(4)),
            since(7, Fixed(4)),
            always(List(&FETCH_TOPIC)),
            since(7, List(&FORGOTTEN_TOPIC)),
            since(11, Text),
        ],
        tagged: &[(0, Text), (1, One(&REPLICA_STATE))],
        memory: 0,
    };
}

const FETCH_TOPIC: Struct = plain(
    &[until(12, Text), since(13, Fixed(16)), always(List(&FETCH_PARTITION))],
    size_of::<FetchTopic>(),
);
const FETCH_PARTITION: Struct = Struct {
    fields: &[
        always(Fixed(4)),
        since(9, Fixed(4)),
        always(Fixed(8)),
        since(12, Fixed(4)),
        since(5, Fixed(8)),
        always(Fixed(4)),
    ],
    tagged: &[(0, Fixed(16)), (1, Fixed(8))],
    memory: size_of::<FetchPartition>(),
};
const FORGOTTEN_TOPIC: Struct =
    plain(&[until(12, Text), since(13, Fixed(16)), always(Ints)], size_of::<ForgottenTopic>());
const REPLICA_STATE: Struct =
    plain(&[always(Fixed(4)), always(Fixed(8))], size_of::<ReplicaState>());

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
    use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
    use kafka_protocol::messages::leave_group_request::MemberIdentity;
    use kafka_protocol::messages::offset_commit_request::{
        OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    };
    use kafka_protocol::messages::offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    };
    use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
    use kafka_protocol::messages::{
        BrokerId, ConsumerGroupHeartbeatRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest,
        JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest,
        RequestHeader, SyncGroupRequest,
    };
    use kafka_protocol::protocol::{Encodable, Message, StrBytes};

    use super::*;

    fn frame<R: Encodable + HeaderVersion>(request: &R, version: i16) -> Bytes {
        let mut frame = BytesMut::new();
        let header = RequestHeader::default().with_client_id(Some("it".into()));
        header.encode(&mut frame, R::header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        frame.freeze()
    }

    /// Every version that is served comes back as it went, and nothing that is cut off does.
    fn survives<R: Asked + Encodable + Message + PartialEq + std::fmt::Debug>(
        most: i16,
        request: impl Fn(i16) -> R,
    ) {
        for version in R::VERSIONS.min..=most {
            let sent = request(version);
            let whole = frame(&sent, version);
            assert_eq!(body::<R>(&whole, version).as_ref(), Some(&sent), "version {version}");
            for length in 0..whole.len() {
                assert_eq!(body::<R>(&whole.slice(..length), version), None, "{version} {length}");
            }
        }
    }

    fn fetch(version: i16) -> FetchRequest {
        let named = |topic: FetchTopic| match version {
            ..=12 => topic.with_topic(StrBytes::from_static_str("t").into()),
            _ => topic.with_topic_id(uuid::Uuid::from_u128(7)),
        };
        let mut partition = FetchPartition::default().with_fetch_offset(9);
        if version >= 17 {
            partition = partition.with_replica_directory_id(uuid::Uuid::from_u128(8));
        }
        if version >= 18 {
            partition = partition.with_high_watermark(5);
        }
        let topic = named(FetchTopic::default()).with_partitions(vec![partition]);
        let mut request = FetchRequest::default().with_topics(vec![topic]);
        if version >= 7 {
            request.forgotten_topics_data =
                vec![ForgottenTopic::default().with_partitions(vec![3])];
        }
        if version >= 15 {
            let state = ReplicaState::default().with_replica_id(BrokerId(4));
            request = request.with_replica_state(state);
        }
        request
    }

    fn offset_fetch(version: i16) -> OffsetFetchRequest {
        let group = GroupId("g".into());
        if version < 8 {
            let topic = OffsetFetchRequestTopic::default().with_partition_indexes(vec![1]);
            return OffsetFetchRequest::default()
                .with_group_id(group)
                .with_topics(Some(vec![topic]));
        }
        let topic = OffsetFetchRequestTopics::default().with_partition_indexes(vec![1]);
        let group = OffsetFetchRequestGroup::default().with_group_id(group);
        OffsetFetchRequest::default().with_groups(vec![group.with_topics(Some(vec![topic]))])
    }

    #[test]
    fn every_version_is_read_as_it_was_written() {
        survives(18, fetch);
        survives(10, |_| {
            let partitions = vec![ListOffsetsPartition::default().with_timestamp(-2)];
            let topic = ListOffsetsTopic::default().with_partitions(partitions);
            ListOffsetsRequest::default().with_topics(vec![topic])
        });
        survives(4, |_| {
            let partitions = vec![OffsetForLeaderPartition::default().with_leader_epoch(5)];
            let topic = OffsetForLeaderTopic::default().with_partitions(partitions);
            OffsetForLeaderEpochRequest::default()
                .with_replica_id(BrokerId(-2))
                .with_topics(vec![topic])
        });
        survives(12, |_| {
            let records = Some(Bytes::from_static(b"batch"));
            let partition = PartitionProduceData::default().with_records(records);
            let topic = TopicProduceData::default().with_partition_data(vec![partition]);
            ProduceRequest::default().with_topic_data(vec![topic])
        });
        survives(13, |_| {
            let name = Some(StrBytes::from_static_str("t").into());
            let topic = MetadataRequestTopic::default().with_name(name);
            MetadataRequest::default().with_topics(Some(vec![topic]))
        });
        survives(5, |_| InitProducerIdRequest::default());
        survives(4, |version| match version {
            ..=3 => FindCoordinatorRequest::default().with_key("group".into()),
            _ => FindCoordinatorRequest::default().with_coordinator_keys(vec!["group".into()]),
        });
        survives(9, offset_fetch);
        survives(9, |_| {
            let protocol = JoinGroupRequestProtocol::default().with_name("range".into());
            JoinGroupRequest::default().with_protocols(vec![protocol])
        });
        survives(5, |_| {
            let part = SyncGroupRequestAssignment::default().with_member_id("a".into());
            SyncGroupRequest::default().with_assignments(vec![part])
        });
        survives(4, |_| HeartbeatRequest::default().with_generation_id(3));
        survives(5, |version| match version {
            ..=2 => LeaveGroupRequest::default().with_member_id("a".into()),
            _ => LeaveGroupRequest::default().with_members(vec![MemberIdentity::default()]),
        });
        survives(1, |_| {
            let owned = TopicPartitions::default().with_partitions(vec![4]);
            ConsumerGroupHeartbeatRequest::default()
                .with_subscribed_topic_names(Some(vec![StrBytes::from_static_str("t").into()]))
                .with_topic_partitions(Some(vec![owned]))
        });
        survives(9, |_| {
            let partition = OffsetCommitRequestPartition::default().with_committed_offset(5);
            let topic = OffsetCommitRequestTopic::default().with_partitions(vec![partition]);
            OffsetCommitRequest::default()
                .with_group_id(GroupId("g".into()))
                .with_topics(vec![topic])
        });
        survives(2, |_| SaslAuthenticateRequest::default().with_auth_bytes("me".into()));
        survives(1, |_| SaslHandshakeRequest::default().with_mechanism("PLAIN".into()));
        let versions: Vec<_> = (0..=4)
            .map(|v| body::<ApiVersionsRequest>(&frame(&ApiVersionsRequest::default(), v), v))
            .collect();
        assert!(versions.iter().all(Option::is_some));
    }

    #[test]
    fn a_count_beyond_the_bytes_takes_no_memory() {
        let mut frame = BytesMut::new();
        frame.put_bytes(0, HEAD_BYTES);
        frame.put_i16(-1);
        frame.put_i32(i32::MAX);
        assert_eq!(body::<MetadataRequest>(&frame.freeze(), 0), None);
    }
}
