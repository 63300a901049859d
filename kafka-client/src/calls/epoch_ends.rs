//! OffsetForLeaderEpoch: where the records of a leader epoch end in a leader's log (KIP-320).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    BrokerId, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Call, by_topic, pause, take_message};
use crate::frame::FrameWriter;
use crate::limits::TOPIC_NAME_BYTES;
use crate::shape::FieldKind::{Fixed, List, Text};
use crate::shape::{Struct, always};
use crate::versions::{Api, OFFSET_FOR_LEADER_EPOCH};

/// Tell me where these epochs end.
#[derive(Debug, Default)]
pub(crate) struct AskEpochEnds {
    pub(crate) partitions: Vec<EpochAsked>,
}

/// An epoch of one partition.
#[derive(Debug)]
pub(crate) struct EpochAsked {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// The leader epoch that we know of; −1 if none.
    pub(crate) leader_epoch: i32,
    pub(crate) epoch: i32,
}

/// The answer for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EpochEndFound {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) code: i16,
    pub(crate) end: EpochEnd,
}

/// The largest epoch in the leader's log that is not above the one asked for, and the offset behind
/// its last record. Both are −1 if the leader knows of no such epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EpochEnd {
    pub(crate) epoch: i32,
    pub(crate) offset: i64,
}

/// Each has its topic's name, which is copied.
const PARTITION: Struct = Struct {
    fields: &[always(Fixed(2)), always(Fixed(4)), always(Fixed(4)), always(Fixed(8))],
    tagged: &[],
    memory: size_of::<EpochEndOffset>() + size_of::<EpochEndFound>() + TOPIC_NAME_BYTES,
};
const TOPIC: Struct = Struct {
    fields: &[always(Text), always(List(&PARTITION))],
    tagged: &[],
    memory: size_of::<OffsetForLeaderTopicResult>(),
};
const ANSWER: Struct =
    Struct { fields: &[always(Fixed(4)), always(List(&TOPIC))], tagged: &[], memory: 0 };

impl Call for AskEpochEnds {
    type Answer = Vec<EpochEndFound>;
    const API: &'static Api = &OFFSET_FOR_LEADER_EPOCH;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let partitions = self.partitions.iter().map(|asked| {
            let partition = OffsetForLeaderPartition::default()
                .with_partition(asked.partition)
                .with_current_leader_epoch(asked.leader_epoch)
                .with_leader_epoch(asked.epoch);
            (&*asked.topic, partition)
        });
        let topics = by_topic(partitions).into_iter().map(|(name, partitions)| {
            let name = TopicName(StrBytes::from_string(name.to_owned()));
            OffsetForLeaderTopic::default().with_topic(name).with_partitions(partitions)
        });
        OffsetForLeaderEpochRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(topics.collect())
            .encode(frame.tail(), version)
            .map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(Self::Answer, Duration), String> {
        let message: OffsetForLeaderEpochResponse =
            take_message(Self::API, version, &mut body, &ANSWER)?;
        let count = message.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut found = Vec::with_capacity(count);
        for topic in &message.topics {
            if topic.topic.len() > TOPIC_NAME_BYTES {
                return Err(format!("a topic's name of {} bytes", topic.topic.len()));
            }
            found.extend(topic.partitions.iter().map(|partition| EpochEndFound {
                topic: topic.topic.to_string(),
                partition: partition.partition,
                code: partition.error_code,
                end: EpochEnd { epoch: partition.leader_epoch, offset: partition.end_offset },
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
        let partition =
            EpochEndOffset::default().with_partition(3).with_leader_epoch(7).with_end_offset(42);
        let name = TopicName(StrBytes::from_static_str("orders"));
        let topic =
            OffsetForLeaderTopicResult::default().with_topic(name).with_partitions(vec![partition]);
        let response = OffsetForLeaderEpochResponse::default().with_topics(vec![topic]);
        answered(&OFFSET_FOR_LEADER_EPOCH, version, &response)
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        let topic = "orders".into();
        let asked = EpochAsked { topic, partition: 3, leader_epoch: 9, epoch: 8 };
        let call = AskEpochEnds { partitions: vec![asked] };
        for version in OFFSET_FOR_LEADER_EPOCH.least..=OFFSET_FOR_LEADER_EPOCH.most {
            assert!(encode(&call, version, 1, "me").is_ok(), "v{version}");
            let (got, _) = decode(&call, version, answer(version)).unwrap();
            let (topic, end) = ("orders".to_owned(), EpochEnd { epoch: 7, offset: 42 });
            assert_eq!(got, [EpochEndFound { topic, partition: 3, code: 0, end }]);
        }
    }

    #[test]
    fn no_cut_or_changed_byte_panics() {
        for version in [3, 4] {
            let whole = answer(version);
            for at in 0..whole.len() {
                assert!(decode(&AskEpochEnds::default(), version, whole.slice(..at)).is_err());
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = whole.to_vec();
                    bytes[at] = byte;
                    let _ = decode(&AskEpochEnds::default(), version, bytes.into());
                }
            }
        }
    }
}
