//! Tests of readers: Fetch and ListOffsets, limits, waiting, and retention.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
};
use uuid::Uuid;

use super::waiting::waiting;
use super::*;
use crate::record_batch;

/// By name; topic ids begin with 13.
pub(super) const BY_NAME: i16 = 12;
/// For how long readers wait, and how long a throttled one is to pause.
pub(super) const WAIT: Duration = Duration::from_secs(10);

fn name(topic: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(topic))
}

pub(super) fn asks(partitions: &[(&'static str, i32, i64)]) -> FetchRequest {
    let topics = partitions.iter().map(|(topic, partition, offset)| {
        let partition = FetchPartition::default()
            .with_partition(*partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1_000_000);
        FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition])
    });
    FetchRequest::default().with_max_bytes(1_000_000).with_topics(topics.collect())
}

impl Peer {
    pub(super) async fn fetch(&mut self, version: i16, request: &FetchRequest) -> FetchResponse {
        self.ask(FETCH, version, request, (i16::from(version >= 12), version)).await
    }

    /// The answers of the first partition of each topic.
    async fn fetch_all(&mut self, request: &FetchRequest) -> Vec<PartitionData> {
        let answer = self.fetch(BY_NAME, request).await;
        assert_eq!((answer.error_code, answer.session_id), (0, 0));
        answer.responses.into_iter().map(|mut topic| topic.partitions.remove(0)).collect()
    }

    pub(super) async fn fetch_one(&mut self, request: &FetchRequest) -> PartitionData {
        self.fetch_all(request).await.remove(0)
    }

    /// Code, offset and timestamp.
    async fn offset(&mut self, version: i16, timestamp: i64) -> (i16, i64, i64) {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        self.offset_of(version, "orders", partition).await
    }

    async fn offset_of(
        &mut self,
        version: i16,
        topic: &'static str,
        partition: ListOffsetsPartition,
    ) -> (i16, i64, i64) {
        let partition =
            if version < 4 { partition.with_current_leader_epoch(-1) } else { partition };
        let topic =
            ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic]);
        let answered = (i16::from(version >= 6), version);
        let answer: ListOffsetsResponse = self.ask(LIST_OFFSETS, version, &request, answered).await;
        let told = &answer.topics[0].partitions[0];
        (told.error_code, told.offset, told.timestamp)
    }
}

/// Offsets of the records in an answer.
pub(super) fn offsets(answer: &PartitionData) -> Vec<i64> {
    let batches = record_batch::batches(answer.records.clone().unwrap());
    let records = batches.flat_map(|batch| record_batch::decode_all(&batch.unwrap()).unwrap().1);
    records.map(|record| record.offset).collect()
}

/// A cluster whose topic has so many batches of one record.
pub(super) async fn written(settings: FakeSettings, batches: i32) -> FakeCluster {
    let cluster = FakeCluster::new(settings);
    cluster.create_topic("orders", &[1]);
    let mut peer = Peer::of(&cluster);
    for sequence in 0..batches {
        assert_eq!(peer.produce(7, 0, sequence).await.0, 0);
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_read_in_every_version() {
    let cluster = written(FakeSettings::default(), 3).await;
    let id = Uuid::from_u128(cluster.state.lock().topics["orders"].id);
    let mut peer = Peer::of(&cluster);
    for version in 4..=18 {
        let mut request = asks(&[("orders", 0, 1)]);
        if version >= 13 {
            request.topics[0].topic = TopicName::default();
            request.topics[0].topic_id = id;
        }
        let answer = peer.fetch(version, &request).await;
        let topic = &answer.responses[0];
        assert_eq!(topic.topic.as_str(), if version < 13 { "orders" } else { "" });
        assert_eq!(topic.topic_id, if version < 13 { Uuid::nil() } else { id });
        let told = &topic.partitions[0];
        assert_eq!((told.error_code, offsets(told)), (0, vec![1, 2]), "version {version}");
        let stable = (told.high_watermark, told.last_stable_offset);
        assert_eq!((stable, answer.session_id), ((3, 3), 0));
        assert_eq!(told.log_start_offset, if version < 5 { -1 } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_partition_and_the_end_have_nothing_and_beyond_is_out_of_range() {
    for batches in [0, 2] {
        let cluster = written(FakeSettings::default(), batches).await;
        let (mut peer, end) = (Peer::of(&cluster), i64::from(batches));
        let told = peer.fetch_one(&asks(&[("orders", 0, end)])).await;
        assert_eq!((told.error_code, told.high_watermark, offsets(&told)), (0, end, vec![]));
        for offset in [end + 1, i64::MAX, -1] {
            let told = peer.fetch_one(&asks(&[("orders", 0, offset)])).await;
            assert_eq!((told.error_code, told.high_watermark), (1, -1), "{offset}");
            assert_eq!(told.records, Some(Bytes::new()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_batch_is_returned_whatever_the_limits() {
    let cluster = written(FakeSettings::default(), 3).await;
    cluster.create_topic("empty", &[1]);
    let mut peer = Peer::of(&cluster);
    let sizes =
        |told: &[PartitionData]| told.iter().map(|it| offsets(it).len()).collect::<Vec<_>>();
    let twice = asks(&[("empty", 0, 0), ("orders", 0, 0), ("orders", 0, 1)]);
    assert_eq!(sizes(&peer.fetch_all(&twice).await), [0, 3, 2]);
    for most in [1, 0, -1] {
        let told = peer.fetch_all(&twice.clone().with_max_bytes(most)).await;
        assert_eq!(sizes(&told), [0, 1, 0], "max_bytes {most}");
    }
    let mut narrow = twice.clone();
    narrow.topics.iter_mut().for_each(|topic| topic.partitions[0].partition_max_bytes = 1);
    assert_eq!(sizes(&peer.fetch_all(&narrow).await), [0, 1, 0]);
    let batch = i32::try_from(HEADER_BYTES).unwrap() + 8;
    let told = peer.fetch_all(&twice.clone().with_max_bytes(batch * 4)).await;
    assert_eq!(sizes(&told), [0, 3, 1]);
    narrow.topics.iter_mut().for_each(|topic| topic.partitions[0].partition_max_bytes = batch);
    assert_eq!(sizes(&peer.fetch_all(&narrow).await), [0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_behind_is_told_where_the_log_begins() {
    let settings = FakeSettings { brokers: 1, ..FakeSettings::embedded(250) };
    let cluster = written(settings, 9).await;
    let mut peer = Peer::of(&cluster);
    let told = peer.fetch_one(&asks(&[("orders", 0, 0)])).await;
    assert_eq!(told.error_code, 1);
    let (code, start, _) = peer.offset(10, -2).await;
    assert_eq!((code, start), (0, 6), "three batches of 69 bytes have room");
    let told = peer.fetch_one(&asks(&[("orders", 0, start)])).await;
    assert_eq!((told.log_start_offset, told.high_watermark), (6, 9));
    assert_eq!(offsets(&told), [6, 7, 8]);
    assert!(cluster.arrivals().is_empty(), "an embedded broker keeps none");
    assert_eq!(peer.produce(7, 0, 8).await, (0, 8), "a duplicate is known even so");
}

#[tokio::test(start_paused = true)]
async fn readers_are_refused_by_the_same_codes_as_at_a_real_broker() {
    let settings = FakeSettings { brokers: 2, ..FakeSettings::default() };
    let cluster = written(settings, 1).await;
    cluster.create_topic("others", &[2]);
    let mut peer = Peer::of(&cluster);
    for (topic, partition, code) in [("nothing", 0, 3), ("orders", 7, 3), ("others", 0, 6)] {
        assert_eq!(peer.fetch_one(&asks(&[(topic, partition, 0)])).await.error_code, code);
        let asked = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1);
        assert_eq!(peer.offset_of(10, topic, asked).await, (code, -1, -1));
    }
    cluster.lead("orders", 0, Some(1));
    for (epoch, code) in [(0, 74), (1, 0), (2, 75), (-1, 0)] {
        let mut request = asks(&[("orders", 0, 0)]);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        assert_eq!(peer.fetch_one(&request).await.error_code, code, "epoch {epoch}");
        let asked =
            ListOffsetsPartition::default().with_current_leader_epoch(epoch).with_timestamp(-1);
        assert_eq!(peer.offset_of(10, "orders", asked).await.0, code, "epoch {epoch}");
    }
    let mut unknown = asks(&[("orders", 0, 0)]);
    unknown.topics[0].topic = TopicName::default();
    unknown.topics[0].topic_id = Uuid::from_u128(3);
    assert_eq!(peer.fetch(13, &unknown).await.responses[0].partitions[0].error_code, 100);
}

#[tokio::test(start_paused = true)]
async fn no_session_is_opened_and_none_is_known() {
    let cluster = written(FakeSettings::default(), 1).await;
    let mut peer = Peer::of(&cluster);
    let request = asks(&[("orders", 0, 0)]);
    for (session, epoch, code) in [(0, 0, 0), (0, -1, 0), (5, -1, 0), (5, 1, 70), (0, 1, 70)] {
        let request = request.clone().with_session_id(session).with_session_epoch(epoch);
        let answer = peer.fetch(BY_NAME, &request).await;
        assert_eq!((answer.error_code, answer.session_id), (code, 0), "{session} {epoch}");
        assert_eq!(answer.responses.len(), usize::from(code == 0));
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_are_found_in_every_version() {
    let cluster = written(FakeSettings::default(), 3).await;
    cluster.create_topic("empty", &[1]);
    let mut peer = Peer::of(&cluster);
    for version in 1..=10 {
        assert_eq!(peer.offset(version, -1).await, (0, 3, -1), "version {version}");
        assert_eq!(peer.offset(version, -2).await, (0, 0, -1));
        assert_eq!(peer.offset(version, 0).await, (0, 0, 5));
        assert_eq!(peer.offset(version, 5).await, (0, 0, 5));
        assert_eq!(peer.offset(version, 6).await, (0, -1, -1));
        assert_eq!(peer.offset(version, -3).await, (0, 0, 5));
        assert_eq!(peer.offset(version, -4).await, (0, 0, -1));
        assert_eq!(peer.offset(version, -5).await, (0, -1, -1));
        assert_eq!(peer.offset(version, -9).await, (35, -1, -1));
        for (timestamp, offset) in [(-1, 0), (-2, 0), (-3, -1), (0, -1)] {
            let asked = ListOffsetsPartition::default().with_timestamp(timestamp);
            assert_eq!(peer.offset_of(version, "empty", asked).await, (0, offset, -1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn faults_hit_readers_too() {
    let cluster = written(FakeSettings::default(), 1).await;
    let mut peer = Peer::of(&cluster);
    let refusal = Fault::Refuse { code: 9, trace: Trace::Nothing };
    for (version, codes) in [(12, (9, None)), (4, (0, Some(9)))] {
        cluster.arm(FETCH, When::Nth(1), refusal.clone());
        let answer = peer.fetch(version, &asks(&[("orders", 0, 0)])).await;
        let first = answer.responses.first().map(|topic| topic.partitions[0].error_code);
        assert_eq!((answer.error_code, first), codes);
    }
    cluster.arm(LIST_OFFSETS, When::Nth(1), refusal);
    assert_eq!(peer.offset(10, -1).await, (9, -1, -1));
    cluster.arm(FETCH, When::Nth(1), Fault::MissingPartition);
    let answer = peer.fetch(BY_NAME, &asks(&[("orders", 0, 0)])).await;
    assert!(answer.responses[0].partitions.is_empty());
    cluster.arm(FETCH, When::Nth(1), Fault::Throttle(WAIT));
    let answer = peer.fetch(BY_NAME, &asks(&[("orders", 0, 0)])).await;
    assert_eq!(answer.throttle_time_ms, 10_000);
    cluster.arm(FETCH, When::Nth(1), Fault::CloseAfter);
    assert!(waiting(&cluster, asks(&[("orders", 0, 0)])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_names_no_topic_is_told_of_all() {
    let cluster = written(FakeSettings::default(), 0).await;
    cluster.create_topic("others", &[1, -1]);
    let mut peer = Peer::of(&cluster);
    for (version, topics, told) in [(0, Some(vec![]), 2), (1, None, 2), (1, Some(vec![]), 0)] {
        let request = MetadataRequest::default().with_topics(topics);
        let answer: MetadataResponse = peer.ask(METADATA, version, &request, (0, version)).await;
        assert_eq!(answer.topics.len(), told, "version {version}");
        assert_eq!(*answer.controller_id, if version == 0 { -1 } else { 1 });
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let replicas: Vec<_> = partitions.map(|it| (*it.leader_id, it.isr_nodes.len())).collect();
        assert_eq!(replicas, [(1, 1), (1, 1), (-1, 0)][..if told == 0 { 0 } else { 3 }]);
    }
}

#[tokio::test(start_paused = true)]
async fn transactions_are_refused_and_groups_are_not() {
    let cluster = written(FakeSettings::default(), 0).await;
    let mut peer = Peer::of(&cluster);
    for (version, kind, told) in [(0, 0, (0, 1)), (1, 0, (0, 1)), (2, 1, (35, -1))] {
        let request = FindCoordinatorRequest::default().with_key("group".into());
        let request = request.with_key_type(kind);
        let answer: FindCoordinatorResponse =
            peer.ask(FIND_COORDINATOR, version, &request, (0, version)).await;
        assert_eq!((answer.error_code, *answer.node_id), told, "version {version}");
    }
}
