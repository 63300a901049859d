//! OffsetCommit: where a group is in its partitions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetCommitResponse, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Call, Identity, by_topic, pause, take_message};
use crate::frame::FrameWriter;
use crate::limits::TOPIC_NAME_BYTES;
use crate::shape::FieldKind::{Fixed, List, Text};
use crate::shape::{Struct, always, since};
use crate::versions::{Api, OFFSET_COMMIT};

/// Keep these offsets for the group.
#[derive(Debug, Default)]
pub(crate) struct CommitOffsets {
    pub(crate) group: Arc<str>,
    pub(crate) identity: Identity,
    pub(crate) offsets: Vec<OffsetGiven>,
}

/// An offset to keep.
#[derive(Debug, Clone)]
pub(crate) struct OffsetGiven {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// −1 if none is known.
    pub(crate) epoch: i32,
    pub(crate) metadata: String,
}

/// Topic, partition and code.
pub(crate) type OffsetKept = (String, i32, i16);

/// The first version with leader epochs.
const EPOCHS_FROM: i16 = 6;
/// The first version with static members (KIP-345).
const INSTANCES_FROM: i16 = 7;

/// Each has its topic's name, which is copied.
const PARTITION: Struct = Struct {
    fields: &[always(Fixed(4)), always(Fixed(2))],
    tagged: &[],
    memory: size_of::<OffsetCommitResponsePartition>() + size_of::<OffsetKept>() + TOPIC_NAME_BYTES,
};
const TOPIC: Struct = Struct {
    fields: &[always(Text), always(List(&PARTITION))],
    tagged: &[],
    memory: size_of::<OffsetCommitResponseTopic>(),
};
const ANSWER: Struct =
    Struct { fields: &[since(3, Fixed(4)), always(List(&TOPIC))], tagged: &[], memory: 0 };

impl Call for CommitOffsets {
    type Answer = Vec<OffsetKept>;
    const API: &'static Api = &OFFSET_COMMIT;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let partitions = self.offsets.iter().map(|given| {
            let epoch = if version >= EPOCHS_FROM { given.epoch } else { -1 };
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(given.partition)
                .with_committed_offset(given.offset)
                .with_committed_leader_epoch(epoch)
                .with_committed_metadata(Some(StrBytes::from_string(given.metadata.clone())));
            (&*given.topic, partition)
        });
        let topics = by_topic(partitions).into_iter().map(|(name, partitions)| {
            let name = TopicName(StrBytes::from_string(name.to_owned()));
            OffsetCommitRequestTopic::default().with_name(name).with_partitions(partitions)
        });
        let Identity { member, generation, instance } = &self.identity;
        let instance = instance.as_deref().filter(|_| version >= INSTANCES_FROM);
        OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(self.group.to_string())))
            .with_member_id(StrBytes::from_string(member.to_string()))
            .with_generation_id_or_member_epoch(*generation)
            .with_group_instance_id(instance.map(|it| StrBytes::from_string(it.to_owned())))
            .with_topics(topics.collect())
            .encode(frame.tail(), version)
            .map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(Self::Answer, Duration), String> {
        let message: OffsetCommitResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        let count = message.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut kept = Vec::with_capacity(count);
        for topic in &message.topics {
            if topic.name.len() > TOPIC_NAME_BYTES {
                return Err(format!("a topic's name of {} bytes", topic.name.len()));
            }
            let partitions = topic.partitions.iter();
            kept.extend(
                partitions.map(|it| (topic.name.to_string(), it.partition_index, it.error_code)),
            );
        }
        Ok((kept, pause(message.throttle_time_ms)))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Decodable;

    use super::*;
    use crate::calls::{answered, decode, encode};

    fn call() -> CommitOffsets {
        let (topic, metadata) = ("orders".into(), "m".to_owned());
        let given = OffsetGiven { topic, partition: 3, offset: 42, epoch: 7, metadata };
        let identity = Identity { member: "a".into(), generation: 5, instance: Some("i".into()) };
        CommitOffsets { group: "readers".into(), identity, offsets: vec![given] }
    }

    fn answer(version: i16) -> Bytes {
        let partition =
            OffsetCommitResponsePartition::default().with_partition_index(3).with_error_code(25);
        let topic = OffsetCommitResponseTopic::default()
            .with_name(TopicName("orders".into()))
            .with_partitions(vec![partition]);
        let response = OffsetCommitResponse::default().with_topics(vec![topic]);
        answered(&OFFSET_COMMIT, version, &response)
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        for version in OFFSET_COMMIT.least..=OFFSET_COMMIT.most {
            assert!(encode(&call(), version, 1, "me").is_ok(), "v{version}");
            let (got, _) = decode(&call(), version, answer(version)).unwrap();
            assert_eq!(got, [("orders".to_owned(), 3, 25)], "v{version}");
        }
    }

    #[test]
    fn without_a_membership_the_generation_is_minus_one_and_the_member_is_empty() {
        let call = CommitOffsets { identity: Identity::default(), ..call() };
        for version in OFFSET_COMMIT.least..=OFFSET_COMMIT.most {
            let mut frame = FrameWriter::default();
            call.put(version, &mut frame).unwrap();
            let mut body = Bytes::copy_from_slice(&frame.tail()[..]);
            let request = OffsetCommitRequest::decode(&mut body, version).unwrap();
            assert_eq!(request.generation_id_or_member_epoch, -1);
            assert_eq!((&*request.member_id, request.group_instance_id), ("", None));
            assert_eq!(request.retention_time_ms, -1, "as the broker is configured");
        }
    }

    #[test]
    fn no_cut_or_changed_byte_panics() {
        for version in [2, 3, 7, 8, 9] {
            let whole = answer(version);
            for at in 0..whole.len() {
                assert!(decode(&call(), version, whole.slice(..at)).is_err());
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = whole.to_vec();
                    bytes[at] = byte;
                    let _ = decode(&call(), version, bytes.into());
                }
            }
        }
    }
}
