//! Produce: one batch per partition, and what became of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};

use super::{Call, pause, take_message};
use crate::frame::{FrameWriter, put_unsigned};
use crate::resolve::{Endpoint, HOST_BYTES};
use crate::shape::FieldKind::{Fixed, List, One, Text};
use crate::shape::{Struct, always, since};
use crate::versions::{Api, PRODUCE};

/// Append these batches.
#[derive(Default)]
pub(crate) struct Append {
    pub(crate) acks: i16,
    /// How long the broker may wait for replicas.
    pub(crate) timeout: Duration,
    /// Each topic once, each of its partitions once.
    pub(crate) topics: Vec<TopicBatches>,
}

/// One batch for each of some partitions of a topic.
pub(crate) type TopicBatches = (Arc<str>, Vec<(i32, Bytes)>);

/// The answers, to be taken out by topic and partition.
#[derive(Debug, Default)]
pub(crate) struct AppendAnswer {
    pub(crate) partitions: HashMap<String, HashMap<i32, Appended>>,
}

/// What the broker did with one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) code: i16,
    /// −1 if nothing was appended, or nobody knows.
    pub(crate) base_offset: i64,
    /// The time of all its records with `LogAppendTime`.
    pub(crate) log_append_ms: Option<i64>,
    /// Records at fault, by their place in the batch (KIP-467).
    pub(crate) faults: Vec<(i32, String)>,
    /// Where the leader is now (KIP-951).
    pub(crate) leader: Option<LeaderHint>,
}

/// A new leader, told in the refusal of the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaderHint {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    pub(crate) endpoint: Option<Endpoint>,
}

const FAULT: Struct = Struct {
    fields: &[always(Fixed(4)), always(Text)],
    tagged: &[],
    memory: size_of::<BatchIndexAndErrorMessage>() + size_of::<(i32, String)>(),
};
/// Its node's address is copied for each partition.
const LEADER: Struct =
    Struct { fields: &[always(Fixed(4)), always(Fixed(4))], tagged: &[], memory: HOST_BYTES };
/// A table of answers may have more than twice as many places.
const PARTITION: Struct = Struct {
    fields: &[
        always(Fixed(4)),
        always(Fixed(2)),
        always(Fixed(8)),
        since(2, Fixed(8)),
        since(5, Fixed(8)),
        since(8, List(&FAULT)),
        since(8, Text),
    ],
    tagged: &[(0, One(&LEADER))],
    memory: size_of::<PartitionProduceResponse>() + 3 * size_of::<(i32, Appended)>(),
};
const TOPIC: Struct = Struct {
    fields: &[always(Text), always(List(&PARTITION))],
    tagged: &[],
    memory: size_of::<TopicProduceResponse>() + 3 * size_of::<(String, HashMap<i32, Appended>)>(),
};
const NODE: Struct = Struct {
    fields: &[always(Fixed(4)), always(Text), always(Fixed(4)), always(Text)],
    tagged: &[],
    memory: size_of::<NodeEndpoint>() + 3 * size_of::<(i32, &NodeEndpoint)>(),
};
const ANSWER: Struct = Struct {
    fields: &[always(List(&TOPIC)), since(1, Fixed(4))],
    tagged: &[(0, List(&NODE))],
    memory: 0,
};

impl Call for Append {
    type Answer = AppendAnswer;
    const API: &'static Api = &PRODUCE;

    /// Written by hand, byte for byte what `kafka-protocol` writes, so that batches are spliced in
    /// rather than copied.
    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let lengths = Lengths { flexible: Self::API.is_flexible(version) };
        let timeout = i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX);
        lengths.put_null_text(frame);
        frame.tail().put_i16(self.acks);
        frame.tail().put_i32(timeout);
        lengths.put_count(frame, self.topics.len())?;
        for (name, partitions) in &self.topics {
            lengths.put_text(frame, name)?;
            lengths.put_count(frame, partitions.len())?;
            for (index, batch) in partitions {
                frame.tail().put_i32(*index);
                lengths.put_count(frame, batch.len())?;
                frame.splice(batch.clone());
                lengths.put_no_tags(frame);
            }
            lengths.put_no_tags(frame);
        }
        lengths.put_no_tags(frame);
        Ok(())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(AppendAnswer, Duration), String> {
        let message: ProduceResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        let nodes = message.node_endpoints.iter().map(|node| (node.node_id.0, node)).collect();
        let mut answer = AppendAnswer::default();
        answer.partitions.reserve(message.responses.len());
        for topic in &message.responses {
            let partitions = answer.partitions.entry(topic.name.to_string()).or_default();
            partitions.reserve(topic.partition_responses.len());
            for partition in &topic.partition_responses {
                let appended = appended(partition, &nodes);
                partitions.insert(partition.index, appended);
            }
        }
        Ok((answer, pause(message.throttle_time_ms)))
    }
}

impl AppendAnswer {
    /// Takes the answer for one partition; `None` if the broker left it out.
    pub(crate) fn take(&mut self, topic: &str, partition: i32) -> Option<Appended> {
        self.partitions.get_mut(topic)?.remove(&partition)
    }
}

fn appended(partition: &PartitionProduceResponse, nodes: &HashMap<i32, &NodeEndpoint>) -> Appended {
    let faults = partition.record_errors.iter().map(|fault| {
        let message = fault.batch_index_error_message.as_ref().map(ToString::to_string);
        (fault.batch_index, message.unwrap_or_default())
    });
    let leader = &partition.current_leader;
    let node = nodes.get(&leader.leader_id.0);
    Appended {
        code: partition.error_code,
        base_offset: partition.base_offset,
        log_append_ms: Some(partition.log_append_time_ms).filter(|time| *time >= 0),
        faults: faults.collect(),
        leader: (leader.leader_id.0 >= 0).then(|| LeaderHint {
            id: leader.leader_id.0,
            epoch: leader.leader_epoch,
            endpoint: node.and_then(|node| Endpoint::new(&node.host, node.port)),
        }),
    }
}

/// How lengths are written, before and in flexible versions.
struct Lengths {
    flexible: bool,
}

impl Lengths {
    fn put_count(&self, frame: &mut FrameWriter, count: usize) -> Result<(), String> {
        let count = i32::try_from(count).map_err(|_| "a length beyond 2³¹".to_owned())?;
        if self.flexible {
            put_unsigned(frame.tail(), count.cast_unsigned() + 1);
        } else {
            frame.tail().put_i32(count);
        }
        Ok(())
    }

    fn put_text(&self, frame: &mut FrameWriter, text: &str) -> Result<(), String> {
        let length = i16::try_from(text.len()).map_err(|_| "a text beyond 2¹⁵".to_owned())?;
        if self.flexible {
            put_unsigned(frame.tail(), u32::from(length.cast_unsigned()) + 1);
        } else {
            frame.tail().put_i16(length);
        }
        frame.tail().put_slice(text.as_bytes());
        Ok(())
    }

    fn put_null_text(&self, frame: &mut FrameWriter) {
        if self.flexible {
            put_unsigned(frame.tail(), 0);
        } else {
            frame.tail().put_i16(-1);
        }
    }

    fn put_no_tags(&self, frame: &mut FrameWriter) {
        if self.flexible {
            put_unsigned(frame.tail(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::produce_response::LeaderIdAndEpoch;
    use kafka_protocol::messages::{BrokerId, ProduceRequest, TopicName};
    use kafka_protocol::protocol::{Encodable, StrBytes};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::calls::answered;
    use crate::calls::decode;

    fn ours(call: &Append, version: i16) -> Vec<u8> {
        let mut frame = FrameWriter::default();
        call.put(version, &mut frame).unwrap();
        let frame = frame.finish().unwrap();
        let mut slices = vec![std::io::IoSlice::new(&[]); 1000];
        let used = frame.fill(&mut slices);
        slices[1..used].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn theirs(call: &Append, version: i16) -> Vec<u8> {
        let topic = |(name, partitions): &TopicBatches| {
            let partition = |(index, batch): &(i32, Bytes)| {
                PartitionProduceData::default().with_index(*index).with_records(Some(batch.clone()))
            };
            TopicProduceData::default()
                .with_name(TopicName(StrBytes::from_string(name.to_string())))
                .with_partition_data(partitions.iter().map(partition).collect())
        };
        let mut bytes = BytesMut::new();
        ProduceRequest::default()
            .with_acks(call.acks)
            .with_timeout_ms(i32::try_from(call.timeout.as_millis()).unwrap())
            .with_topic_data(call.topics.iter().map(topic).collect())
            .encode(&mut bytes, version)
            .unwrap();
        bytes.to_vec()
    }

    proptest! {
        #[test]
        fn our_bytes_are_those_of_kafka_protocol(
            version in PRODUCE.least..=PRODUCE.most,
            acks in -1i16..=1,
            timeout in 0u64..100_000,
            topics in vec(("[a-z]{1,200}", vec((any::<i32>(), vec(any::<u8>(), 0..300)), 0..5)), 0..4),
        ) {
            let topics = topics.into_iter().map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(|(i, batch)| (i, batch.into())).collect();
                (Arc::from(name), partitions)
            });
            let timeout = Duration::from_millis(timeout);
            let call = Append { acks, timeout, topics: topics.collect() };
            prop_assert_eq!(ours(&call, version), theirs(&call, version));
        }
    }

    fn answer(version: i16) -> Bytes {
        let mut partition = PartitionProduceResponse::default()
            .with_index(3)
            .with_error_code(6)
            .with_base_offset(-1);
        if version >= 8 {
            let fault = BatchIndexAndErrorMessage::default()
                .with_batch_index(1)
                .with_batch_index_error_message(Some(StrBytes::from_static_str("bad")));
            partition = partition.with_record_errors(vec![fault]);
        }
        let mut response = ProduceResponse::default();
        if version >= 10 {
            let leader =
                LeaderIdAndEpoch::default().with_leader_id(BrokerId(2)).with_leader_epoch(7);
            partition = partition.with_current_leader(leader);
            let node = NodeEndpoint::default()
                .with_node_id(BrokerId(2))
                .with_host(StrBytes::from_static_str("two"))
                .with_port(9092);
            response = response.with_node_endpoints(vec![node]);
        }
        let topic = TopicProduceResponse::default()
            .with_name(TopicName(StrBytes::from_static_str("orders")))
            .with_partition_responses(vec![partition]);
        answered(&PRODUCE, version, &response.with_responses(vec![topic]))
    }

    #[test]
    fn every_version_of_the_answer_is_understood() {
        for version in PRODUCE.least..=PRODUCE.most {
            let (mut got, _) = decode(&Append::default(), version, answer(version)).unwrap();
            let partition = got.take("orders", 3).unwrap();
            assert_eq!((partition.code, partition.base_offset), (6, -1), "v{version}");
            assert_eq!(partition.faults.len(), usize::from(version >= 8));
            let endpoint = Endpoint::parse("two:9092");
            let hint = LeaderHint { id: 2, epoch: 7, endpoint };
            assert_eq!(partition.leader, (version >= 10).then_some(hint));
            assert_eq!(got.take("orders", 3), None);
        }
    }

    #[test]
    fn no_cut_or_changed_byte_panics() {
        for version in [3, 8, 9, 12] {
            let whole = answer(version);
            for at in 0..whole.len() {
                assert!(decode(&Append::default(), version, whole.slice(..at)).is_err());
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = whole.to_vec();
                    bytes[at] = byte;
                    let _ = decode(&Append::default(), version, bytes.into());
                }
            }
        }
    }
}
