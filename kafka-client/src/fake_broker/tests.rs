//! Stories about the fake itself: what its clients see, and what a raw peer sees.

mod listening;
mod reading;
mod waiting;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse,
    ProduceRequest, ProduceResponse, RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use tokio::time::Instant;

use super::*;
use crate::record_batch::{BatchBuilder, HEADER_BYTES};
use crate::{Outcome, Record};

fn cluster(brokers: i32) -> FakeCluster {
    let cluster = FakeCluster::new(FakeSettings { brokers, ..FakeSettings::default() });
    cluster.create_topic("orders", &[1]);
    cluster
}

fn config(cluster: &FakeCluster) -> Config {
    let bootstrap = cluster.bootstrap();
    let properties = [
        ("bootstrap.servers", bootstrap.as_str()),
        ("request.timeout.ms", "1000"),
        ("socket.connection.setup.timeout.ms", "1000"),
    ];
    Config::from_properties(properties).unwrap()
}

async fn send(client: &Client, value: &str) -> Outcome {
    let value = Some(value.as_bytes());
    let record = Record { partition: Some(0), key: None, value, headers: &[], timestamp_ms: 5 };
    client.producer().send("orders", record, Instant::now() + Duration::from_secs(60)).await
}

fn offset(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::Written { offset: Some(offset), .. } => offset,
        other => panic!("{other:?}"),
    }
}

fn values(cluster: &FakeCluster) -> Vec<String> {
    let text =
        |record: &StoredRecord| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
    cluster.log("orders", 0).iter().map(text).collect()
}

/// A peer that speaks to broker 1 without a client.
struct Peer(DuplexStream);

impl Peer {
    fn of(cluster: &FakeCluster) -> Self {
        Self(cluster.dial(&Endpoint::new("broker-1", 9092).unwrap()).unwrap())
    }

    async fn ask<Q: Encodable + HeaderVersion, A: Decodable>(
        &mut self,
        api: i16,
        version: i16,
        request: &Q,
        answered: (i16, i16),
    ) -> A {
        let mut frame = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(api)
            .with_request_api_version(version)
            .with_correlation_id(77);
        header.encode(&mut frame, Q::header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        self.0.write_i32(i32::try_from(frame.len()).unwrap()).await.unwrap();
        self.0.write_all(&frame).await.unwrap();
        let length = self.0.read_i32().await.unwrap();
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut answer).await.unwrap();
        let mut answer = Bytes::from(answer);
        assert_eq!(answer.get_i32(), 77);
        let (header, body) = answered;
        answer.advance(usize::try_from(header).unwrap());
        A::decode(&mut answer, body).unwrap()
    }

    /// Produces a batch of one record; gives code and base offset.
    async fn produce(&mut self, id: i64, epoch: i16, sequence: i32) -> (i16, i64) {
        let mut builder = BatchBuilder::with_capacity(HEADER_BYTES);
        let record =
            Record { partition: None, key: None, value: Some(b"v"), headers: &[], timestamp_ms: 5 };
        assert!(builder.push_within(&record, 1000));
        let mut batch = builder.finish(crate::record_batch::Stamp::NONE).to_vec();
        batch[43..51].copy_from_slice(&id.to_be_bytes());
        batch[51..53].copy_from_slice(&epoch.to_be_bytes());
        batch[53..57].copy_from_slice(&sequence.to_be_bytes());
        let checksum = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&checksum.to_be_bytes());
        let partition = PartitionProduceData::default().with_records(Some(batch.into()));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_static_str("orders")))
            .with_partition_data(vec![partition]);
        let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
        let answer: ProduceResponse = self.ask(PRODUCE, 9, &request, (1, 9)).await;
        let told = &answer.responses[0].partition_responses[0];
        (told.error_code, told.base_offset)
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_writes_in_memory_on_a_paused_clock() {
    let cluster = cluster(1);
    let client = cluster.client(config(&cluster));
    assert_eq!(offset(send(&client, "a").await), 0);
    assert_eq!(offset(send(&client, "b").await), 1);
    assert_eq!(values(&cluster), ["a", "b"]);
    let fates: Vec<_> = cluster.arrivals().iter().map(|arrival| arrival.fate).collect();
    assert_eq!(fates, [Fate::Appended(0), Fate::Appended(1)]);
    client.close(Instant::now()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.connections(), 0);
}

#[tokio::test]
async fn a_client_writes_through_sockets() {
    let cluster = cluster(2);
    cluster.listen().await.unwrap();
    let client = Client::new(config(&cluster));
    assert_eq!(offset(send(&client, "a").await), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_outlives_each_fault() {
    let pause = Duration::from_millis(500);
    let (nothing, appended) = (Trace::Nothing, Trace::Appended);
    let faults = [
        Fault::SlowStart(pause),
        Fault::SlowAnswer(Duration::from_secs(30)),
        Fault::NoAnswer,
        Fault::CloseBefore,
        Fault::CloseAfter,
        Fault::CutRequest,
        Fault::CutAnswer,
        Fault::Refuse { code: 6, trace: nothing },
        Fault::Refuse { code: 6, trace: appended },
        Fault::Refuse { code: 7, trace: Trace::AppendedUntold },
        Fault::Refuse { code: 6, trace: Trace::Truncated },
        Fault::WrongCorrelation,
        Fault::NegativeLength,
        Fault::HugeLength,
        Fault::ShortBody,
        Fault::Garbage,
        Fault::MissingPartition,
        Fault::Throttle(pause),
        Fault::MoveLeader,
        Fault::HalfOpen,
    ];
    for api in [API_VERSIONS, METADATA, PRODUCE] {
        for fault in &faults {
            let cluster = cluster(2);
            cluster.arm(api, When::Nth(1), fault.clone());
            let client = cluster.client(config(&cluster));
            let offset = usize::try_from(offset(send(&client, "a").await)).unwrap();
            assert_eq!(values(&cluster)[offset], "a", "{api} {fault:?}");
            assert!(cluster.requests(api) > 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_moved_leader_is_found_with_and_without_hint() {
    for leader_hints in [true, false] {
        let settings = FakeSettings { brokers: 2, leader_hints, ..FakeSettings::default() };
        let cluster = FakeCluster::new(settings);
        cluster.create_topic("orders", &[1]);
        let client = cluster.client(config(&cluster));
        assert_eq!(offset(send(&client, "a").await), 0);
        let asked = cluster.requests(METADATA);
        cluster.lead("orders", 0, Some(2));
        assert_eq!(cluster.leader("orders", 0), Some(Leader { id: Some(2), epoch: 1 }));
        assert_eq!(offset(send(&client, "b").await), 1);
        assert_eq!(cluster.arrivals().last().map(|arrival| arrival.broker), Some(2));
        assert!(leader_hints || cluster.requests(METADATA) > asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_broker_is_used_again_when_it_is_back() {
    let cluster = cluster(1);
    let client = cluster.client(config(&cluster));
    assert_eq!(offset(send(&client, "a").await), 0);
    cluster.kill(1);
    let sending = tokio::spawn(async move { send(&client, "b").await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((cluster.connections(), values(&cluster).len()), (0, 1));
    cluster.restart(1);
    assert_eq!(offset(sending.await.unwrap()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_broker_is_left_alone() {
    let pause = Duration::from_secs(5);
    for api in [API_VERSIONS, PRODUCE] {
        let cluster = cluster(1);
        cluster.arm(api, When::Nth(1), Fault::Throttle(pause));
        let (client, started) = (cluster.client(config(&cluster)), Instant::now());
        assert_eq!(offset(send(&client, "a").await), 0);
        assert_eq!(offset(send(&client, "b").await), 1);
        assert!(cluster.impatient().is_empty(), "{api}");
        assert!(started.elapsed() >= pause, "{api}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_throttled_broker_is_sent_is_counted() {
    let cluster = cluster(1);
    cluster.arm(PRODUCE, When::Nth(1), Fault::Throttle(Duration::from_secs(5)));
    let mut peer = Peer::of(&cluster);
    assert_eq!(peer.produce(7, 0, 0).await, (0, 0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(peer.produce(7, 0, 1).await, (0, 1), "it is worked on later all the same");
    assert!(!cluster.impatient().is_empty());
}

#[tokio::test(start_paused = true)]
async fn versions_are_asked_on_every_connection() {
    let cluster = cluster(1);
    let client = cluster.client(config(&cluster));
    for (most, value) in [(12, "a"), (3, "b"), (9, "c")] {
        cluster.upgrade(1, PRODUCE, 0, most);
        let asked = cluster.requests(API_VERSIONS);
        assert!(matches!(send(&client, value).await, Outcome::Written { .. }));
        assert!(cluster.requests(API_VERSIONS) > asked);
    }
    assert_eq!(values(&cluster), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_of_api_versions_that_is_too_new_is_answered_in_the_oldest() {
    let cluster = cluster(1);
    cluster.upgrade(1, API_VERSIONS, 0, 2);
    let mut peer = Peer::of(&cluster);
    let request = ApiVersionsRequest::default();
    let answer: ApiVersionsResponse = peer.ask(API_VERSIONS, 3, &request, (0, 0)).await;
    assert_eq!(answer.error_code, 35);
    assert!(answer.api_keys.iter().any(|key| key.api_key == 18 && key.max_version == 2));
}

#[tokio::test(start_paused = true)]
async fn each_producer_gets_an_id_of_its_own() {
    let cluster = cluster(1);
    let mut peer = Peer::of(&cluster);
    let mut ids = Vec::new();
    for version in 0..=4 {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let header = i16::from(version >= 2);
        let answer: InitProducerIdResponse =
            peer.ask(INIT_PRODUCER_ID, version, &request, (header, version)).await;
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
        ids.push(answer.producer_id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn sequences_are_judged_as_by_a_real_broker() {
    let cluster = cluster(1);
    let mut peer = Peer::of(&cluster);
    assert_eq!(peer.produce(7, 0, 0).await, (0, 0));
    assert_eq!(peer.produce(7, 0, 1).await, (0, 1));
    assert_eq!(peer.produce(7, 0, 0).await, (0, 0), "a duplicate gets its first offset");
    assert_eq!(peer.produce(7, 0, 3).await, (45, -1));
    assert_eq!(peer.produce(7, 1, 0).await, (0, 2));
    assert_eq!(peer.produce(7, 0, 2).await, (47, -1));
    cluster.expire_producers("orders", 0);
    assert_eq!(peer.produce(7, 1, 5).await, (0, 3), "without state any sequence goes");
    cluster.truncate("orders", 0, 2);
    assert_eq!(peer.produce(7, 0, 2).await, (0, 2), "the state follows from the log");
    assert_eq!(cluster.log("orders", 0).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_ends_the_connection() {
    let cluster = cluster(1);
    let mut peer = Peer::of(&cluster);
    let mut garbage = BytesMut::new();
    garbage.put_i32(-1);
    peer.0.write_all(&garbage).await.unwrap();
    assert_eq!(peer.0.read(&mut [0; 4]).await.unwrap(), 0);
}
