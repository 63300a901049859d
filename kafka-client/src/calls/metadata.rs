//! Metadata: the brokers of a cluster, and who leads the partitions of named topics.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Call, pause, take_message};
use crate::frame::FrameWriter;
use crate::limits::{BROKERS_IN_ANSWER, PARTITIONS_IN_ANSWER, TOPICS_LISTED};
use crate::resolve::{Advertised, Endpoint, HOST_BYTES};
use crate::shape::FieldKind::{Fixed, Ints, List, Text};
use crate::shape::{Field, Struct, always, since};
use crate::versions::{Api, METADATA};

/// Tell me about these topics, and never create one.
#[derive(Debug, Default)]
pub(crate) struct AskMetadata {
    pub(crate) topics: TopicsAsked,
    /// Also what we may do with them (KIP-430), which takes the broker some work.
    pub(crate) asks_operations: bool,
}

/// Which topics an answer is to be about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TopicsAsked {
    /// Every topic that we may see: what many topics take in an answer is bounded by
    /// [`TOPICS_LISTED`].
    All,
    Named(Vec<Arc<str>>),
}

impl Default for TopicsAsked {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

/// What one broker believes about its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MetadataAnswer {
    pub(crate) code: i16,
    pub(crate) cluster_id: Option<String>,
    pub(crate) brokers: Vec<(i32, Advertised)>,
    pub(crate) topics: Vec<TopicAnswer>,
}

/// One topic in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicAnswer {
    pub(crate) name: String,
    pub(crate) code: i16,
    /// Zero before version 10.
    pub(crate) id: u128,
    /// One of Kafka's own, such as `__consumer_offsets`.
    pub(crate) is_internal: bool,
    pub(crate) partitions: Vec<PartitionAnswer>,
    /// A bit for each operation that we may do; none if that was not asked, or before version 8.
    pub(crate) operations: Option<i32>,
}

/// One partition in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionAnswer {
    pub(crate) index: usize,
    pub(crate) leader: Option<i32>,
    /// −1 before version 7.
    pub(crate) epoch: i32,
}

const BROKER: Struct = Struct {
    fields: &[always(Fixed(4)), always(Text), always(Fixed(4)), since(1, Text)],
    tagged: &[],
    memory: size_of::<MetadataResponseBroker>() + size_of::<(i32, Advertised)>() + HOST_BYTES,
};
const PARTITION: Struct = Struct {
    fields: &[
        always(Fixed(2)),
        always(Fixed(4)),
        always(Fixed(4)),
        since(7, Fixed(4)),
        always(Ints),
        always(Ints),
        since(5, Ints),
    ],
    tagged: &[],
    memory: size_of::<MetadataResponsePartition>() + size_of::<PartitionAnswer>(),
};
const TOPIC: Struct = Struct {
    fields: &[
        always(Fixed(2)),
        always(Text),
        since(10, Fixed(16)),
        since(1, Fixed(1)),
        always(List(&PARTITION)),
        since(8, Fixed(4)),
    ],
    tagged: &[],
    memory: size_of::<MetadataResponseTopic>() + size_of::<TopicAnswer>(),
};
const ANSWER: Struct = Struct {
    fields: &[
        since(3, Fixed(4)),
        always(List(&BROKER)),
        since(2, Text),
        since(1, Fixed(4)),
        always(List(&TOPIC)),
        Field { least: 8, most: 10, kind: Fixed(4) },
        since(13, Fixed(2)),
    ],
    tagged: &[],
    memory: 0,
};

impl Call for AskMetadata {
    type Answer = MetadataAnswer;
    const API: &'static Api = &METADATA;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let topic = |name: &Arc<str>| {
            let name = TopicName(StrBytes::from_string(name.as_ref().to_owned()));
            MetadataRequestTopic::default().with_name(Some(name))
        };
        // Null is all topics from version 1 on; an empty list is none.
        let topics = match &self.topics {
            TopicsAsked::All => None,
            TopicsAsked::Named(names) => Some(names.iter().map(topic).collect()),
        };
        MetadataRequest::default()
            .with_topics(topics)
            .with_allow_auto_topic_creation(false)
            .with_include_topic_authorized_operations(self.asks_operations && version >= 8)
            .encode(frame.tail(), version)
            .map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(MetadataAnswer, Duration), String> {
        let message: MetadataResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        if message.brokers.len() > BROKERS_IN_ANSWER {
            return Err(format!("{} brokers", message.brokers.len()));
        }
        if self.topics == TopicsAsked::All && message.topics.len() > TOPICS_LISTED {
            return Err(format!(
                "{} topics, over the limit of {TOPICS_LISTED}",
                message.topics.len()
            ));
        }
        let brokers = message.brokers.iter();
        let brokers = brokers
            .map(|broker| (broker.node_id.0, Endpoint::advertised(&broker.host, broker.port)))
            .collect();
        let mut room = PARTITIONS_IN_ANSWER;
        let mut topics = Vec::with_capacity(message.topics.len());
        for topic in &message.topics {
            topics.push(checked(topic, &mut room)?);
        }
        let answer = MetadataAnswer {
            code: message.error_code,
            cluster_id: message.cluster_id.as_ref().map(ToString::to_string),
            brokers,
            topics,
        };
        Ok((answer, pause(message.throttle_time_ms)))
    }
}

/// `room` bounds the partitions of a whole answer. The highest index counts, because it decides
/// how much memory a topic takes.
fn checked(topic: &MetadataResponseTopic, room: &mut usize) -> Result<TopicAnswer, String> {
    let name = topic.name.as_ref().ok_or("a topic without a name")?.to_string();
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    let mut width = topic.partitions.len();
    for partition in &topic.partitions {
        let index = usize::try_from(partition.partition_index)
            .map_err(|_| format!("partition {}", partition.partition_index))?;
        width = width.max(index.saturating_add(1));
        partitions.push(PartitionAnswer {
            index,
            leader: Some(partition.leader_id.0).filter(|leader| *leader >= 0),
            epoch: partition.leader_epoch,
        });
    }
    *room = room.checked_sub(width).ok_or("too many partitions")?;
    let operations = topic.topic_authorized_operations;
    Ok(TopicAnswer {
        name,
        code: topic.error_code,
        id: topic.topic_id.as_u128(),
        is_internal: topic.is_internal,
        partitions,
        operations: Some(operations).filter(|bits| *bits != i32::MIN),
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::BrokerId;

    use super::*;
    use crate::calls::answered;
    use crate::calls::{decode, encode};

    fn answer(version: i16, index: i32) -> Bytes {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_static_str("::1"))
            .with_port(9092);
        let partition = MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(1))
            .with_replica_nodes(vec![BrokerId(1), BrokerId(2)]);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("orders"))))
            .with_partitions(vec![partition]);
        let response =
            MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic]);
        answered(&METADATA, version, &response)
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        for version in METADATA.least..=METADATA.most {
            for asks_operations in [false, true] {
                for topics in [TopicsAsked::All, TopicsAsked::Named(vec!["orders".into()])] {
                    let call = AskMetadata { topics, asks_operations };
                    assert!(encode(&call, version, 1, "me").is_ok());
                }
            }
            let (got, _) = decode(&AskMetadata::default(), version, answer(version, 0)).unwrap();
            assert_eq!(got.brokers[0].1.as_ref().unwrap().to_string(), "[::1]:9092");
            assert_eq!(got.topics[0].partitions[0].leader, Some(1), "v{version}");
        }
    }

    #[test]
    fn no_topics_are_an_empty_list_not_all_topics() {
        let frame = encode(&AskMetadata::default(), 4, 1, "").unwrap();
        let mut slices = [std::io::IoSlice::new(&[]); 2];
        frame.fill(&mut slices);
        assert!(slices[1].ends_with(&[0, 0, 0, 0, 0]));
    }

    #[test]
    fn an_answer_about_all_topics_is_bounded() {
        let topic = |n| {
            let name = TopicName(StrBytes::from_string(format!("t{n}")));
            MetadataResponseTopic::default().with_name(Some(name))
        };
        let bytes = |topics| {
            let topics = (0..topics).map(topic).collect();
            answered(&METADATA, 4, &MetadataResponse::default().with_topics(topics))
        };
        let all = AskMetadata { topics: TopicsAsked::All, asks_operations: false };
        assert!(decode(&all, 4, bytes(TOPICS_LISTED)).is_ok());
        let error = decode(&all, 4, bytes(TOPICS_LISTED + 1)).unwrap_err();
        assert!(error.to_string().contains("over the limit"), "{error}");
    }

    #[test]
    fn a_huge_or_negative_partition_index_is_an_error() {
        for index in [i32::MAX, 200_000, -1] {
            assert!(decode(&AskMetadata::default(), 9, answer(9, index)).is_err(), "{index}");
        }
    }

    #[test]
    fn no_cut_or_changed_byte_panics() {
        for version in [4, 8, 9, 13] {
            let whole = answer(version, 0);
            for at in 0..whole.len() {
                assert!(decode(&AskMetadata::default(), version, whole.slice(..at)).is_err());
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = whole.to_vec();
                    bytes[at] = byte;
                    let _ = decode(&AskMetadata::default(), version, bytes.into());
                }
            }
        }
    }
}
