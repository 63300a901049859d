//! OffsetFetch: what a group has committed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Call, by_topic, pause, take_message};
use crate::frame::FrameWriter;
use crate::limits::TOPIC_NAME_BYTES;
use crate::shape::FieldKind::{Fixed, List, Text};
use crate::shape::{Field, FieldKind, Struct, always, since};
use crate::versions::{Api, OFFSET_FETCH};

/// What has this group committed of these partitions? Transactions that may still commit some are
/// waited for, where the broker can (KIP-447).
#[derive(Debug, Default)]
pub(crate) struct FetchOffsets {
    pub(crate) group: Arc<str>,
    pub(crate) partitions: Vec<(Arc<str>, i32)>,
}

/// The answer for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetStored {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) code: i16,
    /// −1 if none is committed.
    pub(crate) offset: i64,
    /// −1 if none was given, and before version 5.
    pub(crate) epoch: i32,
    pub(crate) metadata: String,
}

/// The first version that asks about several groups at a time (KIP-709).
const BATCHED_FROM: i16 = 8;
/// The first version that can wait for transactions (KIP-447).
const STABLE_FROM: i16 = 7;

const fn single(kind: FieldKind) -> Field {
    Field { least: 0, most: BATCHED_FROM - 1, kind }
}

/// Each has its topic's name, which is copied.
const PARTITION: Struct = Struct {
    fields: &[
        always(Fixed(4)),
        always(Fixed(8)),
        since(5, Fixed(4)),
        always(Text),
        always(Fixed(2)),
    ],
    tagged: &[],
    memory: size_of::<OffsetFetchResponsePartition>()
        + size_of::<OffsetStored>()
        + TOPIC_NAME_BYTES,
};
const TOPIC: Struct = Struct {
    fields: &[always(Text), always(List(&PARTITION))],
    tagged: &[],
    memory: size_of::<OffsetFetchResponseTopic>(),
};
const GROUP: Struct = Struct {
    fields: &[always(Text), always(List(&TOPIC)), always(Fixed(2))],
    tagged: &[],
    memory: size_of::<OffsetFetchResponseGroup>(),
};
const ANSWER: Struct = Struct {
    fields: &[
        since(3, Fixed(4)),
        single(List(&TOPIC)),
        Field { least: 2, most: BATCHED_FROM - 1, kind: Fixed(2) },
        since(BATCHED_FROM, List(&GROUP)),
    ],
    tagged: &[],
    memory: 0,
};

// One table is for both: those of several groups must be no larger.
const _: () = assert!(
    size_of::<OffsetFetchResponsePartitions>() <= size_of::<OffsetFetchResponsePartition>()
        && size_of::<OffsetFetchResponseTopics>()
            <= size_of::<OffsetFetchResponseTopic>() + TOPIC_NAME_BYTES
);

impl Call for FetchOffsets {
    /// Of each partition, or the code of a refusal.
    type Answer = Result<Vec<OffsetStored>, i16>;
    const API: &'static Api = &OFFSET_FETCH;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let group = GroupId(StrBytes::from_string(self.group.to_string()));
        let partitions = self.partitions.iter().map(|(topic, partition)| (&**topic, *partition));
        let topics = by_topic(partitions).into_iter();
        let name = |name: &str| TopicName(StrBytes::from_string(name.to_owned()));
        let request = OffsetFetchRequest::default().with_require_stable(version >= STABLE_FROM);
        let request = if version >= BATCHED_FROM {
            let topics = topics.map(|(topic, indexes)| {
                let topic = OffsetFetchRequestTopics::default().with_name(name(topic));
                topic.with_partition_indexes(indexes)
            });
            let group = OffsetFetchRequestGroup::default().with_group_id(group);
            request.with_groups(vec![group.with_topics(Some(topics.collect()))])
        } else {
            let topics = topics.map(|(topic, indexes)| {
                let topic = OffsetFetchRequestTopic::default().with_name(name(topic));
                topic.with_partition_indexes(indexes)
            });
            request.with_group_id(group).with_topics(Some(topics.collect()))
        };
        request.encode(frame.tail(), version).map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(Self::Answer, Duration), String> {
        let message: OffsetFetchResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        let wait = pause(message.throttle_time_ms);
        if version < BATCHED_FROM {
            let count = message.topics.iter().map(|topic| topic.partitions.len()).sum();
            let mut found = Vec::with_capacity(count);
            for topic in message.topics {
                let partitions = topic.partitions.into_iter().map(|it| {
                    let index = it.partition_index;
                    let (at, epoch) = (it.committed_offset, it.committed_leader_epoch);
                    (index, it.error_code, at, epoch, it.metadata)
                });
                add(&mut found, &topic.name, partitions)?;
            }
            let code = message.error_code;
            return Ok((if code == 0 { Ok(found) } else { Err(code) }, wait));
        }
        let group = message.groups.into_iter().next();
        let group = group.filter(|group| *group.group_id.0 == *self.group);
        let group = group.ok_or("the group is not in the answer")?;
        let count = group.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut found = Vec::with_capacity(count);
        for topic in group.topics {
            let partitions = topic.partitions.into_iter().map(|it| {
                let index = it.partition_index;
                let (at, epoch) = (it.committed_offset, it.committed_leader_epoch);
                (index, it.error_code, at, epoch, it.metadata)
            });
            add(&mut found, &topic.name, partitions)?;
        }
        Ok((if group.error_code == 0 { Ok(found) } else { Err(group.error_code) }, wait))
    }
}

/// Partition, code, offset, leader epoch and metadata.
type Stored = (i32, i16, i64, i32, Option<StrBytes>);

fn add(
    found: &mut Vec<OffsetStored>,
    topic: &TopicName,
    partitions: impl Iterator<Item = Stored>,
) -> Result<(), String> {
    if topic.len() > TOPIC_NAME_BYTES {
        return Err(format!("a topic's name of {} bytes", topic.len()));
    }
    found.extend(partitions.map(|(partition, code, offset, epoch, metadata)| OffsetStored {
        topic: topic.to_string(),
        partition,
        code,
        offset,
        epoch,
        metadata: metadata.unwrap_or_default().to_string(),
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{answered, decode, encode};

    fn call() -> FetchOffsets {
        FetchOffsets { group: "readers".into(), partitions: vec![("orders".into(), 3)] }
    }

    fn answer(version: i16, code: i16) -> Bytes {
        let name = TopicName("orders".into());
        let epoch = if version >= 5 { 7 } else { -1 };
        let response = OffsetFetchResponse::default();
        let response = if version < BATCHED_FROM {
            let partition = OffsetFetchResponsePartition::default()
                .with_partition_index(3)
                .with_committed_offset(42)
                .with_committed_leader_epoch(epoch)
                .with_metadata(Some("m".into()));
            let topic = OffsetFetchResponseTopic::default().with_name(name);
            let response = response.with_topics(vec![topic.with_partitions(vec![partition])]);
            if version >= 2 { response.with_error_code(code) } else { response }
        } else {
            let partition = OffsetFetchResponsePartitions::default()
                .with_partition_index(3)
                .with_committed_offset(42)
                .with_committed_leader_epoch(epoch)
                .with_metadata(Some("m".into()));
            let topic = OffsetFetchResponseTopics::default().with_name(name);
            let group = OffsetFetchResponseGroup::default()
                .with_group_id(GroupId("readers".into()))
                .with_error_code(code)
                .with_topics(vec![topic.with_partitions(vec![partition])]);
            response.with_groups(vec![group])
        };
        answered(&OFFSET_FETCH, version, &response)
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        for version in OFFSET_FETCH.least..=OFFSET_FETCH.most {
            assert!(encode(&call(), version, 1, "me").is_ok(), "v{version}");
            let (got, _) = decode(&call(), version, answer(version, 0)).unwrap();
            let (topic, metadata) = ("orders".to_owned(), "m".to_owned());
            let epoch = if version >= 5 { 7 } else { -1 };
            let stored = OffsetStored { topic, partition: 3, code: 0, offset: 42, epoch, metadata };
            assert_eq!(got, Ok(vec![stored]), "v{version}");
            if version >= 2 {
                assert_eq!(decode(&call(), version, answer(version, 16)).unwrap().0, Err(16));
            }
        }
    }

    #[test]
    fn no_cut_or_changed_byte_panics() {
        for version in [1, 5, 7, 8, 9] {
            let whole = answer(version, 0);
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
