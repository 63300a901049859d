//! ListOffsets: where the logs of partitions begin and end, and what was first at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Call, by_topic, pause, take_message};
use crate::frame::FrameWriter;
use crate::shape::FieldKind::{Fixed, List, Text};
use crate::shape::{Struct, always, since};
use crate::versions::{Api, LIST_OFFSETS};

/// Tell me offsets of these partitions.
#[derive(Debug, Default)]
pub(crate) struct ListOffsets {
    /// As on the wire: 1 is read_committed.
    pub(crate) isolation: i8,
    pub(crate) partitions: Vec<OffsetAsked>,
}

/// What is asked of one partition.
#[derive(Debug)]
pub(crate) struct OffsetAsked {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// The leader epoch that we know of; −1 if none.
    pub(crate) epoch: i32,
    /// A time, ms, or one of [`EARLIEST`] and [`LATEST`].
    pub(crate) timestamp: i64,
}

/// In place of a timestamp: the log end, which is the last stable offset under read_committed.
pub(crate) const LATEST: i64 = -1;
/// In place of a timestamp: the log start.
pub(crate) const EARLIEST: i64 = -2;

/// The answer for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetFound {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) code: i16,
    /// −1 if no record is of the time or later.
    pub(crate) offset: i64,
    /// The leader epoch of the record there, or of whoever leads now; −1 before version 4.
    pub(crate) epoch: i32,
}

/// The first version with leader epochs.
const EPOCHS_FROM: i16 = 4;

/// Each has its topic's name, which is copied.
const PARTITION: Struct = Struct {
    fields: &[
        always(Fixed(4)),
        always(Fixed(2)),
        always(Fixed(8)),
        always(Fixed(8)),
        since(EPOCHS_FROM, Fixed(4)),
    ],
    tagged: &[],
    memory: size_of::<ListOffsetsPartitionResponse>() + size_of::<OffsetFound>() + NAME_BYTES,
};
const TOPIC: Struct = Struct {
    fields: &[always(Text), always(List(&PARTITION))],
    tagged: &[],
    memory: size_of::<ListOffsetsTopicResponse>(),
};
const ANSWER: Struct =
    Struct { fields: &[always(Fixed(4)), always(List(&TOPIC))], tagged: &[], memory: 0 };

/// Longest name that is copied for each partition, bytes; an answer with a longer one is refused.
const NAME_BYTES: usize = crate::limits::TOPIC_NAME_BYTES;

impl Call for ListOffsets {
    type Answer = Vec<OffsetFound>;
    const API: &'static Api = &LIST_OFFSETS;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let partitions = self.partitions.iter().map(|asked| {
            let epoch = if version >= EPOCHS_FROM { asked.epoch } else { -1 };
            let partition = ListOffsetsPartition::default()
                .with_partition_index(asked.partition)
                .with_current_leader_epoch(epoch)
                .with_timestamp(asked.timestamp);
            (&*asked.topic, partition)
        });
        let topics = by_topic(partitions).into_iter().map(|(name, partitions)| {
            let name = TopicName(StrBytes::from_string(name.to_owned()));
            ListOffsetsTopic::default().with_name(name).with_partitions(partitions)
        });
        ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(self.isolation)
            .with_topics(topics.collect())
            .encode(frame.tail(), version)
            .map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(Self::Answer, Duration), String> {
        let message: ListOffsetsResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        let count = message.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut found = Vec::with_capacity(count);
        for topic in &message.topics {
            if topic.name.len() > NAME_BYTES {
                return Err(format!("a topic's name of {} bytes", topic.name.len()));
            }
            found.extend(topic.partitions.iter().map(|partition| OffsetFound {
                topic: topic.name.to_string(),
                partition: partition.partition_index,
                code: partition.error_code,
                offset: partition.offset,
                epoch: partition.leader_epoch,
            }));
        }
        Ok((found, pause(message.throttle_time_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::answered;
    use crate::calls::{decode, encode};

    fn answer(version: i16) -> Bytes {
        let partition = ListOffsetsPartitionResponse::default()
            .with_partition_index(3)
            .with_offset(42)
            .with_leader_epoch(if version >= EPOCHS_FROM { 7 } else { -1 });
        let name = TopicName(StrBytes::from_static_str("orders"));
        let topic =
            ListOffsetsTopicResponse::default().with_name(name).with_partitions(vec![partition]);
        let response = ListOffsetsResponse::default().with_topics(vec![topic]);
        answered(&LIST_OFFSETS, version, &response)
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        let topic = "orders".into();
        let asked = OffsetAsked { topic, partition: 3, epoch: 7, timestamp: LATEST };
        let call = ListOffsets { isolation: 1, partitions: vec![asked] };
        for version in LIST_OFFSETS.least..=LIST_OFFSETS.most {
            assert!(encode(&call, version, 1, "me").is_ok(), "v{version}");
            let (got, _) = decode(&call, version, answer(version)).unwrap();
            let topic = "orders".to_owned();
            let epoch = if version >= EPOCHS_FROM { 7 } else { -1 };
            assert_eq!(got, [OffsetFound { topic, partition: 3, code: 0, offset: 42, epoch }]);
        }
    }

    #[test]
    fn no_cut_or_changed_byte_panics() {
        for version in [2, 4, 6, 7] {
            let whole = answer(version);
            for at in 0..whole.len() {
                assert!(decode(&ListOffsets::default(), version, whole.slice(..at)).is_err());
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = whole.to_vec();
                    bytes[at] = byte;
                    let _ = decode(&ListOffsets::default(), version, bytes.into());
                }
            }
        }
    }
}
