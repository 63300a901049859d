//! Stories about Produce on the wire.

use bytes::BytesMut;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::LeaderIdAndEpoch;
use kafka_protocol::messages::{BrokerId, ProduceRequest, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
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
    let mut partition =
        PartitionProduceResponse::default().with_index(3).with_error_code(6).with_base_offset(-1);
    if version >= 8 {
        let fault = BatchIndexAndErrorMessage::default()
            .with_batch_index(1)
            .with_batch_index_error_message(Some(StrBytes::from_static_str("bad")));
        partition = partition.with_record_errors(vec![fault]);
    }
    let mut response = ProduceResponse::default();
    if version >= 10 {
        let leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(2)).with_leader_epoch(7);
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
    let mut bytes = BytesMut::from(&[0, 0, 0, 1][..]);
    if PRODUCE.is_flexible(version) {
        bytes.extend_from_slice(&[0]);
    }
    response.with_responses(vec![topic]).encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

#[test]
fn every_version_of_the_answer_is_understood() {
    for version in PRODUCE.least..=PRODUCE.most {
        let (mut got, _) = decode::<Append>(version, answer(version)).unwrap();
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
            assert!(decode::<Append>(version, whole.slice(..at)).is_err());
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.to_vec();
                bytes[at] = byte;
                let _ = decode::<Append>(version, bytes.into());
            }
        }
    }
}
