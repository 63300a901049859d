//! Tests of long polls: a Fetch that waits for bytes, and what ends its wait.

use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_response::PartitionData;
use tokio::task::JoinHandle;

use super::reading::{BY_NAME, WAIT, asks, offsets, written};
use super::*;

/// A request that waits for one byte of `orders` behind `offset`.
pub(super) fn waits(offset: i64) -> FetchRequest {
    let wait = i32::try_from(WAIT.as_millis()).unwrap();
    asks(&[("orders", 0, offset)]).with_min_bytes(1).with_max_wait_ms(wait)
}

/// A peer that waits; gives its answer and for how long it has waited.
pub(super) fn waiting(
    cluster: &FakeCluster,
    request: FetchRequest,
) -> JoinHandle<(PartitionData, Duration)> {
    let mut peer = Peer::of(cluster);
    tokio::spawn(async move {
        let started = Instant::now();
        (peer.fetch_one(&request).await, started.elapsed())
    })
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_with_an_append_or_when_its_time_is_up() {
    let cluster = written(FakeSettings::default(), 1).await;
    let mut writer = Peer::of(&cluster);
    let poll = waiting(&cluster, waits(1));
    let many = waiting(&cluster, waits(1).with_min_bytes(100));
    let late = waiting(&cluster, waits(1).with_min_bytes(1000));
    settle().await;
    assert!(!poll.is_finished());
    writer.produce(7, 0, 1).await;
    let (told, waited) = poll.await.unwrap();
    assert_eq!((offsets(&told), waited), (vec![1], Duration::from_millis(100)));
    settle().await;
    assert!(!many.is_finished(), "one batch is not enough");
    writer.produce(7, 0, 2).await;
    let (told, waited) = many.await.unwrap();
    assert_eq!((offsets(&told), waited), (vec![1, 2], Duration::from_millis(200)));
    let (told, waited) = late.await.unwrap();
    assert_eq!((offsets(&told), waited), (vec![1, 2], WAIT));
    let (told, waited) = waiting(&cluster, waits(3)).await.unwrap();
    assert_eq!((told.error_code, offsets(&told), waited), (0, vec![], WAIT));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_waiting_does_not_bring() {
    let cluster = written(FakeSettings::default(), 2).await;
    let mut narrow = waits(0).with_min_bytes(1000);
    narrow.topics[0].partitions[0].partition_max_bytes = 100;
    let at_once = [
        (waits(0), 0),
        (waits(9), 1),
        (narrow, 0),
        (waits(2).with_max_wait_ms(-5), 0),
        (waits(0).with_min_bytes(i32::MAX).with_max_bytes(100), 0),
    ];
    for (request, code) in at_once {
        let (told, waited) = waiting(&cluster, request.clone()).await.unwrap();
        assert_eq!((told.error_code, waited), (code, Duration::ZERO), "{request:?}");
    }
    let started = Instant::now();
    let nothing = Peer::of(&cluster).fetch(BY_NAME, &asks(&[]).with_max_wait_ms(500)).await;
    assert_eq!((nothing.responses.len(), started.elapsed()), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_hears_of_a_new_leader_and_ends_with_its_broker() {
    let settings = FakeSettings { brokers: 2, ..FakeSettings::default() };
    let cluster = written(settings, 1).await;
    let poll = waiting(&cluster, waits(1));
    settle().await;
    cluster.lead("orders", 0, Some(2));
    let (told, waited) = poll.await.unwrap();
    assert_eq!((told.error_code, waited), (6, Duration::from_millis(100)));
    cluster.lead("orders", 0, Some(1));
    let poll = waiting(&cluster, waits(1));
    settle().await;
    assert!(cluster.connections() > 0);
    cluster.kill(1);
    assert!(poll.await.is_err(), "its stream ends without an answer");
    settle().await;
    assert_eq!(cluster.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_waits_no_longer_and_what_is_sent_ahead_is_answered_later() {
    let cluster = written(FakeSettings::default(), 0).await;
    settle().await;
    assert_eq!(cluster.connections(), 0);
    let mut frame = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(FETCH)
        .with_request_api_version(BY_NAME)
        .with_correlation_id(1);
    header.encode(&mut frame, 2).unwrap();
    waits(0).encode(&mut frame, BY_NAME).unwrap();
    let mut peer = Peer::of(&cluster);
    peer.0.write_i32(i32::try_from(frame.len()).unwrap()).await.unwrap();
    peer.0.write_all(&frame).await.unwrap();
    settle().await;
    assert_eq!(cluster.connections(), 1);
    let started = Instant::now();
    drop(peer);
    settle().await;
    assert_eq!(cluster.connections(), 0);
    let mut peer = Peer::of(&cluster);
    for correlation in [1, 2] {
        frame[4..8].copy_from_slice(&i32::to_be_bytes(correlation));
        peer.0.write_i32(i32::try_from(frame.len()).unwrap()).await.unwrap();
        peer.0.write_all(&frame).await.unwrap();
    }
    for correlation in [1, 2] {
        let length = peer.0.read_i32().await.unwrap();
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        peer.0.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..4], i32::to_be_bytes(correlation));
    }
    assert!(started.elapsed() >= 2 * WAIT, "one is worked on behind the other");
}
