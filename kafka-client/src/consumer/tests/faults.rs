//! Leaders that move or are away, answers that are refusals, and topics that are made again.

use super::*;
use crate::fake_broker::{FETCH, Fault, LIST_OFFSETS, Trace, When};

#[tokio::test(start_paused = true)]
async fn a_leader_that_moves_during_a_fetch_is_followed() {
    for leader_hints in [false, true] {
        let metadata_delay = Duration::from_millis(300);
        let settings =
            FakeSettings { brokers: 3, leader_hints, metadata_delay, ..Default::default() };
        let cluster = FakeCluster::new(settings);
        cluster.create_topic("orders", &[1]);
        let consumer = consumer(&cluster);
        assert_eq!(read(&consumer, 0).await, (vec![], 0));
        let moving = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.lead("orders", 0, Some(2));
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.put("orders", 0, TestBatch::of(&[0, 1]).bytes());
            Instant::now()
        };
        let (fetched, put_at) = tokio::join!(consumer.fetch_one(0, WAIT), moving);
        let fetched = fetched.unwrap();
        assert_eq!((fetched.offsets(), fetched.next_offset), (vec![0, 1], 2));
        assert!(put_at.elapsed() < Duration::from_millis(100), "{:?}", put_at.elapsed());
        cluster.lead("orders", 0, Some(3));
        cluster.kill(2);
        assert_eq!(read(&consumer, 1).await, (vec![1], 2));
        cluster.lead("orders", 0, Some(1));
        assert_eq!(consumer.offset_of(At::Latest).await, Ok(2));
    }
}

#[tokio::test(start_paused = true)]
async fn what_passes_by_itself_is_tried_again_within_the_wait() {
    let cluster = with_batches(&[TestBatch::of(&[0])]);
    let consumer = consumer(&cluster);
    for code in [3, 5, 6, 9, 56, 74, 75, 78, 100, 103, -1] {
        let refusal = Fault::Refuse { code, trace: Trace::Nothing };
        cluster.arm(FETCH, When::Nth(1), refusal.clone());
        cluster.arm(LIST_OFFSETS, When::Nth(1), refusal);
        assert_eq!(read(&consumer, 0).await, (vec![0], 1), "{code}");
        assert_eq!(consumer.offset_of(At::Latest).await, Ok(1), "{code}");
    }
    for fault in [
        Fault::CloseBefore,
        Fault::CloseAfter,
        Fault::CutAnswer,
        Fault::MissingPartition,
        Fault::WrongCorrelation,
        Fault::ShortBody,
    ] {
        cluster.arm(FETCH, When::Nth(1), fault.clone());
        cluster.arm(LIST_OFFSETS, When::Nth(1), fault.clone());
        let fetched = consumer.fetch_one(0, WAIT).await.map(|it| it.offsets());
        assert_eq!(fetched, Ok(vec![0]), "{fault:?}");
        assert_eq!(consumer.offset_of(At::Latest).await, Ok(1), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_silent_holds_up_neither_others_nor_the_reader() {
    let cluster = cluster(2);
    cluster.create_topic("wide", &[1, 2]);
    (0..2).for_each(|partition| cluster.put("wide", partition, TestBatch::of(&[0]).bytes()));
    let consumer = consumer(&cluster);
    consumer.partitions("wide", WAIT).await.unwrap();
    cluster.silence("broker-2");
    let both = [("wide", 0, 0), ("wide", 1, 0)];
    let started = Instant::now();
    let fetched = consumer.fetch(&both, MIB, WAIT).await;
    assert_eq!(fetched[0].as_ref().unwrap().offsets(), [0]);
    assert!(matches!(&fetched[1], Err(ReadError::Unavailable(_))), "{:?}", fetched[1]);
    assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
    let fetched = consumer.fetch(&[("wide", 1, 0)], MIB, WAIT).await;
    assert!(matches!(&fetched[0], Err(ReadError::Unavailable(_))), "{:?}", fetched[0]);
    let took = started.elapsed();
    assert!((WAIT..WAIT + FETCH_PATIENCE * 2).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_a_leader_is_unavailable_and_its_neighbour_is_read() {
    let cluster = cluster(1);
    cluster.create_topic("wide", &[1, -1]);
    cluster.put("wide", 0, TestBatch::of(&[0]).bytes());
    let consumer = consumer(&cluster);
    let fetched = consumer.fetch(&[("wide", 0, 0), ("wide", 1, 0)], MIB, WAIT).await;
    assert_eq!(fetched[0].as_ref().unwrap().offsets(), [0]);
    let no_leader = Reason::DeadlineExceeded { last: Some(Reason::NoLeader.into()) };
    assert_eq!(fetched[1], Err(ReadError::Unavailable(no_leader.clone())));
    let offsets = consumer.offsets(&[("wide", 0), ("wide", 1)], At::Latest, WAIT).await;
    assert_eq!(offsets, [Ok(1), Err(no_leader)]);
    assert_eq!(consumer.partitions("wide", WAIT).await.unwrap().leaders, [Some(1), None]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_made_again_during_a_fetch_is_told() {
    let cluster = cluster(1);
    let consumer = consumer(&cluster);
    let before = consumer.partitions("orders", WAIT).await.unwrap().id;
    let recreating = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.create_topic("orders", &[1]);
        cluster.put("orders", 0, TestBatch::of(&[0]).bytes());
    };
    let (fetched, ()) = tokio::join!(consumer.fetch_one(0, WAIT), recreating);
    assert_eq!(fetched, Err(ReadError::Recreated));
    let fetched = consumer.fetch_one(0, WAIT).await.unwrap();
    assert_eq!(fetched.offsets(), [0]);
    assert_ne!(fetched.topic_id, before);
}

#[tokio::test(start_paused = true)]
async fn who_stops_listening_leaves_its_connection_for_the_next() {
    let cluster = with_batches(&[TestBatch::of(&[0])]);
    let consumer = consumer(&cluster);
    read(&consumer, 1).await;
    let connections = cluster.connections();
    for _ in 0..20 {
        let fetch = consumer.fetch_one(1, WAIT);
        assert!(tokio::time::timeout(Duration::from_millis(700), fetch).await.is_err());
        assert_eq!(read(&consumer, 0).await, (vec![0], 1));
    }
    assert!(cluster.connections() <= connections + 2, "{}", cluster.connections());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_told_to_pause_does_so() {
    let cluster = with_batches(&[TestBatch::of(&[0]), TestBatch::of(&[0])]);
    let consumer = consumer(&cluster);
    let pause = Duration::from_secs(1);
    cluster.arm(FETCH, When::Nth(1), Fault::Throttle(pause));
    assert_eq!(read(&consumer, 0).await, (vec![0, 1], 2));
    // What comes at the moment of the answer may have been under way.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let started = Instant::now();
    let fetched = consumer.fetch_one(1, WAIT).await.unwrap();
    assert_eq!(fetched.offsets(), [1]);
    assert!(started.elapsed() >= pause - Duration::from_millis(10), "{:?}", started.elapsed());
    assert_eq!(cluster.impatient(), [0; 0]);
}
