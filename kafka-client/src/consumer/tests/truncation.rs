//! Logs that lose records in an unclean election, and positions that notice.

use super::*;
use crate::fake_broker::{FETCH, Fault, OFFSET_FOR_LEADER_EPOCH, Trace, When};

/// The last version of Fetch that compares no epochs.
const BLIND: i16 = 11;

impl Consumer {
    async fn fetch_after(
        &self,
        offset: i64,
        epoch: Option<i32>,
        wait: Duration,
    ) -> Result<Fetched, ReadError> {
        let position = Position::new("orders", 0, offset).epoch(epoch);
        self.fetch_from(&[position], MIB, wait).await.remove(0)
    }
}

/// A cluster whose Fetch ends with this version.
fn speaking(version: i16) -> FakeCluster {
    let cluster = with_batches(&[TestBatch::of(&[0, 1]), TestBatch::of(&[0, 1])]);
    cluster.upgrade(1, FETCH, 4, version);
    cluster
}

fn put(cluster: &FakeCluster, deltas: &[i32]) {
    cluster.put("orders", 0, TestBatch::of(deltas).bytes());
}

#[tokio::test(start_paused = true)]
async fn records_that_were_cut_off_and_replaced_are_told_and_no_others_are_given() {
    for version in [17, 12, BLIND, 9] {
        let cluster = speaking(version);
        let consumer = consumer(&cluster);
        let fetched = consumer.fetch_one(0, WAIT).await.unwrap();
        assert_eq!((fetched.next_offset, fetched.epoch), (4, Some(0)), "version {version}");
        cluster.truncate("orders", 0, 2);
        for grown in [false, true] {
            if grown {
                put(&cluster, &[0, 1, 2, 3]);
            }
            let started = Instant::now();
            let told = consumer.fetch_after(4, Some(0), WAIT).await;
            let expected = Err(ReadError::Truncated { to: 2, epoch: Some(0) });
            assert_eq!(told, expected, "version {version}, {grown}");
            assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        }
        let fetched = consumer.fetch_after(2, Some(0), WAIT).await.unwrap();
        assert_eq!((fetched.offsets(), fetched.epoch), (vec![2, 3, 4, 5], Some(1)));
        let asked = cluster.requests(OFFSET_FOR_LEADER_EPOCH);
        assert_eq!(asked == 0, version > BLIND, "version {version}");
        let fetched = consumer.fetch_after(4, Some(1), WAIT).await.unwrap();
        assert_eq!(fetched.offsets(), [4, 5]);
        assert_eq!(cluster.requests(OFFSET_FOR_LEADER_EPOCH), asked, "nothing has changed since");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_at_the_end_is_told_of_a_truncation() {
    for version in [17, BLIND] {
        let cluster = speaking(version);
        let consumer = consumer(&cluster);
        let truncating = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.truncate("orders", 0, 2);
            put(&cluster, &[0, 1, 2, 3]);
        };
        let (told, ()) = tokio::join!(consumer.fetch_after(4, Some(0), WAIT), truncating);
        let expected = Err(ReadError::Truncated { to: 2, epoch: Some(0) });
        assert_eq!(told, expected, "version {version}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_for_readers_may_be_cut_off_behind_them() {
    for version in [17, BLIND] {
        let cluster = speaking(version);
        cluster.put("orders", 0, TestBatch::marker(7, true).bytes());
        let consumer = consumer(&cluster);
        let truncating = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.truncate("orders", 0, 4);
            put(&cluster, &[0, 1]);
        };
        let (fetched, ()) = tokio::join!(consumer.fetch_after(4, Some(0), WAIT), truncating);
        let fetched = fetched.unwrap();
        assert_eq!((fetched.offsets(), fetched.epoch), (vec![4, 5], Some(1)), "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_that_has_all_records_is_read_on() {
    for version in [17, BLIND] {
        let cluster = speaking(version);
        let consumer = consumer(&cluster);
        cluster.lead("orders", 0, Some(1));
        put(&cluster, &[0]);
        let fetched = consumer.fetch_after(3, Some(0), WAIT).await.unwrap();
        assert_eq!((fetched.offsets(), fetched.epoch), (vec![3, 4], Some(1)), "{version}");
        cluster.put("orders", 0, TestBatch::of(&[]).until(2).bytes());
        cluster.lead("orders", 0, Some(1));
        cluster.put("orders", 0, TestBatch::marker(7, true).bytes());
        let fetched = consumer.fetch_after(5, Some(1), Duration::ZERO).await.unwrap();
        assert_eq!((fetched.next_offset, fetched.epoch), (9, Some(2)), "behind a marker");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_end_comes_with_an_epoch_that_notices_truncation_and_survives_without_records() {
    for version in [17, BLIND] {
        let cluster = speaking(version);
        let consumer = consumer(&cluster);
        cluster.lead("orders", 0, Some(1));
        let ends = consumer.offsets_with_epochs(&[("orders", 0)], At::Latest, WAIT).await;
        assert_eq!(ends, [Ok((4, Some(1)))], "nothing was written in this epoch");
        cluster.lead("orders", 0, Some(1));
        let fetched = consumer.fetch_after(4, Some(1), Duration::ZERO).await.unwrap();
        assert_eq!((fetched.offsets(), fetched.epoch), (vec![], Some(0)), "version {version}");
        put(&cluster, &[0]);
        let fetched = consumer.fetch_after(4, Some(1), WAIT).await.unwrap();
        assert_eq!((fetched.offsets(), fetched.epoch), (vec![4], Some(2)), "version {version}");
        cluster.truncate("orders", 0, 2);
        put(&cluster, &[0, 1, 2]);
        let told = consumer.fetch_after(4, Some(1), WAIT).await;
        assert_eq!(told, Err(ReadError::Truncated { to: 2, epoch: Some(0) }));
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_the_log_has_never_seen_starts_over() {
    for version in [17, BLIND] {
        let cluster = speaking(version);
        cluster.expire("orders", 0, 2);
        let consumer = consumer(&cluster);
        let told = consumer.fetch_after(3, Some(9), WAIT).await;
        if version == BLIND {
            // A broker that compares nothing has no newer epoch to tell of.
            assert_eq!(told.map(|fetched| fetched.offsets()), Ok(vec![3]));
        } else {
            assert_eq!(told, Err(ReadError::Truncated { to: 2, epoch: None }));
        }
        let told = consumer.fetch_after(9, Some(9), WAIT).await;
        assert_eq!(told, Err(ReadError::OutOfRange { log_start: 2, log_end: 4 }), "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_expired_is_no_truncation() {
    for version in [17, BLIND] {
        let cluster = speaking(version);
        let consumer = consumer(&cluster);
        cluster.lead("orders", 0, Some(1));
        put(&cluster, &[0, 1]);
        for start in [2, 4, 6] {
            cluster.expire("orders", 0, start);
            let told = consumer.fetch_after(1, Some(0), WAIT).await;
            let expected = ReadError::OutOfRange { log_start: start, log_end: 6 };
            assert_eq!(told, Err(expected), "version {version}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_cannot_tell_is_read_on_and_one_that_does_not_answer_is_asked_again() {
    let cluster = speaking(BLIND);
    cluster.lead("orders", 0, Some(1));
    for fault in [
        Fault::CloseAfter,
        Fault::ShortBody,
        Fault::Refuse { code: 75, trace: Trace::Nothing },
        Fault::Refuse { code: 29, trace: Trace::Nothing },
    ] {
        cluster.arm(OFFSET_FOR_LEADER_EPOCH, When::Nth(1), fault.clone());
        let fetched = consumer(&cluster).fetch_after(3, Some(0), WAIT).await;
        assert_eq!(fetched.map(|fetched| fetched.offsets()), Ok(vec![3]), "{fault:?}");
    }
    cluster.upgrade(1, OFFSET_FOR_LEADER_EPOCH, 2, 2);
    let fetched = consumer(&cluster).fetch_after(3, Some(0), WAIT).await.unwrap();
    assert_eq!(fetched.offsets(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_position_of_another_topic_of_that_name_is_told() {
    let cluster = speaking(17);
    let consumer = consumer(&cluster);
    let id = consumer.partitions("orders", WAIT).await.unwrap().id;
    let position = Position::new("orders", 0, 1).epoch(Some(0)).topic_id(id);
    let fetched = consumer.fetch_from(&[position], MIB, WAIT).await.remove(0).unwrap();
    assert_eq!((fetched.offsets(), fetched.topic_id), (vec![1, 2, 3], id));
    cluster.create_topic("orders", &[1]);
    put(&cluster, &[0, 1, 2]);
    let told = consumer.fetch_from(&[position], MIB, WAIT).await.remove(0);
    assert_eq!(told, Err(ReadError::Recreated));
    let told = consumer.fetch_from(&[position], MIB, WAIT).await.remove(0);
    assert_eq!(told, Err(ReadError::Recreated), "also when it is known already");
}
