//! Answers of every API in every version: arbitrary, cut, changed, and made to swell.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_client::decoders::{ANSWER_BYTES, ANSWER_GROWTH, Answers};
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchableTopicResponse, LeaderIdAndEpoch as FetchLeader,
    NodeEndpoint as FetchNode, PartitionData,
};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, FetchResponse, InitProducerIdResponse, ListOffsetsResponse,
    MetadataResponse, OffsetForLeaderEpochResponse, ProduceResponse, ProducerId,
    SaslAuthenticateResponse, SaslHandshakeResponse, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::memory::peak;
use crate::{KIB, changed, changes, groups};

const API_VERSIONS: i16 = 18;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const METADATA: i16 = 3;
const OFFSET_FOR_LEADER_EPOCH: i16 = 23;
const PRODUCE: i16 = 0;
const SASL_AUTHENTICATE: i16 = 36;
const SASL_HANDSHAKE: i16 = 17;

/// How many of each thing an answer has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Brokers, API keys or nodes.
    pub(crate) brokers: usize,
    pub(crate) topics: usize,
    /// In each topic.
    pub(crate) partitions: usize,
    /// Replicas, record errors or features.
    pub(crate) details: usize,
    /// Tagged fields that nobody knows, in each of the smallest things.
    pub(crate) unknown: i32,
    pub(crate) host_bytes: usize,
}

const SOUND: Counts =
    Counts { brokers: 2, topics: 2, partitions: 2, details: 2, unknown: 1, host_bytes: 9 };

fn frame(answers: &Answers, counts: Counts) -> Bytes {
    let mut bytes = BytesMut::from(&[0, 0, 0, 1][..]);
    if answers.is_flexible() && answers.key() != API_VERSIONS {
        bytes.put_u8(0);
    }
    let counts = if answers.is_flexible() { counts } else { Counts { unknown: 0, ..counts } };
    match answers.key() {
        API_VERSIONS => api_versions(answers.version, counts).encode(&mut bytes, answers.version),
        METADATA => metadata(counts).encode(&mut bytes, answers.version),
        FETCH => fetch(answers.version, counts).encode(&mut bytes, answers.version),
        LIST_OFFSETS => list_offsets(answers.version, counts).encode(&mut bytes, answers.version),
        OFFSET_FOR_LEADER_EPOCH => epoch_ends(counts).encode(&mut bytes, answers.version),
        PRODUCE => produce(answers.version, counts).encode(&mut bytes, answers.version),
        SASL_HANDSHAKE => SaslHandshakeResponse::default()
            .with_mechanisms(vec![StrBytes::from_static_str("PLAIN"); counts.topics])
            .encode(&mut bytes, answers.version),
        SASL_AUTHENTICATE => SaslAuthenticateResponse::default()
            .with_error_message(Some(StrBytes::from_static_str("no")))
            .with_auth_bytes(vec![7; counts.details].into())
            .with_unknown_tagged_fields(tags(counts))
            .encode(&mut bytes, answers.version),
        key if groups::APIS.contains(&key) => {
            bytes.extend_from_slice(&groups::body(answers, counts));
            Ok(())
        }
        _ => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(1))
            .with_producer_epoch(0)
            .with_unknown_tagged_fields(tags(counts))
            .encode(&mut bytes, answers.version),
    }
    .unwrap();
    bytes.freeze()
}

pub(crate) fn tags(counts: Counts) -> BTreeMap<i32, Bytes> {
    (100..100 + counts.unknown).map(|tag| (tag, Bytes::new())).collect()
}

pub(crate) fn text(bytes: usize) -> StrBytes {
    StrBytes::from_string("h".repeat(bytes))
}

fn api_versions(version: i16, counts: Counts) -> ApiVersionsResponse {
    let key = ApiVersion::default().with_unknown_tagged_fields(tags(counts));
    let answer = ApiVersionsResponse::default().with_api_keys(vec![key; counts.brokers]);
    if version < 3 {
        return answer;
    }
    answer
        .with_finalized_features_epoch(7)
        .with_zk_migration_ready(true)
        .with_supported_features(vec![SupportedFeatureKey::default(); counts.details])
        .with_finalized_features(vec![FinalizedFeatureKey::default(); counts.details])
}

fn metadata(counts: Counts) -> MetadataResponse {
    let broker = MetadataResponseBroker::default()
        .with_host(text(counts.host_bytes))
        .with_port(1)
        .with_unknown_tagged_fields(tags(counts));
    let partition = MetadataResponsePartition::default()
        .with_replica_nodes(vec![BrokerId(1); counts.details])
        .with_isr_nodes(vec![BrokerId(1); counts.details])
        .with_unknown_tagged_fields(tags(counts));
    let topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(1))))
        .with_partitions(vec![partition; counts.partitions])
        .with_unknown_tagged_fields(tags(counts));
    MetadataResponse::default()
        .with_brokers(vec![broker; counts.brokers])
        .with_topics(vec![topic; counts.topics])
}

fn produce(version: i16, counts: Counts) -> ProduceResponse {
    let mut partition =
        PartitionProduceResponse::default().with_unknown_tagged_fields(tags(counts));
    let mut answer = ProduceResponse::default();
    if version >= 8 {
        let fault = BatchIndexAndErrorMessage::default()
            .with_batch_index_error_message(Some(text(1)))
            .with_unknown_tagged_fields(tags(counts));
        partition = partition.with_record_errors(vec![fault; counts.details]);
    }
    if version >= 10 {
        let leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(0));
        partition = partition.with_current_leader(leader);
        let node = NodeEndpoint::default().with_host(text(counts.host_bytes)).with_port(1);
        answer = answer.with_node_endpoints(numbered(&node, counts.brokers));
    }
    let partitions = (0..counts.partitions)
        .map(|index| partition.clone().with_index(i32::try_from(index).unwrap()));
    let topic = TopicProduceResponse::default().with_partition_responses(partitions.collect());
    let name = |number: usize| TopicName(StrBytes::from_string(format!("{number:x}")));
    let topics = (0..counts.topics).map(|number| topic.clone().with_name(name(number)));
    answer.with_responses(topics.collect())
}

/// Of partition 0, over and over: nothing else is asked for.
fn fetch(version: i16, counts: Counts) -> FetchResponse {
    let mut partition = PartitionData::default()
        .with_aborted_transactions(Some(vec![AbortedTransaction::default(); counts.details]))
        .with_records(Some(Bytes::from_static(b"batch")))
        .with_unknown_tagged_fields(tags(counts));
    let mut answer = FetchResponse::default();
    if version >= 12 {
        partition =
            partition.with_current_leader(FetchLeader::default().with_leader_id(BrokerId(0)));
    }
    if version >= 16 {
        let node = FetchNode::default().with_host(text(counts.host_bytes)).with_port(1);
        let id = |id: usize| BrokerId(i32::try_from(id).unwrap());
        let nodes = (0..counts.brokers).map(|number| node.clone().with_node_id(id(number)));
        answer = answer.with_node_endpoints(nodes.collect());
    }
    let topic =
        FetchableTopicResponse::default().with_partitions(vec![partition; counts.partitions]);
    let topics = (0..counts.topics).map(|number| match version {
        13.. => topic.clone().with_topic_id(uuid::Uuid::from_u128(number as u128 + 1)),
        _ => topic.clone().with_topic(TopicName(StrBytes::from_string(format!("{number:x}")))),
    });
    answer.with_responses(topics.collect())
}

fn list_offsets(version: i16, counts: Counts) -> ListOffsetsResponse {
    let partition =
        ListOffsetsPartitionResponse::default().with_unknown_tagged_fields(tags(counts));
    let partition = if version >= 4 { partition.with_leader_epoch(7) } else { partition };
    let topic = ListOffsetsTopicResponse::default()
        .with_name(TopicName(text(counts.host_bytes)))
        .with_partitions(vec![partition; counts.partitions]);
    ListOffsetsResponse::default().with_topics(vec![topic; counts.topics])
}

fn epoch_ends(counts: Counts) -> OffsetForLeaderEpochResponse {
    let partition = EpochEndOffset::default().with_unknown_tagged_fields(tags(counts));
    let topic = OffsetForLeaderTopicResult::default()
        .with_topic(TopicName(text(counts.host_bytes)))
        .with_partitions(vec![partition; counts.partitions]);
    OffsetForLeaderEpochResponse::default().with_topics(vec![topic; counts.topics])
}

fn numbered(node: &NodeEndpoint, count: usize) -> Vec<NodeEndpoint> {
    let id = |id: usize| BrokerId(i32::try_from(id).unwrap());
    (0..count).map(|number| node.clone().with_node_id(id(number))).collect()
}

/// Reads the frame; fails if that takes more than the bound.
fn within_bound(answers: &Answers, frame: &Bytes) -> (Result<(), String>, usize) {
    let (result, peak) = peak(|| answers.read(frame.clone()));
    let bound = ANSWER_GROWTH * frame.len() + ANSWER_BYTES + 4 * KIB;
    assert!(peak <= bound, "{answers:?}: {} bytes took {peak}", frame.len());
    (result, peak)
}

#[test]
fn a_sound_answer_is_read_in_every_version_and_no_cut_of_it() {
    for answers in Answers::all() {
        let sound = frame(&answers, SOUND);
        assert_eq!(within_bound(&answers, &sound).0, Ok(()), "{answers:?}");
        for cut in 0..sound.len() {
            assert!(within_bound(&answers, &sound.slice(..cut)).0.is_err(), "{answers:?} {cut}");
        }
        let longer = Bytes::from([&sound[..], &[0]].concat());
        assert!(within_bound(&answers, &longer).0.is_err(), "{answers:?}");
    }
}

#[test]
fn a_huge_count_at_any_place_takes_no_memory() {
    for answers in Answers::all() {
        let sound = frame(&answers, SOUND);
        for at in 4..sound.len() {
            for count in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
                let mut bytes = sound.to_vec();
                bytes.splice(at..usize::min(at + 4, sound.len()), count.iter().copied());
                let (_, peak) = within_bound(&answers, &bytes.into());
                assert!(peak < 64 * KIB, "{answers:?} at {at}: {peak}");
            }
        }
    }
}

/// The first and last version of each API, and the first that is flexible.
fn edges() -> Vec<Answers> {
    let all = Answers::all();
    let is_like = |one: &Answers, other: Option<&Answers>| {
        other.is_some_and(|o| o.key() == one.key() && o.is_flexible() == one.is_flexible())
    };
    let inner = |at: usize| {
        let next = all.get(at + 1);
        let before = at.checked_sub(1).and_then(|before| all.get(before));
        is_like(&all[at], before) && next.is_some_and(|next| next.key() == all[at].key())
    };
    (0..all.len()).filter(|at| !inner(*at)).map(|at| all[at]).collect()
}

/// What takes the most memory for its bytes: the smallest of everything, many times.
#[test]
fn no_answer_takes_more_than_4_times_its_bytes_and_16_mib() {
    let few = Counts { host_bytes: 1, ..Counts::default() };
    let mut worst = 0f64;
    for answers in edges() {
        for many in [1000, 150_000] {
            let swollen = [
                Counts { brokers: many, ..few },
                Counts { brokers: many, unknown: 1, ..few },
                Counts { topics: many, ..few },
                Counts { topics: many, partitions: 1, ..few },
                Counts { topics: 1, partitions: many, ..few },
                Counts { topics: 1, partitions: many, unknown: 1, ..few },
                Counts { topics: 1, partitions: many, brokers: 1, host_bytes: 255, ..few },
                Counts { topics: 1, partitions: 1, details: many, ..few },
                Counts { brokers: 1, topics: 1, partitions: 1, unknown: many as i32, ..few },
            ];
            for counts in swollen {
                let frame = frame(&answers, counts);
                let (_, peak) = within_bound(&answers, &frame);
                let part = peak as f64 / (ANSWER_GROWTH * frame.len() + ANSWER_BYTES) as f64;
                worst = worst.max(part);
            }
        }
    }
    println!("the worst answer took {:.0} % of its bound", worst * 100.0);
}

#[test]
fn the_largest_answers_of_large_clusters_are_read() {
    for answers in edges().iter().filter(|answers| answers.key() == METADATA) {
        let wide = Counts {
            brokers: 4000,
            topics: 20,
            partitions: 10_000,
            details: 3,
            unknown: 0,
            host_bytes: 30,
        };
        assert_eq!(within_bound(answers, &frame(answers, wide)).0, Ok(()), "{answers:?}");
        let many = Counts { topics: 10_000, partitions: 20, details: 0, ..wide };
        assert_eq!(within_bound(answers, &frame(answers, many)).0, Ok(()), "{answers:?}");
    }
    for answers in edges().iter().filter(|answers| answers.key() == PRODUCE) {
        let all_moved = Counts {
            brokers: 300,
            topics: 1000,
            partitions: 10,
            details: 0,
            unknown: 0,
            host_bytes: 60,
        };
        assert_eq!(within_bound(answers, &frame(answers, all_moved)).0, Ok(()), "{answers:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_answers_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let frame = Bytes::from(bytes);
        for answers in Answers::all() {
            let _ = within_bound(&answers, &frame);
        }
    }

    #[test]
    fn changed_answers_are_read_or_refused(changes in changes()) {
        for answers in Answers::all() {
            let sound = frame(&answers, SOUND);
            let (_, peak) = within_bound(&answers, &changed(&sound, &changes).into());
            prop_assert!(peak < 256 * KIB, "{:?}: {}", answers, peak);
        }
    }
}
