//! The tables of what clients of groups ask: see [`requests`](super::requests).

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
    ConsumerGroupHeartbeatRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};

use super::requests::{Asked, plain, until};
use crate::shape::FieldKind::{Blob, Fixed, Ints, List, Text, Texts};
use crate::shape::{Field, Struct, always, since};

impl Asked for FindCoordinatorRequest {
    const TABLE: Struct = plain(&[until(3, Text), since(1, Fixed(1)), since(4, Texts)], 0);
}

impl Asked for OffsetFetchRequest {
    const TABLE: Struct = plain(
        &[
            until(7, Text),
            until(7, List(&FETCHED_TOPIC)),
            since(8, List(&FETCHED_GROUP)),
            since(7, Fixed(1)),
        ],
        0,
    );
}

const FETCHED_TOPIC: Struct = plain(
    &[always(Text), always(Ints)],
    if size_of::<OffsetFetchRequestTopics>() > size_of::<OffsetFetchRequestTopic>() {
        size_of::<OffsetFetchRequestTopics>()
    } else {
        size_of::<OffsetFetchRequestTopic>()
    },
);
const FETCHED_GROUP: Struct = plain(
    &[always(Text), since(9, Text), since(9, Fixed(4)), always(List(&FETCHED_TOPIC))],
    size_of::<OffsetFetchRequestGroup>(),
);

impl Asked for OffsetCommitRequest {
    const TABLE: Struct = plain(
        &[
            always(Text),
            always(Fixed(4)),
            always(Text),
            since(7, Text),
            Field { least: 2, most: 4, kind: Fixed(8) },
            always(List(&COMMITTED_TOPIC)),
        ],
        0,
    );
}

const COMMITTED_TOPIC: Struct =
    plain(&[always(Text), always(List(&COMMITTED))], size_of::<OffsetCommitRequestTopic>());
const COMMITTED: Struct = plain(
    &[always(Fixed(4)), always(Fixed(8)), since(6, Fixed(4)), always(Text)],
    size_of::<OffsetCommitRequestPartition>(),
);

impl Asked for JoinGroupRequest {
    const TABLE: Struct = plain(
        &[
            always(Text),
            always(Fixed(4)),
            since(1, Fixed(4)),
            always(Text),
            since(5, Text),
            always(Text),
            always(List(&PROTOCOL)),
            since(8, Text),
        ],
        0,
    );
}

const PROTOCOL: Struct =
    plain(&[always(Text), always(Blob)], size_of::<JoinGroupRequestProtocol>());

impl Asked for SyncGroupRequest {
    const TABLE: Struct = plain(
        &[
            always(Text),
            always(Fixed(4)),
            always(Text),
            since(3, Text),
            since(5, Text),
            since(5, Text),
            always(List(&PART)),
        ],
        0,
    );
}

const PART: Struct = plain(&[always(Text), always(Blob)], size_of::<SyncGroupRequestAssignment>());

impl Asked for HeartbeatRequest {
    const TABLE: Struct = plain(&[always(Text), always(Fixed(4)), always(Text), since(3, Text)], 0);
}

impl Asked for LeaveGroupRequest {
    const TABLE: Struct = plain(&[always(Text), until(2, Text), since(3, List(&LEAVING))], 0);
}

const LEAVING: Struct =
    plain(&[always(Text), always(Text), since(5, Text)], size_of::<MemberIdentity>());

impl Asked for ConsumerGroupHeartbeatRequest {
    const TABLE: Struct = plain(
        &[
            always(Text),
            always(Text),
            always(Fixed(4)),
            always(Text),
            always(Text),
            always(Fixed(4)),
            always(Texts),
            since(1, Text),
            always(Text),
            always(List(&OWNED)),
        ],
        0,
    );
}

const OWNED: Struct = plain(&[always(Fixed(16)), always(Ints)], size_of::<TopicPartitions>());
